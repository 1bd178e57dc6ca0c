"""Every error tells the phase, both addresses as far as there are any, and a hint."""

from __future__ import annotations

import copy
import errno
import os
import pickle
import socket
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import hardsock as hs
from hardsock.lab.namespaces import Namespace
from hardsock.lab.threads import Call
from support.require import require

Pair = tuple[hs.Connection, hs.Connection]


@pytest.fixture
def pair() -> Iterator[Pair]:
    with hs.listen(("127.0.0.1", 0)) as listener:
        with hs.connect(listener.address, timeout=60) as client, listener.accept(timeout=60) as it:
            yield client, it


ERRORS = sorted(
    (
        cls
        for cls in vars(hs).values()
        if isinstance(cls, type) and issubclass(cls, hs.HardsockError)
    ),
    key=lambda cls: cls.__name__,
)


@pytest.mark.parametrize("cls", ERRORS)
def test_every_class_has_a_phase_and_a_hint(cls: type[hs.HardsockError]) -> None:
    error = cls(None, "as made by hand")
    assert error.phase
    assert error.hint
    assert error.hint in str(error)


@pytest.mark.parametrize("cls", ERRORS)
def test_what_is_a_failure_is_an_os_error_and_a_cancel_is_none(cls: type[hs.HardsockError]) -> None:
    assert issubclass(cls, OSError) == (cls not in (hs.HardsockError, hs.Cancelled))
    assert issubclass(cls, hs.SocketError) == issubclass(cls, OSError)


def test_a_cancel_has_what_an_os_error_has(pair: Pair) -> None:
    token = hs.CancelToken()
    token.cancel("enough")
    with pytest.raises(hs.Cancelled) as caught:
        pair[0].recv(1, token=token)
    for error in (caught.value, copy.copy(caught.value), pickle.loads(pickle.dumps(caught.value))):
        assert (error.errno, error.strerror) == (errno.ECANCELED, caught.value.strerror)
        assert (error.reason, error.op, str(error)) == ("enough", "recv", str(caught.value))
    assert hs.Cancelled().strerror is None


def test_a_loop_that_tries_again_after_an_os_error_passes_a_cancel_on(pair: Pair) -> None:
    token, tries = hs.CancelToken(), []

    def stubborn() -> bytes:
        while True:
            try:
                tries.append(1)
                return pair[0].recv(1, token=token)
            except OSError:
                continue

    with Call(stubborn) as call:
        call.wait_until_blocked()
        token.cancel("shutting down")
        with pytest.raises(hs.Cancelled):
            call.result(60)
    assert len(tries) == 1


def addresses(conn: hs.Connection) -> tuple[str, str]:
    return tuple("{}:{}".format(*name[:2]) for name in (conn.getsockname(), conn.getpeername()))  # type: ignore[return-value]


def assert_tells(error: hs.HardsockError, phase: str, local: str | None, peer: str | None) -> None:
    assert (error.phase, error.local, error.peer) == (phase, local, peer)
    assert error.op
    assert error.hint
    assert f"{error.op}: {error.op}:" not in str(error)


# Every call that waits, or uses the descriptor.
RECEIVING: dict[str, Callable[..., Any]] = {
    "recv": lambda c, **how: c.recv(1, **how),
    "recv_into": lambda c, **how: c.recv_into(bytearray(1), **how),
    "recv_exactly": lambda c, **how: c.recv_exactly(5, **how),
    "recv_until": lambda c, **how: c.recv_until(b"\r\n", max_size=99, **how),
    "recv_line": lambda c, **how: c.recv_line(**how),
    "recv_frame": lambda c, **how: c.recv_frame(hs.LengthPrefix(), **how),
    "peek": lambda c, **how: c.peek(1, **how),
    "recvfrom": lambda c, **how: c.recvfrom(1, **how),
    "recvmsg": lambda c, **how: c.recvmsg(1, **how),
}
SENDING: dict[str, Callable[..., Any]] = {
    "send": lambda c, **how: c.send(b"x", **how),
    "sendall": lambda c, **how: c.sendall(b"x", **how),
    "sendmsg": lambda c, **how: c.sendmsg([b"x"], **how),
    "send_frame": lambda c, **how: c.send_frame(b"x", hs.LengthPrefix(), **how),
}
PLAIN: dict[str, Callable[..., Any]] = {
    "getsockopt": lambda c: c.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR),
    "setsockopt": lambda c: c.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    "shutdown": lambda c: c.shutdown(socket.SHUT_RD),
    "dup": lambda c: c.dup(),
    "detach": lambda c: c.detach(),
    "getsockname": lambda c: c.getsockname(),
    "getpeername": lambda c: c.getpeername(),
    "set_inheritable": lambda c: c.set_inheritable(True),
}


