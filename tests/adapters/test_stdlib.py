"""The standard library's clients over hardsock."""

from __future__ import annotations

import contextlib
import gc
import http.client
import io
import threading
import urllib.error
import urllib.request
import weakref
import xmlrpc.client
import xmlrpc.server
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

import hardsock as hs
import hardsock.adapters.http
from adapters.dialog import Dialog
from adapters.endings import SHORT, causes
from adapters.http_contract import *
from adapters.http_contract import nothing_open, server_context
from adapters.http_peer import HttpPeer
from hardsock.adapters import ftplib, imaplib, poplib, smtplib
from hardsock.lab.blackhole import BlackHole
from hardsock.lab.namespaces import Namespace
from hardsock.lab.peers import PeerScript
from hardsock.lab.threads import IO_WAITS, Call
from support.require import require
from support.tls import Identities


class HttpClient:
    """One connection, as http.client is used."""

    def __init__(self, total: float | None, context: hs.SSLContext | None) -> None:
        self._total, self._context = total, context
        self.conn: Any = None

    def _answer(self, method: str, url: str, body: bytes | None = None) -> Any:
        parts = urlsplit(url)
        if self.conn is None and parts.scheme == "https":
            self.conn = hardsock.adapters.http.HTTPSConnection(
                parts.netloc, total=self._total, context=self._context
            )
        elif self.conn is None:
            self.conn = hardsock.adapters.http.HTTPConnection(parts.netloc, total=self._total)
        try:
            self.conn.request(method, parts.path + "?" + parts.query, body)
            return self.conn.getresponse()
        except ConnectionResetError:
            if method != "POST":
                raise
            return self.conn.getresponse()
        except BaseException:
            self.conn.close()
            raise

    def get(self, url: str) -> bytes:
        answer = self._answer("GET", url)
        try:
            return answer.read()  # type: ignore[no-any-return]
        except BaseException:
            self.conn.close()
            raise

    def post(self, url: str, body: bytes) -> int:
        return int(self._answer("POST", url, body).status)

    def stream(self, url: str) -> Iterator[bytes]:
        answer = self._answer("GET", url)

        def body() -> Iterator[bytes]:
            try:
                while data := answer.read1():
                    yield data
            finally:
                answer.close()
                self.conn.close()

        return body()


class HttpDriver:
    name = "http.client"
    timed_out = (hs.DeadlineExceeded,)
    failed = (OSError, http.client.HTTPException)
    lacks = frozenset({"queue", "retries", "redirects"})

    @contextlib.contextmanager
    def client(
        self, total: float | None, ca: Path | None = None, retries: int = 0
    ) -> Iterator[HttpClient]:
        one = HttpClient(total, None if ca is None else hs.ssl_context(ca=ca))
        yield one
        if one.conn is not None:
            one.conn.close()


class OpenerClient:
    def __init__(self, opener: Any) -> None:
        self._opener = opener

    def get(self, url: str) -> bytes:
        with self._opener.open(url) as answer:
            return answer.read()  # type: ignore[no-any-return]

    def post(self, url: str, body: bytes) -> int:
        try:
            with self._opener.open(url, body) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as exc:
            exc.close()
            return exc.code

    def stream(self, url: str) -> Iterator[bytes]:
        answer = self._opener.open(url)

        def body() -> Iterator[bytes]:
            with answer:
                while data := answer.read1():
                    yield data

        return body()


class OpenerDriver:
    name = "urllib.request"
    timed_out = (hs.DeadlineExceeded, urllib.error.URLError)
    failed = (OSError, http.client.HTTPException)
    lacks = frozenset({"queue", "retries", "reuse"})

    @contextlib.contextmanager
    def client(
        self, total: float | None, ca: Path | None = None, retries: int = 0
    ) -> Iterator[OpenerClient]:
        context = None if ca is None else hs.ssl_context(ca=ca)
        no_proxy = urllib.request.ProxyHandler({})
        yield OpenerClient(hardsock.adapters.http.opener(no_proxy, total=total, context=context))


class _Raw:
    """A transport whose calls are answered by what came, whatever it is."""

    def parse_response(self, response: Any) -> Any:
        return response.read()


