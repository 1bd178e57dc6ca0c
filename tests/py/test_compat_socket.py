"""``hardsock.compat.socket``: the socket module with hardsock behind its streams."""

from __future__ import annotations

import errno
import os
import socket as std
import ssl
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import hardsock as hs
from hardsock.compat import socket
from hardsock.lab.blackhole import BlackHole
from hardsock.lab.namespaces import Namespace
from hardsock.lab.peers import PeerScript
from hardsock.lab.threads import Call
from support.require import require
from support.tls import Identities


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener


@pytest.fixture
def namespace() -> Iterator[Namespace]:
    with require(Namespace()) as made:
        yield made


def _connect(listener: socket.socket, **how: Any) -> socket.socket:
    return socket.create_connection(listener.getsockname(), **how)


def test_it_has_all_that_the_standard_module_has() -> None:
    for name in dir(std):
        assert hasattr(socket, name), name
    assert set(socket.__all__) == set(std.__all__)
    assert issubclass(socket.socket, std.socket)
    assert socket.error is OSError
    assert socket.timeout is TimeoutError


def test_a_connected_stream_is_a_connection_of_hardsock(listener: socket.socket) -> None:
    with socket.socket() as one:
        assert one.connection is None
        one.settimeout(30)
        one.connect(listener.getsockname())
        two, address = listener.accept()
        with two:
            assert isinstance(one.connection, hs.Connection)
            assert isinstance(two.connection, hs.Connection)
            assert address == one.getsockname()
            assert one.gettimeout() == one.timeout == 30.0
            two.sendall(b"hello")
            assert one.recv(4) == b"hell"
            assert one.recv_into(bytearray(5)) == 1
            listed = {c.fd: c.site for c in hs.open_connections()}
            assert listed[one.fileno()].file == __file__
            assert listed[two.fileno()].file == __file__
    assert one.fileno() == -1
    with pytest.raises(OSError, match="closed") as caught:
        one.recv(1)
    assert caught.value.errno == errno.EBADF


def test_create_connection_races_and_names_the_line_of_the_caller(listener: socket.socket) -> None:
    with socket.create_connection(("localhost", listener.getsockname()[1]), 5) as one:
        assert type(one) is socket.socket
        assert one.family == std.AF_INET
        assert one.getpeername() == listener.getsockname()
        [site] = [c.site for c in hs.open_connections() if c.fd == one.fileno()]
        assert site.file == __file__
    one, two = socket.socketpair()
    with one, two:
        assert one.connection is not None
        sites = [c.site.file for c in hs.open_connections() if c.fd in (one.fileno(), two.fileno())]
        assert sites == [__file__, __file__]


def test_a_dripping_peer_buys_no_time_in_a_file() -> None:
    with PeerScript([("drip", b"x" * 1000, 0.01)], check=False) as peer:
        with socket.create_connection(peer.address, 0.3) as one, one.makefile("rb") as file:  # type: ignore[arg-type]
            with pytest.raises(TimeoutError):
                file.read(1000)


def test_a_scope_ends_a_call_and_a_cancel_does_so_from_another_thread(
    listener: socket.socket,
) -> None:
    with _connect(listener) as one:
        with hs.timeout(0.05), pytest.raises(hs.DeadlineExceeded):
            one.recv(1)
        token = hs.CancelToken()

        def receive() -> bytes:
            with hs.scope(token):
                return one.recv(1)

        with Call(receive) as call:
            call.wait_until_blocked()
            token.cancel()
            with pytest.raises(hs.Cancelled):
                call.result(60)


