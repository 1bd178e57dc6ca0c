"""The adapters' contract with the oldest and the newest version of each library that they name.

    check_adapters.py [GROUP...]              the oldest and the newest versions of all groups
    check_adapters.py --which latest [...]    the newest that there are, tested or not
    check_adapters.py --try aiohttp==3.9.* aiohttp    these, in the place of the table's: what passes yet
    check_adapters.py --list

The versions are those of `hardsock.adapters._known`, so the table that users see is what is checked.
Each group of libraries that are tested together has an environment of its own for each end of the
range, below build/adapters, and is tested by the files that are named here. Where both ends are the
same it runs once. Needs a package index.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import common

CACHE = common.ROOT / "build/adapters"
PYTEST = ("pytest>=8", "pytest-xdist", "cryptography>=44", "trio", "sniffio", "uvloop")


@dataclass(frozen=True)
class Group:
    """Libraries that one run tests."""

    name: str
    libraries: tuple[str, ...]
    """By the names in the table, whose ranges are the group's."""
    tests: tuple[str, ...]
    besides: tuple[str, ...] = ()
    """What the tests need, of any version."""
    oldest: tuple[str, ...] = ()
    """Further pins that go with the oldest versions."""


GROUPS = (
    Group("requests", ("requests", "urllib3"), ("test_requests.py",)),
    Group("botocore", ("botocore", "boto3"), ("test_botocore.py",)),
    Group(
        "redis",
        ("redis",),
        ("test_redis.py", "test_redis_asyncio.py", "test_redis_many.py"),
    ),
    Group(
        *("psycopg", ("psycopg", "psycopg_pool"), ("test_psycopg.py",), ("psycopg-binary",)),
        oldest=("psycopg-binary==3.2.*",),  # The two have to be of one version.
    ),
    Group("databases", ("PyMySQL",), ("test_databases.py",), ("pg8000",)),
    Group("httpx", ("httpx", "httpx2"), ("test_httpx.py",), ("h2",)),
    Group("httpcore", ("httpcore",), ("test_httpcore.py",)),
    Group("sdks", ("openai", "anthropic"), ("test_llm_sdks.py",)),
    Group(
        *("messaging", ("kombu", "paho-mqtt"), ("test_messaging.py",)),
        oldest=("amqp==5.1.*", "setuptools<80"),
    ),
    Group("gunicorn", ("gunicorn",), ("test_gunicorn.py",), oldest=("setuptools<80",)),
    Group(
        *("given", ("paramiko", "pg8000", "websockets", "websocket-client")),
        ("test_given_sockets.py", "test_given_waits.py"),
    ),
    Group("celery", ("celery",), ("test_celery.py",), oldest=("setuptools<80",)),
    # By the event loop, and by a listener's socket.
    Group("aiohttp", ("aiohttp",), ("test_aiohttp.py", "test_aiohttp_web.py")),
    Group("asyncpg", ("asyncpg",), ("test_asyncpg.py", "test_asyncpg_waits.py")),
    Group(
        *(
            "mysql",
            ("aiomysql", "asyncmy"),
            ("test_mariadb.py", "test_aiomysql_waits.py", "test_asyncmy_waits.py"),
        ),
        ("PyMySQL",),
    ),
    Group(
        *("asgi", ("uvicorn", "hypercorn"), ("test_asgi_servers.py",)), ("httptools", "httpx>=0.28")
    ),
    Group("wsgi", ("waitress", "cheroot"), ("test_wsgi_servers.py",)),
)
ENDS = ("oldest", "newest")


def ranges() -> dict[str, tuple[str, str]]:
    """The tested range of each library that has one."""
    sys.path.insert(0, str(common.ROOT / "python"))
    from hardsock.adapters._known import ADAPTERS  # Wants the module to be built.

    return {one.library: (one.oldest, one.newest) for one in ADAPTERS if one.newest}


