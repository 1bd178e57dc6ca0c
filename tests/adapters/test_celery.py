"""Celery itself, its worker a process of its own, over hardsock's transport against RabbitMQ."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kombu.exceptions
import pytest

import hardsock as hs
from adapters import celery_app
from adapters.http_contract import SHORT, causes, nothing_open
from hardsock.lab.peers import PeerScript
from hardsock.lab.servers.process import Server
from hardsock.lab.threads import Call
from hardsock.lab.waits import poll_until
from support.require import require
from support.servers.brokers import rabbitmq

_TIMEOUT = 120.0
_TESTS = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def broker() -> Iterator[Server]:
    with require(rabbitmq()) as found:
        yield found[0]


def _url(address: tuple[str, int]) -> str:
    return "amqp://guest:guest@{}:{}//".format(*address)


@contextlib.contextmanager
def application(address: tuple[str, int]) -> Iterator[Any]:
    """One that sends, closed at the end."""
    made = celery_app.make(_url(address))
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


@pytest.mark.parametrize("end", ["scope", "cancel"])
def test_sending_to_a_broker_that_stalls_ends(end: str) -> None:
    with (
        PeerScript([("recv", 8), ("stall",)], check=False, connections=20) as peer,
        application(peer.address) as app,
    ):
        token = hs.CancelToken(SHORT if end == "scope" else None)

        def send() -> None:
            with hs.scope(token):
                _send(app, "add", 1, 2, ignore_result=True)

        with Call(send) as call:
            if end == "cancel":
                peer.wait_steps(1, 30)
                token.cancel("stop button")
                with pytest.raises(hs.Cancelled):
                    call.result(_TIMEOUT)
            else:
                with pytest.raises(kombu.exceptions.OperationalError) as late:
                    call.result(_TIMEOUT)
                assert any(isinstance(one, hs.DeadlineExceeded) for one in causes(late.value))
                del late
        del call
    nothing_open()
