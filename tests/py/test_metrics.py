"""Collectors for Prometheus: names and labels, what ends, several processes, a real server."""

from __future__ import annotations

import contextlib
import gc
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import hardsock as hs
from hardsock.lab.waits import poll_until
from hardsock.metrics.families import FAMILIES
from hardsock.metrics.siblings import Siblings
from hardsock.metrics.totals import Totals
from support.require import need_module, require
from support.servers.monitoring import prometheus

need_module("prometheus_client")

from prometheus_client import CollectorRegistry, generate_latest, start_http_server  # noqa: E402
from prometheus_client.openmetrics import exposition as openmetrics  # noqa: E402
from prometheus_client.openmetrics import parser as openmetrics_parser  # noqa: E402
from prometheus_client.parser import text_string_to_metric_families  # noqa: E402


@pytest.fixture
def listener() -> Iterator[hs.Listener]:
    with hs.listen(("127.0.0.1", 0)) as found:
        yield found


@pytest.fixture
def registry() -> CollectorRegistry:
    registry = CollectorRegistry()
    hs.metrics.Collector(registry, max_pools=10_000)  # Other tests of this process have named some.
    return registry


def value(registry: CollectorRegistry, name: str, **labels: str) -> float:
    found = registry.get_sample_value(name, labels)
    assert found is not None, f"there is no {name}{labels}"
    return float(found)


def registry_of(text: str) -> CollectorRegistry:
    """What was exported, to be asked again."""
    families = list(text_string_to_metric_families(text))

    class Parsed:
        def collect(self) -> Any:
            return families

    registry = CollectorRegistry()
    registry.register(Parsed())
    return registry


# ---- names and labels


def test_names_are_the_conventions() -> None:
    for family in FAMILIES.values():
        assert family.name.startswith(("hardsock_", "socket_")), family
        assert family.name.endswith("_total") == (family.kind == "counter"), family
        if "histogram" in family.kind:
            assert family.name.endswith("_seconds"), family
        assert not family.name.endswith(("_ms", "_milliseconds", "_ns", "_percent")), family
        assert set(family.labels) <= {"how", "reason", "kind", "pool", "state", "outcome"}, family
        assert family.help
        assert not family.help.endswith("."), family


def test_both_formats_parse_and_have_every_family(registry: CollectorRegistry) -> None:
    classic = {m.name for m in text_string_to_metric_families(generate_latest(registry).decode())}
    assert {name.removesuffix("_total") for name in FAMILIES} <= classic
    text = openmetrics.generate_latest(registry).decode()
    strict = {m.name: m for m in openmetrics_parser.text_string_to_metric_families(text)}
    assert {name.removesuffix("_total") for name in FAMILIES} == strict.keys()
    assert strict["socket_conn_age_seconds"].unit == "seconds"
    assert strict["socket_conn_live_age_seconds"].type == "gaugehistogram"


def test_the_articles_names_say_what_happened(
    registry: CollectorRegistry, listener: hs.Listener
) -> None:
    def ages() -> float:
        return value(registry, "socket_conn_age_seconds_count")

    def stalls(reason: str) -> float:
        return value(registry, "socket_read_stall_seconds_count", reason=reason)

    ended, stalled, gil, asked = ages(), stalls("peer"), stalls("gil"), stalls("application")
    with hs.connect(listener.address) as conn, listener.accept() as peer:
        assert value(registry, "hardsock_open_connections", how="connect") == 1
        assert value(registry, "socket_conn_live_age_seconds_gcount") == 2
        with pytest.raises(hs.DeadlineExceeded):
            conn.recv(1, timeout=0.2)
        assert stalls("peer") == stalled + 1
        peer.sendall(b"x")
        conn.recv(1)
    assert ages() == ended + 2
    assert stalls("gil") >= gil
    assert stalls("application") >= asked


def test_no_label_is_a_peer_or_a_line(registry: CollectorRegistry, listener: hs.Listener) -> None:
    host, port = listener.address[:2]
    with hs.connect(listener.address) as conn, hs.Pool(listener.address) as pool:
        with pool.connection(), contextlib.suppress(hs.HardsockError):
            hs.connect(("127.0.0.1", 1))
        text = generate_latest(registry).decode()
        assert value(registry, "hardsock_pool_acquired_total", pool="unnamed") >= 1
        for secret in (host, str(port), str(conn.getsockname()[1]), "test_metrics"):
            assert secret not in text


