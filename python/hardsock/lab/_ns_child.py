"""The child's side of `hardsock.lab.namespaces`: create namespaces, or enter them and run something.

Runs in a fresh interpreter with one thread, since a process with threads may not enter a user or
mount namespace. Answers go to a pipe as JSON lines; standard output and error are the caller's.
"""

from __future__ import annotations

import errno
import faulthandler
import functools
import importlib.util
import json
import os
import sys
import time
import traceback
from collections.abc import Callable
from types import ModuleType
from typing import Any

from hardsock.lab import _libc, inside, netlink
from hardsock.lab.unavailable import Unavailable

_FLAGS = {"user": _libc.CLONE_NEWUSER, "net": _libc.CLONE_NEWNET, "mnt": _libc.CLONE_NEWNS}


def main() -> None:
    """Do what the JSON request in ``argv[1]`` says."""
    request: dict[str, Any] = json.loads(sys.argv[1])
    inside._enter(request["outer"], request["reply_fd"])
    try:
        value = _ACTIONS[request["action"]](request)
    except BaseException as exc:
        inside._reply(
            {
                "error": f"{type(exc).__name__}: {exc}",
                "unavailable": isinstance(exc, Unavailable),
                "traceback": traceback.format_exc(),
            }
        )
        raise SystemExit(1) from None
    inside._reply({"result": value})


def _create(request: dict[str, Any]) -> list[str]:
    """Make the namespaces, say which, and keep them alive until the parent has opened them."""
    kinds: list[str] = list(request["kinds"])
    try:
        for kind, fd in request["fds"].items():
            _libc.setns(fd, _FLAGS[kind])
            os.close(fd)
        _unshare(kinds)
        if "mnt" in kinds:
            _libc.mount("none", "/", _libc.MS_REC | _libc.MS_PRIVATE)
        if "net" in kinds:
            netlink.set_link_up("lo")
    except OSError as exc:
        why = " (see user.max_user_namespaces)" if exc.errno == errno.ENOSPC else ""
        raise Unavailable(f"cannot make {'+'.join(kinds)} namespaces: {exc}{why}") from exc
    _begin(request)
    inside.ready(kinds)
    inside.wait_for_stop()
    return kinds


def _begin(request: dict[str, Any]) -> None:
    """From now on the time runs. At its end this process prints where it is, and ends."""
    inside._reply({"begins_until": time.monotonic() + request["timeout"]})
    faulthandler.dump_traceback_later(request["timeout"], exit=True)


def _unshare(kinds: list[str]) -> None:
    """Enter new namespaces of *kinds*; without root rights inside a user namespace of our own."""
    try:
        _libc.unshare(_flags(kinds))
    except PermissionError:
        kinds.insert(0, "user")
        uid, gid = os.geteuid(), os.getegid()
        _libc.unshare(_flags(kinds))
        _write("/proc/self/setgroups", "deny")
        _write("/proc/self/uid_map", f"0 {uid} 1")
        _write("/proc/self/gid_map", f"0 {gid} 1")


def _run(request: dict[str, Any]) -> Any:
    _enter_namespaces(request)
    faulthandler.dump_traceback_later(request["start_limit"], exit=True)  # It is a thread.
    target: str = request["target"]
    if request["is_script"]:
        scope: dict[str, Any] = {"__name__": "__namespace__", "args": request["args"]}
        script = compile(target, "<namespace script>", "exec")
        _begin(request)
        exec(script, scope)
        return scope.get("result")
    module, _, qualname = target.partition(":")
    function: Any = _load(module, request["file"])
    for name in qualname.split("."):
        function = getattr(function, name)
    _begin(request)
    return function(*request["args"], **request["kwargs"])


def _load(name: str, file: str | None) -> ModuleType:
    """Import a module by name, or from *file* if that is not what the name finds.

    Pytest gives test modules names that nobody else can import (``--import-mode=importlib``).
    """
    try:
        module = importlib.import_module(name)
        if file is None or module.__file__ == file:
            return module
    except ImportError:
        if file is None:
            raise
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None, file
    assert spec.loader is not None, file
    sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


def _exec(request: dict[str, Any]) -> None:
    _enter_namespaces(request)
    _begin(request)
    os.execvp(request["argv"][0], request["argv"])


def _enter_namespaces(request: dict[str, Any]) -> None:
    where = os.getcwd()
    for kind, fd in request["fds"].items():
        _libc.setns(fd, _FLAGS[kind])
        os.close(fd)
        inside.check_isolated(kind)
    os.chdir(where)
    os.set_inheritable(request["reply_fd"], False)


def _flags(kinds: list[str]) -> int:
    return functools.reduce(int.__or__, (_FLAGS[kind] for kind in kinds), 0)


def _write(path: str, text: str) -> None:
    with open(path, "w") as file:
        file.write(text)


_ACTIONS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "create": _create,
    "run": _run,
    "exec": _exec,
}
