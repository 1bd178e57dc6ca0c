"""Pytest plugin: no test may leave descriptors, threads or live hardsock objects behind.

    @pytest.mark.may_leave("the orphaned lookup ends by itself", threads=["hs-resolve*"])

allows what matches the shell patterns given as ``fds=`` and ``threads=``; without both, anything.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from hardsock.lab.inventory import Leak, leak_check, snapshot

_MARKER = "may_leave(reason, *, fds=(), threads=()): what this test may leave behind, and why"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Make the setting known."""
    parser.addini("leak_timeout", "seconds until what is left behind is a leak", default="2.0")


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known."""
    config.addinivalue_line("markers", _MARKER)


@pytest.fixture(autouse=True)
def nothing_left_behind(request: pytest.FixtureRequest) -> Iterator[None]:
    """Compare the process before the test's fixtures with the process after them."""
    marker = request.node.get_closest_marker("may_leave")
    before = snapshot()
    yield
    request.node.funcargs.clear()  # pytest keeps them until later, and with them live objects
    allowed = {} if marker is None else marker.kwargs
    if marker is not None and not allowed:
        return
    found = ""
    try:
        leak_check(
            before,
            timeout=float(request.config.getini("leak_timeout")),
            ignore_fds=allowed.get("fds", ()),
            ignore_threads=allowed.get("threads", ()),
        )
    except Leak as leak:
        found = str(leak)
    if found:
        pytest.fail(found, pytrace=False)
