"""The controller of the crowd (peers/crowd.c) that talks to the server under test."""

from __future__ import annotations

import json
import socket
from typing import Any

from ..model import Target

PATIENCE = 120.0


class Crowd:
    """Blocking: runs in a thread beside the server's event loop."""

    def __init__(self, target: Target) -> None:
        self._sock = socket.create_connection((target.host, target.port), timeout=PATIENCE)
        self._answers = self._sock.makefile("r")

    def _ask(self, command: str) -> dict[str, Any]:
        self._sock.sendall(f"{command}\n".encode())
        answer: dict[str, Any] = json.loads(self._answers.readline())
        return answer

    def accept(self, port: int, count: int) -> dict[str, Any]:
        """Open so many connections and exchange one message on each."""
        return self._ask(f"open {port} {count}")

    def echo(self, port: int, count: int, seconds: float) -> dict[str, Any]:
        """Open them, then exchange messages on all."""
        self.accept(port, count)
        return self._ask(f"echo {seconds}")

    def close(self) -> None:
        self._answers.close()
        self._sock.close()
