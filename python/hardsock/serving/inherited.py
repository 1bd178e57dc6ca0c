"""Listening sockets that this process was given: by systemd, or by the process that it replaces."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from hardsock._core import Listener
from hardsock.connecting.connect import Address
from hardsock.listening.listen import listen

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["InheritedSockets", "check_name", "systemd_sockets"]

_FIRST = 3
"""SD_LISTEN_FDS_START of sd_listen_fds(3)."""


def check_name(name: str) -> str:
    """Return a name that systemd and we can send, as sd_pid_notify_with_fds(3) has it."""
    if not 1 <= len(name) <= 255 or not name.isascii() or not name.isprintable() or ":" in name:
        raise ValueError(
            f"a name must be 1 to 255 printable ASCII characters without ':', got {name!r}"
        )
    return name


class InheritedSockets:
    """Descriptors by name, which are closed with it unless ``listen`` has taken them.

    Use it as a context manager, so that a socket which nobody wants is not kept open, with clients
    queued in it whom nobody serves. For the thread that starts the program.
    """

    def __init__(self, sockets: Iterable[tuple[str, int]]) -> None:
        self._left = list(sockets)

    @property
    def names(self) -> list[str]:
        """Of those that were not taken yet, in their order; a name may occur more than once."""
        return [name for name, _ in self._left]

    def listen(self, name: str, address: Address | None = None, /, **settings: Any) -> Listener:
        """Return a Listener on the first socket called *name*; without one, on *address*.

        So one line serves the first start, when nothing is inherited, and all later ones.

        Args:
            name: As the unit file (``FileDescriptorName=``) or the other process calls it.
            address: Where to listen when there is no such socket.
            settings: Of ``listen``.

        Raises:
            LookupError: There is no such socket, and no *address*.
            HardsockError, ValueError: As ``listen`` does; the socket is still here then.
        """
        for i, (known, fd) in enumerate(self._left):
            if known == name:
                listener = listen(fd, **settings)
                del self._left[i]
                return listener
        if address is None:
            raise LookupError(f"no inherited socket is called {name!r}; there are: {self.names}")
        return listen(address, **settings)

    def close(self) -> None:
        """Close those that were not taken. Idempotent."""
        while self._left:
            os.close(self._left.pop()[1])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_details: object) -> None:
        self.close()


def systemd_sockets(*, unset_environment: bool = True) -> InheritedSockets:
    """Take the descriptors that systemd passed, with their names: sd_listen_fds_with_names(3).

    Those of socket units, and what ``systemd_notify(store=...)`` had it keep. There are none when
    LISTEN_PID is not this process. The variables are removed from the environment, so that children
    do not believe in descriptors which they do not have; with ``unset_environment=False`` they stay,
    for a second call or another library that reads them.
    """
    pid, count, names = (
        os.environ.get(name, "") for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")
    )
    if unset_environment:
        for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"):
            os.environ.pop(name, None)
    if not pid.isdigit() or int(pid) != os.getpid() or not count.isdigit():
        return InheritedSockets([])
    found = []
    named = names.split(":") if names else []
    for i in range(int(count)):
        os.set_inheritable(_FIRST + i, False)
        found.append((named[i] if i < len(named) else "unknown", _FIRST + i))
    return InheritedSockets(found)
