"""``dial_limits=`` of each adapter: its connections wait for a place, within the scope, and dial nobody
until they have one."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import importlib
import socket
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import hardsock as hs
from hardsock.lab.threads import Call
from hardsock.lab.waits import poll_until
from support.require import free_threaded, need_module

pytestmark = pytest.mark.usefixtures("event_loops")

LATE = 60.0

Dial = Callable[[tuple[str, int], Any], object]


def _smtplib(address: tuple[str, int], limits: Any) -> object:
    from hardsock.adapters.smtplib import SMTP

    return SMTP(*address, dial_limits=limits)


def _smtplib_tls(address: tuple[str, int], limits: Any) -> object:
    from hardsock.adapters.smtplib import SMTP_SSL

    return SMTP_SSL(*address, dial_limits=limits)


def _poplib(address: tuple[str, int], limits: Any) -> object:
    from hardsock.adapters.poplib import POP3

    return POP3(*address, dial_limits=limits)


def _poplib_tls(address: tuple[str, int], limits: Any) -> object:
    from hardsock.adapters.poplib import POP3_SSL

    return POP3_SSL(*address, dial_limits=limits)


def _imaplib(address: tuple[str, int], limits: Any) -> object:
    from hardsock.adapters.imaplib import IMAP4

    return IMAP4(*address, dial_limits=limits)


def _imaplib_tls(address: tuple[str, int], limits: Any) -> object:
    from hardsock.adapters.imaplib import IMAP4_SSL

    return IMAP4_SSL(*address, dial_limits=limits)


def _ftplib(address: tuple[str, int], limits: Any) -> object:
    from hardsock.adapters.ftplib import FTP

    return FTP(dial_limits=limits).connect(*address)


def _ftplib_tls(address: tuple[str, int], limits: Any) -> object:
    from hardsock.adapters.ftplib import FTP_TLS

    return FTP_TLS(dial_limits=limits).connect(*address)


def _http(address: tuple[str, int], limits: Any) -> object:
    from hardsock.adapters.http import HTTPConnection

    conn = HTTPConnection(*address, dial_limits=limits)
    conn.request("GET", "/")
    return conn.getresponse()


def _opener(address: tuple[str, int], limits: Any) -> object:
    from hardsock.adapters.http import opener

    return opener(dial_limits=limits).open("http://{}:{}/".format(*address))


def _opener_tls(address: tuple[str, int], limits: Any) -> object:
    from hardsock.adapters.http import opener

    return opener(dial_limits=limits).open("https://{}:{}/".format(*address))


def _xmlrpc(address: tuple[str, int], limits: Any) -> object:
    from hardsock.adapters.http import server_proxy

    return server_proxy("http://{}:{}/".format(*address), dial_limits=limits).hello()


def _xmlrpc_tls(address: tuple[str, int], limits: Any) -> object:
    from hardsock.adapters.http import server_proxy

    return server_proxy("https://{}:{}/".format(*address), dial_limits=limits).hello()


def _redis(address: tuple[str, int], limits: Any) -> object:
    from hardsock.adapters.redis import client

    with client("redis://{}:{}".format(*address), dial_limits=limits) as made:
        return made.ping()


def _redis_tls(address: tuple[str, int], limits: Any) -> object:
    from hardsock.adapters.redis import client

    with client("rediss://{}:{}".format(*address), dial_limits=limits) as made:
        return made.ping()


def _redis_asyncio(address: tuple[str, int], limits: Any) -> object:
    from hardsock.adapters.redis import async_client

    outer = hs.current()

    async def main() -> None:
        made = async_client("redis://{}:{}".format(*address), dial_limits=limits)
        try:
            with hs.scope(outer) if outer else contextlib.nullcontext():
                await made.ping()
        finally:
            await made.aclose()

    return asyncio.run(main())


def _redis_cluster(address: tuple[str, int], limits: Any) -> object:
    from hardsock.adapters.redis import cluster

    return cluster("redis://{}:{}".format(*address), dial_limits=limits)


def _redis_cluster_tls(address: tuple[str, int], limits: Any) -> object:
    from hardsock.adapters.redis import cluster

    return cluster("rediss://{}:{}".format(*address), dial_limits=limits)


def _redis_sentinel(address: tuple[str, int], limits: Any) -> object:
    from hardsock.adapters.redis import sentinel

    return sentinel([address], dial_limits=limits).master_for("main").ping()


def _redis_cluster_asyncio(address: tuple[str, int], limits: Any) -> object:
    from hardsock.adapters.redis import async_cluster

    outer = hs.current()

    async def main() -> None:
        made = async_cluster("redis://{}:{}".format(*address), dial_limits=limits)
        try:
            with hs.scope(outer) if outer else contextlib.nullcontext():
                await made.initialize()
        finally:
            await made.aclose()

    return asyncio.run(main())


def _redis_sentinel_asyncio(address: tuple[str, int], limits: Any) -> object:
    from hardsock.adapters.redis import async_sentinel

    outer = hs.current()

    async def main() -> None:
        made = async_sentinel([address], dial_limits=limits).master_for("main")
        with hs.scope(outer) if outer else contextlib.nullcontext():
            await made.ping()

    return asyncio.run(main())


def _sdk(name: str, address: tuple[str, int], limits: Any) -> object:
    made = importlib.import_module(f"hardsock.adapters.{name}").client(
        api_key="none", base_url="http://{}:{}/".format(*address), dial_limits=limits
    )
    with made:
        return made.models.list()


def _sdk_asyncio(name: str, address: tuple[str, int], limits: Any) -> object:
    adapter = importlib.import_module(f"hardsock.adapters.{name}")
    outer = hs.current()

    async def main() -> None:
        url = "http://{}:{}/".format(*address)
        async with adapter.async_client(api_key="none", base_url=url, dial_limits=limits) as made:
            with hs.scope(outer) if outer else contextlib.nullcontext():
                await made.models.list()

    return asyncio.run(main())


def _pymysql(address: tuple[str, int], limits: Any) -> object:
    from hardsock.adapters.pymysql import connect

    return connect(host=address[0], port=address[1], user="app", dial_limits=limits)


def _psycopg(address: tuple[str, int], limits: Any) -> object:
    from hardsock.adapters.psycopg import connect

    return connect("host={} port={} user=app".format(*address), dial_limits=limits)


def _paho(address: tuple[str, int], limits: Any) -> object:
    import paho.mqtt.client

    from hardsock.adapters.paho import Client

    client = Client(paho.mqtt.client.CallbackAPIVersion.VERSION2, dial_limits=limits)
    client.connect_timeout = 60
    return client.connect(*address)


def _paho_unix(_address: tuple[str, int], limits: Any) -> object:
    import paho.mqtt.client

    from hardsock.adapters.paho import Client

    callbacks = paho.mqtt.client.CallbackAPIVersion.VERSION2
    client = Client(callbacks, transport="unix", dial_limits=limits)
    client.connect_timeout = 60
    return client.connect("/nowhere/mqtt.sock")


def _kombu(address: tuple[str, int], limits: Any) -> object:
    from hardsock.adapters.kombu import Connection

    with Connection("amqp://{}:{}".format(*address), dial_limits=limits) as broker:
        return broker.connect()


def _botocore(address: tuple[str, int], limits: Any) -> object:
    import botocore.config

    from hardsock.adapters.botocore import client

    made = client(
        "s3",
        dial_limits=limits,
        region_name="here",
        endpoint_url="http://{}:{}".format(*address),
        aws_access_key_id="key",
        aws_secret_access_key="secret",
        config=botocore.config.Config(retries={"total_max_attempts": 1}),
    )
    try:
        return made.list_buckets()
    finally:
        made.close()


DIALS: dict[str, Dial] = {
    "smtplib": _smtplib,
    "smtplib, TLS": _smtplib_tls,
    "poplib": _poplib,
    "poplib, TLS": _poplib_tls,
    "imaplib": _imaplib,
    "imaplib, TLS": _imaplib_tls,
    "ftplib": _ftplib,
    "ftplib, TLS": _ftplib_tls,
    "http.client": _http,
    "urllib.request": _opener,
    "urllib.request, TLS": _opener_tls,
    "xmlrpc.client": _xmlrpc,
    "xmlrpc.client, TLS": _xmlrpc_tls,
    "redis": _redis,
    "redis, TLS": _redis_tls,
    "redis, asyncio": _redis_asyncio,
    "redis, cluster": _redis_cluster,
    "redis, cluster, TLS": _redis_cluster_tls,
    "redis, cluster, asyncio": _redis_cluster_asyncio,
    "redis, Sentinel": _redis_sentinel,
    "redis, Sentinel, asyncio": _redis_sentinel_asyncio,
    "openai": functools.partial(_sdk, "openai"),
    "openai, asyncio": functools.partial(_sdk_asyncio, "openai"),
    "anthropic": functools.partial(_sdk, "anthropic"),
    "anthropic, asyncio": functools.partial(_sdk_asyncio, "anthropic"),
    "PyMySQL": _pymysql,
    "psycopg": _psycopg,
    "paho": _paho,
    "paho, unix": _paho_unix,
    "kombu": _kombu,
    "botocore": _botocore,
}


MODULES = {
    "redis": "redis",
    "openai": "openai",
    "anthropic": "anthropic",
    "PyMySQL": "pymysql",
    "psycopg": "psycopg",
    "paho": "paho.mqtt",
    "kombu": "amqp",
    "botocore": "botocore",
}
"""What must be installed for the library, the name's first part; else it is the standard one."""


