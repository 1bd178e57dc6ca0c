"""What users may rely on, as a table, and how it differs from the last release's.

    interfaces.py diff      compare with the last tag's table (without a tag: with packaging/interfaces.txt);
                            1 if something was taken away that the changelog does not name
    interfaces.py record    write packaging/interfaces.txt: in the commit of a release, and at no other time
    interfaces.py check     1 if this is a release and packaging/interfaces.txt is not what it has; between
                            releases (HS_VERSION with .dev) the table is the last one's, and nothing is owed

The table has a line for each public name of Python (with its parameters, or for a class its bases and
members), of every module that docs/api.md lists, and the lines of tools/abi.txt for C. Lines that are
new may come with any release, and so may a parameter that every call of before can leave out. A line
that has gone or changed otherwise is one that somebody's program uses: docs/stability.md says what that
asks for, and the name must stand under Removed, Changed or Deprecated of the coming section of
CHANGELOG.md or in its fragments. Adapters are imported, so their libraries have to be installed:
`./bootstrap venv test`.
"""

from __future__ import annotations

import importlib
import inspect
import re
import subprocess
import sys
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path

HERE = Path(__file__).resolve().parent
TABLE = HERE / "interfaces.txt"
ROOT = HERE.parent
ABI = ROOT / "tools/abi.txt"
AT = re.compile(r" at 0x[0-9a-f]+")


class Long:
    """A default whose text would be no line: files of a server, say. Its type is what is compared."""

    def __init__(self, value: object) -> None:
        self._text = f"<{type(value).__name__}>"

    def __repr__(self) -> str:
        return self._text


def short(default: object) -> object:
    return default if len(repr(default)) <= 200 else Long(default)


