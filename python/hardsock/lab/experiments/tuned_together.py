"""One kernel setting alone: the smallest of all limits holds."""

from __future__ import annotations

import os
import socket
import struct
import warnings
from contextlib import ExitStack
from typing import Any

import hardsock as hs
from hardsock.lab import inside
from hardsock.lab.endpoint import listen
from hardsock.lab.experiments.experiment import Bar, Chart, Experiment, Finding
from hardsock.lab.namespaces import run_in_namespace
from hardsock.lab.waits import poll_until

_CLIENTS = 600
_SMALL, _LARGE = 128, 4096
_SOMAXCONN = "net.core.somaxconn"
_PATIENCE = 60.0
# Of a listener: two numbers, how many connections wait to be accepted, and how many may.
_TCP_INFO_UNACKED = 24


def _queue(fd: int) -> tuple[int, int]:
    with socket.socket(fileno=os.dup(fd)) as sock:
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_UNACKED + 8)
    waiting, room = struct.unpack_from("=II", info, _TCP_INFO_UNACKED)
    return waiting, room


def _come(fd: int, address: tuple[str, int]) -> int:
    """Many connect while the server is busy elsewhere: how many its kernel takes meanwhile."""
    with ExitStack() as stack:
        for _ in range(_CLIENTS):
            client = stack.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(address)
        _, room = _queue(fd)
        poll_until(lambda: _queue(fd)[0] >= min(_CLIENTS, room + 1), _PATIENCE)
        return _queue(fd)[0]


def _of_plain(backlog: int, before: int, after: int) -> int:
    """With ``somaxconn`` of *before* when the server begins to listen, and *after* later."""
    inside.write_sysctl(_SOMAXCONN, before)
    with listen(backlog=backlog) as listener:
        inside.write_sysctl(_SOMAXCONN, after)
        return _come(listener.fileno(), listener.getsockname())


def _of_ours(somaxconn: int) -> tuple[int, list[str]]:
    """How many were taken, and what hardsock said when it began to listen."""
    inside.write_sysctl(_SOMAXCONN, somaxconn)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", hs.SettingWarning)
        with hs.listen(("127.0.0.1", 0), backlog=_LARGE) as listener:
            taken = _come(listener.fileno(), listener.address)
    return taken, [str(one.message) for one in caught if one.category is hs.SettingWarning]


def measure_inside() -> dict[str, Any]:
    """How many of the clients were taken, by what was set, and in which order."""
    return {
        "plain": {
            f"somaxconn {_LARGE}, listen({_SMALL})": _of_plain(_SMALL, _LARGE, _LARGE),
            f"somaxconn {_SMALL}, listen({_LARGE})": _of_plain(_LARGE, _SMALL, _SMALL),
            f"listen({_LARGE}), then somaxconn {_LARGE}": _of_plain(_LARGE, _SMALL, _LARGE),
        },
        "warned": _of_ours(_SMALL),
        "hardsock": _of_ours(_LARGE),
    }


def _measure() -> Finding:
    found = run_in_namespace(measure_inside, timeout=300.0)
    plain: dict[str, int] = found["plain"]
    (small, said), (ours, _nothing) = found["warned"], found["hardsock"]
    return Finding(
        plain={f"taken_with_{name}": taken for name, taken in plain.items()},
        hardsock={
            "taken_with_both_in_order": ours,
            f"taken_with_somaxconn_{_SMALL}": small,
            f"warnings_with_somaxconn_{_SMALL}": len(said),
        },
        shown=max(plain.values()) < _CLIENTS / 2 and ours == _CLIENTS and len(said) == 1,
        text=f"{_CLIENTS} clients came while a server was busy. With `somaxconn` alone, with the program's backlog "
        "alone, and with both in the wrong order, its kernel took "
        f"{', '.join(map(str, plain.values()))} of them; the others had to try again a second later. With both, "
        f"and `somaxconn` first, `hs.listen` had {ours}. With a `somaxconn` of {_SMALL} it took {small}, too, and said "
        f'so when it began to listen: "{said[0] if said else ""}".',
        chart=Chart(
            kind="timeline",
            title=f"Connections taken of {_CLIENTS}, while a server is busy",
            x="connections",
            bars=[
                *(
                    Bar(name, 0, taken, "plain", failed=True, note=f"{taken}")
                    for name, taken in plain.items()
                ),
                Bar("both, hs.listen()", 0, ours, "hardsock", note=f"{ours}"),
            ],
        ),
    )


TUNED_TOGETHER = Experiment(
    name="tuned-together",
    title="One setting alone does nothing",
    claim="Raising `somaxconn` raises nothing by itself: the queue of a listener is the smallest of what the program "
    "asks for and what the kernel allows, at the moment when it asks.",
    why="`listen(fd, backlog)` cuts the backlog to `net.core.somaxconn` and keeps the result (listen(2)); what is "
    "written to the setting later is for later calls. So a setting, the program's own parameter and the order of "
    "the two have to fit, and each of them alone looks as if it had been done. It is the same with "
    "`fs.file-max` and RLIMIT_NOFILE, and with a wide port range and ports that servers need.",
    instead="Settings as a whole, and first: `hardsock-tune apply` with a profile, before services start; "
    "`hardsock-tune check` says what differs. `hs.listen` asks for 4,096, reads back what it got "
    "(`stats().backlog_effective`), and warns if that is less.",
    measure=_measure,
    seconds=3,
)
