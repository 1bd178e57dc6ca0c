"""A crowd that connects, says a word, and stays: a full server, and a guard that makes room."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import resource
import selectors
import socket
import threading
import time
from contextlib import ExitStack
from typing import Any

import hardsock as hs
from hardsock.lab import inside
from hardsock.lab.experiments.experiment import Chart, Experiment, Finding, Line
from hardsock.lab.namespaces import Namespace
from hardsock.lab.unavailable import Unavailable

_LIMIT = 1000
"""Connections that the server has room for."""
_BUSY, _FLOOD, _NEWCOMERS = 250, 1000, 20
_PAUSE = 0.25
"""Seconds between an answer and the next question of those that are busy."""
_OVER = 4.0
_HIGH, _CLEAR = 0.9, 0.75
_SAMPLE = 0.1
_LONGER = 2.0
_PATIENCE = 60.0
_BACKLOG = 4096
_RULE = hs.guard.Rule(
    "too many",
    when=hs.guard.connections_share > _HIGH,
    clear=_CLEAR,
    then=hs.guard.CloseIdle(over=_OVER, young=1.0, at_most=0.05, per=0.25),
)


def _allow_descriptors(wanted: int) -> None:
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < wanted:
        raise Unavailable(f"the hard limit of descriptors is {hard}, below {wanted}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


class _Samples:
    """How many connections there were, from the first one on."""

    def __init__(self) -> None:
        self._begin = 0.0
        self.taken: list[tuple[float, int]] = []

    def take(self, count: int) -> None:
        now = time.monotonic()
        if count and not self._begin:
            self._begin = now
        if self._begin:
            self.taken.append((now - self._begin, count))


async def _serve_plain() -> dict[str, Any]:
    open_now, failed, samples = 0, 0, _Samples()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal open_now
        open_now += 1
        with contextlib.suppress(OSError):
            while data := await reader.read(100):
                writer.write(data)
        open_now -= 1
        writer.close()

    def count(_loop: asyncio.AbstractEventLoop, _context: dict[str, Any]) -> None:
        nonlocal failed
        failed += 1

    asyncio.get_running_loop().set_exception_handler(count)
    async with await asyncio.start_server(answer, "127.0.0.1", 0, backlog=_BACKLOG) as server:
        _allow_descriptors(len(os.listdir("/proc/self/fd")) + _LIMIT)
        inside.ready(server.sockets[0].getsockname()[1])
        while not inside.should_stop():
            samples.take(open_now)
            await asyncio.sleep(_SAMPLE)
    return {"open": samples.taken, "accept_failed": failed, "closed": 0}


def _echo(conn: hs.Connection) -> None:
    conn.sendall(conn.recv(100), timeout=_PATIENCE)


def _serve_guarded() -> dict[str, Any]:
    _allow_descriptors(2 * _LIMIT)
    samples, closed = _Samples(), 0

    def note(line: str) -> None:
        nonlocal closed
        closed += json.loads(line)["outcome"] == "closed"

    with (
        hs.serve(
            _echo, ("127.0.0.1", 0), per="message", max_connections=_LIMIT, backlog=_BACKLOG,
            drain_timeout=10,
        ) as server,
        hs.Guard(server, _RULE, enforce=True, every=0.1, log=note),
    ):  # fmt: skip
        inside.ready(server.address[1])
        over = threading.Event()  # Never set: a pause.
        while not inside.should_stop():
            samples.take(server.stats().active)
            over.wait(_SAMPLE)
    return {"open": samples.taken, "accept_failed": 0, "closed": closed}


def serve(side: str) -> dict[str, Any]:
    """Echo until told to stop; how many connections there were."""
    return asyncio.run(_serve_plain()) if side == "plain" else _serve_guarded()


class _Busy:
    """Clients that ask again soon after each answer; a thread plays them."""

    def __init__(self, clients: list[socket.socket]) -> None:
        self.answers, self.hurt = 0, 0
        self.stood_still = 0.0
        """By how much it was late, at worst: the server may have taken them for idle then."""
        self._clients = clients
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> _Busy:
        self._thread.start()
        return self

    def __exit__(self, *_details: object) -> None:
        self._end.set()
        self._thread.join()

    def _run(self) -> None:
        with selectors.DefaultSelector() as selector:
            for client in self._clients:
                selector.register(client, selectors.EVENT_READ)
            due = dict.fromkeys(self._clients, 0.0)
            while not self._end.is_set():
                now = time.monotonic()
                for client in [client for client, when in due.items() if when <= now]:
                    if due[client]:
                        self.stood_still = max(self.stood_still, now - due[client])
                    del due[client]
                    client.send(b"x")
                for key, _ in selector.select(_PAUSE / 10):
                    self._take(selector, key.fileobj, due)

    def _take(self, selector: selectors.BaseSelector, client: Any, due: dict[Any, float]) -> None:
        try:
            data = client.recv(100)
        except OSError:
            data = b""
        if data:
            self.answers += 1
            due[client] = time.monotonic() + _PAUSE
        else:
            self.hurt += 1
            selector.unregister(client)


def _wait_for_answers(clients: list[socket.socket], seconds: float) -> list[float]:
    """Seconds until each of them had its answer, of those that had one."""
    took: list[float] = []
    begin = time.monotonic()
    with selectors.DefaultSelector() as selector:
        for client in clients:
            selector.register(client, selectors.EVENT_READ)
        while len(took) < len(clients) and (left := begin + seconds - time.monotonic()) > 0:
            for key, _ in selector.select(left):
                one: Any = key.fileobj
                selector.unregister(one)
                if one.recv(100):
                    took.append(time.monotonic() - begin)
    return took


def visit(port: int, seconds: float) -> dict[str, Any]:
    """Busy clients, then the crowd that stays, then a few who have a question."""
    _allow_descriptors(_BUSY + _FLOOD + _NEWCOMERS + 100)
    with ExitStack() as stack:

        def come(number: int) -> list[socket.socket]:
            clients = []
            for _ in range(number):
                client = socket.create_connection(("127.0.0.1", port), _PATIENCE)
                clients.append(stack.enter_context(client))
            return clients

        with _Busy(come(_BUSY)) as busy:
            for one in come(_FLOOD):
                one.send(b"x")  # It has spoken: no limit for those who are silent holds it off.
            newcomers = come(_NEWCOMERS)
            for one in newcomers:
                one.send(b"x")
            begin = time.monotonic()
            took = _wait_for_answers(newcomers, seconds)
            threading.Event().wait(_LONGER)
            watched = time.monotonic() - begin
        return {
            "took": took,
            "watched": watched,
            "hurt": busy.hurt,
            "answers": busy.answers,
            "stood_still": busy.stood_still,
        }


def _measure() -> Finding:
    found: dict[str, dict[str, Any]] = {}
    seconds = _PATIENCE
    for side in ("hardsock", "plain"):
        with Namespace() as home, home.start(serve, side, timeout=240.0) as server:
            clients = home.run(visit, server.wait_ready(), seconds, timeout=240.0)
            found[side] = {**clients, **server.stop()}
        seconds = clients["watched"] + _LONGER  # The others have at least as long.
    plain, ours = found["plain"], found["hardsock"]
    late = max(one["stood_still"] for one in found.values())
    return Finding(
        plain=_figures(plain),
        hardsock=_figures(ours),
        shown=not plain["took"] and len(ours["took"]) == _NEWCOMERS and ours["hurt"] == 0,
        invalid=""
        if late < _OVER / 2
        else f"busy clients stood still for {late:.1f} s: they look idle after {_OVER:g} s",
        text=f"A server with room for {_LIMIT:,} connections, {_BUSY} clients that asked four times a second, and "
        f"{_FLOOD:,} that connected, said one word and stayed; then {_NEWCOMERS} more with a question. Of asyncio's "
        f"server {len(plain['took'])} of those got an answer within {plain['watched']:.0f} s. Of a server with a "
        f"guard it was {len(ours['took'])}, after {max(ours['took'], default=0.0):.1f} s at the latest: the guard "
        f"closed {ours['closed']} connections that had been idle for {_OVER:g} s, 5 % of all at a time, the longest "
        f"idle first, and {ours['hurt']} of the busy ones.",
        chart=Chart(
            kind="lines",
            title=f"{_FLOOD:,} idle clients come to a server with room for {_LIMIT:,}",
            x="seconds",
            y="connections of the server",
            lines=[
                Line("asyncio", "plain", plain["open"]),
                Line("hs.serve with hs.Guard", "hardsock", ours["open"]),
            ],
            limit=(_LIMIT, "room"),
        ),
    )


def _figures(found: dict[str, Any]) -> dict[str, float]:
    last = {"seconds_until_the_last": max(found["took"])} if found["took"] else {}
    return {
        "newcomers_answered": len(found["took"]),
        **last,
        "busy_connections_hurt": found["hurt"],
        "answers_to_busy_ones": found["answers"],
        "idle_connections_closed": found["closed"],
    }


IDLE_FLOOD = Experiment(
    name="idle-flood",
    title="Full of people who say nothing",
    claim="Clients that connect, say one word and stay fill a server, and who comes later is not answered, "
    "though the server has next to nothing to do.",
    why="A connection costs its owner a descriptor and some memory for as long as the other side likes. A "
    "limit protects the server's memory and descriptors, and is then what the newcomers meet; neither the "
    "mean age of the connections nor their number says who may go. What does is how long nothing has come.",
    instead="`idle_timeout` on the server, if its protocol has a pause that is too long. `hs.Guard` for what "
    "should stay while there is room: it acts when the server is nearly full, closes who has been idle for "
    "longest, so many at a time, looks again in the moment of the act, and stops at the clear level. Run it "
    "without `enforce=True` first: it says what it would do.",
    measure=_measure,
    seconds=25,
    is_short=False,
)
