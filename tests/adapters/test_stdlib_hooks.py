"""A CPython without a hook that an adapter hangs on is refused, never a plain socket in silence."""

from __future__ import annotations

import ftplib
import functools
import http.client
import imaplib
import importlib.util
import platform
import poplib
import smtplib
import sys
import urllib.request
import warnings
import xmlrpc.client
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import hardsock.adapters
from hardsock.__main__ import main

MODULES = ("ftplib", "http", "imaplib", "poplib", "smtplib")


def _imported(name: str) -> Any:
    """The adapter as an import makes it; the one that others have stays as it is."""
    path = Path(hardsock.adapters.__file__).with_name(f"{name}.py")
    spec = importlib.util.spec_from_file_location(f"fresh_{name}", path)
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = made
    try:
        spec.loader.exec_module(made)
    finally:
        del sys.modules[spec.name]
    return made


HOOKS = [
    ("ftplib", ftplib.FTP, "connect"),
    ("ftplib", ftplib.FTP, "ntransfercmd"),
    ("http", urllib.request.HTTPHandler, "http_open"),
    ("http", urllib.request.HTTPSHandler, "https_open"),
    ("http", xmlrpc.client.Transport, "make_connection"),
    ("imaplib", imaplib.IMAP4, "_create_socket"),
    ("poplib", poplib.POP3, "_create_socket"),
    ("smtplib", smtplib.SMTP, "_get_socket"),
]
"""Of each adapter: the methods that it overrides and that connect."""


@pytest.mark.parametrize("name", MODULES)
def test_this_python_has_them_all(name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert _imported(name).__all__


@pytest.mark.parametrize(("name", "owner", "hook"), HOOKS)
def test_a_hook_that_is_gone_is_an_import_error(
    name: str, owner: type, hook: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(owner, hook)
    with pytest.raises(ImportError, match=rf"{owner.__qualname__} .*has no {hook}\(\).*3\.10 to"):
        _imported(name)


@pytest.mark.parametrize(("name", "owner", "hook"), HOOKS)
def test_a_hook_of_another_signature_is_an_import_error(
    name: str, owner: type, hook: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(owner, hook, lambda self, a, b, c, d, e: pytest.fail("it was called"))
    with pytest.raises(ImportError, match=rf"has {hook}\(self, a, b, c, d, e\), not one of \d"):
        _imported(name)


def _of_the_library(owner: type, function: Callable[..., Any]) -> Any:
    function.__module__ = owner.__module__
    return function


@pytest.mark.parametrize(
    ("name", "owner", "caller", "hook"),
    [
        ("ftplib", ftplib.FTP, "__init__", "connect"),
        ("ftplib", ftplib.FTP, "transfercmd", "ntransfercmd"),
        ("ftplib", ftplib.FTP_TLS, "prot_p", "_prot_p"),
        ("http", http.client.HTTPConnection, "connect", "_create_connection"),
        ("http", xmlrpc.client.Transport, "send_request", "make_connection"),
        ("http", xmlrpc.client.Transport, "make_connection", "_extra_headers"),
        ("http", xmlrpc.client.Transport, "close", "_connection"),
        ("imaplib", imaplib.IMAP4, "open", "_create_socket"),
        ("poplib", poplib.POP3, "__init__", "_create_socket"),
        ("smtplib", smtplib.SMTP, "connect", "_get_socket"),
    ],
)
def test_a_hook_that_is_no_more_used_is_an_import_error(
    name: str, owner: type, caller: str, hook: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(owner, caller, _of_the_library(owner, lambda self, *a, **k: None))
    with pytest.raises(ImportError, match=rf"not use {hook} in {caller}\(\)|sets no {hook}"):
        _imported(name)


@pytest.mark.parametrize(
    ("kind", "hook"),
    [(http.client.HTTPConnection, "_create_connection"), (xmlrpc.client.Transport, "_connection")],
)
def test_an_attribute_that_is_gone_is_an_import_error(
    kind: Any, hook: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin = kind.__init__

    def without(self: Any, *args: Any, **kwargs: Any) -> None:
        begin(self, *args, **kwargs)
        vars(self).pop(hook, None)

    monkeypatch.setattr(kind, "__init__", without)
    monkeypatch.delattr(kind, hook, raising=False)
    with pytest.raises(ImportError, match=f"{kind.__qualname__} .*sets no {hook}"):
        _imported("http")


def test_who_wraps_the_library_is_not_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tracing puts its own in the place of the callers, and of the hooks."""
    connect, get_socket = smtplib.SMTP.connect, smtplib.SMTP._get_socket  # type: ignore[attr-defined]

    @functools.wraps(connect)
    def traced(*args: Any, **kwargs: Any) -> Any:
        return connect(*args, **kwargs)

    monkeypatch.setattr(smtplib.SMTP, "connect", traced)
    monkeypatch.setattr(smtplib.SMTP, "_get_socket", lambda *a, **k: get_socket(*a, **k))
    assert _imported("smtplib").SMTP
    monkeypatch.setattr(smtplib.SMTP, "connect", lambda *a, **k: connect(*a, **k))
    assert _imported("smtplib").SMTP


@pytest.mark.parametrize("name", MODULES)
def test_a_python_that_was_not_tested_is_warned_of(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(platform, "python_version", lambda: "3.99.0")
    with pytest.warns(
        hardsock.adapters.UntestedVersionWarning, match=r"3\.99\.0: .*3\.10 to 3\.14"
    ):
        _imported(name)
    assert main(["explain", "--adapters"]) == 0
    assert "  beware  tested with CPython 3.10 to 3.14 only\n" in capsys.readouterr().out
