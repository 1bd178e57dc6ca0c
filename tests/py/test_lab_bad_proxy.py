"""The lab's proxy: what it does to a stream, at which moment, and that nothing is left of it."""

from __future__ import annotations

import errno
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hardsock.lab import BadProxy, PeerScript, bad_proxy
from hardsock.lab.bad_proxy import Behaviour
from hardsock.lab.endpoint import listen
from support.pki import make_authority


@pytest.fixture
def echo() -> Iterator[tuple[str, int]]:
    """A server that sends back what it gets, to any number of clients."""
    listener = listen()
    threads = []

    def serve(conn: socket.socket) -> None:
        with conn:
            try:
                while data := conn.recv(65536):
                    conn.sendall(data)
            except OSError:
                pass

    def accept() -> None:
        while True:
            try:
                conn, _ = listener.accept()
            except OSError:
                return
            threads.append(threading.Thread(target=serve, args=(conn,)))
            threads[-1].start()

    main = threading.Thread(target=accept)
    main.start()
    yield listener.getsockname()
    listener.shutdown(socket.SHUT_RDWR)
    main.join()
    listener.close()
    for thread in threads:
        thread.join()


def dial(proxy: BadProxy, timeout: float = 20.0) -> socket.socket:
    address = proxy.address
    assert isinstance(address, tuple)
    return socket.create_connection(address, timeout=timeout)


def ask(sock: socket.socket, data: bytes) -> bytes:
    sock.sendall(data)
    got = b""
    while len(got) < len(data):
        piece = sock.recv(65536)
        if not piece:
            raise EOFError
        got += piece
    return got


def test_it_passes_everything_on_unless_told_otherwise(echo: Any) -> None:
    data = bytes(range(256)) * 8000
    with BadProxy(echo) as proxy, dial(proxy) as sock:
        sender = threading.Thread(target=sock.sendall, args=(data,))
        sender.start()
        got = b""
        while len(got) < len(data):
            got += sock.recv(65536)
        sender.join()
        assert got == data
        sock.shutdown(socket.SHUT_WR)
        assert sock.recv(1) == b""
    assert (proxy.accepted, proxy.passed) == (1, {"up": len(data), "down": len(data)})


def test_latency_holds_each_way(echo: Any) -> None:
    with BadProxy(echo, latency=0.05) as proxy, dial(proxy) as sock:
        begin = time.monotonic()
        assert ask(sock, b"hello") == b"hello"
        assert time.monotonic() - begin >= 0.1
        proxy.set("down", latency=0.0)
        begin = time.monotonic()
        ask(sock, b"hello")
        assert time.monotonic() - begin >= 0.05


def test_latency_is_no_limit_of_the_rate(echo: Any) -> None:
    with BadProxy(echo) as proxy, dial(proxy) as sock:
        proxy.set("up", latency=0.2)
        begin = time.monotonic()
        for _ in range(20):
            sock.sendall(b"x" * 100)
            time.sleep(0)
        assert len(ask(sock, b"")) == 0
        got = 0
        while got < 2000:
            got += len(sock.recv(4096))
        assert 0.2 <= time.monotonic() - begin < 20 * 0.2


def test_slices_come_one_by_one() -> None:
    with PeerScript([("send", b"0123456789"), ("recv_until_eof",)]) as peer:
        assert isinstance(peer.address, tuple)
        begin = time.monotonic()  # Before anything can come: the first of it may be read late.
        with BadProxy(peer.address, slice=1, slice_gap=0.005) as proxy, dial(proxy) as sock:
            got = b""
            while len(got) < 10:
                got += sock.recv(100)
            assert time.monotonic() - begin >= 9 * 0.005
            assert got == b"0123456789"


def test_rates_are_kept(echo: Any) -> None:
    with BadProxy(echo) as proxy, dial(proxy) as sock:
        proxy.set("down", rate=100_000)
        begin = time.monotonic()
        ask(sock, bytes(20_000 + 65536))
        assert time.monotonic() - begin >= 0.2


def test_a_stall_keeps_connections_open_and_ends(echo: Any) -> None:
    with BadProxy(echo) as proxy, dial(proxy) as sock:
        ask(sock, b"hello")
        proxy.stall()
        sock.sendall(b"again")
        sock.settimeout(0.1)
        with pytest.raises(socket.timeout):
            sock.recv(10)
        proxy.go_on()
        sock.settimeout(20)
        assert sock.recv(10) == b"again"


def test_a_connection_is_cut_after_so_many_bytes(echo: Any) -> None:
    with BadProxy(echo) as proxy, dial(proxy) as sock:
        proxy.set("down", cut_after=4)
        sock.sendall(b"hello")
        got = b""
        while piece := sock.recv(10):
            got += piece
        assert got == b"hell"


def test_a_connection_is_reset_after_so_many_bytes(echo: Any) -> None:
    with BadProxy(echo) as proxy, dial(proxy) as sock:
        proxy.set("up", reset_after=3)
        sock.sendall(b"hello")
        with pytest.raises(ConnectionResetError):
            while sock.recv(10):
                pass


def test_all_connections_end_at_once(echo: Any) -> None:
    with BadProxy(echo) as proxy, dial(proxy) as one, dial(proxy) as other:
        ask(one, b"a")
        ask(other, b"b")
        proxy.cut()
        assert (one.recv(1), other.recv(1)) == (b"", b"")
        with dial(proxy) as third:
            ask(third, b"c")
            proxy.reset()
            with pytest.raises(ConnectionResetError):
                third.recv(1)


