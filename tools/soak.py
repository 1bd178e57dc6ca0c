"""A long run under everything at once, and what grows in it.

`make soak MINUTES=60`: clients (pools, a connection for each request, an event loop) and two servers
at the two ends of a wire that gets better and worse; calls of the clients and of one server fail on
demand; the other server is killed and started again. Every answer is compared with what was asked.

Memory as the kernel counts it grows for a long time in a process that leaks nothing: each of malloc's
arenas keeps the most that it ever needed at once. So the clients work in shifts. After each shift all
is closed, and what is still in use by malloc and by Python's objects is counted: that must not grow.
The garbage collector is off in clients and server: what a reference cycle keeps is counted, too.
The slopes have bounds that hold 95 % of the time. Writes build/soak/result.json and pictures.

Exit status: 0; 1 for a violation or growth; 3 where this machine has no wire.
"""

from __future__ import annotations

import argparse
import array
import asyncio
import ctypes
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
from hardsock.lab.experiments.experiment import Chart, Line, Side
from hardsock.lab.experiments.picture import draw

PORT, STEADY_PORT = 7070, 7071
FAULTS = (
    "recv.short=0.1,send.short=0.1,recv.reset=0.001,send.reset=0.001,connect.refused=0.01,"
    "recv.interrupted=0.01,send.again=0.01,socket.no_files=0.001,alloc.fail=0.0002,poll.no_memory=0.0001"
)
# What a call may take beyond its deadline on a machine that does other things.
SLACK = 10.0
TIMEOUT = 2.0
BLOCKS = 10
# What the server's calls do: its handlers end in every way that there is.
SERVER_FAULTS = (
    "recv.short=0.05,recv.reset=0.001,send.reset=0.001,send.short=0.05,alloc.fail=0.0002"
)
FIRST_THREADS = 2
"""Of a process in a namespace: the main one, and the one that watches over its deadline."""
SHIFTS = 30
"""At least: ten blocks of what remains when the first fifth is left away."""
LONGEST_SHIFT = 60.0
# Two-sided 95 % of Student's distribution with BLOCKS - 2 degrees of freedom.
STUDENT = 2.306


# ---- the far end


def echo(conn: hs.Connection) -> None:
    while data := conn.recv(65536, timeout=60):
        conn.sendall(data, timeout=60)


def serve() -> None:
    """Echo, until killed."""
    with hs.serve(echo, (Wire.B, PORT), drain_timeout=0):
        inside.ready()
        inside.wait_for_stop()


def serve_steadily(seconds: float, seed: int) -> dict[str, Any]:
    """Echo for the whole run; samples of this process, and what was found in reference cycles."""
    samples = Samples(seconds)
    gc.disable()
    with hs.faults(f"seed={seed},{SERVER_FAULTS}"):
        with hs.serve(echo, (Wire.B, STEADY_PORT), drain_timeout=0):
            inside.ready()
            pause = threading.Event()
            while not inside.should_stop():
                pause.wait(1.0)
                samples.take()
    return {"server": samples.rows(), "server_cycles": gc.collect()}


# ---- what is counted


class MallocInfo(ctypes.Structure):
    """struct mallinfo2 (mallinfo(3)), of all arenas together."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost".split()
    ]


COLUMNS = ("seconds", "memory_kib", "in_use_kib", "blocks", "descriptors", "threads")
"""Of a sample: memory is what the kernel counts; in use, what malloc has given out (Python's small
objects not among it); blocks are Python's."""


class Samples:
    """Samples of this process, in room that was taken beforehand: they are no growth."""

    def __init__(self, seconds: float) -> None:
        self._room = array.array("d", bytes(8 * len(COLUMNS) * (int(seconds * 1.5) + 600)))
        self._count = 0
        self._begin = time.monotonic()
        self._mallinfo = getattr(ctypes.CDLL(None), "mallinfo2", None)
        if self._mallinfo is not None:
            self._mallinfo.restype = MallocInfo

    def take(self) -> None:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        info = self._mallinfo() if self._mallinfo is not None else MallocInfo()
        row = (
            time.monotonic() - self._begin,
            pages * os.sysconf("SC_PAGESIZE") / 1024,
            (info.uordblks + info.hblkhd) / 1024,
            sys.getallocatedblocks(),
            len(os.listdir("/proc/self/fd")) - 1,
            len(os.listdir("/proc/self/task")),
        )
        at = self._count * len(COLUMNS)
        if at < len(self._room):
            self._room[at : at + len(COLUMNS)] = array.array("d", row)
            self._count += 1

    def rows(self) -> list[list[float]]:
        width = len(COLUMNS)
        return [self._room[i * width : (i + 1) * width].tolist() for i in range(self._count)]


