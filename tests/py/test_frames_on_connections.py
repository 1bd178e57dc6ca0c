"""Frames and lines on a Connection: what each call returns, raises, keeps and leaves behind.

What is a frame and what is none is test_framing.py's; here it is a stream that arrives in pieces,
late, or not at all.
"""

from __future__ import annotations

import codecs
import dataclasses
import errno
import random
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from typing import Any

import hypothesis
import pytest
from hypothesis import strategies as st

import hardsock as hs
from hardsock.lab.peers import PeerScript
from hardsock.lab.threads import Call

Pair = tuple[hs.Connection, socket.socket]

SMALL = hs.LengthPrefix(width=1, max_size=5)
CRLF = hs.Line("\r\n")


@pytest.fixture
def pair() -> Iterator[Pair]:
    ours, theirs = socket.socketpair()
    with theirs, hs.adopt(ours) as conn:
        theirs.settimeout(60)
        yield conn, theirs


@pytest.fixture
def tcp_pair() -> Iterator[Pair]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        with hs.connect(server.getsockname(), timeout=30) as conn, server.accept()[0] as theirs:
            yield conn, theirs


def reset(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def drain(sock: socket.socket) -> int:
    total = 0
    while data := sock.recv(1 << 20):
        total += len(data)
    return total


# ---- bad input, and the state of the stream after it


@dataclasses.dataclass(frozen=True)
class Bad:
    """What is read from which bytes; *after* is "over", "goes on", or what recv(100) returns."""

    title: str
    framing: Any
    sent: bytes
    error: type[Exception]
    message: str
    after: bytes | str
    ended: bool = False


BAD = [
    Bad(
        "a declared length beyond the limit",
        *(SMALL, b"\x06sixsix", hs.FrameTooLarge, "frame of 6 bytes exceeds max_size 5", "over"),
    ),
    Bad(
        "a length that claims the whole memory",
        *(hs.LengthPrefix(width=8), b"\xff" * 8, hs.FrameTooLarge),
        *("18446744073709551615 bytes exceeds max_size 16777216", "over"),
    ),
    Bad(
        "kept although it is too large",
        *(dataclasses.replace(SMALL, on_too_long="keep"), b"\x06sixsix", hs.FrameTooLarge),
        *("exceeds max_size 5", b"\x06sixsix"),
    ),
    Bad(
        "skipped because it is too large",
        *(dataclasses.replace(SMALL, on_too_long="skip"), b"\x06sixsix\x02ok", hs.FrameTooLarge),
        *("skipped after 7 bytes", b"\x02ok"),
    ),
    Bad(
        "more than may be skipped",
        dataclasses.replace(SMALL, on_too_long="skip", max_skip=6),
        *(b"\x06sixsix", hs.FrameTooLarge, "exceeds max_size 5", "over"),
    ),
    Bad(
        "a length that is negative after adjustment",
        *(hs.LengthPrefix(width=2, adjustment=-4), b"\0\3abc", hs.BadFrame),
        *("declared length 3 with adjustment -4 is negative", "over"),
    ),
    Bad(
        "a length that does not include its header",
        *(hs.LengthPrefix(width=4, includes_header=True), b"\0\0\0\3", hs.BadFrame),
        *("declared length 3 with adjustment 0 less the header is negative", "over"),
    ),
    Bad(
        "a varint that never ends",
        *(hs.LengthPrefix(width="varint"), b"\x80" * 10, hs.BadFrame),
        *("varint does not fit into 64 bits", "over"),
    ),
    Bad(
        "a varint that is longer than it must be",
        *(hs.LengthPrefix(width="varint"), b"\x85\0hello", hs.BadFrame),
        *("varint of 2 bytes is longer than it must be", "over"),
    ),
    Bad(
        "a line feed by itself",
        *(CRLF, b"MAIL FROM\nRCPT TO\r\n", hs.BadFrame, "LF by itself at byte 9", "over"),
    ),
    Bad("a carriage return by itself", CRLF, b"a\rb\r\n", hs.BadFrame, "CR by itself", "over"),
    Bad(
        "a line without an end",
        *(hs.Line(max_size=3), b"abcd", hs.FrameTooLarge, "at least 4 bytes", "over"),
    ),
    Bad(
        "a line that is no UTF-8",
        *(hs.Line(encoding="utf-8"), b"gr\xfcn\nblau\n", UnicodeDecodeError, "invalid start byte"),
        b"blau\n",
    ),
    Bad(
        "a frame cut off in its header",
        *(hs.LengthPrefix(), b"\0\0", hs.Truncated, "2 bytes had arrived", b"\0\0", True),
    ),
    Bad(
        "a frame cut off in its payload",
        *(SMALL, b"\5abc", hs.Truncated, "4 bytes had arrived", b"\5abc", True),
    ),
    Bad(
        "a line cut off in its ending",
        *(CRLF, b"a\r", hs.Truncated, "2 bytes had arrived", b"a\r", True),
    ),
    Bad("nothing at all", SMALL, b"", hs.EndOfStream, "between two messages", b"", True),
]


@pytest.mark.parametrize("bad", BAD, ids=lambda bad: bad.title.replace(" ", "_"))
def test_bad_input_is_told_and_leaves_the_stream_as_documented(bad: Bad, pair: Pair) -> None:
    conn, theirs = pair
    theirs.sendall(bad.sent)
    if bad.ended:
        theirs.shutdown(socket.SHUT_WR)
    with pytest.raises(bad.error, match=bad.message) as caught:
        conn.recv_frame(bad.framing, timeout=30)
    assert type(caught.value) is bad.error
    if isinstance(caught.value, hs.HardsockError):
        assert caught.value.op in ("recv_frame", "recv_line", "recv_until")
        assert caught.value.elapsed is not None
    if bad.after == "over":
        assert conn.poisoned
        for call in (
            lambda: conn.recv_frame(bad.framing),
            conn.recv_line,
            lambda: conn.recv(1),
            lambda: conn.recv_exactly(1),
            lambda: conn.peek(1),
            lambda: next(conn.lines()),
        ):
            with pytest.raises(hs.Poisoned, match="middle of a message"):
                call()
    else:
        assert not conn.poisoned
        assert conn.recv(100, timeout=30) == bad.after
    conn.sendall(b"writing goes on")
    assert theirs.recv(100) == b"writing goes on"


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda conn: conn.recv_until(b""), ValueError, "separator must not be empty"),
        (lambda conn: conn.recv_until("\n"), TypeError, "separator must be bytes, not str"),
        (lambda conn: conn.recv_until(b"\n", max_size=-1), ValueError, "max_size must be in 0"),
        (lambda conn: conn.recv_frame(None), TypeError, "framing must be a LengthPrefix"),
        (lambda conn: conn.recv_frames(None), TypeError, "framing must be a LengthPrefix"),
        (lambda conn: conn.frames(None), TypeError, "framing must be a LengthPrefix"),
        (lambda conn: conn.recv_frames(SMALL, 0), ValueError, "max_count must be in 1"),
        (lambda conn: conn.recv_lines(True), TypeError, "max_count must be an int, not bool"),
        (lambda conn: conn.recv_line(b"\n"), TypeError, "framing must be a LengthPrefix"),
        (lambda conn: conn.peek(-1), ValueError, "n must be in 0"),
        (lambda conn: conn.lines(timeout=-1), ValueError, "timeout must be a non-negative"),
        (lambda conn: conn.set_min_receive_rate(0), ValueError, "bytes_per_second must be in 1"),
        (
            lambda conn: conn.set_min_receive_rate(1, grace=float("inf")),
            *(ValueError, "grace must be a finite number"),
        ),
        (lambda conn: conn.set_half_closed_timeout(-1), ValueError, "timeout must be a non-neg"),
    ],
)
def test_impossible_arguments_are_refused_by_name(
    call: Callable[[Any], Any], error: type[Exception], message: str, pair: Pair
) -> None:
    conn, theirs = pair
    theirs.sendall(b"untouched\n")
    with pytest.raises(error, match=message):
        call(conn)
    assert conn.recv_line(timeout=30) == b"untouched"


