"""The inspect socket: answers whatever the program does, to whom it may, and is hurt by nobody."""

from __future__ import annotations

import json
import os
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import hardsock as hs


@pytest.fixture
def path(tmp_path: Path) -> Iterator[str]:
    found = hs.inspect(directory=tmp_path / "sockets")
    assert found is not None
    yield found
    hs.inspect(False)


def ask(path: str, request: bytes = b"metrics\n") -> dict[str, Any]:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(20)
        sock.connect(path)
        sock.sendall(request)
        with sock.makefile("rb") as file:
            return json.loads(file.readline() or b"{}")  # type: ignore[no-any-return]


def test_answers_reports_by_name_one_after_the_other(path: str) -> None:
    with socket.socket(socket.AF_UNIX) as sock, sock.makefile("rb") as file:
        sock.connect(path)
        for name in ("metrics", "connections", "sites", "pools", "servers", "breakers", "events"):
            sock.sendall(f"{name}\n".encode())
            found = json.loads(file.readline())
            assert (found["report"], found["version"], found["pid"]) == (name, 1, os.getpid())
        sock.sendall(b"metrics\r\nevents\npools\n")
        assert [json.loads(file.readline())["report"] for _ in range(3)] == [
            "metrics",
            "events",
            "pools",
        ]


def row_id(conn: hs.Connection) -> int:
    """Its id in reports."""
    rows = hs.report("connections")["connections"]
    return int(next(row["id"] for row in rows if row["fd"] == conn.fileno()))


def test_one_connection_in_full_is_its_row_and_what_the_kernel_tells(path: str) -> None:
    with hs.listen(("127.0.0.1", 0)) as listener, hs.connect(listener.getsockname()) as conn:
        with listener.accept() as other:
            conn.sendall(b"abc")
            other.recv_exactly(3)
            found = ask(path, f"connection {row_id(conn)}\n".encode())
            row, tcp = found["connection"], found["connection"].pop("tcp")
            assert (found["report"], row["id"], row["fd"]) == (
                "connection",
                row_id(conn),
                conn.fileno(),
            )
            listed = ask(path, b"connections\n")["connections"]
            assert row.keys() == listed[0].keys()
            assert tcp.keys() == conn.tcp_info().keys()
            assert (tcp["bytes_sent"], tcp["state"]) == (3, 1)
            assert hs.report("connection", row_id(conn))["connection"]["tcp"].keys() == tcp.keys()
            gone = row_id(conn)
            with socket.socket(socket.AF_UNIX) as sock, sock.makefile("rb") as file:
                sock.connect(path)
                conn.close()
                sock.sendall(f"connection {gone}\nevents\n".encode())
                assert json.loads(file.readline())["error"] == "there is no such connection"
                assert json.loads(file.readline())["report"] == "events"
    with pytest.raises(LookupError, match=f"there is no open connection {gone}"):
        hs.report("connection", gone)


@pytest.mark.parametrize("id", ["", "x", "-1", "1 2", "99999999999999999999", "+1", " 1"])
def test_what_is_no_id_is_no_report(id: str) -> None:
    with pytest.raises(ValueError, match="there is no report"):
        hs.report(f"connection {id}")
    with pytest.raises(ValueError, match="there is no report"):
        hs.report("connection")


def test_a_unix_connection_has_no_tcp() -> None:
    ours, theirs = socket.socketpair()
    with theirs, hs.adopt(ours) as conn:
        assert hs.report("connection", row_id(conn))["connection"]["tcp"] is None


def test_directory_is_private_and_the_socket_goes_with_the_end(tmp_path: Path) -> None:
    found = hs.inspect(directory=tmp_path / "own")
    assert found is not None
    assert stat.S_IMODE((tmp_path / "own").stat().st_mode) == 0o700
    assert Path(found).name.startswith(f"{os.getpid()}-")
    assert hs.inspect(False) is None
    assert not Path(found).exists()
    with pytest.raises(OSError):
        ask(found)


def test_directory_of_others_is_refused(tmp_path: Path) -> None:
    (tmp_path / "open").mkdir(mode=0o777)
    (tmp_path / "open").chmod(0o777)
    with pytest.raises(PermissionError, match="must be a directory of this user's own"):
        hs.inspect(directory=tmp_path / "open")
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(PermissionError):
        hs.inspect(directory=tmp_path / "link")


def test_path_that_is_too_long_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at most 107 fit"):
        hs.inspect(directory=tmp_path / ("x" * 120))


BUSY = """
import re, sys
import hardsock as hs
print(hs.inspect(directory=sys.argv[1]), flush=True)
sys.stdin.readline()
re.match(r"(a+)+$", "a" * 64 + "b")  # holds the GIL until the end of days
"""


