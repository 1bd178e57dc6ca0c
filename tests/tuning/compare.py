"""The same hard cases for sysctl, systemd-sysctl, tuned and hardsock-tune, each in a namespace.

Prints what each tool answered (exit code) and what the kernel holds afterwards. A tool is right when
the value is what was asked for and it says so, or nothing changed and it says that. Only settings
of throw-away network namespaces are written; `make -C tuning compare` runs it.

tuned is a service, and none is started: its own sysctl plugin is called in the namespace. What the
plugin reports is what its callers see: the writes tell nobody, only the log. TUNED_LIB names the
folder that its package `tuned` is in, if that is not where distributions put it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

TOP = Path(__file__).resolve().parent.parent.parent
sys.path[:0] = [str(TOP / "python"), str(TOP / "tests")]

from hardsock.lab import Namespace  # noqa: E402

BINARY = os.environ.get("HARDSOCK_TUNE", str(TOP / "build/tune/release/hardsock-tune"))
SYSTEMD = "/lib/systemd/systemd-sysctl"

# Name, settings in the order of the file.
CASES: list[tuple[str, list[tuple[str, str]]]] = [
    ("short write: two numbers for one", [("net.ipv4.tcp_fin_timeout", "30 31")]),
    ("extra token that is dropped", [("net.ipv4.tcp_syn_retries", "5 6")]),
    ("too few numbers", [("net.ipv4.tcp_rmem", "5000")]),
    ("EINVAL that changes two numbers", [("net.ipv4.tcp_wmem", "8192 32768 bad")]),
    ("octal by accident", [("net.ipv4.tcp_fin_timeout", "036")]),
    ("empty value", [("net.ipv4.ip_local_reserved_ports", "")]),
    (
        "order: start before range",
        [
            ("net.ipv4.ip_unprivileged_port_start", "40000"),
            ("net.ipv4.ip_local_port_range", "40000 65000"),
        ],
    ),
    ("read-only here", [("net.core.rmem_max", "8388608")]),
    ("belongs to the machine", [("net.core.netdev_max_backlog", "5000")]),
    ("second of two is refused", [("net.core.somaxconn", "5000"), ("net.ipv4.tcp_ecn", "77")]),
]

PREPARE = """
from hardsock.lab import inside
inside.write_sysctl("net.ipv4.ip_local_reserved_ports", "8080")
"""

READ = """
from hardsock.lab import inside
def one(key):
    try:
        return inside.read_sysctl(key)
    except OSError as exc:
        return type(exc).__name__
result = [one(k) for k in args]
"""


TUNED = """
import sys, types
sys.path.insert(0, sys.argv[1])
from tuned.plugins.plugin_sysctl import SysctlPlugin
from tuned.utils.commands import commands
class Store(dict):
    set = dict.__setitem__
plugin = SysctlPlugin.__new__(SysctlPlugin)
plugin._cmd = commands()
plugin._storage = Store()
plugin._storage_key = lambda name: name
plugin._variables = types.SimpleNamespace(expand=lambda text: text)
plugin._global_cfg = types.SimpleNamespace(get_bool=lambda *_args: False)
settings = dict(line.split("=", 1) for line in open(sys.argv[2]).read().splitlines())
instance = types.SimpleNamespace(name="sysctl", _sysctl=settings, _sysctl_original={})
plugin._instance_apply_static(instance)
"""


def tuned_folder() -> str | None:
    """Where the package of tuned is, installed or only unpacked."""
    named = os.environ.get("TUNED_LIB")
    places = [Path(named)] if named else [*Path("/usr/lib").glob("python3*/*-packages")]
    for place in places:
        if (place / "tuned/plugins/plugin_sysctl.py").exists():
            return str(place)
    return None


def commands(folder: str, settings: list[tuple[str, str]]) -> dict[str, list[str]]:
    conf = Path(folder) / "case.conf"
    conf.write_text("".join(f"{k} = {v}\n" for k, v in settings))
    yaml = Path(folder) / "case.yaml"
    body = "".join(f'  {k}: {{value: "{v}", why: w}}\n' for k, v in settings)
    yaml.write_text(f"name: case\nsummary: s\nsettings:\n{body}")
    sysctl = shutil.which("sysctl") or "/usr/sbin/sysctl"
    plain = Path(folder) / "tuned.conf"
    plain.write_text("".join(f"{k}={v}\n" for k, v in settings))
    return {
        "tuned": ["/usr/bin/python3", "-c", TUNED, tuned_folder() or "", str(plain)],
        "sysctl": [sysctl, "-p", str(conf)],
        "systemd-sysctl": [SYSTEMD, str(conf)],
        "hardsock-tune": [BINARY, "apply", str(yaml), "--state", f"{folder}/state"],
    }


def verdict(asked: list[str], before: list[str], after: list[str], code: int) -> str:
    if after == asked:
        return "right" if code == 0 else "done, but says it failed"
    if after == before:
        return "right: refused" if code != 0 else "WRONG: nothing changed, says it is done"
    return "WRONG: changed something else" + (", says it is done" if code == 0 else "")


def main() -> None:
    tools = ["sysctl", "systemd-sysctl", "tuned", "hardsock-tune"]
    if tuned_folder() is None:
        print("tuned is not here, installed or unpacked (TUNED_LIB): left out, not compared\n")
        tools.remove("tuned")
    right = dict.fromkeys(tools, 0)
    for name, settings in CASES:
        print(name)
        for tool in tools:
            with Namespace(mount=False) as ns, tempfile.TemporaryDirectory() as folder:
                command = commands(folder, settings)[tool]
                if not os.path.exists(command[0]):
                    print(f"  {tool:<15} not installed")
                    continue
                keys = [k for k, _ in settings]
                ns.run(PREPARE)
                before = ns.run(READ, *keys)
                code = subprocess_code(ns, command)
                after = ns.run(READ, *keys)
            asked = [" ".join(v.split()) for _, v in settings]
            held = "; ".join(after)
            said = verdict(asked, before, after, code)
            right[tool] += said.startswith("right")
            print(f"  {tool:<15} exit {code}  {held:<28} {said}")
    print("\nright: " + ", ".join(f"{t} {n} of {len(CASES)}" for t, n in right.items()))


def subprocess_code(ns: Namespace, command: list[str]) -> int:
    done: subprocess.CompletedProcess[str] = ns.exec(command)
    return done.returncode


if __name__ == "__main__":
    main()
