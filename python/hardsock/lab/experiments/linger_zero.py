"""SO_LINGER with zero seconds, on a listener: each close is a reset that destroys what is under way."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Callable
from typing import Any

import hardsock as hs
from hardsock.lab.endpoint import listen
from hardsock.lab.experiments.experiment import Bar, Chart, Experiment, Finding
from hardsock.lab.namespaces import run_in_namespace

_REPLY = 400_000
_PATIENCE = 60.0
_ZERO = struct.pack("ii", 1, 0)


def _exchange(end: Callable[[socket.socket], Any], *, zero: bool) -> tuple[int, bool]:
    """Bytes of a reply that came, whose sender ends like this; and whether it was a reset.

    The client's window is small and it reads late, so most of the reply is still with the sender.
    """
    with listen() as listener, socket.socket() as client:
        if zero:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ZERO)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        client.settimeout(_PATIENCE)
        client.connect(listener.getsockname())
        server, _ = listener.accept()  # It has the listener's options.
        server.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        server.sendall(bytes(_REPLY))
        if zero:
            end(server)
            return _drain(client)
        ending = threading.Thread(target=end, args=(server,))
        ending.start()
        found = _drain(client)
        ending.join()
        return found


def _drain(client: socket.socket) -> tuple[int, bool]:
    got = 0
    with contextlib.suppress(ConnectionResetError):
        while data := client.recv(65536):
            got += len(data)
        client.close()
        return got, False
    return got, True


def _finish(server: socket.socket) -> None:
    with hs.adopt(server) as conn:
        conn.finish(timeout=_PATIENCE)


def measure_inside() -> dict[str, tuple[int, bool]]:
    """What came of the reply, by how it ended."""
    return {
        "zero": _exchange(socket.socket.close, zero=True),
        "close": _exchange(socket.socket.close, zero=False),
        "hardsock": _exchange(_finish, zero=False),
    }


def _measure() -> Finding:
    found = run_in_namespace(measure_inside, timeout=240.0)
    (zero, by_reset), (close, close_by_reset), (ours, ours_by_reset) = found.values()
    return Finding(
        plain={
            "bytes_with_linger_zero": zero,
            "resets": float(by_reset),
            "bytes_with_a_plain_close": close,
        },
        hardsock={"bytes": ours, "resets": float(ours_by_reset)},
        shown=by_reset
        and zero < _REPLY
        and not (close_by_reset or ours_by_reset)
        and close == ours == _REPLY,
        text=f"A server sent {_REPLY:,} bytes and closed. With SO_LINGER of zero seconds, which its connection had from "
        f"the listener, the client got {zero:,} and a reset, and no call of the server's failed. After a plain "
        f"close the kernel delivered all {close:,} in the background; so it was with `conn.finish()`, which also "
        "said so.",
        chart=Chart(
            kind="timeline",
            title=f"What the client gets of a reply of {_REPLY:,} bytes",
            x="bytes that arrived",
            bars=[
                Bar(
                    "SO_LINGER {1, 0}",
                    0,
                    zero,
                    "plain",
                    failed=True,
                    note=f"{zero:,}, then a reset",
                ),
                Bar("close()", 0, close, "plain", note=f"{close:,}"),
                Bar("finish()", 0, ours, "hardsock", note=f"{ours:,}"),
            ],
        ),
    )


LINGER_ZERO = Experiment(
    name="linger-zero",
    title="Recycled fast, and the reply with it",
    claim="SO_LINGER with zero seconds does not close faster; it sends RST instead of FIN, and what was sent and "
    "not yet delivered is destroyed.",
    why="A plain close returns at once and the kernel delivers in the background. `{on, 0}` throws the send "
    "queue away and resets (socket(7), RFC 9293 section 3.10.5); `{on, 5}` lets close wait, for up to five "
    "seconds. Articles have these backwards. On a listener every accepted connection inherits it.",
    instead="`conn.finish(timeout=)` where it counts that all arrived, and `conn.close()` where it does not; "
    "`conn.abort()` for a connection of which nobody wants anything any more. hardsock "
    "sets no SO_LINGER unless it is told to, and `hs.listen` refuses it.",
    measure=_measure,
    seconds=2,
)
