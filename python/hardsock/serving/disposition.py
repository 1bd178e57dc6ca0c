"""What an exception out of a handler means: whose fault it is, and how the connection ends.

A reset is the honest end of what stopped in the middle: the peer must not take it for the whole.
What the peer has ended itself, or where nothing was under way, ends with all bytes delivered.
"""

from __future__ import annotations

import logging
from enum import Enum
from typing import NamedTuple

from hardsock._core import CancelToken
from hardsock._errors import (
    Cancelled,
    Closed,
    DeadlineExceeded,
    DeadPeer,
    EndOfStream,
    FrameError,
    HardsockError,
    Poisoned,
    Reset,
    TLSError,
    Truncated,
)
from hardsock.serving.ledger import LEFT, Outcome, Served
from hardsock.serving.seldom import Seldom

__all__ = ["End", "Disposition", "judge", "decide_lingering", "quiet_end"]

logger = logging.getLogger("hardsock.serve")

_OF_THE_PEER = (Reset, DeadPeer, Truncated, DeadlineExceeded, Poisoned, TLSError)


class End(Enum):
    """How a driver ends a connection."""

    FINISH = "finish"
    """Say that no more comes, and wait for the peer's end: ``Connection.finish``."""
    CLOSE = "close"
    """All that was sent goes out; wait for nothing."""
    ABORT = "abort"


class Disposition(NamedTuple):
    """How a connection is counted and ended."""

    outcome: Outcome
    end: End
    error: str | None = None


def judge(
    served: Served,
    exc: BaseException | None,
    *,
    server: CancelToken,
    draining: CancelToken,
    seldom: Seldom,
) -> Disposition:
    """Judge how a handler ended, and log it if that is due.

    Args:
        server: The token above those of all connections.
        draining: The token that told handlers.
        seldom: The server's log: handlers that fail all in one place are a number there.
    """
    disposition = _judge(served, exc, server, draining, seldom)
    if disposition.end is not End.ABORT and served.conn.write_poisoned:
        return disposition._replace(
            end=End.ABORT
        )  # Half a message went out; the handler caught why.
    return disposition


def _judge(
    served: Served,
    exc: BaseException | None,
    server: CancelToken,
    draining: CancelToken,
    seldom: Seldom,
) -> Disposition:
    ended_by = served.over
    if exc is None:
        end = End.FINISH if ended_by is None else End.CLOSE
        return Disposition(ended_by or Outcome.COMPLETED, end)
    foreign = not isinstance(exc, HardsockError)
    if foreign:
        _log_failure(served, exc, seldom)
    elif ended_by is None and server.cancelled:
        ended_by = Outcome.CANCELLED
    if ended_by is not None:
        idle = ended_by in (Outcome.IDLE, Outcome.IDLE_TIMEOUT)
        return Disposition(ended_by, quiet_end(served) if idle else End.ABORT)
    if isinstance(exc, HardsockError):
        if _is_of_the_client(served, exc):
            logger.debug("%s: %s", served.peer, exc)
            return Disposition(Outcome.FAILED, End.ABORT, type(exc).__name__)
        return _judge_error(served, exc, draining, seldom)
    return Disposition(Outcome.FAILED, End.ABORT, type(exc).__name__)


def quiet_end(served: Served) -> End:
    """How one ends between two messages: at once, unless the last answer is still on its way.

    A request that came after the close would be answered by a reset, which would destroy that.
    """
    return End.CLOSE if served.conn._settled else End.FINISH


def _is_of_the_client(served: Served, exc: HardsockError) -> bool:
    """Whether its client has left under the handler, or the handler's time was over."""
    if isinstance(exc, DeadlineExceeded):
        return served.overran
    return (
        isinstance(exc, Cancelled)
        and bool(served.conn._marks & LEFT)
        and served.token is not None
        and exc.reason == served.token.reason
    )


def _judge_error(
    served: Served, exc: HardsockError, draining: CancelToken, seldom: Seldom
) -> Disposition:
    if isinstance(exc, Cancelled) and draining.cancelled and exc.reason == draining.reason:
        return Disposition(Outcome.TOLD, quiet_end(served))
    if not _is_of_the_peer(served, exc):
        _log_failure(served, exc, seldom)
    elif isinstance(exc, EndOfStream):  # How a reader of messages sees its client's ordinary end.
        return Disposition(Outcome.COMPLETED, End.FINISH)
    else:
        logger.debug("%s: %s", served.peer, exc)
    end = End.FINISH if isinstance(exc, Truncated) else End.ABORT
    return Disposition(Outcome.FAILED, end, type(exc).__name__)


def _is_of_the_peer(served: Served, exc: HardsockError) -> bool:
    if exc.peer not in (served.peer, None):
        return False  # The handler's own connection to somewhere else.
    if isinstance(exc, FrameError):
        return exc.op is None or not exc.op.startswith("send")
    return isinstance(exc, _OF_THE_PEER)


def _log_failure(served: Served, exc: BaseException, seldom: Seldom) -> None:
    seldom.log(_place_of(exc), logging.ERROR, "the handler of %s failed", served.peer, exc_info=exc)


def _place_of(exc: BaseException) -> tuple[object, ...]:
    """Failures with one cause have one type and one line."""
    place = exc.__traceback__
    while place is not None and place.tb_next is not None:
        place = place.tb_next
    if place is None:
        return (type(exc),)
    return (type(exc), place.tb_frame.f_code, place.tb_lineno)


def decide_lingering(
    served: Served, disposition: Disposition, exc: HardsockError
) -> tuple[Disposition, str]:
    """Judge what ``finish`` raised; returns the disposition that holds now, and the ending."""
    if isinstance(exc, Closed):
        return disposition, "closed"
    if isinstance(exc, Cancelled):  # What was sent is whole, so let it arrive.
        return disposition._replace(end=End.CLOSE), "closed"
    logger.debug("%s: %s", served.peer, exc)
    return disposition._replace(end=End.ABORT), "aborted"
