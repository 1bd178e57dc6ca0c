"""The command lines ``top``, ``ps`` and ``attach``, and the screen of ``top``."""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import shutil
import sys
import tempfile
import termios
import time
import tty
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hardsock.top import kernel
from hardsock.top.processes import Inspector, command_of, processes, socket_of
from hardsock.top.tables import VIEWS, View, fit, header, plain, site, table, text_or_dash, tsv

_NONE = "no process can be inspected; start one with HARDSOCK_INSPECT=1"
_KERNEL_NOTE = (
    "the kernel's view only: there is no inspect socket (HARDSOCK_INSPECT=1, or "
    "`hardsock attach` on Python 3.14)"
)
_KEY = re.compile(r"\x1b\[[A-Z]|.", re.S)
_CONNECTIONS = next(view for view in VIEWS if view.name == "connections")


class Source:
    """A process that is looked at, by its socket or only by the kernel."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.command = command_of(pid)
        path = socket_of(pid)
        self.inspector = None if path is None else Inspector(path)

    def header(self, width: int) -> list[str]:
        if self.inspector is not None:
            return header(self.inspector.report("metrics"), self.command, width)
        fds = kernel.descriptors(self.pid)
        return [
            fit(f"hardsock top  pid {self.pid}  {plain(self.command)}", width),
            fit(f"descriptors {fds['open']} of {fds['limit'] or 'unlimited'}", width),
            fit(_KERNEL_NOTE, width),
        ]

    def rows(self, view: View) -> list[dict[str, Any]]:
        if self.inspector is not None:
            return view.rows(self.inspector.report(view.report))
        return kernel.connections(self.pid)

    def whole(self, view: View, row: dict[str, Any]) -> dict[str, Any]:
        """All that can be told of a row: of a connection also what the kernel knows."""
        if self.inspector is None or view is not _CONNECTIONS:
            return row
        try:
            found = self.inspector.report(f"connection {row['id']}")
        except LookupError:
            return row  # It has ended: what it was last.
        return dict(found["connection"])

    def view(self, wanted: View) -> View:
        """The kernel knows connections only."""
        return wanted if self.inspector is not None else _CONNECTIONS


def choose(pid: int | None) -> Source | None:
    """That process, or the only one that there is; ``None``, having said why."""
    try:
        if pid is not None:
            return Source(pid)
        found = list(processes())
        if len(found) == 1:
            return Source(found[0].pid)
    except OSError as error:
        print(f"hardsock top: {error}", file=sys.stderr)
        return None
    if found:
        print("hardsock top: several processes can be inspected; say which:", file=sys.stderr)
        for one in found:
            print(f"  {one.pid}  {plain(one.command)}", file=sys.stderr)
    else:
        print(
            f"hardsock top: {_NONE}, or give a PID for the kernel's view",
            file=sys.stderr,
        )
    return None


def top(pid: int | None, view_name: str, once: bool, form: str, interval: float) -> int:
    """Exit status 0, or 1 when the process cannot be looked at, or has ended."""
    source = choose(pid)
    if source is None:
        return 1
    view = source.view(next(view for view in VIEWS if view.name == view_name))
    try:
        if once or form != "text" or not sys.stdout.isatty():
            print("\n".join(_once(source, view, form)))
        else:
            _Screen(source, view, interval).run()
    except (OSError, ValueError) as error:
        print(f"hardsock top: process {source.pid}: {error}", file=sys.stderr)
        return 1
    return 0


def _once(source: Source, view: View, form: str) -> list[str]:
    if form == "tsv":
        return tsv(view, source.rows(view))
    if form == "json":
        found: dict[str, Any] = {
            "pid": source.pid,
            "command": source.command,
            "source": "kernel" if source.inspector is None else "inspect",
            view.name: source.rows(view),
        }
        if source.inspector is not None:
            found["metrics"] = source.inspector.report("metrics")
        return [json.dumps(found)]
    width = shutil.get_terminal_size().columns
    return [*source.header(width), "", *table(view, source.rows(view), width)]


class _Screen:
    """Draws, and listens to keys, until one of them says q."""

    def __init__(self, source: Source, view: View, interval: float) -> None:
        self.source = source
        self.view = view
        self.interval = interval
        self.at = 0  # the row that is chosen
        self.page: int | None = None  # of all that is told of that row; None: the table
        self.rows: list[dict[str, Any]] = []
        self.colour = "NO_COLOR" not in os.environ

    def run(self) -> None:
        with _raw_terminal():
            while True:
                self.rows = self.source.rows(self.view)
                self.draw()
                until = time.monotonic() + self.interval
                while (left := until - time.monotonic()) > 0:
                    for key in _keys(left):
                        if not self.press(key):
                            return
                        self.draw()

    def press(self, key: str) -> bool:
        if key in ("q", "\x03"):
            return False
        for view in VIEWS:
            if key == view.key and self.source.inspector is not None:
                self.view, self.at, self.page = view, 0, None
                self.rows = self.source.rows(view)
        if key in ("\x1b[A", "k"):
            self.at = max(0, self.at - 1)
        elif key in ("\x1b[B", "j"):
            self.at = min(max(0, len(self.rows) - 1), self.at + 1)
        elif key in ("\r", "\n"):
            if self.rows:
                self.page = 0 if self.page is None else self.page + 1
        elif key == "\x1b":
            self.page = None
        return True

    def draw(self) -> None:
        width, height = os.get_terminal_size(sys.stdout.fileno())  # Not COLUMNS: it resizes.
        lines = [*self.source.header(width), self.keys(width)]
        room = height - len(lines) - 1
        self.at = min(self.at, max(0, len(self.rows) - 1))
        told = self.told(width, room + 1)
        if told:
            lines += told
        else:
            first = max(0, self.at - room + 1)
            body = table(self.view, self.rows, width)
            lines.append(self.mark(body[0].ljust(width), "7"))
            for at, line in enumerate(body[1:][first : first + room], start=first):
                lines.append(self.mark(line.ljust(width), "1") if at == self.at else line)
        text = "".join(f"{line}\x1b[K\r\n" for line in lines[: height - 1])
        sys.stdout.write(f"\x1b[H{text}\x1b[J")
        sys.stdout.flush()

    def told(self, width: int, room: int) -> list[str]:
        """A page of the row that is chosen; nothing: the table is to be shown."""
        if self.page is None or not self.rows:
            return []
        blocks = _detail(self.source.whole(self.view, self.rows[self.at]), width)
        pages = _pages(blocks, max(1, room))
        if self.page < len(pages):
            return pages[self.page]
        self.page = None
        return []

    def mark(self, line: str, how: str) -> str:
        return f"\x1b[{how}m{line}\x1b[m" if self.colour else line

    def keys(self, width: int) -> str:
        between = "  " if width >= 120 else " "
        names = between.join(f"{view.key} {view.name}" for view in VIEWS)
        return fit(f"{names}  enter all of one  q quit", width)


def _detail(row: dict[str, Any], width: int) -> list[list[str]]:
    """All of a row, and what the kernel tells of it: blocks of lines, in as many columns as fit."""
    cells = []
    for name, value in row.items():
        if name == "tcp":
            continue
        if name in ("site", "holder"):
            value = site(value)
        elif isinstance(value, dict):
            value = "  ".join(f"{key} {text_or_dash(one)}" for key, one in value.items())
        elif isinstance(value, list):
            value = len(value)
        elif isinstance(value, float):
            value = f"{value:.6f} s"
        cells.append(f"{name:>12}  {plain(text_or_dash(value))}")
    blocks = [_columns(cells, 2 if width < 180 else 3, width)]
    if row.get("tcp"):
        told = [f"{name:>16} {value}" for name, value in row["tcp"].items()]
        blocks.append(
            ["tcp_info, in the kernel's units:", *_columns(told, max(1, width // 26), width)]
        )
    return blocks


def _pages(blocks: list[list[str]], room: int) -> list[list[str]]:
    """Of at most so many lines each; a block is not divided where a page of its own is enough."""
    pages: list[list[str]] = []
    for block in blocks:
        if pages and len(pages[-1]) + len(block) <= room:
            pages[-1] += block
        else:
            pages += [block[at : at + room] for at in range(0, len(block), room)]
    return pages


def _columns(cells: list[str], count: int, width: int) -> list[str]:
    """Side by side, each from top to bottom."""
    room = width // count - 2
    length = -(-len(cells) // count)
    return [
        "  ".join(f"{fit(cell, room):<{room}}" for cell in cells[at::length]).rstrip()
        for at in range(length)
    ]


@contextlib.contextmanager
def _raw_terminal() -> Iterator[None]:
    """Keys come at once, the screen is another one; all is as before in the end."""
    fd = sys.stdin.fileno()
    before = termios.tcgetattr(fd)
    sys.stdout.write("\x1b[?1049h\x1b[?25l")
    try:
        tty.setcbreak(fd)
        yield
    finally:
        termios.tcsetattr(fd, termios.TCSADRAIN, before)
        sys.stdout.write("\x1b[?25h\x1b[?1049l")
        sys.stdout.flush()


def _keys(timeout: float) -> list[str]:
    """The keys that came within so many seconds, arrows as their sequences; several may come at
    once."""
    with contextlib.suppress(InterruptedError):
        ready, _, _ = select.select([sys.stdin], [], [], timeout)
        if ready:
            text = os.read(sys.stdin.fileno(), 64).decode("utf-8", "replace")
            return _KEY.findall(text) or ["q"]  # Nothing more comes: the terminal is gone.
    return []


def ps(form: str) -> int:
    """List what can be inspected. Exit status 0."""
    found = []
    for one in processes():
        row: dict[str, Any] = {"pid": one.pid, "user": one.user, "command": one.command}
        try:
            asked = Inspector(one.path)
            metrics = asked.report("metrics")
            asked.close()
            row["connections"] = sum(metrics["open_connections"].values())
            row["descriptors"], row["limit"] = (
                metrics["descriptors"]["open"],
                metrics["descriptors"]["limit"],
            )
        except (OSError, ValueError) as error:
            row["error"] = str(error)
        found.append(row)
    if form == "json":
        print(json.dumps(found))
        return 0
    if not found:
        print(f"hardsock ps: {_NONE}", file=sys.stderr)
    names = ("pid", "user", "connections", "descriptors", "limit", "command")
    if form == "text":
        print(f"{'PID':>8} {'USER':<10} {'CONNS':>6} {'FDS':>6} {'LIMIT':>7} COMMAND")
    for row in found:
        values = [plain(str(row.get(name, "-"))) for name in names]
        if form == "tsv":
            print("\t".join(values))
        else:
            pid, user, conns, fds, limit, command = values
            print(f"{pid:>8} {user:<10} {conns:>6} {fds:>6} {limit:>7} {command}")
    return 0


def attach(pid: int, timeout: float = 5.0) -> int:
    """Switch the inspect socket of a running process on, by ``sys.remote_exec`` (Python 3.14).

    Exit status 0, or 1 when it cannot be done.
    """
    remote_exec = getattr(sys, "remote_exec", None)
    if remote_exec is None:
        print(
            "hardsock attach: needs Python 3.14 here and in the process; "
            "start it with HARDSOCK_INSPECT=1 instead",
            file=sys.stderr,
        )
        return 1
    code = "import sys\nif 'hardsock' in sys.modules:\n    sys.modules['hardsock'].inspect()\n"
    with tempfile.TemporaryDirectory(prefix="hardsock-attach-") as place:
        script = Path(place, "inspect.py")
        script.write_text(code)
        script.chmod(0o644)
        os.chmod(place, 0o755)
        try:
            remote_exec(pid, os.fspath(script))
            until = time.monotonic() + timeout
            while (found := socket_of(pid)) is None and time.monotonic() < until:
                select.select([], [], [], 0.05)
        except (OSError, RuntimeError) as error:
            print(f"hardsock attach: process {pid}: {error}", file=sys.stderr)
            return 1
    if found is None:
        print(
            f"hardsock attach: process {pid} has not imported hardsock, or Python code there "
            f"has not come to a safe point in {timeout:g} s",
            file=sys.stderr,
        )
        return 1
    print(found)
    return 0
