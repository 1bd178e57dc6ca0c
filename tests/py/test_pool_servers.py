"""Pools of connections to Redis and PostgreSQL: a few lines of protocol, restarts, storms."""

from __future__ import annotations

import importlib.util
import random
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import hardsock as hs
from support.require import require
from support.servers import postgres, redis_server

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def _example(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


resp = _example("resp_client")


@pytest.fixture(scope="module")
def redis_address() -> Iterator[Any]:
    with require(redis_server()) as server:
        yield server.address


@pytest.fixture(scope="module")
def postgres_address() -> Iterator[Any]:
    with require(postgres()) as server:
        yield server.address


def command(conn: hs.Connection, *words: bytes) -> Any:
    conn.sendall(resp.encode(*words))
    reply = resp.read_reply(conn)
    conn.mark_clean()
    return reply


# ---- Redis


def test_redis_commands_over_a_pool(redis_address: Any) -> None:
    with hs.Pool(redis_address, max_size=2) as pool, hs.timeout(20):
        for i in range(200):
            with pool.connection() as conn:
                assert command(conn, b"SET", b"k%d" % i, b"v%d" % i) == b"OK"
            with pool.connection() as conn:
                assert command(conn, b"GET", b"k%d" % i) == b"v%d" % i
        assert pool.stats().opened == 1


def test_redis_that_kills_idle_connections_is_survived(redis_address: Any) -> None:
    with hs.Pool(redis_address, max_size=4) as pool, hs.timeout(20):
        conns = [pool.acquire() for _ in range(4)]
        ids = [command(conn, b"CLIENT", b"ID") for conn in conns]
        for conn in conns[1:]:
            pool.release(conn)
        for ident in ids[1:]:
            assert command(conns[0], b"CLIENT", b"KILL", b"ID", b"%d" % ident) == 1
        until = time.monotonic() + 10
        while pool.stats().closed_by_reason["peer_closed"] < 3:
            assert time.monotonic() < until
            time.sleep(0.001)
        pool.release(conns[0])
        with pool.connection() as conn:
            assert command(conn, b"PING") == b"PONG"


def test_redis_pings(redis_address: Any) -> None:
    with (
        hs.Pool(redis_address, ping=(b"PING\r\n", b"+PONG\r\n"), ping_after=0.01) as pool,
        hs.timeout(20),
    ):
        with pool.connection() as conn:
            ident = command(conn, b"CLIENT", b"ID")
        with hs.connect(redis_address) as other:
            pattern = b"id=%d " % ident
            while b"cmd=ping" not in _line(other, pattern):
                pass
        assert pool.stats().opened == 1


def _line(conn: hs.Connection, start: bytes) -> bytes:
    for line in command(conn, b"CLIENT", b"LIST").split(b"\n"):
        if line.startswith(start):
            return bytes(line)
    return b""


def test_redis_storm_mixes_up_no_answers(redis_address: Any) -> None:
    """Cancels, deadlines, kills and lost connections; every answer is its asker's own."""
    stop = threading.Event()
    failures: list[BaseException] = []
    rounds = [0] * 8

    def work(i: int, pool: hs.Pool) -> None:
        rng = random.Random(i)
        key = b"storm%d" % i
        while not stop.is_set():
            value = b"%d" % rng.randrange(10**9)
            try:
                with pool.connection(timeout=1) as conn:
                    limit = rng.choice((0.0001, 0.001, 5.0))
                    with hs.timeout(limit):
                        command(conn, b"SET", key, value)
                        assert command(conn, b"GET", key) == value
                rounds[i] += 1
            except (hs.DeadlineExceeded, hs.Reset, hs.Truncated, hs.ConnectError):
                pass
            except BaseException as exc:
                failures.append(exc)
                return

    with hs.Pool(redis_address, max_size=3, leak_after=60) as pool:
        threads = [threading.Thread(target=work, args=(i, pool)) for i in range(8)]
        for thread in threads:
            thread.start()
        until = time.monotonic() + 3
        with hs.connect(redis_address, timeout=30) as killer, hs.timeout(30):
            while time.monotonic() < until:
                pool.verify()
                lines = command(killer, b"CLIENT", b"LIST").split(b"\n")
                others = [line.split()[0][3:] for line in lines if b"name=me" not in line and line]
                command(killer, b"CLIENT", b"KILL", b"ID", random.choice(others), b"SKIPME", b"yes")
        stop.set()
        for thread in threads:
            thread.join()
        assert failures == []
        assert min(rounds) > 0
        stats = pool.stats()
        assert stats.lent == 0
        conns = [pool.acquire(timeout=30) for _ in range(3)]
        for conn in conns:
            assert conn.pool is pool
            pool.release(conn)


def test_redis_restart_is_survived() -> None:
    with require(redis_server()) as server:
        address = server.address
        pool = hs.Pool(address, max_size=2, backoff_min=0.01, backoff_max=0.05)
        with pool.connection(timeout=30) as conn, hs.timeout(30):
            assert command(conn, b"PING") == b"PONG"
    with pool:
        with pytest.raises((hs.ConnectError, hs.Reset, hs.Truncated)), hs.timeout(30):
            while True:  # Gone: sooner or later a call fails, and none hangs.
                with pool.connection() as conn:
                    command(conn, b"PING")
        assert pool.stats().lent == 0
        assert pool.stats().idle == 0


# ---- PostgreSQL


def _message(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("!I", len(body) + 4) + body


def _read(conn: hs.Connection) -> tuple[bytes, bytes]:
    head = conn.recv_exactly(5)
    return head[:1], conn.recv_exactly(struct.unpack("!I", head[1:])[0] - 4)


def login(conn: hs.Connection) -> None:
    body = struct.pack("!I", 3 << 16) + b"user\0postgres\0\0"
    conn.sendall(struct.pack("!I", len(body) + 4) + body)
    _until_ready(conn)


def _until_ready(conn: hs.Connection) -> list[bytes]:
    rows = []
    while True:
        kind, body = _read(conn)
        if kind == b"E":
            raise RuntimeError(body.decode(errors="replace"))
        if kind == b"D":
            rows.append(body[6:])
        if kind == b"Z":
            return rows


def query(conn: hs.Connection, sql: str) -> list[bytes]:
    conn.sendall(_message(b"Q", sql.encode() + b"\0"))
    rows = _until_ready(conn)
    conn.mark_clean()
    return rows


def rollback(conn: hs.Connection) -> None:
    query(conn, "ROLLBACK")


def test_postgres_with_login_check_and_rollback(postgres_address: Any) -> None:
    with (
        hs.Pool(
            postgres_address,
            max_size=2,
            on_connect=login,
            check=lambda conn: query(conn, "SELECT 1") == [b"1"],
            check_after=0,
            reset=rollback,
        ) as pool,
        hs.timeout(30),
    ):
        with pool.connection() as conn:
            (pid,) = query(conn, "SELECT pg_backend_pid()")
            query(conn, "BEGIN")
            query(conn, "CREATE TABLE t (n int)")
        with pool.connection() as conn:
            assert query(conn, "SELECT pg_backend_pid()") == [pid]
            assert query(conn, "SELECT to_regclass('t') IS NULL") == [b"t"]  # Rolled back.
        assert pool.stats().opened == 1


def test_postgres_backend_that_is_terminated_is_replaced(postgres_address: Any) -> None:
    with hs.Pool(postgres_address, max_size=2, on_connect=login) as pool, hs.timeout(30):
        first, second = pool.acquire(), pool.acquire()
        (pid,) = query(first, "SELECT pg_backend_pid()")
        pool.release(first)
        query(second, f"SELECT pg_terminate_backend({int(pid)})")
        until = time.monotonic() + 10
        while not (
            pool.stats().closed_by_reason["peer_closed"]
            + pool.stats().closed_by_reason["unsolicited"]
        ):
            assert time.monotonic() < until
            time.sleep(0.001)
        with pool.connection() as conn:
            assert query(conn, "SELECT pg_backend_pid()") != [pid]
        pool.release(second)


def test_postgres_that_refuses_the_login_is_told_to_the_caller(postgres_address: Any) -> None:
    def bad_login(conn: hs.Connection) -> None:
        body = struct.pack("!I", 3 << 16) + b"user\0nobody here\0\0"
        conn.sendall(struct.pack("!I", len(body) + 4) + body)
        _until_ready(conn)

    with hs.Pool(postgres_address, on_connect=bad_login) as pool:
        with pytest.raises(RuntimeError, match="nobody here"):
            pool.acquire(timeout=60)
        assert pool.stats().lent == 0
