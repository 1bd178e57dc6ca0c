"""Breakers: what connect() does under one, permits and guards, what counts, what is told.

When it opens and closes is told by scripts in tests/c/test_breaker.c, with a clock of their own.
"""

from __future__ import annotations

import asyncio
import builtins
import contextlib
import errno
import gc
import socket
import ssl
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import hardsock as hs
from hardsock import aio
from hardsock._breaker import failure_of
from hardsock._core import _live
from hardsock.lab.blackhole import BlackHole
from hardsock.lab.namespaces import Namespace
from hardsock.lab.threads import Call, run_threaded
from support.echo import EchoServer
from support.loops import RUNS
from support.pki import Authority, make_authority
from support.require import require

# Half open as soon as anybody looks again.
SOON = 1e-9


@pytest.fixture
def refusing() -> Iterator[tuple[str, int]]:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        yield unused.getsockname()


def breaker(**options: Any) -> hs.Breaker:
    return hs.Breaker(**{"failures": 2, "jitter": 0.0, **options})


def fail(made: hs.Breaker, key: hs.Address, error: str = "tls_certificate") -> None:
    made.permit(key).record(error)


# ---- connecting


def test_connect_is_refused_at_once_after_failures_in_a_row(refusing: tuple[str, int]) -> None:
    made = breaker()
    for _ in range(2):
        with pytest.raises(hs.ConnectionRefused):
            hs.connect(refusing, timeout=30, breaker=made)
    with pytest.raises(hs.BreakerOpen) as caught:
        hs.connect(refusing, timeout=30, breaker=made)
    error = caught.value
    assert isinstance(error, hs.ConnectError)
    assert isinstance(error, ConnectionError)
    text = f"127.0.0.1:{refusing[1]}"
    assert (error.address, error.peer, error.last_error) == (text, text, "refused")
    assert (error.op, error.phase, error.errno) == ("connect", "breaker", None)
    assert error.retry_after is not None
    assert 29 < error.retry_after <= 30
    assert f"{text} not tried: the breaker is open (last failure: refused)" in str(error)
    assert "again in" in str(error)
    (attempt,) = error.attempts
    assert attempt[:3] == (text, "skipped", 0)
    assert str(attempt) == f"{text} skipped by the breaker"


def test_a_server_that_is_back_closes_it() -> None:
    made = breaker(open_time=SOON)
    with hs.listen(("127.0.0.1", 0)) as listener:
        address = listener.address
        fail(made, address)
        assert made.states()[0].state == "half_open"
        with hs.connect(address, timeout=30, breaker=made):
            (state,) = made.states()
    assert (state.key, state.state) == (f"127.0.0.1:{address[1]}", "closed")
    assert made.stats()[:2] == (2, 0)


@pytest.mark.parametrize("loop", RUNS)
@pytest.mark.usefixtures("event_loops")
def test_awaited_connects_share_it_with_threads(loop: str, refusing: tuple[str, int]) -> None:
    made = breaker()

    async def main() -> None:
        with pytest.raises(hs.ConnectionRefused):
            await aio.connect(refusing, timeout=30, breaker=made)
        with pytest.raises(hs.BreakerOpen) as caught:
            await aio.connect(refusing, timeout=30, breaker=made)
        assert caught.value.last_error == "refused"

    with pytest.raises(hs.ConnectionRefused):
        hs.connect(refusing, timeout=30, breaker=made)
    RUNS[loop](main())


def test_a_cancelled_connect_never_counts() -> None:
    made = breaker(failures=1, patience=0)
    token = hs.CancelToken()
    with BlackHole() as hole:
        with Call(hs.connect, hole.address, token=token, breaker=made) as connecting:
            connecting.wait_until_blocked()
            token.cancel("never mind")
            with pytest.raises(hs.Cancelled):
                connecting.result(30)

        async def main() -> None:
            task = asyncio.ensure_future(aio.connect(hole.address, breaker=made))
            while made.stats().permitted < 2:
                await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

        asyncio.run(main())
    assert made.states() == []
    assert made.stats().not_counted == 2


