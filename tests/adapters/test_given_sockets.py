"""Libraries that take a connected socket, and need no adapter."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import hardsock as hs
from adapters.endings import causes
from adapters.http_contract import nothing_open, server_context
from hardsock.lab.servers.process import Server, find_program, free_port, running, work_directory
from hardsock.lab.threads import Call
from support.require import need_module, require
from support.tls import Identities

_TIMEOUT = 60.0


# ---- websockets


@pytest.fixture(params=["plain", "tls"])
def echo(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Any, Identities | None]]:
    need_module("websockets")
    from websockets.sync.server import serve

    ids = Identities(tmp_path) if request.param == "tls" else None

    def handler(ws: Any) -> None:
        for message in ws:
            ws.send(message)

    context = None if ids is None else server_context(ids)
    with serve(handler, "127.0.0.1", 0, ssl=context) as server:
        with Call(server.serve_forever) as serving:
            yield server.socket.getsockname(), ids
            server.shutdown()
            serving.result(_TIMEOUT)
    for left in (server.shutdown_watcher, server.shutdown_notifier):
        if isinstance(left, int):  # A pipe, in versions that do not close it.
            os.close(left)


def test_websockets_over_a_connection(echo: tuple[Any, Identities | None]) -> None:
    from websockets.sync.client import connect

    address, ids = echo
    settings: dict[str, Any] = {}
    if ids is not None:
        settings = {"ssl": hs.ssl_context(ca=ids.ca), "server_hostname": "127.0.0.1"}
    scheme = "ws" if ids is None else "wss"
    sock = hs.connect(address, timeout=_TIMEOUT)
    with connect(f"{scheme}://127.0.0.1:{address[1]}/", sock=sock, **settings) as ws:
        for message in ("hello", b"x" * 500_000):
            ws.send(message)
            assert ws.recv(timeout=_TIMEOUT) == message
        assert any(one.how == "connect" for one in hs.open_connections())
    nothing_open()


@pytest.mark.parametrize("echo", ["plain"], indirect=True)  # the same with TLS
def test_ending_the_connection_ends_websockets(
    echo: tuple[Any, Identities | None],
) -> None:
    """Its thread waits for the descriptor, outside of any scope, and finds out by its next ping."""
    from websockets.exceptions import ConnectionClosed
    from websockets.sync.client import connect

    address, _ = echo
    sock = hs.connect(address, timeout=_TIMEOUT)
    with connect(
        f"ws://127.0.0.1:{address[1]}/", sock=sock, close_timeout=1, ping_interval=0.2
    ) as ws:
        ws.send("hello")
        assert ws.recv(timeout=_TIMEOUT) == "hello"
        sock.abort()
        with pytest.raises(ConnectionClosed):
            ws.recv(timeout=_TIMEOUT)
    nothing_open()


# ---- websocket-client


@contextlib.contextmanager
def _websocket(address: Any, ids: Identities | None) -> Iterator[Any]:
    """By the line of docs/adapters-sockets.md: TLS is hardsock's."""
    need_module("websocket")
    import websocket

    tls: Any = False if ids is None else ids.client()
    sock = hs.connect(address, tls=tls, timeout=_TIMEOUT)
    assert (sock.tls is None) == (ids is None)
    url = "{}://{}:{}/".format("ws" if ids is None else "wss", *address)
    ws = websocket.create_connection(url, socket=sock)
    try:
        yield ws
    finally:
        ws.shutdown()


def test_websocket_client_over_a_connection(echo: tuple[Any, Identities | None]) -> None:
    with hs.timeout(_TIMEOUT), _websocket(*echo) as ws:
        for message in ("hello", "x" * 500_000):
            ws.send(message)
            assert ws.recv() == message
        (found,) = (one for one in hs.open_connections() if one.how == "connect")
        assert found.site.function == "_websocket"
        ws.close(timeout=_TIMEOUT)
    nothing_open()


@pytest.mark.parametrize("end", ["scope", "cancel"])
def test_what_websocket_client_waits_for_ends(
    echo: tuple[Any, Identities | None], end: str
) -> None:
    token = hs.CancelToken()
    with hs.timeout(_TIMEOUT), _websocket(*echo) as ws:
        ws.send("hello")
        assert ws.recv() == "hello"

        def wait() -> None:
            with hs.scope(token):
                ws.recv()

        with Call(wait) as waiting:
            waiting.wait_until_blocked()
            if end == "cancel":
                token.cancel("stop button")
            else:
                token.set_timeout(0.01)
            with pytest.raises(Exception) as ended:
                waiting.result(_TIMEOUT)
        found = [type(one) for one in causes(ended.value)]
        assert (hs.Cancelled if end == "cancel" else hs.DeadlineExceeded) in found, found
        del ended
    nothing_open()


# ---- paramiko


@pytest.fixture(scope="module")
def sshd() -> Iterator[tuple[Server, Path]]:
    """OpenSSH's server, and the private key that it lets in."""
    program = require_program("sshd")
    with work_directory() as directory:
        for name in ("host", "mine"):
            subprocess.run(
                [
                    find_program("ssh-keygen"),
                    "-q",
                    "-t",
                    "ed25519",
                    "-N",
                    "",
                    "-f",
                    directory / name,
                ],
                check=True,
                timeout=60,
            )
        (directory / "allowed").write_text((directory / "mine.pub").read_text())
        port = free_port()
        (directory / "config").write_text(
            f"Port {port}\nListenAddress 127.0.0.1\nHostKey {directory}/host\nUsePAM no\n"
            f"AuthorizedKeysFile {directory}/allowed\nStrictModes no\nPidFile none\n"
            f"Subsystem sftp internal-sftp\n"
        )
        Path("/run/sshd").mkdir(exist_ok=True)
        argv = [program, "-D", "-e", "-f", str(directory / "config")]
        with running("sshd", argv, port, directory) as server:
            yield server, directory / "mine"


def require_program(name: str) -> str:
    """Its path, or the test is skipped."""
    from contextlib import contextmanager

    @contextmanager
    def found() -> Iterator[str]:
        yield find_program(name)

    with require(found()) as program:
        return program


def test_paramiko_over_a_connection(sshd: tuple[Server, Path], tmp_path: Path) -> None:
    need_module("paramiko")
    import getpass

    import paramiko

    server, key = sshd
    with paramiko.SSHClient() as client:
        client.set_missing_host_key_policy(paramiko.AutoAddPolicy())
        client.connect(
            "127.0.0.1",
            username=getpass.getuser(),
            key_filename=str(key),
            look_for_keys=False,
            allow_agent=False,
            timeout=_TIMEOUT,
            sock=hs.connect(server.address, timeout=_TIMEOUT),
        )
        _, output, _ = client.exec_command("echo over hardsock")
        assert output.read() == b"over hardsock\n"
        with client.open_sftp() as files, open(sys.executable, "rb") as own:
            files.putfo(own, str(tmp_path / "copy"))
        assert (tmp_path / "copy").read_bytes() == Path(sys.executable).read_bytes()
        (found,) = (one for one in hs.open_connections() if one.how == "connect")
        assert found.site.function == "test_paramiko_over_a_connection"
    nothing_open()
