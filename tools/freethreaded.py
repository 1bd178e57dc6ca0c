"""CPython without its global lock: built from Debian's source package, and tested on.

    freethreaded.py make     build and install it into the cache; print where its Python is
    freethreaded.py check    build this checkout for it, then run the suite and a storm on it

Debian ships no such interpreter, but its source package holds one: `configure --disable-gil` is all
that differs. $FREETHREADED chooses the version (3.13). The cache is that of distro.py.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import common
import distro
import tomllib
from debian_source import fetch, run

VERSION = os.environ.get("FREETHREADED", "3.13")
JOBS = os.environ.get("JOBS", "2")
# Headers without which the interpreter would come out without a module that pip or the tests need.
NEEDED = {
    "ffi.h": "libffi-dev",
    "zlib.h": "zlib1g-dev",
    "openssl/ssl.h": "libssl-dev",
    "sqlite3.h": "libsqlite3-dev",
}
MODULES = "import ctypes, sqlite3, ssl, zlib, sys; assert not sys._is_gil_enabled()"
# Without these there is nothing to test. Everything else that the tests name is tried by itself: what
# cannot be had for this interpreter costs only the tests that need it, which say so.
PACKAGES = (
    "setuptools>=77",
    "wheel",
    "hypothesis<6.150",  # Later ones have a native part that is not built for it.
    "pytest>=8",
    "pytest-asyncio",
    "pytest-xdist",
    "pyyaml",
)
EXTRAS = ("dev", "bench", "trio", "prometheus", "otel", "demo")  # as ./bootstrap test has them
TOOLS = ("ansible-core", "build", "codespell", "gcovr", "mypy", "ruff")  # for other stages
STORM = ("-m", "nightly", "tests/py/test_thread_storm.py")


def prefix() -> Path:
    return distro.cache() / f"python{VERSION}t"


def python() -> Path:
    return prefix() / f"bin/python{VERSION}t"


def lacking() -> list[str]:
    """Return the packages whose headers the compiler does not find."""
    missing = []
    for header, package in NEEDED.items():
        probe = f"#include <stddef.h>\n#include <stdio.h>\n#include <{header}>\n"
        done = subprocess.run(["cc", "-E", "-"], input=probe, text=True, capture_output=True)
        if done.returncode:
            missing.append(package)
    return missing


def make() -> Path:
    """Build and install the interpreter, unless the cache has it."""
    folder = distro.cache()
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / f"python{VERSION}t.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if python().exists():
            return python()
        distro.need("apt-get", "dpkg-source", "make", "cc")
        if packages := lacking():
            raise distro.DistroError(f"needs headers: apt install {' '.join(packages)}")
        distro.say(f"building CPython {VERSION}t into {prefix()}")
        with tempfile.TemporaryDirectory(dir=folder, prefix="build-") as held:
            source = fetch(f"python{VERSION}", Path(held))
            configure = ["./configure", "-q", "--disable-gil", f"--prefix={prefix()}"]
            # pip is not needed in it: the one that runs this installs for it.
            run([*configure, "--with-ensurepip=no"], cwd=source)
            run(["make", "-s", f"-j{JOBS}"], cwd=source)
            run(["make", "-s", "install"], cwd=source)
        run([str(python()), "-c", MODULES])
    return python()


def pip(own: Path) -> list[str]:
    return [str(own), "-m", "pip", "--disable-pip-version-check", "install", "-q"]


def name_of(requirement: str) -> str:
    return re.split(r"[^A-Za-z0-9_.-]", requirement, maxsplit=1)[0].lower()


def others() -> list[str]:
    """What the tests may need besides, in the words of pyproject.toml."""
    project = tomllib.loads((distro.common.ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    known = {name_of(p) for p in PACKAGES} | set(TOOLS)
    return sorted({r for extra in EXTRAS for r in extras[extra] if name_of(r) not in known})


def tried(own: Path, package: str) -> bool:
    """Install one if it is there in binary form; say whether."""
    try:
        run([*pip(own), "--only-binary=:all:", package])
    except distro.DistroError:
        return False
    return True


def make_venv(target: Path) -> Path:
    """Make a virtual environment with what the tests need; return its Python."""
    run([str(python()), "-m", "venv", "--without-pip", str(target)])
    own = target / "bin/python"
    # One that brings itself: older pips take wheels for the interpreter with the lock.
    first = [sys.executable, "-m", "pip", "--python", str(own), "install", "-q"]
    run([*first, "--ignore-installed", "pip"])
    run([*pip(own), *PACKAGES])
    for package in others():
        if not tried(own, package):  # An older one than is asked for would fail its tests.
            distro.say(f"no {package} for CPython {VERSION}t: tests that need it are skipped")
    return own


def check() -> int:
    """Build a copy of this checkout for the interpreter; run the suite, then the storm."""
    make()
    start = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="hardsock-t-") as held:
        os.chmod(held, 0o755)  # Some tests are other users.
        here = Path(held) / "hardsock"
        distro.copy_checkout(here)
        own = make_venv(here / ".venv")
        without = {"HARDSOCK_NO_MODULE": "1", "HARDSOCK_PYTHON": str(python())}
        run([*pip(own), "--no-build-isolation", "-e", "."], cwd=here, **without)
        # So that make's own ./bootstrap finds nothing to do.
        digest = subprocess.run(["sha256sum", "pyproject.toml"], cwd=here, capture_output=True)
        (here / ".venv/.hardsock").write_text(f"test {digest.stdout.decode().split()[0]}\n")
        environment = common.without_make() | {
            "PYTHON_GIL": "0",
            "CI": "false",
            "HARDSOCK_PYTHON": str(python()),
        }
        states = []
        for title, command in (
            ("build", ["make", "build"]),
            ("suite", ["make", "test-py"]),
            ("storm", [str(own), "-m", "pytest", "-q", *STORM]),
        ):
            print(f"== {VERSION}t: {title}", flush=True)
            done = subprocess.run(command, cwd=here, env=environment)
            states.append(done.returncode)
            if done.returncode and title == "build":
                break
    failed = sum(1 for s in states if s)
    distro.say(f"{VERSION}t: {'FAILED' if failed else 'ok'} after {time.monotonic() - start:.0f} s")
    print(f"{len(states) - failed} passed, {failed} failed", flush=True)
    return 1 if failed else 0


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(description="Test on CPython without its global lock.")
    parser.add_argument("verb", choices=("make", "check"))
    try:
        if parser.parse_args(argv).verb == "make":
            print(make())
            return 0
        return check()
    except distro.DistroError as exc:
        print(f"freethreaded: {exc}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
