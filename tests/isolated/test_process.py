"""What needs a process of its own: exit, fork, signals, subinterpreters."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

import pytest

from support.forking import FORK

PRELUDE = """
import os, signal, socket, sys, threading, time, warnings
import hardsock as hs

# A shell that starts us in the background has SIGINT ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)

def until_blocked(native_id):
    while True:
        with open(f"/proc/self/task/{native_id}/syscall") as file:
            if file.read().split()[0] in ("271", "7"):  # ppoll, poll
                return
"""


def run(
    code: str, *, timeout: float = 120, check: bool = True, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    result = subprocess.run(
        [sys.executable, "-W", "error", "-X", "dev", "-c", PRELUDE + textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=timeout,
        env={**os.environ, **(env or {})},
    )
    if check:
        assert result.returncode == 0, result.stderr
    return result


def silent(code: str) -> None:
    """Run code that must end well and print nothing."""
    result = run(code)
    assert (result.stdout, result.stderr) == ("", "")


def test_importing_prints_nothing_and_starts_no_thread() -> None:
    silent("assert threading.active_count() == 1")


def test_importing_loads_nothing_big_that_only_some_calls_need() -> None:
    code = """
        import sys
        before = set(sys.modules)
        import hardsock
        big = {"asyncio", "concurrent.futures", "hashlib", "json", "multiprocessing", "subprocess"}
        assert not (big | {"gevent", "trio"}) & (set(sys.modules) - before)
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True)


def test_a_second_import_has_types_of_its_own() -> None:
    silent(
        """
        first = hs.CancelToken
        for name in [n for n in sys.modules if n.startswith("hardsock")]:
            del sys.modules[name]
        import hardsock as again
        assert again.CancelToken is not first
        try:
            again.connect("127.0.0.1:1", token=first())
        except TypeError as exc:
            assert "CancelToken" in str(exc)
        """
    )


IN_A_SUBINTERPRETER = """
import hardsock as hs, socket
a, b = socket.socketpair()
with hs.adopt(a) as conn, b:
    with hs.timeout(0.01):
        try:
            conn.recv(1)
        except hs.DeadlineExceeded:
            pass
        else:
            raise AssertionError
    hs.CancelToken().cancel(ValueError("x"))
"""


@pytest.mark.parametrize("config", ["isolated", "legacy"])
def test_subinterpreters_have_state_of_their_own(config: str) -> None:
    silent(
        f"""
        try:
            import _interpreters as interpreters
        except ImportError:  # before Python 3.13
            import _xxsubinterpreters as interpreters
        try:
            made = interpreters.create({config!r})
        except TypeError:
            made = interpreters.create(isolated={config == "isolated"})
        for _ in range(2):
            failed = interpreters.run_string(made, {IN_A_SUBINTERPRETER!r})
            assert failed is None, failed
        interpreters.destroy(made)
        hs.CancelToken().cancel("the main interpreter goes on")
        """
    )


@pytest.mark.parametrize("whose", ["a server", "a deadline", "the program"])
def test_exit_with_no_descriptor_left_is_an_exit(whose: str) -> None:
    """CPython ends such threads by pthread_exit(3), for which glibc loads a library."""
    start = {
        "a server": """
            def busy(conn):
                while True:
                    pass
            server = hs.serve(busy, ("127.0.0.1", 0), drain_timeout=0.01)
            clients = [socket.create_connection(server.address) for _ in range(4)]
            while server.stats().active < 4:
                pass
        """,
        "a deadline": """
            def busy():
                entered.set()
                while True:
                    pass
            token = hs.CancelToken()
            token.on_cancel(busy)
            token.set_timeout(0.001)
            entered.wait()
        """,
        "the program": """
            def busy():
                while True:
                    pass
            for _ in range(4):
                threading.Thread(target=busy, daemon=True).start()
        """,
    }[whose]
    code = f"""
        import resource
        entered = threading.Event()
        {textwrap.dedent(start).strip().replace(chr(10), chr(10) + " " * 8)}
        open_now = {{int(name) for name in os.listdir("/proc/self/fd")}}
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(open_now) + 1, 4096))
        try:
            while True:
                os.dup(0)
        except OSError:
            pass
    """
    result = run(code, check=False)
    assert result.returncode == 0, result.stderr
    assert "libgcc" not in result.stderr


def test_exit_does_not_wait_for_a_blocked_daemon_thread() -> None:
    silent(
        """
        a, b = socket.socketpair()
        conn = hs.adopt(a)
        listener = hs.listen(("127.0.0.1", 0))
        token = hs.CancelToken()
        ready = threading.Barrier(4)
        def block(call, *args):
            ready.wait()
            call(*args)
        for call, *args in ((conn.recv, 1), (listener.accept,), (token.wait,)):
            threading.Thread(target=block, args=(call, *args), daemon=True).start()
        ready.wait()
        warnings.simplefilter("ignore")
        """
    )


