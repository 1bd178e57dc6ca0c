"""Files of one folder that call each other in a circle: they can only be read together.

check_floors.py keeps folders apart. Within a folder a knot is a set of files each of which reaches
each other by calls or includes, as numbers below tell for each folder. A knot that grows, or a new
one, is a problem; one that shrinks asks for the number to be lowered, so that it cannot grow back.
`check_knots.py --show` lists them, and the calls that tie them.
"""

import re
import sys
from collections import defaultdict

import check_floors
import common

# The sizes of the knots of each folder, a file being a .c with its .h: largest first. Why there is
# one left: docs/adr/0056-no-circles-among-files.md.
KNOTS = {
    "cancel": [2],
}

DEFINITION = re.compile(r"^(\w+)\((?:[^()]|\([^()]*\))*\)\s*\{", re.M)
STATIC = re.compile(r"^static [^;{}]*?\n(\w+)\(", re.M)

Graph = dict[str, dict[str, set[str]]]


def stem(path: str) -> str:
    return path.rsplit("/", 1)[1].rsplit(".", 1)[0]


def graph_of(sources: dict[str, str]) -> Graph:
    """Return {file: {other file: the names that it uses of it}} for the files of one folder."""
    code = {path: common.code_only(text) for path, text in sources.items()}
    home = {
        name: stem(path)
        for path, text in code.items()
        if path.endswith(".c")
        for name in set(DEFINITION.findall(text)) - set(STATIC.findall(text))
    }
    graph: Graph = defaultdict(lambda: defaultdict(set))
    stems = {stem(path) for path in sources}
    for path, text in code.items():
        own = set(STATIC.findall(text))
        used = re.sub(r"\b(struct|enum) \w+", "", text)  # A type may have the name of a function.
        for name in set(re.findall(r"\b\w+\b", used)) if path.endswith(".c") else ():
            there = home.get(name)
            if there is not None and there != stem(path) and name not in own:
                graph[stem(path)][there].add(name)
        for _, _, name in common.includes(sources[path]):
            there = stem("/" + name)
            is_ours = "/" not in name or f"csrc/{name}" in sources
            if is_ours and there in stems and there != stem(path):
                graph[stem(path)][there].add(f"#include {name}")
    return graph


def knots(graph: Graph) -> list[list[str]]:
    """Return the strongly connected sets of two files and more, the largest first."""

    def reached(start: str) -> set[str]:
        seen: set[str] = set()
        todo = [start]
        while todo:
            for target in graph.get(todo.pop(), ()):
                if target not in seen:
                    seen.add(target)
                    todo.append(target)
        return seen

    reach = {node: reached(node) for node in list(graph)}
    found: list[list[str]] = []
    for node in sorted(reach):
        if node in reach[node] and not any(node in knot for knot in found):
            found.append(sorted(other for other in reach[node] if node in reach.get(other, set())))
    return sorted(found, key=len, reverse=True)


def folders() -> dict[str, Graph]:
    sources: dict[str, dict[str, str]] = defaultdict(dict)
    for path in common.files(".c", ".h", under=("csrc",)):
        name = path.relative_to(common.ROOT).as_posix()
        if check_floors.floor_of(name) is not None:
            sources[name.split("/")[1]][name] = path.read_text()
    return {folder: graph_of(files) for folder, files in sources.items()}


def check(found: dict[str, list[list[str]]], bounds: dict[str, list[int]]) -> list[str]:
    problems = []
    for folder in sorted({*found, *bounds}):
        sizes, bound = [len(knot) for knot in found.get(folder, [])], bounds.get(folder, [])
        if sizes > bound:
            listed = "; ".join(" ".join(knot) for knot in found[folder])
            problems.append(f"csrc/{folder}: files in circles {sizes}, were {bound}: {listed}")
        elif sizes < bound:
            problems.append(f"csrc/{folder}: files in circles {sizes}, were {bound}: lower KNOTS")
    return problems


def show(graphs: dict[str, Graph]) -> None:
    for folder, graph in sorted(graphs.items()):
        for knot in knots(graph):
            print(f"csrc/{folder}: {len(knot)} files")
            for here in knot:
                for there in sorted(set(graph[here]) & set(knot)):
                    uses = sorted(graph[here][there])
                    print(f"  {here:<14} -> {there:<14} {', '.join(uses)}")


def main(arguments: list[str]) -> int:
    graphs = folders()
    if arguments == ["--show"]:
        show(graphs)
        return 0
    found = {folder: knots(graph) for folder, graph in graphs.items()}
    return common.report(check(found, KNOTS), "check_knots")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
