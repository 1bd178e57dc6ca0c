"""The public names of the package: each is on a page of docs/, and says what its numbers mean.

Public is what stands in `__all__` of a module that has no underscore in its path and is not in one
of the folders below, which hold what the package itself is made of. A new module is public until it
is put in there.

Each public name has
- a place in README.md or docs/*.md. docs/api.md lists all of them and is written by --write;
- a class: stable, if docs/stability.md lists it or what it is, else provisional; docs/api.md and the
  reference show it.
- a docstring. If it takes times, that says that they are seconds; if it takes a timeout, what is
  raised (the two may be said by what it refers to: "as ``hardsock.connect``").
"""

import ast
import importlib
import inspect
import itertools
import re
import sys
from dataclasses import dataclass
from pathlib import Path

import common

PACKAGE = common.ROOT / "python" / "hardsock"
PAGE = common.ROOT / "docs" / "api.md"
STABILITY = common.ROOT / "docs" / "stability.md"
OURS = (
    "cli",
    "connecting",
    "demo",
    "files",
    "guard.",
    "lab.inventory",
    "leaks",
    "listening",
    "metrics.",
    "otel.",
    "pool",
    "running",
    "serving",
    "tls",
    "top",
)
# Those that cannot have a docstring.
TOLD_HERE = {
    "hardsock.Address": "Where to connect or listen: `(host, port)`, the path of a unix socket, or text.",
    "hardsock.__version__": "The version of the package, as `importlib.metadata` has it.",
    "hardsock.guard.Action": "What a rule does: one of the classes below.",
    "hardsock.lab.experiments.EXPERIMENTS": "All experiments, in the order of `hardsock lab list`.",
    "hardsock.metrics": "Figures of this process; call it. `hardsock.metrics.Collector` exports them.",
    "hardsock.defaults": "What is said once for the process: `hs.defaults(timeout=30)`.",
    "hardsock.metrics.metrics": "Figures of this process; call it. Also `hardsock.metrics`.",
    "hardsock.adapters.psycopg.ConnectionPool": "`psycopg_pool.ConnectionPool` of these; its queue ends, too.",
}
# What a factory makes for each of several versions of a library.
for _library in ("httpx", "httpx2"):
    for _name in ("Client", "AsyncClient"):
        TOLD_HERE[f"hardsock.adapters.{_library}.{_name}"] = f"`{_library}.{_name}` over hardsock."
    for _name in ("Transport", "AsyncTransport"):
        TOLD_HERE[f"hardsock.adapters.{_library}.{_name}"] = (
            f"The transport of such a client, for `{_library}`'s own."
        )
for _library in ("httpcore", "httpcore2"):
    for _name in ("NetworkBackend", "AsyncNetworkBackend"):
        TOLD_HERE[f"hardsock.adapters.{_library}.{_name}"] = (
            f"What `network_backend=` of a pool of `{_library}` takes."
        )
# Quantities are objects, so they carry their text themselves.
_QUANTITY = re.compile(r'Quantity\("(\w+)", "([^"]*)", "([^"]+)"\)')
for _name, _unit, _text in _QUANTITY.findall((PACKAGE / "guard/quantities.py").read_text()):
    TOLD_HERE[f"hardsock.guard.{_name}"] = f"A quantity: {_text}{_unit and f' [{_unit}]'}."
ALIASES = {"hardsock.compat.socket": "The names of the standard library's `socket`."}
TIME = re.compile(r"\b(timeout|\w+_timeout|delay|\w+_delay|older_than|interval|seconds|grace)\b")
REFERS = re.compile(r"\b([Ss]ee|[Aa]s|[Ll]ike) (``?\w|hardsock\.|socket\.)")


@dataclass
class Name:
    module: str
    name: str
    doc: str
    text: str  # all that its source says of it, docstrings of attributes included
    parameters: list[str]
    is_record: bool  # a plain value: its parameters are its attributes
    is_function: bool

    @property
    def full(self) -> str:
        return f"{self.module}.{self.name}"


def path_of(module: str) -> str:
    parts = module.split(".")[1:]
    base = PACKAGE.joinpath(*parts)
    return str(base / "__init__.py" if base.is_dir() else base.with_suffix(".py"))


def tree_of(module: str) -> ast.Module:
    with open(path_of(module)) as f:
        return ast.parse(f.read())


