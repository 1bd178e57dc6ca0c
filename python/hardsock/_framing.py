"""How a stream of bytes is cut into frames, as frozen values that are checked when they are made.

The checks are the core's own: what is refused here could never work.
"""

from __future__ import annotations

import codecs
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Literal

from hardsock import _core
from hardsock._names import names_checked

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["AnyFraming", "Delimiter", "LengthPrefix", "Line"]

_TooLong = Literal["close", "keep", "skip"]


class _Default(int):
    """A value that gives way to what contradicts it."""


def _make(cls: type[_Framing], values: dict[str, Any]) -> _Framing:
    return cls(**values)


class _Framing:
    """What the core needs is made once, and is no field: two framings are equal when their
    parameters are."""

    _core: _core.Framing

    def _check(self, kind: str, **parameters: object) -> None:
        max_size, max_skip = parameters["max_size"], parameters.pop("max_skip")
        if max_skip is None and parameters["on_too_long"] == "skip" and isinstance(max_size, int):
            max_skip = max(16 * max_size, 1024 * 1024)
        if max_skip is not None:
            parameters["max_skip"] = max_skip
        object.__setattr__(self, "_core", _core.Framing(kind, parameters))

    def __reduce__(self) -> tuple[Any, ...]:
        values = {f.name: getattr(self, f.name) for f in fields(self)}  # type: ignore[arg-type]
        return _make, (type(self), values)


@names_checked
@dataclass(frozen=True, kw_only=True)
class LengthPrefix(_Framing):
    """Frames that begin with their length.

    A frame is ``offset`` bytes, the length field, and a payload of (declared + ``adjustment``)
    bytes, less the size of offset and field if the declared value ``includes_header``.

    Attributes:
        width: Bytes of the length field, 1 to 8, or ``"varint"``: LEB128 as in protobuf, in the
            shortest form only.
        byteorder: Of the length field; not of a ``"varint"``, which has one of its own.
        offset: Bytes in front of the length field.
        adjustment: Bytes that the payload is longer than the length field says; negative: shorter.
        includes_header: Whether the declared length counts *offset* and the length field, too.
        max_size: Bytes of payload that a frame may have, in both directions. 16 MiB, or what the
            field can declare if that is less.
        keep_header: Return frames with offset bytes and length field.
        on_too_long: What becomes of a larger frame: the stream ends (``"close"``); it stays, and a
            framing with a larger limit can read it (``"keep"``); it is thrown away as it arrives,
            reported once, and the stream goes on behind it (``"skip"``).
        max_skip: With ``"skip"``: bytes that may be thrown away for one frame. ``None``: 16 times
            max_size, at least 1 MiB.
    """

    width: int | Literal["varint"] = 4
    byteorder: Literal["big", "little"] = "big"
    offset: int = 0
    adjustment: int = 0
    includes_header: bool = False
    max_size: int = _Default(16 * 1024 * 1024)
    keep_header: bool = False
    on_too_long: _TooLong = "close"
    max_skip: int | None = None

    def __post_init__(self) -> None:
        if isinstance(self.max_size, _Default):
            object.__setattr__(self, "max_size", _Default(self._default_max_size()))
        self._check(
            "prefix",
            width=self.width,
            byteorder=self.byteorder,
            offset=self.offset,
            adjustment=self.adjustment,
            includes_header=self.includes_header,
            max_size=self.max_size,
            keep=self.keep_header,
            on_too_long=self.on_too_long,
            max_skip=self.max_skip,
        )

    def _default_max_size(self) -> int:
        numbers = (self.width, self.offset, self.adjustment)
        if not all(isinstance(n, int) for n in numbers) or not 1 <= int(self.width) <= 8:
            return 16 * 1024 * 1024  # a varint, or something that the check refuses
        header = self.offset + int(self.width) if self.includes_header else 0
        most = (1 << 8 * int(self.width)) - 1 + self.adjustment - header
        return max(0, min(most, 16 * 1024 * 1024))

    def encode(self, payload: Buffer, head: Buffer = b"") -> bytes:
        """Return *payload* as a frame: *head* (``offset`` bytes), the length, the payload.

        Raises:
            FrameTooLarge: If max_size or the length field does not allow so much.
            BadFrame: If the length would have to be negative.
            ValueError: If *head* does not have ``offset`` bytes.
        """
        return self._core.encode(payload, head)


@names_checked
@dataclass(frozen=True, kw_only=True)
class Delimiter(_Framing):
    """Frames that end with a separator.

    Attributes:
        separator: 1 to 65535 bytes, any.
        max_size: Bytes that a frame may have, its separator not counted.
        keep: Return frames with their separator.
        on_too_long: As in LengthPrefix.
        max_skip: As in LengthPrefix.
    """

    separator: bytes = field(kw_only=False)
    max_size: int = 65536
    keep: bool = False
    on_too_long: _TooLong = "close"
    max_skip: int | None = None

    def __post_init__(self) -> None:
        self._check(
            "delimiter",
            separator=self.separator,
            max_size=self.max_size,
            keep=self.keep,
            on_too_long=self.on_too_long,
            max_skip=self.max_skip,
        )


@names_checked
@dataclass(frozen=True, kw_only=True)
class Line(_Framing):
    r"""Frames that are lines.

    With ``"\r\n"`` a CR or LF by itself is a BadFrame: who takes it for the end of a line, or for a
    part of one, sees other messages than the next reader does (SMTP smuggling). ``"any"`` takes LF
    with or without one CR in front.

    Attributes:
        ending: What ends a line, and is sent behind one: ``"\n"``, ``"\r\n"``, or ``"any"``, which
            sends LF.
        max_size: Bytes that a line may have, its ending not counted.
        keep: Return lines with their ending.
        encoding: Return ``str``, decoded strictly; it must be a superset of ASCII. ``None``:
            ``bytes``.
        on_too_long: As in LengthPrefix.
        max_skip: As in LengthPrefix.
    """

    ending: Literal["\n", "\r\n", "any"] = field(default="\n", kw_only=False)
    max_size: int = 65536
    keep: bool = False
    encoding: str | None = None
    on_too_long: _TooLong = "close"
    max_skip: int | None = None

    def __post_init__(self) -> None:
        self._check(
            "line",
            ending=self.ending,
            max_size=self.max_size,
            keep=self.keep,
            encoding=_normal_encoding(self.encoding),
            on_too_long=self.on_too_long,
            max_skip=self.max_skip,
        )


AnyFraming = LengthPrefix | Delimiter | Line


def _normal_encoding(encoding: str | None) -> str | None:
    if not isinstance(encoding, str):
        return encoding
    try:
        name = codecs.lookup(encoding).name
        ascii_too = b"a\r\n".decode(name) == "a\r\n"
    except LookupError:
        raise ValueError(f"encoding {encoding!r} is not known as one of text") from None
    except UnicodeDecodeError:
        ascii_too = False
    if not ascii_too:
        raise ValueError(f"encoding {encoding!r} is no superset of ASCII: its lines end otherwise")
    return name
