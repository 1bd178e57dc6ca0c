"""A service whose pool runs dry: one line borrows and, on a rare path, does not give back."""

from __future__ import annotations

import queue
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import hardsock as hs
from hardsock.demo.scene import Bound, Outcome, Scene
from hardsock.lab import Call
from hardsock.lab.endpoint import Address, connect_to

_SIZE = 4
_REQUESTS = 200
_RARE = 25  # every so many requests take the path that forgets
_PATIENCE = 0.05
_TIMEOUT = 5.0


@contextmanager
def _backend() -> Iterator[Address]:
    """Answers each line with itself, any number of clients at once."""

    def answer(conn: hs.Connection) -> None:
        for line in conn.lines():
            conn.sendall(bytes(line) + b"\n")

    with hs.serve(answer, ("127.0.0.1", 0), drain_timeout=_TIMEOUT) as server:
        yield server.address


@dataclass
class _Told:
    """What the service lived through."""

    answered: int = 0
    refused: int = 0
    last_words: str = ""


# ---- a pool as most are: a queue


def _with_queue() -> Outcome:
    told, kept = _Told(), list[socket.socket]()
    idle: queue.LifoQueue[socket.socket] = queue.LifoQueue(_SIZE)
    with _backend() as address:
        made = [connect_to(address, _TIMEOUT) for _ in range(_SIZE)]
        for sock in made:
            idle.put(sock)
        for number in range(_REQUESTS):
            try:
                sock = idle.get(timeout=_PATIENCE)
            except queue.Empty as exc:
                told.refused += 1
                told.last_words = repr(exc)
                continue
            sock.sendall(b"ping\n")
            assert sock.recv(100) == b"ping\n"
            told.answered += 1
            if number % _RARE == _RARE - 1:
                kept.append(sock)
            else:
                idle.put(sock)
        for sock in made:
            sock.close()
    return Outcome(
        f"{told.answered} of {_REQUESTS} requests answered, then none: {told.last_words} is all "
        "that it says",
        {"answered": told.answered},
    )


# ---- hardsock's


# The service is a program of its own: what hardsock's own files do is nobody's fault.
_SERVICE = """\
def usual(pool, ping, patience):
    with pool.connection(timeout=patience) as conn:
        ping(conn)

def rare(pool, ping, patience, kept):
    conn = pool.acquire(timeout=patience)
    ping(conn)
    kept.append(conn)
"""
_GUILTY = "service.py:6 in rare"


def _service() -> SimpleNamespace:
    names: dict[str, Any] = {}
    exec(compile(_SERVICE, "service.py", "exec"), names)
    return SimpleNamespace(**names)


def _ping(conn: hs.Connection) -> None:
    conn.sendall(b"ping\n", timeout=_TIMEOUT)
    assert conn.recv_line(timeout=_TIMEOUT) == b"ping"
    conn.mark_clean()


def _serve_requests(pool: hs.Pool, told: _Told, repair: Callable[[hs.PoolTimeout], None]) -> None:
    service, kept = _service(), list[object]()
    for number in range(_REQUESTS):
        try:
            if number % _RARE == _RARE - 1:
                service.rare(pool, _ping, _PATIENCE, kept)
            else:
                service.usual(pool, _ping, _PATIENCE)
            told.answered += 1
        except hs.PoolTimeout as exc:
            told.refused += 1
            repair(exc)
    kept.clear()


def _with_hardsock() -> Outcome:
    told = _Told()
    guilty: set[str] = set()
    with _backend() as address, hs.Pool(address, max_size=_SIZE) as pool:

        def repair(exc: hs.PoolTimeout) -> None:
            """What an operator does who is told the line: more room, until it is mended."""
            told.last_words = str(exc)
            guilty.update(str(leak.site) for leak in pool.leaks(older_than=0))
            pool.resize(pool.stats().max_size + _SIZE)

        with Call(_serve_requests, pool, told, repair) as serving:
            serving.result(30)
        stats = pool.verify().stats
    return Outcome(
        f"{told.answered} of {_REQUESTS} requests answered: the first to wait in vain was told "
        f"{_GUILTY}, its operator gave it room; {stats.opened} opened, all accounted for",
        {
            "answered": told.answered,
            "guilty lines": len(guilty) if guilty <= {_GUILTY} else float("nan"),
            "named in the error": float(_GUILTY in told.last_words),
        },
    )


SCENE = Scene(
    name="pool-leak",
    title="One line of a service borrows and forgets to give back",
    shows="A pool that knows who holds what names the line, while the service goes on.",
    stdlib=_with_queue,
    hardsock=_with_hardsock,
    bounds=(
        Bound(of="answered", at_least=_REQUESTS - 5),
        Bound(of="guilty lines", at_least=1, at_most=1),
        Bound(of="named in the error", at_least=1),
    ),
)