@pytest.mark.parametrize(("patience", "counted"), [(1000.0, 0), (0.05, 1)])
def test_a_deadline_counts_if_it_left_time_for_an_answer(patience: float, counted: int) -> None:
    made = breaker(patience=patience)
    with BlackHole() as hole, pytest.raises(hs.DeadlineExceeded):
        hs.connect(hole.address, timeout=0.5, breaker=made)
    assert made.stats().by_class["timeout"] == counted
    assert made.stats().not_counted == 1 - counted


def _in_namespace(hosts: dict[str, str]) -> dict[str, Any]:
    import hardsock as hs
    from hardsock.lab.inside import bind_mount_file

    bind_mount_file("/etc/hosts", "".join(f"{address} many\n" for address in hosts))
    made = hs.Breaker(jitter=0.0)
    strict = hs.Breaker(jitter=0.0, fail_fast=True)
    for address, state in hosts.items():
        if state == "open":
            made.permit((address, 4711)).record("tls_certificate")
            strict.permit((address, 4711)).record("tls_certificate")
    found: dict[str, Any] = {}
    try:
        hs.connect("many:4711", timeout=30, breaker=made)
    except hs.ConnectError as exc:
        found["attempts"] = [[attempt.address, attempt.phase] for attempt in exc.attempts]
        found["error"] = type(exc).__name__
    try:
        hs.connect("many:4711", timeout=30, breaker=strict)
    except hs.ConnectError as exc:
        found["strict"] = [type(exc).__name__, getattr(exc, "address", None)]
    return found


@pytest.mark.net
def test_the_last_of_several_addresses_is_tried_unless_fail_fast() -> None:
    hosts = {"127.0.0.2": "open", "127.0.0.3": "open"}
    with require(Namespace()) as namespace:
        found = namespace.run(_in_namespace, hosts)
    assert found["attempts"] == [["127.0.0.2:4711", "connect"], ["127.0.0.3:4711", "skipped"]]
    assert found["error"] == "ConnectionRefused"
    assert found["strict"] == ["BreakerOpen", "127.0.0.2:4711"]


def _serve_one_handshake(listener: socket.socket, context: ssl.SSLContext) -> None:
    conn, _ = listener.accept()
    with conn, contextlib.suppress(OSError):
        context.wrap_socket(conn, server_side=True).close()


