"""What a fleet installs: packages, a static program, units of systemd, and a DaemonSet."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from support_tune import DRIFT, OK, TOP, Root, tune

MAKE = ["make", "-s", "-C", str(TOP / "tuning")]
"""Of the tool alone; packages are targets of the top, too."""


def need(*names: str) -> None:
    """Fail where everything should be there, skip elsewhere."""
    for name in names:
        if shutil.which(name) is None:
            assert os.environ.get("CI") != "true", f"{name} is not installed"
            pytest.skip(f"{name} is not installed")


def run(*command: object, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        list(map(str, command)), capture_output=True, text=True, env={**os.environ, **env}
    )


def build(target: str, out: Path) -> Path:
    done = run("make", "-s", "-C", TOP, target, f"PACKAGES={out}")
    assert done.returncode == OK, done.stderr
    (package,) = out.iterdir()
    return package


@pytest.mark.slow
def test_the_static_program_needs_nothing_of_the_machine(root: Root, tmp_path: Path) -> None:
    need("musl-gcc", "readelf")
    program = build("static", tmp_path / "out")
    assert "There is no dynamic section" in run("readelf", "-d", program).stdout
    assert "INTERP" not in run("readelf", "-l", program).stdout
    good = run(program, "check", "--strict", "--root", root.path)
    assert (good.returncode, good.stderr) == (OK, "")
    root.put("net/ipv4/tcp_sack", "0")
    assert run(program, "check", "--root", root.path).returncode == DRIFT
    bad = tmp_path / "p.yaml"
    bad.write_text("name: [\n")
    assert run(program, "lint", bad).stderr == tune("lint", bad).stderr
    assert run(program, "list", "-f", "tsv").stdout == tune("list", "-f", "tsv").stdout


@pytest.mark.slow
def test_the_program_of_a_wheel_needs_libc_alone(tmp_path: Path) -> None:
    """auditwheel replaces a program that needs a copied library by a Python script."""
    need("readelf", "cc")
    if "/" not in run("cc", "-print-file-name=libyaml.a").stdout:
        pytest.skip("this distribution has no archive of libyaml")
    assert '"YAML_STATIC=1"' in (TOP / "setup.py").read_text()
    done = run(*MAKE, "YAML_STATIC=1", f"OUT={tmp_path}/tune")
    assert done.returncode == OK, done.stderr
    needed = re.findall(
        r"NEEDED.*\[(.*)\]", run("readelf", "-d", tmp_path / "tune/hardsock-tune").stdout
    )
    assert [name for name in needed if not name.startswith(("libc.", "ld-"))] == []


@pytest.mark.slow
def test_the_debian_package_is_clean_and_holds_what_is_installed(tmp_path: Path) -> None:
    need("dpkg-deb", "dpkg-shlibdeps", "lintian")
    package = build("deb", tmp_path / "out")
    done = run("lintian", "--fail-on", "warning,error", "--allow-root", package)
    assert (done.returncode, done.stdout) == (OK, "")
    fields = run("dpkg-deb", "-f", package).stdout
    assert "Depends: libc6" in fields
    assert "libyaml-0-2" in fields
    unpacked = tmp_path / "root"
    run("dpkg-deb", "-x", package, unpacked)
    program = unpacked / "usr/sbin/hardsock-tune"
    assert run(program, "--version").returncode == OK
    unit = (unpacked / "usr/lib/systemd/system/hardsock-tune-check.service").read_text()
    assert "ExecStart=/usr/sbin/hardsock-tune check" in unit
    assert (unpacked / "etc/hardsock/profiles").is_dir()


@pytest.mark.slow
def test_two_debian_packages_of_one_tree_are_the_same(tmp_path: Path) -> None:
    need("dpkg-deb", "dpkg-shlibdeps")
    first, second = (build("deb", tmp_path / name).read_bytes() for name in ("1", "2"))
    assert first == second


@pytest.mark.slow
def test_a_package_of_an_unpacked_archive_is_as_old_as_its_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    need("dpkg-deb", "dpkg-shlibdeps")
    monkeypatch.delenv("SOURCE_DATE_EPOCH", raising=False)
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "none"))
    first_line = build("deb", tmp_path / "out").read_bytes().split(b"\n")[1]
    assert int(first_line.split()[1]) == int((TOP / "pyproject.toml").stat().st_mtime)


@pytest.mark.slow
def test_the_rpm_is_clean_and_holds_what_is_installed(tmp_path: Path) -> None:
    need("rpmbuild", "rpm", "rpmlint")
    package = build("rpm", tmp_path / "out")
    done = run("rpmlint", "-c", TOP / "tuning/packaging/rpmlint.toml", package)
    assert re.search(r" 0 errors, 0 warnings", done.stdout), done.stdout
    files = run("rpm", "-qlp", package).stdout.split()
    assert "/usr/sbin/hardsock-tune" in files
    assert "/usr/lib/systemd/system/hardsock-tune-check.timer" in files
    assert "libyaml" in run("rpm", "-qp", "--requires", package).stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    prefix = tmp_path_factory.mktemp("prefix")
    assert run(*MAKE, "install", f"PREFIX={prefix}").returncode == OK
    return prefix


def test_systemd_finds_nothing_wrong_with_the_units(installed: Path) -> None:
    need("systemd-analyze")
    units = installed / "lib/systemd/system"
    done = run(
        "systemd-analyze", "verify", *sorted(units.iterdir()),
        SYSTEMD_UNIT_PATH=f"{units}:", MANPATH=str(installed / "share/man"),
    )  # fmt: skip
    said = [line for line in done.stderr.splitlines() if "hardsock" in line and "man " not in line]
    assert said == []


def test_the_unit_runs_a_check_that_this_program_understands(
    installed: Path, root: Root, tmp_path: Path
) -> None:
    text = (installed / "lib/systemd/system/hardsock-tune-check.service").read_text()
    line = re.search(r"^ExecStart=(.*)$", text, re.MULTILINE)
    assert line is not None
    for name, value in (*re.findall(r"^Environment=(\w+)=(.*)$", text, re.MULTILINE),
                        ("{STATE_DIRECTORY}", str(tmp_path))):  # fmt: skip
        line = re.match(r"(.*)", line[1].replace(f"${name}", value))
        assert line is not None
    program, *args = shlex.split(line[1])
    assert program == f"{installed}/sbin/hardsock-tune"
    assert root.tune(*args).returncode == OK
    assert (tmp_path / "history").exists()
    (root.path / "proc/net/sockstat").write_text("TCP: inuse 5 orphan 0 tw 131000 alloc 6 mem 5\n")
    assert root.tune(*args).returncode == DRIFT, "a warning fails the unit"


def objects(text: str) -> list[dict[str, Any]]:
    return [one for one in yaml.safe_load_all(text) if one]


def test_the_daemon_set_is_unprivileged_and_its_check_runs(root: Root, tmp_path: Path) -> None:
    (got,) = objects((TOP / "tuning/kubernetes/daemonset.yaml").read_text())
    pod = got["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert not any("hostPath" in volume for volume in pod["volumes"])
    (container,) = pod["containers"]
    context = container["securityContext"]
    assert context["allowPrivilegeEscalation"] is False
    assert context["readOnlyRootFilesystem"] is True
    assert context["capabilities"] == {"drop": ["ALL"]}
    # One round of its loop, with its own configuration, by a shell.
    base = yaml.safe_load((TOP / "tuning/kubernetes/kustomization.yaml").read_text())
    literals = base["configMapGenerator"][0]["literals"]
    env = dict(literal.split("=", 1) for literal in literals)
    script = container["args"][0].replace("/state", str(tmp_path)).replace("sleep", "exit #")
    wrapper = tmp_path / "hardsock-tune"
    program = os.environ.get("HARDSOCK_TUNE", TOP / "build/tune/release/hardsock-tune")
    wrapper.write_text(f'#!/bin/sh\nexec {program} "$@" --root {root.path}\n')
    wrapper.chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    round_ = ["sh", "-c", script]
    assert run(*round_, PATH=path, **env).stderr == ""
    assert (tmp_path / "as-wanted").exists()
    root.put("net/ipv4/tcp_sack", "0")
    assert "tcp_sack" in run(*round_, PATH=path, **env).stdout
    assert not (tmp_path / "as-wanted").exists()


def test_the_waivers_of_the_base_are_read(root: Root) -> None:
    file = TOP / "tuning/kubernetes/waivers.yaml"
    assert root.tune("check", "--waivers", file).returncode == OK


def test_kustomize_builds_the_base() -> None:
    need("kubectl")
    done = run("kubectl", "kustomize", TOP / "tuning/kubernetes")
    assert done.returncode == OK, done.stderr
    kinds = sorted(one["kind"] for one in objects(done.stdout))
    assert kinds == ["ConfigMap", "ConfigMap", "DaemonSet"]
