"""check --history: findings have an age, counters a rate, and both expire."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
from support_tune import BINARY, DRIFT, OK, PERMISSION, SYSTEM, Root

from hardsock.lab import Namespace


def overflows(root: Root, n: int) -> None:
    (root.path / "proc/net/netstat").write_text(f"TcpExt: ListenOverflows\nTcpExt: {n}\n")


def aged(history: Path, seconds: int) -> None:
    """Make the file say that the last check was so much earlier."""

    def earlier(found: re.Match[str]) -> str:
        uptime, now = int(found[1]) - seconds * 1000, int(found[2]) - seconds
        return f"at {max(uptime, 0)} {now}"

    text = re.sub(r"^at (\d+) (\d+)$", earlier, history.read_text(), flags=re.MULTILINE)
    text = re.sub(r"^seen (\d+)", lambda m: f"seen {int(m[1]) - seconds}", text, flags=re.MULTILINE)
    history.write_text(text)


def test_a_counter_is_news_only_while_it_grows(root: Root, tmp_path: Path) -> None:
    history = tmp_path / "history"
    check = ("check", "--strict", "--history", history)
    overflows(root, 7)
    assert root.tune(*check).returncode == OK, "nobody knows when those were"
    assert root.answer(*check)["findings"] == [], "none since the last check"
    overflows(root, 10)
    aged(history, 60)
    got = root.answer(*check)
    (finding,) = got["findings"]
    assert (finding["id"], finding["severity"], finding["more"]) == (
        "listen-overflows", "warning", 3,
    )  # fmt: skip
    assert finding["what"].startswith("3 connections found the accept queue full in the last ")
    assert finding["more_milliseconds"] >= 0
    assert got["exit"] == DRIFT
    assert root.tune(*check).returncode == OK, "over, so it expires"


def test_drops_of_the_backlog_are_told_since_the_last_check(root: Root, tmp_path: Path) -> None:
    stat = root.path / "proc/net/softnet_stat"
    check = ("check", "--strict", "--history", tmp_path / "history")
    stat.write_text("00001234 00000003 00000000\n")
    assert root.tune(*check).returncode == OK
    stat.write_text("00001234 00000013 00000000\n")
    got = root.answer(*check)
    (finding,) = got["findings"]
    assert (finding["id"], finding["severity"], finding["more"], got["exit"]) == (
        "backlog-drops", "warning", 16, DRIFT,
    )  # fmt: skip
    assert "since boot" not in finding["what"]
    assert "net.core.netdev_max_backlog" in finding["advice"]
    assert root.tune(*check).returncode == OK


def test_a_finding_has_the_age_of_its_first_sight_without_a_break(
    root: Root, tmp_path: Path
) -> None:
    history = tmp_path / "history"
    check = ("check", "--history", history)
    root.listen(40000)
    (first,) = root.answer(*check)["findings"]
    assert first["age_seconds"] == 0
    aged(history, 7200)
    (second,) = root.answer(*check)["findings"]
    assert 7200 <= second["age_seconds"] < 7300
    assert "first seen 2 h ago" in root.tune(*check).stdout
    root.listen()
    assert root.answer(*check)["findings"] == []
    root.listen(40000)
    (again,) = root.answer(*check)["findings"]
    assert again["age_seconds"] < 100


def test_a_port_where_a_third_socket_listens_is_a_services(root: Root, tmp_path: Path) -> None:
    history = tmp_path / "history"

    def found(*inodes: int) -> str:
        root.listen(*[40000] * len(inodes), inode=inodes[0])
        got = root.answer("check", "--strict", "--history", history)
        (finding,) = got["findings"]
        assert got["exit"] == (DRIFT if finding["id"] == "ports-overlap" else OK)
        return str(finding["id"])

    # 12 and 13 share it: while one of them is there, nobody came anew.
    sockets = [(11,), (11,), (12, 13), (12,), (14,), (14,), (15,)]
    assert [found(*one) for one in sockets] == ["ports-unreserved"] * 4 + ["ports-overlap"] * 3
    root.listen()
    assert root.answer("check", "--history", history)["findings"] == []
    assert found(16) == "ports-unreserved"


def test_the_boot_and_the_namespace_of_a_port_count(root: Root, tmp_path: Path) -> None:
    history = tmp_path / "history"
    check = ("check", "--history", history)

    def again(word: str, port: str) -> None:
        text = re.sub(rf"^{word} .*$", f"{word} other", history.read_text(), flags=re.MULTILINE)
        history.write_text(text)
        root.tune(*check)
        assert f"\nport {port}\n" in history.read_text()

    root.listen(40000, inode=11)
    root.tune(*check)
    again("boot", "40000 2048 2")
    again("namespace", "40000 2048 1")


def test_of_many_ports_and_of_unknown_sockets_nothing_is_concluded(
    root: Root, tmp_path: Path
) -> None:
    """Among many that come and go some meet a port again by chance."""
    history = tmp_path / "history"
    for ports in (range(40000, 40033), [40000]):
        for inode in (100, 200, 300, 400):
            root.listen(*ports, inode=inode if len(ports) > 1 else 0)
            got = root.answer("check", "--history", history)
            assert [f["id"] for f in got["findings"]] == ["ports-unreserved"]
        assert "\nport " not in history.read_text()


def test_without_a_history_nothing_is_written_and_nothing_has_an_age(root: Root) -> None:
    root.listen(40000)
    before = sorted(p for p in root.path.rglob("*"))
    (finding,) = root.answer("check")["findings"]
    assert (finding["age_seconds"], finding["more"]) == (None, None)
    assert sorted(p for p in root.path.rglob("*")) == before


@pytest.mark.parametrize("line", ["boot other", "namespace other", "at 99999999999999 1"])
def test_counters_of_another_boot_or_namespace_begin_anew(
    root: Root, tmp_path: Path, line: str
) -> None:
    history = tmp_path / "history"
    overflows(root, 7)
    root.tune("check", "--history", history)
    text = history.read_text()
    word = line.split(" ")[0]
    history.write_text(re.sub(rf"^{word} .*$", line, text, flags=re.MULTILINE))
    overflows(root, 9)
    (finding,) = root.answer("check", "--history", history)["findings"]
    assert (finding["severity"], finding["more"]) == ("info", None)


@pytest.mark.parametrize(
    "text",
    ["", "x\n", "hardsock-tune history 1\n", "hardsock-tune history 1\nboot -\nend\n",
     "hardsock-tune history 1\nboot -\nnamespace -\nat 1\nend\n",
     "hardsock-tune history 1\nboot -\nnamespace -\ncount x -5\nend\n",
     "hardsock-tune history 1\nboot -\nnamespace -\nseen x y\nend\n",
     "hardsock-tune history 1\nboot -\nnamespace -\nport 65536 1 1\nend\n",
     "hardsock-tune history 1\nboot -\nnamespace -\nport 1 9223372036854775808 1\nend\n",
     "hardsock-tune history 1\nboot -\nnamespace -\nport 1 1 0\nend\n",
     "hardsock-tune history 1\nboot -\nnamespace -\nport 1 1\nend\n",
     "hardsock-tune history 1\nboot -\nnamespace -\n" + "port 1 1 1\n" * 33 + "end\n",
     "hardsock-tune history 1\nboot -\nnamespace -\nend\nmore\n",
     "hardsock-tune history 2\nboot -\nnamespace -\nend\n",
     "hardsock-tune history 1\nboot -\0\nnamespace -\nend\n"],
)  # fmt: skip
def test_a_file_that_is_no_history_is_left_as_it_is(root: Root, tmp_path: Path, text: str) -> None:
    file = tmp_path / "shadow"
    file.write_text(text)
    done = root.tune("check", "--history", file)
    assert (done.returncode, "left as it is" in done.stderr) == (SYSTEM, True)
    assert file.read_text() == text


def test_a_history_that_cannot_be_written_is_told(root: Root, tmp_path: Path) -> None:
    done = root.tune("check", "--history", tmp_path / "no/such/place")
    assert (done.returncode, "--history" in done.stderr) == (SYSTEM, True)
    (tmp_path / "folder").mkdir()
    assert root.tune("check", "--history", tmp_path / "folder").returncode in (SYSTEM, PERMISSION)
    assert list((tmp_path / "folder").iterdir()) == []


OVERFLOW = """
import json, socket, subprocess
from hardsock.lab import inside
inside.check_isolated("net")