def test_errors_are_of_the_classes_that_code_already_catches() -> None:
    assert issubclass(hs.EndOfStream, hs.Truncated)
    assert issubclass(hs.Truncated, EOFError)
    assert issubclass(hs.FrameTooLarge, hs.FrameError)
    assert issubclass(hs.BadFrame, hs.FrameError)
    assert issubclass(hs.FrameError, hs.HardsockError)
    assert not issubclass(hs.FrameError, hs.Truncated)
    assert issubclass(hs.SocketError, OSError)
    assert issubclass(hs.Poisoned, BrokenPipeError)


def test_frame_too_large_tells_the_facts(pair: Pair) -> None:
    conn, theirs = pair
    keep = hs.LengthPrefix(width=2, max_size=3, on_too_long="keep")
    theirs.sendall(b"\0\5hello")
    with pytest.raises(hs.FrameTooLarge) as caught:
        conn.recv_frame(keep, timeout=30)
    exc = caught.value
    assert (exc.limit, exc.size, exc.recoverable, exc.discarded) == (3, 5, True, 0)
    assert exc.errno == errno.EMSGSIZE
    assert conn.recv_frame(dataclasses.replace(keep, max_size=5), timeout=30) == b"hello"

    theirs.sendall(b"endless")
    with pytest.raises(hs.FrameTooLarge) as caught:
        conn.recv_until(b"\n", max_size=3, timeout=30)
    exc = caught.value
    assert (exc.limit, exc.size, exc.recoverable, exc.discarded) == (3, None, False, 0)
    assert exc.op == "recv_until"


