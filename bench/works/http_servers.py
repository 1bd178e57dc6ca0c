"""HTTP servers with connections that stay, one process each, on one core; the clients on another.

The clients are peers/http_crowd.c. Up to 500 connections each of them always has one request on its
way, as wrk does it; with more, 256 requests are on their way on connections in a random order.
Connections are opened, and each asked on once, before it is measured. Churn: connect, one request,
end; 64 at any time. At their pace: each of 10,000 asks once a second, and waits from when that was
due; hardsock-messages-8 does it with eight threads. Every client must be served: a server that leaves one without an answer for
half a minute has failed. The answer is "hello, world" with its length, and what the server adds.

Raw: the handler finds the end of a head and answers. Parsed: httptools (Go: net/http; gunicorn: its
own parser) reads the fields of the head, so that all do equal work. hardsock-threads has 64 workers
and a thread for each connection, hardsock-messages 64 workers and no more threads,
hardsock-aio-messages a task for each message, socketserver a thread for each, gunicorn one process of
gthread with 64 threads, uvicorn one process with httptools on uvloop, Go has GOMAXPROCS=1 since it may use
one core only.

The rows "CPU" say what the server's process (gunicorn: its worker) was on a CPU for, of the same
slices: they hold on a busy machine, too. A server that waits for its own threads looks better there
than it is.

Idle memory is the growth of the server's anonymous memory (gunicorn: of its worker process) from
the 500th to the last of 10,000 connections that were asked on once. Threads count with what they
touch of their stacks.
"""

from __future__ import annotations

from ..model import Goal, Measure, Placement, Work, with_cpu

_OURS = (
    "hardsock-threads",
    "hardsock-messages",
    "hardsock-aio",
    "hardsock-aio-messages",
    "hardsock-aio-uvloop",
)
_RAW = (*_OURS, "asyncio", "uvloop")
_ALL = (*_RAW, "socketserver", "gunicorn", "uvicorn", "go")
_MOST_IN_FLIGHT = 256
_CHURNERS = 64
ROUNDS = 15


_NEAR_AIO = tuple(
    Goal(text="p99 <= 3 x aio", of=ours, against="hardsock-aio", at_most=3.0, tail=True)
    for ours in ("hardsock-threads", "hardsock-messages")
)


def _kept(connections: int, kind: str) -> Work:
    in_flight = connections if connections <= 500 else _MOST_IN_FLIGHT
    goals: tuple[Goal, ...] = _NEAR_AIO
    if kind == "parsed":
        goals += (
            Goal(text="ahead of Go", of="hardsock-aio-uvloop", against="go", at_most=1.0),
            Goal(text=">= 2 x uvicorn", of="hardsock-aio-uvloop", against="uvicorn", at_most=0.5),
            Goal(text=">= 5 x gunicorn", of="hardsock-threads", against="gunicorn", at_most=0.2),
            Goal(text=">= 5 x gunicorn", of="hardsock-messages", against="gunicorn", at_most=0.2),
        )
    work = Work(
        name=f"http_{kind}_{connections}",
        function=f"http_{kind}",
        title=f"HTTP {kind}, {connections:,} kept",
        measure=Measure.RATE,
        peer_program="http_crowd",
        peer_mode=str(in_flight),
        placement=Placement.SPLIT,
        implementations=_ALL if kind == "parsed" else (*_RAW, "socketserver"),
        goals=goals,
        floor=None,
        seconds=0.25,
        count=connections,
        most_rounds=ROUNDS,
    )
    return with_cpu(work)


def _churn(kind: str) -> Work:
    work = Work(
        name=f"http_{kind}_churn",
        title=f"HTTP {kind}, connections",
        measure=Measure.RATE,
        peer_program="http_crowd",
        peer_mode=str(_CHURNERS),
        placement=Placement.SPLIT,
        implementations=_ALL if kind == "parsed" else (*_RAW, "socketserver"),
        goals=(),
        floor=None,
        seconds=0.25,
        count=_CHURNERS,
        most_rounds=ROUNDS,
    )
    return with_cpu(work)


PACED = Work(
    name="http_raw_paced",
    title="HTTP raw, 10,000 at their pace",
    measure=Measure.LATENCY,
    peer_program="http_crowd",
    peer_mode=str(_MOST_IN_FLIGHT),
    placement=Placement.SPLIT,
    implementations=("hardsock-messages-8", *_OURS[1:]),
    goals=tuple(
        Goal(text="p99 <= 2 x aio", of=ours, against="hardsock-aio", at_most=2.0, tail=True)
        for ours in ("hardsock-messages-8", "hardsock-messages")
    ),
    floor=None,
    seconds=2.0,
    count=10_000,
    most_rounds=5,
)

IDLE_MEMORY = Work(
    name="http_idle_memory",
    title="HTTP, idle connection",
    measure=Measure.MEMORY,
    peer_program="http_crowd",
    peer_mode=str(_MOST_IN_FLIGHT),
    placement=Placement.SPLIT,
    implementations=_ALL,
    floor=None,
    goals=(),
    count=10_000,
    fresh_worker=True,
)

WORKS: tuple[Work, ...] = (
    *(_kept(n, kind) for kind in ("raw", "parsed") for n in (10, 64, 500, 5_000, 10_000)),
    _churn("raw"),
    _churn("parsed"),
    PACED,
    IDLE_MEMORY,
)
