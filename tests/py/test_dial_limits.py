"""Limits of dials: one queue for threads and tasks, within the deadline, in the order of arrival."""

from __future__ import annotations

import asyncio
import inspect
import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

import hardsock as hs
from hardsock import aio
from hardsock.lab.peers import PeerScript
from hardsock.lab.threads import Call, run_threaded
from support.loops import RUNS

pytestmark = pytest.mark.usefixtures("event_loops")


@pytest.fixture
def listener() -> Iterator[hs.Listener]:
    with hs.listen(("127.0.0.1", 0)) as made:
        yield made


def _wait_for(limits: hs.DialLimits, waiting: int) -> None:
    end = time.monotonic() + 20
    while limits.stats().waiting != waiting:
        assert time.monotonic() < end, limits.stats()
        time.sleep(0)


def test_a_connect_holds_a_place_while_it_is_made(listener: hs.Listener) -> None:
    limits = hs.DialLimits(in_flight=1)
    with PeerScript([("stall",)], check=False) as silent, hs.timeout(20):
        token = hs.CancelToken()
        config = hs.TLSConfig()
        with Call(
            lambda: hs.connect(silent.address, tls=config, token=token, limits=limits)
        ) as holding:
            holding.wait_until_blocked()
            assert limits.stats()[:3] == (1, 0, 1)
            with pytest.raises(
                hs.DeadlineExceeded,
                match=r"no place to dial came free: 1 are in flight, 0 others wait",
            ) as late:
                hs.connect(listener.address, timeout=0.05, limits=limits)
            assert (late.value.op, late.value.phase, late.value.limit) == (
                *("connect", "limits"),
                "timeout=0.05",
            )
            with Call(lambda: hs.connect(listener.address, limits=limits)) as waiting:
                _wait_for(limits, 1)
                token.cancel()
                with pytest.raises(hs.Cancelled):
                    holding.result(20)
                waiting.result(20).close()
    assert limits.stats()[:4] == (0, 0, 2, 1)


def test_who_waits_is_cancelled_by_a_token_and_by_a_scope(listener: hs.Listener) -> None:
    limits = hs.DialLimits(in_flight=1)

    def scoped(token: hs.CancelToken) -> None:
        with hs.scope(token):
            hs.connect(listener.address, limits=limits)

    def given(token: hs.CancelToken) -> None:
        hs.connect(listener.address, limits=limits, token=token)

    with limits.place():
        for call in (scoped, given):
            token = hs.CancelToken()
            with Call(call, token) as waiting:
                _wait_for(limits, 1)
                token.cancel("enough")
                with pytest.raises(hs.Cancelled, match="enough") as caught:
                    waiting.result(20)
                assert (caught.value.op, caught.value.phase) == ("connect", "limits")
            with pytest.raises(hs.DeadlineExceeded) as late:
                call(hs.CancelToken(timeout=0.01))
            assert late.value.phase == "limits"
            with pytest.raises(hs.Cancelled):
                call(token)
    assert limits.stats()[:2] == (0, 0)
    hs.connect(listener.address, limits=limits).close()


def test_places_are_given_in_the_order_of_arrival() -> None:
    limits, order = hs.DialLimits(in_flight=1), []

    def dial(number: int) -> None:
        with limits.place(timeout=20):
            order.append(number)

    with ExitStack() as stack:
        with limits.place():
            calls = []
            for number in range(8):
                calls.append(stack.enter_context(Call(dial, number)))
                _wait_for(limits, number + 1)
        for call in calls:
            call.result(20)
    assert order == list(range(8))


def test_who_gives_up_lets_the_next_one_pass() -> None:
    limits, token = hs.DialLimits(in_flight=1), hs.CancelToken()

    def dial(**limit: Any) -> bool:
        with limits.place(**limit):
            return True

    with ExitStack() as stack:
        place = stack.enter_context(ExitStack())
        place.enter_context(limits.place())
        first = stack.enter_context(Call(dial, token=token))
        _wait_for(limits, 1)
        second = stack.enter_context(Call(dial, timeout=20))
        _wait_for(limits, 2)
        token.cancel()
        with pytest.raises(hs.Cancelled):
            first.result(20)
        assert limits.stats().waiting == 1
        place.close()
        assert second.result(20)


def test_a_rate_is_even_and_saves_nothing_up() -> None:
    limits = hs.DialLimits(per_second=50)

    def dial(_index: int) -> None:
        with limits.place(timeout=20):
            pass

    start = time.monotonic()
    run_threaded(dial, 5)
    assert time.monotonic() - start >= 4 / 50
    assert limits.stats()[:3] == (0, 0, 5)


def test_who_gives_up_in_the_pause_of_a_rate_has_used_nothing() -> None:
    limits = hs.DialLimits(per_second=0.001)
    with limits.place():
        pass
    for _ in range(3):
        with pytest.raises(hs.DeadlineExceeded), limits.place(timeout=0.01):
            raise AssertionError("the rate does not allow it")
    assert limits.stats()[:4] == (0, 0, 1, 3)


def test_a_rate_holds_the_head_of_the_queue_alone() -> None:
    """The next one gets the timer when the head gives up."""
    limits, token = hs.DialLimits(per_second=5), hs.CancelToken()

    def dial(**limit: Any) -> float:
        with limits.place(**limit):
            return time.monotonic()

    began = dial()
    with ExitStack() as stack:
        first = stack.enter_context(Call(dial, token=token))
        _wait_for(limits, 1)
        second = stack.enter_context(Call(dial, timeout=20))
        _wait_for(limits, 2)
        token.cancel()
        assert second.result(20) - began >= 1 / 5
        with pytest.raises(hs.Cancelled):
            first.result(20)


