"""kombu (py-amqp) and paho-mqtt over hardsock, against RabbitMQ, mosquitto, and bad peers."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kombu
import kombu.exceptions
import paho.mqtt.client as mqtt
import pytest

import hardsock as hs
from adapters.endings import SHORT, causes, refusing
from adapters.http_contract import nothing_open, server_context
from adapters.http_peer import HttpPeer
from hardsock.adapters.kombu import AMQPConnection, Connection, SSLTransport
from hardsock.adapters.paho import Client
from hardsock.lab.blackhole import BlackHole
from hardsock.lab.namespaces import Namespace
from hardsock.lab.peers import PeerScript
from hardsock.lab.servers.process import Server
from hardsock.lab.threads import Call
from support.require import require
from support.servers.brokers import mosquitto, rabbitmq
from support.tls import Identities

_TIMEOUT = 60.0


def _certificate(ids: Identities) -> tuple[Path, Path]:
    return Path(ids.server_identity.chain), Path(ids.server_identity.key)


# ---- kombu


@pytest.fixture(scope="module")
def rabbit(ids: Identities) -> Iterator[tuple[Server, int]]:
    with require(rabbitmq(certificate=_certificate(ids))) as found:
        yield found


def _broker(address: Any, **given: Any) -> Connection:
    """One that has only the test's own end: kombu's limit for connecting is five seconds."""
    return Connection("amqp://{}:{}//".format(*address), connect_timeout=_TIMEOUT, **given)


def _ends(end: str, call: Any, peer: PeerScript | None = None) -> None:
    token = hs.CancelToken(SHORT if end == "scope" else None)

    def within() -> None:
        with hs.scope(token):
            call()

    with Call(within) as running:
        if end == "cancel":
            if peer is None:
                running.wait_until_blocked()
            else:
                peer.wait_steps(1)
            token.cancel("stop button")
            with pytest.raises(hs.Cancelled):
                running.result(_TIMEOUT)
        else:
            with pytest.raises(kombu.exceptions.OperationalError) as late:
                running.result(_TIMEOUT)
            assert any(isinstance(one, hs.DeadlineExceeded) for one in causes(late.value))
            del late


@pytest.mark.parametrize("end", ["scope", "cancel"])
def test_a_handshake_with_a_broker_that_stalls_ends(end: str) -> None:
    with PeerScript([("stall",)], check=False) as peer:
        broker = _broker(peer.address, ssl={"cert_reqs": ssl.CERT_NONE})
        _ends(end, broker.ensure_connection)
        broker.release()
        nothing_open()


@pytest.mark.parametrize("end", ["scope", "cancel"])
@pytest.mark.parametrize("transport", ["plain", "tls"])
@pytest.mark.parametrize("fault", ["silent", "drip"])
def test_a_broker_that_has_heard_the_greeting_ends(
    end: str, transport: str, fault: str, ids: Identities
) -> None:
    # A frame of a method, of 5,000 octets.
    drip = ("drip", b"\x01\x00\x00\x00\x00\x13\x88" + b"x" * 5000, 0.01)
    script = [("recv", 8), ("stall",) if fault == "silent" else drip]
    context = server_context(ids) if transport == "tls" else None
    with PeerScript(script, check=False, tls=context) as peer:
        told = {"ca_certs": str(ids.ca), "cert_reqs": ssl.CERT_REQUIRED}
        broker = _broker(peer.address, ssl=told if context else False)
        _ends(end, broker.ensure_connection, peer)
        broker.release()
        nothing_open()


@pytest.mark.parametrize("transport", ["plain", "tls"])
@pytest.mark.parametrize("fault", ["reset", "truncated"])
def test_a_greeting_of_a_broker_that_breaks_off_is_an_error(
    fault: str, transport: str, ids: Identities
) -> None:
    half = ("send", b"\x01\x00\x00\x00\x00\x13\x88" + b"x" * 100)  # of 5,000 octets
    script = [("recv", 8), half, ("rst",) if fault == "reset" else ("close",)]
    context = server_context(ids) if transport == "tls" else None
    with PeerScript(script, tls=context, connections=9, check=False) as peer:
        told = {"ca_certs": str(ids.ca), "cert_reqs": ssl.CERT_REQUIRED}
        broker = _broker(peer.address, ssl=told if context else False)
        with hs.timeout(_TIMEOUT), pytest.raises(kombu.exceptions.OperationalError) as broken:
            broker.ensure_connection(max_retries=1, errback=None, interval_start=0)
        found = causes(broken.value)
        assert not any(isinstance(one, hs.DeadlineExceeded) for one in found)
        del broken, found
        broker.release()
        nothing_open()


def test_giving_up_does_not_wait_for_the_brokers_end_of_tls(ids: Identities) -> None:
    with PeerScript([("recv", 8), ("stall",)], check=False, tls=server_context(ids)) as peer:
        transport = AMQPConnection().Transport(
            "{}:{}".format(*peer.address), 60, ssl={"cert_reqs": ssl.CERT_NONE}
        )
        with hs.timeout(_TIMEOUT):
            transport.connect()
        with Call(transport.close) as closing:
            closing.result(20)
        assert transport.sock is None
        assert not transport.connected
        nothing_open()


@pytest.mark.parametrize("tls", [False, True])
def test_the_kernels_settings_are_hardsocks_unless_others_are_given(
    tls: bool, ids: Identities
) -> None:
    script = [("recv", 8), ("stall",)]
    context = server_context(ids) if tls else None
    with PeerScript(script, check=False, connections=2, tls=context) as peer:
        for given in ({}, {socket.TCP_USER_TIMEOUT: 7000, socket.TCP_KEEPINTVL: 61}):
            transport = AMQPConnection().Transport(
                "{}:{}".format(*peer.address),
                _TIMEOUT,
                ssl={"cert_reqs": ssl.CERT_NONE} if tls else False,
                socket_settings=given,
            )
            with hs.timeout(_TIMEOUT):
                transport.connect()
            changed = {one.name: one.effective for one in transport.sock.audit() if one.differs}
            transport.close()
            peer.release()
            assert changed == (
                {"user_timeout_ms": 7000, "keepalive_interval_s": 61} if given else {}
            )
    nothing_open()


def _dead_dns_of(client: str, end: str) -> bool:
    """Runs inside of a namespace."""
    from hardsock.lab.dns import DeadDNS, use_dns

    with DeadDNS():
        use_dns("127.0.0.1", timeout=30, attempts=5)
        if client == "kombu":
            broker = Connection("amqp://nobody.test//")
            _ends(end, broker.ensure_connection)
            broker.release()
        else:
            _connecting_ends(end, _mqtt(), ("nobody.test", 1883))
    nothing_open()
    return True


@pytest.mark.net
@pytest.mark.parametrize(
    ("client", "end"),
    [
        *(("kombu", end) for end in ("scope", "cancel")),
        *(("paho", end) for end in ("own", "scope", "cancel")),
    ],
)
def test_a_dead_name_server_ends(client: str, end: str) -> None:
    with require(Namespace()) as namespace:
        assert namespace.run("adapters.test_messaging:_dead_dns_of", client, end, timeout=120)


@pytest.mark.parametrize("end", ["scope", "cancel"])
def test_a_connect_into_a_black_hole_ends(end: str) -> None:
    with BlackHole() as hole:
        broker = Connection("amqp://{}:{}//".format(*hole.address))
        _ends(end, broker.ensure_connection)
        broker.release()
        nothing_open()


@pytest.mark.parametrize("transport", ["plain", "tls"])
@pytest.mark.parametrize("end", ["scope", "cancel"])
def test_the_pauses_between_tries_to_connect_end(end: str, transport: str) -> None:
    """Nobody listens, or who does hangs up in the handshake."""
    tried = threading.Event()
    token = hs.CancelToken()
    with refusing(transport == "tls") as address:
        broker = _broker(address, ssl={"cert_reqs": ssl.CERT_NONE} if transport == "tls" else False)

        def ensure() -> None:
            with hs.scope(token):
                broker.ensure_connection(
                    lambda *_: tried.set(), interval_start=300, interval_max=300
                )

        with Call(ensure) as running:
            assert tried.wait(_TIMEOUT)
            if end == "cancel":
                token.cancel("stop button")
            else:
                token.set_timeout(SHORT)
            with pytest.raises((kombu.exceptions.OperationalError, hs.Cancelled)) as ended:
                running.result(_TIMEOUT)  # less than the pause
            assert isinstance(ended.value, hs.Cancelled) == (end == "cancel")
            del ended
        broker.release()
    nothing_open()


def test_messages_go_through_and_waiting_ends(rabbit: tuple[Server, int]) -> None:
    server = rabbit[0]
    with (
        hs.timeout(_TIMEOUT),
        Connection(f"amqp://guest:guest@127.0.0.1:{server.port}//") as broker,
    ):
        queue = broker.SimpleQueue("work")
        queue.put("x" * 300_000)
        message = queue.get(timeout=_TIMEOUT)
        assert len(message.payload) == 300_000
        message.ack()
        (found,) = (one for one in hs.open_connections() if one.how == "connect")
        assert found.site.file == __file__
        with pytest.raises(queue.Empty):
            queue.get(timeout=0.1)
        with hs.timeout(SHORT), pytest.raises(kombu.exceptions.OperationalError):
            queue.get()
        token = hs.CancelToken()

        def wait() -> None:
            with hs.scope(token):
                queue.get()

        with Call(wait) as waiting:
            waiting.wait_until_blocked()
            token.cancel("stop button")
            with pytest.raises(hs.Cancelled):
                waiting.result(_TIMEOUT)
        for number in range(3):  # It is where it was.
            queue.put(number)
            message = queue.get(timeout=_TIMEOUT)
            assert message.payload == number
            message.ack()
        queue.close()
    nothing_open()


@pytest.mark.parametrize("given", ["settings", "context", "transport"])
def test_tls_of_rabbitmq(given: str, rabbit: tuple[Server, int], ids: Identities) -> None:
    told: dict[str, Any] = {
        "ca_certs": str(ids.ca),
        "cert_reqs": ssl.CERT_REQUIRED,
        "server_hostname": "127.0.0.1",
    }
    if given == "context":
        context = {"cafile": str(ids.ca), "check_hostname": True}
        told = {"context": context, "server_hostname": "127.0.0.1"}
    url = f"amqp://guest:guest@127.0.0.1:{rabbit[1]}//"
    with hs.timeout(_TIMEOUT):
        if given == "transport":
            broker = kombu.Connection(url, ssl=told, transport=SSLTransport)
        else:
            broker = Connection(url, ssl=told)
        with broker:
            broker.connect()
            assert any(one.how == "connect" for one in hs.open_connections())
            with broker.SimpleQueue("secured") as queue:
                queue.put("hello")
                assert queue.get(timeout=_TIMEOUT).payload == "hello"
    nothing_open()


def test_a_certificate_of_somebody_else_is_refused(ids: Identities, tmp_path: Path) -> None:
    with HttpPeer(server_context(ids)) as peer:  # any server of TLS
        other = {"ca_certs": str(Identities(tmp_path).ca), "cert_reqs": ssl.CERT_REQUIRED}
        broker = Connection(f"amqp://127.0.0.1:{peer.port}//", ssl=other)
        with hs.timeout(_TIMEOUT), pytest.raises(kombu.exceptions.OperationalError) as refused:
            broker.ensure_connection(max_retries=1, interval_start=0)
        assert "issuer" in str(refused.value)
        broker.release()
        del refused
    nothing_open()


# ---- paho-mqtt


def _mqtt(**settings: Any) -> Client:
    return Client(mqtt.CallbackAPIVersion.VERSION2, **settings)


@pytest.mark.parametrize("tls", [False, True])
def test_mosquitto_serves_over_hardsock(tls: bool, ids: Identities) -> None:
    with require(mosquitto(certificate=_certificate(ids) if tls else None)) as server:
        client = _mqtt()
        if tls:
            client.tls_set(ca_certs=str(ids.ca))
        subscribed, got = threading.Event(), threading.Event()
        received: list[bytes] = []

        def on_message(_client: Any, _data: Any, message: Any) -> None:
            received.append(message.payload)
            got.set()

        client.on_message = on_message
        client.on_subscribe = lambda *_: subscribed.set()
        client.connect(*server.address)
        client.loop_start()
        try:
            client.subscribe("news", qos=1)
            assert subscribed.wait(_TIMEOUT)
            (found,) = (one for one in hs.open_connections() if one.how == "connect")
            assert found.site.function == "test_mosquitto_serves_over_hardsock"
            client.publish("news", b"x" * 200_000, qos=1).wait_for_publish(_TIMEOUT)
            assert got.wait(_TIMEOUT)
            assert received == [b"x" * 200_000]
        finally:
            client.disconnect()
            client.loop_stop()
    nothing_open()


def _connecting_ends(end: str, client: Client, address: Any) -> None:
    client.connect_timeout = SHORT if end == "own" else 600
    token = hs.CancelToken(SHORT if end == "scope" else None)

    def connect() -> None:
        with hs.scope(token):
            client.connect(*address)

    with Call(connect) as running:
        if end == "cancel":
            running.wait_until_blocked()
            token.cancel("stop button")
        with pytest.raises(hs.Cancelled if end == "cancel" else TimeoutError):
            running.result(_TIMEOUT)


@pytest.mark.parametrize("where", ["connect", "handshake"])
@pytest.mark.parametrize("end", ["own", "scope", "cancel"])
def test_connecting_to_a_broker_ends(where: str, end: str, ids: Identities) -> None:
    with contextlib.ExitStack() as opened:
        client = _mqtt()
        if where == "connect":
            address = opened.enter_context(BlackHole()).address
        else:
            address = opened.enter_context(PeerScript([("stall",)], check=False)).address
            client.tls_set(ca_certs=str(ids.ca))
        _connecting_ends(end, client, address)
        nothing_open()


@pytest.mark.parametrize("transport", ["plain", "tls"])
@pytest.mark.parametrize("fault", ["reset", "truncated"])
def test_an_answer_to_paho_that_breaks_off_is_an_error(
    fault: str, transport: str, ids: Identities
) -> None:
    """Half a CONNACK, after which it is not connected, and is told so."""
    half = ("send", b"\x20\x02\x00")
    script = [("recv", 1), half, ("rst",) if fault == "reset" else ("close",)]
    context = server_context(ids) if transport == "tls" else None
    connected: list[Any] = []
    lost: list[Any] = []
    with PeerScript(script, tls=context) as peer, hs.timeout(_TIMEOUT):
        client = _mqtt()
        client.on_connect = lambda *given: connected.append(given)
        client.on_disconnect = lambda *given: lost.append(given)
        if context is not None:
            client.tls_set(ca_certs=str(ids.ca))
        client.connect(*peer.address)
        while (said := client.loop(1.0)) == mqtt.MQTT_ERR_SUCCESS:
            hs.sleep(0)  # ends with the scope
        assert said in (mqtt.MQTT_ERR_CONN_LOST, mqtt.MQTT_ERR_CONN_REFUSED)
        assert (len(connected), len(lost)) == (0, 1)
        assert not client.is_connected()
        nothing_open()


def test_what_cannot_go_over_hardsock_is_refused() -> None:
    with pytest.raises(ValueError, match="no websockets over hardsock"):
        _mqtt(transport="websockets")
    client = _mqtt()
    client.tls_set_context(ssl.create_default_context())
    with PeerScript([("stall",)], check=False) as peer:
        with pytest.raises(TypeError, match=r"context must be made by hardsock\.ssl_context"):
            client.connect(*peer.address)
    nothing_open()
