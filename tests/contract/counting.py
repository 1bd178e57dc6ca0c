"""Runs CPython's own tests over connections, and writes how many hold into the page.

    cd tests && ../.venv/bin/python -m contract.counting

docs/internals/socket-contract.md says what they mean; test_contract.py compares.
"""

from __future__ import annotations

import re
import sys
import tempfile
from pathlib import Path

from contract.test_contract import HEAD, MODES, PAGE, VERSION, listed, rows_of, run_all


def main() -> None:
    rows: list[str] = []
    for mode, (groups, _) in MODES.items():
        with tempfile.TemporaryDirectory(prefix="hardsock-contract-") as folder:
            found = run_all(Path(folder), groups, mode)
        failed = set[str]().union(*(one.failed for one in found.values()))
        if new := failed - listed(mode).keys():
            sys.exit(f"these differ ({mode}) and are not listed, or the machine is busy: {new}")
        rows += rows_of(mode, found)
    table = HEAD + "\n".join(rows) + "\n"
    print(table, end="")
    text = PAGE.read_text(encoding="utf-8")
    text, count = re.subn(
        r"(?<=\n)Measured with .*?\n\n(\|.*\n)+",
        lambda _: (
            f"Measured with {VERSION}, by `python -m contract.counting` in `tests/`:\n\n{table}"
        ),
        text,
    )
    if count != 1:
        sys.exit(f"{PAGE} has no table that begins with 'Measured with'")
    PAGE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
