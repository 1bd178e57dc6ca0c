"""A server that plays one dialogue, for protocols of lines; it can begin TLS in the middle.

    with Dialog([("say", b"220 ready"), ("hear", b"EHLO"), ...], tls=context) as server: ...

Steps: ("say", line), ("hear", beginning of a line), ("any",), ("echo", line with TAG in it), ("begin_tls",), ("stall",), ("drip", bytes, seconds),
("part", bytes), ("reset",), ("cut",): an end, of TLS too, with no word;
("data", bytes, tls): listen, say where as FTP's 227 does, hear a command, say 150, send, say 226;
("data_only", bytes, tls): the same without 226; ("take", tls): the same for what the client sends, kept in ``taken``.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import threading
from types import TracebackType
from typing import Any


class Dialog:
    """The server. ``heard`` has the lines; ``failures`` what went wrong in it."""

    def __init__(self, steps: list[tuple[Any, ...]], tls: ssl.SSLContext | None = None) -> None:
        self.heard: list[bytes] = []
        self.taken = b""
        self.failures: list[BaseException] = []
        self._steps, self._tls = steps, tls
        self._stop, self._last = threading.Event(), threading.Event()

    def __enter__(self) -> Dialog:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._sock: Any = None
        self._thread = threading.Thread(target=self._main, name="dialog", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stop.set()
        for one in (self._listener, self._sock):
            with contextlib.suppress(OSError, AttributeError):
                socket.socket.shutdown(one, socket.SHUT_RDWR)
        self._thread.join(30)
        self._listener.close()
        if exc_type is None and self.failures:
            raise self.failures[0]

    def wait_for_last_step(self, timeout: float) -> None:
        """Until all steps but the last are done."""
        assert self._last.wait(timeout)

    def _main(self) -> None:
        try:
            self._sock, _ = self._listener.accept()
            self._sock.settimeout(30)
            for number, step in enumerate(self._steps, 1):
                if number == len(self._steps):
                    self._last.set()
                getattr(self, "_" + step[0])(*step[1:])
            while self._sock.recv(65536):
                pass
        except (OSError, EOFError) as exc:
            if not self._stop.is_set() and not isinstance(exc, OSError):
                self.failures.append(exc)
        except BaseException as exc:
            self.failures.append(exc)
        finally:
            if self._sock is not None:
                self._sock.close()

    def _say(self, line: bytes) -> None:
        self._sock.sendall(line + b"\r\n")

    def _hear(self, beginning: bytes) -> None:
        line = b""
        while not line.endswith(b"\r\n"):
            byte = self._sock.recv(1)
            if not byte:
                raise EOFError(f"wanted {beginning!r}, the client left")
            line += byte
        self.heard.append(line)
        if not line.upper().startswith(beginning.upper()):
            raise AssertionError(f"wanted {beginning!r}, heard {line!r}")

    def _echo(self, pattern: bytes) -> None:
        """Say *pattern* with the first word of what was heard last: IMAP's tags."""
        self._say(pattern.replace(b"TAG", self.heard[-1].split()[0]))

    def _any(self) -> None:
        self._hear(b"")

    def _begin_tls(self) -> None:
        assert self._tls is not None
        self._sock = self._tls.wrap_socket(self._sock, server_side=True)

    def _stall(self) -> None:
        self._stop.wait(60)

    def _part(self, data: bytes) -> None:
        self._sock.sendall(data)

    def _reset(self) -> None:
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._sock.close()

    def _cut(self) -> None:
        self._sock.close()

    def _drip(self, data: bytes, seconds: float) -> None:
        for value in data:
            self._sock.sendall(bytes([value]))
            if self._stop.wait(seconds):
                return

    def _data_only(self, data: bytes, tls: bool) -> None:
        with self._accepted(tls) as conn:
            conn.sendall(data)
            if tls:
                conn.unwrap()

    def _data(self, data: bytes, tls: bool, drip: float = 0.0) -> None:
        with self._accepted(tls) as conn:
            if not drip:
                conn.sendall(data)
            else:
                with contextlib.suppress(OSError):
                    for value in data:
                        conn.sendall(bytes([value]))
                        if self._stop.wait(drip):
                            break
            if tls:
                conn.unwrap()
        self._say(b"226 done")

    def _take(self, tls: bool) -> None:
        with self._accepted(tls) as conn:
            while data := conn.recv(65536):
                self.taken += data
        self._say(b"226 done")

    @contextlib.contextmanager
    def _accepted(self, tls: bool) -> Any:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
            self._say(b"227 Entering Passive Mode (127,0,0,1,%d,%d)" % divmod(port, 256))
            conn, _ = listener.accept()
            with conn:
                conn.settimeout(30)
                self._hear(b"")
                self._say(b"150 here it comes (11 bytes)")
                if tls:
                    assert self._tls is not None
                    with self._tls.wrap_socket(conn, server_side=True) as secured:
                        yield secured
                else:
                    yield conn
