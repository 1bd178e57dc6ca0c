"""The queue of the httpx adapters: places are never lost, and waits end with their scopes."""

from __future__ import annotations

import random
import threading

import pytest

import hardsock as hs
from hardsock.adapters._total import Queue, QueueTimeout
from hardsock.lab.threads import Call

LATE = 60.0


def test_places_are_given_in_the_order_of_arrival() -> None:
    queue = Queue(1)
    queue.take(None)
    order: list[int] = []

    def wait(number: int) -> None:
        queue.take(LATE)
        order.append(number)
        queue.give()

    with Call(wait, 1) as first:
        first.wait_until_blocked()
        with Call(wait, 2) as second:
            second.wait_until_blocked()
            queue.give()
            second.result(30)
        first.result(30)
    assert order == [1, 2]


def test_a_wait_ends_by_its_limit_its_scope_or_a_cancel() -> None:
    queue = Queue(1)
    queue.take(None)
    with pytest.raises(QueueTimeout):
        queue.take(0.01)
    with pytest.raises(hs.DeadlineExceeded), hs.timeout(0.01):
        queue.take(LATE)
    token = hs.CancelToken()

    def wait() -> None:
        with hs.scope(token):
            queue.take(LATE)

    with Call(wait) as waiting:
        waiting.wait_until_blocked()
        token.cancel("enough")
        with pytest.raises(hs.Cancelled, match="enough"):
            waiting.result(30)
    queue.give()
    queue.take(0)  # Nobody who gave up was given the place.


def test_a_wait_that_cannot_begin_leaves_the_queue() -> None:
    queue = Queue(1)
    queue.take(None)
    crowded = hs.CancelToken()
    for _ in range(10):  # Twice as many ways up to the root each time: no token fits below it.
        crowded = hs.CancelToken.linked((crowded, crowded))
    with hs.scope(crowded), pytest.raises(ValueError, match="linked too often"):
        queue.take(LATE)
    queue.give()
    queue.take(0)


@pytest.mark.slow
def test_no_place_is_lost_in_a_storm_of_limits_and_cancels() -> None:
    size, threads = 3, 12
    queue = Queue(size)
    inside, most = 0, 0
    lock = threading.Lock()
    barrier = threading.Barrier(threads)

    def work(seed: int) -> None:
        nonlocal inside, most
        chance = random.Random(seed)
        barrier.wait()
        for _ in range(300):
            token = hs.CancelToken(chance.choice([0.0, 0.0005, LATE]))
            if chance.random() < 0.2:
                threading.Thread(target=token.cancel).start()
            try:
                with hs.scope(token):
                    queue.take(chance.choice([None, 0.0, 0.001]))
            except (hs.HardsockError, QueueTimeout):
                continue
            with lock:
                inside += 1
                most = max(most, inside)
            hs.CancelToken().wait(0.0001)
            with lock:
                inside -= 1
            queue.give()

    running = [threading.Thread(target=work, args=(n,)) for n in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    assert most <= size
    for _ in range(size):
        queue.take(0)
    with pytest.raises(QueueTimeout):
        queue.take(0)
