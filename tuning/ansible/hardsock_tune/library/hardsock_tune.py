#!/usr/bin/python
"""Ansible module: kernel network settings by hardsock-tune, as one transaction that can be taken back."""

from __future__ import annotations

import json
import os

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: hardsock_tune
short_description: Apply, persist and revert kernel settings from hardsock-tune profiles
description:
  - Calls C(hardsock-tune), which must be installed on the host.
  - O(state=applied) changes what differs from the profiles in one transaction; if the kernel refuses
    a value, everything is rolled back and the task fails.
  - Check mode and diff mode are supported; a second run changes nothing.
options:
  profiles:
    description: Names of built-in profiles, or paths of YAML files on the host.
    type: list
    elements: str
    default: []
  state:
    description:
      - V(applied), the settings are in effect now.
      - V(persisted), also written for the next boot (sysctl.d).
      - V(reverted), every transaction is taken back, and what was persisted is removed.
    type: str
    choices: [applied, persisted, reverted]
    default: applied
  variables:
    description: Variables of the profiles, by name.
    type: dict
    default: {}
  output:
    description: Name of the sysctl.d file, for V(persisted) and V(reverted).
    type: str
    default: 90-hardsock.conf
  netns:
    description: A network namespace to work in, by name, process id or path.
    type: str
  allow_partial:
    description: Do not fail when settings had to be left out, such as global ones in a container.
    type: bool
    default: false
  force:
    description: As C(--force) of the command, whose manual says what that risks.
    type: bool
    default: false
  root:
    description: A directory instead of V(/), for images.
    type: path
  state_directory:
    description: Where transactions are kept.
    type: path
  executable:
    description: The program, if it is not on the path.
    type: path
"""

EXAMPLES = r"""
- name: Settings of a busy server, now and after the next boot
  hardsock_tune:
    profiles: [baseline, busy-server]
    state: persisted
"""

RETURN = r"""
changes:
  description: What was changed, or would be in check mode, in order.
  type: list
  elements: dict
  returned: always
messages:
  description: What the command had to say.
  type: list
  elements: str
  returned: always
