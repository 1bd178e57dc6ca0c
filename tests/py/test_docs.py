"""The documents say what is true: examples run, links lead somewhere, named tests exist."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def _python_blocks(document: Path) -> list[str]:
    return re.findall(r"```python\n(.*?)```", document.read_text(), re.DOTALL)


def _output_of(code: str) -> str:
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=60
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.mark.parametrize("code", _python_blocks(ROOT / "README.md"))
def test_readme_example_runs(code: str) -> None:
    output = _output_of(code)
    assert "11 bytes so far, none lost" in output
    assert "b'half a message'" in output


@pytest.mark.parametrize("document", sorted((ROOT / "docs").glob("*.md")), ids=lambda p: p.name)
def test_examples_of_a_page_run(document: Path) -> None:
    for code in _python_blocks(document):
        _output_of(code)


def _guides() -> list[Path]:
    return [p for p in sorted((ROOT / "docs").glob("*.md")) if "```python" in p.read_text()]


@pytest.mark.parametrize("guide", _guides(), ids=lambda path: path.name)
def test_examples_of_guides_run(guide: Path) -> None:
    """All blocks of a page are one program: later ones go on with what earlier ones made."""
    blocks = re.findall(r"```python\n(.*?)```", guide.read_text(), re.DOTALL)
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", "\n".join(blocks)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_to_files(document: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", document.read_text()):
        if not target.startswith("http"):
            assert (document.parent / target).exists(), target


def test_every_test_that_the_readme_names_exists() -> None:
    links = re.findall(r"\[`(\w+)`\]\((tests/[^)]+)\)", (ROOT / "README.md").read_text())
    assert len(links) > 10
    for name, file in links:
        assert f"def {name}(" in (ROOT / file).read_text(), (name, file)


def test_every_adr_has_its_four_parts() -> None:
    for adr in (ROOT / "docs" / "adr").glob("*.md"):
        text = adr.read_text()
        for part in ("Context", "Decision", "Consequences", "What would change our mind"):
            assert f"**{part}.**" in text, (adr.name, part)
