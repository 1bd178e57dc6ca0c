"""Closing with unread input destroys what was sent before."""

from __future__ import annotations

import contextlib
import socket
from concurrent.futures import ThreadPoolExecutor

import hardsock as hs
from hardsock.lab.endpoint import listen
from hardsock.lab.experiments.experiment import Bar, Chart, Experiment, Finding
from hardsock.lab.namespaces import run_in_namespace

_REPLY = 400_000
_ASKED = b"GET / " + b"x" * 5000


def _exchange(side: str) -> tuple[int, bool]:
    """Bytes of the reply that came, and whether the end was a reset."""
    with listen() as listener:
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        client.settimeout(20)
        client.connect(listener.getsockname())
        server, _ = listener.accept()
        server.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        client.sendall(_ASKED)
        if side == "plain":
            server.recv(6)  # It has seen enough, and answers.
            server.sendall(bytes(_REPLY))
            server.close()
            return _drain(client)
        with hs.adopt(server) as conn:
            conn.recv_exactly(6, timeout=20)
            conn.sendall(bytes(_REPLY), timeout=20)
            with ThreadPoolExecutor(1) as other:
                ending = other.submit(conn.finish, timeout=20)
                answer = _drain(client)
                ending.result()
            return answer


def _drain(client: socket.socket) -> tuple[int, bool]:
    got = 0
    with client, contextlib.suppress(ConnectionResetError):
        while data := client.recv(65536):
            got += len(data)
        return got, False
    return got, True


def measure_inside() -> dict[str, tuple[int, bool]]:
    """What the client got of a reply whose sender did not read all of the request."""
    return {side: _exchange(side) for side in ("plain", "hardsock")}


def _measure() -> Finding:
    found = run_in_namespace(measure_inside, timeout=60.0)
    (plain, by_reset), (ours, ours_by_reset) = found["plain"], found["hardsock"]
    return Finding(
        plain={"bytes": plain, "by_reset": float(by_reset)},
        hardsock={"bytes": ours, "by_reset": float(ours_by_reset)},
        shown=plain < _REPLY and by_reset and ours == _REPLY and not ours_by_reset,
        text=f"A server sent {_REPLY:,} bytes without reading the whole request, and closed: the "
        f"client got {plain:,} of them and a reset. `send` had taken every byte and no call of the "
        f"server's failed. With `conn.finish()` the client got {ours:,} and a clean end.",
        chart=Chart(
            kind="timeline",
            title="What the client gets of a reply of 400,000 bytes",
            x="bytes that arrived",
            bars=[
                Bar("close()", 0, plain, "plain", failed=True, note=f"{plain:,}, then a reset"),
                Bar("finish()", 0, ours, "hardsock", note=f"{ours:,}"),
            ],
            limit=(_REPLY, "sent"),
        ),
    )


HALF_CLOSE = Experiment(
    name="half-close",
    title="The reply that was sent and never came",
    claim="Closing a socket while input is unread makes TCP reset the connection, and the reset "
    "destroys data that was sent before and not yet read by the peer.",
    why="RFC 1122 section 4.2.2.13 (and RFC 2525 section 2.17) demand the reset: somebody's bytes are "
    "thrown away, so the peer must learn of it. At the peer it empties the receive queue, whole or in "
    "part.",
    instead="End the sending direction, read until the peer ends, then close: `conn.finish(timeout=)` "
    "does that, and says what was delivered. `shutdown(SHUT_WR)` and a loop of `recv` do it for plain "
    "sockets; that loop needs a deadline.",
    measure=_measure,
    seconds=2,
)
