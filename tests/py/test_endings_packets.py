"""The pictures of docs/endings.md, against the packets of the real kernel.

Each picture is played in a network namespace of its own; the arrows that are drawn must be the
packets that were seen. A picture without a play, or a play without a picture, fails.
"""

from __future__ import annotations

import errno
import os
import re
import socket
import struct
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import hardsock as hs
from hardsock.lab import inside
from hardsock.lab.namespaces import Namespace
from hardsock.lab.threads import Call
from hardsock.lab.waits import poll_until
from support.packets import Capture, mute
from support.require import available, require

PAGE = Path(__file__).resolve().parents[2] / "docs" / "endings.md"
TIMEOUT = 60.0
TIME_WAIT = "06"
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass
class Stage:
    """A connection between us and a plain socket, and a look at the wire between them."""

    ours: hs.Connection
    theirs: socket.socket
    wire: Capture

    def until_theirs_has(self, size: int) -> None:
        """Wait until the peer's kernel holds *size* bytes for its user."""
        self.theirs.recv(size, socket.MSG_PEEK | socket.MSG_WAITALL)

    def send_unread(self, data: bytes) -> None:
        """The peer sends what we do not read; wait until our kernel has it."""
        self.theirs.sendall(data)
        assert self.ours.recv(len(data), socket.MSG_PEEK, timeout=TIMEOUT) == data


@dataclass(frozen=True)
class Ending:
    play: Callable[[Stage], Any]
    seen: dict[str, str]
    """What the calls on both sides returned, and in whose TIME_WAIT the connection is after."""


ENDINGS: dict[str, Ending] = {}


def ending(title: str, **seen: str) -> Callable[[Callable[[Stage], Any]], Callable[[Stage], Any]]:
    """The function plays the picture called *title*, and answers what its calls saw."""

    def register(play: Callable[[Stage], Any]) -> Callable[[Stage], Any]:
        ENDINGS[title] = Ending(play, {"time_wait": "nobody", **seen})
        return play

    return register


def outcome(function: Callable[[], object]) -> str:
    """What a call returned or raised, in a word."""
    try:
        value = function()
    except hs.HardsockError as exc:
        done = f" after {exc.bytes_done} bytes" if exc.bytes_done else ""
        return type(exc).__name__ + done
    except OSError as exc:
        return errno.errorcode.get(exc.errno or 0, type(exc).__name__)
    if isinstance(value, bytes):
        return f"{len(value)} bytes" if value else "end"
    return str(value)


def read_all(sock: socket.socket | hs.Connection) -> str:
    """What each recv returned, up to the end."""
    seen = []
    while not seen or seen[-1].endswith("bytes"):
        seen.append(outcome(lambda: sock.recv(100)))
    return ", ".join(seen)


def after_reset(sock: socket.socket, same: hs.Connection) -> dict[str, str]:
    """What the peer's calls say after a reset: as a hardsock connection, and when it sends."""
    with same:
        read = outcome(lambda: same.recv(1))
    return {"theirs_by_hardsock": read, "theirs_send": outcome(lambda: sock.send(b"x"))}


def words(report: hs.CloseReport) -> str:
    """A close report in words."""
    text = f"{report.ending}, {report.discarded} discarded, {report.unsent} unsent"
    return text + (", delivered" if report.delivered else "")


@ending("close()", theirs="5 bytes, end", time_wait="ours")
def play_close(on: Stage) -> dict[str, str]:
    on.ours.sendall(b"hello")
    on.ours.close()
    on.wire.wait_for("<-- ACK")
    theirs = read_all(on.theirs)
    on.theirs.close()
    on.wire.wait_for("--> ACK")
    return {"theirs": theirs}


@ending("close(), something unread", theirs="5 bytes, ECONNRESET", theirs_send="EPIPE")
def play_close_unread(on: Stage) -> dict[str, str]:
    on.send_unread(b"unread")
    on.ours.sendall(b"hello")
    on.ours.close()
    on.wire.wait_for("--> RST")
    return {"theirs": read_all(on.theirs), "theirs_send": outcome(lambda: on.theirs.send(b"x"))}


@ending(
    "close(), the peer still talks",
    theirs="5 bytes, end",
    theirs_by_hardsock="Reset",
    theirs_send="EPIPE",
)
def play_close_then_data(on: Stage) -> dict[str, str]:
    same = hs.adopt(on.theirs.dup())
    on.ours.sendall(b"hello")
    on.ours.close()
    on.wire.wait_for("<-- ACK")
    on.theirs.sendall(b"unread")
    on.wire.wait_for("--> RST")
    return {"theirs": read_all(on.theirs), **after_reset(on.theirs, same)}


