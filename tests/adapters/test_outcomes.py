"""What a breaker learns from requests, and proxies by SOCKS, in the adapters of urllib3 and requests."""

from __future__ import annotations

import urllib.error
import urllib.request
import xmlrpc.client
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import botocore
import botocore.config
import botocore.exceptions
import pytest
import requests
from urllib3.exceptions import HTTPError

import hardsock as hs
import hardsock.adapters.botocore
import hardsock.adapters.http
import hardsock.adapters.requests
import hardsock.adapters.urllib3
from adapters.endings import causes
from adapters.http_contract import nothing_open, server_context
from adapters.http_peer import HttpPeer
from hardsock.lab.peers import PeerScript
from hardsock.lab.waits import poll_until
from support.proxy import Proxy
from support.tls import Identities

Get = Callable[[str], int]
FAILURES = (requests.RequestException, HTTPError, OSError, botocore.exceptions.BotoCoreError)


@contextmanager
def _requests(ca: Path | None = None, **settings: Any) -> Iterator[Get]:
    proxy = settings.pop("via", None)
    with hardsock.adapters.requests.session(**settings) as session:
        session.trust_env, session.verify = False, str(ca) if ca else True
        session.proxies = {"http": proxy, "https": proxy} if proxy else {}
        yield lambda url: session.get(url).status_code


@contextmanager
def _urllib3(ca: Path | None = None, **settings: Any) -> Iterator[Get]:
    settings.setdefault("retries", False)
    if ca is not None:
        settings["ca_certs"] = str(ca)
    with hardsock.adapters.urllib3.PoolManager(**settings) as manager:
        yield lambda url: manager.request("GET", url).status


@contextmanager
def _http_client(**settings: Any) -> Iterator[Get]:
    def get(url: str) -> int:
        parts = urlsplit(url)
        conn = hardsock.adapters.http.HTTPConnection(parts.netloc, **settings)
        with closing(conn):
            conn.request("GET", f"{parts.path}?{parts.query}")
            return int(conn.getresponse().status)

    yield get


@contextmanager
def _opener(**settings: Any) -> Iterator[Get]:
    made = hardsock.adapters.http.opener(urllib.request.ProxyHandler({}), **settings)

    def get(url: str) -> int:
        try:
            with made.open(url) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as exc:
            with exc:
                return exc.code

    yield get


@contextmanager
def _botocore(tries: int = 1, **settings: Any) -> Iterator[Get]:
    config: dict[str, Any] = {"retries": {"total_max_attempts": tries}, "proxies": {}}
    s3 = hardsock.adapters.botocore.client(
        "s3",
        region_name="eu-central-1",
        endpoint_url="http://s3.test",
        config=botocore.config.Config(signature_version=botocore.UNSIGNED, **config),
        **settings,
    )

    def get(url: str) -> int:
        def aim(request: Any, **_: Any) -> None:
            request.url = url

        s3.meta.events.register_last("before-sign.s3", aim)
        try:
            found = s3.get_object(Bucket="b", Key="k")
            found["Body"].close()
        except botocore.exceptions.ClientError as exc:
            found = exc.response
        finally:
            s3.meta.events.unregister("before-sign.s3", aim)
        return int(found["ResponseMetadata"]["HTTPStatusCode"])

    get.s3 = s3  # type: ignore[attr-defined]
    yield get
    s3.close()


CLIENTS: dict[str, Any] = {"requests": _requests, "urllib3": _urllib3}
LEARNING: dict[str, Any] = {
    **CLIENTS,
    "http.client": _http_client,
    "urllib.request": _opener,
    "botocore": _botocore,
}


@pytest.fixture(params=CLIENTS)
def client(request: pytest.FixtureRequest) -> Any:
    return CLIENTS[request.param]


@pytest.fixture(params=LEARNING)
def learning(request: pytest.FixtureRequest) -> Any:
    return LEARNING[request.param]


def test_a_node_that_accepts_and_never_answers_is_ejected(learning: Any) -> None:
    breaker = hs.Breaker(failures=2, patience=0)
    with HttpPeer() as peer:
        with learning(total=0.3, breaker=breaker) as get:
            for _ in range(50):  # One that is late before it dials says nothing about the node.
                with pytest.raises(FAILURES):
                    get(peer.url("/silent"))
                if any(one.state == "open" for one in breaker.states()):
                    break
        with learning(total=30, breaker=breaker) as get:
            with pytest.raises(FAILURES) as refused:
                get(peer.url("/ok?x"))
            assert any(isinstance(one, hs.BreakerOpen) for one in causes(refused.value))
            (state,) = breaker.states()
            assert (state.key, state.state) == (f"127.0.0.1:{peer.port}", "open")
            del refused
            breaker.reset()
            assert get(peer.url("/ok?x")) == 200
    nothing_open()


