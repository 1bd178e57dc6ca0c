"""What code running inside a `hardsock.lab.namespaces.Namespace` may do to it.

What changes settings refuses to work (RuntimeError) unless this process was started by a
`Namespace` and really is in another one than the process that made it.
"""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

from hardsock.lab import _libc, netlink
from hardsock.lab.netlink import RouteKind
from hardsock.lab.unavailable import Unavailable
from hardsock.lab.waits import readable


class _Surroundings:
    """Who started us: inodes of the starter's own namespaces, and where the answers go."""

    def __init__(self) -> None:
        self.outer: dict[str, int] = {}
        self.reply_fd = -1


_surroundings = _Surroundings()


def namespace_inode(kind: str) -> int:
    """The identity of this process's namespace of *kind* ("net", "mnt", "user")."""
    return os.stat(f"/proc/self/ns/{kind}").st_ino


def check_isolated(kind: str) -> None:
    """Raise RuntimeError unless this process lives in a throw-away namespace of *kind*."""
    outer = _surroundings.outer.get(kind)
    if outer is None or outer == namespace_inode(kind):
        raise RuntimeError(f"refused: not inside a throw-away {kind} namespace")


def bind_mount_file(path: str, text: str) -> None:
    """Show *text* as the content of the existing file *path*, to this namespace only.

    Raises:
        Unavailable: If *path* does not exist (creating it would touch the real file system).
    """
    check_isolated("mnt")
    if not os.path.isfile(path):
        raise Unavailable(f"cannot mount over {path}: no such file")
    with tempfile.NamedTemporaryFile("w", prefix="hardsock-bind-") as source:
        source.write(text)
        source.flush()
        os.chmod(source.name, 0o644)
        _libc.mount(source.name, path, _libc.MS_BIND)


def mount_tmpfs(path: str) -> None:
    """Hide the directory *path* behind an empty one, from this namespace only."""
    check_isolated("mnt")
    _libc.mount("tmpfs", path, _libc.MS_NOSUID | _libc.MS_NODEV, "tmpfs")


def write_sysctl(key: str, value: str | int) -> None:
    """Set a ``net.`` sysctl of this network namespace.

    Raises:
        RuntimeError: Outside a throw-away namespace, or for a key that is not per namespace.
        Unavailable: If the kernel has no such key here or does not let us write it.
    """
    check_isolated("net")
    if not key.startswith("net."):
        raise RuntimeError(f"refused: {key} is not a setting of a network namespace")
    try:
        _sysctl_path(key).write_text(f"{value}\n")
    except FileNotFoundError:
        raise Unavailable(f"sysctl {key} does not exist in this namespace") from None
    except PermissionError:
        raise Unavailable(f"sysctl {key} is not writable in this namespace") from None


def read_sysctl(key: str) -> str:
    """The value of a sysctl, white space made single blanks."""
    return " ".join(_sysctl_path(key).read_text().split())


def add_address(address: str, dev: str = "lo") -> None:
    """Give *dev* an address such as ``10.0.0.2/32`` or ``fd00::2/128``."""
    check_isolated("net")
    netlink.add_address(address, dev)


def add_route(network: str, kind: RouteKind) -> None:
    """Make connects to *network* fail at once: see `hardsock.lab.netlink.add_route`."""
    check_isolated("net")
    netlink.add_route(network, kind)


def swallow(address: str, dev: str = "void0") -> None:
    """Make a network whose hosts never answer: ``swallow("10.9.0.254/24")`` mutes 10.9.0.0/24.

    *address* itself becomes ours (the source address of what is sent there) and does answer.
    """
    check_isolated("net")
    try:
        netlink.add_swallowing_device(dev)
    except OSError as exc:
        raise Unavailable(f"no device to swallow packets: {exc}") from exc
    netlink.add_address(address, dev)


def ready(value: Any = None) -> None:
    """Tell the starter that this function is ready (`Running.wait_ready` returns *value*)."""
    _reply({"ready": value})


def wait_for_stop() -> None:
    """Block until the starter stops this function (`Running.stop`) or dies."""
    while os.read(0, 4096):
        pass


def should_stop() -> bool:
    """Whether the starter has asked this function to stop, or is gone; never waits."""
    return readable(0, 0.0)


def _sysctl_path(key: str) -> Path:
    # As sysctl(8): dots separate, a slash stands for a dot inside a name (eth0/1).
    return Path("/proc/sys") / "/".join(part.replace("/", ".") for part in key.split("."))


def _reply(message: dict[str, Any]) -> None:
    data = json.dumps(message).encode() + b"\n"
    while data:
        data = data[os.write(_surroundings.reply_fd, data) :]


def _enter(outer: dict[str, int], reply_fd: int) -> None:
    """Record who started us (for `hardsock.lab._ns_child` only)."""
    _surroundings.outer = outer
    _surroundings.reply_fd = reply_fd
