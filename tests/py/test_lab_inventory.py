"""Self tests of hardsock.lab.inventory."""

from __future__ import annotations

import os
import threading

import pytest

from hardsock import _core
from hardsock.lab.inventory import Leak, differences, leak_check, snapshot


def test_nothing_changed_is_no_leak() -> None:
    leak_check(snapshot())


def test_open_descriptor_is_a_leak() -> None:
    before = snapshot()
    fd = os.open("/dev/null", os.O_RDONLY)
    with pytest.raises(Leak, match=f"descriptor {fd} left open: /dev/null"):
        leak_check(before, timeout=0.01)
    leak_check(before, timeout=0.01, ignore_fds=["/dev/*"])
    os.close(fd)
    leak_check(before)


def test_closed_descriptor_of_somebody_else_is_a_leak() -> None:
    fd = os.open("/dev/null", os.O_RDONLY)
    before = snapshot()
    os.close(fd)
    with pytest.raises(Leak, match=f"descriptor {fd} closed that was open before"):
        leak_check(before, timeout=0.01)


def test_running_thread_is_a_leak_until_it_ends() -> None:
    before = snapshot()
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait)
    thread.start()
    with pytest.raises(Leak, match=r"thread .* left running"):
        leak_check(before, timeout=0.01)
    leak_check(before, timeout=0.01, ignore_threads=["*"])
    stop.set()
    thread.join()
    leak_check(before)


def test_garbage_is_collected_first() -> None:
    class Cycle:
        def __init__(self) -> None:
            self.me = self
            self.fd = os.open("/dev/null", os.O_RDONLY)

        def __del__(self) -> None:
            os.close(self.fd)

    before = snapshot()
    Cycle()
    leak_check(before, timeout=0.01)


def test_live_objects_of_hardsock_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = {"conn": 1}
    monkeypatch.setattr(_core, "_live", lambda: counts)
    before = snapshot()
    counts["conn"], counts["pool"] = 3, 1

    assert ["live conn: 1 before, 3 after", "live pool: 0 before, 1 after"] == differences(
        before, snapshot()
    )
