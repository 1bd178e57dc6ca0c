"""A long run under everything at once, and what grows in it.

`make soak MINUTES=60`: clients (a pool, a connection for each request, an event loop) and a server
at the two ends of a wire that gets better and worse; calls of the clients fail on demand; the server
is killed and started again. Every answer is compared with what was asked. Each second the clients'
memory, descriptors and threads are noted; their slopes, with bounds that hold 95 % of the time, say
whether something grows. Writes build/soak/result.json and two pictures.

Exit status: 0; 1 for a violation or growth; 3 where this machine has no wire.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import math
import os
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hardsock as hs
from hardsock import aio
from hardsock.lab import Unavailable, Wire, inside
from hardsock.lab.experiments.experiment import Chart, Line
from hardsock.lab.experiments.picture import draw

PORT = 7070
FAULTS = (
    "recv.short=0.1,send.short=0.1,recv.reset=0.001,send.reset=0.001,connect.refused=0.01,"
    "recv.interrupted=0.01,send.again=0.01,socket.no_files=0.001,alloc.fail=0.0002,poll.no_memory=0.0001"
)
# What a call may take beyond its deadline on a machine that does other things.
SLACK = 10.0
TIMEOUT = 2.0
BLOCKS = 10
# Two-sided 95 % of Student's distribution with BLOCKS - 2 degrees of freedom.
STUDENT = 2.306


# ---- the far end


def serve() -> None:
    """Echo, until killed."""

    def echo(conn: hs.Connection) -> None:
        while data := conn.recv(65536, timeout=60):
            conn.sendall(data, timeout=60)

    with hs.serve(echo, (Wire.B, PORT), drain_timeout=0):
        inside.ready()
        inside.wait_for_stop()


# ---- the near end


class Load:
    """What the clients do, and how it went."""

    def __init__(self, seed: int) -> None:
        self.outcomes: Counter[str] = Counter()
        self.violations: list[str] = []
        self.over = threading.Event()
        self.seed = seed

    def note(self, what: str, exc: BaseException | None, took: float) -> None:
        name = "answered" if exc is None else type(exc).__name__
        self.outcomes[f"{what}: {name}"] += 1
        if took > TIMEOUT + SLACK:
            self.violations.append(f"{what}: took {took:.1f} s of {TIMEOUT} s")

    def compare(self, what: str, sent: bytes, got: bytes) -> None:
        if sent != got:
            self.violations.append(f"{what}: {len(got)} bytes came that were not sent")

    def run(self, what: str, step: Callable[[random.Random], None]) -> None:
        rng = random.Random(f"{self.seed} {what} {threading.get_ident()}")
        while not self.over.is_set():
            begin, failure = time.monotonic(), None
            try:
                step(rng)
            except (hs.HardsockError, MemoryError) as exc:
                failure = exc
            except BaseException as exc:
                self.violations.append(f"{what}: {type(exc).__name__}: {exc}")
            self.note(what, failure, time.monotonic() - begin)
            if failure is not None:
                self.over.wait(0.005)

    async def run_async(self, rng: random.Random) -> None:
        while not self.over.is_set():
            begin, failure = time.monotonic(), None
            data = rng.randbytes(rng.randrange(1, 3000))
            try:
                with hs.timeout(TIMEOUT):
                    async with await aio.connect((Wire.B, PORT)) as conn:
                        for _ in range(5):
                            await conn.sendall(data)
                            self.compare("aio", data, await conn.recv_exactly(len(data)))
            except (hs.HardsockError, MemoryError) as exc:
                failure = exc
            except Exception as exc:
                self.violations.append(f"aio: {type(exc).__name__}: {exc}")
            self.note("aio", failure, time.monotonic() - begin)
            if failure is not None:
                await asyncio.sleep(0.005)


def talk(conn: hs.Connection, load: Load, what: str, rng: random.Random) -> None:
    data = rng.randbytes(rng.randrange(1, 20000))
    conn.sendall(data)
    load.compare(what, data, conn.recv_exactly(len(data)))


def sample(begin: float) -> list[float]:
    """Seconds, KiB of memory, descriptors, threads."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    fds = len(os.listdir("/proc/self/fd")) - 1
    threads = len(os.listdir("/proc/self/task"))
    return [time.monotonic() - begin, pages * os.sysconf("SC_PAGESIZE") / 1024, fds, threads]


def clients(seconds: float, seed: int) -> dict[str, Any]:
    """The load for so long; samples, outcomes, violations, and what of hardsock's is left alive."""
    result = run_load(seconds, seed)
    gc.collect()
    live = hs._core._live()
    return {**result, "left": {k: v for k, v in live.items() if k in ("conns", "pools") and v}}


def run_load(seconds: float, seed: int) -> dict[str, Any]:
    load = Load(seed)
    samples = []
    with hs.faults(f"seed={seed},{FAULTS}") as faults:
        with hs.Pool((Wire.B, PORT), max_size=4, reuse="answered") as pool:

            def pooled(rng: random.Random) -> None:
                with hs.timeout(TIMEOUT), pool.connection() as conn:
                    talk(conn, load, "pool", rng)

            def fresh(rng: random.Random) -> None:
                with hs.timeout(TIMEOUT), hs.connect((Wire.B, PORT)) as conn:
                    talk(conn, load, "connect", rng)

            async def loop() -> None:
                rngs = [random.Random(f"{seed} {i}") for i in range(8)]
                await asyncio.gather(*(load.run_async(rng) for rng in rngs))

            threads = [
                *(threading.Thread(target=load.run, args=("pool", pooled)) for _ in range(6)),
                *(threading.Thread(target=load.run, args=("connect", fresh)) for _ in range(2)),
                threading.Thread(target=lambda: asyncio.run(loop())),
            ]
            for thread in threads:
                thread.start()
            begin = time.monotonic()
            while time.monotonic() - begin < seconds:
                load.over.wait(1.0)
                samples.append(sample(begin))
            load.over.set()
            for thread in threads:
                thread.join()
        happened = Counter(one.partition("@")[0] for one in faults.log)
        count, spec = faults.count, faults.spec
    return {
        "samples": samples,
        "outcomes": dict(sorted(load.outcomes.items())),
        "violations": load.violations[:100],
        "faults": count,
        "spec": spec,
        "last_faults": dict(happened),
    }


