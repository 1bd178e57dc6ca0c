"""The caller gave up, and the services behind it work on."""

from __future__ import annotations

import contextlib
import threading
import time
from typing import Any

import hardsock as hs
from hardsock.lab.experiments.experiment import Bar, Chart, Experiment, Finding, Side
from hardsock.lab.namespaces import run_in_namespace

_CALLS = 3
_PATIENCE = 0.1
_STEPS, _STEP = 10, 0.05


class _Log:
    """What the services did, and for which call. Nothing here waits for a call that failed."""

    def __init__(self) -> None:
        self.begin = time.monotonic()
        self.work: list[tuple[int, float, float, int]] = []
        self.asked = 0
        self.handled = 0

    def now(self) -> float:
        return time.monotonic() - self.begin

    def wait_until_idle(self, number: int) -> None:
        """Callers come one after the other here."""
        pause = threading.Event()
        while self.handled < number or len(self.work) < self.asked:
            pause.wait(0.005)


def _read(conn: hs.Connection) -> tuple[int, str | None]:
    """The number of the call, and what is left of its deadline, if that was said."""
    number, _, header = conn.recv_until(b"\n", max_size=100, timeout=30).decode().partition(" ")
    return int(number), header.strip() or None


def _work(header: str | None) -> int:
    """Steps that the last service does: all of them, or those that somebody waits for."""
    pause = threading.Event()
    done = 0
    try:
        with hs.timeout(hs.deadline.from_header(header, cap=60)):
            while done < _STEPS:
                hs.deadline.remaining()
                pause.wait(_STEP)
                done += 1
    except hs.DeadlineExceeded:
        pass  # Nobody waits for the rest.
    return done


def _back(listener: hs.Listener, token: hs.CancelToken, log: _Log) -> None:
    """The service C, which works."""
    with contextlib.suppress(hs.Cancelled):
        while True:
            with listener.accept(token=token) as conn:
                begin, number, steps = log.now(), 0, 0
                try:
                    number, header = _read(conn)
                    steps = _work(header)
                except hs.HardsockError:
                    pass  # The one who asked gave up before the question was out.
                log.work.append((number, begin, log.now(), steps))


def _middle(listener: hs.Listener, back: tuple[str, int], log: _Log) -> None:
    """The service B: asks C, with what it was told of the time that is left."""
    for _ in range(_CALLS):
        with listener.accept(timeout=60) as conn:
            try:
                number, header = _read(conn)
                with hs.timeout(hs.deadline.from_header(header, cap=60)):
                    left = hs.deadline.to_header() if header else ""
                    with hs.connect(back, timeout=30) as onward:
                        log.asked += 1
                        onward.sendall(f"{number} {left}\n".encode(), timeout=30)
                        onward.recv(1, timeout=30)
            except hs.HardsockError:
                pass  # Nobody waits for this any more.
        log.handled += 1


def _call(address: tuple[str, int], number: int, passed_on: bool) -> None:
    """A, which has little patience."""
    with hs.connect(address, timeout=60) as conn:
        try:
            with hs.timeout(_PATIENCE):
                left = hs.deadline.to_header() if passed_on else ""
                conn.sendall(f"{number} {left}\n".encode())
                conn.recv(1)
        except hs.DeadlineExceeded:
            pass


def measure_inside() -> dict[str, Any]:
    """Per side: when each caller waited, and when and how much the last service worked for it."""
    found: dict[str, Any] = {}
    for side in ("plain", "hardsock"):
        over = hs.CancelToken()
        with hs.listen(("127.0.0.1", 0)) as middle, hs.listen(("127.0.0.1", 0)) as back:
            log, waits = _Log(), []
            threads = [
                threading.Thread(target=_back, args=(back, over, log)),
                threading.Thread(target=_middle, args=(middle, back.getsockname(), log)),
            ]
            for thread in threads:
                thread.start()
            for number in range(_CALLS):
                begin = log.now()
                _call(middle.getsockname(), number, side == "hardsock")
                waits.append((begin, log.now()))
                log.wait_until_idle(number + 1)
            over.cancel()
            for thread in threads:
                thread.join()
        found[side] = {"waits": waits, "work": log.work}
    return found


def _bars(found: dict[str, Any]) -> list[Bar]:
    bars = []
    sides: tuple[Side, Side] = ("plain", "hardsock")
    for side in sides:
        one = found[side]
        for number, (begin, end) in enumerate(one["waits"]):
            bars.append(Bar(f"{side} {number + 1}: caller", 0, end - begin, side))
            bars.extend(
                Bar(f"{side} {number + 1}: work", start - begin, stop - begin, side, failed=True)
                for whose, start, stop, _steps in one["work"]
                if whose == number
            )
    return bars


def _measure() -> Finding:
    found = run_in_namespace(measure_inside, timeout=120.0)
    steps = {side: sum(n for *_, n in one["work"]) for side, one in found.items()}
    return Finding(
        plain={"steps_of_work": steps["plain"]},
        hardsock={"steps_of_work": steps["hardsock"]},
        shown=steps["plain"] >= _CALLS * _STEPS / 2 and steps["plain"] > 2 * steps["hardsock"],
        text=f"A asks B, B asks C, and A has {_PATIENCE * 1e3:.0f} ms of patience. For {_CALLS} calls "
        f"C did {steps['plain']} of {_CALLS * _STEPS} steps of {_STEP * 1e3:.0f} ms, though nobody waited. "
        f"With what was left of the deadline sent along it did {steps['hardsock']}.",
        chart=Chart(
            kind="timeline",
            title=f"{_CALLS} calls: who waits, and who works (hatched)",
            x="seconds",
            bars=_bars(found),
            limit=(_PATIENCE, "the caller gives up"),
        ),
    )


DEADLINE_LOST = Experiment(
    name="deadline-lost",
    title="Work for nobody",
    claim="A timeout ends the caller's wait and nobody else's: unless the deadline travels, the "
    "services behind work on for a caller who is gone.",
    why="Each service has a timeout of its own for each call, and knows nothing of the first caller's. "
    "When callers try again, the useless work adds up: that is how an overload stays.",
    instead="Send what is left: `hardsock.deadline.to_header()`, or the hooks for requests, httpx, "
    "aiohttp and gRPC; read it with `from_header` or the WSGI and ASGI middleware, and work under "
    "`hardsock.timeout`. See docs/deadlines-over-the-wire.md.",
    measure=_measure,
    seconds=3,
)
