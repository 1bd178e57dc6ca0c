"""``hardsock demo``: what hardened sockets do, beside the standard library, measured here and now."""

from __future__ import annotations

from hardsock.demo.runner import run

__all__ = ["run"]
