"""hs.defaults: the process says once what holds for calls that say nothing themselves."""

from __future__ import annotations

import asyncio
import errno
import math
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import hardsock as hs
from hardsock import _core, aio
from hardsock.compat import socket as compat
from hardsock.lab.threads import Call

SHORT = 0.03


def a_connection() -> Iterator[hs.Connection]:
    ours, theirs = socket.socketpair()
    with theirs, hs.adopt(ours) as adopted:
        yield adopted


conn, another = pytest.fixture(a_connection), pytest.fixture(a_connection)


@pytest.fixture(autouse=True)
def short_default() -> Iterator[None]:
    before = hs.defaults(timeout=SHORT)
    yield
    hs.defaults(timeout=before.timeout)


def test_a_process_begins_without_a_limit_and_is_asked_without_changing_it() -> None:
    assert hs.Defaults(timeout=SHORT) == hs.defaults() == hs.defaults(timeout=None)
    assert hs.Defaults(timeout=None) == hs.defaults()


def test_a_call_that_says_nothing_ends_by_it_and_the_limit_is_named(conn: hs.Connection) -> None:
    with pytest.raises(hs.DeadlineExceeded) as caught:
        conn.recv(1)
    assert f"hs.defaults(timeout={SHORT})" == caught.value.limit
    with pytest.raises(hs.DeadlineExceeded):
        conn.sendall(bytes(64 << 20))


@pytest.fixture
def full() -> Iterator[tuple[str, int]]:
    """Where nobody can connect: the queue of a listener is full."""
    with socket.socket() as full, socket.socket() as first, socket.socket() as second:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for filler in (first, second):
            filler.setblocking(False)
            filler.connect_ex(full.getsockname())
        yield full.getsockname()


def _compat(address: tuple[str, int]) -> None:
    with compat.socket() as sock:
        sock.connect(address)


LIMITS: dict[str, Any] = {"limits": hs.DialLimits(in_flight=1), "handshake_tries": 1}


@pytest.mark.parametrize(
    "connect",
    [
        hs.connect,
        compat.create_connection,
        _compat,
        lambda address: hs.connect(address, **LIMITS),
        lambda address: asyncio.run(aio.connect(address, **LIMITS)),  # type: ignore[arg-type]
        lambda address: hs.connect(("localhost", 9), via=f"http://{address[0]}:{address[1]}"),
    ],
)
def test_a_connect_into_a_full_queue_ends_by_it(full: tuple[str, int], connect: Any) -> None:
    with pytest.raises(hs.DeadlineExceeded) as caught:
        connect(full)
    assert f"hs.defaults(timeout={SHORT})" == caught.value.limit


def test_the_wait_for_a_place_to_dial_ends_by_it_and_by_what_else_is_said(
    full: tuple[str, int],
) -> None:
    limits, longer = hs.DialLimits(in_flight=1), 4 * SHORT

    def limit(wait: Callable[[], object], seconds: float) -> str | None:
        began = time.monotonic()
        with pytest.raises(hs.DeadlineExceeded) as caught:
            wait()
        assert caught.value.phase == "limits"
        assert time.monotonic() - began >= seconds
        return caught.value.limit

    with limits.place():
        assert {f"hs.defaults(timeout={SHORT})"} == {
            limit(limits.place().__enter__, SHORT),
            limit(lambda: hs.connect(full, limits=limits), SHORT),
            limit(lambda: asyncio.run(aio.connect(full, limits=limits)), SHORT),  # type: ignore[arg-type]
            limit(lambda: hs.connect(full, limits=limits, token=hs.CancelToken()), SHORT),
        }
        assert limit(lambda: hs.connect(full, limits=limits, timeout=longer), longer) == (
            f"timeout={longer}"
        )
        limit(lambda: hs.connect(full, limits=limits, token=hs.CancelToken(longer)), longer)
        with hs.timeout(longer):
            limit(lambda: hs.connect(full, limits=limits), longer)


