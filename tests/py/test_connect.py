"""connect: every phase under one deadline and one token, errors with every attempt."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import inspect
import json
import os
import select
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import hardsock as hs
import hardsock.aio
from hardsock.lab.blackhole import BlackHole
from hardsock.lab.namespaces import Namespace
from hardsock.lab.servers.process import free_port
from hardsock.lab.threads import Call
from support.echo import EchoServer
from support.require import require


@pytest.fixture
def namespace() -> Iterator[Namespace]:
    with require(Namespace()) as made:
        yield made


def test_connects_to_every_form_of_address(tmp_path: Path) -> None:
    with EchoServer() as echo, EchoServer(path=str(tmp_path / "s")) as unix:
        host, port = echo.address[:2]
        for address in (
            (host, port),
            f"{host}:{port}",
            f"localhost:{port}",
            ("localhost", port),
            f"unix:{unix.address}",
        ):
            with hs.connect(address, timeout=30) as conn:
                conn.sendall(b"hi")
                assert conn.recv_exactly(2, timeout=30) == b"hi"


def test_connects_to_an_abstract_unix_name() -> None:
    name = f"hardsock-test-{os.getpid()}"
    with hs.listen(f"unix:@{name}") as listener, hs.connect(f"unix:@{name}", timeout=30) as conn:
        with listener.accept(timeout=30) as accepted:
            assert conn.getpeername() == accepted.getsockname() == b"\0" + name.encode()


def test_refused_tells_the_address_the_errno_and_what_to_do() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        with pytest.raises(hs.ConnectError) as caught:
            hs.connect(("127.0.0.1", port), timeout=30)
    error = caught.value
    assert isinstance(error, ConnectionError)
    assert (error.errno, error.op, error.phase) == (errno.ECONNREFUSED, "connect", "connect")
    assert error.hint is not None
    assert "nothing listens" in error.hint
    assert error.elapsed is not None
    (attempt,) = error.attempts
    assert attempt[:3] == (f"127.0.0.1:{port}", "connect", errno.ECONNREFUSED)
    assert 0 <= attempt.started <= attempt.ended


def test_a_black_hole_ends_at_the_deadline() -> None:
    with BlackHole() as hole:
        began = time.monotonic()
        with pytest.raises(hs.DeadlineExceeded) as caught:
            hs.connect(hole.address, timeout=0.5)
        elapsed = time.monotonic() - began
    assert caught.value.phase == "connect"
    assert len(caught.value.attempts) == 1
    assert elapsed >= 0.5
    assert caught.value.hint is not None
    assert "no answer at all" in caught.value.hint


def test_a_black_hole_can_be_cancelled() -> None:
    token = hs.CancelToken()
    with BlackHole() as hole, Call(hs.connect, hole.address, token=token) as connecting:
        connecting.wait_until_blocked()
        token.cancel("never mind")
        with pytest.raises(hs.Cancelled, match="never mind"):
            connecting.result(30)


def test_an_expired_deadline_fails_before_any_system_call() -> None:
    with BlackHole() as hole, hs.timeout(0), pytest.raises(hs.DeadlineExceeded) as caught:
        hs.connect(hole.address)
    assert caught.value.attempts == ()


def _race(ports: dict[str, Any]) -> dict[str, Any]:
    """In a namespace: a name with three black holes and one live address."""
    import hardsock as hs
    from hardsock.lab.blackhole import BlackHole
    from hardsock.lab.inside import bind_mount_file
    from support.echo import EchoServer

    dead = [f"127.0.1.{i}" for i in (1, 2, 3)]
    bind_mount_file(
        "/etc/hosts",
        "".join(f"{host} many.test dead.test\n" for host in dead) + "127.0.1.9 many.test\n",
    )
    bind_mount_file("/etc/nsswitch.conf", "hosts: files\n")
    with BlackHole(hosts=tuple(dead)) as hole, EchoServer(host="127.0.1.9", port=hole.port) as live:
        began = time.monotonic()
        with hs.connect(("many.test", hole.port), timeout=60, attempt_delay=0.05) as conn:
            won, took = conn.getpeername()[0], time.monotonic() - began
        began = time.monotonic()
        try:
            hs.connect(("dead.test", hole.port), timeout=2, attempt_delay=0.05)
        except hs.DeadlineExceeded as exc:
            attempts = [a.address for a in exc.attempts]
        failed_after = time.monotonic() - began
        assert live.accepted >= 1
    return {"won": won, "took": took, "attempts": attempts, "failed_after": failed_after}


@pytest.mark.net
def test_black_holes_share_one_deadline_and_lose_to_a_live_address(namespace: Namespace) -> None:
    result = namespace.run(_race, {})
    assert result["won"] == "127.0.1.9"
    assert 0.15 <= result["took"] < 5
    assert len(result["attempts"]) == 3
    assert 2 <= result["failed_after"] < 6, "three addresses must not triple the deadline"


def _dead_dns() -> dict[str, Any]:
    import hardsock as hs
    from hardsock.lab.dns import DeadDNS, use_dns

    with DeadDNS("127.0.0.1", 53):
        use_dns("127.0.0.1", timeout=20, attempts=2)
        began = time.monotonic()
        try:
            hs.connect("nobody.test:80", timeout=0.3)
        except hs.DeadlineExceeded as exc:
            phase = exc.phase
        took = time.monotonic() - began
        token = hs.CancelToken()
        with Call(hs.connect, "nobody.test:80", token=token) as connecting:
            connecting.wait_until_blocked()
            token.cancel()
            try:
                connecting.result(30)
            except hs.Cancelled:
                cancelled = True
        return {"took": took, "phase": phase, "cancelled": cancelled, **hs.resolver_stats()}


@pytest.mark.net
def test_a_dead_name_server_ends_at_the_deadline_and_the_orphan_is_counted(
    namespace: Namespace,
) -> None:
    result = namespace.run(_dead_dns)
    assert result["phase"] == "resolve"
    assert 0.3 <= result["took"] < 15  # of forty that the resolver would take
    assert result["cancelled"]
    assert result["orphans"] >= 1
    assert result["oldest_orphan"] > 0
    assert result["abandoned"] >= 2


def _queued_and_inherited() -> list[dict[str, Any]]:
    import hardsock as hs
    from hardsock import aio
    from hardsock.lab.dns import DeadDNS, use_dns

    def of_a_child() -> dict[str, Any]:
        reader, writer = os.pipe()
        if (child := os.fork()) == 0:
            try:
                os.write(writer, json.dumps(hs.resolver_stats()).encode())
            finally:
                os._exit(0)
        os.close(writer)
        with open(reader) as file:
            told: dict[str, Any] = json.load(file)
        os.waitpid(child, 0)
        return told

    async def main() -> list[dict[str, Any]]:
        connects = [aio.connect(f"n{i}.dead.test:80", timeout=30) for i in range(70)]
        tasks = [asyncio.ensure_future(one) for one in connects]
        while hs.resolver_stats()["running"] < 64:  # As many as one zone may have.
            await asyncio.sleep(0)
        told = [hs.resolver_stats(), of_a_child()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return [*told, hs.resolver_stats()]

    with DeadDNS("127.0.0.1", 53):
        use_dns("127.0.0.1", timeout=30, attempts=1)
        return asyncio.run(main())


@pytest.mark.net
def test_lookups_without_a_thread_and_those_of_the_parent_are_counted(
    namespace: Namespace,
) -> None:
    waiting, child, after = namespace.run(_queued_and_inherited)
    assert waiting["running"] + waiting["queued"] == 2 * 70  # A and AAAA
    assert waiting["queued"] > 0
    assert waiting["inherited"] == 0
    assert child["inherited"] == waiting["running"]
    assert (child["running"], child["queued"]) == (0, 0)
    assert (after["running"], after["queued"]) == (0, 0)
    assert after["orphans"] == waiting["running"]


def _silent_aaaa() -> dict[str, Any]:
    import hardsock as hs
    from hardsock.lab.dns import DROP, ScriptedDNS, answer, use_dns
    from support.echo import EchoServer

    with (
        EchoServer() as echo,
        ScriptedDNS({("half.test", "A"): answer("127.0.0.1"), ("half.test", "AAAA"): DROP}) as dns,
    ):
        use_dns(dns.address[0], timeout=20, attempts=2)
        began = time.monotonic()
        with hs.connect(("half.test", echo.address[1]), timeout=60):
            return {"took": time.monotonic() - began}


@pytest.mark.net
def test_a_dropped_aaaa_answer_costs_50_ms_not_the_resolvers_time(namespace: Namespace) -> None:
    assert 0.05 <= namespace.run(_silent_aaaa)["took"] < 15  # of forty


def _exhausted_ports() -> dict[str, Any]:
    import hardsock as hs
    from hardsock.lab.inside import write_sysctl

    write_sysctl("net.ipv4.ip_local_port_range", "50000 50003")
    with hs.listen(("127.0.0.1", 40000)) as listener, contextlib.ExitStack() as stack:
        for _ in range(4):
            stack.enter_context(hs.connect(listener.address, timeout=30))
            stack.enter_context(listener.accept(timeout=30))
        try:
            hs.connect(listener.address, timeout=30)
        except hs.ConnectError as exc:
            return {"errno": exc.errno, "hint": exc.hint}
    return {}


@pytest.mark.net
def test_exhausted_ports_are_counted_in_the_hint(namespace: Namespace) -> None:
    result = namespace.run(_exhausted_ports)
    assert result["errno"] == errno.EADDRNOTAVAIL
    assert "4 sockets hold local ports towards this peer, of the 4 in" in result["hint"]
    assert ": 4 in ESTABLISHED; reuse" in result["hint"]


def _ports_of_closed_connections() -> dict[str, Any]:
    import hardsock as hs
    from hardsock.lab.inside import write_sysctl

    write_sysctl("net.ipv4.ip_local_port_range", "50000 50003")
    write_sysctl("net.ipv4.tcp_tw_reuse", 0)
    hints = []
    with hs.listen(("127.0.0.1", 40000)) as listener, contextlib.ExitStack() as stack:
        for number in range(4):  # closed here; the server keeps its ends but for one
            with hs.connect(listener.address, timeout=30) as conn:
                conn.sendall(b"GET")
            accepted = listener.accept(timeout=30)
            if number > 0:
                stack.enter_context(accepted)
                continue
            assert accepted.recv_exactly(3, timeout=30) == b"GET"
            with accepted:
                assert accepted.recv(1, timeout=30) == b""
        try:
            hs.connect(listener.address, timeout=30)
        except hs.ConnectError as exc:
            hints.append((exc.errno, exc.hint))
        with hs.Pool(listener.address) as pool:
            try:
                pool.acquire(timeout=30)
            except hs.ConnectError as exc:
                hints.append((exc.errno, exc.hint))
    return {"hints": hints}


@pytest.mark.net
def test_every_state_that_holds_a_port_is_counted_in_the_hint(namespace: Namespace) -> None:
    hints = namespace.run(_ports_of_closed_connections)["hints"]
    assert [number for number, _ in hints] == [errno.EADDRNOTAVAIL] * 2
    for _, hint in hints:
        assert "4 sockets hold local ports towards this peer, of the 4 in" in hint
        assert " in FIN_WAIT_" in hint
        assert " 1 in TIME_WAIT" in hint
        assert "slow to close its side" in hint


def test_an_unknown_name_is_a_gaierror_with_a_hint() -> None:
    with pytest.raises(hs.ResolveError) as caught:
        hs.connect("no-such-name.invalid:80", timeout=20)
    error = caught.value
    assert isinstance(error, socket.gaierror)
    assert error.phase == "resolve"
    assert error.errno in (socket.EAI_NONAME, socket.EAI_AGAIN, socket.EAI_NODATA)
    assert error.hint


def test_want_of_descriptors_comes_with_the_inventory() -> None:
    code = """
