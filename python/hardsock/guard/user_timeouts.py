"""TCP_USER_TIMEOUT of connections while rules want it shorter: of several the shortest holds.

The rules may be of one guard or of several. What a connection had at first is kept here alone, so
that whichever rule ends last gives back that, and not what another one had set.
"""

from __future__ import annotations

import os
import threading

from hardsock import _core

__all__ = ["user_timeouts"]


class _UserTimeouts:
    def __init__(self) -> None:
        self.reset()
        os.register_at_fork(after_in_child=self.reset)

    def reset(self) -> None:
        """Begin anew: in a forked child the sockets are the parent's."""
        self._lock = threading.Lock()
        self._told: dict[int, tuple[int, list[int]]] = {}  # guarded by lock
        """By connection: what it had, and what is wanted."""

    def shorten(self, ident: int, milliseconds: int) -> bool | None:
        """Whether the connection has a shorter one from now on; ``None``: it is gone.

        Raises:
            OSError: The kernel does not let it, and nothing was changed.
        """
        with self._lock:
            if ident not in self._told:
                was = _core._guard_user_timeout(ident, milliseconds, True)
                if was is None:
                    return None
                self._told[ident] = (was, [milliseconds])
                return not 0 < was <= milliseconds
            was, wanted = self._told[ident]
            done = self._set(
                ident, _effective(was, wanted), _effective(was, [*wanted, milliseconds])
            )
            wanted.append(milliseconds)
            return done

    def lengthen(self, ident: int, milliseconds: int) -> None:
        """Take it back; if the connection is gone, forget it."""
        with self._lock:
            was, wanted = self._told[ident]
            before = _effective(was, wanted)
            wanted.remove(milliseconds)
            if not wanted:
                del self._told[ident]
            self._set(ident, before, _effective(was, wanted))

    def _set(self, ident: int, before: int, now: int) -> bool:
        if before != now:
            _core._guard_user_timeout(ident, now, False)
        return before != now


def _effective(was: int, wanted: list[int]) -> int:
    """0 is the kernel's, which is longer than any."""
    return min([*wanted, *([was] if was else [])], default=0)


user_timeouts = _UserTimeouts()
