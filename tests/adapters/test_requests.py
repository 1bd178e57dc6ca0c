"""requests and urllib3 over hardsock: the contract, and what is theirs alone."""

from __future__ import annotations

import contextlib
import pickle
import queue
import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
import urllib3
from urllib3.exceptions import NewConnectionError
from urllib3.util.retry import Retry

import hardsock as hs
import hardsock.adapters.requests
import hardsock.adapters.urllib3
from adapters.endings import causes
from adapters.http_contract import *
from adapters.http_contract import nothing_open, server_context
from adapters.http_peer import HttpPeer
from hardsock.adapters import UntestedVersionWarning
from hardsock.adapters._queue import ScopedQueue
from hardsock.adapters._versions import check
from hardsock.lab.peers import PeerScript
from hardsock.lab.threads import Call
from support.proxy import Proxy
from support.tls import Identities

_AGAIN = {"status_forcelist": [503], "raise_on_status": False}


class RequestsClient:
    def __init__(self, session: requests.Session) -> None:
        self._session = session

    def get(self, url: str) -> bytes:
        response = self._session.get(url)
        response.raise_for_status()
        return response.content

    def post(self, url: str, body: bytes) -> int:
        return self._session.post(url, data=body).status_code

    def stream(self, url: str) -> Iterator[bytes]:
        return self._session.get(url, stream=True).iter_content(None)


class RequestsDriver:
    name = "requests"
    timed_out = (requests.exceptions.Timeout, requests.exceptions.ConnectionError)
    failed = (requests.exceptions.ConnectionError, requests.exceptions.ChunkedEncodingError)
    lacks: frozenset[str] = frozenset()

    @contextlib.contextmanager
    def client(
        self, total: float | None, ca: Path | None = None, retries: int = 0
    ) -> Iterator[RequestsClient]:
        with hardsock.adapters.requests.session(
            total, pool_maxsize=1, pool_block=True, max_retries=Retry(retries, **_AGAIN)
        ) as session:
            if ca is not None:
                session.verify = str(ca)
            session.trust_env = False
            yield RequestsClient(session)


class Urllib3Client:
    def __init__(self, manager: urllib3.PoolManager) -> None:
        self._manager = manager

    def get(self, url: str) -> bytes:
        response = self._manager.request("GET", url)
        assert response.status == 200
        return response.data

    def post(self, url: str, body: bytes) -> int:
        return self._manager.request("POST", url, body=body).status

    def stream(self, url: str) -> Iterator[bytes]:
        response = self._manager.request("GET", url, preload_content=False)
        return response.stream(65536)


class Urllib3Driver:
    name = "urllib3"
    timed_out = (
        urllib3.exceptions.TimeoutError,
        urllib3.exceptions.EmptyPoolError,
        urllib3.exceptions.MaxRetryError,
    )
    failed = (urllib3.exceptions.MaxRetryError, urllib3.exceptions.ProtocolError)
    lacks: frozenset[str] = frozenset()

    @contextlib.contextmanager
    def client(
        self, total: float | None, ca: Path | None = None, retries: int = 0
    ) -> Iterator[Urllib3Client]:
        settings: dict[str, Any] = {} if ca is None else {"ca_certs": str(ca)}
        with hardsock.adapters.urllib3.PoolManager(
            total=total,
            maxsize=1,
            block=True,
            retries=Retry(5, connect=retries, read=retries, status=retries, other=0, **_AGAIN),
            **settings,
        ) as manager:
            yield Urllib3Client(manager)


DRIVERS = [RequestsDriver(), Urllib3Driver()]


# ---- What is theirs alone


def test_the_pauses_of_ones_own_retry_class_end_too(ids: Identities) -> None:
    class Mine(Retry):
        asked = 0

        def get_backoff_time(self) -> float:
            Mine.asked += 1
            return 60.0

    own = Mine(3, respect_retry_after_header=False, **_AGAIN)  # type: ignore[arg-type]
    with HttpPeer() as peer, hardsock.adapters.urllib3.PoolManager(total=0.2) as manager:
        with pytest.raises(urllib3.exceptions.ReadTimeoutError, match="pause before another try"):
            manager.request("GET", peer.url("/busy"), retries=own)
        assert Mine.asked == 1
        assert type(own) is Mine
    del own


