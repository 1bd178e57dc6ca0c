"""One object in two threads: one uses it, the other ends it, at the same moment.

With the interpreter's lock most of these moments do not exist; `make check-freethreaded` has them.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator

import pytest

import hardsock as hs

ROUNDS = 400


@pytest.fixture
def pool() -> Iterator[hs.Pool]:
    with hs.listen(("127.0.0.1", 0), backlog=4096) as listener:
        with hs.Pool(listener.address, max_size=4) as made:
            yield made


def at_once(*calls: Callable[[], object]) -> list[BaseException]:
    """Run each in a thread of its own, all at the same moment; what they raised."""
    barrier = threading.Barrier(len(calls))
    raised: list[BaseException] = []

    def run(call: Callable[[], object]) -> None:
        barrier.wait()
        try:
            call()
        except BaseException as exc:
            raised.append(exc)

    threads = [threading.Thread(target=run, args=(call,)) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return raised


@pytest.mark.parametrize("end", ["close", "abort", "release"])
def test_ending_it_in_another_thread_as_the_with_block_ends_is_no_error(
    pool: hs.Pool, end: str
) -> None:
    for _ in range(ROUNDS):
        block = pool.connection(timeout=60)
        conn = block.__enter__()

        def other(conn: hs.Connection = conn) -> None:
            if end == "release":
                with contextlib.suppress(ValueError):  # The block was first.
                    pool.release(conn)
            else:
                getattr(conn, end)()

        assert at_once(lambda: block.__exit__(None, None, None), other) == []  # noqa: B023
    assert pool.stats().lent == 0


def test_release_and_close_at_the_same_moment_is_no_error(pool: hs.Pool) -> None:
    for _ in range(ROUNDS):
        conn = pool.acquire(timeout=60)
        assert at_once(lambda: pool.release(conn), conn.close) == []  # noqa: B023
    assert pool.stats().lent == 0


def test_one_of_two_that_release_at_the_same_moment_is_refused(pool: hs.Pool) -> None:
    for _ in range(ROUNDS):
        conn = pool.acquire(timeout=60)
        (refused,) = at_once(*[lambda: pool.release(conn)] * 2)  # noqa: B023
        assert isinstance(refused, ValueError)
    assert pool.stats().lent == 0


def test_asking_a_lease_while_it_ends(pool: hs.Pool) -> None:
    def ask(conn: hs.Connection) -> None:
        for _ in range(20):
            conn.mark_clean()
            assert isinstance(conn._clean and conn.reused and conn.retry_is_safe, bool)
            assert conn._lease_id >= 0
            assert conn._idle_for >= 0

    for _ in range(ROUNDS):
        conn = pool.acquire(timeout=60)
        assert at_once(lambda: ask(conn), lambda: pool.release(conn)) == []  # noqa: B023


def test_detach_or_release_has_the_descriptor_not_both(pool: hs.Pool) -> None:
    for _ in range(ROUNDS):
        conn = pool.acquire(timeout=60)
        numbers: list[int] = []
        raised = at_once(
            lambda: numbers.append(conn.detach()),  # noqa: B023
            lambda: pool.release(conn),  # noqa: B023
        )
        assert all(isinstance(exc, hs.Closed) for exc in raised)
        assert len(numbers) + len(raised) == 1
        for number in numbers:
            hs.adopt(number).close()
    assert pool.stats().lent == 0


def test_one_with_block_for_two_threads_lends_once_or_refuses(pool: hs.Pool) -> None:
    for _ in range(ROUNDS // 4):
        block = pool.connection(timeout=60)
        raised = at_once(*[block.__enter__] * 4)
        assert len(raised) == 3
        assert all(isinstance(exc, RuntimeError) for exc in raised)
        assert at_once(*[lambda: block.__exit__(None, None, None)] * 4) == []  # noqa: B023
    assert pool.stats().lent == 0


def test_first_callbacks_of_several_threads_are_all_kept() -> None:
    for _ in range(ROUNDS):
        token, called = hs.CancelToken(), []
        assert (
            at_once(*[lambda: token.on_cancel(lambda: called.append(1))] * 4) == []  # noqa: B023
        )
        token.cancel()
        assert len(called) == 4


def test_first_cancels_of_several_threads_name_the_cause_of_the_first() -> None:
    for _ in range(ROUNDS):
        token = hs.CancelToken()
        causes = [ValueError(str(n)) for n in range(4)]
        assert at_once(*[lambda one=one: token.cancel(one) for one in causes]) == []  # noqa: B023
        with pytest.raises(hs.Cancelled) as caught:
            token.check()
        assert caught.value.__cause__ in causes


def test_a_returned_connection_is_not_aborted_for_its_next_borrower(pool: hs.Pool) -> None:
    conn = pool.acquire(timeout=60)
    pool.release(conn)
    next_one = pool.acquire(timeout=60)
    assert next_one.reused
    conn.abort()
    conn.mark_clean()
    next_one.sendall(b"x", timeout=60)
    assert not next_one._clean
    assert not next_one.closed
    pool.release(next_one, discard=True)