def test_exit_with_a_token_in_a_reference_cycle() -> None:
    silent(
        """
        class Node:
            pass
        node = Node()
        node.itself = node
        node.token = hs.CancelToken()
        node.child = node.token.child()
        node.token.on_cancel(lambda: node)
        node.token.cancel(ValueError("cause"))
        sys.modules["keep"] = node
        """
    )


def test_exit_with_a_watched_deadline() -> None:
    silent("token = hs.CancelToken(60); token.on_cancel(print)")


def test_a_forked_child_goes_on_with_what_the_parents_breaker_knew() -> None:
    silent(
        FORK
        + textwrap.dedent(
            """
            breaker = hs.Breaker()
            breaker.permit("a").record("tls_certificate")
            held = breaker.permit("b")
            def check():
                try:
                    breaker.permit("a")
                except hs.BreakerOpen:
                    held.record("tls_certificate")
                    assert breaker.stats().keys_open == 2
                else:
                    raise AssertionError
            in_child(check)
            assert breaker.stats().keys_open == 1
            held.record()
            assert breaker.stats().keys_open == 1
            """
        )
    )


def test_a_forked_child_may_not_use_the_parents_connection_but_can_close_it() -> None:
    silent(
        FORK
        + textwrap.dedent(
            """
            a, b = socket.socketpair()
            conn = hs.adopt(a)
            def check():
                for call in (lambda: conn.recv(1), lambda: conn.sendall(b"x"), conn.detach):
                    try:
                        call()
                    except hs.WrongProcess as exc:
                        assert "fork" in str(exc)
                    else:
                        raise AssertionError(call)
                conn.set_read_deadline(0)
                number = os.dup(0)
                os.close(number)
                conn.close()
                assert conn.closed
            in_child(check)
            b.send(b"still the parent's")
            assert conn.recv(100) == b"still the parent's"
            conn.close()
            assert b.recv(1) == b""
            b.close()
            """
        )
    )


def test_closing_in_a_child_closes_even_what_a_parents_thread_was_using() -> None:
    silent(
        FORK
        + textwrap.dedent(
            """
            listener = hs.listen(("127.0.0.1", 0))
            number = listener.fileno()
            thread = threading.Thread(target=lambda: list(listener))
            thread.start()
            until_blocked(thread.native_id)
            def check():
                listener.close()
                try:
                    os.fstat(number)
                except OSError:
                    return
                raise AssertionError("still open")
            in_child(check)
            with hs.connect(listener.address, timeout=30):
                pass
            listener.close()
            thread.join()
            """
        )
    )


def test_tokens_can_be_asked_and_cancelled_in_a_child_of_a_busy_parent() -> None:
    silent(
        FORK
        + textwrap.dedent(
            """
            root = hs.CancelToken()
            children = [root.child() for _ in range(1000)]
            stop = False
            def sweep():
                while not stop:
                    root.set_timeout(60)
            threads = [threading.Thread(target=sweep) for _ in range(2)]
            for t in threads: t.start()
            def check():
                assert not root.cancelled
                with hs.scope(root):
                    a, b = socket.socketpair()
                    with hs.adopt(a) as conn, b:
                        try:
                            conn.recv(1, timeout=0.01)
                        except hs.DeadlineExceeded:
                            pass
                fresh = hs.CancelToken()
                kids = [fresh.child() for _ in range(10)]
                fresh.cancel("fresh")
                root.cancel("in the child")
                assert children[0].reason == "in the child"
                assert kids[0].reason == "fresh"
            for _ in range(20):
                in_child(check)
            stop = True
            for t in threads: t.join()
            assert not root.cancelled
            """
        )
    )


def test_names_can_be_looked_up_in_a_child() -> None:
    silent(
        FORK
        + textwrap.dedent(
            """
            hs.resolve("localhost:80", timeout=20)
            in_child(lambda: hs.resolve("localhost:80", timeout=20))
            """
        )
    )


BLOCKERS = {
    "recv": "a, b = socket.socketpair(); call = lambda: hs.adopt(a).recv(1)",
    "recv_exactly": "a, b = socket.socketpair(); b.send(b'x'); call = lambda: hs.adopt(a).recv_exactly(9)",
    "sendall": "a, b = socket.socketpair(); call = lambda: hs.adopt(a).sendall(b'x' * (1 << 24))",
    "accept": "call = hs.listen(('127.0.0.1', 0)).accept",
    "connect": "hole = BlackHole(); hole.__enter__(); call = lambda: hs.connect(hole.address)",
    "wait": "call = hs.CancelToken().wait",
}


