"""The real clients of two model APIs over hardsock: a Stop button that works in the stream."""

from __future__ import annotations

import asyncio
import importlib
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

import hardsock as hs
from adapters.http_contract import server_context
from adapters.web import Web
from hardsock.lab.threads import Call
from support.require import need_module
from support.tls import Identities

pytestmark = pytest.mark.usefixtures("event_loops")

SOON = 0.3
LATE = 60.0
AT_ONCE = 10.0

ROOTS = {"openai": "OpenAIError", "anthropic": "AnthropicError"}


@pytest.fixture(params=list(ROOTS))
def sdk(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    need_module(name)
    importlib.import_module(name)
    return name


class Api(Web):
    """The server, and what its clients are made with to trust it."""

    def __init__(self, ids: Identities | None) -> None:
        super().__init__(tls=None if ids is None else server_context(ids))
        self.trusted = None if ids is None else hs.TLSConfig(ca=ids.ca, alpn=("http/1.1",))


@pytest.fixture(params=["plain", "tls"])
def web(request: pytest.FixtureRequest, ids: Identities) -> Iterator[Api]:
    server = Api(ids if request.param == "tls" else None)
    with server:
        yield server


def make(sdk: str, web: Api, *, awaited: bool = False, path: str = "", **settings: Any) -> Any:
    adapter = importlib.import_module(f"hardsock.adapters.{sdk}")
    maker = adapter.async_client if awaited else adapter.client
    return maker(api_key="none", base_url=web.url(path), tls=web.trusted, **settings)


MESSAGES = [{"role": "user", "content": "hello"}]


def ask(client: Any, *, stream: bool = True) -> Any:
    """Begin a request; of the awaited clients, what is to be awaited."""
    if hasattr(client, "messages"):
        return client.messages.create(model="m", max_tokens=9, messages=MESSAGES, stream=stream)
    return client.chat.completions.create(model="m", messages=MESSAGES, stream=stream)


def timeouts(sdk: str) -> tuple[type[Exception], ...]:
    """What stands for a time limit in the middle of a stream: the library's, or httpx2's."""
    import httpx2

    return (importlib.import_module(sdk).APITimeoutError, httpx2.TimeoutException)


def word_of(event: Any) -> str:
    if hasattr(event, "choices"):
        return str(event.choices[0].delta.content or "")
    return str(getattr(getattr(event, "delta", None), "text", ""))


class Reader:
    """What was read of a stream, and a token that is cancelled by another thread after four words."""

    def __init__(self) -> None:
        self.words: list[str] = []
        self.token = hs.CancelToken()
        self._enough = threading.Event()
        self._thread = threading.Thread(target=self._stop)
        self._thread.start()
        self.stopped = 0.0

    def _stop(self) -> None:
        self._enough.wait()
        self.stopped = time.monotonic()
        self.token.cancel("the Stop button")

    def take(self, event: Any) -> None:
        if word := word_of(event):
            self.words.append(word)
        if len(self.words) == 4:
            self._enough.set()

    def close(self) -> float:
        """Seconds from the press of the button to now."""
        took = time.monotonic() - self.stopped
        self._enough.set()
        self._thread.join()
        return took


def test_the_stop_button_ends_a_stream_in_its_middle(sdk: str, web: Api) -> None:
    reader = Reader()
    with make(sdk, web) as client:
        with hs.scope(reader.token):
            stream = ask(client)
        with pytest.raises(hs.Cancelled, match="the Stop button"):
            for event in stream:
                reader.take(event)
        took = reader.close()
    assert "".join(reader.words) == "Hello from a stream"
    assert took < AT_ONCE
    assert web.connections == 1, "it was not tried again"


def test_the_stop_button_ends_an_awaited_stream_in_its_middle(sdk: str, web: Api) -> None:
    async def main() -> float:
        reader = Reader()
        async with make(sdk, web, awaited=True) as client:
            with hs.scope(reader.token):
                stream = await ask(client)
            with pytest.raises(hs.Cancelled, match="the Stop button"):
                async for event in stream:
                    reader.take(event)
            took = reader.close()
        assert "".join(reader.words) == "Hello from a stream"
        return took

    assert asyncio.run(main()) < AT_ONCE
    assert web.connections == 1


def test_the_total_bounds_the_whole_stream(sdk: str, web: Api) -> None:
    began = time.monotonic()
    with make(sdk, web, total=SOON) as client:
        words = []
        with pytest.raises(timeouts(sdk)):
            for event in ask(client):
                words.append(word_of(event))
    assert "".join(words) == "Hello from a stream"
    assert time.monotonic() - began < AT_ONCE


def test_the_total_bounds_an_awaited_stream(sdk: str, web: Api) -> None:
    async def main() -> None:
        async with make(sdk, web, awaited=True, total=SOON) as client:
            with pytest.raises(timeouts(sdk)):
                async for _ in await ask(client):
                    pass

    began = time.monotonic()
    asyncio.run(main())
    assert time.monotonic() - began < AT_ONCE


def test_a_cancelled_request_is_neither_retried_nor_wrapped(sdk: str, web: Api) -> None:
    library = importlib.import_module(sdk)
    token = hs.CancelToken()

    def cancel() -> None:
        web.arrived.acquire()
        token.cancel("enough")

    thread = threading.Thread(target=cancel)
    thread.start()
    with make(sdk, web, path="/silent", max_retries=5) as client:
        with pytest.raises(hs.Cancelled, match="enough") as caught, hs.scope(token):
            ask(client, stream=False)
    thread.join()
    assert isinstance(caught.value, getattr(library, ROOTS[sdk]))
    assert len(web.requests) == 1


def test_a_cancel_ends_the_pause_before_the_next_try(sdk: str, web: Api) -> None:
    token, pausing = hs.CancelToken(), threading.Event()
    with make(sdk, web, path="/busy", max_retries=2) as client:
        pause = client._sleep_for_retry

        def told(**how: Any) -> None:
            pausing.set()
            pause(**how)

        client._sleep_for_retry = told

        def within() -> None:
            with hs.scope(token):
                ask(client, stream=False)

        with Call(within) as call:
            assert pausing.wait(LATE)
            token.cancel("the Stop button")
            with pytest.raises(hs.Cancelled, match="the Stop button"):
                call.result(20.0)  # less than the pause
        del client._sleep_for_retry
    assert len(web.requests) == 1, "it was not tried again"


def test_a_cancel_ends_the_pause_before_the_next_awaited_try(sdk: str, web: Api) -> None:
    token, pausing = hs.CancelToken(), threading.Event()

    async def main() -> None:
        async with make(sdk, web, awaited=True, path="/busy", max_retries=2) as client:
            pause = client._sleep_for_retry

            async def told(**how: Any) -> None:
                pausing.set()
                await pause(**how)

            client._sleep_for_retry = told
            with pytest.raises(hs.Cancelled, match="the Stop button"), hs.scope(token):
                await ask(client, stream=False)
            del client._sleep_for_retry

    with Call(asyncio.run, main()) as call:
        assert pausing.wait(LATE)
        token.cancel("the Stop button")
        call.result(20.0)  # less than the pause
    assert len(web.requests) == 1, "it was not tried again"


def test_the_pause_before_the_next_try_ends_with_the_scope(sdk: str, web: Api) -> None:
    token = hs.CancelToken()
    with make(sdk, web, path="/busy", max_retries=2) as client:
        pause = client._sleep_for_retry

        def told(**how: Any) -> None:
            token.set_timeout(SOON)
            pause(**how)

        client._sleep_for_retry = told
        with pytest.raises(hs.DeadlineExceeded), hs.scope(token):
            ask(client, stream=False)
        del client._sleep_for_retry
    assert len(web.requests) == 1, "it was not tried again"


def test_the_pause_before_the_next_awaited_try_ends_with_the_scope(sdk: str, web: Api) -> None:
    async def main() -> None:
        token = hs.CancelToken()
        async with make(sdk, web, awaited=True, path="/busy", max_retries=2) as client:
            pause = client._sleep_for_retry

            async def told(**how: Any) -> None:
                token.set_timeout(SOON)
                await pause(**how)

            client._sleep_for_retry = told
            with pytest.raises(hs.DeadlineExceeded), hs.scope(token):
                await ask(client, stream=False)
            del client._sleep_for_retry

    asyncio.run(main())
    assert len(web.requests) == 1, "it was not tried again"
