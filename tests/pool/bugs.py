"""Single bugs that pools are known for, each provoked as its users meet it."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from hardsock.lab.threads import Call
from pool.adapters import Adapter, NotThere, Place, Wrong
from pool.relay import Relay
from pool.storms import Cell, Interrupts

Make = Callable[[Place], Adapter]
SLOW_DIAL = 1.5  # seconds
FORK_EXCHANGES = 500


def outcome(function: Callable[[], object]) -> Cell:
    """Whether an exchange gets its own answer."""
    try:
        function()
    except Wrong:
        return Cell("WRONG ANSWER", False)
    except Exception as exc:
        return Cell(type(exc).__name__, False)
    return Cell("ok", True)


def interrupt_soon(then: Callable[[], object] | None = None) -> None:
    # Nothing tells when a thread has begun to wait in somebody's pool; the case says if it did not.
    time.sleep(0.3)
    os.kill(os.getpid(), signal.SIGINT)
    if then is not None:
        time.sleep(0.5)  # Later, on purpose.
        then()


def interrupted_waiter(make: Make, place: Place) -> Cell:
    """Ctrl-C hits a thread that waits for the only connection; then that is returned."""
    pool = make(replace(place, size=1))
    held = pool.take()
    interrupts = Interrupts()
    with Call(interrupt_soon) as call:
        interrupts.attempt(lambda: pool.exchange(1))
        call.join(timeout=10.0)
    if not interrupts.raised:
        return Cell("not interrupted", False)
    try:
        pool.give(held)
    except Exception as exc:  # Its place was given away.
        return Cell(f"{type(exc).__name__} at return", False)
    found = outcome(lambda: pool.exchange(2, 1.0))
    return found if found.good else Cell(f"LOST: {found.text}", False)


def dead_waiters(make: Make, place: Place) -> Cell:
    """With two places to wait, two have given up waiting: may a third wait?"""
    adapter: Any = make
    if adapter.bounded is None:
        raise NotThere
    pool = make(replace(place, size=1, options={adapter.bounded: 2}))
    held = pool.take()
    gave_up = [Call(outcome, lambda: pool.exchange(1, 0.2)) for _ in range(2)]
    for call in gave_up:
        with call:
            pass
    found = outcome(lambda: pool.exchange(2, 0.2))
    pool.give(held)
    refused = found.text == adapter.refusal
    return Cell("refused" if refused else "may wait", not refused)


def double_release(make: Make, place: Place) -> Cell:
    """The same connection is returned twice; then two borrow."""
    pool = make(replace(place, size=2, wait=1.0))
    held = pool.take()
    pool.give(held)
    said = "ignored"
    try:
        pool.give(held)
    except Exception as exc:
        said = type(exc).__name__
    first, second = pool.take(), pool.take()
    if pool.identity(first) == pool.identity(second):
        return Cell("BOTH GET IT", False)
    return Cell(said, True)


def return_while_dialing(make: Make, place: Place) -> Cell:
    """How long a return takes while another thread's connect is slow."""
    with Relay(place.address) as relay:
        pool = make(replace(place, size=2, address=relay.address))
        held = pool.take()
        relay.delay_next(SLOW_DIAL)
        with Call(outcome, lambda: pool.exchange(1, 5.0)):
            while relay.accepted < 2:
                time.sleep(0.005)  # Polling: the dial has begun when the relay says so.
            start = time.monotonic()
            pool.give(held)
            took = time.monotonic() - start
    return Cell(f"{took:.2f} s", took < SLOW_DIAL / 3)


def _cut(make: Make, place: Place, before: float, rounds: int) -> Cell:
    failed = []
    with Relay(place.address) as relay:
        pool = make(replace(place, size=2, address=relay.address))
        for _ in range(rounds):
            outcome(lambda: pool.exchange(1))
            relay.cut()
            time.sleep(before)
            found = outcome(lambda: pool.exchange(2))
            if not found.good:
                failed.append(found.text)
    return Cell(f"{failed[0]}, {len(failed)} of {rounds}" if failed else "ok", not failed)


