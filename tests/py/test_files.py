"""Files of connections: no byte is lost or doubled, and a call is one call.

The property tests keep a model beside the file: the bytes that the peer has sent, and how many of
them were returned. A call that fails must leave it as it was; one that succeeds must return what
comes next in it, however deadlines, other files and the connection's own calls were mixed in.
"""

from __future__ import annotations

import gc
import io
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from typing import Any

import hypothesis
import pytest
from hypothesis import strategies as st

import hardsock as hs
from hardsock.lab.peers import PeerScript
from hardsock.lab.threads import Call
from support.tls import Identities, tls_pair

SOON = 0.002  # a deadline that passes while a call waits
TRANSPORTS = ["unix", "tcp", "tls12", "tls13"]
PROPERTY = hypothesis.settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture],
)


@contextmanager
def connected(transport: str, ids: Identities) -> Iterator[tuple[hs.Connection, hs.Connection]]:
    """Two ends of one connection."""
    with ExitStack() as stack:
        if transport == "unix":
            ours, theirs = (stack.enter_context(hs.adopt(one)) for one in socket.socketpair())
        elif transport == "tcp":
            listener = stack.enter_context(hs.listen(("127.0.0.1", 0)))
            ours = stack.enter_context(hs.connect(listener.address, timeout=30))
            theirs = stack.enter_context(listener.accept(timeout=30))
        else:
            version = {"tls12": "TLSv1.2", "tls13": "TLSv1.3"}[transport]
            only = {"min_version": version, "max_version": version}
            pair = tls_pair(ids.client(**only), ids.server(**only))
            ours, theirs = stack.enter_context(pair)
            ours.confirm(timeout=30)
        theirs.settimeout(60)
        yield ours, theirs


@pytest.fixture(params=TRANSPORTS)
def pair(
    request: pytest.FixtureRequest, ids: Identities
) -> Iterator[tuple[hs.Connection, hs.Connection]]:
    with connected(request.param, ids) as both:
        yield both


# ---- reading: the model


class Reading:
    """A stream that is read through two files and the connection, and what must come of it."""

    def __init__(self, ours: hs.Connection, theirs: hs.Connection, data: bytes) -> None:
        self.ours, self.theirs, self.data = ours, theirs, data
        self.sent = self.taken = 0
        self.ended = False
        self.files = [ours.makefile("rb"), ours.makefile("rwb", 3)]

    @property
    def ready(self) -> bytes:
        return self.data[self.taken : self.sent]

    def send(self, n: int) -> None:
        piece = self.data[self.sent : self.sent + n]
        if piece:
            self.theirs.sendall(piece)
            self.sent += len(piece)

    def end(self) -> None:
        if not self.ended:
            self.theirs.close_write(timeout=30)
            self.data = self.data[: self.sent]
            self.ended = True

    def take(self, got: bytes, want: bytes) -> None:
        assert got == want
        self.taken += len(got)

    def read(self, which: int, n: int) -> None:
        self.take(self.files[which].read(n), self.ready if n < 0 else self.ready[:n])
        assert n >= 0 or self.ended

    def line(self, limit: int) -> bytes:
        rest = self.data[self.taken :]
        end = rest.find(b"\n") + 1 or len(rest)
        return rest[: end if limit < 0 else min(end, limit)]

    def readline(self, which: int, limit: int) -> None:
        self.take(self.files[which].readline(limit), self.line(limit))

    def readlines(self, which: int, hint: int) -> None:
        got = self.files[which].readlines(hint)
        want = io.BufferedReader(io.BytesIO(self.ready)).readlines(hint)  # type: ignore[arg-type]
        assert got == want
        self.taken += sum(map(len, got))

    def readinto(self, which: int, n: int) -> None:
        buffer = bytearray(n)
        got = self.files[which].readinto(buffer)
        self.take(bytes(buffer[:got]), self.ready[:n])

    def some(self, got: bytes, n: int) -> None:
        """Taken by a call that returns what there is."""
        assert got or self.ended or n == 0
        assert len(got) <= n
        self.take(got, self.ready[: len(got)])

    def read1(self, which: int, n: int) -> None:
        self.some(self.files[which].read1(n), n)

    def peek(self, which: int, n: int) -> None:
        got = self.files[which].peek(n)
        assert got or self.ended
        assert self.ready.startswith(got)

    def recv(self, which: int, n: int) -> None:
        self.some(self.ours.recv(n), n)

    def recv_exactly(self, which: int, n: int) -> None:
        with suppress(hs.EndOfStream, hs.Truncated):
            self.take(self.ours.recv_exactly(n), self.ready[:n])

    def raw(self, which: int, n: int) -> None:
        with self.ours.makefile("rb", 0) as file:
            self.some(file.read(n), n)

    def raw_readline(self, which: int, limit: int) -> None:
        with self.ours.makefile("rb", 0) as file:
            self.take(file.readline(limit), self.line(limit))

    def finish(self) -> None:
        for sent in range(self.sent, len(self.data), 7):
            self.send(min(7, len(self.data) - sent))
        self.end()
        self.ours.settimeout(60)
        assert self.files[0].read() == self.data[self.taken :]
        assert self.files[1].read() == self.files[0].readline() == b""
        for file in self.files:
            file.close()


