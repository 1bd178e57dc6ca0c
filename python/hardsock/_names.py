"""What to say about a parameter that there is not: what may have been meant."""

from __future__ import annotations

import functools
import os
import sys

from hardsock._typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, ParamSpec, TypeVar

    _P = ParamSpec("_P")
    _T = TypeVar("_T")

__all__ = ["advice", "caller", "names_checked", "suggests"]

_PACKAGE = os.path.dirname(__file__) + os.sep

_ELSEWHERE = {  # as ssl, urllib3, redis-py, asyncpg, concurrent.futures and others say it
    "cafile": ("ca",),
    "capath": ("ca",),
    "ca_certs": ("ca",),
    "certfile": ("certificates",),
    "keyfile": ("certificates",),
    "check_hostname": ("insecure_skip_hostname",),
    "connect_timeout": ("dial_timeout", "timeout"),
    "deadline": ("timeout",),
    "host": ("address",),
    "hostname": ("server_name", "address"),
    "limit": ("max_size",),
    "local_addr": ("source",),
    "max_connections": ("max_size",),
    "max_workers": ("workers", "max_handlers", "max_connections"),
    "minsize": ("min_idle",),
    "min_size": ("min_idle",),
    "port": ("address",),
    "server_hostname": ("server_name",),
    "size": ("width", "max_size"),
    "source_address": ("source",),
    "ssl": ("tls",),
    "ssl_context": ("tls",),
    "tcp_nodelay": ("nodelay",),
    "verify": ("insecure_skip_verify",),
}


def advice(name: str, names: Sequence[str]) -> str:
    """The end of a message: the parameter that *name* may stand for, or all that there are."""
    import difflib  # here: only who has made a mistake pays for it

    public = [one for one in names if not one.startswith("_")]
    known = [one for one in _ELSEWHERE.get(name.lower(), ()) if one in public]
    plain = {one.replace("_", ""): one for one in public}
    close = difflib.get_close_matches(name.lower().replace("_", ""), plain, n=1)
    if known or close:
        return f"; did you mean '{known[0] if known else plain[close[0]]}'?"
    return f"; it takes {', '.join(public)}" if public else "; it takes none"


def _better(function: Callable[..., Any], args: tuple[Any, ...], exc: TypeError) -> str | None:
    import inspect
    import re

    parameters = inspect.signature(function).parameters.values()
    found = re.search(r"unexpected keyword argument '(\w+)'", str(exc))
    if found is not None:
        by_name = [
            p.name for p in parameters if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)
        ]
        said = str(exc).partition(". Did you mean")[0]  # what CPython says from 3.13 on
        return said + advice(found[1], [one for one in by_name if one != "self"])
    positional = [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
    host_and_port = args[-2:]
    if (
        "positional argument" in str(exc)
        and positional[-1:] == ["address"]
        and len(args) == len(positional) + 1
        and isinstance(host_and_port[0], str)
        and isinstance(host_and_port[1], (str, int))
    ):
        host, port = host_and_port
        return f"{exc}; an address is one argument: ({host!r}, {int(port) if str(port).isdigit() else port!r})"
    return None


def suggests(function: Callable[_P, _T]) -> Callable[_P, _T]:
    """Make a call of *function* with a misspelt parameter say what may have been meant.

    It adds a frame between caller and function: warnings below it find theirs with ``caller()``.
    """

    @functools.wraps(function)
    def call(*args: _P.args, **kwargs: _P.kwargs) -> _T:
        try:
            return function(*args, **kwargs)
        except TypeError as exc:
            inside = exc.__traceback__ is not None and exc.__traceback__.tb_next is not None
            better = None if inside else _better(function, args, exc)
            if better is None:
                raise
            raise TypeError(better) from None

    return call


def names_checked(cls: type[_T]) -> type[_T]:
    """The same for a class of settings."""
    cls.__init__ = suggests(cls.__init__)  # type: ignore[method-assign]
    return cls


def caller() -> int:
    """The stacklevel for a warning by who asks: the innermost frame outside of this package."""
    frame, level = sys._getframe(1), 1
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_PACKAGE):
        frame, level = frame.f_back, level + 1
    return level
