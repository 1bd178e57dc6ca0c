"""docs/deploying.md: its program and its configurations, under load, as far as one machine can."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hardsock.lab.endpoint import connect_to
from hardsock.lab.servers.process import find_program, free_port, running
from hardsock.lab.waits import poll_until
from support.require import Unavailable, available
from support.serving import Honest
from support.signals import wait_until_caught

PAGE = Path(__file__).resolve().parents[2] / "docs" / "deploying.md"
PATIENCE = 60.0


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(), re.DOTALL)


# What sd_listen_fds(3) expects: descriptor 3, and the number of the process itself.
AS_SYSTEMD = """
import os, sys
number, file = sys.argv[1:]
os.dup2(int(number), 3)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1", LAG="0")
os.execv(sys.executable, [sys.executable, file, "0"])
"""


class App:
    """The page's program on a port of its own; it can be restarted as a deployment does."""

    def __init__(self, directory: Path, port: int) -> None:
        self._file = directory / "app.py"
        self._file.write_text(blocks("python")[0])
        self.port = port
        self._start()

    def _start(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, self._file, str(self.port)], env={**os.environ, "LAG": "1"}
        )
        assert poll_until(self._is_ready, PATIENCE)

    def _is_ready(self) -> bool:
        with contextlib.suppress(ConnectionError), connect_to(("127.0.0.1", self.port)) as sock:
            sock.sendall(b"GET /ready HTTP/1.1\r\n\r\n")
            return sock.recv(100).startswith(b"HTTP/1.1 200 OK")
        return False

    def restart(self) -> None:
        """SIGTERM, the end, a new process."""
        self.stop()
        self._start()

    def stop(self) -> None:
        """SIGTERM, and the end: nothing may have been cut."""
        wait_until_caught(self._process.pid, signal.SIGTERM)
        self._process.terminate()
        assert self._process.wait(PATIENCE) == 0, "it has cut somebody: see its log"

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()


@contextlib.contextmanager
def apps(directory: Path, *ports: int) -> Iterator[list[App]]:
    started: list[App] = []
    try:
        for port in ports:
            started.append(App(directory, port))
        yield started
    finally:
        for app in started:
            app.kill()


def on_ports(text: str, front: int, one: int, two: int) -> str:
    """A configuration of the page with free ports."""
    for written, port in (("8000", front), ("8081", one), ("8082", two)):
        assert f":{written}" in text
        text = text.replace(f":{written}", f":{port}")
    return text


@contextlib.contextmanager
def behind(name: str, directory: Path) -> Iterator[tuple[Any, list[App]]]:
    """The proxy called *name* in front of two of the page's programs."""
    ports = [free_port() for _ in range(3)]
    config = directory / f"{name}.cfg"
    text = on_ports(blocks(name)[0], *ports)
    with available():
        path = find_program(name)
    if name == "haproxy":
        config.write_text(text)
        argv = [path, "-W", "-db", "-f", str(config)]
    else:
        config.write_text(
            f"daemon off; pid {directory}/pid; error_log {directory}/error.log;\n"
            f"worker_rlimit_nofile 1024; events {{ worker_connections 512; }}\n"
            f"http {{ access_log off; client_body_temp_path {directory}/body;\n"
            f"proxy_temp_path {directory}/proxy; fastcgi_temp_path {directory}/fastcgi;\n"
            f"uwsgi_temp_path {directory}/uwsgi; scgi_temp_path {directory}/scgi;\n{text} }}\n"
        )
        argv = [path, "-e", f"{directory}/error.log", "-p", str(directory), "-c", str(config)]
    with apps(directory, *ports[1:]) as started:
        with running(name, argv, ports[0], directory) as proxy:
            assert poll_until(lambda: is_served(proxy.address), PATIENCE)
            yield proxy, started


def is_served(address: Any) -> bool:
    with contextlib.suppress(ConnectionError), connect_to(address) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")
        return sock.recv(100).startswith(b"HTTP/1.1 200")
    return False


@pytest.mark.slow
def test_a_rolling_restart_behind_haproxy_loses_nothing(tmp_path: Path) -> None:
    with behind("haproxy", tmp_path) as (proxy, started), Honest(proxy, retries=True) as honest:
        for app, name in zip(started, ("one", "two"), strict=True):
            honest.wait_for_more()
            app.restart()

            def is_seen(name: str = name) -> bool:
                return f"Server app/{name} is UP" in proxy.log()

            assert poll_until(is_seen, PATIENCE), "a deployment waits for that before the next"
        honest.wait_for_more()


