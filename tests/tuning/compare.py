"""The same situations for the tools that set and check kernel settings, and for hardsock-tune.

    python tests/tuning/compare.py [--write docs/tune-compared.md]

The first table is of tools that set: sysctl, systemd-sysctl, tuned-adm, ansible.posix.sysctl. Each
situation has a network namespace of its own; printed is what the tool's exit code said and what the
kernel holds afterwards. A tool is right when the value is what was asked for and it says so, or
nothing changed and it says that. The second table is of tools that only look: kernel-hardening-checker
at a saved listing, beside `check --from` with the profile cis.

The programs are the real ones (peers.py). tuned has no service manager here: its own daemon program
stands in for `service tuned restart`, which is how tuned-adm applies a profile without D-Bus.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

TOP = Path(__file__).resolve().parent.parent.parent
sys.path[:0] = [str(TOP / "python"), str(TOP / "tests"), str(TOP / "tests/tuning")]

import peers as all_peers  # noqa: E402
from peers import Peers  # noqa: E402

from hardsock.lab import Namespace  # noqa: E402

BINARY = os.environ.get("HARDSOCK_TUNE", str(TOP / "build/tune/release/hardsock-tune"))
HERE = Path(__file__).parent
BEGIN, END = "<!-- compared: -->", "<!-- :compared -->"
US = "hardsock-tune"
LIMIT = 120.0
"""Seconds for one run of one tool."""


@dataclass
class Case:
    """Something to set."""

    name: str
    settings: list[tuple[str, str]]
    reads: list[str] = field(default_factory=list)
    """What is looked at, where it is not the keys themselves."""


RESERVED = "net.ipv4.ip_local_reserved_ports"
CASES = [
    Case("two numbers where one belongs", [("net.ipv4.tcp_fin_timeout", "30 31")]),
    Case("a second word that is dropped", [("net.ipv4.tcp_syn_retries", "5 6")]),
    Case("one number where three belong", [("net.ipv4.tcp_rmem", "5000")]),
    Case("a bad third number, which leaves two changed", [("net.ipv4.tcp_wmem", "8192 32768 bad")]),
    Case("octal by accident", [("net.ipv4.tcp_fin_timeout", "036")]),
    Case("an empty value", [(RESERVED, "")]),
    Case(
        "two keys in the wrong order",
        [
            ("net.ipv4.ip_unprivileged_port_start", "40000"),
            ("net.ipv4.ip_local_port_range", "40000 65000"),
        ],
    ),
    Case("a key that is read-only here", [("net.core.rmem_max", "8388608")]),
    Case("a key that belongs to the machine", [("net.core.netdev_max_backlog", "5000")]),
    Case(
        "the second of two is refused",
        [("net.core.somaxconn", "5000"), ("net.ipv4.tcp_ecn", "77")],
    ),
    Case(
        "every interface, by a pattern",
        [("net.ipv4.conf.*.arp_announce", "2")],
        [f"net.ipv4.conf.{name}.arp_announce" for name in ("all", "default", "lo")],
    ),
]

PREPARE = f"""
from hardsock.lab import inside
inside.write_sysctl("{RESERVED}", "8080")
"""

READ = """
from hardsock.lab import inside
def one(key):
    try:
        return inside.read_sysctl(key)
    except FileNotFoundError:
        return "not there"
