"""From what kernels said (report.txt of boot.py) to one table: a row a setting and kernel.

    python tests/kernels/observe.py KERNEL_FOLDER ... > table.tsv

Columns: key, kernel, default (as it starts, with 512 MiB and the modules loaded), module (yes: it was
not there before the modules), child (write, read or absent in a child network namespace), low and high
(the ends of what it took of the probed numbers; empty: not probed), clamped (values it replaced).
Settings of interfaces stand once, as `default`; those of `all` too where they start otherwise.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

COLUMNS = ("key", "kernel", "default", "module", "child", "low", "high", "clamped")
_INTERFACES = re.compile(r"^net/(ipv4|ipv6|mpls)/(conf|neigh)/([^/]+)/(.+)$")


@dataclass
class Seen:
    """One setting of one kernel."""

    default: str
    module: bool
    writable: bool
    child: str = "absent"
    taken: list[int] = field(default_factory=list)
    refused: list[int] = field(default_factory=list)
    clamped: list[str] = field(default_factory=list)

    @property
    def probed(self) -> bool:
        """Whether numbers were tried on it."""
        return bool(self.taken or self.refused or self.clamped)


class Ruled(NamedTuple):
    """What an interface did with a value in conf.all and one of its own."""

    path: str
    all: int
    own: int
    on: bool


@dataclass
class Report:
    """All that one kernel said."""

    kernel: str
    modules: set[str] = field(default_factory=set)
    """Those that were loaded, by name."""
    settings: dict[str, Seen] = field(default_factory=dict)
    statuses: dict[str, int] = field(default_factory=dict)
    differences: list[str] = field(default_factory=list)
    copies: set[tuple[str, str]] = field(default_factory=set)
    written: set[str] = field(default_factory=set)
    """The keys of conf.all and conf.default that were written to see what else changes."""
    rules: list[Ruled] = field(default_factory=list)
    outputs: dict[str, str] = field(default_factory=dict)
    memory: int = 0
    """KiB that it tells in MemTotal."""
    whole: bool = False


def _wanted(path: str) -> bool:
    match = _INTERFACES.match(path)
    return match is None or match[3] in (("lo",) if match[1] == "mpls" else ("default", "all"))


def read(folder: Path) -> Report:
    """Read the report beside a kernel."""
    report = Report(folder.name)
    modules = (folder / "modules").read_text().split()
    report.modules = {name.removesuffix(".ko").replace("-", "_") for name in modules}
    for line in (folder / "report.txt").read_text().splitlines():
        kind, *parts = line.split("|")
        if kind == "KEY" and len(parts) >= 4 and _wanted(parts[1]):
            _take_key(report, parts)
        elif kind == "RANGE" and parts[0] in report.settings:
            _take_probe(report.settings[parts[0]], int(parts[1]), parts[2])
        elif kind == "STATUS":
            report.statuses[parts[0]] = int(parts[1])
        elif kind == "DIFFERS":
            report.differences.append("|".join(parts))
        elif kind == "COPY":
            report.written.add(parts[0])
            if parts[0] != parts[1]:
                report.copies.add((parts[0], parts[1]))
        elif kind == "RULE":
            report.rules.append(Ruled(parts[0], int(parts[1]), int(parts[2]), parts[3] == "on"))
        elif kind == "OUTPUT":
            text = "|".join(parts[1:])
            report.outputs[parts[0]] = report.outputs.get(parts[0], "") + text + "\n"
        elif kind == "KERNEL":
            report.kernel, report.memory = parts[0], int(parts[1])
        report.whole = kind == "DONE"
    return report


def _take_key(report: Report, parts: list[str]) -> None:
    place, path, mode, value = parts[0], parts[1], parts[2], " ".join("|".join(parts[3:]).split())
    if place == "child":
        if path in report.settings:
            report.settings[path].child = "write" if int(mode, 8) & 0o200 else "read"
        return
    if path not in report.settings:
        writable = bool(int(mode, 8) & 0o222)
        report.settings[path] = Seen(value, module=place == "modules", writable=writable)


def _take_probe(seen: Seen, value: int, said: str) -> None:
    if said == "ok":
        seen.taken.append(value)
    elif said == "refused":
        seen.refused.append(value)
    else:
        seen.clamped.append(f"{value}:{said.removeprefix('became ')}")


def rows(report: Report) -> Iterator[tuple[str, ...]]:
    """Yield the table's rows of one kernel, by key."""
    for path in sorted(report.settings):
        seen = report.settings[path]
        match = _INTERFACES.match(path)
        if match is not None and match[3] == "all":
            twin = report.settings.get(path.replace("/all/", "/default/"))
            if twin is not None and twin.default == seen.default:
                continue
        low, high = (str(min(seen.taken)), str(max(seen.taken))) if seen.taken else ("", "")
        yield (
            path,
            report.kernel,
            seen.default,
            "yes" if seen.module else "",
            seen.child if path.startswith("net/") else "",
            low,
            high,
            " ".join(seen.clamped),
        )


if __name__ == "__main__":
    print("\t".join(COLUMNS))
    for name in sys.argv[1:]:
        for row in rows(read(Path(name))):
            print("\t".join(row))
