"""The pool as Python sees it: borrowing, returning, who holds what, hooks, the end."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import re
import signal
import socket
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest

import hardsock as hs
from hardsock import _core, aio
from hardsock.lab.waits import poll_until
from support.kernel import unread

HERE = __file__


class Peer:
    """A server that answers every byte it gets with the same, until told otherwise."""

    def __init__(self) -> None:
        self.socket = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.address: tuple[str, int] = self.socket.getsockname()
        self.accepted: list[socket.socket] = []
        self.closing = False
        self.received = 0
        self.thread = threading.Thread(target=self.serve, daemon=True)
        self.thread.start()

    def serve(self) -> None:
        while True:
            try:
                conn, _ = self.socket.accept()
            except OSError:
                return
            if self.closing:
                conn.close()
                return
            self.accepted.append(conn)
            threading.Thread(target=self.answer, args=(conn,), daemon=True).start()

    def answer(self, conn: socket.socket) -> None:
        try:
            while data := conn.recv(4096):
                self.received += len(data)
                conn.sendall(data)
        except OSError:
            pass

    def hang_up(self) -> None:
        """End every connection, as a server does that restarts."""
        for conn in self.accepted:
            conn.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self.closing = True
        socket.create_connection(self.address).close()
        self.thread.join()
        self.socket.close()
        for conn in self.accepted:
            try:
                conn.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            conn.close()


@pytest.fixture
def peer() -> Iterator[Peer]:
    server = Peer()
    yield server
    server.close()


def ask(conn: hs.Connection, text: bytes = b"hello") -> bytes:
    conn.sendall(text, timeout=30)
    answer = conn.recv_exactly(len(text), timeout=30)
    conn.mark_clean()
    return answer


def refused(error: type[Exception], call: Any, *args: Any, **kwargs: Any) -> None:
    """For threads: the call must raise this."""
    with pytest.raises(error):
        call(*args, **kwargs)


def eventually(condition: Any, limit: float = 20) -> None:
    until = time.monotonic() + limit
    while not condition():
        assert time.monotonic() < until, "it never became true"
        time.sleep(0.001)


def waiting(pool: hs.Pool, count: int) -> None:
    eventually(lambda: pool.stats().waiting == count)


def holds(stats: hs.PoolStats) -> bool:
    return stats.opened == (stats.idle + stats.lent + stats.dialing + stats.closing + stats.closed)


# ---- borrowing and returning


def test_with_block_borrows_and_returns(peer: Peer) -> None:
    with hs.Pool(peer.address, max_size=2) as pool:
        with pool.connection(timeout=30) as conn:
            assert ask(conn) == b"hello"
            assert not conn.reused
            assert conn.pool is pool
        with pool.connection(timeout=30) as again:
            assert again.reused
            assert again.retry_is_safe
            assert ask(again) == b"hello"
            assert not again.retry_is_safe
        stats = pool.stats()
        assert stats.opened == 1
        assert stats.acquired == 2
        assert holds(stats)
        assert pool.verify().ok


def test_what_was_returned_is_closed_for_its_holder(peer: Peer) -> None:
    with hs.Pool(peer.address) as pool:
        conn = pool.acquire(timeout=30)
        pool.release(conn)
        with pytest.raises(hs.Closed, match="returned to its pool"):
            conn.sendall(b"x")
        assert conn.closed
        assert conn.fileno() == -1
        other = pool.acquire(timeout=30)
        with pytest.raises(hs.Closed):
            conn.recv(1)
        pool.release(other)


def test_second_and_foreign_returns_are_errors(peer: Peer) -> None:
    with hs.Pool(peer.address) as pool, hs.Pool(peer.address, name="other") as other:
        conn = pool.acquire(timeout=30)
        with pytest.raises(ValueError, match=r"another pool's \(pool <hardsock.Pool other>\)"):
            other.release(conn)
        pool.release(conn)
        with pytest.raises(ValueError, match="returned before"):
            pool.release(conn)
        plain = hs.connect(peer.address, timeout=30)
        with pytest.raises(ValueError, match="not lent by a pool"):
            pool.release(plain)
        plain.close()
        with pytest.raises(TypeError, match="must be a Connection"):
            pool.release(object())  # type: ignore[arg-type]


@pytest.mark.parametrize("end", ["close", "abort", "detach"])
def test_return_after_the_end_does_not_hide_the_error(peer: Peer, end: str) -> None:
    with hs.Pool(peer.address, max_size=1) as pool:
        conn = pool.acquire(timeout=30)
        with pytest.raises(KeyError, match="what matters"):
            try:
                left = getattr(conn, end)()
                if end == "detach":
                    os.close(left)
                raise KeyError("what matters")
            finally:
                pool.release(conn)
        with pytest.raises(ValueError, match="returned before"):
            pool.release(conn)  # Once is an ordinary finally; twice is a mistake.
        stats = pool.stats()
        assert (stats.lent, stats.closed) == (0, 1)
        assert stats.closed_by_reason["discarded"] == 1


def keep(conn: Any) -> None:
    """A hook."""


TIMEOUTS: list[tuple[Any, type[Exception], str]] = [
    ("1", TypeError, "timeout must be a number of seconds or None, not str"),
    (True, TypeError, "timeout must be a number of seconds or None, not bool"),
    (-1, ValueError, "timeout must be a non-negative number of seconds, got -1"),
    (float("nan"), ValueError, "timeout must be a non-negative number of seconds, got nan"),
]


@pytest.mark.parametrize(("value", "error", "text"), TIMEOUTS, ids=repr)
@pytest.mark.parametrize("hooks", [{}, {"on_connect": keep}, {"check": keep}, {"reset": keep}])
def test_every_way_to_borrow_checks_its_timeout_alike(
    hooks: dict[str, Any], value: Any, error: type[Exception], text: str
) -> None:
    async def awaited() -> None:
        async with aio.Pool("127.0.0.1:1", **hooks) as pool:
            with pytest.raises(error) as raised:
                await pool.acquire(timeout=value)
            assert str(raised.value) == text
            with pytest.raises(error) as raised:
                async with pool.connection(timeout=value):
                    pass
            assert str(raised.value) == text

    with hs.Pool("127.0.0.1:1", **hooks) as pool:
        with pytest.raises(error) as raised:
            pool.acquire(timeout=value)
        assert str(raised.value) == text
        with pytest.raises(error) as raised:
            with pool.connection(timeout=value):
                pass
        assert str(raised.value) == text
    with pytest.raises(error), hs.PoolManager() as manager:
        manager.close(timeout=value)
    asyncio.run(awaited())


def test_closing_a_lent_connection_gives_its_place_back(peer: Peer) -> None:
    with hs.Pool(peer.address, max_size=1) as pool:
        with pool.connection(timeout=30) as conn:
            conn.close()
        conn = pool.acquire(timeout=30)
        conn.abort()
        conn = pool.acquire(timeout=30)
        os.close(conn.detach())
        with pool.acquire(timeout=30):  # A connection's own with closes it.
            pass
        stats = pool.stats()
        assert stats.closed_by_reason["discarded"] + stats.closed_by_reason["broken"] == 4
        assert (stats.lent, stats.idle) == (0, 0)


def test_dirty_connection_is_not_lent_again_and_said_so_once(peer: Peer) -> None:
    with hs.Pool(peer.address) as pool:
        conn = pool.acquire(timeout=30)
        conn.sendall(b"x")
        conn.recv_exactly(1, timeout=30)
        with pytest.warns(hs.PoolWarning, match="mark_clean"):
            pool.release(conn)
        conn = pool.acquire(timeout=30)
        conn.sendall(b"x")
        pool.release(conn)  # Told already.
        assert pool.stats().closed_by_reason["dirty"] == 2
        assert sum(site.dirty for site in pool.sites()) == 2


def test_answered_reuse_takes_an_answer_for_the_end(peer: Peer) -> None:
    with hs.Pool(peer.address, reuse="answered") as pool:
        with pool.connection(timeout=30) as conn:
            conn.sendall(b"x")
            conn.recv_exactly(1, timeout=30)
        assert pool.stats().idle == 1
        with pytest.raises(RuntimeError, match="in the block"), pool.connection() as conn:
            conn.sendall(b"x")
            conn.recv_exactly(1, timeout=30)
            raise RuntimeError("in the block")
        assert pool.stats().closed_by_reason["dirty"] == 1


def test_exception_in_the_block_keeps_what_was_marked_clean(peer: Peer) -> None:
    with hs.Pool(peer.address) as pool:
        with pytest.raises(RuntimeError), pool.connection(timeout=30) as conn:
            ask(conn)
            raise RuntimeError("elsewhere")
        assert pool.stats().idle == 1


def test_cancelled_exchange_is_never_left_to_the_next(peer: Peer) -> None:
    """redis-py 2624, 2665: the next borrower read the answer that was meant for another."""
    with hs.Pool(peer.address, max_size=1) as pool:
        token = hs.CancelToken()
        with pytest.raises(hs.Cancelled), pool.connection(timeout=30) as conn:
            conn.sendall(b"secret")
            token.cancel()
            conn.recv(100, token=token)
        with pool.connection(timeout=30) as conn:
            assert ask(conn, b"mine") == b"mine"


def test_exchange_that_failed_is_reset_and_holds_no_port() -> None:
    with hs.listen(("127.0.0.1", 0)) as stuck, hs.Pool(stuck.address) as pool:
        with pytest.raises(hs.DeadlineExceeded), pool.connection(timeout=30) as conn:
            conn.sendall(b"question")
            server = stuck.accept(timeout=30)
            assert server.recv_exactly(8, timeout=30) == b"question"
            assert poll_until(lambda: conn._settled, 30), "its acknowledgement is not there"
            conn.recv(1, timeout=0.01)
        with pytest.raises(hs.Reset):
            server.recv(1, timeout=30)
        server.close()


def test_file_made_of_a_lent_connection_ends_with_the_lease(peer: Peer) -> None:
    with hs.Pool(peer.address) as pool:
        conn = pool.acquire(timeout=30)
        file = conn.makefile("rwb")
        pool.release(conn)
        assert pool.stats().closed_by_reason["busy"] == 1
        with pytest.raises(OSError):
            file.read(1)
        file.close()


def test_settings_that_the_kernel_changed_are_named_once(peer: Peer) -> None:
    options = hs.SocketOptions(recv_buffer=2**30 - 1)  # More than net.core.rmem_max.
    with hs.Pool(peer.address, max_size=2, socket_options=options) as pool:
        with pytest.warns(hs.SettingWarning, match="recv_buffer"):
            first = pool.acquire(timeout=30)
        second = pool.acquire(timeout=30)
        pool.release(first)
        pool.release(second)
    with hs.Pool(peer.address, max_size=1, socket_options=options) as pool:
        with warnings.catch_warnings(), pytest.raises(hs.SettingWarning):
            warnings.simplefilter("error")
            pool.acquire(timeout=30)
        assert pool.stats().lent == 0


# ---- waiting


def test_timeout_names_the_holders(peer: Peer) -> None:
    with hs.Pool(peer.address, max_size=2, name="db") as pool:
        first, second = pool.acquire(timeout=30), pool.acquire(timeout=30)
        line = sys._getframe().f_lineno - 1
        with pytest.raises(hs.PoolTimeout) as caught:
            pool.acquire(timeout=0.01)
        exc = caught.value
        assert isinstance(exc, TimeoutError)
        assert [one.site.line for one in exc.holders] == [line, line]
        assert exc.holders[0].site.file == HERE
        assert exc.holders[0].thread == threading.current_thread().name
        assert exc.stats is not None
        assert exc.stats.lent == 2
        assert f"{HERE}:{line}" in str(exc)
        assert "pool db: 2 of 2 lent" in str(exc)
        assert exc.hint is not None
        assert "this thread holds 2 of them itself" in exc.hint
        pool.release(first)
        pool.release(second)


@pytest.fixture
def refusing() -> Iterator[tuple[str, int]]:
    """An address at which nobody listens: it is kept, so that nobody else on this machine does."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        yield unused.getsockname()


