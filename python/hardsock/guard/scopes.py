"""What a guard watches, as this process has it: a server, a listener, a pool, or all of it."""

from __future__ import annotations

import contextlib
import sys
import time
import traceback
from collections import Counter, deque
from typing import Any, NamedTuple

from hardsock import _core
from hardsock._core import Connection, Listener
from hardsock._observe import report
from hardsock.guard.actions import Action, RefuseNew, ShortenTimeouts, UserTimeout
from hardsock.guard.engine import Candidate
from hardsock.guard.user_timeouts import user_timeouts
from hardsock.pool.pool import Pool
from hardsock.serving.core import ServerCore

__all__ = ["Asked", "Process", "Scope", "Seen", "scope_of"]

_GROWTH_SECONDS = 60.0
_PEOPLE = 20
_FRAMES = 12


class Seen(NamedTuple):
    """One look."""

    figures: dict[str, float | None]
    connections: list[Candidate]


class Asked(NamedTuple):
    """What came of asking one connection to end."""

    outcome: str
    """``"closed"``, ``"asked"``, ``"gone"``, or why it was spared."""
    idle: float | None
    """Seconds, in the moment of the act."""
    token: object = None
    """For ``outcome_of``, if it was asked."""


class Scope:
    """What a guard needs of what it watches."""

    lasting: tuple[type[Action], ...] = ()
    """The actions that it can take for as long as a rule lasts."""
    limit: int | None = None

    def look(self, now: float) -> Seen:
        """Read the figures and all connections."""
        raise NotImplementedError

    def retire(self, victim: Candidate, over: float, young: float) -> Asked:
        """End it if it is still idle."""
        raise NotImplementedError

    def outcome_of(self, asked: Asked, give_up: bool) -> str:
        """What became of one that was asked."""
        raise NotImplementedError

    def begin(self, action: Action) -> dict[str, object]:
        """Take an action that lasts. Returns what to write down."""
        raise NotImplementedError

    def keep(self, action: Action, seen: Seen) -> int:
        """The same for what has come since; how much that was."""
        return 0

    def end(self, action: Action) -> dict[str, object]:
        """Take back what the action has begun, once no other rule wants it."""
        raise NotImplementedError

    def forget(self) -> None:
        """In a forked child: what lasts is the parent's."""

    def diagnose(self) -> dict[str, object]:
        """Say who holds and who waits."""
        raise NotImplementedError


def scope_of(watched: object, limit: int | None) -> Scope:
    """Return the scope for what a guard was given."""
    if isinstance(watched, Scope):
        scope = watched
    elif isinstance(watched, ServerCore):
        scope = _OfServer(watched)
    elif isinstance(watched, Listener):
        scope = _OfListener(watched)
    elif isinstance(watched, Pool):
        scope = _OfPool(watched)
    elif watched is None:
        scope = Process()
    else:
        raise TypeError(
            "a guard watches a Server, a Listener, a Pool, guard.Foreign, or None for the whole "
            f"process, not {type(watched).__name__}"
        )
    if limit is not None:
        scope.limit = limit
    return scope


