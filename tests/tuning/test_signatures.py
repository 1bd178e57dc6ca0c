"""Signed profiles: with a list of signers, nobody else's profile is taken."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from support_tune import BINARY, DRIFT, OK, PERMISSION, Root, profile, tune

if shutil.which("ssh-keygen") is None:
    pytest.skip("ssh-keygen is not installed", allow_module_level=True)

NAMESPACE = "hardsock-tune-profile"


class Signer:
    def __init__(self, folder: Path, name: str) -> None:
        self.name, self.key = name, folder / f"{name}.key"
        keygen("-q", "-t", "ed25519", "-N", "", "-C", name, "-f", self.key)

    def line(self, options: str = f'namespaces="{NAMESPACE}"') -> str:
        kind, key, _ = self.key.with_suffix(".key.pub").read_text().split(" ")
        return f"{self.name}@fleet {options} {kind} {key}\n"

    def sign(self, file: Path, namespace: str = NAMESPACE) -> None:
        Path(f"{file}.sig").unlink(missing_ok=True)
        keygen("-Y", "sign", "-q", "-n", namespace, "-f", self.key, file)


def keygen(*args: object) -> None:
    subprocess.run(["ssh-keygen", *map(str, args)], check=True, capture_output=True)


@pytest.fixture
def ours(tmp_path: Path) -> Signer:
    return Signer(tmp_path, "ours")


@pytest.fixture
def site(tmp_path: Path) -> Path:
    return profile(tmp_path / "site.yaml", "net.ipv4.tcp_fin_timeout: {value: 33}")


@pytest.fixture
def trust(tmp_path: Path, ours: Signer) -> Path:
    file = tmp_path / "allowed_signers"
    file.write_text("# who may sign\n" + ours.line())
    return file


def test_a_profile_of_a_signer_is_taken_and_says_whose(
    root: Root, ours: Signer, site: Path, trust: Path
) -> None:
    ours.sign(site)
    got: Any = root.answer("check", site, "--trust", trust)
    assert (got["exit"], got["profiles"][0]["signer"]) == (DRIFT, "ours@fleet")
    assert "signed by ours@fleet" in root.tune("check", site, "--trust", trust).stdout
    assert root.tune("apply", site, "--trust", trust).returncode == OK
    assert root.get("net/ipv4/tcp_fin_timeout") == "33"
    assert root.answer("check", site)["profiles"][0]["signer"] is None, "nobody asked"


@pytest.mark.parametrize("command", ["check", "diff", "apply", "persist", "conflicts", "show"])
def test_an_unsigned_profile_is_refused_by_every_command(
    root: Root, site: Path, trust: Path, command: str
) -> None:
    before = root.tree()
    done = root.tune(command, site, "--trust", trust)
    assert (done.returncode, "no signature" in done.stderr) == (PERMISSION, True)
    assert root.tree() == before


def test_a_change_after_signing_is_found(root: Root, ours: Signer, site: Path, trust: Path) -> None:
    ours.sign(site)
    site.write_text(site.read_text().replace("33", "34"))
    done = root.tune("check", site, "--trust", trust)
    assert (done.returncode, "does not match its signature" in done.stderr) == (PERMISSION, True)


def test_somebody_else_may_not_sign(root: Root, tmp_path: Path, site: Path, trust: Path) -> None:
    Signer(tmp_path, "other").sign(site)
    done = root.tune("check", site, "--trust", trust)
    assert (done.returncode, "signers that are allowed" in done.stderr) == (PERMISSION, True)


def test_a_signature_for_another_purpose_does_not_count(
    root: Root, ours: Signer, site: Path, trust: Path
) -> None:
    ours.sign(site, namespace="file")
    assert root.tune("check", site, "--trust", trust).returncode == PERMISSION
    trust.write_text(ours.line(options=""))
    assert root.tune("check", site, "--trust", trust).returncode == PERMISSION


def test_a_signer_whose_time_is_over_does_not_count(
    root: Root, ours: Signer, site: Path, trust: Path
) -> None:
    ours.sign(site)
    trust.write_text(ours.line(options='valid-before="20200101"'))
    assert root.tune("check", site, "--trust", trust).returncode == PERMISSION


@pytest.mark.parametrize("junk", ["", "junk", "-----BEGIN SSH SIGNATURE-----\nAAAA\n"])
def test_junk_is_no_signature(root: Root, site: Path, trust: Path, junk: str) -> None:
    Path(f"{site}.sig").write_text(junk)
    assert root.tune("check", site, "--trust", trust).returncode == PERMISSION


def test_the_list_of_the_machine_counts_without_being_asked_for(
    root: Root, ours: Signer, site: Path, trust: Path
) -> None:
    folder = root.path / "etc/hardsock"
    folder.mkdir(parents=True)
    shutil.copy(trust, folder / "allowed_signers")
    assert root.tune("check", site).returncode == PERMISSION
    ours.sign(site)
    assert root.tune("check", site).returncode == DRIFT
    assert root.tune("check", "baseline").returncode == OK, "built in"
    (folder / "allowed_signers").chmod(0o666)
    assert root.tune("check", site).returncode == PERMISSION, "a list for everybody to write"


def test_what_a_signed_profile_extends_must_be_signed_too(
    root: Root, ours: Signer, tmp_path: Path, trust: Path
) -> None:
    folder = root.path / "etc/hardsock/profiles"
    folder.mkdir(parents=True)
    parent = profile(folder / "parent.yaml", "net.ipv4.tcp_fin_timeout: {value: 33}")
    child = tmp_path / "child.yaml"
    child.write_text("name: child\nsummary: s\nextends: parent\n")
    ours.sign(child)
    assert root.tune("check", child, "--trust", trust).returncode == PERMISSION
    ours.sign(parent)
    assert root.tune("check", child, "--trust", trust).returncode == DRIFT


def test_lint_and_judge_read_unsigned_files(site: Path, trust: Path) -> None:
    assert tune("lint", site, "--trust", trust).returncode == OK
    assert tune("judge", site, "--trust", trust).returncode == OK


def test_a_list_that_is_not_there_trusts_nobody(root: Root, site: Path, tmp_path: Path) -> None:
    done = root.tune("check", site, "--trust", tmp_path / "none")
    assert (done.returncode, "allowed signers" in done.stderr) == (PERMISSION, True)


@pytest.mark.parametrize(
    "fault", ["memfd_create:error=ENOMEM", "clone:error=EAGAIN",
              "memfd_create:error=EMFILE:when=2", "wait4:error=ECHILD"]
)  # fmt: skip
def test_without_ssh_keygen_nothing_is_trusted(
    root: Root, ours: Signer, site: Path, trust: Path, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ASAN_OPTIONS", "detect_leaks=0")  # It cannot look under strace.
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    ours.sign(site)
    traced = ["strace", "-qq", "-o", "/dev/null", "-e", f"inject={fault}"]
    command = [BINARY, "check", site, "--trust", trust, "--root", root.path]
    done = subprocess.run([*traced, *map(str, command)], capture_output=True, text=True)
    assert done.returncode == PERMISSION, done.stderr
    assert "ssh-keygen could not be run" in done.stderr or "is not signed" in done.stderr