@pytest.fixture
def silent() -> Iterator[tuple[str, int]]:
    """Accepts in the kernel's queue, and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()


@pytest.fixture
def refused() -> Iterator[tuple[str, int]]:
    """Bound and not listened to."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    library = request.param.partition(",")[0]
    if library in MODULES:  # Here, since the dials run in a thread, where a skip is only an error.
        need_module(MODULES[library])
    if library == "botocore" and free_threaded() and sys.version_info < (3, 14):
        pytest.skip("it makes a class for each client, and CPython 3.13t frees no class")
    if request.param == "paho, unix":
        import paho.mqtt.client

        if not hasattr(paho.mqtt.client.Client, "_create_unix_socket_connection"):
            pytest.skip("paho before 2.1 knows no unix sockets")
    return str(request.param)


@pytest.mark.parametrize("name", DIALS, indirect=True)
def test_it_waits_for_a_place_and_dials_nobody(name: str, silent: tuple[str, int]) -> None:
    limits, token = hs.DialLimits(in_flight=1), hs.CancelToken()

    def dial() -> None:
        with hs.scope(token):
            DIALS[name](silent, limits)

    with limits.place(), Call(dial) as dialling:
        assert poll_until(lambda: limits.stats().waiting == 1, LATE)
        token.cancel("stop button")
        with pytest.raises(hs.Cancelled, match="stop button") as caught:
            dialling.result(LATE)
        assert caught.value.phase == "limits"
        del caught
    assert limits.stats()[:2] == (0, 0)
    assert limits.stats().begun == 1, "of the test itself"
    gc.collect()
    assert hs.open_connections() == []


