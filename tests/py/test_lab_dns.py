"""Self tests of hardsock.lab.dns."""

from __future__ import annotations

import socket
import struct
import time
from typing import Any

import pytest

from hardsock.lab.dns import (
    DROP,
    NXDOMAIN,
    SERVFAIL,
    DeadDNS,
    ScriptedDNS,
    answer,
    resolv_conf,
    use_dns,
)
from hardsock.lab.namespaces import Namespace
from support.require import require

NAME = b"\x01a\x04test\x00"


def query(kind: int) -> bytes:
    return struct.pack("!HHHHHH", 77, 0x100, 1, 0, 0, 0) + NAME + struct.pack("!HH", kind, 1)


def ask(address: tuple[str, int], kind: int, timeout: float = 5.0) -> bytes:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(timeout)
        sock.connect(address)
        sock.send(query(kind))
        return sock.recv(4096)


def test_addresses_of_the_asked_type_are_answered() -> None:
    table = {("a.test", "A"): answer("10.0.0.1", "fd00::1", "10.0.0.2")}
    with ScriptedDNS(table, port=0) as dns:
        reply = ask(dns.address, 1)

        assert (77, 2) == (*struct.unpack_from("!H", reply), *struct.unpack_from("!H", reply, 6))
        assert reply.endswith(socket.inet_aton("10.0.0.2"))
        assert 1 == dns.count("a.test", "A")


@pytest.mark.parametrize(("reply", "rcode"), [(NXDOMAIN, 3), (SERVFAIL, 2), (answer(), 0)])
def test_response_code(reply: Any, rcode: int) -> None:
    with ScriptedDNS({("a.test", "A"): reply}, port=0) as dns:
        assert rcode == ask(dns.address, 1)[3] & 0xF


def test_unknown_type_of_known_name_is_empty_and_unknown_name_nxdomain() -> None:
    with ScriptedDNS({("a.test", "A"): answer("10.0.0.1")}, port=0) as dns:
        reply = ask(dns.address, 28)
        assert (0, 0) == (reply[3] & 0xF, reply[7])
    with ScriptedDNS({("b.test", "A"): answer("10.0.0.1")}, port=0) as dns:
        assert 3 == ask(dns.address, 1)[3] & 0xF


def test_dropped_query_is_counted_but_not_answered() -> None:
    with ScriptedDNS({("a.test", "*"): DROP}, port=0) as dns:
        with pytest.raises(TimeoutError):
            ask(dns.address, 1, timeout=0.05)
        dns.wait_for_query("a.test", "A")

        assert {("a.test", "A"): 1} == dns.queries()


def test_delayed_answer_is_late_and_others_overtake_it() -> None:
    table = {("a.test", "A"): answer("10.0.0.1", delay=0.2), ("a.test", "AAAA"): answer("fd00::1")}
    with ScriptedDNS(table, port=0) as dns:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.settimeout(5.0)
            sock.connect(dns.address)
            start = time.monotonic()
            sock.send(query(1))
            sock.send(query(28))

            assert sock.recv(4096).endswith(socket.inet_pton(socket.AF_INET6, "fd00::1"))
            assert sock.recv(4096).endswith(socket.inet_aton("10.0.0.1"))
            assert time.monotonic() - start >= 0.2


def test_truncated_answer_is_whole_over_tcp() -> None:
    with ScriptedDNS({("a.test", "A"): answer("10.0.0.1", truncated=True)}, port=0) as dns:
        assert ask(dns.address, 1)[2] & 0x02
        with socket.create_connection(dns.address, timeout=5.0) as sock:
            sock.sendall(struct.pack("!H", len(query(1))) + query(1))
            reply = sock.recv(4096)

        assert reply.endswith(socket.inet_aton("10.0.0.1"))
        assert len(reply) - 2 == struct.unpack_from("!H", reply)[0]


def test_wait_for_query_that_never_comes_fails() -> None:
    with ScriptedDNS({}, port=0) as dns:
        with pytest.raises(AssertionError, match="not asked"):
            dns.wait_for_query("a.test", "A", timeout=0.01)


def test_resolv_conf_text() -> None:
    expected = "nameserver 1.1.1.1\nnameserver 2.2.2.2\noptions timeout:1 attempts:2 edns0\n"

    assert expected == resolv_conf("1.1.1.1", "2.2.2.2", attempts=2, options="edns0")


def look_up_with_glibc() -> dict[str, Any]:
    table = {
        ("a.test", "A"): answer("10.0.0.1", truncated=True),
        ("a.test", "AAAA"): answer("fd00::1"),
    }
    with ScriptedDNS(table) as dns:
        use_dns("127.0.0.1", hosts="10.7.7.7 from-file\n")
        found = sorted({info[4][0] for info in socket.getaddrinfo("a.test", 80)})
        missing: int | None = None
        try:
            socket.getaddrinfo("none.test", 80)
        except socket.gaierror as exc:
            missing = exc.errno
        return {
            "found": found,
            "file": socket.gethostbyname("from-file"),
            "missing": missing,
            "asked": dns.count("a.test", "AAAA"),
        }


def time_of_dead_lookup() -> float:
    with DeadDNS():
        use_dns("127.0.0.1", timeout=1, attempts=1)
        start = time.monotonic()
        try:
            socket.getaddrinfo("a.test", 80)
        except socket.gaierror:
            pass
        return time.monotonic() - start


def test_glibc_resolves_by_the_script_inside_a_namespace() -> None:
    with require(Namespace()) as ns:
        assert {
            "found": ["10.0.0.1", "fd00::1"],
            "file": "10.7.7.7",
            "missing": socket.EAI_NONAME,
            "asked": 2,  # Once more over TCP, together with the truncated one.
        } == ns.run(look_up_with_glibc)


def test_dead_dns_makes_glibc_wait() -> None:
    with require(Namespace()) as ns:
        assert ns.run(time_of_dead_lookup) >= 0.9
