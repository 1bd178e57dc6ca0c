"""One face for the pools that are compared: each is used as its own documentation says.

`exchange` is what a user writes: borrow, ask for a number, get that number back, return. `take` and
`give` are for cases that need to hold a connection. What a pool cannot do is left out, and its
cells are empty. Retries above the pool are off: the pool is what is looked at.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import queue
import socket
import ssl
from dataclasses import dataclass, field
from typing import Any

WAIT = 2.0  # seconds a borrower waits, where the case does not say otherwise


class NotThere(Exception):
    """This pool has no such feature."""


class Wrong(AssertionError):
    """The answer was to somebody else's question."""


@dataclass(frozen=True)
class Place:
    """Where the server is, and how to reach it."""

    address: tuple[str, int]
    size: int = 2
    wait: float = WAIT
    ca: str | None = None  # TLS, trusting this authority
    options: dict[str, Any] = field(default_factory=dict)  # what only the pool in question knows

    def context(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=self.ca)


def checked(n: int, answer: bytes | str) -> None:
    text = answer if isinstance(answer, str) else answer.decode()
    if text != str(n):
        raise Wrong(f"asked for {n}, got {text}")


def echo_command(n: int) -> bytes:
    text = str(n).encode()
    return b"*2\r\n$4\r\nECHO\r\n$%d\r\n%s\r\n" % (len(text), text)


class Adapter:
    """A pool. `server` is the kind it talks to; `distributions` what must be installed for it."""

    server = "redis"
    distributions: tuple[str, ...] = ()
    tls = True  # whether it can be used over TLS here
    bounded: str | None = None  # the option that limits how many may wait
    refusal: str | None = None  # the exception's name when more come

    @classmethod
    def version(cls) -> str:
        """Of the first; raises PackageNotFoundError if one is missing."""
        found = [importlib.metadata.version(name) for name in cls.distributions]
        return found[0] if found else ""

    @classmethod
    def complaints(cls) -> tuple[type[Exception], ...]:
        """What the library raises, beside OSError, when a connection is not returned as it should."""
        return ()

    def exchange(self, n: int, wait: float | None = None) -> None:
        raise NotImplementedError

    def take(self, wait: float | None = None) -> Any:
        raise NotImplementedError

    def give(self, held: Any) -> None:
        raise NotImplementedError

    def identity(self, held: Any) -> object:
        """Tells connections apart."""
        raise NotImplementedError

    def leave(self, n: int) -> None:
        """Borrow, ask, and return without reading the answer."""
        raise NotImplementedError

    def warm(self) -> None:
        """Have a connection ready that nothing was said on."""
        self.give(self.take())

    def close(self) -> None:
        raise NotImplementedError


class Hardsock(Adapter):
    distributions = ("hardsock",)
    bounded, refusal = "max_waiting", "PoolRefused"

    def __init__(self, place: Place) -> None:
        import hardsock as hs

        self.wait = place.wait
        tls: Any = hs.TLSConfig(ca=place.ca) if place.ca else False
        self.pool = hs.Pool(place.address, max_size=place.size, tls=tls, **place.options)

    def exchange(self, n: int, wait: float | None = None) -> None:
        with self.pool.connection(timeout=self.wait if wait is None else wait) as conn:
            conn.sendall(echo_command(n))
            size = int(conn.recv_until(b"\r\n", max_size=64)[1:])
            answer = conn.recv_exactly(size + 2)[:-2]
            conn.mark_clean()
        checked(n, answer)

    def take(self, wait: float | None = None) -> Any:
        return self.pool.acquire(timeout=self.wait if wait is None else wait)

    def give(self, held: Any) -> None:
        self.pool.release(held)

    def identity(self, held: Any) -> object:
        return held.getsockname()

    def leave(self, n: int) -> None:
        with self.pool.connection(timeout=self.wait) as conn:
            conn.sendall(echo_command(n))

    def close(self) -> None:
        self.pool.close()


class Urllib3(Adapter):
    server, distributions = "http", ("urllib3",)

    def __init__(self, place: Place) -> None:
        import urllib3

        self.wait = place.wait
        host, port = place.address
        shared = {"maxsize": place.size, "block": True, "timeout": 5.0, "retries": False}
        self.pool: Any
        if place.ca:
            self.pool = urllib3.HTTPSConnectionPool(host, port, ca_certs=place.ca, **shared)
        else:
            self.pool = urllib3.HTTPConnectionPool(host, port, **shared)

    def _get(self, path: str, wait: float | None = None) -> Any:
        wait = self.wait if wait is None else wait
        return self.pool.request("GET", path, preload_content=False, pool_timeout=wait)

    def exchange(self, n: int, wait: float | None = None) -> None:
        wait = self.wait if wait is None else wait
        checked(n, self.pool.request("GET", f"/{n}", pool_timeout=wait).data)

    def take(self, wait: float | None = None) -> Any:
        return self._get("/0", wait)

    def give(self, held: Any) -> None:
        held.drain_conn()
        held.release_conn()

    def identity(self, held: Any) -> object:
        return held.connection.sock.getsockname()

    def leave(self, n: int) -> None:
        self._get(f"/late/{n}").release_conn()

    def warm(self) -> None:
        conn = self.pool._get_conn()
        conn.connect()
        self.pool._put_conn(conn)

    def close(self) -> None:
        self.pool.close()


