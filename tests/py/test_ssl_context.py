"""An ssl.SSLContext that keeps connections hardsock's: what is taken over, what is refused."""

from __future__ import annotations

import contextlib
import datetime
import http.client
import inspect
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import hardsock as hs
from hardsock.lab.peers import PeerScript
from hardsock.lab.threads import Call
from support.pki import CLIENT
from support.tls import Identities


@pytest.fixture
def context(ids: Identities) -> hs.SSLContext:
    return hs.ssl_context(ca=ids.ca)


def _peer(ids: Identities, **settings: Any) -> Callable[[ssl.SSLSocket], None] | Any:
    """The standard library's server side, with its own idea of everything."""
    one = settings.pop("identity", ids.server_identity)
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.load_cert_chain(one.chain, one.key)
    for name, value in settings.items():
        attribute = getattr(made, name)
        if callable(attribute):
            attribute(value)
        else:
            setattr(made, name, value)
    return made


@contextmanager
def _served(
    ids: Identities, handle: Callable[[ssl.SSLSocket], object], **settings: Any
) -> Iterator[tuple[str, int]]:
    """One connection to a server of ``ssl``; what it raises is dropped."""
    server = _peer(ids, **settings)
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(20)

    def run() -> None:
        try:
            sock, _ = listener.accept()
            with sock:
                sock.settimeout(20)
                with server.wrap_socket(sock, server_side=True) as tls:
                    handle(tls)
        except OSError:
            pass

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield listener.getsockname()
    finally:
        listener.close()
        thread.join(20)


def _echo(sock: ssl.SSLSocket) -> None:
    while data := sock.recv(65536):
        sock.sendall(data)


# ---- the face


def test_the_connection_stays_hardsocks(ids: Identities, context: hs.SSLContext) -> None:
    assert isinstance(context, ssl.SSLContext)
    with _served(ids, _echo) as address, hs.timeout(20):
        conn = hs.connect(address)
        with context.wrap_socket(conn, server_hostname="localhost") as sock:
            assert isinstance(sock, hs.TLSSocket)
            assert sock.connection is conn
            assert conn.fileno() in {one.fd for one in hs.open_connections()}
            sock.sendall(b"over hardsock")
            assert sock.recv(5) + sock.read(100) == b"over hardsock"  # type: ignore[operator]
            assert sock.write(b"abc") == 3
            room = bytearray(2)
            assert sock.read(100, room) == 2
            assert (bytes(room), sock.pending()) == (b"ab", 1)
            assert sock.recv(1) == b"c"
            with sock.makefile("rwb") as file:
                file.write(b"line\n")
                file.flush()
                assert file.readline() == b"line\n"
        assert conn.closed


def test_a_deadline_bounds_handshake_and_later_calls(
    ids: Identities, context: hs.SSLContext
) -> None:
    with PeerScript([("stall",)]) as silent, hs.connect(silent.address) as conn:
        conn.settimeout(0.3)
        with pytest.raises(hs.DeadlineExceeded) as caught:
            context.wrap_socket(conn, server_hostname="localhost")
        assert (caught.value.phase, caught.value.limit) == ("tls", "settimeout(0.3)")
    drip = [("drip", b"x" * 1000, 0.01)]
    with PeerScript(drip, tls=_peer(ids), check=False) as peer, hs.connect(peer.address) as conn:
        with hs.timeout(20):
            sock = context.wrap_socket(conn, server_hostname="localhost")
        with hs.timeout(0.2), sock.makefile("rb") as file, pytest.raises(hs.DeadlineExceeded):
            file.read(1000)


def test_a_cancel_reaches_it_from_another_thread(ids: Identities, context: hs.SSLContext) -> None:
    with PeerScript([("stall",)], tls=_peer(ids)) as peer, hs.connect(peer.address) as conn:
        token = hs.CancelToken()
        conn.bind(token)
        sock = context.wrap_socket(conn, server_hostname="localhost")
        with Call(sock.recv, 1) as call:
            call.wait_until_blocked()
            token.cancel("stop")
            with pytest.raises(hs.Cancelled):
                call.result(60)


