"""Celery itself, its worker a process of its own, over hardsock's transport against RabbitMQ."""

from __future__ import annotations

import contextlib
import os
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import kombu.exceptions
import kombu.utils.functional
import pytest

import hardsock as hs
from adapters import celery_app
from adapters.endings import SHORT, causes, refusing
from adapters.http_contract import nothing_open, server_context
from hardsock.lab.blackhole import BlackHole
from hardsock.lab.namespaces import Namespace
from hardsock.lab.peers import PeerScript
from hardsock.lab.servers.process import Server
from hardsock.lab.threads import IO_WAITS, Call
from hardsock.lab.waits import poll_until
from support.require import require
from support.servers.brokers import rabbitmq
from support.tls import Identities

_TIMEOUT = 120.0
_TESTS = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def broker() -> Iterator[Server]:
    with require(rabbitmq()) as found:
        yield found[0]


def _url(address: tuple[str, int]) -> str:
    return "amqp://guest:guest@{}:{}//".format(*address)


@contextlib.contextmanager
def application(address: tuple[str, int], ids: Identities | None = None) -> Iterator[Any]:
    """One that sends, closed at the end; over TLS to whom *ids* know."""
    made = celery_app.make(_url(address))
    made.conf.broker_connection_timeout = _TIMEOUT  # Celery's own 4 s end nothing here.
    if ids is not None:
        told = {"ca_certs": str(ids.ca), "cert_reqs": ssl.CERT_REQUIRED}
        made.conf.update(broker_use_ssl=told)
    try:
        yield made
    finally:
        if made.backend.result_consumer._consumer is not None:  # It has waited for a result.
            made.backend.result_consumer.stop()
        made.pool.force_close_all()


def _send(app: Any, task: str, *args: Any, **settings: Any) -> Any:
    return app.send_task(f"adapters.celery_app.{task}", args, **settings)


@pytest.fixture
def worker(broker: Server, tmp_path: Path) -> Iterator[Path]:
    log = tmp_path / "worker.log"
    environ = {
        **os.environ,
        "CELERY_BROKER": _url(broker.address),
        "PYTHONPATH": os.pathsep.join([str(_TESTS), *filter(None, sys.path)]),
    }
    argv = [sys.executable, "-m", "celery", "-A", "adapters.celery_app", "worker"]
    with open(log, "wb") as out:
        process = subprocess.Popen(
            [*argv, "--pool", "solo", "--loglevel", "info", "--without-gossip"],
            cwd=tmp_path,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
        )
        try:
            ready = poll_until(
                lambda: "ready." in log.read_text() or process.poll() is not None, _TIMEOUT
            )
            assert ready
            assert process.poll() is None, log.read_text()
            yield log
        finally:
            process.terminate()  # A warm shutdown: what runs may end.
            code = process.wait(_TIMEOUT)
            assert code == 0, (code, log.read_text())


def test_a_worker_serves_and_waiting_for_it_ends(broker: Server, worker: Path) -> None:
    with application(broker.address) as app:
        with hs.timeout(_TIMEOUT):
            sums = [_send(app, "add", n, 1).get(timeout=_TIMEOUT) for n in range(20)]
            assert sums == list(range(1, 21))
            found = _send(app, "connections").get(timeout=_TIMEOUT)
        wanted = ["connect", "{}:{}".format(*broker.address)]
        assert wanted in found
        assert all(one == wanted for one in found)
        result = _send(app, "busy", 2)
        with pytest.raises((hs.DeadlineExceeded, kombu.exceptions.OperationalError)) as late:
            with hs.timeout(SHORT):
                result.get()
        assert any(isinstance(one, hs.DeadlineExceeded) for one in causes(late.value))
        del late
    assert "Traceback" not in worker.read_text()
    nothing_open()


def _sending_ends(
    app: Any, end: str, ready: Callable[[Call], object], within: float = _TIMEOUT
) -> None:
    """Send under a token whose end comes when *ready* has returned."""
    token = hs.CancelToken()

    def send() -> None:
        with hs.scope(token):
            _send(app, "add", 1, 2, ignore_result=True)

    with Call(send) as call:
        ready(call)
        if end == "cancel":
            token.cancel("stop button")
            with pytest.raises(hs.Cancelled):
                call.result(within)
        else:
            token.set_timeout(SHORT)
            with pytest.raises(kombu.exceptions.OperationalError) as late:
                call.result(within)
            assert any(isinstance(one, hs.DeadlineExceeded) for one in causes(late.value))
            del late
    del call


