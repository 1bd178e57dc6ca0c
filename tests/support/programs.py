"""Client programs, driven through their pipes: openssl s_client, psql."""

from __future__ import annotations

import contextlib
import fcntl
import struct
import subprocess
import termios
from collections.abc import Iterator, Sequence
from typing import IO

from hardsock.lab.servers.process import clean_environment, find_program
from hardsock.lab.waits import poll_until, readable

_TIMEOUT = 60.0


class Program:
    """A program that runs; the end of the block ends its input, and waits for it.

    Attributes:
        errors: After the block: what it wrote to its error output.
        returncode: After the block: how it ended.
    """

    def __init__(self, argv: Sequence[str]) -> None:
        self._process = subprocess.Popen(
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=clean_environment(),
            bufsize=0,
        )
        self.errors = ""
        self.returncode = -1

    def say(self, data: bytes) -> None:
        """Write to its input; returns when it has taken it, so that it does not see two as one."""
        pipe = self._pipe(self._process.stdin)
        pipe.write(data)
        assert poll_until(lambda: _unread(pipe) == 0, _TIMEOUT), "it reads nothing"

    def end_input(self) -> None:
        """End its input."""
        self._pipe(self._process.stdin).close()
        self._process.stdin = None  # or communicate() would flush it

    def read(self, size: int) -> bytes:
        """Read exactly so many bytes of its output, or less if that ends before."""
        output, got = self._pipe(self._process.stdout), b""
        while len(got) < size:
            assert readable(output.fileno(), _TIMEOUT), f"after {got!r} it says nothing more"
            piece = output.read(size - len(got))
            if not piece:
                break
            got += piece
        return got

    def read_until(self, end: bytes) -> bytes:
        """Read its output up to *end*."""
        got = b""
        while not got.endswith(end):
            piece = self.read(1)
            assert piece, f"its output ended with {got!r}"
            got += piece
        return got

    def read_to_end(self) -> bytes:
        """Read its output until it has no more to say."""
        got = b""
        while piece := self.read(1):
            got += piece
        return got

    @staticmethod
    def _pipe(pipe: IO[bytes] | None) -> IO[bytes]:
        assert pipe is not None
        return pipe

    def __enter__(self) -> Program:
        return self

    def __exit__(self, *_details: object) -> None:
        try:
            _output, errors = self._process.communicate(timeout=_TIMEOUT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            _output, errors = self._process.communicate()
            raise
        finally:
            self.returncode = self._process.returncode
        self.errors = errors.decode(errors="replace")


def _unread(pipe: IO[bytes]) -> int:
    return int(struct.unpack("i", fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)))[0])


@contextlib.contextmanager
def openssl_s_client(
    address: tuple[str, int],
    server_name: str,
    options: Sequence[str] = (),
    *,
    quiet: bool = True,
) -> Iterator[Program]:
    """``openssl s_client``, which passes on its input, and prints what it receives.

    It checks the certificate, which *options* such as ``["-CAfile", ...]`` have to make possible.
    If it is not *quiet* it also tells what it does, and takes commands of one letter.
    """
    argv = [find_program("openssl"), "s_client", "-connect", f"{address[0]}:{address[1]}"]
    argv += ["-servername", server_name, "-verify_hostname", server_name, "-verify_return_error"]
    mode = ["-quiet", "-no_ign_eof"] if quiet else []
    with Program([*argv, *mode, *options]) as program:
        yield program


@contextlib.contextmanager
def psql(query: str, **connection: str) -> Iterator[Program]:
    """psql that asks one *query*; *connection* as in its connection strings."""
    words = " ".join(f"{name}={value}" for name, value in connection.items())
    with Program([find_program("psql"), "-X", "-A", "-t", "-c", query, words]) as program:
        yield program
