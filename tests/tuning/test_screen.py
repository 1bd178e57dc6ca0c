"""What fits the terminal: wrapping at its width, or at what COLUMNS says."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import termios
from pathlib import Path

import pytest
from support_tune import BINARY, TOP, Root, tune

SHOWN = [
    ("show", "busy-server"),
    ("explain", "tcp_rmem"),
    ("check", "busy-server"),
    ("check", "-q"),
]


def in_terminal(root: Root, columns: int, *args: str) -> str:
    """Run in a terminal of that width and return what it shows, without colours."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    command = [str(BINARY), *args, *([] if args[0] == "show" else ["--root", str(root.path)])]
    env = {"HARDSOCK_COLOR": "never", "LC_ALL": "C", "COLUMNS": "33"}
    child = subprocess.Popen(command, stdout=theirs, stderr=subprocess.DEVNULL, env=env)
    os.close(theirs)
    shown = b""
    try:
        while piece := os.read(ours, 65536):
            shown += piece
    except OSError:  # EIO: the other end is closed
        pass
    os.close(ours)
    child.wait()
    return shown.decode().replace("\r", "")


def may_break(line: str) -> bool:
    """A name or a path that is as wide as a narrow screen stays whole."""
    return max(map(len, line.split())) < 25


@pytest.mark.parametrize("columns", [40, 80, 120, 200])
@pytest.mark.parametrize("args", SHOWN)
def test_no_line_is_wider_than_the_terminal(
    root: Root, columns: int, args: tuple[str, str]
) -> None:
    root.put("net/ipv4/tcp_sack", "0")
    root.listen(40000, 40002)
    lines = in_terminal(root, columns, *args).splitlines()
    path = str(TOP / "tuning")
    assert [
        line for line in lines if len(line) > columns and path not in line and may_break(line)
    ] == []
    assert any(len(line) > columns - 20 for line in lines) or columns > 100


@pytest.mark.parametrize(
    ("columns", "widest"), [("80", 80), ("", 100), ("junk", 100), ("-5", 100), ("7", 60)]
)
def test_without_a_terminal_columns_decides(columns: str, widest: int) -> None:
    done = tune("show", "busy-server", env={"COLUMNS": columns})
    longest = max(len(line) for line in done.stdout.splitlines())
    assert widest - 25 <= longest <= widest


GUIDE = "net.ipv4.tcp_timestamps = 0\nnet.core.somaxconn = 4096\nnet.ipv4.tcp_tw_reuse = 1\nhello\n"
SITE = """name: site
summary: What our services want, which is a line that no narrow screen has room for.
settings:
  net.ipv4.tcp_tw_reuse: {value: 1, why: w, risk: Old packets may pass for new ones.}
  net.ipv4.ip_local_port_range: {value: 1024 65535, why: w}
  net.ipv4.nonsense: 1
"""
ARGS = {
    "check": ["busy-server"], "explain": ["tcp_rmem", "EADDRNOTAVAIL"], "list": [],
    "show": ["redis"], "lint": ["./site.yaml"], "judge": ["guide.conf"], "recommend": [],
    "diff": ["busy-server"], "apply": ["busy-server"], "revert": [], "status": [],
    "persist": ["busy-server"], "unpersist": [], "conflicts": ["busy-server"],
    "export": ["--to", "sysctl.d", "high-churn-client"], "import": ["guide.conf"],
}  # fmt: skip
# What is a file to be, or names a place in one, is as wide as files are.
FILES = ("lint", "recommend", "diff", "export", "import")


def test_every_command_has_an_output_for_each_width() -> None:
    told = re.findall(r"^  ([a-z]+) ", tune("--help").stdout, re.MULTILINE)
    assert sorted(ARGS) == sorted(told)


@pytest.mark.parametrize("columns", [40, 80, 200])
@pytest.mark.parametrize("command", ARGS)
def test_output_at_that_width_is_the_golden_one(
    root: Root, tmp_path: Path, command: str, columns: int
) -> None:
    root.put("net/ipv4/tcp_sack", "0")
    root.listen(40000)
    (root.path / "proc/net/softnet_stat").write_text("00001234 0000001f 00000000\n")
    (root.path / "etc/sysctl.d").mkdir(parents=True)
    (root.path / "etc/sysctl.d/99-last.conf").write_text("net.core.somaxconn = 128\n")
    (tmp_path / "guide.conf").write_text(GUIDE)
    (tmp_path / "site.yaml").write_text(SITE)
    if command in ("revert", "status"):
        root.tune("apply", "busy-server")
        root.put("net/core/somaxconn", "1000")
    if command == "unpersist":
        root.tune("persist", "busy-server")
    done = root.tune(command, *ARGS[command], env={"COLUMNS": str(columns)}, cwd=tmp_path)
    text = (done.stdout + done.stderr).replace(str(root.path), "ROOT")
    text = re.sub(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", "TIME", text)
    text = re.sub(r"\b[0-9a-f]{16}\b", "HASH", text)
    wide = [line for line in done.stdout.splitlines() if len(line) > columns and may_break(line)]
    assert command in FILES or [line for line in wide if str(root.path) not in line] == []
    golden = Path(__file__).parent / "golden" / f"{command}.{columns}"
    if os.environ.get("HARDSOCK_UPDATE_GOLDEN"):
        golden.write_text(text)
    assert golden.read_text() == text
