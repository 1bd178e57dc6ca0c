"""``hardsock run``: real programs, unchanged, under its limits, and what it says of them."""

from __future__ import annotations

import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from adapters.http_peer import HttpPeer
from adapters.web import Web
from hardsock.lab.blackhole import BlackHole
from hardsock.lab.peers import PeerScript
from hardsock.lab.servers.process import Server
from hardsock.lab.waits import poll_until
from hardsock.running.settings import Settings, parse
from support.proxy import Proxy
from support.require import need_module, require
from support.servers import http_server, postgres, redis_server
from support.tls import Identities

HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"
DRIP: list[tuple[Any, ...]] = [
    ("recv_until", b"\r\n\r\n"),
    ("send", HEAD),
    ("drip", b"x" * 1000, 0.05),
]
FAR = 25.0  # seconds; all that is cut here would take longer


def start(*arguments: str, env: dict[str, str] | None = None, **how: Any) -> subprocess.Popen[str]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("HARDSOCK")}
    return subprocess.Popen(
        [sys.executable, "-m", "hardsock", "run", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**environment, **(env or {})},
        **how,
    )


def run(*arguments: str, **how: Any) -> subprocess.CompletedProcess[str]:
    began = time.monotonic()
    with start(*arguments, **how) as process:
        out, err = process.communicate(timeout=120)
    took = time.monotonic() - began
    assert took < FAR + 20, (took, out, err)
    return subprocess.CompletedProcess(arguments, process.returncode, out, err)


def program(tmp_path: Path, text: str) -> str:
    path = tmp_path / "program.py"
    path.write_text(textwrap.dedent(text))
    return str(path)


def ends_at_the_deadline(tmp_path: Path, text: str, *arguments: str, limit: str = "1") -> str:
    """Run *text*, which times itself: it prints what was raised and how long that took."""
    code = "import sys, time\nbegan = time.monotonic()\ntry:\n" + textwrap.indent(
        textwrap.dedent(text), "    "
    )
    code += (
        "\nexcept Exception as exc:\n"
        "    print(type(exc).__name__, exc, f'took={time.monotonic() - began:.2f}')\n"
    )
    path = program(tmp_path, code)
    done = run("--deadline", limit, "--report", path, *arguments)
    found = re.search(r"took=([0-9.]+)", done.stdout)
    assert found is not None, (done.stdout, done.stderr)
    assert float(limit) * 0.9 <= float(found[1]) < FAR, done.stdout
    assert "calls that a limit has ended: none" not in done.stderr
    assert path in done.stderr, "the line of the program"
    return done.stdout


# ---- clients under a deadline


def test_requests_ends_at_the_deadline_while_the_server_drips(tmp_path: Path) -> None:
    need_module("requests")
    with PeerScript(DRIP, check=False) as peer:
        text = "import requests\nrequests.get(sys.argv[1], timeout=30)"
        out = ends_at_the_deadline(tmp_path, text, "http://{}:{}/".format(*peer.address))
    assert "Read timed out" in out


def test_requests_ends_at_the_deadline_over_tls(tmp_path: Path) -> None:
    need_module("requests")
    ids = Identities(tmp_path)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(ids.server_identity.chain, ids.server_identity.key)  # type: ignore[arg-type]
    with PeerScript(DRIP, tls=server, check=False) as peer:
        text = "import requests\nrequests.get(sys.argv[1], verify=sys.argv[2], timeout=30)"
        url = f"https://localhost:{peer.address[1]}/"
        out = ends_at_the_deadline(tmp_path, text, url, str(ids.ca))
    assert "Read timed out" in out


@pytest.mark.parametrize(
    "text",
    [
        """
        import http.client
        conn = http.client.HTTPConnection(sys.argv[1], int(sys.argv[2]), timeout=30)
        conn.request("GET", "/")
        conn.getresponse().read()
        """,
        """
        import urllib.request
        urllib.request.urlopen(f"http://{sys.argv[1]}:{sys.argv[2]}/", timeout=30).read()
        """,
    ],
    ids=["http.client", "urllib"],
)
def test_the_standard_librarys_clients_end_at_the_deadline(tmp_path: Path, text: str) -> None:
    with PeerScript(DRIP, check=False) as peer:
        host, port = peer.address  # type: ignore[misc]
        ends_at_the_deadline(tmp_path, text, str(host), str(port))


def test_redis_ends_at_the_deadline_while_the_reply_drips(tmp_path: Path) -> None:
    need_module("redis")
    script = [("recv", 1), ("send", b"$1000\r\n"), ("drip", b"x" * 1000, 0.05)]
    with PeerScript(script, check=False) as peer:
        text = """
            import redis
            client = redis.Redis(sys.argv[1], int(sys.argv[2]), protocol=2, socket_timeout=5,
                                 lib_name=None, lib_version=None, retry=None)
            client.get("x")
        """
        host, port = peer.address  # type: ignore[misc]
        ends_at_the_deadline(tmp_path, text, str(host), str(port))


