"""The contract of streams, over every transport that hardsock has."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import hardsock as hs

from .stream_contract import CONTRACT, Pair

Opener = Callable[[Path], "Iterator[Pair]"]


@contextmanager
def _accepted(address: hs.Address) -> Iterator[Pair]:
    with hs.listen(address) as listener:
        bound = listener.address
        target = bound if isinstance(bound, tuple) else f"unix:{bound}"
        with (
            hs.connect(target, timeout=5) as ours,
            listener.accept(timeout=5) as theirs,
        ):
            yield ours, theirs


@contextmanager
def _socketpair() -> Iterator[Pair]:
    left, right = socket.socketpair()
    with hs.adopt(left) as ours, hs.adopt(right) as theirs:
        yield ours, theirs


TRANSPORTS = {
    "tcp4": lambda path: _accepted(("127.0.0.1", 0)),
    "tcp6": lambda path: _accepted(("::1", 0)),
    "unix": lambda path: _accepted(f"unix:{path}/s"),
    "socketpair": lambda path: _socketpair(),
}


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("clause", CONTRACT, ids=lambda clause: clause.__name__)
def test_transport_keeps(
    transport: str, clause: Callable[[hs.Connection, hs.Connection], None], tmp_path: Path
) -> None:
    with TRANSPORTS[transport](tmp_path) as (ours, theirs):
        clause(ours, theirs)
