"""A connection that is bound to a token: what is read after a scope was left still ends with it."""

from __future__ import annotations

import gc
import socket
import weakref
from collections.abc import Iterator

import pytest

import hardsock as hs
from hardsock.lab.threads import Call, run_threaded


@pytest.fixture
def pair() -> Iterator[tuple[hs.Connection, socket.socket]]:
    ours, theirs = socket.socketpair()
    with theirs, hs.adopt(ours) as conn:
        yield conn, theirs


Pair = tuple[hs.Connection, socket.socket]


def test_a_later_call_ends_with_the_token(pair: Pair) -> None:
    conn, theirs = pair
    with hs.timeout(60) as token:
        conn.bind(token)
    assert hs.current() is None
    with Call(conn.recv, 1) as call:
        call.wait_until_blocked()
        token.cancel(KeyError("stop button"))
        with pytest.raises(hs.Cancelled, match="stop button") as caught:
            call.result(60)
    assert isinstance(caught.value.__cause__, KeyError)
    theirs.send(b"kept")
    conn.bind(None)
    assert conn.recv(4) == b"kept"


def test_its_deadline_counts_and_is_named(pair: Pair) -> None:
    conn, _ = pair
    conn.bind(hs.CancelToken(0.02, name="request 7"))
    for call in (lambda: conn.recv(1), lambda: conn.sendall(b"x"), lambda: conn.recv_line()):
        with pytest.raises(hs.DeadlineExceeded) as caught:
            call()
        assert caught.value.limit == "the token request 7"
        assert caught.value.reason == "request 7"


def test_the_nearest_of_token_scope_and_binding_counts(pair: Pair) -> None:
    conn, _ = pair
    near, far = hs.CancelToken(0.02, name="near"), hs.CancelToken(60, name="far")
    for bound, scope, given in ((near, far, far), (far, near, far), (far, far.child(), near)):
        conn.bind(bound)
        with hs.scope(scope), pytest.raises(hs.DeadlineExceeded) as caught:
            conn.recv(1, token=given)
        assert caught.value.reason == "near"
    conn.bind(far)
    with pytest.raises(hs.DeadlineExceeded) as caught:
        conn.recv(1, timeout=0.02)
    assert caught.value.limit == "timeout=0.02"


def test_files_are_bound_with_their_connection(pair: Pair) -> None:
    conn, theirs = pair
    token = hs.CancelToken()
    with conn.makefile("rb") as before:
        conn.bind(token)
        with conn.makefile("rb") as after:
            token.cancel()
            for file in (before, after):
                with pytest.raises(hs.Cancelled):
                    file.readline()
            conn.bind(None)
            theirs.sendall(b"one\ntwo\n")
            assert (before.readline(), after.readline()) == (b"one\n", b"two\n")


def test_a_binding_replaces_the_one_before(pair: Pair) -> None:
    conn, theirs = pair
    token = hs.CancelToken()
    token.cancel()
    conn.bind(token)
    conn.bind(hs.CancelToken())
    theirs.send(b"x")
    assert conn.recv(1) == b"x"


def test_what_is_no_token_is_refused(pair: Pair) -> None:
    with pytest.raises(TypeError):
        pair[0].bind(1.0)  # type: ignore[arg-type]


def test_a_pool_lends_its_connections_unbound() -> None:
    token = hs.CancelToken()
    token.cancel()
    with hs.listen(("127.0.0.1", 0)) as listener, hs.Pool(listener.address, max_size=1) as pool:
        with pool.connection(timeout=30) as conn:
            conn.bind(token)
            conn.mark_clean()
        with listener.accept(timeout=30) as theirs, pool.connection(timeout=30) as conn:
            assert conn.reused
            theirs.sendall(b"x")
            assert conn.recv(1, timeout=30) == b"x"
            conn.mark_clean()


def test_a_cycle_through_the_binding_is_collected() -> None:
    class Cause(Exception):
        pass

    def make() -> weakref.ref[Cause]:
        ours, theirs = socket.socketpair()
        with theirs, hs.adopt(ours) as conn:
            token, cause = hs.CancelToken(), Cause()
            cause.conn = conn  # type: ignore[attr-defined]
            token.cancel(cause)
            conn.bind(token)
            return weakref.ref(cause)

    gone = make()
    gc.collect()
    assert gone() is None


def test_binding_while_others_read(pair: Pair) -> None:
    conn, theirs = pair
    theirs.sendall(b"x" * 4000)

    def work(index: int) -> int:
        got = 0
        for _ in range(1000):
            if index:
                conn.bind(hs.CancelToken(60))
            else:
                got += len(conn.recv(4, timeout=60))
        return got

    assert max(run_threaded(work, 3)) > 0