@pytest.mark.parametrize("loop", sorted(RUNS))
def test_tasks_and_threads_wait_in_one_queue(loop: str, listener: hs.Listener) -> None:
    limits = hs.DialLimits(in_flight=1)

    async def main() -> None:
        with ExitStack() as stack:
            place = stack.enter_context(ExitStack())
            place.enter_context(limits.place())
            task = asyncio.ensure_future(aio.connect(listener.address, limits=limits, timeout=20))
            while limits.stats().waiting < 1:
                await asyncio.sleep(0)
            call = stack.enter_context(
                Call(lambda: hs.connect(listener.address, limits=limits, timeout=20))
            )
            while limits.stats().waiting < 2:
                await asyncio.sleep(0)
            gone = asyncio.ensure_future(aio.connect(listener.address, limits=limits))
            while limits.stats().waiting < 3:
                await asyncio.sleep(0)
            gone.cancel()
            with pytest.raises(asyncio.CancelledError):
                await gone
            assert limits.stats()[:2] == (1, 2)
            with pytest.raises(hs.DeadlineExceeded) as late:
                await aio.connect(listener.address, limits=limits, timeout=0.01)
            assert late.value.phase == "limits"
            place.close()
            (await task).close()
            call.result(20).close()
        assert limits.stats()[:2] == (0, 0)
        async with limits.place(timeout=20):
            assert limits.stats()[:2] == (1, 0)
        assert limits.stats()[:2] == (0, 0)

    RUNS[loop](main())


def test_a_crowd_keeps_the_limit_and_loses_no_place(listener: hs.Listener) -> None:
    limits = hs.DialLimits(in_flight=3)
    most: list[int] = []

    def dial(_index: int) -> None:
        for number in range(30):
            try:
                with limits.place(timeout=0.0005 if number % 3 == 0 else 20):
                    most.append(limits.stats().in_flight)
            except hs.DeadlineExceeded:
                pass

    run_threaded(dial, 8)
    assert max(most) <= 3
    assert limits.stats()[:2] == (0, 0)


def test_a_forked_child_begins_anew() -> None:
    """Also when it gives back what it has of the parent."""
    limits = hs.DialLimits(in_flight=1)
    with ExitStack() as stack:
        place = stack.enter_context(ExitStack())
        place.enter_context(limits.place())
        stack.enter_context(Call(lambda: limits.place(timeout=20).__enter__()))
        _wait_for(limits, 1)
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                with limits.place(timeout=30):
                    counts = limits.stats()[:2]
                    place.close()  # of the parent
                status = 0 if (counts, limits.stats()[:2]) == ((1, 0), (0, 0)) else 2
            finally:
                os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert limits.stats()[:2] == (1, 1)
        place.close()
    assert limits.stats()[:3] == (0, 0, 2)


def test_a_place_that_is_dropped_is_given_back() -> None:
    limits = hs.DialLimits(in_flight=1)
    limits.place().__enter__()  # type: ignore[no-untyped-call]
    assert limits.stats().in_flight == 0


def test_a_pool_waits_with_the_others(listener: hs.Listener) -> None:
    limits = hs.DialLimits(in_flight=1)
    with hs.Pool(listener.address, limits=limits) as pool, ExitStack() as stack:
        place = stack.enter_context(ExitStack())
        place.enter_context(limits.place())

        def borrow() -> None:
            with pool.connection(timeout=20):
                pass

        borrowing = stack.enter_context(Call(borrow))
        _wait_for(limits, 1)
        place.close()
        borrowing.result(20)
    assert limits.stats()[:3] == (0, 0, 2)


@pytest.mark.parametrize(
    ("settings", "error", "text"),
    [
        ({}, ValueError, "one of in_flight and per_second must be given"),
        ({"in_flight": 0}, ValueError, "in_flight must be at least 1, got 0"),
        ({"in_flight": True}, TypeError, "in_flight must be an int, not bool"),
        ({"per_second": 0}, ValueError, "per_second must be 1e-6 to 1e6"),
        ({"per_second": float("nan")}, ValueError, "per_second must be 1e-6 to 1e6"),
        ({"per_second": "1"}, TypeError, "per_second must be a number, not str"),
    ],
)
def test_what_is_wrong_is_named(
    settings: dict[str, Any], error: Callable[..., Exception], text: str
) -> None:
    with pytest.raises(error, match=text):  # type: ignore[call-overload]
        hs.DialLimits(**settings)


@pytest.mark.parametrize("connect", ["sync", "aio", "pool"])
def test_only_a_dial_limits_is_one(connect: str, listener: hs.Listener) -> None:
    calls: dict[str, Callable[[], Any]] = {
        "sync": lambda: hs.connect(listener.address, limits=3),  # type: ignore[arg-type]
        "aio": lambda: asyncio.run(
            aio.connect(listener.address, limits=3)  # type: ignore[arg-type]
        ),
        "pool": lambda: hs.Pool(listener.address, limits=3),  # type: ignore[arg-type]
    }
    with pytest.raises(TypeError, match="limits must be a DialLimits or None, not int"):
        calls[connect]()


def test_connect_has_the_same_parameters_awaited() -> None:
    ours, awaited = inspect.signature(hs.connect), inspect.signature(aio.connect)
    assert list(ours.parameters.values()) == list(awaited.parameters.values())
