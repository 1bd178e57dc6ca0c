"""What code written for ``socket.socket`` calls on a connected stream, on a Connection."""

from __future__ import annotations

import asyncio
import errno
import gc
import importlib
import io
import os
import select
import socket
import ssl
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import pytest

import hardsock as hs
from hardsock import aio
from hardsock.lab.threads import Call
from hardsock.lab.waits import readable
from support.require import need_module, need_testcapi
from support.tls import Identities, tls_pair

Pair = tuple[hs.Connection, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    ours, theirs = socket.socketpair()
    with theirs, hs.adopt(ours) as conn:
        yield conn, theirs


@contextmanager
def tcp() -> Iterator[tuple[hs.Connection, hs.Connection]]:
    with hs.listen(("127.0.0.1", 0)) as listener, hs.timeout(60):
        with hs.connect(listener.address) as client, listener.accept() as server:
            yield client, server


# ---- flags and keywords


def test_receiving_takes_the_keywords_of_socket(pair: Pair) -> None:
    conn, theirs = pair
    theirs.send(b"abcdef")
    buffer = bytearray(4)
    assert conn.recv_into(buffer, nbytes=2, flags=socket.MSG_PEEK) == 2
    assert conn.recv_into(buffer=buffer, nbytes=3) == 3
    assert bytes(buffer) == b"abc\0"
    assert conn.recvfrom_into(buffer, nbytes=1) == (1, None)
    assert conn.recvfrom(10) == (b"ef", None)
    theirs.close()
    assert conn.recvfrom(10) == (b"", None)


def test_waitall_waits_for_all_of_it(pair: Pair) -> None:
    conn, theirs = pair
    theirs.send(b"half")
    with Call(conn.recv, 8, socket.MSG_WAITALL, timeout=60) as reading:
        reading.wait_until_blocked()
        theirs.send(b"done")
        assert reading.result(30) == b"halfdone"
    theirs.send(b"last")
    theirs.close()
    buffer = bytearray(8)
    assert conn.recv_into(buffer, 0, socket.MSG_WAITALL, timeout=30) == 4
    assert buffer == b"last\0\0\0\0"


def test_waitall_loses_nothing_to_a_deadline(pair: Pair) -> None:
    conn, theirs = pair
    theirs.send(b"half")
    with pytest.raises(hs.DeadlineExceeded) as caught:
        conn.recv(8, socket.MSG_WAITALL, timeout=0.3)
    assert caught.value.bytes_done == conn.buffered == 4
    theirs.send(b"done")
    assert conn.recv(8, socket.MSG_WAITALL, timeout=30) == b"halfdone"


def test_waitall_without_waiting_gives_what_is_there(pair: Pair) -> None:
    conn, theirs = pair
    theirs.send(b"half")
    assert conn.recv(8, socket.MSG_WAITALL | socket.MSG_DONTWAIT) == b"half"
    conn.settimeout(0)
    theirs.send(b"more")
    assert conn.recv(8, socket.MSG_WAITALL) == b"more"
    with pytest.raises(BlockingIOError):
        conn.recv(8, socket.MSG_WAITALL)


async def _waitall_in_a_loop(conn: hs.Connection, theirs: socket.socket) -> bytes:
    ours = aio.adopt(conn)
    reading = asyncio.create_task(ours.recv(8, socket.MSG_WAITALL, timeout=60))
    theirs.send(b"half")
    while conn.bytes_received < 4:  # It has stepped, and holds half.
        await asyncio.sleep(0)
    left, right = socket.socketpair()
    async with aio.adopt(left) as other, aio.adopt(right) as peer:
        await peer.sendall(b"noise")  # Its steps use the room that all of a loop share.
        assert await other.recv(8) == b"noise"
    theirs.send(b"done")
    first = await reading
    reading = asyncio.create_task(ours.recv(8, socket.MSG_WAITALL))
    theirs.send(b"kept")
    while conn.bytes_received < 12:
        await asyncio.sleep(0)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    return first + conn.recv(8)


def test_waitall_in_an_event_loop_keeps_what_came_between_its_steps(pair: Pair) -> None:
    assert asyncio.run(_waitall_in_a_loop(*pair)) == b"halfdonekept"


def test_more_is_held_back_until_the_next_send() -> None:
    with tcp() as (client, server):
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        segments = client.tcp_info()["segs_out"]
        client.send(b"a", socket.MSG_MORE)
        client.sendall(b"b", socket.MSG_MORE)
        client.sendmsg([b"c"], [], socket.MSG_MORE)
        client.sendall(b"d")
        assert server.recv_exactly(4) == b"abcd"
        assert client.tcp_info()["segs_out"] - segments == 1


@pytest.mark.parametrize("flag", [socket.MSG_OOB, socket.MSG_TRUNC, socket.MSG_PEEK])
def test_a_flag_that_sending_does_not_know_is_refused(pair: Pair, flag: int) -> None:
    with pytest.raises(ValueError, match=r"flags may be made of MSG_MORE, .* got 0x"):
        pair[0].send(b"x", flag)


def test_a_flag_that_receiving_does_not_know_is_refused(pair: Pair) -> None:
    conn, _ = pair
    with pytest.raises(ValueError, match=r"flags may be made of MSG_PEEK, MSG_WAITALL"):
        conn.recv(1, socket.MSG_OOB)
    with pytest.raises(ValueError, match=r"is peek\(n\) here"):
        conn.recv(1, socket.MSG_PEEK | socket.MSG_WAITALL)


# ---- files without a descriptor


class _Drip(io.RawIOBase):
    """A file without a descriptor that fails after so many bytes."""

    def __init__(self, data: bytes, fails: bool = False) -> None:
        super().__init__()
        self._inner, self._fails = io.BytesIO(data), fails

    def read(self, size: int = -1) -> bytes:
        data = self._inner.read(min(size, 1000))
        if not data and self._fails:
            raise OSError(errno.EIO, "the disk is gone")
        return data

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._inner.seek(offset, whence)

    def tell(self) -> int:
        return self._inner.tell()


def test_a_file_without_a_descriptor_is_read_and_sent(pair: Pair) -> None:
    conn, theirs = pair
    data = bytes(range(256)) * 100
    file = io.BytesIO(data)
    assert conn.sendfile(file, offset=10, count=5000) == 5000
    assert theirs.recv(10_000, socket.MSG_WAITALL | socket.MSG_DONTWAIT) == data[10:5010]
    assert file.tell() == 5010
    assert conn.sendfile(_Drip(data), len(data) - 2500) == 2500  # type: ignore[arg-type]
    assert theirs.recv(10_000) == data[-2500:]


def test_such_a_file_that_fails_in_the_middle_poisons(pair: Pair) -> None:
    conn, _ = pair
    with pytest.raises(OSError, match="the disk is gone"):
        conn.sendfile(_Drip(b"x" * 1500, fails=True))  # type: ignore[arg-type]
    with pytest.raises(hs.Poisoned):
        conn.send(b"behind half a message")


def test_such_a_file_obeys_one_deadline_for_all_its_pieces(pair: Pair) -> None:
    conn, _ = pair
    file = io.BytesIO(b"x" * (8 << 20))
    with pytest.raises(hs.DeadlineExceeded) as caught:
        conn.sendfile(file, timeout=0.3)
    assert caught.value.op == "sendfile"
    assert caught.value.bytes_done > 65536
    assert conn.write_poisoned


def test_such_a_file_must_be_binary_and_may_wait(pair: Pair) -> None:
    conn, _ = pair
    with pytest.raises(ValueError, match="must be a binary file"):
        conn.sendfile(io.StringIO("text"))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="count must not be negative"):
        conn.sendfile(io.BytesIO(b"x"), count=-1)
    with pytest.raises(TypeError):
        conn.sendfile(object())  # type: ignore[arg-type]
    conn.settimeout(0)
    with pytest.raises(ValueError, match="has to wait"):
        conn.sendfile(io.BytesIO(b"x"))


