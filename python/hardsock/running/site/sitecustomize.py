"""Python imports this at its start, in each process of a program under ``hardsock run``.

It lets ``import hardsock`` read ``HARDSOCK``, and then steps aside: the folder leaves ``sys.path``,
and the ``sitecustomize`` that would have been found without it runs.
"""

import importlib.util
import os
import sys


def _step_aside() -> None:
    here = os.path.dirname(os.path.abspath(__file__))
    sys.path[:] = [one for one in sys.path if os.path.abspath(one) != here]
    ours = sys.modules.pop(__name__, None)
    found = importlib.util.find_spec("sitecustomize")
    if found is not None and found.loader is not None:
        module = importlib.util.module_from_spec(found)
        sys.modules["sitecustomize"] = module
        found.loader.exec_module(module)
    elif ours is not None:
        sys.modules[__name__] = ours


def _begin() -> None:
    try:
        import hardsock  # noqa: F401
    except ModuleNotFoundError as exc:
        if exc.name != "hardsock":
            raise
        print(f"hardsock run: {sys.executable} has no hardsock: not under it", file=sys.stderr)
    except ValueError as exc:
        print(f"hardsock run: {exc}", file=sys.stderr)


_step_aside()
_begin()
