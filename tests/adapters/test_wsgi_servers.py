"""waitress and cheroot, given a listener of hardsock's."""

from __future__ import annotations

import http.client
import logging
import threading
from typing import Any

import waitress
from cheroot import wsgi

import hardsock as hs

_PLAIN: dict[str, Any] = {"clear_untrusted_proxy_headers": True}
"""The default from 3.0 on, of which 2.0 warns."""


def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]


def ask(address: Any) -> None:
    """Three requests over one connection."""
    client = http.client.HTTPConnection(*address, timeout=60)
    for size in (1, 10, 100_000):
        client.request("POST", "/", bytes(size))
        response = client.getresponse()
        assert (response.status, response.read()) == (200, bytes(size))
    client.close()


def test_waitress() -> None:
    with hs.listen(("127.0.0.1", 0)) as listener:
        server = waitress.create_server(app, sockets=[listener.to_socket()], threads=2, **_PLAIN)
        thread = threading.Thread(target=server.run)
        thread.start()
        try:
            ask(listener.address)
            assert listener.stats().accepted == 1  # It listens nowhere else.
        finally:
            # The workers first: one that has answered still pulls the trigger, which close() closes.
            server.task_dispatcher.shutdown(timeout=60)
            for worker in threading.enumerate():
                if worker.name.startswith("waitress-"):
                    worker.join()
            server.trigger.pull_trigger(
                server.close
            )  # In its own thread: it ends with its sockets.
            thread.join(60)
        assert not thread.is_alive()


def test_cheroot() -> None:
    with hs.listen(("127.0.0.1", 0)) as listener:
        server = wsgi.Server(listener.address, app, numthreads=2, shutdown_timeout=60)
        server.bind = lambda *args: setattr(server, "socket", listener.to_socket())
        thread = threading.Thread(target=server.start)
        thread.start()
        try:
            ask(listener.address)
            assert listener.stats().accepted == 1
        finally:
            server.stop()
            thread.join(60)
            getattr(logging, "statistics", {}).clear()  # It keeps every server there.
        assert not thread.is_alive()
