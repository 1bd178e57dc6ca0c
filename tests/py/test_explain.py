"""``hardsock explain``."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hardsock.__main__ import main
from hardsock.cli.explain import _kernel_gives_up, _usable_ports
from hardsock.lab import inside
from hardsock.lab.dns import DeadDNS, use_dns
from hardsock.lab.namespaces import Namespace
from support.require import require

COMMAND = [sys.executable, "-m", "hardsock", "explain"]


def explain(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    status = main(["explain", *arguments])
    shown = capsys.readouterr()
    return status, shown.out, shown.err


def use_hosts(hosts: str) -> None:
    inside.add_address("fd00::1/128")
    use_dns("127.0.0.1", hosts=hosts)


def use_dead_dns() -> None:
    use_dns("127.0.0.1", timeout=30)
    with DeadDNS():
        inside.ready()
        inside.wait_for_stop()


def narrow_port_range() -> None:
    inside.write_sysctl("net.ipv4.ip_local_port_range", "20000 20009")
    inside.write_sysctl("net.ipv4.ip_local_reserved_ports", "20001,20003-20004,30000")
    inside.write_sysctl("net.ipv4.tcp_syn_retries", "2")


def use_two_ports(count: int) -> dict[str, Any]:
    """Explain an address of our own towards which *count* local ports are in use."""
    import socket

    from hardsock.cli.explain import examine

    with socket.create_server(("127.0.0.1", 20000)) as listener:
        address = listener.getsockname()
        socks = [socket.create_connection(address) for _ in range(count)]
        found = examine(f"127.0.0.1:{address[1]}")
        for sock in socks:
            sock.close()
    return {
        "sockets": found.plan[0].sockets,
        "ports": found.limits.ports,
        "gives_up": found.limits.kernel_gives_up,
        "notes": found.notes,
    }


@pytest.mark.parametrize(
    ("address", "planned"), [("127.0.0.1:9", "127.0.0.1:9"), ("[::1]:9", "[::1]:9")]
)
def test_literal_needs_no_lookup(
    address: str, planned: str, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, err = explain(capsys, address)

    assert (0, "") == (status, err)
    assert "a literal address: no lookup" in out
    assert re.search(rf"0\.00 s +{re.escape(planned)} ", out)
    for word in ("nodelay", "ip_local_port_range", "tcp_syn_retries", "RLIMIT_NOFILE"):
        assert word in out


def test_unix_path_has_neither_lookup_nor_ports(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = explain(capsys, "unix:/run/hardsock-no-such.sock")

    assert (0, "") == (status, err)
    assert "a unix socket" in out
    assert "unix:/run/hardsock-no-such.sock" in out
    assert "ip_local_port_range" not in out


def test_json_has_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = explain(capsys, "127.0.0.1:9", "--json", "--timeout", "2.5")

    found = json.loads(out)
    assert (0, "") == (status, err)
    assert ("127.0.0.1:9", 2.5, "literal") == (found["address"], found["timeout"], found["source"])
    assert [{"address": "127.0.0.1:9", "start": 0.0, "in_time": True, "sockets": {}}] == (
        found["plan"]
    )
    nodelay = next(setting for setting in found["options"] if setting["name"] == "nodelay")
    assert (1, 1, False) == (nodelay["asked"], nodelay["effective"], nodelay["differs"])
    low, high = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    assert [low, high] == found["limits"]["port_range"]
    assert found["limits"]["descriptors"]


@pytest.mark.net
def test_name_from_a_private_hosts_file_has_a_plan() -> None:
    hosts = "127.0.0.1 both.test\n127.0.0.2 both.test\nfd00::1 both.test\n"
    with require(Namespace()) as ns:
        ns.run(use_hosts, hosts)
        done = ns.exec([*COMMAND, "both.test:80", "--json", "--timeout", "0.4"])

    assert (0, "") == (done.returncode, done.stderr)
    found = json.loads(done.stdout)
    answers = {lookup["record"]: lookup["addresses"] for lookup in found["lookups"]}
    assert {"A": ["127.0.0.1", "127.0.0.2"], "AAAA": ["fd00::1"]} == answers
    assert ("lookup", "files dns") == (found["source"], found["lookup_order"])
    attempts = [(attempt["address"], attempt["start"]) for attempt in found["plan"]]
    assert [("[fd00::1]:80", 0.0), ("127.0.0.1:80", 0.25), ("127.0.0.2:80", 0.5)] == attempts
    assert [True, True, False] == [attempt["in_time"] for attempt in found["plan"]]
    assert any("1 of 3 addresses" in note for note in found["notes"])


@pytest.mark.net
def test_unresolvable_name_is_status_1() -> None:
    with require(Namespace()) as ns:
        ns.run(use_hosts, "127.0.0.1 localhost\n")
        done = ns.exec([*COMMAND, "nowhere.test:80"])

    assert (1, "") == (done.returncode, done.stdout)
    assert "nowhere.test" in done.stderr


@pytest.mark.net
@pytest.mark.timing
def test_dead_name_server_is_status_1_in_time() -> None:
    with require(Namespace()) as ns, ns.start(use_dead_dns) as server:
        server.wait_ready()
        done = ns.exec([*COMMAND, "db.test:80", "--timeout", "0.2"], timeout=9.0)

    assert (1, "") == (done.returncode, done.stdout)
    assert "deadline exceeded" in done.stderr


@pytest.mark.net
def test_used_ports_and_narrow_limits_are_told() -> None:
    with require(Namespace()) as ns:
        ns.run(narrow_port_range)
        few, many = ns.run(use_two_ports, 2), ns.run(use_two_ports, 6)

    assert 7 == few["ports"]
    assert 2 == few["sockets"]["established"]
    assert not any("local ports" in note for note in few["notes"])
    assert any(re.match(r"[67] of 7 local ports", note) for note in many["notes"])
    assert few["gives_up"] in (7.0, 11.0)  # By whether the kernel has tcp_syn_linear_timeouts.


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["no-port"], "host:port"),
        ([":80"], "host must not be empty"),
        (["localhost:0"], "port"),
        (["localhost:65536"], "port"),
        (["localhost:http"], "port"),
        (["local\0host:80"], "host|NUL|null"),
        (["127.0.0.1:9", "--timeout", "nan"], "timeout"),
        (["127.0.0.1:9", "--timeout", "-1"], "timeout"),
        (["127.0.0.1:9", "--timeout", "0"], "timeout"),
    ],
)
def test_bad_input_is_wrong_usage(
    arguments: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, err = explain(capsys, *arguments)

    assert (2, "") == (status, out)
    assert re.search(complaint, err)


@pytest.mark.parametrize(
    "arguments", [["explain"], ["explain", "a:1", "--timeout", "soon"], ["no-such-command"]]
)
def test_bad_command_line_is_wrong_usage(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)

    assert 2 == caught.value.code
    assert "usage: hardsock" in capsys.readouterr().err


def test_version_is_printed() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "hardsock", "--version"], capture_output=True, text=True, timeout=30
    )

    assert 0 == done.returncode
    assert re.fullmatch(r"hardsock \d+\.\d+\S*\n", done.stdout)


@pytest.mark.parametrize(
    ("retries", "linear", "expected"), [(0, 0, 1), (6, 0, 127), (6, 4, 131), (8, 0, 367)]
)
def test_patience_of_the_kernel(
    retries: int, linear: int, expected: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hardsock.cli.explain._number", lambda _key: linear)

    assert expected == _kernel_gives_up(retries)


@pytest.mark.parametrize(
    ("reserved", "expected"), [("\n", 10), ("105\n", 9), ("98-101,108-200\n", 6), ("1-5\n", 10)]
)
def test_reserved_ports_are_not_counted(
    reserved: str, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hardsock.cli.explain._read", lambda _path: reserved)

    assert expected == _usable_ports((100, 109))