def test_addresses_of_pools_are_labels_only_when_asked_for(listener: hs.Listener) -> None:
    registry = CollectorRegistry()
    hs.metrics.Collector(registry, pool_addresses=True)
    with hs.Pool(listener.address) as pool:
        assert value(registry, "hardsock_pool_max_connections", pool=pool.name) == 10


def test_series_are_bounded_whatever_pools_are_called(listener: hs.Listener) -> None:
    registry = CollectorRegistry()
    hs.metrics.Collector(registry)
    with contextlib.ExitStack() as stack:
        for i in range(200):
            stack.enter_context(hs.Pool(listener.address, name=f"tenant {i}"))
        text = generate_latest(registry).decode()
    assert len(text.splitlines()) < 5000
    found = registry_of(text)
    assert value(found, "hardsock_pool_max_connections", pool="other") == 1800
    assert value(found, "hardsock_pool_max_connections", pool="tenant 0") == 10
    assert text.count("hardsock_pool_max_connections{") == 21


def test_what_ended_between_two_scrapes_was_counted(registry: CollectorRegistry) -> None:
    names = ("hardsock_listener_accepted_total", "hardsock_server_accepted_total")
    before = [value(registry, name) for name in names]
    handled = value(registry, "hardsock_server_handled_total")
    with hs.listen(("127.0.0.1", 0)) as listener, hs.connect(listener.address):
        listener.accept(timeout=20).close()
    with hs.serve(lambda conn: None, ("127.0.0.1", 0), drain_timeout=20) as server:
        with hs.connect(server.address) as conn:
            assert conn.recv(1, timeout=20) == b""
    del server, listener
    gc.collect()
    assert [value(registry, name) for name in names] == [before[0] + 2, before[1] + 1]
    assert value(registry, "hardsock_server_handled_total") == handled + 1
    if (pid := os.fork()) == 0:  # What its parent had counted is its parent's.
        ever = hs.metrics()["ever"]
        os._exit(any([*ever["listeners"].values(), *ever["servers"].values()]))
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_pools_that_have_ended_take_no_label_of_those_that_are_open(listener: hs.Listener) -> None:
    for name in ("past 1", "past 2"):
        with hs.Pool(listener.address, name=name) as pool, pool.connection():
            pass
    registry = CollectorRegistry()
    hs.metrics.Collector(registry, max_pools=1)
    assert "pool=" in generate_latest(registry).decode()  # The names are given out here.
    with hs.Pool(listener.address, name="present") as present, present.connection():
        text = generate_latest(registry).decode()
    assert value(registry_of(text), "hardsock_pool_max_connections", pool="present") == 10
    names = {*re.findall(r'hardsock_pool_acquired_total{pool="([^"]*)"', text)}
    assert len(names - {"other", "unnamed"}) == 2


def test_a_pool_that_was_other_stays_other_when_it_ends(listener: hs.Listener) -> None:
    registry = CollectorRegistry()
    hs.metrics.Collector(registry, max_pools=1)

    def other() -> float:
        return value(registry, "hardsock_pool_acquired_total", pool="other")

    pools = [hs.Pool(listener.address, name=f"open {n}") for n in range(2)]
    for pool in pools:
        with pool.connection():
            pass
    before = other()
    assert before >= 1
    for pool in pools:
        pool.close(timeout=30)
    assert other() == before


def test_pool_is_called_anything(registry: CollectorRegistry, listener: hs.Listener) -> None:
    name = 'a"b\\c\nd{}'
    with hs.Pool(listener.address, name=name):
        text = generate_latest(registry).decode()
    found = {s.labels.get("pool") for m in text_string_to_metric_families(text) for s in m.samples}
    assert name in found


# ---- what ends


