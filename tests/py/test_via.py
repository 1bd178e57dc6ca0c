"""Connecting through proxies: CONNECT and SOCKS5, under one deadline."""

from __future__ import annotations

import asyncio
import ssl
import traceback
from collections.abc import Iterator
from typing import Any

import pytest

import hardsock as hs
from hardsock import aio
from hardsock.connecting.proxies import parse_via
from hardsock.lab.peers import PeerScript
from hardsock.lab.threads import Call
from support.echo import EchoServer
from support.proxy import Proxy
from support.tls import Identities


def _connect_awaited(*args: Any, **options: Any) -> hs.Connection:
    async def main() -> hs.Connection:
        return (await aio.connect(*args, **options))._conn

    return asyncio.run(main())


@pytest.fixture(params=["thread", "task"], autouse=True)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test connects by ``hs.connect``, which is ``aio.connect`` for a task."""
    if request.param == "task":
        monkeypatch.setattr(hs, "connect", _connect_awaited)


@pytest.fixture
def echo() -> Iterator[EchoServer]:
    with EchoServer() as server:
        yield server


@pytest.mark.parametrize("scheme", ["http", "socks5", "socks5h"])
@pytest.mark.parametrize("host", ["name.test", "127.0.0.1", "::1"])
def test_the_proxy_connects_and_looks_the_name_up(scheme: str, host: str, echo: EchoServer) -> None:
    with Proxy(interim=True) as proxy, hs.timeout(30):
        port = echo.address[1]
        with hs.connect((host, port), via=f"{scheme}://{proxy.address}") as conn:
            conn.sendall(b"through")
            assert conn.recv_exactly(7) == b"through"
    assert proxy.targets == [(host, port)]


@pytest.mark.parametrize("scheme", ["http", "socks5"])
def test_user_and_password_are_told(scheme: str, echo: EchoServer) -> None:
    address = ("name.test", echo.address[1])
    with Proxy(b"al ice") as proxy, hs.timeout(30):
        with hs.connect(address, via=f"{scheme}://al%20ice:secret@{proxy.address}") as conn:
            conn.sendall(b"x")
            assert conn.recv(1) == b"x"
    for wrong in ("", "al%20ice:wrong@"):
        with Proxy(b"al ice") as proxy, hs.timeout(30), pytest.raises(hs.ProxyError) as caught:
            hs.connect(address, via=f"{scheme}://{wrong}{proxy.address}")
        assert caught.value.phase == "proxy"
        assert caught.value.host == f"name.test:{echo.address[1]}"
        assert caught.value.status == (407 if scheme == "http" else None)
        assert "wrong@" not in str(caught.value)


@pytest.mark.parametrize(
    "via",
    [
        "http://user:secret#1@proxy:3128",
        "http://user:secret/1@proxy:3128",
        "http://user:secret?1@proxy:3128",
        "http://user:secret[1@proxy:3128",
        "http://user:secret]1@proxy:port",
        "http://user:secret\u21001@proxy:3128",
        "ftp://user:secret@proxy:3128",
    ],
)
def test_no_part_of_a_password_is_shown(via: str) -> None:
    with pytest.raises(ValueError, match="via") as caught:
        parse_via(via)
    assert "secret" not in "".join(traceback.format_exception(caught.value))


def test_tls_is_with_the_target(ids: Identities) -> None:
    def handler(conn: hs.Connection) -> None:
        conn.sendall(conn.recv(100).upper())

    with hs.serve(handler, ("127.0.0.1", 0), tls=ids.server(), drain_timeout=30) as server:
        with Proxy() as proxy, hs.timeout(30):
            target = ("localhost", server.address[1])
            with hs.connect(target, tls=ids.client(), via=f"http://{proxy.address}") as conn:
                conn.sendall(b"secret")
                assert conn.recv(100) == b"SECRET"
                assert conn.tls is not None
                assert conn.tls.server_name == "localhost"
        with Proxy() as proxy, hs.timeout(30), pytest.raises(hs.CertificateError):
            hs.connect(
                ("other.test", server.address[1]),
                tls=ids.client(),
                via=f"socks5://{proxy.address}",
            )


def _proxy_context(ids: Identities) -> ssl.SSLContext:
    """Of the ssl module: another implementation of the outer layer; it asks for a certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*ids.authority.issue())
    context.load_verify_locations(ids.authority.certificate)
    context.verify_mode = ssl.CERT_OPTIONAL
    return context


