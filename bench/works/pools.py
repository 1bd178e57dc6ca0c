"""Pools: what borrowing costs, who is served, what memory and CPU a pooled connection takes.

Checkout: borrow a connection that is there, and return it; nothing is asked on it. One thread on a
pool of one, and eight threads on a pool of eight: nobody waits. hardsock's ledger is on, as always;
"hardsock" is `with pool.connection(timeout=5.0):`, "hardsock-acquire" the two calls. The connections
of hardsock, lifoqueue, urllib3 and redis-py are real; the others' are empty objects, so that only
the pool is measured: no rollback of SQLAlchemy's or psycopg's reaches a server. urllib3, redis-py
and hardsock ask the kernel at every lend whether the peer is there and has said nothing;
"psycopg-pool-check" and "sqlalchemy-pre-ping" ask the peer itself, by the shortest round trip that
there is, on real connections; the others do not look at all.
"lifoqueue" is queue.LifoQueue, get and put, without a timeout; "with-lock" lends nothing: it is what
a with statement costs by itself; "c-poll" only asks the kernel, in C, what hardsock asks it at every
lend. Go is database/sql.

Fairness: twenty threads (Go: goroutines) share two connections that each holds for 10 ms, for 2 s.
The cost is how many times more often the most served one got a connection than the least served
(who got none counts as having got one); beside it the longest wait of all.

Memory: growth of anonymous memory per connection, as works/idle_memory.py has it, of connections
that were used once, in the pool or lent. Watching: what a pool with 10,000 idle connections takes
of the CPU in each second in which nothing happens. hardsock looks after them, so that a peer's close
is seen at once; the others do nothing of the kind.

HikariCP publishes its comparison as a picture, without numbers, from JMH on a JVM with 32 threads:
there is nothing to set beside these rows.
"""

from __future__ import annotations

from ..model import Goal, Measure, Placement, Work

ASKING_THE_PEER = ("psycopg-pool-check", "sqlalchemy-pre-ping")
OTHERS = ("urllib3", "redis-py", "psycopg-pool", "sqlalchemy", "go")

CHECKOUT = Work(
    name="pool_checkout",
    title="pool checkout",
    measure=Measure.RATE,
    peer_mode="echo",
    placement=Placement.SPLIT,
    implementations=(
        *("hardsock", "hardsock-acquire", "lifoqueue", "with-lock", "c-poll"),
        *(*OTHERS, *ASKING_THE_PEER),
    ),
    c_programs={"c-poll": ("quiet_poll", "")},
    floor=None,
    goals=(
        Goal(text="<= 0.5 x LifoQueue", of="hardsock-acquire", against="lifoqueue", at_most=0.5),
        Goal(text="<= 0.2 x urllib3", of="hardsock-acquire", against="urllib3", at_most=0.2),
        Goal(text="<= 0.2 x redis-py", of="hardsock-acquire", against="redis-py", at_most=0.2),
        Goal(
            text="<= 0.2 x psycopg_pool, checked",
            of="hardsock-acquire",
            against="psycopg-pool-check",
            at_most=0.2,
        ),
        Goal(
            text="<= 0.2 x SQLAlchemy, pre-ping",
            of="hardsock-acquire",
            against="sqlalchemy-pre-ping",
            at_most=0.2,
        ),
        Goal(text="<= 0.2 x urllib3", of="hardsock", against="urllib3", at_most=0.2),
        Goal(
            text="<= 2 x an empty with, beside the kernel's answer",
            of="hardsock",
            against="with-lock",
            beside="c-poll",
            at_most=2.0,
        ),
    ),
)

CHECKOUT_THREADS = Work(
    name="pool_checkout_8",
    title="the same, 8 threads",
    measure=Measure.RATE,
    peer_mode="hold",
    placement=Placement.FREE,
    implementations=("hardsock", "lifoqueue", *OTHERS),
    floor=None,
    goals=(Goal(text="<= 0.25 x LifoQueue", of="hardsock", against="lifoqueue", at_most=0.25),),
    seconds=0.2,
)

FAIRNESS = Work(
    name="pool_fairness",
    title="20 on 2: most/least",
    measure=Measure.SHARES,
    peer_mode="hold",
    placement=Placement.FREE,
    implementations=("hardsock", "lifoqueue", *OTHERS),
    floor=None,
    goals=(Goal(text="least >= 0.8 x most", of="hardsock", at_most=1.25),),
    seconds=2.0,
    fresh_worker=True,
)

IDLE_MEMORY = Work(
    name="pool_idle_memory",
    title="idle in a pool",
    measure=Measure.MEMORY,
    peer_mode="hold",
    placement=Placement.FREE,
    implementations=("hardsock", "lifoqueue", "urllib3", "redis-py"),
    floor=None,
    goals=(),
    count=10_000,
    fresh_worker=True,
)

LENT_MEMORY = Work(
    name="pool_lent_memory",
    title="lent by a pool",
    measure=Measure.MEMORY,
    peer_mode="hold",
    placement=Placement.FREE,
    implementations=("hardsock", "lifoqueue", "urllib3", "redis-py"),
    floor=None,
    goals=(),
    count=10_000,
    fresh_worker=True,
)

WATCHING = Work(
    name="pool_watching",
    title="watching 10,000, 1 s",
    measure=Measure.CPU,
    peer_mode="hold",
    placement=Placement.FREE,
    implementations=("hardsock", "lifoqueue"),
    floor=None,
    goals=(),
    seconds=2.0,
    count=10_000,
    fresh_worker=True,
)
