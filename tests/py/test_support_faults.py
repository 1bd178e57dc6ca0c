"""Self tests of support.faults."""

from __future__ import annotations

import sys

from support.faults import strace_inject
from support.require import available

CODE = """
import socket
listener = socket.create_server(("127.0.0.1", 0))
clients = [socket.create_connection(listener.getsockname()) for _ in range(3)]
for _ in range(3):
    try:
        listener.accept()
        print("ok")
    except OSError as exc:
        print(exc.errno)
"""


def test_chosen_calls_fail() -> None:
    with available():
        done = strace_inject([sys.executable, "-c", CODE], "accept4:error=EMFILE:when=2..3")

    assert (0, ["ok", "24", "24"]) == (done.returncode, done.stdout.split())
    assert 2 == len(done.injected)
