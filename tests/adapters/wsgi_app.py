"""A WSGI application for the tests of servers; runs in their processes."""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Iterable
from typing import Any

import hardsock as hs

_gate = threading.Event()


def application(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    """Do what the path says.

    /pid            the worker's process id
    /echo           the body, with its length
    /scheme         wsgi.url_scheme and REMOTE_ADDR
    /connection     what gunicorn.socket is
    /wait           waits until somebody asks for /go
    /go             lets go who waits
    /asleep         sleeps until the client has left (a hardsock call)
    /left           how many clients have left /asleep
    /raise          an OSError, before the answer
    /broken         an exception in the middle of the answer
    /file           a file, by wsgi.file_wrapper
    /arrived        when the request arrived
    """
    act = globals()["_" + environ["PATH_INFO"][1:]]
    body: Iterable[bytes] = act(environ)
    headers = [] if environ["PATH_INFO"] == "/broken" else [("Content-Type", "text/plain")]
    if isinstance(body, bytes):
        headers.append(("Content-Length", str(len(body))))
        body = [body]
    start_response("200 OK", headers)
    return body


def _pid(environ: dict[str, Any]) -> bytes:
    return str(os.getpid()).encode()


def _echo(environ: dict[str, Any]) -> bytes:
    data: bytes = environ["wsgi.input"].read()
    return b"%d %s" % (len(data), data[:1000])


def _scheme(environ: dict[str, Any]) -> bytes:
    return f"{environ['wsgi.url_scheme']} {environ['REMOTE_ADDR']}".encode()


def _connection(environ: dict[str, Any]) -> bytes:
    return type(environ["gunicorn.socket"]).__name__.encode()


def _wait(environ: dict[str, Any]) -> bytes:
    assert _gate.wait(60)
    return b"let go"


def _go(environ: dict[str, Any]) -> bytes:
    _gate.set()
    return b"go"


_clients_left = 0


def _asleep(environ: dict[str, Any]) -> bytes:
    global _clients_left
    try:
        hs.sleep(60)
    except hs.Cancelled:
        _clients_left += 1
        raise
    return b"nobody left"


def _left(environ: dict[str, Any]) -> bytes:
    return b"%d" % _clients_left


def _raise(environ: dict[str, Any]) -> bytes:
    raise FileNotFoundError("the application's own")


def _broken(environ: dict[str, Any]) -> Iterable[bytes]:
    yield b"half"
    raise ValueError("in the middle")


def _file(environ: dict[str, Any]) -> Any:
    with open(__file__, "rb") as own:
        return environ["wsgi.file_wrapper"](io.BytesIO(own.read()))


def _arrived(environ: dict[str, Any]) -> bytes:
    return repr(environ["hardsock.arrived"]).encode()


timed = hs.deadline.wsgi(application)
