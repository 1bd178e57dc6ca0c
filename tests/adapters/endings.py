"""How a blocking call of a library ends: by a limit of its own, a scope, a cancel from another thread."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

import hardsock as hs
from hardsock.lab.peers import PeerScript
from hardsock.lab.threads import IO_WAITS, Call

SHORT = 0.25
LATE = 60.0
QUEUE_WAITS = (*IO_WAITS, "futex")
"""A queue of the library's waits for a lock. So may a thread that is only busy, and then the cancel comes
earlier: not for a wait on a peer, which would never have seen the client."""


@contextlib.contextmanager
def refusing(in_the_handshake: bool = False) -> Iterator[tuple[str, int]]:
    """An address where nobody lets a client in: nobody listens, or who does hangs up on its hello."""
    with contextlib.ExitStack() as opened:
        if in_the_handshake:
            script = [("recv", 1), ("close",)]
            peer = opened.enter_context(PeerScript(script, check=False, connections=100))
            address: Any = peer.address
            yield address
        else:  # Bound, so that nobody else listens there.
            bound = opened.enter_context(socket.socket())
            bound.bind(("127.0.0.1", 0))
            yield bound.getsockname()


def causes(exc: BaseException | None) -> Iterator[BaseException]:
    """An exception and all that led to it."""
    while exc is not None:
        yield exc
        for inner in exc.args:  # urllib3 puts the cause in there, too.
            if isinstance(inner, BaseException):
                yield from causes(inner)
        exc = exc.__cause__ or exc.__context__


def is_ended(
    end: str,
    call: Callable[[], object],
    timed_out: type[BaseException] | tuple[type[BaseException], ...],
    when: Callable[[], object] | None = None,
    waits: Sequence[str] = IO_WAITS,
) -> None:
    """*call* is ended by *end*, with the right error.

    A cancel comes once *when* has returned, and the thread waits in one of *waits*, if there are any.
    """
    if end == "cancel":
        token = hs.CancelToken()

        def within() -> None:
            with hs.scope(token):
                call()

        with Call(within) as running:
            if when is not None:
                when()
            if waits:
                running.wait_until_blocked(waits, timeout=LATE)
            token.cancel("stop button")
            with pytest.raises(hs.Cancelled) as cancelled:
                running.result(LATE)
        assert cancelled.value.reason == "stop button"
        return
    scope = hs.timeout(SHORT) if end == "scope" else contextlib.nullcontext()
    with scope, pytest.raises(timed_out) as late:
        call()
    assert any(isinstance(one, hs.DeadlineExceeded) for one in causes(late.value)), late.value