def test_timeout_tells_of_the_last_dial_error(refusing: tuple[str, int]) -> None:
    with hs.Pool(refusing, keep_trying=True) as pool:
        with pytest.raises(hs.PoolTimeout) as caught:
            pool.acquire(timeout=1)
        assert caught.value.last_dial_error is not None
        assert "refused" in str(caught.value)


def test_failed_dial_is_raised_to_whom_nothing_else_serves(refusing: tuple[str, int]) -> None:
    with hs.Pool(refusing) as pool, pytest.raises(hs.ConnectionRefused) as caught:
        pool.acquire(timeout=30)
    assert caught.value.op == "connect"


def fields(call: Any) -> dict[str, Any]:
    with pytest.raises(hs.HardsockError) as caught:
        call()
    error = caught.value
    names = ("op", "phase", "errno", "peer", "attempts", "hint", "address", "last_error")
    found = {name: getattr(error, name, None) for name in names}
    found["class"] = type(error)
    # How many others have failed is one more each time.
    found["hint"] = re.sub(r"(; )?\d+ other connects to this .*", "", found["hint"] or "")
    if found["attempts"]:
        found["attempts"] = [(one.address, one.phase, one.errno) for one in error.attempts]
        assert all(0 <= one.started <= one.ended for one in error.attempts)
    if isinstance(error, hs.BreakerOpen):
        assert error.retry_after is not None
        assert error.retry_after > 0
    return found