def test_smtplib_ends_at_the_deadline_while_the_greeting_drips(tmp_path: Path) -> None:
    with PeerScript([("drip", b"220 " + b"x" * 1000, 0.05)], check=False) as peer:
        host, port = peer.address  # type: ignore[misc]
        text = "import smtplib\nsmtplib.SMTP(sys.argv[1], int(sys.argv[2]), timeout=30)"
        ends_at_the_deadline(tmp_path, text, str(host), str(port))


def test_a_connect_and_a_read_have_limits_of_their_own(tmp_path: Path) -> None:
    path = program(
        tmp_path,
        """
        import socket, sys
        for way, port in (("connect", sys.argv[1]), ("read", sys.argv[2])):
            try:
                socket.create_connection(("127.0.0.1", int(port))).recv(1)
            except TimeoutError:
                print(way, "ended")
        """,
    )
    with BlackHole() as hole, PeerScript([("stall",)], check=False) as peer:
        ports = [str(hole.address[1]), str(peer.address[1])]
        done = run("--connect", "0.3", "--read", "0.3", path, *ports)
    assert done.stdout.split("\n") == ["connect ended", "read ended", ""], done.stderr
    assert done.stderr == "", "no report was asked for"


def test_each_exchange_of_a_connection_that_is_kept_has_the_whole_deadline(tmp_path: Path) -> None:
    path = program(
        tmp_path,
        """
        import socket, sys, time
        sock = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
        began = time.monotonic()
        while time.monotonic() - began < 2.5:
            sock.sendall(b"?")
            assert sock.recv(1) == b"!"
            time.sleep(0.1)
        print("alive")
        sock.close()
        """,
    )

    def answer(sock: socket.socket) -> None:
        while sock.recv(1):
            sock.sendall(b"!")

    with PeerScript([("call", answer)]) as peer:
        done = run("--deadline", "2", path, str(peer.address[1]))
    assert (done.stdout, done.stderr) == ("alive\n", "")


def test_an_idle_connection_is_alive_after_its_deadline_and_has_a_new_one(tmp_path: Path) -> None:
    path = program(
        tmp_path,
        """
        import socket, sys, time
        sock = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
        def exchange():
            sock.sendall(b"?")
            return sock.recv(1)
        def probe():
            sock.setblocking(False)
            try:
                return sock.recv(1, socket.MSG_PEEK)
            except BlockingIOError:
                return "alive"
            finally:
                sock.setblocking(True)
        print(exchange(), probe())
        time.sleep(1.2)
        print(probe(), exchange())
        sock.sendall(b"#")
        try:
            sock.recv(1)
        except TimeoutError as exc:
            print(type(exc).__name__, flush=True)
        sock.close()
        """,
    )

    def answer(sock: socket.socket) -> None:
        while sock.recv(1) == b"?":
            sock.sendall(b"!")
        sock.recv(1)

    with PeerScript([("call", answer)]) as peer:
        done = run("--deadline", "1", path, str(peer.address[1]))
    assert done.stdout == "b'!' alive\nalive b'!'\nDeadlineExceeded\n", done.stderr


def test_a_look_without_a_wait_is_not_ended_by_the_deadline(tmp_path: Path) -> None:
    """MSG_DONTWAIT gives what is there, or EAGAIN, however long ago the exchange was."""
    text = """
        import select, socket, sys
        sock = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
        sock.sendall(b"first")
        assert sock.recv(100) == b"one"
        try:
            sock.recv(1)
        except TimeoutError:
            print("late")
        buffer = bytearray(9)
        for look in (
            lambda: sock.recv(1, socket.MSG_DONTWAIT),
            lambda: sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT),
            lambda: sock.recv_into(buffer, 9, socket.MSG_DONTWAIT),
            lambda: sock.recvmsg(1, 0, socket.MSG_DONTWAIT),
        ):
            try:
                look()
            except BlockingIOError:
                print("nothing there")
        with open(sys.argv[2], "w"):
            pass  # The peer may go on.
        select.select([sock], [], [])
        print(sock.recv(100, socket.MSG_DONTWAIT))
        try:
            sock.recv(1)
        except TimeoutError:
            print("late")
        """
    path, flag = program(tmp_path, text), tmp_path / "flag"
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = str(listener.getsockname()[1])
        with start("--deadline", "0.5", path, port, str(flag)) as process:
            peer, _ = listener.accept()
            with peer:
                assert peer.recv(5) == b"first"
                peer.sendall(b"one")
                assert poll_until(flag.exists, FAR)
                peer.sendall(b"two")
                out, err = process.communicate(timeout=60)
    assert (out.split("\n"), err) == (["late", *["nothing there"] * 4, "b'two'", "late", ""], "")


