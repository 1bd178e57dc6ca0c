"""Connections that only linger: parked in C until their clients end, or for as long as they may.

Nothing here waits. The one who was given a connection owns it until it parks it, and needs no lock.
"""

from __future__ import annotations

from hardsock._core import Parking
from hardsock._errors import HardsockError
from hardsock.serving.core import ServerCore
from hardsock.serving.disposition import Disposition, End, decide_lingering
from hardsock.serving.ledger import Outcome, Served, tell_given_up

__all__ = ["LingeringConnections", "News"]

News = tuple[Served, int, "str | None", bool]
"""Whose, which, how it ended, and whether no other thread waits for the next."""


class LingeringConnections(ServerCore):
    """The part of a server that parks those whose handler has ended.

    A driver gets news out of ``_parking``; what is no message it gives to ``_hear`` or ``_over``.
    """

    _parking: Parking

    def _begin_parking(self) -> None:
        self._parking = Parking()

    def _finish(self, served: Served, disposition: Disposition) -> None:
        """End it by the disposition; lingering is parked."""
        self._leave(served)
        if disposition.end is not End.FINISH:
            self._end_now(served, disposition)
            return
        try:
            ending = self._parking.linger(served.conn, served, self._options.linger)
        except (HardsockError, MemoryError) as exc:
            if isinstance(exc, HardsockError):
                disposition, _ = decide_lingering(served, disposition, exc)
            self._end_now(served, disposition._replace(end=End.ABORT))
            return
        if ending is not None:
            self._drop(served, disposition.outcome, ending)

    def _hear(self, served: Served, news: int, ending: str | None) -> None:
        """Of no message; without memory for it the drain reports it."""
        try:
            self._over(served, news, ending)
        except MemoryError:
            tell_given_up()

    def _over(self, served: Served, news: int, ending: str | None) -> None:
        """It has lingered."""
        # None: a drain settled it while its handler returned.
        outcome = served.handled or served.outcome or Outcome.COMPLETED
        self._drop(served, outcome, ending or "closed")

    def _drop(self, served: Served, outcome: Outcome, ending: str = "closed") -> None:
        served.conn.close()
        self._settle(served, outcome, ending, error=served.error)