def _upper(conn: hs.Connection) -> None:
    while data := conn.recv(100):
        conn.sendall(data.upper())
    conn.close_write()


@pytest.mark.parametrize("version", ["TLSv1.2", "TLSv1.3"])
def test_tls_is_with_the_target_within_that_of_the_proxy(ids: Identities, version: Any) -> None:
    tls = ids.client(certificates=ids.client_identity, min_version=version, max_version=version)
    with (
        hs.serve(_upper, ("127.0.0.1", 0), tls=ids.server(), drain_timeout=30) as server,
        Proxy(b"al ice", tls=_proxy_context(ids)) as proxy,
        hs.timeout(30),
    ):
        target = ("localhost", server.address[1])
        via = f"https://al%20ice:secret@localhost:{proxy.address.rpartition(':')[2]}"
        with hs.connect(target, tls=tls, via=via, proxy_tls=ids.client()) as conn:
            conn.sendall(b"secret")
            assert conn.recv(100) == b"SECRET"
            assert conn.tls is not None
            assert (conn.tls.version, conn.tls.server_name) == (version, "localhost")
            conn.sendall(b"last words")
            conn.close_write()  # Of the inner stream: the tunnel stays, for the answer.
            assert conn.recv_exactly(10) == b"LAST WORDS"
            assert conn.recv(1) == b""
            assert conn.finish().ending == "clean"
    assert proxy.client_certificates == [None]  # that of tls= is for the target alone


def test_the_proxy_has_to_be_the_one_that_was_asked_for(ids: Identities) -> None:
    with Proxy(tls=_proxy_context(ids)) as proxy, hs.timeout(30):
        with pytest.raises(hs.CertificateError):  # the system trusts no authority of the tests
            hs.connect(("x.test", 443), tls=ids.client(), via=f"https://{proxy.address}")
    assert proxy.targets == []


def test_a_target_that_is_somebody_else_is_refused_behind_the_proxy(ids: Identities) -> None:
    with (
        hs.serve(_upper, ("127.0.0.1", 0), tls=ids.server(), drain_timeout=30) as server,
        Proxy(tls=_proxy_context(ids)) as proxy,
        hs.timeout(30),
        pytest.raises(hs.CertificateError, match=r"other\.test"),
    ):
        hs.connect(
            ("other.test", server.address[1]),
            tls=ids.client(),
            via=f"https://{proxy.address}",
            proxy_tls=ids.client(),
        )


def test_a_target_that_stalls_behind_the_proxy_ends_at_the_deadline_and_by_a_cancel(
    ids: Identities,
) -> None:
    def dial(address: tuple[str, int], via: str, **limits: Any) -> None:
        config = ids.client()
        hs.connect(("localhost", address[1]), tls=config, via=via, proxy_tls=config, **limits)

    for by_token in (False, True):
        with (
            PeerScript([("recv", 100), ("stall",)], check=False) as target,
            Proxy(tls=_proxy_context(ids)) as proxy,
        ):
            via, token = f"https://{proxy.address}", hs.CancelToken()
            if not by_token:
                with pytest.raises(hs.DeadlineExceeded) as caught:
                    dial(target.address, via, timeout=1)
                assert caught.value.phase == "tls"
                continue
            with Call(dial, target.address, via, token=token) as call:
                target.wait_received(100)
                call.wait_until_blocked()
                token.cancel()
                with pytest.raises(hs.Cancelled):
                    call.result(20)
    assert not [one for one in hs.open_connections() if one.how == "connect"]


