"""The programs in examples/ do what they say, with clients that are not ours."""

from __future__ import annotations

import contextlib
import http.client
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hardsock.lab.endpoint import connect_to
from hardsock.lab.servers.process import clean_environment
from support.require import Unavailable, available
from support.signals import wait_until_caught
from support.tls import Identities

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@contextlib.contextmanager
def example(name: str, *arguments: object) -> Iterator[tuple[str, int]]:
    argv = [sys.executable, "-W", "error", EXAMPLES / name, *map(str, arguments), "127.0.0.1:0"]
    with subprocess.Popen(
        argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            found = re.search(r"\('(.*)', (\d+)\)", process.stdout.readline())
            assert found is not None
            yield found[1], int(found[2])
        finally:
            wait_until_caught(process.pid, signal.SIGTERM)
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 0
            assert process.stderr.read() == ""


@pytest.fixture(scope="module")
def address() -> Iterator[tuple[str, int]]:
    with example("http_server.py") as found:
        yield found


def whole_answer(address: tuple[str, int], request: bytes) -> bytes:
    """All that comes until the server ends the connection."""
    with connect_to(address) as client:
        client.settimeout(20)
        client.sendall(request)
        parts = []
        while part := client.recv(65536):
            parts.append(part)
        return b"".join(parts)


def test_the_http_server_keeps_connections_and_counts_their_requests(
    address: tuple[str, int],
) -> None:
    with contextlib.closing(http.client.HTTPConnection(*address, timeout=20)) as client:
        for turn in (1, 2, 3):
            client.request("POST", "/path", body=b"x" * 100)
            response = client.getresponse()
            assert response.status == 200
            assert response.read() == b"POST /path: 100 bytes, request %d\n" % turn
        client.request("HEAD", "/")
        response = client.getresponse()
        assert (response.status, response.read()) == (200, b"")


def test_the_http_server_answers_what_is_pipelined_in_order(address: tuple[str, int]) -> None:
    request = b"GET /%d HTTP/1.1\r\nHost: a\r\n%s\r\n"
    requests = [request % (n, b"Connection: close\r\n" if n == 9 else b"") for n in range(10)]
    answer = whole_answer(address, b"".join(requests))
    assert re.findall(rb"GET /(\d)", answer) == [b"%d" % n for n in range(10)]
    assert answer.count(b"Connection: close") == 1


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"POST / HTTP/1.0\r\nContent-Length: 500000\r\n\r\n" + bytes(500000), b"200"),
        (b"GET / HTTP/1.1\r\n\r\n", b"400"),
        (b"nonsense\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nno colon\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost : b\r\n\r\n", b"400"),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", b"400"),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n", b"400"),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9999999999\r\n\r\n", b"413"),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", b"501"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 20000 + b"\r\n\r\n", b"431"),
        (b"GET / HTTP/1.0\r\n\r\n", b"200"),
    ],
)
def test_the_http_server_says_why_it_refuses_and_ends(
    address: tuple[str, int], request_: bytes, status: bytes
) -> None:
    """Also when there is input that nobody reads: the answer arrives."""
    assert whole_answer(address, request_).startswith(b"HTTP/1.1 " + status)


def test_the_http_server_serves_on_while_a_crowd_drips(address: tuple[str, int]) -> None:
    """More of them than workers, in the middle of the head and of the body; one byte at a time."""
    head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\n"
    with contextlib.ExitStack() as stack:
        slow = [stack.enter_context(connect_to(address)) for _ in range(100)]
        for n, client in enumerate(slow):
            client.sendall(head if n % 2 else head[:20])
        for byte in range(5):
            for n, client in enumerate(slow):
                client.sendall(b"%d" % byte if n % 2 else head[20 + byte : 21 + byte])
            answer = whole_answer(address, b"GET / HTTP/1.0\r\n\r\n")
            assert answer.startswith(b"HTTP/1.1 200")
        for n, client in enumerate(slow):
            client.sendall(b"5" if n % 2 else head[25:] + b"012345")
        for client in slow:
            client.settimeout(20)
            assert b"POST /: 6 bytes" in client.recv(1000)


