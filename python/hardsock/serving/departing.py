"""Clients that leave while their handlers work: whose token is cancelled, and how that is watched."""

from __future__ import annotations

import logging

from hardsock._core import CancelToken, Departures
from hardsock._errors import Cancelled, HardsockError
from hardsock.serving.ledger import Served

__all__ = ["tend_departures", "watch_departure"]

logger = logging.getLogger("hardsock.serve")


def watch_departure(departures: Departures, served: Served) -> None:
    """Have the connection's token cancelled when its client leaves."""
    try:
        departures.watch(served.conn, served.token)
    except (HardsockError, MemoryError) as exc:  # It is served all the same.
        logger.debug("%s: nobody watches for its departure: %s", served.peer, exc)


def tend_departures(departures: Departures, until: CancelToken) -> None:
    """Cancel those that are due, until a token ends; a thread of its own does nothing else."""
    while True:
        try:
            departures.tend(token=until)
        except Cancelled:
            return
        except (HardsockError, MemoryError) as exc:
            logger.error("watching for clients that leave failed, trying again: %s", exc)
            if until.wait(1.0):
                return
