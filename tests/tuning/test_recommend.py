"""recommend: a profile for what the machine shows, with evidence for what it proposes and leaves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from support_tune import BINARY, DRIFT, GLOBAL, OK, USAGE, Root

from hardsock.lab import Namespace


def rows(got: Any, proposed: bool) -> dict[str, dict[str, Any]]:
    return {row["key"]: row for row in got["settings"] if row["proposed"] is proposed}


def netstat(root: Root, **counters: int) -> None:
    names, values = " ".join(counters), " ".join(map(str, counters.values()))
    (root.path / "proc/net/netstat").write_text(f"TcpExt: {names}\nTcpExt: {values}\n")


def use_ports(root: Root, n: int, state: str = "06") -> None:
    lines = ["  sl  local_address rem_address   st"]
    lines += [f" {i}: 0100007F:{32768 + i:04X} 0200000A:1F90 {state} 0" for i in range(n)]
    (root.path / "proc/net/tcp").write_text("\n".join(lines) + "\n")


def test_a_machine_at_rest_gets_nothing_and_hears_why(root: Root) -> None:
    (root.path / "proc/net/softnet_stat").write_text("00001234 00000000 00000000\n")
    netstat(root, ListenOverflows=0, TCPTimeWaitOverflow=0)
    done = root.tune("recommend")
    assert (done.returncode, done.stderr) == (OK, "")
    assert all(line.startswith("#") for line in done.stdout.splitlines())
    assert done.stdout.startswith("# Nothing to propose:\n")
    left = rows(root.answer("recommend"), proposed=False)
    assert {"net.core.somaxconn", "net.core.netdev_max_backlog", "net.ipv4.tcp_tw_reuse"} <= set(
        left
    )
    assert all(row["why"] and row["constraint"] is None for row in left.values())


def test_dropped_packets_and_tables_that_fill_are_evidence(root: Root) -> None:
    (root.path / "proc/net/softnet_stat").write_text("00001234 0000001f 00000000\n")
    netstat(root, ListenOverflows=0, TCPTimeWaitOverflow=7)
    root.put("net/netfilter/nf_conntrack_max", "1000")
    root.put("net/netfilter/nf_conntrack_count", "900")
    root.put("net/ipv4/neigh/default/gc_thresh3", "100")
    (root.path / "proc/net/arp").write_text("IP address\n" + "10.0.0.1 0x1\n" * 90)
    found = rows(root.answer("recommend"), proposed=True)
    assert {key: row["wanted"] for key, row in found.items()} == {
        "net.ipv4.tcp_max_tw_buckets": "262144",
        "net.core.netdev_max_backlog": "2000",
        "net.netfilter.nf_conntrack_max": "2000",
        "net.ipv4.neigh.default.gc_thresh3": "200",
    }
    assert "31 packets" in found["net.core.netdev_max_backlog"]["why"]
    assert "900 of 1000" in found["net.netfilter.nf_conntrack_max"]["why"]
    assert "90 of 100" in found["net.ipv4.neigh.default.gc_thresh3"]["why"]


@pytest.mark.parametrize(
    ("used", "state", "proposed"),
    [(20000, "06", {"net.ipv4.ip_local_port_range", "net.ipv4.tcp_tw_reuse",
                    "net.ipv4.ip_local_reserved_ports"}),
     (20000, "01", {"net.ipv4.ip_local_port_range", "net.ipv4.ip_local_reserved_ports"}),
     (100, "06", set())],
)  # fmt: skip
def test_ports_in_use_widen_the_range_and_time_wait_reuses(
    root: Root, used: int, state: str, proposed: set[str]
) -> None:
    use_ports(root, used, state)
    found = rows(root.answer("recommend"), proposed=True)
    assert set(found) == proposed
    for row in found.values():
        assert f"{used} of 28232" in row["why"] or "Goes with" in row["why"]


def test_a_setting_that_would_do_nothing_is_left_with_the_reason(root: Root) -> None:
    root.put("net/ipv4/tcp_timestamps", "0")
    root.put("net/ipv4/ip_local_port_range", "1024 65535")
    root.put("net/ipv4/ip_local_reserved_ports", "1024-30000")
    use_ports(root, 20000)
    left = rows(root.answer("recommend"), proposed=False)
    assert "tcp_timestamps is 0" in left["net.ipv4.tcp_tw_reuse"]["why"]
    assert "as wide as it can be" in left["net.ipv4.ip_local_port_range"]["why"]


def test_cookies_are_proposed_where_their_want_dropped_syns(root: Root) -> None:
    netstat(root, TCPReqQFullDrop=5)
    assert rows(root.answer("recommend"), proposed=True) == {}
    root.put("net/ipv4/tcp_syncookies", "0")
    assert list(rows(root.answer("recommend"), proposed=True)) == ["net.ipv4.tcp_syncookies"]


def test_what_is_proposed_is_a_profile_that_lint_takes_and_that_settles_it(
    root: Root, tmp_path: Path
) -> None:
    use_ports(root, 20000)
    (root.path / "proc/net/softnet_stat").write_text("00001234 0000001f 00000000\n")
    done = root.tune("recommend")
    assert done.returncode == DRIFT
    file = tmp_path / "mine.yaml"
    file.write_text(done.stdout)
    assert root.tune("lint", "--strict", file).returncode == OK
    assert root.tune("apply", file).returncode == OK
    assert root.get("net/core/netdev_max_backlog") == "2000"
    assert root.get("net/ipv4/ip_local_port_range") == "1024 65535"
    assert max(map(len, done.stdout.splitlines())) < 400
    assert root.tune("recommend", "x").returncode == USAGE


def remember(root: Root, pages: int, pressures: int = 0, cut: int = 0) -> None:
    (root.path / "proc/net/sockstat").write_text(
        f"sockets: used 9\nTCP: inuse 5 orphan 0 tw 0 alloc 6 mem {pages}\nUDP: inuse 0 mem 0\n"
    )
    netstat(root, TCPMemoryPressures=pressures, PruneCalled=cut)
    root.put("net/ipv4/tcp_mem", "3000\t4000\t6000")


def test_memory_of_tcp_that_is_enough_is_left_with_what_was_seen(root: Root) -> None:
    (root.path / "proc/meminfo").write_text("MemTotal:        4194304 kB\n")
    remember(root, pages=100, cut=7)
    (row,) = [r for r in root.answer("recommend")["settings"] if r["key"] == "net.ipv4.tcp_mem"]
    assert row["proposed"] is False
    assert "100 of 4000 pages" in row["why"]
    assert "7 times a receive queue was cut (PruneCalled): a socket's own limit" in row["why"]
    root.file("net/ipv4/tcp_mem").unlink()
    left = rows(root.answer("recommend"), proposed=False)["net.ipv4.tcp_mem"]
    assert "the limit is not to be seen: " in left["why"]


@pytest.mark.parametrize(("pages", "pressures"), [(3300, 0), (100, 3)])
def test_memory_of_tcp_is_doubled_where_the_machine_has_it(
    root: Root, tmp_path: Path, pages: int, pressures: int
) -> None:
    meminfo = root.path / "proc/meminfo"
    meminfo.write_text("MemTotal:        4194304 kB\n")
    remember(root, pages, pressures)
    row = rows(root.answer("recommend"), proposed=True)["net.ipv4.tcp_mem"]
    assert (row["constraint"], row["wanted"]) == ("at_least", "[6000, 8000, 12000]")
    assert f"{pages} of 4000 pages" in row["why"]
    assert f"which it did {pressures} times" in row["why"]
    file = tmp_path / "mine.yaml"
    file.write_text(root.tune("recommend").stdout)
    assert root.tune("lint", file).returncode == OK
    assert root.tune("apply", file).returncode == OK
    assert root.get("net/ipv4/tcp_mem") == "6000 8000 12000"
    remember(root, pages, pressures)
    meminfo.write_text("MemTotal:         131072 kB\n")
    left = rows(root.answer("recommend"), proposed=False)["net.ipv4.tcp_mem"]
    assert "more than a quarter of the memory here" in left["why"]


# Overflows one accept queue whose listener asked for all that the cap allows, and one that did not.
LISTEN = """
import json, socket, subprocess
from hardsock.lab import inside
inside.check_isolated("net")
inside.write_sysctl("net.core.somaxconn", 4)
with socket.socket() as sock:
    sock.bind(("127.0.0.1", 8080)); sock.listen(int(args[1]))
    clients = [socket.socket() for _ in range(12)]
    for client in clients:
        client.setblocking(False)
        client.connect_ex(sock.getsockname())
    done = subprocess.run([args[0], "recommend"], capture_output=True, text=True)
