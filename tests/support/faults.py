"""Run a program while strace makes chosen system calls of it fail."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hardsock.lab.unavailable import Unavailable


class StraceUnavailable(Unavailable):
    """There is no strace, or it may not trace."""


@dataclass(frozen=True)
class Injected:
    """How the program ended.

    Attributes:
        trace: strace's lines about the system calls named in the injections.
    """

    returncode: int
    stdout: str
    stderr: str
    trace: list[str]

    @property
    def injected(self) -> list[str]:
        """The lines of calls that were tampered with; empty means that the test proved nothing."""
        return [line for line in self.trace if "(INJECTED)" in line]


def strace_inject(command: Sequence[str], *injections: str, timeout: float = 30.0) -> Injected:
    """Run *command* under ``strace -f -e inject=...`` for each of *injections*.

    Example:
        ``strace_inject([sys.executable, "-c", code], "accept4:error=EMFILE:when=2..3")``
    """
    strace = shutil.which("strace")
    if strace is None:
        raise StraceUnavailable("strace is not installed")
    calls = ",".join(injection.partition(":")[0] for injection in injections)
    options = [f"--inject={injection}" for injection in injections]
    with tempfile.TemporaryDirectory(prefix="hardsock-strace-") as directory:
        log = Path(directory, "log")
        done = subprocess.run(
            [strace, "-f", "-qq", "-o", str(log), f"--trace={calls}", *options, "--", *command],
            capture_output=True,
            text=True,
            timeout=timeout,
            stdin=subprocess.DEVNULL,
        )
        if "strace: " in done.stderr and "not permitted" in done.stderr:
            raise StraceUnavailable(done.stderr.strip())
        trace = log.read_text().splitlines()
    return Injected(done.returncode, done.stdout, done.stderr, trace)
