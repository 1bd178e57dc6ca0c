"""CancelToken: reasons, deadlines, trees, callbacks, descriptors."""

from __future__ import annotations

import gc
import select
import threading
import time
import weakref

import pytest

import hardsock as hs
from hardsock.lab.threads import Call, run_threaded


def test_a_fresh_token_is_live() -> None:
    token = hs.CancelToken(name="request")
    assert (token.cancelled, token.reason, token.deadline, token.remaining) == (
        False,
        None,
        None,
        None,
    )
    assert "request live" in repr(token)
    token.check()


def test_cancel_is_sticky_and_the_first_reason_wins() -> None:
    token = hs.CancelToken()
    assert token.cancel("first") is True
    assert token.cancel("second") is False
    assert token.reason == "first"
    with pytest.raises(hs.Cancelled) as caught:
        token.check()
    assert caught.value.reason == "first"


def test_a_child_ends_with_its_parent_but_not_the_reverse() -> None:
    parent = hs.CancelToken()
    child = parent.child()
    other = parent.child()
    other.cancel("only me")
    assert not parent.cancelled
    parent.cancel("all")
    assert (child.reason, other.reason) == ("all", "only me")


def test_the_causing_exception_is_chained_through_generations() -> None:
    parent = hs.CancelToken()
    grandchild = parent.child().child()
    cause = RuntimeError("disk full")
    parent.cancel(cause)
    del parent
    with pytest.raises(hs.Cancelled) as caught:
        grandchild.check()
    assert caught.value.__cause__ is cause
    assert caught.value.reason == "disk full"


def test_a_linked_token_ends_with_any_of_its_parents() -> None:
    tokens = [hs.CancelToken() for _ in range(3)]
    linked = hs.CancelToken.linked(tokens)
    tokens[1].cancel("second of three")
    assert linked.reason == "second of three"


def test_too_many_parents_are_refused() -> None:
    with pytest.raises(ValueError, match="at most 16, got 17"):
        hs.CancelToken.linked([hs.CancelToken() for _ in range(17)])


def test_a_deadline_needs_nobody_to_act() -> None:
    token = hs.CancelToken(0.02, name="short")
    child = token.child()
    assert child.wait(30) is True
    with pytest.raises(hs.DeadlineExceeded) as caught:
        child.check()
    assert caught.value.reason == "short"
    assert isinstance(caught.value, TimeoutError)


def test_the_earliest_deadline_on_the_way_up_counts() -> None:
    parent = hs.CancelToken(10)
    assert parent.child(100).deadline == parent.deadline
    early = parent.child(5)
    assert early.deadline is not None
    assert parent.deadline is not None
    assert early.deadline < parent.deadline
    assert 4 < (early.remaining or 0) <= 5


def test_moving_a_deadline_wakes_who_waits_under_it() -> None:
    parent = hs.CancelToken(60)
    child = parent.child()
    with Call(child.wait, 30) as waiting:
        waiting.wait_until_blocked()
        parent.set_timeout(0)
        assert waiting.result(30) is True


def test_an_ended_token_cannot_be_revived() -> None:
    token = hs.CancelToken(0)
    assert token.cancelled
    with pytest.raises(hs.DeadlineExceeded):
        token.set_timeout(10)
    assert token.cancelled


def test_wait_says_false_when_the_token_lives_on() -> None:
    assert hs.CancelToken().wait(0) is False
    assert hs.CancelToken().wait(0.01) is False


def test_cancel_wakes_a_waiting_thread() -> None:
    token = hs.CancelToken()
    with Call(token.wait, 30) as waiting:
        waiting.wait_until_blocked()
        token.cancel()
        assert waiting.result(30) is True


def test_callbacks_run_once_in_the_cancelling_thread() -> None:
    parent = hs.CancelToken()
    child = parent.child()
    seen: list[int] = []
    child.on_cancel(lambda: seen.append(threading.get_ident()))
    parent.cancel()
    child.cancel()
    assert seen == [threading.get_ident()]


def test_a_callback_on_an_ended_token_runs_at_once() -> None:
    token = hs.CancelToken()
    token.cancel()
    seen: list[str] = []
    token.on_cancel(lambda: seen.append("ran")).remove()
    assert seen == ["ran"]


