"""A stream never lies: clean ends, resets and truncation are told apart."""

from __future__ import annotations

import errno
import select
import socket
import struct
import time
from collections.abc import Iterator
from typing import Any

import pytest

import hardsock as hs
from hardsock import _core
from hardsock.lab.peers import PeerScript
from hardsock.lab.threads import Call
from hardsock.lab.waits import poll_until
from support.packets import mute
from support.tls import Identities, tls_pair

TCP_CLOSE = 7


@pytest.fixture
def pair() -> Iterator[tuple[hs.Connection, socket.socket]]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        with hs.connect(server.getsockname(), timeout=30) as conn, server.accept()[0] as theirs:
            yield conn, theirs


def _reset(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def test_a_reset_found_by_the_writer_is_not_a_clean_end_for_the_reader(
    pair: tuple[hs.Connection, socket.socket],
) -> None:
    conn, theirs = pair
    _reset(theirs)
    with pytest.raises(hs.Reset):
        while True:
            conn.sendall(b"x")
    with pytest.raises(hs.Reset) as caught:
        conn.recv(1)
    assert caught.value.errno == errno.ECONNRESET
    assert caught.value.peer is not None
    with pytest.raises(hs.Reset):
        conn.sendall(b"x")
    assert conn.poisoned


def test_a_reset_is_a_reset_for_a_blocked_reader_beside_a_writer() -> None:
    for _ in range(30):
        with socket.create_server(("127.0.0.1", 0)) as server:
            with hs.connect(server.getsockname(), timeout=30) as conn:
                theirs = server.accept()[0]
                with Call(conn.recv, 1, timeout=60) as reading:
                    _reset(theirs)
                    with pytest.raises(hs.Reset):
                        while True:
                            conn.sendall(b"x", timeout=30)
                    with pytest.raises(hs.Reset):
                        reading.result(60)


def test_what_arrived_before_a_reset_can_still_be_read(
    pair: tuple[hs.Connection, socket.socket],
) -> None:
    conn, theirs = pair
    theirs.send(b"early answer")
    with pytest.raises(hs.DeadlineExceeded):
        conn.recv_exactly(100, timeout=0.3)
    assert conn.buffered == 12
    _reset(theirs)
    with pytest.raises(hs.Reset) as caught:
        conn.recv_exactly(100, timeout=30)
    assert caught.value.bytes_done == 12
    assert conn.recv(100) == b"early answer"
    with pytest.raises(hs.Reset):
        conn.recv(1)


def test_an_orderly_end_stays_one_after_our_own_half_close(
    pair: tuple[hs.Connection, socket.socket],
) -> None:
    conn, theirs = pair
    theirs.close()
    assert conn.recv(1, timeout=30) == b""
    conn.close_write()
    assert conn.recv(1) == b""


def test_sending_after_our_own_half_close_is_closed_not_reset(
    pair: tuple[hs.Connection, socket.socket],
) -> None:
    conn, _ = pair
    conn.close_write()
    with pytest.raises(hs.Closed, match="ended here"):
        conn.sendall(b"x")
    assert not conn.poisoned


def test_a_passed_direction_deadline_also_ends_calls_that_would_not_wait(
    pair: tuple[hs.Connection, socket.socket],
) -> None:
    conn, theirs = pair
    theirs.send(b"ready")
    assert conn.recv(1, timeout=30) == b"r"
    conn.set_read_deadline(0)
    with pytest.raises(hs.DeadlineExceeded):
        conn.recv(1, timeout=0)


def test_closing_never_blocks_even_with_a_lingering_socket() -> None:
    with PeerScript([("stall",)], check=False) as peer:
        sock = socket.create_connection(peer.address)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 30))
        sock.setblocking(False)
        try:
            while True:
                sock.send(b"x" * 65536)
        except BlockingIOError:
            pass
        conn = hs.adopt(sock)
        began = time.monotonic()
        conn.close()
        assert time.monotonic() - began < 5


def test_a_positive_linger_is_refused_as_an_option() -> None:
    with pytest.raises(ValueError, match="linger"):
        hs.SocketOptions(linger=5)


def test_the_reason_is_that_of_the_deadline_that_struck() -> None:
    left, right = socket.socketpair()
    token = hs.CancelToken()
    with right, hs.adopt(left) as conn:
        with pytest.raises(hs.DeadlineExceeded) as caught:
            conn.recv(1, timeout=0.01, token=token)
        token.cancel("later")
        assert caught.value.reason is None


def test_messages_that_are_not_whole_utf8_do_not_hide_the_error() -> None:
    with pytest.raises(hs.ConnectError):
        hs.connect("unix:/" + "é" * 52, timeout=1)