class _Transport(_Raw, hardsock.adapters.http.Transport):
    pass


class _SafeTransport(_Raw, hardsock.adapters.http.SafeTransport):
    pass


class RpcClient:
    """A transport, as a ServerProxy uses it: each call posts, and reads the whole answer."""

    def __init__(self, total: float | None, context: hs.SSLContext | None) -> None:
        self._total, self._context = total, context
        self.transport: Any = None

    def _call(self, url: str, body: bytes) -> bytes:
        parts = urlsplit(url)
        if self.transport is None and parts.scheme == "https":
            self.transport = _SafeTransport(total=self._total, context=self._context)
        elif self.transport is None:
            self.transport = _Transport(total=self._total)
        where = parts.path + "?" + parts.query
        return self.transport.request(parts.netloc, where, body)  # type: ignore[no-any-return]

    def get(self, url: str) -> bytes:
        return self._call(url, b"<methodCall/>")

    def post(self, url: str, body: bytes) -> int:
        try:
            self._call(url, body)
        except xmlrpc.client.ProtocolError as exc:
            return exc.errcode
        return 200


class RpcDriver:
    name = "xmlrpc.client"
    timed_out = (hs.DeadlineExceeded,)
    failed = (OSError, http.client.HTTPException)
    lacks = frozenset({"queue", "retries", "redirects", "streams", "bound"})

    @contextlib.contextmanager
    def client(
        self, total: float | None, ca: Path | None = None, retries: int = 0
    ) -> Iterator[RpcClient]:
        one = RpcClient(total, None if ca is None else hs.ssl_context(ca=ca))
        yield one
        if one.transport is not None:
            one.transport.close()


DRIVERS = [HttpDriver(), OpenerDriver(), RpcDriver()]
keep_what_a_driver_has(globals())


# ---- http.client and xmlrpc alone


def test_a_tunnel_is_under_the_deadline_too(ids: Identities) -> None:
    with PeerScript([("stall",)]) as proxy:
        context = hs.ssl_context(ca=ids.ca)
        conn = hardsock.adapters.http.HTTPSConnection(*proxy.address, total=0.2, context=context)
        conn.set_tunnel("nobody.test", 443)
        with pytest.raises(hs.DeadlineExceeded):
            conn.request("GET", "/")
        conn.close()
    nothing_open()


def test_xmlrpc_answers_and_ends(ids: Identities) -> None:
    with xmlrpc.server.SimpleXMLRPCServer(("127.0.0.1", 0), logRequests=False) as server:
        server.register_function(lambda a, b: a + b, "add")
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        url = f"http://127.0.0.1:{server.server_address[1]}/"
        with hardsock.adapters.http.server_proxy(url, total=30) as proxy:
            assert [proxy.add(2, 3), proxy.add(4, 5)] == [5, 9]
        server.shutdown()
        thread.join()
    for tls in (False, True):
        with HttpPeer(server_context(ids) if tls else None) as peer:
            context = hs.ssl_context(ca=ids.ca)
            url = peer.url("/drip")
            with hardsock.adapters.http.server_proxy(url, total=0.2, context=context) as proxy:
                with pytest.raises(hs.DeadlineExceeded):
                    proxy.add(1, 2)
    nothing_open()


# ---- Protocols of lines


@contextlib.contextmanager
def _smtp(port: int, tls: hs.SSLContext | None = None) -> Iterator[Any]:
    made: Any = smtplib.SMTP(local_hostname="here")
    if tls is not None:
        made = smtplib.SMTP_SSL(local_hostname="here", context=tls)
    made._host = "127.0.0.1"  # as its constructor sets it
    with contextlib.closing(made):
        made.connect("127.0.0.1", port)
        yield made


@contextlib.contextmanager
def _pop(port: int, tls: hs.SSLContext | None = None) -> Iterator[Any]:
    made = poplib.POP3("127.0.0.1", port) if tls is None else None
    made = made or poplib.POP3_SSL("127.0.0.1", port, context=tls)
    with contextlib.closing(made):
        yield made


