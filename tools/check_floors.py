"""Who may include whom in csrc/: see CONTRIBUTING.md, "The house".

A file includes only lower floors, and on its own floor without cycles. The binding includes the
headers of csrc/include and its own folder, nothing else of the core. Python.h is for the binding alone,
OpenSSL for csrc/stream/tls* alone.
"""

import posixpath
import sys

import common

FLOORS = ["base", "cancel", "stream", "connect", "listen", "pool", "watch", "binding"]
PUBLIC = ("csrc/include/hardsock.h", "csrc/include/hardsock_binding.h")
PYTHON_HEADERS = ("Python.h", "structmember.h", "datetime.h", "frameobject.h")


def floor_of(path: str) -> int | None:
    parts = path.split("/")
    if len(parts) >= 3 and parts[0] == "csrc" and parts[1] in FLOORS:
        return FLOORS.index(parts[1])
    return None


def resolve(path: str, name: str, known: set[str]) -> str:
    """Find an include as the compiler does: beside the file, then -Icsrc, then -Icsrc/include."""
    beside = posixpath.normpath(posixpath.join(posixpath.dirname(path), name))
    candidates = [beside, posixpath.normpath("csrc/" + name), "csrc/include/" + name]
    return next((c for c in candidates if c in known), beside)


def check_system(path: str, line: int, name: str) -> list[str]:
    if name.startswith("openssl/") and not path.startswith("csrc/stream/tls"):
        return [f"{path}:{line}: <{name}> is for csrc/stream/tls* alone"]
    if name in PYTHON_HEADERS and not path.startswith("csrc/binding/"):
        return [f"{path}:{line}: <{name}> is for csrc/binding/ alone"]
    return []


def check_own(path: str, line: int, target: str) -> list[str]:
    here, there = floor_of(path), floor_of(target)
    if path == PUBLIC[0] or (path == PUBLIC[1] and target != PUBLIC[0]):
        return [f"{path}:{line}: the public header includes nothing of the core ({target})"]
    if target in PUBLIC:
        return []
    if here is None:
        return [f"{path}:{line}: {path} stands on no known floor"]
    if there is None:
        return [f"{path}:{line}: {target} stands on no known floor, or does not exist"]
    if FLOORS[here] == "binding" and there != here:
        return [f"{path}:{line}: the binding includes csrc/include and itself only, not {target}"]
    if there > here:
        return [f"{path}:{line}: floor {FLOORS[here]} must not include {target}, a higher floor"]
    return []


def find_cycle(graph: dict[str, list[str]]) -> list[str]:
    """Return one cycle as a list of nodes, or an empty list."""
    done: set[str] = set()

    def visit(node: str, trail: list[str]) -> list[str]:
        if node in trail:
            return [*trail[trail.index(node) :], node]
        if node in done:
            return []
        for target in graph.get(node, []):
            if found := visit(target, [*trail, node]):
                return found
        done.add(node)
        return []

    for start in sorted(graph):
        if found := visit(start, []):
            return found
    return []


def check(sources: dict[str, str]) -> list[str]:
    """Check a whole tree, given as {path: text}."""
    problems: list[str] = []
    graph: dict[str, list[str]] = {}
    known = set(sources)
    for path, text in sorted(sources.items()):
        for line, is_system, name in common.includes(text):
            # Quotes do not make <Python.h> ours, nor brackets hardsock.h foreign.
            target = resolve(path, name, known)
            if is_system and target not in known.union(PUBLIC):
                problems += check_system(path, line, name)
            elif is_system and "csrc/include/" + name not in PUBLIC:
                problems += check_system(path, line, name)
            elif target not in known and check_system("", 0, name):
                problems += check_system(path, line, name)
            else:
                problems += check_own(path, line, target)
                graph.setdefault(path, []).append(target)
    if cycle := find_cycle(graph):
        problems.append("files include each other in a circle: " + " -> ".join(cycle))
    return problems


def main() -> int:
    sources = {
        path.relative_to(common.ROOT).as_posix(): path.read_text()
        for path in common.files(".c", ".h", under=("csrc",))
    }
    return common.report(check(sources), "check_floors")


if __name__ == "__main__":
    sys.exit(main())