@pytest.mark.parametrize("how", ["recv", "recv_exactly", "peek", "recv_line", "lines"])
def test_a_frame_that_is_being_skipped_is_told_to_whatever_reads_next(how: str, pair: Pair) -> None:
    conn, theirs = pair
    theirs.sendall(b"\0\xc8" + b"\n" * 50)
    with pytest.raises(hs.DeadlineExceeded):
        conn.recv_frame(hs.LengthPrefix(width=2, max_size=9, on_too_long="skip"), timeout=0.01)
    assert conn.buffered == 0
    with pytest.raises(hs.Busy, match="being skipped"):
        conn.detach()
    theirs.sendall(b"\n" * 150 + b"next\n")
    calls: dict[str, Callable[[], Any]] = {
        "recv": lambda: conn.recv(5, timeout=30),
        "recv_exactly": lambda: conn.recv_exactly(5, timeout=30),
        "peek": lambda: conn.peek(5, timeout=30),
        "recv_line": lambda: conn.recv_line(timeout=30),
        "lines": lambda: next(conn.lines(timeout=30)),
    }
    with pytest.raises(hs.FrameTooLarge, match="200 bytes exceeds max_size 9, skipped") as caught:
        calls[how]()
    exc = caught.value
    assert (exc.limit, exc.size, exc.recoverable, exc.discarded) == (9, 200, True, 202)
    assert calls[how]().startswith(b"next")


# ---- what the calls return


def test_one_buffer_serves_all_calls(pair: Pair) -> None:
    conn, theirs = pair
    theirs.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n\x03bin\x00;;a;;" + b"\x05hello" + b"rest")
    assert conn.recv_line(CRLF, timeout=30) == b"GET / HTTP/1.1"
    assert conn.peek(4) == b"Host"
    assert conn.recv_until(b"\r\n\r\n", keep=True) == b"Host: x\r\n\r\n"
    assert conn.recv_frame(SMALL) == b"bin"
    assert conn.recv_frame(SMALL) == b""
    assert conn.recv_frame(hs.Delimiter(b";;")) == b""
    assert conn.recv_until(b";;") == b"a"
    assert conn.recv(1) == b"\x05"
    assert conn.recv_exactly(5) == b"hello"
    assert conn.buffered == 4
    assert conn.recv(100, socket.MSG_PEEK) == b"rest"
    assert conn.recv(100) == b"rest"


def test_batches_return_what_is_there_and_no_more_than_wanted(pair: Pair) -> None:
    conn, theirs = pair
    theirs.sendall(b"1\n2\n3\n4\n5")
    assert conn.recv_lines(2, timeout=30) == [b"1", b"2"]
    assert conn.recv_lines() == [b"3", b"4"]
    with pytest.raises(hs.DeadlineExceeded) as caught:
        conn.recv_lines(timeout=0)
    assert caught.value.bytes_done == 1
    theirs.sendall(b"\r\nf\xc3\xbcnf\n" + SMALL.encode(b"a") + SMALL.encode(b""))
    assert conn.recv_lines(None, hs.Line("any", encoding="utf-8"), timeout=30) == ["5", "fünf"]
    assert conn.recv_frames(SMALL, timeout=30) == [b"a", b""]


def test_a_batch_stops_in_front_of_what_it_cannot_return(pair: Pair) -> None:
    """Lines that were good are not lost because one behind them is not."""
    conn, theirs = pair
    text = hs.Line(encoding="utf-8")
    theirs.sendall(b"one\ntwo\nb\xfcd\nthree\n")
    assert conn.recv_lines(None, text, timeout=30) == ["one", "two"]
    with pytest.raises(UnicodeDecodeError) as caught:
        conn.recv_lines(None, text, timeout=30)
    assert caught.value.object == b"b\xfcd"
    assert conn.recv_lines(None, text, timeout=30) == ["three"]
    skip = hs.Line(max_size=3, on_too_long="skip")
    theirs.sendall(b"abc\ntoolong\ndef\n")
    assert conn.recv_lines(None, skip, timeout=30) == [b"abc"]
    with pytest.raises(hs.FrameTooLarge, match="skipped after 8 bytes"):
        conn.recv_lines(None, skip, timeout=30)
    assert conn.recv_lines(None, skip, timeout=30) == [b"def"]


