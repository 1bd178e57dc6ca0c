"""The workflow that publishes: what runs before, and that nobody else decides what runs in it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from support.require import need_module

ROOT = Path(__file__).resolve().parents[2]
FILE = ROOT / ".github/workflows/release.yml"


@pytest.fixture(scope="module")
def jobs() -> dict[str, Any]:
    need_module("yaml")
    import yaml

    found = yaml.safe_load(FILE.read_text())["jobs"]
    assert isinstance(found, dict)
    return found


def commands(job: dict[str, Any]) -> str:
    return "\n".join(step["run"] for step in job["steps"] if "run" in step)


def judged(file: Path) -> subprocess.CompletedProcess[str]:
    need_module("check_jsonschema")
    command = ["check_jsonschema", "--builtin-schema", "vendor.github-workflows", str(file)]
    return subprocess.run(
        [sys.executable, "-m", *command], capture_output=True, text=True, timeout=120
    )


def test_it_is_a_workflow_by_the_published_schema(tmp_path: Path) -> None:
    """`make check-workflow` asks actionlint, which knows expressions, too, and comes by Go alone."""
    done = judged(FILE)
    assert done.returncode == 0, done.stdout + done.stderr
    wrong = tmp_path / "wrong.yml"
    wrong.write_text(FILE.read_text().replace("timeout-minutes:", "timeout-minuts:"))
    done = judged(wrong)
    assert done.returncode == 1
    assert "timeout-minuts" in done.stdout


def test_an_expression_names_what_there_is(jobs: dict[str, Any]) -> None:
    """What it names in vain is an empty text, and no error."""
    for name, job in jobs.items():
        matrix = job.get("strategy", {}).get("matrix", {})
        known = {f"matrix.{key}" for row in (matrix, *matrix.get("include", ())) for key in row}
        used = re.findall(r"\$\{\{(.*?)\}\}", repr(job))
        assert len(used) == repr(job).count("${{"), name
        assert {one.strip() for one in used} <= known, name
        conditions = {step["if"] for step in (job, *job["steps"]) if "if" in step}
        assert conditions <= {"github.ref_type == 'tag'"}, name


def test_actions_are_named_by_commit_and_tools_by_version() -> None:
    """A tag can be moved by who owns it, or by who stole it."""
    text = FILE.read_text()
    uses = re.findall(r"uses: (.*)", text)
    assert len(uses) >= 6
    wanted = r"[\w-]+/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+"
    assert [one for one in uses if not re.fullmatch(wanted, one)] == []
    tools = re.findall(r"pipx run (\S+)", text)
    assert {tool.partition("==")[0] for tool in tools} == {"build", "cibuildwheel", "twine"}
    assert [tool for tool in tools if not re.fullmatch(r"\w+==\d+\.\d+\.\d+", tool)] == []
    for name in {tool.partition("==")[0] for tool in tools}:
        assert len({tool for tool in tools if tool.startswith(f"{name}==")}) == 1
    commits: dict[str, set[str]] = {}
    for one in uses:
        commits.setdefault(one.partition("@")[0], set()).add(one)
    assert [action for action, named in commits.items() if len(named) > 1] == []


def test_nothing_is_published_before_the_suite_has_passed(jobs: dict[str, Any]) -> None:
    assert set(jobs["publish"]["needs"]) == set(jobs) - {"publish"}
    assert "./bootstrap test" in commands(jobs["suite"])
    assert "interfaces.py diff" in commands(jobs["suite"])
    assert "interfaces.py check" in commands(jobs["suite"])
    runners = set(jobs["suite"]["strategy"]["matrix"]["runner"])
    assert runners == {one["runner"] for one in jobs["wheels"]["strategy"]["matrix"]["include"]}
    assert jobs["publish"]["if"] == "github.ref_type == 'tag'"


def test_the_source_archive_is_checked_and_installed(jobs: dict[str, Any]) -> None:
    said = commands(jobs["sdist"])
    parts = [
        "--sdist",
        "check --strict",
        "libssl-dev libyaml-dev",
        'bin/pip" install',
        'try_wheel.py" deadline tls demo tune\n',  # the other steps are of wheels
    ]
    assert [said.find(part) for part in parts] == sorted(said.find(part) for part in parts)
    assert all(part in said for part in parts)
    assert "check --strict dist/*.whl" in commands(jobs["wheels"])


def test_only_the_job_that_publishes_may_prove_who_it_is(jobs: dict[str, Any]) -> None:
    for name, job in jobs.items():
        granted = {key for key, value in job["permissions"].items() if value == "write"}
        assert granted == ({"id-token", "attestations"} if name == "publish" else set()), name
    for job in jobs.values():
        for step in job["steps"]:
            if step.get("uses", "").startswith("actions/checkout@"):
                assert step["with"]["persist-credentials"] is False


def test_a_value_that_somebody_else_writes_is_no_part_of_a_command(jobs: dict[str, Any]) -> None:
    """An expression is put into the text of the script: only the matrix's own words may be."""
    for job in jobs.values():
        assert set(re.findall(r"\$\{\{ *(\w+)", commands(job))) <= {"matrix"}