def test_what_was_agreed_on_is_told_as_ssl_tells_it(ids: Identities) -> None:
    identity = ids.issue(("localhost", "db.test", "127.0.0.1", "::1"))
    told: dict[str, Any] = {}
    for ours in (False, True):
        made: Any = ssl.create_default_context(cafile=str(ids.ca))
        made = hs.ssl_context(made) if ours else made
        made.set_alpn_protocols(["spdy/9", "http/1.1"])
        with (
            _served(ids, _echo, identity=identity, set_alpn_protocols=["http/1.1"]) as address,
            hs.timeout(20),
        ):
            plain: Any = hs.connect(address) if ours else socket.create_connection(address, 20)
            with made.wrap_socket(plain, server_hostname="localhost") as sock:
                told[str(ours)] = (
                    sock.getpeercert(),
                    sock.getpeercert(True),
                    sock.version(),
                    sock.cipher(),
                    sock.selected_alpn_protocol(),
                    sock.compression(),
                    sock.server_side,
                    sock.server_hostname,
                    sock.session_reused,
                    sock.context is made,
                )
    assert told["True"] == told["False"]
    assert told["True"][4] == "http/1.1"


def test_names_with_any_character_in_them_are_told_alike(tmp_path: Path) -> None:
    from hardsock.tls.tls_socket import _name

    assert _name(r"CN=a\,b\+c\\d\"e,OU=x+L=\C3\A9 y,O= z,2.5.4.17=#130131") == (
        (("2.5.4.17", "#130131"),),
        (("organizationName", " z"),),
        (("organizationalUnitName", "x"), ("localityName", "é y")),
        (("commonName", 'a,b+c\\d"e'),),
    )
    assert _name("") == ()


@pytest.mark.parametrize(
    ("at", "told"),
    [
        ((2026, 11, 29, 0, 3, 55), "Nov 29 00:03:55 2026 GMT"),
        ((2026, 11, 29, 13, 3, 5), "Nov 29 13:03:05 2026 GMT"),
        ((2027, 3, 5, 9, 0, 0), "Mar  5 09:00:00 2027 GMT"),
        ((2027, 3, 5, 10, 7, 1), "Mar  5 10:07:01 2027 GMT"),
        ((2049, 10, 10, 0, 0, 0), "Oct 10 00:00:00 2049 GMT"),
    ],
)
def test_times_are_told_as_openssl_prints_them(
    at: tuple[int, int, int, int, int, int], told: str
) -> None:
    from hardsock.tls.tls_socket import _time

    time = datetime.datetime(*at, tzinfo=datetime.timezone.utc)
    assert _time(time) == told
    assert ssl.cert_time_to_seconds(told) == time.timestamp()


def test_an_unverified_certificate_is_an_empty_dict(ids: Identities) -> None:
    context = hs.ssl_context(ca=ids.ca)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with _served(ids, _echo) as address, hs.timeout(20), hs.connect(address) as conn:
        sock = context.wrap_socket(conn)
        assert sock.getpeercert() == {}
        assert sock.getpeercert(binary_form=True) == sock.get_unverified_chain()[0]


def test_the_handshake_can_be_put_off(ids: Identities, context: hs.SSLContext) -> None:
    with _served(ids, _echo) as address, hs.timeout(20), hs.connect(address) as conn:
        sock = context.wrap_socket(conn, server_hostname="localhost", do_handshake_on_connect=False)
        assert (sock.version(), sock.cipher(), sock.selected_alpn_protocol()) == (None,) * 3
        assert sock.session_reused is None
        assert sock.get_channel_binding("tls-exporter") is None
        with pytest.raises(ValueError, match="handshake not done yet"):
            sock.getpeercert()
        sock.do_handshake()
        sock.do_handshake()
        assert sock.version() == "TLSv1.3"


_FIRST_CALLS: dict[str, Callable[[Any], object]] = {
    "send": lambda sock: sock.send(b"secret"),
    "sendall": lambda sock: sock.sendall(b"secret"),
    "write": lambda sock: sock.write(b"secret"),
    "sendmsg": lambda sock: sock.sendmsg([b"secret"]),
    "send_frame": lambda sock: sock.send_frame(b"secret"),
    "recv": lambda sock: sock.recv(1),
    "recv_into": lambda sock: sock.recv_into(bytearray(1)),
    "read": lambda sock: sock.read(1),
    "read into": lambda sock: sock.read(1, bytearray(1)),
    "peek": lambda sock: sock.peek(1),
    "recv_exactly": lambda sock: sock.recv_exactly(1),
    "makefile": lambda sock: sock.makefile("rb").read(1),
    "_share": lambda sock: sock._share().recv(1),
}


