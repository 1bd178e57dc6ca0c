"""A client that says when it has said all, and waits for the answer."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import cast

import hardsock as hs
from hardsock.demo.measure import timed
from hardsock.demo.scene import Bound, Outcome, Scene
from hardsock.lab import Call, PeerScript
from hardsock.lab.endpoint import Address, connect_to

_ROUNDS = 20
_TIMEOUT = 5.0
_REQUEST = b"sort these lines\n"
_ANSWER = b"." * 10_000
_WORK = 0.01
_NEVER = 0.2
_SLACK = 0.1


def _ask_and_shutdown(address: Address) -> bool:
    """The right way with a plain socket; whether the answer came."""
    with connect_to(address, _TIMEOUT) as sock:
        sock.sendall(_REQUEST)
        sock.shutdown(socket.SHUT_WR)
        answer = b""
        while data := sock.recv(65536):
            answer += data
        return answer == _ANSWER


def _ask_and_close(address: Address) -> bool:
    """The mistake: the one who closes has no ear for the answer."""
    with connect_to(address, _TIMEOUT) as sock:
        sock.sendall(_REQUEST)
    return False


def _of_plain_server(ask: Callable[[Address], bool]) -> tuple[int, int]:
    """Answers that came, and answers that the server has sent without an error."""
    sent = 0

    def answer(sock: socket.socket) -> None:
        nonlocal sent
        sock.sendall(_ANSWER)
        sent += 1

    steps = [("recv_until_eof",), ("call", answer)]
    with PeerScript(steps, connections=_ROUNDS) as peer:
        came = sum(ask(peer.address) for _ in range(_ROUNDS))
    return came, sent


class _Answerer(asyncio.Protocol):
    """Works on the request once it is whole, and lets asyncio do what it does at a client's end."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def eof_received(self) -> None:
        asyncio.get_running_loop().call_later(_WORK, self._transport.write, _ANSWER)
        # None is the default, and closes.


async def _of_asyncio_server() -> int:
    """Answers that came."""
    server = await asyncio.get_running_loop().create_server(_Answerer, "127.0.0.1", 0)
    async with server:
        address = server.sockets[0].getsockname()
        return sum([await asyncio.to_thread(_ask_and_shutdown, address) for _ in range(_ROUNDS)])


def _stdlib() -> Outcome:
    right, _ = _of_plain_server(_ask_and_shutdown)
    lost, sent = _of_plain_server(_ask_and_close)
    dropped = asyncio.run(_of_asyncio_server())
    return Outcome(
        f"client shutdown(): {right} of {_ROUNDS} answers; client close(): {lost}, though {sent} "
        f"sends went well; server takes the end for goodbye, as asyncio.Protocol does: {dropped}"
    )


def _ask_by_hardsock(address: Address) -> bool:
    with hs.timeout(_TIMEOUT), hs.connect(address) as conn:
        conn.sendall(_REQUEST)
        conn.close_write()
        came = bool(conn.recv_exactly(len(_ANSWER)) == _ANSWER)
        return came and conn.recv(1) == b""


def _serve(listener: hs.Listener) -> str:
    """Answer at the client's end; how the connection ended, as far as can be known here."""
    with hs.timeout(_TIMEOUT), listener.accept() as conn:
        while conn.recv(65536):
            pass
        try:
            conn.sendall(_ANSWER)
        except hs.Reset:
            return "reset"
        report = conn.finish()
        return "delivered" if report.delivered else report.ending


def _of_hardsock_server(ask: Callable[[Address], bool], ending: str) -> tuple[int, int]:
    """Answers that came, and connections of which the server knows that they had that *ending*."""
    came = known = 0
    with hs.listen(("127.0.0.1", 0)) as listener:
        for _ in range(_ROUNDS):
            with Call(ask, listener.getsockname()) as client:
                known += _serve(listener) == ending
                came += client.result()
    return came, known


def _unanswered() -> tuple[str, float]:
    """The error that ends the wait for a peer that never answers nor ends, and its time."""
    with PeerScript([("recv_until_eof",), ("stall",)]) as peer:
        with hs.connect(peer.address, timeout=_TIMEOUT) as conn, timed() as watch:
            conn.close_write()
            try:
                conn.recv(1, timeout=_NEVER)
            except hs.DeadlineExceeded as exc:
                return type(exc).__name__, watch.seconds
    raise AssertionError("it answered")


def _hardsock() -> Outcome:
    came, known = _of_hardsock_server(_ask_by_hardsock, "delivered")
    _lost, told = _of_hardsock_server(_ask_and_close, "reset")
    error, seconds = _unanswered()
    return Outcome(
        f"close_write(): {came} of {_ROUNDS} answers, and finish() tells the server that {known} "
        f"were delivered; client close(): it tells that {told} were not; no answer ever: {error} "
        f"after {seconds:.2f} s",
        {"answers": came, "known deliveries": known, "known losses": told, "return": seconds},
    )


def _all(of: str) -> Bound:
    return Bound(of=of, at_least=_ROUNDS, at_most=_ROUNDS)


SCENE = Scene(
    name="half-close",
    title=f"{_ROUNDS} clients end their side, then wait for the answer",
    shows="Having no more to say is not being gone; and both sides can know whether it arrived.",
    stdlib=_stdlib,
    hardsock=_hardsock,
    bounds=(
        _all("answers"),
        _all("known deliveries"),
        _all("known losses"),
        Bound(of="return", at_least=_NEVER, at_most=_NEVER + _SLACK, unit="s"),
    ),
)