def test_error_of_a_dial_loses_nothing_on_its_way_through_a_pool(
    refusing: tuple[str, int],
) -> None:
    async def awaited(**settings: Any) -> None:
        async with aio.Pool(refusing, **settings) as pool:
            await pool.acquire(timeout=30)

    breaker = hs.Breaker(failures=1)
    for settings in {}, {"breaker": breaker}, {"breaker": breaker}:
        direct = fields(lambda settings=settings: hs.connect(refusing, timeout=30, **settings))
        if settings and direct["class"] is not hs.BreakerOpen:
            continue  # It opens the breaker for the next.
        with hs.Pool(refusing, **settings) as pool:
            assert fields(lambda: pool.acquire(timeout=30)) == direct
            assert fields(pool.connection(timeout=30).__enter__) == direct
        assert fields(lambda settings=settings: asyncio.run(awaited(**settings))) == direct
    assert direct["class"] is hs.BreakerOpen


def test_ambient_scopes_and_tokens_reach_the_queue(peer: Peer) -> None:
    with hs.Pool(peer.address, max_size=1) as pool, pool.connection(timeout=30):
        with pytest.raises(hs.PoolTimeout), hs.timeout(0.01):
            pool.acquire()
        token = hs.CancelToken()
        token.cancel("enough")
        with pytest.raises(hs.Cancelled, match="enough"):
            pool.acquire(token=token)
        with pytest.raises(hs.PoolTimeout):
            pool.acquire(timeout=0)
    with hs.Pool(peer.address) as pool:
        pool.release(pool.acquire(timeout=30))
        with pytest.raises(hs.Cancelled), hs.scope(token):
            pool.acquire()


