"""A server of length-prefixed frames: `python examples/frame_echo.py PORT`.

Bounded on all sides: frames of at most 1 MiB, 10 seconds for each, senders that drip are cut off, at
most 64 connections at a time, and Ctrl-C ends it within 5 seconds.
"""

from __future__ import annotations

import sys

import hardsock as hs

FRAME = hs.LengthPrefix(width=4, max_size=1 << 20)


def echo(conn: hs.Connection) -> None:
    conn.set_min_receive_rate(1024, grace=2.0)
    for frame in conn.frames(FRAME, timeout=10, token=hs.draining()):
        conn.send_frame(frame, FRAME, timeout=10)


def serve(port: int) -> hs.Server:
    return hs.serve(echo, ("127.0.0.1", port), workers=64, drain_timeout=5)


if __name__ == "__main__":
    with serve(int(sys.argv[1])) as server:
        print("listening on", server.address, flush=True)
        server.wait()
