"""Findings about the running machine: real sockets in private namespaces, and fake roots."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support_tune import BINARY, DRIFT, OK, Root, profile

from hardsock.lab import Namespace

# Run inside: makes sockets, then asks the program. Nothing leaves loopback.
HEAD = """
import json, socket, subprocess
from hardsock.lab import inside
inside.check_isolated("net")
def findings(*more):
    done = subprocess.run([args[0], "check", "-f", "json", *more], capture_output=True, text=True)
    return {f["id"]: f for f in json.loads(done.stdout)["findings"]}
def listen(port, backlog=16, host="127.0.0.1"):
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind((host, port)); sock.listen(backlog)
    return sock
"""


def ask(ns: Namespace, script: str) -> Any:
    return ns.run(HEAD + script, str(BINARY))


def test_a_fresh_namespace_has_no_findings(ns: Namespace) -> None:
    assert (
        ask(ns, "result = sorted(set(findings()) - {'descriptors', 'file-max', 'backlog-drops'})")
        == []
    )


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_listener_inside_the_range_is_told_and_a_profile_that_names_it_settles_it(
    ns: Namespace, tmp_path: Path, host: str
) -> None:
    file = profile(
        tmp_path / "p.yaml", "net.ipv4.ip_local_reserved_ports: {contains: [40000, 40002]}"
    )
    result = ask(
        ns,
        f"""
held = listen(40000, host={host!r})
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); udp.bind(("127.0.0.1", 40002))
before = findings()
done = subprocess.run([args[0], "apply", {str(file)!r}, "--state", {str(tmp_path / "state")!r}])
result = [before["ports-unreserved"]["what"].split()[1], done.returncode, sorted(findings()),
          inside.read_sysctl("net.ipv4.ip_local_reserved_ports")]
""",
    )
    told, code, after, reserved = result
    assert (told, code, reserved) == ("40000,40002", OK, "40000,40002")
    assert "ports-unreserved" not in after


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_port_that_the_kernel_picked_is_no_drift(ns: Namespace, host: str) -> None:
    """Nor is one that looks like it: nobody can tell these apart.

    Not --strict: findings see the processes of the whole machine, which may be near their limits.
    """
    result = ask(
        ns,
        f"""
held = [listen(0, host={host!r}) for _ in range(20)]
for port in range(40000, 40010):
    try: held.append(listen(port, host={host!r}))
    except OSError: pass  # picked already
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); udp.bind(("127.0.0.1", 0))
ports = sorted(s.getsockname()[1] for s in [*held, udp])
found = findings()
done = subprocess.run([args[0], "check", "baseline", "--strict=missing"], capture_output=True)
result = [found["ports-unreserved"]["what"], "ports-overlap" in found, done.returncode, ports]
""",
    )
    what, overlap, code, ports = result
    assert (overlap, code) == (False, OK)
    told = [[int(n) for n in word.split("-")] for word in what.split()[1].split(",")]
    assert all(any(word[0] <= port <= word[-1] for word in told) for port in ports)


def test_a_port_outside_the_range_was_asked_for(root: Root) -> None:
    root.listen(40000, 8443)
    assert root.tune("apply", "high-churn-client").returncode == OK
    assert root.get("net/ipv4/ip_local_reserved_ports") == "8443"


AGAIN = """
history = ["--history", args[1]]
seen = []
for _ in range(4):
    held = [listen(40000), listen(0), listen(0)]
    found = findings(*history)
    for sock in held:
        sock.close()
    seen.append([found[i]["what"].split()[1] if i in found else ""
                 for i in ("ports-overlap", "ports-unreserved")])
result = seen
"""


def test_a_service_that_restarts_is_told_from_ports_that_the_kernel_picks(
    ns: Namespace, tmp_path: Path
) -> None:
    seen = ns.run(HEAD + AGAIN, str(BINARY), str(tmp_path / "history"))
    assert [overlap for overlap, _ in seen] == ["", "", "40000", "40000"]
    assert all(len(told.replace("-", ",").split(",")) >= 2 for _, told in seen), seen


def test_established_connections_hold_local_ports_too(ns: Namespace) -> None:
    finding = ask(
        ns,
        """
