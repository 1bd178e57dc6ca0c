"""What `help()` says of each public name and of each public member of a class, counted: 0 are missing.

check_names.py asks for a docstring and for units. Here, of each function, method and attribute that a
user can call or read:
- it has a docstring, records and the types of C included;
- ``Attributes:``, which ends the docstring of a record or of a class of options, has a sentence for
  each field and for nothing else. From there help(), the fields of a NamedTuple and the site have it;
- a number with a fraction says of what: seconds, since when, a share;
- what it raises: each exception that its own body raises is named in it or in its class's docstring;
  one that can wait names some (or says whose it has: "as ``hardsock.connect``");
- the state after a failure, of one that can wait: what stays, what is lost, what may be called again;
- who may call it: a class that has methods says what threads, tasks or processes may do with it
  (unless it derives from another library's, which does), and what can wait says what ends it from
  outside (a token, a scope, close()). What the lab gives to tests says what it raises, and no more.

A word of a list is the measure, since no program can read: the lists are below.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass

import check_names
import common

from hardsock._typing import told_of_fields

WAITS = {"timeout", "token"}
# What a docstring has to say in some of these words.
STATE = re.compile(
    r"\b(after|afterwards|stays?|kept|keeps?|buffered|poison\w*|unusable|closed|closes|ended|lost|again|"
    r"undone|nothing|left|bytes_done|goes on|go on|unchanged|released|returned|counted|still)\b"
)
SAFETY = re.compile(
    r"\b(threads?|thread-safe|tasks?|loops?|process(es)?|immutable|one at a time|nothing of its own)\b",
    re.I,
)
AS_ANOTHER = re.compile(r"\bas (``)?[\w.]+\(\)")  # "Raises as recv() does."
SETS = re.compile(r"\.(set_?\w*|bind)$")  # for later calls: it does not wait itself
ENDED_BY = re.compile(r"\b([Cc]ancel\w*|tokens?|scopes?|Closed|TimeoutError|DeadlineExceeded)\b")
UNIT = re.compile(
    r"\b([Ss]econds?|time\.(time|monotonic)|CLOCK_\w+|share|per second|between 0 and 1|factor|"
    r"percent|timeout|settimeout|units?|scale)\b"
)
STUB = check_names.PACKAGE / "_core.pyi"
# Those that say of a caller's mistake, at once and with nothing done: told by the message.
MISTAKES = {"TypeError", "AttributeError", "NotImplementedError", "StopIteration", "KeyError"}
MISTAKES |= {"StopAsyncIteration", "AssertionError", "IndexError"}


@dataclass
class Entry:
    name: str
    doc: str
    context: str
    """The docstrings of its class."""
    value: object
    is_class: bool = False
    is_read: bool = False  # an attribute

    @property
    def said(self) -> str:
        return f"{self.doc}\n{self.context}"

    @property
    def refers(self) -> bool:
        return bool(check_names.REFERS.search(self.doc) or AS_ANOTHER.search(self.doc))


def numbers_of_core() -> set[str]:
    """Return the attributes of types of C that are of type float, as the stub has them."""
    found = set()
    for cls in ast.parse(STUB.read_text()).body:
        for one in cls.body if isinstance(cls, ast.ClassDef) else []:
            returns = getattr(one, "returns", None) if is_property(one) else None
            if returns is not None and re.search(r"\bfloat\b", ast.unparse(returns)):
                found.add(f"{cls.name}.{one.name}")  # type: ignore[union-attr,attr-defined]
    return found


def is_property(node: ast.stmt) -> bool:
    marks = getattr(node, "decorator_list", [])
    return any(isinstance(mark, ast.Name) and mark.id == "property" for mark in marks)


NUMBERS = numbers_of_core()


def is_number(entry: Entry) -> bool:
    """Whether it is an attribute with a fraction."""
    if inspect.isgetsetdescriptor(entry.value):
        return f"{entry.value.__objclass__.__name__}.{entry.value.__name__}" in NUMBERS
    returns = getattr(entry.value, "__annotations__", {}).get("return", "")
    return entry.is_read and re.search(r"\bfloat\b", str(returns)) is not None


def parameters(value: object) -> set[str]:
    try:
        return set(inspect.signature(value).parameters)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return set()


def is_record(cls: type) -> bool:
    return hasattr(cls, "_fields") or hasattr(cls, "__dataclass_fields__")


def fields(cls: type) -> list[str]:
    """Return the public fields of a record, those of its bases included; () of any other class."""
    found = getattr(cls, "_fields", getattr(cls, "__dataclass_fields__", ()))
    return [name for name in found if not name.startswith("_")]


def problems_of_fields(name: str, cls: type) -> Iterator[str]:
    told = told_of_fields(inspect.getdoc(cls) or "") if is_record(cls) else {}
    for field in fields(cls):
        if not told.get(field, "").endswith((".", "?", ")")):
            yield f"{name}.{field}: Attributes: of its class has no sentence for it"
        kind = str(inspect.get_annotations(cls).get(field, ""))
        said = f"{field}: {told.get(field, '')}\n{(cls.__doc__ or '').partition('Attributes:')[0]}"
        if re.search(r"\bfloat\b", kind) and not UNIT.search(said):
            yield f"{name}.{field}: is a number, and does not say of what: seconds, since when, a share"
    for extra in told.keys() - {*fields(cls)}:
        yield f"{name}: Attributes: tells of {extra!r}, which is no field of it"


def is_ours(cls: type) -> bool:
    return cls.__module__.split(".")[0] == "hardsock"


def is_anothers(cls: type) -> bool:
    """Whether it is a class of another library, with some calls done otherwise."""
    return any(not is_ours(b) and b.__module__ not in ("builtins", "typing") for b in cls.__mro__)


def members(name: str, cls: type) -> Iterator[Entry]:
    """Yield what a user calls or reads: as the first class of ours in its order has it."""
    ours = [base for base in cls.__mro__ if is_ours(base)]
    context = "\n".join(base.__doc__ or "" for base in ours)
    if is_anothers(cls):  # An adapter's errors are told once, for the module.
        context += sys.modules[cls.__module__].__doc__ or ""
    seen: set[str] = set()
    for base in ours:
        for key, value in vars(base).items():
            if key.startswith("_") or key in seen:
                continue
            seen.add(key)
            if isinstance(value, classmethod | staticmethod):
                value = value.__func__
            is_read = isinstance(value, property) or inspect.isgetsetdescriptor(value)
            if not (is_read or inspect.isroutine(value)):
                continue
            # A name that another library gave it says there what it does.
            doc = inspect.getdoc(getattr(cls, key)) or ""
            read = value.fget if isinstance(value, property) else value
            yield Entry(f"{name}.{key}", doc, context, read, is_read=is_read)


def public() -> Iterator[tuple[str, object]]:
    for one in check_names.names():
        if one.full in check_names.TOLD_HERE or one.module in check_names.ALIASES:
            continue
        value = getattr(importlib.import_module(one.module), one.name, None)
        if value is not None and is_ours_value(value):
            yield one.full, value


def records() -> dict[type, str]:
    """Return each public record and class of options, with the first of its names."""
    found: dict[type, str] = {}
    for name, value in public():
        if isinstance(value, type) and is_record(value):
            found.setdefault(value, name)
    return found


def entries() -> Iterator[Entry]:
    for name, value in public():
        if not isinstance(value, type):
            if inspect.isroutine(value):
                yield Entry(name, inspect.getdoc(value) or "", "", value)
            continue
        if issubclass(value, BaseException):
            continue
        found = list(members(name, value))
        acts = any(inspect.isroutine(e.value) for e in found)
        if acts and not is_record(value) and not is_anothers(value):
            context = "\n".join(b.__doc__ or "" for b in value.__mro__ if is_ours(b))
            yield Entry(name, context, "", value, is_class=True)
        yield from found


def is_ours_value(value: object) -> bool:
    return str(getattr(value, "__module__", "hardsock")).split(".")[0] == "hardsock"


def raised(value: object) -> set[str]:
    """Return the names of exceptions that the function's own body raises by name."""
    try:
        source = textwrap.dedent(inspect.getsource(inspect.unwrap(value)))  # type: ignore[arg-type]
        tree = ast.parse(source)
    except (OSError, TypeError, SyntaxError):
        return set()
    found = set()
    todo: list[ast.AST] = list(tree.body)
    while todo:
        node = todo.pop()
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            found.add(ast.unparse(node.exc.func).rpartition(".")[2])
        for child in ast.iter_child_nodes(node):
            if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                todo.append(child)
    known = getattr(inspect.unwrap(value), "__globals__", {})  # type: ignore[arg-type]
    names = {getattr(known.get(name), "__name__", name) for name in found if name[:1].isupper()}
    return names - MISTAKES


