"""What booted kernels said (report.txt of boot.py) beside what the knowledge base says of them.

    python tests/kernels/agreement.py [--tune BINARY] [--table FILE] KERNEL_FOLDER ...

Six questions for each setting and kernel: existence, default, mode, scope, range and rule. A fact that
words alone tell (a default "by memory") is no question. Prints what differs; exit code 1 if anything
does. The table has a row for every question: key, kernel, question, answer (agrees, differs), what.

A difference is mended in tuning/kb, or told there for people to read, and then agrees: the `note` of
the key holds the value that the kernel showed, or names the version (Linux 6.12); `rules` or the note
say that some values are refused, or what one becomes.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import observe

TOP = Path(__file__).resolve().parent.parent.parent
TUNE = TOP / "build/tune/release/hardsock-tune"
UNLISTED = ("stable_secret", "tcp_fastopen_key")
"""Secrets, which the guest does not read."""
QUESTIONS = ("existence", "default", "mode", "scope", "range", "rule")
BATCH = 100
"""Keys for one run of hardsock-tune."""


class Answer(NamedTuple):
    """One question about one setting of one kernel."""

    key: str
    kernel: str
    question: str
    differs: str
    """Empty: it agrees."""


@dataclass
class Fact:
    """What the knowledge base says of a setting."""

    key: str
    default: str | None
    unit: str | None
    low: int | None
    high: int | None
    scope: str
    scope_until: tuple[str, str] | None
    """A version, and what it was in that and in older ones."""
    since: str | None
    absent: str | None
    removed: str | None
    module: str | None
    combined: str
    computed: bool
    """Whether its default is worked out from the machine's memory, or a number near it."""
    note: str
    rules: str
    read_only: bool
    optional: bool
    """Whether it takes a configuration of the kernel that most have not."""


def number(version: str) -> list[int]:
    """6.12.117+deb13-cloud-amd64 as [6, 12, 117]."""
    return [int(part) for part in re.findall(r"\d+", re.split(r"[-+]", version)[0])]


def older(one: str, other: str) -> bool:
    """Whether a kernel is of a series before another; 6.1.176 is not older than 6.1."""
    return number(one)[:2] < number(other)[:2]


def fact(row: dict[str, str | None]) -> Fact | None:
    """From an answer of `explain`; None for what is not known."""
    if not row.get("meaning"):
        return None
    low, high = None, None
    match = re.match(r"(-?\d+) to (-?\d+)", row.get("range") or "")
    if match is not None:
        low, high = int(match[1]), int(match[2])
    until = re.search(r" \((.+) in Linux (\S+) and before\)$", row["scope"] or "")
    added = re.match(r"added in Linux (\S+)|not in Linux (\S+), there in (\S+)", row["since"] or "")
    return Fact(
        key=str(row["key"]),
        default=row.get("default"),
        unit=row.get("unit"),
        low=low,
        high=high,
        scope=(row["scope"] or "none").split(" (")[0],
        scope_until=(until[2], until[1]) if until else None,
        since=(added[1] or added[3]) if added else None,
        absent=added[2] if added else None,
        removed=row.get("removed"),
        module=row.get("module"),
        combined=row.get("combined") or "",
        computed="${" in (row.get("computed") or ""),
        note=row.get("note") or "",
        rules=row.get("rules") or "",
        optional="only in kernels built for it" in str(row["meaning"]),
        read_only="annot be written" in f"{row['meaning']} {row.get('not applied') or ''}",
    )


def facts(tune: Path, paths: list[str]) -> dict[str, Fact]:
    """Ask the knowledge base, not the machine: its root is empty."""
    known = {}
    with tempfile.TemporaryDirectory() as root:
        (Path(root) / "proc/sys").mkdir(parents=True)
        for i in range(0, len(paths), BATCH):
            command = [tune, "explain", "--root", root, "-f", "json", *paths[i : i + BATCH]]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            for path, row in zip(
                paths[i : i + BATCH], json.loads(done.stdout)["answers"], strict=True
            ):
                one = fact(row)
                if one is not None:
                    known[path] = one
    return known


def computed(tune: Path, report: observe.Report, known: dict[str, Fact]) -> dict[str, str]:
    """What the knowledge base works out for a machine with this kernel and memory, by path."""
    paths = [path for path, one in known.items() if one.computed and report.memory]
    with tempfile.TemporaryDirectory() as root:
        (Path(root) / "proc/sys/kernel").mkdir(parents=True)
        (Path(root) / "proc/sys/kernel/osrelease").write_text(report.kernel + "\n")
        (Path(root) / "proc/meminfo").write_text(f"MemTotal: {report.memory} kB\n")
        command = [tune, "explain", "--root", root, "-f", "json", *paths]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    rows = json.loads(done.stdout)["answers"] if paths else []
    texts = [str(row["computed"]).partition(" on this machine: ")[0] for row in rows]
    return {p: text for p, text in zip(paths, texts, strict=True) if not text.startswith("about ")}