CALLS = ["read", "readline", "readlines", "readinto", "read1", "peek", "recv", "recv_exactly"]
READ_STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("send"), st.integers(1, 12)),
        st.tuples(
            st.sampled_from([*CALLS, "raw", "raw_readline"]), st.integers(0, 1), st.integers(0, 9)
        ),
        st.tuples(st.sampled_from(["read", "readline"]), st.integers(0, 1), st.just(-1)),
        st.tuples(st.just("end")),
    ),
    min_size=4,
    max_size=30,
)
DATA = st.lists(st.sampled_from([b"\n", b"a", b"bcd", b"\r\n", b"0123456789"]), max_size=40)
LIMITS = ["settimeout", "scope", "nonblocking", "read deadline"]


@contextmanager
def limited(conn: hs.Connection, how: str) -> Iterator[None]:
    """A deadline, of one kind or another, for the calls of the block."""
    if how == "settimeout":
        conn.settimeout(SOON)
        yield
    elif how == "nonblocking":
        conn.settimeout(0)
        yield
    elif how == "scope":
        conn.settimeout(None)
        with hs.timeout(SOON):
            yield
    else:
        conn.settimeout(None)
        conn.set_read_deadline(SOON)
        yield
        conn.set_read_deadline(None)


def step_of_reading(reading: Reading, step: Any, how: str) -> None:
    name, *args = step
    if name in ("send", "end"):
        getattr(reading, name)(*args)
        return
    try:
        with limited(reading.ours, how):
            getattr(reading, name)(*args)
    except hs.DeadlineExceeded:
        reading.ours.set_read_deadline(None)
        assert how != "nonblocking"
    except BlockingIOError:
        assert how == "nonblocking"


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_no_byte_is_lost_or_doubled_by_reading(ids: Identities, transport: str) -> None:
    @PROPERTY
    @hypothesis.given(data=DATA, steps=READ_STEPS, how=st.sampled_from(LIMITS[:2] + LIMITS[3:]))
    def run(data: list[bytes], steps: list[Any], how: str) -> None:
        with connected(transport, ids) as (ours, theirs):
            reading = Reading(ours, theirs, b"".join(data))
            for step in steps:
                step_of_reading(reading, step, how)
            reading.finish()

    run()


class Nonblocking(Reading):
    """With settimeout(0) what is there counts: a read may return less, or None."""

    def part(self, got: bytes | None, n: int) -> None:
        self.take(got or b"", self.ready[: len(got or b"")])
        assert n < 0 or len(got or b"") <= n

    def read(self, which: int, n: int) -> None:
        self.part(self.files[which].read(n), n)

    def readinto(self, which: int, n: int) -> None:
        buffer = bytearray(n)
        got = self.files[which].readinto(buffer)
        self.part(None if got is None else bytes(buffer[:got]), n)

    def peek(self, which: int, n: int) -> None:
        assert self.ready.startswith(self.files[which].peek(n))

    def raw(self, which: int, n: int) -> None:
        with self.ours.makefile("rb", 0) as file:
            self.part(file.read(n), n)


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_no_byte_is_lost_or_doubled_by_reading_without_waiting(
    ids: Identities, transport: str
) -> None:
    @PROPERTY
    @hypothesis.given(data=DATA, steps=READ_STEPS)
    def run(data: list[bytes], steps: list[Any]) -> None:
        with connected(transport, ids) as (ours, theirs):
            reading = Nonblocking(ours, theirs, b"".join(data))
            for step in steps:
                step_of_reading(reading, step, "nonblocking")
            Reading.finish(reading)

    run()


