"""Framings, the codec, and what they refuse.

The reference below knows one way to read a frame: all bytes at hand, one at a time. The decoder must
say the same however its input is cut.
"""

from __future__ import annotations

import copy
import dataclasses
import errno
import pickle
import sys
import threading
from collections.abc import Iterator
from typing import Any

import hypothesis
import pytest
from hypothesis import strategies as st

import hardsock as hs

SKIP = "skip"

# ---- the reference


class Disposition(Exception):
    """How a stream ends: its text is "bad", "large", "kept", "skipped" or "truncated"."""


def split_line(f: hs.Line, data: bytes) -> tuple[int, int, int]:
    for i, byte in enumerate(data):
        follower = data[i + 1 : i + 2]
        if f.ending == "\r\n":
            if byte == 13 and follower == b"\n":
                return 0, i, 2
            if byte == 13 and follower == b"":
                raise Disposition("truncated", i)
            if byte in b"\r\n":
                raise Disposition("bad", i)
        elif byte == 10:
            return 0, i, 1
        elif f.ending == "any" and byte == 13 and follower == b"\n":
            return 0, i, 2
        elif f.ending == "any" and byte == 13 and follower == b"":
            raise Disposition("truncated", i)
    raise Disposition("truncated", len(data))


def split_delimiter(f: hs.Delimiter, data: bytes) -> tuple[int, int, int]:
    for i in range(len(data)):
        if data.startswith(f.separator, i):
            return 0, i, len(f.separator)
        if f.separator.startswith(data[i:]):
            raise Disposition("truncated", i)
    raise Disposition("truncated", len(data))


def split_prefix(f: hs.LengthPrefix, data: bytes) -> tuple[int, int, int]:
    field = data[f.offset :]
    if f.width == "varint":
        n = next((i for i, byte in enumerate(field) if byte < 128), None)
        if n is None and len(field) < 10:
            raise Disposition("truncated", 0)
        if n is None or n > 9 or (n > 0 and field[n] == 0) or (n == 9 and field[9] > 1):
            raise Disposition("bad", 0)
        declared = sum((field[i] & 127) << 7 * i for i in range(n + 1))
        header = f.offset + n + 1
    else:
        if len(field) < f.width:
            raise Disposition("truncated", 0)
        declared = int.from_bytes(field[: f.width], f.byteorder)
        header = f.offset + f.width
    size = declared + f.adjustment - (header if f.includes_header else 0)
    if not 0 <= size < 2**64:
        raise Disposition("bad", 0)
    return header, size, 0


def split(f: Any, data: bytes) -> tuple[int, int, int]:
    """Return the sizes of header, payload and separator of the first frame."""
    if isinstance(f, hs.Line):
        return split_line(f, data)
    if isinstance(f, hs.Delimiter):
        return split_delimiter(f, data)
    return split_prefix(f, data)


def one_frame(f: Any, data: bytes) -> tuple[bytes | None, int]:
    """Return the first frame (None: too large, and skipped) and how many bytes it takes."""
    max_skip = f.max_skip if f.max_skip is not None else max(16 * f.max_size, 2**20)
    verdict = None
    try:
        header, size, tail = split(f, data)
        total = header + size + tail
    except Disposition as exc:
        verdict, size = exc.args
        header, total = 0, size
    if size > f.max_size:
        if f.on_too_long != SKIP or total > max_skip:
            raise Disposition("kept" if f.on_too_long == "keep" else "large", 0)
        if verdict is not None or total > len(data):
            raise Disposition(verdict or "truncated", 0)
        return None, total
    if verdict is not None or total > len(data):
        raise Disposition(verdict or "truncated", 0)
    keep = f.keep_header if isinstance(f, hs.LengthPrefix) else f.keep
    return data[:total] if keep else data[header : header + size], total


def reference(f: Any, data: bytes) -> list[bytes | str]:
    outcome: list[bytes | str] = []
    while data:
        try:
            frame, total = one_frame(f, data)
        except Disposition as exc:
            return [*outcome, exc.args[0]]
        outcome.append("skipped" if frame is None else frame)
        data = data[total:]
    return outcome


# ---- the decoder, run the same way


