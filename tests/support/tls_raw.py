"""TLS written and read byte by byte, for peers that say what no library would say for them.

Only what is not encrypted: hellos, alerts, and where records begin and end (RFC 8446 section 5.1).
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator, Sequence

HEADER = 5
CHANGE_CIPHER_SPEC, ALERT, HANDSHAKE, APPLICATION_DATA = 20, 21, 22, 23
SSL3, TLS10, TLS11, TLS12, TLS13 = 0x0300, 0x0301, 0x0302, 0x0303, 0x0304

NULL_SHA256 = 0x003B
RC4_SHA = 0x0005
TRIPLE_DES_SHA = 0x000A
EXPORT_RC4 = 0x0003
ANONYMOUS = 0x00A6
STATIC_RSA = 0x009C
DHE_RSA = 0x009E
ECDHE_RSA_CBC = 0xC013
ECDHE_ECDSA = 0xC02B
ECDHE_RSA = 0xC02F
AES_128_GCM_1_3 = 0x1301

# A server of TLS 1.3 that takes 1.2 or less says so in its random (RFC 8446 section 4.1.3).
DOWNGRADED_TO_1_2 = b"DOWNGRD\x01"
DOWNGRADED_FURTHER = b"DOWNGRD\x00"
SECURE_RENEGOTIATION = (0xFF01, b"\0")


def record(kind: int, payload: bytes, *, version: int = TLS12) -> bytes:
    """One record with what its header says."""
    return struct.pack("!BHH", kind, version, len(payload)) + payload


def alert(description: int, *, level: int = 2) -> bytes:
    """A record with an alert, fatal unless *level* is 1."""
    return record(ALERT, bytes([level, description]))


def message(kind: int, body: bytes) -> bytes:
    """One handshake message."""
    return bytes([kind]) + len(body).to_bytes(3, "big") + body


def _extensions(pairs: Sequence[tuple[int, bytes]] | None) -> bytes:
    if pairs is None:
        return b""
    body = b"".join(struct.pack("!HH", kind, len(data)) + data for kind, data in pairs)
    return struct.pack("!H", len(body)) + body


def server_hello(
    cipher: int,
    *,
    version: int = TLS12,
    compression: int = 0,
    random_end: bytes = b"",
    extensions: Sequence[tuple[int, bytes]] | None = (SECURE_RENEGOTIATION,),
) -> bytes:
    """A record with a ServerHello that chooses *version* and *cipher*, asked for or not."""
    random = os.urandom(32 - len(random_end)) + random_end
    body = struct.pack("!H", version) + random + b"\0" + struct.pack("!HB", cipher, compression)
    hello = message(2, body + _extensions(extensions))
    return record(HANDSHAKE, hello, version=min(version, TLS12))


def client_hello(
    ciphers: Sequence[int],
    *,
    version: int = TLS12,
    compressions: bytes = b"\0",
    extensions: Sequence[tuple[int, bytes]] | None = (),
) -> bytes:
    """A record with a ClientHello that offers *version* at most (up to TLS 1.2) and *ciphers*."""
    suites = b"".join(struct.pack("!H", one) for one in ciphers)
    body = struct.pack("!H", version) + os.urandom(32) + b"\0"
    body += struct.pack("!H", len(suites)) + suites + bytes([len(compressions)]) + compressions
    return record(
        HANDSHAKE, message(1, body + _extensions(extensions)), version=min(version, TLS10)
    )


def ssl2_hello(version: int = 0x0002) -> bytes:
    """The hello of SSL 2, which also older clients of SSL 3 began with."""
    body = struct.pack("!BHHHH", 1, version, 3, 0, 16) + b"\x01\0\x80" + os.urandom(16)
    return struct.pack("!H", 0x8000 | len(body)) + body


def read_record(sock: socket.socket) -> bytes:
    """The next record, whole; EOFError if the stream ends before."""
    header = _read(sock, HEADER)
    return header + _read(sock, int.from_bytes(header[3:], "big"))


def _read(sock: socket.socket, size: int) -> bytes:
    got = b""
    while len(got) < size:
        piece = sock.recv(size - len(got))
        if not piece:
            raise EOFError(f"{size - len(got)} bytes short of a record")
        got += piece
    return got


def split_records(stream: bytes) -> Iterator[bytes]:
    """The records of *stream* in order; what is left at its end is not a whole one."""
    while stream:
        size = HEADER + int.from_bytes(stream[3:HEADER], "big") if len(stream) >= HEADER else 0
        yield stream[: size or len(stream)]
        stream = stream[size or len(stream) :]