# ---- reading text


TEXT = st.lists(
    st.sampled_from(["\n", "\r", "\r\n", "a", "\u00fc", "\u20ac", "\U0001f600", "lines "]),
    max_size=40,
)
TEXT_STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("send"), st.integers(1, 9)),
        st.tuples(st.just("readline"), st.integers(-1, 7)),
        st.tuples(st.just("read"), st.integers(-1, 7)),
        st.tuples(st.just("readlines"), st.integers(1, 7)),
        st.tuples(st.just("next")),
    ),
    min_size=4,
    max_size=30,
)


def call_text(file: Any, name: str, args: list[int]) -> Any:
    if name == "next":
        return next(file, "")
    return getattr(file, name)(*args)


@pytest.mark.parametrize("transport", ["unix", "tls13"])
@pytest.mark.parametrize("newline", [None, "", "\n", "\r", "\r\n"])
def test_text_is_what_the_standard_library_reads(
    ids: Identities, transport: str, newline: str | None
) -> None:
    """The reference has all bytes at hand; the file gets them in pieces, with deadlines between."""

    @PROPERTY
    @hypothesis.given(
        text=TEXT, steps=TEXT_STEPS, encoding=st.sampled_from(["utf-8", "utf-16", "gb18030"])
    )
    def run(text: list[str], steps: list[Any], encoding: str) -> None:
        data = "".join(text).encode(encoding)
        reference = io.TextIOWrapper(io.BytesIO(data), encoding, newline=newline)
        with connected(transport, ids) as (ours, theirs):
            file = ours.makefile("r", encoding=encoding, newline=newline)
            ours.settimeout(SOON)
            sent = 0
            for name, *args in steps:
                if name == "send":
                    if data[sent : sent + args[0]]:
                        theirs.sendall(data[sent : sent + args[0]])
                    sent += args[0]
                    continue
                with suppress(hs.DeadlineExceeded):
                    got = call_text(file, name, args)
                    assert got == call_text(reference, name, args)
            if data[sent:]:
                theirs.sendall(data[sent:])
            theirs.close_write(timeout=30)
            ours.settimeout(60)
            line = file.readline()
            assert line == reference.readline()
            assert file.read() == reference.read()
            assert file.newlines == reference.newlines
            assert file.read() == file.readline() == ""
            file.close()

    run()


def test_a_foreign_text_layer_above_loses_what_it_had_taken(ids: Identities) -> None:
    """Why there is one of our own: this is io.TextIOWrapper on the same file."""
    with connected("unix", ids) as (ours, theirs), ours.makefile("rb") as binary:
        ours.settimeout(SOON)
        foreign = io.TextIOWrapper(binary, "utf-8")
        theirs.sendall(b"half a ")
        with pytest.raises(hs.DeadlineExceeded):
            foreign.readline()
        theirs.sendall(b"line\n")
        ours.settimeout(30)
        assert foreign.readline() == "line\n"
        foreign.detach()


def test_a_line_that_is_there_already_is_refused_as_one_that_is_waited_for(
    pair: tuple[hs.Connection, hs.Connection],
) -> None:
    """It is taken by a shorter way, which asks the same."""
    ours, theirs = pair
    ours.settimeout(60)
    theirs.sendall(b"one\ntwo\nthree\nfour\nfive\n")
    cancelled, late = hs.CancelToken(), hs.CancelToken()
    cancelled.cancel("stop button")
    late.set_timeout(0)
    with ours.makefile("rb") as file:
        assert file.readline() == b"one\n"
        assert len(file.peek()) == len(b"two\nthree\nfour\nfive\n")
        for _ in range(2):
            with hs.scope(cancelled), pytest.raises(hs.Cancelled, match="stop button"):
                file.readline()
            with hs.scope(late), pytest.raises(hs.DeadlineExceeded):
                file.readline()
        for token, error in ((cancelled, hs.Cancelled), (late, hs.DeadlineExceeded)):
            ours.bind(token)
            with pytest.raises(error):
                file.readline()
        ours.bind(None)
        ours.set_read_deadline(0)
        with pytest.raises(hs.DeadlineExceeded):
            file.readline()
        ours.set_read_deadline(None)
        with hs.timeout(60):
            assert file.readline() == b"two\n"
        ours.settimeout(0)
        assert file.readline(3) == b"thr"
        assert file.readline(0) == b""
        assert file.readline(None) == b"ee\n"
        with pytest.raises(TypeError):
            file.readline("3")  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="limit must be in"):
            file.readline(1 << 70)
        assert file.readline(100) == b"four\n"
    with pytest.raises(ValueError, match="closed file"):
        file.readline()
    with ours.makefile("rb") as file:
        assert file.readline() == b"five\n"