def test_such_a_file_is_awaited() -> None:
    async def run() -> tuple[bytes, int]:
        ours, theirs = socket.socketpair()
        async with aio.adopt(ours) as sender, aio.adopt(theirs) as receiver:
            task = asyncio.create_task(sender.sendfile(io.BytesIO(b"y" * 300_000)))
            return await receiver.recv_exactly(300_000), await task

    assert asyncio.run(run()) == (b"y" * 300_000, 300_000)


# ---- the descriptor


@pytest.mark.parametrize("blocking", [True, False])
@pytest.mark.parametrize("inheritable", [True, False])
def test_detach_gives_the_descriptor_back_as_it_was_taken(
    blocking: bool, inheritable: bool
) -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        ours.setblocking(blocking)
        ours.set_inheritable(inheritable)
        conn = hs.adopt(ours)
        assert not os.get_blocking(conn.fileno())
        assert not conn.get_inheritable()
        number = conn.detach()
        try:
            assert os.get_blocking(number) is blocking
            assert os.get_inheritable(number) is inheritable
        finally:
            os.close(number)


def test_a_connection_made_here_is_detached_as_new_sockets_are() -> None:
    with tcp() as (client, server):
        for conn in (client, server):
            with socket.socket(fileno=conn.detach()) as plain:
                assert plain.getblocking()
                assert os.get_blocking(plain.fileno())
                assert not plain.get_inheritable()


