"""15 % of packets lost: the first packet of a connection is the one that hurts."""

from __future__ import annotations

from typing import Any

from hardsock.lab.experiments.experiment import Chart, Experiment, Finding, Line
from hardsock.lab.experiments.far_away import ask, serve
from hardsock.lab.wire import InvalidResult, Wire

_DELAY, _LOSS = 0.01, 0.15
_REQUESTS = 60
# A SYN is sent again after a second (RFC 6298 section 2.1), other segments far sooner.
_AGAIN = 0.9


def _measure() -> Finding:
    invalid = ""
    with Wire(delay=_DELAY, loss=_LOSS, seed=13) as wire:
        with wire.b.start(serve, timeout=300.0) as server:
            server.wait_ready()
            took: dict[str, Any] = wire.a.run(ask, _REQUESTS, timeout=300.0)
        conditions = wire.conditions()
        try:
            stats = wire.judge()
        except InvalidResult as exc:
            invalid, stats = str(exc), wire.stats()
    slow = {side: sum(one > _AGAIN for one in values) for side, values in took.items()}
    total = {side: sum(values) for side, values in took.items()}
    share = (stats.ab.lost + stats.ba.lost) / max(1, stats.ab.got + stats.ba.got)
    return Finding(
        plain={"slower_than_a_second": slow["plain"], "seconds_in_all": total["plain"]},
        hardsock={"slower_than_a_second": slow["hardsock"], "seconds_in_all": total["hardsock"]},
        shown=slow["plain"] > 3 * max(1, slow["hardsock"]) and total["plain"] > total["hardsock"],
        invalid=invalid,
        conditions=conditions,
        text=f"On a wire that lost {share:.1%} of its packets, {slow['plain']} of {_REQUESTS} requests "
        f"with a connection each took {_AGAIN:g} s or more, and {slow['hardsock']} with one from a "
        f"`Pool`; all together {total['plain']:.0f} s against {total['hardsock']:.0f} s.",
        chart=Chart(
            kind="percentiles",
            title=f"A request of one byte, {_LOSS:.0%} of packets lost",
            x="requests",
            y="milliseconds",
            log=True,
            lines=[
                Line("a connection each", "plain", [one * 1e3 for one in took["plain"]]),
                Line("hardsock.Pool", "hardsock", [one * 1e3 for one in took["hardsock"]]),
            ],
            limit=(1000, "a SYN is sent again"),
        ),
    )


LOSSY = Experiment(
    name="lossy",
    title="One packet in seven is lost",
    claim="Under loss new connections suffer most: a lost SYN costs a whole second, a lost segment of "
    "a connection that has measured its path a fraction of that.",
    why="Before the first round trip nothing is known of the path, so the timer stands at 1 s and "
    "doubles (RFC 6298 sections 2.1 and 5.5). Later it follows the measured time, down to 200 ms on "
    "Linux, and acknowledgements of later segments tell of a loss sooner still.",
    instead="Keep connections (`hardsock.Pool`), and give each call one deadline for all its tries: "
    "a timeout below a second never sees the second SYN.",
    measure=_measure,
    seconds=60,
    is_short=False,
)
