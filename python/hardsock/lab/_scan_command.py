"""``hardsock lab scan``."""

from __future__ import annotations

import argparse
import json
import sys

from hardsock.lab.scan import SynReport, SynWatch
from hardsock.lab.unavailable import InvalidResult, Unavailable

_CANNOT, _USAGE = 1, 2
_ROWS_FOR_NFT = 4096


def run(arguments: argparse.Namespace) -> int:
    """Record as long as the command line says, or until Ctrl-C; return the exit status."""
    try:
        with SynWatch(arguments.interface) as watch:
            try:
                watch._running().dies_within(arguments.seconds)
            except KeyboardInterrupt:
                pass  # What has been seen until then is worth telling.
            report = watch.report(_ROWS_FOR_NFT if arguments.format == "nft" else arguments.top)
        print(_told(report, arguments), end="")
    except ValueError as exc:
        print(f"hardsock lab scan: {exc}", file=sys.stderr)
        return _USAGE
    except (Unavailable, InvalidResult) as exc:
        print(f"hardsock lab scan: {exc}", file=sys.stderr)
        return _CANNOT
    return 0


def _told(report: SynReport, arguments: argparse.Namespace) -> str:
    if arguments.format == "json":
        return json.dumps(report.as_dict(), indent=1) + "\n"
    if arguments.format == "nft":
        return report.nft(at_least=arguments.at_least)
    return report.text() + "\n"
