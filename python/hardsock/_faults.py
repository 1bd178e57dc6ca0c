"""Faults on demand: calls of hardsock's core that fail when a test says so."""

from __future__ import annotations

import os
from types import TracebackType

from hardsock import _core

__all__ = ["Faults", "faults"]

_VARIABLE = "HARDSOCK_FAULTS"
_KEPT = 4096  # HS_FAULTS_LOGGED
_IN_A_NOTE = 20


class Faults:
    """What `faults` returns: a context manager, and what has happened in it. One at a time in a
    process; any thread may read it."""

    def __init__(self, spec: str) -> None:
        self._asked = spec
        self._id: int | None = None
        self._first = 0
        self._last: int | None = None
        self._plan: tuple[int, dict[str, int]] = (0, {})

    def __enter__(self) -> Faults:
        if self._id is not None:
            raise RuntimeError("these faults are in force already, or were")
        self._id = _core._faults_begin(self._asked)
        self._first = _core._faults_logged()
        return self

    def __exit__(
        self,
        _exc_type: type[BaseException] | None,
        exc: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        if self._id is None:
            return
        self._look()
        self._last = _core._faults_logged()
        _core._faults_end(self._id)
        if exc is not None and hasattr(exc, "add_note"):  # Python 3.11
            exc.add_note(str(self))

    def _look(self) -> tuple[int, dict[str, int]]:
        plan = None if self._id is None else _core._faults_plan(self._id)
        if plan is not None:
            self._plan = plan
        return self._plan

    def _end(self) -> int:
        return _core._faults_logged() if self._last is None else self._last

    @property
    def spec(self) -> str:
        """What was asked for, with the seed: given again it does the same again."""
        parts = [part for part in self._asked.split(",") if not part.startswith("seed=")]
        return ",".join([f"seed={self.seed}", *parts])

    @property
    def seed(self) -> int:
        """The given one, or the one that was drawn."""
        return self._look()[0]

    @property
    def calls(self) -> dict[str, int]:
        """How many calls of each kind there were, those that failed among them."""
        return self._look()[1]

    @property
    def count(self) -> int:
        """How many faults there were."""
        return self._end() - self._first

    @property
    def log(self) -> list[str]:
        """The faults in their order, the last 4,096 of them: ``["recv.short@3", "send.reset@120"]``.

        Joined by commas they are a spec in which these calls fail, and no other, without a seed.
        """
        numbers = range(max(self._first, self._end() - _KEPT) + 1, self._end() + 1)
        return [text for text in map(_core._faults_log, numbers) if text is not None]

    def __str__(self) -> str:
        log = self.log
        shown = ",".join(log[-_IN_A_NOTE:])
        more = f"the last {_IN_A_NOTE} of {self.count}: " if len(log) > _IN_A_NOTE else ""
        return f"hardsock faults: {self.spec}; happened: {more}{shown or 'none'}"


def faults(spec: str, /) -> Faults:
    """Make calls of hardsock's core fail while a block runs, in all threads of the process.

    ::

        with hs.faults("seed=7,recv.short=0.2,send.reset@120") as faults:
            talk_to_the_server()
        print(faults.log)  # ["recv.short@23", "recv.short@25", ...]

    A spec has parts, divided by commas: ``CALL.KIND=CHANCE`` (0 to 1, of every call),
    ``CALL.KIND@NUMBER`` (that call alone, ``@120-130`` or ``@120-``), both together, ``seed=N`` and
    ``log=FILE``. Calls are numbered from 1 on, each kind by itself, from where the block begins.
    Whether a call fails depends on the seed and its number only: the same spec lets the same numbers
    fail again. Without a seed one is drawn; an exception that leaves the block has a note with it
    (Python 3.11). docs/faults.md has the calls and their kinds.

    Blocks may lie in one another, 8 deep; the inner one is in force, the outer one goes on after it.

    Args:
        spec: What is to fail.

    Raises:
        ValueError: The spec is wrong, or its file cannot be written to; on entering the block. The
            message names the part. HardsockError: 8 blocks are in force.
    """
    return Faults(spec)


def by_environment() -> None:
    """``HARDSOCK_FAULTS=SPEC``: for the whole process, from the import on."""
    spec = os.environ.get(_VARIABLE, "")
    if not spec:
        return
    try:
        _core._faults_begin(spec)
    except ValueError as exc:
        raise ValueError(f"{_VARIABLE}: {exc}") from None