def modules() -> list[str]:
    """Return the public modules, the package itself first."""
    found = []
    for path in common.files(".py", under=("python/hardsock",)):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        parts = parts[:-1] if parts[-1] == "__init__" else parts
        rest = ".".join(parts)
        if any(part.startswith("_") for part in parts):
            continue
        if rest and any(
            rest.startswith(one) if one.endswith(".") else (rest + ".").startswith(one + ".")
            for one in OURS
        ):
            continue
        found.append(".".join(("hardsock", *parts)))
    return sorted(found)


def exported(tree: ast.Module) -> list[str] | None:
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            try:
                return list(ast.literal_eval(node.value))
            except ValueError:
                return None
    return []


def statements(tree: ast.Module) -> list[ast.stmt]:
    """Return those of the module, and those in its conditions."""
    found: list[ast.stmt] = []
    for node in tree.body:
        found += [*node.body, *node.orelse] if isinstance(node, ast.If) else [node]
    return found


def parameters_of(node: ast.AST) -> list[str]:
    if isinstance(node, ast.ClassDef):
        for one in node.body:
            if isinstance(one, ast.FunctionDef) and one.name == "__init__":
                return parameters_of(one)
        return [
            one.target.id
            for one in node.body
            if isinstance(one, ast.AnnAssign)
            and isinstance(one.target, ast.Name)
            and ast.unparse(one.annotation) != "int"  # a count
        ]
    assert isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    return [a.arg for a in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]


def is_record(node: ast.AST) -> bool:
    if not isinstance(node, ast.ClassDef):
        return False
    marks = [ast.unparse(one) for one in (*node.bases, *node.decorator_list)]
    return any(mark == "NamedTuple" or mark.startswith("dataclass") for mark in marks)


def describe(module: str, name: str, origin: str | None = None) -> Name:
    """Find where a name is defined, and what is said there."""
    origin = origin or module
    if origin == "hardsock._core":
        return of_core(module, name)
    source = Path(path_of(origin)).read_text()
    for node in statements(ast.parse(source)):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            if node.name == name:
                text = ast.get_source_segment(source, node) or ""
                doc = ast.get_docstring(node) or ""
                kind = not isinstance(node, ast.ClassDef)
                return Name(module, name, doc, text, parameters_of(node), is_record(node), kind)
        elif isinstance(node, ast.ImportFrom) and str(node.module).startswith("hardsock"):
            for alias in node.names:
                if (alias.asname or alias.name) == name:
                    below = f"{node.module}.{alias.name}"
                    if node.module == "hardsock" and alias.name != "_core":
                        doc = ast.get_docstring(tree_of(below)) or ""
                        return Name(module, name, doc, doc, [], False, False)
                    found = describe(module, alias.name, str(node.module))
                    found.name = name
                    return found
        elif isinstance(node, ast.Assign | ast.AnnAssign) and name == ast.unparse(
            node.targets[0] if isinstance(node, ast.Assign) else node.target
        ):
            doc = doc_after(source, node)
            return Name(module, name, doc, doc, [], False, False)
    return Name(module, name, "", "", [], False, False)


def doc_after(source: str, node: ast.stmt) -> str:
    """Return the string that stands right behind an assignment."""
    body = ast.parse(source).body
    for one, behind in itertools.pairwise(body):
        if one.lineno == node.lineno and isinstance(behind, ast.Expr):
            value = behind.value
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
                return value.value
    return ""


def of_core(module: str, name: str) -> Name:
    thing = getattr(importlib.import_module("hardsock._core"), name)
    doc = inspect.getdoc(thing) or ""
    try:
        parameters = list(inspect.signature(thing).parameters)
    except (TypeError, ValueError):
        parameters = []
    return Name(module, name, doc, doc, parameters, False, not isinstance(thing, type))


def of_quantity(name: str) -> str:
    """Return what a quantity of hardsock.guard says of itself."""
    quantity = importlib.import_module("hardsock.guard.quantities").QUANTITIES.get(name)
    if quantity is None:
        return ""
    unit = f" ({quantity.unit})" if quantity.unit else ""
    return f"A quantity{unit}, {quantity.text}."


def names() -> list[Name]:
    found = []
    for module in modules():
        for name in exported(tree_of(module)) or []:
            one = describe(module, name)
            if module == "hardsock.guard" and not one.doc:
                one.doc = of_quantity(name)
            found.append(one)
    return found