def test_twenty_threads_on_two_connections_are_served_alike(peer: Peer) -> None:
    """M1 to M3: others serve some threads hundreds of times, and others once."""
    counts = [0] * 20
    stop = threading.Event()
    all_there = threading.Barrier(20)

    def work(i: int, pool: hs.Pool) -> None:
        all_there.wait(60)
        while not stop.is_set():
            with pool.connection(timeout=60):
                counts[i] += 1
                time.sleep(0.002)  # The work for which it is held.

    with hs.Pool(peer.address, max_size=2) as pool:
        threads = [threading.Thread(target=work, args=(i, pool)) for i in range(20)]
        for thread in threads:
            thread.start()
        try:
            eventually(lambda: sum(counts) >= 600, limit=60)
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        assert holds(pool.stats())
    # Not alike to a tenth: a thread that waits for a processor is in no queue of ours.
    assert min(counts) >= max(counts) / 2, counts


def test_interrupted_waiter_leaves_nothing_behind(peer: Peer) -> None:
    """M5: psycopg_pool hands the connection to a waiter that a signal has taken away."""
    with hs.Pool(peer.address, max_size=1) as pool:
        conn = pool.acquire(timeout=30)
        main = threading.main_thread().ident
        assert main is not None

        def interrupt() -> None:
            waiting(pool, 1)
            signal.pthread_kill(main, signal.SIGINT)

        thread = threading.Thread(target=interrupt)
        thread.start()
        with pytest.raises(KeyboardInterrupt):
            pool.acquire(timeout=60)
        thread.join()
        assert pool.stats().waiting == 0
        pool.release(conn)
        with pool.connection(timeout=30):
            pass
        assert pool.stats().lent == 0


def test_dead_waiters_do_not_count(peer: Peer) -> None:
    """M6: psycopg_pool counts those who have left against max_waiting."""
    with hs.Pool(peer.address, max_size=1, max_waiting=1) as pool, pool.connection(timeout=30):
        for _ in range(3):
            with pytest.raises(hs.PoolTimeout):
                pool.acquire(timeout=0.01)
        thread = threading.Thread(target=refused, args=(hs.Closed, pool.acquire))
        thread.start()
        waiting(pool, 1)
        with pytest.raises(hs.PoolRefused, match="max_waiting"):
            pool.acquire(timeout=30)
        pool.close()
        thread.join()


def test_deadlock_with_oneself_is_refused_on_demand(peer: Peer) -> None:
    with (
        hs.Pool(peer.address, max_size=1, refuse_deadlock=True) as pool,
        pool.connection(timeout=30),
        pytest.raises(hs.PoolRefused, match="deadlock"),
    ):
        pool.acquire(timeout=30)


def test_return_does_not_wait_for_a_dial(peer: Peer, black_hole: tuple[str, int]) -> None:
    """M8: DBUtils dials under its lock, and a return waits for that."""
    with hs.Pool([peer.address, black_hole], max_size=2, max_per_endpoint=1) as pool:
        conn = pool.acquire(timeout=30)
        thread = threading.Thread(target=lambda: pool.release(pool.acquire(timeout=60)))
        thread.start()
        eventually(lambda: pool.stats().dialing == 1)
        pool.release(conn)
        thread.join()
        assert pool.stats().dialing == 1  # It is still under way.


