"""From what kernels said (report.txt of boot.py) to tuning/kb/seen.yaml, which `explain` cites.

    python tests/kernels/seen.py KERNEL_FOLDER ... > tuning/kb/seen.yaml

A line a setting that the knowledge base knows, three times. seen: what each kernel starts with (512 MiB,
modules loaded), and those that let a child network namespace only read it or hide it (not of neigh:
its `default` is the first namespace's, its interfaces are each one's own). agreed: which facts of the
entry the kernels confirmed (agreement.py). differs: which not, and what they say.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path

import agreement
import observe

TUNING = Path(__file__).resolve().parent.parent.parent / "tuning"
ABSENT = "not there"
LONGEST = 100


def known() -> set[str]:
    """Return the keys of the knowledge base, as paths."""
    names = set()
    for file in (TUNING / "kb").glob("*.yaml"):
        if file.name in ("seen.yaml", "risks.yaml"):
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


def kernels_of(reports: list[observe.Report]) -> list[str]:
    """The releases, oldest first."""
    return sorted({report.kernel for report in reports}, key=agreement.number)


def generic(path: str) -> str:
    """The path with `*` for the name of an interface."""
    return re.sub(r"^(net/(?:ipv4|ipv6|mpls)/(?:conf|neigh))/[^/]+/", r"\1/*/", path)


def shown(reports: list[observe.Report], keys: set[str]) -> Iterator[tuple[str, str]]:
    """Yield key and text: what each kernel starts with, and who sees the key in a child namespace."""
    kernels = kernels_of(reports)
    seen: dict[str, dict[str, tuple[str, ...]]] = {}
    for one in reports:
        for row in observe.rows(one):
            seen.setdefault(row[0], {})[row[1]] = row
    for path, got in sorted(seen.items()):
        if "/conf/all/" in path or generic(path) not in keys:
            continue
        if any(len(row[2]) > LONGEST for row in got.values()):
            continue
        text = spans((version(k), (got[k][2] or "empty") if k in got else ABSENT) for k in kernels)
        children = [
            (version(k), got[k][4]) for k in kernels if k in got and path.startswith("net/")
        ]
        if any(child != "write" for _, child in children) and "/neigh/" not in path:
            words = {"write": "written", "read": "read", "absent": "hidden"}
            text += "; in a child namespace " + spans((k, words[c]) for k, c in children)
        yield generic(path).replace("/", "."), text


def agreed(answers: list[agreement.Answer], kernels: list[str]) -> Iterator[tuple[str, str]]:
    """Yield key and text: which questions the kernels answered as the entry does."""
    right: dict[str, dict[str, dict[str, bool]]] = {}
    for one in answers:
        by_kernel = right.setdefault(generic(one.key), {}).setdefault(one.question, {})
        by_kernel[one.kernel] = by_kernel.get(one.kernel, True) and not one.differs
    for path, questions in sorted(right.items()):
        together: dict[tuple[str, ...], list[str]] = {}
        for question in agreement.QUESTIONS:
            found = tuple(k for k in kernels if questions.get(question, {}).get(k))
            if found:
                together.setdefault(found, []).append(question)
        parts = []
        for found, words in together.items():
            first, last = version(found[0]), version(found[-1])
            parts.append(f"{', '.join(words)} on {first}" + (f" to {last}" * (last != first)))
        if parts:
            yield path.replace("/", "."), "; ".join(parts)


def differing(answers: list[agreement.Answer]) -> Iterator[tuple[str, str]]:
    """Yield key and text: what the kernels answered otherwise."""
    found: dict[str, list[str]] = {}
    for one in answers:
        if one.differs:
            text = f"{version(one.kernel)}: {one.question}: {one.differs}"
            found.setdefault(generic(one.key), []).append(text)
    for path, texts in sorted(found.items()):
        yield path.replace("/", "."), "; ".join(texts)


def main(folders: list[Path], tune: Path = agreement.TUNE) -> None:
    """Print the YAML."""
    reports = [observe.read(folder) for folder in folders]
    answers = agreement.compare(tune, folders)
    keys = known()
    print(
        "# Written by tests/kernels/seen.py from a run of `make check-kernels`; not by hand.\nseen:"
    )
    parts = [
        ("", shown(reports, keys)),
        ("agreed", agreed(answers, kernels_of(reports))),
        ("differs", differing(answers)),
    ]
    for name, rows in parts:
        lines = [
            f"  {json.dumps(key)}: {json.dumps(text)}"
            for key, text in rows
            if key.replace(".", "/") in keys
        ]
        if name and lines:
            print(f"{name}:")
        print(*lines, sep="\n")


if __name__ == "__main__":
    main([Path(name) for name in sys.argv[1:]])