def test_nothing_that_is_sent_begins_no_exchange(tmp_path: Path) -> None:
    text = """
        sock = __import__("socket").create_connection(("127.0.0.1", int(sys.argv[1])))
        sock.sendall(b"ask\\r\\n\\r\\n")
        while sock.recv(1):
            sock.sendall(b"")
            sock.send(b"")
        """
    with PeerScript(DRIP, check=False) as peer:
        ends_at_the_deadline(tmp_path, text, str(peer.address[1]))


def test_who_only_sends_goes_on_after_a_pause_of_the_deadline(tmp_path: Path) -> None:
    path = program(
        tmp_path,
        """
        import socket, sys, time
        sock = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
        for _ in range(3):
            sock.sendall(b"a line")
            time.sleep(1.2)
        sock.close()
        """,
    )
    with PeerScript([("expect", b"a line" * 3)]) as peer:
        done = run("--deadline", "1", path, str(peer.address[1]))
    assert (done.returncode, done.stderr) == (0, "")


def test_what_a_server_gives_to_redis_and_http_is_as_ever(tmp_path: Path) -> None:
    need_module("redis")
    need_module("requests")
    path = program(
        tmp_path,
        """
        import sys, redis, requests
        client = redis.Redis("127.0.0.1", int(sys.argv[1]))
        pipe = client.pipeline()
        pipe.set("a", "b" * 100000)
        pipe.get("a")
        assert pipe.execute() == [True, b"b" * 100000]
        with requests.Session() as session:
            for _ in range(3):
                assert session.get(f"http://127.0.0.1:{sys.argv[2]}/").status_code == 200
        client.close()
        print("done")
        """,
    )
    with require(redis_server()) as server, http_server() as web:
        done = run("--deadline", "20", "--report", path, str(server.port), str(web.port))
    assert done.stdout == "done\n", done.stderr
    assert "open, under hardsock: none" in done.stderr
    assert "dropped without a close(): none" in done.stderr


def test_http_libraries_over_tls_keep_their_connections_as_ever(tmp_path: Path) -> None:
    need_module("httpx")
    need_module("requests")
    ids = Identities(tmp_path)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(ids.server_identity.chain, ids.server_identity.key)  # type: ignore[arg-type]
    path = program(
        tmp_path,
        """
        import asyncio, ssl, sys, httpx, requests, urllib3
        url, ca = sys.argv[1:]
        context = ssl.create_default_context(cafile=ca)
        with httpx.Client(verify=context) as client:
            print([client.get(url).text for _ in range(2)])
        with requests.Session() as session:
            print([session.get(url, verify=ca).text for _ in range(2)])
        with urllib3.PoolManager(ca_certs=ca) as http:
            print([http.request("GET", url).data.decode() for _ in range(2)])
        async def main():
            async with httpx.AsyncClient(verify=context) as client:
                print([(await client.get(url)).text for _ in range(2)])
        asyncio.run(main())
        try:
            requests.get(url)
        except requests.exceptions.SSLError:
            print("not trusted")
        """,
    )
    with Web(tls=server) as web:
        done = run("--deadline", "20", "--report", path, web.url("/hello"), str(ids.ca))
        made = web.connections
    assert done.returncode == 0, done.stderr
    answers = done.stdout.splitlines()
    assert answers[4] == "not trusted"
    assert made == 5, "each client kept its connection"
    assert len(answers) == 5
    assert "open, under hardsock: none" in done.stderr


# ---- what it does not reach


@pytest.fixture
def database() -> Iterator[Server]:
    with require(postgres()) as server:
        yield server


def test_libpq_escapes_and_is_listed(tmp_path: Path, database: Server) -> None:
    need_module("psycopg")
    path = program(
        tmp_path,
        """
        import sys, psycopg
        conn = psycopg.connect(f"host=127.0.0.1 port={sys.argv[1]} user=postgres dbname=postgres")
        conn.execute("select pg_sleep(1.5)")
        print("it has no limit")
        """,
    )
    done = run("--deadline", "1", "--report", path, str(database.port))
    assert done.stdout == "it has no limit\n", done.stderr
    part = done.stderr.partition("not under hardsock")[2]
    assert f"-> 127.0.0.1:{database.port} established, made outside of Python" in part


