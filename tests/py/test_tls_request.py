"""A server asks for its client's certificate after the handshake (RFC 8446 section 4.6.2)."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Iterator
from typing import Any

import pytest

import hardsock as hs
from hardsock import aio
from hardsock.lab.servers.process import find_program, free_port
from hardsock.lab.threads import Call
from support.loops import MAINS, RunMain
from support.programs import Program, openssl_s_client
from support.require import need_module, require
from support.tls import Identities, tls_pair

AHEAD = 131072


def asking(ids: Identities, **settings: Any) -> hs.TLSConfig:
    return ids.server(**({"client_certificates": "on_request", "ca": ids.ca} | settings))


def willing(ids: Identities, **settings: Any) -> hs.TLSConfig:
    own = {"certificates": ids.client_identity, "post_handshake_auth": True}
    return ids.client(**(own | settings))


def shown_by(conn: hs.Connection | aio.Connection) -> str | None:
    assert conn.tls is not None
    certificate = conn.tls.peer_certificate
    return None if certificate is None else certificate.subject


def still_speaks(ours: hs.Connection, theirs: hs.Connection) -> None:
    """Both ways."""
    for one, other in ((ours, theirs), (theirs, ours)):
        one.sendall(b"word", timeout=60)
        assert b"word" == other.recv_exactly(4, timeout=60)


# ---- Of one kind


def test_the_client_answers_while_it_receives(ids: Identities) -> None:
    with tls_pair(willing(ids), asking(ids)) as (ours, theirs):
        assert shown_by(theirs) is None
        with Call(ours.recv_exactly, 2, timeout=60) as receiving:
            theirs.request_client_certificate(timeout=60)
            assert shown_by(theirs) == "CN=alice.test"
            assert theirs.tls is not None
            assert theirs.tls.verified
            theirs.sendall(b"ok")
            assert receiving.result() == b"ok"
        still_speaks(ours, theirs)


def test_it_may_be_asked_again(ids: Identities) -> None:
    with tls_pair(willing(ids), asking(ids)) as (ours, theirs):
        for _ in range(3):
            with Call(ours.recv_exactly, 2, timeout=60) as receiving:
                theirs.request_client_certificate(timeout=60)
                theirs.sendall(b"ok")
                receiving.result()
        still_speaks(ours, theirs)


def test_what_came_before_the_answer_is_received_after_it(ids: Identities) -> None:
    sent = bytes(range(256)) * 256
    with tls_pair(willing(ids), asking(ids)) as (ours, theirs):
        ours.sendall(sent[:40000], timeout=60)
        with Call(theirs.request_client_certificate, timeout=60) as asked:
            ours.sendall(sent[40000:], timeout=60)
            with Call(ours.recv_exactly, 2, timeout=60) as receiving:
                asked.result()
                theirs.sendall(b"ok", timeout=60)
                assert receiving.result() == b"ok"
        assert shown_by(theirs) == "CN=alice.test"
        assert theirs.recv_exactly(len(sent), timeout=60) == sent


def test_more_than_is_kept_has_to_be_received_first(ids: Identities) -> None:
    sent = b"x" * (AHEAD + 40000)
    with tls_pair(willing(ids), asking(ids)) as (ours, theirs):
        with Call(ours.sendall, sent, timeout=20) as sending:
            with pytest.raises(hs.TLSError, match="receive them, and call again") as caught:
                theirs.request_client_certificate(timeout=60)
            assert caught.value.failure == "protocol"
            assert theirs.recv_exactly(len(sent), timeout=60) == sent
            sending.result()
        with Call(ours.recv_exactly, 2, timeout=60) as receiving:
            theirs.request_client_certificate(timeout=60)  # the same request
            theirs.sendall(b"ok")
            receiving.result()
        assert shown_by(theirs) == "CN=alice.test"


# ---- What ends the wait


def test_after_a_deadline_the_request_stands(ids: Identities) -> None:
    with tls_pair(willing(ids), asking(ids)) as (ours, theirs):
        with pytest.raises(hs.DeadlineExceeded) as caught:
            theirs.request_client_certificate(timeout=0.05)
        assert caught.value.op == "request_client_certificate"
        theirs.sendall(b"ok")
        assert ours.recv_exactly(2, timeout=60) == b"ok"  # and answers
        theirs.request_client_certificate(timeout=60)
        assert shown_by(theirs) == "CN=alice.test"
        still_speaks(ours, theirs)


def test_an_answer_that_came_with_other_data_counts(ids: Identities) -> None:
    with tls_pair(willing(ids), asking(ids)) as (ours, theirs):
        theirs.request_client_certificate(wait=False)
        theirs.sendall(b"ok")
        assert ours.recv_exactly(2, timeout=60) == b"ok"
        ours.sendall(b"on")
        assert theirs.recv_exactly(2, timeout=60) == b"on"
        assert shown_by(theirs) == "CN=alice.test"
        theirs.request_client_certificate(timeout=0)
        still_speaks(ours, theirs)


def test_another_thread_cancels_it(ids: Identities) -> None:
    token = hs.CancelToken()
    with tls_pair(willing(ids), asking(ids)) as (ours, theirs):
        with Call(theirs.request_client_certificate, token=token) as asked:
            asked.wait_until_blocked()
            token.cancel("enough")
            with pytest.raises(hs.Cancelled, match="enough"):
                asked.result()
        still_speaks(ours, theirs)  # and answers
        theirs.request_client_certificate(timeout=60)
        assert shown_by(theirs) == "CN=alice.test"


def test_closing_it_from_another_thread_ends_the_wait(ids: Identities) -> None:
    with tls_pair(willing(ids), asking(ids)) as (_ours, theirs):
        with Call(theirs.request_client_certificate, timeout=60) as asked:
            asked.wait_until_blocked()
            theirs.close()
            with pytest.raises(hs.Closed):
                asked.result()


def test_who_reads_meanwhile_is_refused(ids: Identities) -> None:
    with tls_pair(willing(ids), asking(ids)) as (ours, theirs):
        with Call(theirs.recv, 1, timeout=60) as reading:
            reading.wait_until_blocked()
            with pytest.raises(hs.Busy):
                theirs.request_client_certificate(timeout=60)
            ours.sendall(b"x")
            reading.result()
        with Call(theirs.request_client_certificate, timeout=60) as asked:
            asked.wait_until_blocked()
            for call in (lambda: theirs.recv(1), lambda: theirs.sendall(b"x")):
                with pytest.raises(hs.Busy):
                    call()
            with Call(ours.recv, 1, timeout=60):
                asked.result()
                theirs.sendall(b"x")


# ---- Clients that do not show what is asked for


def test_a_client_without_a_certificate_is_turned_away(ids: Identities) -> None:
    with tls_pair(willing(ids, certificates=None), asking(ids)) as (ours, theirs):
        with Call(ours.recv, 1, timeout=60) as receiving:
            with pytest.raises(hs.CertificateError, match="sent no certificate") as caught:
                theirs.request_client_certificate(timeout=60)
            assert caught.value.failure == "verify"
            with pytest.raises(hs.TLSError) as told:
                receiving.result()
            assert told.value.alert == 116  # certificate_required
        with pytest.raises(hs.HardsockError):
            theirs.sendall(b"secret")


def test_it_may_be_let_off(ids: Identities) -> None:
    with tls_pair(willing(ids, certificates=None), asking(ids)) as (ours, theirs):
        with Call(ours.recv_exactly, 2, timeout=60) as receiving:
            theirs.request_client_certificate(required=False, timeout=60)
            theirs.sendall(b"no")
            receiving.result()
        assert shown_by(theirs) is None
        still_speaks(ours, theirs)


def test_a_stranger_is_turned_away(ids: Identities, tmp_path: Any) -> None:
    strangers = Identities(tmp_path)
    config = willing(ids, certificates=strangers.client_identity)
    with tls_pair(config, asking(ids)) as (ours, theirs):
        with Call(ours.recv, 1, timeout=60) as receiving:
            with pytest.raises(hs.CertificateError):
                theirs.request_client_certificate(required=False, timeout=60)
            with pytest.raises(hs.TLSError):
                receiving.result()
        with pytest.raises(hs.HardsockError):
            theirs.recv(1, timeout=60)


def test_a_client_that_leaves_instead_has_shown_nothing(ids: Identities) -> None:
    with tls_pair(willing(ids), asking(ids)) as (ours, theirs):
        theirs.request_client_certificate(wait=False)
        ours.sendall(b"rest")
        ours.close_write()
        with pytest.raises(hs.Truncated, match="before it showed a certificate"):
            theirs.request_client_certificate(timeout=60)
        assert theirs.recv_exactly(4, timeout=60) == b"rest"


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"post_handshake_auth": False}, "has not offered to be asked"),
        (
            {"post_handshake_auth": False, "max_version": "TLSv1.2", "certificates": None},
            "speaks TLSv1.2",
        ),
    ],
)
def test_who_cannot_be_asked_is_left_alone(
    ids: Identities, settings: dict[str, Any], text: str
) -> None:
    with tls_pair(willing(ids, **settings), asking(ids)) as (ours, theirs):
        for _ in range(2):
            with pytest.raises(hs.TLSError, match=text) as caught:
                theirs.request_client_certificate(timeout=60)
            assert caught.value.failure == "version"
        assert shown_by(theirs) is None
        still_speaks(ours, theirs)


def test_with_tls_12_the_handshake_has_asked(ids: Identities) -> None:
    config = willing(ids, post_handshake_auth=False, max_version="TLSv1.2")
    with tls_pair(config, asking(ids)) as (ours, theirs):
        assert shown_by(theirs) == "CN=alice.test"
        for _ in range(2):
            theirs.request_client_certificate(timeout=60)
        still_speaks(ours, theirs)


def test_what_makes_no_sense_is_refused(ids: Identities) -> None:
    with tls_pair(willing(ids), asking(ids)) as (ours, _theirs):
        with pytest.raises(ValueError, match="a client asks for no certificate"):
            ours.request_client_certificate()
    with tls_pair(willing(ids), ids.server()) as (_ours, theirs):
        with pytest.raises(ValueError, match="client_certificates must not be 'none'"):
            theirs.request_client_certificate()
    with hs.listen(("127.0.0.1", 0)) as listener, hs.connect(listener.address) as plain:
        with pytest.raises(ValueError, match="plain connection"):
            plain.request_client_certificate()
        with pytest.raises(TypeError, match="required must be"):
            plain.request_client_certificate(required=1)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "settings",
    [
        {"role": "client", "post_handshake_auth": True, "max_version": "TLSv1.2"},
        {"role": "server", "client_certificates": "on_request", "max_version": "TLSv1.2"},
        {"role": "server", "post_handshake_auth": True},
    ],
)
def test_settings_that_could_never_ask_are_refused(
    ids: Identities, settings: dict[str, Any]
) -> None:
    if settings["role"] == "server":
        settings = settings | {"certificates": ids.server_identity, "ca": ids.ca}
    with pytest.raises(ValueError, match=r"takes TLS 1\.3|is for role='client'"):
        hs.TLSConfig(**settings)


# ---- What follows


def test_a_session_resumed_later_stands_for_the_certificate(ids: Identities) -> None:
    """Tickets that are made behind the answer hold it; those of before do not."""
    ours_config, theirs_config = willing(ids), asking(ids, tickets=1)
    found = []
    with hs.listen(("127.0.0.1", 0), tls=theirs_config) as listener, hs.timeout(30):
        for round_ in range(3):
            with Call(listener.accept) as accepting:
                with hs.connect(listener.address, tls=ours_config) as ours:
                    with accepting.result() as theirs, Call(ours.recv_exactly, 2) as receiving:
                        assert theirs.tls is not None
                        found.append((theirs.tls.resumed, shown_by(theirs)))
                        if round_ == 1:
                            theirs.request_client_certificate()
                        theirs.sendall(b"ok")
                        receiving.result()
    assert found == [(False, None), (True, None), (True, "CN=alice.test")]


@pytest.mark.parametrize("name", ["asyncio", "trio"])
def test_it_is_awaited(ids: Identities, name: str) -> None:
    if name == "trio":
        need_module("trio")

    async def main() -> None:
        with hs.listen(("127.0.0.1", 0), tls=asking(ids)) as listener:
            with Call(listener.accept, timeout=60) as accepting:
                with hs.connect(listener.address, tls=willing(ids), timeout=60) as ours:
                    async with aio.Connection(accepting.result()) as theirs:
                        with pytest.raises(hs.DeadlineExceeded):
                            await theirs.request_client_certificate(timeout=0.05)
                        with Call(ours.recv_exactly, 2, timeout=60) as receiving:
                            await theirs.request_client_certificate(timeout=60)
                            assert shown_by(theirs) == "CN=alice.test"
                            await theirs.sendall(b"ok")
                            receiving.result()

    run: RunMain = MAINS[name]
    run(main)


def test_a_cancelled_task_leaves_the_connection_usable(ids: Identities) -> None:
    async def main() -> None:
        with hs.listen(("127.0.0.1", 0), tls=asking(ids)) as listener:
            with Call(listener.accept, timeout=60) as accepting:
                with hs.connect(listener.address, tls=willing(ids), timeout=60) as ours:
                    async with aio.Connection(accepting.result()) as theirs:
                        task = asyncio.ensure_future(theirs.request_client_certificate())
                        await asyncio.sleep(0)
                        task.cancel()
                        with pytest.raises(asyncio.CancelledError):
                            await task
                        with Call(ours.recv_exactly, 2, timeout=60) as receiving:
                            await theirs.request_client_certificate(timeout=60)
                            await theirs.sendall(b"ok")
                            receiving.result()

    asyncio.run(main())


# ---- With others


def python_context(ids: Identities, server: bool) -> ssl.SSLContext:
    purpose = ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT
    context = ssl.SSLContext(purpose)
    own = ids.server_identity if server else ids.client_identity
    context.load_cert_chain(own.chain, own.key)  # type: ignore[arg-type]
    context.load_verify_locations(ids.ca)
    context.verify_mode = ssl.CERT_REQUIRED
    context.post_handshake_auth = True
    return context


@contextlib.contextmanager
def python_server(ids: Identities, after: list[Any]) -> Iterator[tuple[str, int]]:
    """Of each connection: a byte, the request, a byte, and who that byte came from."""

    def serve(listening: socket.socket) -> None:
        raw, _ = listening.accept()
        with python_context(ids, True).wrap_socket(raw, server_side=True) as conn:
            conn.settimeout(60)
            after.append(conn.getpeercert())
            conn.recv(1)
            conn.verify_client_post_handshake()
            conn.sendall(b"?")
            try:
                conn.recv(1)
                after.append(conn.getpeercert())
            except ssl.SSLError as exc:
                after.append(exc)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        with Call(serve, listening) as serving:
            yield listening.getsockname()
            serving.join(60)


def test_a_python_server_asks_our_client(ids: Identities) -> None:
    after: list[Any] = []
    with python_server(ids, after) as address:
        with hs.connect(address, tls=willing(ids), timeout=60) as conn, hs.timeout(60):
            conn.sendall(b"!")
            assert conn.recv_exactly(1) == b"?"
            conn.sendall(b"!")
            with pytest.raises(hs.Truncated):  # it says no close_notify
                conn.recv(1)
    assert after[0] is None
    assert after[1]["subject"] == ((("commonName", "alice.test"),),)


def test_a_python_server_is_told_that_there_is_none(ids: Identities) -> None:
    after: list[Any] = []
    with python_server(ids, after) as address:
        config = willing(ids, certificates=None)
        with hs.connect(address, tls=config, timeout=60) as conn, hs.timeout(60):
            conn.sendall(b"!")
            assert conn.recv_exactly(1) == b"?"
            with contextlib.suppress(hs.HardsockError):
                conn.sendall(b"!")
            with pytest.raises(hs.TLSError, match="alert 116"):
                conn.recv(1)
    assert "PEER_DID_NOT_RETURN_A_CERTIFICATE" in str(after[1])


def test_our_server_asks_a_python_client(ids: Identities) -> None:
    with hs.listen(("127.0.0.1", 0), tls=asking(ids)) as listener:
        with Call(listener.accept, timeout=60) as accepting:
            raw = socket.create_connection(listener.address, 60)
            context = python_context(ids, False)
            with context.wrap_socket(raw, server_hostname="localhost") as sock:
                with accepting.result() as conn, Call(sock.recv, 1) as receiving:
                    conn.request_client_certificate(timeout=60)
                    assert shown_by(conn) == "CN=alice.test"
                    conn.sendall(b"x")
                    assert receiving.result() == b"x"


def test_our_server_asks_s_client(ids: Identities) -> None:
    own = ids.client_identity
    options = ["-CAfile", str(ids.ca), "-enable_pha"]
    options += ["-cert", str(own.chain), "-key", str(own.key)]
    with hs.listen(("127.0.0.1", 0), tls=asking(ids)) as listener:
        with Call(listener.accept, timeout=60) as accepting:
            with require(openssl_s_client(listener.address, "localhost", options)) as program:
                with accepting.result() as conn:
                    program.say(b"hello\n")
                    conn.request_client_certificate(timeout=60)
                    assert shown_by(conn) == "CN=alice.test"
                    assert conn.recv_exactly(6, timeout=60) == b"hello\n"
                    conn.sendall(b"bye")
                    assert program.read(3) == b"bye"


def test_s_server_asks_our_client(ids: Identities) -> None:
    own, port = ids.server_identity, free_port()
    argv = [find_program("openssl"), "s_server", "-accept", f"127.0.0.1:{port}", "-tls1_3"]
    argv += ["-cert", str(own.chain), "-key", str(own.key)]
    argv += ["-CAfile", str(ids.ca), "-verify", "2", "-verify_return_error"]
    with Program(argv) as program:
        program.read_until(b"ACCEPT\n")
        with hs.connect(("127.0.0.1", port), tls=willing(ids), timeout=60) as conn, hs.timeout(20):
            conn.confirm()
            program.say(b"c\n")
            with Call(conn.recv_exactly, 4, timeout=20) as receiving:
                program.read_until(b"alice.test")
                program.say(b"word\n")
                assert receiving.result() == b"word"
            program.say(b"Q\n")


# ---- Through the faces of ssl


def test_with_tls_1_2_a_required_certificate_is_required_in_the_handshake(
    ids: Identities,
) -> None:
    """As with ``ssl``: an older client gets nothing by being too old to be asked later."""
    theirs = hs.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    own = ids.server_identity
    theirs.load_cert_chain(own.chain, own.key)  # type: ignore[arg-type]
    theirs.load_verify_locations(ids.ca)
    theirs.verify_mode = ssl.CERT_REQUIRED
    theirs.post_handshake_auth = True
    for shown, version, refused in (
        (None, "TLSv1.2", True),
        (ids.client_identity, "TLSv1.2", False),
        (None, "TLSv1.3", False),
    ):
        config = ids.client(certificates=shown, max_version=version)
        with hs.listen(("127.0.0.1", 0)) as listener, hs.connect(listener.address) as near:
            with listener.accept(timeout=60) as far, hs.timeout(20):
                with Call(theirs.wrap_socket, far, server_side=True) as wrapping:
                    if not refused:
                        near.upgrade_to_tls(config, server_name="localhost")
                        assert wrapping.result().version() == version
                        continue
                    with pytest.raises(hs.TLSError):
                        near.upgrade_to_tls(config, server_name="localhost")
                    with pytest.raises(hs.TLSError, match="certificate"):
                        wrapping.result()


def test_the_face_of_ssl_asks_and_answers(ids: Identities) -> None:
    theirs, ours = (
        hs.ssl_context(asking(ids)),
        hs.ssl_context(python_context(ids, False), certificates=ids.client_identity),
    )
    assert ours.tls_config().post_handshake_auth
    with hs.listen(("127.0.0.1", 0)) as listener, hs.connect(listener.address) as near:
        with listener.accept(timeout=60) as far, hs.timeout(20):
            with Call(theirs.wrap_socket, far, server_side=True) as wrapping:
                client = ours.wrap_socket(near, server_hostname="localhost")
                server = wrapping.result()
            with pytest.raises(ssl.SSLError, match="no other"):
                client.verify_client_post_handshake()
            server.verify_client_post_handshake()
            server.sendall(b"ok")
            assert client.recv(2) == b"ok"
            client.sendall(b"ok")
            assert server.recv(2) == b"ok"
            assert server.getpeercert()["subject"] == ((("commonName", "alice.test"),),)