def test_finish_delivers_everything_although_nobody_read_the_answer(
    pair: tuple[hs.Connection, socket.socket],
) -> None:
    conn, theirs = pair
    theirs.send(b"unread")
    conn.sendall(b"x" * 100_000)

    def peer() -> int:
        total = 0
        while data := theirs.recv(65536):
            total += len(data)
        theirs.close()
        return total

    with Call(peer) as reading:
        report = conn.finish(timeout=60)
        assert reading.result(60) == 100_000
    assert (report.ending, report.unsent, report.discarded) == ("clean", 0, 6)
    assert report.delivered
    assert conn.closed


def test_close_with_unread_bytes_destroys_what_finish_delivers() -> None:
    arrived = {}
    for ending in ("close", "finish"):
        with socket.create_server(("127.0.0.1", 0)) as server:
            conn = hs.connect(server.getsockname(), timeout=30)
            theirs = server.accept()[0]
            theirs.send(b"never read")
            assert conn.recv(1, socket.MSG_PEEK, timeout=30) == b"n"
            sent = conn.send(b"x" * (1 << 20))

            def drain(theirs: socket.socket = theirs) -> int:
                total = 0
                try:
                    while data := theirs.recv(4096):
                        total += len(data)
                except ConnectionResetError:
                    pass
                theirs.close()
                return total

            if ending == "close":
                conn.close()
                arrived[ending] = drain() == sent
            else:
                with Call(drain) as draining:
                    assert conn.finish(timeout=60).delivered
                    arrived[ending] = draining.result(60) == sent
    assert arrived == {"close": False, "finish": True}


def test_finish_reports_a_peer_that_does_not_end(
    pair: tuple[hs.Connection, socket.socket],
) -> None:
    conn, theirs = pair
    report = conn.finish(timeout=0.05)
    assert report.ending == "deadline"
    assert not report.delivered
    assert report.elapsed >= 0.05
    assert conn.closed
    assert theirs.recv(1) == b""


def test_finish_reports_a_reset(pair: tuple[hs.Connection, socket.socket]) -> None:
    conn, theirs = pair
    with Call(conn.finish, timeout=60) as finishing:
        finishing.wait_until_blocked()
        _reset(theirs)
        assert finishing.result(30).ending == "reset"


def test_finish_while_somebody_reads_is_busy(pair: tuple[hs.Connection, socket.socket]) -> None:
    conn, theirs = pair
    with Call(conn.recv, 1, timeout=60) as reading:
        reading.wait_until_blocked()
        with pytest.raises(hs.Busy):
            conn.finish(timeout=30)
        theirs.send(b"x")
        assert reading.result(30) == b"x"
    assert not conn.closed


def test_a_cancelled_finish_leaves_a_connection_that_admits_what_it_lost(
    pair: tuple[hs.Connection, socket.socket],
) -> None:
    conn, theirs = pair
    theirs.send(b"thrown away")
    token = hs.CancelToken()
    with Call(conn.finish, token=token) as finishing:
        finishing.wait_until_blocked()
        token.cancel()
        with pytest.raises(hs.Cancelled) as caught:
            finishing.result(30)
    assert caught.value.bytes_done == 11
    assert not conn.closed
    with pytest.raises(hs.Poisoned):
        conn.recv(1, timeout=30)


def test_an_early_answer_survives_the_reset_that_follows_it() -> None:
    """A server that refuses a large upload answers at once and closes, with our bytes unread."""
    with PeerScript([("recv", 1), ("send", b"413 too large"), ("close",)], check=False) as peer:
        with hs.connect(peer.address, timeout=30) as conn:
            with pytest.raises(hs.Reset):
                while True:
                    conn.sendall(b"x" * 65536, timeout=30)
            assert conn.recv(100, timeout=30) == b"413 too large"
            with pytest.raises(hs.Reset):
                conn.recv(100, timeout=30)


def _wait_for_tcp_state(conn: hs.Connection, state: int) -> None:
    assert poll_until(lambda: conn.tcp_info()["state"] == state, 30)


def _after_their_orderly_end(conn: hs.Connection, theirs: socket.socket) -> None:
    """The peer has closed, and resets us when it is sent something: nobody reads it any more."""
    theirs.close()
    assert conn.recv(1, timeout=30) == b""
    conn.sendall(b"too late")


def test_finish_reports_a_reset_that_answers_our_last_words(
    pair: tuple[hs.Connection, socket.socket],
) -> None:
    conn, theirs = pair
    _after_their_orderly_end(conn, theirs)
    report = conn.finish(timeout=60)
    assert report.ending == "reset"
    assert not report.delivered
    assert report.unsent == 8
    assert report.elapsed < 30


def test_finish_reports_a_reset_that_came_before_it(
    pair: tuple[hs.Connection, socket.socket],
) -> None:
    conn, theirs = pair
    _after_their_orderly_end(conn, theirs)
    _wait_for_tcp_state(conn, TCP_CLOSE)
    report = conn.finish(timeout=60)
    assert (report.ending, report.delivered) == ("reset", False)
    assert report.elapsed < 30


