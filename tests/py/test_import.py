"""What ``import hardsock`` brings in, and what the first connect adds: a program pays for its use.

Lists of modules and bytes, not clocks: what costs time and memory at import is what is imported.
"""

from __future__ import annotations

import ast
import inspect
import os
import subprocess
import sys
import sysconfig
import typing
from pathlib import Path

import pytest

import hardsock

_BARE = {
    "hardsock",
    "hardsock._breaker",
    "hardsock._core",
    "hardsock._errors",
    "hardsock._records",
    "hardsock._typing",
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


def _run(program: str, *options: str) -> list[str]:
    command = [sys.executable, *options, "-c", program]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120)
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


# What a program that only connects is not to pay for, and where it is needed.
_NOT_TO_CONNECT = {
    "asyncio": "for those who await",
    "concurrent.futures": "comes in with asyncio",
    "datetime": "for the dates of certificates",
    "json": "for reports",
    "logging": "comes in with asyncio; hardsock warns and raises",
    "selectors": "comes in with socket; who waits does so in C",
    "socket": "_socket has what is needed, the exception; the rest of it is a second time ours",
    "ssl": "_ssl has what is needed, the exceptions; TLS is done in C",
    "subprocess": "for the lab and the command line",
    "tempfile": "for the lab",
    "threading": "locks and threads are those of C",
    "traceback": "call sites are found in C",
    "typing": "for checkers of types, which read annotations and do not run them: hardsock._typing",
}
# And one that only imports: the first call brings these in, with the classes of the options.
_NOT_TO_IMPORT = {
    **_NOT_TO_CONNECT,
    "ast": "comes in with inspect",
    "collections": "for named tuples, which a module makes when it is asked for them",
    "contextlib": "for generators as context managers; its frames are known by its name",
    "dataclasses": "for options; it compiles the methods of each class, and brings in inspect",
    "dis": "comes in with inspect",
    "enum": "for re and inspect; nothing here is an enum",
    "inspect": "for the message about a misspelt parameter",
    "re": "the same",
    "tokenize": "comes in with inspect",
}
# In an interpreter that has nothing of a virtual environment, which may bring in any of them.
_PLAIN = f"import sys; sys.path.insert(0, {os.path.dirname(hardsock.__path__[0])!r})\n"
_CONNECTS = """
import _socket
listener = _socket.socket()
listener.bind(("127.0.0.1", 0))
listener.listen()
import hardsock
hardsock.connect(listener.getsockname(), timeout=60).abort()
"""


def _brought_in(program: str) -> set[str]:
    (said,) = _run(f"{_PLAIN}{program}\nprint(sorted(sys.modules))", "-I", "-S")
    return set(ast.literal_eval(said))


@pytest.mark.parametrize("module", ["hardsock", "hardsock._breaker", "hardsock.metrics"])
def test_import_by_itself_brings_in_nothing_dear(module: str) -> None:
    assert _brought_in(f"import {module}") & set(_NOT_TO_IMPORT) == set()


def test_the_first_connect_brings_in_nothing_that_it_does_not_need() -> None:
    # inspect, which dataclasses imports, has typing with it in some versions of 3.13.
    own = _brought_in(_CONNECTS) - _brought_in("import dataclasses")
    assert own & set(_NOT_TO_CONNECT) == set()


def test_what_is_not_to_come_in_is_there_under_these_names() -> None:
    """A name that no module has would never be found among those that came in."""
    known = sys.stdlib_module_names
    assert {name.partition(".")[0] for name in _NOT_TO_IMPORT} - known == set()


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


# What they name is imported for checkers of types alone.
_ANNOTATED_FOR_CHECKERS = {"PeerCertificate", "PoolTimeout"}


def test_annotations_of_public_names_can_be_evaluated() -> None:
    """Libraries that build forms or command lines of a function do so."""
    failed = set()
    for name in hardsock.__all__:
        value = getattr(hardsock, name)
        if isinstance(value, type) or inspect.isfunction(value):
            try:
                typing.get_type_hints(value)
            except NameError:
                failed.add(name)
    assert failed == _ANNOTATED_FOR_CHECKERS
    commit = typing.get_type_hints(hardsock.connect)["commit"]
    assert typing.get_args(commit) == ("tcp", "tls")
