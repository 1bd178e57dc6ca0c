"""How a server is to behave: every parameter is checked here, and nowhere else."""

from __future__ import annotations

import inspect
import math
import resource
import warnings
from collections.abc import Callable
from dataclasses import dataclass

from hardsock._errors import SettingWarning
from hardsock._names import caller, names_checked
from hardsock._options import _check_int, _check_seconds

__all__ = [
    "MAX_BATCH",
    "DefaultCount",
    "DefaultSeconds",
    "ServeOptions",
    "check_handler",
    "descriptors_for_connections",
    "many_connections",
]

MAX_BATCH = 64
"""Connections accepted per turn: enough to spare system calls, too few to starve anybody."""

_MAX_CONNECTIONS = 1_000_000
_MAX_WORKERS = 10_000
_SPARE_DESCRIPTORS = 64
_MANY = 10_000


class DefaultCount(int):
    """A default that gives way to what contradicts it."""


class DefaultSeconds(float):
    """A default that gives way to what contradicts it."""


@names_checked
@dataclass(frozen=True, kw_only=True)
class ServeOptions:
    """Limits and times of a server; contradictions are refused with both names."""

    drain_timeout: float
    workers: int = DefaultCount(64)
    max_connections: int | None = None
    """Never None once made: the default is *workers*, or many if quiet ones cost no thread."""
    idle_timeout: float | None = None
    per: str = "connection"
    read_timeout: float | None = None
    write_timeout: float | None = None
    handler_timeout: float | None = None
    linger: float = DefaultSeconds(2.0)
    drain_idle: float = DefaultSeconds(1.0)
    name: str = "hardsock-serve"
    measure_delays: bool = False

    def __post_init__(self) -> None:
        _required("drain_timeout", self.drain_timeout)
        _check_seconds("drain_timeout", self.drain_timeout, 0)
        if self.per not in ("connection", "message"):
            raise ValueError(f'per must be "connection" or "message", got {self.per!r}')
        _required("workers", self.workers)
        _check_int("workers", self.workers, 1, _MAX_WORKERS)
        _check_int("max_connections", self.max_connections, 1, _MAX_CONNECTIONS)
        for name in ("idle_timeout", "read_timeout", "write_timeout", "handler_timeout"):
            _check_seconds(name, getattr(self, name), 0.001)
        self._check_timeouts()
        _required("linger", self.linger)
        _check_seconds("linger", self.linger, 0)
        _required("drain_idle", self.drain_idle)
        _check_seconds("drain_idle", self.drain_idle, 0)
        if not isinstance(self.measure_delays, bool):
            raise TypeError(
                f"measure_delays must be a bool, not {type(self.measure_delays).__name__}"
            )
        if not isinstance(self.name, str):
            raise TypeError(f"name must be a str or None, not {type(self.name).__name__}")
        self._settle_connections()
        self._settle_linger()
        self._settle_drain_idle()
        _check_descriptors(self.limit)

    @property
    def limit(self) -> int:
        """How many connections may be accepted and not finished."""
        assert self.max_connections is not None
        return self.max_connections

    def _settle_connections(self) -> None:
        if self.max_connections is None:
            each = self.per == "connection"
            limit = int(self.workers) if each else max(int(self.workers), many_connections())
            object.__setattr__(self, "max_connections", limit)
        elif self.max_connections < self.workers:
            if not isinstance(self.workers, DefaultCount):
                raise ValueError(
                    f"workers={self.workers} and max_connections={self.max_connections} contradict "
                    "each other: some workers could never have a connection; give max_connections "
                    "of at least workers"
                )
            object.__setattr__(self, "workers", self.max_connections)

    def _check_timeouts(self) -> None:
        handler = self.handler_timeout
        within = ("idle_timeout", "read_timeout", "write_timeout")
        for name in within[1:] if self.per == "message" else within:
            seconds = getattr(self, name)
            if handler is not None and seconds is not None and seconds > handler:
                raise ValueError(
                    f"{name}={seconds:g} and handler_timeout={handler:g} contradict each other: a "
                    f"handler ends before {name} could; give {name} of at most handler_timeout"
                )

    def _settle_linger(self) -> None:
        if self.linger <= self.drain_timeout:
            return
        if not isinstance(self.linger, DefaultSeconds):
            raise ValueError(
                f"linger={self.linger:g} and drain_timeout={self.drain_timeout:g} contradict each "
                "other: a drain would cut every orderly end; give linger of at most drain_timeout"
            )
        object.__setattr__(self, "linger", float(self.drain_timeout))

    def _settle_drain_idle(self) -> None:
        if not isinstance(self.drain_idle, DefaultSeconds):
            if self.drain_idle > self.drain_timeout / 2:
                raise ValueError(
                    f"drain_idle={self.drain_idle:g} and drain_timeout={self.drain_timeout:g} "
                    "contradict each other: the last answers need time, too; give drain_idle of at "
                    "most half of drain_timeout"
                )
        elif self.drain_idle > self.drain_timeout / 4:
            object.__setattr__(self, "drain_idle", self.drain_timeout / 4)


def many_connections() -> int:
    """10,000, or what the limit of descriptors (RLIMIT_NOFILE) allows if that is less."""
    return int(min(_MANY, descriptors_for_connections()))


def check_drain(timeout: float, grace: float | None) -> tuple[float, float]:
    """Return both in seconds; *grace* is by default a quarter of *timeout*, at most one second."""
    _required("timeout", timeout)
    _check_seconds("timeout", timeout, 0)
    if grace is None:
        return timeout, min(1.0, timeout / 4)
    _check_seconds("grace", grace, 0)
    if grace > timeout:
        raise ValueError(
            f"grace={grace:g} and timeout={timeout:g} contradict each other: grace is a part of "
            "timeout"
        )
    return timeout, grace


def check_handler(handler: Callable[..., object]) -> None:
    """Refuse what a thread cannot call."""
    if not callable(handler):
        raise TypeError(f"handler must be callable, not {type(handler).__name__}")
    if inspect.iscoroutinefunction(handler):
        raise TypeError("handler must be a plain function: threads cannot await a coroutine")


def _required(name: str, value: object) -> None:
    if value is None or (isinstance(value, float) and math.isinf(value)):
        raise ValueError(f"{name} must be a number, got {value!r}: without a limit it could hang")


def descriptors_for_connections() -> float:
    """What the limit of descriptors leaves for connections; infinite without a limit.

    The others are for the listener, its reserve, files, and what handlers open. Of very few half
    are for connections: a server of one would keep all others waiting.
    """
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return math.inf
    return max(1, soft - min(_SPARE_DESCRIPTORS, soft // 2))


def _check_descriptors(connections: int) -> None:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if connections > descriptors_for_connections():
        warnings.warn(
            f"max_connections={connections}, but this process may have {soft} descriptors: clients "
            "would be turned away before that; raise `ulimit -n` (RLIMIT_NOFILE)",
            SettingWarning,
            stacklevel=caller(),
        )
