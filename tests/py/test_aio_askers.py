"""A model of who may ask over a connection, against the transport of the event loop: seeded runs.

Users share one connection. Each has a task with scopes; what they do, they do in the contexts of those
scopes, between two turns of the loop, so that an end may come between any two steps, and be heard of
some turns later. `Rules` says what must arrive at the peer, from docs/adapters-asyncio.md and not from
the code. `TAKEN_OUT` has the code's rules, each taken out: the runs must find it.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import random
import socket
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from typing import IO, Any

import pytest

import hardsock as hs
from hardsock import aio
from hardsock.aio import _host_scope, _transport
from hardsock.aio import loop as hsloop
from hardsock.aio._transport import Transport

pytestmark = pytest.mark.usefixtures("event_loops")

LATE = 60.0
SEEDS = range(300)
STEPS = 40
LARGE = 150_000
"""Times a piece is repeated that a unix socket does not take at once."""


class Rules:
    """What has to arrive at the peer."""

    def __init__(self) -> None:
        self.sent: list[tuple[object, bytes]] = []
        self.held: list[tuple[frozenset[object], bytes]] = []
        self.waiting: set[object] = set()
        """Whose request may be unanswered: the scopes of what was written since something arrived."""
        self.shared = self.ended = False
        self.over = ""
        self.late: frozenset[object] = frozenset()

    def asks(self, asker: object, late: frozenset[object], data: bytes) -> bool:
        """Somebody asks; *late* has the scopes that have ended, if its task has not heard of it yet.

        Whether it is sent.
        """
        if self.over:
            return False
        if late:
            # Scopes of one task may wait for different answers, too: they are several.
            if not self.shared and len(self.waiting) < 2 and self.waiting <= late:
                self.held.append((late, data))
                return False
            self.shared = True
        self.let_go()
        self.sent.append((asker, data))
        self.waiting.add(asker)
        return True

    def let_go(self) -> None:
        self.shared = self.shared or bool(self.held)
        self.sent += self.held
        self.held.clear()

    def answered(self) -> None:
        """Something has arrived, or the end, while nothing was left to be sent: nobody waits any more."""
        self.waiting.clear()

    def is_over(self, how: str) -> None:
        """Nobody asks any more; what is held never arrives."""
        self.over = how if how == "aborted" else self.over or how
        self.held.clear()

    def is_lost(self) -> None:
        """A task has heard of the end of the scope in which it asked in vain."""
        self.late = frozenset().union(*(late for late, _ in self.held))
        self.is_over("lost")

    def check(self, arrived: bytes) -> None:
        """*arrived* is what should have, in its order.

        What is lost with the connection is of those who asked in vain behind it; an abort is an abort.
        """
        wanted = b"".join(data for _, data in self.sent)
        if self.over == "aborted":
            assert wanted.startswith(arrived)
        elif self.over == "lost" and len(arrived) < len(wanted):
            assert wanted.startswith(arrived)
            for asker, data in reversed(self.sent):
                if len(wanted) > len(arrived):
                    assert asker in self.late, "bytes of somebody who has time are lost"
                    wanted = wanted[: -len(data)]
        else:
            assert arrived == wanted


class User:
    """A task that waits, and the contexts of its scopes: the first has none."""

    def __init__(self, name: str, scopes: int, wait: str) -> None:
        self.tokens = [hs.CancelToken() for _ in range(scopes)]
        self.name, self._wait = name, wait
        self.contexts: list[contextvars.Context] = []
        self.scopes: list[Any] = []
        self.task = asyncio.ensure_future(self._live())

    async def _live(self) -> str:
        self.contexts.append(contextvars.copy_context())
        try:
            with contextlib.ExitStack() as entered:
                for token in self.tokens:
                    entered.enter_context(hs.scope(token))
                    self.contexts.append(contextvars.copy_context())
                    self.scopes.append(_host_scope._innermost.get())
                await (aio.sleep(3600) if self._wait == "of hardsock" else asyncio.Event().wait())
        except (hs.Cancelled, hs.DeadlineExceeded) as exc:
            return str(exc)
        raise AssertionError("it was not ended by its scope")

    def late(self, depth: int) -> frozenset[object]:
        """The scopes around that have ended, if the task has heard of none."""
        around = [one for one in self.scopes[:depth] if not one._left]
        if any(one._heard for one in around):
            return frozenset()
        return frozenset(one.token for one in around if one.token.wait(0))

    @property
    def has_ended(self) -> bool:
        return any(token.wait(0) for token in self.tokens)


class Noting(asyncio.Protocol):
    """Tells the rules what the transport has told."""

    def __init__(self, rules: Rules, keep_open: bool) -> None:
        self._rules, self._keep_open = rules, keep_open
        self.received = 0
        self.ended = False
        self.lost: asyncio.Future[BaseException | None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.received += len(data)
        if not self.transport.get_write_buffer_size():
            self._rules.answered()

    def eof_received(self) -> bool:
        self.ended = True
        if not self.transport.get_write_buffer_size():
            self._rules.answered()
        if not self._keep_open:
            self._rules.is_over("closed")
        return self._keep_open

    def connection_lost(self, exc: BaseException | None) -> None:
        self.lost.set_result(exc)


class Run:
    """One connection, from its first user to its end."""

    def __init__(self, seed: int, foreign: contextvars.Context, file: IO[bytes]) -> None:
        self._random = random.Random(seed)
        self._foreign, self._file = foreign, file
        self.steps: list[str] = []
        self._rules = Rules()
        self._users: list[User] = []
        self._number = self._told = 0
        self._arrived = bytearray()
        self._peer_ended = False

    async def play(self) -> None:
        """Some steps, and what must be true after each pause and at the end."""
        ours, self._peer = socket.socketpair()
        self._peer.setblocking(False)
        loop = asyncio.get_running_loop()
        keep_open = self._random.random() < 0.5
        self._transport, self._protocol = await loop.create_connection(
            lambda: Noting(self._rules, keep_open), sock=ours
        )
        try:
            await self._a_user_comes()
            for _ in range(STEPS):
                await self._step()
            await self._calm()
            self._note("the end")
            self._transport.close()
            self._rules.is_over("closed")
            await self._calm()
            assert self._peer.recv(1) == b"", "the end of the stream"
        finally:
            self._transport.abort()
            for one in self._users:
                one.task.cancel()
            if self._users:
                await asyncio.wait([one.task for one in self._users], timeout=LATE)
            self._peer.close()

    # ---- steps

    async def _step(self) -> None:
        steps = (
            *([self._writes] * 6 + [self._a_scope_ends] * 4 + [self._turns] * 2),
            *([self._peer_answers] * 4 + [self._calm] * 2 + [self._a_user_comes] * 3),
            *(self._sends_a_file, self._shielded_one_writes, self._foreign_one_writes),
        )
        last = (self._writes_eof, self._closes, self._aborts, self._peer_ends)
        rarely = self._random.random() < 0.03
        await self._random.choice(last if rarely else steps)()

    def _note(self, step: str) -> None:
        self.steps.append(step)
        if self._rules.held and self._transport.is_closing():  # The task has been told meanwhile.
            self._rules.is_lost()

    def _somebody(self) -> tuple[User, int]:
        user = self._random.choice(self._users[-4:])
        return user, self._random.randrange(len(user.contexts))

    def _data(self) -> bytes:
        self._number += 1
        return b"%d " % self._number * (LARGE if self._random.random() < 0.03 else 1)

    async def _a_user_comes(self) -> None:
        name = f"user {len(self._users)}"
        wait = self._random.choice(("of hardsock", "of the loop"))
        user = User(name, self._random.choice((1, 1, 1, 2)), wait)
        self._users.append(user)
        self.steps.append(f"{name} comes, with {len(user.tokens)} scopes, in a wait {wait}")
        await asyncio.sleep(0)

    async def _writes(self) -> None:
        self._one_writes(*self._somebody())

    def _one_writes(self, user: User, depth: int) -> None:
        data = self._data()
        self._note(f"{user.name} writes {data[:9]!r} in scope {depth}")
        if self._may_write():
            context, late = user.contexts[depth], user.late(depth)
            self._rules.asks(context.run(hs.current), late, data)
            context.run(self._transport.write, data)

    async def _sends_a_file(self) -> None:
        """Where that waits for what was written before, a task of the user's would do it."""
        user, depth = self._somebody()
        self._note(f"{user.name} sends a file in scope {depth}")
        held = sum(len(data) for _, data in self._rules.held)
        if self._buffered() or self._rules.ended or held > LARGE:
            return
        context, late = user.contexts[depth], user.late(depth)
        token = context.run(hs.current)
        ended = token is not None and token.wait(0)
        loop = asyncio.get_running_loop()
        sending = context.run(loop.sendfile, self._transport, self._file)
        try:
            context.run(sending.send, None)
        except StopIteration:
            assert not ended
            assert self._rules.asks(token, frozenset(), b"file ")
        except (RuntimeError, hs.HardsockError):
            assert ended or self._rules.over
            if not late and not self._rules.over:
                self._rules.let_go()
        else:
            raise AssertionError("a small file was not sent at once")

    def _may_write(self) -> bool:
        """Behind what is left to be sent when it is closed asyncio sends it, and nothing else."""
        return not self._rules.ended and not (self._rules.over and self._buffered())

    def _buffered(self) -> bool:
        held = sum(len(data) for _, data in self._rules.held)
        return bool(self._transport.get_write_buffer_size() > held)

    async def _shielded_one_writes(self) -> None:
        user, depth = self._somebody()
        data = self._data()
        self._note(f"{user.name} writes {data[:9]!r} in scope {depth} and a shield")

        def write() -> None:
            with hs.shield(LATE):
                self._rules.asks(hs.current(), frozenset(), data)
                self._transport.write(data)

        if self._may_write():
            user.contexts[depth].run(write)

    async def _foreign_one_writes(self) -> None:
        """In a context of another thread's loop, in which a scope has ended."""
        data = self._data()
        self._note(f"one of another loop writes {data[:9]!r}")
        if self._may_write():
            self._rules.asks(self._foreign.run(hs.current), frozenset(), data)
            self._foreign.run(self._transport.write, data)

    async def _a_scope_ends(self) -> None:
        user = self._random.choice(self._users[-4:])
        token = self._random.choice(user.tokens)
        if token.wait(0):
            return
        if self._random.random() < 0.3:
            self._one_writes(*self._somebody())
            self._one_writes(user, len(user.contexts) - 1)
        how = self._random.choice(("cancel", "cancel", "thread", "deadline"))
        self._note(f"scope {user.tokens.index(token) + 1} of {user.name} ends by a {how}")
        if how == "cancel":
            token.cancel(user.name)
        elif how == "deadline":
            token.set_timeout(0)
        else:
            thread = threading.Thread(target=token.cancel, args=(user.name,))
            thread.start()
            thread.join()
        if self._random.random() < 0.7:  # Before it can hear of it.
            self._one_writes(user, len(user.contexts) - 1)
            if self._random.random() < 0.2:
                after = (self._writes_eof, self._closes, self._sends_a_file)
                await self._random.choice(after)()

    async def _turns(self) -> None:
        turns = self._random.randrange(1, 5)
        self._note(f"{turns} turns")
        for _ in range(turns):
            await asyncio.sleep(0)

    async def _peer_answers(self) -> None:
        self._note("the peer answers")
        if not self._peer_ended:
            with contextlib.suppress(OSError):  # Our side is closed.
                self._told += self._peer.send(b"answer")
        if self._random.random() < 0.7:
            await self._calm()

    async def _peer_ends(self) -> None:
        self._note("the peer ends its side")
        self._peer_ended = True
        with contextlib.suppress(OSError):
            self._peer.shutdown(socket.SHUT_WR)

    async def _writes_eof(self) -> None:
        user, depth = self._somebody()
        late = user.late(depth)
        self._note(f"{user.name} ends its side in scope {depth}")
        user.contexts[depth].run(self._transport.write_eof)
        if not self._rules.over and not (self._rules.held and late):
            self._rules.let_go()
            self._rules.ended = True

    async def _closes(self) -> None:
        user, depth = self._somebody()
        self._note(f"{user.name} closes in scope {depth}")
        user.contexts[depth].run(self._transport.close)
        self._rules.is_over("closed")

    async def _aborts(self) -> None:
        self._note("an abort")
        self._transport.abort()
        self._rules.is_over("aborted")

    # ---- what must be true

    async def _calm(self) -> None:
        """All tasks that have to end have ended, and all that was to be sent has arrived."""
        self._note("all is calm")
        ended = [one for one in self._users if one.has_ended]
        if ended:
            _, left = await asyncio.wait([one.task for one in ended], timeout=LATE)
            assert not left
        if self._rules.held:
            assert self._transport.is_closing(), "who asked in vain has heard, and it is not lost"
            self._rules.is_lost()
        assert self._transport.is_closing() == bool(self._rules.over), self._rules.over
        await self._until(lambda: not self._buffered())
        if self._rules.over:
            await self._until(self._protocol.lost.done)
            self._says_why(self._protocol.lost.result())
        else:
            await self._until(lambda: self._protocol.received == self._told)
            await self._until(lambda: self._protocol.ended == self._peer_ended)
        for one in ended:
            assert one.name in one.task.result() or "time" in one.task.result()
        self._rules.check(bytes(self._arrived))

    async def _until(self, condition: Callable[[], bool]) -> None:
        end = asyncio.get_running_loop().time() + LATE
        while True:
            with contextlib.suppress(BlockingIOError, ConnectionError):
                while data := self._peer.recv(65536):
                    self._arrived += data
            if condition():
                return
            assert asyncio.get_running_loop().time() < end
            await asyncio.sleep(0)

    def _says_why(self, exc: BaseException | None) -> None:
        if self._rules.over == "lost":
            assert isinstance(exc, (hs.Cancelled, hs.DeadlineExceeded))
        else:
            assert exc is None or self._rules.over == "aborted"


