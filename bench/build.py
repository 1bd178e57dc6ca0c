"""Builds the C and Go programs of the bench into build/bench/, when their sources are newer."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
OUT = ROOT / "build" / "bench"
CFLAGS = ("-O2", "-std=c11", "-Wall", "-Wextra", "-pthread")
TLS_LIBRARIES = ("-lssl", "-lcrypto")


class BuildError(Exception):
    """A program of the bench cannot be built; the message says what is missing."""


def compiler() -> str:
    return os.environ.get("CC", "cc")


def _is_current(product: Path, sources: list[Path]) -> bool:
    if not product.exists():
        return False
    built = product.stat().st_mtime_ns
    return all(source.stat().st_mtime_ns < built for source in sources)


def _run(command: list[str], cwd: Path, env: dict[str, str] | None = None) -> None:
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise BuildError(f"{' '.join(command)} failed:\n{done.stderr.strip()}")


def c_program(folder: str, name: str) -> Path:
    """The path of the program built from bench/<folder>/<name>.c."""
    source, product = HERE / folder / f"{name}.c", OUT / name
    if shutil.which(compiler().split()[0]) is None:
        raise BuildError(f"no C compiler ({compiler()}); on Debian: apt install gcc")
    if not _is_current(product, [source, *HERE.glob("*/*.h")]):
        OUT.mkdir(parents=True, exist_ok=True)
        libraries = TLS_LIBRARIES if name.startswith("tls_") else ()
        _run([*compiler().split(), *CFLAGS, "-o", str(product), str(source), *libraries], ROOT)
    return product


def c_programs() -> list[Path]:
    """All of them: what does not build is told before anything was measured."""
    folders = ("floors", "peers")
    return [c_program(f, source.stem) for f in folders for source in sorted((HERE / f).glob("*.c"))]


def core_program(name: str, flavour: str = "release") -> Path:
    """The path of the program built from bench/core/<name>.c, linked with this checkout's core."""
    archive, product = f"build/{flavour}/libhardsock.a", OUT / f"{name}-{flavour}"
    _run(["make", archive], ROOT)
    if not _is_current(product, [HERE / "core" / f"{name}.c", ROOT / archive]):
        OUT.mkdir(parents=True, exist_ok=True)
        flags = ("-std=c11", "-D_GNU_SOURCE", "-O2", "-flto=auto", "-Icsrc/include", "-pthread")
        sources = (f"bench/core/{name}.c", archive, "-o", str(product))
        _run([*compiler().split(), *flags, *sources, *TLS_LIBRARIES], ROOT)
    return product


def go_program() -> Path:
    """The Go worker, which does every work; needs no network."""
    product = OUT / "go_worker"
    sources = [*(HERE / "go").glob("*.go"), HERE / "go" / "go.mod"]
    go = shutil.which("go")
    if go is None:
        raise BuildError("not installed (no `go` in PATH)")
    if not _is_current(product, sources):
        OUT.mkdir(parents=True, exist_ok=True)
        env = {**os.environ, "GOTOOLCHAIN": "local", "GOFLAGS": "-mod=mod", "GOPROXY": "off"}
        _run([go, "build", "-o", str(product), "."], HERE / "go", env)
    return product
