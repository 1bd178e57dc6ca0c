"""The programs that `make compare` runs beside hardsock-tune.

They are fetched by their ordinary clients, apt-get and pip, and unpacked into a cache: nothing is
installed, no service starts. What cannot be had is left out of the comparison, and said to be.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

TOP = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(TOP / "tests/kernels"))

import fetch  # noqa: E402

TUNED = (
    *("tuned", "python3-dbus", "python3-gi", "python3-pyudev", "python3-configobj"),
    *("python3-linux-procfs", "python3-ethtool", "python3-six", "python3-decorator"),
    *("gir1.2-glib-2.0", "libgirepository-1.0-1", "libdbus-glib-1-2"),
)
"""The package and what its programs import; from this machine's own release."""
CHECKER = "kernel-hardening-checker"
"""Of Debian's sid."""
ANSIBLE = "ansible<13"
"""Of PyPI, for its collection ansible.posix."""
SYSTEMD = Path("/lib/systemd/systemd-sysctl")


@dataclass
class Peers:
    """What could be had; None for what could not."""

    tuned: Path | None
    """A root that tuned and its imports are unpacked in."""
    checker: Path | None
    """A root that kernel-hardening-checker is unpacked in."""
    collections: Path | None
    """A folder for ANSIBLE_COLLECTIONS_PATH."""
    playbook: Path | None
    sysctl: Path | None
    systemd: Path | None


def unpacked(folder: Path, packages: tuple[str, ...], apt: fetch.Apt | None) -> Path | None:
    """Return the root of some Debian packages, fetched once."""
    root = folder / "root"
    if root.is_dir():
        return root
    debs = folder / "debs"
    debs.mkdir(parents=True, exist_ok=True)
    try:
        if apt is not None:
            found = [deb for name in packages for deb in apt.download(name)]
        else:
            command = ["apt-get", "download", "-qq", *packages]
            subprocess.run(command, cwd=debs, check=True, capture_output=True)
            found = sorted(debs.glob("*.deb"))
        fresh = folder / "fresh"
        for deb in found:
            subprocess.run(["dpkg-deb", "-x", deb, fresh], check=True)
        fresh.rename(root)
    except (OSError, subprocess.CalledProcessError) as exc:
        print(f"compare: {packages[0]}: {exc}", file=sys.stderr)
        return None
    return root


def posix_collection(folder: Path) -> Path | None:
    """Return a folder with ansible.posix, out of the wheel that brings all collections."""
    target = folder / "collections"
    if (target / "ansible_collections/ansible/posix").is_dir():
        return target
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", folder, ANSIBLE]
    try:
        subprocess.run(command, check=True)
        with zipfile.ZipFile(next(folder.glob("ansible-*.whl"))) as wheel:
            names = [
                n for n in wheel.namelist() if n.startswith("ansible_collections/ansible/posix/")
            ]
            wheel.extractall(target, names)
    except (OSError, subprocess.CalledProcessError, StopIteration) as exc:
        print(f"compare: ansible.posix: {exc}", file=sys.stderr)
        return None
    return target


def _sid() -> fetch.Apt | None:
    try:
        apt = fetch.Apt(fetch.cache() / "apt")
        apt.run("apt-get", "-qq", "update")
    except (OSError, subprocess.CalledProcessError, SystemExit) as exc:
        print(f"compare: {CHECKER}: {exc}", file=sys.stderr)
        return None
    return apt


def find() -> Peers:
    """Fetch what is missing."""
    store = fetch.cache().parent / "compare"
    playbook = Path(sys.executable).parent / "ansible-playbook"
    apt = None if (store / "checker/root").is_dir() else _sid()
    sysctl = shutil.which("sysctl", path="/usr/sbin:/sbin:/usr/bin:/bin")
    has_checker = apt is not None or (store / "checker/root").is_dir()
    return Peers(
        tuned=unpacked(store / "tuned", TUNED, None),
        checker=unpacked(store / "checker", (CHECKER,), apt) if has_checker else None,
        collections=posix_collection(store / "ansible") if playbook.exists() else None,
        playbook=playbook if playbook.exists() else None,
        sysctl=Path(sysctl) if sysctl else None,
        systemd=SYSTEMD if SYSTEMD.exists() else None,
    )


def versions(peers: Peers) -> dict[str, str]:
    """What each program says that it is."""
    found = {}
    if peers.sysctl is not None:
        found["sysctl"] = _first_line(peers.sysctl, "--version")
    if peers.systemd is not None:
        found["systemd-sysctl"] = _first_line(peers.systemd, "--version")
    if peers.tuned is not None:
        text = next(peers.tuned.glob("usr/share/doc/tuned/changelog.Debian.gz"), None)
        found["tuned-adm"] = _debian_version(text)
    if peers.checker is not None:
        text = next(peers.checker.glob(f"usr/share/doc/{CHECKER}/changelog.Debian.gz"), None)
        found[CHECKER] = _debian_version(text)
    if peers.collections is not None:
        manifest = peers.collections / "ansible_collections/ansible/posix/MANIFEST.json"
        version = next(ln for ln in manifest.read_text().splitlines() if '"version"' in ln)
        found["ansible.posix.sysctl"] = "ansible.posix " + version.split('"')[3]
    return found


def _first_line(program: Path, option: str) -> str:
    done = subprocess.run([program, option], capture_output=True, text=True, check=False)
    return (done.stdout or done.stderr).splitlines()[0].strip()


def _debian_version(changelog: Path | None) -> str:
    if changelog is None:
        return "of Debian"
    done = subprocess.run(["zcat", changelog], capture_output=True, text=True, check=True)
    name, version = done.stdout.splitlines()[0].split()[:2]
    return f"{name} {version.strip('()')}"
