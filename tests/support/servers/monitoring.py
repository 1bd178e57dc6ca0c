"""Prometheus, and promtool, which checks what it is given."""

from __future__ import annotations

import json
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hardsock.lab.servers.process import find_program, free_port, running, work_directory
from hardsock.lab.waits import poll_until

__all__ = ["Prometheus", "prometheus", "promtool"]


@dataclass(frozen=True)
class Prometheus:
    """A server that scrapes once a second."""

    port: int

    def get(self, path: str, **query: str) -> Any:
        """What its API says, the wrapping taken off."""
        url = f"http://127.0.0.1:{self.port}/api/v1/{path}?{urllib.parse.urlencode(query)}"
        with urllib.request.urlopen(url, timeout=20) as answer:
            return json.load(answer)["data"]

    def is_ready(self) -> bool:
        """It listens before it answers questions."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/-/ready", timeout=20):
                return True
        except urllib.error.HTTPError as refused:
            refused.close()
            return False

    def query(self, expression: str) -> list[tuple[dict[str, str], float]]:
        """Series and their values now."""
        found = self.get("query", query=expression)["result"]
        return [(one["metric"], float(one["value"][1])) for one in found]


@contextmanager
def prometheus(target: str) -> Iterator[Prometheus]:
    """A server that scrapes *target*, a host and port."""
    program = find_program("prometheus")
    with work_directory() as directory:
        port = free_port()
        config = {
            "global": {"scrape_interval": "1s", "scrape_timeout": "1s"},
            "scrape_configs": [{"job_name": "one", "static_configs": [{"targets": [target]}]}],
        }
        (directory / "prometheus.yml").write_text(json.dumps(config))
        argv = [
            program,
            f"--config.file={directory}/prometheus.yml",
            f"--storage.tsdb.path={directory}/data",
            f"--web.listen-address=127.0.0.1:{port}",
        ]
        with running("prometheus", argv, port, directory):
            server = Prometheus(port)
            assert poll_until(server.is_ready, 60), "Prometheus does not become ready"
            yield server


def promtool(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run it to its end."""
    return subprocess.run(
        [find_program("promtool"), *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )
