"""What ``import hardsock`` brings in, and what the first connect adds: a program pays for its use.

Lists of modules and bytes, not clocks: what costs time and memory at import is what is imported.
"""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

import hardsock

_BARE = {
    "hardsock",
    "hardsock._breaker",
    "hardsock._core",
    "hardsock._errors",
    "hardsock._records",
    "hardsock.leaks",
    "hardsock.leaks.sites",
    "hardsock.metrics",
}
_FIRST_CONNECT = {
    "hardsock._defaults",
    "hardsock._dial_limits",
    "hardsock._dialing",
    "hardsock._greenlets",
    "hardsock._names",
    "hardsock._observed",
    "hardsock._options",
    "hardsock._scope",
    "hardsock.connecting",
    "hardsock.connecting.connect",
    "hardsock.tls",
    "hardsock.tls.config",
}
_ALSO = {"__future__", "copy", "dataclasses"}  # Of the standard library.

_PROGRAM = """
import asyncio, socket, ssl, sys
before = set(sys.modules)
import hardsock
bare = set(sys.modules)
with socket.create_server(("127.0.0.1", 0)) as listener:
    hardsock.connect(listener.getsockname(), timeout=60).abort()
print(sorted(bare - before))
print(sorted(set(sys.modules) - bare))
"""


def _run(program: str) -> list[str]:
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=120
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.splitlines()


def test_import_and_first_connect_bring_in_what_they_need_and_no_more() -> None:
    bare, added = (set(ast.literal_eval(line)) for line in _run(_PROGRAM))
    assert bare - _ALSO == _BARE
    assert added - _ALSO == _FIRST_CONNECT


def test_import_does_not_pay_for_ssl_and_yet_catches_as_ssl_does() -> None:
    program = (
        "import sys, hardsock; print('ssl' in sys.modules); import ssl; "
        "print(issubclass(hardsock.TLSError, ssl.SSLError), "
        "issubclass(hardsock.CertificateError, ssl.SSLCertVerificationError))"
    )
    assert _run(program) == ["False", "True True"]


# What it needs of these, their C modules have. To import them takes as long as the rest of hardsock.
_DEAR = {"asyncio", "dataclasses", "inspect", "logging", "selectors", "socket", "ssl", "threading"}


@pytest.mark.parametrize("module", ["hardsock", "hardsock._breaker", "hardsock.metrics"])
def test_import_by_itself_brings_in_nothing_dear(module: str) -> None:
    (found,) = _run(
        "import sys; before = set(sys.modules)\n"
        f"import {module}; print(sorted(set(sys.modules) - before))"
    )
    assert set(ast.literal_eval(found)) & _DEAR == set()


def test_awaiting_clients_pay_for_no_server_and_no_pool() -> None:
    (found,) = _run("import hardsock.aio, sys; print(sorted(sys.modules))")
    modules = set(ast.literal_eval(found))
    assert {
        name for name in modules if name.startswith(("hardsock.serving", "hardsock.pool"))
    } == set()
    assert modules.isdisjoint({"hardsock.aio._pool", "hardsock.aio._server", "hardsock.aio.loop"})


def test_every_name_of_aio_is_found() -> None:
    import hardsock.aio as aio

    assert set(aio.__all__) <= set(dir(aio))
    assert [name for name in aio.__all__ if getattr(aio, name, None) is None] == []
    with pytest.raises(AttributeError, match=r"module 'hardsock\.aio' has no attribute 'Socket'"):
        _ = aio.Socket  # type: ignore[attr-defined]


_GROWTH = """
import sys
def anonymous():
    with open("/proc/self/smaps_rollup", "rb") as smaps:
        return next(int(line.split()[1]) for line in smaps if line.startswith(b"Anonymous:"))
anonymous()
before, modules = anonymous(), len(sys.modules)
import {}
print(anonymous() - before, len(sys.modules) - modules)
"""


def _growth(statement: str) -> tuple[int, int]:
    """KiB of anonymous memory, and modules, that an import adds to a bare interpreter."""
    kib, modules = _run(_GROWTH.format(statement))[0].split()
    return int(kib), int(modules)


@pytest.mark.skipif("LD_PRELOAD" in os.environ, reason="a sanitizer's memory is not ours")
def test_import_takes_four_mib_at_most_and_less_than_what_it_stands_for() -> None:
    kib, modules = _growth("hardsock")
    other_kib, other_modules = _growth("ssl, asyncio")
    assert (kib < other_kib, modules < other_modules) == (True, True)
    if not sysconfig.get_config_var("Py_GIL_DISABLED"):  # Objects are larger there.
        assert kib <= 4096


def test_every_name_is_found() -> None:
    assert set(hardsock.__all__) <= set(dir(hardsock))
    assert [name for name in hardsock.__all__ if getattr(hardsock, name, None) is None] == []


def test_star_import_and_import_of_one_name_find_what_comes_late() -> None:
    lines = _run(
        "from hardsock import *\nfrom hardsock import serve as one, deadline\n"
        "import hardsock\nprint(serve is one is hardsock.serve, deadline.__name__)"
    )
    assert lines == ["True hardsock.deadline"]


def test_metrics_stays_a_function_when_its_folder_is_imported() -> None:
    assert _run(
        "import hardsock.metrics.families, hardsock\nprint(callable(hardsock.metrics))"
    ) == ["True"]


def test_unknown_name_is_an_attribute_error_that_names_it() -> None:
    with pytest.raises(
        AttributeError, match="module 'hardsock' has no attribute 'pool_of_connections'"
    ):
        _ = hardsock.pool_of_connections  # type: ignore[attr-defined]


def test_what_comes_late_is_what_checkers_of_types_are_told() -> None:
    """The imports for type checkers and the table of homes are the same list."""
    tree = ast.parse(Path(hardsock.__file__).read_text())
    told: dict[str, str] = {}
    for node in tree.body:
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            for one in node.body:
                assert isinstance(one, ast.ImportFrom)
                told |= {alias.name: str(one.module) for alias in one.names}
    assert [told.pop(name) for name in hardsock._MODULES] == ["hardsock"] * len(hardsock._MODULES)
    assert told == hardsock._HOME_OF
