"""What every connection promises, whatever it runs over.

A transport gives ``pair()``: two connected ``hardsock.Connection`` objects. Each function here is
one sentence of the contract; ``test_transports.py`` runs all of them over all transports.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import pytest

import hardsock as hs
from support import Call

Pair = tuple[hs.Connection, hs.Connection]
Transport = Callable[[], AbstractContextManager[Pair]]

BIG = b"x" * (8 << 20)


def bytes_arrive_in_order_and_whole(ours: hs.Connection, theirs: hs.Connection) -> None:
    with Call(ours.sendall, BIG, timeout=30) as sending:
        assert theirs.recv_exactly(len(BIG), timeout=30) == BIG
        sending.result(5)
    assert ours.bytes_sent == theirs.bytes_received == len(BIG)


def a_clean_end_is_empty_bytes_again_and_again(ours: hs.Connection, theirs: hs.Connection) -> None:
    ours.sendall(b"last words")
    ours.close()
    assert theirs.recv(100, timeout=5) == b"last words"
    assert theirs.recv(100, timeout=5) == b""
    assert theirs.recv_into(bytearray(8), timeout=5) == 0


def an_end_in_the_middle_is_truncated_and_keeps_the_bytes(
    ours: hs.Connection, theirs: hs.Connection
) -> None:
    ours.sendall(b"abc")
    ours.close()
    with pytest.raises(hs.Truncated) as caught:
        theirs.recv_exactly(10, timeout=5)
    assert isinstance(caught.value, EOFError)
    assert caught.value.bytes_done == theirs.buffered == 3
    assert theirs.recv(10) == b"abc"


def a_timed_out_read_can_be_retried_without_loss(
    ours: hs.Connection, theirs: hs.Connection
) -> None:
    ours.sendall(b"half")
    with pytest.raises(hs.DeadlineExceeded) as caught:
        theirs.recv_exactly(8, timeout=0.02)
    assert caught.value.bytes_done == 4
    ours.sendall(b"done")
    assert theirs.recv_exactly(8, timeout=5) == b"halfdone"
    assert not theirs.poisoned


def a_cancelled_read_can_be_retried_without_loss(
    ours: hs.Connection, theirs: hs.Connection
) -> None:
    token = hs.CancelToken()
    ours.sendall(b"half")
    with Call(theirs.recv_exactly, 8, token=token) as reading:
        reading.wait_until_blocked()
        token.cancel("changed my mind")
        with pytest.raises(hs.Cancelled, match="changed my mind") as caught:
            reading.result(5)
    assert caught.value.bytes_done == 4
    ours.sendall(b"done")
    assert theirs.recv_exactly(8, timeout=5) == b"halfdone"


def half_a_message_poisons_the_sending_direction_only(
    ours: hs.Connection, theirs: hs.Connection
) -> None:
    with pytest.raises(hs.DeadlineExceeded) as caught:
        ours.sendall(BIG, timeout=0.02)
    assert 0 < caught.value.bytes_done < len(BIG)
    assert ours.poisoned
    with pytest.raises(hs.Poisoned):
        ours.sendall(b"more")
    theirs.sendall(b"still here")
    assert ours.recv(100, timeout=5) == b"still here"


def a_cancel_before_the_first_byte_poisons_nothing(
    ours: hs.Connection, theirs: hs.Connection
) -> None:
    token = hs.CancelToken()
    token.cancel()
    with pytest.raises(hs.Cancelled):
        ours.sendall(b"x", token=token)
    assert not ours.poisoned
    ours.sendall(b"y", timeout=5)
    assert theirs.recv(1, timeout=5) == b"y"


def a_second_reader_is_busy_and_disturbs_nobody(ours: hs.Connection, theirs: hs.Connection) -> None:
    with Call(theirs.recv_exactly, 3, timeout=30) as reading:
        reading.wait_until_blocked()
        with pytest.raises(hs.Busy):
            theirs.recv(1)
        theirs.sendall(b"a writer is welcome")
        ours.sendall(b"abc")
        assert reading.result(5) == b"abc"


def a_second_writer_is_busy_and_disturbs_nobody(ours: hs.Connection, theirs: hs.Connection) -> None:
    with Call(ours.sendall, BIG, timeout=30) as sending:
        sending.wait_until_blocked()
        with pytest.raises(hs.Busy):
            ours.sendall(b"x")
        assert theirs.recv_exactly(len(BIG), timeout=30) == BIG
        sending.result(5)


def closing_wakes_a_blocked_reader(ours: hs.Connection, theirs: hs.Connection) -> None:
    with Call(theirs.recv, 1) as reading:
        reading.wait_until_blocked()
        theirs.close()
        with pytest.raises(hs.Closed):
            reading.result(5)
    assert theirs.fileno() == -1


def closing_wakes_a_blocked_writer(ours: hs.Connection, theirs: hs.Connection) -> None:
    with Call(ours.sendall, BIG) as sending:
        sending.wait_until_blocked()
        ours.close()
        with pytest.raises(hs.Closed) as caught:
            sending.result(5)
    assert caught.value.bytes_done > 0


def a_closed_connection_refuses_everything(ours: hs.Connection, theirs: hs.Connection) -> None:
    ours.close()
    ours.close()
    assert ours.closed
    calls: list[Callable[[], Any]] = [
        lambda: ours.recv(1),
        lambda: ours.sendall(b"x"),
        lambda: ours.shutdown(2),
        ours.getpeername,
        ours.audit,
        ours.detach,
        lambda: ours.makefile("rb"),
    ]
    for call in calls:
        with pytest.raises(hs.Closed) as caught:
            call()
        assert isinstance(caught.value, OSError)


def a_read_deadline_set_from_outside_wakes_the_reader_only(
    ours: hs.Connection, theirs: hs.Connection
) -> None:
    with Call(theirs.recv, 1) as reading:
        reading.wait_until_blocked()
        theirs.set_read_deadline(0)
        with pytest.raises(hs.DeadlineExceeded):
            reading.result(5)
    theirs.sendall(b"writing is not affected")
    ours.sendall(b"z")
    with pytest.raises(hs.DeadlineExceeded):
        theirs.recv(1)
    theirs.set_read_deadline(None)
    assert theirs.recv(1, timeout=5) == b"z"


def a_write_deadline_set_from_outside_wakes_the_writer(
    ours: hs.Connection, theirs: hs.Connection
) -> None:
    with Call(ours.sendall, BIG) as sending:
        sending.wait_until_blocked()
        ours.set_write_deadline(0)
        with pytest.raises(hs.DeadlineExceeded):
            sending.result(5)


def half_close_ends_one_direction_and_keeps_the_other(
    ours: hs.Connection, theirs: hs.Connection
) -> None:
    ours.sendall(b"question")
    ours.close_write()
    assert theirs.recv_exactly(8, timeout=5) == b"question"
    assert theirs.recv(1, timeout=5) == b""
    theirs.sendall(b"answer")
    assert ours.recv_exactly(6, timeout=5) == b"answer"
    with pytest.raises(hs.Closed, match="ended here"):
        ours.sendall(b"more")


def zero_bytes_touch_nothing(ours: hs.Connection, theirs: hs.Connection) -> None:
    ours.sendall(b"")
    assert ours.send(b"") == 0
    assert ours.sendmsg([]) == 0
    assert theirs.recv(0) == b""
    assert theirs.recv_exactly(0) == b""
    assert (ours.bytes_sent, theirs.bytes_received) == (0, 0)


def peeked_bytes_stay(ours: hs.Connection, theirs: hs.Connection) -> None:
    import socket

    ours.sendall(b"peek")
    assert theirs.recv(10, socket.MSG_PEEK, timeout=5) == b"peek"
    assert theirs.recv(10, timeout=5) == b"peek"


def gathered_pieces_arrive_as_one(ours: hs.Connection, theirs: hs.Connection) -> None:
    pieces = [b"", b"ab", bytearray(b"cd"), memoryview(b"ef"), b""]
    assert ours.sendmsg(pieces) == 6
    many = [b"%d," % i for i in range(3000)]
    sent = ours.sendmsg(many)
    assert theirs.recv_exactly(6, timeout=5) == b"abcdef"
    assert theirs.recv_exactly(sent, timeout=5) == b"".join(many)[:sent]
    assert sent > 0


def one_reader_and_one_writer_run_at_once(ours: hs.Connection, theirs: hs.Connection) -> None:
    def echo() -> None:
        while data := theirs.recv(65536, timeout=30):
            theirs.sendall(data, timeout=30)

    with Call(echo) as echoing, Call(ours.recv_exactly, len(BIG), timeout=30) as reading:
        ours.sendall(BIG, timeout=30)
        assert reading.result(30) == BIG
        ours.close_write()
        echoing.result(5)


def stamps_and_counts_tell_what_happened(ours: hs.Connection, theirs: hs.Connection) -> None:
    assert (ours.last_read, ours.last_write) == (None, None)
    ours.sendall(b"12345")
    assert theirs.recv(5, timeout=5) == b"12345"
    assert ours.bytes_sent == theirs.bytes_received == 5
    assert ours.last_write is not None
    assert ours.created <= ours.last_write
    assert theirs.last_read is not None
    assert theirs.last_write is None


def closing_races_with_reading_without_harm(ours: hs.Connection, theirs: hs.Connection) -> None:
    barrier = threading.Barrier(2)

    def read() -> object:
        barrier.wait(5)
        try:
            return theirs.recv(1, timeout=30)
        except hs.Closed as exc:
            return exc

    with Call(read) as reading:
        barrier.wait(5)
        theirs.close()
        assert isinstance(reading.result(5), hs.Closed)


CONTRACT: list[Callable[[hs.Connection, hs.Connection], None]] = [
    value
    for value in list(globals().values())
    if callable(value)
    and getattr(value, "__module__", None) == __name__
    and getattr(value, "__code__", None) is not None
]
