"""Scopes in processes of their own: without memory, in a cycle, beside an import that goes on."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from support.faults import strace_inject
from support.require import available, need_testcapi


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


def test_loading_the_module_anew_does_no_harm() -> None:
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


IN_A_TASK = """
import asyncio, contextlib
import hardsock as hs
from hardsock.aio import _host_scope
from hardsock.aio._host_scope import HostScope

def run(main):
    loop = asyncio.new_event_loop()  # Not asyncio.run, which takes SIGINT for itself.
    try:
        loop.run_until_complete(main())
    finally:
        loop.close()
"""


def test_an_interrupt_of_the_taking_back_loses_neither() -> None:
    code = """
    calls, forget = [], HostScope.forget

    def interrupted(self):
        calls.append(self)
        if len(calls) == 1:
            raise KeyboardInterrupt
        forget(self)

    HostScope.forget = interrupted

    async def main():
        scope = hs.timeout(60)
        scope.__enter__()
        try:
            del scope
            while True:
                pass
        except KeyboardInterrupt:
            pass
        assert (len(calls), _host_scope._innermost.get(), hs.current()) == (2, None, None)
        calls.clear()

    run(main)
    """
    run(IN_A_TASK + textwrap.dedent(code))


def test_a_deadline_that_was_moved_at_its_end_is_waited_for_again() -> None:
    code = """
    async def main():
        try:
            with hs.timeout(60) as token:
                _host_scope._innermost.get()._token_has_ended()  # As its step says; check() does not.
                asyncio.get_running_loop().call_later(0.1, token.cancel, "moved")
                await asyncio.Event().wait()
        except hs.Cancelled as exc:
            assert "moved" in str(exc)
        else:
            raise AssertionError("nothing has ended it")
        if hasattr(asyncio.Task, "cancelling"):
            assert asyncio.current_task().cancelling() == 0

    run(main)
    """
    run(IN_A_TASK + textwrap.dedent(code))


@pytest.mark.skipif(sys.version_info < (3, 11), reason="tasks count cancellations from 3.11 on")
def test_a_scope_that_is_forgotten_takes_its_cancellation_back() -> None:
    code = """
    async def main():
        task = asyncio.current_task()
        scope = hs.timeout(60)
        scope.__enter__()
        _host_scope._innermost.get()._cancel()
        assert task.cancelling() == 1
        del scope
        assert task.cancelling() == 0

    with contextlib.suppress(asyncio.CancelledError):  # Up to 3.12 it comes all the same.
        run(main)
    """
    run(IN_A_TASK + textwrap.dedent(code))


def test_the_loop_of_a_scope_is_that_which_asyncio_names() -> None:
    """Also in a thread beside it, and in a child that was forked meanwhile: it runs no loop."""
    code = """
    import asyncio, os, threading, warnings
    from hardsock.aio._host import running_loop

    def same():
        return running_loop() is asyncio._get_running_loop()

    def in_child():
        if (pid := os.fork()) == 0:
            os._exit(0 if same() and running_loop() is None else 1)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    async def main():
        assert running_loop() is asyncio.get_running_loop()
        assert (await asyncio.to_thread(running_loop), await asyncio.to_thread(same)) == (None, True)
        assert in_child() == 0
        assert running_loop() is asyncio.get_running_loop()

    warnings.simplefilter("ignore")  # Newer Pythons warn of a fork beside threads.
    assert running_loop() is None
    for _ in range(2):
        asyncio.run(main())
        assert running_loop() is None
    assert in_child() == 0
    """
    run(code)


def test_a_scope_in_a_task_does_not_ask_for_its_process_each_time() -> None:
    """Up to 3.11 asyncio does, whenever it is asked for the loop that runs."""
    code = """
    import asyncio
    import hardsock as hs
    async def main(times):
        for _ in range(times):
            with hs.timeout(60):
                pass
    asyncio.run(main(int(sys.argv[1])))
    """
    with available():
        few, many = (
            strace_inject(
                [sys.executable, "-c", "import sys" + textwrap.dedent(code), times],
                "getpid:delay_exit=1",
                timeout=120,
            )
            for times in ("10", "60")
        )
    assert (few.returncode, many.returncode) == (0, 0)
    assert len(many.trace) == len(few.trace)


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

makes = [lambda: hs.timeout(60), lambda: hs.shield(60), lambda: _core.ContextValue(_core.scope, hs.CancelToken())]
for make in makes:
    each(make)
    asyncio.run(in_a_task(make))
"""


def test_a_scope_is_never_left_set_for_want_of_memory() -> None:
    need_testcapi()
    run(WITHOUT_MEMORY)