def test_a_codec_that_raises_keeps_its_line(pair: Pair) -> None:
    conn, theirs = pair
    willing = False

    def decode(data: bytes, errors: str = "strict") -> tuple[str, int]:
        if bytes(data) != b"a\r\n" and not willing:
            raise RuntimeError("not now")
        return bytes(data).decode("latin-1"), len(data)

    def find(name: str) -> codecs.CodecInfo | None:
        if name != "hardsock_unwilling":
            return None
        return codecs.CodecInfo(lambda s, e="": (s.encode("latin-1"), len(s)), decode, name=name)

    codecs.register(find)
    try:
        line = hs.Line(encoding="hardsock_unwilling")
        theirs.sendall(b"precious\n")
        for call in (
            conn.recv_line,
            lambda f: next(conn.lines(f)),
            lambda f: conn.recv_lines(1, f),
        ):
            with pytest.raises(RuntimeError, match="not now"):
                call(line)
        willing = True
        assert conn.recv_line(line, timeout=30) == "precious"
    finally:
        codecs.unregister(find)


def test_iteration_consumes_exactly_what_it_yields(pair: Pair) -> None:
    conn, theirs = pair
    theirs.sendall(b"HELO\nDATA\n\x03raw" + b"x\ny\n")
    for line in conn.lines(timeout=30):
        if line == b"DATA":
            break
    assert conn.recv_exactly(4, timeout=30) == b"\x03raw"
    theirs.shutdown(socket.SHUT_WR)
    assert list(conn.lines(timeout=30)) == [b"x", b"y"]
    assert list(conn.lines(timeout=30)) == []


def test_iteration_over_text_and_frames_ends_with_the_stream(pair: Pair) -> None:
    conn, theirs = pair
    theirs.sendall("grün\r\nblau\n".encode() + b"".join(SMALL.encode(b"x" * i) for i in range(6)))
    lines = conn.lines(hs.Line("any", encoding="utf-8"), timeout=30)
    assert [next(lines), next(lines)] == ["grün", "blau"]
    theirs.shutdown(socket.SHUT_WR)
    assert list(conn.frames(SMALL, timeout=30)) == [b"x" * i for i in range(6)]


def test_an_end_in_the_middle_does_not_end_an_iteration(pair: Pair) -> None:
    conn, theirs = pair
    theirs.sendall(b"whole\npart")
    theirs.shutdown(socket.SHUT_WR)
    lines = conn.lines(timeout=30)
    assert next(lines) == b"whole"
    with pytest.raises(hs.Truncated) as caught:
        next(lines)
    assert not isinstance(caught.value, hs.EndOfStream)
    assert conn.recv(10) == b"part"


def test_iteration_goes_on_behind_a_skipped_line_and_after_a_deadline(pair: Pair) -> None:
    conn, theirs = pair
    theirs.sendall(b"a\nfar too long\nb\nc")
    lines = conn.lines(hs.Line(max_size=5, on_too_long="skip"), timeout=0.02)
    assert next(lines) == b"a"
    with pytest.raises(hs.FrameTooLarge):
        next(lines)
    assert next(lines) == b"b"
    with pytest.raises(hs.DeadlineExceeded):
        next(lines)
    theirs.sendall(b"\n")
    assert next(lines) == b"c"
    conn.close()
    with pytest.raises(hs.Closed):
        next(lines)


def test_iteration_obeys_tokens(pair: Pair) -> None:
    conn, _ = pair
    token = hs.CancelToken()
    with Call(lambda: next(conn.lines(token=token))) as reading:
        reading.wait_until_blocked()
        token.cancel("enough")
        with pytest.raises(hs.Cancelled, match="enough"):
            reading.result(30)


def test_peek_waits_for_all_and_takes_nothing(pair: Pair) -> None:
    conn, theirs = pair
    with Call(conn.peek, 4, timeout=60) as peeking:
        theirs.sendall(b"pe")
        theirs.sendall(b"ek!")
        assert peeking.result(30) == b"peek"
    assert conn.peek(0) == b""
    assert conn.recv(10, timeout=30)[:4] == b"peek"


# ---- sending frames


def test_send_frame_sends_head_length_and_payload(pair: Pair) -> None:
    conn, theirs = pair
    f = hs.LengthPrefix(width=2, offset=1, adjustment=1)
    conn.send_frame(memoryview(b"payload"), f, bytearray(b"T"))
    assert theirs.recv(100) == f.encode(b"payload", b"T") == b"T\0\6payload"
    conn.send_frame(b"", SMALL)
    assert theirs.recv(100) == b"\0"


