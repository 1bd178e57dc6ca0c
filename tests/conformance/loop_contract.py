"""What awaited connections promise beyond the contract of streams, whatever loop drives them.

The event loop's own cancelling loses nothing and is never swallowed; tokens, deadlines and closing
work from other threads; nobody starves. LISTENER_CONTRACT is about a listener instead of a pair.
"""

from __future__ import annotations

import os
import socket
from typing import Any

import pytest

import hardsock as hs
from hardsock.lab.blackhole import BlackHole
from hardsock.lab.threads import Call

from .drivers import AsyncFunction, Driver
from .stream_contract import BIG

# ---- the loop's own cancelling


async def a_cancelled_task_loses_no_received_byte(driver: Driver, ours: Any, theirs: Any) -> None:
    await ours.sendall(b"half")
    async with driver.start(theirs.recv_exactly, 8) as reading:
        await reading.wait_until_blocked()
        reading.cancel()
        assert await reading.was_cancelled()
    assert theirs.buffered == 4
    assert not theirs.poisoned
    await ours.sendall(b"done")
    assert await theirs.recv_exactly(8, timeout=30) == b"halfdone"


async def bytes_that_come_with_the_cancel_are_kept(driver: Driver, ours: Any, theirs: Any) -> None:
    async with driver.start(theirs.recv, 10) as reading:
        await reading.wait_until_blocked()
        await ours.sendall(b"news")
        reading.cancel()
        cancelled = await reading.was_cancelled()
        if not cancelled:
            assert await reading.result() == b"news"
            return
    assert await theirs.recv(10, timeout=30) == b"news"


async def a_cancelled_writer_poisons_its_direction_only(
    driver: Driver, ours: Any, theirs: Any
) -> None:
    async with driver.start(ours.sendall, BIG) as sending:
        await sending.wait_until_blocked()
        sending.cancel()
        assert await sending.was_cancelled()
    taken = ours.bytes_sent
    assert 0 < taken < len(BIG)
    assert ours.poisoned
    with pytest.raises(hs.Poisoned):
        await ours.sendall(b"more")
    await theirs.sendall(b"still here")
    assert await ours.recv(100, timeout=30) == b"still here"
    ours.close()
    assert len(await theirs.recv_exactly(taken, timeout=60)) == taken
    if ours.tls is None:
        assert await theirs.recv(1, timeout=30) == b""
        return
    with pytest.raises(hs.Truncated):  # half a message is out: nobody says that it was all
        await theirs.recv(1, timeout=30)


async def _fill(ours: Any) -> int:
    """Send until nothing more is taken, and how much was. A deadline alone does not tell: it may
    pass before the call has tried."""
    taken, limit = 0, 0.2
    while not ours.poisoned:
        try:
            taken += await ours.send(BIG, timeout=limit)
            limit = 0.2
        except hs.DeadlineExceeded:
            if limit == 0 and ours.tls is None:
                break
            limit = 0.2 - limit  # By turns: one that waits, one that tries whatever the time.
    return taken


async def a_cancelled_send_leaves_the_direction_usable(
    driver: Driver, ours: Any, theirs: Any
) -> None:
    taken = await _fill(ours)
    if ours.tls is not None:
        assert ours.poisoned  # Half a TLS record is out, and only its rest may follow.
        return
    async with driver.start(ours.send, b"x") as sending:
        await sending.wait_until_blocked()
        sending.cancel()
        assert await sending.was_cancelled()
    assert not ours.poisoned
    await theirs.recv_exactly(taken, timeout=60)
    await ours.sendall(b"y", timeout=30)
    assert await theirs.recv_exactly(1, timeout=30) == b"y"


async def a_cancelled_end_can_be_tried_again(driver: Driver, ours: Any, theirs: Any) -> None:
    await ours.sendall(b"last words")
    async with driver.start(ours.finish) as finishing:
        await finishing.wait_until_blocked()
        finishing.cancel()
        assert await finishing.was_cancelled()
    assert not ours.closed
    assert await theirs.recv(100, timeout=30) == b"last words"
    assert await theirs.recv(1, timeout=30) == b""
    await theirs.close_write()
    report = await ours.finish(timeout=30)
    assert report.ending == "clean"
    assert ours.closed


