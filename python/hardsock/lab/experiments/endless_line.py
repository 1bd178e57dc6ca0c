"""A line without an end: what a buffered reader keeps of it."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from pathlib import Path
from typing import Any

import hardsock as hs
from hardsock.lab.endpoint import listen
from hardsock.lab.experiments.experiment import Chart, Experiment, Finding, Line
from hardsock.lab.namespaces import run_in_namespace

_MIB = 1 << 20
_SENT = 64
"""MiB that the client sends, without an end of line."""
_LIMIT = 64 << 10
_PATIENCE = 120.0


def _resident() -> float:
    """MiB of this process that are in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / _MIB


def _send(address: tuple[str, int], memory: list[tuple[int, float]]) -> None:
    before = _resident()
    block = bytes(_MIB)
    with contextlib.suppress(OSError), socket.create_connection(address, _PATIENCE) as client:
        memory.append((0, 0.0))
        for number in range(_SENT):
            client.sendall(block)
            memory.append((number + 1, _resident() - before))
        client.shutdown(socket.SHUT_WR)
        client.recv(1)


def measure_inside(side: str) -> dict[str, Any]:
    """(MiB sent, MiB that the process grew by) while the server reads one line; how that ended."""
    memory: list[tuple[int, float]] = []
    with listen() as listener:
        client = threading.Thread(target=_send, args=(listener.getsockname(), memory))
        client.start()
        accepted, _ = listener.accept()
        if side == "plain":
            with accepted, accepted.makefile("rb") as lines:
                said = f"{len(lines.readline()):,} bytes"
        else:
            with hs.adopt(accepted) as conn:
                try:
                    conn.recv_until(b"\n", max_size=_LIMIT, timeout=_PATIENCE)
                    said = "a line"
                except hs.HardsockError as exc:
                    said = type(exc).__name__
        client.join()
    return {"memory": memory, "said": said}


def _measure() -> Finding:
    found = {
        side: run_in_namespace(measure_inside, side, timeout=240.0)
        for side in ("plain", "hardsock")
    }
    most = {side: max(grown for _, grown in one["memory"]) for side, one in found.items()}
    ours = found["hardsock"]["memory"]
    return Finding(
        plain={"mib_grown": most["plain"], "mib_sent": found["plain"]["memory"][-1][0]},
        hardsock={"mib_grown": most["hardsock"], "mib_sent": ours[-1][0]},
        shown=most["plain"] > _SENT / 2 and most["hardsock"] < _SENT / 8,
        text=f"A client sent {_SENT} MiB without an end of line. `makefile().readline()` kept all of it, "
        f"{most['plain']:.0f} MiB, and returned it as a line. `recv_until` with a limit of {_LIMIT >> 10} KiB ended "
        f"with `{found['hardsock']['said']}`, and the process had grown by {most['hardsock']:.1f} MiB.",
        chart=Chart(
            kind="lines",
            title="Memory of a server that reads one line",
            x="MiB sent without an end of line",
            y="MiB grown",
            lines=[
                Line("makefile().readline()", "plain", found["plain"]["memory"]),
                Line(f"recv_until, at most {_LIMIT >> 10} KiB", "hardsock", ours),
            ],
        ),
    )


ENDLESS_LINE = Experiment(
    name="endless-line",
    title="The line that does not end",
    claim="A buffered reader that looks for the end of a message keeps what it has read until it finds one: the "
    "memory of a server is what its clients want it to be.",
    why="`readline()` without a limit reads on until there is an end (io.BufferedReader), and so do readers of "
    "other languages that grow their buffers. The limit that is forgotten is not one of speed: one client "
    "with a gigabyte is enough. asyncio's StreamReader has a limit, 64 KiB; plain files have none.",
    instead="Give every message a limit: `recv_until(end, max_size=)`, `lines(max_size=)` and frames have one "
    "in any case. Beyond it the call fails, and the connection is not used again. With files: "
    "`readline(limit)`, and a look at whether the end was there.",
    measure=_measure,
    seconds=4,
)
