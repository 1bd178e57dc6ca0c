"""A web server that answers each GET with the path's last part, in a process of its own.

``python -m pool.web`` prints its port and ends with its standard input. A number after ``/late/``
is answered in two parts: the head at once, the body 0.2 s later.
"""

from __future__ import annotations

import contextlib
import socket
import sys
import threading
import time

LATE = 0.2


def serve(conn: socket.socket) -> None:
    with contextlib.suppress(OSError), conn, conn.makefile("rb") as file:
        conn.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while line := file.readline():
            while file.readline() not in (b"\r\n", b""):
                pass
            path = line.split()[1]
            body = path.rpartition(b"/")[2]
            head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body)
            if path.startswith(b"/late/"):
                conn.sendall(head)
                time.sleep(LATE)  # A slow answer is what is asked for.
                conn.sendall(body)
            else:
                conn.sendall(head + body)


def main() -> None:
    listener = socket.create_server(("127.0.0.1", 0), backlog=128)
    print(listener.getsockname()[1], flush=True)

    def accept() -> None:
        while True:
            threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    sys.stdin.read()


if __name__ == "__main__":
    main()
