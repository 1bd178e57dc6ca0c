"""What fits the terminal: wrapping at its width, or at what COLUMNS says."""

from __future__ import annotations

import fcntl
import os
import pty
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


@pytest.mark.parametrize("columns", [40, 80, 200])
@pytest.mark.parametrize("command", ["check", "explain", "show", "recommend", "judge"])
def test_output_at_that_width_is_the_golden_one(
    root: Root, tmp_path: Path, command: str, columns: int
) -> None:
    root.put("net/ipv4/tcp_sack", "0")
    root.listen(40000)
    (root.path / "proc/net/softnet_stat").write_text("00001234 0000001f 00000000\n")
    conf = tmp_path / "v.conf"
    conf.write_text("net.ipv4.tcp_timestamps = 0\nnet.core.somaxconn = 4096\nhello\n")
    args: dict[str, list[object]] = {
        "check": ["busy-server"], "explain": ["tcp_rmem", "EADDRNOTAVAIL"], "show": ["redis"],
        "recommend": [], "judge": [conf],
    }  # fmt: skip
    done = root.tune(command, *args[command], env={"COLUMNS": str(columns)})
    text = done.stdout.replace(str(tmp_path), "DIR")
    lines = [line for line in text.splitlines() if "DIR" not in line]
    if command != "recommend":  # A file to be, as wide as files are.
        assert [line for line in lines if len(line) > columns and may_break(line)] == []
    golden = Path(__file__).parent / "golden" / f"{command}.{columns}"
    if os.environ.get("HARDSOCK_UPDATE_GOLDEN"):
        golden.write_text(text)
    assert golden.read_text() == text
