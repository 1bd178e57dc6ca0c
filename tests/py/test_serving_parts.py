"""The parts that all servers share, without a server: no threads, no sockets, no clock."""

from __future__ import annotations

import logging
from typing import Any

import pytest

import hardsock as hs
from hardsock.serving.actions import Actions
from hardsock.serving.disposition import End, judge
from hardsock.serving.drain import Drain, Limit
from hardsock.serving.ledger import Ledger, Outcome, Served
from hardsock.serving.seldom import Seldom


class FakeConnection:
    """What the parts ask of a connection, and what they did to it."""

    def __init__(self, idle: bool = False) -> None:
        self.idle = idle
        self.write_poisoned = False
        self._marks = 0
        self._settled = True
        self.created = 100.0
        self.last_read: float | None = None
        self.last_write: float | None = None
        self.bytes_received = 7
        self.bytes_sent = 8
        self.done: list[str] = []

    def _expect_no_more(self, first_within: float) -> None:
        self.done.append(f"first within {first_within}")

    def _set_phase(self, phase: int) -> None:
        self.phase = phase

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

    def drain(self, end: float, grace: float, idle: float = 0.0) -> Drain:
        self.draining.cancel()
        return Drain(self.ledger, 200.0, Limit(end, grace), idle)

    def leave(self, served: Served, outcome: Outcome) -> None:
        self.ledger.settle(served, outcome, ending="closed")
        served.left = True

    def report(self, drain: Drain, now: float) -> hs.DrainReport:
        return drain.report(
            now, reason="r", unaccepted=0, look=lambda runner: (str(runner), "the stack")
        )


def test_a_drain_goes_through_its_phases_by_the_clock() -> None:
    stage = Stage()
    quiet, busy = stage.connection(), stage.connection()
    fake: Any = quiet.conn
    drain = stage.drain(end=210.0, grace=4.0)

    turn = drain.step(200.0)
    assert turn == Actions([(busy, 1.0), (quiet, 1.0)], [], [], [], pytest.approx(0.02))
    fake._marks = 16
    turn = drain.step(200.02)
    assert (turn.last, [s for s, _ in turn.cancel], turn.close, turn.abort) == ([], [quiet], [], [])
    assert quiet.ended_by is Outcome.IDLE
    turn = drain.step(200.04)
    assert turn[:4] == ([], [], [quiet], []), "it did not leave by itself"
    stage.leave(quiet, Outcome.IDLE)
    assert drain.step(205.995).wait == pytest.approx(0.005), "never past the next phase"

    turn = drain.step(206.0)
    assert [s for s, _ in turn.cancel] == [busy]
    assert busy.ended_by is Outcome.CANCELLED
    turn = drain.step(209.0)
    assert turn[:4] == ([], [], [], [busy])
    assert turn.wait == pytest.approx(1.0), "its handler may still leave"
    assert drain.step(210.0).wait is None

    report = stage.report(drain, 210.0)
    assert (report.idle_closed, report.cancelled, report.aborted) == (1, 0, 1)
    assert (report.elapsed, report.running, report.clean) == (10.0, 1, False)
    (cut,) = report.cut
    assert cut == ("peer", "aborted", "handler", 110.0, 7, 8, True, "runner", "the stack")
    assert "runner still runs its handler:\nthe stack" in str(report)


def test_quiet_connections_stay_for_a_while_in_a_drain() -> None:
    stage = Stage()
    served = stage.connection()
    drain = stage.drain(end=210.0, grace=1.0, idle=0.51)
    turn = drain.step(200.0)
    assert turn[:4] == ([], [], [], [])
    assert drain.step(200.5).wait == pytest.approx(0.01), "never past the end of it"
    late = stage.connection()
    assert drain.step(200.52).last == [(late, 1.0), (served, 1.0)], "all at once, newcomers too"
    assert drain.step(200.53).last == []


@pytest.mark.parametrize("sooner", ["room", "tighten", "cut"])
def test_what_ends_the_stay_of_quiet_connections_early(sooner: str) -> None:
    stage = Stage()
    served = stage.connection()
    drain = stage.drain(end=202.0 if sooner == "cut" else 300.0, grace=1.0, idle=50.0)
    assert drain.step(200.0).last == []
    if sooner == "room":
        drain.make_room()
    elif sooner == "tighten":
        drain.tighten(Limit(200.0, 0.0))
    assert drain.step(201.0).last[0] == (served, 1.0)


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


