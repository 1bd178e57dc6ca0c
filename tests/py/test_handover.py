"""Listening sockets that go from one process to the next: by hand-over, by systemd, by SO_REUSEPORT."""

from __future__ import annotations

import array
import collections
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import hardsock as hs
from hardsock.lab.endpoint import connect_to
from hardsock.lab.namespaces import Namespace
from hardsock.lab.threads import Call
from hardsock.lab.waits import poll_until
from hardsock.serving import handover
from support.require import require
from support.signals import wait_until_caught

LOCAL = ("127.0.0.1", 0)
EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "zero_downtime.py"


def echo(conn: hs.Connection) -> None:
    while data := conn.recv(4096, token=hs.draining()):
        conn.sendall(data)


def ask(address: Any) -> bytes:
    with connect_to(address) as client:
        client.settimeout(60)
        client.sendall(b"hello")
        return client.recv(5, socket.MSG_WAITALL)


# ---- from process to process ----------------------------------------------------------------------


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "handover"


def test_a_socket_goes_to_the_next_and_the_first_ends(path: Path) -> None:
    with hs.serve(echo, LOCAL, drain_timeout=30) as first:
        with hs.hand_over(path, {"web": first.listener}, then=first.stop) as given:
            assert path.stat().st_mode & 0o777 == 0o600
            with hs.take_over(path) as taken:
                assert taken.replaces
                assert taken.names == ["web"]
                listener = taken.listen("web", ("127.0.0.1", 1))
                assert not os.get_inheritable(listener.fileno())
                assert ask(first.address) == b"hello"
                assert not given.cancelled
                with hs.serve(echo, listener, drain_timeout=30) as second:
                    taken.ready()
                    assert given.cancelled
                    assert not path.exists()
                    assert first.wait(60)
                    assert second.address == first.address
                    for _ in range(5):
                        assert ask(first.address) == b"hello"
                    assert poll_until(lambda: second.stats().handled == 5, 60)
    assert first.report is not None
    assert first.report.unaccepted in (0, None)


