"""An application of Celery over hardsock, for its worker process and for who sends to it."""

from __future__ import annotations

import os
import time
from typing import Any

import celery

import hardsock as hs
import hardsock.adapters.kombu


def make(broker: str) -> Any:
    """For a worker, or for who sends to one by the names of its tasks."""
    made = celery.Celery("tasks", broker=broker, backend="rpc://", set_as_current=False)
    made.amqp.Connection = hardsock.adapters.kombu.Connection
    made.conf.update(
        broker_transport="hardsock.adapters.kombu:Transport",
        broker_connection_retry_on_startup=True,
        task_publish_retry_policy={"max_retries": 2, "interval_start": 0, "interval_max": 0.1},
    )
    return made


app = make(os.environ.get("CELERY_BROKER", "amqp://"))


@app.task
def add(one: int, two: int) -> int:
    return one + two


@app.task
def connections() -> list[Any]:
    """Where the worker's connections lead, as the ledger has them."""
    return [[one.how, one.peer] for one in hs.open_connections()]


@app.task
def busy(seconds: float) -> None:
    time.sleep(seconds)