@pytest.mark.parametrize("name", [*RECEIVING, *SENDING, *PLAIN, "finish", "close_write"])
def test_a_call_after_close_tells_both_addresses(name: str, pair: Pair) -> None:
    conn, _ = pair
    local, peer = addresses(conn)
    conn.close()
    call = {**RECEIVING, **SENDING, **PLAIN}.get(name, lambda c: getattr(c, name)())
    with pytest.raises(hs.Closed) as caught:
        call(conn)
    assert_tells(caught.value, "start", local, peer)
    assert "this program closed it" in str(caught.value)


def test_a_call_after_detach_tells_both_addresses(pair: Pair) -> None:
    conn, _ = pair
    local, peer = addresses(conn)
    with socket.socket(fileno=conn.detach()), pytest.raises(hs.Closed) as caught:
        conn.recv(1)
    assert_tells(caught.value, "start", local, peer)


@pytest.mark.parametrize("name", RECEIVING)
def test_a_read_that_ran_out_of_time_tells_of_the_silence(name: str, pair: Pair) -> None:
    conn, other = pair
    with pytest.raises(hs.DeadlineExceeded) as caught:
        RECEIVING[name](conn, timeout=0.2)
    assert_tells(caught.value, "read", *addresses(conn))
    assert caught.value.limit == "timeout=0.2"
    assert "the peer has sent nothing yet" in str(caught.value)
    other.sendall(b"x")
    assert conn.recv(1, timeout=60) == b"x"
    with pytest.raises(hs.DeadlineExceeded, match="the peer sent something last"):
        RECEIVING[name](conn, timeout=0.02)


@pytest.mark.parametrize("family", ["tcp", "unix"])
def test_a_send_that_ran_out_of_time_tells_that_the_peer_does_not_read(family: str) -> None:
    if family == "tcp":
        listener = hs.listen(("127.0.0.1", 0))
        client = hs.connect(listener.address, timeout=60)
        other: hs.Connection | socket.socket = listener.accept(timeout=60)
    else:
        ours, other = socket.socketpair()
        listener, client = None, hs.adopt(ours)
    with client, other, pytest.raises(hs.DeadlineExceeded) as caught:
        client.sendall(bytes(64 << 20), timeout=0.3)
    assert caught.value.phase == "write"
    assert caught.value.bytes_done > 0
    assert "does not read" in str(caught.value) or "segments wait for it" in str(caught.value)
    if listener is not None:
        listener.close()


def test_the_other_errors_of_a_connection_tell_it(pair: Pair) -> None:
    conn, other = pair
    local, peer = addresses(conn)
    with Call(conn.recv, 1, timeout=60) as reading:
        reading.wait_until_blocked()
        with pytest.raises(hs.Busy) as busy:
            conn.recv(1)
        assert_tells(busy.value, "start", local, peer)
        other.sendall(b"x")
        assert reading.result(60) == b"x"
    token = hs.CancelToken()
    token.cancel("enough")
    with pytest.raises(hs.Cancelled) as cancelled:
        conn.recv(1, token=token)
    assert_tells(cancelled.value, "start", local, peer)
    other.sendall(b"half")
    other.close_write()
    with pytest.raises(hs.Truncated) as truncated:
        conn.recv_exactly(9, timeout=60)
    assert_tells(truncated.value, "read", local, peer)
    with pytest.raises(hs.EndOfStream) as ended:
        conn.recv_exactly(4, timeout=60)
        conn.recv_exactly(9, timeout=60)
    assert_tells(ended.value, "read", local, peer)
    with pytest.raises(hs.DeadlineExceeded):
        conn.sendall(bytes(64 << 20), timeout=0.3)
    with pytest.raises(hs.Poisoned) as poisoned:
        conn.sendall(b"x", timeout=1)
    assert_tells(poisoned.value, "start", local, peer)


def test_a_reset_tells_what_may_have_happened(pair: Pair) -> None:
    conn, other = pair
    local, peer = addresses(conn)
    other.abort()
    with pytest.raises(hs.Reset, match="aborted") as caught:
        conn.recv(1, timeout=60)
    assert_tells(caught.value, "read", local, peer)
    with pytest.raises(hs.Reset) as again:
        conn.sendall(b"x", timeout=60)
    assert_tells(again.value, "start", local, peer)