class Httpcore(Adapter):
    server, distributions = "http", ("httpcore", "anyio")

    def __init__(self, place: Place) -> None:
        import httpcore

        self.wait = place.wait
        self.base = f"{'https' if place.ca else 'http'}://{place.address[0]}:{place.address[1]}"
        context = place.context() if place.ca else None
        self.pool = httpcore.ConnectionPool(max_connections=place.size, ssl_context=context)

    def _waits(self, wait: float | None) -> dict[str, Any]:
        wait = self.wait if wait is None else wait
        return {"timeout": {"pool": wait, "connect": 5.0, "read": 5.0, "write": 5.0}}

    def exchange(self, n: int, wait: float | None = None) -> None:
        answer = self.pool.request("GET", f"{self.base}/{n}", extensions=self._waits(wait))
        checked(n, answer.content)

    def take(self, wait: float | None = None) -> Any:
        import httpcore

        headers = {"Host": "test"}
        extensions = self._waits(wait)
        request = httpcore.Request("GET", f"{self.base}/0", headers=headers, extensions=extensions)
        return self.pool.handle_request(request)

    def give(self, held: Any) -> None:
        with contextlib.suppress(RuntimeError):  # "Called read() twice": then it is drained
            for _ in held.iter_stream():
                pass
        held.close()

    def identity(self, held: Any) -> object:
        return held.extensions["network_stream"].get_extra_info("client_addr")

    def leave(self, n: int) -> None:
        with self.pool.stream("GET", f"{self.base}/late/{n}", extensions=self._waits(None)):
            pass

    def warm(self) -> None:
        raise NotThere

    def close(self) -> None:
        self.pool.close()


class Redis(Adapter):
    distributions = ("redis",)

    def __init__(self, place: Place) -> None:
        import redis
        from redis.backoff import NoBackoff
        from redis.retry import Retry

        host, port = place.address
        shared: dict[str, Any] = {"retry": Retry(NoBackoff(), 0)}
        if place.ca:
            shared.update(connection_class=redis.SSLConnection, ssl_ca_certs=place.ca)
        self.pool = redis.BlockingConnectionPool(
            host=host, port=port, max_connections=place.size, timeout=place.wait, **shared
        )
        self.client = redis.Redis(connection_pool=self.pool)

    def exchange(self, n: int, wait: float | None = None) -> None:
        checked(n, self.client.echo(str(n)))

    def take(self, wait: float | None = None) -> Any:
        return self.pool.get_connection()

    def give(self, held: Any) -> None:
        self.pool.release(held)

    def identity(self, held: Any) -> object:
        return held._sock.getsockname()

    def leave(self, n: int) -> None:
        conn = self.pool.get_connection()
        conn.send_command("ECHO", n)
        self.pool.release(conn)

    def close(self) -> None:
        self.client.close()
        self.pool.disconnect()


def postgres_text(place: Place) -> str:
    return f"host={place.address[0]} port={place.address[1]} user=postgres dbname=postgres"


class PsycopgPool(Adapter):
    server, distributions, tls = "postgres", ("psycopg-pool", "psycopg"), False
    bounded, refusal = "max_waiting", "TooManyRequests"

    def __init__(self, place: Place) -> None:
        import psycopg_pool

        self.wait = place.wait
        self.pool = psycopg_pool.ConnectionPool(
            postgres_text(place),
            min_size=1,
            max_size=place.size,
            timeout=place.wait,
            open=True,
            **place.options,
        )

    @classmethod
    def complaints(cls) -> tuple[type[Exception], ...]:
        import psycopg

        return (psycopg.Error,)

    def exchange(self, n: int, wait: float | None = None) -> None:
        with self.pool.connection(timeout=self.wait if wait is None else wait) as conn:
            row = conn.execute(f"select {n}").fetchone()
        checked(n, str(row and row[0]))

    def take(self, wait: float | None = None) -> Any:
        return self.pool.getconn(timeout=self.wait if wait is None else wait)

    def give(self, held: Any) -> None:
        self.pool.putconn(held)

    def identity(self, held: Any) -> object:
        return held.info.backend_pid

    def leave(self, n: int) -> None:
        with self.pool.connection() as conn:
            conn.pgconn.send_query(f"select {n}".encode())

    def close(self) -> None:
        self.pool.close()