def test_who_comes_as_soon_as_it_is_served_is_given_all(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be through before the thread that hands over has gone on."""

    def served(*args: Any, **settings: Any) -> hs.Server:
        server = hs.serve(*args, **settings)
        with hs.take_over(path, timeout=60) as taken, taken.listen("web", LOCAL):
            taken.ready()
        return server

    with hs.serve(echo, LOCAL, drain_timeout=30) as first:
        monkeypatch.setattr(handover, "serve", served)
        with hs.hand_over(path, {"web": first.listener}, then=first.stop) as given:
            assert given.cancelled
            assert first.wait(60)


def test_one_who_is_not_ready_changes_nothing(path: Path) -> None:
    with hs.serve(echo, LOCAL, drain_timeout=30) as server:
        with hs.hand_over(path, {"web": server.listener}, then=server.stop) as given:
            for _ in range(2):
                with hs.take_over(path) as taken:
                    taken.listen("web").close()
            with hs.take_over(path):
                pass  # Nothing of it is taken: it is closed.
            assert not given.cancelled
            assert ask(server.address) == b"hello"
            assert path.exists()
        assert not path.exists()


GIVER_OF_ANOTHER_USER = """
import os, socket, sys
with socket.socket(socket.AF_UNIX) as unix, socket.create_server(("127.0.0.1", 0)) as mine:
    unix.bind(sys.argv[1])
    os.setuid(65534)
    unix.listen()
    print("listening", flush=True)
    conn, _ = unix.accept()
    try:
        socket.send_fds(conn, [b"web\\n"], [mine.fileno()])
        while conn.recv(100):
            print("asked", flush=True)
    except OSError:
        pass
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can start a process of another user")
def test_nothing_is_taken_from_a_process_of_another_user(path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", GIVER_OF_ANOTHER_USER, path], stdout=subprocess.PIPE, text=True
    ) as giver:
        try:
            assert giver.stdout is not None
            assert giver.stdout.readline() == "listening\n"
            before = os.listdir("/proc/self/fd")
            with pytest.raises(PermissionError, match="user 65534 listens there") as caught:
                hs.take_over(path, timeout=60)
            assert caught.value.filename == str(path)
            assert os.listdir("/proc/self/fd") == before
            assert giver.stdout.read() == ""  # It was not even asked.
        finally:
            giver.kill()


def test_where_nobody_is_the_address_is_listened_on(path: Path) -> None:
    with hs.take_over(path) as taken:
        assert not taken.replaces
        with pytest.raises(
            LookupError, match=r"no inherited socket is called 'web'; there are: \[\]"
        ):
            taken.listen("web")
        with taken.listen("web", LOCAL) as listener:
            assert listener.address[0] == "127.0.0.1"
        taken.ready()


def test_a_unix_socket_keeps_its_path(path: Path, tmp_path: Path) -> None:
    where = tmp_path / "server"
    with hs.serve(echo, f"unix:{where}", drain_timeout=30) as first:
        with hs.hand_over(path, {"unix": first.listener}, then=first.stop):
            with (
                hs.take_over(path) as taken,
                hs.serve(echo, taken.listen("unix"), drain_timeout=30) as second,
            ):
                taken.ready()
                assert first.wait(60)
                with hs.connect(f"unix:{where}", timeout=30) as client:
                    client.sendall(b"hello")
                    assert client.recv_exactly(5, timeout=30) == b"hello"
                assert second.stats().accepted == 1


def test_who_waits_in_the_queue_is_served_by_the_next(path: Path) -> None:
    """The first one is full, and never accepts them."""
    busy, go = threading.Event(), threading.Event()

    def hold(conn: hs.Connection) -> None:
        busy.set()
        go.wait(30)

    with hs.serve(hold, LOCAL, workers=1, drain_timeout=20) as first:
        with (
            connect_to(first.address),
            hs.hand_over(path, {"web": first.listener}, then=first.stop),
        ):
            assert busy.wait(60)
            queued = [connect_to(first.address) for _ in range(3)]
            with (
                hs.take_over(path) as taken,
                hs.serve(echo, taken.listen("web"), drain_timeout=30),
            ):
                taken.ready()
                for client in queued:
                    with client:
                        client.settimeout(60)
                        client.sendall(b"hello")
                        assert client.recv(5, socket.MSG_WAITALL) == b"hello"
                go.set()
                assert first.wait(20)
    assert first.stats().accepted == 1


def test_one_that_speaks_something_else_gets_nothing(path: Path) -> None:
    with hs.serve(echo, LOCAL, drain_timeout=30) as server:
        with hs.hand_over(path, {"web": server.listener}, then=server.stop) as given:
            with hs.connect(f"unix:{path}", timeout=30) as stranger:
                stranger.sendall(b"GET / HTTP/1.0\n")
                assert stranger.recv(1, timeout=30) == b""
            assert not given.cancelled


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_what_does_not_come_from_a_hand_over_is_refused(path: Path) -> None:
    def nonsense(conn: hs.Connection) -> None:
        conn.recv_line()
        conn.sendall(b"one:two\n")

    fds = open_descriptors()
    with hs.serve(nonsense, f"unix:{path}", drain_timeout=1):
        with pytest.raises(hs.HardsockError, match="0 sockets came, for the names"):
            hs.take_over(path)
    with hs.listen(f"unix:{path}") as silent, Call(silent.accept, timeout=60) as accepting:
        with pytest.raises(hs.DeadlineExceeded):
            hs.take_over(path, timeout=0.1)
        accepting.result().close()
    # The thread that sees to what lingers ends a moment after the last of it.
    assert poll_until(lambda: open_descriptors() == fds, 60), (open_descriptors(), fds)


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes somebody else")
def test_another_user_is_given_nothing(path: Path) -> None:
    """Also where the path would let it in."""
    code = f"""
import os, socket
os.setgid(65534); os.setuid(65534)
with socket.socket(socket.AF_UNIX) as sock:
    sock.settimeout(60)
    sock.connect({str(path)!r})
    sock.sendall(b"hardsock: take over\\n")
    assert sock.recv(1) == b""
"""
    with hs.serve(echo, LOCAL, drain_timeout=30) as server:
        with hs.hand_over(path, {"web": server.listener}, then=server.stop) as given:
            for parent in [path, *path.parents][:-2]:
                parent.chmod(parent.stat().st_mode | 0o777)
            subprocess.run([sys.executable, "-c", code], check=True, timeout=30)
            assert not given.cancelled


@pytest.mark.parametrize(
    ("names", "message"),
    [([], "listeners must be 1 to 253, got 0"), (["a:b"], "without ':'"), ([""], "1 to 255")],
)
def test_what_cannot_be_handed_over_is_named(path: Path, names: list[str], message: str) -> None:
    with hs.listen(LOCAL) as listener, pytest.raises(ValueError, match=message):
        with hs.hand_over(path, dict.fromkeys(names, listener), then=lambda: None):
            pass


# ---- systemd --------------------------------------------------------------------------------------


class Systemd:
    """What keeps descriptors: the other end of NOTIFY_SOCKET."""

    def __init__(self, where: Path) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.sock.bind(str(where))
        self.sock.settimeout(60)
        self.store: dict[str, int] = {}

    def take(self) -> list[str]:
        """One message; what it wants stored is stored."""
        size = socket.CMSG_SPACE(4)
        data, ancillary, _flags, _ = self.sock.recvmsg(4096, size, socket.MSG_CMSG_CLOEXEC)
        lines = data.decode().split("\n")
        fds = array.array("i")
        for _level, _kind, payload in ancillary:
            fds.frombytes(payload)
        names = [line.partition("=")[2] for line in lines if line.startswith("FDNAME=")]
        if "FDSTORE=1" in lines:
            self.store[names[0]] = fds[0]
        elif "FDSTOREREMOVE=1" in lines:
            os.close(self.store.pop(names[0]))
        return lines

    def close(self) -> None:
        self.sock.close()
        for fd in self.store.values():
            os.close(fd)


@pytest.fixture
def systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Systemd]:
    manager = Systemd(tmp_path / "notify")
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    yield manager
    manager.close()


