"""Sockets that are not hardsock's: their lines, what they are, and alarms about them."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

import hardsock as hs
from support.servers import http_server


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener


@pytest.fixture
def kept() -> Iterator[list[socket.socket]]:
    kept: list[socket.socket] = []
    yield kept
    for one in kept:
        one.close()


def _descriptor(number: int) -> hs.Descriptor:
    [found] = [one for one in hs.fd_snapshot().descriptors if one.fd == number]
    return found


def test_a_watch_sees_what_other_libraries_open_and_names_their_callers_line(
    listener: socket.socket, kept: list[socket.socket]
) -> None:
    alarms: list[hs.FdAlarm] = []
    before = hs.fd_snapshot()
    with hs.fd_watch(share=None, count=len(before) + 5, on_alarm=alarms.append):
        while not alarms and len(kept) < 30:
            kept.append(socket.create_connection(listener.getsockname()))
        assert 4 <= len(kept) <= 6  # It is told of the next one before that has its descriptor.
        growth = hs.fd_snapshot() - before
    [(site, count)] = growth.by_site.items()
    assert (site.file, count) == (__file__, len(kept))
    assert alarms[0].by_site[site] >= 4
    assert str(site) in str(alarms[0])


def test_a_socket_is_told_with_its_peer_its_state_its_age_and_its_thread(
    listener: socket.socket, kept: list[socket.socket]
) -> None:
    hs.fd_watch().close()
    thread = threading.Thread(
        target=lambda: kept.append(socket.create_connection(listener.getsockname())),
        name="customer",
    )
    thread.start()
    thread.join()
    kept.append(listener.accept()[0])
    found = _descriptor(kept[0].fileno()).foreign
    assert found is not None
    assert (found.family, found.kind, found.state) == ("AF_INET", "SOCK_STREAM", "established")
    assert found.peer == "{}:{}".format(*listener.getsockname())
    assert found.local == "{}:{}".format(*kept[0].getsockname())
    assert found.age is not None
    assert 0 <= found.age < 600
    assert found.site is not None
    assert found.site.file == __file__
    assert found.thread is not None
    kept[1].close()
    assert kept[0].recv(1) == b""
    again = _descriptor(kept[0].fileno()).foreign
    assert again is not None
    assert again.state == "close_wait"
    heard = _descriptor(listener.fileno()).foreign
    assert heard is not None
    assert (heard.state, heard.peer) == ("listen", None)


def test_what_no_python_code_made_is_listed_as_such(listener: socket.socket) -> None:
    number = os.dup(listener.fileno())
    try:
        found = _descriptor(number)
        assert found.foreign is not None
        assert (found.site, found.foreign.age, found.foreign.thread) == (None, None, None)
        assert found.foreign.local == "{}:{}".format(*listener.getsockname())
        assert "made outside of Python, or before it was traced" in str(found)
    finally:
        os.close(number)


def test_the_callers_line_is_named_and_not_that_of_a_library(kept: list[socket.socket]) -> None:
    hs.fd_watch().close()
    with http_server() as server:
        answer = urllib.request.urlopen(f"http://127.0.0.1:{server.port}/")
        try:
            peer = f"127.0.0.1:{server.port}"
            found = [
                one.site
                for one in hs.fd_snapshot().descriptors
                if one.foreign is not None and one.foreign.peer == peer
            ]
            assert [(site.file, site.function) for site in found if site is not None] == [
                (__file__, "test_the_callers_line_is_named_and_not_that_of_a_library")
            ]
        finally:
            answer.close()


def test_what_an_alarm_raises_fails_no_call(
    listener: socket.socket, kept: list[socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", told.append)

    def fail(alarm: hs.FdAlarm) -> None:
        socket.socket().close()  # It may make sockets itself.
        raise LookupError("of the alarm")

    with hs.fd_watch(share=None, count=len(hs.fd_snapshot()) + 3, on_alarm=fail):
        kept += [socket.create_connection(listener.getsockname()) for _ in range(8)]
    assert [one.exc_type for one in told] == [LookupError]
    assert len(kept) == 8


def test_growth_is_told_each_time_that_it_doubles_and_names_the_line(
    kept: list[socket.socket],
) -> None:
    alarms: list[hs.FdAlarm] = []
    before = len(hs.fd_snapshot())
    assert before < 64
    with hs.fd_watch(share=None, growth=2, on_alarm=alarms.append):
        while len(kept) < 300:
            kept += socket.socketpair()
    assert [one.grown_from for one in alarms] == [64, alarms[0].open]
    assert 128 <= alarms[0].open <= 130
    assert alarms[1].open >= 2 * alarms[0].open
    assert "descriptors are open, grown from 64, of" in str(alarms[0])
    (site, count), *_ = alarms[0].by_site.items()
    assert (site.file, site.function) == (
        __file__,
        "test_growth_is_told_each_time_that_it_doubles_and_names_the_line",
    )
    assert count > 100


@pytest.mark.parametrize("growth", [1, True, float("nan"), float("inf"), "2"])
def test_growth_must_be_above_one(growth: Any) -> None:
    with pytest.raises(ValueError, match="growth must be a number above 1, got"):
        hs.fd_watch(growth=growth)


_PROGRAM = """
import socket, sys, hardsock as hs
before = hs.fd_snapshot()
alarms = []
watch = hs.fd_watch(share=None, count=len(before) + 3, on_alarm=alarms.append) \
    if "watch" in sys.argv else None
kept = [socket.socket() for _ in range(8)]
growth = hs.fd_snapshot() - before
print(len(alarms), sum(growth.by_site.values()))
"""


@pytest.mark.parametrize(
    ("setting", "arguments", "expected"),
    [(None, [], "0 0"), (None, ["watch"], "1 8"), ("0", ["watch"], "0 0"), ("1", [], "0 8")],
)
def test_the_environment_decides_where_the_program_does_not(
    setting: str | None, arguments: list[str], expected: str
) -> None:
    environment = {k: v for k, v in os.environ.items() if k != "HARDSOCK_TRACE"}
    if setting is not None:
        environment["HARDSOCK_TRACE"] = setting
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, *arguments],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.stdout.strip() == expected, done.stderr


def test_a_warning_names_the_line_that_opens_one_too_many(
    listener: socket.socket, kept: list[socket.socket]
) -> None:
    with (
        hs.fd_watch(share=None, count=len(hs.fd_snapshot()) + 3),
        pytest.warns(hs.DescriptorWarning, match="descriptors are open") as caught,
    ):
        kept += [socket.create_connection(listener.getsockname()) for _ in range(8)]
    assert [one.filename for one in caught] == [__file__]
