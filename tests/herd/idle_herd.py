"""Thousands of idle connections, opened together, in a network namespace of their own: none may die.

Two processes hold the two ends, so that each end has a descriptor of its own limit. Every keepalive
probe crosses the namespace's loopback queue, where `net.core.netdev_max_backlog` is the limit that
probes in step overflow. Twenty more connections lose their peer when half the time is over, by a
firewall rule: they must be noticed within ``dead_after``.

    python tests/herd/idle_herd.py [--connections 19500] [--seconds 600] [--dead-after 45]
        [--in-step]

Prints one line of JSON; exit status 1 if a healthy connection ended or a dead one was noticed late.
Needs root, nft and as many descriptors as connections.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import select
import subprocess
import sys
import time
import traceback
from pathlib import Path

import hardsock as hs

LATE = 1.0
"""Seconds for this process to be scheduled and to look; the kernel's part is within dead_after."""


def softnet_drops() -> int:
    rows = Path("/proc/net/softnet_stat").read_text().splitlines()
    return sum(int(row.split()[1], 16) for row in rows)


def options_of(args: argparse.Namespace) -> hs.SocketOptions:
    """--in-step is the control: a herd that all probe at once, of which some must die."""
    if not args.in_step:
        return hs.SocketOptions(dead_after=args.dead_after)
    idle = int(args.dead_after / 2)
    return hs.SocketOptions(
        keepalive=True, keepalive_idle=idle, keepalive_interval=1, user_timeout=idle + 4
    )


def watch(conns: list[hs.Connection]) -> tuple[select.poll, dict[int, hs.Connection]]:
    poll = select.poll()
    by_number = {conn.fileno(): conn for conn in conns}
    for number in by_number:
        poll.register(number, select.POLLERR | select.POLLHUP | select.POLLRDHUP)
    return poll, by_number


def ended_until(conns: list[hs.Connection], until: float) -> list[float]:
    """When connections ended, as times of the monotonic clock."""
    poll, _ = watch(conns)
    ended: list[float] = []
    while (left := until - time.monotonic()) > 0 and len(ended) < len(conns):
        for number, _events in poll.poll(max(1, min(500, round(left * 1000)))):
            poll.unregister(number)
            ended.append(time.monotonic())
    return ended


def serve(args: argparse.Namespace, say: int, hear: int) -> None:
    options = options_of(args)
    with hs.listen(("127.0.0.1", 0), backlog=4096, options=options) as listener:
        os.write(say, b"%d\n" % listener.address[1])
        conns = [listener.accept(timeout=60) for _ in range(args.connections + args.dead)]
        healthy = [conn for conn in conns if not conn.getpeername()[0].startswith("127.9.")]
        os.write(say, b"all\n")
        poll, _ = watch(healthy)
        poll.register(hear, select.POLLIN)
        ended = 0
        while True:
            for number, _events in poll.poll():
                if number == hear:
                    os.write(say, b"%d\n" % ended)
                    os._exit(0)
                poll.unregister(number)
                ended += 1


def dial(args: argparse.Namespace, port: int) -> tuple[list[hs.Connection], list[hs.Connection]]:
    options = options_of(args)

    def one(source: str) -> hs.Connection:
        return hs.connect(("127.0.0.1", port), timeout=60, options=options, source=(source, 0))

    healthy = [one(f"127.0.0.{2 + i % 8}") for i in range(args.connections)]
    return healthy, [one("127.9.0.1") for _ in range(args.dead)]


def lose_peers() -> None:
    rules = """
        add table ip herd
        add chain ip herd input { type filter hook input priority 0; }
        add rule ip herd input ip saddr 127.9.0.1 drop
        add rule ip herd input ip daddr 127.9.0.1 drop
    """
    subprocess.run(["nft", "-f", "-"], input=rules, text=True, check=True)


def measure(args: argparse.Namespace) -> dict[str, object]:
    from_server, say = os.pipe()
    hear, to_server = os.pipe()
    server = os.fork()
    if server == 0:
        try:
            serve(args, say, hear)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(1)
    os.close(say)
    lines = os.fdopen(from_server)
    healthy, doomed = dial(args, int(lines.readline()))
    assert lines.readline() == "all\n"
    before, start = softnet_drops(), time.monotonic()
    ended = ended_until(healthy, start + args.seconds / 2)
    lose_peers()
    lost = time.monotonic()
    noticed = ended_until(doomed, lost + args.dead_after + 10)
    time_left = start + args.seconds - time.monotonic()
    ended = ended_until(healthy, time.monotonic() + max(0.0, time_left)) or ended
    os.write(to_server, b"x")
    ended_there = int(lines.readline())
    os.waitpid(server, 0)
    return {
        "connections": args.connections,
        "seconds": round(time.monotonic() - start),
        "dead_after": args.dead_after,
        "ended here": len(ended),
        "ended there": ended_there,
        "softnet drops of the whole machine": softnet_drops() - before,
        "dead": args.dead,
        "noticed": len(noticed),
        "noticed after": [round(when - lost, 1) for when in (min(noticed), max(noticed))]
        if noticed
        else None,
        "ok": not ended
        and ended_there == 0
        and len(noticed) == args.dead
        and max(noticed) - lost <= args.dead_after + LATE,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--connections", type=int, default=19500)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--dead-after", type=float, default=45)
    parser.add_argument("--dead", type=int, default=20)
    parser.add_argument("--in-step", action="store_true")
    args = parser.parse_args()
    if "HERD_NAMESPACE" not in os.environ:
        os.environ["HERD_NAMESPACE"] = "1"
        os.execvp("unshare", ["unshare", "-n", sys.executable, *sys.argv])
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    result = measure(args)
    print(json.dumps(result))
    return 0 if result["ok"] else 1


if __name__ == "__main__":
    sys.exit(main())