def test_a_read_timeout_of_urllib3_is_a_total_for_the_read() -> None:
    with HttpPeer() as peer, hardsock.adapters.urllib3.PoolManager() as manager:
        began = time.monotonic()
        with pytest.raises(urllib3.exceptions.ReadTimeoutError):
            manager.request("GET", peer.url("/drip"), timeout=0.3, retries=False)
        assert time.monotonic() - began < 10


def test_an_ssl_context_that_would_take_the_descriptor_is_refused(ids: Identities) -> None:
    bare = ssl.create_default_context(cafile=str(ids.ca))
    with HttpPeer(server_context(ids)) as peer:
        with hardsock.adapters.urllib3.PoolManager(ssl_context=bare) as manager:
            with pytest.raises(
                TypeError, match=r"write ssl_context=hardsock\.ssl_context\(context\)"
            ):
                manager.request("GET", peer.url("/ok?x"), retries=False)
        ours = hs.ssl_context(bare)
        with hardsock.adapters.urllib3.PoolManager(ssl_context=ours) as manager:
            assert manager.request("GET", peer.url("/ok?x")).data == b"x"


def test_sessions_of_tls_are_resumed_by_connections_of_one_setting(ids: Identities) -> None:
    with HttpPeer(server_context(ids)) as peer:
        for number in range(2):
            with hardsock.adapters.urllib3.PoolManager(ca_certs=str(ids.ca)) as manager:
                response = manager.request("GET", peer.url("/ok?x"), preload_content=False)
                sock = response.connection.sock  # type: ignore[union-attr]
                assert isinstance(sock, hs.TLSSocket)
                assert sock.session_reused == (number == 1)
                assert response.read() == b"x"


def test_unasked_bytes_are_nobodys_answer() -> None:
    extra = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfourHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"
    first = [("recv_until", b"\r\n\r\n"), ("send", extra), ("stall",)]
    with PeerScript(first) as peer, hardsock.adapters.urllib3.PoolManager(total=20) as manager:
        url = "http://{}:{}/".format(*peer.address)
        assert manager.request("GET", url).data == b"four"
        (pool,) = [manager.pools[key] for key in manager.pools.keys()]
        (conn,) = [one for one in pool.pool.queue if one is not None]
        assert not conn.is_connected
        peer.release()


def test_a_session_can_be_pickled() -> None:
    session = hardsock.adapters.requests.session(total=7.5, pool_maxsize=3)
    same = pickle.loads(pickle.dumps(session))
    assert same.total == 7.5
    adapter = same.get_adapter("https://x.test/")
    assert isinstance(adapter, hardsock.adapters.requests.Adapter)
    assert isinstance(adapter.poolmanager, hardsock.adapters.urllib3.PoolManager)
    assert adapter._pool_maxsize == 3


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxy_is_under_the_deadline_too(scheme: str) -> None:
    # The time may be up before there is a connection: reading what the system trusts takes some.
    with (
        PeerScript([("stall",)], check=False) as silent,
        hardsock.adapters.requests.session(0.2) as session,
    ):
        session.trust_env = False
        session.proxies = {scheme: "http://{}:{}".format(*silent.address)}
        with pytest.raises(requests.exceptions.RequestException) as caught:
            session.get(f"{scheme}://nobody.test/")
        chain: list[BaseException] = []
        exc: BaseException | None = caught.value
        while exc is not None:
            chain.append(exc)
            exc = exc.__cause__ or exc.__context__
        assert any(isinstance(one, hs.DeadlineExceeded) for one in chain)
    del chain, exc, caught


def test_what_cannot_go_through_hardsock_is_refused() -> None:
    with pytest.raises(ValueError, match="proxy_url must be http"):
        hardsock.adapters.urllib3.ProxyManager("socks5://127.0.0.1:1080")
    with hardsock.adapters.requests.session(1) as session:
        session.proxies = {"http": "socks4://127.0.0.1:1"}
        with pytest.raises(requests.exceptions.InvalidSchema, match="socks5"):
            session.get("http://nobody.test/")


def test_an_untested_version_warns() -> None:
    for good in ("2.0.0", "2.3.1", "2.8.99", "2.8.0+local"):
        check("urllib3", good, "2.0", "2.8")
    for other in ("1.26.20", "2.9.0", "3.0.0"):
        with pytest.warns(UntestedVersionWarning, match=f"urllib3 {other}: .* 2.0 to 2.8"):
            check("urllib3", other, "2.0", "2.8")


