"""An impaired link between two network namespaces, without netem and without root.

    with Wire(delay=0.05, loss=0.15, seed=7) as wire:
        with wire.b.start("my_service:serve", 8080) as server:
            server.wait_ready()
            took = wire.a.run("my_client:ask", wire.B, 8080)
        wire.judge()

Each packet's fate depends on the seed, the direction and its number, so a run can be had again as
far as the two ends send the same packets. The relay between them is a small program of its own; it
measures itself, and `Wire.judge` refuses what it cannot stand for.
"""

from __future__ import annotations

import json
import math
import platform
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final, Literal

from hardsock.lab._program import Program
from hardsock.lab.namespaces import Namespace
from hardsock.lab.unavailable import InvalidResult, Unavailable

__all__ = ["Direction", "Impairment", "InvalidResult", "Wire", "WireStats"]

_RELAY = Path(__file__).with_name("hardsock-wire")
# Less is within what a scheduler does, whatever the delay is.
_LEAST_LATENESS = 0.001

Backend = Literal["any", "tun", "packet"]
Way = Literal["ab", "ba", "both"]


@dataclass(frozen=True, kw_only=True)
class Impairment:
    """What one direction does to its packets. Times in seconds, chances from 0 to 1.

    Attributes:
        delay: Of each packet, one way.
        jitter: Up to that much more or less, evenly; packets keep their order. At most *delay*.
        loss: Chance that a packet is lost.
        burst: Mean length of a series of lost packets (Gilbert's model); 1: each for itself.
        duplicate: Chance that it comes twice.
        reorder: Chance that a packet falls back by *gap*, and is overtaken by what comes behind it.
        gap: Seconds by which it falls back.
        corrupt: Chance that one bit of it is changed, behind the ports.
        rate: Bits a second, IP headers included; 0: no limit.
        queue: Bytes that may wait where the rate is limited; what comes then is dropped. 0: no
            limit.
        down: Nothing gets through: a partition.
    """

    delay: float = 0.0
    jitter: float = 0.0
    loss: float = 0.0
    burst: float = 1.0
    duplicate: float = 0.0
    reorder: float = 0.0
    gap: float = 0.0
    corrupt: float = 0.0
    rate: float = 0.0
    queue: float = 0.0
    down: bool = False

    def __post_init__(self) -> None:
        for one in fields(self):
            value = getattr(self, one.name)
            if not math.isfinite(value) or value < 0:
                raise ValueError(f"{one.name} must be a number and not negative, got {value!r}")
        for name in ("loss", "duplicate", "reorder", "corrupt"):
            if getattr(self, name) > 1:
                raise ValueError(f"{name} must be from 0 to 1, got {getattr(self, name)!r}")
        if self.jitter > self.delay:
            raise ValueError(
                f"jitter must be at most the delay ({self.delay} s), got {self.jitter} s"
            )
        if self.burst < 1:
            raise ValueError(f"burst must be at least 1, got {self.burst!r}")
        if bool(self.reorder) != bool(self.gap):
            raise ValueError("reorder and gap go together: how many fall back, and how far")
        if self.queue and not self.rate:
            raise ValueError("queue without rate: nothing would wait in it")

    def _words(self) -> str:
        return " ".join(f"{f.name}={float(getattr(self, f.name))!r}" for f in fields(self))


@dataclass(frozen=True)
class Direction:
    """What has happened in one direction since the wire was laid.

    Attributes:
        got: Packets that came in, without those that passed.
        delivered: Packets that went out.
        bytes: Of those delivered.
        lost: Packets dropped by ``loss``.
        duplicated: Packets that went out twice, by ``duplicate``.
        reordered: Packets that fell back, by ``reorder``.
        corrupted: Packets with a bit changed, by ``corrupt``.
        queue_full: Packets dropped because ``queue`` was full.
        cut: Dropped while it was down.
        passed: ARP, neighbour discovery and group membership: at once, and with no part in all
            this.
        unasked: Dropped by the relay though nobody asked for it.
        on_the_way: Packets that wait for their time now.
        late_mean: Seconds after its time that a packet was delivered, on average.
        late_p99: Seconds that the latest of a hundred packets was late.
        late_p999: Seconds that the latest of a thousand packets was late.
        late_max: Seconds that the latest of all was late.
    """

    got: int
    delivered: int
    bytes: int
    lost: int
    duplicated: int
    reordered: int
    corrupted: int
    queue_full: int
    cut: int
    passed: int
    unasked: int
    on_the_way: int
    late_mean: float
    late_p99: float
    late_p999: float
    late_max: float


@dataclass(frozen=True)
class WireStats:
    """What the relay says of itself.

    Attributes:
        ab: What went from the first end to the second.
        ba: What went from the second end to the first.
        kernel_drops: Packets that the kernel dropped between the relay and the two ends, unasked.
        realtime: Whether the relay runs before other programs.
        cpu: Seconds of processor time.
    """

    ab: Direction
    ba: Direction
    kernel_drops: int
    realtime: bool
    cpu: float