# ---- the near end


class Load:
    """What the clients do, and how it went."""

    def __init__(self, seed: int) -> None:
        self.outcomes: Counter[str] = Counter()
        self.violations: list[str] = []
        self.over = threading.Event()
        self.seed = seed

    def note(self, what: str, how: str, took: float) -> None:
        self.outcomes[f"{what}: {how}"] += 1
        if took > TIMEOUT + SLACK:
            self.violations.append(f"{what}: took {took:.1f} s of {TIMEOUT} s")

    def compare(self, what: str, sent: bytes, got: bytes) -> None:
        if sent != got:
            self.violations.append(f"{what}: {len(got)} bytes came that were not sent")

    def run(self, what: str, step: Callable[[random.Random], None]) -> None:
        rng = random.Random(f"{self.seed} {what} {threading.get_ident()}")
        while not self.over.is_set():
            begin, how = time.monotonic(), "answered"
            try:
                step(rng)
            except (hs.HardsockError, MemoryError) as exc:
                how = type(exc).__name__  # Not itself: with this frame it would be a cycle.
            except BaseException as exc:
                self.violations.append(f"{what}: {type(exc).__name__}: {exc}")
            self.note(what, how, time.monotonic() - begin)
            if how != "answered":
                self.over.wait(0.005)

    async def run_async(self, rng: random.Random) -> None:
        while not self.over.is_set():
            begin, how = time.monotonic(), "answered"
            data = rng.randbytes(rng.randrange(1, 3000))
            try:
                with hs.timeout(TIMEOUT):
                    async with await aio.connect((Wire.B, PORT)) as conn:
                        for _ in range(5):
                            await conn.sendall(data)
                            self.compare("aio", data, await conn.recv_exactly(len(data)))
            except (hs.HardsockError, MemoryError) as exc:
                how = type(exc).__name__  # Not itself: with this frame it would be a cycle.
            except Exception as exc:
                self.violations.append(f"aio: {type(exc).__name__}: {exc}")
            self.note("aio", how, time.monotonic() - begin)
            if how != "answered":
                await asyncio.sleep(0.005)


def talk(conn: hs.Connection, load: Load, what: str, rng: random.Random) -> None:
    data = rng.randbytes(rng.randrange(1, 20000))
    conn.sendall(data)
    load.compare(what, data, conn.recv_exactly(len(data)))


def clients(seconds: float, seed: int) -> dict[str, Any]:
    """The load for so long; samples, outcomes, violations, and what of hardsock's is left alive."""
    length = min(LONGEST_SHIFT, seconds / SHIFTS)
    load = Load(seed)
    work, rest = Samples(seconds), Samples(seconds)
    gc.disable()
    faults = cycles = 0
    begin = time.monotonic()
    while time.monotonic() - begin < seconds:
        with hs.faults(f"seed={seed},{FAULTS}") as plan:
            shift(load, length, work)
            faults += plan.count
            spec = plan.spec
        del plan
        left = wait_for_rest()
        cycles += gc.collect()  # Empties the interpreter's free lists, too.
        rest.take()
        seed += 1
    return {
        "spec": spec,
        "faults": faults,
        "samples": work.rows(),
        "rests": rest.rows(),
        "cycles": cycles,
        "outcomes": dict(sorted(load.outcomes.items())),
        "violations": load.violations[:100],
        "left": left,
    }


def wait_for_rest() -> dict[str, int]:
    """Until what ends by itself (the pool worker's dial, a thread) has ended; what has not."""
    end = time.monotonic() + SLACK
    pause = threading.Event()
    while True:
        live = hs._core._live()
        left = {k: v for k, v in live.items() if k in ("conns", "pools", "lingering") and v}
        if threads := len(os.listdir("/proc/self/task")) - FIRST_THREADS:
            left["threads"] = threads
        if not left or time.monotonic() > end:
            return left
        pause.wait(0.01)


def shift(load: Load, seconds: float, samples: Samples) -> None:
    """All clients at work for so long; then all they had is closed."""
    load.over.clear()
    with (
        hs.Pool((Wire.B, PORT), max_size=4, reuse="answered") as pool,
        hs.Pool((Wire.B, STEADY_PORT), max_size=2, reuse="answered") as steady,
    ):
        threads = [
            *(client(load, "pool", lambda rng: pooled(pool, load, rng)) for _ in range(5)),
            *(client(load, "steady", lambda rng: pooled(steady, load, rng)) for _ in range(2)),
            *(client(load, "connect", lambda rng: fresh(load, rng)) for _ in range(2)),
            threading.Thread(target=lambda: asyncio.run(loop_of(load))),
        ]
        for thread in threads:
            thread.start()
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            load.over.wait(min(1.0, left))
            samples.take()
        load.over.set()
        for thread in threads:
            thread.join()


def client(load: Load, what: str, step: Callable[[random.Random], None]) -> threading.Thread:
    return threading.Thread(target=load.run, args=(what, step))


def pooled(pool: hs.Pool, load: Load, rng: random.Random) -> None:
    with hs.timeout(TIMEOUT), pool.connection() as conn:
        talk(conn, load, "pool", rng)


def fresh(load: Load, rng: random.Random) -> None:
    port = rng.choice((PORT, STEADY_PORT))
    with hs.timeout(TIMEOUT), hs.connect((Wire.B, port)) as conn:
        talk(conn, load, "connect", rng)


async def loop_of(load: Load) -> None:
    rngs = [random.Random(f"{load.seed} {i}") for i in range(8)]
    await asyncio.gather(*(load.run_async(rng) for rng in rngs))


# ---- what it means


LIMITS = {
    "samples": {"memory_kib": 1.0, "descriptors": 0.01, "threads": 0.01},
    "rests": {"in_use_kib": 0.05, "blocks": 1.0, "descriptors": 0.01, "threads": 0.01},
    "server": {
        "memory_kib": 1.0,
        "in_use_kib": 1.0,
        "blocks": 5.0,
        "descriptors": 0.05,
        "threads": 0.05,
    },
}
"""By how much each may grow in a second: at rest hardly, in a server at work a little."""
MINUTES_FOR_MEMORY = 20
"""In a shorter run malloc's arenas are still filling."""


def slope(points: list[tuple[float, float]]) -> tuple[float, float]:
    """By how much it grows a second, and what to add and to take away for 95 %.

    Neighbouring samples depend on one another, so means of ten blocks are what is fitted.
    """
    size = len(points) // BLOCKS
    if size == 0:
        return 0.0, math.inf
    points = points[-size * BLOCKS :]
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
    result["slopes"] = {}
    for series, limits in LIMITS.items():
        samples = result[series]
        settled = samples[len(samples) // 5 :]  # Caches and pools have filled by then.
        for name, allowed in limits.items():
            column = COLUMNS.index(name)
            rise, bound = slope([(one[0], one[column]) for one in settled])
            result["slopes"][f"{series}.{name}"] = {"per_second": rise, "within": bound}
            if name == "memory_kib" and result["minutes"] < MINUTES_FOR_MEMORY:
                continue
            if rise - bound > allowed:
                problems.append(f"{series}.{name}: grows by {rise:.4f} +- {bound:.4f} a second")
    for name in ("left", "cycles", "server_cycles"):
        if result[name]:
            problems.append(f"{name}: {result[name]}")
    return problems


def line_of(result: dict[str, Any], series: str, name: str, label: str, side: Side) -> Line:
    """Its points, and in its label by how much it grows, with the bounds that hold 95 % of the time."""
    column = COLUMNS.index(name)
    if found := result["slopes"].get(f"{series}.{name}"):
        label += f": {found['per_second']:+.4f} \u00b1 {found['within']:.4f} a second"
    return Line(label, side, [(one[0], one[column]) for one in result[series]])


def pictures(result: dict[str, Any], directory: Path) -> None:
    for name, unit in (("memory_kib", "KiB"), ("in_use_kib", "KiB"), ("descriptors", "")):
        words = {"memory_kib": "Memory", "in_use_kib": "Given out by malloc"}
        chart = Chart(
            kind="lines",
            title=f"{words.get(name, name.capitalize())} of the clients",
            x="seconds",
            y=unit,
            lines=[
                line_of(result, "samples", name, "at work", "plain"),
                line_of(result, "rests", name, "all closed", "hardsock"),
            ],
        )
        draw(chart, directory, f"soak-{name.partition('_kib')[0]}")


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
            with (
                wire.b.start(
                    "tools.soak:serve_steadily", seconds, seed, timeout=seconds + 900
                ) as server,
                wire.a.start("tools.soak:clients", seconds, seed, timeout=seconds + 600) as near,
            ):
                server.wait_ready()
                disturbed = disturb(wire, seconds, random.Random(seed))
                result = near.result()
                result |= server.stop()
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
