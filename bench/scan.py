"""`python -m bench.scan`: what it costs to record a scan.

SYNs are written to ``lo`` of a namespace of the bench's own, at a steady rate, while `hs.SynWatch` runs
or does not, in turns. Rows:

- recorder: processor time of the recording program; at 5,000 SYNs/s at most 1 % of a core.
- kernel: what the filter and the copy into the ring cost where packets are delivered. On ``lo`` that
  is the sender, so it is the sender's time with the recorder less that without it; the median of
  the turns, with the quartiles: it is near to what can be told at all.

What was not sent in time is told: a rate that was not reached proves nothing.
"""

from __future__ import annotations

import argparse
import json
import resource
import socket
import statistics
import struct
import sys
import time
from contextlib import ExitStack
from typing import Any

import hardsock as hs
from hardsock.lab import Unavailable, run_in_namespace

GOAL_SHARE = 0.01
GOAL_RATE = 5000
_BURST = 10


def _frame(source: int) -> bytes:
    ip = struct.pack("!BBHHHBBHII", 0x45, 0, 40, 0, 0, 64, 6, 0, source, 0x7F000001)
    tcp = struct.pack("!HHIIBBHHH", 40000, 1 + source % 1000, 1, 0, 5 << 4, 2, 1024, 0, 0)
    return bytes(12) + b"\x08\x00" + ip + tcp


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _turn(rate: int, seconds: float, frames: list[bytes], recorded: bool) -> dict[str, Any]:
    """Send for *seconds*; what it took, and what the recorder knows of it."""
    count = int(rate * seconds)
    with ExitStack() as stack:
        sock = stack.enter_context(socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0))
        sock.bind(("lo", 0))
        watch = stack.enter_context(hs.SynWatch("lo")) if recorded else None
        before = _cpu()
        begin = time.monotonic()
        for n in range(count):
            if n % _BURST == 0:
                time.sleep(max(0.0, begin + n / rate - time.monotonic()))
            sock.send(frames[n % len(frames)])
        took, used = time.monotonic() - begin, _cpu() - before
        found = {"sent": count, "took": took, "sender": used}
        if watch is not None:
            report = watch.report()
            found["share"] = report.cpu / report.seconds
            found["saw"], found["attributed"] = report.saw, report.attributed
            found["drops"] = report.kernel_drops
        return found


def measure(rates: list[int], seconds: float, turns: int) -> list[dict[str, Any]]:
    """Inside of a namespace: one row for each rate and number of sources."""
    rows = []
    for rate in rates:
        for sources in (200, 20_000):
            frames = [_frame((10 << 24) + 1 + n * 7) for n in range(sources)]
            pairs = []
            for _ in range(turns):
                pairs.append([_turn(rate, seconds, frames, on) for on in (False, True)])
            extra = [(on["sender"] - off["sender"]) / on["took"] for off, on in pairs]
            on = [one for _, one in pairs]
            quartiles = statistics.quantiles(extra, n=4) if turns > 1 else [extra[0]] * 3
            rows.append(
                {
                    "rate": rate,
                    "sources": sources,
                    "sent": sum(one["sent"] for one in on),
                    "reached": sum(one["sent"] for one in on) / sum(one["took"] for one in on),
                    "recorder": statistics.median(one["share"] for one in on),
                    "recorder_max": max(one["share"] for one in on),
                    "kernel": quartiles,
                    "saw": sum(one["saw"] for one in on),
                    "attributed": sum(one["attributed"] for one in on),
                    "drops": sum(one["drops"] for one in on),
                }
            )
    return rows


def main() -> int:
    """Measure, print, judge; 1 if the goal is missed."""
    parser = argparse.ArgumentParser(prog="python -m bench.scan", description=__doc__)
    parser.add_argument("--seconds", type=float, default=4.0, help="of a turn (4)")
    parser.add_argument("--turns", type=int, default=5, help="with and without, each (5)")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    rates = [GOAL_RATE, 20_000]
    limit = 60 + 2 * len(rates) * 2 * arguments.turns * (arguments.seconds * 3 + 2)
    try:
        rows = run_in_namespace(
            measure, rates, arguments.seconds, arguments.turns, timeout=limit, mount=False
        )
    except Unavailable as exc:
        print(f"scan: cannot run here: {exc}")
        return 0
    if arguments.json:
        print(json.dumps(rows, indent=1))
    missed = False
    for row in rows if not arguments.json else []:
        low, middle, high = (100 * one for one in row["kernel"])
        print(
            f"{row['rate']:>6}/s (reached {row['reached']:.0f}) of {row['sources']:>6} sources: "
            f"recorder {100 * row['recorder']:.2f} % of a core (worst turn "
            f"{100 * row['recorder_max']:.2f}), kernel {middle:+.2f} % ({low:+.2f} to {high:+.2f}); "
            f"sent {row['sent']:,}, saw {row['saw']:,}, attributed {row['attributed']:,}, "
            f"dropped {row['drops']:,}"
        )
    for row in rows:
        missed |= row["rate"] == GOAL_RATE and row["recorder"] > GOAL_SHARE
    if missed:
        print(f"scan: over the goal of {100 * GOAL_SHARE:.0f} % of a core at {GOAL_RATE}/s")
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