@contextlib.contextmanager
def _imap(port: int, tls: hs.SSLContext | None = None) -> Iterator[Any]:
    made: Any = imaplib.IMAP4("127.0.0.1", port) if tls is None else None
    made = made or imaplib.IMAP4_SSL("127.0.0.1", port, ssl_context=tls)
    try:
        yield made
    finally:
        with contextlib.suppress(OSError):
            made.shutdown()


@contextlib.contextmanager
def _ftp(port: int, tls: hs.SSLContext | None = None) -> Iterator[Any]:
    with contextlib.closing(ftplib.FTP() if tls is None else ftplib.FTP_TLS(context=tls)) as made:
        made.connect("127.0.0.1", port)
        yield made


_CAPABLE: list[Any] = [
    ("any",),
    ("say", b"* CAPABILITY IMAP4rev1 STARTTLS"),
    ("echo", b"TAG OK done"),
]
_Connected = Callable[[int, "hs.SSLContext | None"], contextlib.AbstractContextManager[Any]]
_Use = tuple[list[Any], _Connected, Callable[[Any], Any]]
_TLS_ASKED: list[Any] = [("hear", b"AUTH TLS"), ("say", b"234 go"), ("begin_tls",)]
_SILENT: dict[str, _Use] = {
    "smtp": ([("say", b"220 ready"), ("hear", b"EHLO")], _smtp, lambda c: c.ehlo()),
    "pop": ([("say", b"+OK"), ("hear", b"USER")], _pop, lambda c: c.user("u")),
    "imap": ([("say", b"* OK"), *_CAPABLE, ("any",)], _imap, lambda c: c.noop()),
    "ftp": ([("say", b"220 ready"), ("hear", b"USER")], _ftp, lambda c: c.login()),
}
"""Of each protocol: what the server says until it falls silent, and what the client does then."""


def _with_tls(protocol: str, steps: list[Any]) -> list[Any]:
    """From the first byte on, but for FTP, whose clients ask for it."""
    return [steps[0], *_TLS_ASKED, *steps[1:]] if protocol == "ftp" else [("begin_tls",), *steps]


@pytest.mark.parametrize("protocol", _SILENT)
@pytest.mark.parametrize("fault", ["stall", "drip"])
@pytest.mark.parametrize("ending", ["scope", "cancel"])
@pytest.mark.parametrize("transport", ["plain", "tls"])
def test_a_server_that_falls_silent_or_drips_ends(
    protocol: str, fault: str, ending: str, transport: str, ids: Identities
) -> None:
    steps, connected, act = _SILENT[protocol]
    context = None if transport == "plain" else hs.ssl_context(ca=ids.ca)
    steps = steps if context is None else _with_tls(protocol, steps)
    last = ("stall",) if fault == "stall" else ("drip", b"2" * 5000, 0.01)
    with (
        Dialog([*steps, last], server_context(ids)) as server,
        connected(server.port, context) as client,
    ):
        if ending == "scope":
            with hs.timeout(SHORT), pytest.raises(Exception) as caught:
                act(client)
            assert any(isinstance(one, hs.DeadlineExceeded) for one in causes(caught.value))
        else:
            token = hs.CancelToken()

            def within() -> None:
                with hs.scope(token):
                    act(client)

            with Call(within) as call:
                call.wait_until_blocked(IO_WAITS)
                token.cancel("stop")
                with pytest.raises(hs.Cancelled):
                    call.result(20)


_HALF = {"smtp": b"250", "pop": b"+OK", "imap": b"* 5 EXI", "ftp": b"230 i"}
"""Of each protocol: the beginning of an answer, which would be taken for one."""


def _half_an_answer(protocol: str) -> list[Any]:
    """What the server says until the middle of an answer; the client acts as in ``_SILENT``."""
    return [*_SILENT[protocol][0], ("part", _HALF[protocol])]


