"""No path of the machine where a file happened to be written stands in the project.

Nor does a word that makes somebody a man or a woman: see CONTRIBUTING.md, "How we write".
"""

import re
import sys

import common

# Put together from pieces, or this file would find itself.
PLACES = ["work", "root", "farm"]
PATH = re.compile(r"(?<![\w.~-])/(" + "|".join(PLACES) + r")/")
# Whole words, also in names, not in quotes. Decisions and changelogs tell of their time.
GENDERED: tuple[str, ...] = ("he", "him", "his", "himself", "she", "hers", "whoever")
EXEMPT = ("docs/adr/", "changelog.d/", "CHANGELOG", "tools/check_words.py", "tools/selftest.py")
PROSE = (".c", ".h", ".md", ".py", ".pyi", ".yaml")


def check(path: str, text: str, gendered: tuple[str, ...] = GENDERED) -> list[str]:
    word = re.compile(rf"(?<![^\W_]|[\"'/-])({'|'.join(gendered)})(?![^\W_]|[\"'/-])", re.I)
    looked_at = bool(gendered) and path.endswith(PROSE) and not path.startswith(EXEMPT)
    problems = []
    for number, line in enumerate(text.split("\n"), 1):
        if found := PATH.search(line):
            problems.append(f"{path}:{number}: a path of somebody's machine: {found[0]}")
        if looked_at and (found := word.search(line)):
            problems.append(f"{path}:{number}: say it without {found[0]!r}")
    return problems


def main() -> int:
    problems: list[str] = []
    for path in common.files():
        data = path.read_bytes()
        if b"\0" not in data[:4096]:
            name = path.relative_to(common.ROOT).as_posix()
            problems += check(name, data.decode(errors="replace"))
    return common.report(problems, "check_words")


if __name__ == "__main__":
    sys.exit(main())