def test_tls_that_cannot_be_taken_over_stays_with_ssl_and_is_listed(tmp_path: Path) -> None:
    ids = Identities(tmp_path)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(ids.server_identity.chain, ids.server_identity.key)  # type: ignore[arg-type]
    path = program(
        tmp_path,
        """
        import socket, ssl, sys
        context = ssl.create_default_context(cafile=sys.argv[2])
        context.set_ecdh_curve("prime256v1")
        sock = socket.create_connection(("localhost", int(sys.argv[1])), timeout=20)
        with context.wrap_socket(sock, server_hostname="localhost") as tls:
            print(type(tls).__name__, tls.recv(5))
        """,
    )
    with PeerScript([("send", b"hello")], tls=server) as peer:
        done = run("--deadline", "30", "--report", path, str(peer.address[1]), str(ids.ca))
    assert done.stdout == "SSLSocket b'hello'\n", done.stderr
    assert f"1 at {path}:6 in <module>: hardsock's TLS cannot take over" in done.stderr
    assert "set_ecdh_curve()" in done.stderr


@pytest.mark.parametrize("deed", ["pathlib.Path('ca').unlink()", "shutil.copy(sys.argv[3], 'ca')"])
def test_a_ca_that_is_gone_or_another_by_the_handshake_stays_with_ssl_and_is_listed(
    tmp_path: Path, deed: str
) -> None:
    ids = Identities(tmp_path)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(ids.server_identity.chain, ids.server_identity.key)  # type: ignore[arg-type]
    path = program(
        tmp_path,
        f"""
        import pathlib, shutil, socket, ssl, sys
        shutil.copy(sys.argv[2], "ca")
        context = ssl.create_default_context(cafile="ca")
        {deed}
        sock = socket.create_connection(("localhost", int(sys.argv[1])), timeout=20)
        with context.wrap_socket(sock, server_hostname="localhost") as tls:
            print(type(tls).__name__, tls.recv(5))
        """,
    )
    (other := tmp_path / "other").mkdir()
    others = str(Identities(other).ca)
    with PeerScript([("send", b"hello")], tls=server) as peer:
        port = str(peer.address[1])
        done = run("--deadline", "30", "--report", path, port, str(ids.ca), others, cwd=tmp_path)
    assert done.stdout == "SSLSocket b'hello'\n", done.stderr
    assert f"1 at {path}:7 in <module>: hardsock's TLS cannot load what has changed" in done.stderr


def test_a_context_may_be_loaded_elsewhere_and_its_password_is_asked_for_once(
    tmp_path: Path,
) -> None:
    ids = Identities(tmp_path)
    chain, key = ids.server_identity.chain, ids.server_identity.key
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(chain, key)  # type: ignore[arg-type]
    encrypt = ["openssl", "pkey", "-aes256", "-passout", "pass:secret", "-in", str(key)]
    subprocess.run([*encrypt, "-out", tmp_path / "encrypted"], check=True)
    path = program(
        tmp_path,
        """
        import os, socket, ssl, sys
        asked = []
        context = ssl.create_default_context(cafile=os.path.basename(sys.argv[2]))
        context.load_cert_chain(sys.argv[3], "encrypted", lambda: asked.append(1) or "secret")
        os.chdir("/")
        sock = socket.create_connection(("localhost", int(sys.argv[1])), timeout=20)
        with context.wrap_socket(sock, server_hostname="localhost") as tls:
            print(type(tls).__name__, tls.recv(5), len(asked))
        """,
    )
    with PeerScript([("send", b"hello")], tls=server) as peer:
        rest = (str(peer.address[1]), str(ids.ca), str(chain))
        done = run("--deadline", "30", path, *rest, cwd=Path(str(ids.ca)).parent)
    assert done.stdout == "RoutedTLS b'hello' 1\n", done.stderr


def test_a_file_that_is_written_and_loaded_again_is_loaded_again_here(tmp_path: Path) -> None:
    (other := tmp_path / "other").mkdir()
    code = """
        import shutil, ssl, sys
        from hardsock.running import begin, parse, tls
        begin(parse("read=5"))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        seen = []
        for each in sys.argv[2:]:
            shutil.copy(each, sys.argv[1])
            context.load_verify_locations(sys.argv[1])
            seen.append(tls._config_of(context))
        assert len(tls._calls[context]) == 1
        assert seen[0] is not seen[1]
    """
    cas = [str(Identities(one).ca) for one in (tmp_path, other)]
    where = str(tmp_path / "copy")
    subprocess.run([sys.executable, "-c", textwrap.dedent(code), where, *cas], check=True)