async def a_cancel_before_the_first_step_touches_nothing(
    driver: Driver, ours: Any, theirs: Any
) -> None:
    async with driver.start(ours.sendall, b"never") as sending:
        sending.cancel()
        assert await sending.was_cancelled()
    assert (ours.bytes_sent, ours.poisoned) == (0, False)


async def a_second_cancel_is_the_same_cancel(driver: Driver, ours: Any, theirs: Any) -> None:
    async with driver.start(theirs.recv, 1) as reading:
        await reading.wait_until_blocked()
        reading.cancel()
        reading.cancel()
        assert await reading.was_cancelled()
    await ours.sendall(b"z")
    assert await theirs.recv(1, timeout=30) == b"z"


async def a_call_that_never_waits_swallows_no_cancel(
    driver: Driver, ours: Any, theirs: Any
) -> None:
    async def read_for_ever() -> None:
        await ours.sendall(b"x")
        while True:
            await theirs.recv(1, socket.MSG_PEEK)

    async with driver.start(read_for_ever) as reading:
        await driver.turn()
        reading.cancel()
        assert await reading.was_cancelled()


async def the_loops_own_timeout_cuts_a_call_short(driver: Driver, ours: Any, theirs: Any) -> None:
    assert await driver.timed_out(0.02, theirs.recv(1))
    assert await driver.timed_out(0.02, theirs.recv_exactly(2, timeout=30))
    await ours.sendall(b"ok")
    assert not await driver.timed_out(30, theirs.recv_exactly(2))


# ---- from other threads


async def a_token_cancelled_in_another_thread_wakes_the_task(
    driver: Driver, ours: Any, theirs: Any
) -> None:
    token = hs.CancelToken()
    async with driver.start(theirs.recv, 1, token=token) as reading:
        await reading.wait_until_blocked()
        with Call(token.cancel, "from outside"):
            with pytest.raises(hs.Cancelled, match="from outside"):
                await reading.result(30)
    assert not theirs.poisoned


async def closing_in_another_thread_wakes_both_directions(
    driver: Driver, ours: Any, theirs: Any
) -> None:
    async with driver.start(ours.recv, 1) as reading, driver.start(ours.sendall, BIG) as sending:
        await reading.wait_until_blocked()
        await sending.wait_until_blocked()
        with Call(ours.close):
            for call in (reading, sending):
                with pytest.raises(hs.Closed):
                    await call.result(30)
    assert ours.fileno() == -1


async def a_read_deadline_set_in_another_thread_wakes_the_reader(
    driver: Driver, ours: Any, theirs: Any
) -> None:
    async with driver.start(theirs.recv, 1) as reading:
        await reading.wait_until_blocked()
        with Call(theirs.set_read_deadline, 0):
            with pytest.raises(hs.DeadlineExceeded):
                await reading.result(30)


async def a_token_deadline_moved_in_another_thread_counts(
    driver: Driver, ours: Any, theirs: Any
) -> None:
    token = hs.CancelToken(timeout=60)
    async with driver.start(theirs.recv, 1, token=token, timeout=120) as reading:
        await reading.wait_until_blocked()
        with Call(token.set_timeout, 0.01):
            with pytest.raises(hs.DeadlineExceeded):
                await reading.result(30)


# ---- scopes and tokens


async def the_ambient_scope_is_the_tasks_own(driver: Driver, ours: Any, theirs: Any) -> None:
    async def read_in_a_scope() -> None:
        with hs.timeout(0.02):
            await theirs.recv(1)

    async with driver.start(ours.recv, 1) as unscoped, driver.start(read_in_a_scope) as scoped:
        with pytest.raises(hs.DeadlineExceeded):
            await scoped.result(30)
        await theirs.sendall(b"x")
        assert await unscoped.result(30) == b"x"


async def a_token_and_a_scope_both_count(driver: Driver, ours: Any, theirs: Any) -> None:
    with hs.timeout(0.02), pytest.raises(hs.DeadlineExceeded):
        await theirs.recv(1, token=hs.CancelToken())
    token = hs.CancelToken(timeout=0.02)
    with hs.timeout(30), pytest.raises(hs.DeadlineExceeded):
        await theirs.recv(1, token=token)
    assert not theirs.poisoned


