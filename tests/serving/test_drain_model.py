"""Any drain keeps its promises: clients in states, and acts during the drain, that a seed decides.

Each request that had arrived when the drain began is answered, or the report tells what became of
its connection; every accepted connection is in exactly one line of the report; nothing that was cut
looks whole; the drain ends in time. None of that depends on a clock: what is early enough on a busy
machine is answered, what is not is in the report.

A failure names its test with its seed. HS_MODEL_SEED=17 repeats it; HS_MODEL_SEEDS=500 runs so many.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import random
import socket
import ssl
import struct
import sys
import termios
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from threading import enumerate as threads
from typing import TYPE_CHECKING, Any

import pytest

import hardsock as hs
from hardsock.lab.endpoint import connect_to
from hardsock.lab.threads import Call
from hardsock.lab.waits import poll_until
from hardsock.serving.actions import Actions
from hardsock.serving.drain import Drain
from hardsock.serving.quiet import QuietConnections
from support import tls_raw
from support.conversation import Handlers, Step, Steps, handlers, waiting
from support.serving import DRIVERS, Server, serving

if TYPE_CHECKING:
    from support.tls import Identities

SEEDS = 10
NIGHTLY_SEEDS = 400
PATIENCE = 30.0
LONG = 6_000_000  # More than the kernel takes from a server whose client does not read.
TCP_CLOSE = 7  # The first byte of TCP_INFO: reset.
RESET_ON_CLOSE = struct.pack("ii", 1, 0)
HALF_A_HELLO = tls_raw.client_hello([tls_raw.ECDHE_ECDSA])[:40]

# What a client has said when the drain begins; "now" asks in the last moment before it. Of a request
# the first letter says what its handler does: Answer, answer and Leave, send a long Body, Wait and
# obey, wait and Stay whatever happens, Err.
# With "then" it asks in the very last moment: the drain is about to tell its connection that no
# more is expected, and its handler waits.
FIRST = [
    "",
    "now",
    "now",
    "then",
    "then",
    "then",
    "half",
    "A",
    "AA",
    "AAA",
    "L",
    "B",
    "W",
    "WA",
    "S",
    "E",
    "AL",
    "reset",
    "gone",
    "eof",
]
LATER = ["nothing", "nothing", "open", "open", "ask", "complete", "read", "reset", "close"]


def seeds(count: int) -> list[int]:
    one = os.environ.get("HS_MODEL_SEED")
    return [int(one)] if one else list(range(int(os.environ.get("HS_MODEL_SEEDS", count))))


class Gates:
    """What handlers wait for, by the number of their request."""

    def __init__(self) -> None:
        self._gates: dict[str, hs.CancelToken] = {}

    def of(self, request: str) -> hs.CancelToken:
        return self._gates.setdefault(request[1:], hs.CancelToken())

    def open_all(self) -> None:
        for gate in self._gates.values():
            gate.cancel()


def talking(gates: Gates, obedient: bool = True) -> Handlers:
    def message() -> Steps:
        told = {"token": hs.draining()} if obedient else {}
        line = yield Step("recv_until", b"\n", told)
        request = line.decode()
        kind = request[0]
        if kind == "E":
            raise ValueError("asked for")
        if kind == "W":
            connection = hs.current()
            assert connection is not None
            yield waiting(hs.CancelToken.linked([gates.of(request), connection]))
            connection.check()
        while kind == "S" and not gates.of(request).cancelled:
            with contextlib.suppress(asyncio.CancelledError):
                yield waiting(gates.of(request))
        body = b"." * LONG if kind == "B" else b""
        yield Step("sendall", line.lower() + body + b"\n", {})
        return kind != "L"

    return handlers(message)


@dataclass
class Client:
    """One client, and what it is owed."""

    number: int
    sock: socket.socket
    first: str
    later: str = "nothing"
    name: str = ""
    arrived: list[str] = field(default_factory=list)
    """Requests that had arrived when the drain began."""
    late: list[str] = field(default_factory=list)
    got: bytes = b""
    end: str = ""
    left: bool = False
    """It went by itself, so it is owed nothing."""

    def request(self, kind: str) -> str:
        return f"{kind}{self.number:03}.{len(self.arrived) + len(self.late)}"

    def ask(self, kind: str, requests: list[str]) -> None:
        requests.append(self.request(kind))
        self.sock.sendall(requests[-1].encode() + b"\n")

    def reset(self) -> None:
        self.left = True
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
        self.sock.close()

    def close(self) -> None:
        self.left = True
        self.sock.close()

    def read_answer(self) -> None:
        """Read one answer, or what comes of it."""
        answers = self.got.count(b"\n")
        while not self.end and self.got.count(b"\n") == answers:
            self._read()

    def read_to_the_end(self) -> None:
        while not self.end and not self.left:
            self._read()

    def _read(self) -> None:
        try:
            piece = self.sock.recv(1 << 20)
        except (ConnectionError, ssl.SSLEOFError):
            self.end = "reset"
        else:
            self.got += piece
            if not piece:
                self.end = "end"

    def answered(self) -> list[str]:
        """The requests that were answered as a whole; the rest must not look like an answer."""
        *whole, rest = self.got.decode().split("\n")
        for answer in whole:
            assert len(answer) == len(answer.rstrip(".")) + LONG * (answer[0] == "b"), self
        assert not rest or self.end == "reset", f"half an answer looks like its end: {self}"
        return [answer.rstrip(".").capitalize() for answer in whole]

    def __repr__(self) -> str:
        size = len(self.got)
        return (
            f"<{self.name} {self.first!r}, then {self.later}: arrived {self.arrived}, "
            f"late {self.late}, {size} bytes {self.got[:60]!r}, {self.end}>"
        )


class World:
    """One drain with its clients."""

    def __init__(self, seed: int, driver: str, ids: Identities) -> None:
        self.random = random.Random(seed)
        self.gates = Gates()
        self.clients: list[Client] = []
        workers = self.random.choice([1, 2, 4, 8])
        self.places = workers + self.random.choice([0, 4, 12])
        self.tls = ids if self.random.random() < 0.3 else None
        self.timeout = self.random.choice([0.3, 1.0, 3.0])
        self.grace = self.timeout * self.random.choice([0.25, 0.5])
        self.shortened = False
        self.obedient = self.random.random() < 0.5
        self.last_moments = 0
        self.asked = False
        self.settings: dict[str, Any] = {
            "drain_timeout": PATIENCE,
            "linger": self.random.choice([0.2, PATIENCE]),
            "drain_idle": self.random.choice([0.0, 0.0, 0.02, 0.2]),
            "max_connections": self.places,
        }
        if driver in ("threads", "messages"):
            self.settings["workers"] = workers
        if self.tls is not None:
            self.settings["tls"] = ids.server()

    def connect(self, server: Server, first: str, *, secured: bool = True) -> Client:
        sock = connect_to(server.address, PATIENCE)
        host, port = sock.getsockname()
        if self.tls is not None and secured:
            context = ssl.create_default_context(cafile=str(self.tls.ca))
            sock = context.wrap_socket(
                sock, server_hostname="localhost", suppress_ragged_eofs=False
            )
        client = Client(len(self.clients), sock, first, name=f"{host}:{port}")
        self.clients.append(client)
        return client

    def before(self, server: Server) -> None:
        """Bring the clients into their states; what they say has arrived when this returns."""
        inside = [
            self.connect(server, self.random.choice(FIRST))
            for _ in range(self.random.randint(1, self.places))
        ]
        for client in inside:
            for _ in range(self.random.choice([0, 0, 1, 3])):
                client.ask("A", client.arrived)
                client.read_answer()
        self.random.shuffle(inside)
        for client in inside:
            self.say_first(client)
        if self.tls is None:  # The others wait in the kernel's queue, if the server is full.
            for _ in range(self.random.choice([0, 0, 3, 10])):
                self.say_first(self.connect(server, self.random.choice(FIRST)))
        else:  # A full server finishes no handshake: these do not begin one, or only begin it.
            for _ in range(self.random.choice([0, 2])):
                client = self.connect(server, "hello", secured=False)
                client.sock.sendall(self.random.choice([b"", HALF_A_HELLO]))
        for client in self.clients:
            assert poll_until(lambda client=client: has_arrived(client), PATIENCE), client

    def say_first(self, client: Client) -> None:
        if client.first == "half":
            client.sock.sendall(client.request("A").encode())
        elif client.first in ("now", "then"):
            pass
        elif client.first == "reset":
            client.reset()
        elif client.first == "gone":
            client.close()
        elif client.first == "eof":
            client.ask("A", client.arrived)
            client.sock.shutdown(socket.SHUT_WR) if self.tls is None else None
        else:
            for kind in client.first:
                client.ask(kind, client.arrived)

    def during(self, server: Server) -> None:
        """Do what clients do while the server drains."""
        clients = [client for client in self.clients if client.first != "hello"]
        for client in self.random.sample(clients, len(clients)):
            client.later = self.random.choice(LATER)
            if not client.left:
                with contextlib.suppress(ConnectionError, ssl.SSLError):
                    self.do_later(client)
        if self.random.random() < 0.2:
            self.shortened = True
            server.drain(self.random.choice([0.0, 0.2]))

    def do_later(self, client: Client) -> None:
        if client.later == "open":
            for request in client.arrived:
                self.gates.of(request).cancel()
        elif client.later == "ask" and client.first != "half":
            client.ask("A", client.late)
        elif client.later == "complete" and client.first == "half":
            client.late.append(client.request("A"))
            client.sock.sendall(b"\n")
        elif client.later == "read" and "B" in client.first:
            client.read_to_the_end()
        elif client.later == "reset":
            client.reset()
        elif client.later == "close":
            client.close()

    def ask_now(self, which: str, *, owed: bool = True) -> None:
        for client in self.clients:
            if client.first == which:
                client.ask("A", client.arrived)
                if not owed or not has_arrived(client):
                    client.late.append(client.arrived.pop())

    def drain_now(self, server: Server) -> hs.DrainReport:
        self.ask_now("now")
        return server.drain(self.timeout, self.grace)

    def last_moment(self) -> None:
        """Comes in whatever thread is about to let connections wait no longer."""
        self.last_moments += 1
        if self.last_moments == 1:
            # Handlers that obey draining() may have ended already, if quiet ones do not stay.
            self.ask_now("then", owed=not self.obedient or self.settings["drain_idle"] > 0)
            self.asked = True

    def settled(self, server: Server) -> int:
        stats = server.stats()
        return stats.accepted - stats.active

    def run(self, driver: str) -> None:
        with contextlib.ExitStack() as stack:
            stack.enter_context(before_waits_end(self.last_moment))
            stack.callback(lambda: [client.sock.close() for client in self.clients])
            stack.callback(self.gates.open_all)
            handlers = talking(self.gates, self.obedient)
            with serving(driver, handlers, **self.settings) as server:
                self.before(server)
                ended_before = self.settled(server)
                asked = time.monotonic()
                with Call(self.drain_now, server) as draining:
                    assert poll_until(lambda: server.draining, PATIENCE)
                    begun_with = self.settled(server)
                    # Without a connection there is no last moment of one.
                    assert poll_until(lambda: self.asked or server._server.closed, PATIENCE)
                    self.during(server)
                    report = draining.result(self.timeout + PATIENCE)
                took = time.monotonic() - asked
                self.gates.open_all()
                for client in self.clients:
                    client.read_to_the_end()
            self.check_lines(server, report, ended_before, begun_with)
            assert took < self.timeout + PATIENCE / 2, "it has a deadline"
            if took < self.timeout - self.grace and not self.shortened:
                assert report.clean, "nothing is cut before the time for it"
            self.check_clients(report)

    def check_lines(
        self, server: Server, report: hs.DrainReport, ended_before: int, begun_with: int
    ) -> None:
        stats = server.stats()
        lines = report.completed + report.told + report.failed + report.idle_closed
        lines += report.cancelled + report.aborted
        assert stats.accepted - begun_with <= lines <= stats.accepted - ended_before, report
        assert len(report.cut) == report.cancelled + report.aborted
        assert len({cut.peer for cut in report.cut}) == len(report.cut)
        shakes = server.listener.stats().handshakes
        assert report.unaccepted is not None
        if shakes is None:
            assert stats.accepted + report.unaccepted == len(self.clients), (stats, report)

    def check_clients(self, report: hs.DrainReport) -> None:
        cut = {each.peer for each in report.cut}
        unexplained = []
        for client in self.clients:
            if client.left or client.first == "hello":
                continue
            answered = client.answered()
            asked = client.arrived + client.late
            assert answered == asked[: len(answered)], client
            owed = client.arrived[: owed_by(client)]
            if len(answered) < len(owed) and client.name not in cut:
                unexplained.append(client)
                assert client.end == "reset", f"hung up on: {client}\n{report}"
        assert report.unaccepted is not None
        assert len(unexplained) <= report.unaccepted, f"{unexplained}\n{report}"


@contextlib.contextmanager
def before_waits_end(act: Callable[[], object]) -> Iterator[None]:
    """Act before a drain ends what waits for messages, each time it does."""
    perform, end = Actions.perform, QuietConnections._end_waits

    def perform_late(turn: Actions) -> None:
        if turn.last:
            act()
        perform(turn)

    def end_late(server: QuietConnections) -> None:
        act()
        end(server)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Actions, "perform", perform_late)
        patch.setattr(QuietConnections, "_end_waits", end_late)
        yield


def owed_by(client: Client) -> int:
    """How many of its requests have to be answered: none from the one on that raises."""
    kinds = [request[0] for request in client.arrived]
    return kinds.index("E") if "E" in kinds else len(kinds)


def has_arrived(client: Client) -> bool:
    """Whether the server's kernel has acknowledged all that was said, or the server has reset."""
    if client.left or client.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO) == TCP_CLOSE:
        return True
    unacknowledged = fcntl.ioctl(client.sock.fileno(), termios.TIOCOUTQ, bytes(4))
    return bool(struct.unpack("i", unacknowledged)[0] == 0)