@ending("abort()", theirs="5 bytes, ECONNRESET")
def play_abort(on: Stage) -> dict[str, str]:
    on.ours.sendall(b"hello")
    on.until_theirs_has(5)
    on.ours.abort()
    on.wire.wait_for("--> RST")
    return {"theirs": read_all(on.theirs)}


@ending("close_write()", ours="6 bytes, end", theirs="5 bytes, end", time_wait="ours")
def play_close_write(on: Stage) -> dict[str, str]:
    on.ours.sendall(b"hello")
    on.ours.close_write()
    on.wire.wait_for("<-- ACK")
    theirs = read_all(on.theirs)
    on.theirs.sendall(b"answer")
    on.theirs.close()
    ours = read_all(on.ours)
    on.ours.close()
    on.wire.wait_for("--> ACK")
    return {"ours": ours, "theirs": theirs}


@ending(
    "finish()",
    ours="clean, 12 discarded, 0 unsent, delivered",
    theirs="5 bytes, end",
    time_wait="ours",
)
def play_finish(on: Stage) -> dict[str, str]:
    on.send_unread(b"unread")
    on.ours.sendall(b"hello")
    with Call(on.ours.finish, timeout=TIMEOUT) as finishing:
        on.wire.wait_for("<-- ACK")
        theirs = read_all(on.theirs)
        on.theirs.sendall(b"unread")
        on.theirs.close()
        report = finishing.result()
    on.wire.wait_for("--> ACK")
    return {"ours": words(report), "theirs": theirs}


@ending(
    "finish(), the time is up",
    ours="deadline, 0 discarded, 0 unsent",
    theirs="5 bytes, end",
    theirs_by_hardsock="Reset",
    theirs_send="EPIPE",
)
def play_finish_deadline(on: Stage) -> dict[str, str]:
    same = hs.adopt(on.theirs.dup())
    on.ours.sendall(b"hello")
    report = on.ours.finish(timeout=0.1)
    on.wire.wait_for("<-- ACK")
    theirs = read_all(on.theirs)
    on.theirs.sendall(b"unread")
    on.wire.wait_for("--> RST")
    return {"ours": words(report), "theirs": theirs, **after_reset(on.theirs, same)}


@ending("the peer half-closes", ours="7 bytes, end", theirs="6 bytes, end", time_wait="theirs")
def play_peer_half_closes(on: Stage) -> dict[str, str]:
    on.theirs.sendall(b"request")
    on.theirs.shutdown(socket.SHUT_WR)
    on.wire.wait_for("--> ACK")
    ours = read_all(on.ours)
    on.ours.sendall(b"answer")
    on.ours.close()
    on.wire.wait_for("<-- ACK")
    return {"ours": ours, "theirs": read_all(on.theirs)}


@ending(
    "the peer ends early",
    ours="Truncated after 6 bytes",
    ours_later="6 bytes, end",
    theirs="end",
    time_wait="theirs",
)
def play_truncated(on: Stage) -> dict[str, str]:
    on.theirs.sendall(b"half a")
    on.theirs.shutdown(socket.SHUT_WR)
    on.wire.wait_for("--> ACK")
    ours = outcome(lambda: on.ours.recv_exactly(14, timeout=TIMEOUT))
    later = read_all(on.ours)
    on.ours.close()
    on.wire.wait_for("<-- ACK")
    return {"ours": ours, "ours_later": later, "theirs": read_all(on.theirs)}


@ending("the peer resets", ours="Reset after 6 bytes", ours_later="6 bytes, Reset")
def play_reset(on: Stage) -> dict[str, str]:
    on.theirs.sendall(b"half a")
    on.theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    on.theirs.close()
    ours = outcome(lambda: on.ours.recv_exactly(14, timeout=TIMEOUT))
    return {"ours": ours, "ours_later": read_all(on.ours)}


@ending("dead peer, data in flight", ours="DeadPeer", ours_later="DeadPeer")
def play_dead_busy(on: Stage) -> dict[str, str]:
    mute(on.theirs)
    on.ours.sendall(b"hello")
    ours = outcome(lambda: on.ours.recv(1, timeout=TIMEOUT))
    return {"ours": ours, "ours_later": outcome(lambda: on.ours.sendall(b"x"))}


@ending("dead peer, idle", ours="DeadPeer")
def play_dead_idle(on: Stage) -> dict[str, str]:
    on.ours.sendall(b"hello")
    on.until_theirs_has(5)
    mute(on.theirs)
    return {"ours": outcome(lambda: on.ours.recv(1, timeout=TIMEOUT))}