def test_a_connect_into_a_black_hole_ends_by_timeout_scope_or_cancel() -> None:
    with BlackHole() as hole:
        with socket.socket() as one:
            one.settimeout(0.05)
            with pytest.raises(TimeoutError):
                one.connect(hole.address)
            assert one.gettimeout() == 0.05
        with socket.socket() as one, hs.timeout(0.05), pytest.raises(hs.DeadlineExceeded):
            one.connect(hole.address)
        with socket.socket() as one:
            one.settimeout(0.05)
            assert one.connect_ex(hole.address) == errno.EAGAIN
        token = hs.CancelToken()

        def connect() -> None:
            with socket.socket() as one, hs.scope(token):
                one.connect(hole.address)

        with Call(connect) as call:
            call.wait_until_blocked()
            token.cancel()
            with pytest.raises(hs.Cancelled):
                call.result(60)


def test_a_refused_connect_is_as_ever_and_the_socket_can_be_used_again(
    listener: socket.socket,
) -> None:
    with std.create_server(("127.0.0.1", 0)) as gone:
        nobody = gone.getsockname()
    with socket.socket() as one:
        with pytest.raises(ConnectionRefusedError):
            one.connect(nobody)
        assert one.connect_ex(nobody) == errno.ECONNREFUSED
        one.connect(listener.getsockname())
        assert one.connection is not None
        with pytest.raises(OSError, match="already connected"):
            one.connect(listener.getsockname())


