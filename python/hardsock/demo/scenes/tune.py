"""hardsock-tune: the machine's kernel settings checked; a profile applied and taken back."""

from __future__ import annotations

import subprocess
import tempfile
import time
from pathlib import Path

from hardsock.demo.measure import LIMIT, duration
from hardsock.demo.scene import Bound, Outcome, Scene
from hardsock.lab import Namespace, Unavailable, inside
from hardsock.tuning import TuningError, check, find_program

_PROFILE = "busy-server"
_BY_HAND = {
    "net.ipv4.tcp_syncookies": "2",
    "net.ipv4.tcp_fin_timeout": "30",
    "net.ipv4.tcp_rmem": "4096 not-a-number",
}


def _write_by_hand() -> int:
    """Settings that stay changed after a file of three, the last of them wrong, was applied."""
    before = {key: inside.read_sysctl(key) for key in _BY_HAND}
    try:
        for key, value in _BY_HAND.items():
            inside.write_sysctl(key, value)
    except OSError:
        pass
    return sum(inside.read_sysctl(key) != value for key, value in before.items())


def _settings() -> dict[str, str]:
    found = {}
    for path in Path("/proc/sys/net").rglob("*"):
        try:
            found[str(path)] = path.read_text()
        except OSError:
            continue
    return found


def _run(*command: str) -> int:
    return subprocess.run(command, capture_output=True).returncode


def _apply_and_revert(program: str) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as state:
        before = _settings()
        # 10: all but the settings of the whole machine, which a namespace has no say in.
        applied = _run(program, "apply", _PROFILE, "--state", state)
        changed = _settings()
        reverted = _run(program, "revert", "--state", state)
        after = _settings()
    return {
        "changed": sum(changed[key] != value for key, value in before.items() if key in changed),
        "left over": sum(after[key] != value for key, value in before.items() if key in after),
        "failures": (applied not in (0, 10)) + (reverted != 0),
    }


def _stdlib() -> Outcome:
    with Namespace() as namespace:
        left = namespace.run(_write_by_hand, timeout=LIMIT)
    return Outcome(f"three values written by hand, the last is refused: {left} stay changed")


def _hardsock() -> Outcome:
    try:
        program = find_program()
        began = time.monotonic()
        report = check()
        took = time.monotonic() - began
    except TuningError as exc:
        raise Unavailable(str(exc)) from exc
    settings = sum(len(profile.settings) for profile in report.profiles)
    with Namespace() as namespace:
        measured = namespace.run(_apply_and_revert, program, timeout=LIMIT)
    return Outcome(
        f"check of this machine: {settings} settings, {len(report.drift)} differ, "
        f"{len(report.findings)} findings, {duration(took)}; {_PROFILE} in a namespace: "
        f"{measured['changed']} values changed, then reverted, {measured['left over']} left over",
        measured,
    )


SCENE = Scene(
    name="tune",
    title="Kernel settings: check, apply, take back",
    shows="A profile is a transaction; what it changed can be taken back exactly.",
    stdlib=_stdlib,
    hardsock=_hardsock,
    bounds=(
        Bound(of="changed", at_least=1),
        Bound(of="left over", at_most=0),
        Bound(of="failures", at_most=0),
    ),
)
