"""What every test gets: a check that it left nothing behind, and a warmed-up main thread."""

from __future__ import annotations

import asyncio
import gc
import importlib.util
import os
import signal
import subprocess
from collections.abc import Generator
from typing import TYPE_CHECKING, Any

import pytest

import hardsock as hs
from support.explained import pytest_assertrepr_compare as pytest_assertrepr_compare
from support.measured import pytest_terminal_summary as pytest_terminal_summary
from support.require import need_module
from support.sanitizers import reason_to_skip

if TYPE_CHECKING:
    from support.tls import Identities

pytest_plugins = ["pytester"]


def pytest_configure() -> None:
    """What a shell has ignored for us, in the background or under nohup, each program started by a
    test would ignore too: a handler ends with exec.

    SIGINT is also how ``make`` ends a run at its limit: pytest then tells what had failed.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        signal.signal(signal.SIGHUP, lambda _number, _frame: None)
    subprocess.Popen.__exit__ = _leave  # type: ignore[method-assign]


_wait_and_leave = subprocess.Popen.__exit__


def _leave(process: subprocess.Popen[Any], kind: type[BaseException] | None, *raised: Any) -> None:
    """A program whose block has failed is ended: it may be one that runs until it is told to end, and
    the failure would wait for it and never be told."""
    if kind is not None:
        process.kill()
    _wait_and_leave(process, kind, *raised)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Let the garbage collector rest while modules and tests are made: all of it is kept."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what cannot hold below the sanitizer that is preloaded."""
    for item in items:
        if reason := reason_to_skip(item.nodeid):
            # Before what a test says itself of where it cannot hold: that one would be the reason shown.
            item.add_marker(pytest.mark.skipif(True, reason=reason), append=False)


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop() -> None:
    """Have the collector leave alone what is there before the first test: modules, and the tests.

    They are more than half a million objects, and after one test in three the leak check collects
    garbage: it looked through them each time.
    """
    _leave_alone()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(
    item: pytest.Item, nextitem: pytest.Item | None
) -> Generator[None, object, object]:
    """After each file the same with what it has brought: matplotlib alone is 200,000 objects."""
    result = yield
    if nextitem is None or nextitem.path != item.path:
        _leave_alone()
    return result


def _leave_alone() -> None:
    gc.collect()
    gc.freeze()


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_sessionfinish() -> Generator[None, object, object]:
    """Who tells of the run may ask who refers to something, as hypothesis does. What collects garbage
    after that would find none among them."""
    gc.unfreeze()
    try:
        return (yield)
    finally:
        gc.freeze()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test on uvloop where there is none before it starts: later it would leave a coroutine
    that nobody awaits, which is the next test's error."""
    case = getattr(item, "callspec", None)
    if case is not None and "uvloop" in case.id.split("-"):
        need_module("uvloop")


@pytest.fixture(scope="session", autouse=True)
def thread_waker() -> None:
    """Open the main thread's eventfd, which lives as long as the thread, before tests are compared."""
    hs.CancelToken().wait(0)


@pytest.fixture(scope="session")
def event_loops() -> None:
    """Let asyncio, uvloop and trio open what they keep for the life of the process."""
    need_module("trio")
    import trio

    async def nothing() -> None:
        pass

    asyncio.run(nothing())
    if importlib.util.find_spec("uvloop") is not None or os.environ.get("CI") == "true":
        import uvloop  # Where there is none, only the tests that run on it are skipped.

        uvloop.run(nothing())
    trio.run(nothing)


@pytest.fixture(scope="module")
def ids(tmp_path_factory: pytest.TempPathFactory) -> Identities:
    """An authority, and what it issues."""
    # Not every interpreter has what makes certificates: only tests that speak TLS are skipped there.
    from support.tls import Identities

    return Identities(tmp_path_factory.mktemp("identities"))
