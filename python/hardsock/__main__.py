"""``python -m hardsock``: the command line of `hardsock.cli`."""

import sys

from hardsock.cli.main import main

__all__ = ["main"]

if __name__ == "__main__":
    sys.exit(main())
