"""Code written for ``socket`` runs over a Connection."""

from __future__ import annotations

import contextlib
import errno
import http.client
import io
import socket
from collections.abc import Iterator

import pytest

import hardsock as hs
from hardsock.lab.peers import PeerScript
from support.require import require
from support.servers import http_server, redis_server


@pytest.fixture
def pair() -> Iterator[tuple[hs.Connection, socket.socket]]:
    ours, theirs = socket.socketpair()
    with theirs, hs.adopt(ours) as conn:
        yield conn, theirs


def test_http_client_runs_unchanged() -> None:
    with require(http_server({"hello.txt": b"hello over hardsock"})) as server:
        client = http.client.HTTPConnection(server.host, server.port)
        client._create_connection = (  # type: ignore[attr-defined]
            lambda address, timeout, source: hs.connect(address, timeout=30)
        )
        for _ in range(2):
            client.request("GET", "/hello.txt")
            assert client.getresponse().read() == b"hello over hardsock"
        client.close()


def test_redis_answers_a_pipeline() -> None:
    with (
        require(redis_server()) as server,
        hs.connect(server.address, timeout=30) as conn,
        conn.makefile("rb") as replies,
    ):
        conn.sendall(b"".join(b"*2\r\n$4\r\nECHO\r\n$1\r\n%d\r\n" % (i % 10) for i in range(1000)))
        for i in range(1000):
            assert replies.readline() == b"$1\r\n"
            assert replies.readline() == b"%d\r\n" % (i % 10)


def test_a_file_keeps_the_connection_open_until_it_is_closed(
    pair: tuple[hs.Connection, socket.socket],
) -> None:
    conn, theirs = pair
    reader = conn.makefile("rb")
    conn.close()
    with pytest.raises(hs.Closed):
        conn.recv(1)
    theirs.send(b"still readable")
    assert reader.read(14) == b"still readable"
    reader.close()
    assert theirs.recv(1) == b""


def test_files_read_and_write_in_every_mode(pair: tuple[hs.Connection, socket.socket]) -> None:
    conn, theirs = pair
    with conn.makefile("rw", encoding="utf-8", newline="\n") as text:
        theirs.send("grüße\n".encode())
        assert text.readline() == "grüße\n"
        text.write("zurück\n")
        text.flush()
    assert theirs.recv(100).decode() == "zurück\n"
    with conn.makefile("wb", buffering=0) as raw:
        assert raw.write(b"raw") == 3
        with pytest.raises(io.UnsupportedOperation):
            raw.read(1)
    assert theirs.recv(100) == b"raw"
    with pytest.raises(ValueError, match="mode must be made of"):
        conn.makefile("a")
    with pytest.raises(ValueError, match="binary mode only"):
        conn.makefile("r", buffering=0)


def test_settimeout_is_a_total_for_each_call() -> None:
    with PeerScript([("drip", b"x" * 100, 0.02)], check=False) as peer:
        with hs.connect(peer.address, timeout=30) as conn:
            conn.settimeout(0.2)
            assert conn.gettimeout() == conn.timeout == 0.2
            with pytest.raises(TimeoutError) as caught:
                conn.recv_exactly(100)
            assert isinstance(caught.value, hs.DeadlineExceeded)
            assert 0 < caught.value.bytes_done < 100
            assert conn.recv_exactly(caught.value.bytes_done + 1, timeout=30)


def test_settimeout_zero_never_waits(pair: tuple[hs.Connection, socket.socket]) -> None:
    conn, theirs = pair
    conn.setblocking(False)
    assert (conn.getblocking(), conn.gettimeout()) == (False, 0.0)
    with pytest.raises(BlockingIOError) as caught:
        conn.recv(1)
    assert caught.value.errno == errno.EAGAIN
    theirs.send(b"x")
    assert conn.recv(1) == b"x"
    conn.setblocking(True)
    with pytest.raises(BlockingIOError):
        conn.recv(1, socket.MSG_DONTWAIT)
    with pytest.raises(hs.DeadlineExceeded):
        conn.recv(1, timeout=0)


