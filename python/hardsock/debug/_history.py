"""How many descriptors there were, sampled by a thread of its own."""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections import deque

from hardsock._fork_locks import renew_in_child
from hardsock._observe import report

__all__ = ["History"]

_EVERY = 5.0
_SAMPLES = 720


class History:
    """The last hour, from when somebody first asked on. A forked child begins anew.

    The thread ends with its history.
    """

    def __init__(self, every: float = _EVERY) -> None:
        self._every = every
        self._lock = threading.Lock()
        renew_in_child(self)
        self._pid = 0
        self._samples: deque[tuple[float, int]] = deque(maxlen=_SAMPLES)

    def samples(self) -> list[tuple[float, int]]:
        """How long ago, in seconds, and how many; the oldest first, with one of now."""
        with self._lock:
            if self._pid != os.getpid():
                self._pid = os.getpid()
                self._samples = deque(maxlen=_SAMPLES)
                self._start()
        now = time.monotonic()
        kept = [(now - at, n) for at, n in list(self._samples)]
        return [*kept, (0.0, _open())]

    def _start(self) -> None:
        over = threading.Event()
        weakref.finalize(self, over.set).atexit = False
        threading.Thread(
            target=_sample,
            args=(self._samples, self._every, over),
            name="hardsock-debug",
            daemon=True,
        ).start()


def _sample(samples: deque[tuple[float, int]], every: float, over: threading.Event) -> None:
    while not over.is_set():
        samples.append((time.monotonic(), _open()))
        over.wait(every)


def _open() -> int:
    return int(report("metrics")["descriptors"]["open"])