def test_a_removed_callback_does_not_run() -> None:
    token = hs.CancelToken()
    seen: list[int] = []
    callback = token.on_cancel(lambda: seen.append(1))
    callback.remove()
    callback.remove()
    token.cancel()
    assert seen == []


def test_removing_waits_for_a_running_callback() -> None:
    token = hs.CancelToken()
    started, go = threading.Event(), threading.Event()
    order: list[str] = []

    def slow() -> None:
        started.set()
        go.wait(60)
        order.append("callback")

    callback = token.on_cancel(slow)

    def remove() -> None:
        callback.remove()
        order.append("removed")

    with Call(token.cancel) as cancelling:
        assert started.wait(30)
        with Call(remove) as removing:
            removing.wait_until_blocked()
            assert order == []
            go.set()
            removing.result(30)
        cancelling.result(30)
    assert order == ["callback", "removed"]


def test_a_callback_may_remove_itself() -> None:
    token = hs.CancelToken()
    holder: list[hs.Callback] = []
    holder.append(token.on_cancel(lambda: holder[0].remove()))
    token.cancel()


@pytest.mark.may_leave(
    "the thread that watches deadlines lives as long as the process",
    fds=["anon_inode:*"],
    threads=["*"],
)
def test_a_callback_runs_when_a_deadline_passes() -> None:
    token = hs.CancelToken()
    done = threading.Event()
    token.on_cancel(done.set)
    token.set_timeout(0.05)
    assert done.wait(30)
    assert isinstance(token.reason, str)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_failing_callback_is_reported_and_the_others_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reported: list[object] = []
    monkeypatch.setattr("sys.unraisablehook", lambda args: reported.append(args.exc_value))
    token = hs.CancelToken()
    seen: list[int] = []
    token.on_cancel(lambda: 1 // 0)
    token.on_cancel(lambda: seen.append(1))
    token.cancel()
    assert seen == [1]
    assert isinstance(reported[0], ZeroDivisionError)
    reported.clear()


def test_a_dropped_token_drops_its_callbacks() -> None:
    class Callable:
        def __call__(self) -> None:
            raise AssertionError("must not run")

    callback = Callable()
    alive = weakref.ref(callback)
    token = hs.CancelToken()
    token.on_cancel(callback)
    del callback, token
    gc.collect()
    assert alive() is None


def test_fileno_turns_readable_by_cancel_and_by_deadline() -> None:
    for token in (hs.CancelToken(), hs.CancelToken(0.03)):
        poller = select.poll()
        poller.register(token.fileno(), select.POLLIN)
        assert token.fileno() == token.fileno()
        if token.deadline is None:
            assert poller.poll(0) == []
            token.cancel()
        assert len(poller.poll(5000)) == 1
        assert len(poller.poll(0)) == 1, "it must stay readable"


def test_fileno_follows_the_deadline_of_an_ancestor() -> None:
    parent = hs.CancelToken(60)
    poller = select.poll()
    child = parent.child()
    poller.register(child.fileno(), select.POLLIN)
    assert poller.poll(0) == []
    parent.set_timeout(0.02)
    assert len(poller.poll(5000)) == 1


def test_cancelling_100_000_children_reaches_every_one() -> None:
    parent = hs.CancelToken()
    children = [parent.child() for _ in range(100_000)]
    ran: list[int] = []
    children[-1].on_cancel(lambda: ran.append(1))
    parent.cancel("shutdown")
    assert all(child.cancelled for child in children)
    assert ran == [1]


def test_a_chain_of_100_000_descendants_neither_recurses_nor_leaks() -> None:
    token = root = hs.CancelToken()
    for _ in range(100_000):
        token = token.child()
    root.cancel("root")
    assert token.reason == "root"
    # Unwinding a chain of objects is Python's business; keep it off the C stack.
    del root
    gc.collect()


def test_many_threads_cancel_one_tree_and_one_reason_wins() -> None:
    for _ in range(50):
        root = hs.CancelToken()
        leaves = [root.child() for _ in range(8)]
        won = run_threaded(lambda i, t=root: t.cancel(f"thread {i}"), 4)
        assert won.count(True) == 1
        assert {leaf.reason for leaf in leaves} == {f"thread {won.index(True)}"}


@pytest.mark.parametrize("bad", [-1, float("nan")])
def test_a_senseless_timeout_is_refused(bad: float) -> None:
    with pytest.raises(ValueError, match="timeout must be a non-negative number of seconds"):
        hs.CancelToken(bad)


@pytest.mark.parametrize("bad", [True, "5", b"5", object()])
def test_a_timeout_of_the_wrong_kind_is_refused(bad: object) -> None:
    with pytest.raises(TypeError, match="timeout must be a number of seconds or None"):
        hs.CancelToken(bad)  # type: ignore[arg-type]


def test_an_infinite_timeout_is_no_timeout() -> None:
    assert hs.CancelToken(float("inf")).deadline is None
    assert hs.CancelToken(10**400).deadline is None


def test_bad_arguments_name_the_parameter() -> None:
    token = hs.CancelToken()
    with pytest.raises(TypeError, match="reason must be a str, an exception or None"):
        token.cancel(5)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="callback must be callable"):
        token.on_cancel(5)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="token must be a CancelToken"):
        hs.CancelToken.linked([token, 5])  # type: ignore[list-item]
    with pytest.raises(TypeError, match="unexpected keyword argument 'limit'"):
        hs.CancelToken(limit=1)  # type: ignore[call-arg]
    assert not token.cancelled


