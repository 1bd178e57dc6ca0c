"""Breaks the core in ways that have happened elsewhere, one at a time, and looks whether a seed says so.

    python tests/simulation/mutations.py [--seeds N] [--jobs N] [NAME...]

A simulator that never fails proves nothing; nor does a model (tests/c/test_pool_model.c). Each mutation
replaces one piece of one file in a copy of the sources below build/mutations; then seeds of the program that
is to find it are run until one fails. A piece that is not there any more, or a mutation that survives all
seeds, is an error.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

TOP = Path(__file__).resolve().parent.parent.parent
TREE = TOP / "build" / "mutations"
SIMULATOR = "build/debug/tests/simulation/simulate"
POOL_MODEL = "build/debug/tests/c/test_pool_model"
MODEL_SEEDS = 120  # as many as `make test-c` runs: what it finds, every change is asked for
SAID = re.compile(r"^seed \d+: (?:[0-9.]+ s, )?(?P<said>.*)$", re.M)
SAID_BY_CHECK = re.compile(r"^[^\n]*:[FE]:[^\n]*?:\d+: (?P<said>.*)$", re.M)


@dataclass(frozen=True)
class Mutation:
    name: str
    file: str
    old: str
    new: str
    finder: str = SIMULATOR


MUTATIONS = [
    Mutation(
        "a wait forgets the call's deadline",
        "cancel/wait.c",
        "rv = hs_wait(fd, events, op->token, hs_min_ns(deadline_ns, until_ns), err, ret_revents);",
        "rv = hs_wait(fd, events, op->token, until_ns, err, ret_revents);",
    ),
    Mutation(
        "a wait forgets the token's deadline",
        "cancel/wait.c",
        "deadline_ns = hs_min_ns(deadline_ns, hs_token_deadline(token));",
        "",
    ),
    Mutation(
        "a deadline is told a millisecond early",
        "cancel/waker.c",
        "int n = waker_poll(w, fds, now, deadline_ns, &until);",
        "int n = waker_poll(w, fds, now, deadline_ns -= HS_NS_PER_MS, &until);",
    ),
    Mutation(
        "a wait looks at its token before it listens",
        "cancel/wait.c",
        "    if (listens)\n        hs_wakelist_join(hs_token_wakelist(token), &node);\n"
        "    if ((ended = hs_token_check(token)) == HS_OK) {",
        "    ended = hs_token_check(token);\n    if (listens)\n"
        "        hs_wakelist_join(hs_token_wakelist(token), &node);\n    if (ended == HS_OK) {",
    ),
    Mutation(
        "a waker's flag is cleared before it is read",
        "cancel/waker.c",
        "    if (hs_own_fd_drain(&w->efd))\n        atomic_store(&w->pending, false);",
        "    atomic_store(&w->pending, false);\n    if (hs_own_fd_drain(&w->efd))\n        return;",
    ),
    Mutation(
        "cancelling wakes nobody",
        "cancel/token.c",
        "    if (leaf)\n        hs_wakelist_wake(&t->waiters);",
        "",
    ),
    Mutation(
        "closing wakes nobody",
        "stream/conn_end.c",
        "        set_linger(c, how == HS_END_ABORT || unread);\n        hs_wakelist_wake(&c->wakers);",
        "        set_linger(c, how == HS_END_ABORT || unread);",
    ),
    Mutation(
        "closing does not wait for a call that uses the descriptor",
        "stream/fd.c",
        "if (before != (CLOSED | what) || !is_owner(f))",
        "if ((before & CLOSED) == 0 || !is_owner(f))",
    ),
    Mutation(
        "bytes that had come are lost to a deadline",
        "stream/conn_io.c",
        "    if (rv < 0 && op->claim != 0 && op->done > 0)\n        conn_io_put_back(c, op, buf);\n"
        '    return hs_call_end(c, op, HS_DIR_IN, "recv_exactly", rv, err);',
        '    return hs_call_end(c, op, HS_DIR_IN, "recv_exactly", rv, err);',
    ),
    Mutation(
        "a peek takes what it shows",
        "stream/conn_io.c",
        "    if (peek)\n        return hs_buf_peek(&c->in.buf, buf, len);\n",
        "    (void)peek;\n",
    ),
    Mutation(
        "a reset is taken for an end",
        "stream/conn_input.c",
        "    if (closed && !hs_conn_may_have_ended(c) && hs_conn_why_broken(c) == HS_OK)\n"
        "        hs_conn_set_broken(c, HS_E_RESET);\n"
        "    return hs_conn_check_broken(c, err);",
        "    (void)closed;\n    return HS_OK;",
    ),
    Mutation(
        "an end in the middle of a message is an end between two",
        "stream/conn_io.c",
        "    if (done == 0)\n        return hs_err_setx(err, HS_E_END",
        "    if (done < len)\n        return hs_err_setx(err, HS_E_END",
    ),
    Mutation(
        "half a message poisons nothing",
        "stream/conn_io.c",
        "if (op->done > 0 || op->midway || (half && !tries))",
        "if (op->midway || (half && !tries))",
    ),
    Mutation(
        "a vector that was sent in part begins anew",
        "stream/conn_io.c",
        "        conn_io_advance(&iov, &n_iov, n);\n        if (all",
        "        conn_io_advance(&iov, &n_iov, n / iov->iov_len * n);\n        if (all",
    ),
    Mutation(
        "an attempt that is called off keeps its socket",
        "connect/attempt.c",
        "    if (a->conn == NULL) {\n        (void)close(a->fd);\n    } else {",
        "    if (a->conn != NULL) {",
    ),
    Mutation(
        "a wake-up with no error is a connection",
        "connect/attempt.c",
        "return sys == 0 ? HS_WANT : attempt_fail(a, sys);",
        "if (sys != 0 || a->log.phase != HS_ATTEMPT_CONNECT)\n"
        "            return sys == 0 ? HS_WANT : attempt_fail(a, sys);",
    ),
    Mutation(
        "dead peers are given a sixth more time",
        "stream/sockopt.c",
        "return dead_after_ms - interval_s * 1000 - interval_s * 1000 / 7;",
        "return dead_after_ms + dead_after_ms / 6;",
    ),
    Mutation(
        "finish does not wait for acknowledgements",
        "stream/conn_end.c",
        "rv = await_acknowledgement(c, op, err);",
        "",
    ),
    Mutation(
        "finish calls a close by another thread a clean ending",
        "stream/conn_end.c",
        "            rv = closed_meanwhile(err);\n        else if",
        "            break;\n        else if",
    ),
    Mutation(
        "who waits for a connection is not woken",
        "pool/waiter.c",
        "        hs_wakelist_wake(&w->wake);\n",
        "",
    ),
    Mutation(
        "a listener without descriptors polls on",
        "listen/listener.c",
        "    if (outcome == EXHAUSTED) {\n        shed(l);\n        listener_back_off(l);\n    }\n"
        "    return outcome;",
        "    if (outcome == EXHAUSTED)\n        return NOTHING;\n    return outcome;",
    ),
    # What has to go on, and does not.
    Mutation(
        "nobody is accepted",
        "listen/listener.c",
        "    fd = hs_sys_accept4(hs_fd_number(&l->fd), &peer.sa, &peer.len, "
        "SOCK_NONBLOCK | SOCK_CLOEXEC);\n    if (fd < 0) {",
        "    errno = EAGAIN;\n    if ((fd = -1) < 0) {",
    ),
    Mutation(
        "a listener does not hear of newcomers",
        "listen/listener.c",
        "        .fd = why == EXHAUSTED || why == TENDING ? -1 : hs_fd_number(&l->fd),",
        "        .fd = -1,",
    ),
    Mutation(
        "nobody connects",
        "connect/attempt.c",
        "    if (hs_sys_connect(a->fd, &a->log.addr.sa, a->log.addr.len) == 0 || errno == EINPROGRESS ||",
        "    errno = EINPROGRESS;\n    if (errno == EINPROGRESS ||",
    ),
    Mutation(
        "nothing is sent",
        "stream/tcp.c",
        "    sent = n == 1 ? hs_sys_send(",
        "    errno = EAGAIN;\n    sent = flags != 0 ? -1 : n == 1 ? hs_sys_send(",
    ),
    Mutation(
        "a second address is not tried",
        "connect/connector.c",
        "    return cn->in_flight == 0 || cn->next_attempt_ns <= now;",
        "    (void)now;\n    return cn->n_attempts == 0;",
    ),
    Mutation(
        "the next address waits for the end of the one before",
        "connect/race.c",
        "cn->next_attempt_ns = hs_deadline_after(cn->opts.attempt_delay_ns);",
        "cn->next_attempt_ns = HS_NEVER;",
    ),
    # What has come, and nobody is woken before the end of a slice or the deadline.
    Mutation(
        "nobody is told of a name's addresses",
        "connect/resolve.c",
        "    ring_locked(l);\n    unref_locked(l, 2);",
        "    unref_locked(l, 2);",
    ),
    Mutation(
        "a wait does not ask for its events",
        "cancel/waker.c",
        "{.fd = fd, .events = events}};",
        "{.fd = fd, .events = 0}};\n    (void)events;",
    ),
    Mutation(
        "an event of two kinds wakes nobody who waits for one",
        "cancel/loop.c",
        "        if ((b->events & revents) != 0)",
        "        if ((b->events & revents) == revents)",
    ),
    Mutation(
        "a connecting socket is watched for input",
        "connect/race.c",
        "a->op.want_events == POLLIN ? EPOLLIN : EPOLLOUT,",
        "a->op.want_events == POLLOUT ? EPOLLOUT : EPOLLIN,",
    ),
    Mutation(
        "a parked connection is watched for its end only",
        "stream/parking.c",
        "s->conn->fd.number, EPOLLIN | EPOLLRDHUP, s->until_ns",
        "s->conn->fd.number, EPOLLRDHUP, s->until_ns",
    ),
    Mutation(
        "nobody who sleeps is told that a parked connection is due",
        "cancel/reactor.c",
        "    return (r->counts.sleeping > 0 || r->watched) &&",
        "    return r->watched &&",
    ),
    Mutation(
        "draining leaves who is parked",
        "stream/parking.c",
        "    atomic_store(&p->draining, true);\n    hs_reactor_call_all(p->reactor);",
        "    atomic_store(&p->draining, true);",
    ),
    Mutation(
        "a notifier does not look at a new alarm",
        "cancel/notifier.c",
        "    if (wakes)\n        hs_wakelist_wake(&n->wakers);\n    if (stopped) {",
        "    (void)wakes;\n    if (stopped) {",
    ),
    # What is acted on too late: somebody else was there meanwhile.
    Mutation(
        "a number is given up after it was closed",
        "stream/fd.c",
        "    else if (fd_leave(f))\n        (void)close(f->number);\n",
        "    else if (close(f->number) == 0 && hs_fd_owner(f->number, false) != NULL)\n"
        "        atomic_store(hs_fd_owner(f->number, false), 0);\n",
    ),
    # Ways in which clients come, and leave.
    Mutation(
        "a unix socket whose listener was full is not tried again",
        "connect/race.c",
        "        cn->retry_ns = now + RETRY_NS;",
        "        (void)now;",
    ),
    Mutation(
        "a client behind a proxy is taken for the proxy's destination",
        "listen/proxy_reader.c",
        "hs_conn_set_client(conn, &header.source, err)",
        "hs_conn_set_client(conn, &header.destination, err)",
    ),
    Mutation(
        "a client that has left is not missed",
        "stream/departures.c",
        "    if (is_broken(p->conn, ev->events))\n        *ret_why = by_reset;\n    else if (ended)",
        "    (void)is_broken;\n    (void)by_reset;\n    if (ended)",
    ),
    Mutation(
        "finish takes a unix peer that has not read for one that has",
        "stream/conn_end.c",
        "    return rv == HS_OK ? check_read(c, err) : rv;",
        "    (void)check_read;\n    return rv;",
    ),
    # Want of memory, and of threads.
    Mutation(
        "a connector without memory is left behind",
        "connect/connector.c",
        "    if ((rv = connector_allocate(cn, err)) != HS_OK) {\n        hs_connector_free(cn);\n",
        "    if ((rv = connector_allocate(cn, err)) != HS_OK) {\n",
    ),
    Mutation(
        "a lookup that gets no thread is never over",
        "connect/resolve.c",
        "        l->sys = sys;\n        finish_locked(l);\n",
        "        l->sys = sys;\n",
    ),
    Mutation(
        "an event loop's timer is set late",
        "cancel/timerfd.c",
        "spec.it_value = hs_timespec_until(at_ns > 0 ? at_ns : 1, 0);",
        "spec.it_value = hs_timespec_until(at_ns > 0 ? at_ns + HS_NS_PER_MS : 1, 0);",
    ),
    # What the pool's model is there for: its peers do what they like to idle connections.
    Mutation(
        "an acquire that fails leaves the lease that its probe has ended",
        "pool/lend.c",
        "        if ((rv = go_on_without(p, &lease, why, op, r, code, err)) != HS_OK)",
        "        *ret_lease = lease;\n"
        "        if ((rv = go_on_without(p, &lease, why, op, r, code, err)) != HS_OK)",
        POOL_MODEL,
    ),
    Mutation(
        "the kernel is not asked at a hand-over",
        "pool/offer.c",
        "w->to_probe = hs_pool_needs_probe(p, &w->lease, false);",
        "w->to_probe = false;",
        POOL_MODEL,
    ),
    Mutation(
        "the kernel is not asked about what was idle",
        "pool/lend.c",
        "*ret_probe = hs_pool_needs_probe(p, ret_lease, m->watched);",
        "*ret_probe = false;",
        POOL_MODEL,
    ),
    Mutation(
        "the kernel is not asked by who only tries",
        "pool/lend.c",
        "to_probe = hs_pool_needs_probe(p, &lease, m->watched);",
        "to_probe = false;",
        POOL_MODEL,
    ),
    Mutation(
        "a lease that is refused after its probe stays lent",
        "pool/lend.c",
        "    hs_pool_end_lease_locked(p, lease->member, hs_boot_now(), false);\n"
        "    hs_pool_retire_locked(p, lease->member, why, &d);\n    if (w != NULL && !p->closed",
        "    (void)why;\n    if (w != NULL && !p->closed",
        POOL_MODEL,
    ),
    Mutation(
        "what a cancelled caller was handed goes to nobody",
        "pool/lend.c",
        "            hs_pool_end_lease_locked(p, m, hs_boot_now(), false);\n"
        "            hs_pool_offer_locked(p, m, m->since_boot, hs_boot_now(), &d);\n",
        "            (void)m;\n",
        POOL_MODEL,
    ),
]


def prepare() -> None:
    shutil.rmtree(TREE, ignore_errors=True)
    TREE.mkdir(parents=True)
    for part in ("Makefile", "tools", "csrc", "tests"):
        subprocess.run(["cp", "-a", str(TOP / part), str(TREE)], check=True)
    (TREE / "build").mkdir()
    subprocess.run(["cp", "-a", str(TOP / "build" / "debug"), str(TREE / "build")], check=True)


def build(program: str, jobs: int) -> None:
    done = subprocess.run(
        ["make", f"-j{jobs}", "WERROR=", program], cwd=TREE, capture_output=True, text=True
    )
    if done.returncode:
        sys.exit(f"mutations: it does not build:\n{done.stdout}{done.stderr}")


@dataclass(frozen=True)
class Found:
    """What a seed said that failed."""

    seed: str
    seconds: float
    said: str


def search(program: str, seeds: int, jobs: int) -> Found | None:
    """Run seeds until one fails; None: all of them pass."""
    build(program, jobs)
    began = time.monotonic()
    failed = simulate(seeds) if program == SIMULATOR else run_model(program)
    return Found(failed[0], time.monotonic() - began, failed[1]) if failed else None


def simulate(seeds: int) -> tuple[str, str] | None:
    command = [str(TREE / SIMULATOR), "--search", "1", str(seeds)]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace")
    if done.returncode == 0:
        return None
    said = [found["said"] for found in SAID.finditer(done.stdout)]
    said = [line for line in said if not line.startswith("the end of")] or ["?"]
    return (re.findall(r"^seed (\d+) fails", done.stdout, re.M) or ["?"])[-1], said[-1]


def run_model(program: str) -> tuple[str, str] | None:
    for seed in range(MODEL_SEEDS):
        done = subprocess.run(
            [str(TREE / program)],
            env=os.environ | {"HS_MODEL_SEED": str(seed)},
            capture_output=True,
            text=True,
            errors="replace",
        )
        if done.returncode:
            said = [found["said"] for found in SAID_BY_CHECK.finditer(done.stdout)]
            return str(seed), (said or ["?"])[-1]
    return None


def try_one(one: Mutation, seeds: int, jobs: int) -> tuple[bool, str]:
    path = TREE / "csrc" / one.file
    text = path.read_text()
    if text.count(one.old) != 1:
        return False, f"its piece is {text.count(one.old)} times in {one.file}"
    path.write_text(text.replace(one.old, one.new))
    try:
        found = search(one.finder, seeds, jobs)
    finally:
        path.write_text(text)
    if found is None:
        return False, f"survives {seeds if one.finder == SIMULATOR else MODEL_SEEDS} seeds"
    return True, f"seed {found.seed}, {found.seconds:.1f} s: {found.said}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3000)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("names", nargs="*", help="a part of the name is enough")
    arguments = parser.parse_args()
    if shutil.which("make") is None:
        sys.exit("mutations: make is not installed")
    prepare()
    chosen = [
        one
        for one in MUTATIONS
        if not arguments.names or any(part in one.name for part in arguments.names)
    ]
    for finder in sorted({one.finder for one in chosen}):
        if whole := search(finder, arguments.seeds, arguments.jobs):
            sys.exit(
                "mutations: the core as it is fails, so nothing can be told: "
                f"{finder}, seed {whole.seed}: {whole.said}"
            )
    survived = 0
    for one in chosen:
        found, said = try_one(one, arguments.seeds, arguments.jobs)
        survived += not found
        print(f"{'found' if found else 'NOT FOUND':<10}{one.name}: {said}", flush=True)
    print(f"{len(chosen) - survived} passed, {survived} failed")
    return 1 if survived or not chosen else 0


if __name__ == "__main__":
    sys.exit(main())
