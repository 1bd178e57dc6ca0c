"""`make check-kernels`: what it makes of what a kernel said, and that it fails when it should.

No kernel is booted here: a program in the place of qemu says what a guest would.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from support_tune import BINARY, TOP

sys.path.insert(0, str(TOP / "tests/kernels"))

import agreement
import boot
import fetch
import observe
import seen

KERNEL = "6.12.117-test"


def kernel(tmp_path: Path, *records: str, modules: str = "") -> Path:
    """A kernel's folder with its report."""
    folder = tmp_path / KERNEL
    folder.mkdir()
    (folder / "modules").write_text(modules)
    text = "".join(f"{record}\n" for record in (f"KERNEL|{KERNEL}|480000", *records))
    (folder / "report.txt").write_text(text)
    return folder


def key(path: str, value: str, mode: str = "644", child: str | None = "644") -> list[str]:
    """The records of one setting, as guest.sh writes them."""
    records = [f"KEY|first|{path}|{mode}|{value}"]
    return records if child is None else [*records, f"KEY|child|{path}|{child}|{value}"]


SOMAXCONN = "net/core/somaxconn"


def test_records_are_read_with_what_each_namespace_may_do(tmp_path: Path) -> None:
    folder = kernel(
        tmp_path,
        *key(SOMAXCONN, "4096"),
        *key("net/core/rmem_max", "212992", child=None),
        "KEY|modules|net/netfilter/nf_conntrack_max|644|4096",
        "KEY|child|net/netfilter/nf_conntrack_max|444|4096",
        "KEY|first|net/ipv4/conf/eth7/rp_filter|644|1",
        "KEY|first|kernel/core_pattern|644||/bin/sh %p",
        f"RANGE|{SOMAXCONN}|0|ok",
        f"RANGE|{SOMAXCONN}|-1|refused",
        f"RANGE|{SOMAXCONN}|2147483648|became 7",
        "COPY|net/ipv6/conf/all/forwarding|net/ipv6/conf/lo/forwarding|1",
        "RULE|net/ipv4/conf/*/proxy_arp|1|0|on",
        "STATUS|apply baseline|0",
        "OUTPUT|version|0.1",
        "DIFFERS|baseline|-net.x",
        "DONE|9.5",
        modules="nf_conntrack.ko\nnf-defrag-ipv4.ko\n",
    )
    report = observe.read(folder)
    assert (report.kernel, report.whole) == (KERNEL, True)
    assert report.modules == {"nf_conntrack", "nf_defrag_ipv4"}
    one = report.settings[SOMAXCONN]
    assert (one.default, one.child, one.module, one.writable) == ("4096", "write", False, True)
    assert (one.taken, one.refused, one.clamped) == ([0], [-1], ["2147483648:7"])
    conntrack = report.settings["net/netfilter/nf_conntrack_max"]
    assert (conntrack.child, conntrack.module) == ("read", True)
    assert report.settings["net/core/rmem_max"].child == "absent"
    assert report.settings["kernel/core_pattern"].default == "|/bin/sh %p"
    assert "net/ipv4/conf/eth7/rp_filter" not in report.settings
    assert report.rules == [observe.Ruled("net/ipv4/conf/*/proxy_arp", 1, 0, True)]
    assert report.copies == {("net/ipv6/conf/all/forwarding", "net/ipv6/conf/lo/forwarding")}
    assert (report.statuses, report.differences) == ({"apply baseline": 0}, ["baseline|-net.x"])


def test_a_report_that_breaks_off_is_not_whole(tmp_path: Path) -> None:
    assert not observe.read(kernel(tmp_path, "DONE|1", *key(SOMAXCONN, "4096"))).whole


def answers(folder: Path, path: str) -> dict[str, str]:
    """Question and what differs, of one setting."""
    return {a.question: a.differs for a in agreement.compare(BINARY, [folder]) if a.key == path}


def test_a_kernel_that_is_as_the_entry_says_agrees(tmp_path: Path) -> None:
    records = [f"RANGE|{SOMAXCONN}|{n}|ok" for n in (0, 1, 65535)]
    folder = kernel(tmp_path, *key(SOMAXCONN, "4096"), *records)
    want = dict.fromkeys(("existence", "default", "mode", "scope", "range"), "")
    assert answers(folder, SOMAXCONN) == want


COPY = "COPY|net/ipv4/conf/all/{0}|net/ipv4/conf/{1}/{0}|1"