# ---- fairness


async def a_connection_that_is_always_ready_starves_nobody(
    driver: Driver, ours: Any, theirs: Any
) -> None:
    turns = 0
    stop = False

    async def count_turns() -> None:
        nonlocal turns
        while not stop:
            turns += 1
            await driver.turn()

    async with driver.start(count_turns):
        for _ in range(2000):
            await ours.sendall(b"x")
            await theirs.recv(1)
        stop = True
    assert turns >= 4000 // 128 - 1


async def both_ends_talk_in_lockstep(driver: Driver, ours: Any, theirs: Any) -> None:
    async def echo() -> None:
        while data := await theirs.recv(100):
            await theirs.sendall(data)

    async with driver.start(echo) as echoing:
        for i in range(200):
            message = b"%d" % i
            await ours.sendall(message)
            assert await ours.recv_exactly(len(message), timeout=30) == message
        await ours.close_write()
        await echoing.result(30)


# ---- listeners


def _target(listener: Any) -> Any:
    bound = listener.address
    return bound if isinstance(bound, tuple) else f"unix:{bound}"


async def a_cancelled_accept_loses_no_connection(driver: Driver, listener: Any) -> None:
    async with driver.start(listener.accept) as accepting:
        await accepting.wait_until_blocked()
        async with await driver.connect(_target(listener), timeout=30) as ours:
            accepting.cancel()
            cancelled = await accepting.was_cancelled()
            async with (
                await listener.accept(timeout=30) if cancelled else await accepting.result()
            ) as theirs:
                await ours.sendall(b"x")
                assert await theirs.recv(1, timeout=30) == b"x"
    assert listener.stats().accepted == 1


async def several_tasks_accept_each_its_own(driver: Driver, listener: Any) -> None:
    async with (
        driver.start(listener.accept) as first,
        driver.start(listener.accept) as second,
    ):
        await first.wait_until_blocked()
        await second.wait_until_blocked()
        async with (
            await driver.connect(_target(listener), timeout=30),
            await driver.connect(_target(listener), timeout=30),
            await first.result(30),
            await second.result(30),
        ):
            assert listener.stats().accepted == 2


async def closing_a_listener_wakes_who_accepts(driver: Driver, listener: Any) -> None:
    async with driver.start(listener.accept) as accepting:
        await accepting.wait_until_blocked()
        with Call(listener.close):
            with pytest.raises(hs.Closed):
                await accepting.result(30)


async def giving_a_listener_away_wakes_who_accepts(driver: Driver, listener: Any) -> None:
    async with driver.start(listener.accept) as accepting:
        await accepting.wait_until_blocked()
        os.close(listener.detach())
        with pytest.raises(hs.Closed):
            await accepting.result(30)


async def iteration_ends_with_the_listener(driver: Driver, listener: Any) -> None:
    async def serve() -> int:
        n = 0
        async for conn in listener:
            conn.close()
            n += 1
        return n

    async with driver.start(serve) as serving:
        for _ in range(3):
            async with await driver.connect(_target(listener), timeout=30) as ours:
                assert await ours.recv(1, timeout=30) == b""
        listener.close()
        assert await serving.result(30) == 3


async def a_cancelled_connect_leaves_nothing(driver: Driver, listener: Any) -> None:
    with BlackHole() as hole:
        async with driver.start(driver.connect, hole.address) as connecting:
            await connecting.wait_until_blocked()
            connecting.cancel()
            assert await connecting.was_cancelled()
        with pytest.raises(hs.DeadlineExceeded) as caught:
            await driver.connect(hole.address, timeout=0.02)
        assert caught.value.phase == "connect"


def _functions(first_parameter: str) -> list[AsyncFunction]:
    def is_clause(value: object) -> bool:
        code = getattr(value, "__code__", None)
        return (
            code is not None
            and getattr(value, "__module__", None) == __name__
            and code.co_varnames[:2] == ("driver", first_parameter)
        )

    return [value for value in list(globals().values()) if is_clause(value)]


LOOP_CONTRACT = _functions("ours")
LISTENER_CONTRACT = _functions("listener")
