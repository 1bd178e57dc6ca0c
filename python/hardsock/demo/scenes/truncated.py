"""A reply that stops in the middle, by an orderly end and by a reset."""

from __future__ import annotations

import http.client
import io
import select
import shutil
import socket
import urllib.request

import hardsock as hs
from hardsock.demo.scene import Bound, Outcome, Scene
from hardsock.lab import PeerScript
from hardsock.lab.endpoint import connect_to

_TIMEOUT = 5.0
_ANNOUNCED = 1000
_SENT = 600
_REQUEST_END = b"\r\n\r\n"
_HEAD = f"HTTP/1.1 200 OK\r\nContent-Length: {_ANNOUNCED}\r\n\r\n".encode()
_HALF = b"." * _SENT


def _peer(ending: str, reply: bytes = _HALF) -> PeerScript:
    """Answers a request with less than it should, then ends: by ``"close"`` or by ``"rst"``."""
    return PeerScript([("recv_until", _REQUEST_END), ("send", reply), (ending,)])


def _until_empty(sock: socket.socket) -> bytes:
    """What everybody writes first."""
    data = b""
    while part := sock.recv(65536):
        data += part
    return data


def _taken_for_whole() -> int:
    """Bytes that the usual loop got before the end that it believed in."""
    with _peer("close") as peer, connect_to(peer.address) as sock:
        sock.sendall(_REQUEST_END)
        return len(_until_empty(sock))


def _copied_from_urllib() -> str:
    """What shutil.copyfileobj copies out of a response, and whether anybody complains."""
    target = io.BytesIO()
    complaint = "no error"
    # Whatever proxy the environment names, this goes to the peer.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with _peer("close", _HEAD + _HALF) as peer:
        url = "http://{}:{}/".format(*peer.address)
        with opener.open(url, timeout=_TIMEOUT) as response:
            try:
                shutil.copyfileobj(response, target)
            except http.client.HTTPException as exc:
                complaint = type(exc).__name__
    return f"{len(target.getvalue())}, {complaint}"


def _after_a_reset() -> str:
    """What recv says of a reset that another call, here a send, has been told of."""
    with _peer("rst") as peer, connect_to(peer.address) as sock:
        sock.sendall(_REQUEST_END)
        _wait_for_reset(sock.fileno())
        try:
            sock.send(b"x")
        except ConnectionResetError:
            pass
        return f"{len(_until_empty(sock))} bytes and a clean end"


def _wait_for_reset(fd: int) -> None:
    poller = select.poll()
    poller.register(fd, 0)  # An error is always reported.
    if not poller.poll(_TIMEOUT * 1000):
        raise TimeoutError("the reset did not arrive")


def _stdlib() -> Outcome:
    return Outcome(
        f"recv until empty: {_taken_for_whole()} bytes, taken for whole; urllib and copyfileobj: "
        f"{_copied_from_urllib()}; reset that a send was told of: {_after_a_reset()}"
    )


def _ask(ending: str, error: type[hs.HardsockError]) -> tuple[str, int, int]:
    """The name and the bytes_done of the *error*, and how many bytes can be read after it."""
    with _peer(ending) as peer, hs.connect(peer.address, timeout=_TIMEOUT) as conn:
        with hs.timeout(_TIMEOUT):
            conn.sendall(_REQUEST_END)
            try:
                conn.recv_exactly(_ANNOUNCED)
            except error as exc:
                return type(exc).__name__, exc.bytes_done, len(conn.recv(_ANNOUNCED))
    raise AssertionError(f"{_SENT} bytes were taken for {_ANNOUNCED}")


def _reset_told_twice() -> int:
    """How many of the two calls, a send and a recv, were told of one reset."""
    told = 0
    with _peer("rst") as peer, hs.connect(peer.address, timeout=_TIMEOUT) as conn:
        conn.sendall(_REQUEST_END, timeout=_TIMEOUT)
        _wait_for_reset(conn.fileno())
        try:
            conn.send(b"x", timeout=_TIMEOUT)
        except hs.Reset:
            told += 1
        try:
            while conn.recv(65536, timeout=_TIMEOUT):
                pass
        except hs.Reset:
            told += 1
    return told


def _hardsock() -> Outcome:
    truncated, known, kept = _ask("close", hs.Truncated)
    reset, known_of_reset, kept_of_reset = _ask("rst", hs.Reset)
    told = _reset_told_twice()
    return Outcome(
        f"{truncated}, bytes_done {known}, {kept} can still be read; a reset: {reset}, bytes_done "
        f"{known_of_reset}, told to {told} of 2 calls",
        {
            "bytes known": min(known, known_of_reset),
            "bytes kept": min(kept, kept_of_reset),
            "calls told of a reset": told,
        },
    )


SCENE = Scene(
    name="truncated",
    title=f"A reply of {_ANNOUNCED} bytes that ends after {_SENT}",
    shows="A stream that ends early is no clean end, and a reset is neither, no matter who hears of it.",
    stdlib=_stdlib,
    hardsock=_hardsock,
    bounds=(
        Bound(of="bytes known", at_least=_SENT, at_most=_SENT),
        Bound(of="bytes kept", at_least=_SENT, at_most=_SENT),
        Bound(of="calls told of a reset", at_least=2, at_most=2),
    ),
)
