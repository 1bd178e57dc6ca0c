"""The C library as a stranger gets it: installed, found by pkg-config, with the examples' programs."""

from __future__ import annotations

import contextlib
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hardsock.lab import PeerScript
from hardsock.lab.endpoint import connect_to
from support.require import Unavailable, available

ROOT = Path(__file__).resolve().parents[2]
FLAGS = ["-std=gnu11", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-O1"]
LIMIT = 120

Program = Callable[[str], Path]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with available():
        for tool in ("make", "cc", "pkg-config"):
            if shutil.which(tool) is None:
                raise Unavailable(f"{tool} is not installed")
    prefix = tmp_path_factory.mktemp("installed")
    subprocess.run(["make", "-s", "install", f"PREFIX={prefix}"], cwd=ROOT, check=True, timeout=600)
    return prefix


def asked(prefix: Path, *what: str) -> list[str]:
    """What pkg-config says."""
    done = subprocess.run(
        ["pkg-config", *what, "hardsock"],
        env={"PATH": "/usr/bin:/bin", "PKG_CONFIG_PATH": str(prefix / "lib/pkgconfig")},
        capture_output=True,
        text=True,
        check=True,
        timeout=LIMIT,
    )
    return done.stdout.split()


def compiled(prefix: Path, source: Path, into: Path) -> Path:
    flags = asked(prefix, "--cflags", "--libs")
    run_path = f"-Wl,-rpath,{prefix}/lib"
    command = ["cc", *FLAGS, str(source), "-o", str(into), *flags, run_path, "-lpthread"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT)
    assert (done.returncode, done.stderr) == (0, "")
    return into


@pytest.fixture(scope="module")
def program(installed: Path, tmp_path_factory: pytest.TempPathFactory) -> Program:
    made = tmp_path_factory.mktemp("programs")

    def compile_once(name: str) -> Path:
        path = made / name
        if not path.exists():
            compiled(installed, ROOT / f"examples/c/{name}.c", path)
        return path

    return compile_once


@contextlib.contextmanager
def server(program: Program) -> Iterator[tuple[str, int]]:
    argv = [program("server"), "127.0.0.1:0"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            host, _, port = process.stdout.readline().strip().rpartition(":")
            yield host, int(port)
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(LIMIT) == 0


def run(*argv: object) -> tuple[int, str, str]:
    done = subprocess.run([str(a) for a in argv], capture_output=True, text=True, timeout=LIMIT)
    return done.returncode, done.stdout, done.stderr


def test_the_client_gets_its_line_back_and_ends_cleanly(program: Program) -> None:
    with server(program) as (host, port):
        for line in ("hello", "x" * 4000):
            assert (0, line + "\n", "") == run(program("client"), f"{host}:{port}", line)


def test_the_client_says_what_went_wrong(program: Program) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))  # Nobody listens, and nobody else can.
        port = bound.getsockname()[1]
        state, out, err = run(program("client"), f"127.0.0.1:{port}", "x")
    assert (1, "") == (state, out)
    assert "connect" in err
    state, _, err = run(program("client"), "nonsense", "x")
    assert state == 1
    assert "nonsense" in err


def test_the_server_outlives_clients_that_reset_or_send_too_much(program: Program) -> None:
    with server(program) as address:
        with connect_to(address) as rude:
            rude.sendall(b"half a li")
            rude.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        with connect_to(address) as greedy:
            greedy.settimeout(LIMIT)
            with contextlib.suppress(ConnectionError):
                greedy.sendall(b"x" * 10000)
                assert greedy.recv(1) == b""
        where = f"{address[0]}:{address[1]}"
        assert run(program("client"), where, "still here")[:2] == (0, "still here\n")


def test_the_pool_reuses_its_connections(program: Program) -> None:
    # The server has one client at a time, so a pool of two would wait for its second.
    with socket.create_server(("127.0.0.1", 0)) as listener:
        script = (
            "import socket, sys, threading\n"
            "def echo(conn):\n"
            "    with conn:\n"
            "        while data := conn.recv(4096):\n"
            "            conn.sendall(data)\n"
            "listener = socket.socket(fileno=int(sys.argv[1]))\n"
            "while True:\n"
            "    threading.Thread(target=echo, args=(listener.accept()[0],), daemon=True).start()\n"
        )
        argv = [sys.executable, "-c", script, str(listener.fileno())]
        with subprocess.Popen(argv, pass_fds=[listener.fileno()]) as echo:
            try:
                port = listener.getsockname()[1]
                state, out, err = run(program("pool"), f"127.0.0.1:{port}", 1000)
            finally:
                echo.kill()
    assert (0, "") == (state, err)
    assert re.fullmatch(r"1000 lent, [12] opened, 0 failed\n", out)