# ---- what it means


def slope(points: list[tuple[float, float]]) -> tuple[float, float]:
    """By how much it grows a second, and what to add and to take away for 95 %.

    Neighbouring samples depend on one another, so means of ten blocks are what is fitted.
    """
    size = len(points) // BLOCKS
    if size == 0:
        return 0.0, math.inf
    blocks = [points[i * size : (i + 1) * size] for i in range(BLOCKS)]
    xs = [sum(x for x, _ in block) / size for block in blocks]
    ys = [sum(y for _, y in block) / size for block in blocks]
    mean_x, mean_y = sum(xs) / BLOCKS, sum(ys) / BLOCKS
    spread = sum((x - mean_x) ** 2 for x in xs)
    rise = sum((x - mean_x) * (y - mean_y) for x, y in zip(xs, ys, strict=True)) / spread
    rest = sum((y - mean_y - rise * (x - mean_x)) ** 2 for x, y in zip(xs, ys, strict=True))
    return rise, STUDENT * math.sqrt(rest / (BLOCKS - 2) / spread)


def judge(result: dict[str, Any]) -> list[str]:
    """What is wrong, in words; adds the slopes to *result*."""
    problems = list(result["violations"])
    samples = result["samples"]
    settled = samples[len(samples) // 5 :]  # Caches and pools have filled by then.
    result["slopes"] = {}
    for column, (name, allowed) in enumerate(
        [("memory_kib", 1.0), ("descriptors", 0.01), ("threads", 0.01)], start=1
    ):
        rise, bound = slope([(one[0], one[column]) for one in settled])
        result["slopes"][name] = {"per_second": rise, "within": bound}
        if rise - bound > allowed:
            problems.append(f"{name}: grows by {rise:.4f} +- {bound:.4f} a second")
    if result["left"]:
        problems.append(f"left behind: {result['left']}")
    return problems


def pictures(result: dict[str, Any], directory: Path) -> None:
    samples = result["samples"]
    for name, column, unit in (("memory", 1, "KiB"), ("descriptors", 2, "")):
        points = [(one[0], one[column]) for one in samples]
        chart = Chart(
            kind="lines",
            title=f"{name.capitalize()} of the clients",
            x="seconds",
            y=unit,
            lines=[Line(name, "hardsock", points)],
        )
        draw(chart, directory, f"soak-{name}")


# ---- the whole


def disturb(wire: Wire, seconds: float, rng: random.Random) -> dict[str, int]:
    """Change the wire and kill the server again and again."""
    done = Counter[str]()
    end = time.monotonic() + seconds
    changes: list[dict[str, Any]] = [
        {"loss": 0.02},
        {"loss": 0.0, "delay": 0.005, "jitter": 0.005},
        {"delay": 0.0, "jitter": 0.0},
        {"down": True},
        {"down": False},
        {"duplicate": 0.05},
        {"duplicate": 0.0},
    ]
    while time.monotonic() < end:
        with wire.b.start("tools.soak:serve", timeout=seconds + 600) as server:
            server.wait_ready()
            done["servers"] += 1
            life = min(end, time.monotonic() + rng.uniform(5, 20))
            while time.monotonic() < life:
                wire.set(**changes[done["changes"] % len(changes)])
                done["changes"] += 1
                time.sleep(rng.uniform(0.5, 2))
            wire.set(down=False)
            server.close()  # It is killed in the middle of what it does.
    return dict(done)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--out", type=Path, default=Path("build/soak"))
    arguments = parser.parse_args()
    seed = random.randrange(10**6) if arguments.seed is None else arguments.seed
    seconds = arguments.minutes * 60
    arguments.out.mkdir(parents=True, exist_ok=True)
    print(f"seed {seed}, {arguments.minutes:g} minutes", flush=True)
    try:
        with Wire(seed=seed) as wire:
            with wire.a.start("tools.soak:clients", seconds, seed, timeout=seconds + 600) as near:
                disturbed = disturb(wire, seconds, random.Random(seed))
                result = near.result()
            result |= {"seed": seed, "minutes": arguments.minutes, "disturbed": disturbed}
            result["wire"] = wire.conditions() | {"kernel_drops": wire.stats().kernel_drops}
    except Unavailable as exc:
        print(f"no soak here: {exc}", file=sys.stderr)
        return 3
    problems = result["problems"] = judge(result)
    (arguments.out / "result.json").write_text(json.dumps(result, indent=1) + "\n")
    try:
        pictures(result, arguments.out)
    except Unavailable as exc:
        print(exc, file=sys.stderr)
    for name, found in result["slopes"].items():
        print(f"{name}: {found['per_second']:+.4f} a second, +- {found['within']:.4f}")
    print(f"{result['faults']} faults, {disturbed}, outcomes {result['outcomes']}")
    for problem in problems:
        print(problem)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