@pytest.mark.parametrize("seed", seeds(SEEDS))
def test_any_drain_keeps_its_promises(
    seed: int, driver: str, ids: Identities, caplog: pytest.LogCaptureFixture
) -> None:
    World(seed, driver, ids).run(driver)
    caplog.clear()  # Tracebacks of handlers keep their connections.


@pytest.mark.parametrize("obedient", [True, False])
def test_quiet_connections_are_not_lingered_for(driver: str, obedient: bool) -> None:
    """Their clients do not close: each would cost the whole time."""
    with contextlib.ExitStack() as stack:
        settings: dict[str, Any] = {"drain_timeout": 2 * PATIENCE, "linger": PATIENCE}
        handlers = talking(Gates(), obedient)
        server = stack.enter_context(serving(driver, handlers, max_connections=60, **settings))
        socks = [stack.enter_context(connect_to(server.address, PATIENCE)) for _ in range(50)]
        for number, sock in enumerate(socks):
            client = Client(number, sock, "")
            client.ask("A", client.arrived)
            client.read_answer()
        report = server.drain()
        assert report.elapsed < PATIENCE / 2
        # Of the last one the handler may be on its way back.
        assert report.told + report.idle_closed + report.completed == 50
        assert report.clean


@pytest.mark.parametrize("obedient", [True, False])
def test_quiet_connections_have_one_more_answer_in_a_drain(driver: str, obedient: bool) -> None:
    """A request may be on its way when the drain begins; nobody left, it is over at once."""
    settings: dict[str, Any] = {"drain_timeout": 4 * PATIENCE, "drain_idle": 2 * PATIENCE}
    with serving(driver, talking(Gates(), obedient), **settings) as server:
        clients = [Client(n, connect_to(server.address, PATIENCE), "") for n in range(4)]
        for client in clients:
            client.ask("A", client.arrived)
            client.read_answer()
        with Call(server.drain) as draining:
            assert poll_until(lambda: server.draining, PATIENCE)
            for client in clients:
                for _ in range(2):
                    client.ask("A", client.arrived)
                    client.read_answer()
                assert client.answered() == client.arrived, "it was told and not hung up on"
            for client in clients:
                client.close()
            report = draining.result(2 * PATIENCE)
        assert report.clean
        assert report.elapsed < 2 * PATIENCE, "nobody is waited for any more"
        assert report.completed + report.failed == 4, "failed: it read until a line's end"