def test_what_else_is_said_counts_for_a_socket_of_compat(full: tuple[str, int]) -> None:
    began = time.monotonic()
    with hs.timeout(4 * SHORT), pytest.raises(hs.DeadlineExceeded):
        _compat(full)
    with compat.socket() as sock:
        sock.settimeout(4 * SHORT)
        with pytest.raises(TimeoutError):
            sock.connect(full)
    assert time.monotonic() - began >= 8 * SHORT
    with compat.socket() as sock:
        assert sock.connect_ex(full) == errno.EAGAIN


def test_a_dry_pool_ends_by_it() -> None:
    with hs.listen(("127.0.0.1", 0)) as listener, hs.Pool(listener.address, max_size=1) as pool:
        with pool.connection(timeout=60), pytest.raises(hs.DeadlineExceeded) as caught:
            pool.acquire()
        assert f"hs.defaults(timeout={SHORT})" == caught.value.limit


def test_it_holds_in_event_loops() -> None:
    async def main() -> str | None:
        ours, theirs = socket.socketpair()
        with theirs:
            async with aio.adopt(ours) as adopted:
                with pytest.raises(hs.DeadlineExceeded) as caught:
                    await adopted.recv(1)
        return caught.value.limit

    assert f"hs.defaults(timeout={SHORT})" == asyncio.run(main())


def test_whatever_else_is_said_counts_instead_be_it_longer(conn: hs.Connection) -> None:
    longer = 4 * SHORT

    def limit_and_time(**limits: float | hs.CancelToken) -> tuple[str | None, float]:
        began = time.monotonic()
        with pytest.raises(hs.DeadlineExceeded) as caught:
            conn.recv(1, **limits)  # type: ignore[arg-type]
        return caught.value.limit, time.monotonic() - began

    said = [limit_and_time(timeout=longer), limit_and_time(token=hs.CancelToken(longer))]
    with hs.timeout(longer):
        said.append(limit_and_time())
    conn.bind(hs.CancelToken(longer))
    said.append(limit_and_time())
    conn.bind(None)
    conn.settimeout(longer)
    said.append(limit_and_time())
    assert [
        f"timeout={longer}",
        "its token",
        "the scope around it",
        "its token",
        f"settimeout({longer})",
    ] == [limit for limit, _ in said]
    assert min(seconds for _, seconds in said) >= longer


def test_a_token_without_a_deadline_says_nothing_of_time(conn: hs.Connection) -> None:
    with pytest.raises(hs.DeadlineExceeded) as caught:
        conn.recv(1, token=hs.CancelToken())
    assert f"hs.defaults(timeout={SHORT})" == caught.value.limit
    with hs.scope(hs.CancelToken()), pytest.raises(hs.DeadlineExceeded):
        conn.recv(1)


def test_infinity_asks_for_no_end_and_accept_has_none(
    conn: hs.Connection, another: hs.Connection
) -> None:
    with hs.listen(("127.0.0.1", 0)) as listener:
        endless, accepting = Call(conn.recv, 1, timeout=math.inf), Call(listener.accept)
        with pytest.raises(hs.DeadlineExceeded):  # Later than the others would have ended.
            another.recv(1, timeout=3 * SHORT)
        assert endless.running
        assert accepting.running
        with hs.connect(listener.address, timeout=60):
            accepting.result().close()
        conn.close()
        with pytest.raises(hs.Closed):
            endless.result()


def test_what_a_server_waits_with_for_news_has_no_end_either(another: hs.Connection) -> None:
    parking = _core.Parking()
    polling = Call(parking.poll)
    with pytest.raises(hs.DeadlineExceeded):  # Later than the other would have ended.
        another.recv(1, timeout=3 * SHORT)
    assert polling.running
    parking.close()
    with pytest.raises(hs.Closed):
        polling.result()


@pytest.mark.parametrize("wrong", [0, -1, math.nan])
def test_what_is_no_time_is_refused_and_changes_nothing(wrong: float) -> None:
    with pytest.raises(ValueError, match="timeout must be"):
        hs.defaults(timeout=wrong)
    with pytest.raises(TypeError, match="timeout must be"):
        hs.defaults(timeout="5")  # type: ignore[arg-type]
    assert hs.Defaults(timeout=SHORT) == hs.defaults()