def test_tls_passes_for_that_of_the_ssl_module(tmp_path: Path) -> None:
    ids = Identities(tmp_path)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(ids.server_identity.chain, ids.server_identity.key)  # type: ignore[arg-type]
    path = program(
        tmp_path,
        """
        import socket, ssl, sys
        context = ssl.create_default_context()
        try:
            context.wrap_socket(socket.create_connection(("localhost", int(sys.argv[3]))),
                                server_hostname="localhost")
        except ssl.SSLCertVerificationError as exc:
            print("not trusted")
        context.load_verify_locations(sys.argv[2])
        sock = socket.create_connection(("localhost", int(sys.argv[1])), timeout=20)
        with context.wrap_socket(sock, server_hostname="localhost") as tls:
            assert isinstance(tls, ssl.SSLSocket) and isinstance(tls, socket.socket)
            assert tls.gettimeout() == 20
            file = tls.makefile("rwb")
            file.write(b"hello")
            file.flush()
            print(file.read(), tls.version(), tls.getpeercert()["subjectAltName"][0])
            file.close()
        """,
    )
    script = [("expect", b"hello"), ("send", b"world"), ("close",)]  # without close_notify
    with PeerScript([], tls=server, check=False) as other, PeerScript(script, tls=server) as peer:
        ports = [str(one.address[1]) for one in (peer, other)]
        done = run("--deadline", "30", path, ports[0], str(ids.ca), ports[1])
    assert done.stdout == "not trusted\nb'world' TLSv1.3 ('DNS', 'localhost')\n", done.stderr


# ---- the program is as python has it


def test_a_script_a_module_code_and_a_console_script(tmp_path: Path) -> None:
    show = "import sys; print(__name__, sys.argv, sys.path[0] == {!r}, sys.flags.optimize)"
    path = program(tmp_path, show.format(str(tmp_path)) + "; raise SystemExit(7)")
    done = run(path, "-m", "--report", "x")
    assert done.stdout == f"__main__ {[path, '-m', '--report', 'x']} True 0\n"
    assert done.returncode == 7
    done = run("-c", show.format(""), "a", "-c")
    assert done.stdout == "__main__ ['-c', 'a', '-c'] True 0\n"
    done = run("-m", "program", "a", cwd=tmp_path, env={"PYTHONPATH": str(Path.cwd() / "python")})
    assert done.stdout == f"__main__ {[path, 'a']} True 0\n", done.stderr
    script = Path(sys.executable).with_name("hardsock")
    if script.exists():
        assert run(str(script), "--version").stdout.startswith("hardsock ")
    done = run("no-such-program-anywhere")
    assert (done.returncode, done.stderr) == (
        127,
        "hardsock run: there is no 'no-such-program-anywhere'\n",
    )
    assert run().returncode == 2
    done = run("--deadline", "soon", path)
    assert done.returncode == 2
    assert "must be a number of seconds" in done.stderr


def test_growth_is_told_with_the_line_that_opens(tmp_path: Path) -> None:
    """No look of the program's own, and no limit near: the descriptors have doubled."""
    path = program(
        tmp_path,
        """
        import socket, sys
        kept = []
        def hoard():
            kept.append(socket.socket())
        for _ in range(200):
            hoard()
        print("full", flush=True)
        sys.stdin.readline()
        """,
    )
    with start(path, stdin=subprocess.PIPE) as process:
        assert process.stderr is not None
        told = ""
        while "grown from" not in told or "in hoard" not in told:
            line = process.stderr.readline()
            assert line, told
            told += line
        process.communicate("\n", timeout=60)


def test_a_command_is_meant_though_a_folder_has_its_name(tmp_path: Path) -> None:
    (bin_ := tmp_path / "bin").mkdir()
    (command := bin_ / "tool").write_text(f"#!{sys.executable}\nprint('the command')\n")
    command.chmod(0o755)
    (here := tmp_path / "here").mkdir()
    path = {"PATH": f"{bin_}{os.pathsep}{os.environ['PATH']}"}
    (here / "tool").mkdir()
    assert run("tool", cwd=here, env=path).stdout == "the command\n"
    (here / "tool" / "__main__.py").write_text("print('the folder')")
    assert run("tool", cwd=here, env=path).stdout == "the command\n"
    assert run("./tool", cwd=here, env=path).stdout == "the folder\n"
    assert run("tool", cwd=here).stdout == "the folder\n"
    (here / "other").mkdir()
    done = run("other", cwd=here)
    assert (done.returncode, done.stderr) == (127, "hardsock run: there is no 'other'\n")
    (here / "tool.txt").write_text("print('the file')")
    assert run("tool.txt", cwd=here).stdout == "the file\n"


def test_empty_parts_of_the_path_are_the_current_folder_as_ever(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "beside.py").write_text("")
    path = str(tmp_path / "elsewhere" / "program.py")
    Path(path).write_text("import beside")
    source = os.environ.get("PYTHONPATH") or str(Path.cwd() / "python")
    for python_path, code in ((f"{source}{os.pathsep}", 0), (source, 1), ("", 1)):
        done = run("-c", "import beside", cwd="/", env={"PYTHONPATH": python_path})
        assert done.returncode == 1
        done = run(path, cwd=tmp_path, env={"PYTHONPATH": python_path})
        assert done.returncode == code, (python_path, done.stderr)


