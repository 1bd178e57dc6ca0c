"""Six things that go wrong with TLS sockets in Python, each tried with one library.

    python tests/tls/probes.py NAME LIBRARY DIRECTORY

prints what happened as JSON (p1, which also takes a count, a line for each). `compare.py` runs each in a process of its own: one of them is known to
crash. DIRECTORY holds ca.pem, server.pem and server.key.

The peer is never the library under test, but Python's ssl used as it may be used: by one thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import os
import select
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

TOP = Path(__file__).resolve().parent.parent.parent
sys.path[:0] = [str(TOP / "python"), str(TOP / "tests")]

import hardsock as hs  # noqa: E402
from hardsock import aio  # noqa: E402
from hardsock.lab.peers import PeerScript  # noqa: E402
from support.echo import EchoServer  # noqa: E402

NAME = "localhost"


class Files:
    """Both sides' settings."""

    def __init__(self, directory: str) -> None:
        self.directory = Path(directory)
        self.ca = self.directory / "ca.pem"
        self.pair = self.directory / "server.pem", self.directory / "server.key"

    def server(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*self.pair)
        return context

    def client(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.ca))

    def hs_server(self) -> hs.TLSConfig:
        own = hs.Certificate(chain=self.pair[0], key=self.pair[1])
        return hs.TLSConfig(role="server", certificates=own)

    def hs_client(self) -> hs.TLSConfig:
        return hs.TLSConfig(ca=self.ca)


def tcp(address: Any) -> tuple[str, int]:
    assert not isinstance(address, str)
    host, port = address
    return host, port


def stdlib_connect(files: Files, address: Any) -> ssl.SSLSocket:
    raw = socket.create_connection(tcp(address), timeout=10)
    return files.client().wrap_socket(raw, server_hostname=NAME)


def hs_connect(files: Files, address: Any) -> hs.Connection:
    return hs.connect(tcp(address), tls=files.hs_client(), server_name=NAME, timeout=10)


# ---- P1: one thread sends, another receives

SECONDS = 0.6
BLOCK = bytes(range(64))  # small ones: it is the calls that get in each other's way


