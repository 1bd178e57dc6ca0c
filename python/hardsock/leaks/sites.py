"""Whose lines the ledger names: the program's, not those of libraries that work for it.

Libraries are known by the names of their modules; none is imported here.
"""

from __future__ import annotations

from hardsock import _core

__all__ = ["skip_sites"]

_LIBRARY, _DISPATCHER, _END = 2, 3, 4  # as in csrc/binding/base/call_site.c

_LIBRARIES = (
    # The standard library's clients.
    "ftplib",
    "http.client",
    "imaplib",
    "logging",
    "poplib",
    "smtplib",
    "socket",
    "ssl",
    "urllib.request",
    "xmlrpc.client",
    # Others, of which some are only in use through an adapter.
    "aiohappyeyeballs",
    "aiohttp.client",
    "aiohttp.connector",
    "aiomysql",
    "anthropic",
    # What asyncio does for a caller. Its callbacks run from asyncio.events, which ends a stack.
    "asyncio.base_events",
    "asyncio.selector_events",
    "asyncio.sslproto",
    "asyncio.streams",
    "asyncio.tasks",
    "asyncio.unix_events",
    "asyncmy",
    "asyncpg",
    "boto3",
    "botocore",
    "gevent._socket3",
    "gevent._socketcommon",
    "gevent._ssl3",
    "gevent.socket",
    "gevent.ssl",
    "httpcore",
    "httpcore2",
    "httpx",
    "httpx2",
    "mysql.connector",
    "openai",
    "paramiko",
    "pg8000",
    "psycopg",
    "psycopg_pool",
    "pymysql",
    "redis",
    "requests",
    "s3transfer",
    "sqlalchemy",
    "urllib3",
    "websockets.asyncio.client",
    "websockets.sync.client",
)
_DISPATCHERS = ("amqp", "celery", "kombu", "paho", "pika", "websocket")
"""Their callbacks are where a program does its work, so those are named."""
_ENDS = ("asyncio", "concurrent.futures.thread", "gevent", "threading", "trio", "uvloop")


def skip_sites(*packages: str, calls_handlers: bool = False) -> None:
    """Let the ledger name the line that called one of these packages, not a line in them.

    For libraries on top of hardsock. Many are known already: urllib3, requests, httpx, redis,
    psycopg, PyMySQL, SQLAlchemy, the standard library's clients, and more. What such a package calls
    back directly is taken for the hook by which it reaches hardsock, and is passed over, too.
    It applies to what is made or borrowed from then on.

    Args:
        packages: Names of modules or packages: ``"acme_http"``, ``"acme.transport"``. What is in
            a package belongs to it.
        calls_handlers: The packages call handlers of the program, as consumers of queues do; those
            are named then.

    Raises:
        TypeError, ValueError: A name is none of a module.
    """
    for name in packages:
        if not isinstance(name, str):
            raise TypeError(f"packages must be names of modules, got {type(name).__name__}")
        if not all(part.isidentifier() for part in name.split(".")):
            raise ValueError(f"packages must be names of modules, got {name!r}")
    _core._site_kinds(dict.fromkeys(packages, _DISPATCHER if calls_handlers else _LIBRARY))


_core._site_kinds(
    {
        **dict.fromkeys(_LIBRARIES, _LIBRARY),
        **dict.fromkeys(_DISPATCHERS, _DISPATCHER),
        **dict.fromkeys(_ENDS, _END),
    }
)
