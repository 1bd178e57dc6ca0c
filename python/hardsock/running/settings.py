"""What ``hardsock run`` takes, and ``HARDSOCK`` in the environment: the same, as text."""

from __future__ import annotations

import math
import signal
from dataclasses import dataclass

__all__ = ["Settings", "parse"]

_SECONDS = ("deadline", "connect", "read")
_LONGEST = 86_400.0


@dataclass(frozen=True)
class Settings:
    """For one program and those that it starts."""

    deadline: float | None = None
    """Seconds for each exchange on a connection that the program makes."""
    connect: float | None = None
    """Seconds to make a connection, its name lookup included."""
    read: float | None = None
    """Seconds for each call that reads or writes."""
    report: str | None = None
    """``"-"``: at the exit to standard error; else the file that reports are appended to."""
    signal: str | None = "SIGUSR2"
    """Which signal asks for a report."""
    tls: bool = True
    """Whether TLS on such a connection is hardsock's."""

    @property
    def limits(self) -> bool:
        """Whether connections are hardsock's."""
        return any(getattr(self, name) is not None for name in _SECONDS)

    def seconds(self, *limits: float | None) -> float | None:
        """The least of *limits*; ``None``: there is none."""
        return min((one for one in limits if one is not None), default=None)

    def __str__(self) -> str:
        """As ``parse`` reads it."""
        words = [
            f"{name}={getattr(self, name):g}"
            for name in _SECONDS
            if getattr(self, name) is not None
        ]
        if self.report is not None:
            words.append("report" if self.report == "-" else f"report={self.report}")
        if self.signal != Settings.signal:
            words.append(f"signal={(self.signal or 'none').removeprefix('SIG')}")
        if not self.tls:
            words.append("tls=off")
        return " ".join(words) or "on"


def parse(text: str) -> Settings:
    """Read ``"deadline=30 connect=2 read=5 report"``.

    Raises:
        ValueError: A word is not known, or its value is not what it takes; the message names both.
    """
    found: dict[str, object] = {}
    for word in text.split():
        name, has_value, value = word.partition("=")
        if name in _SECONDS:
            found[name] = seconds_of(name, value)
        elif name == "report":
            found[name] = value if has_value else "-"
        elif name == "signal" and has_value:
            found[name] = signal_of(value)
        elif name == "tls" and value in ("on", "off"):
            found[name] = value == "on"
        elif word not in ("on", "1"):
            raise ValueError(
                f"HARDSOCK: {word!r} is not known: it takes deadline=S, connect=S, read=S, report, "
                "report=FILE, signal=NAME, tls=off, on"
            )
    return Settings(**found)  # type: ignore[arg-type]


def seconds_of(name: str, text: str) -> float:
    """A number of seconds, from a text of the user's."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds <= _LONGEST:
        raise ValueError(f"{name} must be a number of seconds, above 0, up to 86400, got {text!r}")
    return seconds


def signal_of(text: str) -> str | None:
    """The name of a signal, which may lack ``SIG``; ``none``: no signal."""
    if text.lower() == "none":
        return None
    name = text.upper() if text.upper().startswith("SIG") else f"SIG{text.upper()}"
    if name not in signal.Signals.__members__ or name in ("SIGKILL", "SIGSTOP"):
        raise ValueError(f"signal must be the name of a signal that can be handled, got {text!r}")
    return name
