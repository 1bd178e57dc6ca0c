"""Threads on one pool, plain and with TLS, with everything that may go wrong at once, for a minute.

What must hold: each answer is the caller's own, nothing but the errors that were asked for is raised,
and in the end nothing is lent. Without the interpreter's lock the threads truly run side by side.
"""

from __future__ import annotations

import os
import random
import struct
import threading
import time
from pathlib import Path
from typing import Any

import pytest

import hardsock as hs
from hardsock.lab import make_certificate
from support.require import available

SECONDS = float(os.environ.get("STORM_SECONDS", "60"))
THREADS = 16
FAIR = (hs.Cancelled, hs.Closed, hs.PoolTimeout, hs.DeadlineExceeded, hs.Poisoned)


def answer(conn: hs.Connection) -> None:
    """Give back each message doubled, until the peer has gone."""
    with conn:
        try:
            while data := conn.recv_exactly(8, timeout=60):
                conn.sendall(data + data, timeout=60)
        except OSError:
            pass


def serve(listener: hs.Listener) -> None:
    answering: list[threading.Thread] = []
    while True:
        try:
            conn = listener.accept()
        except hs.Closed:
            break
        # One that has ended keeps its stack as long as its object lives (since CPython 3.13).
        answering = [thread for thread in answering if thread.is_alive()]
        answering.append(threading.Thread(target=answer, args=(conn,)))
        answering[-1].start()
    for thread in answering:
        thread.join()


def exchange(conn: hs.Connection, thread: int, nth: int, token: hs.CancelToken | None) -> None:
    message = struct.pack("!II", thread, nth)
    conn.sendall(message, token=token)
    assert conn.recv_exactly(16, timeout=30, token=token) == message + message
    conn.mark_clean()


def turn(pool: hs.Pool, chance: random.Random, thread: int, nth: int) -> None:
    what = chance.randrange(8)
    token = hs.CancelToken() if what == 0 else None
    other = threading.Thread(target=token.cancel) if token is not None else None
    if other is not None:  # It cancels at whatever moment.
        other.start()
    try:
        use(pool, thread, nth, token, what)
    finally:
        if other is not None:
            other.join()


def use(pool: hs.Pool, thread: int, nth: int, token: hs.CancelToken | None, what: int) -> None:
    timeout = 0.0005 if what == 1 else 30
    with pool.connection(timeout=timeout, token=token) as conn:
        exchange(conn, thread, nth, token)
        if what == 2:
            conn.close()
        elif what == 3:
            conn.sendall(struct.pack("!I", 0))  # Half a message: it must not come back as it is.
            conn.close()
        elif what == 4:
            pool.evict()
        elif what == 5:
            pool.stats()


def ends(security: str, folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the listener and the pool are made with."""
    if security == "plain":
        return {}, {}
    with available():
        certificate, key = make_certificate(folder)
    own = hs.Certificate(chain=certificate, key=key)
    return (
        {"tls": hs.TLSConfig(role="server", certificates=own)},
        {"tls": hs.TLSConfig(ca=certificate)},
    )


@pytest.mark.nightly
@pytest.mark.slow
@pytest.mark.parametrize("security", ["plain", "TLS"])
def test_threads_on_one_pool_get_their_own_answers_through_everything(
    security: str, tmp_path: Path
) -> None:
    listening, pooling = ends(security, tmp_path)
    wrong: list[BaseException] = []
    served = [0] * THREADS

    def work(thread: int) -> None:
        chance = random.Random(thread)
        nth = 0
        while time.monotonic() < until and not wrong:
            nth += 1
            try:
                turn(pool, chance, thread, nth)
                served[thread] += 1
            except FAIR:
                pass
            except BaseException as exc:
                wrong.append(exc)

    with hs.listen(("127.0.0.1", 0), **listening) as listener:
        accepting = threading.Thread(target=serve, args=(listener,))
        accepting.start()
        with hs.Pool(listener.address, max_size=6, **pooling) as pool:
            until = time.monotonic() + SECONDS
            threads = [threading.Thread(target=work, args=(i,)) for i in range(THREADS)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert not wrong, wrong[0]
            assert pool.stats().lent == 0
            assert min(served) > 0
        listener.close()
        accepting.join()
