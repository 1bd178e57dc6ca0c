"""docs/tune-compared.md: its tables are those of `make compare`, of these situations."""

from __future__ import annotations

import compare
from support_tune import TOP

PAGE = TOP / "docs/tune-compared.md"


def test_the_page_has_a_row_for_each_situation() -> None:
    text = PAGE.read_text()
    table = text.partition(compare.BEGIN)[2].partition(compare.END)[0]
    for name in (*(case.name for case in compare.CASES), *(look[0] for look in compare.LOOKS)):
        assert f"| {name}" in table, f"make compare has a situation that the page lacks: {name}"
    heads = [line for line in table.splitlines() if line.startswith("| situation")]
    for tool in (*compare.SETTERS, "kernel-hardening-checker"):
        assert any(tool in head for head in heads), tool


def test_a_value_that_is_not_what_was_asked_for_is_no_success() -> None:
    verdict = compare.verdict
    assert verdict(["5"], ["6"], ["5"], 0) == "right"
    assert verdict(["5"], ["6"], ["6"], 1) == "right: refused"
    assert "says it is" in verdict(["5"], ["6"], ["6"], 0)
    assert "wrong" in verdict(["5 6"], ["7"], ["5"], 1)
    assert "fail" in verdict(["5"], ["6"], ["5"], 1)