@pytest.mark.parametrize(
    ("scheme", "said", "why"),
    [
        ("http", b"HTTP/1.1 502 Bad Gateway\r\n\r\n", "502 Bad Gateway"),
        ("http", b"SSH-2.0-x\r\n\r\n", "does not speak HTTP"),
        ("http", b"HTTP/1.1 2x0 ok\r\n\r\n", "does not speak HTTP"),
        ("http", b"HTTP/1.1 100 again\r\n\r\n" * 20, "100 again"),
        ("http", b"HTTP/1.1 200", "ended the connection"),
        ("socks5", b"\x05\xff", "wants a user"),
        ("socks5", b"\x05\x02", "wants a user"),
        ("socks5", b"\x05\x07", "method 7, which was not offered"),
        ("socks5", b"\x04\x00", "does not speak SOCKS5"),
        ("socks5", b"\x05\x00\x05\x05\x00\x01", "connection refused"),
        ("socks5", b"\x05\x00\x05\x63\x00\x01", "reply 99"),
        ("socks5", b"\x05\x00\x05\x00\x00\x09", "kind 9"),
        ("socks5", b"\x05", "ended the connection"),
    ],
)
def test_what_a_proxy_says_instead_is_told(scheme: str, said: bytes, why: str) -> None:
    script = [("recv", 1), ("send", said), ("half_close",), ("stall",)]
    with PeerScript(script, check=False) as peer:  # the client may be gone before its end
        via = "{}://{}:{}".format(scheme, *peer.address)
        with pytest.raises(hs.ProxyError, match=why) as caught:
            hs.connect(("name.test", 80), via=via, timeout=30)
    assert isinstance(caught.value, hs.ConnectError)


@pytest.mark.parametrize("scheme", ["http", "https", "socks5"])
def test_a_silent_proxy_ends_at_the_deadline_and_by_a_cancel(scheme: str) -> None:
    for by_token in (False, True):
        with PeerScript([("stall",)]) as peer:
            via, token = "{}://{}:{}".format(scheme, *peer.address), hs.CancelToken()
            if not by_token:
                with pytest.raises(hs.DeadlineExceeded):
                    hs.connect(("name.test", 80), via=via, timeout=0.1)
                continue
            with Call(lambda: hs.connect(("name.test", 80), via=via, token=token)) as call:  # noqa: B023
                call.wait_until_blocked()
                token.cancel()
                with pytest.raises(hs.Cancelled):
                    call.result(20)
    assert not [one for one in hs.open_connections() if one.how == "connect"]


def test_a_drip_of_a_head_buys_no_time() -> None:
    drip = [("drip", b"HTTP/1.1 200 OK\r\nX: " + b"x" * 2000, 0.01)]
    with PeerScript(drip, check=False) as peer, pytest.raises(hs.DeadlineExceeded):
        hs.connect(("name.test", 80), via="http://{}:{}".format(*peer.address), timeout=0.2)


@pytest.mark.parametrize(
    ("via", "named"),
    [
        ("ftp://x:1", "must begin with"),
        ("http://", "must be a proxy's URL"),
        ("http://x:1/path", "must be a proxy's URL"),
        ("http://x:99999", "no good port"),
        ("http://user:secret@x:y", "no good port"),
        (7, "via must be a URL"),
    ],
)
def test_what_is_no_proxy_is_refused(via: Any, named: str) -> None:
    with pytest.raises((ValueError, TypeError), match=named) as caught:
        hs.connect(("name.test", 80), via=via)
    assert "secret" not in str(caught.value)


def test_what_contradicts_a_proxy_is_refused(ids: Identities) -> None:
    with pytest.raises(ValueError, match="proxy_tls has no use without via"):
        hs.connect(("x.test", 1), tls=True, proxy_tls=ids.client())
    with pytest.raises(ValueError, match="proxy_tls is for an https:// proxy, and via is socks5:"):
        hs.connect(("x.test", 1), via="socks5://x:1", proxy_tls=ids.client())
    with pytest.raises(ValueError, match="commit='tls'"):
        hs.connect(("x.test", 1), via="http://x:1", tls=ids.client(), commit="tls")
    with pytest.raises(ValueError, match="server_name has no use"):
        hs.connect(("x.test", 1), via="http://x:1", server_name="y")
    with pytest.raises(ValueError, match="must be a host and a port"):
        hs.connect("unix:/x", via="http://x:1")