def pins(group: Group, end: str, tried: Sequence[str] = ()) -> list[str]:
    """What pip is told; *tried* goes before what the table says of the same libraries."""
    if tried:
        names = {one.partition("==")[0] for one in tried}
        wanted = [one for one in pins(group, "oldest") if one.partition("==")[0] not in names]
        return [*tried, *wanted]
    found = ranges()
    if end == "latest":
        return [*group.libraries, *group.besides]
    wanted = [f"{name}=={found[name][ENDS.index(end)]}.*" for name in group.libraries]
    return [*wanted, *group.besides, *(group.oldest if end == "oldest" else ())]


def runs(names: list[str], which: str) -> list[tuple[Group, str]]:
    """What to do, in order."""
    found = ranges()
    chosen = [group for group in GROUPS if not names or group.name in names]
    if which == "latest":
        return [(group, "latest") for group in chosen]
    ends = ENDS if which == "both" else (which,)
    return [
        (group, end)
        for group in chosen
        for end in ends
        if end == ends[-1] or any(found[one][0] != found[one][1] for one in group.libraries)
    ]


def environment(group: Group, end: str, wanted_pins: Sequence[str]) -> Path:
    """An interpreter that has them; made anew when it is wanted otherwise."""
    place = CACHE / f"{group.name}-{end}"
    wanted = "\n".join([sys.version, *PYTEST, *wanted_pins])
    stamp = place / "wanted"
    if end == "latest" or not stamp.exists() or stamp.read_text() != wanted:
        subprocess.run([sys.executable, "-m", "venv", "--clear", place], check=True)
        pip = [place / "bin/python", "-m", "pip", "--disable-pip-version-check", "install", "-q"]
        subprocess.run([*pip, *PYTEST, *wanted_pins], check=True)
        stamp.write_text(wanted)
    return place / "bin/python"


def check(group: Group, end: str, tried: Sequence[str]) -> tuple[bool, str]:
    """Whether its tests pass, and what pytest says at the end."""
    log = CACHE / f"{group.name}-{end}.log"
    try:
        python = environment(group, end, pins(group, end, tried))
    except subprocess.CalledProcessError as exc:
        return False, f"cannot be installed: {exc}"
    # Not installed there, the package announces no plugin; xdist hands -p to no worker.
    settings = {
        "PYTHONPATH": str(common.ROOT / "python"),
        "PYTEST_PLUGINS": "hardsock.pytest_plugin",
    }
    tests = [str(common.ROOT / "tests/adapters" / name) for name in group.tests]
    with open(log, "wb") as out:
        done = subprocess.run(
            [
                python,
                "-m",
                "pytest",
                "-q",
                "-n",
                os.environ.get("CHECK_ADAPTERS_JOBS", "2"),
                *tests,
            ],
            cwd=common.ROOT,
            env={**os.environ, **settings},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
        )
    lines = log.read_text(errors="replace").splitlines()
    return done.returncode == 0, (lines[-1].strip("= ") if lines else "nothing said")


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(description="Test adapters with the versions they name.")
    parser.add_argument("--which", choices=[*ENDS, "both", "latest"], default="both")
    parser.add_argument("--try", action="append", default=[], metavar="PIN", dest="tried")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("groups", nargs="*", metavar="GROUP")
    args = parser.parse_args(argv)
    names = [group.name for group in GROUPS]
    if unknown := [name for name in args.groups if name not in names]:
        print(f"check_adapters: no group {', '.join(unknown)}; there are {', '.join(names)}")
        return 2
    wanted = runs(args.groups, args.which)
    if args.tried:
        wanted = [(group, "tried") for group in GROUPS if group.name in args.groups]
    if args.list:
        for group, end in wanted:
            print(f"{group.name:<10} {end:<7} {' '.join(pins(group, end, args.tried))}")
        return 0
    CACHE.mkdir(parents=True, exist_ok=True)
    failed = 0
    for group, end in wanted:
        begun = time.monotonic()
        good, said = check(group, end, args.tried)
        failed += not good
        took = time.monotonic() - begun
        state = "ok" if good else "FAIL"
        print(f"  {state:<5} {group.name:<10} {end:<7} {took:6.0f} s  {said}", flush=True)
    if failed:
        print(f"check_adapters: {failed} of {len(wanted)} failed; logs in {CACHE}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
