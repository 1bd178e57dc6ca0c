"""`python -m bench.instructions`: what an import, a connect and its close cost, in instructions.

Counted in user space by valgrind's callgrind. A connect: in two runs of different length, so that the
start of the process is not in it. An import: beside an interpreter that imports nothing, which brings in
no site-packages, so that nothing is there before; the first connect beside one that only imports.
Clocks of a busy machine move by a tenth and more; this moves by about one in a hundred. Callgrind
leaves what it counted by function in the directory given with `--keep`; see callgrind_annotate(1).
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import hardsock

FEW, MANY = 500, 1500  # FEW has to be enough for everything that is done once only.

PROGRAM = """
import gc, socket, sys
import hardsock as hs
with socket.socket() as listener:
    listener.bind(("127.0.0.1", 0))
    listener.listen(4096)
    address = listener.getsockname()
    gc.disable()
    for _ in range(int(sys.argv[1])):
        hs.connect(address).close()
"""
LISTEN = """
import _socket
listener = _socket.socket()
listener.bind(("127.0.0.1", 0))
listener.listen()
"""
IMPORT = f"{LISTEN}import hardsock\n"
CONNECT = f"{IMPORT}hardsock.connect(listener.getsockname(), timeout=60).close()\n"
STATEMENTS = {
    "import hardsock": (LISTEN, IMPORT),
    "the first connect": (IMPORT, CONNECT),
    "import ssl, asyncio": (LISTEN, f"{LISTEN}import ssl, asyncio\n"),
}


def counted(name: str, arguments: list[str], where: Path) -> int:
    """Instructions of a process of Python."""
    valgrind = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={where / name}"]
    paths = {"PYTHONPATH": os.path.dirname(hardsock.__path__[0]), "PYTHONHASHSEED": "0"}
    done = subprocess.run(
        [*valgrind, sys.executable, *arguments],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, **paths},
    )
    found = re.search(r"Collected : (\d+)", done.stderr)
    assert found is not None, done.stderr
    return int(found[1])


def of_connects(n: int, where: Path) -> int:
    """Of a process that connects and closes so often.

    A file, not ``-c``: the lines of code without a file are not remembered, and found out each time.
    """
    program = where / "connects.py"
    program.write_text(PROGRAM)
    return counted(f"callgrind.{n}", [str(program), str(n)], where)


def of_statement(name: str, where: Path) -> int:
    """What the second program of a pair does more than the first."""
    without, with_it = (
        counted(f"callgrind.{name.replace(' ', '_')}.{i}", ["-S", "-c", program], where)
        for i, program in enumerate(STATEMENTS[name])
    )
    return with_it - without


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.instructions", description=__doc__)
    parser.add_argument("--keep", type=Path, help="directory for callgrind's files")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        where = options.keep or Path(scratch)
        for name in STATEMENTS:
            print(
                f"{name}: {of_statement(name, where) / 1e6:,.1f} million instructions", flush=True
            )
        few, many = (of_connects(n, where) for n in (FEW, MANY))
    print(f"connect and close: {(many - few) / (MANY - FEW):,.0f} instructions")
    return 0


if __name__ == "__main__":
    sys.exit(main())
