"""The parts that all servers share, without a server: no threads, no sockets, no clock."""

from __future__ import annotations

import logging
from typing import Any

import pytest

import hardsock as hs
from hardsock.serving.drain import Drain, Limit
from hardsock.serving.idle import IdleTimeout
from hardsock.serving.ledger import Ledger, Outcome, Phase, Served
from hardsock.serving.seldom import Seldom
from hardsock.serving.turn import Turn
from hardsock.serving.verdict import End, judge


class FakeConnection:
    """What the parts ask of a connection, and what they did to it."""

    def __init__(self, idle: bool = False) -> None:
        self.idle = idle
        self.write_poisoned = False
        self._marks = 0
        self.created = 100.0
        self.last_read: float | None = None
        self.last_write: float | None = None
        self.bytes_received = 7
        self.bytes_sent = 8
        self.done: list[str] = []

    def close(self) -> None:
        self.done.append("close")

    def abort(self) -> None:
        self.done.append("abort")


class Stage:
    """A ledger with connections in their handlers."""

    def __init__(self) -> None:
        self.server = hs.CancelToken(name="server")
        self.draining = self.server.child(name="draining")
        self.ledger = Ledger(100, self.draining)
        self.seldom = Seldom(logging.getLogger("hardsock.serve"))

    def connection(self, *, idle: bool = False, waiting: bool = False) -> Served:
        conn: Any = FakeConnection(idle)
        served = Served(conn, "peer", self.server.child())
        self.ledger.admit(served)
        if not waiting:
            assert self.ledger.start(served, "runner", 100.5)
        return served

    def drain(self, end: float, grace: float) -> Drain:
        self.draining.cancel()
        return Drain(self.ledger, 200.0, Limit(end, grace))

    def leave(self, served: Served, outcome: Outcome) -> None:
        self.ledger.settle(served, outcome, ending="closed")
        served.left = True

    def report(self, drain: Drain, now: float) -> hs.DrainReport:
        return drain.report(
            now, reason="r", unaccepted=0, look=lambda runner: (str(runner), "the stack")
        )


def test_a_drain_goes_through_its_phases_by_the_clock() -> None:
    stage = Stage()
    idle, busy = stage.connection(idle=True), stage.connection()
    drain = stage.drain(end=210.0, grace=4.0)

    turn = drain.step(200.0)
    assert (turn.cancel, turn.close, turn.abort) == ([], [], []), "one look is not enough"
    assert turn.wait == pytest.approx(0.02)
    turn = drain.step(200.02)
    assert ([s for s, _ in turn.cancel], turn.close, turn.abort) == ([idle], [], [])
    turn = drain.step(200.04)
    assert (turn.cancel, turn.close, turn.abort) == ([], [idle], []), "it did not leave by itself"
    stage.leave(idle, Outcome.IDLE)
    assert drain.step(205.995).wait == pytest.approx(0.005), "never past the next phase"

    turn = drain.step(206.0)
    assert [s for s, _ in turn.cancel] == [busy]
    assert busy.ended_by is Outcome.CANCELLED
    turn = drain.step(209.0)
    assert (turn.cancel, turn.close, turn.abort) == ([], [], [busy])
    assert turn.wait == pytest.approx(1.0), "its handler may still leave"
    assert drain.step(210.0).wait is None

    report = stage.report(drain, 210.0)
    assert (report.idle_closed, report.cancelled, report.aborted) == (1, 0, 1)
    assert (report.elapsed, report.running, report.clean) == (10.0, 1, False)
    (cut,) = report.cut
    assert cut == ("peer", "aborted", "handler", 110.0, 7, 8, True, "runner", "the stack")
    assert "runner still runs its handler:\nthe stack" in str(report)


def test_a_drain_is_over_when_nobody_works_any_more() -> None:
    stage = Stage()
    served = stage.connection()
    drain = stage.drain(end=210.0, grace=1.0)
    assert drain.step(200.0).wait is not None
    stage.leave(served, Outcome.COMPLETED)
    assert drain.step(200.1).wait is None
    report = stage.report(drain, 200.1)
    assert (report.completed, report.cut, report.clean) == (1, (), True)


