"""An ambient scope that ends the event loop's own waits, too: futures, sleeps, locks, queues.

hardsock's calls look at the scope themselves. Everything else that a task waits on, the loop alone
can end: by cancelling the task (asyncio), or a cancel scope around the block (trio). So a scope in
a task parks one operation that waits for the scope's token; once it is due, the block is cancelled,
and the cancellation becomes the token's error where the block ends.

Calls of hardsock go first, with the better error: the block is cancelled one turn of the loop later,
if the task is still in it. A call may hear of the end later than its scope, as the thread that
cancels tells one after the other; so a call in which the task waits then is made to look. A task that such an
error has told already is on its way out, and may be in the middle of tidying up with waits of its
own (a library that closes a connection): it has a second before it is cancelled as well.

Until its task has heard of the end, nothing is asked of anybody in the block any more, neither by the
task nor by those that it began: see `in_vain`. What a task does after it has heard is tidying up.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Callable
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from hardsock._core import CancelToken, Operation
from hardsock._core import scope as ambient
from hardsock._errors import HardsockError
from hardsock.aio._host import current_task, hub_for, running_loop, scope_told, trio_runs

if TYPE_CHECKING:
    from types import TracebackType

    from hardsock._core import Hub

__all__ = ["HostScope", "host_scope", "in_vain", "without_scopes"]

GRACE = 1.0
"""Seconds for a block to end by itself, when a call of hardsock in it has raised the scope's error."""


_COUNTS = hasattr(asyncio.Task, "cancelling")  # Python 3.10 does not count.


