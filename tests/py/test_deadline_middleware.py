"""WSGI and ASGI applications under the deadline that came with the request."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from typing import Any
from wsgiref.util import FileWrapper, setup_testing_defaults

import pytest

import hardsock as hs
from hardsock import deadline

SOON = "20"  # milliseconds
LATE = 60.0


class Answer:
    """What a WSGI server would have sent."""

    def __init__(self) -> None:
        self.statuses: list[str] = []
        self.exc_info: Any = None

    def start_response(self, status: str, _headers: Any, exc_info: Any = None) -> Any:
        if self.statuses and exc_info is None:
            raise AssertionError("start_response was called twice")
        self.statuses.append(status)
        return lambda data: None


def ask(app: Any, **headers: Any) -> tuple[Iterable[bytes], Answer]:
    environ: dict[str, Any] = {}
    setup_testing_defaults(environ)
    environ["wsgi.file_wrapper"] = FileWrapper
    environ.update({k if "." in k else f"HTTP_{k.upper()}": v for k, v in headers.items()})
    answer = Answer()
    return app(environ, answer.start_response), answer


def wait() -> None:
    token = hs.current()
    assert token is not None
    token.wait(LATE)
    token.check()


def test_a_request_without_a_header_has_no_deadline() -> None:
    def app(_environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [])
        return [repr(hs.current()).encode()]

    body, answer = ask(deadline.wsgi(app))
    assert (list(body), answer.statuses) == ([b"None"], ["200 OK"])
    body, _ = ask(deadline.wsgi(app), x_request_timeout_ms="nonsense")
    assert list(body) == [b"None"]
    body, _ = ask(deadline.wsgi(app, default=5.0))
    assert list(body) != [b"None"]


def test_an_application_that_is_late_is_answered_with_504() -> None:
    def app(_environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [])
        wait()
        return []

    body, answer = ask(deadline.wsgi(app), grpc_timeout=SOON + "m")
    assert b"deadline" in b"".join(body)
    assert answer.statuses == ["200 OK", "504 Gateway Timeout"]


def test_what_is_too_late_on_arrival_never_reaches_the_application() -> None:
    def app(_environ: Any, _start_response: Any) -> list[bytes]:
        raise AssertionError

    for headers in (
        {"x_request_timeout_ms": "0"},
        {"x_request_timeout_ms": "1000", "hardsock.arrived": time.monotonic() - 2},
    ):
        body, answer = ask(deadline.wsgi(app), **headers)
        assert (len(list(body)), answer.statuses) == (1, ["504 Gateway Timeout"])
    _, answer = ask(deadline.wsgi(app, margin=2), x_request_timeout_ms="1500")
    assert answer.statuses == ["504 Gateway Timeout"]


def test_strangers_are_capped_and_can_only_shorten() -> None:
    left = []

    def app(_environ: Any, start_response: Any) -> list[bytes]:
        left.append(deadline.remaining())
        start_response("200 OK", [])
        return []

    ask(deadline.wsgi(app, cap=7), x_request_timeout_ms="99999999")
    with hs.timeout(3):
        ask(deadline.wsgi(app, cap=7), x_request_timeout_ms="99999999")
    assert left[0] is not None
    assert 6 < left[0] <= 7
    assert left[1] is not None
    assert left[1] <= 3


def test_a_streamed_body_keeps_its_scope_to_its_end() -> None:
    closed = []

    class Pieces:
        def __iter__(self) -> Iterator[bytes]:
            for _ in range(2):
                yield str(deadline.remaining() is not None).encode()
            wait()

        def close(self) -> None:
            closed.append(
                hs.current() is not None
            )  # CPython 3.13t frees no class, nor what it has.

    def app(_environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [])
        return Pieces()

    body, answer = ask(deadline.wsgi(app), x_request_timeout_ms=SOON)
    pieces = iter(body)
    assert [next(pieces), next(pieces)] == [b"True", b"True"]
    assert hs.current() is None, "the server's own code is outside"
    with pytest.raises(hs.DeadlineExceeded):
        next(pieces)
    body.close()  # type: ignore[attr-defined]
    assert closed == [True]
    assert answer.statuses == ["200 OK"], "an answer that has begun is cut, not replaced"


def test_a_streamed_body_that_is_late_before_its_first_byte_is_replaced() -> None:
    def app(_environ: Any, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [])
        yield b""
        wait()

    body, answer = ask(deadline.wsgi(app), x_request_timeout_ms=SOON)
    assert b"deadline" in b"".join(body)
    assert answer.statuses == ["200 OK", "504 Gateway Timeout"]


def test_what_was_written_by_hand_is_not_replaced() -> None:
    def app(_environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [])(b"begun")
        wait()
        return []

    with pytest.raises(hs.DeadlineExceeded):
        ask(deadline.wsgi(app), x_request_timeout_ms=SOON)


def test_an_error_that_is_not_of_this_deadline_is_the_applications() -> None:
    def app(_environ: Any, _start_response: Any) -> list[bytes]:
        hs.CancelToken(0).check()
        return []

    with pytest.raises(hs.DeadlineExceeded):
        ask(deadline.wsgi(app), x_request_timeout_ms="60000")


def test_files_and_finished_bodies_stay_what_they_are(tmp_path: Any) -> None:
    (tmp_path / "page").write_bytes(b"page")
    with (tmp_path / "page").open("rb") as file:
        wrapped = FileWrapper(file)
        body, _ = ask(
            deadline.wsgi(lambda e, s: (s("200 OK", []), wrapped)[1]),  # type: ignore[arg-type]
            x_request_timeout_ms="5000",
        )
        assert body is wrapped


# ---- ASGI


def ask_asgi(app: Any, headers: list[tuple[bytes, bytes]], **more: Any) -> list[dict[str, Any]]:
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    scope = {"type": "http", "headers": headers, **more}
    asyncio.run(app(scope, receive, send))
    return sent


async def forever() -> None:
    await asyncio.get_running_loop().create_future()


def test_an_asgi_application_that_is_late_is_cancelled_and_answered_with_504() -> None:
    ended = []

    async def app(_scope: Any, _receive: Any, _send: Any) -> None:
        try:
            await forever()
        finally:
            ended.append(True)

    sent = ask_asgi(deadline.asgi(app), [(b"X-Request-Timeout-Ms", SOON.encode())])
    assert [m.get("status") for m in sent] == [504, None]
    assert ended == [True]
    assert ask_asgi(deadline.asgi(app, default=0.01), [])[0]["status"] == 504


def test_an_asgi_answer_that_has_begun_is_cut() -> None:
    sent: list[Any] = []

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        sent.append("begun")
        await forever()

    with pytest.raises(hs.DeadlineExceeded):
        ask_asgi(deadline.asgi(app), [(b"grpc-timeout", b"20m")])
    assert sent == ["begun"]


def test_an_asgi_request_that_is_late_on_arrival_is_not_begun() -> None:
    async def app(_scope: Any, _receive: Any, _send: Any) -> None:
        raise AssertionError

    for headers, more in (
        ([(b"x-request-timeout-ms", b"0")], {}),
        ([(b"x-request-timeout-ms", b"900")], {"hardsock.arrived": time.monotonic() - 1}),
    ):
        assert ask_asgi(deadline.asgi(app), headers, **more)[0]["status"] == 504


def test_other_asgi_scopes_and_errors_pass_through() -> None:
    seen = []

    async def app(scope: Any, _receive: Any, _send: Any) -> None:
        seen.append((scope["type"], hs.current()))
        if scope["type"] == "http":
            hs.CancelToken(0).check()

    ask_asgi(deadline.asgi(app), [(b"x-request-timeout-ms", b"5")], type="websocket")
    assert seen == [("websocket", None)]
    with pytest.raises(hs.DeadlineExceeded):
        ask_asgi(deadline.asgi(app), [(b"x-request-timeout-ms", b"60000")])
    ask_asgi(deadline.asgi(lambda *a: asyncio.sleep(0)), [])


def test_hardsock_loads_none_of_the_libraries_that_it_has_hooks_for() -> None:
    code = (
        "import sys, hardsock; "
        "sys.exit(bool({'httpx', 'grpc', 'aiohttp', 'requests', 'trio', 'anyio'} & set(sys.modules)))"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