@pytest.fixture(scope="module")
def foreign() -> Iterator[contextvars.Context]:
    """A context of another thread's loop, in which a scope has ended, and nobody has heard of it."""
    made: list[contextvars.Context] = []
    there, over = threading.Event(), threading.Event()

    async def main() -> None:
        token = hs.CancelToken()
        with pytest.raises(hs.Cancelled), hs.scope(token):
            made.append(contextvars.copy_context())
            token.cancel("of another loop")
            there.set()
            over.wait()
            await asyncio.Event().wait()

    thread = threading.Thread(target=lambda: hsloop.run(main()))
    thread.start()
    assert there.wait(LATE)
    yield made[0]
    over.set()
    thread.join()


@pytest.fixture(scope="module")
def file() -> Iterator[IO[bytes]]:
    with tempfile.TemporaryFile(buffering=0) as made:
        made.write(b"file ")
        yield made


def fault(seed: int, foreign: contextvars.Context, file: IO[bytes]) -> str:
    """What was wrong in the run of *seed*, and its steps; or nothing."""
    run = Run(seed, foreign, file)
    try:
        hsloop.run(run.play())
    except (AssertionError, OSError, RuntimeError) as exc:
        text = str(exc).partition("\n")[0] or repr(exc)
        return f"seed {seed}: {text}\n" + "\n".join(run.steps)
    return ""


