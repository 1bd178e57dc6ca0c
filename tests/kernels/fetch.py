"""Fetch kernels of several Debian releases by apt, into a cache, without touching the machine's own lists.

    python tests/kernels/fetch.py [SERIES ...]      # 5.10 6.1 6.12 newest; the default is all four

Each kernel becomes a folder CACHE/kernels/VERSION with `vmlinuz` and the modules that the knowledge
base speaks of, in the order in which they are to be loaded (`modules`). The mirror is the one that
this machine's apt already uses.
"""

from __future__ import annotations

import lzma
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

RELEASES = ("bullseye", "bookworm", "trixie", "sid")
SERIES = ("5.10", "6.1", "6.12", "newest")
MODULES = (
    *("nf_conntrack", "br_netfilter", "tcp_bbr", "sch_fq", "tcp_htcp", "dummy", "veth"),
    *("ip_vs", "ip_vs_lblc", "ip_vs_lblcr", "sctp", "dccp", "tipc", "vsock", "mpls_router"),
    *("smc", "rds", "rds_tcp", "vrf"),
)
"""Settings appear, or values become possible, when these are loaded; dummy and veth make interfaces.

A kernel that is built without one goes without it."""
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
WANTED = "wanted"
"""The file beside a kernel that holds the MODULES of when it was unpacked."""
_IMAGE = re.compile(r"linux-image-(\d+\.\d+)\S*-cloud-amd64")


def cache() -> Path:
    """Where kernels are kept: HARDSOCK_CACHE, or the user's cache directory."""
    base = os.environ.get("HARDSOCK_CACHE")
    if base is None:
        home = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
        base = str(Path(home) / "hardsock")
    return Path(base) / "kernels"


def mirror() -> str:
    """Return the Debian mirror that apt uses here."""
    lines = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(SITE) $(COMPONENT)", "Created-By: Packages"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.splitlines()
    sites = [line.split()[0] for line in lines if line.endswith(" main")]
    for site in sites:
        if site.rstrip("/").endswith("/debian"):
            return site
    raise SystemExit(
        "fetch: apt here knows no Debian mirror, so there is none to take kernels from"
    )


class Apt:
    """A private apt: sources, lists and downloads below one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for part in ("etc/apt.conf.d", "etc/preferences.d", "etc/sources.list.d"):
            (folder / part).mkdir(parents=True, exist_ok=True)
        for part in ("lists/partial", "cache/archives/partial", "debs"):
            (folder / part).mkdir(parents=True, exist_ok=True)
        site = mirror()
        signed = f"[signed-by={KEYRING}] " if KEYRING.exists() else ""
        (folder / "etc/sources.list").write_text(
            "".join(f"deb {signed}{site} {release} main\n" for release in RELEASES)
        )
        (folder / "apt.conf").write_text(
            f'Dir::Etc "{folder}/etc";\nDir::State::lists "{folder}/lists";\n'
            f'Dir::Cache "{folder}/cache";\nDir::State::status "/var/lib/dpkg/status";\n'
            'APT::Sandbox::User "root";\n'
            # A mirror may lag behind by weeks; signatures are checked all the same.
            'Acquire::Check-Valid-Until "false";\n'
        )

    def run(self, *command: str) -> str:
        """Run an apt command and return what it printed."""
        return subprocess.run(
            command,
            check=True,
            stdout=subprocess.PIPE,
            text=True,
            cwd=self.folder / "debs",
            env=os.environ | {"APT_CONFIG": str(self.folder / "apt.conf")},
        ).stdout

    def images(self) -> dict[str, str]:
        """Return the newest kernel package of each series: ``{"6.1": "linux-image-..."}``."""
        found: dict[str, list[str]] = {}
        for name in self.run("apt-cache", "pkgnames", "linux-image-").split():
            match = _IMAGE.fullmatch(name)
            if match is not None:
                found.setdefault(match[1], []).append(name)
        return {series: max(names, key=_numbers) for series, names in found.items()}

    def download(self, package: str) -> list[Path]:
        """Download a package, and those with its files that it depends on."""
        names = [package]
        for line in self.run("apt-cache", "depends", package).splitlines():
            match = re.fullmatch(r"\s+Depends: (linux-(?:binary|modules)-\S+)", line)
            if match is not None:
                names.append(match[1])
        for old in (self.folder / "debs").iterdir():
            old.unlink()
        self.run("apt-get", "download", "-qq", *names)
        return sorted((self.folder / "debs").iterdir())


def _numbers(text: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", text)]


def unpack(debs: list[Path], target: Path) -> None:
    """Take the kernel and the modules wanted out of packages."""
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        for deb in debs:
            subprocess.run(["dpkg-deb", "-x", str(deb), scratch], check=True)
        kernels = [*root.glob("boot/vmlinuz-*"), *root.glob("usr/lib/modules/*/vmlinuz")]
        if not kernels:
            raise SystemExit(f"fetch: no kernel in {', '.join(deb.name for deb in debs)}")
        modules = next((d for d in root.glob("*/modules/*") if d.is_dir()), None) or next(
            d for d in root.glob("usr/lib/modules/*") if d.is_dir()
        )
        target.mkdir(parents=True, exist_ok=True)
        shutil.copy(kernels[0], target / "vmlinuz")
        copy_modules(root, modules.name, target)


def copy_modules(root: Path, version: str, target: Path) -> None:
    """Copy MODULES and what they need; a module that this kernel has built in, or not, is left."""
    base = root if (root / "lib/modules").is_dir() else root / "usr"
    subprocess.run(["depmod", "-b", str(base), version], check=True)
    order: list[str] = []
    for name in MODULES:
        shown = subprocess.run(
            ["modprobe", "-d", str(base), "-S", version, "--show-depends", name],
            capture_output=True,
            text=True,
            check=False,
        ).stdout
        for path in re.findall(r"^insmod (\S+)", shown, re.M):
            plain = Path(path).name.removesuffix(".xz")
            if plain not in order:
                order.append(plain)
                data = Path(path).read_bytes()
                (target / plain).write_bytes(lzma.decompress(data) if path.endswith("xz") else data)
    (target / "modules").write_text("".join(f"{name}\n" for name in order))
    (target / WANTED).write_text(" ".join(MODULES))


def is_whole(target: Path) -> bool:
    """Whether a kernel is in the cache, with the modules that are wanted today."""
    stamp = target / WANTED
    return stamp.exists() and stamp.read_text() == " ".join(MODULES)


def fetch(series: list[str]) -> list[Path]:
    """Return the folders of the kernels asked for, fetching those that are not in the cache."""
    store = cache()
    apt = Apt(store / "apt")
    apt.run("apt-get", "-qq", "update")
    images = apt.images()
    folders = []
    for one in series:
        number = max(images, key=_numbers) if one == "newest" else one
        if number not in images:
            raise SystemExit(
                f"fetch: no kernel {one}; there are {', '.join(sorted(images, key=_numbers))}"
            )
        target = store / images[number].removeprefix("linux-image-")
        if not is_whole(target):
            print(f"fetch: {images[number]}", file=sys.stderr)
            unpack(apt.download(images[number]), target)
        folders.append(target)
    return folders


if __name__ == "__main__":
    for folder in fetch(sys.argv[1:] or list(SERIES)):
        print(folder)
