"""httpx and httpx2 over hardsock: one deadline over everything, and a cancel from anywhere."""

from __future__ import annotations

import contextlib
import importlib
import socket
import ssl
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import hardsock as hs
from adapters.endings import refusing
from adapters.http_peer import HttpPeer
from adapters.web import Web
from hardsock.lab.blackhole import BlackHole
from hardsock.lab.namespaces import Namespace
from hardsock.lab.threads import IO_WAITS, Call, wait_until_blocked
from support.loops import RUNS
from support.pki import CLIENT, make_authority
from support.proxy import Proxy
from support.require import need_module, require

pytestmark = pytest.mark.usefixtures("event_loops")

SOON = 0.15
LATE = 60.0
AT_ONCE = 5.0  # What would otherwise take for ever; a busy machine may need a while.

LIBRARIES = ["httpx", "httpx2"]
WAYS = ["sync", *RUNS, "trio"]


@dataclass
class Files:
    ca: Path
    serving: ssl.SSLContext
    identity: Any = None
    client: hs.Certificate | None = None

    @property
    def asking(self) -> ssl.SSLContext:
        """A server's that wants a client's certificate."""
        made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        made.load_cert_chain(self.identity.certificate, self.identity.key)
        made.load_verify_locations(self.ca)
        made.verify_mode = ssl.CERT_REQUIRED
        return made


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    authority = make_authority(tmp_path_factory.mktemp("pki"), "ca")
    identity = authority.issue(file="server")
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(identity.certificate, identity.key)
    serving.set_alpn_protocols(["http/1.1"])
    alice = authority.issue(("alice.test",), file="client", usages=CLIENT)
    client = hs.Certificate(chain=alice.certificate, key=alice.key)
    return Files(authority.certificate, serving, identity, client)


@pytest.fixture(params=["plain", "tls"])
def web(request: pytest.FixtureRequest, files: Files) -> Iterator[Web]:
    with Web(tls=files.serving if request.param == "tls" else None) as server:
        yield server


class Way:
    """One library, in one way of waiting."""

    def __init__(self, library: str, way: str, files: Files) -> None:
        need_module(library)
        self.library: Any = importlib.import_module(library)
        self.adapter: Any = importlib.import_module(f"hardsock.adapters.{library}")
        self.way, self._files = way, files

    def run(self, main: Callable[[], Awaitable[Any]]) -> Any:
        if self.way == "trio":
            need_module("trio")
            import trio

            return trio.run(main)
        if self.way == "uvloop":
            need_module("uvloop")
        return RUNS[self.way](main())  # type: ignore[arg-type]

    def settings(self, **more: Any) -> dict[str, Any]:
        config = hs.TLSConfig(ca=self._files.ca, alpn=("http/1.1",))
        return {"tls": config, "trust_env": False, "timeout": LATE, **more}

    def get(self, *urls: str, scope: Any = None, **settings: Any) -> Any:
        """The text of the last page, or the error."""
        scope = contextlib.nullcontext() if scope is None else scope
        made = self.settings(**settings)
        if self.way == "sync":
            try:
                with scope, self.adapter.client(**made) as client:
                    return [client.get(url).text for url in urls][-1]
            except Exception as exc:
                return exc

        async def main() -> Any:
            with scope:
                async with self.adapter.async_client(**made) as client:
                    return [(await client.get(url)).text for url in urls][-1]

        try:
            return self.run(main)
        except Exception as exc:
            return exc

    def stream(self, url: str, *, scope: Any, on_piece: Callable[[], None], **settings: Any) -> Any:
        """Read a body piece by piece; the scope is only around the sending of the request."""
        made = self.settings(**settings)
        if self.way == "sync":
            try:
                with self.adapter.client(**made) as client:
                    with scope:
                        response = client.send(client.build_request("GET", url), stream=True)
                    try:
                        for _ in response.iter_raw():
                            on_piece()
                    finally:
                        response.close()
            except Exception as exc:
                return exc

        async def main() -> None:
            async with self.adapter.async_client(**made) as client:
                with scope:
                    response = await client.send(client.build_request("GET", url), stream=True)
                try:
                    async for _ in response.aiter_raw():
                        on_piece()
                finally:
                    await response.aclose()

        try:
            return self.run(main)
        except Exception as exc:
            return exc


