"""Pytest fixtures of the lab: `wire` and `bad_proxy`. hardsock's plugin makes them known.

@pytest.mark.wire(delay=0.05, loss=0.15)
def test_orders_get_through(wire): ...

@pytest.mark.bad_proxy(latency=0.1)
def test_a_slow_cache_is_no_outage(bad_proxy):
    proxy = bad_proxy(("127.0.0.1", 6379))
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any, Protocol

import pytest

from hardsock.lab.bad_proxy import BadProxy
from hardsock.lab.unavailable import Unavailable
from hardsock.lab.wire import InvalidResult, Wire


class MakeProxy(Protocol):
    """What the fixture `bad_proxy` is: the arguments are those of `BadProxy`."""

    def __call__(self, target: tuple[str, int], **behaviour: Any) -> BadProxy: ...


def _settings(request: pytest.FixtureRequest, name: str) -> dict[str, Any]:
    mark = request.node.get_closest_marker(name)
    if mark is None:
        return {}
    if mark.args:
        raise pytest.UsageError(f"{request.node.nodeid}: @pytest.mark.{name} takes names only")
    return dict(mark.kwargs)


def wire_for(request: pytest.FixtureRequest) -> Iterator[Wire]:
    """The wire of one test; see the fixture."""
    with ExitStack() as opened:
        try:
            wire = opened.enter_context(Wire(**_settings(request, "wire")))
        except Unavailable as exc:
            if os.environ.get("CI") == "true":
                pytest.fail(f"CI must provide this: {exc}", pytrace=False)
            pytest.skip(str(exc))
        yield wire
        try:
            wire.judge()
        except InvalidResult as exc:
            pytest.skip(f"INVALID, whatever the test said: {exc}")


def proxies_for(request: pytest.FixtureRequest) -> Iterator[MakeProxy]:
    """Makes the proxies of one test; see the fixture."""
    settings = _settings(request, "bad_proxy")
    with ExitStack() as opened:

        def make(target: tuple[str, int], **behaviour: Any) -> BadProxy:
            return opened.enter_context(BadProxy(target, **{**settings, **behaviour}))

        yield make
