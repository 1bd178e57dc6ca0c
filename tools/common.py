"""What the checks share: the list of files, C text without comments and strings, a make's environment."""

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

# A comment, a string or a character constant; whichever starts first wins.
_TOKENS = re.compile(
    r"/\*.*?\*/|//[^\n]*|\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])*'",
    re.S,
)
_INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*([<"])([^>"]+)[>"]', re.M)
SKIPPED_DIRS = {".git", ".venv", "build", "dist", "__pycache__"}


def without_make() -> dict[str, str]:
    """The environment for a make of its own below one that runs.

    The outer one's job server is not open there, and its flags (no built-in rules) are not for the
    makefiles of others.
    """
    given = ("MAKEFLAGS", "MFLAGS", "MAKELEVEL")
    return {name: value for name, value in os.environ.items() if name not in given}


def files(*suffixes: str, under: tuple[str, ...] = ()) -> list[Path]:
    """Return the files of the project: those that git tracks or would track, in order."""
    try:
        done = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
        names = [n for n in done.stdout.split("\0") if n]
    except (OSError, subprocess.CalledProcessError):
        # Not a checkout (an unpacked sdist, say), so all there is.
        names = [
            p.relative_to(ROOT).as_posix()
            for p in ROOT.rglob("*")
            if not SKIPPED_DIRS.intersection(p.relative_to(ROOT).parts)
        ]
    return sorted(
        ROOT / n
        for n in set(names)
        if (not suffixes or n.endswith(suffixes))
        and (not under or n.startswith(tuple(u + "/" for u in under)))
        and (ROOT / n).is_file()
    )


def code_only(text: str) -> str:
    """Blank out comments and literals, keeping every line break and column."""

    def blank(match: re.Match[str]) -> str:
        return re.sub(r"[^\n]", " ", match[0])

    return _TOKENS.sub(blank, text)


def includes(text: str) -> Iterator[tuple[int, bool, str]]:
    """Yield (line, is_system, name) for each #include outside comments."""
    comments_gone = _TOKENS.sub(
        lambda m: m[0] if m[0][0] == '"' else re.sub(r"[^\n]", " ", m[0]), text
    )
    for match in _INCLUDE.finditer(comments_gone):
        yield comments_gone.count("\n", 0, match.start()) + 1, match[1] == "<", match[2]


def report(problems: list[str], what: str) -> int:
    """Print the problems and return the exit status."""
    for problem in problems:
        print(problem)
    if problems:
        print(f"{what}: {len(problems)} problem(s)", file=sys.stderr)
    return 1 if problems else 0


def main_over_c(check: Callable[[str, str], list[str]], what: str, *under: str) -> int:
    """Run check(path, text) over the C files under the given folders."""
    problems: list[str] = []
    for path in files(".c", ".h", under=under):
        problems += check(path.relative_to(ROOT).as_posix(), path.read_text())
    return report(problems, what)
