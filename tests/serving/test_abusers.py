"""Programs that abuse servers, or load them: honest clients are served meanwhile, and sums add up."""

from __future__ import annotations

import contextlib
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import hardsock as hs
from hardsock.lab.servers.process import clean_environment, find_program
from support import http1
from support.programs import openssl_s_client
from support.require import available
from support.serving import Honest, Server, abused, few_workers, serving

if TYPE_CHECKING:
    from support.tls import Identities

PATIENCE = 60.0
CLIENTS = Path(__file__).parent / "clients"


def url(server: Server, tls: Identities | None, path: str = "/") -> str:
    return f"{'http' if tls is None else 'https'}://127.0.0.1:{server.address[1]}{path}"


@contextlib.contextmanager
def program(name: str, *arguments: str | Path, cwd: Path | None = None) -> Iterator[list[str]]:
    """Run it beside the block, and wait for its end; its output is in the list then."""
    with available():
        path = find_program(name)
    output: list[str] = []
    process = subprocess.Popen(
        [path, *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=clean_environment(),
        cwd=cwd,
    )
    with process:
        try:
            yield output
            output.append(process.communicate(timeout=PATIENCE)[0])
        except BaseException:
            process.kill()
            raise
    assert process.returncode == 0, output


# ---- slow clients -------------------------------------------------------------------------------

SLOW = {
    "headers": ["-H", "-i", "1", "-x", "8"],
    "body": ["-B", "-i", "1", "-s", "8192", "-x", "8"],
    "ranges": ["-R", "-a", "5", "-b", "1000"],
    "reads": ["-X", "-n", "1", "-w", "1", "-y", "64", "-z", "1", "-k", "3"],
}


def test_slow_clients_of_every_kind(driver: str, tls: Identities | None, tmp_path: Path) -> None:
    """slowhttptest in its four modes at once; its own probe must find the server available."""
    settings = few_workers(driver, 170, max_connections=300)
    with abused(driver, tls, **settings) as (server, honest), contextlib.ExitStack() as stack:
        outputs = {}
        for kind, options in SLOW.items():
            where = url(server, tls, "/bytes/200000" if kind == "reads" else "/")
            bounds = ["-c", "40", "-r", "40", "-l", "3", "-p", "20", "-u", where]
            outputs[kind] = stack.enter_context(program("slowhttptest", *options, *bounds))
        honest.wait_for_more(20)
        stack.close()
        for kind, output in outputs.items():
            said = re.sub(r"\x1b\[[0-9;]*m", "", output[0])
            assert "service available:   YES" in said, f"{kind}: {said[-2000:]}"
        assert server.stats().peak_active > 40


def test_the_times_of_a_message_free_a_full_server(driver: str, tls: Identities | None) -> None:
    """More slow clients than places: each leaves its own when the time for a head is up."""
    settings = few_workers(driver, 14, max_connections=16)
    with abused(driver, tls, http1.Times(head=0.5), **settings) as (server, honest):
        bounds = ["-c", "60", "-r", "60", "-l", "3", "-p", "20", "-u", url(server, tls)]
        with program("slowhttptest", *SLOW["headers"], *bounds):
            honest.wait_for_more(5)
        assert server.stats().errors["DeadlineExceeded"] >= 16


def test_a_flood_from_one_address_leaves_room_for_others(
    driver: str, tls: Identities | None
) -> None:
    """More slow clients than places, and no time for a message: limits for each peer are enough."""
    settings = few_workers(driver, 10, max_connections=24)
    settings["peer_limits"] = hs.PeerLimits(connections=10, exempt=["127.0.0.9/32"])
    if tls is not None:
        settings["tls"] = tls.server()
    with serving(driver, **settings) as server:
        ca = None if tls is None else tls.ca
        with Honest(server, ca=ca, source="127.0.0.9") as honest:
            honest.wait_for_more()
            bounds = ["-c", "60", "-r", "60", "-l", "3", "-p", "20", "-u", url(server, tls)]
            with program("slowhttptest", *SLOW["headers"], *bounds):
                honest.wait_for_more(20)
            honest.wait_for_more()
        peers = server.listener.stats().peers
        assert peers is not None
        assert peers.refused_connections >= 40
        server.settled()


# ---- loads --------------------------------------------------------------------------------------


def test_loads_are_answered_to_the_last_request(driver: str, tls: Identities | None) -> None:
    """ab, h2load, wrk and curl at once: not one failed request."""
    with abused(driver, tls, max_connections=200) as (server, honest):
        where = url(server, tls)
        with (
            program("ab", "-q", "-k", "-n", "1500", "-c", "20", where) as ab,
            program("ab", "-q", "-n", "300", "-c", "10", where) as ab_closing,
            program("h2load", "--h1", "-n", "1500", "-c", "20", "-m", "4", where) as h2load,
            program("wrk", "-t", "1", "-c", "20", "-d", "2s", where) as wrk,
            program("curl", "-skS", "--parallel", *[where] * 50) as curl,
        ):
            honest.wait_for_more()
        for output, count in ((ab[0], 1500), (ab_closing[0], 300)):
            assert re.search(rf"Complete requests: +{count}\n", output), output
            assert re.search(r"Failed requests: +0\n", output), output
            assert "Non-2xx" not in output
        assert "1500 succeeded, 0 failed, 0 errored, 0 timeout" in h2load[0], h2load[0]
        assert "Socket errors" not in wrk[0], wrk[0]
        assert "Non-2xx" not in wrk[0], wrk[0]
        assert curl[0].count(http1.GREETING.decode()) == 50, curl[0]


@pytest.fixture(scope="module")
def client_in_go(tmp_path_factory: pytest.TempPathFactory) -> Path:
    go = shutil.which("go")
    if go is None:
        pytest.skip("no Go here; the tests do not install it")
    binary = tmp_path_factory.mktemp("go") / "client"
    env = {**clean_environment(), "GOTOOLCHAIN": "local", "GOFLAGS": "-mod=mod", "GOPROXY": "off"}
    subprocess.run([go, "build", "-o", binary, CLIENTS / "client.go"], check=True, env=env)
    return binary


def test_a_client_in_go_gets_every_answer(
    driver: str, tls: Identities | None, client_in_go: Path
) -> None:
    with abused(driver, tls) as (server, honest):
        ca = [] if tls is None else [tls.ca]
        with program(str(client_in_go), url(server, tls), "400", *ca) as said:
            honest.wait_for_more()
        assert said[0] == http1.GREETING.decode() * 400


@pytest.fixture(scope="module")
def client_in_java(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """How to start it: it lives too shortly for the compiler that optimises, and several collectors."""
    javac = shutil.which("javac")
    if javac is None:
        pytest.skip("no Java here; the tests do not install it")
    classes = tmp_path_factory.mktemp("java")
    argv = [javac, "-d", str(classes), str(CLIENTS / "Client.java")]
    subprocess.run(argv, check=True, timeout=120, env=clean_environment())
    return ["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-cp", str(classes)]


@pytest.fixture(scope="module")
def trust_of_java(ids: Identities, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """What has Java trust our authority."""
    store = tmp_path_factory.mktemp("java") / "trusted"
    argv = ["keytool", "-importcert", "-noprompt", "-alias", "ours", "-file", str(ids.ca)]
    argv += ["-keystore", str(store), "-storepass", "secret"]
    subprocess.run(argv, check=True, capture_output=True, timeout=60)
    return [f"-Djavax.net.ssl.trustStore={store}", "-Djavax.net.ssl.trustStorePassword=secret"]


def test_a_client_in_java_gets_every_answer(
    driver: str,
    tls: Identities | None,
    client_in_java: list[str],
    request: pytest.FixtureRequest,
) -> None:
    trust = [] if tls is None else request.getfixturevalue("trust_of_java")
    count = 200 if tls is None else 50  # It has a connection for each, and its handshakes cost.
    with abused(driver, tls, max_connections=300) as (server, honest):
        with program(
            "java", *trust, *client_in_java, "Client", url(server, tls), str(count)
        ) as said:
            honest.wait_for_more()
        assert said[0] == http1.GREETING.decode() * count


def test_a_client_of_openssl_stays_and_asks_twice(driver: str, ids: Identities) -> None:
    with abused(driver, ids) as (server, _honest):
        options = ["-CAfile", str(ids.ca)]
        with available(), openssl_s_client(server.address, "localhost", options) as client:
            for _ in range(2):
                client.say(http1.request())
                assert client.read_until(http1.GREETING).startswith(b"HTTP/1.1 200 OK\r\n")
            client.end_input()
