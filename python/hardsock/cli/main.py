"""The command line: ``hardsock demo``, ``explain``, ``run``, ``top``, ``ps``, ``attach``,
``guard``."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

from hardsock import __version__


class _Parser(argparse.ArgumentParser):
    """Asks, of a word that is none of those it takes, which of them was meant."""

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        try:
            super()._check_value(action, value)
        except argparse.ArgumentError as exc:
            near = get_close_matches(str(value), [str(one) for one in action.choices or ()], 1)
            if near and "meant" not in exc.message:  # CPython 3.15 asks by itself
                exc.message += f"; did you mean {near[0]}?"
            raise


def main(argv: Sequence[str] | None = None) -> int:
    """Run a subcommand; return its exit status. Wrong usage exits with status 2."""
    parser = _make_parser()
    words = sys.argv[1:] if argv is None else argv
    if not words:
        parser.print_help(sys.stderr)
        return 2
    arguments = parser.parse_args(words)
    try:
        if arguments.command == "demo":
            from hardsock.demo import run

            return run(
                arguments.scenes,
                plain=arguments.plain,
                list_only=arguments.list,
                patience=arguments.patience,
            )
        if arguments.command == "lab" and arguments.action == "scan":
            from hardsock.lab._scan_command import run as run_scan

            return run_scan(arguments)
        if arguments.command == "lab":
            from hardsock.lab.experiments.command import run as run_lab

            return run_lab(arguments)
        if arguments.command == "run":
            from hardsock.running.command import run as run_program

            return run_program(arguments)
        if arguments.command in ("top", "ps", "attach"):
            return _look(arguments)
        if arguments.command == "guard":
            from hardsock.cli.guard import watch

            return watch(
                arguments.pid, arguments.port, arguments.rules, arguments.every, arguments.count
            )
        if arguments.adapters:
            from hardsock.adapters._known import report

            print(report(arguments.json))
            return 0
        from hardsock.cli.explain import explain

        return explain(arguments.address, timeout=arguments.timeout, as_json=arguments.json)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # `| head`: nobody reads the rest
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _look(arguments: argparse.Namespace) -> int:
    from hardsock.top.screen import attach, ps, top

    if arguments.command == "ps":
        return ps(arguments.format)
    if arguments.command == "attach":
        return attach(arguments.pid)
    return top(arguments.pid, arguments.view, arguments.once, arguments.format, arguments.interval)


def _seconds(text: str) -> float:
    value = float(text)
    if not 0.1 <= value <= 3600:
        raise argparse.ArgumentTypeError(f"must be between 0.1 and 3600 seconds, got {text}")
    return value


def _factor(text: str) -> float:
    value = float(text)
    if not 1 <= value <= 1000:
        raise argparse.ArgumentTypeError(f"must be between 1 and 1000, got {text}")
    return value


def _rows(text: str) -> int:
    value = int(text)
    if not 1 <= value <= 1_000_000:
        raise argparse.ArgumentTypeError(f"must be between 1 and 1,000,000, got {text}")
    return value


def _add_looking(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    formats = ("text", "json", "tsv")
    top = commands.add_parser(
        "top",
        help="look at the sockets of a running process",
        description="Shows what a process has open, by the line that opened it, what it waits for, "
        "its pools, servers and breakers, and what went wrong last. Keys switch tables; arrows and "
        "enter show one row in full; q ends. Without an inspect socket: the kernel's view.",
        epilog="Exit status: 0; 1 if the process cannot be looked at, or has ended; 2 for wrong "
        "usage.",
    )
    top.add_argument("pid", nargs="?", type=int, metavar="PID", help="default: the only one")
    top.add_argument("--once", action="store_true", help="print once, and end")
    top.add_argument("--format", choices=formats, default="text", help="json and tsv: once")
    top.add_argument(
        "--view",
        choices=(
            "sites",
            "connections",
            "pools",
            "waiters",
            "servers",
            "listeners",
            "breakers",
            "events",
        ),
        default="sites",
        help="the table to begin with (sites)",
    )
    top.add_argument("--interval", type=_seconds, default=1.0, metavar="S", help="seconds (1)")

    ps = commands.add_parser("ps", help="list the processes that can be inspected")
    ps.add_argument("--format", choices=formats, default="text")

    attach = commands.add_parser(
        "attach",
        help="switch the inspect socket of a running process on (Python 3.14)",
        epilog="Exit status: 0; 1 if it cannot be done; 2 for wrong usage.",
    )
    attach.add_argument("pid", type=int, metavar="PID")


def _add_guard(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    guard = commands.add_parser(
        "guard",
        help="tell what a guard would do about another process's connections",
        description="Looks at the TCP connections that a process has accepted, in the kernel's "
        "tables, and prints what rules would have a guard do, one JSON object a line; at the end "
        "how the rules stand. Closes nothing.",
        epilog="Exit status: 0; 1 if the process cannot be looked at, or has ended; 2 for wrong "
        "usage; 3 for a wrong rules file.",
    )
    guard.add_argument("pid", type=int, metavar="PID")
    guard.add_argument(
        "--dry-run", action="store_true", required=True, help="required: there is no other way"
    )
    guard.add_argument("--port", type=int, metavar="P", help="only connections to this port of it")
    guard.add_argument(
        "--rules", metavar="FILE", help="YAML, needs PyYAML; default: guard.article_2023"
    )
    guard.add_argument("--every", type=_seconds, default=5.0, metavar="S", help="seconds (5)")
    guard.add_argument(
        "--count", type=int, default=0, metavar="N", help="end after so many looks (0: never)"
    )


def _add_lab(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    lab = commands.add_parser(
        "lab",
        help="provoke failures of networked programs, measure them, draw them, prevent them",
        description="Experiments on the kernel's real network, in namespaces of their own. Each "
        "states a claim, provokes the failure with plain sockets, does the same work with hardsock, "
        "and judges itself.",
        epilog="Exit status of `run`: 0 if each claim was shown; 1 if one was not; 3 if one is "
        "INVALID or cannot run here, and all others were shown; 2 for wrong usage.",
    )
    what = lab.add_subparsers(dest="action", required=True, metavar="ACTION")
    what.add_parser("list", help="name the experiments and their claims")
    run = what.add_parser("run", help="run some, or all")
    run.add_argument("names", nargs="+", metavar="NAME", help="as `list` names them, or all")
    run.add_argument(
        "--out",
        metavar="DIR",
        help="write NAME.json, NAME.md and two pictures of each there (pictures: hardsock[lab])",
    )

    scan = what.add_parser(
        "scan",
        help="record who tries to connect to this machine",
        description="Counts SYNs by source, network and port, says how many of them it could "
        "attribute, and what TCP did meanwhile (SYN cookies, overflows). Blocks nothing, and needs "
        "CAP_NET_RAW. Ctrl-C ends it early, and tells what was seen.",
        epilog="Exit status: 0; 1 if SYNs cannot be recorded here; 2 for wrong usage.",
    )
    scan.add_argument("--interface", metavar="NAME", help="only SYNs that come in there (all)")
    scan.add_argument(
        "--seconds", type=_seconds, default=10.0, metavar="S", help="how long to record (10)"
    )
    scan.add_argument(
        "--format",
        choices=("text", "json", "nft"),
        default="text",
        help="nft: a script with the sources as a set, which is printed and never applied",
    )
    scan.add_argument("--top", type=_rows, default=20, metavar="N", help="rows of each table (20)")
    scan.add_argument(
        "--at-least",
        type=_rows,
        default=100,
        metavar="N",
        help="nft: sources that surely sent so many SYNs (100)",
    )


def _make_parser() -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = _Parser(
        prog="hardsock",
        description="Sockets that cannot hang, cannot leak unseen, and say why they failed.",
    )
    parser.add_argument("--version", action="version", version=f"hardsock {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    demo = commands.add_parser(
        "demo",
        help="show, measured live, what hardsock does where the standard library cannot",
        description="Plays scenes on loopback and in private namespaces, each with the standard "
        "library and with hardsock. Nothing of this machine is changed.",
        epilog="Exit status: 0 if every bound was kept, 1 if one was missed, 2 for wrong usage.",
    )
    demo.add_argument("scenes", nargs="*", metavar="SCENE", help="play only these scenes")
    demo.add_argument("--list", action="store_true", help="name the scenes and play none")
    demo.add_argument("--plain", action="store_true", help="aligned text, even if rich is there")
    demo.add_argument(
        "--patience",
        type=_factor,
        default=1.0,
        metavar="N",
        help="times may be N times as long as their bounds: for a busy machine (1)",
    )

    _add_lab(commands)
    explain = commands.add_parser(
        "explain",
        help="tell how a connect would go, without connecting",
        description="Looks the name up and prints the plan of attempts, the options in effect and "
        "what the kernel would limit. Nothing is sent to the address itself.",
        epilog="Exit status: 0 if the address can be tried, 1 if the name has no address or the "
        "lookup took too long, 2 for wrong usage.",
    )
    what = explain.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "address", nargs="?", metavar="HOST:PORT", help="also [IPv6]:PORT and unix:PATH"
    )
    what.add_argument(
        "--adapters",
        action="store_true",
        help="instead: the libraries that are installed here, the line that puts each under "
        "hardsock's promises, and what is lost",
    )
    explain.add_argument(
        "--timeout", type=float, default=5.0, metavar="S", help="seconds for all of a connect (5)"
    )
    explain.add_argument("--json", action="store_true", help="print JSON instead of text")

    from hardsock.running.command import add_parser

    add_parser(commands)
    _add_looking(commands)
    _add_guard(commands)
    return parser
