"""listen: accepting without dying of it."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import struct
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

import hardsock as hs
from hardsock import _core
from hardsock.lab.endpoint import connect_to
from hardsock.lab.namespaces import Namespace
from hardsock.lab.threads import Call
from support.require import require


def test_accepts_with_a_deadline_and_a_token() -> None:
    token = hs.CancelToken()
    with hs.listen(("127.0.0.1", 0)) as listener:
        with pytest.raises(hs.DeadlineExceeded) as caught:
            listener.accept(timeout=0.01)
        assert caught.value.op == "accept"
        with Call(listener.accept, token=token) as accepting:
            accepting.wait_until_blocked()
            token.cancel("closing time")
            with pytest.raises(hs.Cancelled, match="closing time"):
                accepting.result(30)


def test_closing_wakes_every_acceptor_and_ends_iteration() -> None:
    with hs.listen(("127.0.0.1", 0)) as listener:
        with Call(listener.accept) as one, Call(list, listener) as two:
            one.wait_until_blocked()
            two.wait_until_blocked()
            listener.close()
            with pytest.raises(hs.Closed):
                one.result(30)
            assert two.result(30) == []
        with pytest.raises(hs.Closed):
            listener.accept()


def test_many_acceptors_get_every_connection_exactly_once() -> None:
    accepted: list[hs.Connection] = []
    with hs.listen(("127.0.0.1", 0)) as listener:

        def accept() -> None:
            for conn in listener:
                accepted.append(conn)

        with Call(accept) as a, Call(accept) as b, Call(accept) as c:
            clients = [connect_to(listener.address) for _ in range(100)]
            while len(accepted) < 100:
                threading.Event().wait(0.001)
            listener.close()
            for call in (a, b, c):
                call.result(30)
    peers = {conn.getpeername() for conn in accepted}
    assert peers == {client.getsockname() for client in clients}
    for thing in [*accepted, *clients]:
        thing.close()


def test_accept_many_takes_what_is_there() -> None:
    with hs.listen(("127.0.0.1", 0)) as listener:
        clients = [connect_to(listener.address) for _ in range(5)]
        conns = listener.accept_many(3, timeout=30)
        conns += listener.accept_many(100, timeout=30)
        assert len(conns) == 5
        assert listener.stats().accepted == 5
        for thing in [*conns, *clients]:
            thing.close()
        with pytest.raises(ValueError, match=r"max_count must be in 1\.\."):
            listener.accept_many(0)


def test_accepted_connections_inherit_the_options() -> None:
    options = hs.SocketOptions(dead_after=30, notsent_lowat=16384)
    with (
        hs.listen(("127.0.0.1", 0), options=options) as listener,
        connect_to(listener.address),
        listener.accept(timeout=30) as conn,
    ):
        settings = {s.name: s for s in conn.audit()}
        assert 24_000 <= (settings["user_timeout_ms"].effective or 0) <= 30_000
        assert settings["notsent_lowat"].effective == 16384
        assert not any(s.differs for s in settings.values())
        assert listener.stats().unverified == 0


def test_the_backlog_is_read_back_and_a_cap_is_a_warning() -> None:
    somaxconn = int(Path("/proc/sys/net/core/somaxconn").read_text())
    with pytest.warns(hs.SettingWarning, match=r"backlog=\d+.*net\.core\.somaxconn"):
        capped = hs.listen(("127.0.0.1", 0), backlog=somaxconn + 1)
    with capped:
        assert capped.stats().backlog_asked == somaxconn + 1
        assert capped.stats().backlog_effective == somaxconn
    with hs.listen(("127.0.0.1", 0), backlog=7) as listener, connect_to(listener.address):
        while listener.stats().queue_length != 1:
            threading.Event().wait(0.001)
        assert listener.stats().backlog_effective == 7


def test_a_client_that_resets_before_accept_is_no_error() -> None:
    with hs.listen(("127.0.0.1", 0)) as listener:
        rude = connect_to(listener.address)
        rude.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        rude.close()
        with connect_to(listener.address) as polite:
            conn = listener.accept(timeout=30)
            if conn.getsockname() and not _peer_is(conn, polite):  # Linux hands dead ones out, too
                conn.close()
                conn = listener.accept(timeout=30)
            assert _peer_is(conn, polite)
            conn.close()


def _peer_is(conn: hs.Connection, client: socket.socket) -> bool:
    try:
        return bool(conn.getpeername() == client.getsockname())
    except OSError:
        return False


EXHAUSTED = """
import os, resource, sys, threading, time, hardsock as hs
token = hs.CancelToken()
token.wait(0)
listener = hs.listen(("127.0.0.1", 0))
print(listener.address[1], flush=True)
resource.setrlimit(resource.RLIMIT_NOFILE, (30, 30))
held = []
try:
    while True:
        held.append(os.open("/dev/null", os.O_RDONLY))