def cut_while_idle(make: Make, place: Place) -> Cell:
    """The server closes connections that are idle; somewhat later the next borrower comes."""
    return _cut(make, place, 0.2, 5)


def cut_at_once(make: Make, place: Place) -> Cell:
    """The server closes a connection right after its return; the next borrower comes at once."""
    return _cut(make, place, 0.0, 50)


def never_read(make: Make, place: Place) -> Cell:
    """A TLS 1.3 connection is made ready, and nothing said on it: is it used, or thrown away?"""
    adapter: Any = make
    if not adapter.tls:
        raise NotThere
    with Relay(place.address, place.options["tls"]) as relay:
        pool = make(replace(place, address=relay.address, size=1, options={}))
        pool.warm()
        time.sleep(0.1)  # The session tickets are there now.
        found = outcome(lambda: pool.exchange(1))
        if not found.good:
            return found
        used = relay.accepted == 1
        return Cell("used" if used else "THROWN AWAY", used)


def _forked(make: Make, place: Place, child: Callable[[Adapter], bool], *, beside: bool) -> Cell:
    """Fork with a connection in the pool. The child does something, then the parent asks once;
    *beside*: then both ask at the same time. Each waits for the other's turn, or luck decides."""
    adapter: Any = make
    tls = place.options["tls"] if adapter.tls else None
    with Relay(place.address, tls) as relay:
        ca = place.ca if adapter.tls else None
        pool = make(replace(place, address=relay.address, ca=ca, size=1, options={}))
        pool.exchange(1)
        child_done, tell_parent = os.pipe()
        parent_done, tell_child = os.pipe()
        pid = os.fork()
        if pid == 0:
            good = child(pool)
            os.write(tell_parent, b".")
            os.read(parent_done, 1)
            if beside:
                good = good and many(pool, 5000).good
            os._exit(0 if good else 1)
        os.read(child_done, 1)
        found = outcome(lambda: pool.exchange(3))
        os.write(tell_child, b".")
        if beside and found.good:
            found = many(pool, 1000)
        status = os.waitpid(pid, 0)[1]
    if found.good and status != 0:
        return Cell("child fails", False)
    return found


def many(pool: Adapter, first: int) -> Cell:
    def ask() -> None:
        for n in range(first, first + FORK_EXCHANGES):
            pool.exchange(n)

    return outcome(ask)


def fork_and_close(make: Make, place: Place) -> Cell:
    """The child closes what it inherited and ends; the parent goes on."""

    def child(pool: Adapter) -> bool:
        pool.close()
        return True

    return _forked(make, place, child, beside=False)


def fork_and_use(make: Make, place: Place) -> Cell:
    """The child asks first, then both do at the same time."""
    return _forked(make, place, lambda pool: outcome(lambda: pool.exchange(2)).good, beside=True)


def interrupted_reader(make: Make, place: Place) -> Cell:
    """Ctrl-C hits a borrower who waits for an answer, which comes later; then the next asks."""
    with Relay(place.address) as relay:
        pool = make(replace(place, address=relay.address, size=1))
        pool.exchange(1)
        relay.hold_replies()
        interrupts = Interrupts()
        with Call(interrupt_soon, relay.let_replies_go):
            interrupts.attempt(lambda: pool.exchange(2))
            if not interrupts.raised:
                return Cell("not interrupted", False)
            return outcome(lambda: pool.exchange(3))


def unread_answer(make: Make, place: Place) -> Cell:
    """A borrower asks and returns without reading; then the next asks."""
    adapter: Any = make
    pool = make(replace(place, size=1))
    pool.exchange(1)
    # To tell this borrower is well; it is the next one who counts.
    with contextlib.suppress(OSError, *adapter.complaints()):
        pool.leave(2)
    return outcome(lambda: pool.exchange(3))
