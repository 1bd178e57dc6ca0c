"""A program that closes descriptors that it does not know, and opens files that get their numbers.

Each test is a process of its own. Threads of the library are at work by then. The files must stay as
they are, no thread may use up a processor, and what can go on goes on.
"""

from __future__ import annotations

import subprocess
import sys

PRELUDE = """
import asyncio, os, resource, socket, tempfile, threading
import hardsock as hs
from hardsock import _core, aio

UNREAD = b"sixteen bytes..."

def stranger_at(number):
    file = os.memfd_create("stranger")
    os.write(file, UNREAD)
    os.lseek(file, 0, os.SEEK_SET)
    if file != number:
        os.dup2(file, number, inheritable=False)
        os.close(file)

def close_what_is_not_known():
    "As daemons do. Returns the numbers: there is a file at each now."
    numbers = [n for n in map(int, os.listdir("/proc/self/fd")) if n > 2]
    os.closerange(3, 1024)
    for number in numbers:
        stranger_at(number)
    return numbers

def untouched(numbers):
    for number in numbers:
        assert os.lseek(number, 0, os.SEEK_CUR) == 0, number
        assert os.pread(number, 64, 0) == UNREAD, number

def processor_for(seconds):
    before = resource.getrusage(resource.RUSAGE_SELF)
    hs.CancelToken().wait(seconds)
    after = resource.getrusage(resource.RUSAGE_SELF)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
"""


def ends_well(code: str) -> None:
    result = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-c", PRELUDE + code],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (0, "") == (result.returncode, result.stdout), result.stderr


def test_a_daemon_that_closes_everything_goes_on_with_pools_and_callbacks() -> None:
    ends_well("""
refused = socket.socket()
refused.bind(("127.0.0.1", 0))
former = hs.Pool(refused.getsockname(), max_size=1)
try:  # From now on there is a thread that tends pools.
    former.acquire(timeout=60)
except hs.HardsockError:
    pass
called = threading.Event()
token = hs.CancelToken(timeout=2)
token.on_cancel(called.set)
refused.detach()
_core._inspect(os.fsencode(tempfile.mktemp()))

numbers = close_what_is_not_known()
# Nothing can be opened, so that nothing is made anew; and who polls a file's number is woken at once.
limits = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (max(numbers) + 1, limits[1]))
assert processor_for(1.0) < 0.5
resource.setrlimit(resource.RLIMIT_NOFILE, limits)
assert called.wait(30)
server = socket.create_server(("127.0.0.1", 0))
with hs.Pool(server.getsockname(), max_size=1) as pool, pool.acquire(timeout=30) as conn:
    conn.sendall(b"x")
assert processor_for(0.4) < 0.2
former.close()
untouched(numbers)
""")


def test_a_loop_whose_descriptor_was_closed_tells_every_task() -> None:
    ends_well("""
import errno
from hardsock.aio._host import current_hub

async def receive(conn):
    try:
        await conn.recv(1)
    except OSError as exc:
        return exc.errno

async def main():
    server = socket.create_server(("127.0.0.1", 0))
    conns = [await aio.connect(server.getsockname()) for _ in range(2)]
    waiting = asyncio.create_task(receive(conns[0]))
    await asyncio.sleep(0)
    number = current_hub().fileno()
    stranger_at(number)
    assert await asyncio.wait_for(receive(conns[1]), 30) == errno.EBADF
    assert await asyncio.wait_for(waiting, 30) == errno.EBADF
    for conn in conns:
        conn.abort()
    untouched([number])

asyncio.run(main())
""")