def take(d: hs.Decoder, outcome: list[bytes | str]) -> bool:
    """Take what is complete; False when the stream has ended in an error."""
    while True:
        try:
            frame = d.next()
        except hs.FrameTooLarge as exc:
            if exc.recoverable and exc.discarded:
                outcome.append("skipped")
                continue
            outcome.append("kept" if exc.recoverable else "large")
            return False
        except hs.BadFrame:
            outcome.append("bad")
            return False
        if frame is None:
            return True
        outcome.append(frame)


def decoded(f: Any, pieces: list[bytes]) -> list[bytes | str]:
    d = hs.Decoder(f)
    outcome: list[bytes | str] = []
    for piece in pieces:
        d.feed(piece)
        if not take(d, outcome):
            return outcome
    try:
        d.eof()
    except hs.Truncated:
        outcome.append("truncated")
    return outcome


def cut(data: bytes, sizes: list[int]) -> Iterator[bytes]:
    while data:
        n = sizes.pop() if sizes else len(data)
        yield data[:n]
        data = data[n:]


# ---- strategies

policies = st.one_of(
    st.sampled_from([{"on_too_long": "close"}, {"on_too_long": "keep"}, {"on_too_long": "skip"}]),
    st.integers(20, 60).map(lambda n: {"on_too_long": "skip", "max_skip": n}),
)
sizes = st.lists(st.integers(1, 9), max_size=30)


@st.composite
def streams(draw: Any) -> tuple[Any, bytes]:
    """A framing, and bytes made of what means something to it."""
    common = {"max_size": draw(st.integers(0, 12)), **draw(policies)}
    kind = draw(st.sampled_from(["line", "delimiter", "prefix"]))
    if kind == "prefix":
        keep = draw(st.booleans())
        width = draw(st.one_of(st.integers(1, 8), st.just("varint")))
        fixed = width != "varint"
        try:
            f: Any = hs.LengthPrefix(
                width=width,
                byteorder=draw(st.sampled_from(["big", "little"])) if fixed else "big",
                includes_header=draw(st.booleans()) if fixed else False,
                offset=draw(st.integers(0, 3)),
                adjustment=draw(st.integers(-12, 12)),
                keep_header=keep,
                **common,
            )
        except ValueError:  # an adjustment that is too much for so small a limit
            hypothesis.reject()
        words = st.one_of(
            st.binary(max_size=12),
            st.integers(0, 30).map(lambda n: bytes([n])),
            st.integers(0, 40).map(lambda n: made(f, n)),
        )
        return f, b"".join(draw(st.lists(words, max_size=10)))
    if kind == "line":
        f = hs.Line(
            draw(st.sampled_from(["\n", "\r\n", "any"])), keep=draw(st.booleans()), **common
        )
        words = st.sampled_from([b"\n", b"\r\n", b"\r\n", b"\r", b"a", b"bcd", b"efghijk"])
    else:
        separator = draw(st.sampled_from([b"-", b"--", b"--x", b"aab", b"0123456789", b"a" * 12]))
        f = hs.Delimiter(separator, keep=draw(st.booleans()), **common)
        words = st.sampled_from([separator, separator[:-1], separator[:1], b"q", b"rst", b"a" * 5])
    return f, b"".join(draw(st.lists(words, max_size=25)))


def made(f: hs.LengthPrefix, n: int) -> bytes:
    """A frame that is right, even if it is too large."""
    roomy = dataclasses.replace(f, max_size=200, on_too_long="close", max_skip=None)
    try:
        return roomy.encode(b"p" * n, b"h" * f.offset)
    except hs.FrameError:
        return b""


# ---- properties


@hypothesis.given(streams(), sizes)
@hypothesis.settings(deadline=None, max_examples=400)
def test_decoder_agrees_with_the_reference_however_input_is_cut(
    stream: tuple[Any, bytes], sizes: list[int]
) -> None:
    f, data = stream
    expected = reference(f, data)
    assert expected == decoded(f, [data])
    assert expected == decoded(f, list(cut(data, sizes)))
    assert expected == decoded(f, [data[i : i + 1] for i in range(len(data))])