def default_of(text: str, path: str, kernel: str) -> str:
    """What the text of a default says of one kernel: "4096 (128 before Linux 5.4); conf.all 0"."""
    text, _, of_all = text.partition("; conf.all ")
    if of_all and "/conf/all/" in path:
        return of_all
    found = text.split(" (")[0]
    for value, before in re.findall(r"(?:\(|, )([^(),]+) before Linux ([0-9.]+)", text):
        if older(kernel, before):
            found = value
    return found


def is_worded(default: str) -> bool:
    """Whether a default is no value but says where it comes from: memory, the clock, modules."""
    if default == "empty":
        return False
    return not re.fullmatch(r"-?\d[\d ]*|[a-z0-9_-]+", default) or default.isalpha()


def existence(known: Fact, kernel: str, there: bool, modules: set[str]) -> str | None:
    """What differs, "" if nothing does, None if there is no question."""
    if known.scope == "none":
        return None
    removed = known.removed is not None and not older(kernel, known.removed)
    early = known.since is not None and older(kernel, known.since)
    if there:
        if (removed or early) and kernel_word(kernel) not in known.note:
            return f"there, but {'gone' if removed else 'not yet there'} by its entry"
        return ""
    if known.optional or (known.module is not None and known.module not in modules):
        return None
    if removed or early or kernel_word(kernel) in known.note:
        return ""
    return "not there"


def kernel_word(kernel: str) -> str:
    """As notes name it: Linux 6.12."""
    return "Linux " + ".".join(str(n) for n in number(kernel)[:2])


def default(known: Fact, path: str, kernel: str, seen: str, worked_out: str | None) -> str | None:
    """As existence()."""
    if worked_out is not None:
        return "" if seen == worked_out else f"{seen}, not {worked_out} by its memory"
    if known.default is None:
        return None
    said = default_of(known.default, path, kernel)
    if is_worded(said) and said != seen:
        return None
    shown = seen or "empty"
    if shown == said or shown in known.note:
        return ""
    # The end of a buffer's range follows the memory of the machine.
    by_memory = "memory" in f"{known.default} {known.note}"
    if " " in said and by_memory and said.split()[0] == shown.split()[0]:
        return ""
    return f"{shown}, not {said}"


def scope_of(known: Fact, kernel: str) -> str:
    """What the entry says of that kernel."""
    if known.scope_until is not None and not older(known.scope_until[0], kernel):
        return known.scope_until[1]
    return known.scope


def scope(known: Fact, kernel: str, child: str) -> str | None:
    """As existence(); child: write, read or absent in a child network namespace."""
    if known.scope == "none" or "IPC" in known.scope:
        return None
    said = scope_of(known, kernel)
    want = {"namespace": ("write",), "global": ("absent",)}.get(said, ("read",))
    if known.read_only:
        want = (*want, "read")
    if child in want:
        return ""
    words = {"write": "written", "read": "read", "absent": "absent"}
    return f"{words[child]} in a child namespace, but {said} by its entry"


def span(known: Fact, kernel: str, seen: observe.Seen) -> str | None:
    """As existence(): a number that the entry calls sensible, and the kernel does not take."""
    if known.low is None or known.high is None or not seen.probed:
        return None
    low, high = known.low, known.high
    wrong = [f"{n} refused" for n in seen.refused if low <= n <= high]
    for text in seen.clamped:
        put, kept = map(int, text.split(":"))
        if low <= put <= high and not is_rounded(known, put, kept):
            wrong.append(f"{put} became {kept}")
    told = f"{known.note} {known.rules}"
    if "refused" in told:
        wrong = [text for text in wrong if not text.endswith("refused")]
    if "becomes" in told:
        wrong = [text for text in wrong if " became " not in text]
    if not wrong or kernel_word(kernel) in known.note:
        return ""
    return f"{', '.join(wrong)}, but {low} to {high} by its entry"


def is_rounded(known: Fact, put: int, kept: int) -> bool:
    """Whether a time became the nearest that the kernel's clock knows: ticks of 4 ms, or of 10."""
    return known.unit in ("ms", "1/100 s") and abs(put - kept) < (10 if known.unit == "ms" else 2)


def combines(sentence: str, all_: int, own: int) -> int | None:
    """What a rule makes of conf.all and conf.INTERFACE; None where its sentence names no such rule."""
    rules = {
        "the larger": max(all_, own),
        "the smaller": min(all_, own),
        "on where conf.all or": int(bool(all_ or own)),
        "on only where": int(bool(all_ and own)),
        "conf.INTERFACE alone": own,
        "conf.all rules unless": all_ or own,
        "conf.all alone": all_,
    }
    return next((n for words, n in rules.items() if sentence.startswith(words)), None)


