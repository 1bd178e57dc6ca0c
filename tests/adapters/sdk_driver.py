"""The client of a model's API as a driver of the contract: requests for any path, by the SDK's own `get`."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2

import hardsock as hs


class SDKClient:
    def __init__(self, sdk: Any, root: Any) -> None:
        self._sdk, self._root = sdk, root

    def get(self, url: str) -> bytes:
        return self._sdk.get(url, cast_to=httpx2.Response).content  # type: ignore[no-any-return]

    def post(self, url: str, body: bytes) -> int:
        try:
            answer = self._sdk.post(url, content=body, cast_to=httpx2.Response)
        except self._root.APIStatusError as exc:
            return int(exc.status_code)
        return int(answer.status_code)

    def stream(self, url: str) -> Iterator[bytes]:
        """The answer's bytes as they come: below its events, which are tested elsewhere."""
        answer = self._sdk.get(
            url, cast_to=httpx2.Response, stream=True, stream_cls=self._root.Stream[object]
        )
        return answer.iter_raw()  # type: ignore[no-any-return]


class SDKDriver:
    """Without tries of the SDK's own: its total is for each of them, and its pauses are tested elsewhere."""

    lacks = frozenset({"retries"})

    def __init__(self, name: str) -> None:
        self.name = name
        self._adapter = importlib.import_module(f"hardsock.adapters.{name}")
        self._root = importlib.import_module(name)
        self.timed_out = (self._root.APITimeoutError, httpx2.TimeoutException, hs.DeadlineExceeded)
        self.failed = (self._root.APIConnectionError,)

    @contextlib.contextmanager
    def client(
        self, total: float | None, ca: Path | None = None, retries: int = 0
    ) -> Iterator[SDKClient]:
        tls = None if ca is None else hs.TLSConfig(ca=ca, alpn=("http/1.1",))
        with self._adapter.client(
            total=total, tls=tls, api_key="none", max_retries=retries
        ) as made:
            if total is None:
                made.timeout = None  # The SDK's own limits are not what is tested.
            # One connection at most, as the contract wants it: SDKs leave their pool as it is.
            transport = made._client._transport
            transport._pool._max_connections = 1
            transport._ready(False)
            yield SDKClient(made, self._root)