"""

AS_WANTED, DRIFT, GLOBAL = 0, 1, 10
LEFT_OUT = (DRIFT, GLOBAL)
FAILURES = {
    2: "the call was wrong",
    3: "a profile is wrong",
    4: "no permission",
    5: "the kernel refused a value; everything was rolled back",
    6: "partly applied; everything was rolled back",
    7: "in conflict with another run, or profiles contradict each other",
    8: "a system call failed",
    9: "residue: something could not be rolled back or reverted",
}


class Tune:
    """The program, as this task wants it to be called."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        params = module.params
        self.binary = params["executable"] or module.get_bin_path(
            "hardsock-tune", True, ["/usr/local/sbin", "/usr/sbin"]
        )
        self.profiles = params["profiles"]
        self.options: list[str] = []
        for option in ("netns", "root"):
            if params[option]:
                self.options += [f"--{option}", params[option]]
        if params["state_directory"]:
            self.options += ["--state", params["state_directory"]]
        for name, value in params["variables"].items():
            self.options += ["--set", f"{name}={value}"]

    def call(self, command: str, *arguments: str, dry: bool) -> tuple[int, str, str]:
        """Run a command; return its exit code, output and messages."""
        options = ["--dry-run"] if dry else []
        return self.module.run_command([self.binary, command, *arguments, *self.options, *options])

    def run(self, command: str, *arguments: str) -> tuple[list[dict[str, object]], list[str]]:
        """Return (changes, messages) of a command; fail the task if the command failed."""
        code, out, err = self.call(
            command, *arguments, "--format", "json", dry=self.module.check_mode
        )
        try:
            answer = json.loads(out) if out.strip() else {}
        except ValueError:
            self.module.fail_json(msg=f"hardsock-tune {command} printed no JSON: {out[:200]!r}")
        changes = answer.get("changes", [])
        messages = answer.get("messages") or [line for line in err.splitlines() if line]
        text = "; ".join(messages) or "no message"
        if code not in (AS_WANTED, *LEFT_OUT):
            why = FAILURES.get(code, f"exit code {code}")
            self.module.fail_json(
                msg=f"hardsock-tune {command}: {why}: {text}", rc=code, changes=changes
            )
        if code in LEFT_OUT and not self.module.params["allow_partial"]:
            self.module.fail_json(
                msg=f"hardsock-tune {command}: settings were left out: {text}",
                rc=code,
                changes=changes,
            )
        return changes, messages

    def persist(self, name: str) -> tuple[list[dict[str, object]], list[str]]:
        """Write the file for the next boot if it would differ from what is there."""
        arguments = [*self.profiles, "--output", name]
        code, text, err = self.call("persist", *arguments, dry=True)
        if code not in (AS_WANTED, DRIFT):
            why = FAILURES.get(code, f"exit code {code}")
            self.module.fail_json(msg=f"hardsock-tune persist: {why}: {err.strip()}", rc=code)
        path = os.path.join(self.module.params["root"] or "/", "etc/sysctl.d", name)
        before = read(path)
        if before == text:
            return [], []
        _, messages = self.run("persist", *arguments)
        return [{"action": "write", "key": path, "before": before, "after": text}], messages

    def unpersist(self, name: str) -> tuple[list[dict[str, object]], list[str]]:
        """Remove the file for the next boot if it is there."""
        path = os.path.join(self.module.params["root"] or "/", "etc/sysctl.d", name)
        before = read(path)
        if before is None:
            return [], []
        _, messages = self.run("unpersist", "--output", name)
        return [{"action": "remove", "key": path, "before": before, "after": None}], messages


def read(path: str) -> str | None:
    """Return the text of a file, None if there is none."""
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except FileNotFoundError:
        return None


def shown(changes: list[dict[str, object]]) -> dict[str, str]:
    """Return the changes as Ansible's diff mode wants them."""

    def side(which: str) -> str:
        lines = [f"{c['key']} = {c[which]}\n" for c in changes if c.get(which) is not None]
        return "".join(lines)

    return {"before": side("before"), "after": side("after")}


def main() -> None:
    """Run the task."""
    module = AnsibleModule(
        argument_spec={
            "profiles": {"type": "list", "elements": "str", "default": []},
            "state": {
                "type": "str",
                "choices": ["applied", "persisted", "reverted"],
                "default": "applied",
            },
            "variables": {"type": "dict", "default": {}},
            "output": {"type": "str", "default": "90-hardsock.conf"},
            "netns": {"type": "str"},
            "allow_partial": {"type": "bool", "default": False},
            "force": {"type": "bool", "default": False},
            "root": {"type": "path"},
            "state_directory": {"type": "path"},
            "executable": {"type": "path"},
        },
        required_if=[("state", "applied", ["profiles"]), ("state", "persisted", ["profiles"])],
        supports_check_mode=True,
    )
    tune = Tune(module)
    state = module.params["state"]
    if state != "reverted" and not tune.profiles:
        module.fail_json(msg=f"profiles must name at least one profile for state={state}")
    force = ["--force"] if module.params["force"] else []
    if state == "reverted":
        steps = [
            lambda: tune.run("revert", "--all", *force),
            lambda: tune.unpersist(module.params["output"]),
        ]
    else:
        steps = [lambda: tune.run("apply", *tune.profiles, *force)]
        if state == "persisted":
            steps.append(lambda: tune.persist(module.params["output"]))
    changes: list[dict[str, object]] = []
    messages: list[str] = []
    for step in steps:
        more, said = step()
        changes += more
        messages += said
    result = {"changed": bool(changes), "changes": changes, "messages": messages}
    if module._diff:
        result["diff"] = shown(changes)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
