"""Greenlets of gevent: a call that waits stops them, which is said once."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

from support.require import need_module

need_module("gevent")

PRELUDE = """
from gevent import monkey
if PATCHED: monkey.patch_all()
import asyncio, gevent, socket, sys, warnings
from gevent import hub
import hardsock as hs
from hardsock import aio

def warned(call):
    "How often a call in a greenlet warns; each makes something to be closed."
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        made = gevent.spawn(call).get()
    if hasattr(made, "close"):
        made.close()
    for each in found:
        assert each.category is RuntimeWarning, each
        assert "threadpool" in str(each.message) and "docs/threads.md" in str(each.message)
        assert each.filename == "<string>", each.filename
    return len(found)

listener = hs.listen(("127.0.0.1", 0))
address = listener.address
CALLS = {
    "connect": lambda: hs.connect(address, timeout=30),
    "resolve": lambda: hs.resolve(address, timeout=30),
    "adopt": lambda: hs.adopt(theirs[0]),
    "listen": lambda: hs.listen(("127.0.0.1", 0)),
    "Pool": lambda: hs.Pool(address),
}
theirs = socket.socketpair()
"""


def run(code: str, *, patched: bool) -> None:
    prelude = PRELUDE.replace("PATCHED", repr(patched))
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", prelude + textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


@pytest.mark.parametrize("patched", [False, True])
@pytest.mark.parametrize("name", ["connect", "resolve", "adopt", "listen", "Pool"])
def test_the_first_call_in_a_greenlet_warns_and_no_other(name: str, patched: bool) -> None:
    run(
        f"""
        first = CALLS.pop({name!r})
        assert warned(first) == 1
        for call in CALLS.values():
            assert warned(call) == 0
        for each in theirs: each.close()
        listener.close()
        """,
        patched=patched,
    )


def test_a_thread_of_its_own_and_an_event_loop_are_not_warned_of() -> None:
    run(
        """
        def ask():
            with hs.connect(address, timeout=30) as conn:
                return conn.recv_exactly(5, timeout=30)

        asking = gevent.get_hub().threadpool.spawn(ask)
        with listener.accept(timeout=30) as conn:
            conn.sendall(b"hello")
        assert asking.get() == b"hello"

        async def main():
            async with await aio.listen(("127.0.0.1", 0)) as other:
                (await aio.connect(other.address, timeout=30)).close()

        asyncio.run(main())
        for each in theirs: each.close()
        listener.close()
        """,
        patched=False,
    )


def test_ssl_of_gevent_does_not_become_a_second_owner() -> None:
    """Its ``SSLSocket`` is no ``ssl.SSLSocket`` and no ``socket.socket``, and takes the number first as well."""
    run(
        """
        import gc, os, ssl
        warnings.simplefilter("ignore", RuntimeWarning)
        conn, peer = hs.adopt(theirs[0]), theirs[1]
        peer.sendall(b"220 go ahead\\r\\nrest")
        conn.recv_line(hs.Line("\\r\\n"), timeout=30)
        context = ssl.create_default_context()
        assert type(context).__module__ == "gevent.ssl"
        try:
            context.wrap_socket(conn, server_hostname="example.org")
        except hs.Busy:
            pass
        else:
            raise AssertionError
        gc.collect()
        assert os.readlink(f"/proc/self/fd/{conn.fileno()}").startswith("socket:")
        conn.sendall(b"still mine")
        assert peer.recv(10) == b"still mine"
        import hardsock.compat.socket, hardsock.running.routes
        for each in (conn, peer, listener): each.close()
        """,
        patched=True,
    )


def test_serving_where_threads_are_greenlets_says_so() -> None:
    """The first thread that waits for a client would stop the one that has made it, for ever."""
    run(
        """
        warnings.simplefilter("ignore", RuntimeWarning)
        try:
            hs.serve(print, ("127.0.0.1", 0), drain_timeout=1)
        except RuntimeError as exc:
            assert "gevent has made greenlets" in str(exc), exc
            assert "patch_all(thread=False)" in str(exc), exc
        else:
            raise AssertionError
        for each in (*theirs, listener): each.close()
        """,
        patched=True,
    )


def test_serving_beside_greenlets_works_where_threads_are_threads() -> None:
    run(
        """
        warnings.simplefilter("ignore", RuntimeWarning)
        monkey.patch_all(thread=False)
        with hs.serve(lambda conn: conn.sendall(b"hello"), ("127.0.0.1", 0), drain_timeout=30) as server:
            with hs.connect(server.address, timeout=30) as conn:
                assert conn.recv_exactly(5, timeout=30) == b"hello"
        for each in (*theirs, listener): each.close()
        """,
        patched=False,
    )


def test_every_module_can_be_imported_where_all_is_patched() -> None:
    """gevent takes classes away (``selectors.EpollSelector``), and puts others in the place of ``ssl``'s.

    Of the adapters one stands for all: what costs half a minute is the libraries.
    """
    run(
        """
        import importlib, pkgutil
        warnings.simplefilter("ignore")
        def walk(package):
            for one in pkgutil.iter_modules(package.__path__, package.__name__ + "."):
                # running.site is put on a path of modules, where what is in it has another name.
                if one.name.endswith(("__main__", ".adapters", ".demo", ".lab", ".running.site")):
                    continue
                try:
                    module = importlib.import_module(one.name)
                except ImportError:  # A library that is not installed.
                    continue
                if one.ispkg:
                    walk(module)
        walk(hs)
        if importlib.util.find_spec("redis"):
            import hardsock.adapters.redis
        for each in (*theirs, listener): each.close()
        """,
        patched=True,
    )


def test_a_loop_of_ours_runs_in_a_thread_of_gevents_pool_where_all_is_patched() -> None:
    run(
        """
        from hardsock.aio.loop import EventLoop

        async def main():
            async with await aio.connect(address, timeout=30) as conn:
                await conn.sendall(b"hello")

        def ask():
            loop = EventLoop()
            try:
                loop.run_until_complete(main())
            finally:
                loop.close()

        asking = gevent.get_hub().threadpool.spawn(ask)
        warnings.simplefilter("ignore", RuntimeWarning)
        asking.get()
        with listener.accept(timeout=30) as conn:
            assert conn.recv_exactly(5, timeout=30) == b"hello"
        for each in (*theirs, listener): each.close()
        """,
        patched=True,
    )
