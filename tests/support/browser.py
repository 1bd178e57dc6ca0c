"""A headless Chromium that is told what to do over its DevTools protocol."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import websocket

from hardsock.lab.servers.process import clean_environment
from hardsock.lab.unavailable import Unavailable
from hardsock.lab.waits import poll_until

__all__ = ["Browser", "browser"]


class Browser:
    """One tab."""

    def __init__(self, url: str, timeout: float) -> None:
        self._socket = websocket.create_connection(url, timeout=timeout, suppress_origin=True)
        self._number = 0
        self._timeout = timeout
        self.problems: list[str] = []
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def close(self) -> None:
        self._socket.close()

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        self._number += 1
        self._socket.send(json.dumps({"id": self._number, "method": method, "params": params}))
        while True:
            said = json.loads(self._socket.recv())
            if said.get("id") == self._number:
                assert "error" not in said, said["error"]
                result: dict[str, Any] = said["result"]
                return result
            if said.get("method") == "Runtime.exceptionThrown":
                self.problems.append(json.dumps(said["params"]["exceptionDetails"]))
            if said.get("method") == "Log.entryAdded":
                self.problems.append(said["params"]["entry"]["text"])
            if said.get("method") == "Runtime.consoleAPICalled":
                self._take_console(said["params"])

    def _take_console(self, said: dict[str, Any]) -> None:
        if said["type"] in ("error", "warning", "assert"):
            texts = [str(one.get("value", one.get("description"))) for one in said["args"]]
            self.problems.append(f"console.{said['type']}: {' '.join(texts)}")

    def resize(self, width: int, height: int) -> None:
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=1, mobile=width < 600,
        )  # fmt: skip

    def open(self, url: str, width: int, height: int) -> None:
        self.resize(width, height)
        self.call("Page.navigate", url=url)

    def ask(self, script: str) -> Any:
        return self.call("Runtime.evaluate", expression=script, returnByValue=True)["result"].get(
            "value"
        )

    def wait_for(self, script: str) -> None:
        assert poll_until(lambda: bool(self.ask(script)), self._timeout), (script, self.problems)

    def screenshot(self, path: Path) -> None:
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
        shot = self.call("Page.captureScreenshot", clip=clip, captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(shot["data"]))


@contextmanager
def browser(timeout: float = 60) -> Iterator[Browser]:
    """A tab of a browser of its own, which ends with the block; *timeout*: seconds for one answer."""
    program = shutil.which("chromium")
    if program is None:
        raise Unavailable("chromium is not installed")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        with subprocess.Popen(
            [
                program, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run",
                "--disable-dev-shm-usage", "--disable-background-networking",
                "--no-proxy-server", "--remote-debugging-port=0", f"--user-data-dir={profile}",
                "about:blank",
            ],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=clean_environment(),
        ) as process:  # fmt: skip
            try:
                tab = Browser(_tab(Path(profile) / "DevToolsActivePort"), timeout)
                try:
                    yield tab
                finally:
                    tab.close()
            finally:
                process.terminate()


def _tab(told: Path) -> str:
    assert poll_until(lambda: told.exists() and len(told.read_text().split()) == 2, 60)
    port, path = told.read_text().split()
    main = websocket.create_connection(f"ws://127.0.0.1:{port}{path}", suppress_origin=True)
    try:
        main.send(json.dumps({"id": 1, "method": "Target.createTarget",
                              "params": {"url": "about:blank"}}))  # fmt: skip
        while (said := json.loads(main.recv())).get("id") != 1:
            pass
    finally:
        main.close()
    return f"ws://127.0.0.1:{port}/devtools/page/{said['result']['targetId']}"
