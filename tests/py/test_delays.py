"""measure_delays: how late what arrives is noticed, on each kind of server."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

import hardsock as hs
from hardsock import aio
from hardsock.lab.endpoint import connect_to
from hardsock.lab.waits import poll_until
from support.conversation import Step, Steps, handlers
from support.loops import MAINS, RunMain
from support.serving import DRIVERS, serving

MANY = 210  # messages, of which one of seven is measured
CROWD = 28
HELD = 0.06
EDGE = 0.05
SO_TIMESTAMPING_NEW = 65


@pytest.fixture(scope="module", autouse=True)
def stamping() -> Iterator[None]:
    """The kernel begins to stamp some time after the first socket asked for it, and stops with the
    last: one asks for it all the while."""
    software = 1 << 3 | 1 << 4  # SOF_TIMESTAMPING_RX_SOFTWARE, SOF_TIMESTAMPING_SOFTWARE
    with socket.create_server(("127.0.0.1", 0)) as listener:
        with socket.create_connection(listener.getsockname()) as peer, listener.accept()[0] as ours:
            ours.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPING_NEW, software)

            def stamped() -> bool:
                peer.sendall(b"x")
                return ours.recvmsg(1, 256)[1] != []

            assert poll_until(stamped, 20)
            yield


def echo() -> Steps:
    try:
        text = yield Step(
            "recv_until", b"\n", {"keep": True, "timeout": 20, "token": hs.draining()}
        )
    except hs.EndOfStream:
        return False
    yield Step("sendall", text, {"timeout": 20})
    return True


@pytest.mark.parametrize("driver", DRIVERS)
def test_messages_are_measured_on_each_kind_of_server(driver: str) -> None:
    waited = hs.metrics()["seconds"]["worker_wait"]["count"]
    with serving(driver, handlers(echo), measure_delays=True) as server:
        with hs.connect(server.address, timeout=20) as client:
            for _ in range(MANY):
                client.sendall(b"hello\n")
                assert client.recv_until(b"\n", timeout=20) == b"hello"
        stats = server.settled()
        assert set(stats.delays) == {"queue", "start", "loop", "lock"}
        queue = stats.delays["queue"]
        # A look at an empty queue measures nothing, and may be one of two of a message's looks.
        assert MANY / 7 / 4 <= queue.total <= 4 * MANY
        assert queue.edges[0] == pytest.approx(1e-5)
        assert len(queue.counts) == len(queue.edges) + 1
        assert stats.delays["start"].total == (0 if driver.endswith("messages") else 1)
        waited = hs.metrics()["seconds"]["worker_wait"]["count"] - waited
        assert waited == stats.delays["start"].total
        assert stats.delays["lock"].total > 0


def test_nothing_is_measured_unless_it_is_asked_for() -> None:
    with serving("threads", handlers(echo)) as server:
        with hs.connect(server.address, timeout=20) as client:
            client.sendall(b"hello\n")
            client.recv_until(b"\n", timeout=20)
        assert server.stats().delays == {}
    with pytest.raises(TypeError, match="measure_delays must be a bool"):
        serving("threads", handlers(echo), measure_delays=1).__enter__()


def test_what_waits_for_a_worker_is_seen_to_wait() -> None:
    """A worker that is held up holds up what arrives meanwhile: all of it, for so long."""
    may_go_on, begun = threading.Event(), threading.Event()

    def handler(conn: hs.Connection) -> None:
        text = conn.recv(100)
        if text == b"hold":
            begun.set()
            assert may_go_on.wait(20)
        conn.sendall(text)

    settings: dict[str, Any] = {"per": "message", "workers": 1, "drain_timeout": 10}
    with hs.serve(handler, ("127.0.0.1", 0), measure_delays=True, **settings) as server:
        clients = [connect_to(server.address, 20) for _ in range(CROWD)]
        assert poll_until(lambda: server.stats().parked == CROWD, 20)
        with connect_to(server.address, 20) as first:
            first.sendall(b"hold")
            assert begun.wait(20)
            before = server.stats().delays["queue"].above(EDGE)
            for client in clients:
                client.sendall(b"wait")
            assert poll_until(lambda: server.stats().waiting >= CROWD, 20)
            arrived = time.monotonic()
            assert poll_until(lambda: time.monotonic() - arrived > HELD, 20)
            may_go_on.set()
            for client in clients:
                assert client.recv(100) == b"wait"
                client.close()
            late = server.stats().delays["queue"].above(EDGE) - before
            assert late == CROWD // 7  # Each was looked at once.


@pytest.mark.parametrize("per", ["connection", "message"])
@pytest.mark.parametrize("loop", MAINS)
def test_a_loop_that_is_held_up_is_seen_to_lag(loop: str, per: str, event_loops: None) -> None:
    run: RunMain = MAINS[loop]

    async def handler(conn: aio.Connection) -> None:
        await conn.recv(100)
        begun = time.monotonic()
        while time.monotonic() - begun < 3 * HELD:  # What no handler in an event loop should do.
            pass
        await conn.sendall(b"done")

    async def main() -> None:
        settings: dict[str, Any] = {"per": per, "drain_timeout": 10, "measure_delays": True}
        async with aio.serve(handler, ("127.0.0.1", 0), **settings) as server:
            lag = 0
            while lag == 0:
                async with await aio.connect(server.address, timeout=60) as client:
                    await client.sendall(b"go")
                    assert await client.recv(10, timeout=60) == b"done"
                lag = server.stats().delays["loop"].above(EDGE)

    run(main)


# Asks on any connection that has its answer, at a steady rate, whether or not answers come.
CLIENTS = """
import random, select, socket, sys, time

port, size, rate, seconds = int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
by_fd = {}
poll = select.epoll()
for _ in range(size):
    sock = socket.create_connection(("127.0.0.1", port), 60)
    sock.setblocking(False)
    by_fd[sock.fileno()] = sock
    poll.register(sock, select.EPOLLIN)
free, sent, began = list(by_fd.values()), 0, time.monotonic()
while (passed := time.monotonic() - began) < seconds:
    while sent < passed * rate and free:
        free.pop(random.randrange(len(free))).send(b"x")
        sent += 1
    for fd, _ in poll.poll(0.001):
        if by_fd[fd].recv(100):
            free.append(by_fd[fd])
"""


@pytest.mark.nightly
@pytest.mark.timing
def test_the_collapse_of_a_thread_for_each_connection_shows_and_the_parked_have_none() -> None:
    """2,000 connections, 2,000 questions a second: the same clients, and the same work.

    A machine that is busy with others lets messages lie in both queues; what threads wait for each
    other is of our own making.
    """
    size = 2_000

    def mean_wait(per: str, workers: int) -> float:
        """For the lock; which is counted on from server to server."""

        def handler(conn: hs.Connection) -> None:
            while data := conn.recv(100, timeout=60):
                sum(range(2_000))
                conn.sendall(data)
                if per == "message":
                    return

        settings: dict[str, Any] = {"per": per, "workers": workers, "max_connections": size}
        address = ("127.0.0.1", 0)
        with hs.serve(
            handler, address, drain_timeout=30, measure_delays=True, **settings
        ) as server:
            before = server.stats().delays["lock"]
            said = [str(server.address[1]), str(size), "2000", "3"]
            subprocess.run([sys.executable, "-c", CLIENTS, *said], check=True, timeout=120)
            after = server.stats().delays["lock"]
        return (after.seconds - before.seconds) / (after.total - before.total)

    threads, parked = mean_wait("connection", size), mean_wait("message", 8)
    assert threads > 5 * parked, (threads, parked)