SERVICE = """
import os, sys, hardsock as hs
for i, fd in enumerate(map(int, sys.argv[1].split(","))):
    os.dup2(fd, 3 + i)
os.environ.update(LISTEN_PID=os.environ.get("FAKE_PID") or str(os.getpid()),
                  LISTEN_FDS=sys.argv[2], LISTEN_FDNAMES=sys.argv[3])
with hs.systemd_sockets() as given:
    print(given.names, "LISTEN_FDS" in os.environ, flush=True)
    if "web" in given.names:
        with given.listen("web") as listener:
            assert not os.get_inheritable(listener.fileno())
            with listener.accept(timeout=60) as conn:
                conn.sendall(b"kept")
"""


def test_systemd_keeps_a_socket_over_a_restart(systemd: Systemd) -> None:
    with hs.listen(LOCAL) as listener:
        address = listener.address
        assert hs.systemd_notify(ready=True, status="serves", store={"web": listener})
        assert systemd.take() == ["READY=1", "STATUS=serves"]
        assert systemd.take() == ["FDSTORE=1", "FDNAME=web"]
    client = connect_to(address)  # While no process runs: it waits in the queue.
    fd = systemd.store["web"]
    with subprocess.Popen(
        [sys.executable, "-c", SERVICE, f"{fd}", "1", "web"],
        pass_fds=[fd],
        stdout=subprocess.PIPE,
        text=True,
    ) as service:
        with client:
            client.settimeout(60)
            assert client.recv(4, socket.MSG_WAITALL) == b"kept"
        output, _ = service.communicate(timeout=20)
    assert service.returncode == 0
    assert output == "['web'] False\n"
    assert hs.systemd_notify(stopping=True, forget=["web"])
    assert systemd.take() == ["STOPPING=1"]
    systemd.take()
    assert systemd.store == {}


@pytest.mark.parametrize(
    ("pid", "count", "names", "want"),
    [
        ("", "2", "web:admin", ["web", "admin"]),
        ("", "2", "web", ["web", "unknown"]),
        ("", "1", "", ["unknown"]),
        ("1", "2", "web:admin", []),
        ("", "x", "", []),
    ],
)
def test_names_are_as_systemd_has_them(pid: str, count: str, names: str, want: list[str]) -> None:
    with hs.listen(LOCAL) as one, hs.listen(LOCAL) as two:
        fds = [one.fileno(), two.fileno()]
        with connect_to(one.address):
            result = subprocess.run(
                [sys.executable, "-c", SERVICE, ",".join(map(str, fds)), count, names],
                env={**os.environ, "FAKE_PID": pid},
                pass_fds=fds,
                capture_output=True,
                text=True,
                check=True,
                timeout=30,
            )
    assert result.stdout == f"{want} False\n"