def parameters(value: object) -> str:
    """Return the parameters without annotations: their names, kinds and defaults are what is relied on."""
    try:
        signature = inspect.signature(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return "(...)"
    bare = [
        p.replace(annotation=p.empty, default=short(p.default))
        for p in signature.parameters.values()
    ]
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


def is_made_here(cls: type) -> bool:
    """Whether what is called to make one is ours."""
    for base in cls.__mro__:
        if "__init__" in base.__dict__ or "__new__" in base.__dict__:
            return base.__module__.partition(".")[0] in ("hardsock", "builtins")
    return True


def public_bases(cls: type) -> Iterator[type]:
    """Return what it is to its users: of a base that is ours alone, that one's bases."""
    for base in cls.__bases__:
        if base.__name__.startswith("_") and base.__module__.startswith("hardsock"):
            yield from public_bases(base)
        elif base is not object:
            yield base


def describe(name: str, value: object) -> Iterator[str]:
    if inspect.ismodule(value):
        return
    if not isinstance(value, type):
        yield f"{name}{parameters(value) if inspect.isroutine(value) else ''}"
        return
    bases = ", ".join(dict.fromkeys(base.__name__ for base in public_bases(value)))
    yield f"{name} is {bases or 'a class'}"
    if not issubclass(value, BaseException):
        # A parameter of a library's own class is the library's to change.
        yield f"{name}{parameters(value) if is_made_here(value) else '(...)'}"
    yield from members(name, value)


def modules() -> list[str]:
    """The public modules, as docs/api.md has them; not those whose names are another module's."""
    if str(ROOT / "tools") not in sys.path:
        sys.path.append(str(ROOT / "tools"))
    import check_names

    return [name for name in check_names.modules() if name not in check_names.ALIASES]


def python() -> list[str]:
    lines: set[str] = set()
    for module_name in modules():
        try:
            module = importlib.import_module(module_name)
        except ImportError as exc:
            raise SystemExit(f"interfaces: {module_name}: {exc}: ./bootstrap venv test") from exc
        for key in getattr(module, "__all__", ()):
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
        if (char == "," and depth == 0 and not quote) or depth < 0:
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


def full_name(line: str) -> str:
    """``hardsock.Pool.acquire`` of Python's lines; of C's the identifier that is declared."""
    language, _, rest = line.partition(" ")
    if language == "python":
        return split(rest)[0].split(" ")[0]
    called, named = (re.search(rf"\b[hH][sS]_\w+{end}", rest) for end in (r"(?=\()", ""))
    found = called or named
    return found[0] if found else rest


def untold(gone: list[str], after: list[str], told: str) -> list[str]:
    """Return the names of *gone* that *told* does not name. Of a class that went, only the class is asked for."""
    left = {full_name(line) for line in after}
    asked = set()
    for name in map(full_name, gone):
        parts = name.split(".")
        owners = [".".join(parts[:n]) for n in range(2, len(parts))]
        was = {full_name(line) for line in gone}
        asked.add(next((one for one in owners if one in was and one not in left), name))
    return sorted(
        name for name in asked if not re.search(rf"\b{re.escape(name.split('.')[-1])}\b", told)
    )


def version_of(root: Path) -> str:
    header = (root / "csrc/include/hardsock.h").read_text()
    return str(re.findall(r'^#define HS_VERSION "([^"]*)"', header, re.MULTILINE)[0])


def told_of(root: Path) -> str:
    """What users are told of changes: the section of the version that is to come, and the fragments."""
    version = version_of(root)
    text = (root / "CHANGELOG.md").read_text()
    heads = (f"\n## {version} ", "\n## Unreleased\n")
    section = "\n".join(text.partition(head)[2].partition("\n## ")[0] for head in heads)
    kinds = ("Removed", "Changed", "Deprecated")
    parts = [
        part for part in re.split(r"^### ", section, flags=re.MULTILINE) if part.startswith(kinds)
    ]
    for kind in kinds:
        parts += [p.read_text() for p in sorted(root.glob(f"changelog.d/*.{kind.lower()}.md"))]
    return "\n".join(parts)


def last_table() -> tuple[str, list[str]]:
    """Return the table of the last release before this commit, and which one that is."""
    for base in (
        "HEAD^",
        "HEAD",
    ):  # The commit of a release has its own tag. A shallow clone has no HEAD^.
        command = ["git", "describe", "--tags", "--abbrev=0", "--match", "v[0-9]*", base]
        found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        if found.returncode == 0:
            tag = found.stdout.strip()
            path = f"{tag}:packaging/interfaces.txt"
            shown = subprocess.run(
                ["git", "show", path], cwd=ROOT, capture_output=True, text=True, check=True
            )
            return tag, shown.stdout.splitlines()
    return "packaging/interfaces.txt: there is no tag", TABLE.read_text().splitlines()


def check() -> int:
    before, after = set(TABLE.read_text().splitlines()), set(now())
    if before == after:
        print("interfaces: recorded")
        return 0
    version = version_of(ROOT)
    print(
        f"interfaces: {TABLE.name} lacks {len(after - before)} lines of this tree, and has "
        f"{len(before - after)} that are not of it"
    )
    if ".dev" in version:
        print(
            f"interfaces: this is {version}: nothing is owed before the commit of the release, "
            "which runs interfaces.py record"
        )
        return 0
    print(f"interfaces: this is {version}, a release: run interfaces.py record, and commit it")
    return 1


def main(argv: list[str]) -> int:
    if argv == ["record"]:
        TABLE.write_text("\n".join(now()) + "\n")
        return 0
    if argv == ["check"]:
        return check()
    if argv != ["diff"]:
        print(__doc__)
        return 2
    tag, before = last_table()
    after = now()
    gone, come, grown = differences(before, after)
    for line in come:
        print(f"+ {line}")
    for old, new in grown:
        added = [one for one in split(new)[1] if one not in split(old)[1]]
        print(f"+ {split(new)[0]}: {', '.join(added)}")
    for line in gone:
        print(f"- {line}")
    print(
        f"interfaces: {len(come)} new, {len(grown)} with more parameters, {len(gone)} gone or "
        f"changed since the last release ({tag})"
    )
    silent = untold(gone, after, told_of(ROOT))
    for name in silent:
        print(f"interfaces: {name} has gone or changed, and the changelog does not say so")
    return 1 if silent else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
