"""How the core is asked to connect: as it is, unless somebody wants to see each connect.

``hardsock.otel`` puts its own in place; one look at an attribute is all that it costs others.
"""

from __future__ import annotations

from hardsock import _core
from hardsock._typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import Any

    from hardsock._core import Connection

__all__ = ["Connects", "connects"]


class Connects:
    """The two ways in which connections are made; replace both together."""

    def __init__(self) -> None:
        self.connect: Callable[..., Connection] = _core.connect
        self.op_connect: Callable[..., Awaitable[Any]] = _core._op_connect

    def restore(self) -> None:
        """As before anybody looked."""
        self.__init__()  # type: ignore[misc]


connects = Connects()