@hypothesis.given(st.data())
@hypothesis.settings(deadline=None, max_examples=200)
def test_what_was_encoded_is_decoded(data: Any) -> None:
    width = data.draw(st.one_of(st.integers(1, 8), st.just("varint")))
    f = hs.LengthPrefix(
        width=width,
        byteorder="big" if width == "varint" else data.draw(st.sampled_from(["big", "little"])),
        offset=data.draw(st.integers(0, 4)),
        adjustment=data.draw(st.integers(-5, 5)),
        includes_header=width != "varint" and data.draw(st.booleans()),
    )
    frames = data.draw(st.lists(st.binary(min_size=5, max_size=200), max_size=8))
    stream = b"".join(f.encode(frame, b"h" * f.offset) for frame in frames)
    assert frames == decoded(f, list(cut(stream, data.draw(sizes))))
    kept = decoded(dataclasses.replace(f, keep_header=True), [stream])
    assert stream == b"".join(kept)


# ---- construction

REFUSED: list[tuple[type, dict[str, Any], type[Exception], str]] = [
    (hs.Delimiter, {"separator": b""}, ValueError, "separator must not be empty"),
    (hs.Delimiter, {"separator": bytes(65536)}, ValueError, "at most 65535 bytes, not 65536"),
    (hs.Delimiter, {"separator": "\n"}, TypeError, "separator must be bytes, not str"),
    (hs.Line, {"ending": "\r"}, ValueError, r"ending must be one of .* got '\\r'"),
    (hs.Line, {"ending": b"\n"}, TypeError, "ending must be a str, not bytes"),
    (hs.Line, {"max_size": -1}, ValueError, "max_size must be in 0"),
    (hs.Line, {"max_size": 2**63}, ValueError, "max_size must be in 0"),
    (hs.Line, {"max_size": True}, TypeError, "max_size must be an int, not bool"),
    (hs.Line, {"max_size": None}, TypeError, "max_size must be an int, not NoneType"),
    (hs.Line, {"keep": 1}, TypeError, "keep must be a bool, not int"),
    (hs.Line, {"on_too_long": "ignore"}, ValueError, "on_too_long must be one of .* got 'ignore'"),
    (hs.Line, {"max_skip": 100}, ValueError, "max_skip 100 is for frames that are skipped"),
    (hs.Line, {"on_too_long": "skip", "max_skip": 9}, ValueError, "max_skip 9 must be more than"),
    (hs.Line, {"encoding": "klingon"}, ValueError, "encoding 'klingon' is not known"),
    (hs.Line, {"encoding": "hex"}, ValueError, "encoding 'hex' is not known as one of text"),
    (hs.Line, {"encoding": "utf-16"}, ValueError, "'utf-16' is no superset of ASCII"),
    (hs.Line, {"encoding": b"utf-8"}, TypeError, "encoding must be a str or None, not bytes"),
    (hs.LengthPrefix, {"width": 0}, ValueError, r"width must be in 1\.\.8, got 0"),
    (hs.LengthPrefix, {"width": 9}, ValueError, r"width must be in 1\.\.8, got 9"),
    (hs.LengthPrefix, {"width": "long"}, TypeError, "width must be an int, not str"),
    (
        hs.LengthPrefix,
        {"byteorder": "middle"},
        ValueError,
        "byteorder must be one of .* got 'middle'",
    ),
    (hs.LengthPrefix, {"offset": 65536}, ValueError, "offset must be at most 65535"),
    (hs.LengthPrefix, {"adjustment": 2**63}, ValueError, "adjustment must be in"),
    (hs.LengthPrefix, {"adjustment": 2**63 - 1}, ValueError, "adjustment must be between"),
    (hs.LengthPrefix, {"width": "varint", "byteorder": "little"}, ValueError, "varint"),
    (hs.LengthPrefix, {"width": "varint", "includes_header": True}, ValueError, "varint"),
    (
        hs.LengthPrefix,
        {"width": 1, "max_size": 256},
        ValueError,
        "max_size 256 is more than a width",
    ),
    (hs.LengthPrefix, {"width": 1, "adjustment": -256}, ValueError, "adjustment -256 makes every"),
    (hs.LengthPrefix, {"adjustment": 9, "max_size": 8}, ValueError, "beyond max_size 8"),
]


