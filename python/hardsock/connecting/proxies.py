"""Connecting through a proxy: HTTP CONNECT (RFC 9110 section 9.3.6) and SOCKS5 (RFC 1928, 1929)."""

from __future__ import annotations

import base64
import ipaddress
import struct
from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote, urlsplit

from hardsock._core import Connection
from hardsock._errors import ProxyError, Truncated

__all__ = ["Proxy", "parse_via", "tunnel", "tunnel_awaited"]

_PORTS = {"http": 80, "https": 443, "socks5": 1080, "socks5h": 1080}
_MAX_HEAD = 65536
_MAX_INTERIM = 16
_REFUSALS = {
    1: "general failure",
    2: "its rules do not allow it",
    3: "network unreachable",
    4: "host unreachable",
    5: "connection refused",
    6: "time to live expired",
    7: "it cannot connect",
    8: "it does not know this kind of address",
}
_NO_METHOD = 0xFF
_USER_PASSWORD = 2


@dataclass(frozen=True)
class Proxy:
    """What ``via=`` says."""

    scheme: str
    host: str
    port: int
    user: str | None = None
    password: str | None = field(default=None, repr=False)

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"  # without the password


def parse_via(via: object) -> Proxy:
    """Read ``"http://user:password@proxy:3128"``; also ``https://`` and ``socks5://``."""
    if not isinstance(via, str):
        raise TypeError(f"via must be a URL, not {type(via).__name__}")
    shown = via.rpartition("@")[2]
    try:
        parts = urlsplit(via)
    except ValueError:  # which shows the password
        raise ValueError(f"via must be a proxy's URL, got {shown!r}") from None
    if parts.scheme not in _PORTS:
        raise ValueError(f"via must begin with http://, https:// or socks5://, got {shown!r}")
    try:
        port = parts.port
    except ValueError:  # which may show a part of the password
        raise ValueError(f"via has no good port: {shown!r}") from None
    if not parts.hostname or parts.path not in ("", "/") or parts.query or parts.fragment:
        raise ValueError(f"via must be a proxy's URL such as http://proxy:3128, got {shown!r}")
    return Proxy(
        parts.scheme,
        parts.hostname,
        _PORTS[parts.scheme] if port is None else port,
        None if parts.username is None else unquote(parts.username),
        None if parts.password is None else unquote(parts.password),
    )


def _refused(proxy: Proxy, target: str, why: str, status: int | None) -> ProxyError:
    exc = ProxyError(None, f"connect: the proxy {proxy} does not connect to {target}: {why}")
    exc.op, exc.phase, exc.host, exc.status = "connect", "proxy", target, status
    return exc


_Steps = Generator[tuple[str, tuple[Any, ...], dict[str, Any]], Any, None]
"""Each step is a call of the connection: a method and its arguments, answered by its result."""


def _next(steps: _Steps, answer: Any) -> tuple[str, tuple[Any, ...], dict[str, Any]] | None:
    """None: there are no more."""
    try:
        return steps.send(answer)
    except StopIteration:
        return None


def _exactly(n: int) -> Generator[tuple[str, tuple[Any, ...], dict[str, Any]], Any, bytes]:
    got: bytes = yield "recv_exactly", (n,), {}
    return got


def _steps(proxy: Proxy, host: str, port: int) -> _Steps:
    target = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    try:
        if proxy.scheme.startswith("socks5"):
            yield from _socks5(proxy, target, (host, port))
        else:
            yield from _http_connect(proxy, target)
    except Truncated as exc:
        raise _refused(proxy, target, f"it has ended the connection ({exc})", None) from exc


def tunnel(conn: Connection, proxy: Proxy, host: str, port: int, limits: Any) -> None:
    """Let *proxy*, at the other end of *conn*, connect to the target; after it *conn* is the tunnel.

    *limits* is called for each step: its ``timeout=`` and ``token=``.
    """
    steps = _steps(proxy, host, port)
    step = next(steps, None)
    while step is not None:
        name, args, options = step
        try:
            answer = getattr(conn, name)(*args, **options, **limits())
        except Exception as exc:
            step = steps.throw(exc)
        else:
            step = _next(steps, answer)


