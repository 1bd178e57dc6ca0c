"""The errors for what a machine cannot offer, and for instruments that did not do their work."""

from __future__ import annotations


class Unavailable(Exception):
    """Something an experiment needs is not to be had here; the message says what and why."""


class InvalidResult(Exception):
    """The instrument did not do what it was asked to, so what was measured on it means nothing."""
