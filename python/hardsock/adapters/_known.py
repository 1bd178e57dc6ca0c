"""What there is an adapter for, what needs none, and what is refused: for ``explain --adapters``.

Looks at which distributions are installed and imports none of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version

from hardsock.adapters import _hooks
from hardsock.adapters._versions import tested

__all__ = ["ADAPTERS", "REFUSED", "Adapter", "Refused", "report"]


@dataclass(frozen=True)
class Adapter:
    """A library, and the line that puts it under hardsock's promises."""

    library: str
    """The name of its distribution; the standard library's modules have a dot or none installed."""
    line: str
    waits: str
    lost: str
    oldest: str = ""
    newest: str = ""
    """Versions that it was tested with; empty: part of CPython, or of no interest."""


@dataclass(frozen=True)
class Refused:
    """A library that cannot be put under them, and why."""

    library: str
    reason: str
    instead: str


_ALL = "all"
_STDLIB = "CPython"
ADAPTERS = (
    Adapter(
        *("requests", "session = hardsock.adapters.requests.session(total=10)", _ALL),
        *("SOCKS4 proxies", "2.32", "2.34"),
    ),
    Adapter(
        *("urllib3", "http = hardsock.adapters.urllib3.PoolManager(total=10)", _ALL),
        *("SOCKS4 proxies, HTTP/2, pyOpenSSL, one's own ConnectionCls", "2.0", "2.8"),
    ),
    Adapter(
        *("botocore", 's3 = hardsock.adapters.botocore.client("s3", total=10)', _ALL),
        "fetching credentials; scopes in upload_file and its like, unless use_threads=False",
        *("1.35", "1.44"),
    ),
    Adapter(
        "boto3",
        's3 = hardsock.adapters.botocore.over(boto3.client("s3"), total=10)',
        *(_ALL, "the same", "1.35", "1.44"),
    ),
    Adapter(
        "redis",
        'client = hardsock.adapters.redis.client("redis://db", total=1.0, size=16)',
        "all; pub/sub and blocking commands by a scope",
        "ssl_validate_ocsp*, use after a fork",
        *("5.1", "8.1"),
    ),
    Adapter(
        *("psycopg", "conn = hardsock.adapters.psycopg.connect(conninfo)"),
        "lookup, connecting, TLS, statements (cancelled in the server)",
        *("the ledger and TLS of hardsock: libpq does the I/O", "3.2", "3.3"),
    ),
    Adapter(
        *("psycopg_pool", "pool = hardsock.adapters.psycopg.ConnectionPool(conninfo)"),
        *("the same, and its queue", "the same", "3.2", "3.3"),
    ),
    Adapter(
        *("PyMySQL", "conn = hardsock.adapters.pymysql.connect(host=...)", _ALL),
        *("unix sockets; a connection whose statement was given up is closed", "1.1", "1.2"),
    ),
    Adapter(
        *("http.client", "conn = hardsock.adapters.http.HTTPSConnection(host, total=10)"),
        *(_ALL, "", _STDLIB),
    ),
    Adapter(
        *("urllib.request", "hardsock.adapters.http.opener(total=10).open(url)"),
        *(_ALL, "", _STDLIB),
    ),
    Adapter(
        *("xmlrpc.client", "hardsock.adapters.http.server_proxy(url, total=10)"),
        *(_ALL, "", _STDLIB),
    ),
    Adapter("smtplib", "from hardsock.adapters.smtplib import SMTP", _ALL, "", _STDLIB),
    Adapter("poplib", "from hardsock.adapters.poplib import POP3_SSL", _ALL, "", _STDLIB),
    Adapter("imaplib", "from hardsock.adapters.imaplib import IMAP4_SSL", _ALL, "", _STDLIB),
    Adapter(
        *("ftplib", "from hardsock.adapters.ftplib import FTP_TLS", _ALL),
        *("active mode, ccc()", _STDLIB),
    ),
    Adapter(
        *("httpx", "client = hardsock.adapters.httpx.client(total=10)", _ALL),
        *("verify= and cert=, refused by name", "0.28", "0.28"),
    ),
    Adapter(
        *("httpx2", "client = hardsock.adapters.httpx2.client(total=10)", _ALL),
        *("verify= and cert=, refused by name", "2.16", "2.16"),
    ),
    Adapter(
        "httpcore",
        "ConnectionPool(network_backend=hardsock.adapters.httpcore.NetworkBackend())",
        *("all but its queue", "", "1.0", "1.0"),
    ),
    Adapter(
        *("openai", "client = hardsock.adapters.openai.client(total=30)", _ALL),
        *("", "3.57", "3.57"),
    ),
    Adapter(
        *("anthropic", "client = hardsock.adapters.anthropic.client(total=30)", _ALL),
        *("", "2.14", "2.14"),
    ),
    Adapter("aiohttp", "hardsock.aio.loop.run(main())", _ALL, "", "3.8", "3.14"),
    Adapter("aiomysql", "hardsock.aio.loop.run(main())", _ALL, "", "0.1", "0.3"),
    Adapter("asyncmy", "hardsock.aio.loop.run(main())", _ALL, "", "0.2", "0.2"),
    Adapter("asyncpg", "hardsock.aio.loop.run(main())", _ALL, "", "0.27", "0.32"),
    Adapter(
        *("uvicorn", "uvicorn --loop hardsock.aio.loop:EventLoop"),
        *("listeners, connections, a closed connection's rest", "", "0.36", "0.54"),
    ),
    Adapter(
        *("kombu", 'broker = hardsock.adapters.kombu.Connection("amqp://broker")', _ALL),
        *("transports other than AMQP; pauses between tries end within a second", "5.3", "5.7"),
    ),
    Adapter(
        *("celery", 'app.conf.broker_transport = "hardsock.adapters.kombu:Transport"'),
        *(
            "connecting, publishing, reading",
            "pauses between tries, without app.amqp.Connection = hardsock.adapters.kombu.Connection",
        ),
        *("5.3", "5.7"),
    ),
    Adapter(
        *("paho-mqtt", "client = hardsock.adapters.paho.Client(...)", "connecting and TLS"),
        *("its loop waits in select(); proxies, websockets", "2.0", "2.2"),
    ),
    Adapter(
        *("paramiko", "client.connect(host, sock=hardsock.connect((host, 22)))"),
        *("connecting", "its thread reads outside of scopes: channel.settimeout()", "4.0", "5.1"),
    ),
    Adapter(
        *("websockets", "websockets.sync.client.connect(url, sock=hardsock.connect(...))"),
        *("connecting", "its thread reads outside of scopes: recv(timeout=)", "13.0", "17.4"),
    ),
    Adapter(
        *("gunicorn", "gunicorn -k hardsock.adapters.gunicorn.Worker app:application"),
        "requests, answers, drain",
        *("HTTP/2, the ssl_context hook", "21.2", "27.0"),
    ),
    Adapter(
        *("socketserver", "class Server(hardsock.adapters.socketserver.Mixin, HTTPServer): ..."),
        *("requests, answers, drain", "handle_request(), ForkingMixIn", _STDLIB),
    ),
    Adapter(
        *("hypercorn", "hardsock.aio.loop.run(hypercorn.asyncio.serve(app, config))"),
        "ledger, dead peers, listeners that outlive a want of descriptors",
        *("its own worker processes", "0.13", "0.18"),
    ),
    Adapter(
        *("waitress", "waitress.serve(app, sockets=[hardsock.listen(address).to_socket()])"),
        *("accepting", "time-outs are its own", "1.3", "3.0"),
    ),
    Adapter(
        "cheroot",
        "server.bind = lambda *_: setattr(server, 'socket', hardsock.listen(address).to_socket())",
        *("accepting", "time-outs are its own", "8.6", "11.1"),
    ),
    Adapter(
        *("pg8000", "pg8000.connect(user, sock=hardsock.connect(...))"),
        *(_ALL, "it logs in without a channel binding", "1.31", "1.31"),
    ),
    Adapter(
        *("websocket-client", "websocket.create_connection(url, socket=hardsock.connect(...))"),
        "all that the caller's thread does",
        *("its own TLS: hardsock.connect(..., tls=True)", "1.0", "1.9"),
    ),
)

