"""The lab's wire: what it does to packets, that it judges itself, and that nothing is left of it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from hardsock.lab import Unavailable, poll_until
from hardsock.lab._program import lacking
from hardsock.lab.wire import Direction, Impairment, InvalidResult, Wire, WireStats
from support.require import available
from support.wire_traffic import across, bulk, send

pytestmark = [pytest.mark.net, pytest.mark.slow]


@pytest.fixture(params=["tun", "packet"])
def lay(request: pytest.FixtureRequest) -> Any:
    """A function that lays a wire over each kind of device."""
    opened = []

    def lay(**settings: Any) -> Wire:
        wire = Wire(backend=request.param, **settings)
        with available():
            opened.append(wire.__enter__())
        return wire

    yield lay
    for wire in opened:
        wire.close()


def test_packets_take_as_long_as_asked_for(lay: Callable[..., Wire]) -> None:
    wire = lay(delay=0.05)
    came = across(wire, 400, 1000)
    assert [number for number, _, _ in came] == list(range(400))
    assert min(took for _, took, _ in came) >= 50_000_000
    stats = wire.stats()
    assert stats.ab.delivered == stats.ab.got == 450
    # The kernel may drop what is none of ours: all of those have come.
    assert stats.ab.lost + stats.ab.unasked == 0


def test_ipv6_goes_through_too(lay: Callable[..., Wire]) -> None:
    assert len(across(lay(), 50, 1000, host=Wire.B6)) == 50


def test_its_addresses_can_be_bound_at_once(lay: Callable[..., Wire]) -> None:
    """0x02 is IFA_F_NODAD: nobody is asked for the address first, so it waits for no kernel thread."""
    script = "result = [line.split() for line in open('/proc/net/if_inet6')]"
    wire = lay()
    for end in (wire.a, wire.b):
        (flags,) = (words[4] for words in end.run(script) if words[0].startswith("fd77"))
        assert int(flags, 16) & 0x02


def test_a_program_that_cannot_be_run_is_not_said_to_be_missing(tmp_path: Path) -> None:
    file = tmp_path / "program"
    assert lacking(file) == f"{file} is not there: this hardsock was built without its lab"
    file.touch(0o644)
    assert lacking(file) == f"{file} cannot be run: it is not executable by this user"
    assert lacking(file / "more") == f"{file}/more cannot be run: Not a directory"
    file.chmod(0o755)
    assert lacking(file) is None


def test_the_same_seed_loses_the_same_packets(lay: Callable[..., Wire]) -> None:
    # In 500 of which 15 % are lost, two runs that drew anew would agree by a chance of 10^-73.
    first = [number for number, _, _ in across(lay(loss=0.15, seed=7), 500, 5000)]
    again = [number for number, _, _ in across(lay(loss=0.15, seed=7), 500, 5000)]
    other = [number for number, _, _ in across(lay(loss=0.15, seed=8), 500, 5000)]
    assert first == again
    assert first != other
    assert 370 <= len(first) <= 475


def test_one_direction_may_be_worse_than_the_other(lay: Callable[..., Wire]) -> None:
    wire = lay()
    wire.set("ba", loss=1.0)
    assert len(across(wire, 50, 1000)) == 50
    assert wire.stats().ab.lost == 0


@pytest.mark.parametrize("host", [Wire.B, Wire.B6])
def test_neighbours_are_found_where_all_else_is_lost(lay: Callable[..., Wire], host: str) -> None:
    """ARP and neighbour discovery pass: else nothing would ever be sent that could be lost."""
    wire = lay(loss=1.0)
    wire.a.run(send, host, 20, 1000.0, timeout=60.0)
    assert poll_until(lambda: wire.stats().ab.lost == 70, 30.0), wire.stats()
    assert (wire.stats().ab.got, wire.stats().ab.delivered) == (70, 0)
    if wire.backend == "packet":
        assert wire.stats().ab.passed > 0  # the question
        assert wire.stats().ba.passed > 0  # its answer


def test_copies_late_ones_and_broken_ones(lay: Callable[..., Wire]) -> None:
    wire = lay(duplicate=1.0)
    assert len(across(wire, 50, 1000)) == 100
    wire.set(duplicate=0.0, corrupt=1.0)
    # What the checksum finds broken is not delivered to anybody.
    assert across(wire, 50, 1000, silence=0.1) == [] or wire.stats().ab.corrupted >= 50


def test_a_partition_begins_and_ends_while_it_runs(lay: Callable[..., Wire]) -> None:
    wire = lay()
    with wire.b.start(_answer, Wire.B) as server:
        server.wait_ready()
        with wire.a.start(_ask_again_and_again, Wire.B) as client:
            client.wait_ready()
            wire.set(down=True)
            cut = wire.stats().ab.cut
            assert poll_until(lambda: wire.stats().ab.cut > cut, 30.0)
            wire.set(down=False)
            assert client.stop() > 0


def _answer(host: str) -> None:
    from hardsock.lab import inside

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind((host, 7777))
        inside.ready()
        sock.settimeout(0.05)
        while not inside.should_stop():
            try:
                data, peer = sock.recvfrom(100)
            except TimeoutError:
                continue
            sock.sendto(data, peer)


def _ask_again_and_again(host: str) -> int:
    """How many answers come after one that did not, while we are not told to stop."""
    from hardsock.lab import inside

    answers, silent = 0, False
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(0.1)
        while not (answers and silent and inside.should_stop()):
            sock.sendto(b"x", (host, 7777))
            try:
                sock.recv(100)
            except TimeoutError:
                silent, answers = True, 0
                continue
            if not silent and answers == 0:
                inside.ready()
            answers += 1
    return answers


def test_a_link_can_be_slow(lay: Callable[..., Wire]) -> None:
    wire = lay(rate=50e6, delay=0.005, queue=256 << 10)
    assert bulk(wire) < 50e6


def test_a_result_that_it_cannot_stand_for_is_invalid(monkeypatch: pytest.MonkeyPatch) -> None:
    good = Direction(*[0] * 12, *[0.0] * 4)
    wire = Wire(delay=0.05)

    def judge(ab: dict[str, Any], **more: Any) -> WireStats:
        stats = WireStats(
            Direction(**{**vars(good), **ab}),
            good,
            **{"kernel_drops": 0, "realtime": False, "cpu": 0.0, **more},
        )
        monkeypatch.setattr(wire, "stats", lambda: stats)
        return wire.judge()

    assert judge({"late_p999": 0.0049}).ab.late_p999 == 0.0049
    with pytest.raises(InvalidResult, match=r"ab: one packet in a thousand came 5\.10 ms late"):
        judge({"late_p999": 0.0051})
    with pytest.raises(InvalidResult, match="3 packets were dropped unasked"):
        judge({"unasked": 1}, kernel_drops=2)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"loss": 1.5}, "loss must be from 0 to 1, got 1.5"),
        ({"delay": -1}, "delay must be a number and not negative, got -1"),
        ({"delay": float("nan")}, "delay must be a number"),
        ({"jitter": 0.1}, r"jitter must be at most the delay \(0.0 s\), got 0.1 s"),
        ({"burst": 0.5}, "burst must be at least 1"),
        ({"reorder": 0.5}, "reorder and gap go together"),
        ({"queue": 5}, "queue without rate"),
    ],
)
def test_impairments_that_make_no_sense_are_refused(settings: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Impairment(**settings)


def test_a_change_is_made_whole_or_not_at_all(lay: Callable[..., Wire]) -> None:
    wire = lay(delay=0.01)
    with pytest.raises(ValueError, match="there is no impairment 'dely'"):
        wire.set(loss=0.5, dely=1)
    with pytest.raises(ValueError, match="way must be"):
        wire.set("up", loss=0.5)  # type: ignore[arg-type]
    assert wire.ab == Impairment(delay=0.01)
    assert "error there is no setting dely" == wire._ask("set ab loss=1 dely=1")
    assert "error the direction is ab, ba or both" == wire._ask("set up loss=1")
    assert "error loss=x: NAME=NUMBER, and no less than 0" == wire._ask("set ab loss=x")
    assert "error there is no command dance" == wire._ask("dance")
    assert len(across(wire, 20, 1000)) == 20


def test_conditions_name_what_decides_results(lay: Callable[..., Wire]) -> None:
    conditions = lay(delay=0.01, seed=3).conditions()
    assert (conditions["seed"], conditions["ab"]["delay"]) == (3, 0.01)
    assert conditions["sysctls"]["tcp_congestion_control"] in ("cubic", "reno")


# ---- whatever dies


def relays() -> set[int]:
    found = set()
    for entry in Path("/proc").glob("[0-9]*/comm"):
        try:
            if entry.read_text() == "hardsock-wire\n":
                found.add(int(entry.parent.name))
        except OSError:
            continue
    return found


def test_nothing_is_left_when_its_owner_is_killed() -> None:
    script = (
        "import sys\n"
        "from hardsock.lab.wire import Wire\n"
        "with Wire() as wire:\n"
        "    print(wire._relay.process.pid, flush=True)\n"
        "    sys.stdin.read()\n"
    )
    with available():
        Wire().__enter__().close()
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as owner:
        assert owner.stdout is not None
        relay = int(owner.stdout.readline())
        assert relay in relays()
        owner.send_signal(signal.SIGKILL)
        owner.wait()
        assert poll_until(lambda: relay not in relays(), 30.0)


def test_a_wire_outlives_the_thread_that_laid_it() -> None:
    wire = Wire()
    with available(), ThreadPoolExecutor(1) as threads:
        threads.submit(wire.__enter__).result()
    with closing(wire):
        assert len(across(wire, 20, 1000)) == 20


def test_a_relay_that_dies_makes_results_invalid(lay: Callable[..., Wire]) -> None:
    wire = lay()
    assert wire._relay is not None
    wire._relay.process.kill()
    with pytest.raises(InvalidResult, match="hardsock-wire died: status -9"):
        wire.judge()


def test_a_wire_that_cannot_be_laid_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hardsock.lab.wire._RELAY", Path("/nowhere/hardsock-wire"))
    with pytest.raises(Unavailable, match="built without its lab"):
        Wire().__enter__()
    monkeypatch.undo()
    with pytest.raises(Unavailable, match="congestion control nosuch"):
        Wire(congestion="nosuch").__enter__()


def test_it_is_used_in_a_block() -> None:
    with pytest.raises(RuntimeError, match="with block"):
        Wire().set(loss=0.1)


@pytest.mark.parametrize("backend", ["any", "packet"])
def test_an_ordinary_user_has_one_too(backend: str) -> None:
    # Nobody, but for the right to read the interpreter, which may be in somebody's home.
    reads = "-all,+dac_read_search"
    setpriv = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    setpriv += [f"--inh-caps={reads}", f"--ambient-caps={reads}", f"--bounding-set={reads}"]
    setpriv = setpriv if os.geteuid() == 0 else []
    script = (
        "import sys\n"
        f"sys.path[:] = {sys.path!r}\n"
        "from hardsock.lab.wire import Wire\n"
        "from support.wire_traffic import across\n"
        f"with Wire(delay=0.01, loss=0.15, seed=7, backend={backend!r}) as wire:\n"
        "    print('user' in wire.a._fds, len(across(wire, 200, 1000)))\n"
    )
    done = subprocess.run(
        [*setpriv, sys.executable, "-c", script], capture_output=True, text=True, timeout=120
    )
    if "NamespaceUnavailable" in done.stderr:
        with available():
            raise Unavailable(done.stderr[-500:])
    assert done.returncode == 0, done.stderr
    in_a_user_namespace, came = done.stdout.split()
    assert in_a_user_namespace == "True"
    assert 130 <= int(came) < 200
