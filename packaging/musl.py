"""A wheel for musl by the release's steps, and its trial where nothing of glibc is; `make wheel-musl`.

    musl.py    needs root, musl-tools, and the sources of CPython and zlib from Debian

No distribution with musl can be had by Debian's means, so its parts are built: an interpreter with
musl-gcc, in the cache of tools/distro.py, once; the wheel in that; and a root that holds musl, the
interpreter and nothing else, not even a shell, with the certificates where Alpine has them. Alpine's
own interpreter is tried by cibuildwheel's musllinux container.
"""

from __future__ import annotations

import fcntl
import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

import wheel
from wheel import HERE, ROOT, run, say

sys.path.insert(0, str(ROOT / "tools"))

import debian_source
import distro

VERSION = os.environ.get("MUSL_PYTHON", "3.13")
JOBS = os.environ.get("JOBS", "2")
HOST = f"{os.uname().machine}-linux-musl"
LOADER = Path(f"/lib/ld-musl-{os.uname().machine}.so.1")
STATIC = ROOT / "build/elsewhere/musl/static"  # that of elsewhere.sh, made the same way
# The kernel's headers are the system's, after musl's own.
MULTIARCH = sysconfig.get_config_var("MULTIARCH") or ""
CC = f"musl-gcc -idirafter /usr/include -idirafter /usr/include/{MULTIARCH}"
# What asks the compiler for its platform is to hear of musl, which musl-gcc does not know about.
COMPILER = f"""#!/bin/sh
case "${{1-}}" in *-print-multiarch) echo {HOST}; exit ;; esac
exec {CC} "$@"
"""
MODULES = "import ssl, zlib, sys, sysconfig; assert 'musl' in sysconfig.get_config_var('MULTIARCH')"


def prefix() -> Path:
    return distro.cache() / f"python{VERSION}-musl"


def python() -> Path:
    return prefix() / f"bin/python{VERSION}"


def compiler() -> Path:
    path = prefix() / "musl-cc"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(COMPILER)
    path.chmod(0o755)
    return path


def make_python() -> None:
    """Build the interpreter, unless the cache has it."""
    with distro.locked(prefix().name, fcntl.LOCK_EX):
        if python().exists():
            return
        distro.need("apt-get", "dpkg-source", "make", "musl-gcc")
        say(f"building CPython {VERSION} with musl into {prefix()}")
        compile_with = {"CC": str(compiler())}
        with tempfile.TemporaryDirectory(dir=distro.cache(), prefix="build-") as held:
            source = debian_source.fetch("zlib", Path(held))
            configure = ["sh", "./configure", "--static", f"--prefix={held}/zlib"]
            debian_source.run(configure, source, CFLAGS="-O2 -fPIC", **compile_with)
            debian_source.run(["make", f"-j{JOBS}", "install"], source, **compile_with)
            source = debian_source.fetch(f"python{VERSION}", Path(held))
            # The two that pip and hardsock need; others, ctypes too, are left out.
            compile_with |= {
                "ZLIB_CFLAGS": f"-I{held}/zlib/include",
                "ZLIB_LIBS": f"{held}/zlib/lib/libz.a",
                "PKG_CONFIG_LIBDIR": "/nonexistent",  # glibc's libraries are not for it
            }
            configure = ["./configure", "-q", f"--prefix={prefix()}", f"--with-openssl={STATIC}"]
            configure += ["--disable-test-modules"]
            for command in (configure, ["make", "-s", f"-j{JOBS}"], ["make", "-s", "install"]):
                debian_source.run(command, source, **compile_with)
        debian_source.run([str(python()), "-c", MODULES])