def test_quiet_connections_make_room_in_a_drain(driver: str) -> None:
    """Who has asked, and waits in the kernel's queue, goes before who may ask."""
    settings: dict[str, Any] = {"drain_timeout": 4 * PATIENCE, "drain_idle": 2 * PATIENCE}
    if driver in ("threads", "messages"):
        settings["workers"] = 1
    with serving(driver, talking(Gates()), max_connections=1, linger=0.2, **settings) as server:
        clients = [Client(n, connect_to(server.address, PATIENCE), "") for n in range(2)]
        for client in clients:
            client.ask("A", client.arrived)
        clients[0].read_answer()
        report = server.drain()
        clients[1].read_answer()
        assert clients[1].answered() == clients[1].arrived, report
        for client in clients:
            client.close()


@pytest.mark.parametrize("obedient", [True, False])
def test_a_request_of_the_very_last_moment_is_answered(driver: str, obedient: bool) -> None:
    """It has arrived when the wait for it is about to be ended."""
    with contextlib.ExitStack() as stack:
        settings: dict[str, Any] = {"drain_timeout": PATIENCE, "linger": 0.2}
        if obedient:  # With 0 such handlers end at once.
            settings["drain_idle"] = 0.05
        server = stack.enter_context(serving(driver, talking(Gates(), obedient), **settings))
        socks = [stack.enter_context(connect_to(server.address, PATIENCE)) for _ in range(8)]
        clients = [Client(number, sock, "then") for number, sock in enumerate(socks)]
        for client in clients[:4]:  # The others have said nothing yet.
            client.ask("A", client.arrived)
            client.read_answer()
        assert poll_until(lambda: server.stats().active == len(clients), PATIENCE)
        moments = []

        def last_moment() -> None:
            moments.append(len(moments))
            if len(moments) == 1:
                for client in clients:
                    client.ask("A", client.arrived)
                    assert poll_until(lambda client=client: has_arrived(client), PATIENCE)

        stack.enter_context(before_waits_end(last_moment))
        report = server.drain(PATIENCE)
        assert moments, "the seam is still where connections are told"
        for client in clients:
            client.read_to_the_end()
            assert client.answered() == client.arrived, (client, report)


