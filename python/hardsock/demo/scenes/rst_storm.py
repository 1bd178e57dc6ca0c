"""A server that refuses uploads: it answers early, reads no more, and ends the connection."""

from __future__ import annotations

import contextlib
import http.client
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hardsock as hs
from hardsock.demo.measure import LIMIT
from hardsock.demo.scene import Bound, Outcome, Scene
from hardsock.lab import Call, Unavailable, run_in_namespace
from hardsock.lab.endpoint import listen

_CLIENTS = 50
_UPLOAD = b"u" * (4 << 20)  # More than the buffers on the way can hold.
_HEAD_END = b"\r\n\r\n"
_BODY = b"No uploads here.\n".ljust(2000, b".")
_REPLY = f"HTTP/1.1 413 Too Large\r\nContent-Length: {len(_BODY)}\r\n\r\n".encode() + _BODY
_TIMEOUT = 20.0

_Address = tuple[str, int]


def _http_client(address: _Address) -> int:
    """Upload as everybody does; how many bytes of the answer are seen."""
    client = http.client.HTTPConnection(*address, timeout=_TIMEOUT)
    try:
        client.request("POST", "/", body=_UPLOAD)
        return len(client.getresponse().read())
    finally:
        client.close()


def _hardsock_client(address: _Address) -> int:
    """Upload, and when that is cut off look whether the server has said why."""
    with hs.timeout(_TIMEOUT), hs.connect(address) as conn:
        with contextlib.suppress(hs.Reset):
            conn.sendall(b"POST / HTTP/1.1" + _HEAD_END + _UPLOAD)
        return len(conn.recv_exactly(len(_REPLY)).partition(_HEAD_END)[2])


def _refuse(conn: Any) -> None:
    """Answer as soon as the upload has begun."""
    head = b""
    while _HEAD_END not in head:
        head += conn.recv(1)
    conn.recv(1, socket.MSG_PEEK)
    conn.sendall(_REPLY)


def _refuse_and_close(listener: socket.socket) -> None:
    conn = listener.accept()[0]
    with conn:
        conn.settimeout(_TIMEOUT)
        _refuse(conn)


def _refuse_and_finish(listener: hs.Listener) -> None:
    with hs.timeout(_TIMEOUT), listener.accept() as conn:
        _refuse(conn)
        conn.finish()


def _answers(
    client: Callable[[_Address], int], address: _Address, serve: Callable[[], None]
) -> Iterator[tuple[int, bool]]:
    """For each client the bytes that it saw, and whether it was told of a reset."""
    for _ in range(_CLIENTS):
        with Call(client, address) as call:
            serve()
            try:
                yield call.result(), False
            except ConnectionError:
                yield 0, True


def _play(server: str, client: str) -> dict[str, int]:
    """One storm, in a namespace if there is one: then the kernel's counters count nothing else."""
    visit = _http_client if client == "http" else _hardsock_client
    before = _kernel_counts()
    if server == "close":
        with listen() as plain:
            seen = list(_answers(visit, plain.getsockname(), lambda: _refuse_and_close(plain)))
    else:
        with hs.listen(("127.0.0.1", 0)) as listener:
            address = listener.getsockname()
            seen = list(_answers(visit, address, lambda: _refuse_and_finish(listener)))
    after = _kernel_counts()
    return {
        "answers": sum(size == len(_BODY) for size, _ in seen),
        "bytes": sum(size for size, _ in seen),
        "errors": sum(failed for _, failed in seen),
        **{name: after[name] - before[name] for name in after},
    }


def _kernel_counts() -> dict[str, int]:
    """Resets that this network namespace has sent, and closes that found unread data."""
    counts = {}
    for file in ("snmp", "netstat"):
        lines = [line.split() for line in Path("/proc/self/net", file).read_text().splitlines()]
        for names, values in zip(lines[::2], lines[1::2], strict=True):
            counts.update(
                {names[0] + name: value for name, value in zip(names, values, strict=True)}
            )
    return {
        "resets": int(counts["Tcp:OutRsts"]),
        "closed unread": int(counts["TcpExt:TCPAbortOnClose"]),
    }


def _storm(server: str, client: str) -> tuple[dict[str, int], str]:
    """What came of it, and how the resets are to be put."""
    try:
        counts: dict[str, int] = run_in_namespace(_play, server, client, timeout=LIMIT)
    except Unavailable:
        counts = _play(server, client)
        counts["resets"] = counts["errors"]
        return counts, f"{counts['resets']} resets seen by the clients"
    return counts, (
        f"{counts['resets']} resets by the kernel's own count, {counts['closed unread']} closes with "
        f"unread input"
    )


def _stdlib() -> Outcome:
    counts, resets = _storm("close", "http")
    return Outcome(
        f"close(): {counts['answers']} of {_CLIENTS} answers arrive, {counts['bytes']:,} bytes; "
        f"{resets}"
    )


def _hardsock() -> Outcome:
    counts, resets = _storm("finish", "http")
    saved, _ = _storm("close", "hardsock")
    return Outcome(
        f"finish(): {counts['answers']} of {_CLIENTS} answers arrive, {counts['bytes']:,} bytes; "
        f"{resets}; and a hardsock client reads {saved['answers']} of {_CLIENTS} from the server "
        f"that does close()",
        {
            "answers": counts["answers"],
            "resets": counts["resets"],
            "answers saved by the client": saved["answers"],
        },
    )


SCENE = Scene(
    name="rst-storm",
    title=f"{_CLIENTS} uploads, all refused early, with {len(_UPLOAD) >> 20} MiB under way each",
    shows="Closing with unread input is a reset that takes the answer along; finish() delivers it.",
    stdlib=_stdlib,
    hardsock=_hardsock,
    bounds=(
        Bound(of="answers", at_least=_CLIENTS, at_most=_CLIENTS),
        Bound(of="resets", at_most=0),
        Bound(of="answers saved by the client", at_least=_CLIENTS - 1),
    ),
)
