"""Trees of other Debian releases: made once, kept in a cache, and entered to build and test in.

    distro.py make SUITE...             make the trees, or bring them up to date
    distro.py run SUITE -- COMMAND...   run one command in a throw-away copy, beside this checkout
    distro.py check SUITE...            build and test this checkout in each

A tree is debootstrap's minimal one with what `./bootstrap packages` adds. Nothing that runs in it
changes it: a run sees the tree below an overlay, in namespaces of its own for mounts and processes,
and its root is entered by pivot_root. (In a chroot setns(2) would lead out again, and a process may
not make user namespaces.) So runs may go on side by side, and what they leave ends with them.

The cache is $HARDSOCK_CACHE, or hardsock below $XDG_CACHE_HOME or ~/.cache. Package sources, trusted
certificates and pip's configuration are those of this machine. Needs root and debootstrap.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import common

SUITES = ("trixie", "sid")
OLD_DAYS = 7  # After that the releases have moved on, sid above all.
CHECKOUT = "/srv/hardsock"
DEVICES = "null zero full random urandom tty"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# What steers pip, certificates and proxies, and what chooses tests.
PASSED_PREFIXES = ("PIP_", "PYTEST_", "CK_", "HYPOTHESIS_")
PASSED_SUFFIXES = ("_CA_BUNDLE", "_proxy", "_PROXY")
PASSED = ("SSL_CERT_FILE", "JOBS", "TERM")
PIP_FILES = ("/etc/pip.conf", "/etc/xdg/pip/pip.conf", "~/.config/pip/pip.conf", "~/.pip/pip.conf")
BUNDLE = "/etc/ssl/certs/ca-certificates.crt"

# $1: the tree; $2: where it is joined with $3, a folder for what changes; or where it is bound
# itself, when $3 is empty. $4: the cache of pip and ccache.
ENTER = f"""
if [ -n "$3" ]; then
    mount -t overlay overlay -o "lowerdir=$1,upperdir=$3/upper,workdir=$3/work" "$2"
else
    mount --bind "$1" "$2"
fi
cd "$2"
mount -t proc proc proc
mount -t sysfs sysfs sys
mount -t tmpfs -o mode=755 tmpfs dev
for device in {DEVICES}; do cp -a "/dev/$device" dev/; done
if [ -e /dev/net/tun ]; then mkdir dev/net; cp -a /dev/net/tun dev/net/; fi
ln -s /proc/self/fd dev/fd
mkdir dev/shm dev/pts
mount -t devpts -o newinstance,ptmxmode=666 devpts dev/pts
ln -s pts/ptmx dev/ptmx
mount -t tmpfs -o mode=1777 tmpfs dev/shm
mount -t tmpfs -o mode=755 tmpfs run
mkdir -p var/cache/hardsock .old
mount --bind "$4" var/cache/hardsock
shift 4
pivot_root . .old
cd /
umount -l /.old
rmdir /.old
exec "$@"
"""

CHECK = """
set -u
. /etc/os-release
state=0
step() { printf '== %s: %s\\n' "$VERSION_CODENAME" "$*"; "$@" || { state=1; echo "== FAILED: $*"; }; }
printf '== %s, %s, GCC %s, %s\\n' "$PRETTY_NAME" "$(python3 -VV)" "$(gcc -dumpfullversion)" "$(openssl version)"
./bootstrap venv test && make build || exit 1
step make test-c
step make test-py
exit $state
"""


class DistroError(Exception):
    """Something that this machine lacks, said to the person at the terminal."""


def cache() -> Path:
    if named := os.environ.get("HARDSOCK_CACHE"):
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hardsock"


def tree_of(suite: str) -> Path:
    return cache() / "debian" / suite


def say(text: str) -> None:
    print(f"distro: {text}", flush=True)


@contextmanager
def locked(suite: str, how: int) -> Iterator[None]:
    """Hold the tree's lock: shared while it is used, alone while it is made or changed."""
    folder = cache() / "debian"
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / f"{suite}.lock", "w") as lock:
        fcntl.flock(lock, how)
        yield


# ---- what this machine has set up