except OSError:
    pass
started = time.process_time()
try:
    listener.accept(timeout=1.0)
except hs.DeadlineExceeded:
    pass
burnt = time.process_time() - started
stats = listener.stats()
for fd in held:
    os.close(fd)
print(stats.shed, stats.exhausted, burnt, flush=True)
conn = listener.accept(timeout=60)
conn.sendall(b"recovered")
conn.close()
listener.close()
"""


def test_out_of_descriptors_it_sheds_backs_off_and_recovers() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", EXHAUSTED], stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None
        port = int(server.stdout.readline())
        clients = []
        for _ in range(8):
            with contextlib.suppress(ConnectionResetError):  # It may shed before connect() is back.
                clients.append(connect_to(("127.0.0.1", port)))
        shed, exhausted, burnt = server.stdout.readline().split()
        with connect_to(("127.0.0.1", port)) as late:
            late.settimeout(60)
            assert late.recv(100) == b"recovered"
        assert server.wait(60) == 0
    for client in clients:
        client.close()
    assert int(shed) >= 8
    assert 1 < int(exhausted) < 20, "it must not spin"
    assert float(burnt) < 0.5


def test_unix_paths_are_made_replaced_when_stale_and_removed(tmp_path: Path) -> None:
    path = tmp_path / "sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    with hs.listen(f"unix:{path}", unix_mode=0o600) as listener:
        assert path.stat().st_mode & 0o777 == 0o600
        with pytest.raises(hs.HardsockError) as caught:
            hs.listen(f"unix:{path}")
        assert caught.value.errno == errno.EADDRINUSE
        with hs.connect(f"unix:{path}", timeout=30), listener.accept(timeout=30):
            pass
    assert not path.exists()


def test_a_lock_that_somebody_keeps_on_the_folder_does_not_stop_a_listener(tmp_path: Path) -> None:
    path = tmp_path / "sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    folder = os.open(tmp_path, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        with hs.listen(f"unix:{path}"), hs.connect(f"unix:{path}", timeout=60):
            pass
    finally:
        os.close(folder)
    assert not path.exists()


def test_closing_lets_other_threads_run_while_the_folder_is_locked(tmp_path: Path) -> None:
    delays = _core.Delays()

    def attached() -> int:
        """How often a thread has taken Python's lock again after a wait."""
        return sum(delays.read()["lock"][1])

    folder = os.open(tmp_path, os.O_RDONLY)
    try:
        listener = hs.listen(f"unix:{tmp_path}/s")
        fcntl.flock(folder, fcntl.LOCK_EX)
        before = attached()
        listener.close()
        assert attached() > before
    finally:
        os.close(folder)


def test_a_path_that_is_no_socket_is_never_removed(tmp_path: Path) -> None:
    path = tmp_path / "precious"
    path.write_text("data")
    with pytest.raises(hs.HardsockError) as caught:
        hs.listen(f"unix:{path}")
    assert caught.value.errno == errno.EADDRINUSE
    assert path.read_text() == "data"


def test_a_path_that_became_another_file_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "sock"
    listener = hs.listen(f"unix:{path}")
    path.unlink()
    path.write_text("somebody else's")
    listener.close()
    assert path.exists()