@pytest.mark.parametrize("seeds", [SEEDS[i::4] for i in range(4)], ids=lambda one: f"from {one[0]}")
def test_who_has_time_is_heard_and_who_has_not_asks_nothing(
    seeds: range, foreign: contextvars.Context, file: IO[bytes]
) -> None:
    for seed in seeds:
        found = fault(seed, foreign, file)
        assert not found, found
    assert hs.open_connections() == []


# ---- the rules of the code, each taken out


def _not_let_go(self: Any) -> None:
    self._held = b""


def _let_go_and_forgotten(self: Any) -> None:
    held, self._held = self._held, b""
    if held:
        self.write(held)


_write_eof, _close, _sendfile = Transport.write_eof, Transport.close, Transport.sendfile


def _write_eof_before(self: Any) -> None:
    self._held = b""
    _write_eof(self)


def _close_behind(self: Any) -> None:
    self._let_go()
    _close(self)


async def _sendfile_before(self: Any, *args: Any) -> int:
    self._held = b""
    return await _sendfile(self, *args)


def _in_vain_anywhere(hub: Any) -> Any:
    scope = _host_scope._innermost.get()
    return _host_scope.in_vain(hub if scope is None else scope._hub)


def _in_vain_for_ever(hub: Any) -> Any:
    scope = _host_scope._innermost.get()
    return [scope] if scope is not None and scope._hub is hub and scope.token.wait(0) else []


