"""An HTTP/1.1 server (RFC 9112): neither a quiet nor a slow client costs it a thread.

python http_server.py [HOST:PORT]
"""

import sys
import time
from email.utils import formatdate

import hardsock as hs

MAX_HEAD, MAX_BODY, MAX_SECONDS = 16 * 1024, 1024 * 1024, 10


class Refused(Exception):
    """The request cannot be served, and where the next one begins is not known."""


class Progress:
    """What the handler knows of a connection from the last time that it was called."""

    begun: float | None = None  # the request that is coming in, if one is
    head: tuple[str, str, bool, int] | None = None
    answered = 0


def parse(head: str) -> tuple[str, str, bool, int]:
    """Method, target, whether the connection stays, and the size of the body."""
    request, *lines = head.split("\r\n")
    method, target, version = parts if len(parts := request.split(" ")) == 3 else ("", "", "")
    headers: dict[str, str] = {}
    for name, colon, value in (line.partition(":") for line in lines):
        if not colon or name.split() != [name] or name.lower() in headers:
            raise Refused("400 Bad Request")
        headers[name.lower()] = value.strip()
    if version not in ("HTTP/1.0", "HTTP/1.1") or (version == "HTTP/1.1" and "host" not in headers):
        raise Refused("400 Bad Request")
    if "transfer-encoding" in headers:
        raise Refused("501 Not Implemented")
    length = headers.get("content-length", "0")
    if not (length.isascii() and length.isdigit()):
        raise Refused("400 Bad Request")
    if len(length) > 9 or int(length) > MAX_BODY:
        raise Refused("413 Content Too Large")
    stays = version == "HTTP/1.1" and "close" not in headers.get("connection", "").lower()
    return method, target, stays, int(length)


def respond(conn: hs.Connection, status: str, body: bytes, stays: bool, head: bool) -> None:
    stays = stays and not getattr(hs.draining(), "cancelled", False)  # Clients are told of a drain.
    text = (
        f"HTTP/1.1 {status}\r\nDate: {formatdate(usegmt=True)}\r\nContent-Length: {len(body)}\r\n"
    )
    text += "\r\n" if stays else "Connection: close\r\n\r\n"
    conn.sendall(text.encode() + (b"" if head else body), timeout=MAX_SECONDS)
    if not stays:
        conn.close_write()  # The server waits for the client's end.


def handler(conn: hs.Connection) -> None:
    """Called when bytes have come; timeout=0 takes what is here, and loses nothing of half a part."""
    at = conn.state = conn.state or Progress()
    at.begun = at.begun or time.monotonic()
    try:
        if at.head is None:
            part = conn.recv_until(b"\r\n\r\n", max_size=MAX_HEAD, timeout=0)
            at.head = parse(part.decode("latin-1"))
        method, target, stays, length = at.head
        body = conn.recv_exactly(length, timeout=0)
    except hs.FrameTooLarge:
        respond(conn, "431 Request Header Fields Too Large", b"", stays=False, head=False)
    except Refused as refused:
        respond(conn, str(refused), b"", stays=False, head=False)
    except hs.DeadlineExceeded:
        if time.monotonic() - at.begun > MAX_SECONDS:
            respond(conn, "408 Request Timeout", b"", stays=False, head=False)
    else:
        at.begun, at.head, at.answered = None, None, at.answered + 1
        text = f"{method} {target}: {len(body)} bytes, request {at.answered}\n"
        respond(conn, "200 OK", text.encode(), stays, head=method == "HEAD")


if __name__ == "__main__":
    address = sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:8080"
    with hs.serve(handler, address, per="message", idle_timeout=60, drain_timeout=10) as server:
        print(f"serving {server.address}", flush=True)
        server.wait()  # until Ctrl-C or SIGTERM: requests that have arrived are answered first
