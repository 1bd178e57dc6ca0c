"""Client programs, driven through their pipes: openssl s_client, psql."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator, Sequence
from typing import IO

from hardsock.lab.servers.process import clean_environment, find_program
from hardsock.lab.waits import readable

_TIMEOUT = 10.0


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
        """Write to its input."""
        self._pipe(self._process.stdin).write(data)

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


@contextlib.contextmanager
def openssl_s_client(
    address: tuple[str, int], server_name: str, options: Sequence[str] = ()
) -> Iterator[Program]:
    """``openssl s_client``, which passes on its input, and prints what it receives.

    It checks the certificate, which *options* such as ``["-CAfile", ...]`` have to make possible.
    """
    argv = [find_program("openssl"), "s_client", "-connect", f"{address[0]}:{address[1]}"]
    argv += ["-servername", server_name, "-verify_hostname", server_name, "-verify_return_error"]
    with Program([*argv, "-quiet", "-no_ign_eof", *options]) as program:
        yield program


@contextlib.contextmanager
def psql(query: str, **connection: str) -> Iterator[Program]:
    """psql that asks one *query*; *connection* as in its connection strings."""
    words = " ".join(f"{name}={value}" for name, value in connection.items())
    with Program([find_program("psql"), "-X", "-A", "-t", "-c", query, words]) as program:
        yield program
