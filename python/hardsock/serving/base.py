"""What one may ask of any server, and how to tell it to stop."""

from __future__ import annotations

import logging
from contextlib import AbstractContextManager
from typing import Any

from hardsock._core import CancelToken, Departures, Listener
from hardsock.serving.closing import LeftOutside
from hardsock.serving.ledger import Ledger
from hardsock.serving.options import ServeOptions
from hardsock.serving.records import DrainReport
from hardsock.serving.seldom import Seldom
from hardsock.serving.signals import sigterm_drains

__all__ = ["ServerBase"]


logger = logging.getLogger("hardsock.serve")


class ServerBase:
    """The part of a server that is the same whatever drives it.

    A driver sets ``_listener`` and ``_address`` when it listens, ``_report`` and then ``_ended``
    when the drain is over.
    """

    _listener: Listener
    _address: Any = None
    _report: DrainReport | None = None
    _ledger: Ledger
    _outside: LeftOutside | None = None
    """Whom the closed listener has turned away; None: it is not closed yet."""
    _accepting = True
    """False while accepting fails."""

    def __init__(self, options: ServeOptions, token: CancelToken | None) -> None:
        self._options = options
        self._token = CancelToken(name=options.name) if token is None else token.child()
        self._draining = self._token.child(name=f"{options.name} draining")
        self._draining._ends_only_between_messages()  # Handlers get what has arrived.
        self._ended = CancelToken(name=f"{options.name} ended")
        self._departures = Departures()
        self._seldom = Seldom(logger)
        self._nobody_left = CancelToken(name=f"{options.name} departures")

    @property
    def address(self) -> Any:
        """The address it listens on, or listened on, as ``socket`` has it."""
        return self._address

    @property
    def listener(self) -> Listener:
        """Its listener, for statistics."""
        return self._listener

    @property
    def draining(self) -> CancelToken:
        """Cancelled when the drain begins: handlers wait for the next request under it."""
        return self._draining

    @property
    def ready(self) -> bool:
        """Whether new clients should be sent here: it listens, accepts, has room, and is not told
        to end. For readiness probes and load balancers; it is False for a moment whenever
        ``max_connections`` are reached. Liveness is another question: ``not closed``, and that this
        is answered at all.
        """
        return (
            self._address is not None
            and self._accepting
            and not self._draining.cancelled
            and self._ledger.room > 0
        )

    @property
    def closed(self) -> bool:
        """Whether the drain is over."""
        return self._ended.cancelled

    @property
    def report(self) -> DrainReport | None:
        """How the drain went; None until it is over."""
        return self._report

    def stop(self, reason: str | None = None) -> None:
        """Begin to drain with ``drain_timeout``, and return at once; from any thread.

        For handlers and signal handlers, which must not wait; ``wait()`` tells when it is over.
        """
        self._draining.cancel(reason or "the server was stopped")

    def _obeying_sigterm(self) -> AbstractContextManager[None]:
        return sigterm_drains(self.stop, self._token.cancel)

    def __repr__(self) -> str:
        state = "closed" if self.closed else "draining" if self._draining.cancelled else "serving"
        cls = type(self)
        module = cls.__module__.partition(".serving")[0].partition("._")[0]
        return f"<{module}.{cls.__name__} {self._options.name} {state} at {self._address!r}>"
