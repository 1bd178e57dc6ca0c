"""What programs of tests that fork have in their text: it wants os, sys and warnings imported."""

from __future__ import annotations

__all__ = ["FORK"]

FORK = """
warnings.simplefilter("ignore")  # Python's own warning about fork in a threaded process

def in_child(check):
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            check()
            code = 0
        except BaseException:
            import traceback
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)
    assert os.waitpid(pid, 0)[1] == 0
"""
"""``in_child(check)`` calls *check* in a forked child, which has to end well."""