def test_it_can_refuse(echo: Any) -> None:
    with BadProxy(echo) as proxy, dial(proxy) as sock:
        ask(sock, b"hello")
        proxy.refuse()
        proxy.refuse()
        with pytest.raises(ConnectionRefusedError):
            dial(proxy)
        assert ask(sock, b"hello") == b"hello"


def test_a_server_that_is_not_there_is_a_reset() -> None:
    with socket.socket() as bound:  # not listening, and nobody else gets the port meanwhile
        bound.bind(("127.0.0.1", 0))
        target = bound.getsockname()
        # It may come as early as the connect itself.
        with BadProxy(target) as proxy, pytest.raises(ConnectionResetError), dial(proxy) as sock:
            sock.recv(1)


@pytest.mark.parametrize(
    ("point", "records_that_came"),
    [("client_hello", 0), ("server_hello", 0), ("after_server_hello", 1)],
)
def test_a_tls_handshake_stalls_where_it_is_told_to(
    tmp_path: Path, point: str, records_that_came: int
) -> None:
    authority = make_authority(tmp_path, "ca")
    authority.issue(file="server")
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(tmp_path / "server.pem", tmp_path / "server.key")
    client = ssl.create_default_context(cafile=str(tmp_path / "ca.pem"))
    with PeerScript([("recv", 1)], tls=server, check=False) as peer:
        assert isinstance(peer.address, tuple)
        with BadProxy(peer.address, tls_stall=point) as proxy, dial(proxy) as plain:
            plain.settimeout(0.2)
            tls = client.wrap_socket(
                plain, server_hostname="localhost", do_handshake_on_connect=False
            )
            with tls, pytest.raises(TimeoutError):
                tls.do_handshake()
            assert (proxy.passed["down"] > 0) == bool(records_that_came)
            assert (proxy.passed["up"] > 0) == (point != "client_hello")


def test_what_is_no_tls_passes(echo: Any) -> None:
    with BadProxy(echo, tls_stall="server_hello") as proxy, dial(proxy) as sock:
        assert ask(sock, b"hello") == b"hello"


@pytest.mark.parametrize(
    ("behaviour", "message"),
    [
        ({"latency": -1}, "latency must be a number and not negative"),
        ({"cut_after": 1, "reset_after": 1}, "contradict each other"),
        ({"slice_gap": 1}, "slice_gap without slice"),
        ({"tls_stall": "hello"}, "tls_stall must be one of client_hello"),
        ({"cut_after": -1}, "cut_after must not be negative"),
    ],
)
def test_behaviour_that_makes_no_sense_is_refused(behaviour: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Behaviour(**behaviour)


def test_a_change_is_made_whole_or_not_at_all(echo: Any) -> None:
    with BadProxy(echo) as proxy:
        with pytest.raises(ValueError, match="there is no behaviour 'latncy'"):
            proxy.set(stalled=True, latncy=1)
        with pytest.raises(ValueError, match="way must be"):
            proxy.set("out", stalled=True)  # type: ignore[arg-type]
        with dial(proxy) as sock:
            assert ask(sock, b"hello") == b"hello"


def test_an_order_to_a_proxy_that_has_failed_is_refused(
    echo: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[object] = []
    monkeypatch.setattr(threading, "excepthook", lambda args: told.append(args.exc_type))

    def fail(*_: object) -> None:
        raise LookupError("a fault of its own")

    with BadProxy(echo) as proxy:
        with dial(proxy) as sock:
            ask(sock, b"hello")
            monkeypatch.setattr(proxy, "_obey", fail)
            for _ in range(2):  # It was given while the thread ran, and after.
                with pytest.raises(RuntimeError, match="has failed: LookupError"):
                    proxy.stall()
            assert sock.recv(1) == b""
        with pytest.raises(ConnectionRefusedError):
            dial(proxy)
    assert told == [LookupError]


def test_what_an_order_raises_is_the_callers_and_the_proxy_goes_on(
    echo: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with BadProxy(echo) as proxy, dial(proxy) as sock:

        def fail(**_: object) -> None:
            raise OSError("not now")

        with monkeypatch.context() as patch:
            patch.setattr(proxy, "_end_all", fail)
            with pytest.raises(OSError, match="not now"):
                proxy.cut()
        assert ask(sock, b"hello") == b"hello"


def test_orders_before_the_block_and_after_it_are_refused(echo: Any) -> None:
    proxy = BadProxy(echo)
    with pytest.raises(RuntimeError, match="use it within its with block"):
        proxy.cut()
    with proxy:
        proxy.cut()
    with pytest.raises(RuntimeError, match="use it within its with block"):
        proxy.cut()


def test_a_proxy_without_descriptors_turns_clients_away_and_goes_on(
    echo: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none_left(*_: object) -> None:
        raise OSError(errno.EMFILE, "none left")

    with BadProxy(echo) as proxy:
        with monkeypatch.context() as patch:
            patch.setattr(bad_proxy, "_to_server", none_left)
            with dial(proxy) as sock:
                assert sock.recv(1) == b""
        with dial(proxy) as sock:
            assert ask(sock, b"hello") == b"hello"
