"""Self tests of hardsock.lab.threads."""

from __future__ import annotations

import select
import socket
import threading

import pytest

from hardsock.lab import threads
from hardsock.lab.threads import Call, Hung, ThreadFailures, run_threaded, wait_until_blocked


def test_values_come_in_order() -> None:
    assert [0, 1, 4, 9] == run_threaded(lambda i: i * i, 4)


def test_all_run_at_once() -> None:
    everybody = threading.Barrier(8)

    run_threaded(lambda _i: everybody.wait(5.0), 8)


def test_single_exception_is_raised_as_it_is() -> None:
    def third_fails(index: int) -> None:
        if index == 2:
            raise KeyError("third")

    with pytest.raises(KeyError, match="third"):
        run_threaded(third_fails, 4)


def test_several_exceptions_are_collected() -> None:
    with pytest.raises(ThreadFailures) as caught:
        run_threaded(lambda i: 1 // 0, 3)

    assert 3 == len(caught.value.errors)


def test_hang_is_reported_with_all_stacks(capfd: pytest.CaptureFixture[str]) -> None:
    stop = threading.Event()

    def hangs_here(_index: int) -> None:
        stop.wait(10.0)

    with pytest.raises(Hung, match="2 of 2"):
        run_threaded(hangs_here, 2, timeout=0.1)
    stop.set()
    assert "hangs_here" in capfd.readouterr().err


def test_blocked_in_recv_is_seen() -> None:
    left, right = socket.socketpair()
    with left, right, Call(left.recv, 10) as call:
        call.wait_until_blocked("recvfrom")
        assert call.running
        right.sendall(b"x")

        assert b"x" == call.result()


def test_blocked_in_poll_with_timeout_is_seen() -> None:
    left, right = socket.socketpair()
    with left, right:
        poller = select.poll()
        poller.register(left, select.POLLIN)
        with Call(poller.poll, 10_000) as call:
            wait_until_blocked(call.native_id, ("poll", "ppoll"))
            right.sendall(b"x")

            assert [(left.fileno(), select.POLLIN)] == call.result()


def test_waiting_for_a_lock_is_not_io() -> None:
    event = threading.Event()
    with Call(event.wait, 10.0) as call:
        call.wait_until_blocked("futex")
        with pytest.raises(Hung, match="did not block"):
            call.wait_until_blocked(timeout=0.02)
        event.set()


def test_running_thread_is_not_blocked() -> None:
    stop = threading.Event()

    def spin() -> None:
        while not stop.is_set():
            pass

    with Call(spin) as call:
        with pytest.raises(Hung):
            call.wait_until_blocked(timeout=0.02)
        stop.set()


def test_ended_thread_is_not_blocked() -> None:
    with Call(int) as call:
        call.join()
        with pytest.raises(Hung):
            call.wait_until_blocked(timeout=0.01)


def test_kernel_without_syscall_file_is_asked_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "_NUMBERS", {})
    left, right = socket.socketpair()
    with left, right, Call(left.recv, 10) as call:
        call.wait_until_blocked()
        right.sendall(b"x")
    event = threading.Event()
    with Call(event.wait, 10.0) as call:
        call.wait_until_blocked("futex")
        event.set()


def test_call_raises_what_the_function_raised() -> None:
    with pytest.raises(ZeroDivisionError):
        with Call(lambda: 1 // 0):
            pass


def test_a_call_that_had_failed_is_told_when_something_else_fails(
    capfd: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(KeyError, match="waited for it in vain"):
        with Call(lambda: 1 // 0) as call:
            call.join()
            raise KeyError("waited for it in vain")
    assert "ZeroDivisionError" in capfd.readouterr().err
