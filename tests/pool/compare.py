"""The same storms and known bugs on hardsock's pool and on seven others: `make compare`.

Prints one table: a row for each case, a column for each pool, every cell measured here and now, each
in a process of its own, against redis-server, PostgreSQL and a small web server. `-`: the pool has
no such feature. What is right is said in the case's text below. Pools that are not installed are
left out, and named (`pip install 'hardsock[compare]'`).

    python tests/pool/compare.py [--seconds 4] [--only CASE] [--pools hardsock,urllib3]
"""

from __future__ import annotations

import argparse
import concurrent.futures
import contextlib
import importlib.metadata
import json
import os
import platform
import signal
import ssl
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TOP = Path(__file__).resolve().parent.parent.parent
sys.path[:0] = [str(TOP / "python"), str(TOP / "tests")]

from hardsock.lab.servers import PeerMissing  # noqa: E402
from pool import bugs, storms  # noqa: E402
from pool.adapters import ADAPTERS, NotThere, Place  # noqa: E402
from pool.awaited import AWAITED  # noqa: E402
from support.compared import keep  # noqa: E402
from support.pki import make_authority  # noqa: E402
from support.servers import postgres, redis_server  # noqa: E402

LIMIT = 10.0  # seconds for a cell, besides a storm; who needs more hangs
AT_ONCE = 6  # cells that run at the same time: they mostly wait


STORMS = ("fairness", "interrupted", "cancelled")


@dataclass(frozen=True)
class Case:
    name: str
    title: str
    text: str  # what is done, and what is right
    long: bool = False


CASES = (
    Case(
        "fairness",
        "fair",
        "20 threads share 2 connections, held for 10 ms each: times that the least and the most "
        "served got one, and the longest wait. Right: the least has 0.8 of the most.",
        long=True,
    ),
    Case(
        "interrupted",
        "interrupt storm",
        "Ctrl-C again and again in a thread that borrows, asks and returns, 6 other threads beside "
        "it: how many connections can be had afterwards, of 4, and wrong answers meanwhile.",
        long=True,
    ),
    Case(
        "cancelled",
        "cancel storm",
        "20 tasks on 10 connections, 5 cancelled every millisecond: the same.",
        long=True,
    ),
    Case(
        "interrupted_waiter",
        "interrupted waiter",
        "Ctrl-C hits who waits for the only connection, which is returned then. Right: the next "
        "gets it.",
    ),
    Case(
        "dead_waiters",
        "dead waiters",
        "Two may wait; two have given up. Right: a third may wait.",
    ),
    Case(
        "double_release",
        "double return",
        "A connection is returned twice. Right: two borrowers do not share it.",
    ),
    Case(
        "return_while_dialing",
        "return during dial",
        f"How long a return takes while another's connect takes {bugs.SLOW_DIAL} s.",
    ),
    Case(
        "cut_while_idle",
        "closed while idle",
        "The server closed the idle connection 0.2 s ago. Right: the next borrower gets one that "
        "lives.",
    ),
    Case(
        "cut_at_once",
        "closed just now",
        "The server closed the connection right after its return, and the next borrower comes at "
        "once. Right: the same; 50 times.",
    ),
    Case(
        "never_read",
        "TLS 1.3, fresh",
        "A connection was made ready and nothing said on it; the server's session tickets are "
        "there. Right: it is used.",
    ),
    Case(
        "fork_and_close",
        "fork, child closes",
        "A forked child closes the pool (over TLS where the pool can). Right: the parent goes on.",
    ),
    Case(
        "fork_and_use",
        "fork, both use",
        "The child asks, then the parent, then both at the same time. Right: their own answers.",
        long=True,
    ),
    Case(
        "interrupted_reader",
        "interrupted reader",
        "Ctrl-C hits who waits for an answer, which comes 0.5 s later. Right: the next borrower "
        "gets its own answer.",
    ),
    Case(
        "unread_answer",
        "answer left unread",
        "A borrower asks, and returns without reading. Right: the next one gets its own answer.",
    ),
)


# ---- one cell, in a process of its own


def measure(case: str, name: str, seconds: float, where: dict[str, Any]) -> dict[str, Any]:
    adapter = ADAPTERS[name]
    plain = Place(tuple(where[adapter.server]))
    if case == "cancelled":
        if name not in AWAITED:
            raise NotThere
        cell = storms.cancelled(name, plain, seconds)
    elif case in ("fairness", "interrupted"):
        cell = getattr(storms, case)(adapter, plain, seconds)
    elif case in ("never_read", "fork_and_close", "fork_and_use"):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*where["certificate"])
        place = Place(plain.address, ca=where["ca"], options={"tls": context})
        cell = getattr(bugs, case)(adapter, place)
    else:
        cell = getattr(bugs, case)(adapter, plain)
    return {"text": cell.text, "good": cell.good}


