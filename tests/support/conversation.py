"""Handlers of servers that are written once, for threads and for event loops.

A message is a generator: it yields the calls of its connection that it wants made, gets what they
return or raise, and returns whether another message may follow.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any, NamedTuple

import hardsock as hs
from hardsock import aio

__all__ = ["Handlers", "Message", "Step", "Steps", "handlers", "waiting"]


class Step(NamedTuple):
    """One call of a connection; without a method, a wait for the token that is the argument."""

    method: str
    argument: Any
    keywords: dict[str, Any]


Steps = Generator[Step, Any, bool]
Message = Callable[[], Steps]


class Handlers(NamedTuple):
    """The same handler for all kinds of servers."""

    blocking: Callable[[hs.Connection], None]
    awaited: Callable[[aio.Connection], Any]
    per_message: Callable[[hs.Connection], None] | None = None
    awaited_message: Callable[[aio.Connection], Any] | None = None


def waiting(token: hs.CancelToken) -> Step:
    """Wait until *token* has ended."""
    return Step("", token, {})


def handlers(message: Message) -> Handlers:
    """Handlers that carry on one message after the other."""

    def blocking(conn: hs.Connection) -> None:
        while _carry_on(conn, message()):
            pass

    async def awaited(conn: aio.Connection) -> None:
        while await _carry_on_awaited(conn, message()):
            pass

    def per_message(conn: hs.Connection) -> None:
        if not _carry_on(conn, message()):
            conn.close_write()

    async def awaited_message(conn: aio.Connection) -> None:
        if not await _carry_on_awaited(conn, message()):
            await conn.close_write()

    return Handlers(blocking, awaited, per_message, awaited_message)


def _carry_on(conn: hs.Connection, steps: Steps) -> bool:
    try:
        step = next(steps)
        while True:
            try:
                answer = (
                    getattr(conn, step.method)(step.argument, **step.keywords)
                    if step.method
                    else step.argument.wait()
                )
            except BaseException as exc:
                step = steps.throw(exc)
            else:
                step = steps.send(answer)
    except StopIteration as end:
        return bool(end.value)


async def _carry_on_awaited(conn: aio.Connection, steps: Steps) -> bool:
    try:
        step = next(steps)
        while True:
            try:
                answer = (
                    await getattr(conn, step.method)(step.argument, **step.keywords)
                    if step.method
                    else await aio.wait(step.argument)
                )
            except BaseException as exc:
                step = steps.throw(exc)
            else:
                step = steps.send(answer)
    except StopIteration as end:
        return bool(end.value)