@pytest.mark.slow
def test_a_rolling_restart_behind_nginx_loses_nothing(tmp_path: Path) -> None:
    with behind("nginx", tmp_path) as (proxy, started), Honest(proxy, retries=True) as honest:
        for app in started:
            honest.wait_for_more()
            app.restart()
        honest.wait_for_more()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "number"), [("haproxy", signal.SIGUSR2), ("nginx", signal.SIGHUP)]
)
def test_a_reload_of_the_proxy_loses_nothing(
    name: str, number: signal.Signals, tmp_path: Path
) -> None:
    with behind(name, tmp_path) as (proxy, _), Honest(proxy, retries=True) as honest:
        for nth in range(1, 4):
            honest.wait_for_more()
            # haproxy's worker serves before its master has a handler, and ignores it until then.
            wait_until_caught(proxy.pid, number)
            os.kill(proxy.pid, number)
            if name == "haproxy":  # Two reloads at once reset connections, from 3.x on.

                def is_over(nth: int = nth) -> bool:
                    return bool(proxy.log().count("Loading success") > nth)

                assert poll_until(is_over, PATIENCE), proxy.log()
        honest.wait_for_more(20)


def test_a_socket_that_stays_loses_nothing_over_restarts(tmp_path: Path) -> None:
    """As systemd does it: the socket is its own, and each process gets it."""
    app = tmp_path / "app.py"
    app.write_text(blocks("python")[0])

    with socket.create_server(("127.0.0.1", 0), backlog=128) as sock:
        held = type("Held", (), {"address": sock.getsockname()})

        def process() -> subprocess.Popen[bytes]:
            argv = [sys.executable, "-c", AS_SYSTEMD, str(sock.fileno()), str(app)]
            return subprocess.Popen(argv, pass_fds=[sock.fileno()])

        current = process()
        try:
            with Honest(held, retries=True) as honest:
                for _ in range(4):
                    honest.wait_for_more()
                    wait_until_caught(current.pid, signal.SIGTERM)
                    current.terminate()
                    assert current.wait(PATIENCE) == 0
                    current = process()
                honest.wait_for_more()
        finally:
            current.kill()
            current.wait()


# ---- what can only be read ----------------------------------------------------------------------


def test_systemd_accepts_the_units(tmp_path: Path) -> None:
    with available():
        if shutil.which("systemd-analyze") is None or not Path("/usr/bin/python3").exists():
            raise Unavailable("no systemd-analyze, or no python3 where the unit has it")
    files = []
    for text in blocks("ini"):
        file = tmp_path / text.splitlines()[0].removeprefix("# ")
        file.write_text(text)
        files.append(str(file))
    assert [Path(file).name for file in files] == ["app.socket", "app.service"]
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *files],
        capture_output=True,
        text=True,
        timeout=60,
    )
    ours = [line for line in done.stderr.splitlines() if "app." in line]
    assert ours == []
    assert done.returncode == 0, done.stderr


def number(text: str, name: str) -> float:
    found = re.search(rf"{name}\D*?([0-9.]+)", text)
    assert found, name
    return float(found[1])


def test_nobody_kills_before_the_drain_is_over() -> None:
    """Of each snippet: what the signal to end takes at most, and when the kill comes."""
    drain = number(blocks("python")[0], r"\nDRAIN =")
    unit = blocks("ini")[1]
    assert number(unit, "TimeoutStopSec=") >= number(unit, "LAG=") + drain + 1
    assert number(blocks("sh")[0], "stop -t") >= 2 + drain + 1
    pod = blocks("yaml")[0]
    before = number(pod, '"sleep"') + number(pod, "LAG, value")
    assert number(pod, "terminationGracePeriodSeconds:") >= before + drain + 1


def test_the_container_runs_the_program_and_no_shell() -> None:
    command = re.search(r"^CMD (.*)$", blocks("dockerfile")[0], re.MULTILINE)
    assert command
    assert json.loads(command[1])[0] == "python"


def test_kubernetes_files_are_yaml() -> None:
    yaml = pytest.importorskip("yaml")
    pod = yaml.safe_load(blocks("yaml")[0])["spec"]["template"]["spec"]
    container = pod["containers"][0]
    assert container["readinessProbe"]["httpGet"]["path"] == "/ready"
    assert container["livenessProbe"]["httpGet"]["path"] == "/live"
