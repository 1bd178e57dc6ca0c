"""The words of the bench: what a work, an implementation, a goal and a sample are."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field, replace


class Measure(enum.Enum):
    """What one slice of a work yields."""

    RATE = "rate"  # {"ops": n, "ns": elapsed, ...}; may have latencies_ns, too
    CPU = "cpu"  # {"ops": n, "cpu_ns": the worker's time on a CPU, ...}
    LATENCY = "latency"  # {"latencies_ns": [...]}
    SHARES = "shares"  # {"least": n, "most": n, "latencies_ns": [the longest wait]}
    MEMORY = "memory"  # {"connections": n, "bytes": growth}


class Placement(enum.Enum):
    """On which CPUs the worker and its peer run (where there is only one, on that one)."""

    SPLIT = "split"  # the worker on one CPU, the peer on another
    SHARED = "shared"  # both on the same CPU
    FREE = "free"  # as the scheduler likes


@dataclass(frozen=True, kw_only=True)
class Goal:
    """The implementation `of` needs at most `at_most` times what `against` needs.

    Without `against`, `at_most` is an absolute value in the work's unit. `beside`: what that one
    needs is allowed besides; the number that is shown is what is left without it. `tail`: of the
    99th percentile of single operations, not of the cost.
    """

    text: str
    of: str
    at_most: float
    against: str | None = None
    beside: str | None = None
    tail: bool = False


@dataclass(frozen=True, kw_only=True)
class Work:
    """One group of rows. `function` is its name in the drivers; left out: the work's own name."""

    name: str
    title: str
    measure: Measure
    peer_mode: str  # the argument of the peer's program
    placement: Placement
    implementations: tuple[str, ...]
    goals: tuple[Goal, ...]
    floor: str | None = "c"
    # name of a C implementation -> (program in floors/, variant)
    c_programs: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    peer_program: str = "peer"  # in peers/
    seconds: float = 0.1
    count: int = 0
    function: str = ""
    tls: bool = False  # makes certificates; their folder is in the environment as BENCH_TLS
    fresh_worker: bool = False  # a new process for every slice
    most_rounds: int | None = None  # where slices are long
    cpu: Work | None = None  # what the same slices say of the worker's time on a CPU


def with_cpu(work: Work) -> Work:
    """The work with rows for the CPU time of its workers, judged by the same goals."""
    cpu = replace(
        work,
        name=f"{work.name}_cpu",
        title=f"{work.title}, CPU",
        measure=Measure.CPU,
        goals=tuple(goal for goal in work.goals if not goal.tail),
    )
    return replace(work, cpu=cpu)


@dataclass(frozen=True)
class Target:
    """Where the peer listens."""

    host: str
    port: int


class SkipWork(Exception):
    """This implementation cannot do this work here; the message says why."""
