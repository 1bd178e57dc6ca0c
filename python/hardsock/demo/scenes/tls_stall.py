"""A TLS client that connects and says nothing, and nineteen that want to be served."""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import hardsock as hs
from hardsock.demo.measure import LIMIT, duration, timed
from hardsock.demo.scene import Bound, Outcome, Scene
from hardsock.lab import Call, run_threaded
from hardsock.lab.certificates import make_certificate
from hardsock.lab.endpoint import Address, connect_to, listen, shut

_OTHERS = 19
_HANDSHAKE_TIMEOUT = 2.0
_PATIENCE = 4.0
_SLACK = 0.25
_WORD = b"served"


@contextlib.contextmanager
def _certificate() -> Iterator[tuple[Path, Path]]:
    with TemporaryDirectory() as directory:
        yield make_certificate(Path(directory))


def _waits(address: Address, certificate: Path) -> list[float]:
    """Nineteen clients at once, written with ssl: how long each of the served ones waited."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(certificate)

    def visit(_index: int) -> float | None:
        with timed() as watch:
            try:
                with (
                    connect_to(address, _PATIENCE) as raw,
                    context.wrap_socket(raw, server_hostname="localhost") as sock,
                ):
                    return watch.seconds if sock.recv(len(_WORD)) == _WORD else None
            except OSError:
                return None

    return [wait for wait in run_threaded(visit, _OTHERS) if wait is not None]


def _text(waits: list[float]) -> str:
    slowest = f", the slowest after {duration(max(waits))}" if waits else ""
    return f"{len(waits)} of {_OTHERS} others served within {_PATIENCE:g} s{slowest}"


def _serve_by_stdlib(listener: ssl.SSLSocket, ended: list[bool]) -> float:
    """Accept, say the word, close; until *ended*. How long the first accept took."""
    first = None
    while not ended:
        with timed() as watch:
            try:
                sock, _peer = listener.accept()
            except OSError:
                sock = None
        first = watch.seconds if first is None else first
        if sock is not None:
            with sock, contextlib.suppress(OSError):
                sock.sendall(_WORD)
    assert first is not None
    return first


def _stdlib() -> Outcome:
    ended: list[bool] = []
    with _certificate() as (certificate, key), listen() as plain:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        with context.wrap_socket(plain, server_side=True) as listener:
            listener.settimeout(_HANDSHAKE_TIMEOUT)
            address = listener.getsockname()
            with Call(_serve_by_stdlib, listener, ended) as serving:
                try:
                    with connect_to(address):
                        waits = _waits(address, certificate)
                finally:
                    ended.append(True)
                    shut(listener)
                blocked = serving.result(LIMIT)
    return Outcome(
        f"{_text(waits)}; accept() blocked for {blocked:.1f} s, "
        f"settimeout({_HANDSHAKE_TIMEOUT:g}) notwithstanding"
    )


def _serve_by_hardsock(listener: hs.Listener) -> None:
    with contextlib.suppress(hs.Closed):
        for conn in listener:
            with conn, contextlib.suppress(hs.HardsockError):
                conn.sendall(_WORD, timeout=_PATIENCE)


def _time_until_cut(silent: socket.socket) -> None:
    silent.settimeout(LIMIT)
    with contextlib.suppress(ConnectionResetError):
        if silent.recv(1) != b"":
            raise AssertionError("the server spoke first")


def _hardsock() -> Outcome:
    with _certificate() as (certificate, key):
        config = hs.TLSConfig(
            role="server",
            certificates=hs.Certificate(chain=certificate, key=key),
            handshake_timeout=_HANDSHAKE_TIMEOUT,
        )
        with (
            hs.listen(("127.0.0.1", 0), tls=config) as listener,
            Call(_serve_by_hardsock, listener),
        ):
            try:
                # From before the server can have seen it: its own clock then cannot be ahead.
                with timed() as watch, connect_to(listener.address) as silent:
                    waits = _waits(listener.address, certificate)
                    _time_until_cut(silent)
                handshakes = listener.stats().handshakes
            finally:
                listener.close()
    assert handshakes is not None
    return Outcome(
        f"{_text(waits)}; the silent one is cut after {watch}, and counted "
        f"({handshakes.failed['timeout']} timeout, {handshakes.completed} completed)",
        {
            "served": len(waits),
            "slowest": max(waits, default=float("inf")),
            "cut": watch.seconds,
            "counted": handshakes.failed["timeout"],
        },
    )


SCENE = Scene(
    name="tls-stall",
    title=f"A TLS client that says nothing, and {_OTHERS} others",
    shows="Handshakes have a deadline, and go on beside the accepting of others.",
    stdlib=_stdlib,
    hardsock=_hardsock,
    bounds=(
        Bound(of="served", at_least=_OTHERS, at_most=_OTHERS),
        Bound(of="slowest", at_most=_HANDSHAKE_TIMEOUT / 2, unit="s"),
        Bound(of="cut", at_least=_HANDSHAKE_TIMEOUT, at_most=_HANDSHAKE_TIMEOUT + _SLACK, unit="s"),
        Bound(of="counted", at_least=1, at_most=1),
    ),
)