def test_a_certificate_that_connect_does_not_trust_opens_at_once(
    authority: Authority, tmp_path: Path
) -> None:
    made = hs.Breaker()
    context = _server_context(authority, tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = listener.getsockname()
        with Call(_serve_one_handshake, listener, context) as serving:
            with pytest.raises(hs.CertificateError):
                hs.connect(address, tls=True, timeout=30, breaker=made)
            serving.result(30)
        with pytest.raises(hs.BreakerOpen) as caught:
            hs.connect(address, tls=True, timeout=30, breaker=made)
    assert caught.value.last_error == "tls_certificate"
    assert made.stats().by_class["tls_certificate"] == 1


def test_a_handshake_that_stalls_counts_as_a_timeout() -> None:
    made = breaker(patience=0.05)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        for _ in range(2):
            with pytest.raises(hs.DeadlineExceeded) as caught:
                hs.connect(silent.getsockname(), tls=True, timeout=0.5, breaker=made)
            assert caught.value.phase == "tls"
        with pytest.raises(hs.BreakerOpen):
            hs.connect(silent.getsockname(), tls=True, timeout=0.5, breaker=made)
    assert made.stats().by_class["timeout"] == 2


@pytest.mark.parametrize("wrong", [object(), 5, hs.Breaker])
def test_connect_takes_breakers_only(wrong: Any) -> None:
    with pytest.raises(TypeError, match="breaker must be a Breaker or None"):
        hs.connect("127.0.0.1:1", breaker=wrong)


# ---- permits and guards


def test_a_permit_is_reported_once() -> None:
    made = breaker()
    permit = made.permit("payments")
    assert (permit.key, permit.probe, permit.would_refuse) == ("payments", False, False)
    for _ in range(5):
        permit.record("timeout")
    assert made.stats().failures == 1
    permit = made.permit("payments")
    run_threaded(lambda _: permit.record("timeout"), 8)
    assert made.stats().failures == 2
    with pytest.raises(hs.BreakerOpen) as caught:
        made.permit("payments")
    assert (caught.value.address, caught.value.op) == ("payments", "permit")
    assert caught.value.last_error == "timeout"


def test_a_permit_that_is_dropped_goes_back() -> None:
    made = breaker(open_time=SOON)
    fail(made, "db")
    held = made.permit("db")
    assert held.probe
    with pytest.raises(hs.BreakerOpen):
        made.permit("db")
    del held
    gc.collect()
    made.permit("db").record()
    assert made.states()[0].state == "closed"


def test_a_probe_that_is_never_reported_holds_up_nobody() -> None:
    made = breaker(open_time=SOON, probe_time=SOON)
    fail(made, "db")
    forgotten = made.permit("db")
    made.permit("db").record()
    forgotten.record("tls_certificate")
    assert made.states()[0].state == "closed"
    assert made.stats()[5:10] == (1, 1, 2, 0, 1)  # expired, success, failures, not counted, late


def test_an_open_time_without_end_lasts_until_reset() -> None:
    made = breaker(open_time=None)
    fail(made, "db")
    with pytest.raises(hs.BreakerOpen) as caught:
        made.permit("db")
    assert caught.value.retry_after is None
    assert "again in" not in str(caught.value)
    assert made.states()[0].retry_at is None
    assert made.reset("db") == 1
    made.permit("db")


def test_a_guard_reports_what_ends_it() -> None:
    made = breaker()
    with made.guard("db") as permit:
        assert permit.key == "db"
    with pytest.raises(ZeroDivisionError), made.guard("db"):
        raise ZeroDivisionError
    with pytest.raises(hs.Reset), made.guard("db"):
        raise hs.Reset(errno.ECONNRESET, "reset")
    with pytest.raises(hs.BreakerOpen), made.guard("db"):
        raise AssertionError("must not run")
    stats = made.stats()
    assert (stats.successes, stats.failures) == (1, 2)
    assert stats.by_class["application"] == stats.by_class["reset"] == 1


def test_a_guard_ignores_what_it_is_told_to() -> None:
    made = breaker(failures=1)
    guard = made.guard("db", ignore=(KeyError, ValueError))
    for _ in range(3):
        with pytest.raises(KeyError), guard:
            raise KeyError
    with guard, pytest.raises(RuntimeError, match="in use"), guard:
        raise AssertionError("must not run")
    assert made.states() == []
    with pytest.raises(TypeError):
        made.guard("db", ignore=5)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["KeyboardInterrupt", "SystemExit", "GeneratorExit"])
def test_what_ends_the_program_is_nobodys_failure(name: str) -> None:
    made = breaker(failures=1)
    with pytest.raises(BaseException) as caught, made.guard("db"):
        raise getattr(builtins, name)
    assert type(caught.value).__name__ == name
    assert made.stats().not_counted == 1


def test_nested_breakers_do_not_count_each_other() -> None:
    inner, outer = breaker(), breaker(failures=1)
    fail(inner, "db")
    with pytest.raises(hs.BreakerOpen), outer.guard("service"), inner.guard("db"):
        pass
    assert outer.states() == []


