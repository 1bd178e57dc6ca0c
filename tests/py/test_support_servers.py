"""Self tests of support.servers, support.pki and support.require."""

from __future__ import annotations

import os
import shutil
import socket
import ssl
import struct
from pathlib import Path

import pytest

from support.echo import EchoServer
from support.pki import Authority, make_authority
from support.require import available, require
from support.servers import (
    ServerFailed,
    haproxy,
    http_server,
    nginx,
    openssl_s_server,
    postgres,
    redis_server,
    stunnel,
)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    with available():
        return make_authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def certificate(authority: Authority) -> tuple[Path, Path]:
    return authority.issue()


@pytest.fixture
def client(authority: Authority) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(authority.certificate))


def connect(address: tuple[str, int]) -> socket.socket:
    return socket.create_connection(address, timeout=10.0)


def http_get(sock: socket.socket, path: str) -> bytes:
    sock.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    answer = b""
    while data := sock.recv(65536):
        answer += data
    return answer


def test_nginx_serves_files_plain_and_chunked() -> None:
    with require(nginx()) as server:
        with connect(server.address) as sock:
            assert http_get(sock, "/hello.txt").endswith(b"\r\n\r\nhello\n")
        with connect(server.address) as sock:
            answer = http_get(sock, "/chunked/hello.txt")
            assert b"Transfer-Encoding: chunked" in answer
            assert answer.endswith(b"hello\n\r\n0\r\n\r\n")


def test_nginx_speaks_tls(certificate: tuple[Path, Path], client: ssl.SSLContext) -> None:
    with require(nginx({"a": b"secret"}, certificate=certificate)) as server:
        with client.wrap_socket(connect(server.address), server_hostname="localhost") as sock:
            assert http_get(sock, "/a").endswith(b"secret")


def test_http_server_serves_files() -> None:
    with require(http_server()) as server:
        with connect(server.address) as sock:
            assert http_get(sock, "/hello.txt").endswith(b"hello\n")
        assert "GET /hello.txt" in server.log()


def test_redis_answers() -> None:
    with require(redis_server()) as server:
        with connect(server.address) as sock:
            sock.sendall(b"PING\r\n")
            assert b"+PONG\r\n" == sock.recv(100)


def test_postgres_lets_us_in() -> None:
    with require(postgres(max_connections="5")) as server:
        with connect(server.address) as sock:
            start = struct.pack("!I", 196608) + b"user\0postgres\0\0"
            sock.sendall(struct.pack("!I", len(start) + 4) + start)
            assert b"R\0\0\0\x08\0\0\0\0" == sock.recv(9, socket.MSG_WAITALL)


def test_haproxy_announces_the_client_to_its_backend() -> None:
    with EchoServer() as backend:
        assert not isinstance(backend.address, str)
        with require(haproxy(backend.address, send_proxy="send-proxy")) as server:
            with connect(server.address) as sock:
                sock.sendall(b"hello")
                assert b"PROXY TCP4 127.0.0.1" == sock.recv(20, socket.MSG_WAITALL)


def test_haproxy_takes_tls_off(certificate: tuple[Path, Path], client: ssl.SSLContext) -> None:
    with EchoServer() as backend:
        assert not isinstance(backend.address, str)
        with require(haproxy(backend.address, certificate=certificate)) as server:
            with client.wrap_socket(connect(server.address), server_hostname="localhost") as sock:
                sock.sendall(b"hello")
                assert b"hello" == sock.recv(5)


def test_stunnel_takes_tls_off(certificate: tuple[Path, Path], client: ssl.SSLContext) -> None:
    with EchoServer() as backend:
        assert not isinstance(backend.address, str)
        with require(stunnel(backend.address, certificate)) as server:
            with client.wrap_socket(connect(server.address), server_hostname="localhost") as sock:
                sock.sendall(b"hello")
                assert b"hello" == sock.recv(5)


def test_s_server_reverses_lines(certificate: tuple[Path, Path], client: ssl.SSLContext) -> None:
    with require(openssl_s_server(certificate, ["-tls1_2"])) as server:
        with client.wrap_socket(connect(server.address), server_hostname="localhost") as sock:
            assert "TLSv1.2" == sock.version()
            sock.sendall(b"abc\n")
            assert b"cba\n" == sock.recv(100)


def test_server_is_gone_after_the_block() -> None:
    with require(http_server()) as server:
        pass

    with pytest.raises(ProcessLookupError):
        os.kill(server.pid, 0)
    assert not server.directory.exists()


def test_server_that_ends_at_once_fails_with_its_log() -> None:
    # redis 8.0 calls a directive that it does not know "unresolved"; it may be a module's.
    said = r"(?s)ended at once.*(Bad directive|FATAL CONFIG|Unresolved Configuration)"
    with pytest.raises(ServerFailed, match=said):
        with require(redis_server("--no-such-option", "1")):
            pass


def test_certificate_for_another_name_is_not_trusted(
    authority: Authority, client: ssl.SSLContext
) -> None:
    certificate = authority.issue(["elsewhere.test"], file="elsewhere")
    with require(openssl_s_server(certificate)) as server:
        with connect(server.address) as sock:
            with pytest.raises(ssl.SSLCertVerificationError, match=r"doesn't match|mismatch"):
                client.wrap_socket(sock, server_hostname="localhost")


def test_missing_program_skips(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)
    hide_programs(monkeypatch)
    with pytest.raises(pytest.skip.Exception, match="nginx is not installed"):
        with require(nginx()):
            pass


def test_missing_program_fails_under_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    hide_programs(monkeypatch)
    with pytest.raises(pytest.fail.Exception, match="CI must provide this"):
        with require(nginx()):
            pass


def hide_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda *_args, **_kwargs: None)