def test_a_frame_error_tells_its_connection(pair: Pair) -> None:
    conn, other = pair
    other.sendall(struct.pack("!I", 1 << 30))
    with pytest.raises(hs.FrameTooLarge, match="max_size") as caught:
        conn.recv_frame(hs.LengthPrefix(max_size=10), timeout=60)
    assert_tells(caught.value, "read", *addresses(conn))


def test_a_connection_in_a_forked_child_says_what_to_do(pair: Pair) -> None:
    conn, _ = pair
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            conn.recv(1, timeout=1)
        except hs.WrongProcess as exc:
            os.write(theirs, f"{exc.phase}|{exc.peer}|{exc}".encode())
        os._exit(0)
    os.close(theirs)
    said = os.read(ours, 4096).decode()
    os.close(ours)
    assert os.waitpid(child, 0)[1] == 0
    assert said.startswith(f"start|{addresses(conn)[1]}|")
    assert "make it after the fork" in said


# ---- lookups, connecting, listening


def _lookups_of_a_dead_name() -> list[list[object]]:
    import hardsock as hs
    from hardsock.lab.dns import DeadDNS, use_dns

    told = []
    with DeadDNS("127.0.0.1", 53):
        use_dns("127.0.0.1", timeout=20, attempts=2)
        for call in (hs.resolve, hs.connect):
            with pytest.raises(hs.DeadlineExceeded) as late:
                call("db.test:80", timeout=0)
            exc = late.value
            told.append([exc.host, "for db.test:80" in str(exc), exc.phase, exc.limit])
    return told


@pytest.mark.net
def test_a_lookup_tells_its_host() -> None:
    with require(Namespace()) as namespace:
        told = namespace.run(_lookups_of_a_dead_name)
    assert told == [["db.test:80", True, "resolve", "timeout=0"]] * 2


def test_connecting_and_listening_tell_what_was_asked_for() -> None:
    with hs.listen(("127.0.0.1", 0)) as listener:
        address = "{}:{}".format(*listener.address[:2])
        with pytest.raises(hs.HardsockError) as caught:
            hs.listen(address)
        assert (caught.value.phase, caught.value.host) == ("bind", address)
        with pytest.raises(hs.DeadlineExceeded, match="nobody connected") as late:
            listener.accept(timeout=0.02)
        assert_tells(late.value, "accept", address, None)
    with pytest.raises(hs.Closed) as closed:
        listener.accept()
    assert_tells(closed.value, "accept", address, None)
    with pytest.raises(hs.ConnectionRefused, match="nothing listens") as refused:
        hs.connect(address, timeout=60)
    assert_tells(refused.value, "connect", None, address)
    assert refused.value.host == address


def test_a_pool_tells_the_host_of_its_dials() -> None:
    with hs.listen(("127.0.0.1", 0)) as listener:
        address = "{}:{}".format(*listener.address[:2])
        with hs.Pool(address, options=hs.PoolOptions(max_size=1)) as pool, pool.connection():
            with pytest.raises(hs.PoolTimeout) as late:
                pool.acquire(timeout=0.02)
            assert (late.value.host, late.value.limit) == (address, "timeout=0.02")
            assert late.value.phase == "wait"
        with pytest.raises(hs.Closed) as closed:
            pool.acquire(timeout=60)
        assert (closed.value.host, closed.value.phase) == (address, "start")
    with hs.Pool(address) as pool, pytest.raises(hs.ConnectError) as refused:
        pool.acquire(timeout=60)
    assert (refused.value.host, refused.value.peer) == (address, address)


# ---- which of several limits


def limit_of(conn: hs.Connection, **how: Any) -> str | None:
    with pytest.raises(hs.DeadlineExceeded) as caught:
        conn.recv(1, **how)
    limit = caught.value.limit
    assert limit is not None
    assert f"by {limit}," in str(caught.value)
    return limit


def test_a_deadline_says_whose_it_was(pair: Pair) -> None:
    conn, _ = pair
    assert limit_of(conn, timeout=0.03) == "timeout=0.03"
    assert limit_of(conn, timeout=0) == "timeout=0"
    assert limit_of(conn, timeout=60, token=hs.CancelToken(0.03, name="batch")) == "the token batch"
    assert limit_of(conn, timeout=0.03, token=hs.CancelToken(60, name="batch")) == "timeout=0.03"
    assert limit_of(conn, token=hs.CancelToken(0.03)) == "its token"
    with hs.timeout(0.03, name="request"):
        assert limit_of(conn, token=hs.CancelToken(60)) == "the scope request"
    with hs.timeout(0.03):
        assert limit_of(conn, timeout=60) == "the scope around it"
    with pytest.raises(hs.DeadlineExceeded) as checked:
        hs.CancelToken(0, name="batch").check()
    assert checked.value.limit == "the token batch"
    conn.settimeout(0.04)
    assert limit_of(conn) == "settimeout(0.04)"
    assert limit_of(conn, timeout=0.03) == "timeout=0.03"
    conn.settimeout(60)
    conn.set_read_deadline(0.03)
    assert limit_of(conn) == "set_read_deadline"


