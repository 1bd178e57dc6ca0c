"""DNS servers that answer by a script, or never, for use inside a `Namespace`.

    def lookup():                                  # run inside: ns.run(lookup)
        table = {("a.test", "A"): answer("10.0.0.2"), ("a.test", "AAAA"): DROP}
        with ScriptedDNS(table) as dns:
            use_dns("127.0.0.1")
            ...
            return dns.count("a.test", "A")

Port 53 and glibc's files are only to be had inside; outside take ``port=0`` and ask by hand.
A glibc that falls back to TCP reads the answer without any timeout of its own.
"""

from __future__ import annotations

import collections
import contextlib
import heapq
import ipaddress
import os
import selectors
import socket
import struct
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from hardsock.lab import inside

_TYPES = {1: "A", 28: "AAAA", 12: "PTR", 5: "CNAME", 33: "SRV", 65: "HTTPS", 255: "ANY"}
_NOERROR, _SERVFAIL, _NXDOMAIN = 0, 2, 3
_HEADER = struct.Struct("!HHHHHH")
_FLAG_RESPONSE, _FLAG_TRUNCATED, _FLAG_RECURSIVE = 0x8000, 0x0200, 0x0180


@dataclass(frozen=True)
class Reply:
    """What to do about one question.

    Attributes:
        addresses: Answered if of the asked type, others are left out.
        rcode: The response code of DNS.
        drop: Do not answer at all.
        delay: Seconds until the answer is sent.
        truncated: Over UDP only say "ask again over TCP".
    """

    addresses: tuple[str, ...] = ()
    rcode: int = _NOERROR
    drop: bool = False
    delay: float = 0.0
    truncated: bool = False
    ttl: int = 0

    def after(self, delay: float) -> Reply:
        """The same reply, *delay* seconds late."""
        return replace(self, delay=delay)


NXDOMAIN = Reply(rcode=_NXDOMAIN)
SERVFAIL = Reply(rcode=_SERVFAIL)
DROP = Reply(drop=True)


def answer(*addresses: str, delay: float = 0.0, truncated: bool = False) -> Reply:
    """A reply with *addresses*; with none of them: the name exists, but not with this type."""
    return Reply(addresses=addresses, delay=delay, truncated=truncated)


class ScriptedDNS:
    """A DNS server in a thread, on UDP and TCP.

    Args:
        table: Replies by (lower-case name, type), such as ``("a.test", "A")``; the type ``"*"`` is
            used for types not listed. A known name without the type gets an empty answer, an
            unknown one NXDOMAIN.
    """

    def __init__(
        self, table: Mapping[tuple[str, str], Reply], *, host: str = "127.0.0.1", port: int = 53
    ) -> None:
        self._table = dict(table)
        self._names = {name for name, _type in self._table}
        self._bind_to = (host, port)
        self._changed = threading.Condition()
        self._queries: collections.Counter[tuple[str, str]] = collections.Counter()
        self._late: list[tuple[float, int, Callable[[], object]]] = []
        self._sequence = 0
        self._failure: BaseException | None = None

    def __enter__(self) -> ScriptedDNS:
        self._selector = selectors.DefaultSelector()
        self._udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._tcp = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self._stop_read, self._stop_write = os.pipe()
        try:
            self._tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._tcp.bind(self._bind_to)
            self._tcp.listen()
            self._udp.bind(self._tcp.getsockname())
        except BaseException:
            self._close()
            raise
        self._selector.register(self._udp, selectors.EVENT_READ, self._on_datagram)
        self._selector.register(self._tcp, selectors.EVENT_READ, self._on_connection)
        self._selector.register(self._stop_read, selectors.EVENT_READ, None)
        self._thread = threading.Thread(target=self._serve, name="scripted-dns", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, exc_type: type[BaseException] | None, *_details: object) -> None:
        os.write(self._stop_write, b"x")
        self._thread.join()
        self._close()
        if self._failure is not None and exc_type is None:
            raise AssertionError("the DNS server failed") from self._failure

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens."""
        host, port = self._udp.getsockname()
        return host, port

    def count(self, name: str, kind: str) -> int:
        """How often (*name*, *kind*) was asked."""
        with self._changed:
            return self._queries[name, kind]

    def queries(self) -> dict[tuple[str, str], int]:
        """How often each (name, type) was asked."""
        with self._changed:
            return dict(self._queries)

    def wait_for_query(
        self, name: str, kind: str, *, count: int = 1, timeout: float = 30.0
    ) -> None:
        """Wait until (*name*, *kind*) was asked *count* times.

        AssertionError: it was not, after *timeout* seconds; it may be still.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: self._queries[name, kind] >= count, timeout):
                raise AssertionError(f"{name} {kind} not asked {count} times: {self._queries}")

    def _close(self) -> None:
        for key in list((self._selector.get_map() or {}).values()):
            if isinstance(key.fileobj, socket.socket):
                key.fileobj.close()
        self._selector.close()
        self._udp.close()
        self._tcp.close()
        os.close(self._stop_read)
        os.close(self._stop_write)

    def _serve(self) -> None:
        try:
            while True:
                for key, _events in self._selector.select(self._until_next()):
                    if key.data is None:
                        return
                    key.data(key.fileobj)
                while self._late and self._late[0][0] <= time.monotonic():
                    with contextlib.suppress(OSError):  # The client may be gone by now.
                        heapq.heappop(self._late)[2]()
        except BaseException as exc:
            self._failure = exc

    def _until_next(self) -> float | None:
        return max(0.0, self._late[0][0] - time.monotonic()) if self._late else None

    def _on_datagram(self, sock: socket.socket) -> None:
        query, sender = sock.recvfrom(65535)
        self._handle(query, True, lambda data: sock.sendto(data, sender))

    def _on_connection(self, listener: socket.socket) -> None:
        conn, _peer = listener.accept()
        buffer = bytearray()
        self._selector.register(
            conn, selectors.EVENT_READ, lambda _conn: self._on_stream(conn, buffer)
        )

    def _on_stream(self, conn: socket.socket, buffer: bytearray) -> None:
        """Read what is there and handle each whole message; glibc sends A and AAAA at once."""
        try:
            data = conn.recv(65536)
        except ConnectionResetError:
            data = b""
        if not data:
            self._selector.unregister(conn)
            conn.close()
            return
        buffer += data
        while len(buffer) >= 2 and len(buffer) >= (end := 2 + int.from_bytes(buffer[:2], "big")):
            query = bytes(buffer[2:end])
            del buffer[:end]
            self._handle(query, False, lambda reply: _send_framed(conn, reply))

    def _handle(self, query: bytes, is_udp: bool, send: Callable[[bytes], object]) -> None:
        name, kind, question = parse_question(query)
        with self._changed:
            self._queries[name, kind] += 1
            self._changed.notify_all()
        reply = self._find(name, kind)
        if reply.drop:
            return
        data = _build(query, question, kind, reply, truncated=reply.truncated and is_udp)
        if reply.delay == 0:
            send(data)
        else:
            self._sequence += 1
            due = time.monotonic() + reply.delay
            heapq.heappush(self._late, (due, self._sequence, lambda: send(data)))

    def _find(self, name: str, kind: str) -> Reply:
        for wanted in (kind, "*"):
            if (name, wanted) in self._table:
                return self._table[name, wanted]
        return Reply() if name in self._names else NXDOMAIN


