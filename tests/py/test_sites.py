"""Which line the ledger names when a library stands between the program and hardsock."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import urllib3

import hardsock as hs
from hardsock import _core, aio
from hardsock.lab.peers import PeerScript
from hardsock.lab.threads import run_threaded

_numbers = itertools.count()


@pytest.fixture
def listener() -> Iterator[hs.Listener]:
    with hs.listen(("127.0.0.1", 0)) as listener:
        yield listener


def _library(name: str, code: str, **names: Any) -> Any:
    """The names of a module that is made of *code*, in a file of its own."""
    space: dict[str, Any] = {"__name__": name, "hs": hs, **names}
    exec(compile(code, f"/nowhere/{next(_numbers)}/{name}.py", "exec"), space)
    return space


def _fresh(stem: str = "library") -> str:
    return f"{stem}{next(_numbers)}"


_CALLS = "def call(function, *args): return function(*args)"


def _site(make: Callable[[], hs.Connection]) -> hs.Site:
    with make() as conn:
        (found,) = (one for one in hs.open_connections() if one.fd == conn.fileno())
    return found.site


def test_a_library_that_is_not_registered_is_named(listener: hs.Listener) -> None:
    library = _library(_fresh(), "def open(address): return hs.connect(address)")
    assert _site(lambda: library["open"](listener.address)).function == "open"


def test_frames_of_contextlib_only_pass_calls_on(listener: hs.Listener) -> None:
    with hs.Pool(listener.address) as pool, contextlib.ExitStack() as stack:
        stack.enter_context(pool.connection())
        (lent,) = pool.lent()
        assert lent.site.function == "test_frames_of_contextlib_only_pass_calls_on"


@pytest.mark.parametrize("module", ["{0}", "{0}.deep.inside"])
def test_a_registered_package_is_passed_over_whole(listener: hs.Listener, module: str) -> None:
    name = _fresh()
    code = "def open(address): return deeper(address)\ndef deeper(a): return hs.connect(a)"
    library = _library(module.format(name), code)
    hs.skip_sites(name)

    def business() -> hs.Connection:
        return library["open"](listener.address)  # type: ignore[no-any-return]

    site = _site(business)
    assert (__file__, "business") == (site.file, site.function)


def test_a_name_that_only_begins_alike_is_another_package(listener: hs.Listener) -> None:
    name = _fresh()
    hs.skip_sites(name)
    library = _library(name + "_too", "def open(address): return hs.connect(address)")
    assert _site(lambda: library["open"](listener.address)).function == "open"


def test_registering_counts_for_files_that_were_seen_before(listener: hs.Listener) -> None:
    name = _fresh()
    library = _library(name, "def open(address): return hs.connect(address)")

    def business() -> hs.Connection:
        return library["open"](listener.address)  # type: ignore[no-any-return]

    assert _site(business).function == "open"
    hs.skip_sites(name)
    assert _site(business).function == "business"


def test_the_hook_of_a_library_is_passed_over_with_it(listener: hs.Listener) -> None:
    name = _fresh()
    library = _library(name, _CALLS)
    hs.skip_sites(name)

    def hook() -> hs.Connection:
        return hs.connect(listener.address)

    def business() -> hs.Connection:
        return library["call"](hook)  # type: ignore[no-any-return]

    assert _site(business).function == "business"


def test_the_handler_that_a_library_calls_stands_for_itself(listener: hs.Listener) -> None:
    name = _fresh()
    library = _library(name, _CALLS)
    hs.skip_sites(name, calls_handlers=True)

    def handler() -> hs.Connection:
        return hs.connect(listener.address)

    def run() -> hs.Connection:
        return library["call"](handler)  # type: ignore[no-any-return]

    assert _site(run).function == "handler"


def test_in_a_thread_of_the_library_its_callback_is_named(listener: hs.Listener) -> None:
    name = _fresh()
    library = _library(name, _CALLS)
    hs.skip_sites(name)
    made: list[hs.Connection] = []

    def callback() -> None:
        made.append(hs.connect(listener.address))

    thread = threading.Thread(target=library["call"], args=(callback,))
    thread.start()
    thread.join()
    assert _site(made.pop).function == "callback"


def test_in_a_thread_of_the_library_alone_its_innermost_line_is_named(
    listener: hs.Listener,
) -> None:
    name = _fresh()
    library = _library(
        name, "def outer(a, out): inner(a, out)\ndef inner(a, out): out.append(hs.connect(a))"
    )
    hs.skip_sites(name)
    made: list[hs.Connection] = []
    thread = threading.Thread(target=library["outer"], args=(listener.address, made))
    thread.start()
    thread.join()
    assert _site(made.pop).function == "inner"


def test_an_event_loop_is_the_end_of_the_search(listener: hs.Listener) -> None:
    name = _fresh()
    code = "async def open(address): return await aio.connect(address)"
    library = _library(name, code, aio=aio)
    hs.skip_sites(name)

    async def named(conn: aio.Connection) -> str:
        async with conn:
            fd = conn.blocking.fileno()
            (found,) = (one for one in hs.open_connections() if one.fd == fd)
        return found.site.function

    async def in_a_task_of_its_own() -> str:
        return await named(await asyncio.create_task(library["open"](listener.address)))

    async def business() -> str:
        return await named(await library["open"](listener.address))

    assert asyncio.run(in_a_task_of_its_own()) == "open"
    assert asyncio.run(business()) == "business"


def test_pools_name_the_program_too(listener: hs.Listener) -> None:
    name = _fresh()
    library = _library(name, "def borrow(pool):\n with hs.timeout(30): return pool.acquire()")
    hs.skip_sites(name)

    def business(pool: hs.Pool) -> hs.Connection:
        return library["borrow"](pool)  # type: ignore[no-any-return]

    with hs.Pool(listener.address, max_size=1, trace_frames=2) as pool:
        conn = business(pool)
        (lent,) = pool.lent()
        assert lent.site.function == "business"
        assert lent.stack[0].function == "business"
        assert lent.stack[1].function == "test_pools_name_the_program_too"
        pool.release(conn)


def test_urllib3_is_known_without_being_registered() -> None:
    class Connection(urllib3.connection.HTTPConnection):
        def _new_conn(self) -> Any:
            return hs.create_connection((self.host, self.port), 30)

    class Pool(urllib3.HTTPConnectionPool):
        ConnectionCls = Connection

    def business(pool: Pool) -> Any:
        return pool.request("GET", "/", preload_content=False)

    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n"
    with PeerScript([("recv_until", b"\r\n\r\n"), ("send", answer), ("stall",)]) as peer:
        with Pool(*peer.address) as pool:
            response = business(pool)
            (found,) = hs.open_connections()
            assert (__file__, "business") == (found.site.file, found.site.function)
            response.close()


def test_a_thousand_made_up_names_of_files_are_not_kept_for_ever(listener: hs.Listener) -> None:
    for number in range(5000):
        space: dict[str, Any] = {"__name__": "made.up"}
        exec(compile("def here(f): return f()", f"/nowhere/{number}.py", "exec"), space)
        assert space["here"](_core._here)[0].co_filename == f"/nowhere/{number}.py"


def test_registering_while_others_connect(listener: hs.Listener) -> None:
    names = [_fresh() for _ in range(50)]
    libraries = [_library(name, _CALLS) for name in names]

    def work(index: int) -> None:
        for name, library in zip(names, libraries, strict=True):
            if index == 0:
                hs.skip_sites(name)
            else:
                code, _ = library["call"](_core._here)
                assert code.co_name in ("call", "work")

    run_threaded(work, 4)
    for library in libraries:
        assert library["call"](_core._here)[0] is not library["call"].__code__


@pytest.mark.parametrize(
    ("name", "error"), [(7, TypeError), ("", ValueError), ("a..b", ValueError), ("a/b", ValueError)]
)
def test_what_is_no_name_is_refused(name: str, error: type[Exception]) -> None:
    with pytest.raises(error, match="packages must be names of modules"):
        hs.skip_sites(name)