import resource, os, hardsock as hs
hs.CancelToken().wait(0)
ln = hs.listen(("127.0.0.1", 0))
address = ln.address
resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))
held = []
try:
    while True:
        held.append(os.open("/dev/null", os.O_RDONLY))
except OSError:
    pass
try:
    hs.connect(address, timeout=30)
except hs.ConnectError as exc:
    print(exc.errno, exc.phase, exc.hint)
"""
    out = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True
    ).stdout
    assert out.startswith(f"{errno.EMFILE} socket ")
    assert "may have 40 descriptors" in out
    assert "device" in out


def test_a_source_address_is_used_and_its_family_respected() -> None:
    with EchoServer() as echo:
        with hs.connect(echo.address, source=("127.0.0.5", 0), timeout=30) as conn:
            assert conn.getsockname()[0] == "127.0.0.5"
        with pytest.raises(hs.ConnectError) as caught:
            hs.connect(echo.address, source=("::1", 0), timeout=30)
        assert (caught.value.errno, caught.value.phase) == (errno.EAFNOSUPPORT, "bind")


@pytest.mark.parametrize("source", [("", 0), ("localhost", 0), "127.0.0.1:0"])
def test_a_source_is_what_create_connection_takes(source: Any) -> None:
    async def awaited() -> None:
        (await hs.aio.connect(echo.address, source=source, timeout=30)).close()

    with EchoServer() as echo:
        hs.connect(echo.address, source=source, timeout=30).close()
        asyncio.run(awaited())


def test_a_source_may_be_a_port_of_any_address() -> None:
    port = free_port()
    with EchoServer() as echo, hs.connect(echo.address, source=("", port), timeout=30) as conn:
        assert conn.getsockname() == ("127.0.0.1", port)
        conn.abort()


def _source_of_a_dead_name() -> str | None:
    import hardsock as hs
    from hardsock.lab.dns import DeadDNS, use_dns

    with DeadDNS("127.0.0.1", 53):
        use_dns("127.0.0.1", timeout=20, attempts=2)
        try:
            hs.connect(("127.0.0.1", 9), source=("no-such-name.test", 0), timeout=0)
        except hs.DeadlineExceeded as exc:
            return exc.phase
    return "it did not end by its deadline"


@pytest.mark.net
def test_a_source_s_name_is_looked_up_under_the_deadline_of_all(namespace: Namespace) -> None:
    assert namespace.run(_source_of_a_dead_name) == "resolve"
    with EchoServer() as echo:
        with pytest.raises(hs.ResolveError):
            hs.connect(echo.address, source=("no-such-name.invalid", 0), timeout=20)


def test_the_default_notices_a_dead_peer_within_45_seconds() -> None:
    with EchoServer() as echo, hs.connect(echo.address, timeout=30) as conn:
        settings = {s.name: s for s in conn.audit()}
        assert not any(s.differs for s in settings.values())
        idle, interval = (
            settings[f"keepalive_{name}"].effective for name in ("idle_s", "interval_s")
        )
        assert idle is not None
        assert interval is not None
        assert settings["keepalive"].effective == 1
        user_timeout = settings["user_timeout_ms"].effective
        assert user_timeout is not None
        assert idle + 3 * interval < user_timeout / 1000
        assert 40 <= user_timeout / 1000 + interval * 9 / 8 <= 45
        assert settings["nodelay"].effective == 1
        assert conn.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == idle
        info = conn.tcp_info()
        assert info["state"] == 1
        assert "rtt" in info


def test_a_setting_that_the_kernel_caps_is_a_warning_that_names_the_sysctl() -> None:
    options = hs.SocketOptions(recv_buffer=(1 << 30) - 1)
    with EchoServer() as echo:
        with pytest.warns(hs.SettingWarning, match="recv_buffer=1073741823") as seen:
            conn = hs.connect(echo.address, options=options, timeout=30)
        with conn:
            assert conn.changed_settings == 1
            (capped,) = [s for s in conn.audit() if s.differs]
            assert capped.limited_by == "net.core.rmem_max"
    assert "hardsock-tune explain net.core.rmem_max" in str(seen[0].message)
    assert seen[0].filename == __file__


def test_mptcp_is_used_or_reported() -> None:
    import warnings

    with EchoServer() as echo, warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        with hs.connect(echo.address, options=hs.SocketOptions(mptcp=True), timeout=30) as conn:
            differing = {s.name for s in conn.audit() if s.differs}
            conn.sendall(b"echo")
            assert conn.recv_exactly(4, timeout=30) == b"echo"
    assert {str(w.message).split("=")[0].split()[-1] for w in seen} == differing


def test_resolve_shows_answers_and_the_order_of_attempts() -> None:
    literal = hs.resolve("127.0.0.1:80")
    assert literal == ((), ("127.0.0.1:80",))
    named = hs.resolve("localhost:80", timeout=20)
    assert "127.0.0.1:80" in named.plan
    assert {answer.family for answer in named.answers} == {socket.AF_INET, socket.AF_INET6}
    assert all(answer.elapsed >= 0 for answer in named.answers)


@pytest.mark.parametrize(
    ("address", "message"),
    [
        (("h", 65536), r"port must be in 0\.\.65535, got 65536"),
        (("h", -1), r"port must be in 0\.\.65535, got -1"),
        (("127.0.0.1", 0), r"port must be in 1\.\.65535, got 0"),
        (("", 80), "host must not be empty"),
        (("a\0b", 80), "NUL"),
        (("x" * 254, 80), "host name has 254 bytes, the limit is 253"),
        (("x" * 64 + ".test", 80), "label of more than 63 bytes"),
        (("a b", 80), "0x20"),
        (("fe80::1%no-such-if", 80), "scope 'no-such-if'"),
        (("::1::", 80), "not a valid IPv6 address"),
        ("example.org", "has no port: give 'host:port', as in 'example.org:443'"),
        ("example.org:", "has no port"),
        ("example.org:http", "port must be a number"),
        ("::1:80", "must have the form"),
        ("[::1]", r"\[v6\]:port"),
        ("[127.0.0.1]:80", "only IPv6 addresses go in brackets"),
        ("unix:", "path is empty"),
        ("unix:" + "x" * 108, "108 bytes, the limit is 107"),
        ("unix:/a\0b", "NUL"),
        (("127.0.0.1", 80, 1, 2), "IPv6 address only"),
    ],
)
def test_a_bad_address_is_a_value_error_that_says_why(address: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        hs.connect(address, timeout=1)


@pytest.mark.parametrize(
    "address", [None, 5, ["h", 80], ("h",), ("h", "80"), ("h", True), (5, 80), b"h:80"]
)
def test_an_address_of_the_wrong_kind_is_a_type_error(address: Any) -> None:
    with pytest.raises(TypeError, match=r"address|port|host"):
        hs.connect(address, timeout=1)


def test_bad_parameters_are_named() -> None:
    for kwargs, error, message in [
        ({"timeout": -1}, ValueError, "timeout"),
        ({"timeout": float("nan")}, ValueError, "timeout"),
        ({"timeout": True}, TypeError, "timeout"),
        ({"token": object()}, TypeError, "token"),
        ({"family": 99999}, ValueError, "family"),
        ({"family": socket.AF_UNIX}, ValueError, "family"),
        ({"family": socket.AF_INET6}, ValueError, "family"),
        ({"attempt_delay": 0.001}, ValueError, "attempt_delay"),
        ({"max_in_flight": 0}, ValueError, "max_in_flight"),
        ({"source": ("127.0.0.1", 65536)}, ValueError, "port"),
    ]:
        with pytest.raises(error, match=message):
            hs.connect(("127.0.0.1", 1), **kwargs)


def test_adopting_takes_the_socket_only_on_success() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagram:
        with pytest.raises(ValueError, match="not a TCP or unix stream socket"):
            hs.adopt(datagram)
        assert datagram.fileno() >= 0
    with socket.socket() as unconnected:
        with pytest.raises(ValueError, match="has no peer"):
            hs.adopt(unconnected)
        assert unconnected.fileno() >= 0
    with pytest.raises(ValueError, match="descriptor 99999"):
        hs.adopt(99999)
    left, right = socket.socketpair()
    with right, hs.adopt(left) as conn:
        assert left.fileno() == -1
        number = conn.fileno()
        assert conn.detach() == number
        assert conn.closed
        os.close(number)


def test_detaching_would_not_lose_buffered_bytes() -> None:
    left, right = socket.socketpair()
    with right, hs.adopt(left) as conn:
        right.send(b"ab")
        with pytest.raises(hs.DeadlineExceeded):
            conn.recv_exactly(3, timeout=0.01)
        with pytest.raises(hs.Busy, match="2 received bytes"):
            conn.detach()


def test_a_connection_works_with_selectors() -> None:
    left, right = socket.socketpair()
    with right, hs.adopt(left) as conn:
        poller = select.poll()
        poller.register(conn, select.POLLIN)
        assert poller.poll(0) == []
        right.send(b"x")
        assert poller.poll(5000) == [(conn.fileno(), select.POLLIN)]


def test_what_a_listener_says_of_its_address_can_be_connected_to(tmp_path: Path) -> None:
    for address in (f"unix:{tmp_path}/s", f"unix:@hardsock-{os.getpid()}", ("::1", 0)):
        with hs.listen(address) as listener:
            with hs.connect(listener.address, timeout=30), listener.accept(timeout=30):
                pass


def test_only_plain_sockets_and_descriptors_can_be_adopted() -> None:
    left, right = socket.socketpair()
    with right, hs.adopt(left) as conn:
        for other in (conn, "x", True, None):
            with pytest.raises(TypeError, match="sock must be"):
                hs.adopt(other)  # type: ignore[arg-type]
        right.send(b"still ours")
        assert conn.recv(100, timeout=30) == b"still ours"


def test_a_refused_connection_is_a_connection_refused_error_too() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        with pytest.raises(ConnectionRefusedError) as caught:
            hs.connect(unused.getsockname(), timeout=30)
        assert isinstance(caught.value, hs.ConnectError)
        assert caught.value.peer == f"127.0.0.1:{unused.getsockname()[1]}"


def test_options_of_the_wrong_kind_are_refused() -> None:
    for call in (hs.connect, hs.listen):
        with pytest.raises(TypeError, match="options must be SocketOptions"):
            call(("127.0.0.1", 1), options={"nodelay": True})  # type: ignore[arg-type]


@pytest.mark.parametrize("function", [hs.connect, hardsock.aio.connect], ids=["hs", "aio"])
def test_usual_connect_makes_no_cells(function: Any) -> None:
    """A function within it would cost each call a cell for each parameter that it uses.

    Those ten cells were 3,000 of 55,000 instructions of a connect and close.
    """
    assert inspect.unwrap(function).__code__.co_cellvars == ()


def test_the_kernel_is_asked_for_our_address_once() -> None:
    """A connect has to look whether it has reached itself; nobody asks again, not even the end."""
    with hs.listen(("127.0.0.1", 0)) as listener:
        address = listener.getsockname()
        with hs.faults("seed=1") as plan:
            with hs.connect(address, timeout=30) as conn:
                local = conn.getsockname()
        assert plan.calls["getname"] == 2  # Who the peer is, and who we are.
        with listener.accept(timeout=30) as accepted:
            assert accepted.getpeername() == local