@pytest.fixture
def black_hole() -> Iterator[tuple[str, int]]:
    """An address that never answers: its listener's queue is full."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        address = server.getsockname()
        fillers = [socket.socket() for _ in range(3)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(address)
        yield address
        for filler in fillers:
            filler.close()


# ---- who holds what


def borrow_here(pool: hs.Pool) -> hs.Connection:
    return pool.acquire(timeout=30)


def test_lent_names_the_line_outside_of_hardsock(peer: Peer) -> None:
    with hs.Pool(peer.address, max_size=4) as pool:
        conn = borrow_here(pool)
        (lent,) = pool.lent()
        assert lent.site.function == "borrow_here"
        assert lent.site.file == HERE
        assert lent.site.line == borrow_here.__code__.co_firstlineno + 1
        assert lent.fd == conn.fileno()
        assert lent.age >= 0
        assert lent.task is None
        assert any("test_lent_names" in line for line in lent.current_stack())
        assert pool.leaks(older_than=60) == []
        assert [leak.id for leak in pool.leaks(older_than=0)] == [lent.id]
        pool.release(conn)
        with pool.connection(timeout=30):
            assert pool.lent()[0].site.function == "test_lent_names_the_line_outside_of_hardsock"
        assert [site.function for site in pool.sites()].count("borrow_here") == 1


def test_stacks_are_kept_on_demand(peer: Peer) -> None:
    with hs.Pool(peer.address, trace_frames=3) as pool:
        conn = borrow_here(pool)
        (lent,) = pool.lent()
        assert [site.function for site in lent.stack[:2]] == [
            "borrow_here",
            "test_stacks_are_kept_on_demand",
        ]
        assert len(lent.stack) == 3
        pool.release(conn)
        assert pool._traces == {}
    with hs.Pool(peer.address, trace_every=2) as pool:
        a, b = borrow_here(pool), borrow_here(pool)
        assert sorted(len(lent.stack) > 3 for lent in pool.lent()) == [False, True]
        a.close()
        b.close()
        assert pool._traces == {}


@pytest.mark.may_leave("thrown away on purpose", sites=["*/test_pool.py:*"])
def test_lost_connection_is_closed_counted_and_warned_about(peer: Peer) -> None:
    with hs.Pool(peer.address, max_size=1) as pool:
        line = borrow_here.__code__.co_firstlineno + 1
        with pytest.warns(hs.LeakWarning, match=rf"borrowed at .*test_pool.py:{line}$"):
            borrow_here(pool)
        with pytest.warns(hs.LeakWarning, match="borrowed at"):
            lose(pool)
        eventually(lambda: pool.stats().closed_by_reason["lost"] == 2)
        with pool.connection(timeout=30) as conn:  # The place is free; it is another connection.
            assert not conn.reused
        assert any(site.lost for site in pool.sites())


def lose(pool: hs.Pool) -> None:
    conn = pool.acquire(timeout=30)
    cycle: list[object] = [conn]
    cycle.append(cycle)
    del cycle, conn
    gc.collect()


def test_leak_is_reported_with_both_stacks_and_its_late_return(
    peer: Peer, caplog: pytest.LogCaptureFixture
) -> None:
    told = threading.Event()
    leaks: list[hs.Lent] = []

    def on_leak(lent: hs.Lent) -> None:
        leaks.append(lent)
        leaks.append(lent.current_stack())  # type: ignore[arg-type]
        told.set()

    with hs.Pool(peer.address, leak_after=0.02, trace_frames=2, on_leak=on_leak) as pool:
        conn = borrow_here(pool)
        assert told.wait(60)
        assert leaks[0].site.function == "borrow_here"
        assert leaks[0].stack[0].function == "borrow_here"
        assert any("told.wait" in line for line in leaks[1])  # type: ignore[attr-defined]
        with caplog.at_level(logging.WARNING, "hardsock.pool"):
            pool.release(conn)
        assert "returned late" in caplog.text
        stats = pool.stats()
        assert (stats.overdue, stats.returned_late) == (1, 1)


def test_leaks_are_logged_by_default(peer: Peer, caplog: pytest.LogCaptureFixture) -> None:
    with (
        caplog.at_level(logging.WARNING, "hardsock.pool"),
        hs.Pool(peer.address, leak_after=0.02) as pool,
    ):
        conn = borrow_here(pool)
        eventually(lambda: "not returned" in caplog.text)
        assert "borrow_here" in caplog.text
        assert "the holder is at" in caplog.text
        pool.release(conn)


def test_histograms_record_failures_too(peer: Peer) -> None:
    with hs.Pool(peer.address, max_size=1) as pool:
        with pool.connection(timeout=30), pytest.raises(hs.PoolTimeout):
            pool.acquire(timeout=0.02)
        wait = pool.stats().wait
        assert wait.count == 2
        assert wait.maximum >= 0.02
        assert wait.quantile(1.0) >= 0.02
        assert sum(count for _, count in wait.buckets) == wait.count
        with pytest.raises(ValueError, match="q must be"):
            wait.quantile(2)


# ---- health


def test_peers_that_leave_are_noticed_without_borrowing(peer: Peer) -> None:
    with hs.Pool(peer.address) as pool:
        pool.release(pool.acquire(timeout=30))
        eventually(lambda: len(peer.accepted) == 1)
        peer.hang_up()
        eventually(lambda: pool.stats().closed_by_reason["peer_closed"] == 1)
        assert pool.stats().probes == 0


def test_stale_connections_are_found_before_they_are_lent(peer: Peer) -> None:
    with hs.Pool(peer.address, max_size=3) as pool:
        conns = [pool.acquire(timeout=30) for _ in range(3)]
        eventually(lambda: len(peer.accepted) == 3)
        for conn in conns:
            pool.release(conn)
        peer.hang_up()
        with pool.connection(timeout=30) as conn:
            assert ask(conn) == b"hello"
        # The pool worker may have been there first, and may be closing the others.
        eventually(lambda: pool.stats().closed_by_reason["peer_closed"] == 3)


class Talkative:
    """Sends five bytes behind its first answer on each connection, as a broken HTTP server does."""

    def __init__(self) -> None:
        self.socket = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.address: tuple[str, int] = self.socket.getsockname()
        self.threads = [threading.Thread(target=self.serve, daemon=True)]
        self.threads[0].start()

    def serve(self) -> None:
        while True:
            try:
                conn, _ = self.socket.accept()
            except OSError:
                return
            self.threads.append(threading.Thread(target=self.answer, args=(conn,), daemon=True))
            self.threads[-1].start()

    def answer(self, conn: socket.socket) -> None:
        excess = b"12345"
        with conn, suppress(OSError):  # A client that left something unread resets.
            while asked := conn.recv(1):
                conn.sendall(b"<" + asked * 3 + b">" + excess)
                excess = b""

    def close(self) -> None:
        self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()
        for thread in self.threads:
            thread.join()


@pytest.fixture
def talkative() -> Iterator[Talkative]:
    server = Talkative()
    yield server
    server.close()


def ask_talkative(conn: hs.Connection, byte: bytes) -> bytes:
    conn.sendall(byte, timeout=30)
    answer = conn.recv_exactly(5, timeout=30)
    conn.mark_clean()
    return answer


def leave_excess(conn: hs.Connection) -> None:
    """Read exactly one's own answer; the rest has arrived in the kernel by then."""
    assert ask_talkative(conn, b"a") == b"<aaa>"
    eventually(lambda: unread(conn.fileno()) == 5)


