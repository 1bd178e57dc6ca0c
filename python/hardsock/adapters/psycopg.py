"""psycopg 3 under hardsock's deadlines: the query is cancelled, the connection stays usable.

    import hardsock.adapters.psycopg

    with hardsock.adapters.psycopg.connect("host=db dbname=orders", autocommit=True) as conn:
        with hardsock.timeout(1.0):
            conn.execute("select ...")

libpq owns the socket, so hardsock neither reads nor closes it: it does the name lookup, every wait,
and what comes after. A scope covers the lookup, connecting, TLS, each statement and its rows, and
the wait for a connection of ``ConnectionPool``. When it ends, the server is asked to stop the
statement, for at most two seconds in all; then the connection can be used again, or, if the server did
not answer, is closed: half an answer is never left.

At the deadline ``psycopg.errors.QueryCanceled`` (a statement), ``ConnectionTimeout`` (connecting) or
``psycopg_pool.PoolTimeout``, caused by ``hardsock.DeadlineExceeded``. After a cancel, from any
thread: ``hardsock.Cancelled``. The descriptor is named in ``hardsock.fd_snapshot()``.

Lost: the ledger, hardsock's TLS and its honest endings, since libpq does the I/O; ``COPY`` and
server-side cursors end, too, but a statement in pipeline mode takes its pipeline with it. Without a
scope it is as ever.

Tested with psycopg 3.2 to 3.3, psycopg_pool 3.2 to 3.3. What is not public there and used here:
``Connection._connect_gen``, ``_start_query``, ``generators.copy_from``,
``conninfo.timeout_from_conninfo``, ``errors._WaitTimeout``, ``ConnectionPool._waiting``,
``_getconn_with_check_loop``, ``_getconn_unchecked``,
``_check_connection`` and ``_putconn``.
"""

from __future__ import annotations

import collections
import contextlib
import os
import select
import threading
import time
from collections.abc import Generator
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import psycopg
from psycopg import errors
from psycopg.conninfo import conninfo_to_dict, make_conninfo, timeout_from_conninfo
from psycopg.generators import copy_from
from psycopg.pq import TransactionStatus

from hardsock._core import CancelToken, scope
from hardsock._errors import DeadlineExceeded, HardsockError, ResolveError
from hardsock._scope import current, remaining, shield, sleep
from hardsock.adapters._dial import checked_limits
from hardsock.adapters._versions import check
from hardsock.connecting.connect import resolve
from hardsock.leaks.notes import note

__all__ = ["Connection", "ConnectionPool", "connect"]

check("psycopg", version("psycopg"), "3.2", "3.3")

_ambient = scope.get  # For each statement: `current` is a call more.
_WaitTimeout: type[Exception] = getattr(errors, "_WaitTimeout", TimeoutError)  # 3.2 has none
_SETTINGS = ("autocommit", "prepare_threshold", "context", "row_factory", "cursor_factory")
"""Parameters of ``connect`` that are no libpq's."""
_INTERVAL = 0.1
"""psycopg's own."""
_ASK = 0.5
"""Seconds to ask the server to stop."""
_PATIENCE = (0.1, 0.4, 0.5)
"""Seconds for its answer. It is asked again, since a server that has not begun with the statement yet
has nothing to stop and forgets that it was asked (PostgreSQL, "Canceling Requests in Progress")."""

_IN_ALL = 2.0
"""Seconds for all of that, and for the rollback of a connection that did not pass its pool's check."""

_FIRST_PAUSE = 1.0
"""Seconds before psycopg_pool asks for another connection after one that was bad; then twice that."""


# ---- Waiting


def _drive(
    gen: Any, token: CancelToken, fd: int | None, interval: float, until: float | None = None
) -> Any:
    """Run a generator of psycopg to its end; raise what ended *token* before that.

    Args:
        fd: The descriptor that it waits for; ``None``: it says so itself each time (connecting).
        interval: Seconds after which it is told that nothing is ready, which some count on.
        until: When ``_WaitTimeout`` is due, as ``time.monotonic()`` tells time.
    """
    number: Any = fd
    wait_for = token._wait_for
    try:
        events = next(gen)
        while True:
            if fd is None:
                number, events = events
            got = wait_for(number, _WANTED[events], interval)
            if got == 0:  # So it is where the token has ended, whatever is ready.
                token.check()
            events = gen.send(_READY.get(got, events))  # What has failed is ready for all.
            if until is not None and time.monotonic() >= until:
                raise _WaitTimeout("wait timeout expired")
    except StopIteration as ex:
        return ex.value


# Up to 3.2 a transaction block that fails to begin is left as it stands, also in a transaction.
_KEEPS_BEGIN = not hasattr(psycopg.Transaction, "Status")

# By psycopg's R and W, which are 1 and 2; and theirs by what poll(2) says.
_WANTED = (0, select.POLLIN, select.POLLOUT, select.POLLIN | select.POLLOUT)
_READY = {events: ready for ready, events in enumerate(_WANTED)}


# ---- Names