@pytest.mark.parametrize(
    ("exc", "want"),
    [
        (hs.ConnectionRefused(errno.ECONNREFUSED, ""), "refused"),
        (hs.ConnectError(errno.ENOENT, "no unix path"), "refused"),
        (hs.ConnectError(errno.EHOSTUNREACH, ""), "unreachable"),
        (hs.ConnectError(errno.EMFILE, ""), "not_counted"),
        (hs.SocketError(errno.ENETUNREACH, ""), "not_counted"),
        (hs.Reset(errno.ECONNRESET, ""), "reset"),
        (hs.Truncated(None, ""), "reset"),
        (hs.EndOfStream(None, ""), "reset"),
        (hs.DeadPeer(errno.ETIMEDOUT, ""), "timeout"),
        (hs.DeadlineExceeded(errno.ETIMEDOUT, ""), "deadline"),
        (hs.Cancelled(errno.ECANCELED, ""), "not_counted"),
        (hs.Closed(errno.EBADF, ""), "not_counted"),
        (hs.WrongProcess(errno.EBADF, ""), "not_counted"),
        (hs.Busy(errno.EBUSY, ""), "not_counted"),
        (hs.Poisoned(errno.EPIPE, ""), "not_counted"),
        (hs.ResolveError(socket.EAI_NONAME, ""), "not_counted"),
        (hs.BadFrame(errno.EBADMSG, ""), "application"),
        (hs.FrameTooLarge(errno.EMSGSIZE, ""), "application"),
        (ConnectionRefusedError(errno.ECONNREFUSED, ""), "refused"),
        (BrokenPipeError(errno.EPIPE, ""), "reset"),
        (ConnectionError("a library's own"), "application"),
        (TimeoutError(), "deadline"),
        (asyncio.TimeoutError(), "deadline"),
        (socket.timeout(), "deadline"),  # noqa: UP041
        (asyncio.CancelledError(), "not_counted"),
        (OSError(errno.EMFILE, ""), "not_counted"),
        (OSError(errno.ENOENT, "a file of ours"), "not_counted"),
        (MemoryError(), "not_counted"),
        (EOFError(), "reset"),
        (ssl.SSLCertVerificationError(1, ""), "tls_certificate"),
        (ssl.SSLError(1, ""), "tls_other"),
        (ValueError("nonsense from the server"), "application"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_exceptions_say_whose_fault_it_was(exc: BaseException, want: str) -> None:
    assert failure_of(exc) == want


def _handshake(server: ssl.SSLContext, client: ssl.SSLContext) -> None:
    """One handshake in memory; raises what the client raises."""
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    theirs = server.wrap_bio(to_server, to_client, server_side=True)
    ours = client.wrap_bio(to_client, to_server, server_hostname="localhost")
    while True:
        try:
            return ours.do_handshake()
        except ssl.SSLWantReadError:
            try:
                theirs.do_handshake()
            except ssl.SSLError:
                pass


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return make_authority(tmp_path_factory.mktemp("ca"))


def _server_context(authority: Authority, directory: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.issue(file=directory.name))
    return context


def test_a_certificate_that_is_not_trusted_opens_at_once(
    authority: Authority, tmp_path: Path
) -> None:
    made = hs.Breaker()
    with pytest.raises(ssl.SSLCertVerificationError), made.guard("db"):
        _handshake(_server_context(authority, tmp_path), ssl.create_default_context())
    with pytest.raises(hs.BreakerOpen) as caught:
        made.permit("db")
    assert caught.value.last_error == "tls_certificate"


def test_no_version_in_common_opens_at_once(authority: Authority, tmp_path: Path) -> None:
    server = _server_context(authority, tmp_path)
    server.minimum_version = ssl.TLSVersion.TLSv1_3
    client = ssl.create_default_context(cafile=str(authority.certificate))
    client.maximum_version = ssl.TLSVersion.TLSv1_2
    made = hs.Breaker()
    with pytest.raises(ssl.SSLError), made.guard("db"):
        _handshake(server, client)
    assert made.states()[0].last_error == "tls_version"


def test_one_reset_does_not_open() -> None:
    made = hs.Breaker()
    fail(made, "db", "reset")
    assert made.states()[0].state == "closed"


# ---- keys


@pytest.mark.parametrize(
    ("key", "text"),
    [
        (("127.0.0.1", 80), "127.0.0.1:80"),
        ("127.0.0.1:80", "127.0.0.1:80"),
        (("::1", 80), "[::1]:80"),
        (("::1", 80, 5, 0), "[::1]:80"),
        (("db.example.org", 5432), "db.example.org:5432"),
        ("unix:/run/db", "unix:/run/db"),
        (b"/run/db", "unix:/run/db"),
        (b"\0name", "unix:@name"),
        ("/api/users", "/api/users"),
        ("Zahlungen für München", "Zahlungen für München"),
    ],
)
def test_keys_are_addresses_or_names(key: Any, text: str) -> None:
    made = breaker()
    fail(made, key)
    (state,) = made.states()
    assert state.key == text
    with pytest.raises(hs.BreakerOpen):
        made.permit(text)
    assert made.reset(text) == 1


def test_clients_of_a_listener_weigh_less() -> None:
    made = breaker()
    fail(made, "listener 0.0.0.0:443", "tls_version")
    fail(made, ("0.0.0.0", 443), "tls_version")
    for _ in range(5):
        fail(made, "listener 0.0.0.0:443", "reset")
    states = {state.key: (state.state, state.in_a_row) for state in made.states()}
    assert states == {"listener 0.0.0.0:443": ("closed", 1), "0.0.0.0:443": ("open", 1)}


@pytest.mark.parametrize("key", ["", "x" * 119, 5, None, ("127.0.0.1",)])
def test_what_is_no_key_is_refused(key: Any) -> None:
    made = breaker()
    for call in (made.permit, made.guard):
        with pytest.raises((TypeError, ValueError), match="key"):
            call(key)
    if key is not None:
        with pytest.raises((TypeError, ValueError), match="key"):
            made.reset(key)


@pytest.mark.parametrize("error", [5, ValueError, b"reset"])
def test_a_report_is_an_exception_or_a_name(error: Any) -> None:
    permit = breaker().permit("db")
    with pytest.raises(TypeError, match="error must be"):
        permit.record(error)
    with pytest.raises(ValueError, match=r"tls_certificate.*'success'"):
        permit.record("success")


# ---- options


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"failures": 0}, ValueError, "failures must be in 1..1000000"),
        ({"failures": True}, TypeError, "failures must be an int"),
        ({"failures": None, "failure_rate": None}, ValueError, "failures and failure_rate"),
        ({"failure_rate": 0}, ValueError, "failure_rate must be in 0.001..1"),
        ({"failure_rate": 1.5}, ValueError, "failure_rate must be in 0.001..1"),
        ({"failure_rate": float("nan")}, ValueError, "failure_rate"),
        ({"failure_rate": "half"}, TypeError, "failure_rate must be a number"),
        ({"failure_rate": None, "min_calls": 5}, ValueError, "min_calls.*failure_rate"),
        ({"failure_rate": None, "window": 5}, ValueError, "window.*failure_rate"),
        ({"min_calls": 0}, ValueError, "min_calls"),
        ({"window": 0}, ValueError, "window"),
        ({"window": None}, ValueError, "window must be a finite"),
        ({"open_time": 0}, ValueError, "open_time"),
        ({"open_time": -1}, ValueError, "open_time must be a non-negative"),
        ({"open_time": 60, "max_open_time": 30}, ValueError, "max_open_time.*open_time"),
        ({"jitter": 2}, ValueError, "jitter must be in 0..1"),
        ({"probes": 0}, ValueError, "probes must be in 1..64"),
        ({"successes": 0}, ValueError, "successes"),
        ({"probe_time": None}, ValueError, "probe_time must be a finite"),
        ({"probe_time": 0}, ValueError, "probe_time"),
        ({"patience": -1}, ValueError, "patience"),
        ({"max_ejected": -0.1}, ValueError, "max_ejected must be in 0..1"),
        ({"max_ejected": 0.5, "fail_fast": True}, ValueError, "fail_fast.*max_ejected"),
        ({"max_keys": 0}, ValueError, "max_keys"),
        ({"seed": 0}, ValueError, "seed"),
        ({"retries": 3}, TypeError, "unexpected keyword argument 'retries'"),
    ],
)
def test_options_that_cannot_be_are_refused_by_name(
    options: dict[str, Any], error: type[Exception], match: str
) -> None:
    with pytest.raises(error, match=match):
        hs.Breaker(**options)


