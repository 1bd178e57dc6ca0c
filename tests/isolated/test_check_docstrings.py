"""What counts the fields of records that say nothing (tools/check_docstrings.py)."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "tools"))

import check_docstrings  # noqa: E402


def test_a_field_that_no_sentence_tells_of_is_found() -> None:
    class Place(NamedTuple):
        """A place.

        Attributes:
            host: Its name.
            prot: Of TCP.
            age: How old.
        """

        host: str
        port: int
        age: float

    assert sorted(check_docstrings.problems_of_fields("Place", Place)) == [
        "Place.age: is a number, and does not say of what: seconds, since when, a share",
        "Place.port: Attributes: of its class has no sentence for it",
        "Place: Attributes: tells of 'prot', which is no field of it",
    ]
