"""The public header serves C and C++ programs: each of its macros compiles in every dialect.

And each function with output parameters is watched by the torture programs (untouched.c).

A program that uses what the header defines is compiled on its own, with warnings as errors, as C11,
C17 and C++11 to C++20, by every compiler that is here. A macro that the program does not know yet is
a problem, too: the list below grows with the header.
"""

import re
import shutil
import subprocess
import sys

import common

HEADER = "csrc/include/hardsock.h"
BINDING = "csrc/include/hardsock_binding.h"
GUARDS = "tests/torture/untouched.c"
C = ("c11", "gnu17")
CXX = ("c++11", "c++17", "c++20")
COMPILERS = {"cc": C, "clang": C, "c++": CXX, "clang++": CXX}
FLAGS = ["-Wall", "-Wextra", "-Wpedantic", "-Werror", "-fsyntax-only"]
# How each macro with arguments is used. Lists (those that take X) need no line of their own.
USES = {
    "HS_OP_INIT": "struct hs_op op = HS_OP_INIT(HS_NEVER, NULL); hs_ignore(&op, sizeof(op));",
    "HS_ERR_CLASS": "n += HS_ERR_CLASS(HS_E_CLOSED) == HS_CLASS_CLOSED;",
    "HS_ERR_CODE": "n += HS_ERR_CODE(HS_CLASS_CLOSED, 1) < 0;",
    "HS_RUN": "HS_RUN(n, HS_OK);",
    "HS_PRINTF": 'hs_print("%d", n);',
}
FUNCTION = re.compile(r"\bhs_err (hs_\w+)\(([^;]*?\bret_\w+[^;]*?)\);", re.S)
DEFINE = re.compile(r"^#define (HS_\w+)(\(([^)]*)\))?(.*)$", re.M)


def macros(text: str) -> tuple[list[str], list[str]]:
    """Return the names of constants, and of macros with arguments that are no lists."""
    gone = set(re.findall(r"^#undef (\w+)", text, re.M))
    constants, calls = [], []
    for name, has_arguments, arguments, value in DEFINE.findall(text):
        if name in gone or arguments == "X":
            continue
        if has_arguments:
            calls.append(name)
        elif "__attribute__" not in value and value.strip():
            constants.append(name)
    return constants, calls


def program(constants: list[str], calls: list[str]) -> str:
    uses = [f"(void)({name});" for name in constants] + [USES[name] for name in calls]
    body = "\n".join(f"    {use}" for use in uses)
    return f"""#include <{HEADER.rsplit("/", 1)[1]}>
void hs_ignore(const void *, size_t);
HS_PRINTF(1, 2) void hs_print(const char *, ...);
int main(void);
int main(void)
{{
    int n = 0;
{body}
    return n;
}}
"""


def compile_with(compiler: str, dialect: str, text: str) -> str:
    """Return what the compiler says against it."""
    language = "c++" if "++" in dialect else "c"
    folder = (common.ROOT / HEADER).parent
    command = [compiler, f"-std={dialect}", *FLAGS, f"-I{folder}", "-x", language, "-"]
    done = subprocess.run(
        command,
        input=text,
        env={"PATH": "/usr/bin:/bin", "LC_ALL": "C"},
        capture_output=True,
        text=True,
    )
    return done.stderr if done.returncode else ""


def unguarded(text: str, guards: str) -> list[str]:
    """Return a problem for each function that may fail and write, and is not watched for it."""
    names = [name for name, _ in FUNCTION.findall(common.code_only(text))]
    return [
        f"{name}: has output parameters, so {GUARDS} needs a line for it"
        for name in names
        if f"__wrap_{name}," not in guards
    ]


def problems(text: str) -> list[str]:
    constants, calls = macros(text)
    unknown = [name for name in calls if name not in USES]
    if unknown:
        return [
            f"{HEADER}: {name}: say in tools/check_header.py how it is used" for name in unknown
        ]
    source = program(constants, calls)
    found = []
    for compiler, dialects in COMPILERS.items():
        for dialect in dialects if shutil.which(compiler) else ():
            if said := compile_with(compiler, dialect, source):
                found.append(f"{HEADER}: not usable with {compiler} -std={dialect}:\n{said}")
    return found


if __name__ == "__main__":
    header = (common.ROOT / HEADER).read_text()
    both = header + (common.ROOT / BINDING).read_text()
    found = problems(header) + unguarded(both, (common.ROOT / GUARDS).read_text())
    sys.exit(common.report(found, "check_header"))
