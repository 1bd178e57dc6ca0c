"""SocketOptions: checked in one place, contradictions refused with both names."""

from __future__ import annotations

import dataclasses
import socket
from typing import Any

import pytest

import hardsock as hs
from support.echo import EchoServer


def test_options_are_frozen_and_keyword_only() -> None:
    options = hs.SocketOptions()
    with pytest.raises(dataclasses.FrozenInstanceError):
        options.nodelay = False  # type: ignore[misc]
    with pytest.raises(TypeError):
        hs.SocketOptions(True)  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("kwargs", "names"),
    [
        ({"dead_after": 30, "keepalive_idle": 10}, ("dead_after", "keepalive_idle")),
        ({"dead_after": 30, "user_timeout": 5}, ("dead_after", "user_timeout")),
        ({"dead_after": 30, "keepalive": False}, ("dead_after", "keepalive")),
        ({"keepalive": False, "keepalive_count": 3}, ("keepalive=False", "keepalive_count")),
    ],
)
def test_a_contradiction_is_refused_with_both_names(
    kwargs: dict[str, Any], names: tuple[str, str]
) -> None:
    with pytest.raises(ValueError, match=names[0]) as caught:
        hs.SocketOptions(**kwargs)
    assert names[1] in str(caught.value)


@pytest.mark.parametrize(
    ("kwargs", "error"),
    [
        ({"nodelay": 1}, TypeError),
        ({"keepalive_idle": 0}, ValueError),
        ({"keepalive_idle": True}, TypeError),
        ({"keepalive_count": 128}, ValueError),
        ({"recv_buffer": 0}, ValueError),
        ({"linger": -1}, ValueError),
        ({"dead_after": 0.5}, ValueError),
        ({"dead_after": float("nan")}, ValueError),
        ({"dead_after": "30"}, TypeError),
        ({"user_timeout": 0}, ValueError),
        ({"mark": 1.5}, TypeError),
    ],
)
def test_a_bad_value_names_its_parameter(kwargs: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error, match=next(iter(kwargs))):
        hs.SocketOptions(**kwargs)


@pytest.mark.parametrize("seconds", [5, 6, 7, 10, 15, 30, 45, 60, 600, 3600])
def test_dead_after_is_kept_by_every_schedule_that_is_drawn(seconds: int) -> None:
    options = hs.SocketOptions(dead_after=seconds)
    with EchoServer() as echo:
        for _ in range(20):
            with hs.connect(echo.address, options=options, timeout=30) as conn:
                settings = {s.name: s.effective or 0 for s in conn.audit()}
            idle, interval = (settings[f"keepalive_{k}"] for k in ("idle_s", "interval_s"))
            user_timeout = settings["user_timeout_ms"] / 1000
            # The timer that finds the user timeout over fires an interval later at most, and a
            # kernel timer is late by an eighth of it at most.
            assert user_timeout + interval * 9 / 8 <= seconds
            assert user_timeout >= seconds * 0.75
            assert idle + 3 * interval <= user_timeout + interval  # three probes at the least


@pytest.mark.parametrize("seconds", [1, 2, 4])
def test_a_short_dead_after_probes_every_second(seconds: int) -> None:
    options = hs.SocketOptions(dead_after=seconds)
    with EchoServer() as echo, hs.connect(echo.address, options=options, timeout=30) as conn:
        settings = {s.name: s.effective for s in conn.audit()}
    assert [settings["keepalive_idle_s"], settings["keepalive_interval_s"]] == [1, 1]
    assert settings["user_timeout_ms"] == seconds * 1000


def test_connections_opened_together_do_not_probe_in_step() -> None:
    quiet = {"connected": set(), "accepted": set()}
    with hs.listen(("127.0.0.1", 0)) as listener:
        for _ in range(100):
            with (
                hs.connect(listener.address, timeout=30) as client,
                listener.accept(timeout=30) as server,
            ):
                for name, conn in (("connected", client), ("accepted", server)):
                    quiet[name].add(conn.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE))
    for name, seen in quiet.items():
        assert len(seen) >= 8, (name, seen)
        assert min(seen) <= max(seen) * 0.75


def test_dead_peers_are_noticed_unless_something_else_is_asked_for() -> None:
    assert hs.SocketOptions(nodelay=False).dead_after == 45
    assert hs.SocketOptions(user_timeout=5).dead_after is None
    assert hs.SocketOptions(keepalive=False).dead_after is None
    assert hs.SocketOptions(dead_after=None).dead_after is None


def test_every_option_reaches_the_kernel() -> None:
    options = hs.SocketOptions(
        nodelay=False,
        keepalive=True,
        keepalive_idle=11,
        keepalive_interval=12,
        keepalive_count=5,
        user_timeout=3.5,
        recv_buffer=20_000,
        send_buffer=30_000,
        notsent_lowat=4096,
        linger=0,
        priority=3,
    )
    with EchoServer() as echo, hs.connect(echo.address, options=options, timeout=30) as conn:
        settings = {s.name: s for s in conn.audit()}
    assert settings["nodelay"].effective == 0
    assert settings["keepalive_idle_s"].effective == 11
    assert settings["keepalive_interval_s"].effective == 12
    assert settings["keepalive_count"].effective == 5
    assert settings["user_timeout_ms"].effective == 3500
    assert settings["recv_buffer"].effective == 20_000
    assert settings["send_buffer"].effective == 30_000
    assert settings["notsent_lowat"].effective == 4096
    assert settings["linger_s"].effective == 0
    assert settings["priority"].effective == 3
    assert not any(s.differs for s in settings.values())


def test_a_listener_has_no_linger() -> None:
    """All that it accepts would inherit it, and every close destroy what is on its way."""
    with pytest.raises(ValueError, match=r"linger=0: .* abort\(\)"):
        hs.listen(("127.0.0.1", 0), options=hs.SocketOptions(linger=0))


def test_an_interface_that_is_not_there_is_an_error_that_names_it() -> None:
    with EchoServer() as echo:
        with hs.connect(echo.address, options=hs.SocketOptions(interface="lo"), timeout=30) as conn:
            assert conn.getpeername() == echo.address
        with pytest.raises(hs.ConnectError) as caught:
            hs.connect(echo.address, options=hs.SocketOptions(interface="nope0"), timeout=30)
        assert caught.value.phase == "socket"
        with pytest.raises(ValueError, match="at most 15 bytes"):
            hs.connect(echo.address, options=hs.SocketOptions(interface="x" * 16), timeout=30)
