"""Forks while other threads are inside of calls that take a lock; each child does a little of all.

    fork_storm.py FORKS

No logging to a buffered file, and no lookup that is not ours: the lock of a `BufferedWriter`, and
glibc's around resolv.conf, are lost to every child. Late imports are made before the storm: see
docs/adr/0062.
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import os
import signal
import socket as plain
import sys
import threading
import traceback
import warnings
from collections.abc import Callable
from typing import Any

import hardsock as hs
from hardsock.compat import socket

HANG = 60  # seconds, for a child
_PR_SET_PDEATHSIG = 1


def echo_server() -> tuple[str, int]:
    """In a process of its own, so that no child depends on a thread of its parent."""
    listener = plain.create_server(("127.0.0.1", 0), backlog=1024)
    if os.fork() == 0:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)

        def serve(conn: plain.socket) -> None:
            with conn, contextlib.suppress(OSError):
                while data := conn.recv(4096):
                    conn.sendall(data)

        while True:
            threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
    address: tuple[str, int] = listener.getsockname()
    listener.close()
    return address


class Storm:
    def __init__(self, address: tuple[str, int]) -> None:
        self.address = address
        self.listener = hs.listen(("127.0.0.1", 0))
        self.accepting = socket.create_server(("127.0.0.1", 0))
        self.accepting.settimeout(0.5)
        self.pool = hs.Pool(address, max_size=2)
        self.root = hs.CancelToken()
        self.breaker = hs.Breaker()
        self.over = threading.Event()
        self.wrong: list[BaseException] = []

    # ---- what the threads of the parent do

    def accept(self) -> None:
        with contextlib.suppress(hs.DeadlineExceeded):
            self.listener.accept(timeout=0.5).close()

    def accept_plain(self) -> None:
        with contextlib.suppress(TimeoutError):
            self.accepting.accept()[0].close()

    def connect(self) -> None:
        hs.connect(self.listener.address, timeout=HANG).close()

    def connect_plain(self) -> None:
        socket.create_connection(self.accepting.getsockname(), HANG).close()

    def echo(self) -> None:
        with socket.socket() as sock:
            sock.settimeout(HANG)
            sock.connect(self.address)
            sock.sendall(b"hello")
            assert sock.recv(5) == b"hello"

    def echo_by_name(self) -> None:
        with socket.create_connection(("localhost", self.address[1]), HANG) as sock:
            sock.sendall(b"x")
            assert sock.recv(1) == b"x"

    def borrow(self) -> None:
        with self.pool.connection(timeout=HANG) as conn:
            conn.sendall(b"y")
            assert conn.recv(1) == b"y"

    def cancel(self) -> None:
        child = self.root.child(timeout=HANG)
        child.on_cancel(lambda: None)
        child.child().cancel("over")
        child.cancel("over")

    def scopes(self) -> None:
        with hs.timeout(HANG):
            one, other = socket.socketpair()
            with one, other, one.makefile("rwb") as file, other.makefile("rb") as reading:
                file.write(b"line\n")
                file.flush()
                assert reading.readline() == b"line\n"

    def look_up(self) -> None:
        hs.resolve(("localhost", 80), timeout=HANG)

    def report(self) -> None:
        for name in ("connections", "pools", "metrics", "events"):
            hs.report(name)
        hs.fd_snapshot()
        hs.open_connections()
        self.pool.lent()

    def breaks(self) -> None:
        self.breaker.permit("a").record()

    # ---- the storm

    def steps(self) -> list[Callable[[], Any]]:
        return [
            *(self.accept, self.accept_plain, self.connect, self.connect_plain, self.echo),
            *(self.echo_by_name, self.borrow, self.borrow, self.borrow, self.cancel, self.scopes),
            *(self.look_up, self.report, self.breaks),
        ]

    def in_child(self) -> None:
        self.accepting = socket.create_server(("127.0.0.1", 0))
        with self.accepting, socket.create_connection(self.accepting.getsockname(), HANG) as sock:
            self.accept_plain()
            assert sock.recv(1) == b""
        for step in (self.echo, self.echo_by_name, self.borrow, self.scopes, self.look_up):
            step()
        for step in (self.report, self.breaks, self.cancel):
            step()
        self.root.cancel("in the child")
        self.pool.close()

    def run(self, step: Callable[[], Any]) -> None:
        try:
            while not self.over.is_set():
                step()
        except BaseException as exc:
            self.wrong.append(exc)

    def fork(self) -> int:
        pid = os.fork()
        if pid == 0:
            faulthandler.dump_traceback_later(HANG, exit=True)
            status = 1
            try:
                self.in_child()
                status = 0
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stderr.flush()
                os._exit(status)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def main(forks: int) -> int:
    warnings.simplefilter("ignore")  # CPython's own, of a fork beside threads
    storm = Storm(echo_server())
    for step in (storm.echo_by_name, storm.borrow, storm.scopes, storm.look_up, storm.report):
        step()
    threads = [threading.Thread(target=storm.run, args=(step,)) for step in storm.steps()]
    for thread in threads:
        thread.start()
    failed = 0
    for _ in range(forks):
        failed += storm.fork() != 0
        if failed or storm.wrong:
            break
    storm.over.set()
    for thread in threads:
        thread.join()
    storm.pool.close()
    storm.listener.close()
    storm.accepting.close()
    for exc in storm.wrong:
        traceback.print_exception(exc)
    return 1 if failed or storm.wrong else 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