def test_statuses_count_by_choice(learning: Any) -> None:
    for statuses, wanted in (((503,), 1), ((), 0)):
        breaker = hs.Breaker(failures=1)
        with HttpPeer() as peer:
            with learning(total=30, breaker=breaker, breaker_statuses=statuses) as get:
                assert get(peer.url("/busy")) == 503
                assert len(breaker.states()) == wanted


def test_a_cancel_is_no_failure_of_the_node(learning: Any) -> None:
    breaker, token = hs.Breaker(failures=1), hs.CancelToken()
    with HttpPeer() as peer, learning(breaker=breaker) as get:
        assert get(peer.url("/ok?x")) == 200
        token.cancel()
        with hs.scope(token), pytest.raises((hs.Cancelled, *FAILURES)):
            get(peer.url("/silent"))
    assert breaker.states() == []


def test_nothing_is_tried_again_on_a_node_that_is_ejected() -> None:
    breaker = hs.Breaker(failures=1)
    with HttpPeer() as peer:
        with _urllib3(breaker=breaker, retries=9) as get, hs.timeout(30):
            breaker.permit(("127.0.0.1", peer.port)).record("refused")
            with pytest.raises(HTTPError) as refused:
                get(peer.url("/ok?x"))
            assert any(isinstance(one, hs.BreakerOpen) for one in causes(refused.value))
    assert breaker.stats().refused == 1


@pytest.mark.parametrize("tls", [False, True])
def test_socks_is_under_the_deadline_too(client: Any, tls: bool, ids: Identities) -> None:
    context = server_context(ids) if tls else None
    with HttpPeer(context) as peer, Proxy(b"al ice") as proxy:
        via = f"socks5://al%20ice:secret@{proxy.address}"
        with client(ids.ca, total=30, via=via) as get:
            assert get(peer.url("/ok?x")) == 200
        assert proxy.targets == [("127.0.0.1", peer.port)]
    with HttpPeer(context) as peer, Proxy() as proxy:
        with client(ids.ca, total=0.5, via=f"socks5h://{proxy.address}") as get:
            with pytest.raises(FAILURES) as late:
                get(peer.url("/drip"))
            assert any(isinstance(one, hs.DeadlineExceeded) for one in causes(late.value))
            del late
    nothing_open()


def test_what_is_wrong_is_named() -> None:
    make = hardsock.adapters.urllib3.PoolManager
    with pytest.raises(ValueError, match="breaker_statuses has no use without breaker"):
        make(breaker_statuses=(500,))
    with pytest.raises(ValueError, match="must be statuses of HTTP, got 5"):
        make(breaker=hs.Breaker(), breaker_statuses=(5,))
    with pytest.raises(TypeError, match=r"breaker must be a hardsock\.Breaker, not bool"):
        make(breaker=True)
    for via in ("http://proxy:1", "https://proxy:1"):
        with pytest.raises(ValueError, match="via must be a SOCKS proxy"):
            make(via=via)
    with hardsock.adapters.requests.session(total=5) as session:
        session.trust_env, session.proxies = False, {"http": "socks4://proxy.test:1"}
        with pytest.raises(requests.exceptions.InvalidSchema, match="socks5"):
            session.get("http://nobody.test/")


# ---- Proxies of the environment, as the libraries read them


def _by_requests(url: str, ids: Identities) -> bytes:
    with hardsock.adapters.requests.session(30) as session:
        return session.get(url, verify=str(ids.ca)).content


def _by_opener(url: str, ids: Identities) -> bytes:
    opener = hardsock.adapters.http.opener(total=30, context=hs.ssl_context(ca=ids.ca))
    with opener.open(url) as answer:
        return bytes(answer.read())


