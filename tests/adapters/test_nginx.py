"""What HTTP clients over hardsock keep, stream and are told early, by nginx."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

import hardsock as hs
import hardsock.adapters.httpx
from adapters import test_aiohttp, test_requests
from adapters.http_contract import (
    Client,
    Driver,
    driver,
    end,
    ends,
    nothing_open,
    pytest_generate_tests,
    total_of,
)
from hardsock.lab.servers import Server, nginx
from hardsock.lab.threads import Call
from support.require import require
from support.tls import Identities

__all__ = ["driver", "end", "pytest_generate_tests"]

pytestmark = pytest.mark.usefixtures("event_loops")

_BIG = bytes(range(256)) * 4096
_LOCATIONS = """
location /which { return 200 "$connection $connection_requests"; }
location /slow/ { alias %s/; limit_rate 1k; }
location /small { client_max_body_size 1k; return 200; }
"""
"""A connection tells its number, and its requests until now; a file comes slowly; little is taken."""


class HttpxClient:
    """See `http_contract.Client`."""

    def __init__(self, client: httpx.Client) -> None:
        self._client = client

    def get(self, url: str) -> bytes:
        answer = self._client.get(url)
        answer.raise_for_status()
        return answer.content

    def post(self, url: str, body: bytes) -> int:
        return self._client.post(url, content=body).status_code

    def stream(self, url: str) -> Iterator[bytes]:
        with self._client.stream("GET", url) as answer:
            yield from answer.iter_raw()


class HttpxDriver:
    """See `http_contract.Driver`."""

    name = "httpx"
    timed_out = (httpx.TimeoutException, hs.DeadlineExceeded)
    failed = (httpx.TransportError,)
    lacks: frozenset[str] = frozenset()

    @contextlib.contextmanager
    def client(
        self, total: float | None, ca: Path | None = None, retries: int = 0
    ) -> Iterator[HttpxClient]:
        config = hs.TLSConfig(ca=ca, alpn=("http/1.1",))
        with hardsock.adapters.httpx.client(
            total=total, tls=config, trust_env=False, timeout=None
        ) as client:
            yield HttpxClient(client)


DRIVERS: list[Any] = [*test_requests.DRIVERS, HttpxDriver(), *test_aiohttp.DRIVERS]


@pytest.fixture(scope="module", params=["plain", "tls"])
def server(
    request: pytest.FixtureRequest, ids: Identities, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    files = tmp_path_factory.mktemp("files")
    (files / "big.bin").write_bytes(_BIG)
    files.chmod(0o755)
    identity = ids.server_identity
    certificate = (Path(identity.chain), Path(identity.key)) if request.param == "tls" else None
    with require(
        nginx({"big.bin": _BIG}, certificate=certificate, extra=_LOCATIONS % files)
    ) as found:
        yield found


@pytest.fixture
def url(server: Server, request: pytest.FixtureRequest) -> str:
    scheme = "https" if "tls" in request.node.callspec.id.split("-") else "http"
    return f"{scheme}://127.0.0.1:{server.port}"


def _which(client: Client, url: str) -> tuple[int, int]:
    """The number of the connection, and of its request."""
    number, requests = client.get(f"{url}/which").split()
    return int(number), int(requests)


def test_a_body_is_streamed_whole(driver: Driver, url: str, ids: Identities) -> None:
    with driver.client(60, ids.ca) as client:
        for name in ("big.bin", "chunked/big.bin"):
            assert b"".join(client.stream(f"{url}/{name}")) == _BIG
        assert _which(client, url)[1] == 3
    nothing_open()


def test_a_body_that_comes_slowly_ends(driver: Driver, end: str, url: str, ids: Identities) -> None:
    with driver.client(total_of(end), ids.ca) as client:

        def read() -> None:
            for _ in client.stream(f"{url}/slow/big.bin"):
                pass

        ends(driver, end, read)
        nothing_open()


def test_an_answer_comes_before_the_request_is_whole(
    driver: Driver, url: str, ids: Identities
) -> None:
    with driver.client(60, ids.ca) as client:
        assert client.post(f"{url}/small", bytes(8 << 20)) == 413
        assert _which(client, url)[1] == 1
    nothing_open()


@pytest.mark.parametrize("call", ["get", "stream"])
def test_after_a_cancel_the_next_request_gets_its_own_answer(
    driver: Driver, call: str, url: str, ids: Identities
) -> None:
    with driver.client(None, ids.ca) as client:
        with hs.timeout(60):
            first, requests = _which(client, url)
            assert requests == 1
            assert _which(client, url) == (first, 2)
        token = hs.CancelToken()

        def ask() -> None:
            with hs.scope(token):
                if call == "get":
                    client.get(f"{url}/slow/big.bin")
                for _ in client.stream(f"{url}/slow/big.bin"):
                    pass

        with Call(ask) as running:
            running.wait_until_blocked()
            token.cancel("stop button")
            with pytest.raises(hs.Cancelled):
                running.result(60)
        with hs.timeout(60):
            then, requests = _which(client, url)
            assert then != first
            assert requests == 1
            assert [_which(client, url) for _ in range(3)] == [(then, 2), (then, 3), (then, 4)]
    nothing_open()
