"""Making connections."""

from __future__ import annotations

import time
import warnings
from contextlib import nullcontext

from hardsock import _core
from hardsock._core import Breaker, CancelToken, Connection
from hardsock._defaults import whole_call
from hardsock._dial_limits import DialLimits, dial_queue
from hardsock._dialing import Dialing, dialing
from hardsock._errors import SettingWarning
from hardsock._greenlets import warn_of_greenlets
from hardsock._names import caller, suggests
from hardsock._observed import connects
from hardsock._options import SocketOptions, kernel_settings
from hardsock._records import Resolution, Setting
from hardsock._scope import sleep
from hardsock._typing import TYPE_CHECKING, Literal, NamedTuple
from hardsock.tls.config import TLSConfig, client_config

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from hardsock.connecting.proxies import Proxy

__all__ = ["Address", "connect", "resolve"]

Address = str | tuple[str, int] | tuple[str, int, int] | tuple[str, int, int, int]
"""``"host:port"``, ``"[v6]:port"``, ``"unix:/path"``, ``"unix:@abstract"``, or a tuple as the
``socket`` module has it."""


def warn_of_changes(settings: list[Setting], stacklevel: int) -> None:
    """Name every setting that the kernel silently made into something else."""
    for setting in settings:
        if setting.differs:
            advice = (
                f"; run `hardsock-tune explain {setting.limited_by}`" if setting.limited_by else ""
            )
            warnings.warn(
                f"asked for {setting.name}={setting.asked}, the kernel made it "
                f"{setting.effective}{advice}",
                SettingWarning,
                stacklevel=stacklevel + 1,
            )


def name_in(address: Address | bytes, parameter: str = "address") -> tuple[str, int] | None:
    """The name and port to be looked up, or None when the address is one already."""
    try:
        _core.parse_address(address)  # type: ignore[arg-type]  # bytes, too
    except (TypeError, ValueError) as exc:
        if parameter == "address" or not str(exc).startswith("address"):
            raise
        raise type(exc)(str(exc).replace("address", parameter, 1)) from None
    if isinstance(address, tuple):
        host, port = address[0], address[1]
    elif isinstance(address, bytes) or address.startswith(("unix:", "[", "/")):
        return None
    else:
        host, _, text = address.rpartition(":")
        port = int(text)
    if not host or host.replace(".", "").isdigit() or ":" in host:
        return None
    return host, port


def sources_of(resolution: Resolution, port: int) -> list[tuple[str, int]]:
    """The first address of each family that a source's name has."""
    hosts = [one.rpartition(":")[0].strip("[]") for one in resolution.plan]
    found = [next((h for h in hosts if (":" in h) is v6), None) for v6 in (False, True)]
    return [(host, port) for host in found if host is not None]


class Left:
    """What is left of a timeout when a call has several parts."""

    def __init__(self, timeout: float | None) -> None:
        self._until = None if timeout is None else time.monotonic() + timeout

    def __call__(self) -> float | None:
        """Seconds, not negative; None: no limit."""
        return None if self._until is None else max(0.0, self._until - time.monotonic())


def tls_settings(tls: bool | TLSConfig, server_name: str | None, commit: str) -> dict[str, Any]:
    """What the core's connect takes about TLS; nothing for a plain connection."""
    config = client_config(tls)
    if commit not in ("tcp", "tls"):
        raise ValueError(f"commit must be 'tcp' or 'tls', got {commit!r}")
    if config is None:
        if server_name is not None:
            raise ValueError("server_name has no use without tls")
        if commit == "tls":
            raise ValueError("commit='tls' has no use without tls")
        return {}
    settings: dict[str, Any] = {"tls": config._context}
    if server_name is not None:
        settings["server_name"] = server_name
    if commit == "tls":
        settings["commit_at_tls"] = True
    return settings