@pytest.mark.parametrize("get", [_by_requests, _by_opener])
@pytest.mark.parametrize("tls", [False, True])
def test_proxies_of_the_environment_are_used(
    get: Callable[[str, Identities], bytes],
    tls: bool,
    ids: Identities,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    with HttpPeer(server_context(ids) if tls else None) as peer:
        if tls:  # The proxy knows CONNECT only.
            with Proxy() as proxy:
                monkeypatch.setenv("HTTPS_PROXY", f"http://{proxy.address}")
                assert get(peer.url("/ok?through"), ids) == b"through"
            assert proxy.targets == [("127.0.0.1", peer.port)]
        monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
        monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
        with pytest.raises((requests.ConnectionError, OSError)) as refused:
            get(peer.url("/ok?x"), ids)
        assert any(isinstance(one, hs.ConnectError) for one in causes(refused.value))
        del refused
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        assert get(peer.url("/ok?past"), ids) == b"past"
    nothing_open()


def test_socks_of_the_environment_is_used_by_requests(
    ids: Identities, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "https_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    with HttpPeer() as peer, Proxy() as proxy:
        monkeypatch.setenv("ALL_PROXY", f"socks5://{proxy.address}")
        assert _by_requests(peer.url("/ok?through"), ids) == b"through"
        assert proxy.targets == [("127.0.0.1", peer.port)]


# ---- The standard library and botocore


def test_botocore_does_not_try_again_on_a_node_that_is_ejected() -> None:
    breaker = hs.Breaker(failures=1)
    with HttpPeer() as peer:
        breaker.permit(("127.0.0.1", peer.port)).record("refused")
        with _botocore(breaker=breaker, tries=9) as get, hs.timeout(30):
            with pytest.raises(botocore.exceptions.HTTPClientError) as refused:
                get(peer.url("/ok?x"))
            assert any(isinstance(one, hs.BreakerOpen) for one in causes(refused.value))
    assert breaker.stats().refused == 1


def test_a_client_of_botocore_is_given_another_breaker() -> None:
    first, second = hs.Breaker(failures=1), hs.Breaker(failures=1)
    with HttpPeer() as peer, _botocore(breaker=first, breaker_statuses=(503,)) as get:
        hardsock.adapters.botocore.over(get.s3, 30, breaker=second, breaker_statuses=[503])  # type: ignore[attr-defined]
        assert get(peer.url("/busy")) == 503
        hardsock.adapters.botocore.over(get.s3, 30)  # type: ignore[attr-defined]
        assert get(peer.url("/busy")) == 503
    assert (len(first.states()), len(second.states())) == (0, 1)
    assert second.stats().refused == 0


def test_a_kept_connection_that_its_server_has_closed_is_no_failure() -> None:
    breaker = hs.Breaker(failures=1)
    steps: list[Any] = [("recv_until", b"\r\n\r\n"), ("send", b"HTTP/1.1 204 No Content\r\n\r\n")]
    with PeerScript([*steps, ("close",)]) as peer:
        conn = hardsock.adapters.http.HTTPConnection(
            *peer.address, total=30, breaker=breaker, breaker_statuses=(500,)
        )
        with closing(conn):
            conn.request("GET", "/")
            assert conn.getresponse().read() == b""
            with pytest.raises(OSError):
                conn.request("GET", "/")
                conn.getresponse()
    assert breaker.states() == []
    with PeerScript([steps[0], ("close",)]) as peer:
        conn = hardsock.adapters.http.HTTPConnection(*peer.address, total=30, breaker=breaker)
        with closing(conn), pytest.raises(OSError):
            conn.request("GET", "/")
            conn.getresponse()
    assert [one.state for one in breaker.states()] == ["open"]


def test_a_request_that_was_given_up_holds_no_permit() -> None:
    """Neither does one whose sending failed, though its answer may still be read: close() ends both."""
    breaker = hs.Breaker(failures=1, open_time=0.01)
    with HttpPeer() as peer:
        key = ("127.0.0.1", peer.port)
        breaker.permit(key).record("refused")
        for _ in range(3):
            conn = hardsock.adapters.http.HTTPConnection(*key, total=30, breaker=breaker)
            with closing(conn):
                assert poll_until(lambda conn=conn: _begins(conn), 30.0)
        with closing(
            hardsock.adapters.http.HTTPConnection(*key, total=30, breaker=breaker)
        ) as conn:
            assert poll_until(lambda: _begins(conn), 30.0)
            assert conn.getresponse().status == 200
    assert [one.state for one in breaker.states()] == ["closed"]


def _begins(conn: Any) -> bool:
    try:
        conn.request("GET", "/ok?x")
    except hs.BreakerOpen:
        return False
    return True


def test_a_server_proxy_learns_too() -> None:
    breaker = hs.Breaker(failures=1)
    with HttpPeer() as peer:
        proxy = hardsock.adapters.http.server_proxy(
            peer.url("/busy"), total=30, breaker=breaker, breaker_statuses=(501, 503)
        )
        with proxy, pytest.raises(xmlrpc.client.ProtocolError):
            proxy.pow(2, 5)
        with proxy, pytest.raises(hs.BreakerOpen):
            proxy.pow(2, 5)
    assert [one.state for one in breaker.states()] == ["open"]


@pytest.mark.parametrize(
    "make",
    [
        lambda **given: hardsock.adapters.http.HTTPConnection("x", **given),
        hardsock.adapters.http.opener,
        lambda **given: hardsock.adapters.http.server_proxy("http://x/", **given),
        lambda **given: hardsock.adapters.botocore.client(
            "s3", region_name="eu-central-1", **given
        ),
    ],
)
def test_what_is_wrong_for_them_is_named(make: Any) -> None:
    with pytest.raises(ValueError, match="breaker_statuses has no use without breaker"):
        make(breaker_statuses=(500,))
    with pytest.raises(TypeError, match=r"breaker must be a hardsock\.Breaker, not bool"):
        make(breaker=True)
