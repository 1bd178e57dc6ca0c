"""What the flight recorder was told while a test ran."""

from __future__ import annotations

import re
from collections import Counter

import hardsock as hs


class Noted:
    """Events from now on."""

    def __init__(self) -> None:
        self._since = max((event.number for event in hs.events()), default=0)

    def of(self, kind: str) -> list[hs.Event]:
        return [e for e in hs.events() if e.kind == kind and e.number > self._since]

    def sheds(self) -> Counter[str]:
        """How often each reason was told, of those that say who it was."""
        found = (re.fullmatch(r"\S.* \((.+)\)", event.what) for event in self.of("shed"))
        return Counter(match[1] for match in found if match is not None)
