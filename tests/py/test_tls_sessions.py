"""Sessions that are resumed, or must not be; and the key log."""

from __future__ import annotations

import asyncio
import re
import stat
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import hardsock as hs
from hardsock import aio
from hardsock.lab.waits import poll_until
from support.pki import CLIENT, SERVER
from support.tls import Identities, tls_pair
from support.tls_visits import greet, info, mutual, serve, visit

pytestmark = pytest.mark.usefixtures("event_loops")


# ---- Sessions


def resumed(server: hs.Server, config: hs.TLSConfig, **settings: Any) -> bool:
    """Connect, wait for the tickets, end well; whether the session was resumed."""
    with visit(server, config, **settings) as conn:
        assert conn.recv_line(timeout=30)
        return info(conn).resumed


def test_a_session_is_resumed_under_its_name_only(ids: Identities, only: Any) -> None:
    client = ids.client(**only)
    identity = ids.issue(("a.test", "b.test", "127.0.0.1"))
    with serve(greet, ids.server(certificates=identity, **only)) as server:
        assert not resumed(server, client, server_name="a.test")
        assert client.sessions_kept > 0
        assert not resumed(server, client, server_name="b.test"), "another name"
        assert not resumed(server, client), "another name"
        assert resumed(server, client, server_name="a.test")
        assert not resumed(server, ids.client(**only), server_name="a.test"), "another config"


def test_a_session_is_for_one_server(ids: Identities) -> None:
    client = ids.client()
    with serve(greet, ids.server()) as one, serve(greet, ids.server()) as two:
        assert not resumed(one, client)
        assert not resumed(two, client)
        assert resumed(one, client)


def test_a_resumed_connection_is_as_good_as_the_first(ids: Identities, only: Any) -> None:
    client, seen = ids.client(**only), []

    def look(conn: hs.Connection) -> None:
        seen.append(info(conn).resumed)
        greet(conn)

    with serve(look, ids.server(**only)) as server:
        resumed(server, client)
        with visit(server, client, server_name="127.0.0.1") as conn:
            found = info(conn)
            assert (found.resumed, found.verified) == (True, True)
            assert (found.ocsp, found.verified_at) == ("skipped", None)
            assert found.peer_certificate is not None
            conn.recv_line(timeout=30)
    assert seen == [False, True]


def test_tickets_of_tls_13_are_used_once(ids: Identities) -> None:
    client = ids.client()
    with serve(greet, ids.server(tickets=1)) as server:
        assert not resumed(server, client)
        assert client.sessions_kept == 1
        with visit(server, client) as conn:
            assert info(conn).resumed
            assert client.sessions_kept == 0, "taken, and the next one is not here yet"
            conn.recv_line(timeout=30)
        assert client.sessions_kept == 1


@pytest.mark.parametrize(
    ("client", "server"),
    [
        ({"insecure_skip_verify": True, "ca": None}, {}),
        ({"sessions": False}, {}),
        ({}, {"sessions": False}),
        ({}, {"tickets": 0}),
    ],
    ids=str,
)
def test_without_sessions_none_is_kept_and_none_resumed(
    ids: Identities, only: Any, client: dict[str, Any], server: dict[str, Any]
) -> None:
    config = ids.client(**client, **only)
    with serve(greet, ids.server(**server, **only)) as running:
        for _ in range(2):
            assert not resumed(running, config)
        assert config.sessions_kept == 0


def test_an_unverified_session_is_not_resumed_by_anybody(ids: Identities) -> None:
    """A resumed handshake checks no certificate: what was never checked must not come that way."""
    trusting = hs.TLSConfig(insecure_skip_verify=True)
    with serve(greet, ids.server()) as server:
        resumed(server, trusting)
        assert trusting.sessions_kept == 0


def test_reload_of_a_client_drops_its_sessions(ids: Identities) -> None:
    client = ids.client()
    with serve(greet, ids.server()) as server:
        resumed(server, client)
        assert client.sessions_kept > 0
        client.reload()
        assert client.sessions_kept == 0
        assert not resumed(server, client)