@pytest.mark.parametrize("name", _FIRST_CALLS)
def test_nothing_plain_passes_where_the_handshake_was_put_off(
    context: hs.SSLContext, name: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, hs.timeout(20):
        with hs.connect(listener.getsockname()) as conn:
            peer, _ = listener.accept()
            with peer:
                peer.settimeout(20)
                sock = context.wrap_socket(
                    conn, server_hostname="localhost", do_handshake_on_connect=False
                )
                with Call(_FIRST_CALLS[name], sock) as call:
                    first = peer.recv(1)
                    peer.sendall(b"no TLS at all")
                    with pytest.raises(hs.TLSError):
                        call.result(20)
                assert first == b"\x16"  # a record of the handshake (RFC 8446 section 5.1)
                with pytest.raises(OSError):
                    sock.sendall(b"secret")
                peer.settimeout(0.0)
                assert b"secret" not in peer.recv(65536)


@pytest.mark.parametrize("name", ["send", "sendall", "write", "sendmsg", "makefile"])
def test_the_first_call_does_the_handshake_that_was_put_off(
    ids: Identities, context: hs.SSLContext, name: str
) -> None:
    with _served(ids, _echo) as address, hs.timeout(20), hs.connect(address) as conn:
        sock = context.wrap_socket(conn, server_hostname="localhost", do_handshake_on_connect=False)
        assert sock.fileno() == conn.fileno()
        sock.settimeout(60)
        assert sock.version() is None  # None of them has done it.
        for refused in (sock.unwrap, sock.detach, lambda: sock._op_recv):
            with pytest.raises(ValueError, match="handshake not done yet"):
                refused()
        with sock.makefile("rb") if name == "makefile" else sock:
            if name != "makefile":
                _FIRST_CALLS[name](sock)
                assert sock.recv(6) == b"secret"
            assert sock.version() == "TLSv1.3"
            assert sock.recv.__self__ is conn  # no more expensive from now on


def test_of_two_threads_one_does_the_handshake_that_was_put_off(
    ids: Identities, context: hs.SSLContext
) -> None:
    for _ in range(20):
        with _served(ids, _echo) as address, hs.timeout(20), hs.connect(address) as conn:
            sock = context.wrap_socket(
                conn, server_hostname="localhost", do_handshake_on_connect=False
            )
            calls = [lambda: sock.recv(6), lambda: sock.sendall(b"secret"), sock.do_handshake]  # noqa: B023
            barrier = threading.Barrier(len(calls))

            def run(call: Callable[[], object], barrier: threading.Barrier = barrier) -> object:
                barrier.wait(20)
                with hs.timeout(20):
                    return call()

            with contextlib.ExitStack() as stack:
                started = [stack.enter_context(Call(run, call)) for call in calls]
                assert started[0].result(20) == b"secret"
                started[1].result(20)
                started[2].result(20)
            assert sock.version() == "TLSv1.3"


def test_who_waits_for_anothers_handshake_has_a_time_of_its_own(context: hs.SSLContext) -> None:
    with PeerScript([("recv", 100), ("stall",)], check=False) as peer, hs.timeout(20):
        with hs.connect(peer.address) as conn:
            sock = context.wrap_socket(
                conn, server_hostname="localhost", do_handshake_on_connect=False
            )

            def shake(token: hs.CancelToken) -> None:
                with hs.scope(token):
                    sock.do_handshake()

            first, second = hs.CancelToken(), hs.CancelToken()
            with Call(shake, first) as doing:
                peer.wait_received(100)
                with pytest.raises(hs.DeadlineExceeded):
                    shake(hs.CancelToken(timeout=0.05))
                with Call(shake, second) as waiting:
                    waiting.wait_until_blocked()
                    second.cancel("enough")
                    with pytest.raises(hs.Cancelled, match="enough"):
                        waiting.result(20)
                with Call(sock.recv, 1) as waiting:  # for the first, whose end is a failure
                    waiting.wait_until_blocked()
                    first.cancel()
                    with pytest.raises(hs.Poisoned):
                        waiting.result(20)
                with pytest.raises(hs.Cancelled):
                    doing.result(20)
            with pytest.raises(hs.Poisoned):
                sock.sendall(b"plain")


def test_a_context_wraps_what_speaks_tls_already(ids: Identities, context: hs.SSLContext) -> None:
    """TLS within TLS: a name is asked for and checked, whatever the outer layer has shown."""

    def proxy(conn: hs.Connection) -> None:
        conn.upgrade_to_tls(ids.server())
        conn.sendall(conn.recv_exactly(6))

    for put_off in (False, True):
        with hs.serve(proxy, ("127.0.0.1", 0), tls=ids.server(), drain_timeout=30) as server:
            with hs.timeout(20), hs.connect(server.address) as conn:
                outer = context.wrap_socket(
                    conn, server_hostname="localhost", do_handshake_on_connect=not put_off
                )
                sock = context.wrap_socket(outer, server_hostname="localhost")
                sock.sendall(b"secret")
                assert sock.recv(6) == b"secret"
            with hs.timeout(20), hs.connect(server.address, tls=ids.client()) as conn:
                with pytest.raises(hs.CertificateError):
                    context.wrap_socket(conn, server_hostname="other.test")


def test_unwrap_ends_the_stream_in_order(ids: Identities, context: hs.SSLContext) -> None:
    ended: list[bytes] = []

    def until_the_end(sock: ssl.SSLSocket) -> None:
        ended.append(sock.recv(10))
        sock.unwrap()

    with _served(ids, until_the_end) as address, hs.timeout(20), hs.connect(address) as conn:
        sock = context.wrap_socket(conn, server_hostname="localhost")
        assert sock.unwrap() is conn
        with pytest.raises(OSError, match="ended"):
            conn.sendall(b"plain")
    assert ended == [b""]


def test_an_end_without_close_notify_is_told(ids: Identities, context: hs.SSLContext) -> None:
    with PeerScript([("half_close",)], tls=_peer(ids)) as peer, hs.timeout(20):
        with hs.connect(peer.address) as conn:
            sock = context.wrap_socket(conn, server_hostname="localhost")
            with pytest.raises(hs.Truncated):
                sock.recv(1)


def test_what_it_cannot_do_is_refused_as_ssl_refuses_it(
    ids: Identities, context: hs.SSLContext
) -> None:
    with _served(ids, _echo) as address, hs.timeout(20), hs.connect(address) as conn:
        with pytest.raises(ValueError, match="check_hostname requires server_hostname"):
            context.wrap_socket(conn)
        with pytest.raises(ValueError, match="session must be None"):
            context.wrap_socket(conn, server_hostname="localhost", session=object())
        sock = context.wrap_socket(conn, server_hostname="localhost")
        assert sock.get_channel_binding() is None
        for kind in ("tls-server-end-point", "tls-exporter"):
            assert sock.get_channel_binding(kind) == conn.channel_binding(kind)
        with pytest.raises(ValueError, match="cb_type must be 'tls-server-end-point'"):
            sock.get_channel_binding("tls-other")
        with pytest.raises(ssl.SSLError, match="no other"):
            sock.verify_client_post_handshake()
        with pytest.raises(ValueError, match="TLS"):
            sock.detach()
        with pytest.raises(AttributeError):
            sock.no_such_method  # noqa: B018


def test_a_real_socket_is_treated_as_ever(ids: Identities, context: hs.SSLContext) -> None:
    with _served(ids, _echo) as address, socket.create_connection(address, 20) as plain:
        with context.wrap_socket(plain, server_hostname="localhost") as sock:
            assert isinstance(sock, ssl.SSLSocket)
            sock.sendall(b"x")
            assert sock.recv(1) == b"x"


def test_its_parameters_are_those_of_ssl() -> None:
    theirs = inspect.signature(ssl.SSLContext.wrap_socket).parameters
    assert list(theirs) == list(inspect.signature(hs.SSLContext.wrap_socket).parameters)
    for name in vars(ssl.SSLSocket):
        if not name.startswith("_") and name not in ("accept", "connect", "connect_ex"):
            known = hasattr(hs.TLSSocket, name) or hasattr(hs.Connection, name)
            known = known or name in hs.TLSSocket.__annotations__
            assert known or name in ("recvfrom", "sendto", "get_verified_chain"), name


def test_a_server_side_takes_it_too(ids: Identities) -> None:
    made = ssl.create_default_context(cafile=str(ids.ca))
    server = hs.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(ids.server_identity.chain, ids.server_identity.key)
    ours, theirs = socket.socketpair()
    theirs.settimeout(20)
    with hs.adopt(ours) as conn, theirs:
        conn.settimeout(20)
        with Call(lambda: server.wrap_socket(conn, server_side=True)) as call:
            with made.wrap_socket(theirs, server_hostname="localhost") as client:
                sock = call.result(20)
                assert (sock.server_side, sock.getpeercert()) == (True, None)
                client.sendall(b"hello")
                assert sock.recv(5) == b"hello"
        conn.abort()


def test_files_of_other_code_keep_it_open(ids: Identities, context: hs.SSLContext) -> None:
    """As urllib3's TLS within TLS makes them."""
    with _served(ids, _echo) as address, hs.timeout(20), hs.connect(address) as conn:
        sock = context.wrap_socket(conn, server_hostname="localhost")
        first, second = (socket.SocketIO(sock, "rb") for _ in range(2))
        sock._io_refs += 2
        sock.sendall(b"later")
        sock.close()
        assert not conn.closed
        assert first.read(2) == b"la"
        first.close()
        assert second.read(3) == b"ter"
        second.close()
        assert conn.closed


# ---- what libraries set up


def test_a_certificate_of_somebody_else_is_refused(ids: Identities, tmp_path: Path) -> None:
    other = Identities(tmp_path)
    context = hs.ssl_context(ca=other.ca)
    for later in (False, True):
        if later:
            context.load_verify_locations(cafile=str(ids.ca))
        with _served(ids, _echo) as address, hs.timeout(20), hs.connect(address) as conn:
            if later:
                context.wrap_socket(conn, server_hostname="localhost")
                continue
            with pytest.raises(ssl.SSLCertVerificationError) as caught:
                context.wrap_socket(conn, server_hostname="localhost")
            assert isinstance(caught.value, hs.CertificateError)


@pytest.mark.parametrize("how", ["file", "directory", "pem", "der"])
def test_trust_may_come_from_anywhere(ids: Identities, tmp_path: Path, how: str) -> None:
    context = hs.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    pem = ids.ca.read_text()
    if how == "file":
        context.load_verify_locations(ids.ca)
    elif how == "directory":
        from support.tls import openssl

        digest = openssl("x509", "-hash", "-noout", "-in", ids.ca).decode().strip()
        (tmp_path / f"{digest}.0").write_text(pem)
        context.load_verify_locations(capath=str(tmp_path))
    elif how == "pem":
        context.load_verify_locations(cadata=pem)
    else:
        second = Identities(tmp_path).ca.read_text()
        both = b"".join(map(ssl.PEM_cert_to_DER_cert, (second, pem)))
        context.load_verify_locations(cadata=both)
    with _served(ids, _echo) as address, hs.timeout(20), hs.connect(address) as conn:
        assert context.wrap_socket(conn, server_hostname="localhost").getpeercert()


def test_the_name_and_the_certificate_are_checked_as_it_says(ids: Identities) -> None:
    context = hs.ssl_context(ca=ids.ca)
    with _served(ids, _echo) as address, hs.timeout(20), hs.connect(address) as conn:
        with pytest.raises(hs.CertificateError):
            context.wrap_socket(conn, server_hostname="other.test")
    context.check_hostname = False
    with _served(ids, _echo) as address, hs.timeout(20), hs.connect(address) as conn:
        context.wrap_socket(conn, server_hostname="other.test")
    assert context.tls_config().insecure_skip_hostname
    assert not context.tls_config().insecure_skip_verify


@pytest.mark.filterwarnings("ignore:.*OP_NO_TLS.*:DeprecationWarning")
def test_versions_ciphers_and_tickets_are_taken_over(ids: Identities) -> None:
    context = hs.ssl_context(ca=ids.ca)
    assert (context.tls_config().min_version, context.tls_config().max_version) == (
        "TLSv1.2",
        "TLSv1.3",
    )
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("ECDHE-ECDSA-AES256-GCM-SHA384")
    context.options |= ssl.OP_NO_TICKET
    config = context.tls_config()
    assert (config.max_version, config.ciphers) == ("TLSv1.2", "ECDHE-ECDSA-AES256-GCM-SHA384")
    assert not config.sessions
    with _served(ids, _echo) as address, hs.timeout(20), hs.connect(address) as conn:
        sock = context.wrap_socket(conn, server_hostname="localhost")
        assert sock.cipher() == ("ECDHE-ECDSA-AES256-GCM-SHA384", "TLSv1.2", 256)
    context.maximum_version = ssl.TLSVersion.MAXIMUM_SUPPORTED
    context.options |= ssl.OP_NO_TLSv1_2
    assert context.tls_config().min_version == "TLSv1.3"
    context.options |= ssl.OP_NO_TLSv1_3
    with pytest.raises(ValueError, match=r"must allow TLS 1\.2 or 1\.3"):
        context.tls_config()


def test_a_clients_certificate_is_shown(ids: Identities) -> None:
    seen: list[Any] = []
    alice = ids.issue(("alice.test",), usages=CLIENT)

    def look(sock: ssl.SSLSocket) -> None:
        seen.append(sock.getpeercert())
        sock.sendall(b"x")

    loaded, given = hs.ssl_context(ca=ids.ca), hs.ssl_context(ca=ids.ca, certificates=alice)
    loaded.load_cert_chain(ids.server_identity.chain, ids.server_identity.key)
    loaded.load_cert_chain(alice.chain, alice.key, password=lambda: "not needed")
    for context in (loaded, given):
        with (
            _served(
                ids, look, load_verify_locations=str(ids.ca), verify_mode=ssl.CERT_REQUIRED
            ) as address,
            hs.timeout(20),
            hs.connect(address) as conn,
        ):
            sock = context.wrap_socket(conn, server_hostname="localhost")
            assert sock.recv(1) == b"x"
    assert [("DNS", "alice.test")] == [one for cert in seen for one in cert["subjectAltName"]][:1]
    assert len(seen) == 2


def test_the_config_is_made_once_and_again_after_a_change(context: hs.SSLContext) -> None:
    first = context.tls_config()
    assert context.tls_config() is first
    context.set_alpn_protocols(["h2"])
    assert context.tls_config() is not first
    assert context.tls_config().alpn == ("h2",)


def test_one_that_trusts_nobody_is_refused(ids: Identities) -> None:
    context = hs.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    with pytest.raises(ValueError, match="trusts nobody"):
        context.tls_config()


# ---- taken over from others


def test_an_ssl_context_of_ssl_is_taken_over(ids: Identities) -> None:
    given = ssl.create_default_context(cafile=str(ids.ca))
    given.set_alpn_protocols(["h2", "http/1.1"])
    given.minimum_version = ssl.TLSVersion.TLSv1_3
    taken = hs.ssl_context(given)
    config = taken.tls_config()
    assert (config.alpn, config.min_version) == (("h2", "http/1.1"), "TLSv1.3")
    with _served(ids, _echo, set_alpn_protocols=["h2"]) as address, hs.timeout(20):
        with hs.connect(address) as conn:
            sock = taken.wrap_socket(conn, server_hostname="localhost")
            assert sock.selected_alpn_protocol() == "h2"


def test_its_ciphers_are_taken_over_if_they_are_not_the_usual(ids: Identities) -> None:
    given = ssl.create_default_context(cafile=str(ids.ca))
    assert hs.ssl_context(given).tls_config().ciphers is None
    given.set_ciphers("ECDHE+AESGCM")
    ciphers = hs.ssl_context(given).tls_config().ciphers
    assert ciphers is not None
    assert "ECDHE-RSA-AES256-GCM-SHA384" in ciphers.split(":")
    assert "TLS_" not in ciphers


def test_no_verification_is_taken_over(ids: Identities) -> None:
    given = ssl.create_default_context()
    given.check_hostname, given.verify_mode = False, ssl.CERT_NONE
    assert hs.ssl_context(given).tls_config().insecure_skip_verify


def test_whom_it_trusts_must_be_to_be_read(ids: Identities) -> None:
    empty = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    with pytest.raises(ValueError, match="ca must be given: whom the SSLContext trusts"):
        hs.ssl_context(empty)
    config = hs.ssl_context(empty, ca=[ids.ca, ids.ca.read_bytes()]).tls_config()
    assert not config.insecure_skip_verify
    assert hs.ssl_context(empty, ca="system").tls_config().ca is None


def test_what_cannot_be_taken_over_is_refused_by_name(ids: Identities) -> None:
    def fresh() -> hs.SSLContext:
        return hs.ssl_context(ca=ids.ca)

    with_crl = fresh()
    with_crl.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF
    with_curve = fresh()
    with_curve.set_ecdh_curve("prime256v1")
    with_option = fresh()
    with_option.options |= 0x4  # SSL_OP_LEGACY_SERVER_CONNECT
    for made, named in (
        (with_crl, "VERIFY_CRL_CHECK"),
        (with_curve, r"set_ecdh_curve\(\)"),
        (with_option, "options"),
    ):
        with pytest.raises(ValueError, match=f"cannot take over from the SSLContext: .*{named}"):
            made.tls_config()
    server = hs.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.sni_callback = lambda *_: None
    with pytest.raises(ValueError, match="sni_callback"):
        server.tls_config(server_side=True)
    with pytest.raises(ValueError, match="given must be a client's SSLContext"):
        hs.ssl_context(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
    with pytest.raises(ValueError, match="hardsock's already"):
        hs.ssl_context(fresh())
    with pytest.raises(
        TypeError, match="given must be an SSLContext, a TLSConfig or None, not str"
    ):
        hs.ssl_context("x")  # type: ignore[arg-type]


def test_a_tls_config_is_used_as_it_is(ids: Identities) -> None:
    config = hs.TLSConfig(ca=ids.ca)
    context = hs.ssl_context(config)
    assert context.tls_config() is config
    context.load_default_certs()  # as a library does
    assert context.tls_config() is config
    context.set_alpn_protocols(["http/1.1"])
    assert context.tls_config() == hs.TLSConfig(ca=ids.ca, alpn=("http/1.1",))
    with_own = hs.ssl_context(hs.TLSConfig(ca=ids.ca, alpn=["h2"]))
    with_own.set_alpn_protocols(["http/1.1"])
    assert with_own.tls_config().alpn == ["h2"]
    with pytest.raises(ValueError, match="contradicts"):
        context.tls_config(server_side=True)
    with pytest.raises(ValueError, match="give them there"):
        hs.ssl_context(config, ca=ids.ca)
    assert not hs.ssl_context(hs.TLSConfig(insecure_skip_verify=True)).check_hostname


# ---- a bare one takes the connection away


def test_a_bare_context_warns_with_the_line_to_write_instead(ids: Identities) -> None:
    bare = ssl.create_default_context(cafile=str(ids.ca))
    with _served(ids, _echo) as address, hs.timeout(20):
        with pytest.warns(hs.EscapeWarning, match=r"hardsock\.ssl_context\(context\)") as caught:
            sock = bare.wrap_socket(hs.connect(address), server_hostname="localhost")  # type: ignore[arg-type]
        assert [one.filename for one in caught] == [__file__]
        sock.close()


def test_as_an_error_the_warning_leaves_the_connection_as_it_was(ids: Identities) -> None:
    bare = ssl.create_default_context(cafile=str(ids.ca))
    with _served(ids, _echo) as address, hs.timeout(20), hs.connect(address) as conn:
        with pytest.raises(hs.EscapeWarning):
            bare.wrap_socket(conn, server_hostname="localhost")  # type: ignore[arg-type]
        sock = hs.ssl_context(ca=ids.ca).wrap_socket(conn, server_hostname="localhost")
        sock.sendall(b"x")
        assert sock.recv(1) == b"x"


def test_detaching_by_hand_is_no_escape() -> None:
    ours, theirs = socket.socketpair()
    with theirs, socket.socket(fileno=hs.adopt(ours).detach()):
        pass


def test_http_client_over_tls(ids: Identities, context: hs.SSLContext) -> None:
    def answer(sock: ssl.SSLSocket) -> None:
        while b"\r\n\r\n" not in sock.recv(65536):
            pass
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    with _served(ids, answer) as (_, port):
        client = http.client.HTTPSConnection("localhost", port, context=context, timeout=20)
        client._create_connection = hs.create_connection  # type: ignore[attr-defined]
        client.request("GET", "/")
        assert isinstance(client.sock, hs.TLSSocket)
        assert client.getresponse().read() == b"ok"
        client.close()


def test_an_expired_certificate_says_so(ids: Identities, context: hs.SSLContext) -> None:
    old = ids.issue_between(datetime.timedelta(days=-30), datetime.timedelta(days=-1))
    with _served(ids, _echo, identity=old) as address, hs.timeout(20), hs.connect(address) as conn:
        with pytest.raises(ssl.SSLCertVerificationError, match="expired"):
            context.wrap_socket(conn, server_hostname="localhost")


def _taken_over(change: Callable[[ssl.SSLContext], object], ca: Path) -> hs.SSLContext:
    given = ssl.create_default_context(cafile=str(ca))
    given.verify_flags = ssl.VERIFY_X509_TRUSTED_FIRST
    change(given)
    return hs.ssl_context(given)


def _refusal(context: hs.SSLContext, ids: Identities, identity: hs.Certificate) -> str | None:
    """What the handshake says against the *identity* of a server, if anything."""
    with _served(ids, _echo, identity=identity) as address, hs.timeout(20):
        with hs.connect(address) as conn:
            try:
                context.wrap_socket(conn, server_hostname="localhost")
            except hs.TLSError as exc:
                return str(exc)
            return None


def test_a_strict_context_stays_strict(ids: Identities) -> None:
    # An authority without keyUsage, which RFC 5280 section 4.2.1.3 demands.
    chain, key = ids.authority.intermediate("loose", may_sign=None).issue(file="loose-leaf")
    loose = hs.Certificate(chain=chain, key=key)
    for is_strict in (False, True):
        context = _taken_over(
            lambda given, flag=is_strict: setattr(  # type: ignore[misc]
                given, "verify_flags", given.verify_flags | (flag * ssl.VERIFY_X509_STRICT)
            ),
            ids.ca,
        )
        assert context.tls_config().strict_certificates is is_strict
        assert (_refusal(context, ids, loose) is not None) is is_strict


def test_an_intermediate_is_no_root_unless_the_context_says_so(ids: Identities) -> None:
    middle = ids.authority.intermediate("middle")
    chain, key = middle.issue(("localhost",), file="leaf")
    for is_partial in (False, True):
        context = _taken_over(
            lambda given, flag=is_partial: setattr(  # type: ignore[misc]
                given, "verify_flags", given.verify_flags | (flag * ssl.VERIFY_X509_PARTIAL_CHAIN)
            ),
            middle.certificate,
        )
        assert context.tls_config().whole_chains is not is_partial
        found = _refusal(context, ids, hs.Certificate(chain=chain, key=key))
        assert (found is None) is is_partial


def test_a_security_level_is_not_lowered(ids: Identities) -> None:
    context = _taken_over(lambda given: given.set_ciphers("ECDHE+AESGCM:@SECLEVEL=4"), ids.ca)
    assert (context.security_level, context.tls_config().security_level) == (4, 4)
    assert _refusal(context, ids, ids.server_identity) is not None  # P-256 is worth 128 bits
    context = _taken_over(lambda given: given.set_ciphers("ECDHE+AESGCM:@SECLEVEL=1"), ids.ca)
    assert context.tls_config().security_level == 2
    assert _refusal(context, ids, ids.server_identity) is None


def test_what_could_not_be_loaded_is_not_taken_for_loaded(ids: Identities, tmp_path: Path) -> None:
    bad = tmp_path / "bad.pem"
    bad.write_text("no certificate")
    context = hs.ssl_context(ca=ids.ca)
    for _ in range(2):
        with pytest.raises(ssl.SSLError):
            context.load_verify_locations(bad)
        with pytest.raises(ssl.SSLError):
            context.load_verify_locations(cadata=b"no certificate")
        with pytest.raises(ssl.SSLError):
            context.load_cert_chain(bad)
        with pytest.raises(FileNotFoundError):
            context.load_cert_chain(tmp_path / "missing.pem")
    assert context.tls_config().certificates is None


def test_a_clients_chain_is_the_one_that_was_loaded_last(ids: Identities) -> None:
    a, b = (ids.issue((f"{name}.test",), usages=CLIENT) for name in "ab")
    context = hs.ssl_context(ca=ids.ca)
    for one in (a, b, a):
        context.load_cert_chain(one.chain, one.key)
    told: list[Any] = []

    def tell(sock: ssl.SSLSocket) -> None:
        told.append(sock.getpeercert())
        sock.sendall(b"x")

    asked = {"load_verify_locations": str(ids.ca), "verify_mode": ssl.CERT_REQUIRED}
    with _served(ids, tell, **asked) as address, hs.timeout(20), hs.connect(address) as conn:
        assert context.wrap_socket(conn, server_hostname="localhost").recv(1) == b"x"
    assert told[0]["subjectAltName"] == (("DNS", "a.test"),)
    config = context.tls_config()
    context.load_cert_chain(a.chain, a.key)  # as libraries do for each connection
    assert context.tls_config() is config
