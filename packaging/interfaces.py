"""What users may rely on, as a table, and how it differs from the last release's.

    interfaces.py diff      compare with packaging/interfaces.txt; 1 if something was taken away
    interfaces.py record    write it: after a release, and at no other time

The table has a line for each public name of Python (with its parameters, or for a class its bases and
members), as `import hardsock` here has them, and the lines of tools/abi.txt for C. Lines that are new
may come with any release, and so may a parameter that every call of before can leave out. A line that
has gone or changed otherwise is one that somebody's program uses: docs/stability.md says what that
asks for.
"""

from __future__ import annotations

import importlib
import inspect
import re
import sys
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path

HERE = Path(__file__).resolve().parent
TABLE = HERE / "interfaces.txt"
ABI = HERE.parent / "tools/abi.txt"
MODULES = ("hardsock", "hardsock.aio", "hardsock.deadline", "hardsock.tuning")
AT = re.compile(r" at 0x[0-9a-f]+")


def parameters(value: object) -> str:
    """Return the parameters without annotations: their names, kinds and defaults are what is relied on."""
    try:
        signature = inspect.signature(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return "(...)"
    bare = [p.replace(annotation=p.empty) for p in signature.parameters.values()]
    plain = signature.replace(parameters=bare, return_annotation=signature.empty)
    return AT.sub("", str(plain))


def members(name: str, cls: type) -> Iterator[str]:
    for key in sorted(dir(cls)):
        if key.startswith("_") or not any(
            key in base.__dict__ for base in cls.__mro__ if base.__module__.startswith("hardsock")
        ):
            continue
        value = inspect.getattr_static(cls, key)
        if isinstance(value, (staticmethod, classmethod)):
            value = value.__func__
        routine = inspect.isroutine(value)
        yield f"{name}.{key}{parameters(value) if routine else ''}"


def describe(name: str, value: object) -> Iterator[str]:
    if inspect.ismodule(value):
        return
    if not isinstance(value, type):
        yield f"{name}{parameters(value) if inspect.isroutine(value) else ''}"
        return
    bases = ", ".join(base.__name__ for base in value.__bases__ if base is not object)
    yield f"{name} is {bases or 'a class'}"
    if not issubclass(value, BaseException):
        yield f"{name}{parameters(value)}"
    yield from members(name, value)


def python() -> list[str]:
    lines: set[str] = set()
    for module_name in MODULES:
        module = importlib.import_module(module_name)
        for key in module.__all__:
            if not key.startswith("__"):
                lines.update(describe(f"{module_name}.{key}", getattr(module, key)))
    return sorted(lines)


def now() -> list[str]:
    c = [line for line in ABI.read_text().splitlines() if line and not line.startswith("#")]
    return [f"python {line}" for line in python()] + [f"c {line}" for line in c]


def split(line: str) -> tuple[str, list[str]]:
    """Return the name of a callable and its parameters as they are written, markers too."""
    name, _, rest = line.partition("(")
    parts, depth, quote, begin = [], 0, "", 0
    for at, char in enumerate(rest):
        if quote:
            quote = "" if char == quote else quote
        elif char in "'\"":
            quote = char
        elif char in "([{<":
            depth += 1
        elif char in ")]}>":
            depth -= 1
        if (char == "," and depth == 0) or depth < 0:
            parts.append(rest[begin:at].strip())
            begin = at + 1
        if depth < 0:
            break
    return name, [part for part in parts if part]


def has_grown(before: str, after: str) -> bool:
    """Whether each call that *before* allows means the same with *after*."""
    (name, old), (same, new) = split(before), split(after)
    if name != same or "(" not in before or "(" not in after:
        return False
    positional = list(takewhile(lambda one: not one.startswith("*"), old))
    if new[: len(positional)] != positional or not set(old) <= set(new):
        return False
    takes_any = any(one.startswith("*") and not one.startswith("**") and one != "*" for one in old)
    if takes_any and list(takewhile(lambda one: not one.startswith("*"), new)) != positional:
        return False  # What came into *args would come into the new one.
    return all(one == "*" or "=" in one for one in new if one not in old)


def differences(
    before: list[str], after: list[str]
) -> tuple[list[str], list[str], list[tuple[str, str]]]:
    """Return what has gone or changed, what has come, and what has grown, as it was and is."""
    gone = [line for line in before if line not in set(after)]
    come = [line for line in after if line not in set(before)]
    by_name = {split(line)[0]: line for line in come}
    grown = [
        (line, by_name[split(line)[0]])
        for line in gone
        if has_grown(line, by_name.get(split(line)[0], ""))
    ]
    was, become = {old for old, _ in grown}, {new for _, new in grown}
    return [x for x in gone if x not in was], [x for x in come if x not in become], grown


def main(argv: list[str]) -> int:
    if argv == ["record"]:
        TABLE.write_text("\n".join(now()) + "\n")
        return 0
    if argv != ["diff"]:
        print(__doc__)
        return 2
    gone, come, grown = differences(TABLE.read_text().splitlines(), now())
    for line in come:
        print(f"+ {line}")
    for old, new in grown:
        added = [one for one in split(new)[1] if one not in split(old)[1]]
        print(f"+ {split(new)[0]}: {', '.join(added)}")
    for line in gone:
        print(f"- {line}")
    print(
        f"interfaces: {len(come)} new, {len(grown)} with more parameters, {len(gone)} gone or "
        "changed since the last release"
    )
    return 1 if gone else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