result = [one(k) for k in args]
"""


def run_sysctl(peers: Peers, folder: Path, case: Case) -> list[str] | None:
    conf = folder / "sysctl.conf"
    conf.write_text("".join(f"{k} = {v}\n" for k, v in case.settings))
    return None if peers.sysctl is None else [str(peers.sysctl), "-p", str(conf)]


def run_systemd(peers: Peers, folder: Path, case: Case) -> list[str] | None:
    conf = folder / "systemd.conf"
    conf.write_text("".join(f"{k} = {v}\n" for k, v in case.settings))
    return None if peers.systemd is None else [str(peers.systemd), str(conf)]


def run_tuned(peers: Peers, folder: Path, case: Case) -> list[str] | None:
    if peers.tuned is None:
        return None
    for place in ("etc/tuned/case", "run/tuned", "var/log/tuned", "var/lib/tuned", "bin"):
        (folder / place).mkdir(parents=True)
    (folder / "etc/tuned/tuned-main.conf").write_text("daemon = 0\ndynamic_tuning = 0\n")
    lines = "".join(f"{k}={v}\n" for k, v in case.settings)
    (folder / "etc/tuned/case/tuned.conf").write_text(f"[main]\nsummary=case\n[sysctl]\n{lines}")
    here = f"/usr/bin/python3 {HERE / 'tuned_elsewhere.py'} {folder} {peers.tuned}/usr/sbin"
    service = folder / "bin/service"
    service.write_text(f"#!/bin/sh\nexec {here}/tuned\n")
    service.chmod(0o755)
    libraries = peers.tuned / "usr/lib/x86_64-linux-gnu"
    environment = [
        f"PATH={folder}/bin:{os.environ['PATH']}",
        f"PYTHONPATH={peers.tuned}/usr/lib/python3/dist-packages",
        f"LD_LIBRARY_PATH={libraries}",
        f"GI_TYPELIB_PATH={libraries}/girepository-1.0",
    ]
    return ["env", *environment, *f"{here}/tuned-adm".split(), "profile", "case"]


def run_ansible(peers: Peers, folder: Path, case: Case) -> list[str] | None:
    if peers.playbook is None or peers.collections is None:
        return None
    (folder / "ansible.conf").write_text("")
    task = {
        "ansible.posix.sysctl": {
            "name": "{{ item[0] }}",
            "value": "{{ item[1] }}",
            "sysctl_set": True,
            "sysctl_file": str(folder / "ansible.conf"),
        },
        "loop": case.settings,
    }
    book = [{"hosts": "localhost", "gather_facts": False, "tasks": [task]}]
    (folder / "play.yml").write_text(json.dumps(book))
    environment = [
        f"HOME={folder}",
        f"ANSIBLE_HOME={folder}",
        f"ANSIBLE_COLLECTIONS_PATH={peers.collections}",
        "ANSIBLE_LOCALHOST_WARNING=False",
        "PATH=/usr/sbin:/sbin:/usr/bin:/bin",
    ]
    command = [str(peers.playbook), "-i", "localhost,", "-c", "local"]
    command += ["-e", f"ansible_python_interpreter={sys.executable}", str(folder / "play.yml")]
    return ["env", *environment, *command]


def run_ours(_peers: Peers, folder: Path, case: Case) -> list[str]:
    body = "".join(f'  {k}: {{value: "{v}", why: w}}\n' for k, v in case.settings)
    (folder / "case.yaml").write_text(f"name: case\nsummary: s\nsettings:\n{body}")
    return [BINARY, "apply", str(folder / "case.yaml"), "--state", str(folder / "state")]


SETTERS = {
    "sysctl": run_sysctl,
    "systemd-sysctl": run_systemd,
    "tuned-adm": run_tuned,
    "ansible.posix.sysctl": run_ansible,
    US: run_ours,
}


def verdict(asked: list[str], before: list[str], after: list[str], code: int) -> str:
    """What the tool said, held against what the kernel holds."""
    if after == asked:
        return "right" if code == 0 else "done, but says it failed"
    if after == before:
        return "right: refused" if code != 0 else "**wrong**: nothing done, says it is"
    return "**wrong**: something else set" + (", says it is done" if code == 0 else "")


def set_once(peers: Peers, tool: str, case: Case) -> tuple[str, str] | None:
    """What the kernel holds and the verdict; None if the tool is not here."""
    keys = case.reads or [key for key, _ in case.settings]
    asked = [" ".join(value.split()) for _, value in case.settings]
    if case.reads:
        asked = [case.settings[0][1]] * len(keys)
    with Namespace(mount=False) as ns, tempfile.TemporaryDirectory() as folder:
        command = SETTERS[tool](peers, Path(folder), case)
        if command is None:
            return None
        ns.run(PREPARE)
        before = ns.run(READ, *keys)
        code = ns.exec(command, timeout=LIMIT).returncode
        after = ns.run(READ, *keys)
    held = "; ".join(text or "(empty)" for text in after)
    return held, verdict(asked, before, after, code)


def table_of_setters(peers: Peers) -> Iterator[str]:
    """Yield the lines of the first table."""
    here = [t for t in SETTERS if run_or_none(peers, t)]
    right = dict.fromkeys(here, 0)
    yield "| situation | " + " | ".join(here) + " |"
    yield "|---|" + "---|" * len(here)
    for case in CASES:
        cells = []
        for tool in here:
            done = set_once(peers, tool, case)
            assert done is not None
            held, said = done
            right[tool] += said.startswith("right")
            cells.append(said if said == "right" else f"{said} ({held})")
        asked = "; ".join(f"`{k.rsplit('.', 1)[1]} = {v}`" for k, v in case.settings)
        yield f"| {case.name}: {asked} | " + " | ".join(cells) + " |"
    yield f"| right, of {len(CASES)} | " + " | ".join(f"{n}" for n in right.values()) + " |"


def run_or_none(peers: Peers, tool: str) -> bool:
    """Whether a tool is here."""
    with tempfile.TemporaryDirectory() as folder:
        return SETTERS[tool](peers, Path(folder), CASES[0]) is not None


# ---- tools that only look: a listing as of `sysctl -a`, and what of it is told.

SAVED = {
    "net.ipv4.ip_forward": "0",
    "net.ipv6.conf.all.forwarding": "0",
    "net.ipv4.icmp_ignore_bogus_error_responses": "1",
    "net.ipv4.icmp_echo_ignore_broadcasts": "1",
    "net.ipv4.tcp_syncookies": "1",
    "kernel.randomize_va_space": "2",
    "kernel.yama.ptrace_scope": "1",
    "fs.suid_dumpable": "0",
    **{
        f"net.ipv4.conf.{name}.{leaf}": value
        for name in ("all", "default", "eth0")
        for leaf, value in (
            *(("accept_redirects", "0"), ("secure_redirects", "0"), ("send_redirects", "0")),
            *(("accept_source_route", "0"), ("rp_filter", "1"), ("log_martians", "1")),
            ("forwarding", "0"),
        )
    },
    **{
        f"net.ipv6.conf.{name}.{leaf}": "0"
        for name in ("all", "default", "eth0")
        for leaf in ("accept_redirects", "accept_source_route", "accept_ra", "forwarding")
    },
}
"""A host that is as the profile cis wants it."""
ALL = "net.ipv4.conf.all"
LOOKS: list[tuple[str, dict[str, str | None], list[str], bool]] = [
    ("as wanted", {}, ["net.ipv4.tcp_syncookies"], False),
    ("a wrong value", {"net.ipv4.tcp_syncookies": "0"}, ["net.ipv4.tcp_syncookies"], True),
    (
        "a key that is not there",
        {"net.ipv4.tcp_syncookies": None},
        ["net.ipv4.tcp_syncookies"],
        True,
    ),
    (
        "`conf.all` is right, an interface takes redirects all the same",
        {"net.ipv4.conf.eth0.accept_redirects": "1"},
        [f"{ALL}.accept_redirects", "net.ipv4.conf.eth0.accept_redirects"],
        True,
    ),
    (
        "IPv6: `conf.all` is right, which rules no interface",
        {"net.ipv6.conf.eth0.accept_ra": "1"},
        ["net.ipv6.conf.all.accept_ra", "net.ipv6.conf.eth0.accept_ra"],
        True,
    ),
    (
        "`rp_filter` 2 on an interface beats 1 of `conf.all`",
        {"net.ipv4.conf.eth0.rp_filter": "2"},
        [f"{ALL}.rp_filter", "net.ipv4.conf.eth0.rp_filter"],
        True,
    ),
    (
        "a setting of the kernel's own protection that CIS does not name",
        {"kernel.kptr_restrict": "0"},
        ["kernel.kptr_restrict"],
        True,
    ),
]
"""Situation, what differs from SAVED, the keys that it is about, whether there is something to tell."""


def checker_tells(peers: Peers, file: Path, keys: list[str]) -> tuple[bool, int]:
    """Whether kernel-hardening-checker finds fault with one of these keys, and its exit code."""
    assert peers.checker is not None
    done = subprocess.run(
        ["/usr/bin/python3", peers.checker / "usr/bin/kernel-hardening-checker", "-s", file],
        env=os.environ | {"PYTHONPATH": str(peers.checker / "usr/lib/python3/dist-packages")},
        capture_output=True,
        text=True,
        check=False,
    )
    rows = [re.split(r"\s*\|\s*", line) for line in done.stdout.splitlines()]
    told = any(row[0].strip() in keys and row[-1].startswith("FAIL") for row in rows)
    return told, done.returncode


def ours_tells(file: Path, keys: list[str]) -> tuple[bool, int]:
    """The same of `check --strict cis --from`."""
    command = [BINARY, "check", "--strict", "cis", "--from", file, "-f", "json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    answer = json.loads(done.stdout)
    rows = [s for p in answer["profiles"] for s in p["settings"] if s["status"] != "ok"]
    found = any(row["key"] in keys for row in rows)
    return found or any(
        key in f["what"] for f in answer["findings"] for key in keys
    ), done.returncode


def table_of_lookers(peers: Peers, folder: Path) -> Iterator[str]:
    """Yield the lines of the second table."""
    yield f"| situation | kernel-hardening-checker | {US} check cis |"
    yield "|---|---|---|"
    right = [0, 0]
    for name, changes, keys, is_wrong in LOOKS:
        saved = SAVED | changes
        file = folder / "saved"
        file.write_text("".join(f"{k} = {v}\n" for k, v in saved.items() if v is not None))
        cells = []
        for i, (told, code) in enumerate(
            (checker_tells(peers, file, keys), ours_tells(file, keys))
        ):
            right[i] += told == is_wrong
            words = "tells it" if told else "says nothing"
            cells.append(f"{words if told == is_wrong else f'**{words}**'} (exit {code})")
        yield f"| {name} | " + " | ".join(cells) + " |"
    yield f"| right, of {len(LOOKS)} | {right[0]} | {right[1]} |"


def compared() -> Iterator[str]:
    """Yield all lines."""
    peers = all_peers.find()
    for name, version in all_peers.versions(peers).items():
        yield f"- {name}: {version}"
    yield ""
    yield "Tools that set:"
    yield ""
    yield from table_of_setters(peers)
    if peers.checker is not None:
        yield ""
        yield "Tools that look:"
        yield ""
        with tempfile.TemporaryDirectory() as folder:
            yield from table_of_lookers(peers, Path(folder))


def main() -> None:
    """Print the tables, and put them into a page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", type=Path, help="a page with the marks of the tables")
    asked = parser.parse_args()
    lines = []
    for line in compared():
        print(line, flush=True)
        lines.append(line)
    if asked.write is not None:
        head, _, rest = asked.write.read_text().partition(BEGIN)
        tail = rest.partition(END)[2]
        asked.write.write_text(head + BEGIN + "\n" + "\n".join(lines) + "\n" + END + tail)


if __name__ == "__main__":
    main()
