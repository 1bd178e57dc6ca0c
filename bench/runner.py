"""Runs a work: one peer, one worker process per implementation, slices round-robin.

Machines are noisy, so nothing is compared across time: in every round each implementation measures
one short slice, in an order shuffled anew, and ratios are taken within the round. What is reported
is the median of those ratios with its quartiles.

One process can be half as fast again as its twin: where its pages lie, what its allocator does. So
each worker is started several times in a run, and the quartiles have the spread between processes in
them. The first round of each life warms up and is thrown away.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import select
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from . import build, certificates
from .model import Measure, Placement, Target, Work
from .stats import quantile

HOST = "127.0.0.1"
ANSWER_WITHIN = 60.0  # seconds beyond the slice
SEED = 20240229


class WorkerFailed(Exception):
    """The worker reported an error, ended or did not answer."""


class WorkerSkipped(Exception):
    """The implementation is not there or cannot do this work."""


@contextlib.contextmanager
def on_cpus(cpus: set[int]) -> Iterator[None]:
    """Processes started inside inherit these CPUs."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cpus)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def cpus_for(placement: Placement) -> tuple[set[int], set[int]]:
    """CPUs of the peer and of the workers."""
    allowed = sorted(os.sched_getaffinity(0))
    if placement is Placement.FREE:
        return set(allowed), set(allowed)
    peer, worker = allowed[0], allowed[-1]
    return ({worker}, {worker}) if placement is Placement.SHARED else ({peer}, {worker})


def read_line(process: subprocess.Popen[bytes], seconds: float) -> bytes:
    """One line from the process's (unbuffered) stdout, or b"" when it ended or took too long."""
    assert process.stdout is not None
    line = b""
    while not line.endswith(b"\n"):
        readable, _, _ = select.select([process.stdout], [], [], seconds)
        chunk = os.read(process.stdout.fileno(), 1 << 20) if readable else b""
        if not chunk:
            return b""
        line += chunk
    return line


def environment(work: Work) -> dict[str, str]:
    """Of the peer and the workers."""
    made = {"BENCH_TLS": str(certificates.folder())} if work.tls else {}
    return {**os.environ, **made}


def start(command: list[str], work: Work, cpus: set[int]) -> subprocess.Popen[bytes]:
    with on_cpus(cpus):
        return subprocess.Popen(
            command,
            cwd=build.ROOT,
            env=environment(work),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
        )