def test_socket_attributes_are_there(pair: tuple[hs.Connection, socket.socket]) -> None:
    conn, _ = pair
    assert (conn.family, conn.type, conn.proto) == (socket.AF_UNIX, socket.SOCK_STREAM, 0)
    assert conn.fileno() >= 0
    assert conn.getsockname() == ""
    conn.setsockopt(socket.SOL_SOCKET, socket.SO_PRIORITY, 5)
    assert conn.getsockopt(socket.SOL_SOCKET, socket.SO_PRIORITY) == 5
    assert len(conn.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, 8)) == 8
    conn.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\0" * 8)


def test_contextlib_closing_and_with_close(pair: tuple[hs.Connection, socket.socket]) -> None:
    conn, theirs = pair
    with contextlib.closing(conn):
        pass
    assert conn.closed
    assert theirs.recv(1) == b""


def test_flags_that_are_not_supported_are_refused(
    pair: tuple[hs.Connection, socket.socket],
) -> None:
    conn, _ = pair
    with pytest.raises(ValueError, match="flags"):
        conn.recv(1, socket.MSG_OOB)
    with pytest.raises(ValueError, match="flags"):
        conn.send(b"x", socket.MSG_OOB)
    with pytest.raises(ValueError, match="flags"):
        conn.recvmsg(1, 0, socket.MSG_WAITALL)


def test_a_buffer_that_cannot_be_written_is_a_type_error_as_with_a_socket(
    pair: tuple[hs.Connection, socket.socket],
) -> None:
    conn, _ = pair
    text = "buffer must be a writable bytes-like object, not bytes"
    for call in (lambda: conn.recv_into(b"1234"), lambda: conn.recvmsg_into([b"1234"])):
        with pytest.raises(TypeError, match=text):
            call()


def test_flags_that_are_refused_are_told(pair: tuple[hs.Connection, socket.socket]) -> None:
    conn, _ = pair
    with pytest.raises(ValueError, match=r"got 0x1$"):
        conn.send(b"x", socket.MSG_OOB)


@pytest.mark.parametrize("bad", ["text", 5, None, memoryview(b"abcd")[::2]])
def test_wrong_buffers_are_refused_and_nothing_is_sent(
    pair: tuple[hs.Connection, socket.socket], bad: object
) -> None:
    conn, _ = pair
    with pytest.raises(TypeError):
        conn.sendall(bad)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        conn.recv_into(bad)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        conn.sendmsg([b"ok", bad])  # type: ignore[list-item]
    assert conn.bytes_sent == 0
    assert not conn.poisoned


def test_wrong_sizes_are_refused(pair: tuple[hs.Connection, socket.socket]) -> None:
    conn, _ = pair
    for call in (conn.recv, conn.recv_exactly):
        with pytest.raises(ValueError, match="must be in 0"):
            call(-1)
        with pytest.raises(TypeError):
            call(True)
    with pytest.raises(ValueError, match="nbytes is 9 but the buffer has only 4 bytes"):
        conn.recv_into(bytearray(4), 9)


def test_abort_resets_the_peer() -> None:
    with hs.listen(("127.0.0.1", 0)) as listener:
        conn = hs.connect(listener.address, timeout=30)
        with listener.accept(timeout=30) as theirs:
            conn.abort()
            with pytest.raises(hs.Reset) as caught:
                theirs.recv(1, timeout=30)
            assert isinstance(caught.value, ConnectionResetError)
            with pytest.raises(hs.Reset):
                theirs.recv(1)


def test_a_dead_peer_is_told_from_a_reset(tmp_path: object) -> None:
    assert issubclass(hs.DeadPeer, ConnectionError)
    assert not issubclass(hs.DeadPeer, hs.Reset)
