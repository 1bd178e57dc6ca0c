"""The programs of docs/serving.md run as they stand there: with signals, restarts, and systemd's part.

Its shorter examples are run by test_docs. Addresses are replaced by a unix path, so that a test needs
no port.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hardsock.lab.waits import poll_until
from support.require import Unavailable, available
from support.signals import wait_until_caught

PAGE = Path(__file__).resolve().parents[2] / "docs" / "serving.md"
PATIENCE = 60.0

AS_SYSTEMD = """
import os, sys
sock, program = int(sys.argv[1]), sys.argv[2]
os.dup2(sock, 3)
os.environ |= {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1", "LISTEN_FDNAMES": "web"}
os.execv(sys.executable, [sys.executable, program])
"""


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(), re.DOTALL)


class Programs:
    """Those of the page, run in a folder of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.address = str(folder / "web")
        self.running: list[subprocess.Popen[bytes]] = []

    def file(self, word: str) -> Path:
        """The program that has the word in it."""
        (text,) = (block for block in blocks("py") if word in block)
        assert '("", 8080)' in text
        text = text.replace('("", 8080)', repr(self.address))
        file = self.folder / f"{word}.py"
        file.write_text(text.replace("/run/app/", f"{self.folder}/"))
        return file

    def run(
        self, *argv: object, keep: tuple[int, ...] = (), **environment: str
    ) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [sys.executable, "-W", "error", *map(str, argv)],
            pass_fds=keep,
            env={**os.environ, **environment},
        )
        self.running.append(process)
        return process

    def answer(self) -> bytes:
        """What is said to a line; nothing: nobody listens."""
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(PATIENCE)
            try:
                client.connect(self.address)
            except (FileNotFoundError, ConnectionRefusedError):
                return b""
            client.sendall(b"hello\n")
            return client.recv(100)

    def serves(self) -> bool:
        return poll_until(lambda: self.answer() == b"HELLO\n", PATIENCE)


@pytest.fixture
def programs(tmp_path: Path) -> Iterator[Programs]:
    it = Programs(tmp_path)
    yield it
    for process in it.running:
        process.kill()
        process.wait()


def ends_well(process: subprocess.Popen[bytes]) -> bool:
    """At SIGTERM, once it is in wait()."""
    wait_until_caught(process.pid, signal.SIGTERM)
    process.terminate()
    return process.wait(PATIENCE) == 0


def test_every_program_of_the_page_is_run_here() -> None:
    words = ["take_over", "serve_processes", "systemd_sockets"]
    assert [[word for word in words if word in block] for block in blocks("py")] == [
        [word] for word in words
    ]


def test_the_one_with_processes_serves_and_ends_at_sigterm(programs: Programs) -> None:
    process = programs.run(programs.file("serve_processes"))
    assert programs.serves()
    assert ends_well(process)


def test_the_one_that_takes_over_is_replaced_by_itself(programs: Programs) -> None:
    file = programs.file("take_over")
    first = programs.run(file)
    assert programs.serves()
    assert poll_until((programs.folder / "handover").exists, PATIENCE)
    second = programs.run(file)
    assert first.wait(PATIENCE) == 0, "it has handed over, and ended"
    assert programs.answer() == b"HELLO\n"
    assert ends_well(second)


def test_the_one_for_systemd_also_runs_by_hand(programs: Programs) -> None:
    process = programs.run(programs.file("systemd_sockets"))
    assert programs.serves()
    assert ends_well(process)


def test_the_one_for_systemd_serves_its_socket_and_says_that_it_is_ready(
    programs: Programs, tmp_path: Path
) -> None:
    file = programs.file("systemd_sockets")
    with (
        socket.socket(socket.AF_UNIX) as sock,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager,
    ):
        sock.bind(programs.address)
        sock.listen(16)
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(PATIENCE)
        process = programs.run(
            "-c", AS_SYSTEMD, sock.fileno(), file,
            keep=(sock.fileno(),), NOTIFY_SOCKET=str(tmp_path / "notify"),
        )  # fmt: skip
        said = b""
        while b"READY=1" not in said:
            data, rights, _flags, _from = socket.recv_fds(manager, 4096, 4)
            said += data + b"\n"
            for fd in rights:
                os.close(fd)
        assert programs.serves()
        assert ends_well(process)


def test_systemd_accepts_the_unit(tmp_path: Path) -> None:
    with available():
        if shutil.which("systemd-analyze") is None or not Path("/usr/bin/python3").exists():
            raise Unavailable("no systemd-analyze, or no python3 where the unit has it")
    (text,) = blocks("ini")
    file = tmp_path / text.splitlines()[0].removeprefix("# ")
    file.write_text(text)
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(file)],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert [line for line in done.stderr.splitlines() if file.name in line] == []
    assert done.returncode == 0, done.stderr