def rare_settings(
    source: tuple[str, int] | list[tuple[str, int]] | None,
    family: int,
    attempt_delay: float,
    max_in_flight: int,
    breaker: Breaker | None,
    limits: _core.DialQueue | None = None,
) -> dict[str, Any]:
    """What is not as usual: each keyword that the core has to look at costs a connect its time."""
    settings: dict[str, Any] = {}
    if source is not None:
        settings["source"] = source
    if family != 0:
        settings["family"] = family
    if attempt_delay != 0.25:
        settings["attempt_delay"] = attempt_delay
    if max_in_flight != 6:
        settings["max_in_flight"] = max_in_flight
    if breaker is not None:
        settings["breaker"] = breaker
    if limits is not None:
        settings["limits"] = limits
    return settings


@suggests
def connect(
    address: Address,
    *,
    timeout: float | None = None,
    token: CancelToken | None = None,
    options: SocketOptions | None = None,
    source: tuple[str, int] | None = None,
    family: int = 0,
    attempt_delay: float = 0.25,
    max_in_flight: int = 6,
    tls: bool | TLSConfig = False,
    server_name: str | None = None,
    commit: Literal["tcp", "tls"] = "tcp",
    breaker: Breaker | None = None,
    via: str | None = None,
    proxy_tls: TLSConfig | None = None,
    limits: DialLimits | None = None,
    handshake_tries: int = 1,
    tls_fallback: TLSConfig | None = None,
    tls_breaker: Breaker | None = None,
    insecure_allow_weaker_fallback: bool = False,
) -> Connection:
    """Connect to *address*: name lookup, every address, TLS; one deadline, one token.

    Addresses race as RFC 8305 says (Happy Eyeballs): families alternate, the next attempt starts
    after *attempt_delay* or as soon as one fails, the first to connect wins.

    Args:
        address: See ``Address``.
        timeout: Seconds from now for everything together. ``None``: the token or the ambient
            scope decides; without any the kernel gives up after about two minutes per address.
        token: Cancels the call from any thread, in every phase.
        options: Socket settings; the default notices a dead peer within 45 seconds.
        source: Local ``(address, port)`` to connect from, as ``socket.create_connection`` takes it:
            ``""`` is any address, and a name is looked up, under the same deadline. Port 0 lets the
            kernel choose, late, so that one port can serve connections to many peers
            (IP_BIND_ADDRESS_NO_PORT, ip(7)).
        family: ``AF_INET`` or ``AF_INET6`` to use only that one.
        attempt_delay: Seconds between attempts, at least 0.01 (RFC 8305 section 5).
        max_in_flight: Attempts at the same time; one more calls off the oldest.
        tls: ``True``, or a ``TLSConfig``: the connection is made only when its handshake is.
        server_name: Whose certificate is expected, and asked for (SNI); an address is compared with
            addresses. ``None``: the host of *address*.
        commit: When the race of addresses is won: ``"tcp"`` as RFC 8305 says, or ``"tls"``: an
            address whose handshake fails or stalls loses to the next one.
        breaker: Skips addresses that have kept failing, and learns from what happens now. Share
            one ``Breaker`` between all who connect to the same servers.
        via: A proxy: ``"http://user:password@proxy:3128"`` (CONNECT), ``"https://..."`` (the same
            over TLS; with *tls* it is TLS within TLS), or ``"socks5://..."`` (RFC 1928). It looks
            the target's name up. Everything else of the call (*source*, *options*, *breaker*, the
            race of addresses) is about the way to the proxy; *tls* is with the target.
        proxy_tls: The settings of the TLS with an ``https://`` proxy; ``None``: the system's
            authorities. Never those of *tls*: a proxy is shown no certificate that is for the
            target.
        limits: Waits for a place first, within the deadline. Share one ``DialLimits``.
        handshake_tries: How often to connect, within the deadline, while the handshake is lost: the
            peer resets or ends the connection, or is silent for the TLSConfig's
            ``handshake_timeout``. Nothing of the caller's has been sent by then, so that trying
            again does nothing twice; the server counts one more connection. What a side refuses,
            a certificate or a version, is not tried again.
        tls_fallback: What handshakes use while *tls_breaker* is open for this peer: after handshakes
            with *tls* that one side has refused. As of ``listen``.
        tls_breaker: Decides between them; it must be shared by all who connect, or it learns
            nothing.
        insecure_allow_weaker_fallback: Take a *tls_fallback* that is weaker than *tls*. The one who is
            between can make handshakes fail, and gets it.

    Raises:
        ProxyError: The proxy does not connect to the target. A ``ConnectError``.
        DeadlineExceeded, Cancelled: ``phase`` tells where the time went, ``attempts`` what was
            tried. Nothing is left open; a name lookup that libc will not stop goes on in the
            background and is counted by ``resolver_stats()``.
        ResolveError: The name has no address.
        BreakerOpen: The breaker refused; ``retry_after`` says for how long. A ``ConnectError``.
        ConnectError: No address could be connected.
        TLSError, CertificateError: The handshake failed; the message says of what.
        ValueError, TypeError: A parameter is wrong; the message names it.
    """
    warn_of_greenlets()
    plain = (
        tls_fallback is None
        and tls_breaker is None
        and handshake_tries == 1
        and handshake_tries is not True
        and not insecure_allow_weaker_fallback
    )
    direct = plain and via is None and proxy_tls is None
    if (
        direct
        and limits is None
        and source is None
        and tls is False
        and server_name is None
        and commit == "tcp"
        and breaker is None
        and family == 0
        and attempt_delay == 0.25
        and max_in_flight == 6
    ):
        # The usual call. To go through functions that find nothing to do would cost it a tenth.
        kernel = kernel_settings(options)
        conn = connects.connect(address, timeout=timeout, token=token, sockopts=kernel)
        if conn.changed_settings:
            warn_of_changes(conn.audit(), stacklevel=caller())
        return conn
    rest = (attempt_delay, max_in_flight, breaker, dial_queue(limits))
    if direct:
        return _direct(
            address, tls, server_name, commit, timeout, token, options, source, family, rest
        )
    check_via(via, proxy_tls, commit)
    attempt = _attempts(
        address, server_name, commit, token, options, source, family, rest, via, proxy_tls, limits
    )
    if plain:
        with whole_call(timeout, token) as seconds:
            return attempt(tls, seconds)
    asked = dialing(
        address,
        server_name,
        tls,
        tries=handshake_tries,
        fallback=tls_fallback,
        breaker=tls_breaker,
        allow_weaker=insecure_allow_weaker_fallback,
    )
    with whole_call(timeout, token) as seconds:
        return _with_care(attempt, asked, Left(seconds), token)


