"""Pytest plugin: a test that leaves connections or descriptors open fails, and the line is named.

Installed with hardsock and active by itself; ``hardsock_leaks = off`` in the configuration,
``--hardsock-leaks=off`` or ``-p no:hardsock`` switch it off. docs/pytest.md tells the rest.
"""

from __future__ import annotations

import functools
import gc
import inspect
import sys
import threading
from collections.abc import Generator, Iterator
from typing import Any

import pytest

from hardsock import CancelToken, _core
from hardsock.leaks.owners import KINDS, Finding, Owner, Owners
from hardsock.leaks.tracer import Tracer, trace_sockets

_MARKER = (
    "may_leave(reason, *, sites=(), fds=(), threads=()): what this test may leave open, and why; "
    "shell patterns for the lines that made it, the targets of descriptors and the names of "
    "threads. Without any: whatever it be"
)
_owners_key = pytest.StashKey[Owners]()
_owner_key = pytest.StashKey[Owner]()
_failed_key = pytest.StashKey[bool]()
_just_failed_key = pytest.StashKey[bool]()


class _Phase(threading.local):
    """What the teardown that runs in this thread has found so far; None outside of one."""

    found: list[str] | None = None


_phase = _Phase()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Make the settings known."""
    text = f"what must not be left behind: {', '.join(KINDS)}, off"
    parser.getgroup("hardsock").addoption("--hardsock-leaks", metavar="KINDS", help=text)
    parser.addini("hardsock_leaks", text, type="args", default=["connections", "descriptors"])
    parser.addini(
        "hardsock_leaks_allow",
        "shell patterns of sites (FILE:LINE in FUNCTION) and descriptors that may be left",
        type="linelist",
        default=[],
    )
    parser.addini("hardsock_leaks_wait", "seconds until what is left open is a leak", default="0.1")
    parser.addini(
        "hardsock_leaks_trace",
        "name the lines that made sockets and files which are not hardsock's (an audit hook)",
        type="bool",
        default=True,
    )


def pytest_configure(config: pytest.Config) -> None:
    """Begin to note to whom belongs what is opened."""
    config.addinivalue_line("markers", _MARKER)
    config.addinivalue_line("markers", "wire(**settings): how the fixture wire is set up")
    config.addinivalue_line("markers", "bad_proxy(**behaviour): what the fixture bad_proxy adds")
    kinds = _kinds(config)
    float(config.getini("hardsock_leaks_wait"))
    if not kinds:
        return
    tracer = None
    if config.getini("hardsock_leaks_trace") and kinds & KINDS["descriptors"]:
        tracer = _tracer()
    CancelToken().wait(0)  # Opens the thread's eventfd, which is kept for its life.
    config.stash[_owners_key] = Owners(kinds, tracer)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Note no more."""
    if _owners_key in config.stash:
        config.stash[_owners_key].stop()


def _kinds(config: pytest.Config) -> frozenset[str]:
    given = config.getoption("hardsock_leaks")
    names = config.getini("hardsock_leaks") if given is None else given.replace(",", " ").split()
    kinds: frozenset[str] = frozenset()
    for name in names:
        if name not in KINDS and name != "off":
            raise pytest.UsageError(
                f"hardsock_leaks: there is no {name!r}, but {', '.join(KINDS)} and off"
            )
        kinds |= KINDS.get(name, frozenset())
    if "off" in names and len(names) > 1:
        raise pytest.UsageError("hardsock_leaks: off and others contradict each other")
    return kinds


def _tracer() -> Tracer:
    """One for the process: an audit hook stays."""
    return trace_sockets(files=True)


# ---- tests


@pytest.fixture(autouse=True)
def _hardsock_leaks(request: pytest.FixtureRequest) -> Iterator[None]:
    """Compare before the test's own fixtures with after them: it is the first and the last.

    A run that was cut off (Ctrl-C, ``pytest.exit()``) tears its test down at the session's end. The
    test is nobody's to judge then, and an error there would take the place of the interrupt.
    """
    owners = request.config.stash.get(_owners_key, None)
    if owners is None:
        yield
        return
    if request.config.stash.get(_just_failed_key, False):
        _forget_failure()
        request.config.stash[_just_failed_key] = False
    owner = owners.begin(request.node.nodeid)
    request.node.stash[_owner_key] = owner
    try:
        with _core.ContextValue(_core.owner, owner):
            yield
            if _phase.found is not None and not request.node.stash.get(_failed_key, False):
                _forget_values(request.node)
                _tell(request.node.nodeid, _leftovers(owners, owner, request))
    finally:
        owners.end(owner)


def _forget_values(item: Any) -> None:
    """Pytest keeps the values of fixtures until later, and with them what they hold."""
    getattr(item, "funcargs", {}).clear()


def _leftovers(owners: Owners, owner: Owner, request: pytest.FixtureRequest) -> list[Finding]:
    marks = list(request.node.iter_markers("may_leave"))
    allowed = list(request.config.getini("hardsock_leaks_allow"))
    for mark in marks:
        lists = [mark.kwargs[name] for name in ("sites", "fds", "threads") if name in mark.kwargs]
        allowed += [pattern for patterns in lists for pattern in patterns] if lists else ["*"]
        if not lists:
            return []
    return owners.leftovers(owner, allowed, float(request.config.getini("hardsock_leaks_wait")))


