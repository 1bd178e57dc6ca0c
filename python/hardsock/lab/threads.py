"""Threads of experiments: always started together, always joined, and never guessed to be asleep."""

from __future__ import annotations

import faulthandler
import platform
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

from hardsock.lab.waits import Deadline, poll_until

T = TypeVar("T")

_NUMBERS = {
    "x86_64": {
        "read": 0, "write": 1, "poll": 7, "select": 23, "connect": 42, "accept": 43, "sendto": 44,
        "recvfrom": 45, "sendmsg": 46, "recvmsg": 47, "futex": 202, "epoll_wait": 232,
        "pselect6": 270, "ppoll": 271, "epoll_pwait": 281, "accept4": 288, "epoll_pwait2": 441,
    },
    "aarch64": {
        "epoll_pwait": 22, "read": 63, "write": 64, "pselect6": 72, "ppoll": 73, "futex": 98,
        "accept": 202, "connect": 203, "sendto": 206, "recvfrom": 207, "sendmsg": 211,
        "recvmsg": 212, "accept4": 242, "epoll_pwait2": 441,
    },
}  # fmt: skip

# Every call in which a thread waits for I/O. Not futex: that is how a thread waits for the GIL.
IO_WAITS = tuple(sorted({name for table in _NUMBERS.values() for name in table} - {"futex"}))

_STDERR = 2  # The real one, whatever a test runner has made of sys.stderr.


class Hung(AssertionError):
    """A thread did not end, or did not block, by the deadline; all stacks went to stderr."""


class ThreadFailures(AssertionError):
    """Several threads raised.

    Attributes:
        errors: What each of them raised.
    """

    def __init__(self, errors: list[BaseException]) -> None:
        super().__init__(f"{len(errors)} threads failed: {errors!r}")
        self.errors = errors


class Call(Generic[T]):
    """A function call under way in a thread of its own; the end of its block joins it.

    with Call(conn.recv, 10) as call:
        call.wait_until_blocked()
        token.cancel()
        call.join(timeout=1.0)
    """

    def __init__(self, function: Callable[..., T], /, *args: Any, **kwargs: Any) -> None:
        self._function, self._args, self._kwargs = function, args, kwargs
        self._value: T
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._main, name="call", daemon=True)
        self._thread.start()

    def _main(self) -> None:
        try:
            self._value = self._function(*self._args, **self._kwargs)
        except BaseException as exc:
            self._error = exc

    @property
    def native_id(self) -> int:
        """The kernel's id of the thread."""
        assert self._thread.native_id is not None
        return self._thread.native_id

    @property
    def running(self) -> bool:
        """Whether the call has not ended yet."""
        return self._thread.is_alive()

    def wait_until_blocked(
        self, syscall: str | Sequence[str] = IO_WAITS, timeout: float = 30.0
    ) -> None:
        """Wait until the thread sleeps in *syscall*: see `wait_until_blocked`."""
        wait_until_blocked(self.native_id, syscall, timeout)

    def join(self, timeout: float = 60.0) -> None:
        """Wait for the end of the call, whatever it is. Raises Hung after *timeout* seconds."""
        _join(Deadline(timeout), [self._thread])

    def result(self, timeout: float = 60.0) -> T:
        """Wait for the end of the call; return its value or raise its exception.

        Raises Hung after *timeout* seconds; asking again is allowed.
        """
        self.join(timeout)
        if self._error is not None:
            try:
                raise self._error
            finally:
                self._error = None  # Reported; and breaks the cycle through its traceback.
        return self._value

    def __enter__(self) -> Call[T]:
        return self

    def __exit__(self, exc_type: type[BaseException] | None, *_details: object) -> None:
        if exc_type is None:
            self.join()
            if self._error is not None:
                self.result()
        else:
            self._thread.join(1.0)  # Something failed already; say that, not this.
            if self._error is not None:  # But it may be why.
                print("the call beside it had ended with:", file=sys.stderr)
                traceback.print_exception(self._error)
                self._error = None  # It would keep the frames, and they this.


def run_threaded(function: Callable[[int], T], n: int, *, timeout: float = 30.0) -> list[T]:
    """Call ``function(0)`` to ``function(n - 1)`` at the same moment in *n* threads.

    Args:
        function: Called with the number of its thread.
        n: How many threads.
        timeout: Seconds for all of them to end.

    Returns:
        Their values, in order.

    Raises:
        Hung: If one has not ended by the deadline.
        ThreadFailures: If several raised; a single exception is raised as it is.
    """
    barrier = threading.Barrier(n)

    def start_together(index: int) -> T:
        barrier.wait(timeout)
        return function(index)

    calls = [Call(start_together, index) for index in range(n)]
    _join(Deadline(timeout), [call._thread for call in calls])
    errors = [call._error for call in calls if call._error is not None]
    if len(errors) > 1:
        raise ThreadFailures(errors)
    return [call.result() for call in calls]


def wait_until_blocked(
    native_id: int, syscall: str | Sequence[str] = IO_WAITS, timeout: float = 30.0
) -> None:
    """Wait until the thread *native_id* of this process really sleeps in the kernel.

    Args:
        native_id: As `threading.get_native_id` says.
        syscall: The system call, or the system calls, that count.
        timeout: Seconds until `Hung` is raised.
    """
    names = (syscall,) if isinstance(syscall, str) else tuple(syscall)
    if not poll_until(lambda: _blocked_in(native_id, names), timeout):
        faulthandler.dump_traceback(_STDERR)
        state = f"syscall {_read(native_id, 'syscall')!r}, wchan {_read(native_id, 'wchan')!r}"
        raise Hung(f"thread {native_id} did not block in {names}: {state}")


def _blocked_in(native_id: int, names: Sequence[str]) -> bool:
    """Whether the kernel says so; falls back on where it sleeps if /proc hides the system call."""
    numbers = _NUMBERS.get(platform.machine())
    current = _read(native_id, "syscall")
    if numbers is not None and current:
        # "running", or the number and arguments of the call it sleeps in.
        return current.split()[0] in {str(numbers[name]) for name in names if name in numbers}
    state = _read(native_id, "stat").rpartition(")")[2].split()[:1]
    wants_futex = tuple(names) == ("futex",)
    return state == ["S"] and _read(native_id, "wchan").startswith("futex") == wants_futex


def _read(native_id: int, name: str) -> str:
    """A file of /proc about a thread; empty if it may not be read or the thread is gone."""
    try:
        with open(f"/proc/self/task/{native_id}/{name}") as file:
            return file.read().strip()
    except OSError:
        return ""


def _join(deadline: Deadline, threads: Sequence[threading.Thread]) -> None:
    for thread in threads:
        thread.join(deadline.left())
    hung = [thread.name for thread in threads if thread.is_alive()]
    if hung:
        faulthandler.dump_traceback(_STDERR)
        raise Hung(f"{len(hung)} of {len(threads)} threads did not end")