def test_a_frame_that_cannot_be_is_refused_before_a_byte_is_sent(pair: Pair) -> None:
    conn, theirs = pair
    with pytest.raises(hs.FrameTooLarge, match="6 bytes exceed max_size 5") as caught:
        conn.send_frame(b"sixsix", SMALL)
    exc = caught.value
    assert (exc.op, exc.limit, exc.size, exc.recoverable) == ("send_frame", 5, 6, True)
    with pytest.raises(hs.BadFrame, match="would be negative"):
        conn.send_frame(b"", hs.LengthPrefix(adjustment=1))
    with pytest.raises(
        ValueError, match="1 bytes in front of the length field where offset says 0"
    ):
        conn.send_frame(b"", SMALL, b"x")
    with pytest.raises(ValueError, match="has no header"):
        conn.send_frame(b"", CRLF)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        conn.send_frame("text", SMALL)  # type: ignore[arg-type]
    assert (conn.bytes_sent, conn.poisoned) == (0, False)
    conn.send_frame(b"fine", SMALL)
    assert theirs.recv(100) == b"\4fine"


def test_half_a_frame_sent_poisons(pair: Pair) -> None:
    conn, _ = pair
    with pytest.raises(hs.DeadlineExceeded) as caught:
        conn.send_frame(b"x" * (8 << 20), hs.LengthPrefix(), timeout=0.3)
    assert caught.value.op == "send_frame"
    assert 0 < caught.value.bytes_done < 8 << 20
    with pytest.raises(hs.Poisoned):
        conn.send_frame(b"x", hs.LengthPrefix())


# ---- files


@pytest.fixture
def file(tmp_path: Any) -> Iterator[Any]:
    path = tmp_path / "file"
    path.write_bytes(bytes(range(256)) * 64)
    with path.open("rb") as opened:
        yield opened


def test_sendfile_takes_offset_and_count_and_moves_the_position(pair: Pair, file: Any) -> None:
    conn, theirs = pair
    content = file.read()
    assert conn.sendfile(file, 10, 300) == 300
    assert theirs.recv(1000, socket.MSG_WAITALL | socket.MSG_PEEK)[:300] == content[10:310]
    assert file.tell() == 310
    assert theirs.recv(300) == content[10:310]
    assert conn.sendfile(file, len(content) - 7) == 7
    assert theirs.recv(100) == content[-7:]
    assert conn.sendfile(file.fileno(), 0, 5) == 5
    assert theirs.recv(100) == content[:5]
    assert conn.bytes_sent == 312


def test_a_file_that_is_short_or_empty_is_told_by_the_count(pair: Pair, file: Any) -> None:
    conn, _ = pair
    size = len(file.read())
    assert conn.sendfile(file, size - 3, 100) == 3
    assert conn.sendfile(file, size + 100) == 0
    assert conn.sendfile(file, 0, 0) == 0
    assert not conn.poisoned


def test_a_file_truncated_while_it_is_sent_ends_there(pair: Pair, tmp_path: Any) -> None:
    conn, theirs = pair
    path = tmp_path / "big"
    path.write_bytes(b"x" * (16 << 20))
    with path.open("r+b") as big:
        with Call(conn.sendfile, big, timeout=60) as sending:
            sending.wait_until_blocked()
            big.truncate(1)
            with Call(drain, theirs) as draining:
                sent = sending.result(30)
                conn.close_write()
                assert draining.result(30) <= sent < 16 << 20
        assert big.tell() == sent


def test_half_a_file_sent_poisons_and_says_how_far_it_came(pair: Pair, tmp_path: Any) -> None:
    conn, _ = pair
    path = tmp_path / "big"
    path.write_bytes(b"x" * (16 << 20))
    with path.open("rb") as big:
        with pytest.raises(hs.DeadlineExceeded) as caught:
            conn.sendfile(big, timeout=0.3)
        assert caught.value.op == "sendfile"
        assert 0 < caught.value.bytes_done == conn.bytes_sent == big.tell() < 16 << 20
        with pytest.raises(hs.Poisoned):
            conn.sendfile(big)


def test_what_is_no_regular_file_is_refused(pair: Pair, file: Any) -> None:
    conn, _ = pair
    reader, writer = socket.socketpair()
    with reader, writer:
        with pytest.raises(ValueError, match="file must be a regular file"):
            conn.sendfile(reader.fileno())
    with open("/dev/null", "rb") as null, pytest.raises(ValueError, match="regular file"):
        conn.sendfile(null)
    for wrong in ("name", None, 1.5):
        with pytest.raises(TypeError):
            conn.sendfile(wrong)  # type: ignore[arg-type]
    with pytest.raises(OSError, match="descriptor") as caught:
        conn.sendfile(10**6)
    assert caught.value.errno == errno.EBADF
    for arguments in ((-1,), (0, -1)):
        with pytest.raises(ValueError, match="must be in 0"):
            conn.sendfile(file, *arguments)
    assert (conn.bytes_sent, conn.poisoned) == (0, False)


# ---- last words


@pytest.mark.parametrize("how", ["sendall", "send", "sendmsg", "send_frame", "sendfile"])
def test_a_reset_found_by_a_send_carries_what_the_peer_had_said(
    how: str, tcp_pair: Pair, file: Any
) -> None:
    conn, theirs = tcp_pair
    calls: dict[str, Callable[[], Any]] = {
        "sendall": lambda: conn.sendall(b"x" * 1000, timeout=30),
        "send": lambda: conn.send(b"x" * 1000, timeout=30),
        "sendmsg": lambda: conn.sendmsg([b"x", b"y"], timeout=30),
        "send_frame": lambda: conn.send_frame(b"x" * 1000, hs.LengthPrefix(), timeout=30),
        "sendfile": lambda: conn.sendfile(file, timeout=30),
    }
    theirs.sendall(b"HTTP/1.1 413 Too Large\r\n\r\n")
    reset(theirs)
    with pytest.raises(hs.Reset) as caught:
        while True:
            calls[how]()
    assert caught.value.answer == b"HTTP/1.1 413 Too Large\r\n\r\n"
    with pytest.raises(hs.Reset) as again:
        calls[how]()
    assert again.value.answer == caught.value.answer
    assert conn.recv_line(CRLF, timeout=30) == b"HTTP/1.1 413 Too Large"
    assert conn.recv(100, timeout=30) == b"\r\n"
    with pytest.raises(hs.Reset):
        conn.recv(1, timeout=30)


def test_a_server_that_refuses_an_upload_is_heard() -> None:
    steps = [("recv", 100), ("send", b"507 full\r\n"), ("close",)]  # our bytes are unread: a reset
    with PeerScript(steps, check=False) as peer, hs.connect(peer.address, timeout=30) as conn:
        with pytest.raises(hs.Reset) as caught:
            while True:
                conn.sendall(b"x" * 65536, timeout=30)
        assert caught.value.answer == b"507 full\r\n"
        assert conn.recv_line(CRLF, timeout=30) == b"507 full"


# ---- time


def test_a_sender_that_drips_is_too_slow(pair: Pair) -> None:
    with PeerScript([("drip", b"x" * 1000, 0.01)], check=False) as peer:
        with hs.connect(peer.address, timeout=30) as conn:
            conn.set_min_receive_rate(10_000, grace=0.1)
            with pytest.raises(hs.DeadlineExceeded, match="10000 bytes per second") as caught:
                conn.recv_exactly(1000, timeout=30)
            assert caught.value.phase == "min_rate"
            assert 0 < caught.value.bytes_done < 1000
            conn.set_min_receive_rate(None)
            assert conn.recv_exactly(caught.value.bytes_done + 1, timeout=30)


def test_no_minimum_holds_before_the_first_byte_or_for_plain_reads(pair: Pair) -> None:
    conn, theirs = pair
    conn.set_min_receive_rate(10**9, grace=0)
    with pytest.raises(hs.DeadlineExceeded) as caught:
        conn.recv_line(timeout=0.2)
    assert caught.value.phase == "read"
    theirs.sendall(b"x")
    assert conn.recv(1, timeout=30) == b"x"
    with pytest.raises(hs.DeadlineExceeded) as caught:
        conn.recv(1, timeout=0.2)
    assert caught.value.phase == "read"
    theirs.sendall(b"whole\n")  # It is there at once, in a message that took no time.
    assert conn.recv_line(timeout=30) == b"whole"


def test_after_our_half_close_the_answer_has_its_own_time(pair: Pair) -> None:
    conn, theirs = pair
    conn.set_half_closed_timeout(0.02)
    theirs.sendall(b"a")
    assert conn.recv(1, timeout=30) == b"a"
    conn.close_write()
    with pytest.raises(hs.DeadlineExceeded):
        conn.recv(1)
    conn.set_read_deadline(None)
    theirs.sendall(b"late")
    assert conn.recv(10, timeout=30) == b"late"


