"""Writes the reference: each public name once, on the page of its module, from its docstring.

Which names are public is what tools/check_names.py says, which writes api.md from them: there is one
list, and nothing is in it by hand. The pages are made for the site and not kept.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import sys
import typing
from collections.abc import Iterator
from functools import cache
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tools"))

import check_names

# Modules with a page, and what each is for; api.md has the others, whose libraries may be missing.
MODULES = {
    "hardsock": "Sockets, deadlines, pools, servers: for threads",
    "hardsock.aio": "The same for asyncio, uvloop and trio",
    "hardsock.deadline": "Deadlines over the wire",
    "hardsock.tuning": "Kernel settings from Python",
    "hardsock.lab": "Peers that stall, drip and vanish: for tests",
    "hardsock.aio.loop": "An event loop for asyncio, over hardsock",
    "hardsock.aio.streams": "asyncio's streams over a connection",
    "hardsock.aio.trio_stream": "trio's streams over a connection",
    "hardsock.aio.anyio_stream": "anyio's streams over a connection",
}
ADAPTERS = "hardsock.adapters"
GROUPS = ("Functions", "Classes", "Records", "Errors and warnings", "Other")


@cache
def listed() -> list[check_names.Name]:
    return check_names.names()


def names(module: str) -> list[str]:
    return [o.name for o in listed() if o.module == module and not o.name.startswith("__")]


def group(value: object) -> str:
    if isinstance(value, type):
        if issubclass(value, BaseException):
            return "Errors and warnings"
        record = hasattr(value, "_fields") or hasattr(value, "__dataclass_fields__")
        return "Records" if record else "Classes"
    if inspect.isroutine(value):
        return "Functions"
    return "Other"


def directive(module: str, name: str, value: object, *, again: bool) -> list[str]:
    kind = {
        "Functions": "autofunction",
        "Classes": "autoclass",
        "Records": "autoclass",
        "Errors and warnings": "autoexception",
    }.get(group(value), "autodata")
    lines = [f".. {kind}:: {module}.{name}"]
    if kind == "autoclass":
        lines += ["   :members:", "   :undoc-members:"]
    if kind == "autoexception":
        lines += ["   :show-inheritance:"]
    if kind == "autodata":
        lines += ["   :no-value:"]
    if again:
        lines += ["   :no-index:"]  # Links to it lead to the page that had it first.
    return lines


def page(name: str, purpose: str, described: set[str]) -> Iterator[str]:
    """Yield the page; *described* holds what earlier pages have, and is given what this one adds."""
    module = importlib.import_module(name)
    yield f"# {name}\n\n{purpose}.\n"
    grouped: dict[str, list[str]] = {g: [] for g in GROUPS}
    for entry in names(name):
        value = getattr(module, entry)
        if inspect.ismodule(value):
            continue
        grouped[group(value)].append(entry)
    for title, entries in grouped.items():
        if not entries:
            continue
        yield f"## {title}\n"
        for entry in sorted(entries, key=str.lower):
            value = getattr(module, entry)
            # By name: httpx2's module is that of httpx, executed for the other library.
            home = f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', entry)}"
            yield f"### {entry}\n\n```{{eval-rst}}"
            yield "\n".join(directive(name, entry, value, again=home in described))
            yield "```\n"
            described.add(home)


def adapters() -> dict[str, str]:
    """Return each adapter with what its docstring says first."""
    package = importlib.import_module(ADAPTERS)
    found = {}
    for info in pkgutil.iter_modules(package.__path__, f"{ADAPTERS}."):
        if not info.name.rpartition(".")[2].startswith("_"):
            said = inspect.getdoc(importlib.import_module(info.name)) or ""
            found[info.name] = said.partition("\n")[0].rstrip(".")
    return found


def write(folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    described: set[str] = set()
    for name, purpose in (MODULES | adapters()).items():
        text = "\n".join(page(name, purpose, described))
        path = folder / f"{name}.md"
        if not path.exists() or path.read_text() != text:
            path.write_text(text)


__all__: typing.Final = ["MODULES", "adapters", "names", "write"]