class Process(Scope):
    """Everything that this process has."""

    lasting: tuple[type[Action], ...] = (UserTimeout,)

    def __init__(self) -> None:
        self._history: deque[tuple[float, int]] = deque()
        self._wanted: Counter[int] = Counter()
        """How many rules want a TCP_USER_TIMEOUT of so many milliseconds."""
        self._shortened: dict[int, set[int]] = {}
        """By milliseconds: the connections that were told."""
        self._buckets: dict[str, list[int]] = {}

    # ---- looking

    def _ids(self) -> set[int] | None:
        """Which connections; None: all."""
        return None

    def _belongs(self, how: str, local: str | None) -> bool:
        return True

    def look(self, now: float) -> Seen:
        ids = self._ids()
        found = [
            Candidate(ident, peer or "unknown", age, idle, state, local or "")
            for ident, how, state, age, idle, local, peer, _ in _core._guard_rows()
            if (ids is None or ident in ids) and self._belongs(how, local)
        ]
        figures = common_figures(found, self._growth(now, len(found)), self._limit())
        self._add_process(figures)
        return Seen(figures, found)

    def _limit(self) -> int | None:
        return self.limit

    def _growth(self, now: float, n: int) -> float | None:
        history = self._history
        history.append((now, n))
        while now - history[0][0] > _GROWTH_SECONDS:
            history.popleft()
        since, was = history[0]
        return (n - was) / (now - since) if now > since else None

    def _add_process(self, figures: dict[str, float | None]) -> None:
        metrics = report("metrics")
        descriptors = metrics["descriptors"]
        figures["descriptors"] = descriptors["open"]
        figures["descriptors_share"] = (
            descriptors["open"] / descriptors["limit"] if descriptors["limit"] else None
        )
        pools = [one for one in self._pools(metrics["pools"]) if not one["is_closed"]]
        most = sum(pool["max_size"] for pool in pools)
        figures["pool_waiting"] = sum(pool["waiting"] for pool in pools)
        figures["pool_lent_share"] = sum(pool["lent"] for pool in pools) / most if most else None
        figures["queue_length"] = self._queue(metrics["servers"])
        for name in ("application", "gil"):
            spread = metrics["seconds"][f"read_stall_{name}"]
            figures[f"{name}_stall_p99"] = self._recent_p99(name, spread, metrics["edges"])

    def _pools(self, pools: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return pools

    def _queue(self, servers: list[dict[str, Any]]) -> float | None:
        lengths = [one["queue"] for one in servers if one["queue"] is not None]
        return sum(lengths) if lengths else None

    def _recent_p99(self, name: str, spread: dict[str, Any], edges: list[float]) -> float | None:
        counts = [*spread["buckets"], spread["count"]]
        before = self._buckets.get(name)
        self._buckets[name] = counts
        if before is None or counts[-1] == before[-1]:
            return None
        wanted = 0.99 * (counts[-1] - before[-1])
        for at, edge in enumerate(edges):
            if counts[at] - before[at] >= wanted:
                return edge
        return edges[-1]

    # ---- acting

    def retire(self, victim: Candidate, over: float, young: float) -> Asked:
        return Asked(*_core._guard_retire(victim.id, over, young))

    def outcome_of(self, asked: Asked, give_up: bool) -> str:
        assert asked.token is not None
        return _core._guard_outcome(asked.token, give_up)

    def begin(self, action: Action) -> dict[str, object]:
        assert isinstance(action, UserTimeout)
        self._wanted[_milliseconds(action)] += 1
        self._shortened.setdefault(_milliseconds(action), set())
        return {"seconds": action.seconds}

    def keep(self, action: Action, seen: Seen) -> int:
        if not isinstance(action, UserTimeout):
            return 0
        wanted, changed = _milliseconds(action), 0
        known = self._shortened[wanted]
        here = {one.id for one in seen.connections}
        for ident in known - here:
            known.discard(ident)
            user_timeouts.lengthen(ident, wanted)
        for ident in here - known:
            if (done := user_timeouts.shorten(ident, wanted)) is not None:
                changed += done
                known.add(ident)
        return changed

    def end(self, action: Action) -> dict[str, object]:
        assert isinstance(action, UserTimeout)
        wanted = _milliseconds(action)
        self._wanted[wanted] -= 1
        if self._wanted[wanted] > 0:  # Another rule wants the same.
            return {"connections": 0}
        known = self._shortened.pop(wanted)
        with contextlib.ExitStack() as each:  # One that fails keeps none of the others short.
            for ident in known:
                each.callback(user_timeouts.lengthen, ident, wanted)
        return {"connections": len(known)}

    def forget(self) -> None:
        self._wanted.clear()
        self._shortened.clear()

    # ---- telling

    def diagnose(self) -> dict[str, object]:
        frames = sys._current_frames()
        sites = sorted(report("sites")["sites"], key=lambda one: -one["open"])[:10]
        pools = self._pools(report("pools")["pools"])
        return {
            "sites": [
                {
                    "site": _site(one["site"]),
                    "how": one["how"],
                    "open": one["open"],
                    "oldest": one["oldest"],
                    "idle": one["idle"],
                }
                for one in sites
            ],
            "holders": _people(pools, "holders", frames),
            "waiters": _people(pools, "waiters", frames),
        }


class _OfListener(Process):
    """The connections that a listener has accepted: by its own address."""

    def __init__(self, listener: Listener) -> None:
        super().__init__()
        self._listener = listener
        address = _address(listener)
        # Another may listen on the same port of another address; "" is on all of them.
        host = _host(address)
        self._address = ("" if host in ("0.0.0.0", "::") else host), _port(address)

    def _belongs(self, how: str, local: str | None) -> bool:
        if how != "accept" or local is None:
            return False
        host, port = self._address
        return _port(local) == port and host in ("", _host(local))

    def _pools(self, pools: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return []

    def _queue(self, servers: list[dict[str, Any]]) -> float | None:
        return self._listener.stats().queue_length


class _OfServer(Process):
    """The connections in a server's ledger."""

    lasting = (UserTimeout, ShortenTimeouts, RefuseNew)

    def __init__(self, server: ServerCore) -> None:
        super().__init__()
        self._server = server

    def _served(self) -> list[Connection]:
        with self._server._lock:
            return [served.conn for served in self._server._ledger.active]

    def _ids(self) -> set[int] | None:
        return {conn._id for conn in self._served()}

    def _limit(self) -> int | None:
        return self.limit or self._server._options.limit

    def _queue(self, servers: list[dict[str, Any]]) -> float | None:
        return None if self._server.closed else self._server.listener.stats().queue_length

    def diagnose(self) -> dict[str, object]:
        now = time.monotonic()
        handlers = [
            {
                "peer": served.peer,
                "age": now - served.accepted,
                "runner": name,
                "stack": None if stack is None else _lines(stack),
            }
            for served, name, stack in self._server._in_handlers(_PEOPLE)
        ]
        return {**super().diagnose(), "handlers": handlers}

    def begin(self, action: Action) -> dict[str, object]:
        if isinstance(action, RefuseNew):
            self._server._refuse_new(True)
            return {}
        if isinstance(action, ShortenTimeouts):
            return {"changed": self._server._shorten(_seconds(action))}
        return super().begin(action)

    def end(self, action: Action) -> dict[str, object]:
        if isinstance(action, RefuseNew):
            self._server._refuse_new(False)
            return {}
        if isinstance(action, ShortenTimeouts):
            return {"changed": self._server._lengthen(_seconds(action))}
        return super().end(action)


class _OfPool(Process):
    """The connections of one pool."""

    def __init__(self, pool: Pool) -> None:
        super().__init__()
        self._pool = pool
        self._ident = _core._guard_pool_ids(pool)[0]

    def _ids(self) -> set[int] | None:
        return set(_core._guard_pool_ids(self._pool)[1])

    def _limit(self) -> int | None:
        return self.limit or self._pool.stats().max_size

    def _pools(self, pools: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [one for one in pools if one["id"] == self._ident]

    def _queue(self, servers: list[dict[str, Any]]) -> float | None:
        return None


# ---- parts


def common_figures(
    found: list[Candidate], growth: float | None, limit: int | None
) -> dict[str, float | None]:
    """What follows from the connections alone."""
    n = len(found)
    idle = [one.idle for one in found if one.state in ("idle", "pooled")]
    return {
        "connections": n,
        "connections_share": n / limit if limit else None,
        "idle_share": len(idle) / n if n else None,
        "mean_age": sum(one.age for one in found) / n if n else None,
        "oldest_idle": max(idle, default=None),
        "growth": growth,
    }


def _milliseconds(action: UserTimeout) -> int:
    return max(1, round(action.seconds * 1000))


def _seconds(action: ShortenTimeouts) -> dict[str, float]:
    wanted = {"linger": action.linger, "idle_timeout": action.idle_timeout}
    return {name: seconds for name, seconds in wanted.items() if seconds is not None}


def _address(listener: Listener) -> str:
    where = listener.getsockname()
    return f"{where[0]}:{where[1]}" if isinstance(where, tuple) else f"unix:{where}"


def _port(address: str) -> str:
    return address if address.startswith("unix:") else address.rpartition(":")[2]


def _host(address: str) -> str:
    return "" if address.startswith("unix:") else address.rpartition(":")[0].strip("[]")


def _site(site: dict[str, Any] | None) -> str | None:
    return None if site is None else f"{site['file']}:{site['line']} in {site['function']}"


def _people(
    pools: list[dict[str, Any]], kind: str, frames: dict[int, Any]
) -> list[dict[str, object]]:
    found = [
        {
            "pool": pool["name"],
            "site": _site(one["site"]),
            "age": one["age"],
            "stack": _stack(frames.get(one["thread"])),
        }
        for pool in pools
        for one in pool[kind]
    ]
    return sorted(found, key=lambda one: -one["age"])[:_PEOPLE]


def _lines(stack: str) -> list[str]:
    return [line.strip() for line in stack.splitlines()][-2 * _FRAMES :]


def _stack(frame: Any) -> list[str] | None:
    if frame is None:
        return None
    return [
        f"{one.filename}:{one.lineno} in {one.name}"
        for one in traceback.extract_stack(frame)[-_FRAMES:]
    ]