@pytest.mark.parametrize("protocol", _SILENT)
@pytest.mark.parametrize("fault", ["reset", "truncated"])
@pytest.mark.parametrize("transport", ["plain", "tls"])
def test_an_answer_that_breaks_off_is_an_error(
    protocol: str, fault: str, transport: str, ids: Identities
) -> None:
    _, connected, act = _SILENT[protocol]
    context = None if transport == "plain" else hs.ssl_context(ca=ids.ca)
    steps = _half_an_answer(protocol)
    steps = steps if context is None else _with_tls(protocol, steps)
    last = ("reset",) if fault == "reset" else ("cut",)
    with (
        Dialog([*steps, last], server_context(ids)) as server,
        hs.timeout(60),
        connected(server.port, context) as client,
    ):
        with pytest.raises(Exception) as broken:
            act(client)
        assert not any(isinstance(one, hs.DeadlineExceeded) for one in causes(broken.value))
        assert any(isinstance(one, OSError) for one in causes(broken.value)) or protocol == "imap"
        del broken
    nothing_open()


@pytest.mark.parametrize("fault", ["reset", "truncated"])
@pytest.mark.parametrize("transport", ["plain", "tls"])
def test_a_transfer_that_breaks_off_is_an_error(
    fault: str, transport: str, ids: Identities
) -> None:
    """Its data end as if they were whole; that no reply says so is the error."""
    tls = transport == "tls"
    secure = [("hear", b"AUTH TLS"), ("say", b"234 go"), ("begin_tls",)] if tls else []
    login = [("hear", b"USER"), ("say", b"230 in")]
    prot = [("hear", b"PBSZ 0"), ("say", b"200 ok"), ("hear", b"PROT P"), ("say", b"200 ok")]
    steps = [("say", b"220"), *secure, *login, *(prot if tls else [])]
    steps += [("hear", b"TYPE I"), ("say", b"200"), ("hear", b"PASV")]
    steps += [("data_only", b"half", tls), ("reset",) if fault == "reset" else ("cut",)]
    got: list[bytes] = []
    with Dialog(steps, server_context(ids)) as server, hs.timeout(60):
        with _ftp(server.port, hs.ssl_context(ca=ids.ca) if tls else None) as ftp:
            ftp.login()
            if tls:
                ftp.prot_p()
            with pytest.raises((OSError, EOFError)) as broken:
                ftp.retrbinary("RETR x", got.append)
            assert not isinstance(broken.value, TimeoutError)
            del broken
    nothing_open()


_CONNECT: dict[str, Callable[[str, int], Any]] = {
    "smtp": lambda host, port: smtplib.SMTP(host, port, local_hostname="here"),
    "pop": poplib.POP3,
    "imap": imaplib.IMAP4,
    "ftp": lambda host, port: ftplib.FTP().connect(host, port),
}


def _connecting_ends(ending: str, connect: Callable[[], object]) -> None:
    token = hs.CancelToken(SHORT if ending == "scope" else None)

    def within() -> None:
        with hs.scope(token):
            connect()

    with Call(within) as call:
        if ending == "cancel":
            call.wait_until_blocked(IO_WAITS, timeout=20.0)
            token.cancel("stop")
        with pytest.raises(hs.Cancelled if ending == "cancel" else OSError) as ended:
            call.result(20)
        kinds = [type(one) for one in causes(ended.value)]
        assert (hs.Cancelled if ending == "cancel" else hs.DeadlineExceeded) in kinds
        del ended


@pytest.mark.parametrize("protocol", _CONNECT)
@pytest.mark.parametrize("ending", ["scope", "cancel"])
def test_mail_and_ftp_into_a_black_hole_end(protocol: str, ending: str) -> None:
    with BlackHole() as hole:
        host, port = hole.address
        _connecting_ends(ending, lambda: _CONNECT[protocol](host, port))
        nothing_open()


def _dead_dns_of(protocol: str, ending: str) -> bool:
    """Runs inside of a namespace."""
    from hardsock.lab.dns import DeadDNS, use_dns

    with DeadDNS():
        use_dns("127.0.0.1", timeout=30, attempts=5)
        _connecting_ends(ending, lambda: _CONNECT[protocol]("nobody.test", 25))
    nothing_open()
    return True


@pytest.mark.net
@pytest.mark.parametrize("protocol", _CONNECT)
@pytest.mark.parametrize("ending", ["scope", "cancel"])
def test_mail_and_ftp_to_a_name_that_nobody_knows_end(protocol: str, ending: str) -> None:
    with require(Namespace()) as namespace:
        assert namespace.run("adapters.test_stdlib:_dead_dns_of", protocol, ending, timeout=120)