async def tunnel_awaited(conn: Any, proxy: Proxy, host: str, port: int, limits: Any) -> None:
    """The same for an ``aio.Connection``."""
    steps = _steps(proxy, host, port)
    step = next(steps, None)
    while step is not None:
        name, args, options = step
        try:
            answer = await getattr(conn, name)(*args, **options, **limits())
        except Exception as exc:
            step = steps.throw(exc)
        else:
            step = _next(steps, answer)


# ---- HTTP CONNECT


def _http_connect(proxy: Proxy, target: str) -> _Steps:
    head = f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n"
    if proxy.user is not None:
        secret = f"{proxy.user}:{proxy.password or ''}".encode()
        head += f"Proxy-Authorization: Basic {base64.b64encode(secret).decode()}\r\n"
    yield "sendall", (head.encode() + b"\r\n",), {}
    for _ in range(_MAX_INTERIM):
        answer = yield "recv_until", (b"\r\n\r\n",), {"max_size": _MAX_HEAD}
        line = answer.partition(b"\r\n")[0].decode("latin-1")
        version, _, rest = line.partition(" ")
        code = rest[:3]
        if not version.startswith("HTTP/1.") or not (code.isascii() and code.isdigit()):
            raise _refused(proxy, target, f"it does not speak HTTP: {line[:80]!r}", None)
        status = int(code)
        if status >= 200:
            break
    if not 200 <= status < 300:
        raise _refused(proxy, target, f"it said {rest.strip()!r}", status)


# ---- SOCKS5


def _socks5(proxy: Proxy, target: str, address: tuple[str, int]) -> _Steps:
    methods = b"\x00" if proxy.user is None else b"\x00\x02"
    yield "sendall", (bytes([5, len(methods)]) + methods,), {}
    version, method = yield from _exactly(2)
    if version != 5:
        raise _refused(proxy, target, f"it does not speak SOCKS5: version {version}", None)
    if method == _NO_METHOD or (method == _USER_PASSWORD and proxy.user is None):
        raise _refused(proxy, target, "it wants a user and a password, or others", None)
    if method == _USER_PASSWORD:
        yield from _log_in(proxy, target)
    elif method != 0:
        raise _refused(proxy, target, f"it chose the method {method}, which was not offered", None)
    yield "sendall", (b"\x05\x01\x00" + _destination(*address),), {}
    version, reply, _, kind = yield from _exactly(4)
    if reply != 0:
        why = _REFUSALS.get(reply, f"reply {reply}")
        raise _refused(proxy, target, f"it said {why}", reply)
    if kind == 3:
        length = (yield from _exactly(1))[0]
        yield from _exactly(length + 2)
    elif kind in (1, 4):
        yield from _exactly((4 if kind == 1 else 16) + 2)
    else:
        raise _refused(proxy, target, f"it named an address of the kind {kind}", None)


def _log_in(proxy: Proxy, target: str) -> _Steps:
    user, password = (proxy.user or "").encode(), (proxy.password or "").encode()
    if not 1 <= len(user) <= 255 or not 1 <= len(password) <= 255:
        raise ValueError("via: user and password must have 1 to 255 bytes for SOCKS5 (RFC 1929)")
    packet = bytes([1, len(user)]) + user + bytes([len(password)]) + password
    yield "sendall", (packet,), {}
    if (yield from _exactly(2))[1] != 0:
        raise _refused(proxy, target, "user or password are wrong", None)


def _destination(host: str, port: int) -> bytes:
    try:
        literal = ipaddress.ip_address(host)
    except ValueError:
        name = host.encode("idna")
        if not 1 <= len(name) <= 255:
            raise ValueError(f"host must have 1 to 255 bytes, got {host!r}") from None
        return bytes([3, len(name)]) + name + struct.pack("!H", port)
    return bytes([1 if literal.version == 4 else 4]) + literal.packed + struct.pack("!H", port)
