"""A client of RESP, the protocol of Redis, on hardsock: `python examples/resp_client.py HOST:PORT`.

Every reply has one deadline, and a reply that is cut short is an error, never a shorter reply.
"""

from __future__ import annotations

import sys
from typing import Any

import hardsock as hs

CRLF = hs.Line("\r\n")  # strict: a lone CR or LF is refused


class RespError(Exception):
    """The server answered with an error."""


def encode(*words: bytes) -> bytes:
    """Return a command."""
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(w), w) for w in words)


def read_reply(conn: hs.Connection) -> Any:
    """Read one reply; the deadline is the caller's scope."""
    line = conn.recv_line(CRLF)
    kind, rest = line[:1], line[1:]
    if kind == b"+":
        return rest
    if kind == b"-":
        raise RespError(rest.decode())
    if kind == b":":
        return int(rest)
    if kind == b"$":
        return None if rest == b"-1" else conn.recv_exactly(int(rest) + 2)[:-2]
    if kind == b"*":
        return None if rest == b"-1" else [read_reply(conn) for _ in range(int(rest))]
    raise RespError(f"no reply begins with {kind!r}")


def main(address: str) -> None:
    with hs.connect(address, timeout=2) as conn, hs.timeout(5):
        conn.sendall(encode(b"SET", b"greeting", b"hello") + encode(b"GET", b"greeting"))
        print(read_reply(conn), read_reply(conn))


if __name__ == "__main__":
    main(sys.argv[1])
