"""The guard itself: looks now and then, has its rules decide, does what they say, tells it all."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING
from weakref import WeakSet

from hardsock import _core
from hardsock._options import _check_seconds
from hardsock.guard.actions import Action, Call, CloseIdle, Diagnose
from hardsock.guard.audit import Audit
from hardsock.guard.engine import Decision, Engine, Kind
from hardsock.guard.explain import explain
from hardsock.guard.rules import Rule
from hardsock.guard.scopes import Asked, Scope, Seen, scope_of

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Guard", "living_guards"]

logger = logging.getLogger("hardsock.guard")

_PATIENCE = 5.0
"""Seconds after which one that was asked to end, and has not, is left alone."""

_living: WeakSet[Guard] = WeakSet()


def _after_fork() -> None:
    for one in list(_living):
        one._begin_anew()


os.register_at_fork(after_in_child=_after_fork)


def living_guards() -> list[Guard]:
    """All guards of this process, for those who collect figures."""
    return list(_living)


class Guard:
    """Looks at connections by rules, and closes idle ones or diagnoses when they say so.

    It only says what it would do unless *enforce* is given::

        with hs.Guard(server, hs.guard.Rule(
            "too many",
            when=hs.guard.connections_share > 0.9, clear=0.75, for_=30,
            then=[hs.guard.CloseIdle(over=60, at_most=0.05, per=60), hs.guard.Diagnose()],
        )) as guard:
            ...
            print(guard.explain())

    A connection that is lent, in use, young, owed an answer, or has bytes under way is never
    closed. Each victim is looked at again in C in the moment of the act: a call that waits for a
    message on it asks the kernel last and ends by itself, as after an ``idle_timeout``.

    An exception in the guard, which includes what a function of ``Call`` raises, disarms it: what
    lasts is taken back, and the logger ``hardsock.guard`` has it as an error. The program goes on.

    Args:
        watched: A Server, a Listener, a Pool, ``guard.Foreign``, or None for all of this process.
        rules: The rules. All are looked at each time, in their order.
        enforce: Whether to act. False: a dry run, whose log says what would be done.
        every: Seconds between two looks.
        log: Called with each decision as a line of JSON; None: the logger ``hardsock.guard``.
        limit: What shares are of; by default that of the server or pool.
        name: For the log.

    Raises:
        ValueError, TypeError: A parameter is wrong, or an action cannot be taken on *watched*.
    """

    def __init__(
        self,
        watched: object,
        *rules: Rule,
        enforce: bool = False,
        every: float = 5.0,
        log: Callable[[str], object] | None = None,
        limit: int | None = None,
        name: str = "guard",
    ) -> None:
        if not rules:
            raise ValueError("a guard needs at least one rule")
        for rule in rules:
            if not isinstance(rule, Rule):
                raise TypeError(f"rules must be Rule, not {type(rule).__name__}")
        if not isinstance(enforce, bool):
            raise TypeError(f"enforce must be a bool, not {type(enforce).__name__}")
        if every is None:
            raise TypeError("every must be a number of seconds, not None")
        _check_seconds("every", every, 0.01)
        if log is not None and not callable(log):
            raise TypeError(f"log must be callable or None, not {type(log).__name__}")
        self.name = name
        self.rules = rules
        self.enforce = enforce
        self.every = every
        self._scope: Scope = scope_of(watched, limit)
        for rule in rules:
            _check_actions(rule, self._scope, watched)
        self._audit = Audit(name, log)
        self._lock = threading.RLock()
        self._engine = Engine(rules)
        self._asked: list[_Pending] = []  # guarded by lock
        self._ending: set[int] = set()  # guarded by lock; asked, or closed and still seen
        self._lasts: list[tuple[Rule, Action]] = []  # guarded by lock; what has begun
        self._ends = 0  # guarded by lock; how often what lasts was taken back
        self._seen: Seen | None = None  # guarded by lock
        self._failure: BaseException | None = None
        self._thread: threading.Thread | None = None
        self._stopping = threading.Event()
        self._pid = os.getpid()
        _living.add(self)

    # ---- life --------------------------------------------------------------------------------

    def start(self) -> None:
        """Look every so many seconds from now on, in a thread; also again after it was disarmed.

        Raises:
            RuntimeError: It is running.
        """
        with self._lock:
            if self.running:
                raise RuntimeError(f"the guard {self.name!r} is running")
            self._failure = None
            self._engine = Engine(self.rules)
            self._stopping = threading.Event()
            self._pid = os.getpid()
            self._thread = threading.Thread(
                target=self._run, args=(self._stopping,), name=f"hardsock-{self.name}", daemon=True
            )
            _core._guard_runs(True)  # Its thread takes it back.
            try:
                self._thread.start()
            except BaseException:
                _core._guard_runs(False)
                raise

    def stop(self) -> None:
        """Look no more, and take back what lasts. Waits for a look that is under way."""
        self._stopping.set()
        thread, self._thread = self._thread, None
        if thread is not None and thread is not threading.current_thread():
            thread.join()
        with self._lock:
            try:
                self._take_back()
            except Exception as exc:
                self._disarm(exc)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def running(self) -> bool:
        """Whether its thread looks. A forked child has none."""
        return self._thread is not None and self._thread.is_alive() and self._pid == os.getpid()

    @property
    def failure(self) -> BaseException | None:
        """What has disarmed it, or None."""
        return self._failure

    def _run(self, stopping: threading.Event) -> None:
        pid = os.getpid()
        try:
            while not stopping.is_set() and self._failure is None and os.getpid() == pid:
                self.tick()
                if os.getpid() == pid:
                    stopping.wait(self.every)
        finally:
            # A function of ``Call`` may have forked. The child's guards are not this thread's.
            if os.getpid() == pid:
                _core._guard_runs(False)

    def _begin_anew(self) -> None:
        """In a forked child: the lock may be held by a thread that is not there, and what lasts is
        the parent's to take back: the sockets are the same."""
        self._ends += 1  # Of a look whose function has forked: in the child nothing more begins.
        self._lock = threading.RLock()
        self._engine = Engine(self.rules)
        self._asked, self._ending, self._lasts = [], set(), []
        self._scope.forget()
        self._thread = None
        self._stopping = threading.Event()

    # ---- looking -----------------------------------------------------------------------------

    def tick(self) -> None:
        """Look once, and act: what the thread does. Does nothing once it is disarmed."""
        with self._lock:
            if self._failure is not None:
                return
            try:
                self._tick(time.monotonic())
            except Exception as exc:
                self._disarm(exc)

    def _tick(self, now: float) -> None:
        self._settle(False)
        seen, ends = self._scope.look(now), self._ends
        self._seen = seen
        self._ending.intersection_update(one.id for one in seen.connections)
        for decision in self._engine.step(now, seen.figures, seen.connections, self._ending):
            self._do(decision, seen)
            if self._ends != ends:
                return  # Its function of ``Call`` has stopped it: nothing more may begin.
        if self.enforce:
            self._keep(seen)

    def _do(self, decision: Decision, seen: Seen) -> None:
        rule, action = decision.rule.name, decision.action
        if decision.kind in (Kind.ARMED, Kind.CLEARED):
            figures = {one.quantity: seen.figures.get(one.quantity) for one in decision.rule.when}
            self._audit.tell(rule, "rule", decision.kind, {"figures": figures})
        elif decision.kind == Kind.CLOSE:
            self._close(decision)
        elif decision.kind == Kind.OVER_BUDGET:
            self._audit.tell(rule, _name(action), "over budget", {}, decision.number)
        elif isinstance(action, Diagnose):
            self._audit.tell(rule, _name(action), "done", self._scope.diagnose())
        elif isinstance(action, Call):
            if self.enforce:
                action.function(rule, dict(seen.figures))
            self._audit.tell(rule, _name(action), "done" if self.enforce else "would call", {})
        else:
            self._change(decision)

    def _change(self, decision: Decision) -> None:
        """An action that lasts: from now on, or not any more."""
        rule, action = decision.rule.name, decision.action
        assert action is not None
        if not self.enforce:
            self._audit.tell(rule, _name(action), f"would {decision.kind}", {})
            return
        if decision.kind == Kind.BEGIN:
            details = self._scope.begin(action)
            self._lasts.append((decision.rule, action))
        elif self._has_begun(decision):
            details = self._scope.end(action)
        else:
            return
        self._audit.tell(rule, _name(action), decision.kind, details)

    def _has_begun(self, decision: Decision) -> bool:
        """Whether there is something to take back, from now on not any more."""
        for at, (rule, action) in enumerate(self._lasts):
            if rule is decision.rule and action is decision.action:
                del self._lasts[at]
                return True
        return False

    def _keep(self, seen: Seen) -> None:
        for state in self._engine.states:
            for action in state.rule.then if state.on else ():
                if (number := self._scope.keep(action, seen)) > 0:
                    self._audit.tell(state.rule.name, _name(action), "applied", {}, number)

    # ---- closing -----------------------------------------------------------------------------

    def _close(self, decision: Decision) -> None:
        victim, action, rule = decision.victim, decision.action, decision.rule.name
        assert victim is not None
        assert isinstance(action, CloseIdle)
        details: dict[str, object] = {
            "connection": victim.id,
            "peer": victim.peer,
            "age": round(victim.age, 3),
            "idle": round(victim.idle, 3),
        }
        if not self.enforce:
            self._audit.tell(rule, _name(action), "would close", details)
            return
        asked = self._scope.retire(victim, action.over, action.young)
        if asked.idle is not None:
            details["idle"] = round(asked.idle, 3)
        if asked.outcome in ("asked", "closed"):
            self._ending.add(victim.id)
        if asked.outcome == "asked":
            self._asked.append(_Pending(rule, _name(action), victim.id, asked, details))
        else:
            self._tell_outcome(rule, _name(action), asked.outcome, details)

    def _tell_outcome(
        self, rule: str, action: str, outcome: str, details: dict[str, object]
    ) -> None:
        if outcome not in ("closed", "gone"):
            details = {**details, "why": outcome}
            outcome = "spared"
        self._audit.tell(rule, action, outcome, details)

    def _settle(self, last: bool) -> None:
        """Find out what those have done that were asked to end."""
        left = []
        for one in self._asked:
            late = time.monotonic() - one.since > _PATIENCE
            outcome = self._scope.outcome_of(one.asked, last or late)
            if outcome == "asked":
                left.append(one)
            else:
                if outcome != "closed":
                    self._ending.discard(one.ident)
                why = "busy" if outcome == "spared" else outcome
                self._tell_outcome(one.rule, one.action, why, one.details)
        self._asked = left

    # ---- ends --------------------------------------------------------------------------------

    def _take_back(self) -> None:
        self._ends += 1
        self._settle(True)
        for decision in self._engine.end():
            if decision.kind == Kind.END:
                self._change(decision)
            else:
                self._audit.tell(decision.rule.name, "rule", "stopped", {})

    def _disarm(self, exc: BaseException) -> None:
        """It is broken, so it does nothing any more; whatever can be taken back is."""
        first, self._failure = self._failure is None, exc
        if not first:
            return
        logger.critical(
            "the guard %r is disarmed: it failed, and does nothing any more",
            self.name,
            exc_info=exc,
        )
        exc.__traceback__ = None  # Its frames would be kept for as long as the guard is.
        error = f"{type(exc).__name__}: {exc}"
        self._try("write its log", self._audit.tell, "", "guard", "disarmed", {"error": error})
        asked, self._asked = self._asked, []
        for one in asked:
            self._ending.discard(one.ident)
            self._try("leave one alone", self._scope.outcome_of, one.asked, True)
        self._engine.end()
        lasts, self._lasts = self._lasts, []  # Whatever the engine thinks: a step may be half done.
        for _, action in lasts:
            self._try(f"take {_name(action)} back", self._scope.end, action)

    def _try(self, what: str, function: Callable[..., object], *args: object) -> None:
        try:
            function(*args)
        except Exception:
            logger.critical("the guard %r could not %s", self.name, what, exc_info=True)

    # ---- telling -----------------------------------------------------------------------------

    def explain(self) -> str:
        """Say how each rule stands, and what it would do in how long. Looks, and does nothing."""
        with self._lock:
            now = time.monotonic()
            seen = self._seen if self._failure is not None else self._scope.look(now)
            return explain(self, now, seen)

    def counters(self) -> list[tuple[str, str, str, int]]:
        """How often it has decided what: rule, action, outcome, number; since it was made."""
        with self._lock:
            return [(*key, n) for key, n in sorted(self._audit.counts.items())]

    def armed(self) -> dict[str, bool]:
        """Which rules have set in, by name."""
        with self._lock:
            return {state.rule.name: state.on for state in self._engine.states}

    def __repr__(self) -> str:
        mode = "enforcing" if self.enforce else "dry run"
        state = "disarmed" if self._failure else "running" if self.running else "stopped"
        return f"<hardsock.Guard {self.name!r} {state}, {mode}, {len(self.rules)} rules>"


class _Pending:
    """One that was asked to end."""

    __slots__ = ("action", "asked", "details", "ident", "rule", "since")

    def __init__(
        self, rule: str, action: str, ident: int, asked: Asked, details: dict[str, object]
    ) -> None:
        self.rule, self.action, self.ident = rule, action, ident
        self.asked, self.details = asked, details
        self.since = time.monotonic()


def _name(action: Action | None) -> str:
    return "" if action is None else type(action).__name__


def _check_actions(rule: Rule, scope: Scope, watched: object) -> None:
    for action in rule.then:
        if not isinstance(action, (CloseIdle, Diagnose, Call, *scope.lasting)):
            what = "a whole process" if watched is None else type(watched).__name__
            raise TypeError(f"rule {rule.name!r}: {_name(action)} cannot be done to {what}")
