"""The messages between a parent and its children: whatever the other end does, nobody waits."""

from __future__ import annotations

import pickle
import socket
import struct
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

import hardsock as hs
from hardsock.lab.waits import poll_until
from hardsock.serving.channel import Channel
from hardsock.serving.child import _Talk


@pytest.fixture
def ends() -> Iterator[tuple[Channel, socket.socket]]:
    """A channel, and the bare socket of the other end."""
    ours, theirs = socket.socketpair()
    channel = Channel(ours)
    yield channel, theirs
    channel.close()
    theirs.close()


def packed(*message: object) -> bytes:
    data = pickle.dumps(message)
    return struct.pack("!I", len(data)) + data


def test_half_a_message_is_kept_until_the_rest_comes(ends: tuple[Channel, socket.socket]) -> None:
    channel, other = ends
    whole = packed("first", 1) + packed("second", 2)
    said: list[Any] = []
    for i in range(len(whole)):
        other.send(whole[i : i + 1])
        assert channel.wait(60)
        said += channel.receive()
    assert said == [("first", 1), ("second", 2)]
    assert not channel.wait(0)
    assert channel.receive() == []


def test_what_came_before_the_end_is_received(ends: tuple[Channel, socket.socket]) -> None:
    channel, other = ends
    other.send(packed("last", None) + packed("cut off", None)[:-1])
    other.close()
    assert channel.receive() == [("last", None)]
    with pytest.raises(EOFError):
        channel.receive()


def test_who_does_not_read_holds_nobody_up(ends: tuple[Channel, socket.socket]) -> None:
    channel, other = ends
    big = b"x" * 3_000_000
    channel.send("big", big)
    channel.send("small", 1)
    assert channel.unsent
    assert not channel.flush(0.05)
    reader = Channel(other.dup())
    said: list[Any] = []
    while len(said) < 2:
        channel.flush()
        said += reader.receive()
    reader.close()
    assert said == [("big", big), ("small", 1)]
    assert not channel.unsent
    assert channel.flush()


def test_who_never_stops_talking_is_not_listened_to_for_ever(
    ends: tuple[Channel, socket.socket],
) -> None:
    channel, _ = ends

    class Endless:
        """A socket that always has more."""

        reads = 0

        def recv(self, _size: int) -> bytes:
            self.reads += 1
            return packed("again", None)

        def close(self) -> None:
            pass

    mine, channel._sock = channel._sock, Endless()  # type: ignore[assignment]
    assert len(channel.receive()) == channel._sock.reads <= 64  # type: ignore[attr-defined]
    channel._sock = mine


@pytest.mark.parametrize(
    "rubbish", [b"\xff\xff\xff\xff", struct.pack("!I", 4) + b"none", struct.pack("!I", 0)]
)
def test_what_is_no_message_is_an_error_and_stays_one(
    ends: tuple[Channel, socket.socket], rubbish: bytes
) -> None:
    channel, other = ends
    other.send(rubbish + packed("later", None))
    for _ in range(2):
        with pytest.raises(OSError, match="message"):
            channel.receive()


def test_sending_to_who_is_gone_is_an_error(ends: tuple[Channel, socket.socket]) -> None:
    channel, other = ends
    other.close()
    with pytest.raises(BrokenPipeError):
        channel.send("anybody", None)
    channel.close()
    with pytest.raises(OSError, match="descriptor"):
        channel.send("anybody", None)


class FakeServer:
    """What a child's thread for its parent asks of its server."""

    def __init__(self) -> None:
        self.stopped: list[str] = []
        self.fails = False
        self.report = None

    def stop(self, why: str) -> None:
        self.stopped.append(why)

    def stats(self) -> int:
        if self.fails:
            raise RuntimeError("no numbers")
        return 1


def talk(channel: Channel, server: FakeServer) -> _Talk:
    plan: Any = SimpleNamespace(drain_timeout=5.0, listening={"tls": None})
    with hs.listen(("127.0.0.1", 0)) as listener:
        return _Talk(plan, server, listener, channel, lambda _seconds: None, hs.CancelToken())


def test_what_cannot_be_obeyed_is_logged_and_the_next_is_obeyed(
    ends: tuple[Channel, socket.socket], caplog: pytest.LogCaptureFixture
) -> None:
    channel, other = ends
    server = FakeServer()
    talking = talk(channel, server)
    other.send(packed("keys", "no such", []) + packed("leave", "stopped", 5.0))
    assert poll_until(lambda: server.stopped == ["stopped"], 30)
    talking.finish()
    talking._thread.join(30)
    assert not talking._thread.is_alive()
    assert "could not do what the parent said: keys" in caplog.text
    caplog.clear()  # The traceback keeps the channel.


@pytest.mark.parametrize("how", ["numbers", "nonsense", "end"])
def test_a_child_that_cannot_talk_to_its_parent_drains(
    how: str, ends: tuple[Channel, socket.socket], caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody could tell it to leave: it is to be replaced."""
    channel, other = ends
    server = FakeServer()
    server.fails = how == "numbers"
    talking = talk(channel, server)
    if how == "nonsense":
        other.send(struct.pack("!I", 3) + b"abc")
    elif how == "end":
        other.shutdown(socket.SHUT_WR)
    else:
        other.send(packed("cancel", "wakes it"))
    assert poll_until(lambda: bool(server.stopped), 30)
    talking._thread.join(30)
    assert server.stopped == [
        "talking to the parent failed" if how == "numbers" else "the parent is gone"
    ]
    assert ("talking to the parent failed" in caplog.text) == (how == "numbers")
    caplog.clear()
