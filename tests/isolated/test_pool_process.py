"""Pools in processes of their own: exit, fork, signals, subinterpreters."""

from __future__ import annotations

import sys

import pytest

from isolated.test_process import run, silent

SERVER = """
server = socket.create_server(("127.0.0.1", 0), backlog=64)

def answer(conn):
    with conn:
        try:
            while data := conn.recv(4096):
                conn.sendall(data)
        except OSError:
            pass

def serve():
    while True:
        threading.Thread(target=answer, args=(server.accept()[0],), daemon=True).start()

threading.Thread(target=serve, daemon=True).start()
address = server.getsockname()

def ask(conn):
    conn.sendall(b"x")
    assert conn.recv_exactly(1, timeout=30) == b"x"
    conn.mark_clean()
"""


def test_exit_with_a_pool_that_nobody_closed() -> None:
    result = run(
        SERVER
        + """
pool = hs.Pool(address, min_idle=1)
with pool.connection(timeout=30) as conn:
    ask(conn)
print("done")
"""
    )
    assert result.stdout == "done\n"


def test_exit_while_a_daemon_thread_waits_in_the_queue() -> None:
    result = run(
        SERVER
        + """
pool = hs.Pool(address, max_size=1)
conn = pool.acquire(timeout=30)

def borrow():
    held = pool.acquire()
    threading.Event().wait()  # To throw it away would be told on stderr, which is being closed.

threading.Thread(target=borrow, daemon=True).start()
while pool.stats().waiting == 0:
    pass
conn.close()
conn = None
print("done")
"""
    )
    assert result.stdout == "done\n"


def test_server_that_goes_away_under_an_idle_connection_is_an_error_and_no_more() -> None:
    """The acquire had the stale connection in its hands, and then it failed."""
    result = run(
        SERVER.replace("threading.Thread(target=serve, daemon=True).start()\n", "")
        + """
pool = hs.Pool(address, max_size=2)
conn = pool.acquire(timeout=30)
peer = server.accept()[0]
pool.release(conn)
del conn
server.close()
peer.close()
for kwargs in {"timeout": 5}, {"timeout": 5, "token": hs.CancelToken()}:
    try:
        pool.acquire(**kwargs)
    except hs.ConnectError as exc:
        print("refused")
assert pool.verify().ok
assert pool.close(timeout=30).clean
stats = pool.stats()
assert stats.closed_by_reason["peer_closed"] == 1
assert stats.opened == stats.closed == 1 + stats.closed_by_reason["dial_failed"]
""",
        env={"MALLOC_PERTURB_": "85"},  # What is freed is told from what is not.
    )
    assert result.stdout == "refused\nrefused\n"


def test_forks_in_a_storm_leave_both_sides_whole() -> None:
    silent(
        SERVER
        + """
warnings.simplefilter("ignore", DeprecationWarning)  # 3.12: fork with threads
pool = hs.Pool(address, max_size=3)
stop = threading.Event()

def work():
    while not stop.is_set():
        with pool.connection(timeout=60) as conn:
            ask(conn)

threads = [threading.Thread(target=work) for _ in range(6)]
for thread in threads:
    thread.start()
for _ in range(40):
    pid = os.fork()
    if pid == 0:
        try:
            assert pool.stats().opened == 0
            with pool.connection(timeout=60) as conn:
                ask(conn)
            assert pool.verify().ok
            os._exit(0)
        except BaseException as exc:
            os.write(2, repr(exc).encode())
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
stop.set()
for thread in threads:
    thread.join()
assert pool.stats().lent == 0
assert pool.verify().ok
assert pool.close(timeout=30).clean
"""
    )


def test_interrupts_at_any_moment_lose_no_place() -> None:
    silent(
        SERVER
        + """
import gc, random
warnings.simplefilter("ignore", hs.LeakWarning)  # Interrupted between acquire and its use.
pool = hs.Pool(address, max_size=2)
stop = threading.Event()
main = threading.main_thread().ident
armed = False

def on_signal(*_):  # Once for each arming: never outside of the try block.
    global armed
    if armed:
        armed = False
        raise KeyboardInterrupt

signal.signal(signal.SIGINT, on_signal)

def interrupt():
    while not stop.wait(random.random() / 1000):
        signal.pthread_kill(main, signal.SIGINT)

def occupy():
    while not stop.is_set():
        with pool.connection(timeout=60):
            pass

threads = [threading.Thread(target=interrupt), *(threading.Thread(target=occupy) for _ in range(3))]
for thread in threads:
    thread.start()
interrupted = used = 0
until = time.monotonic() + 3
while (now := time.monotonic()) < until or (now < until + 60 and not (interrupted and used)):
    try:
        armed = True
        with pool.connection(timeout=60) as conn:
            used += 1
        armed = False
    except KeyboardInterrupt:
        interrupted += 1
stop.set()
for thread in threads:
    thread.join()
assert interrupted and used, (interrupted, used)
gc.collect()
assert pool.stats().lent == 0, pool.lent()
a, b = pool.acquire(timeout=30), pool.acquire(timeout=30)
pool.release(a)
pool.release(b)
assert pool.close(timeout=30).clean
"""
    )


def test_garbage_collection_inside_the_pool_does_not_block() -> None:
    """httpcore 996, psycopg 1120: a finalizer that runs in the pool takes its lock again."""
    silent(
        SERVER
        + """
import gc, sysconfig
warnings.simplefilter("ignore", hs.LeakWarning)
gc.set_threshold(1)
finished = threading.Event()

def collect():
    while not finished.is_set():
        gc.collect()

# Without the GIL a thread counts 512 allocations before it looks at any threshold.
collector = threading.Thread(target=collect)
if sysconfig.get_config_var("Py_GIL_DISABLED"):
    collector.start()
pool = hs.Pool(address, max_size=4)

def work():
    for i in range(150):
        conn = pool.acquire(timeout=60)
        if i % 3 == 0:
            cycle = [conn]
            cycle.append(cycle)
            del cycle, conn
        else:
            pool.release(conn)

threads = [threading.Thread(target=work) for _ in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
finished.set()
if collector.ident is not None:
    collector.join()
gc.collect()
stats = pool.stats()
assert stats.lent == 0
assert pool.close(timeout=30).clean  # What the pool worker was closing is counted by then.
assert pool.stats().closed_by_reason["lost"] == 200
"""
    )


@pytest.mark.skipif(sys.version_info < (3, 12), reason="older ones share one GIL and one module")
def test_subinterpreters_have_pools_of_their_own() -> None:
    silent(
        SERVER
        + """
try:
    import _interpreters as interpreters
except ImportError:
    import _xxsubinterpreters as interpreters
ident = interpreters.create()
interpreters.run_string(ident, f"import hardsock as hs\\np = hs.Pool({address!r})\\n"
    "p.release(p.acquire(timeout=30))\\np.close()")
interpreters.destroy(ident)
"""
    )