def stop(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin is not None
    assert process.stdout is not None
    with contextlib.suppress(BrokenPipeError):
        process.stdin.close()
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    process.stdout.close()


@contextlib.contextmanager
def peer(work: Work, cpus: set[int]) -> Iterator[Target]:
    program, mode = work.peer_program, work.peer_mode
    process = start([str(build.c_program("peers", program)), mode], work, cpus)
    try:
        port = read_line(process, ANSWER_WITHIN)
        if not port:
            raise build.BuildError(f"the peer `{program} {mode}` did not start")
        yield Target(HOST, int(port))
    finally:
        stop(process)


def command_for(work: Work, name: str, target: Target) -> list[str]:
    """How to start the worker of one implementation."""
    where = [target.host, str(target.port)]
    function = work.function or work.name
    if name in work.c_programs:
        program, variant = work.c_programs[name]
        return [str(build.c_program("floors", program)), variant, *where]
    if name == "go":
        try:
            return [str(build.go_program()), function, *where]
        except build.BuildError as error:
            raise WorkerSkipped(str(error)) from error
    return [sys.executable, "-m", "bench.worker", name, function, *where]


class Worker:
    """One implementation's process."""

    def __init__(self, work: Work, name: str, target: Target, cpus: set[int]) -> None:
        self._process = start(command_for(work, name, target), work, cpus)
        try:
            self.version = str(self._answer(ANSWER_WITHIN)["ready"])
        except BaseException:
            self.close()
            raise

    def slice(self, seconds: float, count: int) -> dict[str, Any]:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # then there is no answer either
            self._process.stdin.write(f"{seconds} {count}\n".encode())
        return self._answer(seconds + ANSWER_WITHIN)

    def close(self) -> None:
        stop(self._process)

    def _answer(self, seconds: float) -> dict[str, Any]:
        line = read_line(self._process, seconds)
        if not line:
            ended = self._process.poll()
            raise WorkerFailed(
                f"no answer in {seconds:.0f} s" if ended is None else f"ended with status {ended}"
            )
        answer: dict[str, Any] = json.loads(line)
        if "skip" in answer:
            raise WorkerSkipped(answer["skip"])
        if "error" in answer:
            raise WorkerFailed(answer["error"])
        return answer


def cost(measure: Measure, answer: dict[str, Any]) -> float:
    """One number per slice, less is better: ns per operation, p50 in ns, bytes per connection."""
    if measure is Measure.RATE:
        return float(answer["ns"] / answer["ops"])
    if measure is Measure.CPU:
        return float(answer["cpu_ns"] / answer["ops"])
    if measure is Measure.LATENCY:
        return quantile(answer["latencies_ns"], 0.5)
    if measure is Measure.SHARES:
        return float(answer["most"] / max(answer["least"], 1))
    return float(answer["bytes"] / answer["connections"])


@dataclass
class Series:
    """What one implementation did in one work; costs[i] belongs to round i."""

    name: str
    version: str | None = None
    costs: list[float] = field(default_factory=list)
    cpu_costs: list[float] = field(default_factory=list)  # the same slices, for a work's `cpu`
    latencies_ns: list[int] = field(default_factory=list)
    connections: int | None = None
    absent: str | None = None  # why there are no numbers

    def add(self, measure: Measure, answer: dict[str, Any]) -> None:
        self.costs.append(cost(measure, answer))
        if "cpu_ns" in answer:
            self.cpu_costs.append(cost(Measure.CPU, answer))
        self.latencies_ns.extend(answer.get("latencies_ns", ()))
        self.connections = answer.get("connections")

    def by_cpu(self) -> Series:
        return Series(self.name, self.version, costs=self.cpu_costs, absent=self.absent)


@dataclass(frozen=True)
class Plan:
    """How much to measure."""

    rounds: int
    lives: int = 1  # how often each worker is started anew
    seconds_factor: float = 1.0
    count_factor: float = 1.0
    only: frozenset[str] | None = None  # implementations; None: all


class Session:
    """One work being measured."""

    def __init__(self, work: Work, plan: Plan, target: Target, cpus: set[int]) -> None:
        self.work = work
        self.plan = plan
        self.target = target
        self.cpus = cpus
        names = [n for n in work.implementations if plan.only is None or n in plan.only]
        self.series = {name: Series(name) for name in names}
        self.workers: dict[str, Worker] = {}

    def one_slice(self, name: str, keep: bool) -> None:
        series = self.series[name]
        if series.absent is not None:
            return
        try:
            worker = self.workers.get(name)
            if worker is None:
                worker = Worker(self.work, name, self.target, self.cpus)
                self.workers[name] = worker
                series.version = worker.version
            answer = worker.slice(
                self.work.seconds * self.plan.seconds_factor,
                int(self.work.count * self.plan.count_factor),
            )
        except WorkerSkipped as skipped:
            series.absent = f"skipped: {skipped}"
        except WorkerFailed as failed:
            series.absent = f"FAILED: {failed}"
        else:
            if keep:
                series.add(self.work.measure, answer)
        if series.absent is not None or self.work.fresh_worker:
            self.close(name)

    def close(self, name: str) -> None:
        worker = self.workers.pop(name, None)
        if worker is not None:
            worker.close()

    def close_all(self) -> None:
        for name in list(self.workers):
            self.close(name)


def turns(work: Work, plan: Plan) -> Iterator[tuple[int, int, bool]]:
    """Yield for each turn: rounds that are done, the number of the turn in its life, whether it counts."""
    warm_up = 0 if work.fresh_worker else 1
    lives = 1 if work.fresh_worker else max(1, min(plan.lives, plan.rounds))
    done = 0
    for life in range(lives):
        end = plan.rounds * (life + 1) // lives
        for turn in range(warm_up + end - done):
            yield done, turn, turn >= warm_up
            done += turn >= warm_up


def run_work(work: Work, plan: Plan, progress: Callable[[str], None]) -> list[Series]:
    """Measure one work with all its implementations."""
    peer_cpus, worker_cpus = cpus_for(work.placement)
    shuffle = random.Random(SEED).shuffle
    with peer(work, peer_cpus) as target:
        session = Session(work, plan, target, worker_cpus)
        try:
            for done, turn, keep in turns(work, plan):
                if turn == 0:
                    session.close_all()
                names = list(session.series)
                shuffle(names)
                for name in names:
                    progress(f"{work.name}: round {done + 1}/{plan.rounds}: {name}")
                    session.one_slice(name, keep=keep)
        finally:
            session.close_all()
    return list(session.series.values())
