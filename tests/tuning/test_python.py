"""hardsock.tuning: the Python face."""

from __future__ import annotations

from pathlib import Path

import pytest
from support_tune import BINARY, Root, profile

from hardsock import tuning


@pytest.fixture(autouse=True)
def use_built_program(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARDSOCK_TUNE", str(BINARY))


def test_report_is_typed_and_complete(root: Root) -> None:
    root.listen(40000)
    report = tuning.check("busy-server", root=root.path)
    assert not report.as_wanted
    assert report.kernel == "6.18.0"
    assert {s.key for s in report.drift} >= {"net.core.somaxconn", "net.ipv4.tcp_migrate_req"}
    first = next(s for s in report.drift if s.key == "net.core.somaxconn")
    assert (first.current, first.wanted, first.constraint) == ("4096", "65535", "at_least")
    assert [f.id for f in report.findings] == ["ports-unreserved"]


def test_strict_may_name_classes(root: Root) -> None:
    (root.path / "proc/net/sockstat").write_text("TCP: inuse 5 orphan 0 tw 131000 alloc 6 mem 5\n")
    assert tuning.check(root=root.path).as_wanted
    assert tuning.check(root=root.path, strict=["critical"]).as_wanted
    assert not tuning.check(root=root.path, strict=["warning", "critical"]).as_wanted
    assert not tuning.check(root=root.path, strict=True).as_wanted
    with pytest.raises(tuning.TuningError, match="'all' is no class"):
        tuning.check(root=root.path, strict=["all"])


def test_a_setting_names_its_source_and_when_it_is_wrong(root: Root) -> None:
    root.put("vm/overcommit_memory", "0")
    (setting,) = [
        s for s in tuning.check("redis", root=root.path).drift if s.key == "vm.overcommit_memory"
    ]
    assert setting.source is not None
    assert setting.wrong_if is not None
    assert "PostgreSQL" in setting.wrong_if


def test_no_profile_is_the_baseline(root: Root) -> None:
    report = tuning.check(root=root.path)
    assert [p.name for p in report.profiles] == ["baseline"]
    assert report.as_wanted


def test_profile_may_be_a_path(root: Root, tmp_path: Path) -> None:
    file = profile(tmp_path / "p.yaml", "net.ipv4.tcp_sack: {value: 0}")
    assert [s.key for s in tuning.check(file, root=root.path).drift] == ["net.ipv4.tcp_sack"]


def test_missing_profile_is_an_error_with_the_exit_code() -> None:
    with pytest.raises(tuning.TuningError, match="no profile 'nonsense'") as caught:
        tuning.check("nonsense")
    assert caught.value.code == 3


def test_missing_program_is_an_error_that_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("HARDSOCK_TUNE")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("sysconfig.get_path", lambda _name: str(tmp_path))
    monkeypatch.setattr(tuning, "_FOR_ADMINISTRATORS", f"{tmp_path / 'local'}:{tmp_path / 'sbin'}")
    with pytest.raises(tuning.TuningError, match=r"not installed.*package hardsock-tune"):
        tuning.check()


def test_program_of_a_distribution_is_found_though_sbin_is_not_on_the_path(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert tuning._FOR_ADMINISTRATORS.split(":") == ["/usr/local/sbin", "/usr/sbin"]
    monkeypatch.delenv("HARDSOCK_TUNE")
    monkeypatch.setattr("sysconfig.get_path", lambda _name: str(tmp_path / "scripts"))
    monkeypatch.setattr(tuning, "_FOR_ADMINISTRATORS", f"{tmp_path / 'local'}:{tmp_path / 'sbin'}")
    for place in ("sbin", "path"):  # what the user's PATH has comes first
        monkeypatch.setenv("PATH", str(tmp_path / "path"))
        program = tmp_path / place / "hardsock-tune"
        program.parent.mkdir()
        program.touch(mode=0o755)
        assert tuning.find_program() == str(program)


def test_profile_that_looks_like_an_option_is_a_name() -> None:
    with pytest.raises(tuning.TuningError, match="no profile '--help'"):
        tuning.check("--help")


def test_profile_that_may_not_be_read_is_an_error_and_no_report(
    root: Root, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "program"
    program.write_text("#!/bin/sh\necho '{\"exit\": 4}'\necho denied >&2\nexit 4\n")
    program.chmod(0o755)
    monkeypatch.setenv("HARDSOCK_TUNE", str(program))
    with pytest.raises(tuning.TuningError, match="denied") as caught:
        tuning.check()
    assert caught.value.code == 4
