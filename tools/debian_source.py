"""Source packages of Debian, fetched and unpacked: for interpreters that no package has as we need them.

apt fetches them from sid, or from the last stable release where sid's is not to be had, with lists of
its own: the machine's configuration stays as it is. What is unpacked is upstream's, without Debian's
patches, which look for packages in its own places.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import common
import distro


def run(command: list[str], cwd: Path | None = None, **settings: str) -> None:
    """Run command quietly, with settings in its environment; its last lines are shown when it fails."""
    done = subprocess.run(
        command,
        cwd=cwd,
        env=common.without_make() | settings,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if done.returncode:
        tail = "\n".join(done.stdout.splitlines()[-30:])
        raise distro.DistroError(f"{' '.join(command[:4])} ... failed:\n{tail}")


def fetch(package: str, scratch: Path) -> Path:
    """Get and unpack the newest that there is; return its folder."""
    for suite in reversed(distro.SUITES):
        try:
            return fetch_from(suite, package, scratch / f"{package}-{suite}")
        except distro.DistroError as exc:
            problem = exc
    raise problem


def fetch_from(suite: str, package: str, scratch: Path) -> Path:
    scratch.mkdir()
    sources = distro.mirror()
    if not sources:
        raise distro.DistroError(
            "apt here knows no Debian source; name one in HARDSOCK_DEBIAN_MIRROR"
        )
    listed = scratch / "sources.list"
    signed = "[signed-by=/usr/share/keyrings/debian-archive-keyring.gpg]"
    listed.write_text(f"deb-src {signed} {sources[0]} {suite} main\n")
    for folder in ("lists/partial", "cache/archives/partial"):
        (scratch / folder).mkdir(parents=True)
    options = {
        "Dir::Etc::SourceList": listed,
        "Dir::Etc::SourceParts": "-",
        "Dir::State::Lists": scratch / "lists",
        "Dir::Cache": scratch / "cache",
        "APT::Sandbox::User": "root",
    }
    apt = ["apt-get", "-qq", *(f"-o{k}={v}" for k, v in options.items())]
    run([*apt, "update"], cwd=scratch)
    for version in listed_versions(["apt-cache", *apt[2:]], package, scratch):
        try:
            run([*apt, "source", "--download-only", f"{package}={version}"], cwd=scratch)
            break
        except distro.DistroError as exc:
            distro.say(f"{suite} lists {package} {version}, which is not to be had")
            problem = exc
    else:
        raise problem
    (description,) = scratch.glob("*.dsc")
    run(["dpkg-source", "--skip-patches", "-x", description.name, "source"], cwd=scratch)
    return scratch / "source"


def listed_versions(apt_cache: list[str], package: str, scratch: Path) -> list[str]:
    """Newest first. A mirror in the middle of an update lists one that it does not have yet."""
    command = [*apt_cache, "showsrc", "--only-source", package]
    shown = subprocess.run(command, cwd=scratch, capture_output=True, text=True).stdout
    versions = [line.split()[1] for line in shown.splitlines() if line.startswith("Version: ")]
    if not versions:
        raise distro.DistroError(f"no source package of {package} is listed")
    return versions[::-1]  # apt shows the oldest first.
