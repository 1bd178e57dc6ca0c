"""What ``import hardsock`` brings in, and what the first connect adds: a program pays for its use.

Lists of modules, not clocks: what costs time and memory at import is what is imported.
"""

from __future__ import annotations

import ast
import subprocess
import sys
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
