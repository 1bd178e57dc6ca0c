"""Files as they are found in public: twelve shapes, written anew. Each line is imported, or told."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from support_tune import DRIFT, OK, tune

SHAPES = Path(__file__).parent / "shapes"
KEY = re.compile(r"\b((?:net|kernel|vm|fs|dev)[./][\w./*-]*\w)(?=\"?\s*[:=,]|\"?$|\"?\})", re.M)

# File, settings imported, lines left out.
FILES = [
    ("distribution.conf", 2, 0),
    ("systemd.conf", 6, 2),
    ("benchmark.conf", 6, 2),
    ("hardened.conf", 9, 1),
    ("node.conf", 11, 0),
    ("windows.conf", 3, 0),
    ("guide.conf", 4, 4),
    ("cluster.conf", 8, 1),
    ("playbook.yml", 3, 0),
    ("role.yml", 5, 0),
    ("throughput/tuned.conf", 3, 1),
    ("notes.conf", 3, 0),
]


def keys_of(text: str) -> set[str]:
    """The keys that lines speak of, comments left out."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith(("#", ";"))]
    return {key.replace("/", ".") for key in KEY.findall("\n".join(lines))}


@pytest.mark.parametrize(("name", "settings", "left_out"), FILES)
def test_each_line_of_a_file_found_in_public_is_imported_or_told(
    name: str, settings: int, left_out: int
) -> None:
    file = SHAPES / name
    done = tune("import", "-f", "json", file)
    rows = json.loads(done.stdout)["settings"]
    assert (len(rows), done.returncode) == (settings, DRIFT if left_out else OK), done.stderr
    assert f"{left_out} lines left out" in done.stderr or left_out == 0
    known = {row["key"].replace("/", ".") for row in rows}
    alias = {"net.ipv4.ip_forward": "net.ipv4.conf.all.forwarding"}
    missing = {k for k in keys_of(file.read_text()) if k not in known and alias.get(k) not in known}
    lost = {k for k in missing if k not in done.stderr}
    assert lost == set()


@pytest.mark.parametrize("name", [name for name, *_ in FILES])
def test_what_was_imported_is_a_profile(name: str, tmp_path: Path) -> None:
    imported = tmp_path / "i.yaml"
    imported.write_text(tune("import", SHAPES / name).stdout)
    done = tune("lint", imported)
    assert done.returncode == OK, done.stderr


@pytest.mark.parametrize(
    "name", [name for name, *_ in FILES if name.endswith("f") and "/" not in name]
)
def test_each_of_them_is_judged(name: str) -> None:
    text = (SHAPES / name).read_text()
    done = tune("judge", SHAPES / name)
    judged = {
        line.split(":")[1] for line in done.stdout.splitlines() if line.startswith(str(SHAPES))
    }
    assert len(judged) >= len(keys_of(text)) - 1