def test_finish_does_not_call_it_clean_when_the_peer_threw_our_words_away(
    pair: tuple[hs.Connection, socket.socket],
) -> None:
    """It has acknowledged all of them, ended in an orderly way before, and then closed unread."""
    conn, theirs = pair
    theirs.shutdown(socket.SHUT_WR)
    assert conn.recv(1, timeout=30) == b""
    conn.sendall(b"never read")
    assert poll_until(lambda: conn.tcp_info()["unacked"] == 0, 30)
    theirs.close()
    _wait_for_tcp_state(conn, TCP_CLOSE)
    report = conn.finish(timeout=60)
    assert (report.ending, report.delivered) == ("reset", False)


def test_finish_reports_a_reset_that_answers_our_end(
    pair: tuple[hs.Connection, socket.socket],
) -> None:
    """Both sides have ended; the peer resets instead of acknowledging ours, as it never read."""
    conn, theirs = pair
    conn.sendall(b"never read")
    theirs.shutdown(socket.SHUT_WR)
    assert conn.recv(1, timeout=30) == b""
    theirs.close()
    report = conn.finish(timeout=60)
    assert report.ending == "reset"
    assert report.elapsed < 30


@pytest.mark.slow
def test_finish_reports_a_peer_that_died_after_its_end() -> None:
    options = hs.SocketOptions(dead_after=1)
    with socket.create_server(("127.0.0.1", 0)) as server:
        conn = hs.connect(server.getsockname(), timeout=30, options=options)
        theirs = server.accept()[0]
    with theirs:
        theirs.shutdown(socket.SHUT_WR)
        assert conn.recv(1, timeout=30) == b""
        mute(theirs)
        conn.sendall(b"into the void")
        report = conn.finish(timeout=60)
        assert (report.ending, report.delivered) == ("dead peer", False)
        assert report.elapsed < 30


def test_what_was_not_acknowledged_is_counted_without_the_end_itself(
    pair: tuple[hs.Connection, socket.socket],
) -> None:
    """In the kernel's count of sequence numbers a FIN is one more."""
    conn, theirs = pair
    mute(theirs)
    conn.sendall(b"hello")
    report = conn.finish(timeout=0.05)
    assert (report.ending, report.unsent) == ("deadline", 5)


def _resets_by_unread() -> int:
    return hs.reset_counts()["by_unread"]


@pytest.mark.parametrize("version", ["TLSv1.2", "TLSv1.3"])
@pytest.mark.parametrize("size", [1, 6000, 100_000])
def test_a_tls_close_with_unread_data_is_a_reset_and_counted(
    ids: Identities, version: Any, size: int
) -> None:
    client, server = ids.client(max_version=version), ids.server()
    before = _resets_by_unread()
    with tls_pair(client, server) as (ours, theirs):
        theirs.sendall(b"x")
        assert ours.recv_exactly(1, timeout=60) == b"x"
        theirs.sendall(bytes(size))
        poll_until(lambda: select.select([ours], [], [], 0)[0] != [], 60)
        ours.close()
        assert _resets_by_unread() == before + 1
        with pytest.raises(hs.Reset):
            theirs.recv(1, timeout=60)


@pytest.mark.parametrize("version", ["TLSv1.2", "TLSv1.3"])
def test_a_tls_close_with_all_read_is_a_clean_end(ids: Identities, version: Any) -> None:
    client, server = ids.client(max_version=version), ids.server()
    before = _resets_by_unread()
    with tls_pair(client, server) as (ours, theirs):
        theirs.sendall(b"GET /\nrest")
        assert ours.recv_line(timeout=60) == b"GET /"  # "rest" is in the connection's buffer
        ours.sendall(b"answer")
        ours.close()
        assert theirs.recv_exactly(6, timeout=60) == b"answer"
        assert theirs.recv(1, timeout=60) == b""
    assert _resets_by_unread() == before


def test_unread_tickets_are_no_unread_data(ids: Identities) -> None:
    before = _resets_by_unread()
    with tls_pair(ids.client(), ids.server(), confirm=False) as (
        ours,
        theirs,
    ):
        ours.sendall(b"request")
        ours.close()
        assert theirs.recv_exactly(7, timeout=60) == b"request"
        assert theirs.recv(1, timeout=60) == b""
    assert _resets_by_unread() == before


# ---- shutdown and other threads


def attached(delays: _core.Delays) -> int:
    """How often a thread has taken Python's lock again after a call that had let it go."""
    _, counts, _ = delays.read()["lock"]
    return sum(counts)


def test_shutdown_lets_other_threads_run() -> None:
    """It may have to wait for one that is being told why the connection is over."""
    ours, theirs = socket.socketpair()
    delays = _core.Delays()
    with theirs, hs.adopt(ours) as conn:
        for how in (socket.SHUT_RD, socket.SHUT_WR, socket.SHUT_RDWR):
            before = attached(delays)
            conn.shutdown(how)
            assert attached(delays) > before
        with pytest.raises(ValueError, match="how must be SHUT_RD, SHUT_WR or SHUT_RDWR, got 7"):
            conn.shutdown(7)
