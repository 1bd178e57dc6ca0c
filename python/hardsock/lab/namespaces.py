"""Throw-away network and mount namespaces to run experiments in.

    with Namespace() as ns:
        with ns.start("my_module:serve", 8080) as server:
            port = server.wait_ready()
            answer = ns.run("my_module:ask", port)

Each run is a fresh interpreter. The namespaces live as long as this object holds their descriptors:
no process, mount or device is left behind. What may be done inside stands in `hardsock.lab.inside`.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from hardsock.lab.inside import namespace_inode
from hardsock.lab.unavailable import Unavailable
from hardsock.lab.waits import Deadline, readable

Target = str | Callable[..., Any]

_KINDS = ("user", "net", "mnt")
# For an interpreter to start and to load what it is to run, which says nothing about that. On a
# busy machine it takes seconds.
_START_LIMIT = 60.0
# At its deadline a function ends by itself; it is killed if it cannot even do that.
_GRACE = 10.0
_BOOTSTRAP = (
    "import json, sys\n"
    "sys.path[:] = json.loads(sys.argv.pop(1))\n"
    "from hardsock.lab._ns_child import main\n"
    "main()\n"
)


class NamespaceUnavailable(Unavailable):
    """This machine does not let us make the namespaces, or lacks what is needed inside."""


class RemoteError(AssertionError):
    """Code inside a namespace raised or died; the message holds its traceback."""


class RemoteTimeout(RemoteError):
    """Code inside a namespace was still running at the deadline, and was killed."""


def _name_of_main(file: str | None) -> str:
    """What the module of a program is imported as inside, where another one is ``__main__``."""
    if file is None:
        raise ValueError(
            "target: a function that was typed in has no file to be loaded from inside: put it in "
            "a script or a module, or give the text of a script"
        )
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    if spec is not None:  # python -m package.module
        return str(spec.name)
    return "__hardsock_main__"  # as multiprocessing has it: what a script does only when run stays


class Running:
    """A function at work inside a namespace. Leaving its ``with`` block stops it.

    Its standard input is the stop signal: it ends when `stop` is called (`inside.wait_for_stop`).
    Its time begins when it says so, not when its interpreter is started.
    """

    def __init__(
        self,
        request: dict[str, Any],
        fds: Sequence[int] = (),
        *,
        timeout: float,
        stdin: int = subprocess.PIPE,
        stdout: int | None = None,
        stderr: int | None = None,
    ) -> None:
        self._deadline = Deadline(_START_LIMIT + _GRACE)
        self._until: float | None = None
        """By when it ends, as time.monotonic() tells time; None: it has not begun."""
        self._buffer = b""
        self._answer: dict[str, Any] | None = None
        self._reply_fd, child_fd = os.pipe()
        request = {
            **request,
            "reply_fd": child_fd,
            "outer": {kind: namespace_inode(kind) for kind in _KINDS},
            "start_limit": _START_LIMIT,
            "timeout": timeout,
        }
        command = [sys.executable, "-c", _BOOTSTRAP, json.dumps(sys.path), json.dumps(request)]
        try:
            self.process = subprocess.Popen(
                command,
                stdin=stdin,
                stdout=stdout,
                stderr=stderr,
                pass_fds=(child_fd, *fds),
            )
        except BaseException:
            os.close(self._reply_fd)
            raise
        finally:
            os.close(child_fd)

    @property
    def pid(self) -> int:
        """The process id."""
        return self.process.pid

    def wait_ready(self) -> Any:
        """Wait until the function calls `inside.ready(value)`; return the value."""
        message = self._next_message()
        if "ready" not in message:
            raise RemoteError(f"ended without being ready: {message}")
        return message["ready"]

    def result(self) -> Any:
        """Wait for the end of the function; return its (JSON) value or raise what went wrong."""
        while self._answer is None:
            message = self._next_message()
            if "result" in message:
                self._answer = message
        return self._answer["result"]

    def stop(self) -> Any:
        """Ask the function to end, wait for that and return its value."""
        if self.process.stdin is not None:
            self.process.stdin.close()
        return self.result()

    def output(self) -> tuple[bytes, bytes]:
        """Wait for the end of a program run by `Namespace.exec`; return what it printed."""
        self._await_begin()
        assert self._until is not None
        try:
            out, err = self.process.communicate(timeout=max(0.0, self._until - time.monotonic()))
        except subprocess.TimeoutExpired:
            raise RemoteTimeout(f"{self.process.args!r} still ran at the deadline") from None
        if not self._buffer and readable(self._reply_fd, 0):
            self._buffer = os.read(self._reply_fd, 65536)
        if self._buffer:  # Nothing comes after an exec that succeeded.
            self._read_message()
        return out, err

    def close(self) -> None:
        """Kill the process if it still runs, and let go of everything. Safe to call twice."""
        if self._reply_fd < 0:
            return
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()
        os.close(self._reply_fd)
        self._reply_fd = -1

    def __enter__(self) -> Running:
        return self

    def __exit__(self, exc_type: type[BaseException] | None, *_details: object) -> None:
        try:
            if exc_type is None and self._reply_fd >= 0:
                self.stop()
        finally:
            self.close()

    def _next_message(self) -> dict[str, Any]:
        if self._reply_fd < 0:
            raise RemoteError("is over: it failed or was closed")
        try:
            self._await_begin()
            return self._read_message()
        except BaseException:
            self.close()
            raise

    def _await_begin(self) -> None:
        if self._until is None:
            until: float = self._read_message()["begins_until"]
            self._until = until
            self._deadline = Deadline(until + _GRACE - time.monotonic())

    def _read_message(self) -> dict[str, Any]:
        while b"\n" not in self._buffer:
            if not readable(self._reply_fd, self._deadline.left()):
                raise RemoteTimeout("it ran far beyond its deadline, and was killed")
            data = os.read(self._reply_fd, 65536)
            if not data:
                raise self._why_silent()
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        message: dict[str, Any] = json.loads(line)
        self._check(message)
        return message

    def _why_silent(self) -> RemoteError:
        status = self.process.wait()
        if self._until is not None and time.monotonic() >= self._until:
            return RemoteTimeout(
                "it still ran at its deadline, and ended; where it was stands on its standard error"
            )
        return RemoteError(f"died without an answer, status {status}")

    def _check(self, message: dict[str, Any]) -> None:
        if message.get("unavailable"):
            raise NamespaceUnavailable(message["error"].removeprefix("Unavailable: "))
        if "error" in message:
            raise RemoteError(f"{message['error']}\n--- inside ---\n{message['traceback']}")


class Namespace:
    """A private network and mount namespace, with the loopback device up.

    Args:
        net: Whether it has a network of its own.
        mount: Whether it has mounts of its own.
        beside: Another one, open, whose user namespace (if it needed one) this one shares: then one
            process may have to do with both.

    Raises:
        NamespaceUnavailable: On entry, if neither root rights nor user namespaces are there.
    """

    def __init__(
        self, *, net: bool = True, mount: bool = True, beside: Namespace | None = None
    ) -> None:
        self._beside = beside
        self._kinds = [kind for kind, wanted in (("net", net), ("mnt", mount)) if wanted]
        self._fds: dict[str, int] = {}

    def __enter__(self) -> Namespace:
        users = {
            k: fd for k, fd in (self._beside._fds if self._beside else {}).items() if k == "user"
        }
        request = {"action": "create", "kinds": self._kinds, "fds": users}
        with Running(request, list(users.values()), timeout=60.0) as creator:
            kinds: list[str] = creator.wait_ready()
            try:
                for kind, fd in users.items():
                    self._fds[kind] = os.dup(fd)
                for kind in kinds:
                    path = f"/proc/{creator.pid}/ns/{kind}"
                    self._fds[kind] = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            except OSError as exc:
                self.close()
                raise NamespaceUnavailable(f"cannot hold the namespace: {exc}") from exc
        return self

    def __exit__(self, *_details: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the namespaces; they vanish with their last process."""
        while self._fds:
            os.close(self._fds.popitem()[1])

    def start(self, target: Target, *args: Any, timeout: float = 30.0, **kwargs: Any) -> Running:
        """Start *target* inside and return at once; use the result as a context manager.

        Args:
            target: A function at the top of a module or of the running script (which is imported
                inside: what it does should stand below ``if __name__ == "__main__":``),
                ``"module:qualname"``, or the text of a script, which finds its arguments in ``args`` and leaves its answer in ``result``.
            args: Arguments and keyword arguments; anything JSON can carry, as can the answer.
            timeout: Seconds from when it begins; starting the interpreter has a limit of its own.
                Then it prints where it is, and ends.

        Raises:
            ValueError: *target* is a function that another interpreter cannot find.
        """
        file: str | None = None
        if callable(target):
            module = target.__module__
            if "<" in target.__qualname__:
                raise ValueError(
                    f"target must be a function at the top of a module, not {target.__qualname__}: "
                    "another interpreter cannot find it"
                )
            file = getattr(sys.modules[module], "__file__", None)
            if module == "__main__":
                module = _name_of_main(file)
            target = f"{module}:{target.__qualname__}"
        request = {
            "action": "run",
            "target": target,
            "file": file,
            "is_script": re.fullmatch(r"[\w.]+:[\w.]+", target) is None,
            "args": args,
            "kwargs": kwargs,
            "fds": self._fds,
        }
        return Running(request, list(self._fds.values()), timeout=timeout)

    def run(self, target: Target, *args: Any, timeout: float = 30.0, **kwargs: Any) -> Any:
        """Run *target* inside to its end and return its answer: see `start`."""
        running = self.start(target, *args, timeout=timeout, **kwargs)
        try:
            return running.result()
        finally:
            running.close()

    def exec(
        self, argv: Sequence[str], *, timeout: float = 30.0
    ) -> subprocess.CompletedProcess[str]:
        """Run a program inside; return its status and output. At its deadline it is killed."""
        running = Running(
            {"action": "exec", "argv": list(argv), "fds": self._fds},
            list(self._fds.values()),
            timeout=timeout,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        try:
            out, err = running.output()
        finally:
            running.close()
        return subprocess.CompletedProcess(
            list(argv), running.process.returncode, out.decode(), err.decode()
        )


def run_in_namespace(
    target: Target,
    *args: Any,
    net: bool = True,
    mount: bool = True,
    timeout: float = 30.0,
    **kwargs: Any,
) -> Any:
    """Run *target* once in a namespace of its own and return its answer: see `Namespace.start`."""
    with Namespace(net=net, mount=mount) as ns:
        return ns.run(target, *args, timeout=timeout, **kwargs)