result = [done.returncode, done.stdout]
"""


def test_a_listener_at_the_cap_raises_it_and_one_below_does_not(ns: Namespace) -> None:
    code, text = ns.run(LISTEN, str(BINARY), "1000")
    assert code == DRIFT
    wanted = yaml.safe_load(text)["settings"]["net.core.somaxconn"]
    assert wanted["at_least"] == 8
    assert "127.0.0.1:8080 asked for as many as the cap of 4" in wanted["why"]
    _, text = ns.run(LISTEN, str(BINARY), "2")
    said = text.replace("\n#    ", "")
    assert "no listener asked for as many as the cap of 4" in said


# Both ends on an address that is not loopback, with send buffers too small even for that way.
PATH = """
import json, socket, subprocess, threading
from hardsock.lab import inside
inside.check_isolated("net")
inside.add_address("10.1.2.3/32")
inside.write_sysctl("net.ipv4.tcp_wmem", args[1])
with socket.socket() as sock:
    sock.bind(("10.1.2.3", 0)); sock.listen()
    a = socket.create_connection(sock.getsockname()); b, _ = sock.accept()
    reader = threading.Thread(target=lambda: all(iter(lambda: b.recv(1 << 16), b"")))
    reader.start()
    for _ in range(200):
        a.sendall(bytes(100000))
    done = subprocess.run([args[0], "recommend", "-f", "json"], capture_output=True, text=True)
    a.close(); reader.join(); b.close()
result = json.loads(done.stdout)["settings"]
"""


def test_buffers_follow_what_connections_have_on_the_way(ns: Namespace) -> None:
    (small,) = [r for r in ns.run(PATH, str(BINARY), "4096 4096 4096") if r["key"].endswith("wmem")]
    assert small["proposed"] is True, small
    assert small["wanted"].startswith("[4096, 4096, ")
    assert "to 10.1.2.3:" in small["why"]
    (large,) = [
        r for r in ns.run(PATH, str(BINARY), "4096 65536 1073741824") if r["key"].endswith("wmem")
    ]
    assert large["proposed"] is False, large
    assert "fits in a buffer of 1073741824" in large["why"]


def test_recommend_changes_nothing(ns: Namespace) -> None:
    done = ns.exec([str(BINARY), "recommend", "-f", "json"])
    assert json.loads(done.stdout)["exit"] == done.returncode
    assert ns.exec([str(BINARY), "diff", "baseline"]).returncode in (OK, GLOBAL)