def _stalled(protocol: str, port: int, context: hs.SSLContext) -> None:
    """Begin TLS with a server that does not answer."""
    if protocol == "pop":
        poplib.POP3_SSL("127.0.0.1", port, context=context)
    elif protocol == "imap":
        imaplib.IMAP4_SSL("127.0.0.1", port, ssl_context=context)
    elif protocol == "smtp":
        smtplib.SMTP_SSL("127.0.0.1", port, context=context)
    elif protocol == "ftp":
        with _ftp(port, context) as ftp:
            ftp.login()
    elif protocol == "smtp, STARTTLS":
        with _smtp(port) as smtp:
            smtp.starttls(context=context)
    elif protocol == "pop, STLS":
        with _pop(port) as pop:
            pop.stls(context)
    else:
        with _imap(port) as imap:
            imap.starttls(context)


_UNTIL_TLS: dict[str, list[Any]] = {
    "smtp": [],
    "pop": [],
    "imap": [],
    "ftp": [("say", b"220 ready"), *_TLS_ASKED[:-1]],
    "smtp, STARTTLS": [
        *[("say", b"220 ready"), ("hear", b"EHLO"), ("say", b"250-me"), ("say", b"250 STARTTLS")],
        *[("hear", b"STARTTLS"), ("say", b"220 go")],
    ],
    "pop, STLS": [
        *[("say", b"+OK"), ("hear", b"CAPA"), ("say", b"+OK"), ("say", b"STLS"), ("say", b".")],
        *[("hear", b"STLS"), ("say", b"+OK")],
    ],
    "imap, STARTTLS": [("say", b"* OK"), *_CAPABLE, ("any",), ("echo", b"TAG OK go")],
}


@pytest.mark.parametrize("protocol", _UNTIL_TLS)
@pytest.mark.parametrize("ending", ["scope", "cancel"])
def test_a_stalled_handshake_with_a_mail_or_ftp_server_ends(
    protocol: str, ending: str, ids: Identities
) -> None:
    context = hs.ssl_context(ca=ids.ca)
    with Dialog([*_UNTIL_TLS[protocol], ("stall",)]) as server:
        token = hs.CancelToken()

        def within() -> None:
            with hs.scope(token):
                _stalled(protocol, server.port, context)

        with Call(within) as call:
            server.wait_for_last_step(20.0)
            if ending == "scope":
                token.set_timeout(SHORT)
            else:
                call.wait_until_blocked(IO_WAITS, timeout=20.0)
                token.cancel("stop")
            with pytest.raises(hs.Cancelled if ending == "cancel" else OSError) as ended:
                call.result(20)
            kinds = [type(one) for one in causes(ended.value)]
            assert (hs.Cancelled if ending == "cancel" else hs.DeadlineExceeded) in kinds
            del ended
        nothing_open()


def test_smtp_delivers_plain_and_after_starttls(ids: Identities) -> None:
    mail = [("hear", b"mail FROM"), ("say", b"250 ok"), ("hear", b"rcpt TO"), ("say", b"250 ok")]
    mail += [
        ("hear", b"data"),
        ("say", b"354 go"),
        ("hear", b"Subject: x"),
        ("any",),
        ("hear", b"hello"),
    ]
    mail += [("hear", b"."), ("say", b"250 kept"), ("hear", b"QUIT"), ("say", b"221 bye")]
    begin = [("say", b"220 ready"), ("hear", b"EHLO"), ("say", b"250-me"), ("say", b"250 STARTTLS")]
    again = [
        ("hear", b"STARTTLS"),
        ("say", b"220 go"),
        ("begin_tls",),
        ("hear", b"EHLO"),
        ("say", b"250 me"),
    ]
    for tls in (False, True):
        steps = [*begin, *(again if tls else ()), *mail]
        with (
            Dialog(steps, server_context(ids)) as server,
            hs.timeout(30),
            _smtp(server.port) as smtp,
        ):
            smtp.ehlo()
            if tls:
                smtp.starttls(context=hs.ssl_context(ca=ids.ca))
                assert isinstance(smtp.sock, hs.TLSSocket)
            smtp.sendmail("a@b", ["c@d"], "Subject: x\r\n\r\nhello")
    nothing_open()