@pytest.mark.parametrize("name", BLOCKERS)
def test_ctrl_c_interrupts(name: str) -> None:
    result = run(
        "from hardsock.lab.blackhole import BlackHole\n"
        "warnings.simplefilter('ignore')\n"
        + BLOCKERS[name]
        + """
main = threading.main_thread().native_id
def interrupt():
    until_blocked(main)
    os.kill(os.getpid(), signal.SIGINT)
threading.Thread(target=interrupt, daemon=True).start()
began = time.monotonic()
try:
    call()
except KeyboardInterrupt:
    print("interrupted", time.monotonic() - began < 5)
"""
    )
    assert result.stdout == "interrupted True\n"


def _lookup_interrupted() -> list[object]:
    import os
    import signal
    import threading
    import time

    import hardsock as hs
    from hardsock.lab.dns import DeadDNS, use_dns

    signal.signal(signal.SIGINT, signal.default_int_handler)
    with DeadDNS("127.0.0.1", 53):
        use_dns("127.0.0.1", timeout=20, attempts=2)
        main = threading.main_thread().native_id

        def interrupt() -> None:
            while True:
                with open(f"/proc/self/task/{main}/syscall") as file:
                    if file.read().split()[0] == "271":
                        break
            os.kill(os.getpid(), signal.SIGINT)

        thread = threading.Thread(target=interrupt, daemon=True)
        thread.start()
        began = time.monotonic()
        try:
            hs.connect("nobody.test:80")
        except KeyboardInterrupt:
            return ["interrupted", time.monotonic() - began, hs.resolver_stats()["orphans"]]
    return []


@pytest.mark.net
def test_ctrl_c_interrupts_a_name_lookup() -> None:
    from hardsock.lab.namespaces import Namespace
    from support.require import require

    with require(Namespace()) as namespace:
        outcome, took, orphans = namespace.run(_lookup_interrupted)
    assert outcome == "interrupted"
    assert took < 15  # of forty that the resolver would take
    assert orphans >= 1


def test_an_interrupted_read_keeps_its_bytes_and_frees_the_direction() -> None:
    silent(
        """
        a, b = socket.socketpair()
        conn = hs.adopt(a)
        b.send(b"ab")
        main = threading.main_thread().native_id
        class Stop(Exception): pass
        def handler(*_): raise Stop
        signal.signal(signal.SIGUSR1, handler)
        def interrupt():
            until_blocked(main)
            os.kill(os.getpid(), signal.SIGUSR1)
        thread = threading.Thread(target=interrupt)
        thread.start()
        try:
            conn.recv_exactly(4)
        except Stop:
            pass
        thread.join()
        b.send(b"cd")
        assert conn.recv_exactly(4, timeout=30) == b"abcd"
        conn.close(); b.close()
        """
    )


def test_a_storm_of_signals_neither_shortens_nor_lengthens_a_deadline() -> None:
    result = run(
        """
        fired = 0
        def handler(*_):
            global fired
            fired += 1
        signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
        a, b = socket.socketpair()
        conn = hs.adopt(a)
        began = time.monotonic()
        try:
            conn.recv(1, timeout=0.3)
        except hs.DeadlineExceeded:
            took = time.monotonic() - began
        signal.setitimer(signal.ITIMER_REAL, 0)
        conn.close(); b.close()
        print(fired, took)
        """
    )
    fired, took = result.stdout.split()
    assert int(fired) > 20
    assert 0.3 <= float(took) < 10


def test_an_unclosed_connection_is_a_resource_warning_and_is_closed() -> None:
    result = run(
        """
        a, b = socket.socketpair()
        warnings.simplefilter("always")
        with warnings.catch_warnings(record=True) as seen:
            hs.adopt(a)
            hs.listen(("127.0.0.1", 0))
        print([w.category.__name__ for w in seen], "unclosed <hardsock.Connection" in str(seen[0].message))
        assert b.recv(1) == b""
        b.close()
        """
    )
    assert result.stdout == "['ResourceWarning', 'ResourceWarning'] True\n"


def test_objects_of_every_kind_are_freed() -> None:
    silent(
        """
        import gc
        from hardsock._core import _live
        hs.CancelToken().wait(0)
        for _ in range(3):
            token = hs.CancelToken(10)
            linked = hs.CancelToken.linked([token, hs.CancelToken()])
            callback = linked.on_cancel(lambda: token)
            token.cancel(ValueError("cause"))
            with hs.listen(("127.0.0.1", 0)) as listener:
                with hs.connect(listener.address, timeout=30) as conn, listener.accept() as other:
                    other.makefile("rb").close()
                    try:
                        conn.recv(1, token=linked)
                    except hs.Cancelled as exc:
                        assert isinstance(exc.__cause__, ValueError)
            del token, linked, callback, listener, conn, other
            # The thread that watches deadlines looks at the cancelled token, too, for a moment.
            end = time.monotonic() + 5
            while any(_live().values()) and time.monotonic() < end:
                gc.collect()
            assert not any(_live().values()), _live()
        """
    )
