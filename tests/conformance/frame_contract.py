"""What every connection promises about frames, whatever it runs over and whatever drives it.

As stream_contract.py: one sentence each.
"""

from __future__ import annotations

from typing import Any

import pytest

import hardsock as hs

from .drivers import AsyncFunction, Driver

PREFIX = hs.LengthPrefix(max_size=1 << 24)
CRLF = hs.Line("\r\n")
BIG = b"x" * (8 << 20)


async def frames_arrive_whole_and_in_order(driver: Driver, ours: Any, theirs: Any) -> None:
    async with driver.start(ours.send_frame, BIG, PREFIX, timeout=30) as sending:
        assert await theirs.recv_frame(PREFIX, timeout=30) == BIG
        await sending.result(30)
    for i in range(100):
        await ours.send_frame(b"%d" % i, PREFIX, timeout=30)
    got: list[bytes] = []
    while len(got) < 100:
        got += await theirs.recv_frames(PREFIX, timeout=30)
    assert got == [b"%d" % i for i in range(100)]


async def calls_of_all_kinds_share_one_buffer(driver: Driver, ours: Any, theirs: Any) -> None:
    await ours.sendall(b"line\r\n" + PREFIX.encode(b"frame") + b"exactuntil;rest")
    assert await theirs.recv_line(CRLF, timeout=30) == b"line"
    assert await theirs.recv_frame(PREFIX, timeout=30) == b"frame"
    assert await theirs.peek(5, timeout=30) == b"exact"
    assert await theirs.recv_exactly(5, timeout=30) == b"exact"
    assert await theirs.recv_until(b";", timeout=30) == b"until"
    assert await theirs.recv_exactly(4, timeout=30) == b"rest"


async def a_deadline_in_mid_frame_keeps_every_byte(driver: Driver, ours: Any, theirs: Any) -> None:
    frame = PREFIX.encode(b"in pieces")
    for byte in frame[:-1]:
        await ours.sendall(bytes([byte]))
        with pytest.raises(hs.DeadlineExceeded):
            await theirs.recv_frame(PREFIX, timeout=0.002)
    assert not theirs.poisoned
    await ours.sendall(frame[-1:])
    assert await theirs.recv_frame(PREFIX, timeout=30) == b"in pieces"


async def a_cancel_in_mid_line_keeps_every_byte(driver: Driver, ours: Any, theirs: Any) -> None:
    token = hs.CancelToken()
    await ours.sendall(b"one li")
    async with driver.start(theirs.recv_line, token=token) as reading:
        await reading.wait_until_blocked()
        token.cancel("changed my mind")
        with pytest.raises(hs.Cancelled, match="changed my mind"):
            await reading.result(30)
    await ours.sendall(b"ne\nanother\n")
    assert await theirs.recv_lines(2, timeout=30) in ([b"one line"], [b"one line", b"another"])


async def half_a_frame_sent_poisons_the_sending_direction_only(
    driver: Driver, ours: Any, theirs: Any
) -> None:
    with pytest.raises(hs.DeadlineExceeded) as caught:
        await ours.send_frame(BIG, PREFIX, timeout=0.05)
    assert 0 < caught.value.bytes_done < len(BIG)
    assert ours.poisoned
    with pytest.raises(hs.Poisoned):
        await ours.send_frame(b"behind it", PREFIX)
    await theirs.send_frame(b"still here", PREFIX)
    assert await ours.recv_frame(PREFIX, timeout=30) == b"still here"


async def a_second_reader_is_busy_while_one_waits_for_a_frame(
    driver: Driver, ours: Any, theirs: Any
) -> None:
    await ours.sendall(b"\0\0\0\3a")
    async with driver.start(theirs.recv_frame, PREFIX, timeout=30) as reading:
        await reading.wait_until_blocked()
        for call in (
            lambda: theirs.recv_frame(PREFIX),
            lambda: theirs.recv_line(),
            lambda: theirs.peek(1),
            lambda: theirs.recv(1),
        ):
            with pytest.raises(hs.Busy):
                await call()
        await ours.sendall(b"bc")
        assert await reading.result(30) == b"abc"


async def closing_wakes_who_waits_for_a_frame(driver: Driver, ours: Any, theirs: Any) -> None:
    async with driver.start(theirs.recv_frame, PREFIX) as reading:
        await reading.wait_until_blocked()
        theirs.close()
        with pytest.raises(hs.Closed):
            await reading.result(30)


async def an_end_between_frames_is_clean(driver: Driver, ours: Any, theirs: Any) -> None:
    await ours.send_frame(b"the last", PREFIX)
    ours.close()
    assert await theirs.recv_frame(PREFIX, timeout=30) == b"the last"
    for _ in range(2):
        with pytest.raises(hs.EndOfStream):
            await theirs.recv_frame(PREFIX, timeout=30)


async def an_end_in_mid_frame_is_truncation_and_keeps_the_bytes(
    driver: Driver, ours: Any, theirs: Any
) -> None:
    await ours.sendall(PREFIX.encode(b"cut off")[:-2])
    ours.close()
    with pytest.raises(hs.Truncated) as caught:
        await theirs.recv_frame(PREFIX, timeout=30)
    assert not isinstance(caught.value, hs.EndOfStream)
    assert caught.value.bytes_done == theirs.buffered == 9
    assert await theirs.recv(100) == b"\0\0\0\7cut o"


async def a_frame_that_is_too_large_ends_reading_only(
    driver: Driver, ours: Any, theirs: Any
) -> None:
    small = hs.LengthPrefix(max_size=3)
    await ours.sendall(PREFIX.encode(b"too large"))
    with pytest.raises(hs.FrameTooLarge) as caught:
        await theirs.recv_frame(small, timeout=30)
    assert (caught.value.size, caught.value.limit, caught.value.recoverable) == (9, 3, False)
    with pytest.raises(hs.Poisoned):
        await theirs.recv(1, timeout=30)
    await theirs.sendall(b"sorry")
    assert await ours.recv_exactly(5, timeout=30) == b"sorry"


async def a_skipped_frame_is_told_once_and_the_stream_goes_on(
    driver: Driver, ours: Any, theirs: Any
) -> None:
    skip = hs.LengthPrefix(max_size=3, on_too_long="skip")
    await ours.sendall(PREFIX.encode(b"x" * 100_000) + PREFIX.encode(b"ok"))
    with pytest.raises(hs.FrameTooLarge) as caught:
        await theirs.recv_frame(skip, timeout=30)
    assert (caught.value.size, caught.value.discarded) == (100_000, 100_004)
    assert await theirs.recv_frame(skip, timeout=30) == b"ok"


async def a_file_arrives_whole(driver: Driver, ours: Any, theirs: Any) -> None:
    with open(__file__, "rb") as file:
        content = file.read()
        assert await ours.sendfile(file, 10, timeout=30) == len(content) - 10
        assert file.tell() == len(content)
    assert await theirs.recv_exactly(len(content) - 10, timeout=30) == content[10:]


FRAME_CONTRACT: list[AsyncFunction] = [
    value
    for value in list(globals().values())
    if callable(value)
    and getattr(value, "__module__", None) == __name__
    and getattr(value, "__code__", None) is not None
]
