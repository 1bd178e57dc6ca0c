"""The binary interface of libhardsock: a table of it is kept, and no change of it goes unseen.

The table (tools/abi.txt) has a line for each function of hardsock.h with its prototype, each
structure with its size and where its members begin, and each constant with its value, as a
compiler for 64-bit Linux sees them. What libhardsock.so exports must be these functions and no
other. debian/libhardsock0.symbols says since which version each is there: programs of packages
depend on the newest that they use, and the package's build stops where the two differ.
`check_abi.py --write` brings both up to date; docs/c-api.md says what that asks for.
"""

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import common

HEADER = "csrc/include/hardsock.h"
TABLE = "tools/abi.txt"
LIBRARY = "build/release/libhardsock.so"
RULE = "if that is meant: tools/check_abi.py --write, and see docs/c-api.md about HS_ABI"
FUNCTION = re.compile(r"^HS_API\s+([^;{]*?\b(hs_\w+)\([^;]*\));", re.M)
STRUCT = re.compile(r"^struct (\w+) \{\n(.*?)^\};", re.M | re.S)
CONSTANT = re.compile(r"^#define (HS_\w+)[ \t]+\S", re.M)


def squeeze(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip()


def functions(text: str) -> dict[str, str]:
    """Return {name: prototype}."""
    plain = common.code_only(text).replace("HS_NODISCARD ", "")
    return {name: squeeze(whole) for whole, name in FUNCTION.findall(plain)}


def members(body: str) -> list[str]:
    """Return the names that a structure's own level has, in order; those of inner unions are left out."""
    found = []
    body = re.sub(r"\{[^{}]*\}", "", body)
    for declaration in body.split(";"):
        if pointer := re.search(r"\(\*(\w+)\)", declaration):
            found.append(pointer[1])
            continue
        for one in declaration.split(","):
            if name := re.search(r"(\w+)\s*(?:\[[^\]]*\]\s*)*$", one):
                found.append(name[1])
    return [name for name in found if name not in ("union", "struct")]


def structures(text: str) -> dict[str, list[str]]:
    return {name: members(body) for name, body in STRUCT.findall(common.code_only(text))}


def constants(text: str) -> list[str]:
    """Return what has a number: macros without arguments, and all that enumerations list."""
    expanded = subprocess.run(
        ["cc", "-E", "-P", "-std=c11", "-D_GNU_SOURCE", "-x", "c", "-"],
        input=text,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    listed = [
        name
        for body in re.findall(r"^enum(?: hs_\w+)? \{(.*?)\}", expanded, re.M | re.S)
        for name in re.findall(r"\b(HS_\w+)\b(?=\s*(?:=|,|$))", body)
    ]
    gone = set(re.findall(r"^#undef (\w+)", text, re.M))
    macros = [
        name
        for name in CONSTANT.findall(common.code_only(text))
        if name not in gone and not re.search(rf"#define {name}\s+(?:__attribute__|$)", text, re.M)
    ]
    return list(
        dict.fromkeys(name for name in [*macros, *listed] if not name.startswith("HS_VERSION"))
    )


def program(text: str) -> str:
    lines = []
    for name, parts in structures(text).items():
        lines.append(f'printf("struct {name} %zu", sizeof(struct {name}));')
        for part in parts:
            member = f"((struct {name} *)0)->{part}"
            lines.append(
                f'printf(" {part}@%zu+%zu", offsetof(struct {name}, {part}), sizeof({member}));'
            )
        lines.append('printf("\\n");')
    lines += [f'printf("const {name} %lld\\n", (long long)({name}));' for name in constants(text)]
    body = "\n".join("    " + line for line in lines)
    return f"#include <stdio.h>\n#include <hardsock.h>\nint main(void)\n{{\n{body}\n    return 0;\n}}\n"


def layout(text: str) -> list[str]:
    """Return the lines that a compiled program says."""
    with tempfile.TemporaryDirectory() as scratch:
        exe = Path(scratch, "abi")
        Path(scratch, "hardsock.h").write_text(text)
        subprocess.run(
            ["cc", "-std=c11", "-D_GNU_SOURCE", f"-I{scratch}", "-x", "c", "-", "-o", exe],
            input=program(text),
            text=True,
            check=True,
        )
        return subprocess.run([exe], capture_output=True, text=True, check=True).stdout.splitlines()


def table(text: str) -> list[str]:
    return sorted([*(f"call {one}" for one in functions(text).values()), *layout(text)])


def compare(kept: list[str], now: list[str]) -> list[str]:
    """Return a problem for each line that is not as it was."""
    gone = [f"{TABLE}: gone or changed: {line}" for line in kept if line not in set(now)]
    come = [f"{TABLE}: new or changed: {line}" for line in now if line not in set(kept)]
    return [*gone, *come, RULE] if gone or come else []


def exported(library: Path) -> set[str]:
    said = subprocess.run(
        ["nm", "-D", "--defined-only", "--format=posix", library],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    return {line.split()[0] for line in said.splitlines()}


def symbols(declared: set[str], found: set[str]) -> list[str]:
    return [
        *(
            f"{LIBRARY}: {name} is in {HEADER}, but not exported"
            for name in sorted(declared - found)
        ),
        *(
            f"{LIBRARY}: {name} is exported, but not in {HEADER}"
            for name in sorted(found - declared)
        ),
    ]


def since(text: str, kept: str) -> str:
    """Return the file of Debian's package: a version beside each function, new ones with the coming one."""
    number = re.search(r"^#define HS_ABI (\d+)", text, re.M)
    coming = re.search(r'^#define HS_VERSION "([\d.]+?)(?:\.dev\d+)?"', text, re.M)
    assert number is not None
    assert coming is not None
    library = f"libhardsock.so.{number[1]}"
    known = dict(re.findall(r"^ (\w+)@Base (\S+)$", kept, re.M)) if library in kept else {}
    lines = [
        f"{library} libhardsock{number[1]} #MINVER#",
        "* Build-Depends-Package: libhardsock-dev",
        *(f" {name}@Base {known.get(name, f'{coming[1]}~')}" for name in sorted(functions(text))),
    ]
    return "\n".join(lines) + "\n"


def main(arguments: list[str]) -> int:
    text = (common.ROOT / HEADER).read_text()
    packaged = next((common.ROOT / "debian").glob("libhardsock*.symbols"))
    if sys.maxsize < 2**32:
        print("check_abi: the table is that of 64-bit machines: nothing compared")
        return 0
    now = table(text)
    if arguments == ["--write"]:
        (common.ROOT / TABLE).write_text("\n".join(now) + "\n")
        packaged.write_text(since(text, packaged.read_text()))
        return 0
    found = compare((common.ROOT / TABLE).read_text().splitlines(), now)
    if (library := common.ROOT / LIBRARY).exists() and shutil.which("nm"):
        found += symbols(set(functions(text)), exported(library))
    if packaged.read_text() != since(text, packaged.read_text()):
        found += [f"{packaged.name}: functions have come or gone", RULE]
    return common.report(found, "check_abi")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
