"""`python -m bench.adapters`: what the adapters cost, and how near their deadline they end.

Each work is a pair of clients, the plain library's and the adapter's, of one thread, which ask a real
server, in slices that alternate. "kept": one connection for all requests. "new": a connection
for each. Two ratios, ours to plain's, are the medians of the rounds' ratios: of the requests per second,
and of the CPU time of the thread per request, which says more on a machine with other work to do.
An asynchronous client runs on the event loop that is named; aiohttp, asyncpg and aiomysql, which have no
adapter, on asyncio's loop and on hardsock's. A database is asked for ``SELECT 1``.

Lateness is the time behind a deadline of 0.5 s at which a call has raised, the largest of a few tries.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import hardsock as hs
from hardsock.lab.unavailable import Unavailable

from .adapter_waits import lateness, waits
from .adapter_works import Side, Where, works

NOT_SLOWER = 0.97  # of plain's rate, and 1 / that of its CPU time: a round's noise


def compare(plain: Side, ours: Side, options: Any) -> str:
    """The ratios, ours to plain."""
    for side in (plain, ours):
        side(options.seconds / 10)
    rates, cpus, found = [], [], []
    for number in range(options.rounds):
        order = (plain, ours) if number % 2 else (ours, plain)
        done = {id(side): side(options.seconds) for side in order}
        mine, theirs = done[id(ours)], done[id(plain)]
        rates.append(mine.rate / theirs.rate)
        cpus.append(mine.cpu_per_call / theirs.cpu_per_call)
        found.append(mine)
    rate, cpu = statistics.median(rates), statistics.median(cpus)
    verdict = "" if rate >= NOT_SLOWER and cpu <= 1 / NOT_SLOWER else "  SLOWER"
    return (
        f"rate {rate:.2f} of plain's ({statistics.median(one.rate for one in found):,.0f}/s), "
        f"CPU {cpu:.2f} ({statistics.median(one.cpu_per_call for one in found) * 1e6:,.0f} us)"
        f"{verdict}"
    )


def run_works(options: Any) -> None:
    with ExitStack() as opened:
        directory = Path(opened.enter_context(tempfile.TemporaryDirectory()))
        where = Where(opened, directory)
        for name, make in works():
            if options.only in name:
                with ExitStack() as sides:
                    try:
                        said = compare(*make(sides, where), options)
                    except (ImportError, Unavailable) as exc:
                        said = f"not measured: {exc}"
                    print(f"{name:<26} {said}", flush=True)


def run_waits(options: Any) -> None:
    for name, make in waits():
        if options.only in name:
            with ExitStack() as opened:
                try:
                    said = lateness(make(opened), options.tries)
                except (ImportError, Unavailable) as exc:
                    said = f"not measured: {exc}"
                print(f"{name:<38} {said}", flush=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.adapters", description=__doc__)
    parser.add_argument("--only", default="", help="works and waits with this in their name")
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--seconds", type=float, default=0.3, help="of a slice of one side")
    parser.add_argument("--tries", type=int, default=3, help="for each wait; 0: none")
    parser.add_argument("--quick", action="store_true", help="whether all of it works; no figures")
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.seconds, options.tries = 1, 0.01, 1
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores, hardsock {hs.__version__}")
    run_works(options)
    if options.tries:
        run_waits(options)


if __name__ == "__main__":
    main()
