"""``dial_limits=`` of each adapter: its connections wait for a place, within the scope, and dial nobody
until they have one."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import hardsock as hs
from adapters.http_contract import causes
from support.require import need_module

pytestmark = pytest.mark.usefixtures("event_loops")

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


def _redis(address: tuple[str, int], limits: Any) -> object:
    need_module("redis")
    from hardsock.adapters.redis import client

    with client("redis://{}:{}".format(*address), dial_limits=limits) as made:
        return made.ping()


def _redis_tls(address: tuple[str, int], limits: Any) -> object:
    need_module("redis")
    from hardsock.adapters.redis import client

    with client("rediss://{}:{}".format(*address), dial_limits=limits) as made:
        return made.ping()


def _redis_asyncio(address: tuple[str, int], limits: Any) -> object:
    need_module("redis")
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


def _pymysql(address: tuple[str, int], limits: Any) -> object:
    need_module("pymysql")
    from hardsock.adapters.pymysql import connect

    return connect(host=address[0], port=address[1], user="app", dial_limits=limits)


def _psycopg(address: tuple[str, int], limits: Any) -> object:
    need_module("psycopg")
    from hardsock.adapters.psycopg import connect

    return connect("host={} port={} user=app".format(*address), dial_limits=limits)


def _paho(address: tuple[str, int], limits: Any) -> object:
    need_module("paho.mqtt")
    import paho.mqtt.client

    from hardsock.adapters.paho import Client

    client = Client(paho.mqtt.client.CallbackAPIVersion.VERSION2, dial_limits=limits)
    client.connect_timeout = 60
    return client.connect(*address)


def _kombu(address: tuple[str, int], limits: Any) -> object:
    need_module("amqp")
    from hardsock.adapters.kombu import Connection

    with Connection("amqp://{}:{}".format(*address), dial_limits=limits) as broker:
        return broker.connect()


def _botocore(address: tuple[str, int], limits: Any) -> object:
    need_module("botocore")
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
    "redis": _redis,
    "redis, TLS": _redis_tls,
    "redis, asyncio": _redis_asyncio,
    "PyMySQL": _pymysql,
    "psycopg": _psycopg,
    "paho": _paho,
    "kombu": _kombu,
    "botocore": _botocore,
}


@pytest.fixture
def silent() -> Iterator[tuple[str, int]]:
    """Accepts in the kernel's queue, and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()


@pytest.mark.parametrize("name", DIALS)
def test_it_waits_for_a_place_and_dials_nobody(name: str, silent: tuple[str, int]) -> None:
    limits = hs.DialLimits(in_flight=1)
    with limits.place(), hs.timeout(0.2), pytest.raises(Exception) as caught:
        DIALS[name](silent, limits)
    phases = [getattr(one, "phase", None) for one in causes(caught.value)]
    assert "limits" in phases, caught.value
    del caught
    assert limits.stats()[:2] == (0, 0)
    assert limits.stats().begun == 1, "of the test itself"
    gc.collect()
    assert hs.open_connections() == []


@pytest.mark.parametrize("name", DIALS)
def test_only_a_dial_limits_is_one(name: str, silent: tuple[str, int]) -> None:
    with pytest.raises(TypeError, match="limits must be a DialLimits"):
        DIALS[name](silent, 3)