def test_a_queue_gives_the_newest_and_ends_as_it_says() -> None:
    one = ScopedQueue(3)
    one.put("old")
    one.put("new")
    assert [one.get(), one.get(timeout=1)] == ["new", "old"]
    with hs.timeout(30) as token:
        with pytest.raises(queue.Empty):
            one.get(block=False)
        with pytest.raises(queue.Empty) as plain:
            one.get(timeout=0.01)
        assert plain.value.__cause__ is None

        def taking() -> Any:
            with hs.scope(token):
                return one.get()

        with Call(taking) as call:
            one.put("given")
            assert call.result() == "given"
        one.put("there")
        token.cancel("enough")
        assert one.get() == "there"
        with pytest.raises(queue.Empty) as ended:
            one.get()
        assert isinstance(ended.value.__cause__, hs.Cancelled)


@pytest.mark.parametrize("secured", [False, True])
def test_a_tunnel_of_a_proxy_carries_tls_and_ends(secured: bool, ids: Identities) -> None:
    """Through an https proxy it is TLS within TLS: both are hardsock's."""
    context = server_context(ids) if secured else None
    for path in ("/ok?through", "/drip"):
        with HttpPeer(server_context(ids)) as peer, Proxy(tls=context) as proxy:
            with hardsock.adapters.requests.session(30 if path != "/drip" else 1.0) as session:
                session.trust_env, session.verify = False, str(ids.ca)
                session.proxies = {"https": f"http{'s' * secured}://{proxy.address}"}
                if path == "/drip":
                    with pytest.raises(requests.exceptions.RequestException) as caught:
                        session.get(peer.url(path))
                    assert any(isinstance(one, hs.DeadlineExceeded) for one in causes(caught.value))
                    del caught
                else:
                    response = session.get(peer.url(path), stream=True)
                    assert isinstance(response.raw.connection.sock, hs.TLSSocket)
                    assert response.content == b"through"
                    del response  # which holds its pool, and that the connection
                    (found,) = (one for one in hs.open_connections() if one.how == "connect")
                    assert found.peer == proxy.address
    nothing_open()


def test_a_proxy_is_not_offered_the_clients_certificate(ids: Identities) -> None:
    """Nor on the second connection, when the target's context has loaded it."""
    asking = server_context(ids)
    asking.load_verify_locations(ids.ca)
    asking.verify_mode = ssl.CERT_OPTIONAL
    identity = ids.client_identity
    for _ in range(2):
        with HttpPeer(server_context(ids)) as peer, Proxy(tls=asking) as proxy:
            with (
                hs.timeout(30),
                hardsock.adapters.urllib3.ProxyManager(
                    f"https://{proxy.address}",
                    ca_certs=str(ids.ca),
                    cert_file=str(identity.chain),
                    key_file=str(identity.key),
                ) as manager,
            ):
                assert manager.request("GET", peer.url("/ok?through")).data == b"through"
        assert proxy.client_certificates == [None]


def test_dials_of_a_session_wait_for_a_place() -> None:
    limits = hs.DialLimits(in_flight=1)
    with HttpPeer() as peer, hs.timeout(30):
        with hardsock.adapters.requests.session(dial_limits=limits) as session:
            with limits.place(), pytest.raises(requests.ConnectTimeout, match="no place to dial"):
                session.get(peer.url("/ok?x"), timeout=0.05)
            assert session.get(peer.url("/ok?x"), timeout=20).content == b"x"
    assert limits.stats()[:4] == (0, 0, 2, 1)
    with pytest.raises(TypeError, match="limits must be a DialLimits"):
        hardsock.adapters.urllib3.PoolManager(dial_limits=3)


@pytest.mark.parametrize(
    ("option", "error"),
    [((socket.IPPROTO_TCP, 9999, 1), NewConnectionError), ((1, "x", 1), TypeError)],
)
def test_an_option_that_cannot_be_set_leaves_nothing_open(option: Any, error: Any) -> None:
    with HttpPeer() as peer, hs.timeout(30):
        with hardsock.adapters.urllib3.PoolManager(
            socket_options=[option], retries=False
        ) as manager:
            with pytest.raises(error) as caught:
                manager.request("GET", peer.url("/ok?x"))
            nothing_open()
    del caught
