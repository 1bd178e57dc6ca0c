"""The binding of parked connections, beneath servers: what is kept, what is given back, and when."""

from __future__ import annotations

import asyncio
import errno
import gc
import importlib
import socket
import sys
import weakref
from collections.abc import Iterator

import pytest

import hardsock as hs
from hardsock import _core
from hardsock._core import Hub, Parking
from hardsock.aio._host import current_hub
from hardsock.lab.threads import Call
from support.refused import refuse_epoll_wait
from support.require import available, need_testcapi

MESSAGE, ENDED, EXPIRED, QUIET, FINISHED = range(5)  # news
TAKEN, NOTHING_CAME, CLOSED, ENDING, UNFIT, UNREAD = range(6)  # answers


@pytest.fixture
def pair() -> Iterator[tuple[hs.Connection, socket.socket]]:
    ours, peer = socket.socketpair()
    conn = hs.adopt(ours)
    yield conn, peer
    conn.close()
    peer.close()


class Thing:
    """Something that can be weakly referenced."""

    kept: object = None


def test_a_message_comes_with_what_was_parked(
    pair: tuple[hs.Connection, socket.socket],
) -> None:
    conn, peer = pair
    parking = Parking()
    what = Thing()
    assert parking.park(conn, what, None) == TAKEN
    assert parking.counts() == (1, 0)
    peer.sendall(b"hello")
    assert parking.next() == (what, MESSAGE, None, True)
    assert conn.recv(10) == b"hello"
    peer.sendall(b"again")
    assert parking.turn(conn, what, 100) == (what, MESSAGE, None, True)
    assert parking.turn(conn, what, 100) == UNREAD
    assert conn.recv(10) == b"again"
    assert parking.turn(conn, what, 0.001) == (what, EXPIRED, None, True)


def test_a_waiting_thread_is_given_what_comes(
    pair: tuple[hs.Connection, socket.socket],
) -> None:
    conn, peer = pair
    parking = Parking()
    with Call(parking.turn, conn, "what", None) as turn:
        turn.wait_until_blocked()
        peer.close()
        assert turn.result(30) == ("what", ENDED, "clean", True)
    assert conn.closed
    with Call(parking.next) as waiting:
        waiting.wait_until_blocked()
        parking.close()
        assert waiting.result(30) is None


def test_an_event_loop_is_told_of_all_that_have_news(
    pair: tuple[hs.Connection, socket.socket],
) -> None:
    conn, peer = pair

    async def main() -> None:
        parking = Parking()
        hub = current_hub()
        assert parking.park(conn, "what", None) == TAKEN
        polling = asyncio.ensure_future(poll(parking, hub))
        await asyncio.sleep(0)
        assert not polling.done()
        peer.sendall(b"hello")
        assert await polling == [("what", MESSAGE, None, False)]
        assert conn.recv(10) == b"hello"
        with pytest.raises(hs.DeadlineExceeded):
            await parking._op_poll(hub, timeout=0.001)
        assert parking.park(conn, "again", 0.001) == TAKEN
        assert parking.poll(timeout=60) == [("again", EXPIRED, None, False)]
        polling = asyncio.ensure_future(poll(parking, hub))
        await asyncio.sleep(0)
        parking.close()
        with pytest.raises(hs.Closed):
            await polling

    async def poll(parking: Parking, hub: Hub) -> object:
        return await parking._op_poll(hub, timeout=60)

    asyncio.run(main())


@pytest.mark.parametrize("how", ["forgotten", "given up", "in time"])
def test_a_guard_takes_back_what_it_has_asked_for(
    pair: tuple[hs.Connection, socket.socket], how: str
) -> None:
    conn, peer = pair
    conn._set_served(False)
    parking = Parking()
    assert parking.park(conn, "what", None) == TAKEN
    outcome, _, asked = _core._guard_retire(conn._id, 0, 0)
    assert outcome == "asked"
    assert asked is not None
    if how == "forgotten":
        del asked
    elif how == "given up":
        assert _core._guard_outcome(asked, True) == "spared"
    else:
        assert parking.tend() == [("what", EXPIRED, None, False)]
        assert _core._guard_outcome(asked, True) == "closed"
        return
    assert parking.tend() == []
    assert parking.counts() == (1, 0)
    peer.sendall(b"hello")
    assert parking.next() == ("what", MESSAGE, None, True)


def test_draining_gives_the_quiet_back(pair: tuple[hs.Connection, socket.socket]) -> None:
    conn, _peer = pair
    parking = Parking()
    assert parking.park(conn, "what", None) == TAKEN
    parking.drain()
    assert parking.tend() == [("what", QUIET, None, False)]
    assert parking.park(conn, "what", None) == NOTHING_CAME
    assert parking.park(conn, "what", None, True) == TAKEN
    assert parking.take() == ("what", True, None, False)
    assert parking.take() is None


