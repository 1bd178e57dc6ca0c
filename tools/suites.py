"""The libraries' own test suites, over the standard library's sockets and over hardsock.

    suites.py [SUITE...]     run each twice, and print what differs

A suite comes from the library's source distribution, is left as it is, and runs in an environment of
its own below build/suites: once alone, once with the plugin of `tools/suites` that puts the adapter's
classes in the place of the library's. A difference that docs/internals/adapter-suites.md names is
known; any other fails. Needs a package index; MariaDB for PyMySQL's.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tarfile
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
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
    archive: str = ""
    """Where the package index has a distribution without the suite: upstream's archive, as Debian
    calls it, which is put below build/suites by hand."""
    server: Callable[[Path], AbstractContextManager[object]] = nullcontext
    """What runs meanwhile; told where the source is."""
    options: tuple[str, ...] = ()
    """Of pytest; ``{port}`` is the server's."""
    jobs: str = ""
    """Processes, if not as many as JOBS says: the tests share a server's tables, say."""


sys.path[:0] = [str(common.ROOT / "python"), str(common.ROOT / "tests")]


@contextmanager
def _redis(_source: Path) -> Iterator[int]:
    from support.servers import redis_server

    with redis_server("--enable-debug-command", "local") as server:
        yield server.port


@contextmanager
def _database(source: Path) -> Iterator[int]:
    """A MariaDB with what PyMySQL's suite wants to find in it."""
    from support.servers.databases import mariadb

    with mariadb(grants=True, **{"local-infile": "on"}) as server:
        host, port = server.address
        where = {"host": host, "port": port, "user": "root", "passwd": ""}
        both = [
            {**where, "database": "test1", "use_unicode": True, "local_infile": True},
            {**where, "database": "test2"},
        ]
        (source / "pymysql/tests/databases.json").write_text(json.dumps(both))
        python = PLACE / "PyMySQL/venv/bin/python"
        code = "import sys, json, pymysql; c = pymysql.connect(**json.loads(sys.argv[1])).cursor()"
        for name in ("test1", "test2"):
            code += f"; c.execute('create database {name} character set utf8mb4')"
        subprocess.run([python, "-c", code, json.dumps(where)], check=True)
        yield port


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
    Suite(
        *("httpcore", "1.0.9", "over_httpcore"),
        (
            *("anyio", "h2", "socksio", "trio", "certifi", "h11"),
            *("pytest<9", "pytest-httpbin", "pytest-trio", "pytest-xdist"),
        ),
        ("tests",),
    ),
    Suite(
        *("redis", "8.1.0", "over_redis"),
        (
            *("aiohttp", "async-timeout", "cachetools", "numpy", "packaging", "pybreaker"),
            *("opentelemetry-api", "opentelemetry-sdk", "redis-entraid", "uvloop", "xxhash"),
            *("pytest", "pytest-asyncio", "pytest-timeout", "pytest-xdist"),
        ),
        tuple(
            f"tests/{folder}test_{name}.py"
            for folder in ("", "test_asyncio/")
            for name in ("connection", "connection_pool", "lock", "pipeline", "scripting")
        ),
        server=_redis,
        options=(
            "--redis-url=redis://127.0.0.1:{port}/0",
            *("-m", "not onlycluster and not redismod and not ssl"),
        ),
        jobs="0",
    ),
    Suite(
        *("PyMySQL", "1.1.1", "over_pymysql"),
        ("cryptography", "PyNaCl", "pytest<9", "pytest-xdist"),
        ("pymysql/tests",),
        archive="python-pymysql_1.1.1.orig.tar.xz",
        server=_database,
        jobs="0",
    ),
)


def prepare(suite: Suite) -> tuple[Path, Path]:
    """The interpreter of its environment, and where its source is."""
    place = PLACE / suite.name
    source = place / (
        suite.archive.partition(".orig")[0].replace("_", "-") or f"{suite.name}-{suite.version}"
    )
    python = place / "venv/bin/python"
    if not (place / "ready").exists():
        place.mkdir(parents=True, exist_ok=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", place / "venv"], check=True)
        pip = [python, "-m", "pip", "--disable-pip-version-check"]
        build = ["hatchling", "hatch-vcs", "hatch-fancy-pypi-readme", "setuptools"]
        subprocess.run([*pip, "install", "-q", *build, *suite.wants], check=True)
        wanted = f"{suite.name}=={suite.version}"
        subprocess.run([*pip, "install", "-q", wanted], check=True)
        if suite.archive:
            found = PLACE / suite.archive
        else:
            source_only = ["--no-deps", "--no-binary", ":all:", "--no-build-isolation"]
            subprocess.run([*pip, "download", "-q", *source_only, "-d", place, wanted], check=True)
            found = next(place.glob("*.tar.gz"))
        with tarfile.open(found) as archive:
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
    jobs = suite.jobs or os.environ.get("JOBS", "2")
    # Its own settings, also where it has none: pytest would look further up, and find ours.
    argv = [python, "-m", "pytest", "-c", "pyproject.toml", "-q", "-n", jobs]
    argv += ["-p", "no:cacheprovider"]
    with suite.server(source) as port, open(report.with_suffix(".log"), "wb") as log:
        argv += [option.format(port=port) for option in suite.options]
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
    return good and passed[0] > 0


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(description="Run libraries' own suites over hardsock.")
    parser.add_argument("suites", nargs="*", metavar="SUITE")
    args = parser.parse_args(argv)
    names = [suite.name for suite in SUITES]
    if unknown := [name for name in args.suites if name not in names]:
        print(f"suites: no suite {', '.join(unknown)}; there are {', '.join(names)}")
        return 2
    absent = [suite for suite in SUITES if suite.archive and not (PLACE / suite.archive).exists()]
    for suite in absent:
        package = suite.archive.partition("_")[0]
        print(f"suites: {suite.name}: put {suite.archive} into {PLACE}, which")
        print(
            f"  apt-get source --download-only {package}  # of a release that has {suite.version}"
        )
        print("  gets; the package index has a distribution without the suite")
    if any(suite.name in args.suites for suite in absent):
        return 2
    chosen = [
        suite
        for suite in SUITES
        if suite.name in args.suites or not (args.suites or suite in absent)
    ]
    good = [compare(suite) for suite in chosen]
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
