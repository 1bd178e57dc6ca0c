"""What `make compare` found, kept for the board: `bench/board.py` makes a table of each."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path

KEPT = Path(__file__).resolve().parent.parent.parent / "build/bench"


def keep(
    name: str,
    title: str,
    columns: Sequence[str],
    rows: Sequence[tuple[str, dict[str, str]]],
    versions: dict[str, str],
) -> None:
    """Write compare-*name*.json: for each case what each column's library did."""
    KEPT.mkdir(parents=True, exist_ok=True)
    found = {
        "title": title,
        "time": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "versions": versions,
        "columns": list(columns),
        "rows": [{"case": case, "cells": cells} for case, cells in rows],
    }
    (KEPT / f"compare-{name}.json").write_text(json.dumps(found, indent=1) + "\n")