def time_waits() -> dict[tuple[int, int], float]:
    """Port and peer's port of each connection in TIME_WAIT, and the seconds that it has left."""
    found = {}
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _slot, local, remote, state, _queues, timer = line.split()[:6]
        if state == TIME_WAIT:
            ports = (int(local.partition(":")[2], 16), int(remote.partition(":")[2], 16))
            found[ports] = int(timer.partition(":")[2], 16) / TICKS
    return found


def time_wait_of(ports: dict[str, int]) -> str:
    """On whose side the connection is in TIME_WAIT."""
    pairs = {"ours": (ports["ours"], ports["theirs"]), "theirs": (ports["theirs"], ports["ours"])}
    return " and ".join(side for side, pair in pairs.items() if pair in time_waits()) or "nobody"


def play(title: str) -> dict[str, Any]:
    """Runs inside a namespace: the packets and what both sides saw."""
    scene = ENDINGS[title]
    with socket.create_server(("127.0.0.1", 0)) as listener:
        options = hs.SocketOptions(dead_after=1.0)
        ours = hs.connect(listener.getsockname(), timeout=TIMEOUT, options=options)
        theirs = listener.accept()[0]
    theirs.settimeout(TIMEOUT)
    ports = {"ours": ours.getsockname()[1], "theirs": theirs.getsockname()[1]}
    with ours, theirs, Capture(**ports) as wire:
        seen = scene.play(Stage(ours, theirs, wire))
        poll_until(lambda: time_wait_of(ports) == scene.seen["time_wait"], TIMEOUT)
        seen["time_wait"] = time_wait_of(ports)
        return {"packets": wire.rest(), "seen": seen}


def pictures() -> dict[str, list[str]]:
    """The titles of all pictures of the page, and the arrows under each."""
    found: dict[str, list[str]] = {}
    arrows: list[str] = []
    for line in PAGE.read_text().splitlines():
        if title := re.match(r"(.+?)\s+we\s+peer$", line):
            assert title[1] not in found, title[1]
            arrows = found[title[1]] = []
        elif right := re.search(r"\|--- (.+?) -+>\|", line):
            arrows.append(f"--> {right[1]}")
        elif left := re.search(r"\|<-- (.+?) -+\|", line):
            arrows.append(f"<-- {left[1]}")
    return found


@pytest.fixture(scope="module")
def ns() -> Iterator[Namespace]:
    with require(Namespace()) as namespace:
        yield namespace


@pytest.mark.net
@pytest.mark.parametrize("title", ENDINGS)
def test_the_kernel_sends_what_the_picture_shows(ns: Namespace, title: str) -> None:
    with available():
        played = ns.run(play, title)

    assert pictures()[title] == played["packets"]
    assert ENDINGS[title].seen == played["seen"]


def test_every_picture_is_played_and_every_play_is_drawn() -> None:
    assert set(ENDINGS) == set(pictures())


# ---- The myths of the page


def close_with_the_listeners_linger() -> list[str]:
    """The packets of a plain server's close() when its listener has SO_LINGER {1, 0}."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        with socket.create_connection(listener.getsockname(), TIMEOUT) as theirs:
            ours = listener.accept()[0]
            ports = {"ours": ours.getsockname()[1], "theirs": theirs.getsockname()[1]}
            with Capture(**ports) as wire:
                ours.sendall(b"hello")
                ours.close()
                return wire.rest()


def close_with_a_short_fin_timeout() -> list[float]:
    """The seconds that a connection closed on both sides stays in TIME_WAIT."""
    inside.write_sysctl("net.ipv4.tcp_fin_timeout", 5)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ours = socket.create_connection(listener.getsockname(), TIMEOUT)
        with listener.accept()[0] as theirs:
            ours.close()
            assert theirs.recv(1) == b""
    assert poll_until(lambda: bool(time_waits()), TIMEOUT)
    return list(time_waits().values())


@pytest.mark.net
def test_a_lingering_time_of_zero_is_inherited_from_the_listener(ns: Namespace) -> None:
    with available():
        packets = ns.run(close_with_the_listeners_linger)

    assert ["--> 5 bytes", "--> RST"] == packets


@pytest.mark.net
def test_fin_timeout_does_not_shorten_time_wait() -> None:
    with require(Namespace()) as own:
        (left,) = own.run(close_with_a_short_fin_timeout)

    assert 50 < left <= 60


@pytest.mark.slow
def test_a_lingering_time_blocks_close_even_of_a_non_blocking_socket() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ours = socket.create_connection(listener.getsockname(), TIMEOUT)
        theirs = listener.accept()[0]
    with theirs:
        ours.setblocking(False)
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 1))
        with pytest.raises(BlockingIOError):
            while True:
                ours.send(b"x" * 65536)
        began = time.monotonic()
        ours.close()
        assert 0.9 < time.monotonic() - began < 5
