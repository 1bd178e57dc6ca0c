"""Clients that leave while their handlers work: whose token is cancelled, and how that is watched."""

from __future__ import annotations

import logging

from hardsock._core import CancelToken, Departures
from hardsock._errors import Cancelled, HardsockError
from hardsock.serving.ledger import Served
from hardsock.serving.seldom import Seldom

__all__ = ["tend_departures", "watch_departure"]

logger = logging.getLogger("hardsock.serve")


def watch_departure(departures: Departures, served: Served, seldom: Seldom) -> None:
    """Have the connection's token cancelled when its client leaves."""
    assert served.token is not None
    try:
        departures.watch(served.conn, served.token)
    except (HardsockError, MemoryError) as exc:  # It is served all the same.
        seldom.log(
            "departures",
            logging.WARNING,
            "%s: served, but its handler will not hear if it leaves: %s",
            served.peer,
            exc,
        )


def tend_departures(departures: Departures, until: CancelToken) -> None:
    """Cancel those that are due, until a token ends; a thread of its own does nothing else."""
    while True:
        try:
            departures.tend(token=until)
        except Cancelled:
            departures.close()
            return
        except (HardsockError, MemoryError) as exc:
            logger.error("watching for clients that leave failed, trying again: %s", exc)
            until.wait(1.0)
