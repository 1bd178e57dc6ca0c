"""Writes the reference: each public name once, on the page of its module, from its docstring.

Nothing is listed by hand, so nothing can be missing. The pages are made for the site and not kept.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import typing
from collections.abc import Iterator
from pathlib import Path

# Page -> module and what it is for. Each module says in __all__ what is public.
MODULES = {
    "hardsock": "Sockets, deadlines, pools, servers: for threads",
    "hardsock.aio": "The same for asyncio, uvloop and trio",
    "hardsock.deadline": "Deadlines over the wire",
    "hardsock.files": "Files as connections",
    "hardsock.tuning": "Kernel settings from Python",
    "hardsock.lab": "Peers that stall, drip and vanish: for tests",
    "hardsock.aio.loop": "An event loop for asyncio, over hardsock",
    "hardsock.aio.streams": "asyncio's streams over a connection",
    "hardsock.aio.trio_stream": "trio's streams over a connection",
    "hardsock.aio.anyio_stream": "anyio's streams over a connection",
}
ADAPTERS = "hardsock.adapters"
GROUPS = ("Functions", "Classes", "Records", "Errors and warnings", "Other")


def names(module: object) -> list[str]:
    listed = getattr(module, "__all__", None)
    found = listed if listed is not None else [n for n in vars(module) if not n.startswith("_")]
    return [n for n in found if not n.startswith("__")]


def group(value: object) -> str:
    if isinstance(value, type):
        if issubclass(value, BaseException):
            return "Errors and warnings"
        record = hasattr(value, "_fields") or hasattr(value, "__dataclass_fields__")
        return "Records" if record else "Classes"
    if inspect.isroutine(value):
        return "Functions"
    return "Other"


def directive(module: str, name: str, value: object) -> list[str]:
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
    if module.endswith(("httpx2", "httpcore2")):
        lines += ["   :no-index:"]  # The same objects as those of httpx and httpcore.
    return lines


def page(name: str, purpose: str) -> Iterator[str]:
    module = importlib.import_module(name)
    yield f"# {name}\n\n{purpose}.\n"
    grouped: dict[str, list[str]] = {g: [] for g in GROUPS}
    for entry in names(module):
        value = getattr(module, entry)
        if inspect.ismodule(value):
            continue
        grouped[group(value)].append(entry)
    for title, entries in grouped.items():
        if not entries:
            continue
        yield f"## {title}\n"
        for entry in sorted(entries, key=str.lower):
            yield f"### {entry}\n\n```{{eval-rst}}"
            yield "\n".join(directive(name, entry, getattr(module, entry)))
            yield "```\n"


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
    for name, purpose in (MODULES | adapters()).items():
        text = "\n".join(page(name, purpose))
        path = folder / f"{name}.md"
        if not path.exists() or path.read_text() != text:
            path.write_text(text)


__all__: typing.Final = ["MODULES", "adapters", "names", "write"]
