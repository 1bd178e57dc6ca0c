"""The command line: ``hardsock demo``, ``explain HOST:PORT``, ``explain --adapters``, ``run``."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from hardsock import __version__


def main(argv: Sequence[str] | None = None) -> int:
    """Run a subcommand; return its exit status. Wrong usage exits with status 2."""
    parser = _make_parser()
    arguments = parser.parse_args(argv)
    try:
        if arguments.command == "demo":
            from hardsock.demo import run

            return run(arguments.scenes, plain=arguments.plain, list_only=arguments.list)
        if arguments.command == "run":
            from hardsock.running.command import run as run_program

            return run_program(arguments)
        if arguments.adapters:
            from hardsock.adapters._known import report

            print(report(arguments.json))
            return 0
        from hardsock.explain import explain

        return explain(arguments.address, timeout=arguments.timeout, as_json=arguments.json)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # `| head`: nobody reads the rest
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
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
    return parser


if __name__ == "__main__":
    sys.exit(main())
