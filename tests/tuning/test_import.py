"""import from the files of other tools, and of what is set at boot: nothing is lost silently."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support_tune import DRIFT, OK, PROFILE, USAGE, Root, answer, tune


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