def check():
    command = [args[0], "check", "--history", args[1], "-f", "json"]
    done = json.loads(subprocess.run(command, capture_output=True).stdout)
    return [[f["severity"], f["more"]] for f in done["findings"] if f["id"] == "listen-overflows"]

result = [check()]
with socket.socket() as listener:
    listener.bind(("127.0.0.1", 0))
    listener.listen(0)
    clients = [socket.socket() for _ in range(4)]
    for client in clients:
        client.setblocking(False)
        client.connect_ex(listener.getsockname())
    result.append(check())
    for client in clients:
        client.close()
result.append(check())
"""


def test_an_overflow_of_a_real_accept_queue_is_news_once(ns: Namespace, tmp_path: Path) -> None:
    before, during, after = ns.run(OVERFLOW, str(BINARY), str(tmp_path / "history"))
    assert before == []
    ((severity, more),) = during
    assert (severity, more >= 1) == ("warning", True)
    assert after == [] or after[0][0] == "warning", "a last SYN may come again"


@pytest.mark.slow
def test_killed_at_any_system_call_the_history_is_the_old_or_the_new_one(
    root: Root, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ASAN_OPTIONS", "detect_leaks=0")  # It cannot look under strace.
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    history, report = tmp_path / "history", tmp_path / "report.prom"
    command = [BINARY, "check", "--history", history, "-f", "prometheus", "-o", report]
    line = [str(word) for word in (*command, "--root", root.path)]
    trace = tmp_path / "trace"
    overflows(root, 1)
    subprocess.run(["strace", "-qq", "-o", trace, *line], check=True, capture_output=True)
    calls = sorted({row.partition("(")[0] for row in trace.read_text().splitlines()})
    whole, killed = report.read_text().splitlines()[-1].split()[0], 0
    for call in (c for c in calls if c.isidentifier() and "exit" not in c and c != "execve"):
        for n in range(1, 400):
            overflows(root, killed + 2)
            inject = f"inject={call}:signal=KILL:when={n}"
            done = subprocess.run(
                ["strace", "-qq", "-o", "/dev/null", "-e", inject, *line], capture_output=True
            )
            assert history.read_text().endswith("end\n"), (call, n)
            assert report.read_text().splitlines()[-1].startswith(whole), (call, n)
            if done.returncode != -signal.SIGKILL:
                break
            killed += 1
    assert killed > 20
    assert root.tune("check", "--history", history).returncode == OK
