"""The tests' own wait for a signal's handler."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from support.signals import wait_until_caught

IGNORES_AT_FIRST = """
import signal, sys
signal.signal(signal.SIGUSR2, signal.SIG_IGN)
print("serves", flush=True)
sys.stdin.readline()
signal.signal(signal.SIGUSR2, lambda *_: sys.exit(7))
sys.stdin.readline()
"""


def test_a_signal_that_is_ignored_at_first_is_sent_when_it_has_a_handler() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", IGNORES_AT_FIRST],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "serves\n"
        with pytest.raises(AssertionError, match=f"{process.pid} has no handler for SIGUSR2"):
            wait_until_caught(process.pid, signal.SIGUSR2, timeout=0)
        process.stdin.write("\n")
        process.stdin.flush()
        wait_until_caught(process.pid, signal.SIGUSR2)
        process.send_signal(signal.SIGUSR2)
        assert process.wait(60) == 7