@pytest.mark.parametrize(
    ("path", "records", "question", "said"),
    [
        ("net/core/made_up", key("net/core/made_up", "1"), "existence", "there, but not known"),
        ("net/ipv4/tcp_plb_enabled", [], "existence", "not there"),
        (
            "net/ipv4/tcp_tx_skb_cache",
            key("net/ipv4/tcp_tx_skb_cache", "0", child=None),
            "existence",
            "there, but gone by its entry",
        ),
        (
            "net/ipv4/tcp_tw_reuse_delay",
            key("net/ipv4/tcp_tw_reuse_delay", "1000"),
            "existence",
            "there, but not yet there by its entry",
        ),
        (SOMAXCONN, key(SOMAXCONN, "128"), "default", "128, not 4096"),
        (SOMAXCONN, key(SOMAXCONN, "4096", mode="444"), "mode", "read-only, which its entry"),
        (
            SOMAXCONN,
            key(SOMAXCONN, "4096", child=None),
            "scope",
            "absent in a child namespace, but namespace by its entry",
        ),
        (
            "net/core/netdev_max_backlog",
            key("net/core/netdev_max_backlog", "1000"),
            "scope",
            "written in a child namespace, but global by its entry",
        ),
        (
            "net/ipv4/tcp_sack",
            [*key("net/ipv4/tcp_sack", "1"), "RANGE|net/ipv4/tcp_sack|1|refused"],
            "range",
            "1 refused, but 0 to 1 by its entry",
        ),
        (
            "net/ipv4/tcp_sack",
            [*key("net/ipv4/tcp_sack", "1"), "RANGE|net/ipv4/tcp_sack|1|became 0"],
            "range",
            "1 became 0",
        ),
        (
            "net/ipv4/conf/all/rp_filter",
            [
                *key("net/ipv4/conf/all/rp_filter", "0"),
                "RULE|net/ipv4/conf/*/rp_filter|1|0|off",
            ],
            "rule",
            "conf.all 1 with 0 is off",
        ),
        (
            "net/ipv4/conf/all/rp_filter",
            [*key("net/ipv4/conf/all/rp_filter", "0"), COPY.format("rp_filter", "lo")],
            "rule",
            "a write to conf.all reaches interfaces",
        ),
        (
            "net/ipv4/conf/all/forwarding",
            [*key("net/ipv4/conf/all/forwarding", "0"), COPY.format("forwarding", "all")],
            "rule",
            "a write to conf.all leaves interfaces",
        ),
    ],
)  # fmt: skip
def test_each_kind_of_contradiction_is_found(
    tmp_path: Path, path: str, records: list[str], question: str, said: str
) -> None:
    assert said in answers(kernel(tmp_path, *records), path)[question]


@pytest.mark.parametrize(
    ("path", "records", "question"),
    [
        # By memory, by the clock, of a module that is not loaded: nothing to compare.
        ("net/ipv4/tcp_mem", key("net/ipv4/tcp_mem", "1 2 3"), "default"),
        ("net/netfilter/nf_conntrack_max", [], "existence"),
        ("net/ipv4/tcp_fastopen_key", [], "existence"),
    ],
)
def test_what_words_alone_tell_is_no_question(
    tmp_path: Path, path: str, records: list[str], question: str
) -> None:
    assert question not in answers(kernel(tmp_path, *records), path)


def test_what_is_left_out_is_no_failure_where_it_is_told() -> None:
    runs = said_runs()
    left_out = {"apply cis": 1, "check cis": 1, "child apply container": 10}
    lines = [f"STATUS|{name}|{left_out.get(name, 0)}" for name in runs]
    told = [f"OUTPUT|{name}|x: left out: y" for name in left_out if "apply" in name]
    assert boot.wrong_runs([*lines, *told]) == []
    assert boot.wrong_runs([*lines, told[0]]) == [
        "child apply container: 10, but nothing was left out"
    ]


@pytest.mark.parametrize(
    ("version", "child", "said"),
    [("5.10.0-32", None, ""), ("5.10.0-32", "644", "written in a child namespace, but global"),
     ("6.1.0-50", "644", ""), ("6.1.0-50", None, "absent in a child namespace, but namespace")],
)  # fmt: skip
def test_the_scope_of_older_kernels_is_verified(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str, child: str | None, said: str
) -> None:
    monkeypatch.setattr(sys.modules[__name__], "KERNEL", version)
    path = "net/ipv4/icmp_msgs_per_sec"
    folder = kernel(tmp_path, *key(path, "1000", child=child))
    got = answers(folder, path)["scope"]
    assert got.startswith(said), got
    assert bool(got) == bool(said), got