def test_after_the_peers_end_writing_has_its_own_time(pair: Pair) -> None:
    conn, theirs = pair
    conn.set_half_closed_timeout(3)  # It begins with the end: the first byte has to go meanwhile.
    theirs.shutdown(socket.SHUT_WR)
    with pytest.raises(hs.EndOfStream):
        conn.recv_line(timeout=30)
    with pytest.raises(hs.DeadlineExceeded) as caught:
        conn.sendall(b"x" * (8 << 20))
    assert caught.value.bytes_done > 0


# ---- looking at it


def test_idle_is_between_two_messages(pair: Pair) -> None:
    conn, theirs = pair
    assert not conn.idle
    with Call(conn.recv_line, timeout=60) as reading:
        reading.wait_until_blocked()
        assert conn.idle
        theirs.sendall(b"quest")
        reading.wait_until_blocked()
        while conn.buffered < 5:
            assert reading.running
        assert not conn.idle
        theirs.sendall(b"ion\n")
        reading.result(30)
    assert not conn.idle


CAUSES: dict[str, Callable[[hs.Connection, socket.socket], Any]] = {
    "by_peer": lambda conn, theirs: (reset(theirs), recv_quietly(conn)),
    "by_abort": lambda conn, theirs: conn.abort(),
    "by_linger": lambda conn, theirs: (
        conn.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)),
        conn.close(),
    ),
    "by_unread": lambda conn, theirs: (theirs.send(b"ab"), conn.recv(1), conn.close()),
}


def recv_quietly(conn: hs.Connection) -> None:
    with pytest.raises(hs.Reset):
        conn.recv(1, timeout=30)


@pytest.mark.parametrize("cause", CAUSES)
def test_resets_are_counted_by_cause(cause: str, tcp_pair: Pair) -> None:
    before = hs.reset_counts()
    CAUSES[cause](*tcp_pair)
    tcp_pair[0].close()
    after = hs.reset_counts()
    assert {key: after[key] - before[key] for key in after} == {key: key == cause for key in after}


# ---- any framing, any pieces, any deadlines


@dataclasses.dataclass
class Message:
    """How a message is read, and what reading it must give."""

    call: Callable[[hs.Connection, dict[str, Any]], Any]
    wire: bytes
    expected: Any


def exactly(data: bytes) -> Message:
    return Message(lambda conn, kw: conn.recv_exactly(len(data), **kw), data, data)


def framed(f: Any, data: bytes) -> Message:
    return Message(lambda conn, kw: conn.recv_frame(f, **kw), f.encode(data, b"h" * f.offset), data)


def until(separator: bytes, data: bytes) -> Message:
    """*data* without what could be taken for a part of the separator."""
    data = bytes(byte for byte in data if byte not in separator)
    return Message(lambda conn, kw: conn.recv_until(separator, **kw), data + separator, data)


def text_line(ending: str, text: str) -> Message:
    f = hs.Line("any" if ending == "\n" else "\r\n", encoding="utf-8")  # type: ignore[arg-type]
    text = text.replace("\r", "").replace("\n", "")
    return Message(lambda conn, kw: conn.recv_line(f, **kw), (text + ending).encode(), text)


def skipped(size: int) -> Message:
    f = hs.LengthPrefix(width=2, max_size=9, on_too_long="skip")

    def call(conn: hs.Connection, kw: dict[str, Any]) -> Any:
        with pytest.raises(hs.FrameTooLarge) as caught:
            conn.recv_frame(f, **kw)
        return caught.value.size

    return Message(call, size.to_bytes(2, "big") + b"\n" * size, size)


def peeked(data: bytes) -> Message:
    def call(conn: hs.Connection, kw: dict[str, Any]) -> Any:
        assert conn.peek(len(data), **kw) == data
        return conn.recv_exactly(len(data))

    return Message(call, data, data)


def batch(lines: list[bytes]) -> Message:
    lines = [line.replace(b"\n", b"") for line in lines] or [b""]

    def call(conn: hs.Connection, kw: dict[str, Any]) -> Any:
        got = conn.recv_lines(len(lines), **kw)
        while len(got) < len(lines):
            got += conn.recv_lines(len(lines) - len(got), timeout=60)
        return got

    return Message(call, b"".join(line + b"\n" for line in lines), lines)


