"""What every connection promises, whatever it runs over and whatever drives it.

Each function here is one sentence of the contract, given a driver (drivers.py) and the two ends of
a connection; ``test_transports.py`` runs all of them by all drivers over all transports.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from typing import Any

import pytest

import hardsock as hs
from hardsock.lab.threads import Call

from .drivers import AsyncFunction, Driver

BIG = b"x" * (8 << 20)


async def bytes_arrive_in_order_and_whole(driver: Driver, ours: Any, theirs: Any) -> None:
    async with driver.start(ours.sendall, BIG, timeout=30) as sending:
        assert await theirs.recv_exactly(len(BIG), timeout=30) == BIG
        await sending.result(30)
    assert ours.bytes_sent == theirs.bytes_received == len(BIG)


async def a_clean_end_is_empty_bytes_again_and_again(
    driver: Driver, ours: Any, theirs: Any
) -> None:
    await ours.sendall(b"last words")
    ours.close()
    assert await theirs.recv(100, timeout=30) == b"last words"
    assert await theirs.recv(100, timeout=30) == b""
    assert await theirs.recv_into(bytearray(8), timeout=30) == 0


async def an_end_in_the_middle_is_truncated_and_keeps_the_bytes(
    driver: Driver, ours: Any, theirs: Any
) -> None:
    await ours.sendall(b"abc")
    ours.close()
    with pytest.raises(hs.Truncated) as caught:
        await theirs.recv_exactly(10, timeout=30)
    assert isinstance(caught.value, EOFError)
    assert caught.value.bytes_done == theirs.buffered == 3
    assert await theirs.recv(10) == b"abc"


async def a_timed_out_read_can_be_retried_without_loss(
    driver: Driver, ours: Any, theirs: Any
) -> None:
    await ours.sendall(b"half")
    with pytest.raises(hs.DeadlineExceeded) as caught:
        await theirs.recv_exactly(8, timeout=0.02)
    assert caught.value.bytes_done == 4
    await ours.sendall(b"done")
    assert await theirs.recv_exactly(8, timeout=30) == b"halfdone"
    assert not theirs.poisoned


async def a_cancelled_read_can_be_retried_without_loss(
    driver: Driver, ours: Any, theirs: Any
) -> None:
    token = hs.CancelToken()
    await ours.sendall(b"half")
    async with driver.start(theirs.recv_exactly, 8, token=token) as reading:
        await reading.wait_until_blocked()
        token.cancel("changed my mind")
        with pytest.raises(hs.Cancelled, match="changed my mind") as caught:
            await reading.result(30)
    assert caught.value.bytes_done == 4
    await ours.sendall(b"done")
    assert await theirs.recv_exactly(8, timeout=30) == b"halfdone"


async def half_a_message_poisons_the_sending_direction_only(
    driver: Driver, ours: Any, theirs: Any
) -> None:
    with pytest.raises(hs.DeadlineExceeded) as caught:
        await ours.sendall(BIG, timeout=0.02)
    assert 0 < caught.value.bytes_done < len(BIG)
    assert ours.poisoned
    with pytest.raises(hs.Poisoned):
        await ours.sendall(b"more")
    await theirs.sendall(b"still here")
    assert await ours.recv(100, timeout=30) == b"still here"


async def a_cancel_before_the_first_byte_poisons_nothing(
    driver: Driver, ours: Any, theirs: Any
) -> None:
    token = hs.CancelToken()
    token.cancel()
    with pytest.raises(hs.Cancelled):
        await ours.sendall(b"x", token=token)
    assert not ours.poisoned
    await ours.sendall(b"y", timeout=30)
    assert await theirs.recv(1, timeout=30) == b"y"


async def a_second_reader_is_busy_and_disturbs_nobody(
    driver: Driver, ours: Any, theirs: Any
) -> None:
    async with driver.start(theirs.recv_exactly, 3, timeout=30) as reading:
        await reading.wait_until_blocked()
        with pytest.raises(hs.Busy):
            await theirs.recv(1)
        await theirs.sendall(b"a writer is welcome")
        await ours.sendall(b"abc")
        assert await reading.result(30) == b"abc"


async def a_second_writer_is_busy_and_disturbs_nobody(
    driver: Driver, ours: Any, theirs: Any
) -> None:
    async with driver.start(ours.sendall, BIG, timeout=30) as sending:
        await sending.wait_until_blocked()
        with pytest.raises(hs.Busy):
            await ours.sendall(b"x")
        assert await theirs.recv_exactly(len(BIG), timeout=30) == BIG
        await sending.result(30)


async def closing_wakes_a_blocked_reader(driver: Driver, ours: Any, theirs: Any) -> None:
    async with driver.start(theirs.recv, 1) as reading:
        await reading.wait_until_blocked()
        theirs.close()
        with pytest.raises(hs.Closed):
            await reading.result(30)
    assert theirs.fileno() == -1


async def closing_wakes_a_blocked_writer(driver: Driver, ours: Any, theirs: Any) -> None:
    async with driver.start(ours.sendall, BIG) as sending:
        await sending.wait_until_blocked()
        ours.close()
        with pytest.raises(hs.Closed) as caught:
            await sending.result(30)
    assert caught.value.bytes_done > 0


async def a_closed_connection_refuses_everything(driver: Driver, ours: Any, theirs: Any) -> None:
    ours.close()
    ours.close()
    assert ours.closed
    for waits in (lambda: ours.recv(1), lambda: ours.sendall(b"x")):
        with pytest.raises(hs.Closed):
            await waits()
    calls: list[Callable[[], Any]] = [
        lambda: ours.shutdown(2),
        ours.getpeername,
        ours.audit,
        ours.detach,
        lambda: ours.blocking.makefile("rb"),
    ]
    for call in calls:
        with pytest.raises(hs.Closed) as caught:
            call()
        assert isinstance(caught.value, OSError)


async def a_read_deadline_set_from_outside_wakes_the_reader_only(
    driver: Driver, ours: Any, theirs: Any
) -> None:
    async with driver.start(theirs.recv, 1) as reading:
        await reading.wait_until_blocked()
        theirs.set_read_deadline(0)
        with pytest.raises(hs.DeadlineExceeded):
            await reading.result(30)
    await theirs.sendall(b"writing is not affected")
    await ours.sendall(b"z")
    with pytest.raises(hs.DeadlineExceeded):
        await theirs.recv(1)
    theirs.set_read_deadline(None)
    assert await theirs.recv(1, timeout=30) == b"z"


async def a_write_deadline_set_from_outside_wakes_the_writer(
    driver: Driver, ours: Any, theirs: Any
) -> None:
    async with driver.start(ours.sendall, BIG) as sending:
        await sending.wait_until_blocked()
        ours.set_write_deadline(0)
        with pytest.raises(hs.DeadlineExceeded):
            await sending.result(30)


async def half_close_ends_one_direction_and_keeps_the_other(
    driver: Driver, ours: Any, theirs: Any
) -> None:
    await ours.sendall(b"question")
    await ours.close_write()
    assert await theirs.recv_exactly(8, timeout=30) == b"question"
    assert await theirs.recv(1, timeout=30) == b""
    await theirs.sendall(b"answer")
    assert await ours.recv_exactly(6, timeout=30) == b"answer"
    with pytest.raises(hs.Closed, match="ended here"):
        await ours.sendall(b"more")


async def zero_bytes_touch_nothing(driver: Driver, ours: Any, theirs: Any) -> None:
    await ours.sendall(b"")
    assert await ours.send(b"") == 0
    assert await ours.sendmsg([]) == 0
    assert await theirs.recv(0) == b""
    assert await theirs.recv_exactly(0) == b""
    assert (ours.bytes_sent, theirs.bytes_received) == (0, 0)


async def peeked_bytes_stay(driver: Driver, ours: Any, theirs: Any) -> None:
    await ours.sendall(b"peek")
    assert await theirs.recv(10, socket.MSG_PEEK, timeout=30) == b"peek"
    assert await theirs.recv(10, timeout=30) == b"peek"


async def what_comes_into_larger_room_has_its_own_size(
    driver: Driver, ours: Any, theirs: Any
) -> None:
    for size in (1, 1023, 1024, 1025, 8191, 8192, 8193, 16000):
        data = bytes(i % 251 for i in range(size))
        await ours.sendall(data)
        got = b""
        while len(got) < size:
            got += await theirs.recv(16384, timeout=30)
        assert got == data


async def gathered_pieces_arrive_as_one(driver: Driver, ours: Any, theirs: Any) -> None:
    pieces = [b"", b"ab", bytearray(b"cd"), memoryview(b"ef"), b""]
    assert await ours.sendmsg(pieces) == 6
    many = [b"%d," % i for i in range(3000)]
    sent = await ours.sendmsg(many)
    assert await theirs.recv_exactly(6, timeout=30) == b"abcdef"
    assert await theirs.recv_exactly(sent, timeout=30) == b"".join(many)[:sent]
    assert sent > 0


async def one_reader_and_one_writer_run_at_once(driver: Driver, ours: Any, theirs: Any) -> None:
    async def echo() -> None:
        while data := await theirs.recv(65536, timeout=30):
            await theirs.sendall(data, timeout=30)

    async with (
        driver.start(echo) as echoing,
        driver.start(ours.recv_exactly, len(BIG), timeout=30) as reading,
    ):
        await ours.sendall(BIG, timeout=30)
        assert await reading.result(30) == BIG
        await ours.close_write()
        await echoing.result(30)


async def stamps_and_counts_tell_what_happened(driver: Driver, ours: Any, theirs: Any) -> None:
    assert (ours.last_read, ours.last_write) == (None, None)
    await ours.sendall(b"12345")
    assert await theirs.recv(5, timeout=30) == b"12345"
    assert ours.bytes_sent == theirs.bytes_received == 5
    assert ours.last_write is not None
    assert ours.created <= ours.last_write
    assert theirs.last_read is not None
    assert theirs.last_write is None


async def closing_races_with_reading_without_harm(driver: Driver, ours: Any, theirs: Any) -> None:
    barrier = threading.Barrier(2)

    def close() -> None:
        barrier.wait(30)
        theirs.close()

    with Call(close):
        barrier.wait(30)
        with pytest.raises(hs.Closed):
            await theirs.recv(1, timeout=30)


CONTRACT: list[AsyncFunction] = [
    value
    for value in list(globals().values())
    if callable(value)
    and getattr(value, "__module__", None) == __name__
    and getattr(value, "__code__", None) is not None
]
