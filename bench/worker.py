"""A process that measures one work with one Python implementation, slice by slice, on command.

`python -m bench.worker DRIVER WORK HOST PORT` prints {"ready": version} or {"skip": reason}; then
for each line "SECONDS COUNT" on stdin it measures one slice and prints one line of JSON. It ends
with its stdin. The C and Go workers speak the same lines. One process per implementation, so that
no event loop, monkey patch or allocator state of one can disturb another.
"""

from __future__ import annotations

import gc
import importlib
import importlib.util
import json
import sys
from collections.abc import Callable
from typing import Any

from .model import SkipWork, Target

Slice = Callable[[Target, float, int], dict[str, Any]]


def say(**message: Any) -> None:
    print(json.dumps(message, separators=(",", ":")), flush=True)


def load(driver_name: str, work_name: str) -> tuple[str, Slice]:
    """Import the driver and what it needs; returns the version and the function for the work."""
    try:
        driver = importlib.import_module(f"bench.drivers.{driver_name.replace('-', '_')}")
        version: str = driver.version()
    except ImportError as error:
        raise SkipWork(f"not installed ({error})") from error
    run_slice: Slice | None = getattr(driver, work_name, None)
    if run_slice is None:
        raise SkipWork("its driver has no such work")
    return version, run_slice


def main(argv: list[str]) -> int:
    driver_name, work_name, host, port = argv
    try:
        version, run_slice = load(driver_name, work_name)
    except SkipWork as skip:
        say(skip=str(skip))
        return 0
    say(ready=version)
    target = Target(host, int(port))
    for line in sys.stdin:
        seconds, count = line.split()
        gc.collect()
        try:
            result = run_slice(target, float(seconds), int(count))
        except SkipWork as skip:
            say(skip=str(skip))
            return 0
        except Exception as error:  # anything a driver does wrong is a result to report
            say(error=f"{type(error).__name__}: {error}")
            return 1
        say(**result)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