def check_via(via: str | None, proxy_tls: TLSConfig | None, commit: str) -> None:
    """Refuse what contradicts itself."""
    if via is not None and commit != "tcp":
        raise ValueError("commit='tls' has no use with via: the proxy decides on the address")
    if via is None and proxy_tls is not None:
        raise ValueError("proxy_tls has no use without via")


def _attempts(
    address: Address,
    server_name: str | None,
    commit: str,
    token: CancelToken | None,
    options: SocketOptions | None,
    source: tuple[str, int] | None,
    family: int,
    rest: tuple[float, int, Breaker | None, _core.DialQueue | None],
    via: str | None,
    proxy_tls: TLSConfig | None,
    limits: DialLimits | None,
) -> Callable[[bool | TLSConfig, float | None], Connection]:
    """One attempt, of which only TLS and the time differ.

    Not within ``connect``: what a function within another uses costs each call of the outer one a
    cell, and the usual call needs none of it.
    """

    def attempt(tls: bool | TLSConfig, timeout: float | None) -> Connection:
        if via is None:
            return _direct(
                address, tls, server_name, commit, timeout, token, options, source, family, rest
            )
        to_proxy = {"options": options, "source": source, "family": family, "breaker": rest[2]}
        rare = {"attempt_delay": rest[0], "max_in_flight": rest[1]}
        left = Left(timeout)
        # Until the tunnel is there, and the target's TLS.
        with nullcontext() if limits is None else limits.place(timeout=left(), token=token):
            return _through(
                via, address, tls, server_name, proxy_tls, left(), token, **to_proxy, **rare
            )

    return attempt