def test_an_aborted_handler_that_leaves_ends_the_drain_early() -> None:
    stage = Stage()
    served = stage.connection()
    drain = stage.drain(end=210.0, grace=4.0)
    drain.step(206.0)
    drain.step(209.0)
    stage.leave(served, Outcome.COMPLETED)
    assert drain.step(209.1).wait is None
    report = stage.report(drain, 209.1)
    assert (report.aborted, report.completed, report.running) == (1, 0, 0), "settled once"
    assert report.cut[0].stack is None


def test_what_no_handler_took_is_not_waited_for() -> None:
    stage = Stage()
    served = stage.connection(waiting=True)
    drain = stage.drain(end=200.0, grace=0.0)
    turn = drain.step(200.0)
    assert turn.abort == [served]
    assert turn.wait is None
    assert not stage.ledger.start(served, "late", 201.0)


def test_a_drain_can_be_shortened_only() -> None:
    stage = Stage()
    stage.connection()
    drain = stage.drain(end=210.0, grace=1.0)
    drain.tighten(Limit(300.0, 1.0))
    assert drain.end == 210.0
    drain.tighten(Limit(201.0, 0.0))
    assert drain.end == 201.0
    assert len(drain.step(201.0).abort) == 1


def test_lingering_and_waiting_are_never_idle() -> None:
    stage = Stage()
    lingering, waiting = stage.connection(idle=True), stage.connection(idle=True, waiting=True)
    lingering.phase = Phase.LINGERING
    drain = stage.drain(end=210.0, grace=1.0)
    assert drain.step(200.0).cancel == drain.step(200.1).cancel == []
    assert waiting.idle_since() is None


def test_a_byte_between_two_looks_is_not_idle() -> None:
    stage = Stage()
    served = stage.connection(idle=True)
    conn: Any = served.conn
    drain = stage.drain(end=210.0, grace=1.0)
    drain.step(200.0)
    conn.bytes_received += 1
    assert drain.step(200.02).cancel == []
    assert len(drain.step(200.04).cancel) == 1


def test_two_steps_at_once_are_one_look() -> None:
    """A reader that took a request a moment ago, and has not counted it yet, is no idle one."""
    stage = Stage()
    served = stage.connection(idle=True)
    conn: Any = served.conn
    drain = stage.drain(end=210.0, grace=1.0)
    assert drain.step(200.0).cancel == drain.step(200.001).cancel == []
    conn.bytes_received += 1
    assert drain.step(200.02).cancel == []


def test_without_time_for_two_looks_one_is_enough() -> None:
    stage = Stage()
    served = stage.connection(idle=True)
    ((found, reason),) = stage.drain(end=210.0, grace=10.0).step(200.0).cancel
    assert found is served
    assert "was idle" in reason


def test_idleness_is_counted_from_the_last_byte() -> None:
    stage = Stage()
    served = stage.connection(idle=True)
    conn: Any = served.conn
    timeout = IdleTimeout(stage.ledger, 8.0)
    assert timeout.interval == 2.0
    assert timeout.step(107.0) == Turn([], [], [], 2.0)
    assert timeout.step(108.0) is None, "not yet time for a look"
    conn.last_read, conn.last_write = 105.0, 106.0
    assert timeout.step(113.0) == Turn([], [], [], 2.0)
    turn = timeout.step(115.0)
    assert turn is not None
    assert turn.cancel == [(served, "idle for 8 s")]
    assert served.ended_by is Outcome.IDLE_TIMEOUT
    turn = timeout.step(117.0)
    assert turn is not None
    assert (turn.cancel, turn.close) == ([], [served])


def test_without_an_idle_timeout_nobody_looks() -> None:
    timeout = IdleTimeout(Stage().ledger, None)
    assert timeout.interval is None
    assert timeout.step(1e9) is None


def test_a_turn_does_what_it_says() -> None:
    stage = Stage()
    one, two = stage.connection(), stage.connection()
    Turn([(one, "because")], [one], [two], None).perform()
    assert one.token.reason == "because"
    fakes: list[Any] = [one.conn, two.conn]
    assert [fake.done for fake in fakes] == [["close"], ["abort"]]


def _error(
    kind: type[hs.HardsockError], reason: str | None = None, op: str = "recv_exactly"
) -> hs.HardsockError:
    exc = kind("made up")
    exc.reason = reason
    exc.op = op
    return exc