def test_an_empty_host_is_both_families() -> None:
    with hs.listen(("", 0)) as listener:
        port = listener.address[1]
        for host in ("127.0.0.1", "::1"):
            with hs.connect((host, port), timeout=30), listener.accept(timeout=30):
                pass
    with hs.listen(("::", 0), dual_stack=False) as listener, pytest.raises(hs.ConnectError):
        hs.connect(("127.0.0.1", listener.address[1]), timeout=30)


def test_an_address_in_use_says_so() -> None:
    with hs.listen(("127.0.0.1", 0)) as listener:
        port = listener.address[1]
        with pytest.raises(hs.HardsockError) as caught:
            hs.listen(("127.0.0.1", port))
    assert caught.value.errno == errno.EADDRINUSE
    assert caught.value.op == "listen"
    assert caught.value.hint is not None
    assert "another socket listens there" in caught.value.hint
    assert f"sport = :{port}" in caught.value.hint


def test_a_name_is_looked_up() -> None:
    with hs.listen(("localhost", 0), timeout=20) as listener:
        assert listener.address[0] in ("127.0.0.1", "::1")
    with hs.listen("localhost:0", timeout=20) as listener:
        assert listener.address[1] > 0


def test_reuse_port_warns_about_migration() -> None:
    with require(Namespace()) as namespace:
        without, with_migration = namespace.run(_reuse_port_warnings)
    assert len(without) == 1
    assert "net.ipv4.tcp_migrate_req" in without[0]
    assert with_migration == []


def _reuse_port_warnings() -> Any:
    import warnings

    import hardsock as hs
    from hardsock.lab.inside import write_sysctl

    seen = []
    for value in ("0", "1"):
        write_sysctl("net.ipv4.tcp_migrate_req", value)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            hs.listen(("127.0.0.1", 0), reuse_port=True).close()
        seen.append([str(w.message) for w in caught])
    return seen


def test_defer_accept_and_fast_open_are_options() -> None:
    with hs.listen(("127.0.0.1", 0), defer_accept=3, fastopen=16) as listener:
        settings = {s.name: s.effective for s in listener.audit()}
        assert (settings["defer_accept_s"] or 0) >= 3
        assert settings["fastopen_queue"] == 16
    with hs.listen(("127.0.0.1", 0)) as listener:
        settings = {s.name: s.effective for s in listener.audit()}
        assert settings["defer_accept_s"] == settings["fastopen_queue"] == 0


def test_a_listening_socket_can_be_adopted_and_given_back() -> None:
    with socket.create_server(("127.0.0.1", 0)) as made:
        listener = hs.listen(made)
        assert made.fileno() == -1
    with connect_to(listener.address), listener.accept(timeout=30):
        pass
    fd = listener.detach()
    assert listener.closed
    assert listener.stats().backlog_asked is None
    with socket.socket(fileno=fd) as back:
        assert back.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) == 1
    with socket.socket() as idle, pytest.raises(ValueError, match="not a listening"):
        hs.listen(idle)


SYSTEMD = """
import os, socket, hardsock as hs
made = socket.create_server(("127.0.0.1", 0))
os.dup2(made.fileno(), 3)
os.environ.update(LISTEN_PID=os.environ.get("FAKE_PID") or str(os.getpid()), LISTEN_FDS="1")
listeners = hs.listen_fds()
print(len(listeners), "LISTEN_FDS" in os.environ, flush=True)
for listener in listeners:
    assert not os.get_inheritable(listener.fileno())
    listener.close()
"""


@pytest.mark.parametrize(("pid", "count"), [("", 1), ("1", 0)])
def test_sockets_passed_by_systemd_are_adopted(pid: str, count: int) -> None:
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", SYSTEMD],
        env={**os.environ, "FAKE_PID": pid},
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout.split() == [str(count), "False"]


@pytest.mark.parametrize(
    ("kwargs", "error", "message"),
    [
        ({"backlog": -1}, ValueError, "backlog"),
        ({"backlog": True}, TypeError, "backlog"),
        ({"unix_mode": 0o10000}, ValueError, "unix_mode"),
        ({"defer_accept": -1}, ValueError, "defer_accept_s"),
    ],
)
def test_bad_parameters_are_named(kwargs: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        hs.listen(("127.0.0.1", 0), **kwargs)