@pytest.fixture(params=LIBRARIES)
def library(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest, library: str, files: Files) -> Way:
    return Way(library, request.param, files)


@contextlib.contextmanager
def at_once() -> Iterator[None]:
    began = time.monotonic()
    yield
    assert time.monotonic() - began < AT_ONCE


@contextlib.contextmanager
def cancelled_when(ready: Callable[[], object]) -> Iterator[hs.CancelToken]:
    """A token that another thread cancels as soon as *ready* has returned."""
    token = hs.CancelToken()

    def act() -> None:
        ready()
        token.cancel("the user pressed Stop")

    thread = threading.Thread(target=act)
    thread.start()
    try:
        yield token
    finally:
        thread.join()


def test_pages_come_over_one_connection_that_is_kept(way: Way, web: Web) -> None:
    assert way.get(web.url("/hello"), web.url("/echo/text"), web.url("/hello")) == "1"
    assert web.connections == 1


@pytest.mark.parametrize("path", ["/silent", "/drip", "/begun", "/redirect/drip"])
def test_the_total_ends_whatever_the_server_does(way: Way, web: Web, path: str) -> None:
    with at_once():
        error = way.get(web.url(path), total=SOON, follow_redirects=True)
    assert isinstance(error, way.library.TimeoutException), error


@pytest.mark.parametrize("path", ["/silent", "/drip", "/redirect/drip"])
def test_the_scope_around_ends_it_as_itself(way: Way, web: Web, path: str) -> None:
    scope = hs.timeout(SOON, name="mine")
    with at_once():
        error = way.get(web.url(path), scope=scope, total=LATE, follow_redirects=True)
    assert isinstance(error, hs.DeadlineExceeded), error
    assert error.reason == "mine"


@pytest.mark.parametrize("path", ["/silent", "/drip", "/begun", "/redirect/drip"])
def test_another_thread_cancels_it(way: Way, web: Web, path: str) -> None:
    def arrived() -> None:
        for _ in range(2 if path.startswith("/redirect") else 1):
            web.arrived.acquire()

    with at_once(), cancelled_when(arrived) as token:
        error = way.get(web.url(path), scope=hs.scope(token), total=LATE, follow_redirects=True)
    assert isinstance(error, hs.Cancelled), error
    assert error.reason == "the user pressed Stop"


def test_a_body_that_is_streamed_later_obeys_the_total(way: Way, web: Web) -> None:
    with at_once():
        error = way.stream(
            web.url("/drip"), scope=contextlib.nullcontext(), on_piece=lambda: None, total=SOON
        )
    assert isinstance(error, way.library.TimeoutException), error


def test_a_body_that_is_streamed_later_obeys_the_time_of_the_scope(way: Way, web: Web) -> None:
    with at_once():
        error = way.stream(web.url("/drip"), scope=hs.timeout(SOON), on_piece=lambda: None)
    assert isinstance(error, hs.DeadlineExceeded), error


def test_a_body_that_is_streamed_later_obeys_a_cancel_of_the_request(way: Way, web: Web) -> None:
    begun = threading.Event()
    with at_once(), cancelled_when(begun.wait) as token:
        error = way.stream(web.url("/drip"), scope=hs.scope(token), on_piece=begun.set)
    assert isinstance(error, hs.Cancelled), error


def test_the_limits_of_the_library_stay_its_own(way: Way, web: Web) -> None:
    error = way.get(web.url("/silent"), timeout=SOON, scope=hs.timeout(LATE))
    assert isinstance(error, way.library.ReadTimeout), error
    cause = error.__cause__
    assert isinstance(cause.hardsock_error, hs.DeadlineExceeded)
    assert cause.hardsock_error.op == "recv"