# A frame of a method, of 5,000 octets, which comes slowly.
_DRIP = ("drip", b"\x01\x00\x00\x00\x00\x13\x88" + b"x" * 5000, 0.01)


@pytest.mark.parametrize("end", ["scope", "cancel"])
@pytest.mark.parametrize("transport", ["plain", "tls"])
@pytest.mark.parametrize("fault", ["silent", "drip"])
def test_sending_to_a_broker_that_stalls_ends(
    end: str, transport: str, fault: str, ids: Identities
) -> None:
    script = [("recv", 8), ("stall",) if fault == "silent" else _DRIP]
    tls = transport == "tls"
    with (
        PeerScript(
            script, check=False, connections=20, tls=server_context(ids) if tls else None
        ) as peer,
        application(peer.address, ids if tls else None) as app,
    ):
        _sending_ends(app, end, lambda _: peer.wait_steps(1, 30))
    nothing_open()


@pytest.mark.parametrize("end", ["scope", "cancel"])
def test_a_handshake_with_a_broker_that_stalls_ends(end: str, ids: Identities) -> None:
    with (
        PeerScript([("recv", 1), ("stall",)], check=False, connections=20) as peer,
        application(peer.address, ids) as app,
    ):
        _sending_ends(app, end, lambda _: peer.wait_steps(1, 30))
    nothing_open()


def _waits(call: Call) -> None:
    call.wait_until_blocked(IO_WAITS, timeout=20.0)


@pytest.mark.parametrize("end", ["scope", "cancel"])
def test_sending_into_a_black_hole_ends(end: str) -> None:
    with BlackHole() as hole, application(hole.address) as app:
        _sending_ends(app, end, _waits)
    nothing_open()


@pytest.mark.parametrize("transport", ["plain", "tls"])
@pytest.mark.parametrize("end", ["scope", "cancel"])
def test_the_pause_after_a_refusal_ends(
    end: str, transport: str, ids: Identities, monkeypatch: pytest.MonkeyPatch
) -> None:
    pausing = threading.Event()

    def pause(seconds: float) -> None:
        pausing.set()
        time.sleep(seconds)

    monkeypatch.setattr(kombu.utils.functional, "sleep", pause)

    def ready(_: object) -> None:
        assert pausing.wait(60)

    tls = transport == "tls"
    with refusing(tls) as address, application(address, ids if tls else None) as app:
        policy = {"max_retries": 3, "interval_start": 300, "interval_max": 300}
        app.conf.task_publish_retry_policy = policy
        _sending_ends(app, end, ready, 60)  # less than the pause
    assert pausing.is_set()
    nothing_open()


@pytest.mark.parametrize("transport", ["plain", "tls"])
@pytest.mark.parametrize("fault", ["reset", "truncated"])
def test_a_broker_that_breaks_off_is_a_failure(fault: str, transport: str, ids: Identities) -> None:
    half = ("send", b"\x01\x00\x00\x00\x00\x13\x88" + b"x" * 100)  # of 5,000 octets
    script = [("recv", 8), half, ("rst",) if fault == "reset" else ("close",)]
    tls = transport == "tls"
    context = server_context(ids) if tls else None
    with (
        PeerScript(script, check=False, connections=100, tls=context) as peer,
        application(peer.address, ids if tls else None) as app,
        hs.timeout(_TIMEOUT),
    ):
        with pytest.raises(kombu.exceptions.OperationalError) as broken:
            _send(app, "add", 1, 2, ignore_result=True)
        found = causes(broken.value)
        assert not any(isinstance(one, hs.DeadlineExceeded) for one in found)
        del broken, found
    nothing_open()


def _dead_dns(end: str) -> bool:
    """Runs inside of a namespace."""
    from hardsock.lab.dns import DeadDNS, use_dns

    with DeadDNS(), application(("nobody.test", 5672)) as app:
        use_dns("127.0.0.1", timeout=30, attempts=5)
        _sending_ends(app, end, _waits)
    nothing_open()
    return True


@pytest.mark.net
@pytest.mark.parametrize("end", ["scope", "cancel"])
def test_a_dead_name_server_ends(end: str) -> None:
    with require(Namespace()) as namespace:
        assert namespace.run("adapters.test_celery:_dead_dns", end, timeout=120)