def test_an_unbuffered_file_refuses_to_go_on_after_a_deadline(
    pair: tuple[hs.Connection, hs.Connection],
) -> None:
    """A layer above would have dropped the beginning; the connection itself has lost nothing."""
    ours, theirs = pair
    ours.settimeout(SOON)
    with ours.makefile("rb", 0) as raw:
        above = io.BufferedReader(raw)
        theirs.sendall(b"half a ")
        with pytest.raises(hs.DeadlineExceeded):
            above.read(10)
        theirs.sendall(b"line\n")
        ours.settimeout(30)
        with pytest.raises(OSError, match="cannot read from timed out object"):
            above.readline()
        for read in (lambda: raw.read(1), raw.readline, raw.readall):
            with pytest.raises(OSError, match="cannot read from timed out object"):
                read()
        above.detach()
    with ours.makefile("rb", 0) as raw:
        assert raw.readline() == b"line\n"  # What io.BufferedReader had taken is gone with it.


def test_what_cannot_be_decoded_stays_and_is_told_again(
    pair: tuple[hs.Connection, hs.Connection],
) -> None:
    ours, theirs = pair
    ours.settimeout(30)
    with ours.makefile("r", encoding="utf-8") as file:
        theirs.sendall(b"good\n")
        assert file.readline() == "good\n"
        theirs.sendall(b"bad \xff\n")
        for call in (file.readline, file.readline):
            with pytest.raises(UnicodeDecodeError):
                call()
        theirs.close_write(timeout=30)
        with pytest.raises(UnicodeDecodeError):
            file.read()


# ---- a call is one call


DRIPPED: dict[str, tuple[dict[str, Any], Callable[[Any], Any]]] = {
    "read": ({"mode": "rb"}, lambda file: file.read(50)),
    "read to the end": ({"mode": "rb"}, lambda file: file.read()),
    "readline": ({"mode": "rb"}, lambda file: file.readline()),
    "readlines": ({"mode": "rb"}, lambda file: file.readlines()),
    "readlines of": ({"mode": "rb"}, lambda file: file.readlines(50)),
    "readinto": ({"mode": "rb"}, lambda file: file.readinto(bytearray(50))),
    "next": ({"mode": "rb"}, next),
    "raw readall": ({"mode": "rb", "buffering": 0}, lambda file: file.readall()),
    "raw readline": ({"mode": "rb", "buffering": 0}, lambda file: file.readline()),
    "text read": ({"mode": "r"}, lambda file: file.read(50)),
    "text read to the end": ({"mode": "r"}, lambda file: file.read()),
    "text readline": ({"mode": "r"}, lambda file: file.readline()),
    "text readlines of": ({"mode": "rw"}, lambda file: file.readlines(50)),
}


@pytest.mark.parametrize("name", DRIPPED)
def test_a_call_ends_at_its_deadline_however_the_bytes_drip(name: str) -> None:
    """Each byte comes well before the timeout; each call of the kernel would be within it."""
    form, call = DRIPPED[name]
    with PeerScript([("drip", b"x" * 600, 0.05)], check=False) as peer:
        with hs.connect(peer.address, timeout=30) as conn, conn.makefile(**form) as file:
            conn.settimeout(0.25)
            with pytest.raises(hs.DeadlineExceeded) as caught:
                call(file)
            assert caught.value.elapsed is not None
            assert caught.value.elapsed < 15  # of thirty seconds that the peer drips
            if form.get("buffering") is None:
                conn.settimeout(60)
                got = file.read(10)
                assert len(got) == 10


WRITTEN: dict[str, tuple[dict[str, Any], Callable[[Any], Any]]] = {
    "write": ({"mode": "wb"}, lambda file: file.write(b"x" * (4 << 20))),
    "writelines": ({"mode": "wb"}, lambda file: file.writelines([b"x" * 1000] * 4000)),
    "flush": (
        {"mode": "wb", "buffering": 8 << 20},
        lambda file: (file.write(b"x" * (4 << 20)), file.flush()),
    ),
    "close": (
        {"mode": "wb", "buffering": 8 << 20},
        lambda file: (file.write(b"x" * (4 << 20)), file.close()),
    ),
    "text write": ({"mode": "w"}, lambda file: file.write("x" * (4 << 20))),
    "text writelines": ({"mode": "w"}, lambda file: file.writelines(["x" * 1000] * 4000)),
}


