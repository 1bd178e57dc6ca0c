"""The Ansible role and module: check mode, diff mode, a second run, and taking it back."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from support_tune import BINARY, Root

from hardsock.lab import Namespace
from support.require import need_module

ROLES = Path(__file__).resolve().parent.parent.parent / "tuning/ansible"
PLAYBOOK = Path(sys.executable).parent / "ansible-playbook"
KEEPALIVE = "/proc/sys/net/ipv4/tcp_keepalive_time"

need_module("ansible")


def play(folder: str, settings: dict[str, Any], *options: str) -> dict[str, Any]:
    """Run the role on this host; return its task's result, with the play's exit code as ``code``."""
    home = Path(folder)
    book = [
        {
            "hosts": "localhost",
            "connection": "local",
            "gather_facts": False,
            "vars": {"ansible_python_interpreter": sys.executable},
            "roles": [
                {
                    "role": "hardsock_tune",
                    "hardsock_tune_executable": str(BINARY),
                    "hardsock_tune_state_directory": str(home / "state"),
                    **{f"hardsock_tune_{name}": value for name, value in settings.items()},
                }
            ],
        }
    ]
    (home / "play.yml").write_text(json.dumps(book))
    environment = {
        "PATH": os.environ["PATH"],
        "LC_ALL": "C.UTF-8",
        "HOME": folder,
        "ANSIBLE_HOME": folder,
        "ANSIBLE_ROLES_PATH": str(ROLES),
        "ANSIBLE_LOCALHOST_WARNING": "False",
        "ANSIBLE_INVENTORY_UNPARSED_WARNING": "False",
        "ANSIBLE_CALLBACK_PLUGINS": str(Path(__file__).parent / "ansible_callback"),
    }
    environment["ANSIBLE_STDOUT_CALLBACK"] = "results"
    done = subprocess.run(
        [PLAYBOOK, "play.yml", *options],
        cwd=home,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    assert lines, done.stdout + done.stderr
    result: dict[str, Any] = json.loads(lines[-1])
    result["code"] = done.returncode
    return result


def keepalive() -> str:
    return Path(KEEPALIVE).read_text().strip()


def in_a_namespace(folder: str) -> list[Any]:
    """Check mode, apply, again, revert: what each returned, and the setting after it."""
    seen: list[Any] = [keepalive()]
    want = {"profiles": ["container"], "state": "applied", "allow_partial": True}
    for settings, options in (
        (want, ("--check", "--diff")),
        (want, ("--diff",)),
        (want, ()),
        ({"state": "reverted"}, ("--check",)),
        ({"state": "reverted"}, ()),
        ({"state": "reverted"}, ()),
    ):
        result = play(folder, settings, *options)
        seen.append((result, keepalive()))
    return seen


def test_role_applies_once_and_reverts_once_in_a_namespace(ns: Namespace, tmp_path: Path) -> None:
    before, checked, applied, again, would_revert, reverted, nothing = ns.run(
        in_a_namespace, str(tmp_path), timeout=300
    )
    assert before == "7200"
    assert [checked[0]["changed"], checked[1]] == [True, "7200"]
    assert "net.ipv4.tcp_keepalive_time = 7200" in checked[0]["diff"]["before"]
    assert "net.ipv4.tcp_keepalive_time = 300" in checked[0]["diff"]["after"]
    assert [applied[0]["changed"], applied[1]] == [True, "300"]
    assert applied[0]["diff"] == checked[0]["diff"]
    assert [again[0]["changed"], again[1]] == [False, "300"]
    assert [would_revert[0]["changed"], would_revert[1]] == [True, "300"]
    assert [reverted[0]["changed"], reverted[1]] == [True, "7200"]
    assert [nothing[0]["changed"], nothing[1]] == [False, "7200"]


def test_role_persists_once_and_removes_what_it_wrote(root: Root, tmp_path: Path) -> None:
    settings = {"profiles": ["container"], "root": str(root.path), "allow_partial": True}
    (root.path / "etc").mkdir()
    file = root.path / "etc/sysctl.d/90-hardsock.conf"
    checked = play(str(tmp_path), settings, "--check")
    assert [checked["changed"], file.exists()] == [True, False]
    first = play(str(tmp_path), settings)
    assert first["code"] == 0, first
    assert [first["changed"], file.exists()] == [True, True]
    assert not play(str(tmp_path), settings)["changed"]
    assert not play(str(tmp_path), settings, "--check")["changed"]
    assert play(str(tmp_path), {**settings, "state": "reverted"})["changed"]
    assert not file.exists()
    assert not play(str(tmp_path), {**settings, "state": "reverted"})["changed"]


def test_refused_profile_fails_the_play_with_the_reason(root: Root, tmp_path: Path) -> None:
    settings = {"profiles": ["no-such-profile"], "root": str(root.path), "state": "applied"}
    failed = play(str(tmp_path), settings)
    assert failed["code"] != 0
    assert "no-such-profile" in failed["msg"]


def test_a_state_without_profiles_is_refused_by_name(root: Root, tmp_path: Path) -> None:
    failed = play(str(tmp_path), {"profiles": [], "root": str(root.path), "state": "applied"})
    assert failed["code"] != 0
    assert "profiles must name at least one profile for state=applied" in failed["msg"]
