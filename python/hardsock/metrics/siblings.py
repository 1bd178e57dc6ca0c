"""The processes of one program, summed up by whichever of them is asked.

They share a directory. Each is reached there by the name that its inspect socket has: the socket
itself, or a link to it. A native thread answers, so that a process that is busy, or holds the GIL,
does not keep a scrape waiting. Beside it are, by the same name:

- ``.base``: what a forked child had counted when it began, which is its parent's;
- ``.last``: what a process had counted when it ended in order. One that was killed had last been
  asked at a scrape; what it counted after that is lost.

``totals.json`` is what had been summed up. Who collects holds a lock on ``lock``, so that it is
read, changed and replaced by one at a time.
"""

from __future__ import annotations

import atexit
import contextlib
import errno
import fcntl
import json
import os
import selectors
import socket
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from hardsock import _inspect
from hardsock._inspect import socket_name, start_time
from hardsock._observe import report
from hardsock.metrics.families import FAMILIES, PoolNames, Series, Sources, Values, sources
from hardsock.metrics.totals import Totals, less

__all__ = ["Siblings", "enroll"]

_VERSION = 1
_RETRY = 0.01
_MOST_BYTES = 64 << 20
_LAST = -100  # of multiprocessing's finalizers, whose own are up to 100
_LONGEST_PATH = 107  # unix(7): sun_path, less its NUL

_enrolled: list[Path] = []


def _write(path: Path, value: object) -> None:
    """In one step: a reader finds all of it, or what was there before."""
    new = path.with_suffix(f".{os.getpid()}.new")
    try:
        new.write_text(json.dumps(value), "utf-8")
        new.replace(path)
    except BaseException:
        new.unlink(missing_ok=True)
        raise


def _read(path: Path) -> Any:
    """``None``: it is not there, or not whole."""
    try:
        return json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return None


def enroll(directory: Path) -> None:
    """Let this process be found in *directory*, from now on and in children that it forks.

    Raises:
        PermissionError: The directory is not this user's own, or others can enter.
        OSError: It cannot be made, or this process cannot be inspected.
    """
    if directory in _enrolled:
        return
    _inspect.first_private([directory])
    _join(directory)
    if not _enrolled:
        os.register_at_fork(after_in_child=_rejoin)
        atexit.register(_leave)
        _leave_with_multiprocessing()
    _enrolled.append(directory)


def _leave_with_multiprocessing() -> None:
    """Its children end by ``os._exit()``: of what is to be done at an end they know their own."""
    from multiprocessing import util  # Not before somebody collects of several processes.

    def at_the_end(_: object) -> None:
        util.Finalize(None, _leave, exitpriority=_LAST)

    at_the_end(None)  # This may be one.
    util.register_after_fork(_leave, at_the_end)


def _join(directory: Path) -> None:
    here = _inspect.current() or _inspect.inspect(directory=directory)
    assert here is not None
    name = directory / socket_name(os.getpid())
    if Path(here) != name:
        if len(os.fsencode(name)) > _LONGEST_PATH:
            raise OSError(errno.ENAMETOOLONG, "too long for the address of a socket", str(name))
        name.unlink(missing_ok=True)
        name.symlink_to(here)


def _rejoin() -> None:
    """A forked child goes on without, as one that cannot be inspected does."""
    for directory in list(_enrolled):
        with contextlib.suppress(OSError):
            base = (directory / socket_name(os.getpid())).with_suffix(".base")
            _write(base, report("metrics"))  # Before it can be found.
            _join(directory)


def _leave() -> None:
    for directory in _enrolled:
        with contextlib.suppress(OSError):
            name = directory / socket_name(os.getpid())
            _write(name.with_suffix(".last"), report("metrics"))
            if name.is_symlink():
                name.unlink()
    _enrolled.clear()


# ---- asking


class _Question:
    """One process that is being asked."""

    def __init__(self, path: Path) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        try:
            self.sock.setblocking(False)
            self.sock.connect(str(path))
            self.sock.send(b"metrics\n")
        except BaseException:
            self.sock.close()
            raise
        self.parts: list[bytes] = []
        self.size = 0

    def read(self) -> dict[str, Any] | None:
        """What it has said, if that is all.

        Raises:
            OSError: It has gone.
            ValueError: It has said something else.
        """
        part = self.sock.recv(1 << 20)
        if not part:
            raise ConnectionResetError("it ended before it had answered")
        self.parts.append(part)
        self.size += len(part)
        if not part.endswith(b"\n"):
            if self.size > _MOST_BYTES:
                raise ValueError("the answer is too long")
            return None
        told = json.loads(b"".join(self.parts))
        if told.get("version") != _VERSION or told.get("report") != "metrics":
            raise ValueError("it is not this version's")
        return dict(told)


def _ask(paths: dict[str, Path], deadline: float) -> dict[str, dict[str, Any]]:
    """What those have said that answered in time, all asked together."""
    found: dict[str, dict[str, Any]] = {}
    with selectors.DefaultSelector() as selector, contextlib.ExitStack() as stack:
        for name, path in paths.items():
            with contextlib.suppress(OSError):
                question = _Question(path)
                stack.callback(question.sock.close)
                selector.register(question.sock, selectors.EVENT_READ, (name, question))
        while selector.get_map() and (left := deadline - time.monotonic()) > 0:
            for key, _ in selector.select(left):
                name, question = key.data
                try:
                    told = question.read()
                except BlockingIOError:
                    continue
                except (OSError, ValueError):
                    told = {}
                if told is not None:
                    selector.unregister(question.sock)
                    if told:
                        found[name] = told
    return found