def test_starttls_verifies_whom_it_speaks_to(ids: Identities) -> None:
    steps = [("say", b"220 ready"), ("hear", b"EHLO"), ("say", b"250-me"), ("say", b"250 STARTTLS")]
    steps += [("hear", b"STARTTLS"), ("say", b"220 go"), ("begin_tls",)]
    with Dialog(steps, server_context(ids)) as server, hs.timeout(30), _smtp(server.port) as smtp:
        with pytest.raises(hs.CertificateError):
            smtp.starttls()
    nothing_open()


def test_pop_speaks_over_tls(ids: Identities) -> None:
    context = hs.ssl_context(ca=ids.ca)
    steps: list[Any] = [("begin_tls",), ("say", b"+OK"), ("hear", b"STAT"), ("say", b"+OK 2 320")]
    steps += [("hear", b"QUIT"), ("say", b"+OK")]
    with Dialog(steps, server_context(ids)) as server, hs.timeout(30):
        box = poplib.POP3_SSL("127.0.0.1", server.port, context=context)
        assert box.stat() == (2, 320)
        box.quit()
    steps = [("say", b"+OK"), ("hear", b"CAPA"), ("say", b"+OK"), ("say", b"STLS"), ("say", b".")]
    steps += [
        ("hear", b"STLS"),
        ("say", b"+OK"),
        ("begin_tls",),
        ("hear", b"NOOP"),
        ("say", b"+OK"),
    ]
    with Dialog(steps, server_context(ids)) as server, hs.timeout(30), _pop(server.port) as box:
        box.stls(context)
        assert box.noop() == b"+OK"
    nothing_open()


def test_imap_speaks_over_tls(ids: Identities) -> None:
    context = hs.ssl_context(ca=ids.ca)
    bye: list[Any] = [("any",), ("say", b"* BYE"), ("echo", b"TAG OK done")]
    steps: list[Any] = [("begin_tls",), ("say", b"* OK"), *_CAPABLE, *bye]
    with Dialog(steps, server_context(ids)) as server, hs.timeout(30):
        with imaplib.IMAP4_SSL("127.0.0.1", server.port, ssl_context=context) as imap:
            assert "STARTTLS" in imap.capabilities
    steps = [("say", b"* OK"), *_CAPABLE, ("any",), ("echo", b"TAG OK go"), ("begin_tls",)]
    steps += [*_CAPABLE, *bye]
    with Dialog(steps, server_context(ids)) as server, hs.timeout(30), _imap(server.port) as imap:
        imap.starttls(context)
        assert isinstance(imap.sock, hs.TLSSocket)
        imap.logout()
    nothing_open()


@pytest.mark.parametrize("tls", [False, True])
def test_ftp_fetches_and_stores(tls: bool, ids: Identities) -> None:
    secure = [("hear", b"AUTH TLS"), ("say", b"234 go"), ("begin_tls",)]
    login = [("hear", b"USER u"), ("say", b"331 pw"), ("hear", b"PASS p"), ("say", b"230 in")]
    prot = [("hear", b"PBSZ 0"), ("say", b"200 ok"), ("hear", b"PROT P"), ("say", b"200 ok")]
    work = [
        ("hear", b"TYPE I"),
        ("say", b"200 ok"),
        ("hear", b"PASV"),
        ("data", b"hello world", tls),
    ]
    work += [
        ("hear", b"TYPE I"),
        ("say", b"200 ok"),
        ("hear", b"PASV"),
        ("take", tls),
        ("hear", b"QUIT"),
        ("say", b"221 bye"),
    ]
    steps = [("say", b"220 ready"), *(secure if tls else ()), *login, *(prot if tls else ()), *work]
    got: list[bytes] = []
    with Dialog(steps, server_context(ids)) as server, hs.timeout(30):
        ftp: Any = ftplib.FTP_TLS(context=hs.ssl_context(ca=ids.ca)) if tls else ftplib.FTP()
        ftp.connect("127.0.0.1", server.port)
        ftp.login("u", "p")
        if tls:
            ftp.prot_p()
            with pytest.raises(ValueError, match="nothing plain passes"):
                ftp.ccc()
        ftp.retrbinary("RETR x", got.append)
        ftp.storbinary("STOR y", io.BytesIO(b"stored"))
        ftp.quit()
    assert server.taken == b"stored"
    assert b"".join(got) == b"hello world"
    nothing_open()