@pytest.mark.parametrize(("cls", "arguments", "error", "message"), REFUSED)
def test_impossible_framings_are_refused_by_name(
    cls: type, arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        cls(**arguments)


@pytest.mark.parametrize(
    ("expected", "arguments"),
    [
        (16 * 1024 * 1024, {}),
        (16 * 1024 * 1024, {"width": "varint"}),
        (65535, {"width": 2}),
        (65532, {"width": 2, "offset": 1, "includes_header": True}),
        (255 + 5, {"width": 1, "adjustment": 5}),
    ],
)
def test_default_limit_is_what_the_field_can_declare(
    expected: int, arguments: dict[str, Any]
) -> None:
    f = hs.LengthPrefix(**arguments)
    assert expected == f.max_size
    assert 16 * 1024 * 1024 == dataclasses.replace(f, width=8).max_size or expected == f.max_size


def test_parameters_are_keywords_but_the_one_that_names_the_framing() -> None:
    assert hs.Line("any") == hs.Line(ending="any")
    assert hs.Delimiter(b"x") == hs.Delimiter(separator=b"x")
    for make in (lambda: hs.Line("any", 3), lambda: hs.LengthPrefix(4)):
        with pytest.raises(TypeError):
            make()  # type: ignore[misc]


@pytest.mark.parametrize(
    "f", [hs.Line("any", encoding="UTF8"), hs.Delimiter(b"\0"), hs.LengthPrefix(width=1)]
)
def test_framings_are_values(f: Any) -> None:
    for other in (copy.copy(f), copy.deepcopy(f), pickle.loads(pickle.dumps(f))):
        assert f == other
        assert hash(f) == hash(other)
        assert decoded(f, [b"\1a\0\n"]) == decoded(other, [b"\1a\0\n"])
    assert "_core" not in repr(f)
    with pytest.raises(dataclasses.FrozenInstanceError):
        f.max_size = 1


@pytest.mark.parametrize("wrong", [None, b"\n", "\n", 4, object(), hs.Line])
def test_a_decoder_takes_framings_only(wrong: Any) -> None:
    with pytest.raises(TypeError, match="framing must be a LengthPrefix, a Delimiter or a Line"):
        hs.Decoder(wrong)


# ---- encoding


def test_encode_takes_any_buffer() -> None:
    f = hs.LengthPrefix(width=2, offset=2, includes_header=True)
    assert b"hh\0\7abc" == f.encode(bytearray(b"abc"), memoryview(b"hh"))
    with pytest.raises(
        ValueError, match="1 bytes in front of the length field where offset says 2"
    ):
        f.encode(b"abc", b"h")
    with pytest.raises(TypeError):
        f.encode("abc", b"hh")  # type: ignore[arg-type]


def test_encode_refuses_what_no_reader_would_take() -> None:
    with pytest.raises(hs.FrameTooLarge, match="4 bytes exceed max_size 3") as caught:
        hs.LengthPrefix(max_size=3).encode(b"abcd")
    assert (3, 4, True, 0) == facts(caught.value)
    with pytest.raises(hs.BadFrame, match="would be negative with adjustment 5"):
        hs.LengthPrefix(adjustment=5).encode(b"abcd")


# ---- errors


def facts(exc: hs.FrameTooLarge) -> tuple[int | None, int | None, bool, int]:
    return exc.limit, exc.size, exc.recoverable, exc.discarded


def test_frame_too_large_tells_the_facts() -> None:
    d = hs.Decoder(hs.LengthPrefix(max_size=3))
    d.feed(b"\0\1\0\0")
    with pytest.raises(hs.FrameTooLarge, match="65536 bytes exceeds max_size 3") as caught:
        d.next()
    assert (3, 65536, False, 0) == facts(caught.value)
    assert errno.EMSGSIZE == caught.value.errno
    assert isinstance(caught.value, (hs.FrameError, hs.HardsockError))

    d = hs.Decoder(hs.Line(max_size=3, on_too_long="keep"))
    d.feed(b"abcd")
    with pytest.raises(hs.FrameTooLarge, match="at least 4 bytes") as caught:
        d.next()
    assert (3, None, True, 0) == facts(caught.value)


def test_a_skipped_frame_is_reported_once() -> None:
    d = hs.Decoder(hs.Line(max_size=3, on_too_long="skip"))
    d.feed(b"abcd")
    assert d.next() is None
    d.feed(b"ef")
    assert 0 == d.buffered
    d.feed(b"\ngh\n")
    with pytest.raises(hs.FrameTooLarge, match="skipped after 7 bytes") as caught:
        d.next()
    assert (3, 6, True, 7) == facts(caught.value)
    assert [b"gh"] == list(d)


def test_the_first_error_is_the_last() -> None:
    d = hs.Decoder(hs.Line("\r\n"))
    d.feed(b"a\r\nb\nc\r\n")
    assert b"a" == d.next()
    for call in (d.next, d.eof, lambda: d.feed(b"x"), lambda: next(d)):
        with pytest.raises(hs.BadFrame, match="LF by itself at byte 1"):
            call()
    assert b"b\nc\r\n" == d.rest()


def test_truncated_says_how_far_it_came() -> None:
    d = hs.Decoder(hs.LengthPrefix(width=1))
    d.feed(b"\1a\5bc")
    d.eof()
    with pytest.raises(ValueError, match="fed after its end"):
        d.feed(b"d")
    assert b"a" == d.next()
    with pytest.raises(hs.Truncated, match="after 3 bytes of a frame, at least 3 are missing"):
        d.next()


def test_an_end_between_frames_is_fine() -> None:
    d = hs.Decoder(hs.Line())
    d.feed(b"a\n")
    assert [b"a"] == list(d)
    d.eof()
    assert d.next() is None


def test_the_rest_is_for_the_next_protocol() -> None:
    d = hs.Decoder(hs.Line("\r\n"))
    d.feed(b"STARTTLS\r\n\x16\x03\x01")
    assert b"STARTTLS" == next(d)
    assert (3, b"\x16\x03\x01", 0) == (d.buffered, d.rest(), d.buffered)
    assert b"" == d.rest()
    assert d.next() is None


# ---- text


def test_lines_can_be_text() -> None:
    d = hs.Decoder(hs.Line("any", encoding="UTF8"))
    d.feed("gr\u00fcn\r\nblau\n".encode())
    assert ["gr\u00fcn", "blau"] == list(d)
    d = hs.Decoder(hs.Line(encoding="latin-1"))
    d.feed(b"gr\xfcn\n")
    assert "gr\u00fcn" == d.next()


def test_invalid_text_holds_its_bytes_and_the_stream_goes_on() -> None:
    d = hs.Decoder(hs.Line(encoding="utf-8"))
    d.feed(b"gr\xfcn\nblau\n")
    with pytest.raises(UnicodeDecodeError) as caught:
        d.next()
    assert (b"gr\xfcn", 2) == (caught.value.object, caught.value.start)
    assert "blau" == d.next()


def test_a_codec_may_use_the_decoder_it_decodes_for() -> None:
    import codecs

    d: hs.Decoder

    def decode(data: bytes, errors: str = "strict") -> tuple[str, int]:
        text = bytes(data).decode("latin-1")
        if text == "again":
            d.feed(b"x" * 100000)
            d.next()
        return bytes(data).decode("latin-1"), len(data)

    def find(name: str) -> codecs.CodecInfo | None:
        if name != "hardsock_reentrant":
            return None
        return codecs.CodecInfo(lambda s, e="": (s.encode("latin-1"), len(s)), decode, name=name)

    codecs.register(find)
    try:
        d = hs.Decoder(hs.Line(encoding="hardsock_reentrant", max_size=10**6))
        d.feed(b"again\nmore\n")
        assert "again" == d.next()
        assert "x" not in str(d.next())
    finally:
        codecs.unregister(find)


# ---- threads


def test_one_decoder_in_many_threads_loses_nothing() -> None:
    d = hs.Decoder(hs.LengthPrefix(width=1))
    n, writers = 2000, 4
    seen: list[bytes] = []
    start = threading.Barrier(2 * writers)
    done = threading.Event()

    def write(who: int) -> None:
        start.wait()
        for i in range(n):
            d.feed(b"\5%d%04d" % (who, i))

    def read() -> None:
        start.wait()
        while True:
            last = done.is_set()
            frames = list(d)
            seen.extend(frames)
            if last and not frames:
                return

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        ws = [threading.Thread(target=write, args=(i,)) for i in range(writers)]
        rs = [threading.Thread(target=read) for _ in range(writers)]
        for t in ws + rs:
            t.start()
        for t in ws:
            t.join()
        done.set()
        for t in rs:
            t.join()
    finally:
        sys.setswitchinterval(interval)
    assert sorted(b"%d%04d" % (w, i) for w in range(writers) for i in range(n)) == sorted(seen)
