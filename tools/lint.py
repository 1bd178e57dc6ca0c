"""Run the static checks of the project, all or those named, and say which failed.

A check whose tool is not installed is skipped, except where CI=true: there it fails, or the gate
would get weaker without anybody seeing it.
"""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import common

C_FOLDERS = ("csrc", "lab", "tuning", "tests", "bench", "examples", "packaging")
MAX_LINES = 100
PY_FOLDERS = ("setup.py", "python", "tests", "tools", "bench", "examples", "packaging")


@dataclass
class Check:
    name: str
    command: Callable[[], list[str]]
    tool: str = sys.executable


def relative(*suffixes: str, under: tuple[str, ...] = ()) -> list[str]:
    return [p.relative_to(common.ROOT).as_posix() for p in common.files(*suffixes, under=under)]


def tool(name: str) -> Check:
    return Check(name, lambda: [sys.executable, f"tools/{name}.py"])


def on_files(command: list[str], names: list[str]) -> list[str]:
    return [*command, *names] if names else []


def python_places() -> list[str]:
    return [p for p in PY_FOLDERS if (common.ROOT / p).exists()]


def shell_scripts() -> list[str]:
    named = [p for p in ("bootstrap", ".ci/run") if (common.ROOT / p).exists()]
    return named + relative(".sh")


CPPCHECK = [
    "cppcheck",
    "--quiet",
    "--error-exitcode=1",
    "--std=c11",
    "--library=posix",
    "--language=c",
    "--enable=warning,performance,portability",
    "--inline-suppr",
    "--suppressions-list=tools/cppcheck.supp",
    "-Icsrc/include",
    "-D__linux__=1",
    "-DHS_DEBUG=1",
    "-j2",
]
STUBTEST = [sys.executable, "-m", "mypy.stubtest", "--mypy-config-file", "pyproject.toml"]

CHECKS = [
    Check("selftest", lambda: [sys.executable, "tools/selftest.py"]),
    tool("check_floors"),
    tool("check_calls"),
    tool("check_knots"),
    tool("check_statics"),
    tool("check_style"),
    tool("check_words"),
    tool("check_outputs"),
    tool("check_stub"),
    tool("check_names"),
    tool("check_docstrings"),
    Check("check_header", lambda: [sys.executable, "tools/check_header.py"], "c++"),
    Check("check_abi", lambda: [sys.executable, "tools/check_abi.py"], "cc"),
    Check(
        "clang-format",
        lambda: on_files(
            ["clang-format", "--dry-run", "--Werror"], relative(".c", ".h", under=C_FOLDERS)
        ),
        "clang-format",
    ),
    Check(
        "cppcheck",
        lambda: on_files(CPPCHECK, relative(".c", under=("csrc", "lab", "tuning"))),
        "cppcheck",
    ),
    Check("clang-tidy", lambda: ["make", "-s", "tidy"], "clang-tidy"),
    Check("tune", lambda: ["make", "-s", "-C", "tuning", "lint"], "mandoc"),
    Check(
        "ruff",
        lambda: on_files(["ruff", "check", "--quiet", "--output-format=concise"], python_places()),
        "ruff",
    ),
    Check(
        "ruff-format",
        lambda: on_files(["ruff", "format", "--check", "--quiet", "--diff"], python_places()),
        "ruff",
    ),
    Check("mypy", lambda: [sys.executable, "-m", "mypy"], "mypy"),
    Check("stubtest", lambda: [*STUBTEST, "hardsock._core"], "stubtest"),
    Check("codespell", lambda: on_files(["codespell"], relative()), "codespell"),
    Check(
        "shellcheck",
        lambda: on_files(["shellcheck"], shell_scripts()),
        "shellcheck",
    ),
]


def run(check: Check) -> tuple[Check, str, float, str]:
    """Return (check, state, seconds, output)."""
    start = time.monotonic()
    if shutil.which(check.tool) is None:
        if os.environ.get("CI") == "true":
            return check, "FAIL", 0.0, f"{check.tool} is not installed; ./bootstrap test brings it"
        return check, "skip", 0.0, ""
    command = check.command()
    if not command:
        return check, "none", 0.0, ""
    environment = common.without_make()
    done = subprocess.run(
        command,
        cwd=common.ROOT,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    state = "FAIL" if done.returncode else "ok"
    return check, state, time.monotonic() - start, done.stdout


def main(wanted: list[str]) -> int:
    unknown = set(wanted) - {c.name for c in CHECKS}
    if unknown:
        print(f"lint: no such check: {', '.join(sorted(unknown))}", file=sys.stderr)
        return 2
    chosen = [c for c in CHECKS if not wanted or c.name in wanted]
    states = {"ok": 0, "FAIL": 0, "skip": 0, "none": 0}
    failed = []
    notes = {"skip": "skipped: not installed here", "none": "nothing to look at"}
    with ThreadPoolExecutor(2) as threads:
        for check, state, seconds, output in threads.map(run, chosen):
            states[state] += 1
            note = notes.get(state, f"{seconds:6.1f} s")
            print(f"  {state:<4} {check.name:<14} {note}", flush=True)
            if state == "FAIL":
                failed.append(check.name)
                lines = output.rstrip().split("\n")
                print("\n".join(lines[:MAX_LINES]), flush=True)
                if len(lines) > MAX_LINES:
                    print(f"  ... and {len(lines) - MAX_LINES} more lines", flush=True)
    print(f"lint: {states['ok']} passed, {states['FAIL']} failed, {states['skip']} skipped")
    if failed:
        print(f"lint: failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
