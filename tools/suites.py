"""The libraries' own test suites, over the standard library's sockets and over hardsock.

    suites.py [SUITE...]     run each twice, and print what differs

A suite comes from the library's source distribution, is left as it is, and runs in an environment of
its own below build/suites: once alone, once with the plugin of `tools/suites` that puts the adapter's
classes in the place of the library's. A difference that docs/internals/adapter-suites.md names is
known; any other fails. Needs a package index.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tarfile
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from pathlib import Path

import common

PLACE = common.ROOT / "build/suites"
PAGE = common.ROOT / "docs/internals/adapter-suites.md"


@dataclass(frozen=True)
class Suite:
    """A library's."""

    name: str
    version: str
    plugin: str
    wants: tuple[str, ...]
    tests: tuple[str, ...]


_TEST = "test/with_dummyserver/test_"
SUITES = (
    Suite(
        *("urllib3", "2.8.0", "over_urllib3"),
        (
            *("anyio[trio]", "h2", "httpx", "hypercorn", "pysocks", "pytest<10", "pytest-socket"),
            *("pytest-timeout", "pytest-xdist", "quart", "quart-trio", "trio", "cryptography"),
            *("trustme", "idna"),
        ),
        (
            *(f"{_TEST}{name}.py" for name in ("chunked_transfer", "connection", "connectionpool")),
            *(f"{_TEST}{name}.py" for name in ("https", "poolmanager", "socketlevel")),
            *("test/test_connectionpool.py", "test/test_connection.py", "test/test_poolmanager.py"),
        ),
    ),
)


def prepare(suite: Suite) -> tuple[Path, Path]:
    """The interpreter of its environment, and where its source is."""
    place = PLACE / suite.name
    source = place / f"{suite.name}-{suite.version}"
    python = place / "venv/bin/python"
    if not (place / "ready").exists():
        place.mkdir(parents=True, exist_ok=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", place / "venv"], check=True)
        pip = [python, "-m", "pip", "--disable-pip-version-check", "-q"]
        build = ["hatchling", "hatch-vcs", "setuptools"]
        subprocess.run([*pip[:-1], "install", "-q", *build, *suite.wants], check=True)
        wanted = f"{suite.name}=={suite.version}"
        source_only = ["--no-deps", "--no-binary", ":all:", "--no-build-isolation"]
        subprocess.run([*pip[:-1], "download", "-q", *source_only, "-d", place, wanted], check=True)
        subprocess.run([*pip[:-1], "install", "-q", wanted], check=True)
        with tarfile.open(next(place.glob("*.tar.gz"))) as archive:
            archive.extractall(place, filter="data")
        (place / "ready").touch()
    return python, source


def outcomes(suite: Suite, over: bool) -> dict[str, str]:
    """Each test, and "" or what it failed with."""
    python, source = prepare(suite)
    report = PLACE / suite.name / ("over.xml" if over else "plain.xml")
    environment = dict(os.environ)
    if over:
        paths = [common.ROOT / "python", common.ROOT / "tools/suites"]
        environment["PYTHONPATH"] = os.pathsep.join(map(str, paths))
        environment["PYTEST_PLUGINS"] = suite.plugin
    jobs = os.environ.get("JOBS", "2")
    argv = [python, "-m", "pytest", "-q", "-n", jobs, "-p", "no:cacheprovider"]
    with open(report.with_suffix(".log"), "wb") as log:
        subprocess.run(
            [*argv, f"--junitxml={report}", *suite.tests],
            cwd=source,
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    found = {}
    for case in ElementTree.parse(report).getroot().iter("testcase"):
        bad = [one for one in case if one.tag in ("failure", "error")]
        name = f"{(case.get('classname') or '').rpartition('.')[2]}::{case.get('name')}"
        found[name] = (bad[0].get("message") or "failed") if bad else ""
    return found


def compare(suite: Suite) -> bool:
    """Print what differs; whether all of that is known."""
    plain, over = outcomes(suite, False), outcomes(suite, True)
    known = PAGE.read_text()
    good = True
    for name in sorted(plain.keys() | over.keys()):
        if bool(plain.get(name, "missing")) == bool(over.get(name, "missing")):
            continue
        if over.get(name, "missing") and f"`{name}`" not in known:
            good = False
            print(f"  {name}: {over.get(name, 'missing')[:300]}")
    passed = [sum(not said for said in found.values()) for found in (plain, over)]
    print(f"{suite.name} {suite.version}: {passed[0]} plain, {passed[1]} over hardsock")
    return good


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(description="Run libraries' own suites over hardsock.")
    parser.add_argument("suites", nargs="*", metavar="SUITE")
    args = parser.parse_args(argv)
    names = [suite.name for suite in SUITES]
    if unknown := [name for name in args.suites if name not in names]:
        print(f"suites: no suite {', '.join(unknown)}; there are {', '.join(names)}")
        return 2
    chosen = [suite for suite in SUITES if not args.suites or suite.name in args.suites]
    good = [compare(suite) for suite in chosen]
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
