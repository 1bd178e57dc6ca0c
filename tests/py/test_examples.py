"""The programs in examples/ do what they say, with clients that are not ours."""

from __future__ import annotations

import contextlib
import http.client
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from support import Unavailable, available, connect_to
from support.signals import wait_until_caught

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@contextlib.contextmanager
def http_server() -> Iterator[tuple[str, int]]:
    argv = [sys.executable, "-W", "error", EXAMPLES / "http_server.py", "127.0.0.1:0"]
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
    with http_server() as found:
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
        with http_server() as address:
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
    output = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    assert output == "POST /a: 3 bytes, request 1\nPOST /b: 3 bytes, request 2\n"
