"""Scopes in processes of their own: without memory, in a cycle, beside an import that goes on."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from support.require import need_testcapi


def run(code: str, *directories: Path) -> str:
    text = "import sys\n" + "".join(f"sys.path.insert(0, {str(one)!r})\n" for one in directories)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", text + textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_a_scope_does_not_wait_for_a_module_that_another_thread_imports(tmp_path: Path) -> None:
    """Also not in a child that was forked meanwhile, where that thread is not."""
    package = tmp_path / "trio"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "lowlevel.py").write_text(
        "import builtins; builtins.begun.set(); builtins.gate.wait()"
    )
    code = """
    import builtins, os, threading, warnings
    import hardsock as hs
    with hs.timeout(60):
        pass
    builtins.begun, builtins.gate = threading.Event(), threading.Event()
    def late():
        import trio.lowlevel
    importing = threading.Thread(target=late)
    importing.start()
    builtins.begun.wait()
    with hs.timeout(60):
        pass
    warnings.simplefilter("ignore")
    if (pid := os.fork()) == 0:
        with hs.timeout(60):
            pass
        os._exit(7)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    builtins.gate.set()
    importing.join()
    """
    assert run(code, tmp_path) == "7\n"


@pytest.mark.parametrize("what", ["Scope(None, 60)", "TaskScope(60)"])
def test_the_types_work_where_nothing_else_is_loaded(what: str) -> None:
    code = f"""
    import asyncio
    from hardsock import _core
    assert "hardsock._scope" not in sys.modules
    async def main():
        scope = _core.{what}
        if hasattr(scope, "__aenter__"):
            async with scope:
                assert _core.scope.get() is not None
        else:
            with scope:
                assert _core.scope.get() is not None
            assert scope(lambda: 5)() == 5
    asyncio.run(main())
    """
    run(code)


def test_a_scope_in_a_cycle_is_taken_back_by_the_collector() -> None:
    code = """
    import gc
    import hardsock as hs
    from hardsock import _core
    for make in (lambda: hs.timeout(60), lambda: _core.ContextValue(_core.scope, hs.CancelToken())):
        for first in (True, False):
            cycle = [None]
            held = make()
            if not first:
                cycle = [None]
            held.__enter__()
            assert hs.current() is not None
            cycle += [held, cycle]
            del held, cycle
            gc.collect()
            assert hs.current() is None
    """
    run(code)


def test_an_interrupted_or_repeated_load_of_the_module_does_no_harm() -> None:
    code = """
    import importlib
    import hardsock as hs
    from hardsock import _scope
    importlib.reload(_scope)
    with hs.timeout(60) as token:
        assert hs.current() is token
    assert hs.timeout(60)(lambda: hs.current() is not None)()
    """
    run(code)


WITHOUT_MEMORY = """
import asyncio, contextvars
import hardsock as hs
from hardsock import _core
from _testcapi import remove_mem_hooks, set_nomemory

others = [contextvars.ContextVar(f"other{n}") for n in range(40)]
for other in others:
    other.set(other)

def each(make):
    "One block, with the first, the second, ... of its allocations failing: it is never left set."
    failed = 0
    for nth in range(60):
        scope = make()
        set_nomemory(nth, nth + 1)
        try:
            with scope:
                pass
        except (MemoryError, SystemError):  # Of CPython's own, where it forgets to say so.
            failed += 1
        finally:
            remove_mem_hooks()
        assert hs.current() is None, nth
        del scope
        assert hs.current() is None, nth
    assert failed > 0

async def in_a_task(make):
    with make():
        pass  # The loop's part is made once.
    each(make)
    await asyncio.sleep(0)

makes = [lambda: hs.timeout(60), lambda: hs.shield(60), lambda: _core.ContextValue(_core.scope, hs.CancelToken())]
for make in makes:
    each(make)
    asyncio.run(in_a_task(make))
"""


def test_a_scope_is_never_left_set_for_want_of_memory() -> None:
    need_testcapi()
    run(WITHOUT_MEMORY)
