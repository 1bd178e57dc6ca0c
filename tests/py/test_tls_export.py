"""What both ends derive from TLS, and what a real server makes of it: SCRAM-SHA-256-PLUS."""

from __future__ import annotations

import hashlib
import struct
from typing import Any

import pytest

from support.require import need_module

need_module("scramp")
need_module("pg8000")

import pg8000.native  # noqa: E402
import scramp  # noqa: E402

import hardsock as hs  # noqa: E402
from hardsock import aio  # noqa: E402
from support.loops import RUNS  # noqa: E402
from support.require import require  # noqa: E402
from support.servers import postgres  # noqa: E402
from support.tls import Identities, tls_pair  # noqa: E402

LABEL = "EXPERIMENTAL hardsock"
VERSIONS = ["TLSv1.2", "TLSv1.3"]


@pytest.mark.parametrize("version", VERSIONS)
def test_both_ends_derive_the_same(ids: Identities, version: Any) -> None:
    config = ids.client(min_version=version, max_version=version)
    with tls_pair(config, ids.server()) as (ours, theirs):
        for length in (1, 32, 8160):
            got = ours.export_keying_material(LABEL, length, b"context")
            assert got == theirs.export_keying_material(LABEL, length, context=b"context")
            assert len(got) == length
        assert ours.export_keying_material(LABEL, 32, None) != got[:32]
        secret = ours.export_keying_material(LABEL, 32, b"")
        assert secret == theirs.export_keying_material(LABEL, 32, memoryview(b""))
        assert ours.channel_binding("tls-exporter") == theirs.channel_binding("tls-exporter")
        der = ours.tls.peer_chain[0]  # type: ignore[union-attr]
        for one in (ours, theirs):
            assert one.channel_binding("tls-server-end-point") == hashlib.sha256(der).digest()


def test_awaited_connections_have_them_too(ids: Identities) -> None:
    async def main() -> tuple[bytes, bytes]:
        with tls_pair(ids.client(), ids.server()) as (ours, theirs):
            wanted = theirs.channel_binding("tls-exporter")
            async with await aio.listen(("127.0.0.1", 0)) as listener:
                async with await aio.connect(listener.address) as plain:
                    for call in (
                        lambda: plain.channel_binding("tls-exporter"),
                        lambda: plain.export_keying_material(LABEL, 32),
                    ):
                        with pytest.raises(ValueError, match="speaks no TLS"):
                            call()
            return wanted, ours.channel_binding("tls-exporter")

    wanted, got = RUNS["asyncio"](main())
    assert wanted == got


def test_what_is_wrong_is_named(ids: Identities) -> None:
    with tls_pair(ids.client(), ids.server()) as (ours, _theirs):
        for wrong, error, text in (
            ((LABEL, 0), ValueError, "length must be"),
            ((LABEL, 8161), ValueError, "length must be"),
            ((LABEL, True), TypeError, "length must be"),
            ((b"label", 32), TypeError, "label must be str, not bytes"),
            ((LABEL, 32, "context"), TypeError, "bytes-like"),
            (("x" * 300, 32), ValueError, "OpenSSL derives no 32 bytes for a label of 300"),
        ):
            with pytest.raises(error, match=text):
                ours.export_keying_material(*wrong)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="kind must be 'tls-server-end-point' or"):
            ours.channel_binding("tls-unique")  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="kind must be str"):
            ours.channel_binding(7)  # type: ignore[arg-type]
    with pytest.raises(hs.Closed):
        ours.channel_binding("tls-exporter")


# ---- A client of PostgreSQL that can log in, and no more (its manual, "Message Formats")

_SSL_REQUEST = struct.pack("!II", 8, 80877103)
_OK, _SASL, _SASL_CONTINUE, _SASL_FINAL = 0, 10, 11, 12


class PostgresError(Exception):
    """What the server said."""


def _send(conn: hs.Connection, kind: bytes, body: bytes) -> None:
    conn.sendall(kind + struct.pack("!I", len(body) + 4) + body)


def _answer(conn: hs.Connection) -> tuple[int, bytes]:
    kind, size = struct.unpack("!cI", conn.recv_exactly(5))
    body = conn.recv_exactly(size - 4)
    if kind != b"R":
        raise PostgresError(body)
    return struct.unpack("!I", body[:4])[0], body[4:]


def _log_in(conn: hs.Connection, user: str, password: str, binding: bytes) -> list[str]:
    """By SCRAM-SHA-256-PLUS over TLS; the mechanisms that the server has offered."""
    start = struct.pack("!I", 196608) + f"user\0{user}\0database\0postgres\0\0".encode()
    _send(conn, b"", start)
    code, body = _answer(conn)
    assert code == _SASL
    offered = [one.decode() for one in body.split(b"\0") if one]
    scram = scramp.ScramClient(
        ["SCRAM-SHA-256-PLUS"], user, password, channel_binding=("tls-server-end-point", binding)
    )
    first = scram.get_client_first().encode()
    name = scram.mechanism_name.encode()
    _send(conn, b"p", name + b"\0" + struct.pack("!I", len(first)) + first)
    code, body = _answer(conn)
    assert code == _SASL_CONTINUE
    scram.set_server_first(body.decode())
    _send(conn, b"p", scram.get_client_final().encode())
    code, body = _answer(conn)
    assert code == _SASL_FINAL
    scram.set_server_final(body.decode())
    assert _answer(conn)[0] == _OK
    return offered


def test_postgresql_takes_the_binding_and_no_other(ids: Identities) -> None:
    identity = ids.server_identity
    certificate = (identity.chain, identity.key)
    access = "hostssl all alice 127.0.0.1/32 scram-sha-256\n"
    with require(postgres(certificate=certificate, access=access)) as server, hs.timeout(60):  # type: ignore[arg-type]
        with pg8000.native.Connection("postgres", host="127.0.0.1", port=server.port) as admin:
            admin.run("SET password_encryption = 'scram-sha-256'")
            admin.run("CREATE ROLE alice LOGIN PASSWORD 'secret'")

        def log_in(binding: bytes | None = None) -> list[str]:
            with hs.connect(("127.0.0.1", server.port)) as conn:
                conn.sendall(_SSL_REQUEST)
                assert conn.recv_exactly(1) == b"S"
                conn.upgrade_to_tls(ids.client(), server_name="127.0.0.1")
                own = conn.channel_binding("tls-server-end-point")
                return _log_in(conn, "alice", "secret", own if binding is None else binding)

        assert "SCRAM-SHA-256-PLUS" in log_in()
        with pytest.raises(PostgresError, match="channel binding check failed"):
            log_in(b"\0" * 32)
        # pg8000 binds to an ssl.SSLSocket only, and logs in without.
        with hs.connect(("127.0.0.1", server.port)) as conn:
            context = hs.ssl_context(ca=ids.ca)
            settings = {"sock": conn, "ssl_context": context, "password": "secret"}
            with pg8000.native.Connection("alice", database="postgres", **settings) as alice:
                assert alice.run("SELECT 7") == [[7]]
