"""Static functions of csrc/ by names that only one file has, so that a backtrace says where one is.

The first file may have the bare word; a second one that needs it begins its own with the file's name
(`lend_settle`, not `settle`).
"""

import re
import sys
from collections import defaultdict

import common

STATIC = re.compile(r"^static [^;{}=]*?\n(\w+)\(", re.M)


def check(sources: dict[str, str]) -> list[str]:
    """Check a whole tree, given as {path: text}."""
    files: dict[str, set[str]] = defaultdict(set)
    for path, text in sources.items():
        for name in STATIC.findall(common.code_only(text)):
            files[name].add(path)
    return [
        f"{name}: a static function of {' and of '.join(sorted(paths))}: prefix it with the file's name"
        for name, paths in sorted(files.items())
        if len(paths) > 1
    ]


def main() -> int:
    paths = common.files(".c", under=("csrc",))
    sources = {path.relative_to(common.ROOT).as_posix(): path.read_text() for path in paths}
    return common.report(check(sources), "check_statics")


if __name__ == "__main__":
    sys.exit(main())