def _with_care(
    attempt: Callable[[bool | TLSConfig, float | None], Connection],
    asked: Dialing,
    left: Left,
    token: CancelToken | None,
) -> Connection:
    while True:
        try:
            conn = attempt(asked.choose(), left())
        except BaseException as exc:
            if (pause := asked.failed(exc, left(), token)) is None:
                raise
            # Here, so that what ends it has the lost handshake as its context.
            sleep(pause, token=token)
        else:
            asked.succeeded()
            return conn


def _direct(
    address: Address,
    tls: bool | TLSConfig,
    server_name: str | None,
    commit: str,
    timeout: float | None,
    token: CancelToken | None,
    options: SocketOptions | None,
    source: tuple[str, int] | None,
    family: int,
    rest: tuple[float, int, Breaker | None, _core.DialQueue | None],
) -> Connection:
    found: list[tuple[str, int]] | None = None
    if source is not None and (name := name_in(source, "source")) is not None:
        left = Left(timeout)
        found = sources_of(
            _core.resolve((name[0], 1), timeout=timeout, token=token, family=family), name[1]
        )
        timeout = left()
    conn = connects.connect(
        address,
        timeout=timeout,
        token=token,
        sockopts=kernel_settings(options),
        **tls_settings(tls, server_name, commit),
        **rare_settings(found or source, family, *rest),
    )
    if conn.changed_settings:
        warn_of_changes(conn.audit(), stacklevel=caller())
    return conn


class Way(NamedTuple):
    """What ``via=`` and the target come to."""

    proxy: Proxy
    proxy_tls: bool | TLSConfig
    host: str
    port: int
    tls: TLSConfig | None
    name: str
    """Of the target's certificate."""


def way_through(
    via: str,
    address: Address,
    tls: bool | TLSConfig,
    server_name: str | None,
    proxy_tls: TLSConfig | None,
) -> Way:
    """Check what ``connect(via=)`` was given."""
    from hardsock.connecting.proxies import parse_via

    proxy = parse_via(via)
    host, port = target_of(address)
    if proxy_tls is not None and proxy.scheme != "https":
        raise ValueError(f"proxy_tls is for an https:// proxy, and via is {proxy}")
    config = client_config(tls)
    if config is None and server_name is not None:
        raise ValueError("server_name has no use without tls")
    secure = proxy.scheme == "https" and (proxy_tls or True)
    return Way(proxy, secure, host, port, config, host if server_name is None else server_name)


def _through(
    via: str,
    address: Address,
    tls: bool | TLSConfig,
    server_name: str | None,
    proxy_tls: TLSConfig | None,
    timeout: float | None,
    token: CancelToken | None,
    **to_proxy: Any,
) -> Connection:
    """``connect(via=)``: to the proxy, through it, and TLS, with one deadline."""
    from hardsock.connecting.proxies import tunnel

    way, left = way_through(via, address, tls, server_name, proxy_tls), Left(timeout)
    proxy = way.proxy
    conn = connect(
        (proxy.host, proxy.port), tls=way.proxy_tls, timeout=left(), token=token, **to_proxy
    )
    try:
        tunnel(conn, proxy, way.host, way.port, lambda: {"timeout": left(), "token": token})
        if way.tls is not None:
            conn.upgrade_to_tls(way.tls, server_name=way.name, timeout=left(), token=token)
    except BaseException:
        conn.abort()
        raise
    return conn


def target_of(address: Address) -> tuple[str, int]:
    """Host and port of what a proxy is to connect to."""
    _core.parse_address(address)
    if isinstance(address, tuple):
        return address[0], address[1]
    if address.startswith(("unix:", "/")):
        raise ValueError(f"address must be a host and a port for via, got {address!r}")
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


@suggests
def resolve(
    address: Address,
    *,
    timeout: float | None = None,
    token: CancelToken | None = None,
    family: int = 0,
) -> Resolution:
    """Look *address* up as ``connect`` would, and return the answers and the order of attempts."""
    warn_of_greenlets()
    return _core.resolve(address, timeout=timeout, token=token, family=family)