def test_reload_of_a_server_keeps_sessions_unless_they_stand_for_client_certificates(
    ids: Identities, only: Any
) -> None:
    for config, after in ((ids.server(**only), True), (mutual(ids, "required", **only), False)):
        client = ids.client(certificates=ids.client_identity, **only)
        with serve(greet, config) as server:
            assert not resumed(server, client)
            assert resumed(server, client)
            config.reload()
            assert resumed(server, client) is after


@pytest.mark.parametrize(("who", "style"), [("client", "threads"), ("server", "asyncio")])
def test_a_certificate_that_expires_ends_its_sessions(
    ids: Identities, only: Any, who: str, style: str
) -> None:
    """It resumes until then, and is refused by a full handshake after that."""
    usages = CLIENT if who == "client" else SERVER

    def resumes_and_is_refused(seconds: int) -> bool:
        """Whether it was met while it was valid: so long is a slow machine's handshake."""
        short = ids.issue_between(timedelta(days=-1), timedelta(seconds=seconds), usages=usages)
        client = ids.client(certificates=short if who == "client" else ids.client_identity, **only)
        own = {"certificates": short} if who == "server" else {}
        refusals: list[hs.TLSError] = []

        async def visit_async(address: Any) -> bool:
            async with await aio.connect(address, tls=client, timeout=30) as conn:
                assert await conn.recv_line(timeout=30)
                return info(conn).resumed

        with serve(greet, mutual(ids, "required", **only, **own)) as running:

            def call() -> bool:
                if style == "threads":
                    return resumed(running, client)
                return asyncio.run(visit_async(running.address))

            def is_refused() -> bool:
                try:
                    assert call(), "a new handshake, though nothing has ended"
                except hs.TLSError as exc:
                    refusals.append(exc)
                return bool(refusals)

            try:
                assert not call()
                assert call()
            except hs.TLSError:
                return False
            assert poll_until(is_refused, timeout=seconds + 30)
        if who == "client":
            assert refusals[0].alert == 45
        else:
            assert refusals[0].verify_code == 10
        return True

    assert any(map(resumes_and_is_refused, (4, 16, 60)))


def test_a_failed_handshake_forgets_the_sessions_of_its_name(ids: Identities) -> None:
    client = ids.client()
    with serve(greet, ids.server()) as server:
        resumed(server, client)
        assert client.sessions_kept > 0
        address = server.address
    expired = ids.issue_between(timedelta(days=-9), timedelta(days=-2))
    with hs.serve(greet, address, tls=ids.server(certificates=expired), drain_timeout=30):
        with pytest.raises(hs.CertificateError, match="expired"):
            hs.connect(address, tls=client, timeout=30)
    assert client.sessions_kept == 0


# ---- The key log


SECRET = re.compile(r"(CLIENT|SERVER|EXPORTER)_\w+ [0-9a-f]{64} [0-9a-f]{64,96}")


def test_a_key_log_has_the_secrets_of_every_connection(
    ids: Identities, only: Any, tmp_path: Path
) -> None:
    log = tmp_path / "keys"
    client = ids.client(insecure_key_log_file=log, sessions=False, **only)
    randoms = set()
    with serve(greet, ids.server(**only)) as server:
        for _ in range(2):
            with visit(server, client):
                pass
    for line in log.read_text().splitlines():
        assert SECRET.fullmatch(line), line
        randoms.add(line.split()[1])
    assert len(randoms) == 2
    assert stat.S_IMODE(log.stat().st_mode) == 0o600


def test_both_sides_log_the_same_secrets(ids: Identities, tmp_path: Path) -> None:
    logs = [tmp_path / "client", tmp_path / "server"]
    client_config = ids.client(insecure_key_log_file=logs[0])
    with tls_pair(client_config, ids.server(insecure_key_log_file=logs[1])):
        pass
    client, server = ({*log.read_text().splitlines()} for log in logs)
    assert client == server
    assert {line.split()[0] for line in client} >= {"CLIENT_TRAFFIC_SECRET_0", "EXPORTER_SECRET"}
