"""OpenSSL and libyaml for wheels: fetched by checksum, built as archives of position-independent code.

    static_libs.py PREFIX    makes PREFIX/{include,lib}; what is there and current is left alone

Which releases: pinned.json. An archive is taken from $HARDSOCK_ARCHIVES where it lies there, else from
its upstream, else from the Debian mirror that apt here knows (Debian's "orig" files are upstream's).
Whatever its source, a file with another checksum is refused. CC, AR and RANLIB name the tools;
HARDSOCK_OPENSSL_TARGET names OpenSSL's target where it would guess wrong, as for a cross compiler.

A wheel's OpenSSL reads no openssl.cnf and loads no modules: the file of the machine is written for
the machine's own OpenSSL, and may name providers that only that one can load. Trusted certificates
are looked for by hardsock itself (csrc/stream/tls_trust.c).
"""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import shutil
import subprocess
import sys
import tarfile
import tempfile
import urllib.error
import urllib.request
from pathlib import Path

HERE = Path(__file__).resolve().parent
PINNED = json.loads((HERE / "pinned.json").read_text())
TIMEOUT = 120  # seconds without a byte, for a download

# Nothing but the protocols' own code: no program, no engine, no module, no console.
OPENSSL_OPTIONS = (
    "no-shared no-module no-dso no-apps no-tests no-docs no-autoload-config no-ui-console "
    "no-ssl3 no-comp no-weak-ssl-ciphers no-uplink"
).split()


class StaticError(Exception):
    """What could not be fetched or built, said to the person at the terminal."""


def say(text: str) -> None:
    print(f"static_libs: {text}", flush=True)


def debian_mirror() -> str | None:
    query = ["apt-get", "indextargets", "--format", "$(REPO_URI)", "Origin: Debian"]
    try:
        known = subprocess.run(query, capture_output=True, text=True).stdout.splitlines()
    except FileNotFoundError:
        return None
    return next((line for line in known if "security" not in line), None)


def sources(pin: dict[str, str], folder: Path | None) -> list[str]:
    found = [pin["upstream"]]
    if mirror := debian_mirror():
        found.append(f"{mirror.rstrip('/')}/{pin['debian']}")
    if folder is not None:
        names = (Path(pin["upstream"]).name, Path(pin["debian"]).name)
        found[:0] = [(folder / n).as_uri() for n in names if (folder / n).is_file()]
    return found


def fetch(name: str, pin: dict[str, str], target: Path) -> None:
    named = os.environ.get("HARDSOCK_ARCHIVES")
    tried = []
    for source in sources(pin, Path(named).resolve() if named else None):
        try:
            with urllib.request.urlopen(source, timeout=TIMEOUT) as reply:
                target.write_bytes(reply.read())
        except (urllib.error.URLError, OSError) as exc:
            tried.append(f"  {source}: {getattr(exc, 'reason', exc)}")
            continue
        digest = hashlib.sha256(target.read_bytes()).hexdigest()
        if digest == pin["sha256"]:
            return
        tried.append(f"  {source}: its SHA-256 is {digest}")
    raise StaticError(
        f"no {name} {pin['version']} with SHA-256 {pin['sha256']}:\n" + "\n".join(tried)
    )


def unpack(archive: Path, folder: Path) -> Path:
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data") if hasattr(
            tarfile, "data_filter"
        ) else tar.extractall(folder)
    (top,) = folder.iterdir()
    return top


def run(command: list[str], cwd: Path, log: Path) -> None:
    with open(log, "ab") as output:
        done = subprocess.run(command, cwd=cwd, stdout=output, stderr=subprocess.STDOUT)
    if done.returncode:
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-30:])
        raise StaticError(f"failed: {shlex.join(command)}\n{tail}")


def build_openssl(source: Path, prefix: Path, log: Path) -> None:
    target = os.environ.get("HARDSOCK_OPENSSL_TARGET")
    configure = ["./Configure", *([target] if target else []), *OPENSSL_OPTIONS]
    # lib on every architecture; what is compiled in as its own folder never exists.
    where = [f"--prefix={prefix}", "--libdir=lib", "--openssldir=/nonexistent/hardsock-openssl"]
    flags = ["-fPIC", "-fvisibility=hidden", "-ffunction-sections", "-fdata-sections"]
    run([*configure, *where, *flags], source, log)
    run(["make", f"-j{os.cpu_count() or 1}", "build_libs"], source, log)
    run(["make", "install_dev"], source, log)


def build_libyaml(source: Path, prefix: Path, log: Path) -> None:
    """Eight files; its configure script would have to be made by autotools first."""
    version = PINNED["libyaml"]["version"]
    major, minor, patch = version.split(".")
    defines = [
        f"-DYAML_VERSION_MAJOR={major}",
        f"-DYAML_VERSION_MINOR={minor}",
        f"-DYAML_VERSION_PATCH={patch}",
        f'-DYAML_VERSION_STRING="{version}"',
        "-DHAVE_STRDUP=1",
    ]
    cc = shlex.split(os.environ.get("CC", "cc"))
    flags = ["-O2", "-fPIC", "-fvisibility=hidden", "-Iinclude", *defines]
    objects = []
    for file in sorted((source / "src").glob("*.c")):
        objects.append(f"{file.stem}.o")
        run([*cc, *flags, "-c", str(file), "-o", objects[-1]], source, log)
    (prefix / "lib").mkdir(parents=True, exist_ok=True)
    (prefix / "include").mkdir(parents=True, exist_ok=True)
    archive = prefix / "lib/libyaml.a"
    archive.unlink(missing_ok=True)
    run([os.environ.get("AR", "ar"), "rcs", str(archive), *objects], source, log)
    shutil.copy2(source / "include/yaml.h", prefix / "include")


BUILDERS = {"openssl": build_openssl, "libyaml": build_libyaml}


def recipe() -> str:
    """What the result depends on: another release, option or compiler makes it anew."""
    steering = {n: os.environ.get(n, "") for n in ("CC", "CFLAGS", "HARDSOCK_OPENSSL_TARGET")}
    return json.dumps([PINNED, OPENSSL_OPTIONS, steering], sort_keys=True)


def make(prefix: Path) -> None:
    stamp = prefix / "recipe.json"
    if stamp.is_file() and stamp.read_text() == recipe():
        say(f"{prefix} is up to date")
        return
    shutil.rmtree(prefix, ignore_errors=True)
    prefix.mkdir(parents=True)
    for name, pin in PINNED.items():
        say(f"{name} {pin['version']}")
        with tempfile.TemporaryDirectory() as scratch:
            archive, folder = Path(scratch) / "archive.tar.gz", Path(scratch) / "source"
            fetch(name, pin, archive)
            top = unpack(archive, folder)
            licenses = prefix / "licenses"
            licenses.mkdir(exist_ok=True)
            found = next(
                top / n for n in ("LICENSE.txt", "License", "LICENSE") if (top / n).is_file()
            )
            shutil.copy2(found, licenses / f"{name}.txt")
            BUILDERS[name](top, prefix, prefix / f"{name}.log")
    stamp.write_text(recipe())


def main(argv: list[str]) -> int:
    if len(argv) != 1 or argv[0].startswith("-"):
        print(__doc__)
        return 0 if argv in (["-h"], ["--help"]) else 2
    try:
        make(Path(argv[0]).resolve())
    except StaticError as exc:
        print(f"static_libs: {exc}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
