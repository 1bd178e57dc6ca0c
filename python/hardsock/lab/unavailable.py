"""The one error for what a machine cannot offer."""

from __future__ import annotations


class Unavailable(Exception):
    """Something an experiment needs is not to be had here; the message says what and why."""
