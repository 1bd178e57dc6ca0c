"""``hardsock run``: start a program with its settings in the environment.

The program replaces this process, and Python starts it as ever: ``__main__``, ``sys.argv``,
``sys.path``, signals, the exit status and tracebacks are those of a program without hardsock.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from pathlib import Path

from hardsock.running.settings import Settings, seconds_of, signal_of

__all__ = ["add_parser", "run"]

_SITE = str(Path(__file__).with_name("site"))


def _seconds(text: str) -> float:
    try:
        return seconds_of("it", text)
    except ValueError as exc:
        raise argparse.ArgumentTypeError(str(exc)) from None


def _signal(text: str) -> str | None:
    try:
        return signal_of(text)
    except ValueError as exc:
        raise argparse.ArgumentTypeError(str(exc)) from None


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = commands.add_parser(
        "run",
        usage="hardsock run [-h] [--deadline S] [--connect S] [--read S] [--report] "
        "[--report-to FILE]\n                    [--signal NAME] [--no-tls] PROGRAM [ARGS]",
        help="run a Python program, which is not changed, under hardsock's limits and ledger",
        description="Runs a Python program as python itself does. Connections that it makes through "
        "the socket and ssl modules are hardsock's if there is a limit; the one who makes a socket, "
        "its line is noted. Python programs that it starts are under the same settings.",
        epilog="The settings are passed on in HARDSOCK, which any program that imports hardsock reads: "
        'HARDSOCK="deadline=30 connect=2 read=5 report". Without --report, a report is printed only '
        "on the signal. The exit status is the program's; 2 for wrong usage, 127 if there is no "
        "such program. docs/run.md tells what is covered and what is not.",
    )
    seconds = {"type": _seconds, "metavar": "S"}
    parser.add_argument(
        "--deadline",
        **seconds,  # type: ignore[arg-type]
        help="for each exchange on a connection: from the first byte that is sent, as long as it "
        "goes on, to the last that is received",
    )
    parser.add_argument(
        "--connect",
        **seconds,  # type: ignore[arg-type]
        help="to connect, with the name's lookup and all addresses",
    )
    parser.add_argument("--read", **seconds, help="for each call that reads or writes")  # type: ignore[arg-type]
    parser.add_argument(
        "--report",
        action="store_true",
        help="print at the exit what is open, what was dropped unclosed, and which calls a limit "
        "has ended",
    )
    parser.add_argument("--report-to", metavar="FILE", help="the same, appended to FILE")
    parser.add_argument(
        "--signal",
        type=_signal,
        default=Settings.signal,
        metavar="NAME",
        help="print the same on this signal (USR2; none: on no signal)",
    )
    parser.add_argument("--no-tls", action="store_true", help="leave TLS to the ssl module")
    parser.add_argument("-m", dest="module", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("-c", dest="code", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument(
        "program",
        nargs=argparse.REMAINDER,
        metavar="PROGRAM [ARGS]",
        help="a script, the name of a console script, -m MODULE, or -c CODE",
    )


def _command(given: argparse.Namespace) -> list[str]:
    """What to execute."""
    program: list[str] = given.program
    if given.module or given.code:
        return [sys.executable, "-m" if given.module else "-c", *program]
    path = Path(program[0])
    if path.is_file():
        is_command = os.access(path, os.X_OK) and path.suffix != ".py"
        return [str(path), *program[1:]] if is_command else [sys.executable, *program]
    found = shutil.which(program[0])  # Before a folder, which may have the name of it by chance.
    if found is None and _has_main(path):
        return [sys.executable, *program]
    return [] if found is None else [found, *program[1:]]


def _has_main(path: Path) -> bool:
    """Whether it is a folder that python runs."""
    return path.is_dir() and any(path.glob("__main__.py*"))


def _python_path(path: str) -> str:
    """With the folder of the ``sitecustomize`` first. An empty part of *path* is a folder, too."""
    parts = [one for one in path.split(os.pathsep) if one != _SITE] if path else []
    return os.pathsep.join([_SITE, *parts])


def run(given: argparse.Namespace) -> int:
    """Become the program; returns only if there is none."""
    if not given.program:
        print("hardsock run: which program? A script, -m MODULE, -c CODE", file=sys.stderr)
        return 2
    report = "-" if given.report else None
    if given.report_to is not None:
        report = os.path.abspath(given.report_to)
        if any(one.isspace() for one in report):
            print(f"hardsock run: --report-to: no space may be in {report!r}", file=sys.stderr)
            return 2
    settings = Settings(
        deadline=given.deadline,
        connect=given.connect,
        read=given.read,
        report=report,
        signal=given.signal,
        tls=not given.no_tls,
    )
    command = _command(given)
    if not command:
        print(f"hardsock run: there is no {given.program[0]!r}", file=sys.stderr)
        return 127
    environment = dict(os.environ, HARDSOCK=str(settings))
    environment["PYTHONPATH"] = _python_path(os.environ.get("PYTHONPATH", ""))
    sys.stdout.flush()
    os.execve(command[0], command, environment)
