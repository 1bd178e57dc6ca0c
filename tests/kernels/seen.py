"""From the table of observe.py to tuning/kb/seen.yaml: what `explain` cites as seen.

    python tests/kernels/seen.py table.tsv > tuning/kb/seen.yaml

A line a setting that the knowledge base knows: what each kernel starts with (512 MiB, modules loaded),
kernels that agree taken together, and those that let a child network namespace only read it or hide it
(not of neigh: its `default` is the first namespace's, its interfaces are each one's own).
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from itertools import groupby
from pathlib import Path

TUNING = Path(__file__).resolve().parent.parent.parent / "tuning"
ABSENT = "not there"
LONGEST = 100


def known() -> set[str]:
    """Return the keys of the knowledge base, as paths."""
    names = set()
    for file in (TUNING / "kb").glob("*.yaml"):
        if file.name == "seen.yaml":
            continue
        for line in file.read_text().splitlines():
            name = line.strip().rstrip(":").strip('"')
            if line.startswith("  ") and line[2] != " " and "." in name:
                names.add(name.replace(".", "/"))
    return names


def version(release: str) -> str:
    """Take the number off a release: 6.12.117+deb13-cloud-amd64 is 6.12.117."""
    return release.split("-")[0].split("+")[0]


def spans(values: Iterable[tuple[str, str]]) -> str:
    """Join (kernel, text) pairs in order, neighbours with one text as a span."""
    parts = []
    for text, group in groupby(values, key=lambda pair: pair[1]):
        kernels = [kernel for kernel, _ in group]
        where = kernels[0] if len(kernels) == 1 else f"{kernels[0]} to {kernels[-1]}"
        parts.append(f"{text} ({where})")
    return ", ".join(parts)


def main(file: str) -> None:
    """Print the YAML."""
    rows = [line.split("\t") for line in Path(file).read_text().splitlines()[1:]]
    kernels = sorted(
        {row[1] for row in rows}, key=lambda k: [int(n) for n in version(k).split(".")]
    )
    seen: dict[str, dict[str, list[str]]] = {}
    for row in rows:
        seen.setdefault(row[0], {})[row[1]] = row
    keys = known()
    print(
        "# Written by tests/kernels/seen.py from a run of `make check-kernels`; not by hand.\nseen:"
    )
    for path in sorted(seen):
        generic = path.replace("/default/", "/*/") if path.startswith("net/ipv") else path
        if path not in keys and generic not in keys:
            continue
        got = seen[path]
        if any(len(row[2]) > LONGEST for row in got.values()):
            continue
        text = spans((version(k), (got[k][2] or "empty") if k in got else ABSENT) for k in kernels)
        children = [
            (version(k), got[k][4]) for k in kernels if k in got and path.startswith("net/")
        ]
        if any(child != "write" for _, child in children) and "/neigh/" not in path:
            words = {"write": "written", "read": "read", "absent": "hidden"}
            text += "; in a child namespace " + spans((k, words[c]) for k, c in children)
        print(f"  {json.dumps(generic.replace('/', '.'))}: {json.dumps(text)}")


if __name__ == "__main__":
    main(sys.argv[1])