@pytest.mark.parametrize("ending", ["scope", "cancel"])
@pytest.mark.parametrize("transport", ["plain", "tls"])
def test_a_transfer_that_drips_ends(ending: str, transport: str, ids: Identities) -> None:
    tls, arrived = transport == "tls", threading.Event()
    prot = [("hear", b"PBSZ 0"), ("say", b"200 ok"), ("hear", b"PROT P"), ("say", b"200 ok")]
    steps = [("say", b"220"), *([*_TLS_ASKED, *prot] if tls else [])]
    steps += [("hear", b"TYPE I"), ("say", b"200"), ("hear", b"PASV")]
    steps += [("data", b"x" * 5000, tls, 0.01)]
    token = hs.CancelToken()
    with Dialog(steps, server_context(ids)) as server:
        with _ftp(server.port, hs.ssl_context(ca=ids.ca) if tls else None) as ftp:
            if tls:
                ftp.auth()
                ftp.prot_p()

            def fetch() -> None:
                with hs.scope(token):
                    ftp.retrbinary("RETR x", lambda _: arrived.set())

            with Call(fetch) as call:
                assert arrived.wait(60)
                if ending == "scope":
                    token.set_timeout(SHORT)
                else:
                    token.cancel("stop")
                kind = hs.Cancelled if ending == "cancel" else hs.DeadlineExceeded
                with pytest.raises(kind):
                    call.result(20)
    nothing_open()


def test_what_is_not_for_hardsock_is_refused(ids: Identities) -> None:
    import ssl

    bare = ssl.create_default_context()
    for make in (
        lambda: smtplib.SMTP_SSL(context=bare),
        lambda: poplib.POP3_SSL("x", context=bare),
        lambda: imaplib.IMAP4_SSL(ssl_context=bare),
        lambda: ftplib.FTP_TLS(context=bare),
        lambda: hardsock.adapters.http.HTTPSConnection("x", context=bare),
    ):
        with pytest.raises(TypeError, match=r"=hardsock\.ssl_context\(context\)"):
            make()
    with Dialog([("say", b"220"), ("hear", b"TYPE I"), ("say", b"200")]) as server:
        with hs.timeout(30), _ftp(server.port) as ftp:
            ftp.set_pasv(False)
            with pytest.raises(ValueError, match="active mode"):
                ftp.retrbinary("RETR x", lambda _: None)
    assert xmlrpc.client.ServerProxy  # what server_proxy() makes


@pytest.mark.parametrize("kind", ["HTTPConnection", "HTTPSConnection"])
def test_a_connection_that_is_dropped_is_no_garbage(kind: str) -> None:
    gc.collect()
    gc.disable()
    try:
        seen = weakref.ref(getattr(hardsock.adapters.http, kind)("127.0.0.1:9"))
        assert seen() is None, "it waits for the garbage collector"
    finally:
        gc.enable()


_LOG_IN: dict[str, Callable[[str, int], Any]] = {
    **_CONNECT,
    "smtp, connect()": lambda host, port: smtplib.SMTP(local_hostname="here").connect(host, port),
    "ftp, TLS": lambda host, port: ftplib.FTP_TLS().connect(host, port),
}


@pytest.mark.parametrize("protocol", _LOG_IN)
@pytest.mark.parametrize("ending", ["scope", "cancel"])
def test_a_greeting_that_does_not_come_leaves_nothing_open(protocol: str, ending: str) -> None:
    with PeerScript([("stall",)], check=False) as peer:
        host, port = peer.address
        _connecting_ends(ending, lambda: _LOG_IN[protocol](host, port))
        nothing_open()
