"""Alert rules and the dashboard: they parse, do what they say, and name metrics that there are."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from hardsock.metrics.families import FAMILIES
from support.require import available
from support.servers.monitoring import promtool

CONTRIB = Path(__file__).parents[2] / "contrib"
RULES = CONTRIB / "prometheus" / "hardsock.rules.yml"
TESTS = CONTRIB / "prometheus" / "hardsock.test.yml"
DASHBOARD = CONTRIB / "grafana" / "hardsock.json"


def expressions() -> list[str]:
    """Those of the dashboard, with its variables filled in."""
    board = json.loads(DASHBOARD.read_text())
    found = [target["expr"] for panel in board["panels"] for target in panel.get("targets", ())]
    return [
        text.replace("$__rate_interval", "5m").replace("$job", ".*").replace("$instance", ".*")
        for text in found
    ]


def rules() -> list[dict[str, Any]]:
    return [
        rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]
    ]


def series_of(family: str) -> set[str]:
    if "histogram" in FAMILIES[family].kind:
        return {f"{family}_{end}" for end in ("bucket", "sum", "count", "gsum", "gcount")}
    return {family}


def test_rules_parse_and_are_raised_when_they_must_and_not_else() -> None:
    with available():
        checked, tested = promtool("check", "rules", RULES), promtool("test", "rules", TESTS)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert tested.returncode == 0, tested.stdout + tested.stderr


def test_each_alert_has_a_test_that_raises_it() -> None:
    raised = {
        case["alertname"]
        for test in yaml.safe_load(TESTS.read_text())["tests"]
        for case in test["alert_rule_test"]
        if case["exp_alerts"]
    }
    assert {rule["alert"] for rule in rules()} == raised


def test_expressions_of_the_dashboard_parse(tmp_path: Path) -> None:
    named = [{"record": f"panel:{i}", "expr": text} for i, text in enumerate(expressions())]
    assert len(named) > 20
    file = tmp_path / "panels.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": named}]}))
    with available():
        checked = promtool("check", "rules", file)
    assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.mark.parametrize("file", [RULES, TESTS, DASHBOARD], ids=lambda path: path.name)
def test_every_metric_that_is_named_is_exported(file: Path) -> None:
    known = {series for family in FAMILIES for series in series_of(family)}
    named = set(re.findall(r"\b(?:hardsock|socket)_[a-z_]+\b", file.read_text()))
    assert named
    assert named <= known, named - known


def test_every_label_that_is_named_is_exported() -> None:
    known = {label for family in FAMILIES.values() for label in family.labels}
    for text in [*expressions(), *(rule["expr"] for rule in rules())]:
        for name, labels in re.findall(r"((?:hardsock|socket)_[a-z_]+)\{([^}]*)\}", text):
            family = next(f for f in FAMILIES if name in series_of(f))
            used = set(re.findall(r"(\w+)\s*=", labels)) - {"job", "instance", "le"}
            assert used <= set(FAMILIES[family].labels), (name, used)
        for labels in re.findall(r"by \(([^)]*)\)", text):
            asked = {label.strip() for label in labels.split(",")}
            assert asked <= known | {"job", "instance", "le"}, text


def test_panels_do_not_overlap_and_have_numbers_of_their_own() -> None:
    panels = json.loads(DASHBOARD.read_text())["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        at = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert at["x"] + at["w"] <= 24
        assert not cells & taken, panel["title"]
        taken |= cells
