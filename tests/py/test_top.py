"""``hardsock top`` and ``hardsock ps``, in pipes and in a real terminal (tmux)."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from hardsock import __main__
from hardsock.lab.inside import ready, wait_for_stop
from hardsock.lab.namespaces import Namespace
from hardsock.top import kernel, screen
from hardsock.top.tables import VIEWS, plain, seconds, size, table
from support.require import require

SERVICE = """
import sys, threading
import hardsock as hs
listener = hs.listen(("127.0.0.1", 0))
def leaky_client():
    return hs.connect(listener.getsockname())
kept = [leaky_client() for _ in range(7)]
served = [listener.accept() for _ in kept]
pool = hs.Pool(listener.getsockname(), max_size=1, name="orders\\x1b[31m")
def holder():
    return pool.acquire()
held = holder()
def waiter():
    try:
        pool.acquire()
    except hs.Closed:
        pass
thread = threading.Thread(target=waiter)
thread.start()
while pool.stats().waiting == 0:
    pass
print("ready", flush=True)
sys.stdin.readline()
pool.close()
thread.join()
"""


@dataclass(frozen=True)
class Service:
    pid: int
    environment: dict[str, str]

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "hardsock", *arguments],
            env={**self.environment, "COLUMNS": "100"},
            capture_output=True,
            text=True,
            check=False,
        )


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    environment = {**os.environ, "XDG_RUNTIME_DIR": str(tmp_path), "HARDSOCK_INSPECT": "1"}
    with subprocess.Popen(
        [sys.executable, "-c", SERVICE],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        environment["HARDSOCK_INSPECT"] = "0"
        yield Service(process.pid, environment)
        process.stdin.close()


# ---- once


def test_ps_lists_what_can_be_inspected(service: Service) -> None:
    (row,) = (
        row
        for row in json.loads(service.run("ps", "--format", "json").stdout)
        if row["pid"] == service.pid
    )
    assert row["connections"] == 15
    assert row["descriptors"] > 15
    text = service.run("ps").stdout
    assert text.startswith("     PID USER")
    assert f"{service.pid}\t" in service.run("ps", "--format", "tsv").stdout


def test_json_has_the_metrics_and_the_rows(service: Service) -> None:
    done = service.run("top", str(service.pid), "--once", "--format", "json")
    found = json.loads(done.stdout)
    assert found["source"] == "inspect"
    assert found["metrics"]["open_connections"]["connect"] == 7
    lines = {(row["site"]["function"], row["how"]): row["open"] for row in found["sites"]}
    assert lines["leaky_client", "connect"] == 7
    assert lines["holder", "lent"] == 1


def test_tsv_has_a_line_for_each_row_and_no_head(service: Service) -> None:
    done = service.run("top", str(service.pid), "--format", "tsv", "--view", "waiters")
    waits, holds = (line.split("\t") for line in done.stdout.splitlines())
    assert waits[1:3] == ["waits", "orders?[31m"]
    assert waits[3].endswith("in waiter")
    assert holds[1] == "holds"
    assert holds[3].endswith("in holder")


def test_text_tells_the_pool_equation_and_who_has_opened_most(service: Service) -> None:
    lines = service.run("top", str(service.pid), "--once").stdout.splitlines()
    assert f"pid {service.pid}" in lines[0]
    assert "connections 15 (7 connect, 7 accept, 1 pool)" in lines[1]
    assert "1 lent + 0 idle + 0 dialing + 0 closing of 1, 1 waiting" in lines[2]
    assert lines[4].startswith("reads waited in all: for peers ")
    assert lines[6].split()[:2] == ["OPEN", "HOW"]
    assert lines[7].split()[0] == "7"
    assert max(map(len, lines)) <= 100


def test_every_view_is_printed(service: Service) -> None:
    for view in VIEWS:
        done = service.run("top", str(service.pid), "--once", "--view", view.name)
        assert done.returncode == 0, done.stderr
        assert "\x1b" not in done.stdout


def test_without_a_socket_it_is_the_kernels_view_and_says_so(tmp_path: Path) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()[:2]) as conn,
    ):
        done = subprocess.run(
            [sys.executable, "-m", "hardsock", "top", str(os.getpid()), "--once"],
            env={**os.environ, "XDG_RUNTIME_DIR": str(tmp_path), "COLUMNS": "100"},
            capture_output=True,
            text=True,
            check=True,
        )
        assert "the kernel's view only" in done.stdout
        (line,) = (
            line for line in done.stdout.splitlines() if line.split()[:1] == [str(conn.fileno())]
        )
        assert "established" in line
        assert f"127.0.0.1:{server.getsockname()[1]}" in line


def test_kernels_view_is_the_same_with_and_without_sock_diag() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_server(("::1", 0), family=socket.AF_INET6) as other,
        socket.create_connection(server.getsockname()[:2]) as conn,
        socket.create_connection(other.getsockname()[:2]),
    ):
        conn.sendall(b"abc")
        inodes = kernel._inodes(os.getpid())
        told = {row["fd"]: row for row in kernel._by_diag(inodes)}
        less = {row["fd"]: row for row in kernel._by_proc(os.getpid(), inodes)}
    assert told.keys() == less.keys()
    for fd, row in less.items():
        assert told[fd].items() >= row.items()
    row = next(one for one in told.values() if one.get("sent") == 3)
    assert (row["sent"], row["received"]) == (3, 0)
    assert 0 <= row["last_write"] < 60
    assert 0 < row["rtt"] < 60
    assert row["tcp"]["bytes_sent"] == 3
    assert row["tcp"]["snd_cwnd"] > 0


def listen_inside() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        ready(server.fileno())
        wait_for_stop()


@pytest.mark.net
def test_process_in_another_network_namespace_is_looked_at_through_proc() -> None:
    with require(Namespace()) as namespace, namespace.start(listen_inside) as running:
        fd = running.wait_ready()
        assert not kernel._is_in_our_namespace(running.pid)
        rows = [row for row in kernel.connections(running.pid) if row["fd"] == fd]
        assert [row["state"] for row in rows] == ["listen"]
        running.stop()
    assert kernel._is_in_our_namespace(os.getpid())


def test_kernel_without_sock_diag_is_asked_through_proc(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_inodes: object) -> None:
        raise OSError("no sock_diag")

    monkeypatch.setattr(kernel, "_by_diag", refuse)
    with socket.create_server(("127.0.0.1", 0)) as server:
        rows = kernel.connections(os.getpid())
        assert [row["state"] for row in rows if row["fd"] == server.fileno()] == ["listen"]


def test_process_that_is_not_there_is_exit_status_1(service: Service) -> None:
    done = service.run("top", "4194303", "--once")
    assert done.returncode == 1
    assert "there is no process 4194303" in done.stderr


@pytest.mark.parametrize(("words", "status"), [(["ps"], 0), (["top", "--once"], 1)])
def test_where_nothing_can_be_inspected_it_says_how_to_change_that(
    words: list[str],
    status: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("hardsock.top.screen.processes", lambda: iter(()))
    assert __main__.main(words) == status
    assert "start one with HARDSOCK_INSPECT=1" in capsys.readouterr().err


def test_wrong_usage_is_exit_status_2() -> None:
    for arguments in (["top", "x"], ["top", "--interval", "0"], ["ps", "--format", "xml"]):
        with pytest.raises(SystemExit) as caught:
            __main__.main(arguments)
        assert caught.value.code == 2


@pytest.mark.skipif(hasattr(sys, "remote_exec"), reason="this Python can attach")
def test_attach_says_what_it_needs(service: Service) -> None:
    done = service.run("attach", str(service.pid))
    assert done.returncode == 1
    assert "needs Python 3.14" in done.stderr


BUSY = """
import sys
if sys.argv[1:]:
    import hardsock