def _list(params: dict[str, Any], name: str, variable: str) -> list[str]:
    given = params.get(name) or os.environ.get(variable) or ""
    return str(given).split(",")


def _with_addresses(params: dict[str, Any], seconds: float) -> dict[str, Any]:
    """*params* with ``hostaddr``, so that libpq, which would block, looks nothing up.

    All lookups together take *seconds* at most.
    """
    until = time.monotonic() + seconds
    hosts = _list(params, "host", "PGHOST")
    if params.get("hostaddr") or os.environ.get("PGHOSTADDR") or params.get("service"):
        return params
    if not any(one and not one.startswith(("/", "@")) for one in hosts):
        return params
    ports = _list(params, "port", "PGPORT")
    rows: list[tuple[str, str, str]] = []
    for number, host in enumerate(hosts):
        port = ports[number] if len(ports) > 1 else ports[0]
        if not host or host.startswith(("/", "@")):
            rows.append((host, port, ""))
            continue
        left = max(0.0, until - time.monotonic())
        plan = resolve((host, int(port or 5432)), timeout=left).plan
        rows += [(host, port, one.rpartition(":")[0].strip("[]")) for one in plan]
    names = ("host", "port", "hostaddr")
    columns = (",".join(column) for column in zip(*rows, strict=True))
    return {**params, **dict(zip(names, columns, strict=True))}


# ---- Connections


