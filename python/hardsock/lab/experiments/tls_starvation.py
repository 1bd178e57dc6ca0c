"""A server that says nothing in the TLS handshake keeps a pool's slots."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time

import hardsock as hs
from hardsock.lab.endpoint import listen
from hardsock.lab.experiments.experiment import Bar, Chart, Experiment, Finding
from hardsock.lab.namespaces import run_in_namespace

_SLOTS, _CALLERS = 4, 12
_PATIENCE = 2.0
_HANDSHAKE = 0.1
_WATCHED = 2.4
_NAMES = {"plain": "socket", "hardsock": "hardsock"}


class _Log:
    """When each caller's turn began and ended, from the first one on."""

    def __init__(self) -> None:
        self.begin = time.monotonic()
        self.lock = threading.Lock()
        self.over = threading.Event()  # never set: a pause that is no sleep
        self.turns: list[tuple[int, float, float, bool]] = []

    def now(self) -> float:
        return min(time.monotonic() - self.begin, _WATCHED)

    def add(self, caller: int, begin: float, had_a_turn: bool) -> None:
        with self.lock:
            self.turns.append((caller, begin, self.now(), had_a_turn))


def _plain(listener: socket.socket, log: _Log) -> None:
    """The usual pool: so many slots, a timeout for TCP, and none for the handshake."""
    address = listener.getsockname()
    slots = threading.Semaphore(_SLOTS)
    context = ssl.create_default_context()
    log.begin = time.monotonic()  # Reading the trust store took its time.

    def call(caller: int) -> None:
        begin = log.now()
        if not slots.acquire(timeout=_PATIENCE):
            log.add(caller, begin, False)
            return
        begin = log.now()
        with contextlib.suppress(OSError):
            sock = socket.create_connection(address, timeout=_HANDSHAKE)
            sock.settimeout(None)
            context.wrap_socket(sock, server_hostname="db.example").close()
        slots.release()
        log.add(caller, begin, True)

    threads = [threading.Thread(target=call, args=(i,)) for i in range(_CALLERS)]
    for thread in threads:
        thread.start()
    log.over.wait(_WATCHED)
    listener.close()  # Resets what it had not accepted: else they would wait for ever.
    for thread in threads:
        thread.join()


def _ours(listener: socket.socket, log: _Log) -> None:
    options = hs.PoolOptions(max_size=_SLOTS, dial_timeout=_HANDSHAKE, max_dials=_SLOTS)
    address = listener.getsockname()
    with hs.Pool(address, options=options, tls=hs.TLSConfig(), server_name="db.example") as pool:
        log.begin = time.monotonic()

        def call(caller: int) -> None:
            begin = log.now()
            try:
                with pool.connection(timeout=_PATIENCE):
                    pass
            except hs.PoolTimeout:
                log.add(caller, begin, False)
            except hs.HardsockError:
                log.add(caller, begin, True)

        threads = [threading.Thread(target=call, args=(i,)) for i in range(_CALLERS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


def measure_inside() -> dict[str, list[tuple[int, float, float, bool]]]:
    """(caller, begin, end, whether it had a turn) for each."""
    found = {}
    for side, run in (("plain", _plain), ("hardsock", _ours)):
        with listen() as listener:  # The kernel accepts, and nobody says a word.
            log = _Log()
            run(listener, log)
            found[side] = sorted(log.turns)
    return found


def _measure() -> Finding:
    found = run_in_namespace(measure_inside, timeout=60.0)
    starved = {side: sum(not had for *_, had in turns) for side, turns in found.items()}
    bars = [
        Bar(f"{_NAMES[side]} {number + 1}", begin, end, side, failed=not had)
        for side, turns in found.items()
        for number, (_, begin, end, had) in enumerate(
            sorted(turns, key=lambda turn: (not turn[3], turn[2]))
        )
    ]
    return Finding(
        plain={"starved": starved["plain"], "callers": _CALLERS},
        hardsock={"starved": starved["hardsock"], "callers": _CALLERS},
        shown=starved["plain"] >= (_CALLERS - _SLOTS) / 2
        and starved["hardsock"] < starved["plain"] / 2,
        text=f"A pool of {_SLOTS}, {_CALLERS} callers with {_PATIENCE:g} s of patience, a server "
        f"that accepts and is silent. With a timeout for TCP alone, {starved['plain']} callers never "
        f"got a turn. With hardsock {starved['hardsock']}: each dial ended by its deadline of "
        f"{_HANDSHAKE:g} s, and every caller was told what was wrong.",
        chart=Chart(
            kind="timeline",
            title=f"{_CALLERS} callers of a pool of {_SLOTS} (hatched: no turn at all)",
            x="seconds",
            bars=bars,
            limit=(_PATIENCE, "patience"),
        ),
    )


TLS_STARVATION = Experiment(
    name="tls-starvation",
    title="A silent handshake holds the pool",
    claim="A connect timeout that ends with TCP leaves the TLS handshake without one, and a silent "
    "server then holds every slot of a pool.",
    why="TCP connects as soon as the server's kernel has queued the connection; no program has to "
    "look at it. The first words of the server come with its ServerHello.",
    instead="One deadline for lookup, TCP and TLS: `hardsock.Pool`'s `dial_timeout`. With `ssl`: "
    "leave the timeout on the socket until after `wrap_socket`; it is then for each read.",
    measure=_measure,
    seconds=4,
)