inside.write_sysctl("net.ipv4.ip_local_port_range", "50000 50019")
server = listen(8080)
pairs = [(socket.create_connection(("127.0.0.1", 8080)), server.accept()) for _ in range(12)]
result = findings().get("local-ports")
""",
    )
    assert finding["severity"] == "warning"
    assert finding["what"].startswith("12 of 20 local ports towards 127.0.0.1:8080 are in use")


def test_time_wait_towards_one_destination_is_counted_against_the_range(ns: Namespace) -> None:
    finding = ask(
        ns,
        """
inside.write_sysctl("net.ipv4.ip_local_port_range", "50000 50019")
inside.write_sysctl("net.ipv4.ip_local_reserved_ports", "50000")
server = listen(8080)
for _ in range(18):
    client = socket.create_connection(("127.0.0.1", 8080))
    conn, _peer = server.accept()
    client.close(); conn.recv(1); conn.close()
result = findings().get("time-wait-ports")
""",
    )
    assert finding["severity"] == "critical"
    assert (
        finding["what"]
        == "18 of 19 local ports towards 127.0.0.1:8080 are in use, 18 of them in TIME_WAIT"
    )


def test_full_accept_queue_and_its_overflows_are_found(ns: Namespace) -> None:
    found = ask(
        ns,
        """
server = listen(8080, backlog=1)
clients = []
for _ in range(4):
    c = socket.socket(); c.setblocking(False); c.connect_ex(("127.0.0.1", 8080)); clients.append(c)
result = findings()
""",
    )
    assert found["accept-queue"]["what"] == (
        "2 connections wait for accept() on 127.0.0.1:8080, which holds 1"
    )
    assert found["accept-queue"]["severity"] == "critical"
    assert "ListenOverflows" in found["listen-overflows"]["what"]


def test_listener_older_than_the_present_cap_is_found(ns: Namespace) -> None:
    found = ask(
        ns,
        """
