"""Lines of a reply that are whole: the standard library takes what came before an end for one.

``smtplib``, ``poplib`` and ``ftplib`` read by ``readline()``, which returns the rest of a stream that
ended in the middle of a line. Half a reply must be no reply.
"""

from __future__ import annotations

import errno
from typing import Any

from hardsock._errors import Truncated

__all__ = ["WholeLines", "whole"]


class WholeLines:
    """A file to read from, the same but for a last line without an end."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def readline(self, size: int = -1) -> Any:
        """As of files. Truncated: the stream has ended in the middle of the line."""
        line = self._file.readline(size)
        if line and len(line) != size and line[-1] not in (10, "\n"):
            raise Truncated(
                errno.ECONNABORTED,
                f"the server has ended in the middle of a line, after {line[-80:]!r}",
            )
        return line


def whole(file: Any) -> WholeLines:
    """*file* in ``WholeLines``, once."""
    return file if isinstance(file, WholeLines) else WholeLines(file)