def _never_in_vain(_hub: Any) -> Any:
    return []


def _remembered(keeps: Callable[[object, object], object]) -> property:
    """In the place of `Transport._asker`: *keeps* says which of the former and the new one stays."""

    def remember(self: Any, asker: object) -> None:
        self.__dict__["asker"] = keeps(self.__dict__.get("asker", _transport._NOBODY), asker)

    return property(lambda self: self.__dict__.get("asker", _transport._NOBODY), remember)


def _end_later(self: Any) -> None:
    self._loop.call_soon(self._end, None, context=self._context)


TAKEN_OUT: dict[str, tuple[Any, str, Any]] = {
    "what is held is sent when somebody else asks": (Transport, "_let_go", _not_let_go),
    "it is shared from then on": (Transport, "_let_go", _let_go_and_forgotten),
    "what is held goes before the end of a side": (Transport, "write_eof", _write_eof_before),
    "what is held goes before a file": (Transport, "sendfile", _sendfile_before),
    "close() sends nothing that is held": (Transport, "close", _close_behind),
    "nothing is sent behind close()": (Transport, "_end_soon", _end_later),
    "who has heard finds it lost": (Transport, "_lose_held", lambda self: None),
    "nothing is asked in vain": (_transport, "in_vain", _never_in_vain),
    "a scope of another loop is none here": (_transport, "in_vain", _in_vain_anywhere),
    "who has heard tidies up": (_transport, "in_vain", _in_vain_for_ever),
    "somebody else may wait for an answer": (
        *(Transport, "_asker"),
        _remembered(lambda _former, _new: _transport._NOBODY),
    ),
    "so may each of several": (_transport, "_SEVERAL", _transport._NOBODY),
    "what arrives is the answer": (
        *(Transport, "_asker"),
        _remembered(lambda former, new: former if new is _transport._NOBODY else new),
    ),
}


@pytest.mark.parametrize("rule", list(TAKEN_OUT))
def test_a_rule_that_is_taken_out_is_found(
    rule: str, foreign: contextvars.Context, file: IO[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules[__name__], "LATE", 2.0)  # What hangs is found, too.
    owner, name, instead = TAKEN_OUT[rule]
    monkeypatch.setattr(owner, name, instead)
    assert any(fault(seed, foreign, file) for seed in SEEDS)
    scope = foreign.run(_host_scope._innermost.get)
    assert scope is not None
    scope._to_tell = ()  # It would keep our connection.
