"""A short backlog: a server that is busy for a moment costs its clients seconds."""

from __future__ import annotations

import os
import select
import socket
import socketserver
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import hardsock as hs
from hardsock.lab.experiments.experiment import Chart, Experiment, Finding, Line
from hardsock.lab.namespaces import run_in_namespace
from hardsock.lab.scan import SynWatch

_CLIENTS = 20
_BUSY = 0.3
_LIMIT = 30.0


def _accept_late(
    server: Any, all_have_come: threading.Event, begin: float, connections: ExitStack
) -> list[float]:
    """What a server does whose only thread has had something else to do: when it has each."""
    took = []
    all_have_come.wait(_LIMIT)
    time.sleep(_BUSY)
    for _ in range(_CLIENTS):
        if isinstance(server, hs.Listener):
            connections.callback(server.accept(timeout=_LIMIT).abort)
        else:
            server.settimeout(_LIMIT)
            connections.enter_context(server.accept()[0])
        took.append(time.monotonic() - begin)
    return took


def _connect_all(
    address: tuple[str, int], all_have_come: threading.Event, begin: float, clients: ExitStack
) -> list[float]:
    """Seconds after which each of many clients, which come at the same moment, takes itself for
    connected."""
    took: list[float] = []
    poller = select.poll()
    for _ in range(_CLIENTS):
        client = clients.enter_context(socket.socket())
        client.setblocking(False)
        client.connect_ex(address)
        poller.register(client, select.POLLOUT)
    all_have_come.set()
    while len(took) < _CLIENTS and (ready := poller.poll(_LIMIT * 1000)):
        for fd, _ in ready:
            took.append(time.monotonic() - begin)
            poller.unregister(fd)
            os.write(fd, b"a question")  # What is dropped from now on is sent again.
    return took


def _one(server: Any, address: tuple[str, int]) -> dict[str, Any]:
    with SynWatch("lo") as watch, ExitStack() as stack, ThreadPoolExecutor(1) as other:
        begin, all_have_come = time.monotonic(), threading.Event()
        accepting = other.submit(_accept_late, server, all_have_come, begin, stack)
        connected = _connect_all(address, all_have_come, begin, stack)
        accepted = accepting.result()
        report = watch.report()
        return {
            "accepted": accepted,
            "connected": connected,
            "syns": report.saw,
            "overflows": report.tcp.listen_overflows or 0,
            "cookies": report.tcp.syncookies_sent or 0,
        }


def measure_inside() -> dict[str, Any]:
    """Per side: seconds of each client, SYNs that were sent, and overflows of the listener."""
    handler = socketserver.BaseRequestHandler
    with socketserver.TCPServer(("127.0.0.1", 0), handler) as server:
        plain = _one(server.socket, server.socket.getsockname())
    with hs.listen(("127.0.0.1", 0)) as listener:
        return {"plain": plain, "hardsock": _one(listener, listener.address)}


def _measure() -> Finding:
    found = run_in_namespace(measure_inside, timeout=120.0)
    plain, ours = found["plain"], found["hardsock"]
    return Finding(
        plain=_figures(plain),
        hardsock=_figures(ours),
        # Not by SYNs: where cookies answer them all, it is the last packets that are dropped.
        shown=plain["overflows"] > 0
        and ours["overflows"] == 0
        and len(ours["accepted"]) == _CLIENTS,
        text=f"{_CLIENTS} clients came at once while a server was busy for {_BUSY} s. With the "
        f"backlog of `socketserver` ({socketserver.TCPServer.request_queue_size}) they sent "
        f"{plain['syns']} SYNs, the queue was full {plain['overflows']} times, and the server had the "
        f"last of them after {max(plain['accepted']):.2f} s: when a packet was due to be sent again, "
        f"not when it had time. With `hs.listen()` they sent {ours['syns']} SYNs, the queue was full "
        f"{ours['overflows']} times, and the server had the last after {max(ours['accepted']):.2f} s.",
        chart=Chart(
            kind="percentiles",
            title=f"{_CLIENTS} clients at once, a server busy for {_BUSY} s",
            x="clients",
            y="seconds until the server has it",
            lines=[
                Line("socketserver: backlog 5", "plain", plain["accepted"]),
                Line("hs.listen()", "hardsock", ours["accepted"]),
            ],
            limit=(_BUSY, "the server has time again"),
        ),
    )


def _figures(side: dict[str, Any]) -> dict[str, float]:
    return {
        "accepted": len(side["accepted"]),
        "last_accepted_seconds": max(side["accepted"]),
        "last_connected_seconds": max(side["connected"]),
        "syns": side["syns"],
        "listen_overflows": side["overflows"],
        "syncookies_sent": side["cookies"],
    }


BACKLOG = Experiment(
    name="backlog",
    title="A moment's pause, and seconds for the clients",
    claim="A backlog that is too short turns each short pause of a server into seconds for those who "
    "connect meanwhile.",
    why="The kernel completes handshakes until backlog + 1 connections wait to be accepted, and drops "
    "further SYNs, or the last packet of their handshakes, without a word (listen(2), tcp(7)). A SYN is "
    "sent again a second later, at the earliest (RFC 6298). Where it is answered by a SYN cookie and the "
    "last packet is dropped, the client takes itself for connected, and the server knows nothing of it "
    "until the client sends something. The backlog is what the program asked for in listen(), at most somaxconn; "
    "Python's `socketserver`, and `http.server` with it, ask for 5.",
    instead="`hs.listen()` asks for 4,096 and says what it got (`stats().backlog_effective`). "
    "Elsewhere: `request_queue_size`, `backlog=`. ListenOverflows in /proc/net/netstat tells that it "
    "happened, and `hardsock lab scan` shows it beside the SYNs.",
    measure=_measure,
    seconds=3,
)
