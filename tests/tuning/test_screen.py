"""What fits the terminal: wrapping at its width, or at what COLUMNS says."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import subprocess
import termios

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


@pytest.mark.parametrize("columns", [80, 120, 200])
@pytest.mark.parametrize("args", SHOWN)
def test_no_line_is_wider_than_the_terminal(
    root: Root, columns: int, args: tuple[str, str]
) -> None:
    root.put("net/ipv4/tcp_sack", "0")
    root.listen(40000, 40002)
    lines = in_terminal(root, columns, *args).splitlines()
    path = str(TOP / "tuning")
    assert [line for line in lines if len(line) > columns and path not in line] == []
    assert any(len(line) > columns - 20 for line in lines) or columns > 100


@pytest.mark.parametrize(
    ("columns", "widest"), [("80", 80), ("", 100), ("junk", 100), ("-5", 100), ("7", 60)]
)
def test_without_a_terminal_columns_decides(columns: str, widest: int) -> None:
    done = tune("show", "busy-server", env={"COLUMNS": columns})
    longest = max(len(line) for line in done.stdout.splitlines())
    assert widest - 25 <= longest <= widest
