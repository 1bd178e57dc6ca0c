"""The text of a deadline on the wire, both ways."""

from __future__ import annotations

import errno
import math
import re
import time
from collections.abc import Iterable, Mapping
from typing import Literal

from hardsock._core import CancelToken
from hardsock._errors import DeadlineExceeded
from hardsock._scope import current

__all__ = [
    "DEFAULT_NAMES",
    "Form",
    "answer_by",
    "form_of",
    "from_header",
    "from_headers",
    "headers",
    "remaining",
    "to_header",
]

Form = Literal["ms", "grpc"]

DEFAULT_NAMES = ("x-request-timeout-ms", "grpc-timeout", "x-envoy-expected-rq-timeout-ms")
"""Headers that are read; the first one is written. All but ``grpc-timeout`` hold plain milliseconds."""

# gRPC over HTTP2: TimeoutValue is at most eight digits, and a unit. The same limit for plain ones.
_MOST = 99_999_999
_UNITS = (("n", 1e-9), ("u", 1e-6), ("m", 1e-3), ("S", 1.0), ("M", 60.0), ("H", 3600.0))
_SIZES = dict(_UNITS)
_PLAIN = re.compile(r"[0-9]{1,8}")
_GRPC = re.compile(r"([0-9]{1,8})([HMSmun])")


def form_of(name: str) -> Form:
    """How the header *name* is written."""
    return "grpc" if name.lower() == "grpc-timeout" else "ms"


def remaining(token: CancelToken | None = None) -> float | None:
    """Seconds that are left of *token* and of the ambient scope, the less of the two; None: no end.

    Raises:
        DeadlineExceeded, Cancelled: One of them has ended.
    """
    least: float | None = None
    for one in (token, current()):
        if one is None:
            continue
        one.check()
        left = one.remaining
        if left is not None and (least is None or left < least):
            least = left
    return least


def _too_late(left: float, needed: float) -> DeadlineExceeded:
    error = DeadlineExceeded(errno.ETIMEDOUT, "too little is left to ask anybody")
    error.op = "to_header"
    error.hint = f"{left * 1e3:.1f} ms are left, and spend and floor want {needed * 1e3:.1f} ms"
    return error


def to_header(
    token: CancelToken | None = None,
    *,
    form: Form = "ms",
    spend: float = 0.0,
    floor: float = 0.001,
) -> str | None:
    """What is left of *token* and of the ambient scope, as the text of a header; None: no deadline.

    Call it for each try, when it is sent: what a retry has left is less.

    Args:
        token: Beside the ambient scope.
        form: ``"ms"``: whole milliseconds. ``"grpc"``: as in ``grpc-timeout``.
        spend: Seconds that the way there takes, which the receiver will not have.
        floor: Seconds below which asking is in vain.

    Raises:
        DeadlineExceeded: Less is left than *spend* and *floor* together, or nothing.
        Cancelled: The token or the scope was cancelled.
        ValueError: *form*, *spend* or *floor* makes no sense.
    """
    if form not in ("ms", "grpc"):
        raise ValueError(f"form must be 'ms' or 'grpc', got {form!r}")
    for name, value in (("spend", spend), ("floor", floor)):
        if not 0 <= value < math.inf:
            raise ValueError(f"{name} must be a non-negative number of seconds, got {value!r}")
    left = remaining(token)
    if left is None:
        return None
    if left < spend + floor or left <= spend:
        raise _too_late(left, spend + floor)
    return _plain(left - spend) if form == "ms" else _grpc(left - spend)


def _plain(seconds: float) -> str:
    # At least one: "0" would say that it is too late, and floor=0 has just said that it is not.
    return str(min(_MOST, max(1, math.floor(seconds * 1e3))))


def _grpc(seconds: float) -> str:
    """The finest unit in which it has eight digits, rounded down."""
    for unit, size in _UNITS:
        count = math.floor(seconds / size)
        if count <= _MOST:
            return f"{max(1, count)}{unit}"
    return f"{_MOST}H"


def headers(
    token: CancelToken | None = None,
    *,
    names: Iterable[str] = DEFAULT_NAMES[:1],
    spend: float = 0.0,
    floor: float = 0.001,
) -> dict[str, str]:
    """The headers to send along; empty without a deadline. See `to_header`, also for what it raises."""
    found = {}
    for name in names:
        text = to_header(token, form=form_of(name), spend=spend, floor=floor)
        if text is not None:
            found[name] = text
    return found


def from_header(
    value: str | bytes | None,
    *,
    cap: float | None,
    form: Form | None = None,
    arrived: float | None = None,
) -> float | None:
    """Seconds that the sender of *value* still waits, counted from now.

    None for what is absent, or is no such text: a stranger's nonsense is no deadline. Zero: it is too
    late already.

    Args:
        value: The header's text.
        cap: The most that is believed: a stranger may not hold a worker for as long as it likes.
            ``None``: anything.
        form: ``None``: either; ``"ms"`` and ``"grpc"`` accept only that one.
        arrived: ``time.monotonic()`` when the request arrived, if it waited in a queue since.

    Raises:
        ValueError: *cap* is negative. Nothing that *value* holds raises.
    """
    if cap is not None and not cap >= 0:
        raise ValueError(f"cap must be a non-negative number of seconds or None, got {cap!r}")
    if value is None:
        return None
    text = (value.decode("latin-1") if isinstance(value, bytes) else value).strip(" \t")
    seconds: float
    if form != "grpc" and _PLAIN.fullmatch(text):
        seconds = int(text) / 1e3
    elif form != "ms" and (found := _GRPC.fullmatch(text)):
        seconds = int(found[1]) * _SIZES[found[2]]
    else:
        return None
    if cap is not None:
        seconds = min(seconds, cap)
    if arrived is not None:
        seconds -= max(0.0, time.monotonic() - arrived)
    return max(0.0, seconds)


def from_headers(
    found: Mapping[str, str] | Iterable[tuple[str | bytes, str | bytes]],
    *,
    cap: float | None,
    names: Iterable[str] = DEFAULT_NAMES,
    arrived: float | None = None,
) -> float | None:
    """As `from_header`, of all that *found* has of *names*; the shortest counts.

    *found* is a mapping, or pairs as ASGI and ``http.client`` have them; names in any case.
    """
    wanted = {name.lower(): form_of(name) for name in names}
    pairs = found.items() if isinstance(found, Mapping) else found
    seconds = [
        one
        for name, value in pairs
        if (form := wanted.get(_lower(name))) is not None
        and (one := from_header(value, cap=cap, form=form, arrived=arrived)) is not None
    ]
    return min(seconds, default=None)


def _lower(name: str | bytes) -> str:
    return (name.decode("latin-1") if isinstance(name, bytes) else name).lower()


def answer_by(seconds: float | None, default: float | None, margin: float) -> float | None:
    """What a middleware gives its application; None: no deadline. Not positive: too late."""
    if seconds is None:
        seconds = default
    return None if seconds is None else seconds - margin
