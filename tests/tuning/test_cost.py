"""What a check of everything costs: 4 MiB and few instructions, also as JSON, also on a machine with many sockets."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import measure
import pytest
from support_tune import BINARY, Root, profile

from hardsock.lab import Namespace, Unavailable
from support.require import available

MIB = 1024
FORMATS = pytest.mark.parametrize("shape", ["pretty", "json"])
EVERYTHING = [str(BINARY), "check", "all", "-f"]


@pytest.fixture(scope="module")
def launcher(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A small parent: the peak of a child counts from the memory that its parent had."""
    with available():
        if shutil.which("cc") is None:
            raise Unavailable("no C compiler")
    if "asan" in str(BINARY):
        pytest.skip("sanitizers take memory and time of their own")
    folder = tmp_path_factory.mktemp("launcher")
    return measure.compile_c(str(folder), "launcher", measure.LAUNCHER)


@FORMATS
def test_checking_everything_takes_four_mebibytes_at_most(
    launcher: str, ns: Namespace, shape: str
) -> None:
    done = ns.exec([launcher, *EVERYTHING, shape])
    assert int(done.stdout.split()[1]) <= 4 * MIB


CONNECTIONS = """
import socket, subprocess
from hardsock.lab import inside
inside.write_sysctl("net.ipv4.ip_local_port_range", "20000 60999")
server = socket.create_server(("127.0.0.1", 8080), backlog=128)
for _ in range(6000):
    client = socket.create_connection(("127.0.0.1", 8080))
    conn, _peer = server.accept()
    client.close(); conn.close()
result = [inside.read_sysctl("net.ipv4.tcp_max_tw_buckets"),
          subprocess.run([args[0], *args[1:]], capture_output=True, text=True).stdout]
"""


@pytest.mark.slow
def test_thousands_of_connections_to_one_server_take_no_more(launcher: str, ns: Namespace) -> None:
    """They are one peer with a number."""
    most, text = ns.run(CONNECTIONS, launcher, *EVERYTHING, "json")
    assert int(most) > 6000
    assert int(text.split()[1]) <= 4 * MIB


@pytest.mark.slow
@FORMATS
def test_checking_everything_takes_few_instructions(
    launcher: str, ns: Namespace, tmp_path: Path, shape: str
) -> None:
    """Clocks of busy machines tell nothing: 5 ms are what `make measure` shows on a quiet one."""
    valgrind = shutil.which("valgrind")
    with available():
        if valgrind is None:
            raise Unavailable("no valgrind")
    command = [valgrind, "--tool=callgrind", f"--callgrind-out-file={tmp_path}/out", *EVERYTHING]
    done = ns.exec([*command, shape], timeout=120)
    count = re.search(r"refs:\s+([0-9,]+)", done.stderr)
    assert count is not None, done.stderr
    assert int(count[1].replace(",", "")) <= 20_000_000


def calls(ns: Namespace, *command: str) -> list[str]:
    """The system calls of a program, a line each."""
    strace = shutil.which("strace")
    with available():
        if strace is None:
            raise Unavailable("no strace")
    return ns.exec([strace, "-v", "-qq", *command], timeout=120).stderr.splitlines()


def test_everything_is_asked_once(ns: Namespace, root: Root) -> None:
    """Each key is read once, each folder listed once, and whether a key may be written is one call;
    but for the one that tells the first namespace, before anything is remembered.
    """
    for name in ("all", "default", *(f"eth{n}" for n in range(10))):
        for key in ("rp_filter", "accept_redirects", "log_martians", "send_redirects"):
            root.put(f"net/ipv4/conf/{name}/{key}", "0")
    made = calls(ns, str(BINARY), "check", "all", "--root", str(root.path))
    made = [line for line in made if "RESOLVE_BENEATH" in line or line.startswith("faccessat2(")]
    again = {line.split('"')[1] for line in made if made.count(line) > 1}
    assert again <= {"net/core/netdev_max_backlog"}
    assert len(made) > 100
    assert len([line for line in made if '"net/ipv4/conf"' in line]) == 1


FEW, MANY = "32768 60999", "50000 50019"


@pytest.mark.parametrize("ports", [FEW, MANY])
def test_single_connections_are_asked_for_only_where_they_could_run_out(
    ns: Namespace, ports: str
) -> None:
    """The kernel walks a hash of 262,144 buckets for them, twice."""
    with available():
        if shutil.which("strace") is None:
            raise Unavailable("no strace")
    asked = ns.run(ASKED, ports, str(BINARY))
    assert "TCP_LISTEN" in asked
    assert ("TCP_ESTABLISHED" in asked) == (ports == MANY)


ASKED = """
import socket, subprocess
from hardsock.lab import inside
inside.write_sysctl("net.ipv4.ip_local_port_range", args[0])
server = socket.create_server(("127.0.0.1", 8080))
held = [(socket.create_connection(("127.0.0.1", 8080)), server.accept()) for _ in range(6)]
command = ["strace", "-v", "-e", "trace=sendto", args[1], "check"]
result = subprocess.run(command, capture_output=True, text=True).stderr
"""


def rows(remote: int, local: int, state: str, number: int) -> list[str]:
    """Lines of /proc/net/tcp, of sockets with local ports in a row."""
    return [
        f"  0: 0100007F:{local + i:04X} 0100007F:{remote:04X} {state} 00000000:00000000"
        for i in range(number)
    ]


def test_connections_are_counted_by_peer_and_accepted_ones_are_not(
    root: Root, tmp_path: Path
) -> None:
    """Also where they outnumber what is kept apart, and where their listener is told of last."""
    root.put("net/ipv4/ip_local_port_range", "40000\t44999")
    head = "  sl  local_address rem_address   st tx_queue rx_queue"
    outgoing = [
        rows(443, 40000, "01", 3000),
        rows(80, 43000, "06", 900),
        rows(443, 44000, "01", 900),
    ]
    accepted = rows(40000, 8080, "01", 1) * 2000
    lines = [head, *(line for part in outgoing for line in part), *accepted]
    lines += ["  1: 00000000:1F90 00000000:0000 0A 00000000:00000000"]
    folder = root.path / "proc/net"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tcp").write_text("\n".join(lines) + "\n")
    file = profile(tmp_path / "p.yaml", "net.ipv4.tcp_sack: {value: 1}")
    findings = {f["id"]: f["what"] for f in root.answer("check", file)["findings"]}
    assert findings["local-ports"].startswith("3900 of 5000 local ports")
