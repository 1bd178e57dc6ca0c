"""import from the files of other tools, and of what is set at boot: nothing is lost silently."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support_tune import BINARY, DRIFT, OK, PROFILE, USAGE, Root, answer, tune

from hardsock.lab import Namespace

APPLY = """
import subprocess
from hardsock.lab import inside
inside.check_isolated("net")
def run(*words):
    return subprocess.run([args[0], *words, "--state", args[2]], capture_output=True).returncode
def get(name):
    return inside.read_sysctl("net.ipv4." + name)
result = [run("apply", args[1]), get("tcp_fin_timeout"), get("tcp_ecn"), run("revert"),
          get("tcp_fin_timeout")]
"""


def imported(*args: object, **kwargs: Any) -> dict[str, tuple[str, str]]:
    return {
        row["key"]: (row["constraint"], row["value"])
        for row in answer("import", *args, **kwargs)["settings"]
    }


# ---- what is set at boot


def test_what_is_set_at_boot_is_read_in_the_order_of_the_loaders(root: Root) -> None:
    for folder, name, text in (
        ("usr/lib/sysctl.d", "50-default.conf", "net.ipv4.tcp_sack = 0\nvm.swappiness = 10\n"),
        ("usr/lib/sysctl.d", "60-masked.conf", "net.ipv4.tcp_ecn = 1\n"),
        ("etc/sysctl.d", "60-masked.conf", "net.ipv4.tcp_fin_timeout = 30\n"),
        ("run/sysctl.d", "70-run.conf", "net.ipv4.tcp_sack = 1\n"),
        ("etc", "sysctl.conf", "net.ipv4.tcp_fin_timeout = 20\n"),
    ):
        (root.path / folder).mkdir(parents=True, exist_ok=True)
        (root.path / folder / name).write_text(text)
    expected = {
        "vm.swappiness": ("value", "10"),
        "net.ipv4.tcp_fin_timeout": ("value", "30"),
        "net.ipv4.tcp_sack": ("value", "1"),
    }
    assert imported("--system", root=root.path) == expected
    assert imported("--system=systemd", root=root.path) == expected
    expected["net.ipv4.tcp_fin_timeout"] = ("value", "20")
    assert imported("--system=procps", root=root.path) == expected
    said = root.tune("import", "--system").stderr
    assert (
        "50-default.conf:1: net.ipv4.tcp_sack is set again by /run/sysctl.d/70-run.conf:1" in said
    )
    assert root.tune("import", "--system=sysv").returncode == USAGE
    assert root.tune("import", "--system", "x.conf").returncode == USAGE


# As systemd ships it: a pattern for interfaces, without conf.all, and two that may fail.
SYSTEMD = """
net.ipv4.conf.default.rp_filter = 2
net.ipv4.conf.*.rp_filter = 2
-net.ipv4.conf.all.rp_filter
-net.ipv4.ping_group_range = 0 2147483647
-net.core.default_qdisc = fq_codel
fs.protected_hardlinks = 1
"""


def test_exclusions_from_patterns_and_what_may_fail_keep_their_meaning(
    root: Root, tmp_path: Path
) -> None:
    file = tmp_path / "50-default.conf"
    file.write_text(SYSTEMD)
    rows = {row["key"]: row for row in answer("import", file)["settings"]}
    assert rows["net.ipv4.conf.all.rp_filter"]["constraint"] == "excluded"
    assert [key for key, row in rows.items() if row["optional"]] == [
        "net.ipv4.ping_group_range", "net.core.default_qdisc",
    ]  # fmt: skip
    done = tune("import", file)
    assert (done.returncode, done.stderr) == (OK, "")
    mine = tmp_path / "mine.yaml"
    mine.write_text(done.stdout)
    assert tune("lint", mine).returncode == OK
    root.put("fs/protected_hardlinks", "1")
    for name in ("all", "default", "eth0"):
        root.put(f"net/ipv4/conf/{name}/rp_filter", "0")
    # Neither of the two that may fail is there.
    assert root.tune("check", "--strict=missing", mine).returncode == DRIFT
    assert root.tune("apply", mine).returncode == OK
    assert [root.get(f"net/ipv4/conf/{n}/rp_filter") for n in ("all", "default", "eth0")] == [
        "0", "2", "2",
    ]  # fmt: skip
    assert root.tune("check", "--strict=missing", mine).returncode == OK
    # And so at the next boot, here, in an image and by another tool.
    (root.path / "etc").mkdir(exist_ok=True)
    assert root.tune("persist", mine).returncode == OK
    (tmp_path / "image/etc").mkdir(parents=True)
    assert tune("persist", mine, root=tmp_path / "image").returncode == OK
    exported = tune("export", "--to", "sysctl.d", mine).stdout
    for text in (
        *(
            (p / "etc/sysctl.d/90-hardsock.conf").read_text()
            for p in (root.path, tmp_path / "image")
        ),
        exported,
    ):
        lines = text.splitlines()
        assert "net.ipv4.conf.*.rp_filter = 2" in lines
        assert "-net.ipv4.conf.all.rp_filter" in lines
        assert "net.ipv4.conf.default.rp_filter = 2" in lines
    assert "-net.core.default_qdisc = fq_codel" in exported.splitlines()
    assert root.tune("conflicts", mine).returncode == OK


@pytest.mark.parametrize(
    ("text", "kept", "said"),
    [
        # One of each name holds, an exclusion as well as a value.
        ("-net.ipv4.tcp_sack\nnet.ipv4.tcp_sack = 0\n", {"net.ipv4.tcp_sack"}, "is set again by"),
        ("net.ipv4.tcp_sack = 0\n-net.ipv4.tcp_sack\n", set(), "is taken back by"),
        ("net.ipv4.conf.*.rp_filter = 1\n-net.ipv4.conf.*.rp_filter\n", set(), "is taken back by"),
        # Of a pattern, and of no pattern that is taken: nothing is excluded.
        ("net.ipv4.conf.*.rp_filter = 1\n-net.ipv4.conf.e*.rp_filter\n",
         {"net.ipv4.conf.*.rp_filter"}, "excludes nothing"),
        ("net.ipv4.conf.e*.rp_filter = 1\n-net.ipv4.conf.eth0.rp_filter\n", set(),
         "excludes nothing"),
    ],
)  # fmt: skip
def test_the_last_of_a_name_holds_and_what_excludes_nothing_is_told(
    tmp_path: Path, text: str, kept: set[str], said: str
) -> None:
    file = tmp_path / "a.conf"
    file.write_text("vm.swappiness = 1\n" + text)
    assert set(imported(file)) == kept | {"vm.swappiness"}
    assert said in tune("import", file).stderr


def test_an_optional_key_that_the_kernel_refuses_is_left_out(ns: Namespace, tmp_path: Path) -> None:
    file = tmp_path / "p.yaml"
    file.write_text(
        "name: t\nsummary: s\nsettings:\n"
        "  net.ipv4.tcp_fin_timeout: {value: 30, why: w}\n"
        "  net.ipv4.tcp_ecn: {value: 77, optional: true, why: w}\n"
    )
    done = ns.run(APPLY, str(BINARY), str(file), str(tmp_path / "state"))
    assert done == [OK, "30", "2", OK, "60"], "set, refused, and all taken back"


def test_two_names_of_one_variable_are_one(tmp_path: Path) -> None:
    file = tmp_path / "a.conf"
    file.write_text("net.ipv4.ip_forward = 1\nnet.ipv4.conf.all.forwarding = 0\n")
    assert list(imported(file)) == ["net.ipv4.conf.all.forwarding"]
    assert ":2, as net.ipv4.conf.all.forwarding, which holds" in tune("import", file).stderr


# ---- tuned


def tuned(folder: Path, name: str, text: str) -> Path:
    file = folder / name / "tuned.conf"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


CHILD = """# a site's own
[main]
summary=Ours
include=base

