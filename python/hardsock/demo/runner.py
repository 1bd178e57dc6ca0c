"""Play the scenes, judge them, count them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence

from hardsock.demo.measure import Stopwatch
from hardsock.demo.scene import Bound, Outcome, Scene
from hardsock.demo.scenes import SCENES
from hardsock.demo.table import Row, Verdict, make_table
from hardsock.lab import Call, Unavailable, differences, snapshot
from hardsock.lab.inventory import Snapshot
from hardsock.lab.waits import poll_until

_COLUMN_LIMIT = 20.0
_SETTLE = 2.0
_MOST_NAMED = 5
_NOTHING_LEFT = Bound(of="left behind", at_most=0)


def run(
    names: Sequence[str] = (),
    *,
    plain: bool = False,
    list_only: bool = False,
    patience: float = 1.0,
) -> int:
    """Play the scenes called *names* (all if empty) and print the table.

    Args:
        names: Of scenes.
        plain: A table of aligned text.
        list_only: Name the scenes, play none.
        patience: How many times as long as its bound a time may be: a busy machine delays all.

    Returns:
        The exit status: 0, or 1 if hardsock missed a bound, or 2 for a name that no scene has.
    """
    unknown = sorted(set(names) - {scene.name for scene in SCENES})
    if unknown:
        print(
            f"hardsock demo: no scene is called {', '.join(unknown)}; see --list", file=sys.stderr
        )
        return 2
    scenes = [scene for scene in SCENES if not names or scene.name in names]
    if list_only:
        for scene in scenes:
            print(f"{scene.name:<18} {scene.title}.\n{'':<18} {scene.shows}")
        return 0
    watch = Stopwatch()
    rows = []
    with make_table(plain=plain) as table:
        for row in _play_all(scenes, patience):
            table.add(row)
            rows.append(row)
    print(_summary(rows, watch))
    return int(any(row.verdict is Verdict.FAILED for row in rows))


class _Leftovers:
    """Runs columns of one kind, and notes what they leave behind, all together."""

    def __init__(self, patience: float) -> None:
        self.found: list[str] = []
        self._patience = patience

    def run(self, name: str, column: Callable[[], Outcome]) -> Outcome:
        """Run one column in a thread of its own, so that it cannot take the demo along."""
        before = snapshot()
        try:
            return Call(column).result(_COLUMN_LIMIT * self._patience)
        finally:
            left = _left_since(before, _SETTLE * self._patience)
            self.found += [f"{name}: {line}" for line in left]


def _left_since(before: Snapshot, settle: float) -> list[str]:
    """What is there now and was not before; what is just ending gets *settle* seconds."""
    poll_until(lambda: not differences(before, snapshot()), settle)
    return differences(before, snapshot())


def _play_all(scenes: Sequence[Scene], patience: float) -> Iterator[Row]:
    leftovers = {"stdlib": _Leftovers(patience), "hardsock": _Leftovers(patience)}
    before = snapshot()
    for scene in scenes:
        yield _play(scene, leftovers, patience)
    yield _leftovers_row(before, leftovers)


def _play(scene: Scene, leftovers: dict[str, _Leftovers], patience: float) -> Row:
    texts = {"stdlib": "", "hardsock": ""}
    missed = []
    verdict = Verdict.PASSED
    for kind, column in (("stdlib", scene.stdlib), ("hardsock", scene.hardsock)):
        try:
            outcome = leftovers[kind].run(scene.name, column)
        except Unavailable as exc:
            texts["hardsock"] = f"skipped: {exc}"
            verdict = Verdict.SKIPPED
            break
        except Exception as exc:  # The scene did not work out: that proves nothing.
            texts[kind] = f"broke: {type(exc).__name__}: {exc}"
            verdict = Verdict.FAILED
        else:
            texts[kind] = outcome.text
            if kind == "hardsock":
                missed = scene.missed(outcome, patience)
    if missed:
        verdict = Verdict.FAILED
        texts["hardsock"] += "; " + "; ".join(missed)
    return Row(scene.name, scene.title, texts["stdlib"], texts["hardsock"], scene.bounds, verdict)


def _leftovers_row(before: Snapshot, leftovers: dict[str, _Leftovers]) -> Row:
    after = snapshot()
    found = leftovers["hardsock"].found
    text = (
        f"descriptors: {len(before.fds)} before, {len(after.fds)} after; "
        f"threads: {len(before.threads)} before, {len(after.threads)} after; "
        f"{len(found)} left behind"
    )
    if found:
        text += ": " + "; ".join(found[:_MOST_NAMED])
    lost = len(leftovers["stdlib"].found)
    return Row(
        "leftovers",
        "Descriptors, threads and objects left behind by all of the above",
        f"{lost} left behind",
        text,
        (_NOTHING_LEFT,),
        Verdict.FAILED if found else Verdict.PASSED,
    )


def _summary(rows: Sequence[Row], watch: Stopwatch) -> str:
    counts = []
    for verdict in Verdict:
        names = [row.name for row in rows if row.verdict is verdict]
        named = f" ({', '.join(names)})" if names and verdict is not Verdict.PASSED else ""
        counts.append(f"{len(names)} {verdict.word}{named}")
    return f"{', '.join(counts)} in {watch}"
