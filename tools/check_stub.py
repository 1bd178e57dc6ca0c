"""The stub of hardsock._core and the module itself say the same.

Compares the syntax tree of _core.pyi with the built module in both directions: names of functions,
classes, methods, properties and constants; parameters, their kinds and defaults. It needs no
package, so it runs where no type checker is installed.
"""

import ast
import importlib
import inspect
import sys
from types import ModuleType

import common

KINDS = inspect.Parameter
# What every class has, or what says nothing about its use.
IGNORED_DUNDERS = set(dir(object)) | {
    "__module__", "__doc__", "__dict__", "__weakref__", "__del__", "__slots__", "__match_args__",
    "__class_getitem__", "__annotations__", "__static_attributes__", "__firstlineno__",
    "__abstractmethods__", "__orig_bases__", "__type_params__", "__annotate__", "__text_signature__",
    "__annotations_cache__", "__annotate_func__",
}  # fmt: skip
ANY_DEFAULT = object()


def decorators(node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> set[str]:
    names = set()
    for d in node.decorator_list:
        d = d.func if isinstance(d, ast.Call) else d
        names.add(d.attr if isinstance(d, ast.Attribute) else getattr(d, "id", ""))
    return names


def literal(node: ast.expr | None) -> object:
    if node is None:
        return inspect.Parameter.empty
    try:
        value = ast.literal_eval(node)
    except ValueError:
        return ANY_DEFAULT
    return ANY_DEFAULT if value is ... else value


def stub_parameters(node: ast.FunctionDef | ast.AsyncFunctionDef, bound: bool) -> list[tuple]:
    """Return (name, kind, default) for each parameter, without self or cls."""
    a = node.args
    positional = [*a.posonlyargs, *a.args]
    defaults = [None] * (len(positional) - len(a.defaults)) + list(a.defaults)
    rows = []
    for i, (arg, default) in enumerate(zip(positional, defaults, strict=True)):
        only = i < len(a.posonlyargs)
        kind = KINDS.POSITIONAL_ONLY if only else KINDS.POSITIONAL_OR_KEYWORD
        rows.append((arg.arg, kind, literal(default)))
    if bound:
        rows = rows[1:]
    if a.vararg:
        rows.append((a.vararg.arg, KINDS.VAR_POSITIONAL, KINDS.empty))
    for arg, default in zip(a.kwonlyargs, a.kw_defaults, strict=True):
        rows.append((arg.arg, KINDS.KEYWORD_ONLY, literal(default)))
    if a.kwarg:
        rows.append((a.kwarg.arg, KINDS.VAR_KEYWORD, KINDS.empty))
    return rows


def real_parameters(thing: object, drop_self: bool) -> list[tuple] | None:
    try:
        signature = inspect.signature(thing)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None
    rows = [(p.name, p.kind, p.default) for p in signature.parameters.values()]
    return rows[1:] if drop_self else rows


def show(rows: list[tuple]) -> str:
    params = []
    for name, kind, default in rows:
        given = ... if default is ANY_DEFAULT else default
        # A signature cannot hold a default before a parameter without one; show it as it is.
        params.append(str(inspect.Parameter(name, kind, default=given)))
    return f"({', '.join(params)})"


def same(stub: list[tuple], real: list[tuple]) -> bool:
    if len(stub) != len(real):
        return False
    for (name, kind, default), (real_name, real_kind, real_default) in zip(stub, real, strict=True):
        if (name, kind) != (real_name, real_kind):
            return False
        if default is ANY_DEFAULT:
            if real_default is KINDS.empty:
                return False
        elif type(default) is not type(real_default) or default != real_default:
            return False
    return True


def compare_call(name: str, stub: list[tuple], real: list[tuple] | None) -> list[str]:
    if real is None:
        return [f"{name}: the module gives no signature for it"]
    if not same(stub, real):
        return [f"{name}: the stub says {show(stub)}, the module {show(real)}"]
    return []


def declared(body: list[ast.stmt]) -> dict[str, list[ast.stmt]]:
    """Return the names that a module or class body of a stub declares at run time."""
    names: dict[str, list[ast.stmt]] = {}
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.setdefault(node.name, []).append(node)
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            if "TypeAlias" not in ast.dump(node.annotation):
                names.setdefault(node.target.id, []).append(node)
        elif isinstance(node, ast.Assign):
            made = ast.unparse(node.value)
            if not made.startswith(("TypeVar", "ParamSpec", "NewType")):
                for target in node.targets:
                    if isinstance(target, ast.Name):
                        names.setdefault(target.id, []).append(node)
        elif isinstance(node, ast.If):
            # sys.version_info tests and the like: take what any branch declares.
            for name, found in declared([*node.body, *node.orelse]).items():
                names.setdefault(name, []).extend(found)
    return names


def compare_member(name: str, nodes: list[ast.stmt], cls: type, attribute: object) -> list[str]:
    node = nodes[0]
    if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return []
    marks = decorators(node)
    is_data = inspect.isdatadescriptor(attribute) or isinstance(attribute, property)
    if ("property" in marks) != is_data:
        real = "a property" if is_data else "a method"
        return [f"{name}: the module has {real}, the stub does not"]
    if "property" in marks or "overload" in marks:
        return []
    if node.name in ("__new__", "__init__"):
        return compare_call(name, stub_parameters(node, True), real_parameters(cls, False))
    if node.name.startswith("__"):
        return []  # Slots have fixed signatures; their names are what can be wrong.
    is_static = "staticmethod" in marks
    bound = "classmethod" in marks or is_static
    real = real_parameters(getattr(cls, node.name) if bound else attribute, not bound)
    return compare_call(name, stub_parameters(node, not is_static), real)


def compare_class(node: ast.ClassDef, cls: type) -> list[str]:
    problems = []
    stub = declared(node.body)
    real = {k: v for k, v in vars(cls).items() if k not in IGNORED_DUNDERS}
    inherited = {k for base in cls.__mro__[1:] for k in vars(base)}
    creators = {"__new__", "__init__"}
    for name in sorted(stub.keys() - real.keys() - inherited - creators):
        problems.append(f"{node.name}.{name}: in the stub, not in the module")
    for name in sorted(real.keys() - stub.keys()):
        if name.startswith("__") or not name.startswith("_"):
            problems.append(f"{node.name}.{name}: in the module, not in the stub")
    for name in sorted(stub):
        if name in real or name in creators:
            problems += compare_member(f"{node.name}.{name}", stub[name], cls, real.get(name))
    return problems


def compare(tree: ast.Module, module: ModuleType) -> list[str]:
    """Compare a stub's syntax tree with a module, in both directions."""
    problems = []
    stub = declared(tree.body)
    real = {
        k: v for k, v in vars(module).items() if not k.startswith("__") and not inspect.ismodule(v)
    }
    for name in sorted(real.keys() - stub.keys()):
        if not name.startswith("_"):
            problems.append(f"{name}: in the module, not in the stub")
    for name in sorted(stub.keys() - real.keys()):
        # A stub may have private types of its own (protocols, unions).
        if not name.startswith("_"):
            problems.append(f"{name}: in the stub, not in the module")
    for name in sorted(stub.keys() & real.keys()):
        node, thing = stub[name][0], real[name]
        if isinstance(node, ast.ClassDef):
            if isinstance(thing, type):
                problems += compare_class(node, thing)
            else:
                problems.append(f"{name}: a class in the stub, not in the module")
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            if "overload" in decorators(node):
                continue
            if not callable(thing):
                problems.append(f"{name}: a function in the stub, not in the module")
            else:
                rows = stub_parameters(node, False)
                problems += compare_call(name, rows, real_parameters(thing, False))
    return problems


def main() -> int:
    stub = common.ROOT / "python/hardsock/_core.pyi"
    if not stub.exists():
        print("check_stub: python/hardsock/_core.pyi does not exist", file=sys.stderr)
        return 1
    module = importlib.import_module("hardsock._core")
    return common.report(compare(ast.parse(stub.read_text()), module), "check_stub")


if __name__ == "__main__":
    sys.exit(main())
