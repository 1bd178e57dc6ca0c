"""From a wheel as setuptools makes it to one for others: stripped, its platform tag proved, with an SBOM.

    repair.py WHEEL FOLDER    called by cibuildwheel and by `make wheel`

auditwheel decides which manylinux or musllinux the binaries meet and names the wheel so. It may copy
no library in: what a wheel needs beyond libc is linked in (static_libs.py), and a program with a
copied library would be wrapped in a Python script. The SBOM (PEP 770, CycloneDX 1.6) says what was
linked in, for scanners that look for a vulnerable OpenSSL.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
PINNED = json.loads((HERE / "pinned.json").read_text())
MAX_BYTES = 8 << 20  # A wheel of this size has something in it that is not ours.


def run(*command: object) -> None:
    subprocess.run([str(c) for c in command], check=True)


def is_elf(path: Path) -> bool:
    with open(path, "rb") as file:
        return file.read(4) == b"\x7fELF"


def name_musl(elf: Path) -> None:
    """Ask for musl by the name that distributions give it, if it is asked for by its makefile's.

    Its loader takes either; auditwheel knows the one of the distributions.
    """
    needed = subprocess.run(
        ["patchelf", "--print-needed", elf], check=True, capture_output=True, text=True
    )
    if "libc.so" in needed.stdout.split():
        theirs = f"libc.musl-{os.uname().machine}.so.1"
        run("patchelf", "--replace-needed", "libc.so", theirs, elf)


def sbom(version: str) -> bytes:
    """What the wheel's binaries contain. No time and no random number: two builds give one text."""
    components = [
        {
            "type": "library",
            "bom-ref": pin["purl"],
            "name": name,
            "version": pin["version"],
            "cpe": pin["cpe"],
            "purl": pin["purl"],
            "licenses": [{"license": {"id": pin["license"]}}],
            "hashes": [{"alg": "SHA-256", "content": pin["sha256"]}],
            "externalReferences": [{"type": "distribution", "url": pin["upstream"]}],
        }
        for name, pin in PINNED.items()
    ]
    own = f"pkg:pypi/hardsock@{version}"
    text = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "component": {
                "type": "library",
                "bom-ref": own,
                "name": "hardsock",
                "version": version,
                "purl": own,
            }
        },
        "components": components,
        "dependencies": [
            {"ref": own, "dependsOn": [pin["purl"] for pin in PINNED.values()]},
            *({"ref": pin["purl"]} for pin in PINNED.values()),
        ],
    }
    return (json.dumps(text, indent=2) + "\n").encode()


def add_parts(folder: Path) -> None:
    """The SBOM and the licences of what is linked in, beside hardsock's own."""
    (info,) = folder.glob("*.dist-info")
    version = info.name.removesuffix(".dist-info").split("-", 1)[1]
    (info / "sboms").mkdir(exist_ok=True)
    (info / "sboms/hardsock.cdx.json").write_bytes(sbom(version))
    static = os.environ.get("HARDSOCK_STATIC")
    if not static:
        sys.exit("repair.py: HARDSOCK_STATIC is not set: what would be in the wheel is not known")
    for license in sorted(Path(static, "licenses").iterdir()):
        shutil.copy2(license, info / "licenses" / license.name)


def write_wheel(folder: Path, wheel: Path) -> None:
    """RECORD anew, and files in a fixed order with a fixed time, so that a build can be repeated."""
    (info,) = folder.glob("*.dist-info")
    record = info / "RECORD"
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p != record)
    rows = io.StringIO()
    table = csv.writer(rows, lineterminator="\n")
    for path in files:
        digest = hashlib.sha256(path.read_bytes()).digest()
        name = path.relative_to(folder).as_posix()
        encoded = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
        table.writerow([name, f"sha256={encoded}", path.stat().st_size])
    table.writerow([record.relative_to(folder).as_posix(), "", ""])
    record.write_text(rows.getvalue())
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in [*files, record]:
            entry = zipfile.ZipInfo(path.relative_to(folder).as_posix(), (2020, 1, 1, 0, 0, 0))
            entry.external_attr = (0o100755 if os.access(path, os.X_OK) else 0o100644) << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, path.read_bytes())


def unpack(wheel: Path, folder: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        for entry in archive.infolist():
            path = Path(archive.extract(entry, folder))
            if (mode := entry.external_attr >> 16) and not entry.is_dir():
                path.chmod(mode & 0o777)


def repair(wheel: Path, target: Path) -> Path:
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        first, folder, audited = (Path(scratch) / n for n in ("first", "folder", "audited"))
        unpack(wheel, folder)
        elves = [p for p in folder.rglob("*") if p.is_file() and is_elf(p)]
        for path in elves:
            run(os.environ.get("STRIP", "strip"), "--strip-unneeded", path)
            name_musl(path)
        add_parts(folder)
        first.mkdir()
        write_wheel(folder, first / wheel.name)
        run(sys.executable, "-m", "auditwheel", "repair", "-w", audited, first / wheel.name)
        (repaired,) = audited.glob("*.whl")
        shutil.rmtree(folder)
        unpack(repaired, folder)
        if list(folder.glob("*.libs")):
            sys.exit(f"repair.py: auditwheel copied libraries into {repaired.name}")
        tune = next(folder.glob("*.data/scripts/hardsock-tune"), None)
        if tune is None or not is_elf(tune):
            sys.exit("repair.py: hardsock-tune is no native program any more")
        done = target / repaired.name
        write_wheel(folder, done)
    if done.stat().st_size > MAX_BYTES:
        sys.exit(f"repair.py: {done.name} has {done.stat().st_size} bytes, more than {MAX_BYTES}")
    print(f"repair.py: {done} ({done.stat().st_size / 1e6:.1f} MB)")
    return done


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    repair(Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve())