def problems_of(one: Entry) -> Iterator[str]:
    if len(one.doc) < 15:
        yield f"{one.name}: has no docstring"
        return
    if is_number(one) and not UNIT.search(one.doc):
        yield f"{one.name}: is a number, and does not say of what: seconds, since when, a share"
    if one.is_class:
        if not SAFETY.search(one.doc):
            yield f"{one.name}: does not say what threads, tasks or processes may do with it"
        return
    if one.refers:
        return
    for name in sorted(raised(one.value)):
        if not re.search(rf"\b{name}\b", one.said):
            yield f"{one.name}: raises {name}, and does not say so"
    if not parameters(one.value) & WAITS or SETS.search(one.name):
        return
    for_tests = one.name.startswith("hardsock.lab")  # Where a failure ends the test.
    if not (re.search(r"\bRaises\b", one.said) or check_names.is_error_told(one.said)):
        yield f"{one.name}: can wait, and does not say what is raised"
    if not for_tests and not STATE.search(one.said):
        yield f"{one.name}: can wait, and does not say what is true after a failure"
    if not for_tests and not ENDED_BY.search(one.said):
        yield f"{one.name}: can wait, and does not say what ends it from outside"


def main() -> int:
    found = list(entries())
    problems = [text for one in found for text in problems_of(one)]
    kinds = records()
    problems += [text for cls, name in kinds.items() for text in problems_of_fields(name, cls)]
    if "-v" in sys.argv[1:]:
        n_fields = sum(len(fields(cls)) for cls in kinds)
        print(f"check_docstrings: {len(found)} names, {n_fields} fields of {len(kinds)} records")
    return common.report(problems, "check_docstrings")


if __name__ == "__main__":
    sys.exit(main())
