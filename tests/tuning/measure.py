"""Time and memory of `hardsock-tune check all`, beside sysctl -a and systemd-sysctl --cat-config.

Reads only. Prints the best and the median of many runs, what they took of the processor (which others
that run at the same time lengthen less), and the peak of resident memory, also those of a program that
does nothing (what libc and the loader cost).
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import tempfile
from pathlib import Path

TOP = Path(__file__).resolve().parent.parent.parent
BINARY = os.environ.get("HARDSOCK_TUNE", str(TOP / "build/tune/release/hardsock-tune"))
SYSTEMD = "/lib/systemd/systemd-sysctl"
RUNS = 100


# A small parent: a child's peak counts from the memory of the process that it was split from.
LAUNCHER = r"""
#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
extern char **environ;
int main(int argc, char **argv)
{
    struct timespec a, b;
    struct rusage use;
    posix_spawn_file_actions_t to_null;
    pid_t pid;
    int status;

    (void)argc;
    posix_spawn_file_actions_init(&to_null);
    posix_spawn_file_actions_addopen(&to_null, 1, "/dev/null", O_WRONLY, 0);
    posix_spawn_file_actions_addopen(&to_null, 2, "/dev/null", O_WRONLY, 0);
    clock_gettime(CLOCK_MONOTONIC, &a);
    if (posix_spawn(&pid, argv[1], &to_null, NULL, argv + 1, environ) != 0)
        return 1;
    wait4(pid, &status, 0, &use);
    clock_gettime(CLOCK_MONOTONIC, &b);
    printf("%f %ld %f\n", (b.tv_sec - a.tv_sec) + (b.tv_nsec - a.tv_nsec) / 1e9, use.ru_maxrss,
           (use.ru_utime.tv_sec + use.ru_stime.tv_sec) + (use.ru_utime.tv_usec + use.ru_stime.tv_usec) / 1e6);
    return 0;
}
"""


def run(launcher: str, command: list[str]) -> tuple[float, int, float]:
    """Seconds, KiB of resident memory at its peak, and seconds of the processor."""
    seconds, peak, used = subprocess.check_output([launcher, *command], text=True).split()
    return float(seconds), int(peak), float(used)


def measure(launcher: str, name: str, command: list[str]) -> None:
    if not os.path.exists(command[0]):
        print(f"  {name:<34} not installed")
        return
    runs = [run(launcher, command) for _ in range(RUNS)]
    times = [r[0] * 1000 for r in runs]
    used = [r[2] * 1000 for r in runs]
    print(
        f"  {name:<34} best {min(times):6.2f} ms  median {statistics.median(times):6.2f} ms"
        f"  processor {statistics.median(used):6.2f} ms  {max(r[1] for r in runs):6d} KiB"
    )


def compile_c(folder: str, name: str, text: str) -> str:
    source = Path(folder) / f"{name}.c"
    source.write_text(text)
    subprocess.run(["cc", "-O2", "-o", f"{folder}/{name}", str(source)], check=True)
    return f"{folder}/{name}"


def main() -> None:
    sysctl = shutil.which("sysctl") or "/usr/sbin/sysctl"
    with tempfile.TemporaryDirectory() as folder:
        launcher = compile_c(folder, "launcher", LAUNCHER)
        nothing = compile_c(folder, "nothing", "int main(void) { return 0; }\n")
        measure(launcher, "a program that does nothing", [nothing])
        measure(launcher, "hardsock-tune explain tcp_rmem", [BINARY, "explain", "tcp_rmem"])
        measure(launcher, "hardsock-tune check", [BINARY, "check"])
        measure(launcher, "hardsock-tune check all", [BINARY, "check", "all"])
        measure(launcher, "hardsock-tune check all -f json", [BINARY, "check", "all", "-f", "json"])
        measure(launcher, "sysctl -a", [sysctl, "-a"])
        measure(launcher, "systemd-sysctl --cat-config", [SYSTEMD, "--cat-config", "--no-pager"])


if __name__ == "__main__":
    main()
