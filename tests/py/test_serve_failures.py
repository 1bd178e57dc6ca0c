"""serve: handlers that fail, peers that do, and machines that have no more to give."""

from __future__ import annotations

import contextlib
import logging
import subprocess
import sys
import threading

import pytest

import hardsock as hs
from hardsock.lab.endpoint import connect_to
from hardsock.lab.waits import poll_until
from support.served import LOCAL, Gate, ask, rest_of, settled


def failures(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str, type | None]]:
    """Logger, message and exception of errors; forgets the records, whose tracebacks keep objects."""
    found = [
        (record.name, record.getMessage(), record.exc_info[0] if record.exc_info else None)
        for record in caplog.records
        if record.levelno >= logging.ERROR
    ]
    caplog.clear()
    return found


@pytest.mark.parametrize("error", [ValueError, SystemExit, KeyboardInterrupt, GeneratorExit])
def test_a_handler_that_raises_is_logged_once_and_its_client_reset(
    error: type[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    def handler(conn: hs.Connection) -> None:
        if conn.recv(1) == b"x":
            raise error("on purpose")
        conn.sendall(b"fine")

    with hs.serve(handler, LOCAL, drain_timeout=30, workers=1) as server:
        with connect_to(server.address) as client:
            peer = "{}:{}".format(*client.getsockname())
            client.sendall(b"x")
            with pytest.raises(ConnectionResetError):
                rest_of(client)
        assert ask(server.address, b"y") == b"fine"
        stats = settled(server)
    assert (stats.failed, stats.errors, stats.workers) == (1, {error.__name__: 1}, 1)
    assert failures(caplog) == [("hardsock.serve", f"the handler of {peer} failed", error)]


def test_what_the_peer_does_wrong_is_counted_and_not_an_error(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG, "hardsock.serve")

    def handler(conn: hs.Connection) -> None:
        while True:
            conn.sendall(conn.recv_exactly(4, timeout=0.05))

    with hs.serve(handler, LOCAL, drain_timeout=30) as server:
        assert ask(server.address, b"four") == b"four", "an end between messages is no error"
        assert ask(server.address, b"four++") == b"four", "the last answer arrives"
        with connect_to(server.address) as slow, pytest.raises(ConnectionResetError):
            slow.sendall(b"sl")
            rest_of(slow)
        stats = settled(server)
    assert stats.errors == {"Truncated": 1, "DeadlineExceeded": 1}
    assert (stats.handled, stats.failed) == (1, 2)
    levels = [r.levelno for r in caplog.records if r.name == "hardsock.serve" and r.args]
    assert levels.count(logging.DEBUG) == 2
    assert failures(caplog) == []


def test_a_handler_that_catches_a_failed_send_does_not_make_half_a_message_whole() -> None:
    def handler(conn: hs.Connection) -> None:
        sent = 0
        while sent == 0:  # On a busy machine the time may be over before the first byte.
            with pytest.raises(hs.DeadlineExceeded) as caught:
                conn.sendall(b"x" * (1 << 26), timeout=0.05)
            sent = caught.value.bytes_done

    with hs.serve(handler, LOCAL, drain_timeout=30) as server:
        with connect_to(server.address) as client:
            assert poll_until(lambda: server.stats().handled == 1, 60)
            with pytest.raises(ConnectionResetError):
                rest_of(client)
        assert server.stats().endings == {"aborted": 1}


def test_a_handler_that_refuses_a_frame_is_heard() -> None:
    """Reading is over, but what it says about that goes out, and the client's rest does no harm."""

    def refuse(conn: hs.Connection) -> None:
        with pytest.raises(hs.BadFrame):
            conn.recv_line(hs.Line("\r\n"))
        assert conn.poisoned
        assert not conn.write_poisoned
        conn.sendall(b"500 bare LF\r\n")

    with hs.serve(refuse, LOCAL, drain_timeout=30) as server:
        with hs.connect(server.address, timeout=30) as client, hs.timeout(60):
            client.sendall(b"a\nb\r\n" + b"x" * 100_000)
            assert client.recv_line(hs.Line("\r\n")) == b"500 bare LF"
            with pytest.raises(hs.EndOfStream):
                client.recv_line()
    assert server.stats().failed == 0


def test_an_error_of_another_connection_is_the_handler_s(caplog: pytest.LogCaptureFixture) -> None:
    def proxy(conn: hs.Connection) -> None:
        with hs.connect(quiet.address, timeout=30) as upstream:
            upstream.recv(1, timeout=0.01)

    with hs.listen(LOCAL) as quiet, hs.serve(proxy, LOCAL, drain_timeout=30) as server:
        with connect_to(server.address) as client, pytest.raises(ConnectionResetError):
            rest_of(client)
        assert settled(server).errors == {"DeadlineExceeded": 1}
    assert len(failures(caplog)) == 1


def test_a_process_that_can_start_no_more_threads_serves_with_those_it_has(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    gate = Gate()

    def no_thread(_self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with hs.serve(gate, LOCAL, drain_timeout=30, workers=4) as server:
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", no_thread)
            clients = [connect_to(server.address) for _ in range(3)]
            gate.wait_until_running()
            assert poll_until(lambda: server.stats().waiting == 2, 60)
        assert server.stats().workers == 1
        gate.go.set()
        for client in clients:
            assert rest_of(client) == b""
            client.close()
        settled(server)
    warnings = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert warnings == [  # Once a minute, and what is left at the end.
        "1 of 4 workers: can't start new thread",
        "1 times more in the last minute, at last: 1 of 4 workers: can't start new thread",
    ]


_FEW_DESCRIPTORS = """
import resource, sys, warnings
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
warnings.simplefilter("ignore")
import hardsock as hs

def handler(conn):
    while data := conn.recv(100):
        conn.sendall(data)

with hs.serve(handler, ("127.0.0.1", 0), drain_timeout=30, **eval(sys.argv[1])) as server:
    print(server.address[1], flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("settings", ["{}", "dict(workers=4, max_connections=200)"])
def test_with_few_descriptors_nobody_is_left_in_silence(settings: str) -> None:
    """Each worker's thread takes one to be woken by, and must not take the listener's reserve."""
    argv = [sys.executable, "-c", _FEW_DESCRIPTORS, settings]
    told = 0
    with (
        subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process,
        contextlib.ExitStack() as stack,
    ):
        assert process.stdin is not None
        assert process.stdout is not None
        stack.callback(process.stdin.close)
        address = ("127.0.0.1", int(process.stdout.readline()))
        clients = []
        for _ in range(120):
            try:
                client = stack.enter_context(connect_to(address))
                client.sendall(b"hi")
                clients.append(client)
            except ConnectionError:
                told += 1
        for client in clients:
            client.settimeout(60)
            with contextlib.suppress(ConnectionError):
                assert client.recv(10) == b"hi"
            told += 1
    assert told == 120