def test_what_the_note_or_the_rules_tell_agrees(tmp_path: Path) -> None:
    start = "net/ipv4/ip_unprivileged_port_start"
    folder = kernel(tmp_path, *key(start, "1024"), f"RANGE|{start}|65535|refused")
    assert answers(folder, start)["range"] == ""


def test_the_rule_of_every_kind_is_worked_out() -> None:
    words = {
        "the larger of conf.all": (0, 2, 2, 2),
        "the smaller of conf.all": (0, 0, 0, 2),
        "on where conf.all or conf.INTERFACE": (0, 1, 1, 1),
        "on only where conf.all": (0, 0, 0, 1),
        "conf.INTERFACE alone rules": (0, 2, 0, 2),
        "conf.all rules unless": (0, 2, 2, 2),
        "conf.all alone rules": (0, 0, 2, 2),
    }
    for sentence, want in words.items():
        got = tuple(agreement.combines(sentence, a, b) for a, b in ((0, 0), (0, 2), (2, 0), (2, 2)))
        assert got == want, sentence
    assert agreement.combines("something else", 1, 1) is None


def test_seen_yaml_has_what_was_shown_what_agrees_and_what_differs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    records = [*key(SOMAXCONN, "4096"), *key("net/ipv4/tcp_sack", "0")]
    seen.main([kernel(tmp_path, *records)], BINARY)
    text = capsys.readouterr().out
    head, _, rest = text.partition("\nagreed:\n")
    agreed, _, differs = rest.partition("\ndiffers:\n")
    assert f'"net.core.somaxconn": "4096 ({KERNEL.split("-")[0]})"' in head
    assert '"net.core.somaxconn": "existence, default, mode, scope on 6.12.117"' in agreed
    assert '"net.ipv4.tcp_sack": "existence, mode, scope on 6.12.117"' in agreed
    assert '"net.ipv4.tcp_sack": "6.12.117: default: 0, not 1"' in differs


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A kernel's folder, and a qemu that prints the file `says` of the current folder."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in boot.PROGRAMS:
        (programs / name).write_text("#!/bin/sh\n:\n")
    (programs / "qemu-system-x86_64").write_text(f"#!/bin/sh\ncat {tmp_path}/says\n")
    for file in programs.iterdir():
        file.chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")
    monkeypatch.setenv("HARDSOCK_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / KERNEL
    folder.mkdir()
    (folder / "modules").write_text("")
    (folder / "vmlinuz").write_text("")
    return folder


def said_runs() -> list[str]:
    """The names of what the guest runs."""
    runs = [f"{what} {name}" for name in boot.profiles() for what in ("apply", "check", "revert")]
    runs += [f"child {what} container" for what in ("apply", "check", "revert")]
    return [*runs, "version", "check all", "explain", "child check", "child explain"]


def said(tmp_path: Path) -> list[str]:
    """What a whole run says, of a kernel that has every key as its entry says."""
    lines = [f"KERNEL|{KERNEL}|480000"]
    known = agreement.facts(BINARY, agreement.known_paths(BINARY))
    by_memory = agreement.computed(BINARY, observe.Report(KERNEL, memory=480000), known)
    for path, fact in known.items():
        if not path.startswith("net/") or fact.default is None or fact.module is not None:
            continue
        there = agreement.existence(fact, KERNEL, True, set()) == ""
        if there and fact.scope != "none":
            value = agreement.default_of(fact.default, path, KERNEL).replace("empty", "")
            value = by_memory.get(path, value)
            mode = "444" if fact.read_only else "644"
            child = {"namespace": mode, "global": None}.get(agreement.scope_of(fact, KERNEL), "444")
            lines += key(path, value, mode, child)
    trees = [*boot.profiles(), "child container", "container in a child"]
    lines += [f"SAME|{name}|{boot.SMALLEST}" for name in trees]
    return [*lines, *(f"STATUS|{name}|0" for name in said_runs()), "DONE|9.5"]


def run(machine: Path, lines: list[str], monkeypatch: pytest.MonkeyPatch) -> int:
    (machine.parent / "says").write_text("".join(f"{line}\r\n" for line in lines))
    monkeypatch.setattr(sys, "argv", ["boot.py", "--tune", str(BINARY), str(machine)])
    return boot.main()


def test_check_kernels_passes_when_everything_agrees(
    machine: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(machine, said(machine.parent), monkeypatch) == 0, capsys.readouterr().out
    table = (machine.parent / "findings.tsv").read_text().splitlines()
    assert len(table) > 1000
    assert all(line.split("\t")[3] == "agrees" for line in table)


@pytest.mark.parametrize(
    ("pattern", "instead", "told"),
    [
        (r"^DONE.*", "NOTE|cut off", "did not come to its end"),
        (r"^SAME\|baseline\|.*", "DIFFERS|baseline|-/proc/sys/net/x:1", "DIFFERS|baseline"),
        (r"^SAME\|baseline\|.*", "SAME|baseline|12", "settings trees restored"),
        (r"^SAME\|child container\|.*", "SAME|child container|12", "settings trees restored"),
        (r"^SAME\|child container\|.*", "DIFFERS|child container|-x", "DIFFERS|child container"),
        (r"^STATUS\|apply baseline\|0", "STATUS|apply baseline|5", "apply baseline: 5, not 0 or 1"),
        (r"^STATUS\|apply baseline\|0", "STATUS|apply baseline|1", "nothing was left out"),
        (r"^STATUS\|check baseline\|0", "STATUS|check baseline|1", "check baseline: 1, not 0"),
        (r"^STATUS\|revert redis\|0", "STATUS|revert redis|9", "revert redis: 9, not 0"),
        (r"^STATUS\|revert redis\|0", "NOTE|x", "revert redis: was not run"),
        (r"^STATUS\|child revert container\|0", "NOTE|x", "child revert container: was not run"),
        (r"^(KEY\|first\|net/core/somaxconn\|644\|).*", r"\g<1>7", "default: 7, not 4096"),
        (r"^(KEY\|first\|net/ipv4/tcp_max_tw_buckets\|644\|).*", r"\g<1>7", "7, not 2048 by its"),
        (r"^(KEY\|\w+\|net/core/)somaxconn\|", r"\g<1>somaxconns|", "there, but not known"),
        (r"^(KEY\|)child(\|net/core/somaxconn\|)", r"\g<1>first\2", "absent in a child"),
    ],
)
def test_check_kernels_fails_when_a_kernel_disagrees(
    machine: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    pattern: str,
    instead: str,
    told: str,
) -> None:
    lines = said(machine.parent)
    changed = [re.sub(pattern, instead, line) for line in lines]
    assert changed != lines
    assert run(machine, changed, monkeypatch) == 1
    assert told in capsys.readouterr().out


def test_kernels_are_named_by_folder_or_by_series(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch, "fetch", lambda series: [Path("/fetched") / s for s in series])
    assert boot.folders([str(tmp_path)]) == [tmp_path]
    assert boot.folders(["6.6", str(tmp_path)]) == [tmp_path, Path("/fetched/6.6")]
    assert boot.folders([]) == [Path("/fetched") / s for s in fetch.SERIES]


def test_missing_programs_are_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(SystemExit, match=r"qemu-system-x86_64.*busybox.*cpio.*apt install"):
        boot.check_programs()


def test_a_kernel_in_the_cache_is_fetched_anew_when_more_modules_are_wanted(tmp_path: Path) -> None:
    assert not fetch.is_whole(tmp_path)
    (tmp_path / fetch.WANTED).write_text(" ".join(fetch.MODULES))
    assert fetch.is_whole(tmp_path)
    (tmp_path / fetch.WANTED).write_text(" ".join(fetch.MODULES[:-1]))
    assert not fetch.is_whole(tmp_path)


def test_the_guest_is_a_shell_script_that_its_shell_reads() -> None:
    done = subprocess.run(["sh", "-n", TOP / "tests/kernels/guest.sh"], capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")


def test_what_the_guest_keeps_to_restore_is_not_overwritten_by_its_functions() -> None:
    """A shell's functions share its variables."""
    text = (TOP / "tests/kernels/guest.sh").read_text()
    phase = text[text.index("\nanswers() {") : text.index("\n# ---- the tool:")]
    functions, loop = phase.split("\necho 1 >$c4/near/forwarding\n")
    kept = set(re.findall(r"(?:for )?(\w+)(?:=| in )", loop))
    assert {"was", "name", "all", "own"} <= kept
    changed = set(re.findall(r"^ +(\w+)=", functions, re.MULTILINE))
    assert changed
    assert changed.isdisjoint(kept)
