"""A native program of the lab that runs beside us: lines to it, and a line in answer to each."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Sequence
from pathlib import Path

from hardsock.lab.unavailable import InvalidResult, Unavailable
from hardsock.lab.waits import readable

_ANSWER = 30.0


def lacking(path: Path) -> str | None:
    """Say why the program cannot be run; None if it can."""
    try:
        os.stat(path)
    except FileNotFoundError:
        return f"{path} is not there: this hardsock was built without its lab"
    except OSError as exc:
        return f"{path} cannot be run: {exc.strerror}"
    if not os.access(path, os.X_OK):
        return f"{path} cannot be run: it is not executable by this user"
    return None


class Program:
    """Runs *path*. It ends with its input, so it does not outlive us. Safe to ask by many threads.

    Raises:
        Unavailable: It is not there, or may not be run.
    """

    def __init__(self, path: Path, arguments: Sequence[str], fds: Sequence[int] = ()) -> None:
        if why := lacking(path):
            raise Unavailable(why)
        self._name = path.name
        self._buffer = b""
        self._one_question = threading.Lock()
        self.process = subprocess.Popen(
            [str(path), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=fds,
        )

    def ask(self, command: str) -> str:
        """Say *command*; return the answer.

        Raises:
            InvalidResult: It is dead, or does not answer.
        """
        assert self.process.stdin is not None
        with self._one_question:
            try:
                self.process.stdin.write(command.encode() + b"\n")
                self.process.stdin.flush()
            except BrokenPipeError:
                pass  # Its end is told by the answer that does not come.
            try:
                return self.line()
            except BaseException:  # Else the answer would be taken for that to the next question.
                self.process.kill()
                raise

    def line(self) -> str:
        """Its next line; raises as `ask`."""
        assert self.process.stdout is not None
        fd = self.process.stdout.fileno()
        while b"\n" not in self._buffer:
            data = os.read(fd, 65536) if readable(fd, _ANSWER) else None
            if data is None:
                raise InvalidResult(f"{self._name} did not answer within {_ANSWER:g} s")
            if not data:
                raise InvalidResult(f"{self._name} died: status {self.process.wait()}")
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line.decode()

    def dies_within(self, seconds: float) -> bool:
        """Wait so long, or until it is dead, and say which."""
        assert self.process.stdout is not None
        return readable(self.process.stdout.fileno(), seconds)

    def close(self) -> None:
        """End it. Safe to call twice."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.kill()
        self.process.wait()
        try:
            self.process.stdin.close()
        except BrokenPipeError:
            pass  # What it was told last, it did not live to read.
        self.process.stdout.close()