def mirror() -> list[str]:
    """Return Debian's address as apt here knows it; none leaves debootstrap its own."""
    if named := os.environ.get("HARDSOCK_DEBIAN_MIRROR"):
        return [named]
    query = ["apt-get", "indextargets", "--format", "$(SITE) $(REPO_URI)", "Origin: Debian"]
    known = subprocess.run(query, capture_output=True, text=True).stdout.splitlines()
    plain = [line.split()[1] for line in known if "security" not in line]
    return plain[:1]


def environment() -> dict[str, str]:
    kept = {
        name: value
        for name, value in os.environ.items()
        if name in PASSED or name.startswith(PASSED_PREFIXES) or name.endswith(PASSED_SUFFIXES)
    }
    return kept | {
        "HOME": "/root",
        "PATH": PATH,
        "LANG": "C.UTF-8",
        "CI": "true",
        "CC": "ccache gcc",
        "CCACHE_DIR": "/var/cache/hardsock/ccache",
        "PIP_CACHE_DIR": "/var/cache/hardsock/pip",
        "PIP_ROOT_USER_ACTION": "ignore",
    }


def bring(source: Path, target: Path, top: Path) -> None:
    """Copy a file or folder of this machine into the tree, never through a link that leads out."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if not target.parent.resolve().is_relative_to(top.resolve()):
        raise DistroError(f"{target} leads out of {top}")
    if target.is_symlink() or target.is_file():
        target.unlink()
    if source.is_file():
        shutil.copy2(source, target)
    elif source.is_dir() and not target.exists():
        shutil.copytree(source, target)


def bring_configuration(top: Path) -> None:
    """Names, certificates and pip's configuration, with the files that these point at."""
    text = ""
    for name in PIP_FILES:
        file = Path(name).expanduser()
        if file.is_file():
            text += file.read_text()
            bring(file, top / name.replace("~", "root").lstrip("/"), top)
    words = {*text.split(), *environment().values(), BUNDLE, "/etc/resolv.conf", "/etc/hosts"}
    for path in (Path(w) for w in sorted(words) if w.startswith("/")):
        # What the tree makes itself is not brought: the caches, and the folders of PATH.
        if path.is_file() or (path.is_dir() and path.parts[1] in ("opt", "srv")):
            bring(path, top / str(path).lstrip("/"), top)


def apt_settings() -> str:
    """Return this machine's proxies and time checks for apt, as apt.conf text."""
    dump = subprocess.run(["apt-config", "dump"], capture_output=True, text=True).stdout
    wanted = ("Acquire::Check-", "Acquire::http", "Acquire::Retries")
    return "".join(f"{line}\n" for line in dump.splitlines() if line.startswith(wanted))


# ---- making and entering


def enter(
    suite: str, command: list[str], extra: dict[str, str], scratch: Path | None
) -> subprocess.CompletedProcess[bytes]:
    """Run command in the tree: in a throw-away copy of it, or in itself if there is no scratch."""
    for folder in ("ccache", "pip"):
        (cache() / "inside" / folder).mkdir(parents=True, exist_ok=True)
    spaces = ["unshare", "--mount", "--pid", "--fork", "--kill-child"]
    tree = tree_of(suite) if scratch or tree_of(suite).exists() else new_of(suite)
    with tempfile.TemporaryDirectory(prefix="hardsock-root-") as joined:
        where = [tree, joined, scratch or "", cache() / "inside"]
        line = [*spaces, "sh", "-euc", ENTER, "sh", *map(str, where), *command]
        return subprocess.run(line, env=environment() | extra)


def new_of(suite: str) -> Path:
    return tree_of(suite).with_suffix(".new")


def need(*programs: str) -> None:
    if os.geteuid() != 0:
        raise DistroError("needs root: it mounts, and the tests in it make namespaces")
    for program in programs:
        if shutil.which(program) is None:
            raise DistroError(f"needs {program}: apt install {program}")


def stamp() -> str:
    return hashlib.sha256((common.ROOT / "bootstrap").read_bytes()).hexdigest()


def is_current(suite: str) -> bool:
    mark = tree_of(suite) / "etc/hardsock-tree"
    if not mark.is_file():
        return False
    young = time.time() - mark.stat().st_mtime < OLD_DAYS * 86400
    return young and mark.read_text() == stamp()


