"""botocore and boto3 over hardsock: the contract, and what is theirs alone."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import botocore.config
import botocore.exceptions
import botocore.session
import pytest
from boto3.s3.transfer import TransferConfig

import hardsock as hs
import hardsock.adapters.botocore
from adapters.endings import SHORT, causes
from adapters.http_contract import *
from adapters.http_contract import nothing_open, server_context
from adapters.http_peer import HttpPeer
from hardsock.lab.peers import PeerScript
from hardsock.lab.threads import Call
from support.proxy import Proxy
from support.tls import Identities

_SETTINGS: dict[str, Any] = {
    "region_name": "eu-central-1",
    "aws_access_key_id": "nobody",
    "aws_secret_access_key": "nothing",
}


@pytest.fixture(autouse=True)
def _no_settings_of_this_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if name.startswith("AWS_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


def _plain_config(**more: Any) -> botocore.config.Config:
    """For a server that knows nothing of S3: no checksums, no CONTINUE, no tries of its own."""
    settings: dict[str, Any] = {
        "s3": {"addressing_style": "path"},
        "proxies": {},
        "retries": {"total_max_attempts": 5, "mode": "standard"},
        "connect_timeout": 60,
        "read_timeout": 60,
        **more,
    }
    for name in ("request_checksum_calculation", "response_checksum_validation"):
        if name in botocore.config.Config.OPTION_DEFAULTS:
            settings[name] = "when_required"
    return botocore.config.Config(**settings)


_session = botocore.session.Session()  # one, since it keeps the descriptions of services
_boto3_session = boto3.session.Session(botocore_session=_session)


class S3Client:
    """Operations of S3, sent to the path that a test wants."""

    def __init__(self, s3: Any, retries: int) -> None:
        self._s3, self._url = s3, ""
        self._retries = retries
        s3.meta.events.register_last("before-sign.s3", self._aim)
        for name in ("needs-retry.s3",):
            s3.meta.events.unregister(name, unique_id="retry-config-s3")
            s3.meta.events.register_first(name, self._again)

    def _aim(self, request: Any, **_: Any) -> None:
        request.url = self._url

    def _again(self, attempts: int, response: Any, **_: Any) -> float | None:
        """Seconds to wait before another try, as the server would have it."""
        if response is None or attempts > self._retries:
            return None
        after = response[0].headers.get("Retry-After")
        return None if after is None else float(after)

    def _body(self, url: str) -> Any:
        self._url = url
        return self._s3.get_object(Bucket="b", Key="k")["Body"]

    def get(self, url: str) -> bytes:
        return bytes(self._body(url).read())

    def post(self, url: str, body: bytes) -> int:
        self._url = url
        try:
            found = self._s3.put_object(Bucket="b", Key="k", Body=body)
        except botocore.exceptions.ClientError as exc:
            found = exc.response
        return int(found["ResponseMetadata"]["HTTPStatusCode"])

    def stream(self, url: str) -> Iterator[bytes]:
        body = self._body(url)
        return iter(lambda: body.read(5), b"")


class BotocoreDriver:
    name = "botocore"
    timed_out = (
        botocore.exceptions.ReadTimeoutError,
        botocore.exceptions.ConnectTimeoutError,
    )
    failed = (
        botocore.exceptions.ConnectionError,
        botocore.exceptions.ConnectionClosedError,
        botocore.exceptions.IncompleteReadError,
        botocore.exceptions.ResponseStreamingError,
        botocore.exceptions.HTTPClientError,
    )
    lacks = frozenset({"queue", "redirects"})

    @contextlib.contextmanager
    def client(
        self, total: float | None, ca: Path | None = None, retries: int = 0
    ) -> Iterator[S3Client]:
        made = hardsock.adapters.botocore.client(
            "s3",
            total=total,
            session=_session,
            endpoint_url="http://s3.test",
            config=_plain_config(signature_version=botocore.UNSIGNED),
            verify=str(ca) if ca is not None else None,
            region_name="eu-central-1",
        )
        try:
            yield S3Client(made, retries)
        finally:
            made.close()


DRIVERS = [BotocoreDriver()]
keep_what_a_driver_has(globals())


# ---- What is theirs alone


def _s3(url: str, total: float | None = None, **more: Any) -> Any:
    """A client with credentials, so that requests are signed."""
    return hardsock.adapters.botocore.client(
        "s3",
        total=total,
        session=_session,
        endpoint_url=url,
        config=_plain_config(**more),
        **_SETTINGS,
    )


def _address(peer: PeerScript) -> str:
    return "http://{}:{}".format(*peer.address)


_LENGTH = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n"


def test_a_resource_and_a_client_that_exist_are_put_over_hardsock() -> None:
    script = [("recv_until", b"\r\n\r\n"), ("send", _LENGTH % 5 + b"hello")]
    for kind in ("client", "resource"):
        with PeerScript(script) as peer:
            made = getattr(_boto3_session, kind)(
                "s3", endpoint_url=_address(peer), config=_plain_config(), **_SETTINGS
            )
            assert hardsock.adapters.botocore.over(made, total=30) is made
            assert hardsock.adapters.botocore.over(made, total=20) is made
            client = made if kind == "client" else made.meta.client
            with hs.timeout(30):
                if kind == "client":
                    body = made.get_object(Bucket="b", Key="k")["Body"]
                else:
                    body = made.Object("b", "k").get()["Body"]
            (found,) = (one for one in hs.open_connections() if one.how == "connect")
            assert found.site.file == __file__
            assert body.read() == b"hello"
            client.close()
            del body  # it keeps its pool
    nothing_open()


def test_what_is_no_client_is_refused() -> None:
    with pytest.raises(TypeError, match=r"client must be a client of botocore .* got str"):
        hardsock.adapters.botocore.over("s3")
    made = _boto3_session.client("s3", **_SETTINGS)
    made._endpoint.http_session = object()
    with pytest.raises(TypeError, match="botocore's own HTTP session, got object"):
        hardsock.adapters.botocore.over(made)


@pytest.mark.parametrize("end", ["deadline", "cancel"])
def test_the_wait_for_continue_ends(end: str) -> None:
    """botocore waits a second for it, in a place of its own."""
    with PeerScript([("recv_until", b"\r\n\r\n"), ("stall",)]) as peer:
        client = _s3(_address(peer))
        token = hs.CancelToken(SHORT if end == "deadline" else None)

        def put() -> None:
            with hs.scope(token):
                client.put_object(Bucket="b", Key="k", Body=b"x" * 1000)

        with Call(put) as running:
            if end == "cancel":
                peer.wait_steps(1)
                running.wait_until_blocked()
                token.cancel("stop button")
            with pytest.raises((botocore.exceptions.ReadTimeoutError, hs.Cancelled)) as caught:
                running.result(20)
        assert isinstance(caught.value, hs.Cancelled) == (end == "cancel")
        client.close()
        del running, caught
        nothing_open()


@pytest.mark.parametrize("says", ["continue", "denied", "nothing"])
def test_an_upload_that_expects_continue_goes_on_as_it_should(says: str) -> None:
    body = b"x" * 1000
    script: list[tuple[Any, ...]] = [("recv_until", b"\r\n\r\n")]
    if says == "continue":
        script.append(("send", b"HTTP/1.1 100 Continue\r\n\r\n"))
    if says == "denied":
        script.append(("send", b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n"))
    else:
        script += [("recv", len(body)), ("send", _LENGTH % 0)]
    with PeerScript(script) as peer:
        client = _s3(_address(peer), total=30)
        try:
            if says == "denied":
                with pytest.raises(botocore.exceptions.ClientError, match="403"):
                    client.put_object(Bucket="b", Key="k", Body=body)
            else:
                client.put_object(Bucket="b", Key="k", Body=body)
        finally:
            client.close()
    nothing_open()


def test_the_pauses_of_botocores_own_tries_end() -> None:
    """In both of its retry modes, whose pauses are random: a handler of ours makes them long."""
    head = b"HTTP/1.1 503 Slow Down\r\nContent-Length: 0\r\n\r\n"
    for mode in ("standard", "legacy"):
        with PeerScript([("recv_until", b"\r\n\r\n"), ("send", head), ("stall",)]) as peer:
            client = _s3(_address(peer), retries={"total_max_attempts": 4, "mode": mode})
            client.meta.events.register_first("needs-retry.s3", lambda **_: 60)
            client.meta.events.register_last("needs-retry.s3", lambda **_: 60)
            # A first call loads much before it sends anything.
            with hs.timeout(3.0), pytest.raises(botocore.exceptions.ReadTimeoutError) as late:
                client.get_object(Bucket="b", Key="k")
            assert isinstance(late.value.__cause__, hs.DeadlineExceeded)
            client.close()
            del late
    nothing_open()


def test_a_cancel_is_not_tried_again_and_no_event_of_a_failure() -> None:
    with PeerScript([("recv_until", b"\r\n\r\n"), ("stall",)]) as peer:
        client = _s3(_address(peer))
        asked: list[Any] = []
        client.meta.events.register_first("needs-retry.s3", lambda **found: asked.append(found))
        token = hs.CancelToken()

        def get() -> None:
            with hs.scope(token):
                client.get_object(Bucket="b", Key="k")

        with Call(get) as running:
            peer.wait_steps(1)
            token.cancel("stop button")
            with pytest.raises(hs.Cancelled):
                running.result(20)
        assert asked == []
        client.close()
    del running
    nothing_open()


def test_a_waiter_pauses_and_ends_with_the_scope() -> None:
    ask = [("recv_until", b"\r\n\r\n"), ("send", b"HTTP/1.1 404 None\r\nContent-Length: 0\r\n\r\n")]
    with PeerScript([*ask, *ask, ("recv_until", b"\r\n\r\n"), ("send", _LENGTH % 0)]) as peer:
        client = _s3(_address(peer), total=30)
        waiter = client.get_waiter("object_exists")
        waiter.wait(Bucket="b", Key="k", WaiterConfig={"Delay": 0})
        client.close()
    with PeerScript([*ask, ("stall",)]) as peer:
        client = _s3(_address(peer), total=30)
        waiter = client.get_waiter("object_exists")
        with hs.timeout(3.0), pytest.raises(botocore.exceptions.WaiterError) as late:
            waiter.wait(Bucket="b", Key="k")
        assert "no time left" in str(late.value)
        assert isinstance(late.value.__cause__, hs.DeadlineExceeded)
        client.close()
    del late
    nothing_open()


def test_a_transfer_without_threads_ends_with_the_scope(tmp_path: Path) -> None:
    script = [("recv_until", b"\r\n\r\n"), ("send", _LENGTH % 100_000), ("stall",)]
    with PeerScript(script) as peer:
        client = _s3(_address(peer))
        with hs.timeout(SHORT), pytest.raises(Exception, match=r"(?i)timeout|timed out") as late:
            client.download_file(
                "b", "k", str(tmp_path / "k"), Config=TransferConfig(use_threads=False)
            )
        assert any(isinstance(one, hs.DeadlineExceeded) for one in causes(late.value))
        client.close()
    del late
    nothing_open()


@pytest.mark.parametrize("bundle", ["of the proxy", "of the system"])
def test_a_proxy_with_tls_and_its_own_trust(bundle: str, ids: Identities) -> None:
    """Within botocore's proxy settings the way to it has a context of its own."""
    settings = {"proxy_client_cert": (str(ids.client_identity.chain), str(ids.client_identity.key))}
    if bundle == "of the proxy":
        settings["proxy_ca_bundle"] = str(ids.ca)
    with HttpPeer(server_context(ids)) as peer, Proxy(tls=server_context(ids)) as proxy:
        made = hardsock.adapters.botocore.client(
            "s3",
            total=30,
            session=_session,
            endpoint_url=peer.url(""),
            verify=str(ids.ca),
            config=_plain_config(
                proxies={"https": f"https://{proxy.address}"}, proxies_config=settings
            ),
            **_SETTINGS,
        )
        client = S3Client(made, 0)
        if bundle == "of the proxy":
            assert client.get(peer.url("/ok?through")) == b"through"
        else:
            with pytest.raises(botocore.exceptions.ProxyConnectionError) as refused:
                client.get(peer.url("/ok?through"))
            assert any("issuer that is not known" in str(one) for one in causes(refused.value))
            del refused
        made.close()
    nothing_open()