def test_lingering_ends_parked(pair: tuple[hs.Connection, socket.socket]) -> None:
    conn, peer = pair
    parking = Parking()
    assert parking.linger(conn, "what", 100) is None
    peer.close()
    assert parking.next() == ("what", FINISHED, "clean", True)
    assert parking.linger(conn, "what", 100) == "closed"
    assert parking.park(conn, "what", 100) == CLOSED


def test_what_is_parked_is_kept_and_nothing_else_is(
    pair: tuple[hs.Connection, socket.socket],
) -> None:
    conn, peer = pair
    parking = Parking()
    what = Thing()
    before = sys.getrefcount(what)
    assert parking.park(conn, what, None) == TAKEN
    peer.sendall(b"x")
    parking.next()
    assert parking.park(conn, what, None) == UNREAD
    with pytest.raises(TypeError, match="conn must be a Connection"):
        parking.park(what, what, None)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="seconds"):
        parking.park(conn, what, -1)
    assert conn.recv(1) == b"x"
    with Call(conn.recv, 1) as reading:
        reading.wait_until_blocked()
        with pytest.raises(hs.Busy):
            parking.park(conn, what, None)
        peer.sendall(b"y")
        reading.result(30)
    assert parking.park(conn, what, None) == TAKEN
    assert sys.getrefcount(what) == before + 1, "what was refused, or taken out, is kept"
    alive = weakref.ref(what)
    del what
    assert alive() is not None
    del parking
    gc.collect()
    assert alive() is None


def test_the_state_of_a_connection_goes_with_it(
    pair: tuple[hs.Connection, socket.socket],
) -> None:
    conn, _peer = pair
    assert conn.state is None
    state = Thing()
    alive = weakref.ref(state)
    conn.state = state
    assert conn.state is state
    conn.state = None
    del state
    assert alive() is None
    del conn.state
    assert conn.state is None


def test_a_state_that_leads_back_to_its_connection_is_collected() -> None:
    ours, peer = socket.socketpair()
    with peer, hs.adopt(ours) as conn:
        state = Thing()
        state.kept = conn
        conn.state = state
    alive = weakref.ref(state)
    del conn, state
    gc.collect()
    assert alive() is None


def test_what_was_parked_is_parked_though_waiting_fails(
    pair: tuple[hs.Connection, socket.socket],
) -> None:
    """turn() does both: whose failure it is must not be mixed up."""
    conn, peer = pair
    parking = Parking()
    what = Thing()

    def turn_and_wait() -> tuple[object, hs.HardsockError]:
        refuse_epoll_wait(errno.ENOSYS)
        answer = parking.turn(conn, what, None)
        with pytest.raises(hs.HardsockError) as caught:
            parking.next()
        return answer, caught.value

    with available(), Call(turn_and_wait) as call:
        answer, exc = call.result(60)
    assert answer == TAKEN
    assert exc.errno == errno.ENOSYS
    peer.sendall(b"x")
    assert parking.next() == (what, MESSAGE, None, True), "another thread can wait"


@pytest.mark.parametrize("how", ["next", "turn", "tend", "poll"])
def test_no_news_are_lost_for_want_of_memory(how: str) -> None:
    """What has news is given, or is still there; what was to be parked is, or is the caller's."""
    need_testcapi()
    testcapi = importlib.import_module("_testcapi")
    spare = [(n, n, n, n) for n in range(5000)]
    failed = 0
    for nth in range(30):  # how many allocations succeed first
        parking = Parking()
        (ours, peer), (mine, other) = socket.socketpair(), socket.socketpair()
        with peer, other, hs.adopt(ours) as conn, hs.adopt(mine) as second:
            assert parking.park(conn, "first", None) == TAKEN
            if how == "tend":
                peer.shutdown(socket.SHUT_WR)
            else:
                peer.sendall(b"x")
            spare += [(n, nth, n, n) for n in range(100)]  # Kept ones are gone: all need memory.
            got = None
            testcapi.set_nomemory(nth, nth + 1)
            try:
                if how == "next":
                    got = parking.next()
                elif how == "tend":
                    got = parking.tend()
                elif how == "poll":
                    got = parking.poll()
                else:
                    got = parking.turn(second, "second", None)
            except MemoryError:
                failed += 1
            finally:
                testcapi.remove_mem_hooks()
            if got is None:
                if how == "turn":
                    assert parking.park(second, "second", None) == TAKEN
                got = parking.tend() if how == "tend" else parking.next()
            if isinstance(got, list):
                (got,) = got
            assert got[:3] == ("first", *((ENDED, "clean") if how == "tend" else (MESSAGE, None)))
            assert parking.counts() == (1 if how == "turn" else 0, 0)
            parking.drain()
            assert [news[0] for news in parking.tend()] == ["second"] * (how == "turn")
    assert failed > 0
