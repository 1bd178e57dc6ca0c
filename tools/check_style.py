"""What the formatter cannot see in C files (the conventions for C).

A comment at the top says what the file owns; lines stay within 100 columns, functions within 60
lines unless a NOLINT gives its reason; TODO and FIXME carry an issue number; no banners, no tabs,
no blanks at the end of a line.
"""

import re
import sys

import common

MAX_COLUMNS = 100
MAX_FUNCTION = 60
MIN_HEADER = 3
FOLDERS = ("csrc", "lab", "tuning", "tests", "bench", "examples")

TODO = re.compile(r"\b(TODO|FIXME|XXX)\b(?!\(#\d+\))")
# A line of decoration; a section title between dashes in a long header is not one.
BANNER = re.compile(r"//\s*([-=*#~_+])\1{3,}|(/\*|^\s*\*)\s*([-=*#~_+])\3{3,}/?\s*(\*/)?$")
NOLINT = re.compile(r"NOLINT(NEXTLINE|BEGIN)?(?![A-Z])(\([^)]*\))?\s*[:,-]?\s*\w{3}")


def check_lines(path: str, lines: list[str]) -> list[str]:
    problems = []
    for number, line in enumerate(lines, 1):
        where = f"{path}:{number}"
        if len(line) > MAX_COLUMNS:
            problems.append(f"{where}: {len(line)} columns, more than {MAX_COLUMNS}")
        if "\t" in line:
            problems.append(f"{where}: a tab")
        if line != line.rstrip():
            problems.append(f"{where}: blanks at the end of the line")
        if found := TODO.search(line):
            problems.append(f"{where}: {found[1]} without an issue number, as in {found[1]}(#12)")
        if BANNER.search(line):
            problems.append(f"{where}: a banner; a blank line separates just as well")
    return problems


def check_header(path: str, text: str) -> list[str]:
    found = re.match(r"/\*.*?\*/", text, re.S)
    if found is None:
        return [f"{path}:1: no comment at the top that says what the file owns"]
    if len(found[0].split("\n")) < MIN_HEADER:
        return [f"{path}:1: the comment at the top has less than {MIN_HEADER} lines"]
    return []


def check_functions(path: str, text: str) -> list[str]:
    """Find bodies by the house layout: both braces of a function stand alone at column 0."""
    problems = []
    lines = text.split("\n")
    code = common.code_only(text).split("\n")
    start = None
    for i, line in enumerate(code):
        if line.rstrip() == "{":
            start = i
        elif line.rstrip() == "}" and start is not None:
            length = i - start - 1
            above = start
            while above > 0 and lines[above - 1].strip():
                above -= 1
            excused = any(NOLINT.search(x) for x in lines[above : start + 1])
            if length > MAX_FUNCTION and not excused:
                problems.append(
                    f"{path}:{start + 1}: a function of {length} lines, more than {MAX_FUNCTION}; "
                    "split it, or give the reason after a NOLINT"
                )
            start = None
    return problems


def check(path: str, text: str) -> list[str]:
    problems = check_header(path, text)
    problems += check_lines(path, text.removesuffix("\n").split("\n"))
    problems += check_functions(path, text)
    if not text.endswith("\n"):
        problems.append(f"{path}: no line break at the end")
    return problems


if __name__ == "__main__":
    sys.exit(common.main_over_c(check, "check_style", *FOLDERS))
