"""No function of the core writes an output parameter on a path that fails, as far as text can tell.

Looked at are functions that return hs_err and have parameters named ret_*: after an assignment to
what such a parameter points to, the function may only succeed. What one function passes on to
another is not followed: tests/torture/untouched.c sees that, while it runs.
"""

import re
import sys

import common

FUNCTION = re.compile(
    r"^(?:static |HS_NODISCARD )*hs_err\n(?P<name>\w+)\((?P<params>[^;{]*)\)\n\{\n(?P<body>.*?)^\}\n",
    re.M | re.S,
)
OUTPUT = re.compile(r"\*(?:\w+ )?(ret_\w+)")
# They tell what is missing, with HS_WANT, or what was too large, with the error: see frame.h.
BESIDE_OTHER_RESULTS = {"ret_need", "ret_oversize"}


def is_guarded(before: str) -> bool:
    """Whether the last condition before a write says that all went well."""
    statement = re.split(r"[;}]", before)[-1]
    if re.search(r"== HS_OK\b|== 0\b", statement):
        return True
    if not re.search(r"\belse\b[\s{]*$", before):
        return False
    chain = before[before.rfind("if (") :]
    return "!= HS_OK" in chain or "rv = hs_err_set" in chain


def succeeds(after: str) -> bool:
    """Whether the next thing that the function answers is HS_OK."""
    end = re.search(r"\breturn\b\s*([^;]*);", after)
    between = after if end is None else after[: end.start()]
    if re.search(r"\brv = HS_OK;", between) or re.match(r"[^;]*;\s*\}?\s*else\b", after):
        return True
    return end is not None and end[1].strip() == "HS_OK" and "rv = " not in between


def check(path: str, text: str) -> list[str]:
    text = common.code_only(text)
    problems = []
    for function in FUNCTION.finditer(text):
        body = function["body"]
        for name in set(OUTPUT.findall(function["params"])) - BESIDE_OTHER_RESULTS:
            for write in re.finditer(rf"(?<![\w.>*])(?:\*{name}|{name}->[\w.]+) [-+|]?= ", body):
                if is_guarded(body[: write.start()]) or succeeds(body[write.start() :]):
                    continue
                line = text.count("\n", 0, function.start("body") + write.start()) + 1
                problems.append(f"{path}:{line}: {function['name']} may fail after it wrote {name}")
    return problems


def main() -> int:
    problems: list[str] = []
    for path in common.files(".c", under=("csrc",)):
        problems += check(path.relative_to(common.ROOT).as_posix(), path.read_text())
    return common.report(problems, "check_outputs")


if __name__ == "__main__":
    sys.exit(main())
