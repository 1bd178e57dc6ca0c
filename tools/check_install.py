"""Install hardsock into clean environments with every CPython that hardsock supports.

For each interpreter found it does what a user does: `pip install .` and then `pip install -e .`,
each time importing the package from elsewhere and waiting for a deadline to be sure that the module
works. It builds in a copy, so the checkout stays as it is.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import common

MINORS = range(10, 15)
SMOKE = """
import importlib.metadata, importlib.resources, sys
import hardsock
from hardsock import _core
package = importlib.resources.files("hardsock")
assert (package / "py.typed").is_file() and (package / "_core.pyi").is_file(), "stubs are missing"
print("   ", importlib.metadata.version("hardsock"), _core.__file__)
if hasattr(hardsock, "listen"):
    with hardsock.listen(("127.0.0.1", 0)) as listener:
        try:
            listener.accept(timeout=0.01)
        except TimeoutError:
            pass
        else:
            sys.exit("accept() did not end by its deadline")
"""


def find_interpreters() -> list[Path]:
    """Return one CPython for each supported version, from PATH and from a version manager."""
    manager = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    found = {}
    for minor in MINORS:
        candidates = sorted(manager.glob(f"3.{minor}.*/bin/python3.{minor}"))
        if on_path := shutil.which(f"python3.{minor}"):
            candidates.append(Path(on_path))
        for candidate in candidates:
            question = (
                "import os, sys; print(sys.version_info[1], os.path.realpath(sys.executable))"
            )
            answer = subprocess.run([candidate, "-c", question], capture_output=True, text=True)
            if answer.returncode == 0:
                version, path = answer.stdout.split(maxsplit=1)
                found.setdefault(int(version), Path(path.strip()))
    return [found[m] for m in sorted(found)]


def run(*command: object, cwd: Path) -> None:
    done = subprocess.run([str(c) for c in command], cwd=cwd, capture_output=True, text=True)
    if done.returncode:
        sys.stdout.write(done.stdout + done.stderr)
        sys.exit(f"check_install: failed: {' '.join(str(c) for c in command)}")
    sys.stdout.write("".join(x + "\n" for x in done.stdout.splitlines() if x.startswith("    ")))


def copy_project(target: Path) -> None:
    for source in common.files():
        name = source.relative_to(common.ROOT)
        if name.parts[0] not in ("tests", "bench", "docs"):
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target / name)


def try_one(interpreter: Path, scratch: Path) -> None:
    for how in ([], ["-e"]):
        project, venv, away = (scratch / n for n in ("project", "venv", "away"))
        copy_project(project)
        away.mkdir()
        print(f"  {interpreter}: pip install {' '.join([*how, '.'])}", flush=True)
        run(interpreter, "-m", "venv", venv, cwd=scratch)
        run(venv / "bin/python", "-m", "pip", "install", "-q", *how, project, cwd=away)
        run(venv / "bin/python", "-W", "error", "-c", SMOKE, cwd=away)
        run(venv / "bin/hardsock", "--help", cwd=away)
        for used in (project, venv, away):
            shutil.rmtree(used)


def build_twice_at_once(interpreter: Path, scratch: Path) -> None:
    """Two wheels of one checkout at the same time, as two environments of tox make them."""
    project = scratch / "project"
    copy_project(project)
    print(f"  {interpreter}: two pip wheel at once", flush=True)
    wheel = [interpreter, "-m", "pip", "wheel", "-q", "--no-deps", "-w"]
    children = [
        subprocess.Popen(
            [*wheel, scratch / n, project],
            cwd=scratch,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for n in ("first", "second")
    ]
    said = [child.communicate()[0] for child in children]
    for child, text in zip(children, said, strict=True):
        if child.returncode:
            sys.exit(f"check_install: two builds at once: one failed:\n{text}")
    left = sorted(p.name for p in project.iterdir() if p.name in ("build", "dist"))
    if left:
        sys.exit(f"check_install: pip wheel left {', '.join(left)} in the checkout")


def main() -> int:
    parser = argparse.ArgumentParser(description="Install into clean environments.")
    parser.add_argument("interpreters", nargs="*", type=Path)
    interpreters = parser.parse_args().interpreters or find_interpreters()
    if not interpreters:
        print("check_install: no CPython 3.10 to 3.14 found", file=sys.stderr)
        return 1
    for interpreter in interpreters:
        with tempfile.TemporaryDirectory() as scratch:
            try_one(interpreter, Path(scratch))
    with tempfile.TemporaryDirectory() as scratch:
        build_twice_at_once(interpreters[0], Path(scratch))
    print(f"{2 * len(interpreters) + 1} passed, 0 failed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