def test_every_state_has_its_line(systemd: Systemd) -> None:
    assert hs.systemd_notify(reloading=True, watchdog=True, main_pid=7)
    lines = systemd.take()
    assert lines[0] == "RELOADING=1"
    assert lines[1].startswith("MONOTONIC_USEC=")
    assert lines[2:] == ["WATCHDOG=1", "MAINPID=7"]


def test_without_systemd_nobody_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    assert hs.systemd_notify(ready=True) is False


def test_what_systemd_would_not_understand_is_named(systemd: Systemd) -> None:
    with pytest.raises(ValueError, match="status must be one line"):
        hs.systemd_notify(status="two\nlines")
    with hs.listen(LOCAL) as listener, pytest.raises(ValueError, match="without ':'"):
        hs.systemd_notify(store={"a:b": listener})
    systemd.sock.setblocking(False)
    with pytest.raises(BlockingIOError):
        systemd.take()  # Nothing of it was sent.


# ---- restarts under load ----------------------------------------------------------------------------


class Load:
    """Clients that ask one thing per connection, all the time; nobody may be left without answer."""

    def __init__(self, address: Any, clients: int = 4) -> None:
        self._address = address
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._ask) for _ in range(clients)]
        self.lost: list[object] = []
        self.by_process: collections.Counter[int] = collections.Counter()

    def _ask(self) -> None:
        while not self._over.is_set():
            try:
                with connect_to(self._address) as client:
                    client.settimeout(20)
                    client.sendall(b"which\n")
                    answer = b""
                    while not answer.endswith(b"\n"):
                        if not (piece := client.recv(100)):
                            raise EOFError(answer)
                        answer += piece
                self.by_process[int(answer.split()[1])] += 1
            except (OSError, EOFError) as exc:
                self.lost.append(exc)

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_details: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(60)


def start(path: Path, address: Any, *options: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, str(EXAMPLE), str(path), f"127.0.0.1:{address[1]}", *options],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == f"ready {address[1]}\n"
    return process


def terminate(process: subprocess.Popen[str]) -> None:
    wait_until_caught(process.pid, signal.SIGTERM)  # It serves before it is in wait().
    process.terminate()


def end(process: subprocess.Popen[str]) -> None:
    """Wait for what was told to stop; its report has to say that nothing was cut."""
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert " 0 cancelled, 0 aborted, 0 handshakes cut" in output, output


def free_address() -> Any:
    with socket.create_server(LOCAL) as sock:
        return sock.getsockname()


def restarts(path: Path, how: str, driver: str, times: int) -> tuple[list[str], list[int]]:
    """Restart a server under load; returns who was lost, and how many each process answered."""
    options = ["--aio"] * (driver == "aio") + ["--reuse-port"] * (how == "reuse_port")
    address = free_address()
    old = start(path, address, *options)
    processes = [old]
    with Load(address) as load:
        for _ in range(times):
            seen = load.by_process[old.pid]
            assert poll_until(lambda old=old, seen=seen: load.by_process[old.pid] > seen + 20, 30)  # type: ignore[misc]
            new = start(path, address, *options)
            if how == "reuse_port":
                terminate(old)
            end(old)
            old = new
            processes.append(new)
        assert poll_until(lambda: load.by_process[old.pid] > 20, 30)
    terminate(old)
    end(old)
    return [repr(exc) for exc in load.lost], [load.by_process[p.pid] for p in processes]


def restarts_where_queues_migrate(path: str, how: str, driver: str, times: int) -> Any:
    """In a network namespace of one's own."""
    Path("/proc/sys/net/ipv4/tcp_migrate_req").write_text("1")
    return restarts(Path(path), how, driver, times)


@pytest.mark.parametrize("driver", ["threads", "aio"])
@pytest.mark.parametrize("how", ["hand_over", "reuse_port"])
@pytest.mark.parametrize("times", [2, pytest.param(10, marks=pytest.mark.nightly)])
def test_restarts_under_load_lose_nobody(path: Path, how: str, driver: str, times: int) -> None:
    if how == "reuse_port":
        with require(Namespace()) as namespace:
            lost, answered = namespace.run(
                restarts_where_queues_migrate, str(path), how, driver, times, timeout=120
            )
    else:
        lost, answered = restarts(path, how, driver, times)
    assert lost == []
    assert all(answered)
