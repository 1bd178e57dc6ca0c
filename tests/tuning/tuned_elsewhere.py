"""Run a program of tuned with its folders below another one: BASE PROGRAM ARGUMENT ...

tuned knows its folders by name (/etc/tuned, /run/tuned). Nothing of it is installed for a comparison,
and this machine's own folders are none of its business.
"""

from __future__ import annotations

import runpy
import sys

base, program = sys.argv[1:3]

from tuned import consts  # type: ignore[import-not-found]  # noqa: E402  # on PYTHONPATH

PLACES = ("/etc/", "/run/", "/var/", "/usr/lib/tuned")
for name, value in list(vars(consts).items()):
    if isinstance(value, str) and value.startswith(PLACES):
        setattr(consts, name, base + value)
    elif isinstance(value, list) and value and all(str(v).startswith(PLACES) for v in value):
        setattr(consts, name, [base + v for v in value])
sys.argv = [program, *sys.argv[3:]]
runpy.run_path(program, run_name="__main__")
