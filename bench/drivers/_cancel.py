"""The two threads of cancel_latency, shared by all Python drivers.

The blocked side (`Blocked`) runs in a thread of its own. For each sample it waits for `more()`,
then calls `announce(cancel)` as its last act before blocking, and `caught()` as its first act after
the error. The cancelling side is the main thread.
"""

from __future__ import annotations

import os
import platform
import threading
import time
from collections.abc import Callable
from typing import Any

ASLEEP_FOR_NS = 200_000
GIVE_UP_AFTER = 10.0
# A thread asleep in a futex waits for a lock or for the GIL, not for the network.
FUTEX = {"x86_64": b"202 ", "aarch64": b"98 ", "riscv64": b"98 ", "ppc64le": b"221 "}


class Blocked:
    """What the thread that is to be cancelled sees."""

    def __init__(self) -> None:
        self._go = threading.Semaphore(0)
        self._ready = threading.Semaphore(0)
        self._caught = threading.Semaphore(0)
        self._stop = False
        self._error: BaseException | None = None
        self._cancel: Callable[[], object] | None = None
        self._caught_at = 0
        self.thread_id = 0

    def more(self) -> bool:
        """Wait until the next sample is wanted; False at the end."""
        self._go.acquire()
        return not self._stop

    def announce(self, cancel: Callable[[], object]) -> None:
        """Hand over how to cancel; block at once after this."""
        self._cancel = cancel
        self._ready.release()

    def caught(self) -> None:
        """Call first thing in the handler of the error."""
        self._caught_at = time.monotonic_ns()
        self._caught.release()

    def run(self, body: Callable[[Blocked], object]) -> None:
        self.thread_id = threading.get_native_id()
        try:
            body(self)
        except BaseException as error:  # reported by the other thread
            self._error = error
        finally:
            self._ready.release()
            self._caught.release()

    def sample(self) -> int:
        """One cancellation, seen from the cancelling thread; nanoseconds."""
        self._go.release()
        self._wait(self._ready)
        cancel = self._cancel
        assert cancel is not None
        wait_until_asleep(self.thread_id)
        until = time.monotonic_ns() + ASLEEP_FOR_NS
        while time.monotonic_ns() < until:
            pass
        start = time.monotonic_ns()
        cancel()
        self._wait(self._caught)
        return self._caught_at - start

    def stop(self) -> None:
        self._stop = True
        self._go.release()

    def _wait(self, semaphore: threading.Semaphore) -> None:
        if not semaphore.acquire(timeout=GIVE_UP_AFTER):
            raise TimeoutError("the blocked thread did not answer")
        if self._error is not None:
            raise RuntimeError(f"the blocked thread failed: {self._error!r}") from self._error


def wait_until_asleep(thread_id: int) -> None:
    """Return when the kernel says that the thread sleeps in a system call other than a futex."""
    futex = FUTEX.get(platform.machine(), b"?")
    give_up = time.monotonic() + GIVE_UP_AFTER
    fd = os.open(f"/proc/self/task/{thread_id}/syscall", os.O_RDONLY)
    try:
        while time.monotonic() < give_up:
            text = os.pread(fd, 64, 0)
            if text[:1].isdigit() and not text.startswith(futex):
                return
    finally:
        os.close(fd)
    raise TimeoutError("the thread to be cancelled never went to sleep")


def measure(body: Callable[[Blocked], object], seconds: float) -> dict[str, Any]:
    """Run body(blocked) in a thread and cancel it again and again for so many seconds."""
    blocked = Blocked()
    thread = threading.Thread(target=blocked.run, args=(body,), daemon=True)
    thread.start()
    latencies: list[int] = []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        latencies.append(blocked.sample())
    blocked.stop()
    thread.join(GIVE_UP_AFTER)
    return {"latencies_ns": latencies}