@pytest.mark.parametrize("blocking", [True, False])
def test_a_listener_is_detached_as_it_was_taken(blocking: bool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as plain:
        plain.setblocking(blocking)
        number = hs.listen(plain).detach()
        try:
            assert os.get_blocking(number) is blocking
        finally:
            os.close(number)


def test_a_descriptor_is_inherited_when_that_was_asked_for(pair: Pair) -> None:
    conn, _ = pair
    look = [sys.executable, "-c", f"import os; os.fstat({conn.fileno()})"]
    run = {"close_fds": False, "check": False, "capture_output": True}
    assert subprocess.run(look, **run).returncode != 0  # type: ignore[call-overload]
    conn.set_inheritable(True)
    assert conn.get_inheritable()
    assert subprocess.run(look, **run).returncode == 0  # type: ignore[call-overload]
    number = conn.detach()
    assert os.get_inheritable(number)
    os.close(number)


def test_a_duplicate_is_a_connection_of_its_own(pair: Pair) -> None:
    conn, theirs = pair
    conn.settimeout(3)
    with conn.dup() as second:
        assert second.fileno() != conn.fileno()
        assert second.gettimeout() == 3
        assert not second.get_inheritable()
        theirs.send(b"ab")
        assert conn.recv(1) + second.recv(1) == b"ab"
        conn.close()
        second.sendall(b"still open")
        assert theirs.recv(100) == b"still open"
    assert theirs.recv(100) == b""


def test_a_duplicate_is_refused_where_it_would_lie(pair: Pair, ids: Identities) -> None:
    conn, theirs = pair
    theirs.send(b"line\nrest")
    conn.recv_line(timeout=30)
    with pytest.raises(hs.Busy, match="4 received bytes are buffered"):
        conn.dup()
    with (
        tls_pair(ids.client(), ids.server()) as (client, _),
        pytest.raises(ValueError, match="below TLS"),
    ):
        client.dup()
    with hs.listen(("127.0.0.1", 0)) as listener, hs.Pool(listener.address) as pool:
        with (
            pool.connection(timeout=30) as lent,
            pytest.raises(ValueError, match="a pool has lent"),
        ):
            lent.dup()


def test_a_duplicate_knows_what_is_known_of_the_stream(pair: Pair) -> None:
    conn, _ = pair
    with pytest.raises(hs.DeadlineExceeded):
        conn.sendall(b"x" * (8 << 20), timeout=0.02)
    with conn.dup() as second, pytest.raises(hs.Poisoned):
        second.send(b"behind half a message")


# ---- one owner


def test_a_number_that_has_an_owner_is_not_adopted() -> None:
    with tcp() as (client, _):
        for number in (client.fileno(), socket.socket(fileno=client.fileno())):
            with pytest.raises(ValueError, match="has an owner here already"):
                hs.adopt(number)
            if isinstance(number, socket.socket):
                assert number.detach() == client.fileno()  # It kept what it had.
        client.sendall(b"unharmed")


def test_nor_is_it_by_an_event_loop_or_as_a_listener() -> None:
    async def run(number: int) -> None:
        with pytest.raises(ValueError, match="has an owner here already"):
            aio.adopt(number)

    with tcp() as (client, _):
        asyncio.run(run(client.fileno()))
    with hs.listen(("127.0.0.1", 0)) as listener:
        with pytest.raises(ValueError, match="has an owner here already"):
            hs.listen(listener.fileno())


def test_a_connection_of_a_pool_is_not_adopted_while_it_is_idle() -> None:
    with hs.listen(("127.0.0.1", 0)) as listener, hs.Pool(listener.address) as pool:
        with pool.connection(timeout=30) as lent:
            number = lent.fileno()
            lent.mark_clean()
        with pytest.raises(ValueError, match="has an owner here already"):
            hs.adopt(number)


def test_a_detached_or_duplicated_number_may_be_adopted(pair: Pair) -> None:
    conn, _ = pair
    hs.adopt(os.dup(conn.fileno())).close()
    with hs.adopt(conn.detach()) as again:
        again.sendall(b"x")
    assert again.closed


def test_of_threads_that_adopt_one_number_at_once_one_gets_it() -> None:
    for _ in range(50):
        ours, theirs = socket.socketpair()
        number = ours.detach()
        start, got = threading.Barrier(4), []

        def adopt(number: int = number) -> None:
            start.wait()  # noqa: B023
            try:
                got.append(hs.adopt(number))  # noqa: B023
            except ValueError as exc:
                got.append(exc)  # noqa: B023

        threads = [threading.Thread(target=adopt) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        owners = [one for one in got if isinstance(one, hs.Connection)]
        assert len(owners) == 1
        owners[0].sendall(b"x")
        owners[0].close()
        theirs.close()


def test_an_owner_whose_number_others_closed_harms_no_new_owner() -> None:
    """os.close(conn.fileno()) is a mistake of the caller; the next connection must not pay."""
    first, _peer = socket.socketpair()
    ours, theirs = socket.socketpair()
    stale = hs.adopt(first)
    number = stale.fileno()
    os.dup2(ours.fileno(), number)  # which closes it
    with _peer, ours, theirs:
        with pytest.raises(ValueError, match="has an owner here already"):
            hs.adopt(number)
        os.close(number)
        stale.close()

    with hs.listen(("127.0.0.1", 0)) as listener, hs.timeout(60):
        stale = hs.connect(listener.address)
        others = [os.open("/dev/null", os.O_RDONLY) for _ in range(64)]
        number = stale.fileno()
        os.close(number)  # The lowest free number: accept gets it.
        with listener.accept(), hs.connect(listener.address) as client, listener.accept() as conn:
            with pytest.raises(hs.Closed, match="was closed by other code"):
                stale.sendall(b"secret")
            stale.close()
            assert os.readlink(f"/proc/self/fd/{number}").startswith("socket:")
            client.sendall(b"mine")
            assert conn.recv_exactly(4) == b"mine"
        for other in others:
            os.close(other)


@pytest.mark.filterwarnings("ignore::hardsock.EscapeWarning")
@pytest.mark.parametrize("how", ["buffered", "busy", "tls"])
def test_ssl_does_not_become_a_second_owner(how: str, ids: Identities) -> None:
    """It takes the number first and asks to detach() after."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with (
        tls_pair(ids.client(), ids.server()) if how == "tls" else tcp() as (conn, peer),
        hs.timeout(60),
    ):
        number = conn.fileno()
        if how == "buffered":
            peer.sendall(b"220 go ahead\r\nrest")
            conn.recv_line(hs.Line("\r\n"))
        with Call(conn.recv, 1) if how == "busy" else nullcontext() as c:
            if c is not None:
                c.wait_until_blocked()
            with pytest.raises((hs.Busy, ValueError)):
                context.wrap_socket(conn)  # type: ignore[arg-type]
            gc.collect()
            assert conn.fileno() == number
            assert os.readlink(f"/proc/self/fd/{number}").startswith("socket:")
            conn.sendall(b"still mine")
            assert peer.recv_exactly(10) == b"still mine"
            if c is not None:
                peer.sendall(b"x")
                assert c.result(30) == b"x"


# ---- what select does not see


@pytest.mark.parametrize("version", ["TLSv1.2", "TLSv1.3"])
def test_a_select_loop_reads_all_of_a_tls_stream(version: str, ids: Identities) -> None:
    with (
        tls_pair(ids.client(), ids.server(max_version=version)) as (client, server),
        hs.timeout(60),
    ):
        sent = b"".join(bytes([i % 256]) * (1 + 977 * i % 5000) for i in range(60))
        got, ended = bytearray(), False
        with Call(server.sendall, sent) as sending:
            sending.result(30)
        server.close_write()
        while not ended:
            if not client.pending():
                assert select.select([client], [], [], 60)[0]
            try:
                data = client.recv(100, socket.MSG_DONTWAIT)
            except BlockingIOError:
                continue
            got += data
            ended = not data
        assert bytes(got) == sent


def test_pending_counts_what_recv_would_give(ids: Identities) -> None:
    with tls_pair(ids.client(), ids.server()) as (client, server), hs.timeout(60):
        assert client.pending() == client.buffered == 0
        server.sendall(b"x" * 10_000)
        assert client.recv(10) == b"x" * 10
        assert client.pending() == client.buffered == 9_990
        assert len(client.recv(100_000)) == 9_990
        server.sendall(b"one\ntwo")
        client.recv_line()
        assert client.pending() == client.buffered == 3


def test_pending_tells_of_an_end_that_was_read_with_the_data(ids: Identities) -> None:
    with tls_pair(ids.client(), ids.server()) as (client, server), hs.timeout(60):
        server.sendall(b"bye")
        server.close_write()
        client.peek(3)
        assert client.recv(3) == b"bye"
        while not client.pending():
            assert select.select([client], [], [], 60)[0]
            assert client.recv(10, socket.MSG_PEEK) == b""
        assert client.recv(10) == b""


def test_pending_of_a_closed_connection_is_refused(pair: Pair) -> None:
    conn, theirs = pair
    theirs.send(b"a\nb")
    conn.recv_line(timeout=30)
    assert conn.pending() == 1
    conn.close()
    with pytest.raises(hs.Closed):
        conn.pending()


@pytest.mark.parametrize("tls", [False, True])
def test_a_connection_is_quiet_while_nothing_has_come(tls: bool, ids: Identities) -> None:
    """What the adapters' pools ask before they use a connection again."""
    with tls_pair(ids.client(), ids.server()) if tls else tcp() as (client, server), hs.timeout(60):
        # Under TLS 1.3 a server's tickets come behind the handshake: they are no bytes of anybody's.
        assert client._is_quiet()
        server.sendall(b"one\ntwo")
        assert readable(client.fileno(), 60)
        assert not client._is_quiet()
        client.recv_line()
        assert not client._is_quiet()  # It is buffered.
        assert client.recv(3) == b"two"
        assert client._is_quiet()
        with Call(client.recv, 1) as reading:
            reading.wait_until_blocked()
            assert client._is_quiet()  # What comes will be that call's.
            server.sendall(b"x")
            assert reading.result(60) == b"x"
        server.close()
        assert readable(client.fileno(), 60)
        assert not client._is_quiet()
        client.close()
        assert not client._is_quiet()


# ---- early answers


def test_a_send_after_the_peer_left_is_a_broken_pipe_and_a_reset(pair: Pair) -> None:
    conn, theirs = pair
    theirs.sendall(b"413 too large")
    theirs.close()
    with pytest.raises(BrokenPipeError) as caught:
        conn.sendall(b"x" * 1000)
    assert isinstance(caught.value, hs.Reset)
    assert isinstance(caught.value, hs.BrokenPipe)
    assert isinstance(caught.value, ConnectionResetError)
    assert caught.value.errno == errno.EPIPE
    assert caught.value.answer == b"413 too large"
    assert conn.recv(100) == b"413 too large"


def test_urllib3_finds_the_answer_of_a_server_that_answers_early() -> None:
    need_module("urllib3")
    from urllib3 import connection
    from urllib3 import connectionpool as pools

    gone = threading.Event()

    class Over(connection.HTTPConnection):  # type: ignore[misc]
        def _new_conn(self) -> hs.Connection:
            conn = hs.connect((self.host, self.port), timeout=30)
            conn.settimeout(30)
            return conn

        def connect(self) -> None:
            super().connect()
            assert gone.wait(30)

    def answer_early() -> None:
        conn = listener.accept(timeout=60)
        conn.sendall(b"HTTP/1.1 413 Too Large\r\nConnection: close\r\nContent-Length: 2\r\n\r\nno")
        conn.shutdown(socket.SHUT_RDWR)
        conn.close()
        gone.set()

    with hs.listen(("127.0.0.1", 0)) as listener, Call(answer_early):
        pool = pools.HTTPConnectionPool(*listener.address, retries=False)
        pool.ConnectionCls = Over
        response = pool.request("POST", "/", body=b"a" * (4 << 20))
        assert (response.status, response.data) == (413, b"no")


# ---- messages with ancillary data


def _descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_descriptors_pass_both_ways_and_are_not_inherited(pair: Pair) -> None:
    conn, theirs = pair
    reader, writer = os.pipe()
    try:
        assert socket.send_fds(conn, [b"take ", b"this"], [writer]) == 9  # type: ignore[arg-type]
        data, got, flags, _ = socket.recv_fds(theirs, 100, 1)
        assert (data, len(got), flags) == (b"take this", 1, 0)
        os.write(got[0], b"1")
        os.close(got[0])
        socket.send_fds(theirs, [b"and back"], [reader])
        data, got, flags, address = socket.recv_fds(conn, 100, 1)  # type: ignore[arg-type]
        assert (data, flags, address) == (b"and back", 0, None)
        assert os.read(got[0], 1) == b"1"
        assert not os.get_inheritable(got[0])
        os.close(got[0])
    finally:
        os.close(reader)
        os.close(writer)


def test_messages_without_ancillary_data_are_bytes(pair: Pair) -> None:
    conn, theirs = pair
    theirs.send(b"abcdefgh")
    assert conn.recvmsg(2, 0, socket.MSG_PEEK) == (b"ab", [], 0, None)
    assert conn.recvmsg(2) == (b"ab", [], 0, None)
    first, second = bytearray(3), bytearray(10)
    assert conn.recvmsg_into([first, bytearray(), second], 100) == (6, [], 0, None)
    assert first + second[:3] == b"cdefgh"
    theirs.close()
    assert conn.recvmsg(10, 100) == (b"", [], 0, None)


def test_what_was_read_ahead_comes_first_and_without_ancillary_data(pair: Pair) -> None:
    conn, theirs = pair
    reader, writer = os.pipe()
    socket.send_fds(theirs, [b"line\nrest"], [reader])
    before = _descriptors()
    assert conn.recv_line(timeout=30) == b"line"
    assert conn.recvmsg(100, 100, socket.MSG_PEEK) == (b"rest", [], 0, None)
    pieces = [bytearray(1), bytearray(2), bytearray(9)]
    assert conn.recvmsg_into(pieces, 100) == (4, [], 0, None)
    assert b"".join(pieces)[:4] == b"rest"
    assert _descriptors() == before  # The kernel closed it: nobody asked for it.
    os.close(reader)
    with pytest.raises(BrokenPipeError):
        os.write(writer, b"x")
    os.close(writer)


def test_descriptors_that_do_not_fit_are_closed_and_the_flags_say_so(pair: Pair) -> None:
    conn, theirs = pair
    reader, writer = os.pipe()
    socket.send_fds(theirs, [b"x"], [reader, writer, reader])
    before = _descriptors()
    data, ancillary, flags, _ = conn.recvmsg(10, socket.CMSG_LEN(4))
    assert (data, flags & socket.MSG_CTRUNC) == (b"x", socket.MSG_CTRUNC)
    for _, _, block in ancillary:
        for i in range(0, len(block) - len(block) % 4, 4):
            os.close(int.from_bytes(block[i : i + 4], sys.byteorder))
    assert _descriptors() == before
    os.close(reader)
    os.close(writer)


def _close_rights(ancillary: list[tuple[int, int, bytes]]) -> None:
    for _, _, block in ancillary:
        for i in range(0, len(block), 4):
            os.close(int.from_bytes(block[i : i + 4], sys.byteorder))


def test_received_descriptors_are_closed_when_no_result_can_be_made() -> None:
    need_testcapi()
    testcapi = importlib.import_module("_testcapi")
    lost = 0
    for nth in range(1, 30):
        ours, theirs = socket.socketpair()
        with theirs, hs.adopt(ours) as conn:
            socket.send_fds(theirs, [b"x" * 600], [theirs.fileno(), theirs.fileno()])
            before, result = _descriptors(), None
            testcapi.set_nomemory(nth, nth + 1)
            try:
                result = conn.recvmsg(600, 200)
            except MemoryError:
                pass
            finally:
                testcapi.remove_mem_hooks()
            if result is not None:
                _close_rights(result[1])
            assert _descriptors() == before
            if conn.poisoned:  # The bytes are lost as well: nobody may read on behind them.
                lost += 1
    assert lost >= 2


def test_a_receive_that_is_given_up_leaves_the_descriptors_where_they_are(pair: Pair) -> None:
    conn, theirs = pair
    reader, writer = os.pipe()
    with pytest.raises(hs.DeadlineExceeded):
        conn.recvmsg(10, 100, timeout=0.01)
    socket.send_fds(theirs, [b"late"], [reader])
    data, got, _, _ = socket.recv_fds(conn, 10, 1)  # type: ignore[arg-type]
    assert data == b"late"
    os.close(got[0])
    os.close(reader)
    os.close(writer)


def test_descriptors_are_awaited() -> None:
    async def run() -> bytes:
        left, right = socket.socketpair()
        reader, writer = os.pipe()
        async with aio.adopt(left) as sender, aio.adopt(right) as receiver:
            task = asyncio.create_task(receiver.recvmsg(10, socket.CMSG_LEN(4)))
            rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("i", reader))
            assert await sender.sendmsg([b"fd"], [rights]) == 2
            data, [(_, _, block)], _, _ = await task
            got = int.from_bytes(block, sys.byteorder)
            os.write(writer, b"through")
            for number in (reader, writer):
                os.close(number)
            try:
                return data + os.read(got, 10)
            finally:
                os.close(got)

    assert asyncio.run(run()) == b"fdthrough"


def test_ancillary_data_is_refused_where_it_would_be_lost(ids: Identities, pair: Pair) -> None:
    rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("i", 0))
    with tcp() as (client, server):
        with pytest.raises(ValueError, match="only a unix socket passes descriptors"):
            client.sendmsg([b"x"], [rights])
        client.sendall(b"abc")
        assert server.recvmsg(2, 100) == (b"ab", [], 0, None)
    with tls_pair(ids.client(), ids.server()) as (client, server), hs.timeout(60):
        with pytest.raises(ValueError, match="cannot go through TLS"):
            client.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SO_MARK, b"\0\0\0\0")])
        client.sendmsg([b"ab", b"cd"])
        assert server.recvmsg(3, 100, socket.MSG_PEEK) == (b"abc", [], 0, None)
        rest = [bytearray(), bytearray(10)]
        assert server.recvmsg_into(rest, 100) == (4, [], 0, None)
    conn, _ = pair
    with pytest.raises(ValueError, match="needs a byte of data"):
        conn.sendmsg([b""], [rights])
    with pytest.raises(TypeError, match=r"must be \(level, type, data\)"):
        conn.sendmsg([b"x"], [(1, 2)])  # type: ignore[list-item]
    with pytest.raises(ValueError, match="ancdata must have at most"):
        conn.sendmsg([b"x"], [(1, 2, b"x" * (2 << 20))])
    with pytest.raises(ValueError, match="address must be None"):
        conn.sendmsg([b"x"], [], 0, ("127.0.0.1", 1))  # type: ignore[arg-type]
    with pytest.raises(OSError) as caught:
        conn.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("i", 99999))])
    assert caught.value.errno == errno.EBADF
    assert not conn.poisoned