def test_a_socket_that_was_never_made_is_dropped_in_silence(tmp_path: Path) -> None:
    path = program(
        tmp_path,
        """
        import socket
        class Never(socket.socket):
            def __init__(self): raise ValueError
        for make in (lambda: socket.socket(9999), Never):
            try:
                make()
            except (OSError, ValueError) as exc:
                print(type(exc).__name__)
        """,
    )
    for how in ("--report", "--read=5"):
        done = run(how, path)
        assert done.stdout == "OSError\nValueError\n"
        assert "Exception ignored" not in done.stderr


def test_an_uncaught_exception_is_told_as_ever(tmp_path: Path) -> None:
    path = program(tmp_path, "def f():\n    raise LookupError('x')\nf()\n")
    plain = subprocess.run([sys.executable, path], capture_output=True, text=True)
    done = run("--deadline", "5", path)
    assert (done.returncode, done.stderr) == (1, plain.stderr)


def test_a_signal_ends_it_as_ever(tmp_path: Path) -> None:
    path = program(tmp_path, "import sys\nprint('up', flush=True)\nsys.stdin.read()")
    with start("--deadline", "5", path, stdin=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == -signal.SIGTERM


def test_the_signal_tells_what_is_open_while_the_program_waits(tmp_path: Path) -> None:
    path = program(
        tmp_path,
        """
        import socket, sys
        sock = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
        print("up", flush=True)
        print(sock.recv(10))
        """,
    )
    with PeerScript([("stall",), ("send", b"enough")]) as peer:
        with start("--read", "100", "--signal", "usr1", path, str(peer.address[1])) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            assert process.stdout.readline() == "up\n"
            process.send_signal(signal.SIGUSR1)
            lines = [process.stderr.readline() for _ in range(3)]
            peer.release()
            out, _ = process.communicate(timeout=60)
    assert "SIGUSR1" in lines[0]
    assert "open, under hardsock: 1" in lines[1]
    assert f"-> 127.0.0.1:{peer.address[1]} at {path}:3 in <module>" in lines[2]
    assert out == "b'enough'\n"


def test_a_signal_that_the_program_has_a_use_for_is_its_own(tmp_path: Path) -> None:
    path = program(
        tmp_path,
        """
        import os, signal
        signal.signal(signal.SIGUSR2, lambda *_: print("mine"))
        os.kill(os.getpid(), signal.SIGUSR2)
        """,
    )
    done = run("--report-to", str(tmp_path / "report"), path)
    assert (done.stdout, done.stderr) == ("mine\n", "")
    assert "at the exit" in (tmp_path / "report").read_text()


# ---- children, and sockets that are not to be touched


def test_children_are_under_it_too_whichever_way_they_begin(tmp_path: Path) -> None:
    path = program(
        tmp_path,
        """
        import multiprocessing, os, socket, subprocess, sys
        def child(port):
            sock = socket.create_connection(("127.0.0.1", port))
            try:
                sock.recv(1)
            except TimeoutError:
                print("ended", flush=True)
        if __name__ == "__main__":
            if len(sys.argv) > 2:
                child(int(sys.argv[1]))
            else:
                for way in ("fork", "spawn"):
                    one = multiprocessing.get_context(way).Process(
                        target=child, args=(int(sys.argv[1]),)
                    )
                    one.start()
                    one.join()
                subprocess.run([sys.executable, __file__, sys.argv[1], "again"], check=True)
        """,
    )
    with PeerScript([("stall",)], connections=3, check=False) as peer:
        listener_port = str(peer.address[1])
        done = run("--read", "0.3", "--report", path, listener_port)
    assert done.stdout == "ended\n" * 3, done.stderr
    reports = re.findall(r"process (\d+), .*: at the exit\n", done.stderr)
    assert len(set(reports)) >= 4, done.stderr  # spawn has a resource tracker
    assert done.stderr.count(f"1 at {path}:6 in child") == 3


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_multiprocessings_pipes_pools_and_managers_work(tmp_path: Path, method: str) -> None:
    path = program(
        tmp_path,
        f"""
        import multiprocessing, warnings
        warnings.simplefilter("ignore")  # 3.12: fork with threads
        def square(x):
            return x * x
        if __name__ == "__main__":
            multiprocessing.set_start_method({method!r})
            with multiprocessing.Pool(2) as pool:
                print(pool.map(square, range(5)))
            with multiprocessing.Manager() as manager:
                shared = manager.dict()
                shared["a"] = 1
                print(dict(shared))
            one, two = multiprocessing.Pipe()
            one.send("hello")
            print(two.recv())
        """,
    )
    done = run("--deadline", "30", path)
    assert (done.stdout, done.stderr) == ("[0, 1, 4, 9, 16]\n{'a': 1}\nhello\n", "")


def test_asyncio_works_and_its_sockets_are_listed_with_their_lines(tmp_path: Path) -> None:
    path = program(
        tmp_path,
        """
        import asyncio
        kept = []
        async def main():
            async def handle(reader, writer):
                kept.append(writer)
                writer.write(await reader.readexactly(5))
                await writer.drain()
            server = await asyncio.start_server(handle, "127.0.0.1", 0)
            port = server.sockets[0].getsockname()[1]
            reader, writer = await asyncio.open_connection("localhost", port)
            writer.write(b"hello")
            print(await reader.readexactly(5))
            import os, signal
            os.kill(os.getpid(), signal.SIGUSR2)
            await asyncio.sleep(0)
            for one in (writer, *kept):
                one.close()
            server.close()
        asyncio.run(main())
        """,
    )
    done = run("--deadline", "30", path)
    assert done.stdout == "b'hello'\n", done.stderr
    assert "open, under hardsock: none" in done.stderr
    assert re.search(r"established at \S+program\.py:\d+ in main", done.stderr), done.stderr


def test_gevents_sockets_escape_and_are_listed_with_their_lines(tmp_path: Path) -> None:
    need_module("gevent")
    path = program(
        tmp_path,
        """
        from gevent import socket
        import os, signal
        listener = socket.socket()
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        def ask():
            return socket.create_connection(listener.getsockname())
        sock = ask()
        os.kill(os.getpid(), signal.SIGUSR2)
        sock.close()
        listener.close()
        """,
    )
    done = run("--deadline", "30", path)
    assert done.returncode == 0, done.stderr
    assert "open, under hardsock: none" in done.stderr
    assert re.search(r"established at \S+program\.py:\d+ in ask", done.stderr), done.stderr


@contextmanager
def _gunicorn(tmp_path: Path, port: int) -> Iterator[subprocess.Popen[str]]:
    gunicorn = [str(tmp_path / "g"), "-w", "2", "-b", f"127.0.0.1:{port}", "program:app"]
    (tmp_path / "g").write_text("from gunicorn.app.wsgiapp import run\nrun()\n")
    with start("--deadline", "1", "--report", *gunicorn, cwd=tmp_path) as process:
        try:
            yield process
        finally:
            process.send_signal(signal.SIGTERM)


def test_gunicorn_serves_and_its_workers_upstream_calls_end(tmp_path: Path) -> None:
    need_module("gunicorn")
    with PeerScript(DRIP, check=False) as peer:
        program(
            tmp_path,
            f"""
            import urllib.request
            def app(environ, start_response):
                start_response("200 OK", [("Content-Type", "text/plain")])
                if environ["PATH_INFO"] == "/":
                    return [b"hello"]
                try:
                    urllib.request.urlopen("http://127.0.0.1:{peer.address[1]}/").read()
                except TimeoutError:
                    return [b"upstream ended"]
            """,
        )
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        with _gunicorn(tmp_path, port) as process:
            assert process.stderr is not None
            while "Booting worker" not in (line := process.stderr.readline()):
                assert line, "it has ended"
            import urllib.request

            for _ in range(4):
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=60) as answer:
                    assert answer.read() == b"hello"
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/slow", timeout=60) as answer:
                assert answer.read() == b"upstream ended"
            process.send_signal(signal.SIGTERM)
            _, err = process.communicate(timeout=60)
    assert process.returncode == 0
    assert len(set(re.findall(r"process (\d+), .*: at the exit\n", err))) == 3, err
    assert re.search(r"1 at \S+program\.py:8 in app", err), err