def test_counters_of_a_pool_that_is_gone_stay(
    registry: CollectorRegistry, listener: hs.Listener
) -> None:
    def acquired() -> float:
        return value(registry, "hardsock_pool_acquired_total", pool="short")

    for want in (1, 2):
        with hs.Pool(listener.address, name="short") as pool, pool.connection():
            assert acquired() == want
        del pool
        gc.collect()
        assert acquired() == want
    assert value(registry, "hardsock_pool_wait_seconds_count", pool="short") == 2
    assert registry.get_sample_value("hardsock_pool_max_connections", {"pool": "short"}) is None


def test_what_a_pool_counted_between_two_scrapes_outlives_it(listener: hs.Listener) -> None:
    registry = CollectorRegistry()
    hs.metrics.Collector(registry, max_pools=1000)
    for _ in range(2):  # Never asked while it is there.
        with hs.Pool(listener.address, name="between") as pool, pool.connection():
            pass
        del pool
        gc.collect()
    labels = {"pool": "between"}
    assert value(registry, "hardsock_pool_acquired_total", **labels) == 2
    assert value(registry, "hardsock_pool_use_seconds_count", **labels) == 2
    assert value(registry, "hardsock_pool_acquired_total", **labels) == 2
    assert registry.get_sample_value("hardsock_pool_max_connections", labels) is None


def test_dials_that_failed_are_a_counter(registry: CollectorRegistry) -> None:
    with hs.listen(("127.0.0.1", 0)) as gone:
        address = gone.address
    with hs.Pool(address, name="failing") as pool:
        for _ in range(2):
            with pytest.raises(hs.ConnectError):
                pool.acquire(timeout=20)
        failed = pool.stats().opened
        assert failed >= 1
        assert value(registry, "hardsock_pool_dial_failures_total", pool="failing") == failed
        with hs.listen(address):
            pool.acquire(timeout=20).close()
            now = value(registry, "hardsock_pool_dial_failures_total", pool="failing")
            assert now >= failed, "a dial that succeeds takes none back"


COUNTER = ("hardsock_resolver_lookups_total", ())
GAUGE = ("hardsock_descriptors_open", ())
MOST = ("hardsock_descriptors_used_ratio", ())


def test_what_grows_stays_in_the_sum_and_what_does_not_goes() -> None:
    totals = Totals()
    both = {"a": {COUNTER: (3.0,), GAUGE: (7.0,)}, "b": {COUNTER: (4.0,), GAUGE: (1.0,)}}
    assert totals.update(both) == {COUNTER: (7.0,), GAUGE: (8.0,)}
    assert totals.update({"b": {COUNTER: (6.0,), GAUGE: (1.0,)}}) == {COUNTER: (9,), GAUGE: (1,)}
    assert totals.update({"b": {COUNTER: (6.0,)}}) == {COUNTER: (9.0,)}
    assert totals.update({}) == {COUNTER: (9.0,)}


def test_source_that_says_nothing_for_a_while_is_counted_once() -> None:
    totals = Totals()
    totals.update({"a": {COUNTER: (3.0,)}})
    for _ in range(3):
        totals = Totals.restored(json.loads(json.dumps(totals.saved())))
        assert totals.update({}, silent={"a"}) == {COUNTER: (3.0,)}
    assert totals.update({"a": {COUNTER: (5.0,)}}) == {COUNTER: (5.0,)}


def test_a_process_that_goes_on_keeps_what_its_pools_have_counted() -> None:
    totals = Totals()
    totals.update({"1-2/process": {}, "1-2/pool 7": {COUNTER: (3.0,)}})
    # It counted one more before its end, and the process says so.
    told = {"1-2/process": {}, "1-2/ended True orders": {COUNTER: (4.0,)}}
    assert totals.update(told) == {COUNTER: (4.0,)}
    totals.update({"1-2/process": {}, **told, "1-2/pool 8": {COUNTER: (5.0,)}})
    assert totals.update({}) == {COUNTER: (9.0,)}, "of a process that was killed all is kept"


def test_shares_of_a_limit_are_not_added_up() -> None:
    assert Totals().update({"a": {MOST: (0.5,)}, "b": {MOST: (0.9,)}}) == {MOST: (0.9,)}


# ---- arguments