@pytest.mark.parametrize("name", WRITTEN)
def test_a_call_ends_at_its_deadline_however_slowly_the_peer_reads(
    ids: Identities, name: str
) -> None:
    """The peer takes 4 KiB in a twentieth of a second: all of it would be a minute."""
    form, call = WRITTEN[name]
    over = threading.Event()

    def take(conn: hs.Connection) -> None:
        while not over.wait(0.05):
            conn.recv(4096, timeout=30)

    with connected("unix", ids) as (ours, theirs), Call(take, theirs):
        try:
            ours.settimeout(0.25)
            file = ours.makefile(**form)
            with pytest.raises(hs.DeadlineExceeded) as caught:
                call(file)
            assert caught.value.elapsed is not None
            assert caught.value.elapsed < 15
            assert ours.write_poisoned
        finally:
            over.set()
        with suppress(hs.Poisoned):
            file.close()


def test_settimeout_holds_for_files_that_were_made_before(
    pair: tuple[hs.Connection, hs.Connection],
) -> None:
    ours, theirs = pair
    ours.settimeout(SOON)
    files = [ours.makefile("rb"), ours.makefile("r"), ours.makefile("rb", 0)]
    ours.settimeout(None)
    for file in files:
        with Call(file.read, 1) as call:
            call.wait_until_blocked()
            theirs.sendall(b"x")
            assert call.result(30) in ("x", b"x")
    ours.settimeout(SOON)
    ours.close()  # The files live on, and so does its timeout.
    for file in files:
        with pytest.raises(hs.DeadlineExceeded):
            file.read(1)
        file.close()


def test_a_cancel_ends_a_call_of_a_file_and_loses_nothing(
    pair: tuple[hs.Connection, hs.Connection],
) -> None:
    ours, theirs = pair
    with ours.makefile("rb") as file:
        theirs.sendall(b"half")
        with hs.timeout(60) as token, Call(token.cancel), pytest.raises(hs.Cancelled):
            file.read(8)
        theirs.sendall(b"done")
        assert file.read(8) == b"halfdone"


def test_a_signal_handler_that_raises_loses_nothing(ids: Identities) -> None:
    class Interrupted(Exception):
        pass

    def interrupt(*_: object) -> None:
        raise Interrupted

    with connected("unix", ids) as (ours, theirs), ours.makefile("rb") as file:
        before = signal.signal(signal.SIGUSR1, interrupt)
        try:
            theirs.sendall(b"half")
            for call in (lambda: file.read(8), file.readline, lambda: file.readinto(bytearray(8))):
                timer = threading.Timer(0.02, os.kill, (os.getpid(), signal.SIGUSR1))
                with pytest.raises(Interrupted):
                    timer.start()
                    call()
                timer.join()
        finally:
            signal.signal(signal.SIGUSR1, before)
        theirs.sendall(b"done")
        assert file.read(8) == b"halfdone"


def test_a_second_reader_or_writer_of_a_file_is_told_that_it_is_busy(
    pair: tuple[hs.Connection, hs.Connection],
) -> None:
    ours, theirs = pair
    for file in (ours.makefile("rwb"), ours.makefile("rw")):
        empty: Any = b"" if "b" in file.mode else ""
        with Call(file.readline) as reading:
            reading.wait_until_blocked()
            with pytest.raises(hs.Busy):
                file.readline()
            assert file.write(empty) == 0
            theirs.sendall(b"\n")
            assert reading.result(30) == empty + type(empty)(*([b"\n"] if empty == b"" else ["\n"]))
        file.close()
    with ours.makefile("wb") as file:
        with Call(file.write, b"x" * (8 << 20)) as writing:
            writing.wait_until_blocked()
            for call in (lambda: file.write(b"y"), file.flush):
                with pytest.raises(hs.Busy):
                    call()
            theirs.recv_exactly(8 << 20)
            writing.result(30)


# ---- writing


