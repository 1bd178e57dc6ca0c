"""Examples in docstrings are run, each inside what it takes for granted.

`help()` shows them, so they are short: the handler, the other process and the end are the reader's.
Here a frame has these; an example without a frame fails.
"""

from __future__ import annotations

import re
import subprocess
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# What the examples have in common: a handler, a client that has its answer, and their way to end.
HEAD = """
import asyncio, os, signal, threading, time
import hardsock as hs
from hardsock import aio
from hardsock.lab.waits import poll_until

def echo(conn):
    while data := conn.recv(4096, token=hs.draining()):
        conn.sendall(data)

handler = echo

def ask(address):
    with hs.connect(address, timeout=60) as client:
        client.sendall(b"hello")
        print(client.recv_exactly(5).decode())

def visit(then):
    def run():
        assert poll_until(lambda: "server" in globals(), 60)
        ask(server.address)
        then()
    threading.Thread(target=run).start()
"""
SERVED = 'with hs.serve(handler, ("127.0.0.1", 0), drain_timeout=30) as server:\n'


@dataclass
class Frame:
    """A program around an example, and what it prints."""

    program: str  # EXAMPLE stands where the example goes, as far to the right
    prints: str  # as a regular expression


FRAMES = {
    "hardsock.serve": Frame("visit(lambda: server.stop())\nEXAMPLE", "hello\n"),
    "hardsock.aio.serve": Frame(
        """
async def handler(conn):
    while data := await conn.recv(4096, token=hs.draining()):
        await conn.sendall(data)

async def main():
    global server
    EXAMPLE

visit(lambda: os.kill(os.getpid(), signal.SIGINT))
try:
    asyncio.run(main())
except KeyboardInterrupt:
    print("cancelled")
""",
        "hello\ncancelled\n",
    ),
    "hardsock.serve_processes": Frame(
        """
if __name__ == "__main__":
    visit(lambda: os.kill(os.getpid(), signal.SIGTERM))
EXAMPLE
""",
        "hello\n",
    ),
    "hardsock.draining": Frame(
        f"""
def handler(conn):
    EXAMPLE
    conn.sendall(first)

{SERVED}    ask(server.address)
""",
        "hello\n",
    ),
    "hardsock.hand_over": Frame(
        f"""
def another():
    while not (taken := hs.take_over("/run/app/handover", timeout=60)).replaces:
        taken.close()
    with taken, taken.listen("web", ("", 8080)):
        taken.ready()
    print("taken")

{SERVED}    threading.Thread(target=another).start()
    EXAMPLE
""",
        "taken\n",
    ),
    "hardsock.take_over": Frame(
        """
with hs.serve(handler, ("127.0.0.1", 0), drain_timeout=30) as other:
    with hs.hand_over("/run/app/handover", {"web": other.listener}, then=other.stop):
        EXAMPLE
        assert other.wait(60)
        assert server.address == other.address
with server:
    ask(server.address)
""",
        "hello\n",
    ),
    "hardsock.faults": Frame(
        f"""
{SERVED}
    def talk_to_the_server():
        with hs.connect(server.address, timeout=60) as client:
            for _ in range(20):
                client.sendall(b"hello")
                client.recv_exactly(5)

    EXAMPLE
""",
        r"(?=.*'recv\.short@23')(?=.*'recv\.short@25')",
    ),
    "hardsock.guard.Guard": Frame(
        f"{SERVED}    EXAMPLE\n", "guard .*: dry run, .*\n  rule 'too many' is off"
    ),
}


def examples() -> dict[str, str]:
    """Return those of all public names; what two modules have is here once, by its home."""
    sys.path.insert(0, str(ROOT / "tools"))
    import check_names

    found: dict[str, str] = {}
    for one in sorted(check_names.names(), key=lambda one: -len(one.module)):
        texts = re.findall(r"::\n\n((?: {4}.*\n|\n)+)", one.doc + "\n")
        assert len(texts) <= 1, f"{one.full}: one example is enough for help()"
        for example in (textwrap.dedent(text).strip("\n") for text in texts):
            if example not in found.values():
                found[one.full] = example
    return found


EXAMPLES = examples()


def test_every_example_has_a_frame_and_every_frame_an_example() -> None:
    assert set(EXAMPLES) == set(FRAMES)


@pytest.mark.parametrize("name", sorted(FRAMES))
def test_the_example_runs(name: str, tmp_path: Path) -> None:
    frame = FRAMES[name]
    (indent,) = re.findall(r"^( *)EXAMPLE$", frame.program, re.MULTILINE)
    body = textwrap.indent(EXAMPLES[name], indent).removeprefix(indent)
    program = HEAD + frame.program.replace("EXAMPLE", body)
    # The address and the path of the examples are those of a service; here any will do.
    program = program.replace('("", 8080)', '("127.0.0.1", 0)')
    program = program.replace("/run/app/handover", str(tmp_path / "handover"))
    (tmp_path / "example.py").write_text(program)
    argv = [sys.executable, "-W", "error", "example.py"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=120, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert re.match(frame.prints, done.stdout), done.stdout
