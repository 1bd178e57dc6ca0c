"""No path of the machine where a file happened to be written stands in the project."""

import re
import sys

import common

# Put together from pieces, or this file would find itself.
PLACES = ["work", "root", "farm"]
PATH = re.compile(r"(?<![\w.~-])/(" + "|".join(PLACES) + r")/")


def check(path: str, text: str) -> list[str]:
    return [
        f"{path}:{number}: a path of somebody's machine: {found[0]}"
        for number, line in enumerate(text.split("\n"), 1)
        if (found := PATH.search(line))
    ]


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
