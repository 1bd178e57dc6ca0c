"""Self tests of support.inventory and support.plugin."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import types
from pathlib import Path

import pytest

from support.inventory import Leak, differences, leak_check, snapshot

SUITE = """
import os, threading, socket
import pytest

KEPT = []
stop = threading.Event()

def test_clean():
    for sock in socket.socketpair():
        sock.close()

def test_fd():
    KEPT.append(os.open("/dev/null", os.O_RDONLY))

def test_after_a_leak_is_clean():
    pass

def test_thread():
    threading.Thread(target=stop.wait, daemon=True).start()

@pytest.mark.may_leave("on purpose", fds=["/dev/null"])
def test_allowed():
    KEPT.append(os.open("/dev/null", os.O_RDONLY))

@pytest.mark.may_leave("on purpose")
def test_anything_allowed():
    KEPT.append(os.open("/dev/zero", os.O_RDONLY))

@pytest.mark.may_leave("on purpose", threads=["*"])
def test_other_kind_is_not_allowed():
    KEPT.append(os.open("/dev/zero", os.O_RDONLY))
"""


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
    core = types.ModuleType("hardsock._core")
    core._live = lambda: counts  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "hardsock._core", core)
    before = snapshot()
    counts["conn"], counts["pool"] = 3, 1

    assert ["live conn: 1 before, 3 after", "live pool: 0 before, 1 after"] == differences(
        before, snapshot()
    )


def test_plugin_fails_leaking_tests(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text('pytest_plugins = ["support.plugin"]\n')
    (tmp_path / "test_suite.py").write_text(SUITE)
    path = os.pathsep.join([str(Path(__file__).parent.parent), *sys.path])
    options = "-q -W error --strict-markers -o leak_timeout=0.05 -p no:cacheprovider"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options.split()],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": path, "PYTEST_ADDOPTS": ""},
        capture_output=True,
        text=True,
        timeout=60.0,
    )

    assert "7 passed, 3 errors" in done.stdout, done.stdout + done.stderr
    for name in ("test_fd", "test_thread", "test_other_kind_is_not_allowed"):
        assert f"ERROR test_suite.py::{name}" in done.stdout
