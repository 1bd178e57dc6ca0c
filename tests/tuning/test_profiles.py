"""The shipped profiles of services: each setting has its reason, risk, source and limits."""

from __future__ import annotations

from pathlib import Path

import pytest
from support_tune import DRIFT, GLOBAL, OK, TOP, Root, answer, tune

from hardsock.lab import Namespace

SERVICES = [
    "article-2023", "bbr-wan", "cis", "edge-proxy", "elasticsearch", "kafka", "kubernetes-node", "postgresql",
    "redis",
]  # fmt: skip


# A namespace that nobody has changed is as they want it.
UNCHANGED = ["article-2023", "kafka", "kubernetes-node", "postgresql", "redis"]


@pytest.mark.parametrize("name", SERVICES)
def test_each_setting_says_why_at_what_risk_by_whom_and_when_it_is_wrong(name: str) -> None:
    own = [s for s in answer("show", name)["settings"] if s["from"] == name]
    assert own
    for setting in own:
        for field in ("why", "risk", "source", "wrong_if"):
            assert setting[field], (setting["key"], field)
    shown = tune("show", name).stdout
    assert shown.count("wrong if") == shown.count("source ") == len(own)


@pytest.mark.parametrize("name", SERVICES)
def test_each_key_of_a_profile_is_known(name: str) -> None:
    for setting in answer("show", name)["settings"]:
        key = setting["key"].replace("*", "default")
        assert tune("explain", key).returncode == OK, key


@pytest.mark.parametrize("name", SERVICES)
def test_a_profile_is_applied_and_taken_back_whole(
    ns: Namespace, tmp_path: Path, name: str
) -> None:
    """In a namespace of the test; what is the machine's own is left out, and told."""
    script = """
import os, subprocess
from hardsock.lab import inside
inside.check_isolated("net")
def tree():
    found = {}
    for folder, _, names in os.walk("/proc/sys/net"):
        for name in names:
            try:
                found[f"{folder}/{name}"] = open(f"{folder}/{name}").read()
            except OSError:
                pass
    return found
before = tree()
run = lambda *words: subprocess.run([args[0], *words, "--state", args[2]], capture_output=True,
                                    text=True)
applied = run("apply", args[1])
changed = tree() != before
back = run("revert")
after = tree()
result = [applied.returncode, applied.stderr, changed, back.returncode,
          {k: (v, after.get(k)) for k, v in before.items() if after.get(k) != v}]
"""
    from support_tune import BINARY

    code, said, changed, back, differ = ns.run(script, str(BINARY), name, str(tmp_path / "s"))
    assert code in (OK, DRIFT, GLOBAL), said
    assert (back, differ) == (OK, {})
    assert changed or name in UNCHANGED, said


def test_the_cis_profile_names_every_number_of_its_section() -> None:
    text = (TOP / "tuning/profiles/cis.yaml").read_text()
    for n in range(1, 12):
        assert f"source: CIS 3.3.{n}\n" in text


def test_a_hardened_machine_passes_cis_and_a_router_does_not(root: Root) -> None:
    for key, value in (("ip_forward", "0"), ("icmp_ignore_bogus_error_responses", "1"),
                       ("icmp_echo_ignore_broadcasts", "1")):  # fmt: skip
        root.put(f"net/ipv4/{key}", value)
    for name in ("all", "default", "eth0"):
        for key, value in (("send_redirects", "0"), ("accept_redirects", "0"),
                           ("secure_redirects", "0"), ("rp_filter", "1"), ("log_martians", "1"),
                           ("accept_source_route", "0")):  # fmt: skip
            root.put(f"net/ipv4/conf/{name}/{key}", value)
        for key in ("accept_redirects", "accept_source_route", "accept_ra", "forwarding"):
            root.put(f"net/ipv6/conf/{name}/{key}", "0")
    root.put("kernel/randomize_va_space", "2")
    root.put("kernel/yama/ptrace_scope", "1")
    root.put("fs/suid_dumpable", "0")
    assert root.tune("check", "--strict=missing", "cis").returncode == OK
    root.put("net/ipv4/conf/eth0/accept_redirects", "1")
    assert root.tune("check", "cis").returncode == DRIFT


def test_the_services_that_contradict_each_other_say_so(root: Root) -> None:
    for key, value in (("overcommit_memory", "0"), ("swappiness", "60"), ("overcommit_ratio", "50"),
                       ("dirty_background_ratio", "10"), ("max_map_count", "65530")):  # fmt: skip
        root.put(f"vm/{key}", value)
    done = root.tune("apply", "-n", "redis", "postgresql")
    assert "vm.overcommit_memory: profile redis wants 1, profile postgresql wants 2" in done.stderr
    done = root.tune("apply", "-n", "elasticsearch", "edge-proxy")
    assert "net.ipv4.tcp_retries2" in done.stderr


def test_bandwidth_and_delay_of_a_path_make_its_buffers(root: Root) -> None:
    got = root.answer("check", "bbr-wan", "-s", "bandwidth_mbit=100", "-s", "rtt_ms=200")
    rows = {s["key"]: s for s in got["profiles"][0]["settings"]}
    assert rows["net.ipv4.tcp_rmem"]["constraint_text"].endswith(" 5000000")
    assert rows["net.ipv4.tcp_congestion_control"]["status"] == "skipped", "no such module here"