class Wire:
    """Two namespaces, `a` and `b`, and the link between them (device ``wire0`` in each).

    The packets are passed on by a process of its own; any thread may change what happens to them.

    Args:
        seed: Decides the fate of packets.
        backend: ``"tun"`` needs /dev/net/tun; ``"packet"`` (veth and AF_PACKET) does not, and is
            what an ordinary user gets; ``"any"``: the first that works.
        congestion: ``net.ipv4.tcp_congestion_control`` at both ends, the first of a list that the
            kernel lets a namespace have; ``None``: the machine's own. It decides results, so it is
            the same wherever possible, and told by `conditions`.
        impairment: Of both directions, as for `Impairment`: ``delay=0.05, loss=0.15``. `set` gives
            the directions different ones.

    Raises:
        ValueError: An impairment that makes no sense; the message names it.
        Unavailable: On entry: no namespaces, no device, or the relay is not installed.
    """

    A: Final = "10.77.0.1"
    B: Final = "10.77.0.2"
    A6: Final = "fd77::1"
    B6: Final = "fd77::2"

    def __init__(
        self,
        *,
        seed: int = 0,
        backend: Backend = "any",
        congestion: str | None = "cubic,reno",
        **impairment: Any,
    ) -> None:
        both = Impairment(**impairment)
        self.ab = self.ba = both
        """What each direction does at the moment."""
        self.seed, self.congestion = seed, congestion
        self.backend: str = backend
        self._home = Namespace(mount=False)
        self.a = Namespace(beside=self._home)
        self.b = Namespace(beside=self._home)
        self._relay: Program | None = None

    def __enter__(self) -> Wire:
        try:
            for one in (self._home, self.a, self.b):
                one.__enter__()
            self._start()
            self._say("ab", self.ab)
            self._say("ba", self.ba)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_details: object) -> None:
        self.close()

    def close(self) -> None:
        """Take the link away, and let go of both namespaces. Safe to call twice."""
        if self._relay is not None:
            self._relay.close()
            self._relay = None
        for one in (self.b, self.a, self._home):
            one.close()

    def set(self, way: Way = "both", **changes: Any) -> None:
        """Change *changes* of a direction (``"ab"``, ``"ba"``, ``"both"``) from the next packet on.

        ``wire.set(down=True)`` cuts the link; what is on its way already arrives.

        Raises:
            ValueError: It makes no sense; nothing has changed.
        """
        if way not in ("ab", "ba", "both"):
            raise ValueError(f"way must be 'ab', 'ba' or 'both', got {way!r}")
        ways = ("ab", "ba") if way == "both" else (way,)
        changed = {one: _changed(getattr(self, one), changes) for one in ways}
        for one, impairment in changed.items():
            self._say(one, impairment)
            setattr(self, one, impairment)

    def stats(self) -> WireStats:
        """What has happened to packets so far, and how well the relay did."""
        found = json.loads(self._ask("stats"))
        return WireStats(Direction(**found.pop("ab")), Direction(**found.pop("ba")), **found)

    def judge(self) -> WireStats:
        """Return `stats`, if what was measured on this wire can be stood for.

        Raises:
            InvalidResult: Packets were dropped that nobody asked to be, or more than one in a
                thousand was later than a tenth of its delay (and than 1 ms).
        """
        stats = self.stats()
        problems = []
        if dropped := stats.kernel_drops + stats.ab.unasked + stats.ba.unasked:
            problems.append(f"{dropped} packets were dropped unasked")
        for name, found in (("ab", stats.ab), ("ba", stats.ba)):
            allowed = max(getattr(self, name).delay / 10, _LEAST_LATENESS)
            if found.late_p999 > allowed:
                problems.append(
                    f"{name}: one packet in a thousand came {found.late_p999 * 1e3:.2f} ms late "
                    f"and more, {allowed * 1e3:.2f} ms are allowed"
                )
        if problems:
            raise InvalidResult("; ".join(problems))
        return stats

    def conditions(self) -> dict[str, Any]:
        """What a result on this wire depends on, for its report."""
        keys = ("tcp_congestion_control", "tcp_rmem", "tcp_wmem", "tcp_timestamps", "tcp_sack")
        script = (
            "from hardsock.lab import inside\n"
            "result = {key: inside.read_sysctl('net.ipv4.' + key) for key in args[0]}\n"
        )
        return {
            "kernel": platform.release(),
            "backend": self.backend,
            "seed": self.seed,
            "offloads": "off: no segment is larger than the MTU of 1500 bytes",
            "ab": vars(self.ab),
            "ba": vars(self.ba),
            "sysctls": self.a.run(script, keys),
        }

    def _say(self, way: str, impairment: Impairment) -> None:
        answer = self._ask(f"set {way} {impairment._words()}")
        if answer != "ok":
            raise ValueError(answer)

    def _start(self) -> None:
        fds = [one._fds["net"] for one in (self._home, self.a, self.b)]
        user = self._home._fds.get("user", -1)
        arguments = [self.backend, str(user), *map(str, fds), str(self.seed)]
        if self.congestion is not None:
            arguments.append(self.congestion)
        self._relay = Program(_RELAY, arguments, [fd for fd in (user, *fds) if fd >= 0])
        said, _, what = self._relay.line().partition(" ")
        if said != "ready":
            raise Unavailable(f"no wire between the namespaces: {what}")
        self.backend = what

    def _ask(self, command: str) -> str:
        if self._relay is None:
            raise RuntimeError("the wire is not laid: use it in a with block")
        return self._relay.ask(command)


def _changed(before: Impairment, changes: dict[str, Any]) -> Impairment:
    unknown = changes.keys() - {one.name for one in fields(Impairment)}
    if unknown:
        raise ValueError(f"there is no impairment {sorted(unknown)[0]!r}")
    return Impairment(**{**vars(before), **changes})
