"""Self tests of hardsock.lab.peers and support.echo."""

from __future__ import annotations

import contextlib
import socket
import ssl
from pathlib import Path
from typing import Any

import pytest

from hardsock.lab.endpoint import connect_to
from hardsock.lab.peers import PeerFailure, PeerScript
from hardsock.lab.waits import poll_until
from support.echo import EchoServer, SinkServer
from support.pki import make_authority
from support.require import available


def read_all(sock: socket.socket) -> bytes:
    data = b""
    while chunk := sock.recv(4096):
        data += chunk
    return data


@pytest.mark.parametrize("where", ["127.0.0.1", "::1", "unix"])
def test_script_is_played(where: str, tmp_path: Path) -> None:
    place: dict[str, Any] = {"path": str(tmp_path / "s")} if where == "unix" else {"host": where}
    steps = [("recv", 5), ("send", b"abc"), ("recv_until", b"\r\n"), ("recv_until_eof",)]
    with PeerScript(steps, **place) as peer:
        with connect_to(peer.address) as sock:
            sock.sendall(b"hello")
            assert b"abc" == sock.recv(3)
            sock.sendall(b"line\r\nrest")

    assert b"helloline\r\nrest" == peer.received


def test_pair_needs_no_address() -> None:
    with PeerScript([("expect", b"ping"), ("send", b"pong")], pair=True) as peer:
        peer.client.sendall(b"ping")

        assert b"pong" == read_all(peer.client)


def test_several_connections_are_served_in_turn() -> None:
    with PeerScript([("recv", 1), ("send", b"x")], connections=3) as peer:
        for value in (b"a", b"b", b"c"):
            with connect_to(peer.address) as sock:
                sock.sendall(value)
                assert b"x" == read_all(sock)

    assert b"abc" == peer.received


def test_recv_takes_not_one_byte_more() -> None:
    with PeerScript([("recv", 2), ("stall",)]) as peer:
        with connect_to(peer.address) as sock:
            sock.sendall(b"abcdef")
            peer.wait_steps(1)

            assert b"ab" == peer.received


def test_drip_sends_byte_by_byte() -> None:
    with PeerScript([("drip", b"abc", 0.02)]) as peer:
        with connect_to(peer.address) as sock:
            assert [b"a", b"b", b"c"] == [sock.recv(10), sock.recv(10), sock.recv(10)]


def test_drip_ends_with_the_block() -> None:
    with PeerScript([("drip", b"x" * 1000, 30.0)]) as peer:
        with connect_to(peer.address) as sock:
            assert b"x" == sock.recv(10)


def test_stall_lasts_until_release() -> None:
    with PeerScript([("stall",), ("send", b"go"), ("stall",)]) as peer:
        with connect_to(peer.address) as sock:
            sock.setblocking(False)
            with pytest.raises(BlockingIOError):
                sock.recv(1)
            sock.settimeout(5.0)
            peer.release()

            assert b"go" == sock.recv(10)


def test_rst_resets() -> None:
    with PeerScript([("recv", 1), ("rst",)]) as peer:
        with connect_to(peer.address) as sock:
            sock.sendall(b"x")
            with pytest.raises(ConnectionResetError):
                sock.recv(1)


def test_rst_on_a_unix_socket_is_refused() -> None:
    with pytest.raises(ValueError, match="no reset"):
        PeerScript([("rst",)], pair=True)


def test_unknown_step_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown step"):
        PeerScript([("transmit", 3)])


def test_half_close_leaves_the_other_direction_open() -> None:
    with PeerScript([("half_close",), ("recv", 2)]) as peer:
        with connect_to(peer.address) as sock:
            assert b"" == sock.recv(1)
            sock.sendall(b"ok")

    assert b"ok" == peer.received


def test_call_gets_the_socket() -> None:
    with PeerScript([("call", lambda sock: sock.sendall(b"mine"))]) as peer:
        with connect_to(peer.address) as sock:
            assert b"mine" == read_all(sock)


def test_failure_names_the_step() -> None:
    with pytest.raises(PeerFailure, match=r"step 1 \('recv', 5\).*EOFError.*2 of 5"):
        with PeerScript([("send", b"x"), ("recv", 5)]) as peer:
            with connect_to(peer.address) as sock:
                sock.sendall(b"ab")
                assert b"x" == sock.recv(1)