def _tell(who: str, found: list[Finding]) -> None:
    """Have it told when the teardown that runs here is over."""
    if found and _phase.found is not None:
        _phase.found.append("\n  ".join([f"{who} left behind:", *(one.text for one in found)]))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> None:
    """See who failed: the traceback keeps alive what that test had, so it is not looked at."""
    if call.excinfo is not None and not isinstance(call.excinfo.value, pytest.skip.Exception):
        item.stash[_failed_key] = item.config.stash[_just_failed_key] = True


def _forget_failure() -> None:
    """Let go of what the traceback of the test before kept: a later test is not blamed for the end
    of it. Pytest forgets the same names when the next test is called."""
    for name in ("last_type", "last_value", "last_traceback", "last_exc"):
        vars(sys).pop(name, None)
    gc.collect()


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, object, object]:
    """Fail for what was left behind, if nothing else did.

    Pytest groups the errors of a teardown. An interrupt in a group is none any more, so what was
    found waits for the end and yields to any other error. Then it is told beside that.
    """
    outer, _phase.found = _phase.found, []
    try:
        result = yield
    except Exception:
        for text in _phase.found:
            item.add_report_section("teardown", "hardsock", text)
        raise
    else:
        found = "\n".join(_phase.found)
    finally:
        _phase.found = outer
    if found:
        pytest.fail(found, pytrace=False)
    return result


@pytest.hookimpl(hookwrapper=True, tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, None]:
    """Let the coroutine of a test run with its owner, in whatever context its loop was made."""
    owner = item.stash.get(_owner_key, None)
    test = getattr(item, "obj", None)
    if owner is None or not inspect.iscoroutinefunction(test):
        yield
        return

    @functools.wraps(test)
    async def owned(*args: Any, **kwargs: Any) -> Any:
        with _core.ContextValue(_core.owner, owner):
            return await test(*args, **kwargs)

    item.obj = owned  # type: ignore[attr-defined]
    yield
    item.obj = test  # type: ignore[attr-defined]


# ---- fixtures that outlive tests


@pytest.hookimpl(hookwrapper=True)
def pytest_fixture_setup(
    fixturedef: pytest.FixtureDef[Any], request: pytest.FixtureRequest
) -> Generator[None, object, None]:
    """What such a fixture opens is its own, no test's."""
    owners = request.config.stash.get(_owners_key, None)
    if owners is None or fixturedef.scope == "function":
        yield
        return
    owner = Owner(f"fixture {fixturedef.argname} ({fixturedef.scope})", only_named=True)
    outside = owners.outside()
    with _core.ContextValue(_core.owner, owner):
        yield
    owners.exempt(outside)
    request.config.stash.setdefault(_fixtures_key, {})[id(fixturedef)] = owner


_fixtures_key = pytest.StashKey[dict[int, Owner]]()


@pytest.hookimpl(trylast=True)
def pytest_fixture_post_finalizer(
    fixturedef: pytest.FixtureDef[Any], request: pytest.FixtureRequest
) -> None:
    """Look at what it leaves."""
    owner = request.config.stash.get(_fixtures_key, {}).pop(id(fixturedef), None)
    if owner is None or _phase.found is None:
        return
    owners = request.config.stash[_owners_key]
    wait = float(request.config.getini("hardsock_leaks_wait"))
    _tell(owner.name, owners.leftovers(owner, request.config.getini("hardsock_leaks_allow"), wait))


# ---- what belongs to nobody


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Tell what tests that ran at the same time left, when it cannot be said which of them."""
    owners = session.config.stash.get(_owners_key, None)
    strays = [] if owners is None else [one.text for one in owners.strays()]
    if not strays:
        return
    if session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
    session.config.stash[_strays_key] = strays
    if hasattr(session.config, "workeroutput"):  # of pytest-xdist
        session.config.workeroutput["hardsock_strays"] = strays


_strays_key = pytest.StashKey[list[str]]()


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object) -> None:
    """Take over what a worker of pytest-xdist has to tell."""
    strays = getattr(node, "workeroutput", {}).get("hardsock_strays", [])
    if strays:
        node.config.stash.setdefault(_strays_key, []).extend(strays)


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Tell of strays."""
    strays = config.stash.get(_strays_key, [])
    if strays:
        terminalreporter.section("hardsock: left open by tests that ran at the same time")
        for text in strays:
            terminalreporter.line(text)


# ---- the lab


@pytest.fixture
def wire(request: pytest.FixtureRequest) -> Iterator[Any]:
    """A `hardsock.lab.Wire` for this test; ``@pytest.mark.wire(delay=0.05, ...)`` sets it up.

    A machine that cannot have one skips the test (``CI=true``: fails it). If the wire did not do
    what it was asked to, the test is told as skipped, with the reason.
    """
    from hardsock.lab.fixtures import wire_for  # Late: few tests want it.

    yield from wire_for(request)


@pytest.fixture
def bad_proxy(request: pytest.FixtureRequest) -> Iterator[Any]:
    """``bad_proxy(target, latency=0.1)`` makes a `hardsock.lab.BadProxy` that ends with this test.

    ``@pytest.mark.bad_proxy(latency=0.1)`` says what is not given.
    """
    from hardsock.lab.fixtures import proxies_for

    yield from proxies_for(request)
