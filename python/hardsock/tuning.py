"""Kernel settings against a profile, by way of the ``hardsock-tune`` program.

    report = hardsock.tuning.check("busy-server")
    for setting in report.drift:
        print(setting.key, setting.current, "wanted", setting.wanted, setting.why)

Only reads. Changing settings is for people and pipelines: ``hardsock-tune apply``.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sysconfig
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, TypeVar

__all__ = ["Finding", "ProfileReport", "Report", "Setting", "TuningError", "check", "find_program"]

_ANSWERED = (0, 1, 4)
"""Exit codes that come with a report: as wanted, drift, something could not be read."""
_FOR_ADMINISTRATORS = "/usr/local/sbin:/usr/sbin"


class TuningError(Exception):
    """The program is missing, or could not answer.

    Attributes:
        code: Its exit code, see ``hardsock-tune --help``; None if it could not be run.
    """

    def __init__(self, message: str, code: int | None = None) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True)
class Setting:
    """One setting that a profile speaks of.

    Attributes:
        key: The kernel's name for it, as sysctl(8) has it, or where it stands otherwise.
        status: ``ok``, ``drift``, ``missing``, ``global``, ``denied``, ``skipped``, ``remark`` or
            ``waived``.
        current: The value now; ``None``: it cannot be read.
        wanted: The nearest value that meets the constraint; ``None``: nothing is to be set.
        constraint: How it was asked for: ``value``, ``at_least``, ``range``, ...
        why: What the profile says for it; ``None``: nothing.
        risk: What may go wrong with it; ``None``: nothing is known.
        scope: For whom it is: ``namespace``, ``global``, ...; ``None``: not known.
        unit: Of its numbers; ``None``: they have none, or it is not known.
        acts: When a change is felt, and by whom; ``None``: not known.
        reason: For everything but ``ok`` and ``drift``: why.
        writable: Whether it differs and this process may write it.
        source: Who asks for it; ``None``: not said.
        wrong_if: When it should not be set; ``None``: not said.
    """

    key: str
    status: str
    current: str | None
    wanted: str | None
    constraint: str
    why: str | None
    risk: str | None
    scope: str | None
    unit: str | None
    acts: str | None
    reason: str | None
    writable: bool
    source: str | None
    wrong_if: str | None


@dataclass(frozen=True)
class ProfileReport:
    """A profile against this machine.

    Attributes:
        name: The profile's name.
        source: Where it was read: a path, or ``built-in:`` and its name.
        summary: What it is for, in a sentence.
        settings: All of its settings, in its order.
    """

    name: str
    source: str
    summary: str
    settings: tuple[Setting, ...]


@dataclass(frozen=True)
class Finding:
    """Something that the running machine shows beyond its settings.

    Attributes:
        id: What kind it is: stable, for lists of what is accepted.
        severity: ``info``, ``warning`` or ``critical``.
        what: What was seen, in a sentence.
        advice: What to do about it.
        subject: What it is about, where there can be several of a kind.
        waived: Until when it is accepted on this host, and why.
    """

    id: str
    severity: str
    what: str
    advice: str
    subject: str | None
    waived: str | None


@dataclass(frozen=True)
class Report:
    """The answer of ``hardsock-tune check``.

    Attributes:
        kernel: The release of the kernel, as uname(2) has it.
        first_namespace: False in a container or another network namespace: global keys are not
            visible there.
        profiles: Those that were asked for, each against this machine.
        findings: What was seen beyond settings.
        verdict: ``"as wanted"`` or ``"drift"``: the exit code in words.
        exit_code: 0: as wanted; 1: something differs.
    """

    kernel: str
    first_namespace: bool
    profiles: tuple[ProfileReport, ...]
    findings: tuple[Finding, ...]
    verdict: str
    exit_code: int

    @property
    def as_wanted(self) -> bool:
        """Whether everything that could be compared is as wanted."""
        return self.exit_code == 0

    @property
    def drift(self) -> tuple[Setting, ...]:
        """The settings that differ."""
        return tuple(s for p in self.profiles for s in p.settings if s.status == "drift")


def find_program() -> str:
    """The path of ``hardsock-tune``: ``$HARDSOCK_TUNE``, beside this Python's scripts, or on PATH.

    Distributions install it for administrators, in directories that an ordinary user's PATH often
    does not have; those are looked at last.

    Raises:
        TuningError: If there is none.
    """
    chosen = os.environ.get("HARDSOCK_TUNE")
    if chosen:
        return chosen
    path = os.environ.get("PATH", os.defpath)
    for directories in (sysconfig.get_path("scripts"), path, _FOR_ADMINISTRATORS):
        found = shutil.which("hardsock-tune", path=directories)
        if found is not None:
            return found
    raise TuningError(
        f"hardsock-tune is not installed: it is not in {sysconfig.get_path('scripts')}, on PATH, or in "
        f"{_FOR_ADMINISTRATORS.replace(':', ' or ')}. The wheel has it; of distributions the package "
        "hardsock-tune; of a checkout `make -C tuning install`"
    )


def check(
    *profiles: str | os.PathLike[str],
    netns: str | int | None = None,
    root: str | os.PathLike[str] | None = None,
    strict: bool | Sequence[str] = False,
    timeout: float = 10.0,
) -> Report:
    """Compare this machine with *profiles* (default: baseline); reads only.

    Args:
        profiles: Names, or paths with a slash.
        netns: Another network namespace: a name of ``ip netns``, a process id, or a path.
        root: A directory instead of ``/``.
        strict: Let missing keys and findings count; or only those of these classes:
            ``missing``, ``warning``, ``critical``, ``waived``.
        timeout: Seconds for the program to answer.

    Raises:
        TuningError: If there is no answer, for example for a profile that does not exist, or none
            in time: nothing is left running. Scopes and tokens do not reach it.
    """
    command = [find_program(), "check", "--format", "json"]
    if netns is not None:
        command += ["--netns", str(netns)]
    if root is not None:
        command += ["--root", os.fspath(root)]
    if strict is True:
        command.append("--strict")
    elif strict:
        command.append("--strict=" + ",".join(strict))
    command += ["--", *(os.fspath(p) for p in profiles)]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise TuningError(f"{command[0]}: {exc}") from exc
    data = json.loads(done.stdout) if done.returncode in _ANSWERED and done.stdout else {}
    if "profiles" not in data:
        message = done.stderr.decode(errors="replace").strip()
        raise TuningError(message or f"exit code {done.returncode}", done.returncode)
    return _report(data)


_Part = TypeVar("_Part", Setting, Finding)


def _pick(cls: type[_Part], data: dict[str, Any]) -> _Part:
    """Make *cls* from the fields that it knows; a newer program may send more."""
    return cls(**{field.name: data[field.name] for field in fields(cls)})


def _report(data: dict[str, Any]) -> Report:
    return Report(
        kernel=data["kernel"],
        first_namespace=data["first_namespace"],
        profiles=tuple(
            ProfileReport(
                name=p["name"],
                source=p["source"],
                summary=p["summary"],
                settings=tuple(_pick(Setting, s) for s in p["settings"]),
            )
            for p in data["profiles"]
        ),
        findings=tuple(_pick(Finding, f) for f in data["findings"]),
        verdict=data["verdict"],
        exit_code=data["exit"],
    )