def test_what_is_loaded_for_each_connection_is_remembered_once(tmp_path: Path) -> None:
    ids = Identities(tmp_path)
    code = """
        import abc, socket, ssl, sys
        import hardsock
        from hardsock.running import begin, parse, tls
        begin(parse("read=5"))
        context = ssl.create_default_context()
        before = len(tls._calls[context])
        for _ in range(100):
            context.load_verify_locations(sys.argv[1])
            context.set_alpn_protocols(["http/1.1"])
        assert len(tls._calls[context]) == before + 2
        config = tls._config_of(context)
        assert tls._config_of(context) is config
        context.set_alpn_protocols(["h2"])
        assert tls._config_of(context).alpn == ("h2",)
        class Abstract(abc.ABC): pass
        class Both(socket.socket, Abstract): pass
        with Both() as both, hardsock.compat.socket._base() as plain:
            assert isinstance(both, socket.socket) and isinstance(plain, socket.socket)
            assert isinstance(both, Both) and not isinstance(plain, Both)
            assert issubclass(ssl.SSLSocket, socket.socket) and not issubclass(int, socket.socket)
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code), str(ids.ca)], check=True)


def test_a_python_without_hardsock_runs_the_program_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PYTHONPATH", raising=False)  # Under a sanitizer it leads to ours.
    subprocess.run(
        [sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "other")], check=True
    )
    other = str(tmp_path / "other" / "bin" / "python")
    done = run("--read", "5", other, "-c", "import sys; print(sys.argv)", "a")
    assert (done.returncode, done.stdout) == (0, "['-c', 'a']\n")
    assert done.stderr == f"hardsock run: {other} has no hardsock: not under it\n"
    done = run("--read", "5", other, "-I", "-c", "print(1)")
    assert (done.stdout, done.stderr) == ("1\n", "")


# ---- the settings


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("on", Settings()),
        ("deadline=30 connect=2 read=5 report", Settings(30.0, 2.0, 5.0, "-")),
        ("read=0.25 report=/tmp/x signal=usr1", Settings(None, None, 0.25, "/tmp/x", "SIGUSR1")),
        ("signal=none tls=off", Settings(signal=None, tls=False)),
    ],
)
def test_the_environment_says_the_same_as_the_command_line(text: str, expected: Settings) -> None:
    assert parse(text) == expected
    assert parse(str(expected)) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("deadlin=3", "'deadlin=3' is not known: it takes deadline=S"),
        ("deadline=0", "deadline must be a number of seconds, above 0, up to 86400, got '0'"),
        ("connect=nan", "connect must be a number of seconds"),
        ("read=", "read must be a number of seconds, above 0, up to 86400, got ''"),
        ("signal=KILL", "signal must be the name of a signal that can be handled, got 'KILL'"),
        ("tls=maybe", "'tls=maybe' is not known"),
    ],
)
def test_wrong_settings_are_refused_by_name(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        parse(text)


def test_the_variable_alone_is_read_by_the_import_of_hardsock() -> None:
    code = "import socket; before = socket.socket; import hardsock; print(socket.socket is before)"
    for value, expected in (("read=5", "False"), ("off", "True"), ("", "True")):
        environment = {**os.environ, "HARDSOCK": value}
        done = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True
        )
        assert done.stdout.strip() == expected, done.stderr
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "HARDSOCK": "bogus"},
        capture_output=True,
        text=True,
    )
    assert "ValueError: HARDSOCK: 'bogus' is not known" in done.stderr


def test_a_sitecustomize_of_the_program_runs_and_the_path_is_as_ever(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("import builtins\nbuiltins.customized = True\n")
    code = "import sys, socket, sitecustomize; print(customized, 'hardsock' in sys.modules, "
    code += "[one for one in sys.path if 'hardsock' in one and one.endswith('site')], "
    code += "'running' in sitecustomize.__file__)"
    package = str(Path(__file__).parents[2] / "python")
    environment = {"PYTHONPATH": os.pathsep.join([str(tmp_path), package])}
    done = run("--read", "5", "-c", code, env=environment)
    assert done.stdout == "True True [] False\n", done.stderr


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("library", ["urllib3", "requests"])
def test_tls_within_tls_of_an_unchanged_program(tmp_path: Path, scheme: str, library: str) -> None:
    """An https target behind a proxy: the deadline reaches what comes through both layers."""
    ids = Identities(tmp_path)
    need_module(library)
    text = """
        import sys, time, requests, urllib3
        library, proxy, url, ca = sys.argv[1:]
        def get():
            if library == "requests":
                return requests.get(url, proxies={"https": proxy}, verify=ca).content
            with urllib3.ProxyManager(proxy, ca_certs=ca, retries=False) as manager:
                return manager.request("GET", url).data
        began = time.monotonic()
        try:
            print(get())
        except Exception as exc:
            print(type(exc).__name__, time.monotonic() - began < 20)
        """
    asking, serving = (ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER) for _ in range(2))
    for context in (asking, serving):
        context.load_cert_chain(*ids.authority.issue())
    path = program(tmp_path, text)
    for target, wanted in (("/ok?through", "b'through'\n"), ("/drip", "True\n")):
        tls = asking if scheme == "https" else None
        with Proxy(tls=tls) as proxy, HttpPeer(serving) as peer:
            rest = (library, f"{scheme}://{proxy.address}", peer.url(target), str(ids.ca))
            done = run("--deadline", "1", "--report", path, *rest)
        assert done.stdout.endswith(wanted), (done.stdout, done.stderr)
        assert "no cancel reaches them: none" in done.stderr, done.stderr