server = listen(8080, backlog=65535)
inside.write_sysctl("net.core.somaxconn", "65535")
before = findings().get("listener-backlog")
server.listen(65535)
result = [before and before["what"], "listener-backlog" in findings()]
""",
    )
    assert found == [
        "net.core.somaxconn is 65535, but 127.0.0.1:8080 has 4096: the backlog was fixed at listen()",
        False,
    ]


HUNGRY = """
import os, resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (300, 300))
held = [os.dup(0) for _ in range(280)]
print("ready", flush=True)
sys.stdin.read()
"""


def test_process_near_its_limit_of_descriptors_is_found() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HUNGRY], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        done = subprocess.run([BINARY, "check", "-f", "json"], capture_output=True, text=True)
        child.communicate()
    what = [f["what"] for f in json.loads(done.stdout)["findings"] if f["id"] == "descriptors"]
    assert any(w.startswith(f"process {child.pid} (python") and "of 300" in w for w in what)


def test_memory_pressure_and_orphans_come_from_sockstat(root: Root) -> None:
    (root.path / "proc/net/sockstat").write_text(
        "sockets: used 9\nTCP: inuse 5 orphan 90000 tw 0 alloc 6 mem 500000\n"
    )
    root.put("net/ipv4/tcp_mem", "287898\t383867\t575796")
    found = {f["id"]: f["severity"] for f in root.answer()["findings"]}
    assert found == {"orphans": "warning", "tcp-memory": "critical"}


def test_counters_of_netstat_become_findings(root: Root) -> None:
    (root.path / "proc/net/netstat").write_text(
        "TcpExt: SyncookiesSent ListenOverflows TCPTimeWaitOverflow\nTcpExt: 1 0 7\n"
        "IpExt: InNoRoutes\nIpExt: 0\n"
    )
    assert [f["id"] for f in root.answer()["findings"]] == ["time-wait-overflow"]


def test_drops_of_the_backlog_are_found_and_name_the_setting(root: Root) -> None:
    """A row per CPU; the second column counts, in hexadecimal."""
    root.put("net/core/netdev_max_backlog", "1000")
    quiet = "0000a0b1 00000000 00000007 00000000\n"
    stat = root.path / "proc/net/softnet_stat"
    stat.write_text(quiet * 2)
    assert root.answer()["findings"] == []
    stat.write_text(quiet + "00001234 0000001f 00000000 00000000\n" + quiet)
    (finding,) = root.answer()["findings"]
    assert [finding["id"], finding["severity"]] == ["backlog-drops", "info"]
    assert finding["what"].startswith("31 packets met a CPU's queue that held 1000")
    assert finding["what"].endswith("since boot")
    assert "net.core.netdev_max_backlog" in finding["advice"]


@pytest.mark.parametrize("text", ["", "TcpExt:", "TcpExt: A\n", "TcpExt: A\nTcpExt:\n", "\0\1"])
def test_odd_proc_files_are_no_findings(root: Root, text: str) -> None:
    for name in ("netstat", "sockstat", "softnet_stat", "tcp", "udp"):
        (root.path / "proc/net" / name).write_text(text)
    assert root.answer()["findings"] == []


def test_findings_count_only_with_strict(root: Root) -> None:
    (root.path / "proc/net/netstat").write_text("TcpExt: ListenOverflows\nTcpExt: 7\n")
    assert root.tune("check").returncode == OK
    # Counted since boot: it may be over since long.
    assert root.tune("check", "--strict").returncode == OK
    root.listen(40000)
    root.put("net/ipv4/ip_local_reserved_ports", "")
    (root.path / "proc/net/sockstat").write_text("TCP: inuse 5 orphan 0 tw 131000 alloc 6 mem 5\n")
    assert root.answer()["findings"][-1]["id"] == "time-wait-full"
    root.listen()
    assert root.tune("check").returncode == OK
    assert root.tune("check", "--strict").returncode == DRIFT


def test_sandbox_without_openat2_still_works(
    ns: Namespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ASAN_OPTIONS", "detect_leaks=0")  # It cannot look under strace.
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    file = profile(tmp_path / "p.yaml", "net.ipv4.tcp_fin_timeout: {value: 33}")
    base = ["strace", "-qq", "-o", "/dev/null", "-e", "inject=openat2:error=ENOSYS", str(BINARY)]
    state = ["--state", str(tmp_path / "state")]
    assert ns.exec([*base, "apply", str(file), *state]).returncode == OK
    assert ns.exec([*base, "check", str(file)]).returncode == OK
    assert ns.exec([*base, "revert", *state]).returncode == OK


FAULTS = """
import subprocess
from hardsock.lab import inside
inside.check_isolated("net")
binary, file, state, fault = args
keys = ["net.core.somaxconn", "net.ipv4.tcp_rmem"]
values = lambda: [inside.read_sysctl(k) for k in keys]
before = values()
result = []
for n in range(1, 40):
    where = ["--state", f"{state}{n}"]
    inject = ["strace", "-qq", "-o", "/dev/null", "-e", f"inject={fault}:when={n}"]
    done = subprocess.run([*inject, binary, "apply", file, *where], capture_output=True)
    changed = values() != before
    # Applied, or the way back was hit as well: the journal knows.
    back = subprocess.run([binary, "revert", *where], capture_output=True, text=True)
    if (changed and back.returncode != 0) or values() != before:
        result.append([n, done.returncode, back.stdout + back.stderr])
    if not changed and done.returncode == 0:
        result.append([n, "says that it is done, and is not"])
"""


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["write:retval=1", "read:error=EIO", "fsync:error=ENOSPC",
                                   "write:error=EPERM", "write:error=EINTR"])  # fmt: skip
def test_failing_system_call_changes_nothing_in_the_end(
    ns: Namespace, tmp_path: Path, fault: str
) -> None:
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    file = profile(
        tmp_path / "p.yaml",
        """
        net.core.somaxconn: {value: 5000}
        net.ipv4.tcp_rmem: {value: [8192, 200000, 9000000]}
        """,
    )
    state = tmp_path / "state"
    assert ns.run(FAULTS, str(BINARY), str(file), str(state), fault, timeout=120) == []