class Connection(psycopg.Connection[Any]):
    """``psycopg.Connection`` whose waits end with the ambient scope."""

    @classmethod
    def connect(cls, conninfo: str = "", **kwargs: Any) -> Any:
        """As psycopg has it; the lookup and every wait end with the scope.

        *dial_limits*: as of ``hardsock.connect(limits=)``; its place is held until it has logged in.
        The wait for a place, and the lookup, take ``connect_timeout`` seconds each at most, as each
        attempt does (psycopg's default: 130).

        Raises ConnectionTimeout at the deadline, OperationalError for what psycopg calls so, and
        ``hardsock.Cancelled``.
        """
        limits = checked_limits(kwargs.pop("dial_limits", None))
        ours = {name: kwargs.pop(name) for name in _SETTINGS if name in kwargs}
        params = conninfo_to_dict(conninfo, **kwargs)
        seconds = timeout_from_conninfo(params)
        try:
            with contextlib.nullcontext() if limits is None else limits.place(timeout=seconds):
                return cls._connect(params, seconds, ours)
        except ResolveError as exc:
            raise psycopg.OperationalError(str(exc)) from exc
        except DeadlineExceeded as exc:
            raise errors.ConnectionTimeout(str(exc)) from exc

    @classmethod
    def _connect(cls, params: dict[str, Any], seconds: float, settings: dict[str, Any]) -> Any:
        conn = super().connect(make_conninfo("", **_with_addresses(params, seconds)), **settings)
        info = conn.info
        note(conn.pgconn.socket, f"libpq {info.host}:{info.port}/{info.dbname}")
        return conn

    @classmethod
    def _connect_gen(cls, *args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        gen = super()._connect_gen(*args, **kwargs)
        token = current()
        if token is None:
            return (yield from gen)
        try:  # It waits by itself, and so never asks its caller to.
            return _drive(gen, token, None, _INTERVAL)
        except DeadlineExceeded as exc:
            raise errors.ConnectionTimeout(str(exc)) from exc
        finally:
            gen.close()

    def _start_query(self) -> Generator[Any, Any, Any]:
        """As psycopg has it; under a scope that has ended nothing is begun, but for a rollback or commit."""
        token = _ambient()
        if token is not None:
            token.check()
        return super()._start_query()

    def wait(self, gen: Any, interval: float = _INTERVAL, timeout: float | None = None) -> Any:
        """As psycopg has it; at the end of the scope the statement is cancelled in the server."""
        token = _ambient()
        if token is None:
            limit = {} if timeout is None else {"timeout": timeout}  # 3.2 has no such parameter
            return super().wait(gen, interval=interval, **limit)
        until = None if timeout is None else time.monotonic() + timeout
        begins = _KEEPS_BEGIN and self.pgconn.transaction_status == TransactionStatus.IDLE
        try:
            return _drive(gen, token, self.pgconn.socket, interval, until)
        except HardsockError as why:
            with shield(_IN_ALL) as token:
                self._give_up(gen, token)
                if begins and self.autocommit:
                    self._leave_block(token)
            if isinstance(why, DeadlineExceeded):
                raise errors.QueryCanceled(f"cancelled: {why}") from why
            raise

    def _give_up(self, gen: Any, token: CancelToken) -> None:
        """Ask the server to stop; without an answer the connection is in no state to be used."""
        if self.pgconn.transaction_status != TransactionStatus.ACTIVE:
            gen.close()
            return
        try:
            for wait in _PATIENCE:
                self._ask_to_stop()
                with contextlib.suppress(_WaitTimeout):
                    until = time.monotonic() + wait
                    _drive(gen, token, self.pgconn.socket, wait, until)
                    # It was over, or is a COPY that has begun and that nobody is going to read.
                    while self.pgconn.transaction_status == TransactionStatus.ACTIVE:
                        rest = copy_from(self.pgconn)
                        _drive(rest, token, self.pgconn.socket, wait, until)
                    return
            self.pgconn.finish()
        except errors.QueryCanceled:
            return
        except BaseException as exc:
            self.pgconn.finish()
            if not isinstance(exc, Exception):
                raise

    def _leave_block(self, token: CancelToken) -> None:
        """Of a block whose BEGIN has come through, and which nobody is in."""
        if self.pgconn.transaction_status != TransactionStatus.INTRANS:
            return
        try:
            _drive(self._exec_command(b"ROLLBACK"), token, self.pgconn.socket, _INTERVAL)
        except BaseException as exc:
            self.pgconn.finish()
            if not isinstance(exc, Exception):
                raise

    def _ask_to_stop(self) -> None:
        if psycopg.capabilities.has_cancel_safe():
            self.cancel_safe(timeout=_ASK)
        else:  # That of an older libpq blocks without a limit.
            threading.Thread(target=self._cancel_quietly, daemon=True).start()

    def _cancel_quietly(self) -> None:
        with contextlib.suppress(Exception):
            self.cancel()


def connect(conninfo: str = "", **kwargs: Any) -> Any:
    """Make a connection as ``psycopg.connect`` does; see ``Connection``."""
    return Connection.connect(conninfo, **kwargs)


# ---- The pool


class _Waiting(collections.deque):  # type: ignore[type-arg]
    """The pool's queue; it tells a thread under a scope where in it the thread stands."""

    def __init__(self) -> None:
        super().__init__()
        self.local = threading.local()

    def append(self, place: Any, /) -> None:
        super().append(place)
        stand = getattr(self.local, "stand", None)
        if stand is not None:
            stand.take(place)


class _Stand:
    """A caller of ``getconn`` in the queue, who is to leave it when *token* ends."""

    def __init__(self, token: CancelToken) -> None:
        self._token = token
        self._place: Any = None

    def take(self, place: Any) -> None:
        self._place = place
        self.leave_if_ended()

    def leave_if_ended(self) -> None:
        """Also called by the one who ends the token; both may come, and the first one counts."""
        place = self._place
        if place is not None and self._token.wait(0):
            try:
                self._token.check()
            except HardsockError as exc:
                place.fail(exc)


def _pool_class() -> Any:
    """``psycopg_pool`` is a package of its own, so that it may be missing."""
    try:
        found = version("psycopg_pool")
    except PackageNotFoundError:
        return None
    check("psycopg_pool", found, "3.2", "3.3")
    import psycopg_pool

    class ConnectionPool(psycopg_pool.ConnectionPool):
        """``psycopg_pool.ConnectionPool`` of this module's connections; its queue ends, too."""

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            kwargs.setdefault("connection_class", Connection)
            wants_open = kwargs.pop("open", True)
            super().__init__(*args, open=False, **kwargs)
            self._waiting = self._line = _Waiting()
            if wants_open or wants_open is None:
                self.open()

        def getconn(self, timeout: float | None = None) -> Any:
            """As psycopg_pool has it, at most until the scope ends."""
            token = current()
            if token is None:
                return super().getconn(timeout)
            stand = _Stand(token)
            callback = token.on_cancel(stand.leave_if_ended)
            self._line.local.stand = stand
            try:
                token.check()
                return super().getconn(remaining(self.timeout if timeout is None else timeout))
            except DeadlineExceeded as exc:
                raise psycopg_pool.PoolTimeout(f"couldn't get a connection: {exc}") from exc
            except psycopg_pool.PoolTimeout as exc:
                raise _explained(exc, token) from exc.__cause__
            finally:
                self._line.local.stand = None
                callback.remove()

        def _getconn_with_check_loop(self, deadline: float) -> Any:
            """As psycopg_pool has it; but a scope ends its pauses, and is no connection that is bad."""
            token = current()
            if token is None:
                return super()._getconn_with_check_loop(deadline)
            pause = _FIRST_PAUSE
            while True:
                conn = self._getconn_unchecked(deadline - time.monotonic())
                try:
                    self._check_connection(conn)
                    return conn
                except BaseException as exc:
                    with shield(_IN_ALL):  # for its rollback
                        self._putconn(conn, from_getconn=True)
                    if not isinstance(exc, Exception):
                        raise
                    token.check()
                left = deadline - time.monotonic()
                if left <= 0:
                    raise psycopg_pool.PoolTimeout("no connection that passed its check in time")
                sleep(min(pause, left))
                pause *= 2

    return ConnectionPool


def _explained(exc: Exception, token: CancelToken) -> Exception:
    """The same; caused by the scope, if its time is up."""
    try:
        token.check()
    except DeadlineExceeded as why:
        exc.__cause__ = why
    except HardsockError as why:
        return why
    return exc


ConnectionPool = _pool_class()