[variables]
port_low=1024
range=${port_low} 65535

[cpu]
governor=performance

[sysctl]
net.core.somaxconn=>4096
net.ipv4.tcp_fin_timeout=<30
net.ipv4.ip_local_port_range = ${range}  # all of them
net.ipv4.tcp_keepalive_time=${f:exec:echo:3}
vm.swappiness=${nobody}
"""


def test_a_profile_of_tuned_comes_with_what_it_includes(tmp_path: Path) -> None:
    tuned(tmp_path, "base", "[sysctl]\nnet.ipv4.tcp_sack=1\nnet.core.somaxconn=128\n")
    file = tuned(tmp_path, "site", CHILD)
    done = tune("import", file)
    assert done.returncode == DRIFT
    assert imported(file) == {
        "net.ipv4.tcp_sack": ("value", "1"),
        "net.core.somaxconn": ("at_least", "4096"),
        "net.ipv4.tcp_fin_timeout": ("at_most", "30"),
        "net.ipv4.ip_local_port_range": ("value", "1024 65535"),
    }
    assert done.stderr.count("is worked out by tuned when it runs") == 2
    assert "4 settings imported, 2 lines left out" in done.stderr
    profile = tmp_path / "site.yaml"
    profile.write_text(done.stdout)
    assert tune("lint", profile).returncode == OK


@pytest.mark.parametrize("where", ["etc/tuned/profiles", "etc/tuned", "usr/lib/tuned"])
def test_includes_are_found_where_tuned_looks(root: Root, tmp_path: Path, where: str) -> None:
    tuned(root.path / where, "far", "[sysctl]\nnet.ipv4.tcp_sack=1\n")
    file = tuned(tmp_path / "mine", "site", "[main]\ninclude=far, far\n[sysctl]\nvm.swappiness=1\n")
    assert set(imported(file, root=root.path)) == {"net.ipv4.tcp_sack", "vm.swappiness"}


def test_what_tuned_does_not_find_or_works_out_is_told(tmp_path: Path) -> None:
    file = tuned(tmp_path, "site", "[main]\ninclude=nowhere ${f:x}\n[sysctl]\nvm.swappiness=1\n")
    assert "works out" in tune("import", file).stderr
    file = tuned(tmp_path, "site", "[main]\ninclude=nowhere\n[sysctl]\nvm.swappiness=1\n")
    done = tune("import", file)
    assert (done.returncode, "no such profile of tuned" in done.stderr) == (DRIFT, True)


def test_a_circle_of_includes_ends(tmp_path: Path) -> None:
    tuned(tmp_path, "a", "[main]\ninclude=b b\n[sysctl]\nnet.ipv4.tcp_sack=1\n")
    file = tuned(tmp_path, "b", "[main]\ninclude=a a\n[sysctl]\nvm.swappiness=1\n")
    assert set(imported(file)) == {"net.ipv4.tcp_sack", "vm.swappiness"}


@pytest.mark.parametrize(
    ("section", "keys"),
    [
        ("[sysctl]\nenabled=0\nnet.ipv4.tcp_sack=0\n", {"vm.swappiness"}),
        ("[mine]\ntype=sysctl\nnet.ipv4.tcp_sack=0\n", {"vm.swappiness", "net.ipv4.tcp_sack"}),
        ("[mine]\nnet.ipv4.tcp_sack=0\n", {"vm.swappiness"}),
        ("[sysctl]\nreplace=1\nnet.ipv4.tcp_sack=0\n", {"net.ipv4.tcp_sack"}),
        ("[sysctl]\n;net.ipv4.tcp_sack=0\nnonsense\n", {"vm.swappiness"}),
    ],
)
def test_sections_of_tuned(tmp_path: Path, section: str, keys: set[str]) -> None:
    tuned(tmp_path, "base", "[sysctl]\nvm.swappiness=1\n")
    file = tuned(tmp_path, "site", "[main]\ninclude=base\n" + section)
    assert set(imported(file)) == keys


def test_variables_of_tuned_from_a_file(root: Root, tmp_path: Path) -> None:
    (root.path / "etc/tuned").mkdir(parents=True)
    (root.path / "etc/tuned/v.conf").write_text("# mine\nn=33\n")
    file = tuned(
        tmp_path, "site",
        "[variables]\ninclude=/etc/tuned/v.conf\n[sysctl]\nnet.ipv4.tcp_fin_timeout=${n}\n",
    )  # fmt: skip
    assert imported(file, root=root.path) == {"net.ipv4.tcp_fin_timeout": ("value", "33")}
    file.write_text(file.read_text().replace("v.conf", "none.conf"))
    assert root.tune("import", file).returncode == PROFILE


# ---- Ansible

PLAY = """
- hosts: all
  vars:
    sysctl_config:
      net.ipv4.icmp_echo_ignore_broadcasts: 1
      net.ipv4.tcp_syncookies: "{{ cookies }}"
    unrelated: {some.key: 1}
  tasks:
    - name: One
      ansible.posix.sysctl:
        name: net.core.somaxconn
        value: "4096"
        state: present
        reload: true
    - name: In one line
      sysctl: name=net.ipv4.tcp_fin_timeout value=30 state=present
    - name: Several words
      sysctl: name=net.ipv4.ip_local_port_range value="1024 65535"
    - name: Taken away
      sysctl: {name: net.ipv4.tcp_sack, state: absent}
    - name: In a loop
      block:
        - ansible.posix.sysctl:
            name: "{{ item.name }}"
            value: "{{ item.value }}"
          loop:
            - {name: net.ipv4.tcp_ecn, value: 1}
            - {name: vm.swappiness, value: 10}
            - plain
    - name: Of variables
      ansible.posix.sysctl: {name: "{{ item.key }}", value: "{{ item.value }}"}
      with_dict: "{{ sysctl_config }}"