print("up", flush=True)
import select
while True:
    select.select([], [], [], 0.01)
"""


@pytest.mark.skipif(not hasattr(sys, "remote_exec"), reason="attaching is of Python 3.14")
@pytest.mark.parametrize("imports", [["hardsock"], []], ids=["imported", "not-imported"])
def test_attach_switches_it_on_in_a_process_that_runs(
    imports: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    command = [sys.executable, "-c", BUSY, *imports]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "up\n"
            attach = [sys.executable, "-m", "hardsock", "attach", str(process.pid)]
            done = subprocess.run(attach, capture_output=True, text=True, timeout=60)
            if imports:
                assert (done.returncode, done.stderr) == (0, "")
                assert Path(done.stdout.strip()).is_socket()
                top = [sys.executable, "-m", "hardsock", "top", str(process.pid), "--once"]
                looked = subprocess.run(top, capture_output=True, text=True, timeout=60)
                assert (looked.returncode, looked.stderr) == (0, "")
            else:
                assert done.returncode == 1
                assert "has not imported hardsock" in done.stderr
        finally:
            process.kill()


def test_attach_runs_a_script_there_and_waits_for_the_socket(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """As sys.remote_exec of 3.14 would, in this very process."""
    import hardsock as hs

    def remote_exec(pid: int, script: str) -> None:
        assert pid == os.getpid()
        exec(compile(Path(script).read_text(), script, "exec"), {})

    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setattr(sys, "remote_exec", remote_exec, raising=False)
    try:
        assert __main__.main(["attach", str(os.getpid())]) == 0
        assert str(tmp_path / "hardsock") in capsys.readouterr().out
    finally:
        hs.inspect(False)
    monkeypatch.setattr(sys, "remote_exec", lambda pid, script: None, raising=False)
    from hardsock.top import screen

    assert screen.attach(os.getpid(), timeout=0.01) == 1
    assert "has not imported hardsock" in capsys.readouterr().err


# ---- text


def test_numbers_are_short() -> None:
    assert [seconds(x) for x in (None, 0.25, 41, 180, 7200, 2e5)] == [
        "-",
        "0.25s",
        "41s",
        "3m",
        "2h",
        "2d",
    ]
    assert [size(x) for x in (None, 512, 20480, 3 << 20)] == ["-", "512", "20K", "3072K"]


def test_what_a_terminal_would_obey_is_not_printed() -> None:
    assert plain("a\x1b[2J\n\x9b\u202eb") == "a?[2J???b"
    row: dict[str, Any] = {"peer": "unix:\x1b]0;x\x07", "fd": 1}
    lines = table(VIEWS[1], [row], 80)
    assert "\x1b" not in "".join(lines)


# ---- in a terminal


class Terminal:
    """A tmux server of our own, with one window."""

    def __init__(self, place: Path, width: int, height: int = 24) -> None:
        self.socket = str(place / "tmux")
        self.width, self.height = width, height

    def tmux(self, *arguments: str) -> str:
        return subprocess.run(
            ["tmux", "-S", self.socket, "-f", "/dev/null", *arguments],
            capture_output=True,
            text=True,
            check=True,
        ).stdout

    def start(self, command: str, environment: dict[str, str]) -> None:
        subprocess.run(
            [
                *("tmux", "-S", self.socket, "-f", "/dev/null", "new-session", "-d"),
                *("-x", str(self.width), "-y", str(self.height), command),
            ],
            env={**environment, "TERM": "xterm"},
            check=True,
        )

    def screen(self) -> list[str]:
        return self.tmux("capture-pane", "-p").splitlines()

    def until(self, holds: Callable[[list[str]], bool]) -> list[str]:
        end = time.monotonic() + 20
        while not holds(lines := self.screen()):
            assert time.monotonic() < end, "\n".join(lines)
        return lines


@pytest.fixture(params=[80, 200])
def terminal(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Terminal]:
    if shutil.which("tmux") is None:
        if os.environ.get("CI") == "true":
            pytest.fail("tmux is missing")
        pytest.skip("tmux is missing")
    made = Terminal(tmp_path, request.param)
    yield made
    made.tmux("kill-server")


def shows(text: str) -> Callable[[list[str]], bool]:
    return lambda lines: any(text in line for line in lines)


def test_screen_shows_lines_switches_tables_and_resizes(
    terminal: Terminal, service: Service
) -> None:
    # The shell stays, so that what is on the screen after the end can be looked at.
    terminal.start(
        f"{sys.executable} -m hardsock top {service.pid} --interval 0.2; echo over $?; exec cat",
        service.environment,
    )
    lines = terminal.until(shows("in leaky_client" if terminal.width == 200 else "OLDEST"))
    assert len(lines) <= terminal.height
    assert max(map(len, lines)) <= terminal.width
    assert f"pid {service.pid}" in lines[0]
    assert "1 lent + 0 idle + 0 dialing + 0 closing of 1, 1 waiting" in lines[2]
    assert any("RECV" in line for line in lines) == (terminal.width == 200)
    terminal.tmux("send-keys", "w")
    assert any("orders?[31m" in line for line in terminal.until(shows("in waiter")))
    terminal.tmux("send-keys", "c")
    terminal.until(shows("ESTABLISHED".lower()))
    terminal.tmux("send-keys", "Down", "Enter")
    terminal.until(shows("retransmits"))
    if terminal.width == 80:  # The rest is on the next page.
        terminal.tmux("send-keys", "Enter")
    terminal.until(shows("snd_cwnd"))
    assert max(map(len, terminal.screen())) <= terminal.width
    terminal.tmux("send-keys", "Escape", "p")
    terminal.until(shows("TIMEOUTS"))
    for key, text in (
        ("v", "PARKED"),
        ("l", "BACKLOG"),
        ("b", "REFUSED"),
        ("e", "KIND"),
        ("s", "OLDEST"),
    ):
        terminal.tmux("send-keys", key)
        terminal.until(shows(text))
    terminal.tmux("resize-window", "-x", "100", "-y", "10")
    terminal.until(lambda lines: len(lines) <= 10 and "OPEN" in "".join(lines))
    terminal.tmux("send-keys", "q")
    terminal.until(shows("over 0"))


def test_what_does_not_fit_a_page_goes_on_on_the_next() -> None:
    first, second = ["a"] * 5, ["b"] * 4
    assert screen._pages([first, second], 9) == [["a"] * 5 + ["b"] * 4]
    assert screen._pages([first, second], 8) == [["a"] * 5, ["b"] * 4]
    assert screen._pages([first, second], 3) == [["a"] * 3, ["a"] * 2, ["b"] * 3, ["b"]]


def test_screen_ends_with_the_process(terminal: Terminal, service: Service) -> None:
    terminal.start(
        f"{sys.executable} -m hardsock top {service.pid} --interval 0.2; echo over $?; exec cat",
        service.environment,
    )
    terminal.until(shows("in leaky_client"))
    os.kill(service.pid, 9)
    terminal.until(shows("over 1"))