class TwoThreads:
    """One thread sends blocks for a while, the other takes the echo of them all, and looks at it."""

    def __init__(self, send: Callable[[bytes], int], receive: Callable[[], bytes]) -> None:
        self._send, self._receive = send, receive
        self._sent, self._sending = 0, True
        self._error: str | None = None

    def run(self) -> str | None:
        """The name of the first error of either."""
        threads = [threading.Thread(target=self._guard, args=(f,)) for f in (self._out, self._in)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return self._error

    def _guard(self, function: Callable[[], None]) -> None:
        try:
            function()
        except Exception as exc:
            self._error = self._error or type(exc).__name__

    def _out(self) -> None:
        until = time.monotonic() + SECONDS
        try:
            while time.monotonic() < until and self._error is None:
                self._sent += self._send(BLOCK[self._sent % len(BLOCK) :])
        finally:
            self._sending = False

    def _in(self) -> None:
        got, until = 0, time.monotonic() + SECONDS + 5
        while (self._sending or got < self._sent) and self._error is None:
            if time.monotonic() > until:
                raise TimeoutError("the echo does not come")
            data = self._receive()
            at = got % len(BLOCK)
            if data != (BLOCK * (2 + len(data) // len(BLOCK)))[at : at + len(data)]:
                raise ValueError("other bytes than were sent")
            got += len(data)


def stdlib_two_threads(files: Files, address: Any) -> str | None:
    with stdlib_connect(files, address) as sock:
        sock.setblocking(False)

        def wait(what: int) -> None:
            poller = select.poll()
            poller.register(sock, what)
            poller.poll(20)

        def send(data: bytes) -> int:
            try:
                return sock.send(data)
            except ssl.SSLWantWriteError:
                wait(select.POLLOUT)
            except ssl.SSLWantReadError:
                wait(select.POLLIN)
            return 0

        def receive() -> bytes:
            try:
                return sock.recv(65536) or end()
            except ssl.SSLWantReadError:
                wait(select.POLLIN)
            except ssl.SSLWantWriteError:
                wait(select.POLLOUT)
            return b""

        return TwoThreads(send, receive).run()


def hs_two_threads(files: Files, address: Any) -> str | None:
    with hs_connect(files, address) as conn:

        def receive() -> bytes:
            try:
                return conn.recv(65536, timeout=0.02) or end()
            except hs.DeadlineExceeded:
                return b""

        return TwoThreads(lambda data: conn.send(data, timeout=10), receive).run()


def end() -> bytes:
    raise EOFError


def p1(library: str, files: Files, count: str) -> None:
    """A line for each of *count* connections: should one crash the process, the others are told."""
    run = stdlib_two_threads if library == "ssl" else hs_two_threads
    argv = [sys.executable, __file__, "echo", str(files.directory)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        address = "127.0.0.1", int(server.stdout.readline())
        for _ in range(int(count)):
            print(json.dumps(run(files, address)), flush=True)
        server.communicate()


def be_echo(directory: str) -> None:
    """In a process of its own: the threads under test shall not wait for its GIL."""
    with EchoServer(tls=Files(directory).server()) as server:
        print(tcp(server.address)[1], flush=True)
        sys.stdin.buffer.read()


# ---- P2: the client ends its direction and reads on


def p2(library: str, files: Files) -> Any:
    steps = [("recv_until_eof",), ("send", b"answer"), ("call", goodbye)]
    with PeerScript(steps, tls=files.server(), check=False) as peer:
        if library == "ssl":
            with stdlib_connect(files, peer.address) as sock:
                sock.sendall(b"question")
                sock.shutdown(socket.SHUT_WR)
                return {"read": describe(lambda: sock.recv(1000))}
        with hs_connect(files, peer.address) as conn:
            conn.sendall(b"question")
            conn.close_write(timeout=5)
            return {"read": describe(lambda: conn.recv(1000, timeout=5))}


def goodbye(sock: Any) -> None:
    with contextlib.suppress(OSError):
        sock.unwrap()


def describe(call: Callable[[], bytes]) -> str:
    try:
        data = call()
    except Exception as exc:
        return type(exc).__name__
    if data[:2] in (b"\x17\x03", b"\x16\x03", b"\x15\x03"):
        return f"{len(data)} bytes of ciphertext as if they were data"
    return repr(data)


# ---- P3: the peer leaves in the middle


def p3(library: str, files: Files) -> Any:
    steps = [("send", b"half a mess"), ("half_close",), ("recv_until_eof",)]
    with PeerScript(steps, tls=files.server(), check=False) as peer:
        if library == "ssl":
            with stdlib_connect(files, peer.address) as sock:
                assert b"half a mess" == sock.recv(1000)
                return {"read": describe(lambda: sock.recv(1000))}
        with hs_connect(files, peer.address) as conn:
            assert b"half a mess" == conn.recv(1000, timeout=5)
            return {"read": describe(lambda: conn.recv(1000, timeout=5))}


# ---- P4: a client connects and says nothing

PATIENCE, GIVE_UP = 0.5, 3.0


def p4(library: str, files: Files) -> Any:
    """After how long accept, told to take half a second, came back; and whether a good client that
    came behind the silent one was served by then."""
    with contextlib.ExitStack() as stack:
        accept, address = listener(library, files, stack)
        stack.enter_context(socket.create_connection(address))
        good = socket.create_connection(address, timeout=GIVE_UP)
        stack.enter_context(good)
        served: list[bool] = []
        shaking = threading.Thread(target=run_handshake, args=(files, good, served), daemon=True)
        shaking.start()
        accepting = threading.Thread(target=accept, daemon=True)
        started = time.monotonic()
        accepting.start()
        accepting.join(GIVE_UP)
        took = time.monotonic() - started
        hung = accepting.is_alive()
    shaking.join(GIVE_UP)
    return {"seconds": took, "hung": hung, "served": any(served)}


def run_handshake(files: Files, sock: socket.socket, served: list[bool]) -> None:
    with contextlib.suppress(OSError):
        files.client().wrap_socket(sock, server_hostname=NAME).close()
        served.append(True)


def listener(
    library: str, files: Files, stack: contextlib.ExitStack
) -> tuple[Callable[[], None], tuple[str, int]]:
    if library == "ssl":
        raw = socket.create_server(("127.0.0.1", 0))
        wrapped = stack.enter_context(files.server().wrap_socket(raw, server_side=True))
        wrapped.settimeout(PATIENCE)

        def stdlib_accept() -> None:
            with contextlib.suppress(OSError):
                wrapped.accept()[0].close()

        return stdlib_accept, wrapped.getsockname()
    listening = stack.enter_context(hs.listen(("127.0.0.1", 0), tls=files.hs_server()))

    def hs_accept() -> None:
        with contextlib.suppress(hs.HardsockError):
            listening.accept(timeout=PATIENCE).close()

    return hs_accept, listening.address


# ---- P5: the client only writes

TRANSFERS, SIZE = 20, 400_000


def p5(library: str, files: Files) -> Any:
    complete = sum(transfer(library, files) for _ in range(TRANSFERS))
    return {"complete": complete, "of": TRANSFERS}


def transfer(library: str, files: Files) -> bool:
    """Whether the server, whose window is small, got all that a client wrote before its close."""
    received: list[int] = []
    with socket.socket() as raw:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
        raw.bind(("127.0.0.1", 0))
        raw.listen()
        receiving = threading.Thread(target=receive_all, args=(files, raw, received))
        receiving.start()
        if library == "ssl":
            with stdlib_connect(files, raw.getsockname()) as sock:
                sock.sendall(bytes(SIZE))
        else:
            with hs_connect(files, raw.getsockname()) as conn:
                conn.sendall(bytes(SIZE), timeout=10)
        receiving.join()
    return received == [SIZE]


def receive_all(files: Files, raw: socket.socket, received: list[int]) -> None:
    total = 0
    with contextlib.suppress(OSError):
        with files.server().wrap_socket(raw.accept()[0], server_side=True) as sock:
            sock.settimeout(10)
            while data := sock.recv(4096):
                total += len(data)
    received.append(total)


# ---- P6: memory of an idle connection, on the server's side

IDLE = 400


def resident() -> int:
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


def p6(library: str, files: Files) -> Any:
    """Two hundred connections first, so that what is there only once is not counted."""
    holders = {
        "ssl": hold_stdlib,
        "hardsock": hold_hardsock,
        "asyncio": hold_asyncio,
        "hardsock.aio": hold_aio,
    }
    with clients(files) as start:
        return {"bytes": holders[library](files, start) / IDLE}


Start = Callable[[int, int], None]


@contextlib.contextmanager
def clients(files: Files) -> Iterator[Start]:
    """start(port, n): n clients in another process connect there, and stay."""
    children: list[subprocess.Popen[bytes]] = []

    def start(port: int, count: int) -> None:
        argv = [sys.executable, __file__, "clients", str(port), str(count), str(files.directory)]
        children.append(subprocess.Popen(argv, stdin=subprocess.PIPE))

    try:
        yield start
    finally:
        for child in children:
            assert child.stdin is not None
            child.stdin.close()
            child.wait()


def be_clients(port: str, count: str, directory: str) -> None:
    files = Files(directory)
    context = files.client()
    with contextlib.ExitStack() as stack:
        for _ in range(int(count)):
            raw = stack.enter_context(socket.create_connection(("127.0.0.1", int(port))))
            sock = stack.enter_context(context.wrap_socket(raw, server_hostname=NAME))
            sock.sendall(b"x")
            assert b"x" == sock.recv(1)
        sys.stdin.buffer.read()


def hold_stdlib(files: Files, start: Start) -> int:
    context, held = files.server(), []
    with contextlib.ExitStack() as stack:
        raw = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=1024))

        def hold(count: int) -> int:
            start(raw.getsockname()[1], count)
            for _ in range(count):
                plain = raw.accept()[0]
                plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                sock = context.wrap_socket(plain, server_side=True)
                held.append(stack.enter_context(sock))
                sock.sendall(sock.recv(1))
            return resident()

        return -hold(IDLE // 2) + hold(IDLE)


def hold_hardsock(files: Files, start: Start) -> int:
    held = []
    with contextlib.ExitStack() as stack:
        listening = stack.enter_context(hs.listen(("127.0.0.1", 0), tls=files.hs_server()))

        def hold(count: int) -> int:
            start(listening.address[1], count)
            for _ in range(count):
                conn = listening.accept(timeout=30)
                held.append(stack.enter_context(conn))
                conn.sendall(conn.recv(1, timeout=30), timeout=30)
            return resident()

        return -hold(IDLE // 2) + hold(IDLE)


def hold_asyncio(files: Files, start: Start) -> int:
    async def main() -> int:
        arrived: asyncio.Queue[asyncio.StreamWriter] = asyncio.Queue()
        held = []

        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(await reader.readexactly(1))
            await writer.drain()
            await arrived.put(writer)

        server = await asyncio.start_server(handle, "127.0.0.1", 0, ssl=files.server())

        async def hold(count: int) -> int:
            start(server.sockets[0].getsockname()[1], count)
            for _ in range(count):
                held.append(await arrived.get())
            return resident()

        grown = -await hold(IDLE // 2) + await hold(IDLE)
        for writer in held:
            writer.transport.abort()
        server.close()
        return grown

    return asyncio.run(main())


def hold_aio(files: Files, start: Start) -> int:
    async def main() -> int:
        held = []
        async with await aio.listen(("127.0.0.1", 0), tls=files.hs_server()) as listening:

            async def hold(count: int) -> int:
                start(listening.address[1], count)
                for _ in range(count):
                    conn = await listening.accept(timeout=30)
                    held.append(conn)
                    await conn.sendall(await conn.recv(1, timeout=30), timeout=30)
                return resident()

            grown = -await hold(IDLE // 2) + await hold(IDLE)
        for conn in held:
            conn.abort()
        return grown

    return asyncio.run(main())


PROBES = {"p2": p2, "p3": p3, "p4": p4, "p5": p5, "p6": p6}

if __name__ == "__main__":
    if sys.argv[1] == "clients":
        be_clients(*sys.argv[2:])
    elif sys.argv[1] == "echo":
        be_echo(*sys.argv[2:])
    elif sys.argv[1] == "p1":
        p1(sys.argv[2], Files(sys.argv[3]), sys.argv[4])
    else:
        print(json.dumps(PROBES[sys.argv[1]](sys.argv[2], Files(sys.argv[3]))))
