"""The lab with services of others: redis, a web server, PostgreSQL, through a proxy that misbehaves.

What a user would write for a service of their own, and what docs/lab.md points to.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

import hardsock as hs
from hardsock.lab.servers import http_server, redis_server
from support.inner import alone
from support.require import need_module, require
from support.servers import postgres

for _name in ("redis", "httpx", "psycopg"):
    need_module(_name)

import httpx
import psycopg
import redis


@pytest.fixture(scope="module")
def redis_address() -> Iterator[tuple[str, int]]:
    with require(redis_server()) as server:
        yield server.address


@pytest.fixture(scope="module")
def web_address() -> Iterator[tuple[str, int]]:
    with require(http_server()) as server:
        yield server.address


@pytest.fixture(scope="module")
def postgres_address() -> Iterator[tuple[str, int]]:
    with require(postgres()) as server:
        yield server.address


@pytest.mark.bad_proxy(latency=0.05)
def test_redis_over_a_slow_path_is_slow_not_broken(bad_proxy: Any, redis_address: Any) -> None:
    with redis.Redis(*bad_proxy(redis_address).address, socket_timeout=20) as client:
        begin = time.monotonic()
        client.set("key", "value")
        assert client.get("key") == b"value"
        assert time.monotonic() - begin >= 0.2  # two answers, each there and back


def test_redis_that_stalls_is_a_timeout_of_the_client(bad_proxy: Any, redis_address: Any) -> None:
    proxy = bad_proxy(redis_address)
    with redis.Redis(*proxy.address, socket_timeout=0.2, retry=None) as client:
        assert client.ping()
        proxy.stall("down")
        with pytest.raises(redis.TimeoutError):
            client.ping()


def test_httpx_sees_an_answer_that_is_cut(bad_proxy: Any, web_address: Any) -> None:
    proxy = bad_proxy(web_address)
    proxy.set("down", cut_after=1000)
    with pytest.raises(httpx.RemoteProtocolError):
        httpx.get("http://{}:{}/big.bin".format(*proxy.address), timeout=20, trust_env=False)


def test_httpx_gives_up_on_a_server_that_drips(bad_proxy: Any, web_address: Any) -> None:
    proxy = bad_proxy(web_address)
    proxy.set("down", stalled=True)
    with pytest.raises(httpx.ReadTimeout):
        httpx.get("http://{}:{}/hello.txt".format(*proxy.address), timeout=0.2, trust_env=False)


def test_psycopg_learns_of_a_reset(bad_proxy: Any, postgres_address: Any) -> None:
    proxy = bad_proxy(postgres_address)
    host, port = proxy.address
    dsn = f"host={host} port={port} user=postgres dbname=postgres sslmode=disable"
    with psycopg.connect(dsn, connect_timeout=20) as conn:
        assert conn.execute("SELECT 1").fetchone() == (1,)
        proxy.reset()
        with pytest.raises(psycopg.OperationalError):
            conn.execute("SELECT 1")


def test_a_pool_of_hardsock_replaces_what_was_cut(bad_proxy: Any, redis_address: Any) -> None:
    proxy = bad_proxy(redis_address)
    with hs.Pool(proxy.address, max_size=1) as pool:
        for _ in range(2):
            with pool.connection(timeout=20) as conn:
                conn.sendall(b"PING\r\n")
                assert conn.recv_exactly(7) == b"+PONG\r\n"
                conn.mark_clean()
            proxy.cut()
        assert proxy.accepted == 2


# ---- the fixtures


@pytest.fixture
def suite(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    alone(monkeypatch)
    monkeypatch.delenv("CI", raising=False)
    pytester.makeini("[pytest]\naddopts = --strict-markers\n")
    return pytester


def outcomes(suite: pytest.Pytester, code: str) -> dict[str, int]:
    suite.makepyfile(code)
    result = suite.runpytest_subprocess("-pno:cacheprovider", "-rs")
    print(result.stdout.str())
    return result.parseoutcomes()  # type: ignore[no-any-return]


@pytest.mark.net
def test_a_mark_sets_the_wire_up_and_a_bad_wire_is_no_result(suite: pytest.Pytester) -> None:
    got = outcomes(
        suite,
        """
        import pytest
        from hardsock.lab import InvalidResult

        @pytest.mark.wire(delay=0.01, seed=5)
        def test_good(wire):
            assert wire.ab.delay == 0.01 and wire.seed == 5
            wire.judge = lambda: None  # this machine may be busy

        def test_bad(wire, monkeypatch):
            def judge():
                raise InvalidResult("dropped")
            wire.judge = judge

        @pytest.mark.wire(0.01)
        def test_wrong(wire):
            pass
        """,
    )
    if got.get("passed", 0) == 0 and got.get("skipped", 0) >= 2:
        pytest.skip("no wire here")
    assert got == {"passed": 2, "skipped": 1, "errors": 1}


def test_a_mark_says_what_proxies_do(suite: pytest.Pytester) -> None:
    got = outcomes(
        suite,
        """
        import pytest

        @pytest.mark.bad_proxy(latency=0.5)
        def test_it(bad_proxy):
            assert bad_proxy(("127.0.0.1", 1))._how["up"].latency == 0.5
            assert bad_proxy(("127.0.0.1", 1), latency=0.1)._how["up"].latency == 0.1
        """,
    )
    assert got == {"passed": 1}


def test_a_machine_without_a_wire_skips_and_in_ci_fails(
    suite: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = """
        import hardsock.lab.wire, pathlib
        hardsock.lab.wire._RELAY = pathlib.Path("/nowhere")
        def test_it(wire):
            pass
        """
    assert outcomes(suite, code) == {"skipped": 1}
    monkeypatch.setenv("CI", "true")
    assert outcomes(suite, code) == {"errors": 1}
