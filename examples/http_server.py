"""An HTTP/1.1 server (RFC 9112): a quiet keep-alive connection costs no thread.

python http_server.py [HOST:PORT]
"""

import sys
from email.utils import formatdate

import hardsock as hs

MAX_HEAD, MAX_BODY = 16 * 1024, 1024 * 1024


class Refused(Exception):
    """The request cannot be served, and where the next one begins is not known."""


def read_request(conn: hs.Connection) -> tuple[str, str, bool, bytes]:
    """Its method and target, whether the connection stays, and its body; each part in 10 seconds."""
    try:
        head = conn.recv_until(b"\r\n\r\n", max_size=MAX_HEAD, timeout=10).decode("latin-1")
    except hs.FrameTooLarge:
        raise Refused("431 Request Header Fields Too Large") from None
    request, *lines = head.split("\r\n")
    method, target, version = parts if len(parts := request.split(" ")) == 3 else ("", "", "")
    headers: dict[str, str] = {}
    for name, colon, value in (line.partition(":") for line in lines):
        if not colon or not name or name.split() != [name] or name.lower() in headers:
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
    return method, target, stays, conn.recv_exactly(int(length), timeout=10)


def send_response(conn: hs.Connection, status: str, body: bytes, stays: bool, head: bool) -> None:
    """All of it in one call; without a body for HEAD."""
    stays = stays and not getattr(hs.draining(), "cancelled", False)  # A drain is told to clients.
    lines = (
        f"HTTP/1.1 {status}\r\nDate: {formatdate(usegmt=True)}\r\nContent-Length: {len(body)}\r\n"
    )
    lines += "\r\n" if stays else "Connection: close\r\n\r\n"
    conn.sendall(lines.encode() + (b"" if head else body), timeout=10)
    if not stays:
        conn.close_write()  # The server waits for the client's end, without a thread.


def handler(conn: hs.Connection) -> None:
    """Called when a request begins; the connection's own count shows that state goes with it."""
    conn.state = (conn.state or 0) + 1
    try:
        method, target, stays, body = read_request(conn)
    except Refused as refused:
        return send_response(conn, str(refused), b"", stays=False, head=False)
    answer = f"{method} {target}: {len(body)} bytes, request {conn.state}\n".encode()
    send_response(conn, "200 OK", answer, stays, head=method == "HEAD")


if __name__ == "__main__":
    address = sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:8080"
    with hs.serve(handler, address, per="message", idle_timeout=60, drain_timeout=10) as server:
        print(f"serving {server.address}", flush=True)
        server.wait()  # until Ctrl-C or SIGTERM: requests that have arrived are answered first