def rule(known: Fact, report: observe.Report, leaf: str) -> str | None:
    """As existence(): what an interface did, and what a write to conf.all wrote elsewhere."""
    wrong = []
    family, name = leaf.split("/")[1], leaf.rsplit("/", 1)[1]
    rows = [row for row in report.rules if row.path == leaf]
    for row in rows:
        n = combines(known.combined, row.all, row.own)
        if n is None or (n == 1) != row.on:
            wrong.append(f"conf.all {row.all} with {row.own} is {'on' if row.on else 'off'}")
    prefix = f"net/{family}/conf/"
    copied = any(
        written == f"{prefix}all/{name}" and changed == f"{prefix}lo/{name}"
        for written, changed in report.copies
    )
    if copied != ("a write to conf.all writes" in known.combined):
        # Only what a plain number can show was written.
        if copied or f"{prefix}all/{name}" in report.written:
            wrong.append(f"a write to conf.all {'reaches' if copied else 'leaves'} interfaces")
    elif not rows and f"{prefix}all/{name}" not in report.written:
        return None
    return "; ".join(wrong)


def judge(
    report: observe.Report,
    known: dict[str, Fact],
    expected: list[str],
    worked_out: dict[str, str],
) -> Iterator[Answer]:
    """Yield every answer about one kernel; expected: what it should have, by its entries."""
    kernel = report.kernel

    def say(path: str, question: str, differs: str | None) -> Iterator[Answer]:
        if differs is not None:
            yield Answer(path, kernel, question, differs)

    for path, seen in report.settings.items():
        if path not in known:
            if path.startswith("net/"):
                yield Answer(path, kernel, "existence", "there, but not known")
            continue
        one = known[path]
        yield from say(path, "existence", existence(one, kernel, True, report.modules))
        yield from say(
            path, "default", default(one, path, kernel, seen.default, worked_out.get(path))
        )
        yield from say(path, "mode", mode(one, seen))
        if path.startswith("net/") and "/neigh/" not in path:
            yield from say(path, "scope", scope(one, kernel, seen.child))
        yield from say(path, "range", span(one, kernel, seen))
        if "/conf/all/" in path and path.startswith("net/ipv"):
            yield from say(path, "rule", rule(one, report, path.replace("/all/", "/*/")))
    for path in expected:
        if path in report.settings or path not in known or not path.startswith("net/"):
            continue
        if path.rsplit("/", 1)[1] not in UNLISTED:
            differs = existence(known[path], kernel, False, report.modules)
            yield from say(path, "existence", differs)


def mode(known: Fact, seen: observe.Seen) -> str | None:
    """As existence(): a file that nobody may write must be told."""
    if known.scope == "none":
        return None
    if known.read_only == (not seen.writable) or "read-only where" in known.note:
        return ""
    return (
        "writable, but not by its entry" if seen.writable else "read-only, which its entry misses"
    )


def known_paths(tune: Path) -> list[str]:
    """Every key of the knowledge base, with `all` and `default` for the name of an interface."""
    command = [tune, "list", "--keys", "-f", "tsv"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    paths = []
    for line in done.stdout.splitlines():
        path = line.split("\t")[0].replace(".", "/")
        if "*" not in path:
            paths.append(path)
        elif "/conf/" in path and path.startswith("net/ipv"):
            paths += [path.replace("*", name) for name in ("all", "default")]
        else:
            name = "default" if "/neigh/" in path else "2" if "/nf_log/" in path else "lo"
            paths.append(path.replace("*", name))
    return paths


def compare(tune: Path, folders: list[Path]) -> list[Answer]:
    """Judge the reports beside these kernels."""
    reports = [observe.read(folder) for folder in folders]
    expected = known_paths(tune)
    known = facts(tune, sorted({*expected, *(p for report in reports for p in report.settings)}))
    return [
        answer
        for report in reports
        for answer in judge(report, known, expected, computed(tune, report, known))
    ]


def main() -> int:
    """Print what differs, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tune", type=Path, default=TUNE)
    parser.add_argument("--table", type=Path)
    parser.add_argument("kernels", nargs="+", type=Path)
    asked = parser.parse_args()
    answers = compare(asked.tune, asked.kernels)
    if asked.table is not None:
        write_table(answers, asked.table)
    return report(answers)


def write_table(answers: list[Answer], file: Path) -> None:
    """A row an answer."""
    rows = (
        (a.key, a.kernel, a.question, "differs" if a.differs else "agrees", a.differs)
        for a in answers
    )
    file.write_text("".join("\t".join(row) + "\n" for row in rows))


def report(answers: list[Answer]) -> int:
    """Print differences and a summary; 1 if there are any."""
    for answer in answers:
        if answer.differs:
            print(f"{answer.kernel}: {answer.key}: {answer.question}: {answer.differs}")
    for kernel in sorted({a.kernel for a in answers}, key=number):
        parts = []
        for question in QUESTIONS:
            asked = [a for a in answers if (a.kernel, a.question) == (kernel, question)]
            wrong = sum(bool(a.differs) for a in asked)
            parts.append(
                f"{question} {len(asked) - wrong}" + (f" (differs {wrong})" if wrong else "")
            )
        print(f"{kernel} agrees: {', '.join(parts)}")
    return 1 if any(a.differs for a in answers) else 0


if __name__ == "__main__":
    sys.exit(main())