def problems_of(one: Name, pages: str) -> list[str]:
    problems = []
    doc = TOLD_HERE.get(one.full, one.doc)
    if not re.search(rf"\b{re.escape(one.name)}\b", pages):
        problems.append(f"{one.full}: on no page of docs/: tools/check_names.py --write")
    if len(doc) < 20:
        problems.append(f"{one.full}: has no docstring that says what it is")
    if REFERS.search(doc) or one.full in TOLD_HERE:
        return problems
    times = [p for p in one.parameters if TIME.fullmatch(p)]
    if times and "econd" not in one.text:
        problems.append(f"{one.full}: does not say that {', '.join(times)} is in seconds")
    if one.is_function and "timeout" in one.parameters and not is_error_told(doc):
        problems.append(f"{one.full}: takes a timeout, and does not say what is raised")
    return problems


def is_error_told(doc: str) -> bool:
    return "Raises:" in doc or re.search(r"\b[A-Z]\w*(Error|Exceeded|Timeout)\b", doc) is not None


def first_sentence(doc: str) -> str:
    text = re.sub(r"\s+", " ", doc.split("\n\n")[0]).strip()
    match = re.match(r"(.+?[.:])(?: |$)", text)
    text = (match[1] if match else text).rstrip(":.") + "."
    return text.replace("``", "`").replace("|", "\\|").replace("*", "")


def listed_as_stable() -> set[str]:
    """Return the names of `hardsock` that docs/stability.md promises, exceptions aside."""
    text = STABILITY.read_text().partition("**Stable**")[2].partition("**Provisional**")[0]
    return set(re.findall(r"`(\w+)`", text)) - {"hardsock"}


def is_stable(one: Name, listed: set[str]) -> bool:
    if one.module == "hardsock":
        import hardsock

        value = getattr(hardsock, one.name)
        is_error = isinstance(value, type) and issubclass(value, BaseException)
        return is_error or one.name in listed or one.name == "__version__"
    return one.module == "hardsock.aio" and one.name in listed


def problems_of_classes(all_names: list[Name]) -> list[str]:
    """Return what docs/stability.md promises or examples of what it does not, and hardsock lacks."""
    text = STABILITY.read_text()
    listed = listed_as_stable()
    known = {one.name for one in all_names if one.module == "hardsock"}
    problems = [f"docs/stability.md: {name} is no name of hardsock" for name in listed - known]
    rest = text.partition("**Provisional**")[2].partition("**Internal**")[0]
    examples = set(re.findall(r"`(\w+)`", rest)) - {"hardsock"}
    problems += [f"docs/stability.md: {name} is in both classes" for name in examples & listed]
    problems += [f"docs/stability.md: {name} is no name of hardsock" for name in examples - known]
    return sorted(problems)


def page(all_names: list[Name]) -> str:
    """Return docs/api.md."""
    out = [
        "# All public names",
        "",
        "What is not on this page, and every module whose name begins with an underscore, is not for",
        "use from outside and may change at any time. `help(name)` says more: parameters with their",
        "units, what is raised, and what is unknown after it. (`tools/check_names.py --write` writes",
        "this page from the docstrings.) What does not say *stable* is provisional: what each means is",
        "written in [What is stable](stability.md).",
    ]
    listed = listed_as_stable()
    for module in modules():
        rows = [one for one in all_names if one.module == module]
        if module in ALIASES:
            rows = []
        elif not rows:
            continue
        out += ["", f"## `{module}`", ""]
        if module in ALIASES:
            out.append(ALIASES[module])
            continue
        out += ["| name | what it is |", "|---|---|"]
        for one in sorted(rows, key=lambda one: (one.name.lower(), one.name)):
            what = TOLD_HERE.get(one.full) or first_sentence(one.doc)
            mark = f"{what} *Stable.*" if is_stable(one, listed) else what
            out.append(f"| `{one.name}` | {mark} |")
    return "\n".join(out) + "\n"


def main() -> int:
    all_names = names()
    written = page(all_names)
    if "--write" in sys.argv[1:]:
        PAGE.write_text(written)
    docs = [common.ROOT / "README.md", *(common.ROOT / "docs").glob("*.md")]
    pages = "\n".join(path.read_text() for path in docs)
    problems = [text for one in all_names for text in problems_of(one, pages)]
    problems += problems_of_classes(all_names)
    if not PAGE.exists() or PAGE.read_text() != written:
        problems.append("docs/api.md is not what the docstrings say: tools/check_names.py --write")
    return common.report(problems, "check_names")


if __name__ == "__main__":
    sys.exit(main())
