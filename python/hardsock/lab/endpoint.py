"""Where scripted peers listen: TCP on loopback, or a Unix socket."""

from __future__ import annotations

import socket

Address = tuple[str, int] | str


def listen(host: str = "127.0.0.1", port: int = 0, *, backlog: int = 128) -> socket.socket:
    """A TCP listener; an IPv6 *host* makes it an IPv6 one, port 0 takes a free one."""
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))
        sock.listen(backlog)
    except BaseException:
        sock.close()
        raise
    return sock


def listen_unix(path: str) -> socket.socket:
    """A listener on the Unix socket *path*, which must not exist yet."""
    sock = socket.socket(socket.AF_UNIX)
    try:
        sock.bind(path)
        sock.listen()
    except BaseException:
        sock.close()
        raise
    return sock


def address_of(sock: socket.socket) -> Address:
    """The local address: (host, port), or the path of a Unix socket."""
    name = sock.getsockname()
    return name if isinstance(name, str) else (name[0], name[1])


def connect_to(address: Address, timeout: float = 30.0) -> socket.socket:
    """A plain client socket connected to *address*; *timeout* holds for its later calls too."""
    if not isinstance(address, str):
        return socket.create_connection(address, timeout=timeout)
    sock = socket.socket(socket.AF_UNIX)
    try:
        sock.settimeout(timeout)
        sock.connect(address)
    except BaseException:
        sock.close()
        raise
    return sock


def shut(sock: socket.socket | None) -> None:
    """Shut *sock* down, which wakes the one who is blocked on it in another thread."""
    if sock is not None:
        try:
            # Not ssl.SSLSocket.shutdown: that drops the SSL object under its user.
            socket.socket.shutdown(sock, socket.SHUT_RDWR)
        except OSError:
            pass  # Not connected, or closed already: nobody is blocked.
