"""docs/tune.md: every output on the page is what the program prints there.

Each block of commands is run in turn on one machine that looks as the page says. With
HARDSOCK_UPDATE_GOLDEN=1 the page is written anew.
"""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path

from support_tune import DRIFT, OK, TOP, Root, answer, tune
from test_history import aged

PAGE = TOP / "docs/tune.md"
BLOCK = re.compile(r"```console\n(.*?)```", re.DOTALL)

GUIDE = """# ten tips for a fast server
net.ipv4.tcp_timestamps = 0
net.ipv4.tcp_tw_recycle = 1
net.core.somaxconn = 65535
net.ipv4.tcp_fin_timeout = 15 seconds
"""
SITE = """name: site
summary: What our services want.
extends: baseline
settings:
  net.ipv4.tcp_retries2:
    value: 9
    why: A quarter of an hour is too long for our clients.
    risk: A connection over a bad path may be given up too early.
"""
QUEUES = """name: queues
summary: What the people on call look at.
settings:
  net.core.netdev_max_backlog:
    at_least: 1000
    why: Bursts on loopback and veth pass through it.
    risk: More delay before packets are dropped under overload.
"""
WAIVERS = """waivers:
  net.ipv4.tcp_sack:
    reason: The old balancer mishandles it; ticket 4711.
    until: 2999-06-30
"""


class Machine:
    def __init__(self, root: Root) -> None:
        self.root = root
        root.put("net/core/somaxconn", "128")
        root.put("net/ipv4/tcp_sack", "0")
        root.listen(40000)
        (root.path / "proc/net/softnet_stat").write_text("00001234 0000001f 00000000\n")
        self.here = root.path
        for name, text in (("guide.conf", GUIDE), ("site.yaml", SITE), ("queues.yaml", QUEUES)):
            (self.here / name).write_text(text)
        for name in ("etc/sysctl.d", "etc/hardsock"):
            (self.here / name).mkdir(parents=True)

    def pass_three_minutes(self) -> None:
        """As if the last check had been then, with 100 packets dropped since. Not longer: the file
        cannot tell of a time before the machine was booted."""
        aged(self.here / "history", 180)
        (self.here / "proc/net/softnet_stat").write_text("00005678 00000083 00000000\n")

    def run(self, line: str) -> str:
        words = shlex.split(line)
        if words[0] == "cat":
            if words[1].endswith("waivers.yaml"):
                (self.here / words[1]).write_text(WAIVERS)
            text = (self.here / words[1]).read_text()
        else:
            assert words[0] == "hardsock-tune"
            if "--history" in words and (self.here / "history").exists():
                self.pass_three_minutes()
            done = self.root.tune(*words[1:], env={"COLUMNS": "80"}, cwd=self.here)
            text = done.stdout + done.stderr
        return re.sub(r"\b[0-9a-f]{16}$", "...", text.replace(str(self.here), ""), flags=re.M)


def rendered(page: str, machine: Machine) -> str:
    def block(found: re.Match[str]) -> str:
        lines = [line for line in found[1].splitlines() if line.startswith("$ ")]
        return (
            "```console\n" + "".join(f"{line}\n{machine.run(line[2:])}" for line in lines) + "```"
        )

    return BLOCK.sub(block, page)


def test_every_output_of_the_tutorial_is_the_program_s_own(root: Root) -> None:
    page = PAGE.read_text()
    text = rendered(page, Machine(root))
    if os.environ.get("HARDSOCK_UPDATE_GOLDEN"):
        PAGE.write_text(text)
    assert PAGE.read_text() == text


def test_the_tutorial_shows_age_and_rate() -> None:
    shown = [block for block in BLOCK.findall(PAGE.read_text()) if "--history" in block]
    assert any("first seen 3 min ago" in block for block in shown)
    assert any("in the last 3 min" in block for block in shown)


def test_the_tutorial_shows_each_step() -> None:
    page = PAGE.read_text()
    for command in ("check", "explain", "judge", "diff", "apply", "revert", "persist", "recommend"):
        assert re.search(rf"^\$ hardsock-tune {command}\b", page, re.MULTILINE), command
    assert len(BLOCK.findall(page)) >= 8
    for name in re.findall(r"`(tuning/[\w./]+)`", page):
        assert (TOP / Path(name)).exists(), name
    assert tune("--version").returncode == 0


def test_what_apply_may_write_is_said_where_users_read() -> None:
    code = (TOP / "tuning/src/allow.c").read_text()
    prefixes = re.search(r"prefixes\[\] = \{(.*?)\}", code, re.DOTALL)
    assert prefixes
    names = [p.strip("/").replace("/", ".") for p in re.findall(r'"([^"]+)"', prefixes[1])]
    assert len(names) > 1
    said = f"every key of {', '.join(names[:-1])} and {names[-1]}"
    for page in (PAGE, TOP / "tuning/man/hardsock-tune.8"):
        text = " ".join(page.read_text().split())
        assert said in text, page
        for key in ("net.core.bpf_jit_harden", "kernel.panic"):
            assert key in text
            assert answer("explain", key)["answers"][0]["not applied"], key


def test_the_code_that_the_internals_name_is_there() -> None:
    page = (TOP / "docs/internals/tune.md").read_text()
    named = re.findall(r"`([a-z_]+\.[ch])(?: ([a-z_]+))?`", page)
    assert len(named) >= 40
    for file, name in named:
        path = TOP / "tuning/src" / file
        assert path.exists(), file
        assert re.search(rf"\b{name}\b", path.read_text()), f"{file} {name}"


def test_what_other_pages_tell_to_type_is_taken(root: Root) -> None:
    """README and guides: on one machine that looks as theirs, page by page."""
    root.put("net/core/somaxconn", "128")
    pages = [TOP / "README.md", *sorted((TOP / "docs/guides").glob("*.md"))]
    typed = [
        line
        for page in pages
        for block in re.findall(r"```(?:console|sh)\n(.*?)```", page.read_text(), re.DOTALL)
        for line in re.findall(r"^(?:\$ )?(hardsock-tune\b.*)", block, re.MULTILINE)
    ]
    assert len(typed) >= 6
    for line in typed:
        done = root.tune(*shlex.split(line, comments=True)[1:])
        assert done.returncode in (OK, DRIFT), (line, done.stderr)