def test_excess_bytes_do_not_reach_the_next_borrower(talkative: Talkative) -> None:
    with hs.Pool(talkative.address, max_size=1) as pool:
        with pool.connection(timeout=30) as conn:
            leave_excess(conn)
        with pool.connection(timeout=30) as conn:
            assert ask_talkative(conn, b"b") == b"<bbb>"
        assert pool.stats().closed_by_reason["unsolicited"] == 1


def test_excess_bytes_do_not_reach_a_caller_in_the_queue(talkative: Talkative) -> None:
    answers: list[bytes] = []
    with hs.Pool(talkative.address, max_size=1) as pool:

        def borrow(byte: bytes) -> None:
            with pool.connection(timeout=60) as conn:
                answers.append(ask_talkative(conn, byte))

        with pool.connection(timeout=30) as conn:
            thread = threading.Thread(target=borrow, args=(b"b",))
            thread.start()
            waiting(pool, 1)
            leave_excess(conn)
        thread.join()
        assert answers == [b"<bbb>"]
        stats = pool.stats()
        assert stats.closed_by_reason["unsolicited"] == 1
        assert (stats.acquired, stats.opened) == (2, 2)
        assert holds(stats)


def test_with_probe_after_a_borrower_may_read_what_was_left(talkative: Talkative) -> None:
    """What the option's documentation says it risks."""
    with hs.Pool(talkative.address, max_size=1, probe_after=60.0) as pool:
        with pool.connection(timeout=30) as conn:
            leave_excess(conn)
        with pool.connection(timeout=30) as conn:
            assert ask_talkative(conn, b"b") == b"12345"
        assert pool.stats().probes == 0


# ---- hooks


def test_on_connect_runs_once_for_each_connection(peer: Peer) -> None:
    seen: list[hs.Connection] = []

    def login(conn: hs.Connection) -> None:
        seen.append(conn)
        conn.sendall(b"login")
        assert conn.recv_exactly(5) == b"login"

    with hs.Pool(peer.address, on_connect=login) as pool:
        for _ in range(3):
            with pool.connection(timeout=30) as conn:
                ask(conn)
        assert len(seen) == 1
        assert pool.stats().opened == 1
        assert pool.sites()[0].file == HERE


def test_on_connect_that_fails_is_raised_and_frees_the_place(peer: Peer) -> None:
    fail = True

    def login(conn: hs.Connection) -> None:
        if fail:
            raise PermissionError("no such user")

    with hs.Pool(peer.address, max_size=1, on_connect=login) as pool:
        with pytest.raises(PermissionError):
            pool.acquire(timeout=30)
        assert pool.stats().closed_by_reason["check_failed"] == 1
        fail = False
        with pool.connection(timeout=30) as conn:
            assert not conn.reused