def test_the_http_server_answers_what_has_arrived_when_it_is_told_to_end() -> None:
    with contextlib.ExitStack() as stack:
        with example("http_server.py") as address:
            client = stack.enter_context(socket.create_connection(address, 20))
            client.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbo")
            quiet = stack.enter_context(socket.create_connection(address, 20))
            quiet.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            assert quiet.recv(1000).startswith(b"HTTP/1.1 200")
            client.sendall(b"dy")  # SIGTERM comes at the end of the block.
        answer = client.recv(1000)
        assert answer.startswith(b"HTTP/1.1 200")
        assert b"4 bytes" in answer


def test_the_http_server_serves_curl(address: tuple[str, int]) -> None:
    with available():
        if shutil.which("curl") is None:
            raise Unavailable("curl is not installed")
    url = "http://{}:{}".format(*address)
    argv = ["curl", "-sS", "--fail", "--max-time", "20", "-d", "x=1", f"{url}/a", f"{url}/b"]
    env = clean_environment()
    output = subprocess.run(argv, capture_output=True, text=True, check=True, env=env).stdout
    assert output == "POST /a: 3 bytes, request 1\nPOST /b: 3 bytes, request 2\n"


# ---- a line server ------------------------------------------------------------------------------


def test_the_line_server_keeps_what_it_is_told() -> None:
    with example("line_server.py") as address:
        with connect_to(address) as client, connect_to(address) as other:
            client.settimeout(20)
            other.settimeout(20)
            client.sendall(b"SET colour dark green\nGET colour\n")
            assert read_lines(client, 2) == [b"OK", b"dark green"]
            other.sendall(b"GET colour\nGET size\nwhat\n")
            assert read_lines(other, 3)[:2] == [b"dark green", b"NONE"]
            other.sendall(b"x" * 2000 + b"\n")
            assert read_lines(other, 1) == [b"ERROR: at most 1024 bytes of UTF-8"]
            client.sendall(b"QUIT\n")
            assert read_lines(client, 1) == [b"BYE"]
            assert client.recv(1) == b""


def read_lines(client: socket.socket, count: int) -> list[bytes]:
    said = b""
    while said.count(b"\n") < count:
        piece = client.recv(4096)
        assert piece, said
        said += piece
    return said.splitlines()


# ---- TLS in front of a server -------------------------------------------------------------------


def test_the_terminator_speaks_tls_for_a_server_that_does_not(
    address: tuple[str, int], tmp_path: Path
) -> None:
    ids = Identities(tmp_path)
    identity = ids.issue()
    backend = f"{address[0]}:{address[1]}"
    context = ssl.create_default_context(cafile=str(ids.ca))
    with example("tls_terminator.py", identity.chain, identity.key, backend) as (_, port):
        for _ in range(2):
            client = http.client.HTTPSConnection("localhost", port, timeout=20, context=context)
            with contextlib.closing(client):
                for _ in range(3):
                    client.request("POST", "/", body=b"x" * 500_000)
                    answer = client.getresponse()
                    assert (answer.status, b"500000 bytes" in answer.read()) == (200, True)


def test_the_terminator_passes_ends_and_failures_on(tmp_path: Path) -> None:
    ids = Identities(tmp_path)
    identity = ids.issue()
    context = ssl.create_default_context(cafile=str(ids.ca))
    with socket.create_server(("127.0.0.1", 0)) as backend:
        backend.settimeout(20)
        host, port = backend.getsockname()
        with example("tls_terminator.py", identity.chain, identity.key, f"{host}:{port}") as front:
            with (
                connect_to(front) as raw,
                context.wrap_socket(raw, server_hostname="localhost") as client,
                backend.accept()[0] as behind,
            ):
                client.settimeout(20)
                behind.settimeout(20)
                client.sendall(b"hello")
                assert behind.recv(100) == b"hello"
                behind.sendall(b"bye")
                behind.shutdown(socket.SHUT_WR)
                assert client.recv(100) == b"bye"
                assert client.recv(100) == b"", "a whole stream, by close_notify"
                client.close()
                with contextlib.suppress(ConnectionResetError):
                    assert behind.recv(100) == b""