PREFIXES = [
    hs.LengthPrefix(),
    hs.LengthPrefix(width="varint"),
    hs.LengthPrefix(width=3, byteorder="little", offset=2, includes_header=True),
    hs.LengthPrefix(width=2, adjustment=-3),
]
payloads = st.one_of(st.binary(max_size=20), st.integers(0, 9000).map(lambda n: b"pq" * n))
messages = st.one_of(
    payloads.map(exactly),
    st.builds(framed, st.sampled_from(PREFIXES), payloads),
    st.builds(until, st.sampled_from([b"\n", b"\r\n.\r\n", b"--boundary"]), payloads),
    st.builds(text_line, st.sampled_from(["\n", "\r\n"]), st.text(max_size=20)),
    st.integers(10, 3000).map(skipped),
    payloads.map(peeked),
    st.lists(st.binary(max_size=5), max_size=5).map(batch),
)


class Feeder:
    """Sends *wire* in pieces, from a thread, and stops where the reader lets it."""

    def __init__(self, sock: socket.socket, wire: bytes, pieces: list[int]) -> None:
        self._sock, self._wire, self._pieces = sock, wire, pieces

    def __call__(self) -> None:
        at, pieces = 0, list(self._pieces)
        while at < len(self._wire):
            n = pieces.pop() if pieces else 1 << 20
            self._sock.sendall(self._wire[at : at + n])
            at += n
        self._sock.shutdown(socket.SHUT_WR)


class Impatience:
    """Arguments of a call that give it no time, little, or a token that is soon cancelled."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._timers: list[threading.Timer] = []

    def arguments(self) -> dict[str, Any]:
        kind = self._random.randrange(4)
        if kind == 0:
            return {"timeout": 0}
        if kind == 1:
            return {"timeout": self._random.random() / 2000}
        if kind == 2:
            token = hs.CancelToken()
            timer = threading.Timer(self._random.random() / 2000, token.cancel)
            timer.start()
            self._timers.append(timer)
            return {"token": token, "timeout": 10}
        return {"timeout": 10}

    def join(self) -> None:
        for timer in self._timers:
            timer.join()


@hypothesis.given(
    st.lists(messages, min_size=1, max_size=12),
    st.lists(st.integers(1, 3000), max_size=40),
    st.integers(0, 2**32),
)
@hypothesis.settings(deadline=None, max_examples=120)
def test_whatever_is_interrupted_no_byte_is_lost_and_none_comes_twice(
    script: list[Message], pieces: list[int], seed: int
) -> None:
    ours, theirs = socket.socketpair()
    wire = b"".join(message.wire for message in script)
    impatience = Impatience(seed)
    with theirs, hs.adopt(ours) as conn, Call(Feeder(theirs, wire, pieces)) as feeding:
        for message in script:
            while True:
                try:
                    got = message.call(conn, impatience.arguments())
                    break
                except (hs.DeadlineExceeded, hs.Cancelled):
                    continue
            assert got == message.expected
        feeding.result(60)
        assert conn.recv(1, timeout=30) == b""
        assert conn.bytes_received == len(wire)
        assert conn.buffered == 0
    impatience.join()


def slowly(separator: bytes, data: bytes, max_size: int) -> list[Any]:
    """Split at separators, one byte at a time; the last is how it ended."""
    outcome: list[Any] = []
    frame = b""
    for i in range(len(data)):
        frame += data[i : i + 1]
        if frame.endswith(separator):
            outcome.append(frame[: -len(separator)])
            frame = b""
        start = len(frame)
        while start and not separator.startswith(frame[-start:]):
            start -= 1
        if len(frame) - min(start, len(separator) - 1) > max_size:
            return [*outcome, "too large"]
    return [*outcome, "truncated" if frame else "end"]


@hypothesis.given(
    st.sampled_from([b"a", b"ab", b"aab", b"abab", b"aaaa"]),
    st.text("ab", max_size=60).map(str.encode),
    st.integers(0, 12),
    st.lists(st.integers(1, 7), max_size=60),
)
@hypothesis.settings(deadline=None, max_examples=150)
def test_separators_that_straddle_reads_are_found_as_a_slow_search_finds_them(
    separator: bytes, data: bytes, max_size: int, pieces: list[int]
) -> None:
    ours, theirs = socket.socketpair()
    outcome: list[Any] = []
    sizes = list(pieces)
    at = 0
    with theirs, hs.adopt(ours) as conn:
        while not outcome or isinstance(outcome[-1], bytes):
            try:
                outcome.append(conn.recv_until(separator, max_size=max_size, timeout=0))
            except hs.DeadlineExceeded:
                n = sizes.pop() if sizes else len(data)
                theirs.sendall(data[at : at + n])
                at += n
                if at >= len(data):
                    theirs.shutdown(socket.SHUT_WR)
            except hs.FrameTooLarge:
                outcome.append("too large")
            except hs.EndOfStream:
                outcome.append("end")
            except hs.Truncated:
                outcome.append("truncated")
    assert outcome == slowly(separator, data, max_size)
