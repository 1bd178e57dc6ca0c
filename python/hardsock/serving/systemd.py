"""Telling systemd how this service is, and giving it sockets to keep: sd_notify(3)."""

from __future__ import annotations

import array
import os
import socket
import time
from collections.abc import Iterable, Mapping

from hardsock._core import Listener
from hardsock.serving.inherited import check_name

__all__ = ["systemd_notify"]

_SECONDS = 5.0
"""For systemd to take a message: its queue is short, and it is one process."""


def systemd_notify(
    *,
    ready: bool = False,
    reloading: bool = False,
    stopping: bool = False,
    status: str | None = None,
    watchdog: bool = False,
    main_pid: int | None = None,
    store: Mapping[str, Listener] | None = None,
    forget: Iterable[str] = (),
) -> bool:
    """Tell the service manager; False when there is none (NOTIFY_SOCKET is not set).

    For units of ``Type=notify``. With ``FileDescriptorStoreMax=`` in the unit systemd keeps what
    *store* names over restarts: nobody's connection is refused while no process runs, and the next
    one finds them in ``systemd_sockets()``.

    Args:
        ready: ``READY=1``: it serves; also after a reload.
        reloading: ``RELOADING=1``, with the time of now, as ``Type=notify-reload`` wants it.
        stopping: ``STOPPING=1``: it drains.
        status: One line for ``systemctl status``.
        watchdog: ``WATCHDOG=1``: it is alive (``WatchdogSec=``).
        main_pid: ``MAINPID=``, when another process takes over.
        store: Listeners to be kept, by names without ``:`` and at most 255 characters long.
        forget: Names of kept ones that are to be closed.

    Raises:
        ValueError: A name or the status cannot be sent.
        OSError: systemd did not take the message; what came before it, it has taken.
    """
    lines = []
    if reloading:
        lines += ["RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}"]
    lines += ["READY=1"] * ready + ["STOPPING=1"] * stopping + ["WATCHDOG=1"] * watchdog
    if status is not None:
        lines.append(f"STATUS={_one_line('status', status)}")
    if main_pid is not None:
        lines.append(f"MAINPID={main_pid:d}")
    messages = [(lines, -1)] if lines else []
    for name, listener in (store or {}).items():
        messages.append((["FDSTORE=1", f"FDNAME={check_name(name)}"], listener.fileno()))
    messages += [(["FDSTOREREMOVE=1", f"FDNAME={check_name(name)}"], -1) for name in forget]
    return _send(messages)


def _one_line(what: str, text: str) -> str:
    if "\n" in text or "\0" in text:
        raise ValueError(f"{what} must be one line, got {text!r}")
    return text


def _send(messages: list[tuple[list[str], int]]) -> bool:
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.settimeout(_SECONDS)
        sock.connect("\0" + address[1:] if address.startswith("@") else address)
        for lines, fd in messages:
            rights = [] if fd < 0 else [_rights(fd)]
            sock.sendmsg(["\n".join(lines).encode()], rights)
    return True


def _rights(fd: int) -> tuple[int, int, bytes]:
    return socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]).tobytes()
