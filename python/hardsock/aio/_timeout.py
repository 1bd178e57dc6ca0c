"""Scopes and pauses of tasks."""

from __future__ import annotations

from hardsock import _scope
from hardsock._core import CancelToken, TaskScope
from hardsock.aio._host import current_hub, tell_scopes

__all__ = ["sleep", "timeout"]


class timeout(TaskScope):
    """Give everything that the block awaits one deadline: calls of hardsock and all others.

    ``async with aio.timeout(5) as token:``, in a task of asyncio (uvloop) or trio. Futures, locks,
    queues, sleeps and the calls of libraries that know nothing of hardsock end then as if
    ``asyncio.timeout`` or ``trio.move_on_after`` stood there: the block is cancelled, and what
    leaves it is this library's error. Calls of hardsock end first, with more to say. So do threads
    that were started with the context, and whatever else looks at ``hardsock.current()``.

    Nested scopes can only tighten it. The token can be cancelled from any thread, and its deadline
    moved with ``set_timeout``. ``hardsock.timeout`` and ``hardsock.scope`` do the same in a task;
    this one insists on a task.

    Args:
        seconds: From where the block begins; ``None``: no deadline, but a token to cancel.
        name: For the texts of errors.

    Raises (where the block ends, or from the calls in it):
        DeadlineExceeded: The time was up while the block waited for something.
        Cancelled: The token, or one around it, was cancelled meanwhile.
        RuntimeError: On entering: no task of an event loop runs here, or it was entered before.

    A cancellation by somebody else (``task.cancel()``, a trio scope further out) that comes at the
    same time wins. A block that has ended by itself is not disturbed, however late it is. A block
    that swallows the host's cancellation, as it never should, goes on: it is cancelled once.
    """

    __slots__ = ("__weakref__",)


async def sleep(seconds: float, *, token: CancelToken | None = None) -> None:
    """Wait *seconds*, unless *token* or the ambient scope ends before: the pause of a retry, say.

    Raises:
        DeadlineExceeded, Cancelled: At the moment when the token or the scope ended.
    """
    ambient = _scope.current()
    tokens = [one for one in (token, ambient) if one is not None]
    waited = tokens[0] if len(tokens) == 1 else CancelToken.linked(tokens)
    if await waited._op_wait(current_hub(), seconds):
        tell_scopes()
        waited.check()