def test_answers_while_a_regular_expression_holds_the_gil(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", BUSY, str(tmp_path / "s")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as busy:
        assert busy.stdin is not None
        assert busy.stdout is not None
        found = busy.stdout.readline().strip()
        busy.stdin.write("go\n")
        busy.stdin.flush()
        while ticks(busy.pid) < 30:  # It is in there, and goes on.
            time.sleep(0)
        assert_soon(found, busy.pid)
        busy.kill()


def assert_soon(path: str, pid: int) -> None:
    """It answers within 50 ms; what other times tell is how busy this machine is."""
    end = time.monotonic() + 60
    while True:
        began = time.monotonic()
        assert ask(path)["pid"] == pid
        if time.monotonic() - began < 0.05:
            return
        assert began < end


def ticks(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11])


LIMIT = """
import os, resource, sys
import hardsock as hs
print(hs.inspect(directory=sys.argv[1]), flush=True)
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
kept = []
try:
    while True:
        kept.append(os.dup(0))
except OSError as error:
    print(error.errno, flush=True)
sys.stdin.readline()
"""


def test_answers_at_the_limit_of_descriptors(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", LIMIT, str(tmp_path / "s")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as full:
        assert full.stdin is not None
        assert full.stdout is not None
        found = full.stdout.readline().strip()
        assert full.stdout.readline().strip() == "24"
        for _ in range(10):
            assert ask(found)["descriptors"] == {"open": 64, "limit": 64}
        assert_soon(found, full.pid)
        full.stdin.close()


def test_forked_child_serves_its_own(path: str) -> None:
    reader, writer = os.pipe()
    if (pid := os.fork()) == 0:
        from hardsock import _inspect

        try:
            assert_soon(str(Path(path).parent / _inspect.socket_name(os.getpid())), os.getpid())
            assert ask(path)["pid"] == os.getppid()
            hs.inspect(False)
            assert Path(path).exists()
            os.write(writer, b"1")
        finally:
            os._exit(0)
    os.close(writer)
    assert os.read(reader, 1) == b"1"
    os.close(reader)
    os.waitpid(pid, 0)
    assert ask(path)["pid"] == os.getpid()


def test_environment_switches_it_on(tmp_path: Path) -> None:
    code = "import hardsock, json, sys; from hardsock import _inspect; print(_inspect._state)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "HARDSOCK_INSPECT": "1", "XDG_RUNTIME_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert str(tmp_path / "hardsock") in done.stdout
    assert list((tmp_path / "hardsock").iterdir()) == []  # It went with the process.


# ---- hostile askers


def test_nonsense_is_answered_with_an_error_and_the_end(path: str) -> None:
    for request in (b"\n", b"\x00\xff\xfe\n", b"metrics metrics\n", b"x" * 300, b"m" * 255 + b"\n"):
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(20)
            sock.connect(path)
            sock.sendall(request)
            with sock.makefile("rb") as file:
                try:
                    found = json.loads(file.readline())
                    assert set(found) == {"version", "error"}
                    assert file.read() == b""
                except ConnectionResetError:
                    pass  # What it had not read yet is gone with the answer.
    assert ask(path)["pid"] == os.getpid()


def test_many_who_say_nothing_keep_nobody_out(path: str) -> None:
    silent = []
    for _ in range(200):
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(20)
        sock.connect(path)
        silent.append(sock)
        if len(silent) % 50 == 0:
            assert ask(path)["pid"] == os.getpid()
    for sock in silent:
        sock.close()


def test_one_who_does_not_read_and_one_who_asks_all_the_time_keep_nobody_waiting(
    path: str,
) -> None:
    stop = threading.Event()

    def ask_all_the_time() -> None:
        while not stop.is_set():
            ask(path, b"events\n")

    with socket.socket(socket.AF_UNIX) as deaf:
        deaf.setblocking(False)
        deaf.connect(path)
        sent = 0
        try:
            while sent < 200_000:
                sent += deaf.send(b"metrics\n")
        except BlockingIOError:
            pass
        floods = [threading.Thread(target=ask_all_the_time) for _ in range(3)]
        for flood in floods:
            flood.start()
        for _ in range(20):
            assert ask(path)["pid"] == os.getpid()
        stop.set()
        for flood in floods:
            flood.join()


AS_NOBODY = """
import os, socket, sys
os.setgroups([]); os.setgid(65534); os.setuid(65534)
sock = socket.socket(socket.AF_UNIX)
sock.settimeout(20)
sock.connect(sys.argv[1])
try:
    sock.sendall(b"metrics\\n")
    print(sock.recv(100))
except (BrokenPipeError, ConnectionResetError):
    print(b"")
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_another_user_is_told_nothing(tmp_path: Path) -> None:
    import tempfile

    with tempfile.TemporaryDirectory(dir="/tmp") as base:
        os.chmod(base, 0o755)
        found = hs.inspect(directory=Path(base) / "s")
        assert found is not None
        # As if the directory were open after all.
        os.chmod(Path(base) / "s", 0o755)
        os.chmod(found, 0o777)
        done = subprocess.run(
            [sys.executable, "-c", AS_NOBODY, found], capture_output=True, text=True, check=True
        )
        assert done.stdout == "b''\n"
        assert ask(found)["pid"] == os.getpid()
        hs.inspect(False)
