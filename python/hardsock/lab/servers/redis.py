"""Redis."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager

from hardsock.lab.servers.process import Server, find_program, free_port, running, work_directory


@contextmanager
def redis_server(*options: str) -> Iterator[Server]:
    """Redis without persistence; *options* such as ``"--timeout", "1"`` are added."""
    program = find_program("redis-server")
    with work_directory() as directory:
        port = free_port()
        argv = [program, "--port", str(port), "--bind", "127.0.0.1", "--dir", str(directory)]
        argv += ["--save", "", "--appendonly", "no", "--daemonize", "no", *options]
        with running("redis", argv, port, directory, is_ready=_answers) as server:
            yield server


def _answers(sock: socket.socket) -> bool:
    """It listens on one port after another (TLS, unix), and answers when it listens on all."""
    sock.sendall(b"PING\r\n")
    return bool(sock.recv(1))
