"""Closing early resets: a server that refuses without reading sends RSTs by the hundred."""

from __future__ import annotations

import contextlib
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import hardsock as hs
from hardsock.lab.endpoint import listen
from hardsock.lab.experiments.experiment import Chart, Experiment, Finding
from hardsock.lab.experiments.packets import Tap, arrows
from hardsock.lab.namespaces import run_in_namespace

_CLIENTS = 100
_REFUSAL = b"503 busy\r\n"


def _refuse(side: str, server: socket.socket) -> None:
    """Say no to what was asked, and end: nobody reads the question."""
    if side == "plain":
        server.sendall(_REFUSAL)
        server.close()
        return
    with hs.adopt(server) as conn:
        conn.sendall(_REFUSAL, timeout=30)
        conn.finish(timeout=30)


def _one(side: str, listener: socket.socket, other: ThreadPoolExecutor) -> bool:
    """Whether the client read the refusal and a clean end."""
    with socket.create_connection(listener.getsockname(), timeout=30) as client:
        client.sendall(b"question")
        server, _ = listener.accept()
        refused = other.submit(_refuse, side, server)
        if side == "plain":
            refused.result()
        whole = False
        with contextlib.suppress(ConnectionResetError):
            whole = client.recv(100) == _REFUSAL and client.recv(100) == b""
    refused.result()
    return whole


def _resets() -> int:
    """RSTs that this network namespace has sent."""
    names, values = (
        line.split()
        for line in Path("/proc/self/net/snmp").read_text().splitlines()
        if line.startswith("Tcp:")
    )
    return int(values[names.index("OutRsts")])


def measure_inside() -> dict[str, Any]:
    """Per side: resets that were sent, clients that read all, and the packets of the first one."""
    found: dict[str, Any] = {}
    with ThreadPoolExecutor(1) as other:
        for side in ("plain", "hardsock"):
            before = _resets()
            with listen() as listener:
                with Tap() as tap:
                    whole = int(_one(side, listener, other))
                    packets = tap.read(listener.getsockname()[1])
                whole += sum(_one(side, listener, other) for _ in range(_CLIENTS - 1))
            found[side] = {"resets": _resets() - before, "whole": whole, "packets": packets}
    return found


def _measure() -> Finding:
    found = run_in_namespace(measure_inside, timeout=120.0)
    plain, ours = found["plain"], found["hardsock"]
    return Finding(
        plain={"resets_sent": plain["resets"], "clean_ends": plain["whole"]},
        hardsock={"resets_sent": ours["resets"], "clean_ends": ours["whole"]},
        shown=plain["resets"] > _CLIENTS / 2 and ours["resets"] == 0 and ours["whole"] == _CLIENTS,
        text=f"A server refused {_CLIENTS} clients without reading what they had asked. With "
        f"`close()` it sent {plain['resets']} resets, and {plain['whole']} clients saw a clean end. "
        f"With `conn.finish()` it sent {ours['resets']}, and {ours['whole']} saw one.",
        chart=Chart(
            kind="sequence",
            title=f"A refusal: the first of {_CLIENTS}",
            x="client",
            y="server",
            arrows=[
                *arrows(plain["packets"], "plain: close()"),
                *arrows(ours["packets"], "hardsock: finish()"),
            ],
        ),
    )


RESET_STORM = Experiment(
    name="reset-storm",
    title="A reset for every refusal",
    claim="A storm of resets is usually no attack and no network: it is servers that close "
    "connections whose input they have not read.",
    why="A close with unread input sends RST instead of FIN (RFC 2525 section 2.17). SO_LINGER with "
    "zero seconds, which is often recommended to get rid of TIME_WAIT, does the same by intent. The "
    "client sees ECONNRESET, perhaps before it has read the answer.",
    instead="`conn.finish(timeout=)`: end the sending direction, read what comes, close. "
    "`hardsock.reset_counts()` says who reset whom and why; `/proc/net/netstat` has TCPAbortOnData "
    "and TCPAbortOnClose for the whole machine.",
    measure=_measure,
    seconds=2,
)
