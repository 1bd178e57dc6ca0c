"""The debug page: as ASGI and WSGI app, as a handler, and in a browser."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from wsgiref.util import setup_testing_defaults
from wsgiref.validate import validator

import pytest

import hardsock as hs
from hardsock import debug
from hardsock.debug._hints import hint_of, learned_hint
from hardsock.debug._snapshot import NO_FAILURES
from hardsock.lab.waits import poll_until
from tests.support.browser import browser
from tests.support.require import require

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'&\u202e"
PATHS = ("/", "/page.css", "/page.js", "/data", "/events")


def get(address: Any, path: str, method: str = "GET") -> tuple[int, dict[str, str], bytes]:
    conn = http.client.HTTPConnection(*address, timeout=30)
    try:
        conn.request(method, path)
        answer = conn.getresponse()
        return answer.status, dict(answer.getheaders()), answer.read()
    finally:
        conn.close()


@pytest.fixture
def page() -> Iterator[Any]:
    with hs.serve(debug.handler(every=0.5), ("127.0.0.1", 0), drain_timeout=30) as server:
        yield server.address


def call_asgi(path: str, method: str = "GET", root: str = "") -> tuple[int, dict[str, str], bytes]:
    sent: list[dict[str, Any]] = []

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    async def receive() -> dict[str, Any]:
        return {"type": "http.request"}

    scope = {"type": "http", "method": method, "path": path, "root_path": root}
    asyncio.run(debug.asgi()(scope, receive, send))
    headers = {k.decode().title(): v.decode() for k, v in sent[0]["headers"]}
    return sent[0]["status"], headers, sent[1]["body"]


def call_wsgi(path: str, method: str = "GET", root: str = "") -> tuple[int, dict[str, str], bytes]:
    environ: dict[str, Any] = {}
    setup_testing_defaults(environ)
    environ.update(PATH_INFO=path, REQUEST_METHOD=method, SCRIPT_NAME=root, QUERY_STRING="")
    told: list[Any] = []
    answer = validator(debug.wsgi())(environ, lambda *args: told.append(args))
    body = b"".join(answer)
    answer.close()  # type: ignore[attr-defined]
    return int(told[0][0].split()[0]), dict(told[0][1]), body


@pytest.mark.parametrize("call", [call_asgi, call_wsgi])
def test_apps_answer_get_only_with_a_policy_that_allows_no_inline_script(call: Any) -> None:
    for path in PATHS:
        status, headers, body = call(path)
        assert status == 200
        assert body
        assert "script-src 'self'" in headers["Content-Security-Policy"]
        assert "unsafe" not in headers["Content-Security-Policy"]
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Cache-Control"] == "no-store"
    for method in ("POST", "PUT", "DELETE", "HEAD"):
        status, headers, _ = call("/data", method)
        assert (status, headers["Allow"]) == (405, "GET")
    assert call("/../page.html")[0] == 404
    assert call("/page.html")[0] == 404


@pytest.mark.parametrize("call", [call_asgi, call_wsgi])
def test_under_a_path_without_its_slash_the_browser_is_sent_on(call: Any) -> None:
    path = "/in/debug" if call is call_asgi else ""
    status, headers, _ = call(path, root="/in/debug")
    assert (status, headers["Location"]) == (301, "debug/")


@pytest.mark.parametrize("call", [call_asgi, call_wsgi])
def test_a_path_that_a_client_has_chosen_adds_no_header(call: Any) -> None:
    root = "/of/https:evil\r\nSet-Cookie: a=b"
    path = root if call is call_asgi else ""
    _, headers, _ = call(path, root=root)
    assert headers["Location"] == "https%3Aevil%0D%0ASet-Cookie%3A%20a%3Db/"


def test_under_a_path_an_asgi_server_may_give_the_whole_path_or_the_rest() -> None:
    for path in ("/in/debug/page.css", "/page.css"):
        assert call_asgi(path, root="/in/debug")[0] == 200
    assert call_asgi("/in/debugger", root="/in/debug")[0] == 404


def test_an_asgi_app_lives_with_its_server_and_takes_no_websocket() -> None:
    async def main() -> list[str]:
        sent: list[str] = []
        inbox = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]

        async def receive() -> dict[str, Any]:
            return inbox.pop(0)

        async def send(message: dict[str, Any]) -> None:
            sent.append(message["type"])

        app = debug.asgi()
        await app({"type": "lifespan"}, receive, send)
        inbox.append({"type": "websocket.connect"})
        await app({"type": "websocket"}, receive, send)
        return sent

    assert asyncio.run(main()) == [
        "lifespan.startup.complete",
        "lifespan.shutdown.complete",
        "websocket.close",
    ]


def test_the_handler_answers_and_survives_nonsense(page: Any) -> None:
    for path in PATHS:
        assert get(page, path)[0] == 200
    assert get(page, "/data?x=1")[0] == 200
    assert get(page, "/data", "POST")[0] == 405
    for said in (b"GET\r\n\r\n", b"GET /\x00 HTTP/1.1 x\r\n\r\n", b"\xff\xfe / HTTP/1.1\r\n\r\n"):
        with socket.create_connection(page, 30) as sock:
            sock.sendall(said)
            assert sock.recv(100).split()[1] in (b"400", b"405")
    with socket.create_connection(page, 30) as sock:
        sock.sendall(b"x" * 20000)
        with pytest.raises(ConnectionError):
            while sock.recv(100):
                pass
            raise ConnectionError  # The end, in order or not.
    assert get(page, "/")[0] == 200


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:9090", 200),
        ("[::1]:9090", 200),
        ("[::1]", 200),
        ("LocalHost", 200),
        ("debug.example:80", 200),
        ("evil.example", 421),
        ("127.0.0.1.evil.example:9090", 421),
        ("localhost\r\nHost: evil.example", 421),
        ("", 421),
    ],
)
def test_the_handler_is_not_asked_under_a_strange_name(host: str, status: int) -> None:
    """A page of evil.example, whose name leads to 127.0.0.1 by now, may read what it gets."""
    shown = debug.handler(hosts=["debug.example"])
    with hs.serve(shown, ("127.0.0.1", 0), drain_timeout=30) as server:
        with socket.create_connection(server.address, 30) as sock:
            sock.sendall(f"GET /data HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
            assert int(sock.recv(100).split()[1]) == status


def test_an_event_is_one_line_of_json_and_says_when_to_ask_again(page: Any) -> None:
    _, headers, body = get(page, "/events")
    assert headers["Content-Type"] == "text/event-stream; charset=utf-8"
    retry, data, *rest = body.decode("ascii").split("\n")
    assert (retry, rest) == ("retry: 500", ["", ""])
    shown = json.loads(data.removeprefix("data: "))
    assert shown["pid"] == os.getpid()
    assert shown["history"][-1][1] > 0


def test_every_failure_that_a_reader_can_mend_has_a_hint() -> None:
    kinds = hs.metrics()["events"].keys() - {"cancelled", *NO_FAILURES}
    for kind in kinds:
        assert hint_of({"errno": 0, "kind": kind}), kind
    assert "ports" in (hint_of({"errno": 99, "kind": "connect_failed"}) or "")
    assert hint_of({"errno": 0, "kind": "draining"}) is None


def event(kind: str, what: str, age: float = 1) -> dict[str, Any]:
    return {"kind": kind, "what": what, "age": age, "errno": 0}


def test_hints_learn_from_what_else_has_happened() -> None:
    failed = [event("connect_failed", "10.0.0.1:5", age) for age in (70, 9, 1)]
    slow = [event("connect_slow", "10.0.0.1:5", 80) for _ in range(2)]
    other = event("connect_failed", "10.0.0.2:5")
    events = [*slow, *failed, other]
    assert learned_hint(failed[0], events, []) == (
        "Of the connects to this address in the last 80 s 2 others failed, 2 others took over 2 s."
    )
    assert learned_hint(other, events, []) is None
    assert learned_hint(event("reset", "10.0.0.1:5"), events, []) is None


def test_a_hint_tells_who_holds_the_pool_now() -> None:
    site = {"file": "orders.py", "line": 88, "function": "run"}
    holders = [{"site": None, "age": 3.0}, {"site": site, "age": 41.2}]
    pool = {"name": "orders", "waiting": 3, "holders": holders}
    late = event("pool_timeout", "orders")
    assert learned_hint(late, [late], [pool]) == (
        "Now 2 are lent and 3 callers wait; the longest is held by orders.py:88 in run for 41 s."
    )
    assert learned_hint(late, [late], []) is None
    assert learned_hint(late, [late], [{**pool, "holders": []}]) is None


def test_the_page_has_servers_with_their_states_and_what_was_learned(page: Any) -> None:
    with hs.listen(("127.0.0.1", 0)) as gone:
        dead = gone.address
    for _ in range(3):
        with pytest.raises(hs.ConnectError):
            hs.connect(dead)
    _, _, body = get(page, "/events")
    shown = json.loads(body.decode("ascii").split("\n")[1].removeprefix("data: "))
    servers = [(one["kind"], one["state"], one["busy"]) for one in shown["servers"]]
    assert ("threads", "accepting", 1) in servers
    assert page[1] in [int(one["address"].rpartition(":")[2]) for one in shown["listeners"]]
    first = next(one for one in shown["events"] if one["what"].endswith(f":{dead[1]}"))
    # An address that an earlier test had may have failed more often.
    assert re.search(r"\d+ others failed", first["hint"])
    assert first["hint"].startswith("Nothing listens there")


@contextmanager
def trouble() -> Iterator[None]:
    """A service with all that the page can show, under the names of somebody hostile."""

    def echo(conn: hs.Connection) -> None:
        while data := conn.recv(100):
            conn.sendall(data)

    with ExitStack() as stack:
        server = stack.enter_context(hs.serve(echo, ("127.0.0.1", 0), drain_timeout=30))
        pool = stack.enter_context(
            hs.Pool(server.address, name=HOSTILE, options=hs.PoolOptions(max_size=2))
        )
        held = [pool.acquire() for _ in range(2)]
        thread = threading.Thread(target=lambda: pool.release(pool.acquire(timeout=60)))
        thread.start()
        assert poll_until(lambda: pool.stats().waiting == 1, 30)
        for _ in range(3):
            stack.enter_context(socket.create_connection(server.address))
        with pytest.raises(hs.ConnectError):
            hs.connect("unix:/tmp/<img src=x onerror=alert(3)>")
        stack.callback(thread.join)
        stack.callback(lambda: [pool.release(conn) for conn in held])
        yield


def shots() -> Path:
    """Where screenshots go: kept for who wants to look at them."""
    path = Path(os.environ.get("HARDSOCK_SCREENSHOTS", "build/screenshots"))
    path.mkdir(parents=True, exist_ok=True)
    return path


@pytest.mark.slow
@pytest.mark.parametrize(("name", "width", "height"), [("desktop", 1280, 900), ("phone", 390, 844)])
def test_a_browser_shows_it_live_and_nothing_of_a_peers_is_markup(
    page: Any, name: str, width: int, height: int
) -> None:
    with trouble(), require(browser()) as tab:
        tab.open(f"http://127.0.0.1:{page[1]}/", width, height)
        tab.wait_for("Number(document.body.dataset.looks) >= 3")
        text = tab.ask("document.body.innerText")
        assert HOSTILE.replace("\u202e", "\\u202e") in text
        assert "<img src=x onerror=alert(3)>" in text
        assert tab.ask("document.querySelectorAll('img, main script, iframe').length") == 0
        assert tab.ask("document.documentElement.scrollWidth") <= width
        assert "who waits" in text
        assert "accepting" in text
        assert "test_debug.py" in text
        assert "as of" in tab.ask("document.getElementById('state').textContent")
        tab.wait_for("document.querySelector('polyline') !== null")
        tab.screenshot(shots() / f"debug-{name}.png")
        assert tab.problems == []


@pytest.mark.slow
def test_inline_scripts_are_refused_by_the_policy(page: Any) -> None:
    with require(browser()) as tab:
        tab.open(f"http://127.0.0.1:{page[1]}/", 800, 600)
        tab.wait_for("Number(document.body.dataset.looks) >= 1")
        tab.ask(
            "{const s = document.createElement('script'); s.textContent = 'window.hurt = 1';"
            "document.body.append(s)}"
        )
        assert tab.ask("window.hurt") is None
        assert any("Content Security Policy" in one for one in tab.problems)
