"""The lab's scan recorder: what it sees, what it could not, and what it says where it may not."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import hardsock as hs
from hardsock.lab import InvalidResult, Namespace, SynWatch, Unavailable, run_in_namespace
from hardsock.lab.scan import SynNetwork, SynReport, SynSource, TcpCounters, _netstat
from support.require import available
from support.scan_traffic import (
    all_shapes,
    command_line,
    counters_of_the_kernel,
    full_ring,
    interface_that_goes_down,
    interrupted_command,
    killed_owner,
    used_after_its_thread,
)

pytestmark = [pytest.mark.net]


def inside(target: Any, *args: Any) -> Any:
    with available():
        return run_in_namespace(target, *args, timeout=120.0)


def test_each_kind_of_syn_is_counted_by_its_source_and_nothing_else_is() -> None:
    found = inside(all_shapes)
    report, rounds = found["report"], found["rounds"]
    sources = {one["address"]: one for one in report["sources"]}
    assert set(sources) == set(found["wanted"])
    assert all(1 <= one["count"] <= rounds and one["error"] == 0 for one in sources.values())
    assert report["saw"] == report["attributed"] == report["attributed_networks"]
    assert report["saw"] == sum(one["count"] for one in sources.values())
    assert report["saw"] == sum(count for _, count in report["ports"])
    assert (report["kernel_drops"], report["pending"], report["cut"]) == (0, 0, 0)
    networks = {one["network"]: one["sources"] for one in report["networks"]}
    assert set(networks) == {"10.9.0.0/24", "10.9.1.0/24", "10.8.0.0/24", "2001:db8::/64"}
    # Estimates, under a key of chance: of 8 sources, 3 or more would have to be taken for others.
    assert min(networks["10.9.0.0/24"], networks["10.9.1.0/24"]) >= 4
    assert sources["10.8.0.2"]["some_ports"] == [22]
    assert f"saw {report['saw']:,}, attributed {report['saw']:,}" in found["text"]
    assert "10.9.0.3" in found["nft"]


def test_what_a_full_ring_could_not_hold_is_told() -> None:
    found = inside(full_ring)
    full, after = found["full"], found["after"]
    assert full["kernel_drops"] > 0
    assert full["saw"] > 0
    assert full["saw"] + full["kernel_drops"] <= found["sent"]
    assert full["pending"] == 0
    assert after["saw"] > full["saw"]


def test_a_report_joins_the_kernels_counters_and_the_listeners_own() -> None:
    found = inside(counters_of_the_kernel)
    report = found["report"]
    assert report["tcp"]["syncookies_sent"] >= 3
    assert report["tcp"]["listen_overflows"] >= 1
    assert report["tcp"]["listen_drops"] >= report["tcp"]["listen_overflows"]
    (listener,) = report["listeners"]
    assert listener["syns"] >= 3
    assert listener["stats"]["accepted"] == 3
    assert f"listener {listener['address']}: {listener['syns']} SYNs to its port" in found["text"]


def test_an_interface_that_goes_down_is_told_and_does_not_keep_it_busy() -> None:
    found = inside(interface_that_goes_down)
    assert found["down"]
    assert found["sleeps"]
    assert found["downs"] == 1


def test_it_outlives_the_thread_that_began_it_and_answers_each_that_asks() -> None:
    assert inside(used_after_its_thread) == 8


def test_it_ends_with_its_owner_even_where_a_child_of_that_lives_on() -> None:
    assert inside(killed_owner)


def test_it_says_which_right_it_lacks() -> None:
    # Nobody, but for the right to read the interpreter, which may be in somebody's home.
    reads = "-all,+dac_read_search"
    setpriv = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    setpriv += [f"--inh-caps={reads}", f"--ambient-caps={reads}", f"--bounding-set={reads}"]
    setpriv = setpriv if os.geteuid() == 0 else []
    script = (
        f"import sys; sys.path[:] = {sys.path!r}\n"
        "from hardsock.cli.main import main\n"
        "sys.exit(main(['lab', 'scan', '--interface', 'lo']))\n"
    )
    done = subprocess.run(
        [*setpriv, sys.executable, "-c", script], capture_output=True, text=True, timeout=120
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert "socket(AF_PACKET): Operation not permitted; it needs CAP_NET_RAW" in done.stderr
    assert "AmbientCapabilities=CAP_NET_RAW" in done.stderr


def test_the_command_prints_json_and_a_script_that_nft_takes() -> None:
    with available(), Namespace() as ns:
        if shutil.which("nft") is None:
            raise Unavailable("no nft")
        told = ns.exec(
            [sys.executable, "-m", "hardsock", "lab", "scan", "--seconds=0.1", "--format=json"],
            timeout=120.0,
        )
        assert told.returncode == 0, told.stderr
        assert json.loads(told.stdout)["saw"] == 0
        assert ns.run(command_line, "--interface", "nosuch0", timeout=120.0) == 2
        assert ns.run(interrupted_command, timeout=120.0) == 0
        checked = ns.run(
            "import subprocess\n"
            "done = subprocess.run(['nft', '-c', '-f', '-'], input=args[0], text=True,\n"
            "                      capture_output=True)\n"
            "result = [done.returncode, done.stderr]\n",
            report_of(SynSource("192.0.2.1", 500, 0, 1.0, 2.0, 1, (80,))).nft(),
        )
        assert checked == [0, ""]


# ---- without a network


def report_of(*sources: SynSource, networks: tuple[SynNetwork, ...] = ()) -> SynReport:
    return SynReport(
        "eth0",
        *(10.0, 700, 1, 600, 700, 7, 0, 0, 2, 3, 1),
        sources,
        networks,
        ((80, 700),),
        TcpCounters(1234, 0, None, 5, 0),
        (),
        0.01,
    )


def test_only_what_surely_sent_so_many_goes_into_the_sets() -> None:
    report = report_of(
        SynSource("192.0.2.1", 500, 0, 1.0, 2.0, 1, (80,)),
        SynSource("192.0.2.2", 500, 401, 1.0, 2.0, 1, (80,)),
        SynSource("2001:db8::1", 100, 0, 1.0, 2.0, 1, (80,)),
    )
    script = report.nft(at_least=100)
    assert "elements = { 192.0.2.1 }" in script
    assert "elements = { 2001:db8::1 }" in script
    assert "192.0.2.2" not in script
    rules = [line for line in script.splitlines() if "drop" in line]
    assert rules
    assert all(line.lstrip().startswith("#") for line in rules)
    with pytest.raises(ValueError, match="at_least must be 1 or more, got 0"):
        report.nft(at_least=0)


def test_text_says_what_was_not_seen() -> None:
    lines = report_of(
        SynSource("192.0.2.1", 500, 20, 1.0, 2.0, 3, (22, 80, 443)),
        networks=(SynNetwork("192.0.2.0/24", 700, 0, 1.0, 2.0, 2, (80,)),),
    ).text()
    assert "saw 700, attributed 600" in lines
    assert "7 dropped by the kernel" in lines
    assert "went down 1 times" not in lines
    assert "480         500       3  22 80 443" in lines
    assert "listen overflows" in lines
    assert "unknown" in lines


def test_numbers_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ValueError, match="rows must be from 1 to 1048576, got 0"):
        SynWatch(rows=0)
    with pytest.raises(ValueError, match="ring must be from 8192 to 1073741824 bytes, got 4096"):
        SynWatch(ring=4096)
    with pytest.raises(ValueError, match=r"there is none named 'nosuch0' here; there are .*lo"):
        SynWatch("nosuch0").__enter__()
    with pytest.raises(RuntimeError, match="with block"):
        SynWatch().report()
    with pytest.raises(ValueError, match="top must be from 0"):
        SynWatch().report(-1)


def test_a_listener_on_a_path_is_refused(tmp_path: Path) -> None:
    with (
        hs.listen(str(tmp_path / "socket")) as listener,
        pytest.raises(ValueError, match="is no address of TCP"),
    ):
        SynWatch(listeners=[listener])


def test_without_its_program_it_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hardsock.lab.scan._RECORDER", Path("/nowhere/hardsock-scan"))
    with pytest.raises(Unavailable, match="built without its lab"):
        SynWatch("lo").__enter__()


def test_a_recorder_that_dies_or_babbles_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    program = tmp_path / "hardsock-scan"
    program.write_text("#!/bin/sh\necho ready\nread line\nexit 7\n")
    program.chmod(0o755)
    monkeypatch.setattr("hardsock.lab.scan._RECORDER", program)
    with SynWatch("lo") as watch, pytest.raises(InvalidResult, match="died: status 7"):
        watch.report()


def test_a_kernel_that_does_not_tell_its_counters_is_unknown(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    netstat = tmp_path / "netstat"
    monkeypatch.setattr("hardsock.lab.scan._NETSTAT", netstat)
    assert _netstat() == {}
    netstat.write_text("TcpExt: SyncookiesSent ListenDrops\nTcpExt: 5 6\nIpExt: A\nIpExt: 1\n")
    assert _netstat() == {"SyncookiesSent": 5, "ListenDrops": 6}
