"""Another try for a handshake that was lost, and a client's fallback for TLS."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

import pytest

import hardsock as hs
from hardsock import _dialing, aio
from hardsock.lab.threads import Call
from support.loops import RUNS
from support.tls import Identities

_LOSSES: dict[str, Callable[[hs.Connection], object]] = {
    "gone": lambda conn: conn.abort(),
    "reset": lambda conn: (conn.recv(1), conn.abort()),
    "empty": lambda conn: (conn.recv_exactly(conn.buffered or 1), conn.recv(65536), conn.close()),
    "silent": lambda conn: conn.recv(65536),
}


def _loses(listener: hs.Listener, how: str, times: int, server: hs.TLSConfig) -> list[float]:
    """Lose the handshake of so many connections, and do the next one's; when each one came."""
    came, kept = [], []
    with hs.timeout(30):
        for _ in range(times):
            kept.append(listener.accept())
            came.append(time.monotonic())
            _LOSSES[how](kept[-1])
        with listener.accept() as conn:
            came.append(time.monotonic())
            conn.upgrade_to_tls(server)
            conn.sendall(b"at last")
            while conn.recv(100):
                pass
    for conn in kept:
        conn.close()
    return came


@pytest.mark.parametrize("how", _LOSSES)
def test_a_lost_handshake_is_tried_again(how: str, ids: Identities) -> None:
    tls = ids.client(handshake_timeout=1.0 if how == "silent" else 10.0)
    for tries, losses in ((2, 1), (4, 3)):
        with hs.listen(("127.0.0.1", 0)) as listener, hs.timeout(30):
            with Call(_loses, listener, how, losses, ids.server()) as serving:
                with hs.connect(
                    listener.address, tls=tls, server_name="localhost", handshake_tries=tries
                ) as conn:
                    assert conn.recv_exactly(7) == b"at last"
                    conn.close_write()
                came = serving.result(30)
    # At once, then after 0.05 s and 0.1 s.
    assert came[3] - came[1] >= 0.15


def test_awaited_connects_do_so_too(ids: Identities) -> None:
    async def main(address: Any) -> bytes:
        async with await aio.connect(
            address, tls=ids.client(), server_name="localhost", handshake_tries=2
        ) as conn:
            return await conn.recv_exactly(7)

    with hs.listen(("127.0.0.1", 0)) as listener, hs.timeout(30):
        with Call(_loses, listener, "reset", 1, ids.server()) as serving:
            assert RUNS["asyncio"](main(listener.address)) == b"at last"
            serving.result(30)


def test_the_deadline_is_for_all_tries(ids: Identities) -> None:
    with hs.listen(("127.0.0.1", 0)) as listener:
        began = time.monotonic()
        with pytest.raises(hs.DeadlineExceeded):
            hs.connect(
                listener.address,
                tls=ids.client(handshake_timeout=0.1),
                server_name="localhost",
                handshake_tries=10,
                timeout=0.5,
            )
        assert 0.1 < time.monotonic() - began < 20


@pytest.mark.parametrize("limit", ["timeout", "scope", "token"])
@pytest.mark.parametrize("awaited", [False, True])
def test_the_lost_handshake_is_told_whatever_sets_the_deadline(
    limit: str, awaited: bool, ids: Identities, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_dialing, "_FIRST_PAUSE", 3600.0)  # No attempt would follow it.
    seconds = {limit: 30.0}
    settings: dict[str, Any] = {
        "tls": ids.client(),
        "handshake_tries": 3,
        "timeout": seconds.get("timeout"),
        "token": hs.CancelToken(seconds.get("token")),
    }

    def lose(listener: hs.Listener) -> None:
        with hs.timeout(60):
            for _ in range(2):
                listener.accept().abort()

    async def connect(address: Any) -> None:
        with hs.timeout(seconds.get("scope")):
            await aio.connect(address, **settings)

    with hs.listen(("127.0.0.1", 0)) as listener, Call(lose, listener) as losing:
        with pytest.raises((hs.Reset, hs.ConnectError, hs.TLSError)):
            if awaited:
                RUNS["asyncio"](connect(listener.address))
            else:
                with hs.timeout(seconds.get("scope")):
                    hs.connect(listener.address, **settings)
        losing.result(30)