def test_pkg_config_and_the_header_agree_about_the_version(installed: Path, tmp_path: Path) -> None:
    source = tmp_path / "version.c"
    source.write_text(
        "#include <hardsock.h>\n#include <stdio.h>\nint main(void)\n{\n"
        '    return printf("%s %s %d", hs_version(), HS_VERSION, HS_VERSION_NUMBER) < 0;\n}\n'
    )
    _, out, _ = run(compiled(installed, source, tmp_path / "version"))
    of_library, of_header, number = out.split()
    assert of_library == of_header == asked(installed, "--modversion")[0]
    parts = [int(part) for part in re.findall(r"\d+", of_header)[:3]]
    assert int(number) == parts[0] * 10000 + parts[1] * 100 + parts[2]


def test_the_binding_header_is_not_installed(installed: Path) -> None:
    assert [path.name for path in (installed / "include").iterdir()] == ["hardsock.h"]


def program_of_the_page() -> str:
    text = (ROOT / "docs/c-api.md").read_text()
    return next(block for block in re.findall(r"```c\n(.*?)```", text, re.S) if "#include" in block)


def test_the_program_of_the_page_ends_with_an_answer_a_reason_or_the_deadline(
    installed: Path, tmp_path: Path
) -> None:
    source = tmp_path / "get.c"
    source.write_text(program_of_the_page().replace("5000000000", "500000000"))
    program = compiled(installed, source, tmp_path / "get")
    said = [("recv_until", b"\r\n\r\n"), ("send", b"HTTP/1.0 200 OK\r\n\r\nhello")]
    patient = tmp_path / "patient.c"
    patient.write_text(program_of_the_page().replace("5000000000", "60000000000"))
    with PeerScript(said) as server:
        where = "{}:{}".format(*server.address)
        answered = compiled(installed, patient, tmp_path / "patient")
        assert run(answered, where) == (
            0,
            "HTTP/1.0 200 OK\n\nhello",
            "",
        )  # text: \r\n is read as \n
    with PeerScript([("stall",)], check=False) as server:
        status, out, err = run(program, "{}:{}".format(*server.address))
    assert (status, out) == (1, "")
    assert err.startswith("deadline exceeded (recv): ")
    status, out, err = run(program, "nohost")
    assert (status, out) == (1, "")
    assert err.startswith("invalid argument (-): 'nohost' has no port")


def test_c_in_the_documentation_compiles(installed: Path, tmp_path: Path) -> None:
    text = (ROOT / "docs/c-api.md").read_text()
    blocks = re.findall(r"```c\n(.*?)```", text, re.S)
    assert blocks.pop(0) == program_of_the_page()
    head = (installed / "include/hardsock.h").read_text().split("*/", 1)[0]
    example = "\n".join(
        line.removeprefix(" *") for line in head.split("\n") if line.startswith(" *     ")
    )
    source = "#include <hardsock.h>\n#include <stdio.h>\nint fail(const struct hs_error *err);\n"
    for number, block in enumerate([*blocks, example]):
        source += f"void example_{number}(void);\nvoid example_{number}(void)\n{{\n{block}\n}}\n"
    path = tmp_path / "blocks.c"
    path.write_text(source)
    flags = [*FLAGS, "-fsyntax-only", *asked(installed, "--cflags")]
    done = subprocess.run(["cc", *flags, path], capture_output=True, text=True, timeout=LIMIT)
    assert (done.returncode, done.stderr) == (0, "")


def test_what_the_header_shows_first_waits_until_its_deadline(
    installed: Path, tmp_path: Path
) -> None:
    """A slice of time that ends is no failure: who copies the example is told of the deadline."""
    head = (installed / "include/hardsock.h").read_text().split("*/", 1)[0]
    example = "\n".join(
        line.removeprefix(" *") for line in head.split("\n") if line.startswith(" *     ")
    )
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        address = listener.getsockname()
        stack.enter_context(connect_to(address))  # Now the queue is full: the kernel drops SYNs.
        where = f"127.0.0.1:{address[1]}"
        example = example.replace('"example.org:7000", 16', f'"{where}", {len(where)}')
        assert where in example
        source = tmp_path / "head.c"
        source.write_text(
            "#include <hardsock.h>\n#include <stdio.h>\n#include <stdlib.h>\n"
            "static void fail(const struct hs_error *err)\n{\n"
            '    printf("%s", hs_err_text(err->code));\n    exit(0);\n}\n'
            f"int main(void)\n{{\n{example}\n    return 1;\n}}\n"
        )
        assert run(compiled(installed, source, tmp_path / "head")) == (0, "deadline exceeded", "")