def test_options_are_keywords() -> None:
    with pytest.raises(TypeError, match="at most 0 positional"):
        hs.Breaker(5)  # type: ignore[misc]


def test_the_rate_alone_may_open() -> None:
    made = hs.Breaker(failures=None, failure_rate=0.25, min_calls=8)
    fail(made, "db", "timeout")
    for _ in range(5):
        made.permit("db").record()
    fail(made, "db", "timeout")
    assert made.states()[0].state == "closed"
    fail(made, "db", "timeout")
    (state,) = made.states()
    assert (state.state, state.window_calls, state.window_failures) == ("open", 8, 3)


def test_the_same_seed_gives_the_same_jitter() -> None:
    spans = []
    for seed in (7, 7, 8):
        made = hs.Breaker(jitter=1.0, seed=seed)
        fail(made, "db")
        (state,) = made.states()
        assert state.opened_at is not None
        assert state.retry_at is not None
        spans.append(round(state.retry_at - state.opened_at, 6))
    assert spans[0] == spans[1] != spans[2]


def test_a_dry_run_refuses_nothing(refusing: tuple[str, int]) -> None:
    made = breaker(dry_run=True)
    for _ in range(5):
        with pytest.raises(hs.ConnectionRefused):
            hs.connect(refusing, timeout=30, breaker=made)
    stats = made.stats()
    assert (stats.permitted, stats.would_refuse, stats.refused) == (2, 3, 0)
    assert made.states()[0].state == "open"
    assert made.permit(refusing).would_refuse


