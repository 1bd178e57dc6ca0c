"""The conda recipe, rendered, built and tested by rattler-build, without conda's channels; `make conda`.

What it builds with comes from conda's channels, and rattler-build from PyPI. So that the recipe's own
lines run where only PyPI can be reached, a channel is made here whose packages are empty, but for one:
"python" is a virtual environment of this interpreter. Compiler and libraries are the system's. So
this shows that the recipe is read, that its script builds and installs, what is in the package, and that
its tests pass in an environment of its own; not which of conda's libraries would be found.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
RECIPE = HERE / "conda/recipe.yaml"
TOOLS = ROOT / "build/conda/tools"
LOG = ROOT / "build/conda/log"
NEEDS = "py-rattler-build==0.73.*"
PYTHONS = ("3.10", "3.11", "3.12", "3.13", "3.14")
PLATFORMS = {"x86_64": "linux-64", "aarch64": "linux-aarch64"}
# rattler-build's own words for what compiler("c") and stdlib("c") ask for.
VARIANTS = {"c_stdlib": ["sysroot"], "c_stdlib_version": ["2.28"]}
MADE = """
{python} -m venv --without-pip $PREFIX
{pip} --python $PREFIX/bin/python install -q --no-index --find-links {wheels} pip setuptools
"""


class Log:
    """What rattler-build and the recipe's script say, as it calls for it."""

    def on_log(self, event: Any) -> None:
        with LOG.open("a") as log:
            log.write(f"{event.message}\n")

    def on_build_step(self, event: Any) -> None:
        self.on_log(event)

    def __getattr__(self, _name: str) -> Any:  # downloads
        return lambda _event: None


def say(text: str) -> None:
    print(f"conda: {text}", flush=True)


def rendered(pythons: list[str], target: str) -> list[Any]:
    import rattler_build as rb

    variants = rb.VariantConfig({**VARIANTS, "python": [f"{one}.*" for one in pythons]})
    config = rb.RenderConfig(platform=rb.PlatformConfig(target_platform=target))
    return list(rb.Stage0Recipe.from_file(RECIPE).render(variants, config))


def stand_ins(wanted: list[str], channel: Path) -> None:
    """Make a package for each that the recipe asks for, in the channel."""
    import rattler_build as rb

    version = platform.python_version()
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    wheels = channel.parent / "wheels"
    # A script of conda's is not to ask the index.
    command = [*pip, "download", "-q", "--no-deps", "-d", str(wheels), "pip", "setuptools>=77"]
    subprocess.run(command, check=True)
    for text in sorted(set(wanted)):
        name, _, asked = text.partition(" ")
        number = version if name == "python" else asked.strip("=>.* ") or "1"
        script = "true"
        if name == "python":
            base = sys._base_executable  # type: ignore[attr-defined]
            script = MADE.format(python=base, pip=" ".join(pip), wheels=wheels)
        recipe = {
            "package": {"name": name, "version": number},
            "build": {"script": script},
            "about": {"license": "MIT", "summary": "a stand-in"},
        }
        build(rb.Stage0Recipe.from_dict(recipe).render()[0], channel, [])


def build(variant: Any, channel: Path, channels: list[Path], **options: Any) -> Path:
    import rattler_build as rb

    result = variant.run_build(
        tool_config=rb.ToolConfiguration(**options),
        output_dir=channel,
        channels=[one.as_uri() for one in channels],
        no_include_recipe=True,
        env_isolation=rb.EnvironmentIsolation.NONE,  # The compiler is the system's.
        progress_callback=Log(),
    )
    return Path(result.packages[0])


def trial() -> None:
    for target in PLATFORMS.values():
        found = rendered(list(PYTHONS), target)
        if len(found) != len(PYTHONS):
            sys.exit(f"conda: {len(found)} packages for {target}, not one for each of {PYTHONS}")
    here = ".".join(platform.python_version_tuple()[:2])
    (variant,) = rendered([here], PLATFORMS[platform.machine()])
    asked = variant.recipe.requirements.to_dict()
    with tempfile.TemporaryDirectory(prefix="hardsock-conda-") as held:
        channel = Path(held) / "channel"
        LOG.unlink(missing_ok=True)
        try:
            stand_ins([one for part in asked.values() for one in part], channel)
            package = build(variant, channel, [channel], test_strategy="native")
        except Exception as exc:
            tail = "".join(LOG.read_text().splitlines(keepends=True)[-40:])
            sys.exit(f"{tail}conda: {exc}; the whole log is in {LOG}")
        say(f"{package.name}: built, and its tests passed")


def main() -> int:
    if Path(sys.prefix).resolve() == TOOLS.resolve():
        trial()
        print("1 passed, 0 failed")
        return 0
    if not (TOOLS / "bin/python").exists():
        shutil.rmtree(TOOLS, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", TOOLS], check=True)
    python = TOOLS / "bin/python"
    pip = [str(python), "-m", "pip", "--disable-pip-version-check", "install", "-q"]
    subprocess.run([*pip, NEEDS], check=True)
    return subprocess.run([python, __file__], env=os.environ).returncode


if __name__ == "__main__":
    if len(sys.argv) > 1:
        sys.exit(__doc__)
    sys.exit(main())
