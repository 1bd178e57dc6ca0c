"""hs.defaults: the process says once what holds for calls that say nothing themselves."""

from __future__ import annotations

import asyncio
import math
import socket
import time
from collections.abc import Iterator

import pytest

import hardsock as hs
from hardsock import _core, aio
from support import Call

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


def test_a_connect_into_a_full_queue_ends_by_it() -> None:
    with socket.socket() as full, socket.socket() as first, socket.socket() as second:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for filler in (first, second):
            filler.setblocking(False)
            filler.connect_ex(full.getsockname())
        with pytest.raises(hs.DeadlineExceeded) as caught:
            hs.connect(full.getsockname())
    assert f"hs.defaults(timeout={SHORT})" == caught.value.limit


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
