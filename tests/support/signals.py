"""Whether another process is ready for a signal: one sent too early ends it, or is ignored."""

from __future__ import annotations

import signal
from pathlib import Path

from hardsock.lab.waits import poll_until

__all__ = ["wait_until_caught"]


def wait_until_caught(pid: int, signum: signal.Signals, timeout: float = 60.0) -> None:
    """Return once process *pid* has a handler for *signum* (proc_pid_status(5), SigCgt)."""

    def caught() -> bool:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        mask = next(line.split()[1] for line in lines if line.startswith("SigCgt:"))
        return bool(int(mask, 16) >> (signum - 1) & 1)

    assert poll_until(caught, timeout), f"process {pid} has no handler for {signum.name}"
