"""uvicorn with httptools on uvloop, one process."""

from __future__ import annotations

import socket

import uvicorn

from . import _common, _http, _http_apps
from ._crowd import Announce


def version() -> str:
    import httptools
    import uvloop

    return f"uvicorn {uvicorn.__version__}, httptools {httptools.__version__}, uvloop {uvloop.__version__}"


def _serve(announce: Announce) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=_common.BACKLOG) as sock:
        config = uvicorn.Config(
            _http_apps.asgi,
            loop="uvloop",
            http="httptools",
            lifespan="off",
            access_log=False,
            log_level="warning",
            backlog=_common.BACKLOG,
            timeout_keep_alive=3600,
        )
        announce(sock.getsockname()[1])
        uvicorn.Server(config).run(sockets=[sock])


_works = _http.Works(parsed=_serve)
http_parsed = _works.http_parsed
http_parsed_churn = _works.http_parsed_churn
http_idle_memory = _works.http_idle_memory