# ---- telling


def test_stats_are_plain_numbers() -> None:
    made = breaker()
    fail(made, "db")
    stats = made.stats()._asdict()
    classes = stats.pop("by_class")
    assert all(type(value) is int for value in [*stats.values(), *classes.values()])
    assert all(name.isidentifier() for name in classes)
    assert (stats["keys"], stats["keys_open"], stats["opened"]) == (1, 1, 1)
    assert repr(made) == "<hardsock.Breaker 1 keys, 1 open>"


def test_states_tell_the_last_used_first_and_reset_forgets() -> None:
    made = breaker()
    for key in ("a", "b", "c"):
        fail(made, key, "refused")
    fail(made, "a", "timeout")
    assert [state.key for state in made.states()] == ["a", "c", "b"]
    state = made.states()[0]
    assert (state.in_a_row, state.calls, state.failures, state.opened) == (2, 2, 2, 1)
    assert (state.last_error, state.openings) == ("timeout", 1)
    assert state.opened_at == state.last_error_at
    assert made.states()[1].opened_at is None
    assert made.reset("unknown") == 0
    assert made.reset("a") == 1
    assert made.reset() == 2
    assert made.states() == []


def test_threads_and_snapshots_do_not_disturb_each_other() -> None:
    made = hs.Breaker(max_keys=50, open_time=SOON)
    done = threading.Event()
    told = []

    def look() -> None:
        while not done.is_set():
            told.append(len(made.states()))
            made.stats()

    def use(*_: int) -> None:
        for i in range(300):
            try:
                with made.guard(f"key {i % 100}"):
                    if i % 3:
                        raise ConnectionResetError(errno.ECONNRESET, "")
            except (ConnectionResetError, hs.BreakerOpen):
                pass

    with Call(look) as looking:
        run_threaded(use, 6)
        done.set()
        looking.result(30)
    stats = made.stats()
    assert stats.permitted == stats.successes + stats.failures
    assert stats.permitted + stats.refused == 6 * 300
    assert stats.keys == 50
    assert max(told) <= 50


def test_a_breaker_goes_when_its_last_permit_does() -> None:
    gc.collect()
    before = _live()["breakers"]
    made = breaker()
    seen = weakref.ref(made)
    permit = made.permit("db")
    del made
    gc.collect()
    assert seen() is None
    assert _live()["breakers"] == before + 1
    permit.record("refused")
    del permit
    gc.collect()
    assert _live()["breakers"] == before


def test_a_connect_keeps_its_breaker_alive() -> None:
    with EchoServer() as echo, hs.connect(echo.address, breaker=hs.Breaker(), timeout=30) as conn:
        conn.sendall(b"hi")
        assert conn.recv_exactly(2, timeout=30) == b"hi"
