"""The scenes of the demo, in the order in which they are played."""

from __future__ import annotations

import hardsock
from hardsock.demo.scene import Scene
from hardsock.demo.scenes import (
    black_holes,
    blocked,
    dead_dns,
    drip,
    fd_limit,
    half_close,
    pool_leak,
    real_servers,
    rst_storm,
    tls_stall,
    truncated,
    tune,
)

SCENES: tuple[Scene, ...] = (
    *real_servers.SCENES,
    *black_holes.SCENES,
    dead_dns.SCENE,
    *blocked.SCENES,
    drip.SCENE,
    truncated.SCENE,
    half_close.SCENE,
    rst_storm.SCENE,
    fd_limit.SCENE,
    pool_leak.SCENE,
    tls_stall.SCENE,
    tune.SCENE,
)

# Parts of hardsock are imported when they are used first. Scenes measure calls, so here, once.
for _name in hardsock.__all__:
    getattr(hardsock, _name)