_C_SOCKET = "its C library owns the socket and lets nobody wait for it"
REFUSED = (
    Refused("psycopg2", _C_SOCKET + " without turning all of it asynchronous", "psycopg 3"),
    Refused("psycopg2-binary", _C_SOCKET + " without turning all of it asynchronous", "psycopg 3"),
    Refused("mysqlclient", _C_SOCKET, "PyMySQL"),
    Refused(
        *("grpcio", "its C core owns sockets, names and threads"),
        "its own deadlines, which hardsock.deadline.grpc sets from the scope",
    ),
    Refused(
        "confluent-kafka", _C_SOCKET, "its own settings: message.timeout.ms, socket.timeout.ms"
    ),
    Refused(
        *("pymongo", "its pool and its monitors make their sockets in places that are private"),
        "its own: with pymongo.timeout(hardsock.remaining())",
    ),
    Refused(
        *("niquests", "its urllib3-future puts itself in the place of urllib3, under its name"),
        "requests",
    ),
)


def _installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _rows() -> list[dict[str, object]]:
    rows = []
    for one in ADAPTERS:
        found = _STDLIB if one.oldest == _STDLIB else _installed(one.library)
        if found is not None:
            if one.oldest == _STDLIB:
                known = _hooks.known()
            else:
                known = not one.oldest or tested(found, one.oldest, one.newest)
            rows.append({**asdict(one), "installed": found, "tested": known})
    return rows


def report(as_json: bool) -> str:
    """What is installed here, with the line to write and what is lost, as text or JSON."""
    refused = [one for one in REFUSED if _installed(one.library) is not None]
    if as_json:
        import json

        found = {"adapters": _rows(), "refused": [asdict(one) for one in refused]}
        return json.dumps(found, indent=2)
    return "\n".join(_lines(refused))


def _lines(refused: list[Refused]) -> Iterator[str]:
    for row in _rows():
        yield f"{row['library']} {row['installed']}".replace(f" {_STDLIB}", "")
        yield f"  write   {row['line']}"
        yield f"  covers  {row['waits']}"
        if row["lost"]:
            yield f"  lost    {row['lost']}"
        if not row["tested"]:
            oldest, newest = row["oldest"], row["newest"]
            if oldest == _STDLIB:
                oldest, newest = f"{_STDLIB} {_hooks.OLDEST}", _hooks.NEWEST
            yield f"  beware  tested with {oldest} to {newest} only"
    for one in refused:
        yield f"{one.library} {_installed(one.library)}"
        yield f"  cannot  {one.reason}"
        yield f"  rather  {one.instead}"
