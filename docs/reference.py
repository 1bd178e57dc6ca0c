"""Writes the reference: each public name once, on the page of its module, from its docstring.

And hardsock.h (c_reference.py), and the manual pages of the commands, by mandoc. Which names are
public is what tools/check_names.py says, which writes api.md from them: there is one list, and
nothing is in it by hand. The pages are made for the site and not kept.
"""

from __future__ import annotations

import importlib
import inspect
import re
import shutil
import subprocess
import sys
import textwrap
import typing
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))

import c_reference  # noqa: E402
import check_names  # noqa: E402

from hardsock._typing import told_of_fields  # noqa: E402

MANUALS = ("share/man/man1/hardsock.1", "tuning/man/hardsock-tune.8")
GROUPS = ("Functions", "Classes", "Records", "Errors and warnings", "Other")


@cache
def listed() -> list[check_names.Name]:
    return check_names.names()


@cache
def promised() -> set[str]:
    return check_names.listed_as_stable()


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
    }.get(group(value), "py:data")
    lines = [f".. {kind}:: {module}.{name}"]
    if kind == "autoclass":
        lines += ["   :members:", "   :undoc-members:"]
        told = told_of_fields(inspect.getdoc(value) or "")
        lines += [f"   :exclude-members: {', '.join(told)}"] if told else []  # napoleon has them
    if kind == "autoexception":
        lines += ["   :show-inheritance:"]
    if again:
        lines += ["   :no-index:"]  # Links to it lead to the page that had it first.
    if kind == "py:data":  # A value: the docstring that it shows is that of its class.
        lines += ["", *textwrap.indent(told_of_value(module, name), "   ").split("\n")]
    return lines


def entry_of(module: str, name: str) -> check_names.Name:
    (one,) = (o for o in listed() if (o.module, o.name) == (module, name))
    return one


def told_of_value(module: str, name: str) -> str:
    one = entry_of(module, name)
    return check_names.TOLD_HERE.get(one.full) or inspect.cleandoc(one.doc)


def mark(module: str, name: str) -> str:
    """Return what may be expected of a name: the class that docs/stability.md puts it in."""
    stable = check_names.is_stable(entry_of(module, name), promised())
    return f"[{'Stable' if stable else 'Provisional'}](../stability.md)"


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
            yield f"### {entry}\n\n{mark(name, entry)}\n\n```{{eval-rst}}"
            yield "\n".join(directive(name, entry, value, again=home in described))
            yield "```\n"
            described.add(home)


def modules() -> dict[str, str]:
    """Return each module that api.md has a section of, with what its docstring says first."""
    found = {}
    for name in check_names.modules():
        if name in check_names.ALIASES or names(name):
            said = inspect.getdoc(importlib.import_module(name)) or ""
            found[name] = " ".join(said.partition("\n\n")[0].split()).rstrip(".")
    return found


def manual(path: Path) -> str:
    """Return a manual page as one of the site: its headings ours, the rest mandoc's HTML."""
    if shutil.which("mandoc") is None:
        raise SystemExit("docs: mandoc is not installed; it reads the manual pages")
    command = ["mandoc", "-T", "html", "-O", "fragment", str(path)]
    html = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    out = [f"# {path.stem}({path.suffix[1:]})"]
    for section in html.split('<section class="Sh">\n')[1:]:
        heading, body = section.split("</h1>\n", 1)
        title = " ".join(re.sub(r"<[^>]+>", "", heading).split()).capitalize()
        body = body.rpartition("</section>")[0]
        body = re.sub(r"<(/?)h2\b", r"<\1h3", body)
        anchor = re.search(r'id="([^"]+)"', heading)  # for links within the page
        here = f'<span id="{anchor[1]}"></span>\n' if anchor else ""
        out.append(f"## {title}\n\n```{{raw}} html\n{here}{body}```")
    return "\n\n".join(out) + "\n"


def pages() -> Iterator[tuple[str, str]]:
    described: set[str] = set()
    for name, purpose in modules().items():
        yield name, "\n".join(page(name, purpose, described))
    header = (ROOT / "csrc/include/hardsock.h").read_text()
    yield "c", c_reference.page(header, check_names.STABILITY.read_text())
    for name in MANUALS:
        yield f"man-{Path(name).stem}", manual(ROOT / name)


def write(folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    for name, text in pages():
        path = folder / f"{name}.md"
        if not path.exists() or path.read_text() != text:
            path.write_text(text)


__all__: typing.Final = ["modules", "names", "write"]