def test_wait_raises_the_failure_at_once() -> None:
    with PeerScript([("expect", b"ab"), ("send", b"x")], check=False) as peer:
        with connect_to(peer.address) as sock:
            sock.sendall(b"cd")
            with pytest.raises(PeerFailure, match="expected b'ab', got b'cd'"):
                peer.wait_steps(2)


def test_hung_script_is_stopped_and_reported() -> None:
    with pytest.raises(PeerFailure, match="still at step 0"):
        with PeerScript([("recv", 1)], timeout=0.05):
            pass


def test_failure_of_the_test_wins_over_the_hung_script() -> None:
    with pytest.raises(ZeroDivisionError):
        with PeerScript([("recv", 1)]) as peer:
            with connect_to(peer.address):
                raise ZeroDivisionError


def test_unchecked_script_is_stopped_at_once() -> None:
    with PeerScript([("recv", 1)], check=False, timeout=3600.0):
        pass


def test_tls_peer(tmp_path: Path) -> None:
    server, client = tls_contexts(tmp_path)
    steps = [("expect", b"ping"), ("send", b"pong"), ("call", ssl.SSLSocket.unwrap)]
    with PeerScript(steps, tls=server) as peer:
        with client.wrap_socket(connect_to(peer.address), server_hostname="localhost") as sock:
            sock.sendall(b"ping")
            assert b"pong" == read_all(sock)
            sock.unwrap()


def test_hung_tls_handshake_is_stopped(tmp_path: Path) -> None:
    server, _client = tls_contexts(tmp_path)
    with contextlib.ExitStack() as kept, pytest.raises(PeerFailure, match="still at step 0"):
        with PeerScript([("recv", 1)], tls=server, timeout=0.05) as peer:
            kept.enter_context(connect_to(peer.address))


def test_what_a_peer_waits_for_before_its_first_step_is_told(tmp_path: Path) -> None:
    server, _client = tls_contexts(tmp_path)
    with PeerScript([("recv", 1)], tls=server, check=False) as peer:
        with pytest.raises(PeerFailure, match=r"step 0 \('recv', 1\) \(connection 1 has not come"):
            peer.wait_steps(1, 0.01)
        with connect_to(peer.address):
            assert poll_until(lambda: "in its TLS handshake" in peer._where(), 30)
            with pytest.raises(PeerFailure, match="connection 1 is in its TLS handshake"):
                peer.wait_steps(1, 0.01)


@pytest.mark.parametrize("where", ["127.0.0.1", "::1", "unix"])
def test_echo_server_sends_everything_back(where: str, tmp_path: Path) -> None:
    place: dict[str, Any] = {"path": str(tmp_path / "s")} if where == "unix" else {"host": where}
    with EchoServer(**place) as server:
        for _ in range(3):
            with connect_to(server.address) as sock:
                sock.sendall(b"hello")
                sock.shutdown(socket.SHUT_WR)
                assert b"hello" == read_all(sock)
        server.wait_for(accepted=3, received=15, max_open=0)

    assert (3, 15, 0) == (server.accepted, server.received, server.open)


def test_echo_server_speaks_tls(tmp_path: Path) -> None:
    server_context, client = tls_contexts(tmp_path)
    with EchoServer(tls=server_context) as server:
        with client.wrap_socket(connect_to(server.address), server_hostname="localhost") as sock:
            sock.sendall(b"hello")
            assert b"hello" == sock.recv(5)


def test_server_ends_though_clients_stay() -> None:
    with SinkServer() as server:
        sock = connect_to(server.address)
        sock.sendall(b"abc")
        server.wait_for(received=3)

    with sock:
        assert b"" == sock.recv(1)


def test_wait_for_what_never_comes_fails() -> None:
    with SinkServer() as server:
        with pytest.raises(AssertionError, match="only: 0 connections"):
            server.wait_for(accepted=1, timeout=0.01)


def tls_contexts(directory: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    with available():
        authority = make_authority(directory)
        certificate, key = authority.issue()
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificate, key)
    client = ssl.create_default_context(cafile=str(authority.certificate))
    return server, client
