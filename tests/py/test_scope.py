"""The ambient scope reaches every call below it, in threads and tasks."""

from __future__ import annotations

import asyncio
import contextvars
import socket
from collections.abc import Iterator

import pytest

import hardsock as hs
from hardsock.lab.threads import Call


@pytest.fixture
def conn() -> Iterator[hs.Connection]:
    ours, theirs = socket.socketpair()
    with theirs, hs.adopt(ours) as adopted:
        yield adopted


def test_outside_any_scope_there_is_no_current_token() -> None:
    assert hs.current() is None


def test_a_scope_bounds_calls_that_were_given_nothing(conn: hs.Connection) -> None:
    with hs.timeout(0.02, name="request") as token:
        assert hs.current() is token
        with pytest.raises(hs.DeadlineExceeded) as caught:
            conn.recv(1)
        with pytest.raises(hs.DeadlineExceeded):
            conn.sendall(b"x")
    assert caught.value.reason == "request"
    assert hs.current() is None
    conn.sendall(b"x")


def test_an_inner_scope_can_only_tighten(conn: hs.Connection) -> None:
    with hs.timeout(0.02), hs.timeout(60), pytest.raises(hs.DeadlineExceeded):
        conn.recv(1, timeout=60)


def test_the_outer_scope_survives_the_end_of_an_inner_one(conn: hs.Connection) -> None:
    with hs.timeout(60) as outer:
        with hs.timeout(0), pytest.raises(hs.DeadlineExceeded):
            conn.recv(1)
        assert hs.current() is outer
        conn.sendall(b"x")


def test_a_given_token_and_the_scope_both_apply(conn: hs.Connection) -> None:
    token = hs.CancelToken()
    token.cancel("mine")
    with hs.timeout(60), pytest.raises(hs.Cancelled, match="mine"):
        conn.recv(1, token=token)
    with hs.timeout(60) as ambient:
        ambient.cancel("theirs")
        with pytest.raises(hs.Cancelled, match="theirs"):
            conn.recv(1, token=hs.CancelToken())


def test_scope_makes_a_token_ambient_beside_the_outer_one(conn: hs.Connection) -> None:
    shutdown = hs.CancelToken()
    with hs.timeout(60) as outer, hs.scope(shutdown):
        shutdown.cancel("shutting down")
        with pytest.raises(hs.Cancelled, match="shutting down"):
            conn.recv(1)
        assert not outer.cancelled
    with hs.scope(shutdown) as same:
        assert same is shutdown


def test_a_shield_keeps_a_cancelled_scope_out_but_not_its_own_deadline(
    conn: hs.Connection,
) -> None:
    with hs.timeout(60) as token:
        token.cancel("stop")
        with hs.shield(0.05):
            conn.sendall(b"goodbye")
            with pytest.raises(hs.DeadlineExceeded):
                conn.recv(1)
        with pytest.raises(hs.Cancelled):
            conn.sendall(b"more")


def test_a_scope_of_something_else_is_refused() -> None:
    with pytest.raises(TypeError, match="token must be a CancelToken"), hs.scope(5):  # type: ignore[arg-type]
        pass


def test_a_shield_without_a_deadline_is_refused() -> None:
    with pytest.raises(TypeError, match="a shield needs a deadline"), hs.shield(None):  # type: ignore[arg-type]
        pass


def test_a_thread_inherits_the_scope_with_a_copied_context(conn: hs.Connection) -> None:
    with hs.timeout(60) as token:
        context = contextvars.copy_context()
        with Call(context.run, conn.recv, 1) as reading:
            reading.wait_until_blocked()
            token.cancel("from outside")
            with pytest.raises(hs.Cancelled, match="from outside"):
                reading.result(30)


def test_asyncio_tasks_have_their_own_scopes() -> None:
    async def worker(seconds: float) -> float | None:
        with hs.timeout(seconds):
            await asyncio.sleep(0)
            token = hs.current()
            assert token is not None
            return token.remaining

    async def main() -> list[float | None]:
        with hs.timeout(50):
            return await asyncio.gather(worker(10), worker(100))

    short, long = asyncio.run(main())
    assert short is not None
    assert long is not None
    assert short <= 10 < long <= 50


# ---- What is left, and pauses


def test_remaining_is_the_nearer_of_the_scope_and_a_limit() -> None:
    assert hs.remaining() is None
    assert hs.remaining(3.0) == 3.0
    with hs.timeout(None):
        assert hs.remaining() is None
        assert hs.remaining(3.0) == 3.0
    with hs.timeout(60) as token:
        left = hs.remaining()
        assert left is not None
        assert 50 < left <= 60
        assert hs.remaining(1.0) == 1.0
        assert 50 < (hs.remaining(100.0) or 0) <= 60
        token.cancel()
        assert hs.remaining() == hs.remaining(1.0) == 0.0
    with hs.timeout(0):
        assert hs.remaining() == 0.0


def test_sleep_ends_with_the_scope_and_says_why() -> None:
    with hs.timeout(0.02, name="request"), pytest.raises(hs.DeadlineExceeded) as caught:
        hs.sleep(60)
    assert caught.value.reason == "request"


def test_sleep_is_cancelled_from_another_thread_by_either_token() -> None:
    for by_scope in (False, True):
        token, ambient = hs.CancelToken(), hs.CancelToken()

        def pause(token: hs.CancelToken = token, ambient: hs.CancelToken = ambient) -> None:
            with hs.scope(ambient):
                hs.sleep(60, token=token)

        with Call(pause) as call:
            (ambient if by_scope else token).cancel("shutting down")
            with pytest.raises(hs.Cancelled) as caught:
                call.result()
        assert caught.value.reason == "shutting down"


def test_sleep_without_any_scope_only_sleeps() -> None:
    hs.sleep(0)
    hs.sleep(0.001)
    with hs.timeout(60):
        hs.sleep(0.001)
    with hs.timeout(0), pytest.raises(hs.DeadlineExceeded):
        hs.sleep(0)


@pytest.mark.parametrize(
    ("wrong", "error"), [(-1, ValueError), (float("nan"), ValueError), (None, TypeError)]
)
def test_sleep_refuses_what_is_no_time(wrong: float, error: type[Exception]) -> None:
    with pytest.raises(error):
        hs.sleep(wrong)