def test_a_deadline_of_both_directions_is_told_by_the_phase(pair: Pair) -> None:
    conn, _ = pair
    conn.set_read_deadline(0)
    with Call(conn.sendall, bytes(64 << 20)) as sending:
        sending.wait_until_blocked()  # Else it might be late from the start: see below.
        conn.set_write_deadline(0.03)
        with pytest.raises(hs.DeadlineExceeded) as caught:
            sending.result()
    assert (caught.value.phase, caught.value.limit) == ("write", "set_write_deadline")


@pytest.mark.parametrize("earlier", ["read", "write"])
def test_a_call_that_is_late_from_the_start_is_told_its_own_deadline(
    pair: Pair, earlier: str
) -> None:
    conn, _ = pair
    for direction in (earlier, {"read": "write", "write": "read"}[earlier]):
        getattr(conn, f"set_{direction}_deadline")(0)
    with pytest.raises(hs.DeadlineExceeded) as caught:
        conn.sendall(b"x")
    assert (caught.value.phase, caught.value.limit) == ("start", "set_write_deadline")
    for receive in (lambda: conn.recv(1), lambda: conn.recv_until(b"x"), conn.recv_line):
        with pytest.raises(hs.DeadlineExceeded) as caught:
            receive()
        assert (caught.value.phase, caught.value.limit) == ("start", "set_read_deadline")


def test_a_dial_of_a_pool_names_its_own_limit() -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:  # accepts nobody, and says nothing
        options = hs.PoolOptions(dial_timeout=0.05)
        config = hs.TLSConfig(ca=None, insecure_skip_verify=True)
        with hs.Pool(mute.getsockname(), tls=config, options=options) as pool:
            with pytest.raises(hs.DeadlineExceeded) as caught:
                pool.acquire(timeout=30)
    assert caught.value.limit == "dial_timeout of the pool"


# ---- hints about addresses


def test_a_unix_socket_has_hints_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(hs.HardsockError, match="something that is no socket has that path") as it:
        hs.listen(f"unix:{tmp_path}/file")
    assert (it.value.phase, it.value.host) == ("bind", f"unix:{tmp_path}/file")
    with pytest.raises(hs.ConnectError, match="there is no such socket"):
        hs.connect(f"{tmp_path}/none", timeout=60)
    with hs.listen(f"{tmp_path}/ours"):
        with pytest.raises(hs.HardsockError, match="a process listens on that path already"):
            hs.listen(f"{tmp_path}/ours")
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(f"{tmp_path}/left")
    with pytest.raises(hs.ConnectionRefused, match="nobody listens on it any more"):
        hs.connect(f"{tmp_path}/left", timeout=60)
    with socket.socket(socket.AF_UNIX) as full, socket.socket(socket.AF_UNIX) as one:
        full.bind(f"{tmp_path}/full")
        full.listen(0)
        one.connect(f"{tmp_path}/full")
        with pytest.raises(hs.DeadlineExceeded, match="its queue is full: see `ss -xl`"):
            hs.connect(f"{tmp_path}/full", timeout=0.05)


def test_an_abstract_name_may_have_107_bytes() -> None:
    name = "hardsock-test-" + "n" * 93
    with hs.listen(f"unix:@{name}") as listener:
        assert listener.getsockname() == b"\0" + name.encode()
        with hs.connect(f"unix:@{name}", timeout=60) as conn:
            assert conn.getpeername() == b"\0" + name.encode()
        hs.connect(b"\0" + name.encode(), timeout=60).close()  # type: ignore[arg-type]


def test_a_link_local_address_without_scope_is_told_what_it_lacks() -> None:
    with pytest.raises(hs.ConnectError, match="a link-local address needs its scope"):
        hs.connect(("fe80::1", 80), timeout=60)


def test_an_address_of_another_machine_is_no_matter_of_ports() -> None:
    with pytest.raises(hs.HardsockError, match="this machine has no such address"):
        hs.listen(("192.0.2.1", 0))
    with hs.listen(("127.0.0.1", 0)) as listener:
        with pytest.raises(hs.ConnectError, match="this machine has no such address"):
            hs.connect(listener.address, source=("192.0.2.1", 0), timeout=60)