class Writing:
    """A file that is written to, and the bytes that the peer must get."""

    def __init__(self, ours: hs.Connection, theirs: hs.Connection, size: int) -> None:
        self.ours, self.theirs = ours, theirs
        self.file = ours.makefile("wb", size)
        self.accepted = bytearray()
        self.received = bytearray()
        self.tail = b""  # of the write that failed
        self.written = 0

    def write(self, size: int) -> None:
        self.written += 1
        data = self.written.to_bytes(1, "big") * size
        try:
            assert self.file.write(data) == len(data)
        except BlockingIOError as exc:
            self.accepted += data[: exc.characters_written]
        except hs.DeadlineExceeded:
            self.tail = data
            raise
        else:
            self.accepted += data

    def flush(self) -> None:
        with suppress(BlockingIOError):
            self.file.flush()

    def kept(self) -> int:
        """How much the file keeps; none once it was closed."""
        return len(self.file._pending)  # type: ignore[attr-defined]

    def drain(self, n: int) -> None:
        with suppress(hs.DeadlineExceeded):
            self.received += self.theirs.recv(n, timeout=SOON)

    def drain_all(self) -> None:
        self.theirs.settimeout(60)
        while piece := self.theirs.recv(1 << 20):
            self.received += piece


WRITE_STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("write"), st.sampled_from([1, 10, 9_000, 70_000])),
        st.tuples(st.just("write"), st.just(3_000_000)),
        st.tuples(st.just("flush")),
        st.tuples(st.just("drain"), st.sampled_from([1, 1000, 1 << 20])),
    ),
    min_size=2,
    max_size=12,
)


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("waits", [True, False], ids=["waiting", "nonblocking"])
def test_no_byte_is_lost_or_doubled_by_writing(
    ids: Identities, transport: str, waits: bool
) -> None:
    """Whatever was accepted arrives once and in order; or sending is poisoned, and it is cut."""

    @hypothesis.settings(PROPERTY, max_examples=15)
    @hypothesis.given(steps=WRITE_STEPS, size=st.sampled_from([1, 100, 8192]))
    def run(steps: list[Any], size: int) -> None:
        with connected(transport, ids) as (ours, theirs):
            writing = Writing(ours, theirs, size)
            ours.settimeout(SOON if waits else 0)
            for name, *args in steps:
                try:
                    getattr(writing, name)(*args)
                except hs.DeadlineExceeded:
                    if ours.write_poisoned:
                        break
            if ours.write_poisoned:
                with pytest.raises(hs.Poisoned):
                    ours.sendall(b"the next message")
                with pytest.raises(hs.Poisoned):
                    writing.file.write(b"x" * 10_000)
                for call in (writing.file.flush, writing.file.close):
                    # If nothing was kept, there is nothing that it could fail to send.
                    with pytest.raises(hs.Poisoned) if writing.kept() else nullcontext():
                        call()
                ours.close()
                with suppress(hs.Truncated, hs.Reset):
                    writing.drain_all()
                assert bytes(writing.accepted + writing.tail).startswith(bytes(writing.received))
                return
            ours.settimeout(60)
            with Call(writing.file.close) as closing:
                while closing.running:
                    writing.drain(1 << 20)
                closing.result(60)
            ours.close()
            writing.drain_all()
            assert writing.received == writing.accepted

    run()


def test_half_a_message_written_through_a_file_poisons(
    pair: tuple[hs.Connection, hs.Connection],
) -> None:
    ours, _ = pair
    ours.settimeout(0.3)
    file = ours.makefile("wb")
    with pytest.raises(hs.DeadlineExceeded):
        file.write(b"x" * (8 << 20))
    assert ours.write_poisoned
    for call in (
        lambda: ours.sendall(b"next"),
        lambda: file.write(b"y" * 2 * io.DEFAULT_BUFFER_SIZE),
    ):
        with pytest.raises(hs.Poisoned):
            call()
    file.close()  # It keeps nothing: a flush has nothing to do.


def test_a_part_of_a_message_that_is_thrown_away_without_waiting_poisons(
    pair: tuple[hs.Connection, hs.Connection],
) -> None:
    ours, _ = pair
    ours.settimeout(0)
    while not ours.write_poisoned:
        file = ours.makefile("wb")
        with pytest.raises(BlockingIOError):
            file.write(b"x" * (8 << 20))
        try:
            file.close()
        except (BlockingIOError, hs.Poisoned):
            assert ours.write_poisoned
        else:  # The kernel had room again, for all that the file had kept. In the end it has none.
            assert not ours.write_poisoned
        assert file.closed