class SQLAlchemy(Adapter):
    server, tls = "postgres", False
    distributions = ("sqlalchemy", "psycopg", "greenlet")

    def __init__(self, place: Place) -> None:
        import sqlalchemy

        self.text = sqlalchemy.text
        self.engine = sqlalchemy.create_engine(
            f"postgresql+psycopg://postgres@{place.address[0]}:{place.address[1]}/postgres",
            pool_size=place.size,
            max_overflow=0,
            pool_timeout=place.wait,
        )

    @classmethod
    def complaints(cls) -> tuple[type[Exception], ...]:
        import psycopg
        import sqlalchemy.exc

        return (psycopg.Error, sqlalchemy.exc.SQLAlchemyError)

    def exchange(self, n: int, wait: float | None = None) -> None:
        with self.engine.connect() as conn:
            answer = conn.execute(self.text(f"select {n}")).scalar_one()
        checked(n, str(answer))

    def take(self, wait: float | None = None) -> Any:
        return self.engine.connect()

    def give(self, held: Any) -> None:
        held.close()

    def identity(self, held: Any) -> object:
        return held.connection.dbapi_connection.info.backend_pid

    def leave(self, n: int) -> None:
        with self.engine.connect() as conn:
            conn.connection.dbapi_connection.pgconn.send_query(f"select {n}".encode())

    def close(self) -> None:
        self.engine.dispose()


class DBUtils(Adapter):
    server, distributions, tls = "postgres", ("DBUtils", "psycopg"), False

    def __init__(self, place: Place) -> None:
        import psycopg
        from dbutils.pooled_db import PooledDB

        # It has no waiting time: who waits, waits for as long as it takes.
        self.pool = PooledDB(
            psycopg,
            mincached=0,
            maxcached=place.size,
            maxconnections=place.size,
            blocking=True,
            conninfo=postgres_text(place),
        )

    @classmethod
    def complaints(cls) -> tuple[type[Exception], ...]:
        import psycopg

        return (psycopg.Error,)

    def exchange(self, n: int, wait: float | None = None) -> None:
        with contextlib.closing(self.pool.connection()) as conn:
            with contextlib.closing(conn.cursor()) as cursor:
                cursor.execute(f"select {n}")
                answer = cursor.fetchone()[0]
        checked(n, str(answer))

    def take(self, wait: float | None = None) -> Any:
        return self.pool.connection()

    def give(self, held: Any) -> None:
        held.close()

    def identity(self, held: Any) -> object:
        return held.cursor().connection.info.backend_pid

    def leave(self, n: int) -> None:
        with contextlib.closing(self.pool.connection()) as conn:
            conn.cursor().connection.pgconn.send_query(f"select {n}".encode())

    def close(self) -> None:
        self.pool.close()


class LifoQueue(Adapter):
    """What one writes oneself: sockets in a queue, None where there is none yet."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.queue: queue.LifoQueue[Any] = queue.LifoQueue()
        for _ in range(place.size):
            self.queue.put(None)

    def _connect(self) -> socket.socket:
        sock = socket.create_connection(self.place.address, timeout=5.0)
        if self.place.ca:
            sock = self.place.context().wrap_socket(sock, server_hostname=self.place.address[0])
        return sock

    def exchange(self, n: int, wait: float | None = None) -> None:
        sock = self.queue.get(timeout=self.place.wait if wait is None else wait)
        try:
            sock = sock or self._connect()
            sock.sendall(echo_command(n))
            data = b""
            while data.count(b"\r\n") < 2:
                more = sock.recv(64)
                if not more:
                    raise EOFError("the server closed")
                data += more
        except OSError:
            if sock is not None:
                sock.close()
            sock = None
            raise
        finally:
            self.queue.put(sock)
        checked(n, data.split(b"\r\n")[1])

    def take(self, wait: float | None = None) -> Any:
        sock = self.queue.get(timeout=self.place.wait if wait is None else wait)
        try:
            return sock or self._connect()
        except BaseException:
            self.queue.put(None)
            raise

    def give(self, held: Any) -> None:
        self.queue.put(held)

    def identity(self, held: Any) -> object:
        return held.getsockname()

    def leave(self, n: int) -> None:
        sock = self.take()
        try:
            sock.sendall(echo_command(n))
        finally:
            self.give(sock)

    def close(self) -> None:
        with contextlib.suppress(queue.Empty):
            while True:
                sock = self.queue.get_nowait()
                if sock is not None:
                    sock.close()


ADAPTERS: dict[str, type[Adapter]] = {
    "hardsock": Hardsock,
    "urllib3": Urllib3,
    "httpcore": Httpcore,
    "redis-py": Redis,
    "psycopg_pool": PsycopgPool,
    "SQLAlchemy": SQLAlchemy,
    "DBUtils": DBUtils,
    "LifoQueue": LifoQueue,
}