def test_a_cancel_ends_the_pause_between_two_tries(
    ids: Identities, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = hs.CancelToken()

    def cancelled_sleep(seconds: float, *, token: hs.CancelToken) -> None:
        if seconds:
            given.cancel("enough")
        hs.sleep(seconds, token=token)

    def lose(listener: hs.Listener) -> None:
        with hs.timeout(30):
            for _ in range(2):
                listener.accept().abort()

    monkeypatch.setattr(_dialing, "_FIRST_PAUSE", 3600.0)
    monkeypatch.setattr(sys.modules["hardsock.connecting.connect"], "sleep", cancelled_sleep)
    with hs.listen(("127.0.0.1", 0)) as listener, Call(lose, listener):
        with pytest.raises(hs.Cancelled, match="enough") as cancelled:
            hs.connect(listener.address, tls=ids.client(), handshake_tries=3, token=given)
        assert isinstance(cancelled.value.__context__, (hs.Reset, hs.ConnectError, hs.TLSError))
        del cancelled


def test_what_was_refused_is_not_tried_again(ids: Identities) -> None:
    def refuse(listener: hs.Listener) -> None:
        with hs.timeout(30), listener.accept() as conn, pytest.raises(hs.TLSError):
            conn.upgrade_to_tls(ids.server())
            conn.recv(1)

    with hs.listen(("127.0.0.1", 0)) as listener, Call(refuse, listener) as serving:
        with hs.timeout(30), pytest.raises(hs.CertificateError):
            hs.connect(
                listener.address, tls=ids.client(), server_name="other.test", handshake_tries=5
            )
        serving.result(30)
        with pytest.raises(hs.DeadlineExceeded):
            listener.accept(timeout=0)


# ---- The fallback


def _connect(address: Any, **how: Any) -> str:
    with hs.connect(address, server_name="localhost", timeout=20, **how) as conn:
        assert conn.tls is not None
        return conn.tls.version


def test_the_fallback_is_used_while_the_breaker_is_open(ids: Identities) -> None:
    main = ids.client(min_version="TLSv1.3")
    how: dict[str, Any] = {
        "tls": main,
        "tls_fallback": ids.client(),
        "tls_breaker": hs.Breaker(failures=3),
        "insecure_allow_weaker_fallback": True,
    }
    old, new = ids.server(max_version="TLSv1.2"), ids.server()

    def answer(conn: hs.Connection) -> None:
        conn.recv(1)

    with hs.serve(answer, ("127.0.0.1", 0), tls=old, drain_timeout=30) as server:
        for _ in range(3):
            with pytest.raises(hs.TLSError):
                _connect(server.address, **how)
        assert _connect(server.address, **how) == "TLSv1.2"
        with hs.serve(answer, ("127.0.0.1", 0), tls=new, drain_timeout=30) as other:
            assert _connect(other.address, **how) == "TLSv1.3"  # Each peer is counted alone.

        async def awaited() -> str:
            async with await aio.connect(
                server.address, server_name="localhost", timeout=20, **how
            ) as conn:
                assert conn.tls is not None
                return conn.tls.version

        assert RUNS["asyncio"](awaited()) == "TLSv1.2"
        assert how["tls_breaker"].reset() >= 1  # As when its time is up: the main one is tried.
        with pytest.raises(hs.TLSError):
            _connect(server.address, **how)


def test_lost_handshakes_and_cancels_do_not_bring_the_fallback_about(ids: Identities) -> None:
    breaker = hs.Breaker(failures=1)
    how: dict[str, Any] = {
        "tls": ids.client(handshake_timeout=0.05),
        "tls_fallback": ids.client(alpn=("other",)),
        "tls_breaker": breaker,
    }
    with hs.listen(("127.0.0.1", 0)) as listener:
        with pytest.raises(hs.DeadlineExceeded):
            _connect(listener.address, **how)
        token = hs.CancelToken()
        token.cancel()
        with pytest.raises(hs.Cancelled):
            _connect(listener.address, token=token, **how)
        nobody = listener.address
    with pytest.raises(hs.ConnectError):
        _connect(nobody, **how)
    assert breaker.states() == []


@pytest.mark.parametrize(
    ("main", "fallback", "named"),
    [
        ({"min_version": "TLSv1.3"}, {}, "min_version"),
        ({}, {"insecure_skip_verify": True}, "insecure_skip_verify"),
        ({}, {"insecure_skip_hostname": True}, "insecure_skip_hostname"),
        ({}, {"ca": None}, "ca"),
        ({"ocsp": "require"}, {}, "ocsp"),
        ({"security_level": 3}, {}, "security_level"),
        ({"strict_certificates": True}, {}, "strict_certificates"),
        ({"whole_chains": True}, {}, "whole_chains"),
    ],
)
def test_a_weaker_fallback_wants_a_word(
    main: dict[str, Any], fallback: dict[str, Any], named: str, ids: Identities
) -> None:
    how = {"tls": ids.client(**main), "tls_fallback": ids.client(**fallback)}
    with pytest.raises(ValueError, match=f"tls_fallback is weaker than tls in {named}:"):
        hs.connect("127.0.0.1:1", tls_breaker=hs.Breaker(), **how)


@pytest.mark.parametrize("named", ["security_level", "strict_certificates", "whole_chains"])
def test_a_server_s_fallback_is_judged_by_the_newer_settings_too(
    named: str, ids: Identities
) -> None:
    demanding: Any = {named: 3 if named == "security_level" else True}
    with pytest.raises(ValueError, match=f"tls_fallback is weaker than tls in {named}:"):
        hs.listen(("127.0.0.1", 0), tls=ids.server(**demanding), tls_fallback=ids.server())


@pytest.mark.parametrize(
    ("settings", "error", "text"),
    [
        ({"handshake_tries": 0}, ValueError, "handshake_tries must be 1 to 10, got 0"),
        ({"handshake_tries": True}, TypeError, "handshake_tries must be an int, not bool"),
        ({"handshake_tries": 2, "tls": False}, ValueError, "handshake_tries has no use"),
        ({"tls_breaker": hs.Breaker()}, ValueError, "tls_breaker has no use without"),
        ({"insecure_allow_weaker_fallback": True}, ValueError, "has no use without tls_fallback"),
        ({"tls_fallback": hs.TLSConfig()}, ValueError, "tls_fallback needs tls_breaker="),
        ({"tls_fallback": True, "tls_breaker": hs.Breaker()}, TypeError, "must be a TLSConfig"),
    ],
)
def test_what_contradicts_itself_is_named(
    settings: dict[str, Any], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        hs.connect("127.0.0.1:1", **({"tls": hs.TLSConfig()} | settings))