@pytest.mark.parametrize("path", ["/truncated", "/reset"])
def test_a_body_that_is_cut_is_an_error_of_the_library(way: Way, web: Web, path: str) -> None:
    error = way.get(web.url(path))
    assert isinstance(error, way.library.TransportError), error


@pytest.mark.filterwarnings(  # httpx leaves the body's generator to the collector, which trio tells.
    "ignore:Exception ignored in. <async_generator:pytest.PytestUnraisableExceptionWarning"
)
@pytest.mark.parametrize("tls", ["plain", "tls"])
def test_a_request_that_is_answered_early_gets_that_answer(
    way: Way, tls: str, files: Files
) -> None:
    body = bytes(8 << 20)

    def judge(answer: Callable[[], Any]) -> None:
        assert answer().status_code == 413

    with HttpPeer(files.serving if tls == "tls" else None) as peer, at_once():
        url = peer.url("/early")
        if way.way == "sync":
            with way.adapter.client(**way.settings(total=LATE)) as client:
                judge(lambda: client.post(url, content=body))
            return

        async def post() -> Any:
            async with way.adapter.async_client(**way.settings(total=LATE)) as client:
                return await client.post(url, content=body)

        judge(lambda: way.run(post))


def test_a_cancelled_call_never_hands_on_its_connection(way: Way, web: Web) -> None:
    settings = way.settings()
    token = hs.CancelToken()

    def cancel() -> None:
        web.arrived.acquire()
        token.cancel()

    thread = threading.Thread(target=cancel)
    thread.start()
    if way.way == "sync":
        with way.adapter.client(**settings) as client:
            with pytest.raises(hs.Cancelled), hs.scope(token):
                client.get(web.url("/drip"))
            answers = [client.get(web.url(f"/echo/{n}")).text for n in range(3)]
    else:

        async def main() -> list[str]:
            async with way.adapter.async_client(**settings) as client:
                with pytest.raises(hs.Cancelled), hs.scope(token):
                    await client.get(web.url("/drip"))
                return [(await client.get(web.url(f"/echo/{n}"))).text for n in range(3)]

        answers = way.run(main)
    thread.join()
    assert answers == ["0", "1", "2"]
    assert web.connections == 2


def test_a_full_pool_is_waited_for_under_the_same_deadline(way: Way, web: Web) -> None:
    limits = way.library.Limits(max_connections=1)
    if way.way == "sync":
        with way.adapter.client(**way.settings(limits=limits, total=LATE)) as client:
            with client.stream("GET", web.url("/begun")):
                with at_once(), pytest.raises(hs.DeadlineExceeded), hs.timeout(SOON):
                    client.get(web.url("/hello"))
                with at_once(), pytest.raises(way.library.PoolTimeout):
                    client.get(web.url("/hello"), timeout=SOON)
                with at_once(), pytest.raises(hs.Cancelled):
                    with cancelled_when(lambda: None) as token, hs.scope(token):
                        client.get(web.url("/hello"))
            assert client.get(web.url("/hello")).text == "2"
            assert client.get(web.url("/hello")).text == "2"
        return

    async def main() -> None:
        settings = way.settings(limits=limits, total=LATE)
        async with way.adapter.async_client(**settings) as client:
            async with client.stream("GET", web.url("/begun")):
                with at_once(), pytest.raises(hs.DeadlineExceeded), hs.timeout(SOON):
                    await client.get(web.url("/hello"))
                with at_once(), pytest.raises(way.library.PoolTimeout):
                    await client.get(web.url("/hello"), timeout=SOON)
                with at_once(), pytest.raises(hs.Cancelled):
                    with cancelled_when(lambda: None) as token, hs.scope(token):
                        await client.get(web.url("/hello"))
            assert (await client.get(web.url("/hello"))).text == "2"

    way.run(main)


