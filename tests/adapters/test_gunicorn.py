"""gunicorn with hardsock's worker class: real processes, real clients."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import socket
import ssl
import struct
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hardsock.lab.servers.process import Server, free_port, running, work_directory
from hardsock.lab.waits import poll_until
from support.require import need_module
from support.tls import Identities

_TIMEOUT = 60.0
TESTS = Path(__file__).resolve().parents[1]


@contextlib.contextmanager
def gunicorn(*options: str, application: str = "application") -> Iterator[Server]:
    """gunicorn with `wsgi_app`; the end of the block is SIGTERM."""
    need_module("gunicorn")
    port = free_port()
    with work_directory() as directory:
        argv = [sys.executable, "-m", "gunicorn", "-k", "hardsock.adapters.gunicorn.Worker"]
        argv += ["--bind", f"127.0.0.1:{port}", "--chdir", str(TESTS), "--log-level", "debug"]
        argv += ["--no-control-socket"] if _has_control_socket() else []
        argv += [*options, f"adapters.wsgi_app:{application}"]
        with running("gunicorn", argv, port, directory) as server:
            yield server


def _has_control_socket() -> bool:
    import gunicorn.config

    return "control_socket_disable" in gunicorn.config.make_settings()


def ask(server: Server, path: str, body: bytes | None = None, **headers: str) -> tuple[int, bytes]:
    """One request on a connection of its own."""
    conn = http.client.HTTPConnection(*server.address, timeout=_TIMEOUT)
    with contextlib.closing(conn):
        conn.request("GET" if body is None else "POST", path, body, headers)
        response = conn.getresponse()
        return response.status, response.read()


def raw(server: Server, data: bytes) -> socket.socket:
    """A connection that has sent *data*."""
    sock = socket.create_connection(server.address, timeout=_TIMEOUT)
    sock.sendall(data)
    return sock


def read_all(sock: socket.socket) -> bytes:
    """Up to the end, or the reset."""
    got = b""
    with contextlib.suppress(ConnectionResetError):
        while data := sock.recv(65536):
            got += data
    return got


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with gunicorn("--threads", "2", "--timeout", "30") as server:
        yield server


def test_requests_and_keep_alive(server: Server) -> None:
    conn = http.client.HTTPConnection(*server.address, timeout=_TIMEOUT)
    with contextlib.closing(conn):
        for number in range(3):
            conn.request("POST", "/echo", b"%d" % number)
            assert conn.getresponse().read() == b"1 %d" % number
        sock = conn.sock
        conn.request("GET", "/connection")
        assert conn.getresponse().read() == b"Connection"
        assert conn.sock is sock
        conn.request("GET", "/scheme")
        assert conn.getresponse().read() == b"http 127.0.0.1"
        conn.request("POST", "/echo", iter([b"chunk " * 1000, b"end"]), encode_chunked=True)
        assert conn.getresponse().read().startswith(b"6003 chunk chunk")
        conn.request("POST", "/echo", bytes(3 << 20))
        assert conn.getresponse().read().startswith(b"3145728 ")
        conn.request("GET", "/file")
        assert b"wsgi.file_wrapper" in conn.getresponse().read()
    assert ask(server, "/pid", Connection="close")[0] == 200


def test_requests_that_come_together_are_answered_in_order(server: Server) -> None:
    one = b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s"
    last = b"POST /echo HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 4\r\n\r\nlast"
    with raw(server, one % (5, b"first") + one % (6, b"second") + last) as sock:
        got = read_all(sock)
    assert [got.find(word) for word in (b"5 first", b"6 second", b"4 last")] == sorted(
        got.find(word) for word in (b"5 first", b"6 second", b"4 last")
    )
    assert got.count(b"HTTP/1.1 200") == 3


def test_slow_clients_hold_no_thread(server: Server) -> None:
    """Ten of them, with two threads."""
    with contextlib.ExitStack() as opened:
        for _ in range(10):
            opened.enter_context(raw(server, b"GET /pid HTTP/1.1\r\nHost: x\r\nX-Slow: "))
        slow = opened.enter_context(raw(server, b"GET /pi"))
        assert ask(server, "/pid")[0] == 200
        slow.sendall(b"d HTTP/1.0\r\n\r\n")
        assert b"200 OK" in read_all(slow)


@pytest.mark.parametrize("part", ["head", "body"])
def test_a_request_that_drips_is_cut(part: str) -> None:
    start = b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n"
    start += b"\r\n" if part == "body" else b"X-Long: "
    with gunicorn("--threads", "1", "--timeout", "3") as server:
        with raw(server, start) as sock:

            def is_cut() -> bool:
                try:
                    sock.sendall(b"x")
                except OSError:
                    return True
                return False

            assert poll_until(is_cut, _TIMEOUT)

        def is_answered() -> bool:
            try:
                return ask(server, "/pid")[0] == 200
            except (OSError, http.client.HTTPException):
                return False  # It has three seconds, too, and the machine may have stood still.

        assert poll_until(is_answered, _TIMEOUT)  # The only thread is free again.


_UNREAD = b"POST /pid HTTP/1.1\r\nHost: x\r\n"
_LENGTH = b"Content-Length: %d\r\n\r\n%s"
_FORM, _LONG_FORM = (
    b"--B\r\nContent-Disposition: form-data\r\n\r\n%s\r\n--B--\r\n" % bytes(size)
    for size in (100, 200_000)
)
_BODIES = {
    "small": _LENGTH % (7, b'{"a":1}'),
    "form": _LENGTH % (len(_FORM), _FORM),
    "long form": _LENGTH % (len(_LONG_FORM), _LONG_FORM),
    "chunked": b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n" % (len(_FORM), _FORM),
}


def answer(sock: socket.socket) -> bytes:
    """The body of one answer; the connection stays."""
    with contextlib.closing(http.client.HTTPResponse(sock)) as response:
        response.begin()
        return response.read()


@pytest.mark.parametrize("body", _BODIES)
def test_unread_bodies_hold_no_thread(body: str) -> None:
    """As many as there are threads; then others, and a drain, which need not wait for them."""
    options = ["--threads", "2", "--keep-alive", "600", "--graceful-timeout", "600"]
    with gunicorn(*options, "--timeout", "600") as server, contextlib.ExitStack() as opened:
        kept = [opened.enter_context(raw(server, _UNREAD + _BODIES[body])) for _ in range(2)]
        worker, _ = (answer(sock) for sock in kept)
        assert ask(server, "/pid")[0] == 200
        for sock in kept:
            sock.sendall(b"GET /pid HTTP/1.1\r\nHost: x\r\n\r\n")
            assert answer(sock) == worker
            sock.sendall(_UNREAD + _BODIES[body])
            assert answer(sock) == worker
        os.kill(int(worker), signal.SIGTERM)
        assert [read_all(sock) for sock in kept] == [b"", b""]
        assert poll_until(lambda: "drained in" in server.log(), _TIMEOUT)
        assert "0 aborted" in server.log()


def test_half_a_head_behind_a_body_holds_no_thread() -> None:
    """The parser reads it with the body: it waits with the connection, not with the thread."""
    head = b"GET /pid HTTP/1.1\r\nHost: x\r\n\r\n"
    with gunicorn("--threads", "1", "--keep-alive", "600", "--timeout", "600") as server:
        for cut in (1, 20, len(head) - 3, len(head) - 1):
            with raw(server, _UNREAD + _BODIES["small"] + head[:cut]) as sock:
                worker = answer(sock)
                assert ask(server, "/pid")[0] == 200
                sock.sendall(head[cut:] + head[:cut])
                assert answer(sock) == worker
                assert ask(server, "/pid")[0] == 200
                sock.sendall(head[cut:])
                assert answer(sock) == worker
            with raw(server, _UNREAD + _BODIES["small"] + head[:cut]) as sock:
                assert answer(sock) == worker
                sock.shutdown(socket.SHUT_WR)
                assert read_all(sock) == b""


@pytest.mark.parametrize(
    ("head", "body"),
    [
        (b"Content-Length: 9\r\n\r\n", b"only"),
        (b"Content-Length: 3000000\r\n\r\n", bytes(3_000_000)),
        (b"Transfer-Encoding: chunked\r\n\r\n", b"no size\r\n\r\n"),
    ],
    ids=["stalls", "long", "malformed"],
)
def test_an_unread_body_that_cannot_be_discarded_ends_the_connection(
    server: Server, head: bytes, body: bytes
) -> None:
    with raw(server, _UNREAD + head + body) as sock:
        got = read_all(sock)
    assert got.startswith(b"HTTP/1.1 200 OK")
    assert got.count(b"HTTP/1.1") == 1


@pytest.fixture(scope="module")
def single() -> Iterator[Server]:
    """One that serves one request at a time, under the deadlines that these come with."""
    with gunicorn("--threads", "1", "--keep-alive", "600", application="timed") as server:
        yield server


def pass_time(seconds: float) -> None:
    """Let so much time pass that a limit is over, or two times differ."""
    due = time.monotonic() + seconds
    assert poll_until(lambda: time.monotonic() > due, _TIMEOUT)


def test_the_wait_for_a_thread_counts_in_the_deadline_of_a_request(single: Server) -> None:
    head = b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nExpect: 100-continue\r\n\r\n"
    asking = b"GET /pid HTTP/1.0\r\nX-Request-Timeout-Ms: "
    with contextlib.ExitStack() as opened:
        slow = opened.enter_context(raw(single, head))
        assert b" 100 " in slow.recv(4096)  # It has the only thread.
        late = opened.enter_context(raw(single, asking + b"500\r\n\r\n"))
        patient = opened.enter_context(raw(single, asking + b"60000\r\n\r\n"))
        pass_time(1.0)
        slow.sendall(b"x")
        assert b" 200 OK" in slow.recv(4096)
        assert b" 504 Gateway Timeout" in read_all(late)
        assert b" 200 OK" in read_all(patient)


def test_each_request_of_a_connection_is_stamped_when_it_arrived(single: Server) -> None:
    conn = http.client.HTTPConnection(*single.address, timeout=_TIMEOUT)
    with contextlib.closing(conn):
        for _ in range(2):
            sent = time.monotonic()
            conn.request("GET", "/arrived")
            came = float(conn.getresponse().read())
            assert sent - 0.1 <= came <= time.monotonic()
            pass_time(0.3)


def test_a_request_has_arrived_when_its_first_bytes_have(single: Server) -> None:
    with raw(single, b"GET /arrived HTTP/1.0\r\nX-") as sock:
        assert ask(single, "/pid")[0] == 200  # Behind it, so these were looked at.
        looked = time.monotonic()
        pass_time(0.3)
        sock.sendall(b"A: b\r\n\r\n")
        assert float(read_all(sock).partition(b"\r\n\r\n")[2]) <= looked


def test_what_is_no_request_is_answered(server: Server) -> None:
    with raw(server, b"NO SUCH THING\r\n\r\n") as sock:
        assert b"400 Bad Request" in read_all(sock)
    with raw(server, b"GET /" + b"x" * 5000 + b" HTTP/1.1\r\n\r\n") as sock:
        assert b"HTTP/1.1 4" in read_all(sock)
    with raw(server, b"GET / HTTP/1.1\r\nX: " + b"x" * 1_100_000) as sock:
        assert b"431" in read_all(sock)


def test_what_the_application_raises(server: Server) -> None:
    assert ask(server, "/raise")[0] == 500
    with raw(server, b"GET /broken HTTP/1.1\r\nHost: x\r\n\r\n") as sock:
        got = read_all(sock)
    assert b"half" in got
    assert not got.endswith(b"0\r\n\r\n")  # nobody takes it for whole
    assert b"500" not in got


def test_a_client_that_leaves_ends_what_works_for_it(server: Server) -> None:
    before = int(ask(server, "/left")[1])
    for _ in range(3):
        with raw(server, b"GET /asleep HTTP/1.1\r\nHost: x\r\n\r\n") as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    assert poll_until(lambda: int(ask(server, "/left")[1]) == before + 3, _TIMEOUT)


def test_sigterm_answers_what_has_arrived() -> None:
    with gunicorn("--threads", "4", "--keep-alive", "30", "--graceful-timeout", "60") as server:
        worker = int(ask(server, "/pid")[1])
        with raw(server, b"GET /wait HTTP/1.1\r\nHost: x\r\n\r\n") as waiting:
            idle = http.client.HTTPConnection(*server.address, timeout=_TIMEOUT)
            idle.request("GET", "/pid")
            idle.getresponse().read()
            go = raw(server, b"POST /go HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n.")
            os.kill(worker, signal.SIGTERM)
            assert idle.sock.recv(1) == b""  # The drain has begun.
            idle.close()
            go.sendall(b".")
            assert b"let go" in read_all(waiting)
            assert read_all(go).endswith(b"go")
            go.close()
        assert poll_until(lambda: "drained in" in server.log(), _TIMEOUT)
        assert "0 aborted" in server.log()
        assert poll_until(lambda: ask(server, "/pid")[1] != b"%d" % worker, _TIMEOUT)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGQUIT])
def test_other_signals_end_at_once(number: signal.Signals) -> None:
    with gunicorn("--threads", "2") as server:
        worker = int(ask(server, "/pid")[1])
        with raw(server, b"GET /wait HTTP/1.1\r\nHost: x\r\n\r\n") as waiting:
            os.kill(worker, number)
            assert b"let go" not in read_all(waiting)
        assert poll_until(lambda: ask(server, "/pid")[1] != b"%d" % worker, _TIMEOUT)


def test_a_worker_that_has_served_enough_is_replaced() -> None:
    with gunicorn("--threads", "2", "--max-requests", "5") as server:
        found = {ask(server, "/pid")[1] for _ in range(30)}
        assert len(found) >= 3


def test_tls_is_hardsocks(ids: Identities) -> None:
    identity = ids.server_identity
    options = ["--certfile", str(identity.chain), "--keyfile", str(identity.key)]
    trusting = ssl.create_default_context(cafile=str(ids.ca))
    with gunicorn("--threads", "1", *options) as server:
        with raw(server, b""), raw(server, b"\x16"):  # They hold no thread.
            conn = http.client.HTTPSConnection(*server.address, timeout=_TIMEOUT, context=trusting)
            with contextlib.closing(conn):
                conn.request("GET", "/scheme")
                assert conn.getresponse().read() == b"https 127.0.0.1"
                conn.request("GET", "/file")
                assert b"wsgi.file_wrapper" in conn.getresponse().read()