def _lives(name: str) -> bool:
    pid, _, began = name.partition("-")
    try:
        return start_time(int(pid)) == began
    except (OSError, ValueError, IndexError):
        return False


def _process_of(source: str) -> str:
    return source.partition("/")[0]


class Siblings:
    """All processes that are enrolled in a directory."""

    def __init__(self, directory: Path, max_pools: int, addresses: bool, timeout: float) -> None:
        self._directory = directory
        self._max_pools = max_pools
        self._addresses = addresses
        self._timeout = timeout

    def collect(self) -> tuple[dict[Series, Values], list[float]]:
        """The sums, and the edges of histograms.

        Raises:
            TimeoutError: Others have been collecting all the time.
            PermissionError: The directory is another user's: this process has become another since.
            OSError: The directory cannot be read or written.
        """
        deadline = time.monotonic() + self._timeout
        own = socket_name(os.getpid()).removesuffix(".sock")
        with self._locked(deadline):
            mine = report("metrics")
            edges = mine["edges"]
            totals, label = self._restored(edges)
            paths = {path.stem: path for path in self._directory.glob("*.sock")}
            # In this order: who ends while this runs has left its last words, or lives so far.
            known = {_process_of(source) for source in totals.sources()} | paths.keys()
            alive = {name for name in known if _lives(name)}
            last = {path.stem: _read(path) for path in self._directory.glob("*.last")}
            asked = {n: path for n, path in paths.items() if n not in last and n in alive}
            asked.pop(own, None)
            told = {own: mine, **_ask(asked, deadline)}
            now = self._sources(told, edges, label)
            # Of those that have ended what grows is counted; they fall silent and then go.
            for source, all_series in self._sources(last, edges, label, ended=True).items():
                now[source] = {s: v for s, v in all_series.items() if FAMILIES[s[0]].grows}
            silent = alive - told.keys() - last.keys()
            kept = {s for s in totals.sources() if _process_of(s) in silent}
            sums = totals.update(now, silent=kept)
            self._save(totals, edges, label)
            self._tidy(paths.keys() - alive, last.keys())
        sums[("hardsock_processes", ("answered",))] = (len(told),)
        sums[("hardsock_processes", ("silent",))] = (len(silent),)
        return sums, edges

    def _sources(
        self, told: dict[str, Any], edges: list[float], label: PoolNames, *, ended: bool = False
    ) -> Sources:
        found: Sources = {}
        for name, report_of in told.items():
            if report_of is None or report_of["edges"] != edges:
                continue  # Another version's: its figures cannot be added to ours.
            one = sources(report_of, label, ended=ended)
            if (base := _read(self._directory / f"{name}.base")) is not None:
                one = less(one, sources(base, label, ended=ended))
            found.update({f"{name}/{source}": series for source, series in one.items()})
        return found

    def _restored(self, edges: list[float]) -> tuple[Totals, PoolNames]:
        label = PoolNames(self._max_pools, self._addresses)
        saved = _read(self._directory / "totals.json")
        if saved is None or saved["edges"] != edges:
            return Totals(), label
        label.known.update(saved["pools"])
        label.ended.update(saved.get("pools_ended", ()))  # An older version had one set.
        label.others.update(saved.get("pools_other", ()))
        return Totals.restored(saved), label

    def _save(self, totals: Totals, edges: list[float], label: PoolNames) -> None:
        saved = {
            **totals.saved(),
            "edges": edges,
            "pools": sorted(label.known),
            "pools_ended": sorted(label.ended),
            "pools_other": sorted(label.others),
        }
        _write(self._directory / "totals.json", saved)

    def _tidy(self, dead: Iterable[str], counted: Iterable[str]) -> None:
        for name in counted:
            (self._directory / f"{name}.last").unlink(missing_ok=True)
        for name in {*dead, *(name for name in counted if not _lives(name))}:
            for suffix in (".sock", ".base", ".last"):
                (self._directory / f"{name}{suffix}").unlink(missing_ok=True)

    def _open_lock(self) -> int:
        try:
            return os.open(self._directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except PermissionError as exc:
            # A worker that has become another user since it was enrolled.
            raise PermissionError(
                exc.errno,
                f"user {os.geteuid()} cannot collect in a directory of another user: collect in a "
                "process of that user, or make the directory one of the workers' user before the "
                "first Collector",
                str(self._directory),
            ) from None

    @contextlib.contextmanager
    def _locked(self, deadline: float) -> Iterator[None]:
        fd = self._open_lock()
        try:
            while True:
                try:
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() >= deadline:
                        raise TimeoutError(
                            f"{self._directory}/lock: another process has been collecting for "
                            f"{self._timeout:g} s"
                        ) from None
                    time.sleep(_RETRY)  # Of a lock on a file nobody is told.
            try:
                yield
            finally:
                # Not by closing it: a child that was forked meanwhile has it open as well.
                fcntl.flock(fd, fcntl.LOCK_UN)
        finally:
            os.close(fd)