@pytest.mark.parametrize("library", LIBRARIES)
def test_with_http2_the_queue_of_the_library_keeps_the_deadline(library: str, files: Files) -> None:
    need_module("h2")
    way = Way(library, "sync", files)
    config = hs.TLSConfig(ca=files.ca, alpn=("h2", "http/1.1"))
    settings = way.settings(
        tls=config, http2=True, limits=way.library.Limits(max_connections=1), total=LATE
    )
    with Web(tls=files.serving) as web, way.adapter.client(**settings) as client:
        with client.stream("GET", web.url("/begun")) as response:
            assert response.http_version == "HTTP/1.1"  # That is what this server speaks.
            with at_once(), pytest.raises(hs.DeadlineExceeded), hs.timeout(SOON):
                client.get(web.url("/hello"))


def once_blocked() -> Callable[[], None]:
    """Returns when the thread that has called this sleeps, in whatever waits for descriptors."""
    thread = threading.get_native_id()
    return lambda: wait_until_blocked(thread, IO_WAITS, LATE)


def test_a_connect_that_hangs_ends_with_the_total_and_the_scope(way: Way) -> None:
    with BlackHole() as hole:
        url = f"http://127.0.0.1:{hole.port}/"
        with at_once():
            error = way.get(url, total=SOON)
        assert isinstance(error, way.library.ConnectTimeout), error
        with at_once():
            error = way.get(url, scope=hs.timeout(SOON), total=LATE)
        assert isinstance(error, hs.DeadlineExceeded), error
        with at_once(), cancelled_when(once_blocked()) as token:
            error = way.get(url, scope=hs.scope(token), total=LATE)
        assert isinstance(error, hs.Cancelled), error


def test_a_handshake_that_hangs_ends_with_the_total_and_the_scope(way: Way) -> None:
    for settings, wanted in (
        ({"total": SOON}, way.library.ConnectTimeout),
        ({"total": LATE, "scope": hs.timeout(SOON)}, hs.DeadlineExceeded),
    ):
        with Silent() as silent:
            with at_once():
                error = way.get(f"https://127.0.0.1:{silent.port}/", **settings)
        assert isinstance(error, wanted), error
    with Silent() as silent, at_once(), cancelled_when(silent.accept) as token:
        error = way.get(f"https://127.0.0.1:{silent.port}/", scope=hs.scope(token), total=LATE)
    assert isinstance(error, hs.Cancelled), error


class Silent:
    """Accepts, and says nothing."""

    def __enter__(self) -> Silent:
        import socket

        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._accepted: list[socket.socket] = []
        return self

    def accept(self) -> None:
        self._accepted.append(self._listener.accept()[0])

    def __exit__(self, *_details: object) -> None:
        for one in [self._listener, *self._accepted]:
            one.close()


def test_a_refused_connect_is_an_error_of_the_library_with_every_attempt(way: Way) -> None:
    with Silent() as gone:
        url = f"http://127.0.0.1:{gone.port}/"
    error = way.get(url)
    assert isinstance(error, way.library.ConnectError)
    assert isinstance(error.__cause__.hardsock_error, hs.ConnectionRefused)


def test_a_certificate_of_a_stranger_is_refused(way: Way, files: Files) -> None:
    with Web(tls=files.serving) as web:
        error = way.get(web.url("/hello"), tls=hs.TLSConfig(alpn=("http/1.1",)))
    assert isinstance(error, way.library.ConnectError), error
    assert isinstance(error.__cause__.hardsock_error, hs.CertificateError)