def run_here(argv: list[str]) -> None:
    """The child's side: print the answer and end at once, whatever threads still wait."""
    case, name, seconds, where = argv
    try:
        answer = measure(case, name, float(seconds), json.loads(where))
    except NotThere:
        answer = {"text": "-", "good": None}
    print("\n" + json.dumps(answer), flush=True)
    os._exit(0)


def end_group(cell: subprocess.Popen[str]) -> None:
    """The cell and what it forked: a child may hang though its parent has ended."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(cell.pid, signal.SIGKILL)
    cell.wait()
    for stream in (cell.stdout, cell.stderr):
        if stream is not None:
            stream.close()


def run_apart(case: str, name: str, seconds: float, where: dict[str, Any]) -> dict[str, Any]:
    command = [sys.executable, __file__, "--cell", case, name, str(seconds), json.dumps(where)]
    limit = LIMIT + (seconds if case in STORMS else 0)
    cell = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        out, said = cell.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        return {"text": "HANGS", "good": False}
    finally:
        end_group(cell)
    lines = out.strip().splitlines()
    try:
        answer: dict[str, Any] = json.loads(lines[-1])
    except (IndexError, ValueError):
        print(f"{case} on {name} failed, status {cell.returncode}:\n{said}", file=sys.stderr)
        return {"text": "failed", "good": None}
    return answer


# ---- all of them


@contextlib.contextmanager
def servers() -> Iterator[dict[str, Any]]:
    """Where redis, PostgreSQL and the web server are, and the files for TLS."""
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        where: dict[str, Any] = {}
        for kind, server in (("redis", redis_server), ("postgres", postgres)):
            try:
                where[kind] = stack.enter_context(server()).address
            except PeerMissing as missing:
                print(f"left out: all that need {kind} ({missing})")
        authority = make_authority(Path(folder))
        where["ca"] = str(authority.certificate)
        where["certificate"] = [str(path) for path in authority.issue()[:2]]
        env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path[:2])}
        web = stack.enter_context(
            subprocess.Popen(
                [sys.executable, "-m", "pool.web"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=env,
            )
        )
        assert web.stdin is not None
        assert web.stdout is not None
        stack.callback(web.stdin.close)
        where["http"] = ["127.0.0.1", int(web.stdout.readline())]
        yield where


def versions(names: list[str], where: dict[str, Any]) -> dict[str, str]:
    """Of the pools that can be compared here; says which cannot."""
    found = {}
    for name in names:
        adapter = ADAPTERS[name]
        if adapter.server not in where:
            continue
        try:
            found[name] = adapter.version() or platform.python_version()
        except importlib.metadata.PackageNotFoundError as missing:
            print(f"left out: {name} (not installed: {missing.name})")
    return found


def marked(cell: dict[str, Any]) -> str:
    return ("! " if cell["good"] is False else "") + str(cell["text"])


def table(cases: list[Case], names: list[str], cells: dict[tuple[str, str], Any]) -> str:
    rows = [["", *names]]
    for case in cases:
        row = [case.title]
        for name in names:
            cell = cells[case.name, name]
            row.append(marked(cell) if cell["good"] is False else "  " + cell["text"])
        rows.append(row)
    right = ["right"]
    for name in names:
        good = [cells[case.name, name]["good"] for case in cases]
        right.append(f"  {good.count(True)} of {len(good) - good.count(None)}")
    rows.append(right)
    rows[0][1:] = ["  " + name for name in rows[0][1:]]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join(
        " ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=4.0, help="length of each storm")
    parser.add_argument("--only", action="append", choices=[case.name for case in CASES])
    parser.add_argument("--pools", default=",".join(ADAPTERS))
    options = parser.parse_args()
    cases = [case for case in CASES if not options.only or case.name in options.only]
    with servers() as where, concurrent.futures.ThreadPoolExecutor(AT_ONCE) as workers:
        known = versions(options.pools.split(","), where)
        longest_first = sorted(cases, key=lambda case: not case.long)
        waiting = {
            (case.name, name): workers.submit(run_apart, case.name, name, options.seconds, where)
            for case in longest_first
            for name in known
        }
        cells = {key: future.result() for key, future in waiting.items()}
    print(table(cases, list(known), cells))
    keep(
        "pool",
        "Pools",
        list(known),
        [(c.title, {name: marked(cells[c.name, name]) for name in known}) for c in cases],
        known,
    )
    print("\n" + ", ".join(f"{name} {version}" for name, version in known.items()))
    print("! marks what is wrong; - what the pool has no such feature for\n")
    for case in cases:
        print(textwrap.fill(f"{case.title}: {case.text}", 100, subsequent_indent="    "))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--cell"]:
        run_here(sys.argv[2:])
    else:
        main()