def test_each_connection_is_told_once_that_no_more_is_expected() -> None:
    stage = Stage()
    first, waiting = stage.connection(), stage.connection(waiting=True)
    drain = stage.drain(end=210.0, grace=1.0)
    assert {served for served, _ in drain.step(200.0).last} == {first, waiting}
    late, gone = stage.connection(), stage.connection()
    stage.leave(gone, Outcome.COMPLETED)
    assert {served for served, _ in drain.step(200.1).last} >= {late}
    assert drain.step(200.2).last == []


def test_who_is_quiet_when_time_is_up_ends_by_that_and_not_by_the_cut() -> None:
    """A request that comes at this moment is either served, or its connection is in the report."""
    stage = Stage()
    quiet, asked = stage.connection(idle=True), stage.connection(idle=True)
    lingering = stage.connection(idle=True)
    stage.ledger.linger(lingering, Outcome.COMPLETED)
    drain = stage.drain(end=210.0, grace=10.0)
    turn = drain.step(200.0)
    assert turn.last[-2:] == [(quiet, 0.0), (asked, 0.0)]
    assert (turn.cancel, turn.close) == ([], [lingering])
    fakes: list[Any] = [quiet.conn, asked.conn]
    fakes[0]._marks, fakes[1].idle = 16, False
    turn = drain.step(200.02)
    assert turn.last == []
    assert [served for served, _ in turn.cancel] == [quiet, asked]
    assert (quiet.ended_by, asked.ended_by) == (Outcome.IDLE, Outcome.CANCELLED)


@pytest.mark.parametrize("failing", range(4))
def test_a_step_without_memory_is_said_again(failing: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that are settled already are not found again, and have to be aborted all the same."""
    stage = Stage()
    all_of_them = [stage.connection() for _ in range(4)]
    drain = stage.drain(end=210.0, grace=4.0)
    settle, calls = stage.ledger.settle, 0

    def settle_or_fail(*args: Any, **kwargs: Any) -> bool:
        nonlocal calls
        calls += 1
        if calls == failing + 1:
            raise MemoryError
        return settle(*args, **kwargs)

    monkeypatch.setattr(stage.ledger, "settle", settle_or_fail)
    with pytest.raises(MemoryError):
        drain.step(209.5)
    drain.forget_what_was_said()
    turn = drain.step(209.52)
    assert set(turn.abort) == set(all_of_them)
    drain.forget_what_was_said()  # Doing it failed.
    assert set(drain.step(209.54).abort) == set(all_of_them)
    assert drain.step(209.56).abort == []
    assert stage.report(drain, 210.0).aborted == 4


def test_looks_are_not_more_frequent_than_needed() -> None:
    stage = Stage()
    stage.connection()
    drain = stage.drain(end=210.0, grace=10.0)
    assert len(drain.step(200.0).cancel) == 1
    stage.connection()
    assert drain.step(200.001).cancel == []
    assert len(drain.step(200.02).cancel) == 1


def test_a_turn_does_what_it_says() -> None:
    stage = Stage()
    one, two = stage.connection(), stage.connection()
    Actions([(two, 2.5)], [(one, "because")], [one], [two], None).perform()
    assert one.token.reason == "because"
    fakes: list[Any] = [one.conn, two.conn]
    assert [fake.done for fake in fakes] == [["close"], ["first within 2.5", "abort"]]


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
        (None, _error(hs.Cancelled, "drain"), False, (Outcome.TOLD, End.CLOSE, None)),
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


@pytest.mark.parametrize(
    ("marks", "want"), [(0, Outcome.TOLD), (8, Outcome.IDLE_TIMEOUT), (16, Outcome.IDLE)]
)
def test_an_answer_that_is_on_its_way_is_never_followed_by_a_reset(
    marks: int, want: Outcome
) -> None:
    stage = Stage()
    served = stage.connection()
    fake: Any = served.conn
    fake._marks = marks
    stage.draining.cancel("drain")
    for settled, end in ((True, End.CLOSE), (False, End.FINISH)):
        fake._settled = settled
        verdict = judge(
            served,
            _error(hs.Cancelled, "drain"),
            server=stage.server,
            draining=stage.draining,
            seldom=stage.seldom,
        )
        assert verdict == (want, end, None)


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