def test_deadlines_are_on_the_clock_of_time_monotonic() -> None:
    before = time.monotonic()
    deadline = hs.CancelToken(5).deadline
    assert deadline is not None
    assert before + 5 <= deadline <= time.monotonic() + 5


def test_a_losing_cancel_leaves_no_cause_behind() -> None:
    token = hs.CancelToken()
    token.cancel("first")
    token.cancel(ValueError("second"))
    with pytest.raises(hs.Cancelled) as caught:
        token.check()
    assert caught.value.reason == "first"
    assert caught.value.__cause__ is None


def test_a_cause_that_refers_to_its_token_is_collected() -> None:
    before = _live_tokens()
    for _ in range(100):
        token = hs.CancelToken()
        try:
            raise RuntimeError("boom")
        except RuntimeError as exc:
            token.cancel(exc)  # exception -> traceback -> this frame -> token -> exception
    del token
    gc.collect()
    assert _live_tokens() <= before + 1


def test_a_callback_that_refers_to_its_token_is_collected() -> None:
    class Owner:
        def __init__(self) -> None:
            self.token = hs.CancelToken()
            self.callback = self.token.on_cancel(self.close)

        def close(self) -> None:
            raise AssertionError("must not run")

    before = _live_tokens()
    for _ in range(100):
        Owner()
    gc.collect()
    assert _live_tokens() == before


def _live_tokens() -> int:
    from hardsock import _core

    return _core._live()["tokens"]


def test_moving_a_deadline_does_not_make_fileno_readable() -> None:
    parent = hs.CancelToken(60)
    child = parent.child()
    poller = select.poll()
    poller.register(child.fileno(), select.POLLIN)
    parent.set_timeout(100)
    child.set_timeout(50)
    parent.set_timeout(None)
    assert poller.poll(0) == []
    assert not child.cancelled


@pytest.mark.may_leave(
    "the thread that watches deadlines lives as long as the process",
    fds=["anon_inode:*"],
    threads=["*"],
)
def test_a_callback_runs_for_a_deadline_that_was_set_later_and_above() -> None:
    parent = hs.CancelToken()
    child = parent.child()
    done = threading.Event()
    child.on_cancel(done.set)
    parent.set_timeout(0.02)
    assert done.wait(30)


def test_linking_without_end_is_refused() -> None:
    token = hs.CancelToken()
    with pytest.raises(ValueError, match="linked too often"):
        for _ in range(20):
            token = hs.CancelToken.linked([token, token])
    token.check()


def test_threads_that_move_and_cancel_one_tree_do_no_harm() -> None:
    for _ in range(20):
        root = hs.CancelToken(60)
        kept = [root.child() for _ in range(20)]

        def churn(i: int, root: hs.CancelToken = root) -> None:
            for n in range(50):
                child = root.child()
                if n == 40 and i == 0:
                    root.cancel("end")
                try:
                    root.set_timeout(60 + n)
                except hs.Cancelled:
                    pass
                del child

        run_threaded(churn, 4)
        assert {child.reason for child in kept} == {"end"}