def test_a_context_of_hardsock_may_be_given_for_its_settings(way: Way, files: Files) -> None:
    with Web(tls=files.serving) as web:
        context = hs.ssl_context(ca=files.ca)
        assert way.get(web.url("/hello"), tls=None, verify=context) == "1"
        error = way.get(web.url("/hello"), tls=None, verify=hs.ssl_context())
    assert isinstance(error.__cause__.hardsock_error, hs.CertificateError)


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_client_does_not_read_what_the_system_trusts_for_a_context_it_has_no_use_for(
    library: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is 25 ms for each client."""
    need_module(library)
    adapter = importlib.import_module(f"hardsock.adapters.{library}")

    def read(*_args: object, **_settings: object) -> None:
        raise AssertionError("it was read")

    for name in ("load_verify_locations", "load_default_certs", "set_default_verify_paths"):
        monkeypatch.setattr(ssl.SSLContext, name, read)
    adapter.client().close()
    adapter.async_client()


def test_totals_count_from_each_request(way: Way, web: Web) -> None:
    assert way.get(*[web.url("/hello")] * 5, total=LATE) == "1"


def test_settings_that_hardsock_does_not_take_are_refused_by_name(way: Way) -> None:
    make = way.adapter.client if way.way == "sync" else way.adapter.async_client
    with pytest.raises(ValueError, match="verify=False is not taken"):
        make(verify=False)
    with pytest.raises(ValueError, match="cert="):
        make(cert="client.pem")
    with pytest.raises(TypeError, match=r"tls must be a hardsock\.TLSConfig"):
        make(tls=True)
    with pytest.raises(ValueError, match="lacks 'h2'"):
        way.adapter.Transport(http2=True, tls=hs.TLSConfig(alpn=("http/1.1",)))


def test_a_breaker_learns_from_requests(way: Way, web: Web) -> None:
    breaker = hs.Breaker(failures=2, patience=0)
    with Silent() as silent:
        for _ in range(50):  # One that is late before it dials says nothing about the node.
            way.get(f"http://127.0.0.1:{silent.port}/", total=0.3, breaker=breaker)
            if any(one.state == "open" for one in breaker.states()):
                break
        refused = way.get(f"http://127.0.0.1:{silent.port}/", total=30, breaker=breaker)
    assert isinstance(refused, way.library.ConnectError), refused
    assert isinstance(refused.hardsock_error, hs.BreakerOpen)  # type: ignore[attr-defined]
    for number, statuses, wanted in (("1", None, 1), ("2", (200,), 2)):
        how = {"breaker": breaker, "breaker_statuses": statuses}
        assert way.get(web.url("/hello"), **how) == number
        assert len(breaker.states()) == wanted


def test_proxies_of_the_environment_are_used_over_hardsock(
    way: Way, web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Silent() as proxy:
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{proxy.port}")
        monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{proxy.port}")
        monkeypatch.setenv("no_proxy", "")
        with at_once():
            error = way.get(web.url("/hello"), trust_env=True, total=SOON)
    assert isinstance(error, way.library.TimeoutException), error
    assert web.connections == 0


@contextlib.contextmanager
def _proxied(files: Files) -> Iterator[Proxy]:
    """A proxy over TLS that asks for a certificate, and tells what it was shown."""
    asking = files.asking
    asking.verify_mode = ssl.CERT_OPTIONAL
    with Proxy(tls=asking) as proxy:
        yield proxy
        with contextlib.suppress(OSError):  # for one connection: there may have been none
            socket.create_connection(proxy.address.split(":"), 20).close()  # type: ignore[arg-type]


def test_each_layer_within_tls_has_its_own_settings(way: Way, files: Files) -> None:
    for_target: list[dict[str, Any]] = [
        {"tls": hs.TLSConfig(ca=files.ca, certificates=files.client, alpn=("http/1.1",))},
        {"tls": None, "verify": hs.ssl_context(ca=files.ca, certificates=files.client)},
    ]
    for index, settings in enumerate(for_target):
        with _proxied(files) as proxy, Web(tls=files.asking) as web:
            url = f"https://{proxy.address}"
            if index == 0:
                settings |= {"proxy": url, "proxy_tls": hs.TLSConfig(ca=files.ca)}
            else:
                context = hs.ssl_context(ca=files.ca)
                settings |= {"proxy": way.library.Proxy(url, ssl_context=context)}
            response = way.get(web.url("/hello"), **settings)
            assert response == "1"
        assert proxy.client_certificates == [None]  # It is for the target alone.
        assert [port for _, port in proxy.targets] == [web.port]


def test_a_proxy_of_which_nothing_was_said_has_to_be_trusted_by_the_system(
    way: Way, files: Files
) -> None:
    with _proxied(files) as proxy, Web(tls=files.serving) as web:
        error = way.get(web.url("/hello"), proxy=f"https://{proxy.address}")
        assert isinstance(error, way.library.ConnectError), error
        assert isinstance(error.__cause__.hardsock_error, hs.CertificateError)  # type: ignore[union-attr]
    assert (proxy.targets, web.connections) == ([], 0)


def test_a_request_that_is_sent_again_has_its_time_anew(way: Way) -> None:
    """By a client of the library's own, over our transport: nothing in between makes it anew."""
    library = way.library

    async def main() -> None:
        transport = way.adapter.AsyncTransport(total=0.3)
        async with library.AsyncClient(transport=transport, timeout=LATE) as client:
            request = client.build_request("GET", peer.url("/silent"))
            for _ in range(50):  # One that is late before it dials is not seen.
                with pytest.raises(library.TimeoutException):
                    await client.send(request)
                if len(peer.seen) >= 2:
                    break

    with HttpPeer() as peer:
        if way.way != "sync":
            way.run(main)
        else:
            transport = way.adapter.Transport(total=0.3)
            with library.Client(transport=transport, timeout=LATE) as client:
                request = client.build_request("GET", peer.url("/silent"))
                for _ in range(50):
                    with pytest.raises(library.TimeoutException):
                        client.send(request)
                    if len(peer.seen) >= 2:
                        break
        assert len(peer.seen) >= 2


def test_settings_of_a_proxy_that_would_not_be_heeded_are_refused(way: Way, files: Files) -> None:
    make = way.adapter.Transport
    config = hs.TLSConfig(ca=files.ca)
    with pytest.raises(ValueError, match="proxy_tls has no use without proxy"):
        make(proxy_tls=config)
    with pytest.raises(ValueError, match="proxy_tls is for an https:// proxy"):
        make(proxy="http://proxy.test:3128", proxy_tls=config)
    plain = ssl.create_default_context()
    with pytest.raises(ValueError, match="the proxy's ssl_context is not taken"):
        make(proxy=way.library.Proxy("https://proxy.test", ssl_context=plain))


def _ask_a_dead_name_server(library: str, name: str, ca: str) -> float:
    from hardsock.lab.dns import DeadDNS, use_dns

    way = Way(library, name, Files(Path(ca), None))  # type: ignore[arg-type]
    with DeadDNS("127.0.0.1", 53):
        use_dns("127.0.0.1", timeout=30, attempts=5)
        began = time.monotonic()
        error = way.get("http://nobody.test/", total=0.3)
        took = time.monotonic() - began
        assert isinstance(error, way.library.ConnectTimeout), error
        error = way.get("http://nobody.test/", scope=hs.timeout(0.3), total=LATE)
        assert isinstance(error, hs.DeadlineExceeded), error
        with cancelled_when(once_blocked()) as token:
            error = way.get("http://nobody.test/", scope=hs.scope(token), total=LATE)
        assert isinstance(error, hs.Cancelled), error
        return took


@pytest.mark.net
def test_a_dead_name_server_costs_the_total_and_no_more(way: Way, files: Files) -> None:
    with require(Namespace()) as namespace:
        took = namespace.run(
            *(_ask_a_dead_name_server, way.library.__name__, way.way, str(files.ca)), timeout=120
        )
    assert took < 60, "the resolver alone takes two and a half minutes"


# ---- httpcore, by its public hook


def _ask_by_pool(name: str, awaited: bool, by: Proxy, url: str, **settings: Any) -> bytes:
    """The body that a pool of httpcore gets through a proxy, by our backend with these settings."""
    core: Any = importlib.import_module(name)
    adapter: Any = importlib.import_module(f"hardsock.adapters.{name}")
    way = {"proxy": core.Proxy(f"https://{by.address}")}
    got: list[bytes] = []

    async def main() -> None:
        backend = adapter.AsyncNetworkBackend(**settings)
        async with core.AsyncConnectionPool(network_backend=backend, **way) as pool:
            got.append((await pool.request("GET", url)).content)

    if awaited:
        RUNS["asyncio"](main())
    else:
        backend = adapter.NetworkBackend(**settings)
        with core.ConnectionPool(network_backend=backend, **way) as pool:
            got.append(pool.request("GET", url).content)
    return got[0]


@pytest.mark.parametrize("name", ["httpcore", "httpcore2"])
@pytest.mark.parametrize("awaited", [False, True])
def test_a_backend_that_knows_of_the_proxy_shows_it_no_certificate(
    name: str, awaited: bool, files: Files
) -> None:
    need_module(name)
    config = hs.TLSConfig(ca=files.ca, certificates=files.client, alpn=("http/1.1",))
    with _proxied(files) as proxy, Web(tls=files.asking) as web:
        told: dict[str, Any] = {
            "proxy": f"https://{proxy.address}",
            "proxy_tls": hs.TLSConfig(ca=files.ca),
        }
        assert _ask_by_pool(name, awaited, proxy, web.url("/hello"), tls=config, **told) == b"1"
    assert proxy.client_certificates == [None]


@pytest.mark.parametrize("name", ["httpcore", "httpcore2"])
@pytest.mark.parametrize("awaited", [False, True])
def test_a_backend_that_was_told_of_no_proxy_has_no_certificate_to_show(
    name: str, awaited: bool, files: Files
) -> None:
    """A request for http:// through the proxy would be answered, and nobody had noticed."""
    need_module(name)
    core: Any = importlib.import_module(name)
    config = hs.TLSConfig(ca=files.ca, alpn=("http/1.1",))
    with _proxied(files) as proxy, Web(tls=files.serving) as web:
        assert _ask_by_pool(name, awaited, proxy, web.url("/hello"), tls=config) == b"1"
    config = hs.TLSConfig(ca=files.ca, certificates=files.client, alpn=("http/1.1",))
    with _proxied(files) as proxy:
        with pytest.raises(ValueError, match="proxy must be given with a certificate in tls"):
            _ask_by_pool(name, awaited, proxy, "http://127.0.0.1:1/", tls=config)
    assert proxy.client_certificates == []
    with _proxied(files) as proxy, Web(tls=files.serving) as web:
        with pytest.raises(core.ConnectError, match="of which the backend was not told"):
            _ask_by_pool(name, awaited, proxy, web.url("/hello"), tls=config, proxy=False)
    assert web.connections <= 1  # The proxy's; no request came over it.


@pytest.mark.parametrize("awaited", [False, True])
def test_dials_of_a_pool_wait_for_a_place(awaited: bool, web: Web, files: Files) -> None:
    need_module("httpx")
    adapter: Any = importlib.import_module("hardsock.adapters.httpx")
    limits = hs.DialLimits(in_flight=1)
    ours: Any = {"dial_limits": limits, "tls": hs.TLSConfig(ca=files.ca, alpn=("http/1.1",))}

    async def ask(timeout: float) -> int:
        async with adapter.AsyncClient(timeout=timeout, **ours) as client:
            return int((await client.get(web.url("/hello"))).status_code)

    def get(timeout: float) -> int:
        if awaited:
            return int(RUNS["asyncio"](ask(timeout)))
        with adapter.Client(timeout=timeout, **ours) as client:
            return int(client.get(web.url("/hello")).status_code)

    with limits.place():
        with pytest.raises(adapter.httpx.ConnectTimeout, match="no place to dial"):
            get(0.05)
    assert get(20) == 200
    assert limits.stats()[:4] == (0, 0, 2, 1)


def test_a_backend_names_what_contradicts_a_proxy() -> None:
    need_module("httpcore")
    make: Any = importlib.import_module("hardsock.adapters.httpcore").NetworkBackend
    with pytest.raises(ValueError, match="proxy_tls has no use without proxy"):
        make(proxy_tls=hs.TLSConfig())
    with pytest.raises(ValueError, match="proxy_tls is for an https:// proxy"):
        make(proxy="http://proxy.test:1", proxy_tls=hs.TLSConfig())


@pytest.mark.parametrize("name", ["httpcore", "httpcore2"])
def test_a_pool_of_httpcore_takes_the_backend(name: str, web: Web, files: Files) -> None:
    need_module(name)
    core: Any = importlib.import_module(name)
    adapter: Any = importlib.import_module(f"hardsock.adapters.{name}")
    context = ssl.create_default_context(cafile=str(files.ca))
    for backend in (  # TLS by a given SSLContext, and by hardsock.
        adapter.NetworkBackend(),
        adapter.NetworkBackend(tls=hs.TLSConfig(ca=files.ca, alpn=("http/1.1",))),
        None,
    ):
        if backend is None:  # A context of hardsock is taken for its settings.
            context = hs.ssl_context(ca=files.ca)
            backend = adapter.NetworkBackend()
        with core.ConnectionPool(network_backend=backend, ssl_context=context) as pool:
            assert pool.request("GET", web.url("/echo/a")).content == b"a"
            assert pool.request("GET", web.url("/echo/b")).content == b"b"
            with at_once(), pytest.raises(core.ReadTimeout):
                pool.request("GET", web.url("/silent"), extensions={"timeout": {"read": SOON}})
            with at_once(), pytest.raises(hs.DeadlineExceeded), hs.timeout(SOON):
                pool.request("GET", web.url("/drip"))


@pytest.mark.parametrize("loop", [*RUNS, "trio"])
@pytest.mark.parametrize("name", ["httpcore", "httpcore2"])
def test_an_awaited_pool_of_httpcore_takes_the_backend(
    name: str, loop: str, web: Web, files: Files
) -> None:
    need_module(name)
    core: Any = importlib.import_module(name)
    adapter: Any = importlib.import_module(f"hardsock.adapters.{name}")
    context = ssl.create_default_context(cafile=str(files.ca))

    async def main() -> None:
        for backend in (
            adapter.AsyncNetworkBackend(),
            adapter.AsyncNetworkBackend(tls=hs.TLSConfig(ca=files.ca, alpn=("http/1.1",))),
        ):
            pool = core.AsyncConnectionPool(network_backend=backend, ssl_context=context)
            async with pool:
                assert (await pool.request("GET", web.url("/echo/a"))).content == b"a"
                with at_once(), pytest.raises(core.ReadTimeout):
                    await pool.request(
                        "GET", web.url("/silent"), extensions={"timeout": {"read": SOON}}
                    )
                with at_once(), pytest.raises(hs.DeadlineExceeded), hs.timeout(SOON):
                    await pool.request("GET", web.url("/drip"))

    Way("httpx", loop, files).run(main)


@pytest.mark.parametrize("tls", ["plain", "tls"])
@pytest.mark.parametrize("end", ["scope", "cancel"])
def test_pauses_between_connect_retries_end(
    end: str, tls: str, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody listens, or who does hangs up in the handshake: httpcore tries again, ever more slowly."""
    need_module("httpcore")
    import httpcore

    from hardsock.adapters.httpcore import NetworkBackend

    pausing = threading.Event()

    plain = NetworkBackend.sleep

    def sleep(self: NetworkBackend, seconds: float) -> None:
        if seconds:
            pausing.set()
            seconds = LATE
        plain(self, seconds)

    monkeypatch.setattr(NetworkBackend, "sleep", sleep)
    config = hs.TLSConfig(ca=files.ca, alpn=("http/1.1",))
    with contextlib.ExitStack() as opened:
        address = opened.enter_context(refusing(tls == "tls"))
        scheme = "https" if tls == "tls" else "http"
        token = hs.CancelToken()
        backend = NetworkBackend(tls=config)
        pool = opened.enter_context(httpcore.ConnectionPool(network_backend=backend, retries=20))

        def ask() -> None:
            with hs.scope(token):
                pool.request("GET", "{}://{}:{}/".format(scheme, *address))

        with Call(ask) as asking:
            assert pausing.wait(LATE)
            if end == "cancel":
                token.cancel("the user pressed Stop")
            else:
                token.set_timeout(SOON)
            with pytest.raises(hs.Cancelled if end == "cancel" else hs.DeadlineExceeded):
                asking.result(LATE / 2)  # less than the pause
