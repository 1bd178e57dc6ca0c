"""What the suite leaves out below a preloaded sanitizer (make asan-py, make tsan-py), and why."""

from __future__ import annotations

import os
import re

__all__ = ["LEFT_OUT", "reason_to_skip", "sanitizer"]

_MEMORY = "what it measures is the sanitizer's memory, not ours"
_KEEPS = "the address sanitizer keeps what is freed for a while"
_FORKS = "beside threads a fork leaves the child with locks of the sanitizer that nobody will drop"
_MALLOC = "malloc is the sanitizer's: mallinfo2() has nothing to count"

LEFT_OUT: dict[str, dict[str, str]] = {
    "asan": {
        "tests/isolated/test_interpreters.py::test_interpreters_that_come_and_go_leave_no_memory": _KEEPS,
        "tests/py/test_fork_locks.py::test_a_child_does_not_wait_for_a_thread_that_it_has_not": _FORKS,
        "tests/py/test_import.py::test_import_takes_four_mib_at_most_and_less_than_what_it_stands_for": _MEMORY,
        "tests/py/test_soak.py::test_samples_count_what_malloc_has_given_out": _MALLOC,
    },
    "tsan": {
        "tests/isolated/test_interpreters.py::test_interpreters_that_come_and_go_leave_no_memory": _MEMORY,
        "tests/py/test_import.py::test_import_takes_four_mib_at_most_and_less_than_what_it_stands_for": _MEMORY,
        "tests/py/test_soak.py::test_samples_count_what_malloc_has_given_out": _MALLOC,
    },
}
"""For each sanitizer the functions whose tests cannot hold below it. Nothing else belongs here: a
program of others that it breaks is started without it (clean_environment)."""


def sanitizer() -> str:
    """The one that is preloaded into this process, or ""."""
    found = re.search(r"lib([at]san)\.so", os.environ.get("LD_PRELOAD", ""))
    return found[1] if found else ""


def reason_to_skip(node: str) -> str:
    """Why the test is left out here, or ""."""
    reason = LEFT_OUT.get(sanitizer(), {}).get(node.partition("[")[0])
    return f"{sanitizer()}: {reason}" if reason else ""