@pytest.mark.parametrize("name", DIALS, indirect=True)
def test_only_a_dial_limits_is_one(name: str, silent: tuple[str, int]) -> None:
    with hs.timeout(LATE), pytest.raises(TypeError, match="limits must be a DialLimits"):
        DIALS[name](silent, 3)


# ---- psycopg, which connects by itself


class _Telling(hs.DialLimits):
    """Tells how long it was to be waited for."""

    def __init__(self) -> None:
        super().__init__(in_flight=1)
        self.asked: list[float | None] = []

    def place(self, *, timeout: float | None = None, token: Any = None) -> Any:
        self.asked.append(timeout)
        return super().place(timeout=0.01, token=token)


@pytest.mark.parametrize(
    ("settings", "seconds"), [("", 130), ("connect_timeout=7", 7), ("connect_timeout=1", 2)]
)
def test_connect_timeout_of_psycopg_bounds_the_wait_for_a_place(
    settings: str, seconds: int, silent: tuple[str, int]
) -> None:
    need_module("psycopg")
    import psycopg

    from hardsock.adapters.psycopg import connect

    limits = _Telling()
    with limits.place():
        limits.asked.clear()
        with pytest.raises(psycopg.errors.ConnectionTimeout) as caught:
            connect("host={} port={} ".format(*silent) + settings, dial_limits=limits)
        assert isinstance(caught.value.__cause__, hs.DeadlineExceeded)
        assert caught.value.__cause__.phase == "limits"
    assert limits.asked == [seconds]


def test_connect_timeout_of_psycopg_bounds_the_lookups(
    monkeypatch: pytest.MonkeyPatch, refused: tuple[str, int]
) -> None:
    need_module("psycopg")
    import psycopg

    import hardsock.adapters.psycopg

    asked: list[float] = []

    def resolve(address: Any, *, timeout: float) -> Any:
        asked.append(timeout)
        return hs.resolve(address, timeout=60)

    monkeypatch.setattr(hardsock.adapters.psycopg, "resolve", resolve)
    with pytest.raises(psycopg.OperationalError, match="refused"):
        hardsock.adapters.psycopg.connect(
            f"host=localhost,localhost port={refused[1]} connect_timeout=3600"
        )
    first, second = asked
    assert second < first <= 3600, "all together have it once"


def test_an_interrupt_of_psycopgs_connect_leaves_no_place_taken(refused: tuple[str, int]) -> None:
    need_module("psycopg")
    import psycopg

    from hardsock.adapters.psycopg import Connection, connect

    code = Connection.connect.__func__.__code__
    limits, seen, tracer = hs.DialLimits(in_flight=1), set[int](), sys.gettrace()

    def trace(frame: Any, event: str, arg: object) -> Any:
        if event == "line" and frame.f_lineno not in seen:
            seen.add(frame.f_lineno)
            raise KeyboardInterrupt
        return trace

    for _ in range(len(set(code.co_lines()))):
        sys.settrace(lambda frame, event, arg: trace if frame.f_code is code else None)
        try:
            connect("host={} port={}".format(*refused), dial_limits=limits)
        except KeyboardInterrupt:
            assert limits.stats().in_flight == 0, f"interrupted in line {max(seen)}"
        except psycopg.OperationalError:
            break  # Nothing was left to interrupt.
        finally:
            sys.settrace(tracer)
    else:
        pytest.fail("it never came to its end")
    assert limits.stats().begun > 1
