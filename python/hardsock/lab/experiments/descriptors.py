"""Out of descriptors, an accept loop becomes a busy loop."""

from __future__ import annotations

import contextlib
import errno
import resource
import select
import socket
import time
from pathlib import Path
from typing import Any

import hardsock as hs
from hardsock.lab import inside
from hardsock.lab.endpoint import listen
from hardsock.lab.experiments.experiment import Bar, Chart, Experiment, Finding
from hardsock.lab.namespaces import Namespace

_LIMIT, _CLIENTS = 64, 100
_WATCHED = 1.0
_PORT = 7100
# A machine that stands still for a second proves nothing.
_ENOUGH = 2000


def connect_all() -> None:
    """More clients than the server may have descriptors."""
    with contextlib.ExitStack() as held:
        for _ in range(_CLIENTS):
            held.enter_context(socket.create_connection(("127.0.0.1", _PORT), timeout=60))
        inside.ready()
        inside.wait_for_stop()


def _plain(conns: list[Any]) -> int:
    """How often accept failed in the time that is watched."""
    failed = 0
    with listen("127.0.0.1", _PORT, backlog=2 * _CLIENTS) as listener:
        listener.setblocking(False)
        end = _when_all_have_come()
        while time.monotonic() < end or failed < _ENOUGH:
            if not select.select([listener], [], [], _WATCHED)[0]:
                continue
            try:
                conns.append(listener.accept()[0])
            except OSError as exc:
                if exc.errno != errno.EMFILE:
                    raise
                failed += 1  # The usual loop logs it and goes on: the listener is still readable.
    return failed


def _ours(conns: list[Any]) -> int:
    failed = 0
    with hs.listen(("127.0.0.1", _PORT), backlog=2 * _CLIENTS) as listener:
        end = _when_all_have_come()
        while (left := end - time.monotonic()) > 0:
            try:
                conns.append(listener.accept(timeout=left))
            except hs.DeadlineExceeded:
                pass
            except OSError as exc:
                if exc.errno != errno.EMFILE:
                    raise
                failed += 1
    return failed


def _when_all_have_come() -> float:
    """Wait until all clients are in the listener's queue; return when to stop."""
    inside.ready()
    inside.wait_for_stop()
    return time.monotonic() + _WATCHED


def _awake() -> float:
    """Seconds in which this thread ran, or was ready to: on a busy machine it gets only a part."""
    try:
        running, ready, _slices = map(int, Path("/proc/thread-self/schedstat").read_text().split())
    except FileNotFoundError:
        return time.thread_time()
    return (running + ready) / 1e9


def serve(side: str) -> dict[str, float]:
    """Accept until there are no descriptors, and on for a second."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    conns: list[Any] = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (_LIMIT, hard))
    try:
        begin = _awake()
        failed = _plain(conns) if side == "plain" else _ours(conns)
        awake = _awake() - begin
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    accepted = len(conns)
    for conn in conns:
        conn.close()
    return {"accepted": accepted, "accept_failed": failed, "seconds_awake": awake}


def _measure() -> Finding:
    found = {}
    for side in ("plain", "hardsock"):
        with (
            Namespace() as home,
            home.start(serve, side, timeout=120.0) as server,
        ):
            server.wait_ready()
            with home.start(connect_all, timeout=120.0) as clients:
                clients.wait_ready()
                found[side] = server.stop()
    plain, ours = found["plain"], found["hardsock"]
    return Finding(
        plain=plain,
        hardsock=ours,
        shown=plain["accept_failed"] >= _ENOUGH and ours["accept_failed"] < 100,
        text=f"{_CLIENTS} clients, a server that may have {_LIMIT} descriptors: it accepted "
        f"{plain['accepted']}, and then `accept` failed {plain['accept_failed']:,} times in "
        f"{_WATCHED:g} s, for {plain['seconds_awake']:.2f} s of which the loop ran or waited for a processor. A "
        f"`Listener` failed {ours['accept_failed']} times and was awake for {ours['seconds_awake']:.2f} s.",
        chart=Chart(
            kind="timeline",
            title=f"How long a server is awake in {_WATCHED:g} s without descriptors",
            x="seconds",
            bars=[
                Bar(
                    "accept()",
                    0,
                    plain["seconds_awake"],
                    "plain",
                    failed=True,
                    note=f"{plain['accept_failed']:,} failures",
                ),
                Bar(
                    "Listener",
                    0,
                    ours["seconds_awake"],
                    "hardsock",
                    note=f"{ours['accept_failed']:,} failures",
                ),
            ],
        ),
    )


DESCRIPTORS = Experiment(
    name="descriptors",
    title="The server that is busy refusing",
    claim="A server without descriptors left does not rest: accept fails at once, the listener stays "
    "readable, and the loop takes a whole core.",
    why="EMFILE leaves the connection in the queue (accept(2)), so poll says at once that there is "
    "something to accept. `fs.file-max` does not help: the limit is the process's, RLIMIT_NOFILE.",
    instead="`hardsock.Listener` waits before it tries again, and tells once. For plain sockets: stop "
    "to poll the listener for a while, or until a connection is closed. Limit the connections "
    "below the descriptors.",
    measure=_measure,
    seconds=4,
)
