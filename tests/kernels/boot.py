"""Boot kernels with a static hardsock-tune in a virtual machine, and keep what they say.

    python tests/kernels/boot.py [--tune BINARY] [KERNEL ...]    # folders, or series such as 6.6

Without KVM, which a plain user or a machine inside a machine lacks: a run takes half a minute. The
records of guest.sh are kept as `report.txt` beside the kernel, and what agreement.py makes of them as
`findings.tsv` beside them all. seen.py turns them into what `explain` cites.
"""

from __future__ import annotations

import argparse
import gzip
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import agreement
import fetch

HERE = Path(__file__).parent
TOP = HERE.parent.parent
LIMIT = 1800
"""Seconds for one boot and all that is asked; then it is a failure."""
SMALLEST, SMALLEST_CHILD = 800, 300
"""Settings that the smallest kernel has when the modules are loaded, and a child namespace of it."""
PROGRAMS = ("qemu-system-x86_64", "busybox", "cpio", "depmod", "modprobe", "dpkg-deb", "apt-get")
LEFT_OUT, GLOBAL_LEFT_OUT = 1, 10
"""Exit codes of `apply`: something cannot be had on this kernel, or not in a child namespace."""
RECORDS = ("KERNEL", "KEY", "RANGE", "COPY", "RULE", "OUTPUT", "STATUS", "SAME", "DIFFERS", "DONE")
RECORDS += ("NOTE",)


def check_programs() -> None:
    """Name what is missing, all at once."""
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if missing:
        raise SystemExit(
            f"boot: not installed: {', '.join(missing)} (on Debian: apt install "
            "qemu-system-x86 busybox-static cpio kmod)"
        )


def static_tune() -> Path:
    """Build hardsock-tune without shared libraries."""
    out = TOP / "build/tune/static"
    subprocess.run(["make", "-s", "-C", str(TOP / "tuning"), "FLAVOUR=static", "build"], check=True)
    return out / "hardsock-tune"


def profiles() -> list[str]:
    """Return the names of the profiles that are compiled in."""
    return sorted(path.stem for path in (TOP / "tuning/profiles").glob("*.yaml"))


def initramfs(kernel: Path, tune: Path, keys: list[str]) -> bytes:
    """Pack the guest's files."""
    busybox = shutil.which("busybox")
    assert busybox is not None
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        (root / "bin").mkdir()
        (root / "m").mkdir()
        shutil.copy(busybox, root / "bin/busybox")
        shutil.copy(HERE / "guest.sh", root / "init")
        (root / "init").chmod(0o755)
        shutil.copy(tune, root / "hardsock-tune")
        for module in kernel.glob("*.ko"):
            shutil.copy(module, root / "m")
        shutil.copy(kernel / "modules", root / "modules")
        (root / "keys").write_text(" ".join(keys))
        (root / "profiles").write_text("".join(f"{name}\n" for name in profiles()))
        names = "".join(f"{path.relative_to(root)}\n" for path in sorted(root.rglob("*")))
        packed = subprocess.run(
            ["cpio", "-o", "-H", "newc", "--quiet"],
            input=names.encode(),
            cwd=root,
            check=True,
            capture_output=True,
        ).stdout
    return gzip.compress(packed, 1)


def boot(kernel: Path, tune: Path, keys: list[str], memory: int = 512) -> list[str]:
    """Return the records of one run; the last is DONE if it went to the end."""
    with tempfile.NamedTemporaryFile(suffix=".cpio.gz") as image:
        image.write(initramfs(kernel, tune, keys))
        image.flush()
        command = ["qemu-system-x86_64", "-machine", "q35", "-cpu", "max", "-smp", "1"]
        command += ["-m", str(memory), "-nographic", "-no-reboot", "-nic", "none"]
        command += ["-kernel", str(kernel / "vmlinuz"), "-initrd", image.name, "-append"]
        command += ["console=ttyS0 quiet panic=-1 mitigations=off random.trust_cpu=on"]
        try:
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, capture_output=True, timeout=LIMIT, check=False
            )
            output = done.stdout
        except subprocess.TimeoutExpired as exc:
            output = exc.stdout or b""
    lines = output.decode(errors="replace").replace("\r", "").splitlines()
    return [line for line in lines if line.split("|", 1)[0] in RECORDS]