class Scarce:
    """Something that is not to be had for want of memory, a few times."""

    def __init__(self, real: Any, times: int) -> None:
        self._real = real
        self.times = times

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self.times > 0:
            self.times -= 1
            raise MemoryError
        return self._real(*args, **kwargs)


@pytest.mark.parametrize("what", ["wakeup", "step", "perform", "sum"])
def test_a_drain_outlives_a_want_of_memory(
    driver: str, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever it has no memory for: it ends in time, and nobody is left behind."""
    gates = Gates()
    settings: dict[str, Any] = {"drain_timeout": PATIENCE, "drain_idle": 0, "linger": 0.2}
    with serving(driver, talking(gates), **settings) as server:
        clients = [Client(i, connect_to(server.address, PATIENCE), "") for i in range(4)]
        for client in clients:
            client.ask("A", client.arrived)
            client.read_answer()
        for client in clients[:2]:
            client.ask("S", client.arrived)
        assert poll_until(lambda: all(has_arrived(client) for client in clients), PATIENCE)
        driven = sys.modules[
            "hardsock.serving.server"
            if driver in ("threads", "messages")
            else "hardsock.aio._server"
        ]
        owner, name = {
            "wakeup": (driven, "CancelToken"),
            "step": (Drain, "step"),
            "perform": (Actions, "perform"),
            "sum": (Drain, "_until_next"),
        }[what]
        real = getattr(owner, name)
        scarce = Scarce(real, 5)
        fake = scarce if what == "wakeup" else (lambda *args: scarce(*args))
        monkeypatch.setattr(owner, name, fake)
        began = time.monotonic()
        report = server.drain(1.0)
        assert time.monotonic() - began < PATIENCE / 2
        assert scarce.times == 0
        assert report.aborted + report.cancelled == 2, report
        gates.open_all()
        for client in clients:
            client.read_to_the_end()
            client.close()
    assert poll_until(lambda: not any("hardsock-serve" in t.name for t in threads()), PATIENCE)


def test_accepting_outlives_a_want_of_memory(driver: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also one in which there is none to tell of it."""
    settings: dict[str, Any] = {"max_connections": 1, "drain_timeout": PATIENCE, "linger": 0.2}
    if driver in ("threads", "messages"):
        settings["workers"] = 1
    with serving(driver, talking(Gates()), **settings) as server:
        full = Scarce(server._server._ledger.full, 3)
        log = Scarce(server._server._seldom.log, 3)
        monkeypatch.setattr(server._server._ledger, "full", full)
        monkeypatch.setattr(server._server._seldom, "log", log)
        for number in range(2):
            client = Client(number, connect_to(server.address, PATIENCE), "")
            client.ask("A", client.arrived)
            client.read_answer()
            assert client.answered() == client.arrived
            assert poll_until(lambda: full.times == log.times == 0, PATIENCE)
            client.close()


@pytest.mark.nightly
@pytest.mark.parametrize("seed", range(SEEDS, NIGHTLY_SEEDS))
@pytest.mark.parametrize("driver", [*DRIVERS, "uvloop"])
def test_any_drain_keeps_its_promises_all_night(
    seed: int,
    driver: str,
    ids: Identities,
    caplog: pytest.LogCaptureFixture,
    event_loops: None,
) -> None:
    World(seed, driver, ids).run(driver)
    caplog.clear()