class HostScope:
    """One block in one task, from `enter` to `leave`; belongs to the thread of its loop.

    As it is, of a task of asyncio; hardsock.aio._trio has the other one. Each request of an adapter
    makes one, so what it does without the end of its token is all in few calls.
    """

    __slots__ = (
        "_cancelled",
        "_cancelling",
        "_due",
        "_error",
        "_heard",
        "_held_by",
        "_hub",
        "_left",
        "_operation",
        "_previous",
        "_shielded",
        "_task",
        "_to_tell",
        "_token",
        "_told",
        "_woke_call",
    )

    def __init__(
        self, token: CancelToken, task: Any, hub: Hub, shielded: tuple[HostScope, ...]
    ) -> None:
        self._token = token
        self._shielded = shielded
        self._task = task
        self._hub = hub
        self._due = self._left = self._told = self._woke_call = self._cancelled = False
        self._heard = False
        self._to_tell: tuple[Callable[[], object], ...] = ()  # When the task hears of the end.
        self._held_by: tuple[HostScope, ...] = ()  # The shields in the block.
        self._error: BaseException | None = None
        self._operation: Operation | None = None
        self._previous: HostScope | None = None

    def enter(self) -> None:
        """Begin; the token must be ambient already. `forget` where this raises."""
        for scope in self._shielded:
            scope._held_by = (*scope._held_by, self)
            if scope._to_tell:  # Nobody waits for what is lost until the shield's end.
                scope._soon(scope._tell)
        operation = self._operation = self._token._op_wait(self._hub, None)
        self._begin()
        self._previous = _innermost.get()
        _innermost.set(self)
        ended = operation.step()
        if ended is False:
            operation.add_done_callback(self._look)
        elif ended:
            self._token_has_ended()
        else:
            self._look(operation)

    @property
    def token(self) -> CancelToken:
        """Whose end ends the block."""
        return self._token

    # ---- what the host has for it

    def _begin(self) -> None:
        self._cancelling = self._task.cancelling() if _COUNTS else 0

    def _soon(self, function: Any) -> None:
        """Call *function* in a later turn of the loop; from its thread."""
        self._task.get_loop().call_soon(function)

    def _wake_call(self) -> bool:
        """Whether the task waits in a call of hardsock, which then looks whether it has ended."""
        waits_for = getattr(self._task, "_fut_waiter", None)
        if not isinstance(waits_for, Operation):
            return False
        waits_for.wake()
        return True

    def _cancel(self) -> None:
        if self._cancelled:
            return
        self._cancelled = True
        try:
            if getattr(self._task, "_fut_waiter", None) is None:  # Its next step is on its way.
                self._hear()
            else:  # Before that step, and behind those of tasks that it began without knowing.
                self._soon(self._hear)
            self._tell()  # It finds lost what it had asked over; no future of a library fails first.
        finally:
            self._task.cancel("hardsock's scope around it has ended")

    def _is_own_cancel(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        """Whether this is the cancellation by `_cancel`, and nobody else wants to cancel."""
        if not self._cancelled:
            return False
        if _COUNTS and self._task.uncancel() > self._cancelling:
            return False
        return isinstance(exc, asyncio.CancelledError)

    def _is_cancel(self, exc: BaseException) -> bool:
        """Whether this is a cancellation, by whomever."""
        return isinstance(exc, asyncio.CancelledError)

    def _forget(self) -> None:
        """In the place of what `_is_own_cancel` has not done, as an interrupt came."""
        if self._cancelled and _COUNTS and self._task.cancelling() > self._cancelling:
            self._task.uncancel()

    # ---- the end of the token

    def _look(self, operation: Operation) -> None:
        """Its token may have ended: step the operation, which is parked again if it has not."""
        while (ended := operation.step()) is None:
            pass  # A signal handler ran.
        if ended:
            self._token_has_ended()
        else:
            operation.add_done_callback(self._look)

    def _token_has_ended(self) -> None:
        try:
            self._token.check()
        except HardsockError as error:
            self._error = error.with_traceback(None)
            self._soon(self._end)
        else:  # Its deadline was moved meanwhile, by another thread.
            operation = self._operation = self._token._op_wait(self._hub, None)
            self._soon(lambda: None if self._left else self._look(operation))

    def _end(self) -> None:
        if self._left:
            return
        if self._held_by:
            self._due = True
        elif self._told:
            self._operation = CancelToken()._op_wait(self._hub, GRACE)
            self._cancel_later(self._operation)
        elif not self._woke_call and self._wake_call():
            self._woke_call = True
            self._soon(self._end)
        else:
            self._cancel()

    def _cancel_later(self, operation: Operation) -> None:
        while (ended := operation.step()) is None:
            pass
        if ended:
            self._told = False
            self._end()
        else:
            operation.add_done_callback(self._cancel_later)

    def tell(self) -> None:
        """A call of hardsock in the block has just raised; was it by this scope?"""
        if not self._told:
            try:
                self._token.check()
            except HardsockError:
                self._told = True
                self._hear()

    def _hear(self) -> None:
        """The task knows of the end from now on."""
        self._heard = True
        self._tell()

    def _tell(self) -> None:
        told, self._to_tell = self._to_tell, ()
        self._tell_now(told)

    def _tell_now(self, told: tuple[Callable[[], object], ...]) -> None:
        for function in told:
            try:
                function()
            except (SystemExit, KeyboardInterrupt):
                raise
            except BaseException as exc:  # Of a protocol: nobody else shall miss the end for it.
                self._task.get_loop().call_exception_handler(
                    {"message": "an error while the end of a scope was told", "exception": exc}
                )

    def tell_when_heard(self, told: Callable[[], object]) -> None:
        """Call *told* when the task hears of the end, or soon where a shield keeps that from it.

        From the thread of its loop; once, however often it is asked for until then.
        """
        if told not in self._to_tell:
            self._to_tell = (*self._to_tell, told)
            if self._held_by:
                self._soon(self._tell)

    def leave(self, *exc_info: Any) -> None:
        """End; raises the token's error in the place of the cancellation that it caused.

        Raises:
            DeadlineExceeded, Cancelled: The block was cancelled because the token had ended.
        """
        self._end_of_block()
        error, self._error = self._error, None
        try:
            own, exc = self._is_own_cancel(*exc_info), exc_info[1] if exc_info else None
            if own and error is not None:
                raise error from exc
            if exc is not None and error is not None:
                self._explain(exc, error)
        finally:
            exc = None
            del error, exc_info  # Its traceback holds this frame.

    def _explain(self, exc: BaseException, error: BaseException) -> None:
        """Have *exc*, by which the block failed while it was cancelled, say why it was.

        As a library's rollback does that finds its connection gone. It stays the error, as within
        asyncio.timeout: it may tell of something that nobody else knows of.
        """
        while (before := exc.__context__) is not None and not isinstance(before, type(error)):
            if self._is_cancel(before):
                error.__cause__ = before
                if exc.__cause__ is before:
                    exc.__cause__ = error
                exc.__context__ = error
                return
            exc = before

    def forget(self) -> None:
        """Be over, however far `enter` or `leave` has come; also by the collector, in any thread."""
        if self._to_tell:
            with contextlib.suppress(RuntimeError):  # Its loop is closed, and so is all over it.
                self._task.get_loop().call_soon_threadsafe(self._tell_now, self._to_tell)
            self._to_tell = ()
        self._end_of_block()
        self._forget()

    def _end_of_block(self) -> None:
        self._left = True
        if self._to_tell:
            self._tell()
        if self._operation is not None:
            self._operation.close()
        if _innermost.get() is self:
            _innermost.set(self._previous)
        for scope in self._shielded:
            scope.release(self)

    def release(self, shield: HostScope) -> None:
        """*shield* in the block has ended: what became due meanwhile happens at the next wait.

        Not now: a task that cancels itself and does not wait any more in the block would carry the
        cancellation out of it.
        """
        self._held_by = tuple(one for one in self._held_by if one is not shield)
        if self._due and not self._held_by:
            self._soon(self._end)
            self._due = False

    def and_outer_ones(self, task: Any) -> tuple[HostScope, ...]:
        """This one and those around it, of *task* alone: a task inherits its creator's."""
        found: list[HostScope] = []
        scope: HostScope | None = self
        while scope is not None:
            if scope._task is task and not scope._left:
                found.append(scope)
            scope = scope._previous
        return tuple(found)


_innermost: ContextVar[HostScope | None] = ContextVar("hardsock host scope", default=None)


def in_vain(hub: Hub) -> list[HostScope]:
    """The scopes around that have ended, if nobody has heard yet: what is asked here is in vain.

    Of the tasks of the loop that has *hub*, whose thread this is. A context is copied into other threads,
    as by ``asyncio.to_thread``: a scope of their creator's loop is no affair of a loop there.

    Who has heard of the end of one scope is on the way out of the others, too, and so are tasks that are
    begun from then on.
    """
    ended: list[HostScope] = []
    scope = _innermost.get()
    while scope is not None:
        if scope._hub is hub and not scope._left:
            if scope._heard:
                return []
            if scope._token.wait(0):
                ended.append(scope)
        scope = scope._previous
    return ended


def _tell() -> None:
    innermost = _innermost.get()
    if innermost is not None:
        for scope in innermost.and_outer_ones(current_task()):
            scope.tell()


scope_told.append(_tell)


def host_scope(token: CancelToken, shields: bool, insists: bool) -> HostScope | None:
    """A block of the running task under *token*, to be entered; None where no task runs.

    Args:
        shields: What the task's blocks around it are due to do waits for the end of this one.
        insists: The block is nothing without a task.

    Raises:
        RuntimeError: No task runs, and it *insists*.
    """
    task: Any
    make: type[HostScope]
    try:
        if "trio" in sys.modules and trio_runs():
            from hardsock.aio import _trio

            make, task, hub = _trio.host_scope_here()
        else:
            loop = running_loop()
            if loop is None:
                raise RuntimeError("no running event loop")
            make, task, hub = HostScope, asyncio.current_task(loop), hub_for(loop)
    except RuntimeError:  # A callback of the loop, or the loop of another kind in a guest.
        if insists:
            raise
        return None
    if task is None:
        if insists:
            raise RuntimeError("aio.timeout needs a task")
        return None
    innermost = _innermost.get() if shields else None
    return make(token, task, hub, () if innermost is None else innermost.and_outer_ones(task))


def without_scopes() -> None:
    """Leave all scopes of hardsock, in the current context: for what outlives who began it."""
    ambient.set(None)
    _innermost.set(None)
