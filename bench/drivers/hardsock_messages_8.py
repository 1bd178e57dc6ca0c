"""hs.serve with a handler for each message, on eight threads."""

from __future__ import annotations

from . import hardsock_messages

version = hardsock_messages.version
http_raw_paced = hardsock_messages.works_with(8).http_raw_paced