UPGRADE = """
export DEBIAN_FRONTEND=noninteractive
printf '#!/bin/sh\\nexit 101\\n' >/usr/sbin/policy-rc.d
chmod 755 /usr/sbin/policy-rc.d
apt-get -qq update
apt-get -y -qq dist-upgrade >/dev/null
apt-get -y -qq --no-install-recommends install ccache >/dev/null
./bootstrap packages
apt-get clean
"""


def make(suite: str) -> None:
    """Make the tree if it is missing; bring it up to date if it is old or the packages changed."""
    need("debootstrap", "unshare")
    with locked(suite, fcntl.LOCK_SH):  # Others may be running in it, and go on.
        if is_current(suite):
            return
    with locked(suite, fcntl.LOCK_EX):
        if is_current(suite):
            return
        tree, new = tree_of(suite), new_of(suite)
        if not tree.exists():
            shutil.rmtree(new, ignore_errors=True)
            say(f"{suite}: debootstrap into {tree}")
            # What it mounts in the tree ends with it, also when it is stopped.
            command = ["unshare", "--mount", "debootstrap", "--variant=minbase"]
            command += ["--include=ca-certificates", suite]
            done = subprocess.run(
                [*command, str(new), *mirror()],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            if done.returncode:
                raise DistroError(f"debootstrap {suite} failed:\n{done.stdout[-2000:]}")
            new.rename(tree)
        say(f"{suite}: bringing it up to date, with what ./bootstrap names")
        bring_configuration(tree)
        (tree / "etc/apt/apt.conf.d/90hardsock").write_text(apt_settings())
        here = tree / CHECKOUT.lstrip("/")
        here.mkdir(parents=True, exist_ok=True)
        bring_bootstrap = shutil.copy2(common.ROOT / "bootstrap", here)
        script = f"cd {CHECKOUT}; {UPGRADE}"
        done_inside = enter(suite, ["sh", "-euc", script], {"CC": "gcc"}, None)
        os.unlink(bring_bootstrap)
        if done_inside.returncode:
            raise DistroError(f"{suite}: the packages could not be installed, see above")
        (tree / "etc/hardsock-tree").write_text(stamp())


def copy_checkout(target: Path) -> None:
    """Copy what git tracks or would track: the state that is to be tested."""
    for source in common.files():
        name = source.relative_to(common.ROOT)
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source, target / name)


def run(suite: str, command: list[str]) -> int:
    """Run command in a throw-away copy of the tree, in a copy of this checkout."""
    make(suite)
    with (
        locked(suite, fcntl.LOCK_SH),
        tempfile.TemporaryDirectory(dir=cache(), prefix="run-") as held,
    ):
        scratch = Path(held)
        for part in ("upper", "work"):
            (scratch / part).mkdir(mode=0o755)
        bring_configuration(scratch / "upper")
        copy_checkout(scratch / "upper" / CHECKOUT.lstrip("/"))
        line = ["sh", "-c", f'cd {CHECKOUT} && exec "$@"', "sh", *command]
        return enter(suite, line, {}, scratch).returncode


def check(suites: list[str]) -> int:
    failed = []
    for suite in suites:
        start = time.monotonic()
        state = run(suite, ["sh", "-c", CHECK])
        say(f"{suite}: {'FAILED' if state else 'ok'} after {time.monotonic() - start:.0f} s")
        if state:
            failed.append(suite)
    print(f"{len(suites) - len(failed)} passed, {len(failed)} failed", flush=True)
    return 1 if failed else 0


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(
        description="Build and test in trees of other Debian releases."
    )
    verbs = parser.add_subparsers(dest="verb", required=True)
    for verb in ("make", "check"):
        verbs.add_parser(verb).add_argument("suites", nargs="*", default=list(SUITES))
    running = verbs.add_parser("run")
    running.add_argument("suite")
    running.add_argument("command", nargs=argparse.REMAINDER)
    args = parser.parse_args(argv)
    try:
        if args.verb == "make":
            for suite in args.suites:
                make(suite)
            return 0
        if args.verb == "check":
            return check(args.suites)
        command = args.command[1:] if args.command[:1] == ["--"] else args.command
        return run(args.suite, command or ["bash"])
    except DistroError as exc:
        print(f"distro: {exc}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