@pytest.mark.parametrize(
    ("ended_by", "exc", "server_ended", "want"),
    [
        (None, None, False, (Outcome.COMPLETED, End.FINISH, None)),
        (None, _error(hs.Reset), False, (Outcome.FAILED, End.ABORT, "Reset")),
        (None, _error(hs.Truncated), False, (Outcome.FAILED, End.FINISH, "Truncated")),
        (None, _error(hs.TLSError), False, (Outcome.FAILED, End.ABORT, "TLSError")),
        (None, _error(hs.EndOfStream), False, (Outcome.COMPLETED, End.FINISH, None)),
        (None, _error(hs.FrameTooLarge), False, (Outcome.FAILED, End.ABORT, "FrameTooLarge")),
        (None, _error(hs.Cancelled, "drain"), False, (Outcome.TOLD, End.FINISH, None)),
        (None, _error(hs.Cancelled, "own"), False, (Outcome.FAILED, End.ABORT, "Cancelled")),
        (None, _error(hs.Cancelled, "x"), True, (Outcome.CANCELLED, End.ABORT, None)),
        (None, KeyError("bug"), True, (Outcome.FAILED, End.ABORT, "KeyError")),
        (Outcome.IDLE, None, False, (Outcome.IDLE, End.CLOSE, None)),
        (Outcome.IDLE, _error(hs.Cancelled, "x"), False, (Outcome.IDLE, End.CLOSE, None)),
        (Outcome.CANCELLED, None, False, (Outcome.CANCELLED, End.CLOSE, None)),
        (Outcome.CANCELLED, KeyError("bug"), False, (Outcome.CANCELLED, End.ABORT, None)),
    ],
)
def test_verdicts(
    ended_by: Outcome | None, exc: BaseException | None, server_ended: bool, want: tuple[Any, ...]
) -> None:
    stage = Stage()
    served = stage.connection()
    served.ended_by = ended_by
    stage.draining.cancel("drain")
    if server_ended:
        stage.server.cancel("x")
    assert (
        judge(served, exc, server=stage.server, draining=stage.draining, seldom=stage.seldom)
        == want
    )


@pytest.mark.parametrize(("reason", "logged"), [("it left", False), ("its own", True)])
def test_only_the_cancel_of_a_client_that_left_is_no_news(
    reason: str, logged: bool, caplog: pytest.LogCaptureFixture
) -> None:
    stage = Stage()
    served = stage.connection()
    fake: Any = served.conn
    fake._marks = 4
    served.token.cancel("it left")
    verdict = judge(
        served,
        _error(hs.Cancelled, reason),
        server=stage.server,
        draining=stage.draining,
        seldom=stage.seldom,
    )
    assert verdict == (Outcome.FAILED, End.ABORT, "Cancelled")
    assert any(record.levelname == "ERROR" for record in caplog.records) is logged


def test_half_a_message_sent_is_never_followed_by_a_clean_end() -> None:
    stage = Stage()
    served = stage.connection()
    fake: Any = served.conn
    fake.write_poisoned = True
    verdict = judge(served, None, server=stage.server, draining=stage.draining, seldom=stage.seldom)
    assert verdict == (Outcome.COMPLETED, End.ABORT, None)


def test_no_record_is_kept_of_what_was_cancelled_before_the_drain() -> None:
    stage = Stage()
    stage.leave(stage.connection(), Outcome.CANCELLED)
    assert stage.ledger.cut == []
    late = stage.connection()
    stage.draining.cancel("drain")
    stage.leave(late, Outcome.CANCELLED)
    assert stage.ledger.cut == [late]


@pytest.mark.parametrize(
    ("exc", "logged"),
    [
        (_error(hs.FrameTooLarge), logging.DEBUG),
        (_error(hs.FrameTooLarge, op="send_frame"), logging.ERROR),
        (_error(hs.Reset), logging.DEBUG),
        (_error(hs.TLSError), logging.DEBUG),
        (_error(hs.EndOfStream), None),
        (_error(hs.Closed), logging.ERROR),
    ],
)
def test_only_what_the_handler_did_wrong_is_an_error(
    exc: hs.HardsockError, logged: int | None, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "hardsock.serve")
    stage = Stage()
    judge(
        stage.connection(), exc, server=stage.server, draining=stage.draining, seldom=stage.seldom
    )
    assert [record.levelno for record in caplog.records] == ([] if logged is None else [logged])
    caplog.clear()