class DeadDNS:
    """A name server that takes every question and never answers (UDP only)."""

    def __init__(self, host: str = "127.0.0.1", port: int = 53) -> None:
        self._bind_to = (host, port)

    def __enter__(self) -> DeadDNS:
        self._sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            self._sock.bind(self._bind_to)
        except BaseException:
            self._sock.close()
            raise
        return self

    def __exit__(self, *_details: object) -> None:
        self._sock.close()


def resolv_conf(*nameservers: str, timeout: int = 1, attempts: int = 1, options: str = "") -> str:
    """The text of a resolv.conf; *timeout* (whole seconds) and *attempts* are glibc's own."""
    lines = [f"nameserver {server}" for server in nameservers]
    lines.append(f"options timeout:{timeout} attempts:{attempts} {options}".rstrip())
    return "\n".join(lines) + "\n"


def use_dns(
    *nameservers: str,
    timeout: int = 1,
    attempts: int = 1,
    options: str = "",
    hosts: str = "127.0.0.1 localhost\n::1 localhost\n",
) -> None:
    """Inside a namespace: resolve names by the text *hosts*, then *nameservers*, nothing else.

    Call it before the first lookup of the process, so that glibc has not read the old files.

    Args:
        nameservers: Their addresses, the first asked first.
        timeout: Seconds for each attempt: resolv.conf(5).
        attempts: How often each is asked.
        options: More of them, as they stand in resolv.conf(5).
        hosts: What /etc/hosts says: addresses, each with its names.

    Raises:
        OSError: The files cannot be mounted over: it is not inside a namespace.
    """
    inside.bind_mount_file(
        "/etc/resolv.conf",
        resolv_conf(*nameservers, timeout=timeout, attempts=attempts, options=options),
    )
    inside.bind_mount_file("/etc/hosts", hosts)
    if os.path.isfile("/etc/nsswitch.conf"):  # Without it glibc asks the same two anyway.
        inside.bind_mount_file("/etc/nsswitch.conf", "hosts: files dns\n")
    if os.path.isdir("/run/nscd"):
        inside.mount_tmpfs("/run/nscd")


def parse_question(query: bytes) -> tuple[str, str, bytes]:
    """The name (lower case, no final dot), the type, and the raw question of a DNS query."""
    labels = []
    at = _HEADER.size
    while length := query[at]:
        labels.append(query[at + 1 : at + 1 + length].decode("ascii"))
        at += 1 + length
    (kind,) = struct.unpack_from("!H", query, at + 1)
    return ".".join(labels).lower(), _TYPES.get(kind, str(kind)), query[_HEADER.size : at + 5]


def _build(query: bytes, question: bytes, kind: str, reply: Reply, *, truncated: bool) -> bytes:
    records = b""
    count = 0
    for text in () if truncated else reply.addresses:
        address = ipaddress.ip_address(text)
        number, wanted = (1, "A") if address.version == 4 else (28, "AAAA")
        if wanted == kind:
            packed = address.packed
            records += struct.pack("!HHHIH", 0xC00C, number, 1, reply.ttl, len(packed)) + packed
            count += 1
    flags = _FLAG_RESPONSE | _FLAG_RECURSIVE | reply.rcode | (_FLAG_TRUNCATED if truncated else 0)
    (ident,) = struct.unpack_from("!H", query)
    return _HEADER.pack(ident, flags, 1, count, 0, 0) + question + records


def _send_framed(conn: socket.socket, data: bytes) -> None:
    conn.sendall(struct.pack("!H", len(data)) + data)