def fill(conn: hs.Connection) -> int:
    """Send until the kernel takes no more; how much that was."""
    n = 0
    conn.settimeout(0)
    with suppress(BlockingIOError):
        while True:
            n += conn.send(b"-" * 65536)
    with suppress(BlockingIOError):
        while True:
            n += conn.send(b"-")
    return n


def test_a_write_that_nothing_went_out_of_can_be_tried_again(ids: Identities) -> None:
    with connected("unix", ids) as (ours, theirs):
        stuffed = fill(ours)
        ours.settimeout(SOON)
        file = ours.makefile("wb", 10)
        file.write(b"01234")
        for _ in range(2):
            with pytest.raises(hs.DeadlineExceeded) as caught:
                file.write(b"56789abcdef")
            assert caught.value.op == "write"
            with pytest.raises(hs.DeadlineExceeded):
                file.flush()
        assert not ours.write_poisoned
        theirs.recv_exactly(stuffed)
        file.write(b"56789abcdef")
        file.flush()
        assert theirs.recv_exactly(16) == b"0123456789abcdef"
        file.close()


def test_a_message_of_which_a_part_went_out_earlier_poisons(ids: Identities) -> None:
    """The flush fails without a byte, but the message has begun with an earlier write."""
    with connected("unix", ids) as (ours, _):
        file = ours.makefile("wb", 10)
        file.write(b"the header, which is out at once")
        file.write(b"rest")
        fill(ours)
        ours.settimeout(SOON)
        with pytest.raises(hs.DeadlineExceeded):
            file.flush()
        assert ours.write_poisoned
        with pytest.raises(hs.Poisoned):
            file.close()
        assert file.closed


def test_a_flush_ends_the_message(ids: Identities) -> None:
    with connected("unix", ids) as (ours, theirs):
        file = ours.makefile("wb", 10)
        file.write(b"a whole message, out at once")
        file.flush()
        stuffed = fill(ours)
        ours.settimeout(SOON)
        file.write(b"next")
        with pytest.raises(hs.DeadlineExceeded):
            file.close()
        assert not ours.write_poisoned
        theirs.recv_exactly(28 + stuffed)
        ours.sendall(b"after it")
        assert theirs.recv_exactly(8) == b"after it"


def test_text_that_was_not_taken_can_be_written_again(ids: Identities) -> None:
    """The encoder, too, is as before: the mark of the byte order is not forgotten."""
    for timeout in (SOON, 0):
        with connected("unix", ids) as (ours, theirs):
            stuffed = fill(ours)
            ours.settimeout(timeout)
            file = ours.makefile("w", 4, encoding="utf-16", newline="\r\n")
            if timeout == 0:
                assert file.write("kept\n") == 5  # more than its size, but it was empty
            with pytest.raises((hs.DeadlineExceeded, BlockingIOError)):
                file.write("a line\n")
            theirs.recv_exactly(stuffed)
            ours.settimeout(30)
            assert file.write("a line\n") == 7
            file.close()
            ours.close()
            text = theirs.makefile("r", encoding="utf-16", newline="").read()
            assert text == ("kept\r\n" if timeout == 0 else "") + "a line\r\n"


def test_a_file_that_nobody_closed_does_not_wait_when_it_goes(ids: Identities) -> None:
    with connected("unix", ids) as (ours, theirs):
        file: Any = ours.makefile("wb")
        file.write(b"goes out by itself")
        del file
        gc.collect()
        assert theirs.recv(100) == b"goes out by itself"
        stuffed = fill(ours)
        ours.settimeout(None)
        file = ours.makefile("wb")
        file.write(b"lost")
        kept = [file]
        del file
        with pytest.warns(ResourceWarning, match="of 4 bytes that it kept not all could be sent"):
            kept.clear()
        theirs.recv_exactly(stuffed)


def test_a_file_whose_owner_was_told_of_the_loss_goes_without_a_warning(ids: Identities) -> None:
    """As a driver's does that says goodbye to a server which is gone."""
    with connected("unix", ids) as (ours, theirs):
        theirs.close()
        kept: list[Any] = [ours.makefile("wb"), ours.makefile("wb")]
        for file in kept:
            file.write(b"bye")
            with pytest.raises(hs.Reset):
                file.flush()
        kept.pop()  # a warning would be an error here
        kept[0].write(b"!")
        with pytest.warns(ResourceWarning, match="of 4 bytes that it kept not all could be sent"):
            kept.clear()


