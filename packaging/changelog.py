"""Gathers changelog.d/ into CHANGELOG.md as the section of a release.

    changelog.py            does it, for HS_VERSION of csrc/include/hardsock.h, dated today
    changelog.py --dry-run  prints the section and changes nothing

What stood under "Unreleased" goes in, too. The fragments are deleted: they are in git.
"""

from __future__ import annotations

import argparse
import datetime
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HEADINGS = ("Added", "Changed", "Deprecated", "Removed", "Fixed", "Security")  # Keep a Changelog
NAME = re.compile(r"(?P<issue>\d+)\.(?P<kind>[a-z]+)\.md")


def version() -> str:
    found = re.search(r'HS_VERSION "([^"]+)"', (ROOT / "csrc/include/hardsock.h").read_text())
    assert found is not None
    return found[1]


def fragments(folder: Path) -> list[tuple[int, str, Path]]:
    """Issue, heading and file of each fragment, by issue."""
    found = []
    for file in folder.iterdir():
        if file.name == "README.md":
            continue
        match = NAME.fullmatch(file.name)
        if match is None or match["kind"].capitalize() not in HEADINGS:
            kinds = ", ".join(h.lower() for h in HEADINGS)
            raise ValueError(f"{file}: no name of a fragment: ISSUE.KIND.md, with KIND of {kinds}")
        found.append((int(match["issue"]), match["kind"].capitalize(), file))
    return sorted(found)


def sections(text: str) -> dict[str, str]:
    """The parts below "### Heading" lines."""
    parts = re.split(r"^### (\w+)\n", text, flags=re.M)
    return dict(zip(parts[1::2], (p.strip() for p in parts[2::2]), strict=True))


def gather(changelog: str, found: list[tuple[int, str, Path]]) -> dict[str, list[str]]:
    unreleased = changelog.partition("\n## Unreleased\n")[2].partition("\n## ")[0]
    gathered = {heading: [] for heading in HEADINGS}
    for heading, text in sections(unreleased).items():
        gathered[heading].append(text)
    for _, heading, file in found:
        gathered[heading].append(file.read_text().strip())
    return {heading: texts for heading, texts in gathered.items() if any(texts)}


def release(changelog: str, name: str, date: str, gathered: dict[str, list[str]]) -> str:
    """The changelog with a section for the release, and an empty one for what comes next."""
    head, mark, rest = changelog.partition("\n## Unreleased\n")
    if not mark:
        raise ValueError("CHANGELOG.md has no line '## Unreleased'")
    older = rest.partition("\n## ")
    body = "\n\n".join(f"### {h}\n\n" + "\n".join(t) for h, t in gathered.items())
    tail = f"\n## {older[2]}" if older[1] else ""
    return f"{head}\n## Unreleased\n\n## {name} ({date})\n\n{body}\n{tail}"


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(description="Gather changelog.d into CHANGELOG.md.")
    parser.add_argument("--dry-run", action="store_true")
    args = parser.parse_args(argv)
    name = version()
    if ".dev" in name and not args.dry_run:
        print(f"changelog: HS_VERSION is {name}: a release has none of .dev", file=sys.stderr)
        return 1
    file = ROOT / "CHANGELOG.md"
    try:
        found = fragments(ROOT / "changelog.d")
        gathered = gather(file.read_text(), found)
        text = release(file.read_text(), name, datetime.date.today().isoformat(), gathered)
    except ValueError as exc:
        print(f"changelog: {exc}", file=sys.stderr)
        return 1
    if args.dry_run:
        print(text.partition("## Unreleased\n")[2].partition("\n## 0.0")[0])
        return 0
    file.write_text(text)
    for _, _, path in found:
        path.unlink()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