def is_same(record: str) -> bool:
    """Whether a whole tree was found as it was; a snapshot of half of it is none."""
    kind, *parts = record.split("|")
    if kind != "SAME":
        return False
    return int(parts[1]) >= (SMALLEST_CHILD if parts[0].startswith("child ") else SMALLEST)


def statuses(records: list[str]) -> dict[str, int]:
    """The exit code of every run of hardsock-tune in the guest, by its name."""
    return {
        parts[1]: int(parts[2]) for parts in (r.split("|") for r in records) if parts[0] == "STATUS"
    }


def wrong_runs(records: list[str]) -> list[str]:
    """Every run that ended otherwise than it must, in words.

    `apply` may leave out what this kernel lacks, and says so; then `check` may differ, else not. A
    child namespace lacks what is the machine's. `revert` takes back everything.
    """
    codes = statuses(records)
    said = "\n".join(record for record in records if record.startswith("OUTPUT|"))
    wrong = []

    def must(name: str, *allowed: int) -> None:
        if codes.get(name) not in allowed:
            wrong.append(
                f"{name}: {codes.get(name, 'was not run')}, not {' or '.join(map(str, allowed))}"
            )

    for name in ("version", "explain", "child check", "child explain"):
        must(name, 0)
    must("check all", 0, 1)
    for prefix, names in (("", profiles()), ("child ", ["container"])):
        for name in names:
            run = f"{prefix}apply {name}"
            must(run, 0, LEFT_OUT, *([GLOBAL_LEFT_OUT] if prefix else []))
            left_out = codes.get(run, 0) != 0
            if left_out and not any(
                line.startswith(f"OUTPUT|{run}|") and "left out" in line
                for line in said.splitlines()
            ):
                wrong.append(f"{run}: {codes[run]}, but nothing was left out")
            must(f"{prefix}check {name}", 0, *([1] if left_out else []))
            must(f"{prefix}revert {name}", 0)
    return wrong


def folders(names: list[str]) -> list[Path]:
    """Find the kernels that are named, those in folders first; without a name, those of always."""
    here = [Path(name) for name in names if Path(name).is_dir()]
    series = [name for name in names if not Path(name).is_dir()]
    return here + (fetch.fetch(series or list(fetch.SERIES)) if series or not names else [])


def main() -> int:
    """Boot what was asked for; 1 if a kernel did not come to the end, or revert left a trace, or a
    kernel contradicts the knowledge base."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tune", type=Path, help="a static hardsock-tune; built by default")
    parser.add_argument("--memory", type=int, default=512, help="MiB of the guest")
    parser.add_argument("kernels", nargs="*", help="folders, or series of Debian's releases")
    asked = parser.parse_args()
    check_programs()
    tune = asked.tune or static_tune()
    failed = 0
    kernels = folders(asked.kernels)
    for kernel in kernels:
        began = time.monotonic()
        records = boot(kernel, tune, ["net.core.somaxconn"], asked.memory)
        (kernel / "report.txt").write_text("".join(f"{line}\n" for line in records))
        ended = bool(records) and records[-1].startswith("DONE")
        same = sum(is_same(line) for line in records)
        differing = [line for line in records if line.startswith("DIFFERS|")]
        wrong = wrong_runs(records)
        print(*differing, *wrong, sep="\n", end="\n" if differing or wrong else "")
        # Every profile; and one in a child namespace, seen from there and from outside.
        failed += not ended or bool(differing) or bool(wrong) or same != len(profiles()) + 2
        state = "whole" if ended else "did not come to its end"
        state += f", {same} settings trees restored, {len(differing)} lines differ"
        state += f", {len(statuses(records))} runs, {len(wrong)} ended wrongly"
        took = time.monotonic() - began
        print(f"{kernel.name}: {len(records)} records, {took:.0f} s, {state}", flush=True)
    answers = agreement.compare(tune, kernels)
    agreement.write_table(answers, kernels[0].parent / "findings.tsv")
    return 1 if agreement.report(answers) or failed else 0


if __name__ == "__main__":
    sys.exit(main())