@pytest.mark.parametrize(
    ("settings", "named"),
    [({"max_pools": -1}, "max_pools.*-1"), ({"timeout": 0}, "timeout.*0")],
)
def test_senseless_settings_are_refused(settings: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        hs.metrics.Collector(**settings)


def test_directory_that_others_can_enter_is_refused(tmp_path: Path) -> None:
    place = tmp_path / "open"
    place.mkdir(mode=0o755)
    place.chmod(0o755)
    with pytest.raises(PermissionError, match="0700"):
        hs.metrics.Collector(directory=place)


BECOMES_ANOTHER = """
import os, sys
import prometheus_client as p
import hardsock as hs

registry = p.CollectorRegistry()
hs.metrics.Collector(registry, timeout=20)
ready, told = os.pipe()
go_on, going = os.pipe()
if (pid := os.fork()) == 0:
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
    with hs.listen(("127.0.0.1", 0)) as listener, hs.connect(listener.address):
        listener.accept(timeout=20).close()
    try:
        list(registry.collect())
    except PermissionError as exc:
        os.write(told, str(exc).encode())
    os.read(go_on, 1)
    os._exit(0)
said = os.read(ready, 1000).decode()
assert "user 65534 cannot collect" in said and os.environ["PROMETHEUS_MULTIPROC_DIR"] in said, said
found = {s.name: s.value for m in registry.collect() for s in m.samples if not s.labels}
states = {s.labels["state"]: s.value for m in registry.collect() for s in m.samples
          if s.name == "hardsock_processes"}
assert states == {"answered": 2, "silent": 0}, states
assert found["hardsock_listener_accepted_total"] == 1, found
os.write(going, b"x")
assert os.waitpid(pid, 0)[1] == 0
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_workers_that_become_another_user_are_counted_and_told_who_can_collect(
    tmp_path: Path,
) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", BECOMES_ANOTHER],
        env={**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_same_figures_are_exported_once_in_a_registry(registry: CollectorRegistry) -> None:
    with pytest.raises(ValueError, match="Duplicated"):
        hs.metrics.Collector(
            registry, max_pools=10_000
        )  # Other tests of this process have named some.


# ---- several processes

# It dials so often, says how often, and does what it is told.
WORKER = """
import os, re, sys, threading
import hardsock as hs
hs.metrics.Collector()
listener = hs.listen(("127.0.0.1", 0))
pool = hs.Pool(listener.address, name="shared")
def dial(n):
    for _ in range(n):
        with hs.connect(listener.address), listener.accept():
            pass
        with pool.connection():
            pass
def hang():
    print("hanging", flush=True)
    re.match(r"(a+)+$", "a" * 60 + "b")
def fork(n):
    # The child has dialled when this returns, and waits for the end of its input.
    ready, told = os.pipe()
    if os.fork() == 0:
        for _ in range(n):
            with hs.listen(("127.0.0.1", 0)) as own, hs.connect(own.address), own.accept():
                pass
        os.write(told, b"x")
        os.read(0, 1)
        os._exit(0)
    os.read(ready, 1)
for line in sys.stdin:
    exec(line)
    print("done", flush=True)
"""


class Crew:
    """Processes that share a directory, and one that collects from it: this one is not in it."""

    def __init__(self, place: Path) -> None:
        self.directory = place / "hardsock"
        self._environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(place)}
        self.processes: list[subprocess.Popen[str]] = []

    def start(self) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", WORKER],
            env=self._environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.processes.append(process)
        self.tell(process, "pass")
        return process

    @staticmethod
    def tell(process: subprocess.Popen[str], command: str, answer: str = "done") -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(f"{command}\n")
        process.stdin.flush()
        assert process.stdout.readline() == f"{answer}\n"

    def end(self, process: subprocess.Popen[str]) -> None:
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(60) == 0

    def collect(self, timeout: float = 20.0) -> CollectorRegistry:
        """Each time by another process, as a scrape is answered by any."""
        code = (
            "import sys, prometheus_client as p, hardsock as hs; r = p.CollectorRegistry();"
            f"hs.metrics.Collector(r, timeout={timeout});"
            "sys.stdout.buffer.write(p.generate_latest(r))"
        )
        done = subprocess.run(
            [sys.executable, "-c", code],
            env=self._environment,
            check=True,
            capture_output=True,
            text=True,
        )
        return registry_of(done.stdout)


@pytest.fixture
def crew(tmp_path: Path) -> Iterator[Crew]:
    crew = Crew(tmp_path)
    yield crew
    for process in crew.processes:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()


def connects(registry: CollectorRegistry) -> float:
    return value(registry, "hardsock_connect_seconds_count")


def acquired(registry: CollectorRegistry) -> float:
    return value(registry, "hardsock_pool_acquired_total", pool="shared")


def test_processes_are_summed_up_and_what_they_counted_stays(crew: Crew) -> None:
    first, second = crew.start(), crew.start()
    crew.tell(first, "dial(3)")
    crew.tell(second, "dial(4)")
    found = crew.collect()
    dialled = connects(found)
    assert acquired(found) == 7
    assert value(found, "hardsock_processes", state="answered") == 3
    assert value(found, "hardsock_open_connections", how="pool") == 2
    crew.end(first)  # In order: what it counted since is not lost.
    found = crew.collect()
    assert (connects(found), acquired(found)) == (dialled, 7)
    assert value(found, "hardsock_open_connections", how="pool") == 1
    crew.tell(second, "dial(2)")
    assert acquired(crew.collect()) == 9
    second.kill()  # Known from the last scrape.
    second.wait()
    third = crew.start()
    crew.tell(third, "dial(1)")
    assert acquired(crew.collect()) == 10
    assert acquired(crew.collect()) == 10
    dead = {str(first.pid), str(second.pid)}
    assert not [path for path in crew.directory.iterdir() if path.name.partition("-")[0] in dead]


def test_what_was_counted_before_an_end_in_order_is_not_lost(crew: Crew) -> None:
    first = crew.start()
    crew.tell(first, "dial(5)")
    crew.end(first)  # Never asked.
    assert acquired(crew.collect()) == 5
    assert acquired(crew.collect()) == 5


def test_process_that_holds_the_gil_answers_all_the_same(crew: Crew) -> None:
    first, second = crew.start(), crew.start()
    crew.tell(first, "dial(3)")
    crew.tell(second, "dial(4)")
    crew.tell(first, "hang()", "hanging")
    found = crew.collect()
    assert acquired(found) == 7
    assert value(found, "hardsock_processes", state="silent") == 0


def test_process_that_is_stopped_is_told_of_and_counted_once(crew: Crew) -> None:
    first, second = crew.start(), crew.start()
    crew.tell(first, "dial(3)")
    crew.tell(second, "dial(4)")
    before = crew.collect()
    first.send_signal(signal.SIGSTOP)
    found = crew.collect(timeout=0.5)
    first.send_signal(signal.SIGCONT)
    assert acquired(found) == acquired(before) == 7
    assert value(found, "hardsock_processes", state="silent") == 1
    assert acquired(crew.collect()) == 7


def test_forked_child_does_not_count_what_its_parent_had(crew: Crew) -> None:
    first = crew.start()
    crew.tell(first, "dial(50)")
    before = connects(crew.collect())
    crew.tell(first, "fork(2)")
    found = crew.collect()
    assert value(found, "hardsock_processes", state="answered") == 3
    assert connects(found) == before + 2


def test_nonsense_in_the_directory_is_passed_over(crew: Crew) -> None:
    first = crew.start()
    crew.tell(first, "dial(3)")
    crew.collect()
    (crew.directory / "totals.json").write_text("{")
    (crew.directory / "1-1.sock").write_text("no socket")
    (crew.directory / "x-y.last").write_text("[")
    found = crew.collect()
    assert acquired(found) == 3
    assert value(found, "hardsock_processes", state="silent") == 0


def test_collector_that_does_not_end_is_named(crew: Crew) -> None:
    import fcntl

    crew.start()
    fd = os.open(crew.directory / "lock", os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        with pytest.raises(subprocess.CalledProcessError) as failed:
            crew.collect(timeout=0.1)
    finally:
        os.close(fd)
    assert "lock: another process has been collecting" in failed.value.stderr


def test_process_that_ends_while_it_is_asked_is_counted_whole(
    crew: Crew, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = crew.start()
    crew.tell(worker, "dial(3)")
    assert acquired(crew.collect()) == 3
    crew.tell(worker, "dial(2)")

    def ask(*_: object) -> dict[str, Any]:
        crew.end(worker)
        return {}

    with monkeypatch.context() as patched:
        patched.setattr(sys.modules["hardsock.metrics.siblings"], "_ask", ask)
        Siblings(crew.directory, 20, False, 60.0).collect()
    assert acquired(crew.collect()) == 5


def test_child_of_multiprocessing_is_counted_when_it_ends(crew: Crew) -> None:
    program = """if True:
        import multiprocessing, sys
        import hardsock as hs
        hs.metrics.Collector()
        def dial():
            with hs.listen(("127.0.0.1", 0)) as listener:
                with hs.connect(listener.address), listener.accept():
                    pass
        child = multiprocessing.get_context("fork").Process(target=dial)
        child.start()
        child.join()
        sys.exit(child.exitcode)
    """
    environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(crew.directory.parent)}
    subprocess.run([sys.executable, "-c", program], check=True, env=environment)
    assert value(crew.collect(), "hardsock_connect_seconds_count") == 1


def test_a_directory_whose_sockets_nobody_could_reach_is_refused(tmp_path: Path) -> None:
    program = """if True:
        import pathlib, sys
        import hardsock as hs
        hs.inspect(directory=pathlib.Path(sys.argv[1]) / "short")
        hs.metrics.Collector(directory=pathlib.Path(sys.argv[1]) / ("x" * 100))
    """
    command = [sys.executable, "-c", program, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert "too long for the address of a socket" in done.stderr


def test_child_that_is_forked_during_a_scrape_does_not_keep_the_lock(tmp_path: Path) -> None:
    siblings = Siblings(tmp_path, 20, False, 1.0)
    until_then, over = os.pipe()
    with siblings._locked(time.monotonic() + 30):
        pid = os.fork()
        if pid == 0:
            os.close(over)
            os.read(until_then, 1)
            os._exit(0)
    try:
        with siblings._locked(time.monotonic()):
            pass
    finally:
        os.close(over)
        os.close(until_then)
        os.waitpid(pid, 0)


# ---- a real server


@pytest.mark.slow
def test_prometheus_scrapes_what_happened(
    registry: CollectorRegistry, listener: hs.Listener
) -> None:
    server, thread = start_http_server(0, "127.0.0.1", registry)
    try:
        with (
            require(prometheus(f"127.0.0.1:{server.server_port}")) as scraping,
            hs.Pool(listener.address, name="orders", max_size=3) as pool,
            pool.connection(),
        ):

            def there(expression: str, holds: Callable[[float], bool]) -> bool:
                return poll_until(
                    lambda: any(holds(found) for _, found in scraping.query(expression)), 60
                )

            assert there('hardsock_pool_connections{pool="orders",state="lent"}', lambda n: n == 1)
            assert there('up{job="one"}', lambda n: n == 1)
            with hs.connect(listener.address):
                pass
            assert there("socket_conn_age_seconds_count", lambda n: n >= 1)
            age = "histogram_quantile(0.99, sum by (le) (socket_conn_age_seconds_bucket))"
            assert there(age, lambda n: n > 0)
            reasons = {
                labels["reason"] for labels, _ in scraping.query("socket_read_stall_seconds_count")
            }
            assert reasons == {"peer", "application", "gil"}
            kinds = scraping.get("targets/metadata", metric="hardsock_pool_wait_seconds")
            assert [one["type"] for one in kinds] == ["histogram"]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_scrapes_at_the_same_time_agree(registry: CollectorRegistry, listener: hs.Listener) -> None:
    """Counters never go down while pools come and go and several scrape."""
    stop = threading.Event()
    fell: list[tuple[float, float]] = []

    def scrape() -> None:
        last = 0.0
        while not stop.is_set():
            now = registry.get_sample_value("hardsock_pool_opened_total", {"pool": "brief"}) or 0.0
            if now < last:
                fell.append((last, now))
            last = now

    threads = [threading.Thread(target=scrape) for _ in range(3)]
    for thread in threads:
        thread.start()
    began = time.monotonic()
    for _ in range(50):
        with hs.Pool(listener.address, name="brief") as pool, pool.connection():
            pass
        del pool
    stop.set()
    for thread in threads:
        thread.join()
    assert not fell, f"within {time.monotonic() - began:.1f} s"