# ---- what socket's files have


def test_names_modes_and_numbers_are_those_of_a_socket(ids: Identities) -> None:
    theirs, other = socket.socketpair()
    with theirs, other, connected("unix", ids) as (ours, _):
        for mode in ("r", "rb", "w", "wb", "", "b"):
            with ours.makefile(mode) as mine, theirs.makefile(mode) as reference:
                assert mine.mode == reference.mode
                assert mine.name == mine.fileno() == ours.fileno()
                assert mine.readable() == reference.readable()
                assert mine.writable() == reference.writable()
                assert mine.seekable() == reference.seekable() is False
            assert mine.closed
            assert mine.name == reference.name == -1
            for call in (mine.fileno, mine.readable, mine.writable, mine.seekable, mine.read):
                with pytest.raises(ValueError, match="closed"):
                    call()
            with pytest.raises(ValueError, match="closed"):
                mine.write(b"" if "b" in mode else "")
            with pytest.raises(ValueError, match="closed"):
                mine.__enter__()
            mine.close()
        with ours.makefile("rwb") as both, theirs.makefile("rwb", 0) as raw:
            assert both.mode == raw.mode == "rwb"
            assert both.readable()
            assert both.writable()


@pytest.mark.parametrize(
    ("form", "error", "text"),
    [
        ({"mode": "a"}, ValueError, "mode must be made of 'r', 'w' and 'b', got 'a'"),
        ({"mode": "r", "buffering": 0}, ValueError, "binary mode only"),
        ({"newline": "x"}, ValueError, "illegal newline value"),
        ({"newline": b"\n"}, TypeError, "newline' must be str or None, not bytes"),
        ({"encoding": "no such"}, LookupError, "no such"),
        ({"encoding": "hex"}, LookupError, "'hex' is not a text encoding"),
        ({"errors": 5}, TypeError, "errors' must be str or None"),
    ],
)
def test_a_wrong_parameter_is_named_and_nothing_is_held(
    ids: Identities, form: dict[str, Any], error: type[Exception], text: str
) -> None:
    with connected("unix", ids) as (ours, theirs):
        with pytest.raises(error, match=text):
            ours.makefile(**form)
        ours.close()
        assert theirs.recv(1) == b""


@pytest.mark.parametrize("mode", ["rb", "r"])
def test_a_file_for_reading_cannot_be_written_and_the_other_way_round(
    pair: tuple[hs.Connection, hs.Connection], mode: str
) -> None:
    ours, _ = pair
    empty: Any = b"x" if "b" in mode else "x"
    with ours.makefile(mode) as reader, ours.makefile(mode.replace("r", "w")) as writer:
        with pytest.raises(io.UnsupportedOperation, match="not writable"):
            reader.write(empty)
        reader.flush()
        for call in (writer.read, writer.readline, writer.readlines, lambda: writer.read(1)):
            with pytest.raises(io.UnsupportedOperation, match="not readable"):
                call()
        with pytest.raises(TypeError):
            writer.write(b"x" if isinstance(empty, str) else "x")
        with pytest.raises(TypeError):
            reader.read("x")


@pytest.mark.parametrize("mode", ["rb", "wb", "r"])
def test_a_file_that_is_dropped_lets_go_of_the_connection(ids: Identities, mode: str) -> None:
    with connected("unix", ids) as (ours, theirs):
        file = ours.makefile(mode)
        if mode == "rb":
            assert isinstance(file, io.BufferedIOBase)
        ours.close()
        with pytest.raises(BlockingIOError):
            theirs.recv(1, socket.MSG_DONTWAIT)
        del file
        gc.collect()
        assert theirs.recv(1) == b""


@pytest.mark.may_leave("thrown away on purpose", sites=["*/test_files.py:*"])
def test_a_dropped_connection_lives_as_long_as_its_file(ids: Identities) -> None:
    """As with a socket. That nobody closed the connection is told when the file goes."""
    left, right = socket.socketpair()
    with right:
        files = [hs.adopt(left).makefile("rb")]
        gc.collect()
        right.sendall(b"still here")
        assert files[0].read(10) == b"still here"
        files[0].close()
        with pytest.warns(ResourceWarning, match="unclosed"):
            files.clear()
        assert right.recv(1) == b""