def test_a_full_backlog_of_a_unix_listener_is_waited_for(tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    with std.socket(std.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(0)
        with std.socket(std.AF_UNIX) as first, socket.socket(socket.AF_UNIX) as second:
            first.connect(path)
            second.settimeout(0.05)
            with pytest.raises(TimeoutError):
                second.connect(path)
            with hs.timeout(0.05), pytest.raises(hs.DeadlineExceeded):
                second.settimeout(None)
                second.connect(path)
            assert second.connection is None
            with Call(second.connect, path) as call:
                listener.accept()[0].close()
                call.result(20)
            assert second.connection is not None


def test_options_set_before_the_connect_hold_after_it(listener: socket.socket) -> None:
    with socket.socket() as one:
        one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        one.bind(("127.0.0.2", 0))
        one.connect(("localhost", listener.getsockname()[1]))
        assert one.getsockname()[0] == "127.0.0.2"
        assert one.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1


def _names_under_a_dead_name_server() -> dict[str, float]:
    from hardsock.compat import socket
    from hardsock.lab.dns import DeadDNS, use_dns

    took = {}
    with DeadDNS("127.0.0.1", 53):
        use_dns("127.0.0.1", timeout=30, attempts=2)
        for way in ("connect", "create_connection"):
            began = time.monotonic()
            try:
                if way == "connect":
                    with socket.socket() as one:
                        one.settimeout(0.3)
                        one.connect(("nobody.test", 80))
                else:
                    socket.create_connection(("nobody.test", 80), timeout=0.3)
            except TimeoutError:
                took[way] = time.monotonic() - began
    return took


@pytest.mark.net
def test_a_dead_name_server_ends_at_the_timeout(namespace: Namespace) -> None:
    took = namespace.run(_names_under_a_dead_name_server)
    assert set(took) == {"connect", "create_connection"}
    assert all(0.3 <= seconds < 4 for seconds in took.values()), took


def test_accept_obeys_the_scope_and_its_timeout(listener: socket.socket) -> None:
    with hs.timeout(0.05), pytest.raises(hs.DeadlineExceeded):
        listener.accept()
    assert listener.gettimeout() is None
    assert listener.getblocking()
    listener.settimeout(0.05)
    with hs.timeout(60), pytest.raises(TimeoutError):
        listener.accept()
    with pytest.raises(TimeoutError):
        listener.accept()
    for timeout in (None, 60):
        listener.settimeout(timeout)
        with hs.timeout(60), _connect(listener):
            two, _ = listener.accept()
            with two:
                assert two.connection is not None
                assert two.gettimeout() is None


def test_a_connection_that_another_accept_takes_first_is_waited_for_again(
    listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    listener.settimeout(None)
    with std.socket(fileno=os.dup(listener.fileno())) as thief, _connect(listener) as first:
        accept_now = socket.socket._accept_now
        stolen = []

        def late(self: socket.socket, timeout: float | None) -> Any:
            if not stolen:
                stolen.append(thief.accept()[0])
            return accept_now(self, timeout)

        monkeypatch.setattr(socket.socket, "_accept_now", late)
        with hs.timeout(0.2), pytest.raises(hs.DeadlineExceeded):
            listener.accept()
        assert stolen[0].getpeername() == first.getsockname()
        stolen[0].close()


def test_two_accepts_of_one_listener_leave_each_other_their_scopes(
    listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    accept = std.socket._accept  # type: ignore[attr-defined]
    taken: list[socket.socket] = []

    def overtaken(self: socket.socket) -> Any:
        if not taken:  # The whole of another accept, before this one's system call.
            monkeypatch.undo()
            taken.append(listener.accept()[0])
        return accept(self)

    def accepting() -> None:
        with hs.timeout(0.2):
            listener.accept()

    monkeypatch.setattr(socket.socket, "_accept", overtaken, raising=False)
    with _connect(listener) as one, Call(accepting) as call:
        with pytest.raises(hs.DeadlineExceeded):
            call.result(20)
        assert taken[0].getpeername() == one.getsockname()
        taken[0].close()


def test_an_accept_without_a_scope_waits_as_ever_after_one_with_a_scope(
    listener: socket.socket,
) -> None:
    with hs.timeout(0.01), pytest.raises(hs.DeadlineExceeded):
        listener.accept()
    with Call(listener.accept) as call:
        call.wait_until_blocked()
        with _connect(listener) as one:
            two, address = call.result(20)
            assert address == one.getsockname()
            two.close()


def test_what_does_not_block_stays_a_plain_socket_until_somebody_waits(
    listener: socket.socket,
) -> None:
    with socket.socket() as one:
        one.setblocking(False)
        assert one.connect_ex(listener.getsockname()) in (0, errno.EINPROGRESS)
        two, _ = listener.accept()
        with two:
            assert one.connection is None
            with pytest.raises(BlockingIOError):
                one.recv(1)
            one.setblocking(True)
            assert one.connection is not None
            one.settimeout(0)
            with pytest.raises(BlockingIOError):
                one.recv(1)
            assert not one.getblocking()


def test_datagrams_pass_untouched() -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as one, socket.socket(type=std.SOCK_DGRAM) as two:
        one.bind(("127.0.0.1", 0))
        two.connect(one.getsockname())
        assert two.connection is None
        two.send(b"hello")
        data, peer = one.recvfrom(10)
        assert (data, peer) == (b"hello", two.getsockname())
        assert one.sendto(b"again", peer) == 5
        assert two.recv(10) == b"again"


def test_detach_gives_a_descriptor_that_blocks_again(listener: socket.socket) -> None:
    one = _connect(listener)
    number = one.fileno()
    assert not os.get_blocking(number)
    assert one.detach() == number
    assert os.get_blocking(number)
    assert one.fileno() == -1
    one.close()
    with socket.socket(fileno=number) as again:
        assert again.connection is not None
        with again.dup() as copy:
            assert copy.fileno() != number
            assert copy.getpeername() == listener.getsockname()


def test_urgent_data_pass_as_over_any_socket(listener: socket.socket) -> None:
    with _connect(listener) as one:
        two, _ = listener.accept()
        with two:
            two.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)
            one.send(b"!", socket.MSG_OOB)
            one.sendall(b"?", socket.MSG_OOB)
            assert two.recv(1) == b"!"


def test_hardsocks_context_keeps_the_connection(listener: socket.socket, tmp_path: Path) -> None:
    ids = Identities(tmp_path)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(ids.server_identity.chain, ids.server_identity.key)  # type: ignore[arg-type]
    with PeerScript([("expect", b"hello"), ("send", b"world")], tls=server) as peer:
        one = socket.create_connection(peer.address, 20)  # type: ignore[arg-type]
        conn = one.connection
        with hs.ssl_context(ca=ids.ca).wrap_socket(one, server_hostname="localhost") as wrapped:
            assert wrapped.connection is conn
            assert one.fileno() == -1
            wrapped.sendall(b"hello")
            assert wrapped.recv(10) == b"world"
        one.close()


@pytest.mark.parametrize("how", ["no TLS", "name", "interrupted"])
def test_a_handshake_that_fails_leaves_nothing_open(
    how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = Identities(tmp_path)
    context = hs.ssl_context(ca=ids.ca)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(ids.server_identity.chain, ids.server_identity.key)  # type: ignore[arg-type]
    if how == "interrupted":

        def interrupt(*_: Any) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(hs.TLSSocket, "do_handshake", interrupt)
    script = [("send", b"no TLS at all\r\n")] if how == "no TLS" else []
    with PeerScript(script, tls=None if script else server, check=False) as peer:
        one = socket.create_connection(peer.address, 20)  # type: ignore[arg-type]
        number = one.fileno()
        with pytest.raises((ssl.SSLError, KeyboardInterrupt)) as failed:
            context.wrap_socket(one, server_hostname="other.test")
        one.close()
        assert hs.open_connections() == []
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(number)
        del failed


def test_a_plain_context_takes_the_descriptor_and_hardsock_says_so(
    listener: socket.socket, tmp_path: Path
) -> None:
    ids = Identities(tmp_path)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(ids.server_identity.chain, ids.server_identity.key)  # type: ignore[arg-type]
    client = ssl.create_default_context(cafile=str(ids.ca))
    with PeerScript([("expect", b"hello"), ("send", b"world")], tls=server) as peer:
        one = socket.create_connection(peer.address, 20)  # type: ignore[arg-type]
        with pytest.warns(hs.EscapeWarning, match="ssl_context"):
            wrapped = client.wrap_socket(one, server_hostname="localhost")
        with wrapped:
            wrapped.sendall(b"hello")
            assert wrapped.recv(10) == b"world"


def _in_child(work: Any) -> bytes:
    """What *work* returns in a forked child."""
    there, here = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.write(here, work())
        finally:
            os._exit(0)
    os.close(here)
    with open(there, "rb") as file:
        found = file.read()
    os.waitpid(pid, 0)
    return found


def test_a_forked_child_goes_on_with_the_stream_of_its_parent(listener: socket.socket) -> None:
    with _connect(listener, timeout=20) as one:
        two, _ = listener.accept()
        with two:

            def work() -> bytes:
                assert one.fileno() >= 0
                one.sendall(b"from the child")
                # A file reads ahead, as socket's does: what it has taken is the child's.
                return two.recv(5) + str(one.gettimeout()).encode()

            assert _in_child(work) == b"from 20.0"
            assert two.recv(100) == b"the child"
            one.sendall(b"and the parent")
            assert two.recv(100) == b"and the parent"


def test_a_closed_one_comes_back_in_no_child(listener: socket.socket) -> None:
    one = _connect(listener)
    one.close()
    with std.socket(type=std.SOCK_DGRAM):  # has the number now
        assert _in_child(lambda: str(one.fileno()).encode()) == b"-1"


@pytest.mark.parametrize("how", [1 << 31, -(1 << 31) - 1, 2 + (1 << 32)])
def test_shutdown_refuses_a_number_that_fits_no_c_int_as_socket_does(how: int) -> None:
    with hs.listen(("127.0.0.1", 0)) as listener:
        with socket.create_connection(listener.getsockname(), 60) as sock:
            with pytest.raises(OverflowError, match="too large to convert to C int"):
                sock.shutdown(how)
            with pytest.raises(TypeError):
                sock.shutdown("x")  # type: ignore[arg-type]
            sock.shutdown(socket.SHUT_RDWR)