"""


def test_tasks_and_variables_of_ansible(tmp_path: Path) -> None:
    file = tmp_path / "play.yml"
    file.write_text(PLAY)
    assert imported(file) == {
        "net.ipv4.icmp_echo_ignore_broadcasts": ("value", "1"),
        "net.core.somaxconn": ("value", "4096"),
        "net.ipv4.tcp_fin_timeout": ("value", "30"),
        "net.ipv4.ip_local_port_range": ("value", "1024 65535"),
        "net.ipv4.tcp_ecn": ("value", "1"),
        "vm.swappiness": ("value", "10"),
    }
    done = tune("import", file)
    assert done.returncode == DRIFT
    assert done.stderr.count("is worked out when the play runs") == 2
    assert "other than name: and value:" in done.stderr
    assert "6 settings imported, 3 lines left out" in done.stderr


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("- sysctl: {name: net.ipv4.tcp_sack}\n", "no value"),
        ("- sysctl: nothing here\n", "names no key"),
        ("- sysctl: {name: net.ipv4.tcp_sack, value: yes}\n", "decimal"),
        ("a: &x 1\n", "anchors"),
        ("[]\n", "nothing in it"),
    ],
)
def test_what_ansible_has_and_a_profile_cannot_is_told(
    tmp_path: Path, text: str, word: str
) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(text)
    done = tune("import", file)
    assert (done.returncode, word in done.stderr, done.stdout) == (PROFILE, True, "")