def build(target: Path) -> Path:
    """Make the wheel, and say where it is."""
    with tempfile.TemporaryDirectory() as held:
        scratch = Path(held)
        tools = wheel.tools(scratch)
        needs = scratch / "needs"
        command = [tools.parent / "pip", "download", "-q", "--no-deps", "-d", needs]
        run(*command, "setuptools>=77")
        run(python(), "-m", "venv", scratch / "own")
        pip = scratch / "own/bin/pip"
        run(pip, "install", "-q", "--no-index", *needs.iterdir())
        options = ["-q", "--no-deps", "--no-build-isolation", "--no-index", "-w", scratch / "raw"]
        static = {"HARDSOCK_STATIC": str(STATIC)}
        run(pip, "wheel", *options, ROOT, CC=str(compiler()), **static)
        (raw,) = (scratch / "raw").glob("*.whl")
        path = f"{tools.parent}:{os.environ['PATH']}"
        run(tools, HERE / "repair.py", raw, scratch / "repaired", PATH=path, **static)
        (made,) = (scratch / "repaired").glob("*-musllinux*.whl")
        target.mkdir(parents=True, exist_ok=True)
        return Path(shutil.copy2(made, target))


# ---- the trial

# The demo wants ctypes, which the interpreter has not, and a system's programs.
TRIED = ("contents", "stripped", "deadline", "tls", "tune")

# $1: the root. Its processes see nothing else; what they mount and start ends with them.
INSIDE = """
ip link set lo up
mount --bind "$1" "$1"
mount -t proc proc "$1/proc"
mount --rbind /dev "$1/dev"
root=$1
shift
exec chroot "$root" "$@"
"""


def inside(root: Path, *command: str, **environment: str) -> int:
    spaces = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--net"]
    line = [*spaces, "sh", "-euc", INSIDE, "sh", str(root), *command]
    known = {"PATH": distro.PATH, "HOME": "/tmp", "LANG": "C.UTF-8"}
    return subprocess.run(line, env=known | environment).returncode


def make_root(root: Path, made: Path) -> None:
    for name in ("proc", "dev", "tmp", "srv", "lib", "etc/ssl"):
        (root / name).mkdir(parents=True, exist_ok=True)
    shutil.copy2(LOADER, root / LOADER.relative_to("/"))  # loader and libc are one file
    home = root / prefix().relative_to("/")
    skipped = shutil.ignore_patterns("test", "__pycache__", "*.a")
    shutil.copytree(prefix(), home, symlinks=True, ignore=skipped)
    wheel.certificate(root / "srv")
    (root / "srv/ca.crt").rename(root / "etc/ssl/cert.pem")
    for file in (made, HERE / "try_wheel.py"):
        shutil.copy2(file, root / "srv")


def check(made: Path) -> int:
    distro.need("unshare", "chroot", "ip", "openssl")
    with tempfile.TemporaryDirectory(prefix="hardsock-musl-") as held:
        root = Path(held)
        make_root(root, made)
        say(f"musl: {made.name}")
        trusted = {"HARDSOCK_TRY_CERTIFICATE": "/srv/server.pem"}
        steps = (
            [str(python()), "-m", "venv", "/srv/venv"],
            ["/srv/venv/bin/pip", "install", "-q", "--no-index", f"/srv/{made.name}"],
            ["/srv/venv/bin/python", "-W", "error", "/srv/try_wheel.py", *TRIED],
        )
        wrong = next((step for step in steps if inside(root, *step, **trusted)), None)
    if wrong is not None:
        say(f"musl: failed: {shlex.join(wrong)}")
    print(f"{0 if wrong else 1} passed, {1 if wrong else 0} failed", flush=True)
    return 1 if wrong else 0


def main() -> int:
    try:
        target = {"HARDSOCK_OPENSSL_TARGET": f"linux-{os.uname().machine}"}
        run(sys.executable, HERE / "static_libs.py", STATIC, CC=CC, **target)
        make_python()
        return check(build(wheel.WHEELS))
    except distro.DistroError as exc:
        print(f"musl: {exc}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    if len(sys.argv) > 1:
        sys.exit(__doc__)
    sys.exit(main())