def test_hooks_obey_the_callers_deadline(peer: Peer) -> None:
    def login(conn: hs.Connection) -> None:
        conn.recv(1)  # The peer says nothing first.

    with hs.Pool(peer.address, on_connect=login) as pool:
        began = time.monotonic()
        with pytest.raises(hs.DeadlineExceeded):
            pool.acquire(timeout=0.05)
        assert time.monotonic() - began < 5
        token = hs.CancelToken(0.05)
        with pytest.raises(hs.DeadlineExceeded):
            pool.acquire(token=token)
        assert pool.stats().lent == 0


def test_check_replaces_what_it_does_not_accept(peer: Peer) -> None:
    bad: set[int] = set()

    def check(conn: hs.Connection) -> bool:
        return conn.fileno() not in bad

    with hs.Pool(peer.address, max_size=2, check=check, check_after=0) as pool:
        first, second = pool.acquire(timeout=30), pool.acquire(timeout=30)
        bad.update((first.fileno(), second.fileno()))
        pool.release(first)
        pool.release(second)
        hold = [socket.socket() for _ in range(4)]  # New connections get other numbers.
        with pool.connection(timeout=30) as conn:
            assert not conn.reused
        assert pool.stats().closed_by_reason["check_failed"] == 2
        for one in hold:
            one.close()


def test_reset_runs_before_the_return_and_may_refuse(peer: Peer) -> None:
    calls: list[str] = []

    def reset(conn: hs.Connection) -> None:
        calls.append("reset")
        assert ask(conn, b"rollback") == b"rollback"
        if len(calls) == 2:
            raise RuntimeError("stuck")

    with hs.Pool(peer.address, reset=reset) as pool:
        with pool.connection(timeout=30) as conn:
            ask(conn)
        assert pool.stats().idle == 1
        with pool.connection(timeout=30) as conn:
            ask(conn)
        assert pool.stats().closed_by_reason["check_failed"] == 1
        with pytest.warns(hs.PoolWarning), pool.connection(timeout=30) as conn:
            conn.sendall(b"half")  # Not marked clean: there is no point in a reset.
        assert len(calls) == 2


def test_pings_are_bytes(peer: Peer) -> None:
    with hs.Pool(peer.address, ping=(b"PING", b"PING"), ping_after=0.01) as pool:
        pool.release(pool.acquire(timeout=30))
        eventually(lambda: peer.received >= 3 * len(b"PING"))
        with pool.connection(timeout=30) as conn:
            assert conn.bytes_received >= 2 * len(b"PING")
            assert conn.retry_is_safe  # What the pool worker sent is not the borrower's.
        assert pool.stats().opened == 1


def test_subclass_may_override_acquire_and_release(peer: Peer) -> None:
    calls: list[str] = []

    class Counted(hs.Pool):
        def acquire(
            self, *, timeout: float | None = None, token: hs.CancelToken | None = None
        ) -> hs.Connection:
            calls.append("acquire")
            return super().acquire(timeout=timeout, token=token)

    with Counted(peer.address) as pool, pool.connection(timeout=30):
        assert calls == ["acquire"]
    met: list[hs.Connection] = []
    with Counted(peer.address, on_connect=met.append) as pool, pool.connection(timeout=30) as conn:
        assert met == [conn]  # Its acquire() is called, and the hooks within that.
        assert calls == ["acquire"] * 2


# ---- size and end


def test_resize_drain_and_evict(peer: Peer) -> None:
    with hs.Pool(peer.address, max_size=3) as pool:
        conns = [pool.acquire(timeout=30) for _ in range(3)]
        pool.resize(2)
        pool.release(conns[0])
        assert pool.stats().closed_by_reason["surplus"] == 1
        with pytest.raises(hs.DeadlineExceeded):
            pool.drain(timeout=0.01)
        for conn in conns[1:]:
            pool.release(conn)
        pool.drain(timeout=30)
        assert pool.stats().closed_by_reason["evicted"] == 2
        pool.release(pool.acquire(timeout=30))
        pool.evict()
        assert pool.stats().idle == 0
        with pytest.raises(ValueError, match="max_size"):
            pool.resize(0)


def test_close_reports_who_still_holds_what(peer: Peer) -> None:
    pool = hs.Pool(peer.address)
    conn = borrow_here(pool)
    report = pool.close(timeout=0.01)
    assert not report.clean
    assert [lent.site.function for lent in report.lent] == ["borrow_here"]
    with pytest.raises(hs.Closed):
        pool.acquire(timeout=30)
    thread = threading.Thread(target=refused, args=(hs.Closed, conn.recv, 1))
    thread.start()
    assert not pool.close(abort=True).clean
    thread.join()
    pool.release(conn)
    assert pool.close().clean
    assert pool.closed


def test_pool_that_nobody_closed_takes_its_connections_along(peer: Peer) -> None:
    pool = hs.Pool(peer.address)
    pool.release(pool.acquire(timeout=30))
    del pool
    gc.collect()
    eventually(lambda: _core._live()["pools"] == 0)


