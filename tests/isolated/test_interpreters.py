"""Many interpreters in one process: what each imports goes with it, and nothing of it stays."""

from __future__ import annotations

import gc
import subprocess
import sys
import textwrap

import pytest

from hardsock import _core

PRELUDE = """
import os, sys
try:
    import _interpreters as interpreters
except ImportError:  # before Python 3.13
    import _xxsubinterpreters as interpreters

def create(kind):
    try:
        return interpreters.create(kind)  # "isolated" has a GIL of its own from 3.12 on
    except TypeError:
        return interpreters.create(isolated=kind == "isolated")

def run_in(interpreter, code):
    try:
        failed = interpreters.run_string(interpreter, code)  # raises, before Python 3.13
    except interpreters.RunFailedError as exc:
        failed = exc
    assert failed is None, failed
"""
ISOLATED = pytest.param(
    "isolated",
    marks=pytest.mark.skipif(
        sys.version_info[:2] == (3, 12),
        reason="CPython 3.12's own ssl and datetime corrupt memory in an isolated interpreter",
    ),
)
KINDS = [ISOLATED, "legacy"]


def run(code: str) -> str:
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", PRELUDE + textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    return result.stdout


def test_the_module_is_asked_for_every_type_that_it_holds() -> None:
    """A type that it does not tell of keeps its interpreter's memory for ever."""
    told = gc.get_referents(_core)
    types = [one for one in vars(_core).values() if isinstance(one, type)]
    assert len(types) >= 14
    assert [one for one in types if not any(one is each for each in told)] == []


USES = """
import hardsock as hs, socket
with hs.listen(("127.0.0.1", 0)) as listener, hs.connect(listener.address, timeout=5) as conn:
    with listener.accept(timeout=5) as other:
        other.send_frame(b"x", hs.LengthPrefix())
        assert conn.recv_frame(hs.LengthPrefix(), timeout=5) == b"x"
        hs.TLSConfig(insecure_skip_verify=True)
        hs.Breaker().permit("a").record()
        hs.CancelToken().child().on_cancel(lambda: None).remove()
with hs.listen(("127.0.0.1", 0)) as listener, hs.Pool(listener.address) as pool:
    with pool.connection(timeout=5):
        pass
"""


ONE_OF_EACH = """
import hardsock as hs
from hardsock import _core
listener = hs.listen(("127.0.0.1", 0))
pool = hs.Pool(listener.address)
conn = hs.connect(listener.address, timeout=5)
token = hs.CancelToken()
hub = _core.Hub()
breaker = hs.Breaker()
kept = {
    "CancelToken": token, "Callback": token.on_cancel(print), "Connection": conn,
    "Listener": listener, "Frames": conn.frames(hs.LengthPrefix()), "Pool": pool,
    "Borrowing": pool.connection(timeout=5), "Hub": hub, "Operation": listener._op_accept(hub),
    "Framing": hs.LengthPrefix()._core, "Decoder": hs.Decoder(hs.LengthPrefix()),
    "TLSContext": hs.TLSConfig(insecure_skip_verify=True)._context, "Breaker": breaker,
    "Permit": breaker.permit("a"), "lent": pool.acquire(timeout=5),
}
# Not "rw": CPython itself keeps an io.BufferedRWPair that goes with a cycle.
kept["files"] = [conn.makefile("r"), conn.makefile("wb", buffering=0), conn.dup()]
scope = {"kept": kept}
exec("def check(): return 1000", scope)
_core._tell_owners(True)
_core.owner.set(scope["check"])
kept["owned"] = hs.connect(listener.address, timeout=5)
_core._fd_watch(1, 1000, scope["check"])  # which the module keeps, and with it all of this
types = {name for name, one in vars(_core).items() if isinstance(one, type)}
assert types <= set(kept), types - set(kept)
import warnings
warnings.simplefilter("ignore")
"""


def test_process_that_ends_takes_objects_that_its_module_keeps() -> None:
    """The collector takes them with the module and clears the types before the last of them goes."""
    run(ONE_OF_EACH)


@pytest.mark.parametrize("kind", KINDS)
def test_interpreter_that_ends_takes_objects_that_its_module_keeps(kind: str) -> None:
    run(
        f"""
        interpreter = create({kind!r})
        run_in(interpreter, {ONE_OF_EACH!r})
        interpreters.destroy(interpreter)
        """
    )


@pytest.mark.skipif(
    sys.version_info >= (3, 12),
    reason="CPython itself keeps up to 5 MB of an interpreter that imported the standard library",
)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("uses", ["USES", "ONE_OF_EACH"])
def test_interpreters_that_come_and_go_leave_no_memory(kind: str, uses: str) -> None:
    """An interpreter that stays is about 1 MB."""
    grown = run(
        f"""
        def pages():
            with open("/proc/self/statm") as file:
                return int(file.read().split()[1])
        for n in range(40):
            if n == 10:
                before = pages()
            interpreter = create({kind!r})
            run_in(interpreter, {globals()[uses]!r})
            interpreters.destroy(interpreter)
        print((pages() - before) * os.sysconf("SC_PAGE_SIZE") // 1024)
        """
    )
    assert int(grown) / 30 < 150
