"""A peer that is gone without a word: who notices, and when."""

from __future__ import annotations

import contextlib
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import hardsock as hs
from hardsock.lab import inside
from hardsock.lab.endpoint import listen
from hardsock.lab.experiments.experiment import Bar, Chart, Experiment, Finding
from hardsock.lab.wire import InvalidResult, Wire

_PORT = 7100
_DEAD_AFTER = 2.0
_LOOK = 6.0
_PATIENCE = 60.0
_PLAIN = {
    "plain, idle": (False, False),
    "TCP_USER_TIMEOUT, idle": (True, False),
    "keepalive, data under way": (False, True),
}
_OURS = {"dead_after, idle": False, "dead_after, data under way": True}


def serve() -> None:
    """Accept, and say nothing."""
    with listen(Wire.B, _PORT) as listener, ExitStack() as stack:
        listener.settimeout(0.05)
        inside.ready()
        while not inside.should_stop():
            with contextlib.suppress(TimeoutError):
                stack.enter_context(listener.accept()[0])


def _plain(user_timeout: bool) -> socket.socket:
    sock = socket.create_connection((Wire.B, _PORT), timeout=_PATIENCE)
    sock.setblocking(False)
    if user_timeout:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(_DEAD_AFTER * 1000))
    return sock


def _send_with_keepalive(sock: socket.socket) -> None:
    """Data first: a client that stands still would find out by probes before it has sent any."""
    sock.send(b"a question")
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 2)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)


def _until_noticed(conn: hs.Connection, sends: bool, begin: float) -> tuple[float, str]:
    """Seconds until a call that waits has ended, and with what."""
    try:
        if sends:
            conn.sendall(b"a question", timeout=_PATIENCE)
        conn.recv(1, timeout=_PATIENCE)
    except hs.HardsockError as exc:
        return time.monotonic() - begin, type(exc).__name__
    return time.monotonic() - begin, "nothing"


def _has_noticed(sock: socket.socket) -> bool:
    try:
        return sock.recv(1) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


def wait_for_the_dead() -> dict[str, Any]:
    """Connect, and once the link is cut: who has noticed by the time that hardsock has."""
    options = hs.SocketOptions(dead_after=_DEAD_AFTER)
    with ExitStack() as stack:
        plain = {name: stack.enter_context(_plain(how[0])) for name, how in _PLAIN.items()}
        ours = {
            name: hs.connect((Wire.B, _PORT), timeout=_PATIENCE, options=options) for name in _OURS
        }
        for conn in ours.values():
            stack.callback(conn.abort)
        inside.ready()
        inside.wait_for_stop()  # The link is cut now.
        begin = time.monotonic()
        for name, (_, sends) in _PLAIN.items():
            if sends:
                _send_with_keepalive(plain[name])
        with ThreadPoolExecutor(len(ours)) as others:
            waits = {
                name: others.submit(_until_noticed, conn, _OURS[name], begin)
                for name, conn in ours.items()
            }
            noticed = {name: wait.result() for name, wait in waits.items()}
        # Probes that were sent would have ended a connection by then: 1 s of quiet and 2 probes.
        hs.sleep(max(0.0, begin + _LOOK - time.monotonic()))
        return {
            "hardsock": noticed,
            "plain": {name: _has_noticed(sock) for name, sock in plain.items()},
            "looked": time.monotonic() - begin,
        }


def _measure() -> Finding:
    invalid = ""
    with Wire(delay=0.01, seed=11) as wire, wire.b.start(serve, timeout=240.0) as server:
        server.wait_ready()
        with wire.a.start(wait_for_the_dead, timeout=240.0) as client:
            client.wait_ready()
            wire.set(down=True)
            found: dict[str, Any] = client.stop()
        conditions = wire.conditions()
        try:
            wire.judge()
        except InvalidResult as exc:
            invalid = str(exc)
    ours, plain, looked = found["hardsock"], found["plain"], found["looked"]
    idle, busy = (ours[name][0] for name in _OURS)
    return Finding(
        plain={"noticed": sum(plain.values()), "of": len(plain)},
        hardsock={"idle_seconds": idle, "data_under_way_seconds": busy},
        conditions=conditions,
        invalid=invalid,
        shown=not any(plain.values())
        and not {kind for _, kind in ours.values()} & {"nothing", "DeadlineExceeded"},
        text=f"A link was cut under {len(plain) + len(ours)} connections. With "
        f"`dead_after={_DEAD_AFTER:g}` a waiting call ended with `DeadPeer` after {idle:.1f} s on an "
        f"idle connection and after {busy:.1f} s with data under way. At {looked:.1f} s none of the "
        "others knew: a plain connection, an idle one with TCP_USER_TIMEOUT, and one with keepalive "
        "probes each second whose data was not acknowledged.",
        chart=Chart(
            kind="timeline",
            title=f"A link is cut: who notices? dead_after is {_DEAD_AFTER:g} s",
            x="seconds since it was cut",
            bars=[
                *(
                    Bar(name, 0, looked, "plain", failed=not plain[name], note="not noticed")
                    for name in _PLAIN
                ),
                *(Bar(name, 0, ours[name][0], "hardsock", note=ours[name][1]) for name in _OURS),
            ],
        ),
    )


DEAD_PEER = Experiment(
    name="dead-peer",
    title="Gone without a word",
    claim="Neither TCP_USER_TIMEOUT nor keepalive finds a dead peer by itself: the one does nothing on "
    "an idle connection, the other nothing while data is unacknowledged.",
    why="A peer whose power or path is gone sends neither FIN nor RST. On an idle connection nothing is "
    "sent, so nothing can stay unanswered, and TCP_USER_TIMEOUT has nothing to measure (RFC 5482). While "
    "data is under way the kernel sends no probes, but the data, up to 15 times: a quarter of an hour "
    "(tcp(7), tcp_retries2).",
    instead="`dead_after=` (45 s by default) sets keepalive and TCP_USER_TIMEOUT so that they agree, and "
    "ends what waits with `DeadPeer`. And a deadline on each call, which needs nobody's help.",
    measure=_measure,
    seconds=8,
)
