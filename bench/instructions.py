"""`python -m bench.instructions`: what a connect and its close cost, in instructions of user space.

Counted by valgrind's callgrind in two runs of different length, so that the start of the process is not in
it. Clocks of a busy machine move by a tenth and more; this moves by about one in a hundred. Callgrind
leaves what it counted by function in the directory given with `--keep`; see callgrind_annotate(1).
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from pathlib import Path

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


def counted(n: int, where: Path) -> int:
    """Instructions of a process that connects and closes so often.

    A file, not ``-c``: the lines of code without a file are not remembered, and found out each time.
    """
    out, program = where / f"callgrind.{n}", where / "connects.py"
    program.write_text(PROGRAM)
    valgrind = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={out}"]
    done = subprocess.run(
        [*valgrind, sys.executable, str(program), str(n)],
        check=True,
        capture_output=True,
        text=True,
    )
    found = re.search(r"Collected : (\d+)", done.stderr)
    assert found is not None, done.stderr
    return int(found[1])


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.instructions", description=__doc__)
    parser.add_argument("--keep", type=Path, help="directory for callgrind's files")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        where = options.keep or Path(scratch)
        few, many = (counted(n, where) for n in (FEW, MANY))
    print(f"connect and close: {(many - few) / (MANY - FEW):,.0f} instructions")
    return 0


if __name__ == "__main__":
    sys.exit(main())
