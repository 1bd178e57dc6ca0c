"""The suite below a preloaded sanitizer: what is left out, and what other programs start with."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from hardsock.lab.servers.process import clean_environment, free_port, running, work_directory
from support.sanitizers import LEFT_OUT

ROOT = Path(__file__).resolve().parents[2]
ALL = sorted(set().union(*LEFT_OUT.values()))


def run_pytest(*arguments: str, preload: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments]
    preloads = [one for one in (preload, os.environ.get("LD_PRELOAD")) if one]
    env = {**os.environ, "LD_PRELOAD": ":".join(preloads)}
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)


def test_every_test_that_is_left_out_exists() -> None:
    done = run_pytest("--collect-only", *ALL)
    assert done.returncode == 0, done.stdout + done.stderr


def test_one_that_does_not_exist_is_an_error() -> None:
    """The test above relies on it."""
    assert run_pytest("--collect-only", f"{ALL[0]}_of_old").returncode != 0


@pytest.mark.parametrize("name", sorted(LEFT_OUT))
def test_what_is_left_out_is_skipped_with_its_reason(name: str) -> None:
    # The loader warns of a library that is not there, and goes on without it.
    done = run_pytest("-rs", *LEFT_OUT[name], preload=f"/nowhere/lib{name}.so")
    assert done.returncode == 0, done.stdout
    assert " passed" not in done.stdout
    for reason in LEFT_OUT[name].values():
        assert reason in done.stdout


def test_a_server_of_python_keeps_what_is_preloaded_and_other_programs_do_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    preloads = [one for one in (os.environ.get("LD_PRELOAD"), "/nowhere/lib.so") if one]
    monkeypatch.setenv("LD_PRELOAD", ":".join(preloads))
    assert "LD_PRELOAD" not in clean_environment()
    port = free_port()
    with work_directory() as directory:
        argv = [sys.executable, "-m", "http.server", "--bind", "127.0.0.1", str(port)]
        with running("http.server", argv, port, directory) as server:
            environment = Path(f"/proc/{server.pid}/environ").read_bytes()
    assert b"/nowhere/lib.so" in environment
