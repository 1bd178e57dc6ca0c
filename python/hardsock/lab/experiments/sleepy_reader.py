"""Sleeping and trying again, where poll would have said when."""

from __future__ import annotations

import socket
import threading
import time
from typing import Any

import hardsock as hs
from hardsock.lab.endpoint import listen
from hardsock.lab.experiments.experiment import Chart, Experiment, Finding, Line
from hardsock.lab.namespaces import run_in_namespace

_MESSAGES = 60
_FIRST, _LONGEST = 0.001, 0.064
"""Of a sleep after EAGAIN: twice as long each time, up to this."""
_SLOW = 0.003
_SIZE = 8
_PATIENCE = 60.0


def _pause(number: int) -> float:
    """Seconds before a message: none of them fits the sleeps."""
    return 0.02 + number * 7919 % 61 / 1000


def _send(sock: socket.socket, sent: list[float]) -> None:
    pause = threading.Event()
    for number in range(_MESSAGES):
        pause.wait(_pause(number))
        sent.append(time.monotonic())
        sock.sendall(b"%07d\n" % number)


def _read_and_sleep(sock: socket.socket) -> tuple[list[float], int]:
    """When each message had been read, and how often there was nothing."""
    sock.setblocking(False)
    came: list[float] = []
    empty, sleep = 0, _FIRST
    while len(came) < _MESSAGES:
        try:
            data = sock.recv(_SIZE)
        except BlockingIOError:
            empty += 1
            time.sleep(sleep)
            sleep = min(2 * sleep, _LONGEST)
            continue
        assert len(data) == _SIZE
        came.append(time.monotonic())
        sleep = _FIRST
    return came, empty


def _read(sock: socket.socket) -> tuple[list[float], int]:
    came = []
    with hs.adopt(sock) as conn:
        for _ in range(_MESSAGES):
            conn.recv_exactly(_SIZE, timeout=_PATIENCE)
            came.append(time.monotonic())
    return came, 0


def measure_inside() -> dict[str, Any]:
    """Per side: by how much each message was read late, and how often in vain."""
    found = {}
    for side, read in (("plain", _read_and_sleep), ("hardsock", _read)):
        with listen() as listener, socket.create_connection(listener.getsockname()) as sender:
            sender.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            receiver, _ = listener.accept()
            sent: list[float] = []
            sending = threading.Thread(target=_send, args=(sender, sent))
            sending.start()
            with receiver:
                came, empty = read(receiver)
            sending.join()
            late = [after - before for before, after in zip(sent, came, strict=True)]
            found[side] = {"late": sorted(late), "empty": empty}
    return found


def _measure() -> Finding:
    found = run_in_namespace(measure_inside, timeout=240.0)
    plain, ours = (_figures(found[side]) for side in ("plain", "hardsock"))
    return Finding(
        plain=plain,
        hardsock=ours,
        shown=plain["median_seconds_late"] > 3 * ours["median_seconds_late"]
        and plain["reads_in_vain"] >= _MESSAGES,
        invalid=""
        if ours["median_seconds_late"] < _SLOW
        else "this machine wakes those who wait "
        f"{ours['median_seconds_late'] * 1e3:.1f} ms late, whatever they wait with",
        text=f"{_MESSAGES} messages, some tens of milliseconds apart. A reader that sleeps after EAGAIN, twice as long "
        f"each time up to {_LONGEST * 1e3:.0f} ms, read half of them more than "
        f"{plain['median_seconds_late'] * 1e3:.1f} ms late, and asked {plain['reads_in_vain']} times for nothing. "
        f"hardsock, which waits with poll, had half of them within {ours['median_seconds_late'] * 1e3:.2f} ms.",
        chart=Chart(
            kind="percentiles",
            title=f"{_MESSAGES} messages: how late they are read",
            x="messages",
            y="milliseconds late",
            lines=[
                Line("sleep and try again", "plain", [1e3 * one for one in found["plain"]["late"]]),
                Line(
                    "poll: recv_exactly",
                    "hardsock",
                    [1e3 * one for one in found["hardsock"]["late"]],
                ),
            ],
        ),
    )


def _figures(found: dict[str, Any]) -> dict[str, float]:
    late = found["late"]
    return {
        "median_seconds_late": late[len(late) // 2],
        "latest_seconds": late[-1],
        "reads_in_vain": found["empty"],
    }


SLEEPY_READER = Experiment(
    name="sleepy-reader",
    title="Asleep when it came",
    claim="Sleeping after EAGAIN and trying again makes every message late by half a sleep, and wakes up for nothing "
    "in between.",
    why="EAGAIN says that there is nothing now, and the kernel knows the moment when there is something: poll(2) "
    "returns in it. A sleep knows nothing. Short ones cost processor time while nothing comes, long ones cost "
    "time when something does, and a back-off, which is for a service that is overloaded, has the longest sleep "
    "behind the longest quiet.",
    instead="A call of hardsock waits in one place, with poll, for the data, the deadline and the token at once. With "
    "plain sockets: `settimeout`, `selectors`, asyncio.",
    measure=_measure,
    seconds=8,
)
