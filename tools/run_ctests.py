"""Run C test programs side by side and close with one line that counts them.

A program reports through libcheck ("100%: Checks: 5, Failures: 0, Errors: 0") or through a line
"N passed, M failed". A program that reports nothing, or that ran no test, counts as failed: a
test that silently stops running is worse than one that fails.
"""

import argparse
import contextlib
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

CHECK_LINE = re.compile(r"^\d+%: Checks: (\d+), Failures: (\d+), Errors: (\d+)", re.M)
PLAIN_LINE = re.compile(r"^(?:\w+: )?(\d+) passed, (\d+) failed\b", re.M)


@dataclass
class Result:
    name: str
    passed: int
    failed: int
    seconds: float
    output: str
    complaint: str


def count(output: str) -> tuple[int, int]:
    """Return how many tests passed and failed according to the program's own report."""
    passed = failed = 0
    for checks, failures, errors in CHECK_LINE.findall(output):
        bad = int(failures) + int(errors)
        passed, failed = passed + int(checks) - bad, failed + bad
    for good, bad in PLAIN_LINE.findall(output):
        passed, failed = passed + int(good), failed + int(bad)
    return passed, failed


def judge(name: str, status: int, output: str, seconds: float) -> Result:
    passed, failed = count(output)
    complaint = ""
    if status < 0:
        complaint = f"killed by {signal.Signals(-status).name}"
    elif passed + failed == 0:
        complaint = f"ran no test (exit status {status})"
    elif status != 0 and failed == 0:
        complaint = f"exit status {status} although no test failed"
    if complaint and failed == 0:
        failed = 1
    return Result(name, passed, failed, seconds, output, complaint)


def kill_session(leader: int) -> None:
    """Kill all of a session: each test that libcheck forks has a group of its own, and would keep the
    pipe open."""
    for found in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # Ended since.
            session = found.read_text().rpartition(")")[2].split()[3]
            if int(session) == leader:
                os.kill(int(found.parent.name), signal.SIGKILL)


def run(program: str, wrapper: list[str], limit: float) -> Result:
    start = time.monotonic()
    child = subprocess.Popen(
        [*wrapper, program],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    late = False
    try:
        raw, _ = child.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        late = True
        kill_session(child.pid)
        raw, _ = child.communicate()
    seconds = time.monotonic() - start
    output = raw.decode(errors="replace")
    result = judge(Path(program).name, child.returncode, output, seconds)
    if late:
        result.complaint = f"still running after {limit:.0f} s"
    return result


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(description="Run C test programs.")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--limit", type=float, default=300, help="seconds for one program")
    parser.add_argument("--wrap", default="", help="command to run each program under")
    parser.add_argument("programs", nargs="*")
    args = parser.parse_args(argv)

    if not args.programs:
        print("run_ctests: there is no test program to run", file=sys.stderr)
        return 1
    wrapper = shlex.split(args.wrap)
    passed = failed = 0
    with ThreadPoolExecutor(args.jobs) as threads:
        for r in threads.map(lambda p: run(p, wrapper, args.limit), args.programs):
            passed, failed = passed + r.passed, failed + r.failed
            state = "FAIL" if r.failed else "ok"
            print(f"  {state:<4} {r.name:<28} {r.passed:>4} passed  {r.seconds:6.2f} s", flush=True)
            if r.failed:
                print(r.output.rstrip(), flush=True)
                if r.complaint:
                    print(f"  {r.name}: {r.complaint}", flush=True)
    print(f"{passed} passed, {failed} failed")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