def test_child_has_an_empty_pool_and_leaves_the_parents_alone(peer: Peer) -> None:
    with hs.Pool(peer.address, max_size=2) as pool:
        with pool.connection(timeout=30) as conn:
            ask(conn)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # 3.12: fork with threads
                pid = os.fork()
            if pid == 0:
                os._exit(_in_child(pool, conn))
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
            assert ask(conn) == b"hello"
        assert pool.stats().idle == 1


def _in_child(pool: hs.Pool, conn: hs.Connection) -> int:
    try:
        assert pool.stats().opened == 0
        with pytest.raises(hs.Closed):
            conn.sendall(b"from the child")
        pool.release(conn)
        with pool.connection(timeout=30) as own:
            assert not own.reused
            assert ask(own) == b"hello"
        assert pool.close(timeout=30).clean
    except BaseException as exc:
        os.write(2, repr(exc).encode())
        return 1
    return 0


# ---- options


@pytest.mark.parametrize(
    ("settings", "names"),
    [
        ({"min_idle": 3, "max_size": 2}, ("min_idle", "max_size")),
        ({"max_idle": 3, "max_size": 2}, ("max_idle", "max_size")),
        ({"min_idle": 2, "max_idle": 1}, ("min_idle", "max_idle")),
        ({"max_per_endpoint": 3, "max_size": 2}, ("max_per_endpoint", "max_size")),
        ({"backoff_min": 9, "backoff_max": 2}, ("backoff_min", "backoff_max")),
        ({"leak_after": 9, "max_lifetime": 2}, ("leak_after", "max_lifetime")),
        (
            {"ping": (b"a", b"b"), "ping_after": 9, "max_lifetime": 2},
            ("ping_after", "max_lifetime"),
        ),
        (
            {"ping": (b"a", b"b"), "ping_after": 9, "idle_timeout": 2},
            ("ping_after", "idle_timeout"),
        ),
        ({"ping_after": 9}, ("ping", "ping_after")),
    ],
)
def test_contradictions_are_refused_with_both_names(
    settings: dict[str, Any], names: tuple[str, str]
) -> None:
    with pytest.raises(ValueError) as caught:
        hs.PoolOptions(**settings)
    for name in names:
        assert name in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"max_size": 0}, ValueError),
        ({"max_size": True}, TypeError),
        ({"max_size": 1.5}, TypeError),
        ({"idle_timeout": 0}, ValueError),
        ({"idle_timeout": float("nan")}, ValueError),
        ({"dial_timeout": None}, TypeError),
        ({"probe_after": -1}, ValueError),
        ({"reuse": "always"}, ValueError),
        ({"order": "random"}, ValueError),
        ({"ping": b"x", "ping_after": 1}, ValueError),
        ({"max_sise": 1}, TypeError),
    ],
)
def test_wrong_options_are_refused(settings: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        hs.Pool(("127.0.0.1", 1), **settings)


def test_options_and_settings_are_one_or_the_other() -> None:
    with pytest.raises(TypeError, match="one of the two"):
        hs.Pool(("127.0.0.1", 1), hs.PoolOptions(), max_size=2)
    with pytest.raises(ValueError, match="leak_after"):
        hs.Pool(("127.0.0.1", 1), on_leak=print)
    with pytest.raises(TypeError, match="PoolOptions"):
        hs.Pool(("127.0.0.1", 1), {"max_size": 1})  # type: ignore[arg-type]


# ---- several pools


def test_manager_has_a_pool_for_each_endpoint(peer: Peer) -> None:
    other = Peer()
    try:
        with hs.PoolManager(max_size=2, max_pools=2) as manager:
            with (
                manager.connection(peer.address, timeout=30) as a,
                manager.connection(other.address, timeout=30) as b,
            ):
                assert ask(a) == ask(b)
                assert len(manager.lent()) == 2
                with pytest.raises(hs.PoolRefused, match="max_pools"):
                    manager.pool("127.0.0.1:1")
            text = f"{peer.address[0]}:{peer.address[1]}"
            assert manager.pool(text) is manager.pool(peer.address)
            conn = manager.acquire(peer.address, timeout=30)
            assert conn.reused
            manager.release(conn)
            manager.pool("127.0.0.1:1")  # Closes the one that was not used for longest.
            assert set(manager.stats()) == {text, "127.0.0.1:1"}
        with pytest.raises(hs.Closed):
            manager.pool(peer.address)
    finally:
        other.close()


def test_socket_options_given_as_the_pools_own_are_refused_by_the_right_name() -> None:
    with pytest.raises(TypeError, match=r"not SocketOptions: give these as socket_options$"):
        hs.Pool(("127.0.0.1", 1), hs.SocketOptions())  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"options must be PoolOptions, not int$"):
        hs.Pool(("127.0.0.1", 1), 5)  # type: ignore[arg-type]
