"""Self tests of hardsock.lab.namespaces, hardsock.lab.inside and hardsock.lab.netlink."""

from __future__ import annotations

import errno
import select
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hardsock.lab import inside
from hardsock.lab.namespaces import (
    Namespace,
    NamespaceUnavailable,
    RemoteError,
    RemoteTimeout,
    run_in_namespace,
)
from support.require import require


@pytest.fixture(scope="module")
def ns() -> Iterator[Namespace]:
    with require(Namespace()) as namespace:
        yield namespace


def net_inode() -> int:
    return inside.namespace_inode("net")


def serve_one() -> str:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        inside.ready(listener.getsockname()[1])
        conn, _peer = listener.accept()
        with conn:
            return conn.recv(100).decode()


def say(port: int, text: str) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=5.0) as sock:
        sock.sendall(text.encode())


def change_file(path: str, text: str) -> str:
    inside.bind_mount_file(path, text)
    return read_file(path)


def read_file(path: str) -> str:
    with open(path) as file:
        return file.read()


def change_sysctl(key: str, value: str) -> str:
    inside.write_sysctl(key, value)
    return inside.read_sysctl(key)


def bind_to(address: str) -> str:
    inside.add_address(address)
    host = address.partition("/")[0]
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as sock:
        sock.bind((host, 0))
        return str(sock.getsockname()[0])


def errno_of_connect(network: str, kind: str, host: str) -> int:
    inside.add_route(network, kind)  # type: ignore[arg-type]
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as sock:
        return sock.connect_ex((host, 9))


def connect_into_void(own: str, host: str) -> tuple[int, int]:
    inside.swallow(own)
    with socket.socket() as sock:
        sock.setblocking(False)
        code = sock.connect_ex((host, 9))
        poller = select.poll()
        poller.register(sock, select.POLLOUT)
        return code, len(poller.poll(50))


def fail() -> None:
    raise ValueError("as asked")


def wait_for_ever() -> None:
    inside.ready()
    inside.wait_for_stop()


def test_function_runs_in_another_network_namespace(ns: Namespace) -> None:
    first, second = ns.run(net_inode), ns.run(net_inode)

    assert first == second != net_inode()


def test_script_gets_arguments_and_answers(ns: Namespace) -> None:
    assert 5 == ns.run("a, b = args\nresult = a + b", 2, 3)


def test_run_in_namespace_is_one_run_in_a_new_namespace() -> None:
    with require(Namespace()) as other:
        assert run_in_namespace(net_inode) != other.run(net_inode)


_PROGRAM = """
from hardsock.lab import run_in_namespace

def inside(number):
    return number + 1

if __name__ == "__main__":
    print(run_in_namespace(inside, 41))
"""


@pytest.mark.parametrize("how", ["script", "module"])
def test_a_program_runs_a_function_of_its_own_inside(tmp_path: Path, how: str) -> None:
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__init__.py").touch()
    program = tmp_path / "package" / "program.py"
    program.write_text(_PROGRAM)
    argv = [str(program)] if how == "script" else ["-m", "package.program"]
    done = subprocess.run(
        [sys.executable, *argv], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert (done.stdout, done.returncode) == ("42\n", 0), done.stderr


def test_what_no_other_interpreter_finds_is_refused(ns: Namespace) -> None:
    with pytest.raises(ValueError, match=r"target must be a function at the top .*<lambda>"):
        ns.run(lambda: 1)
    typed_in = _PROGRAM.replace('if __name__ == "__main__"', "if True")
    done = subprocess.run(
        [sys.executable, "-c", typed_in], capture_output=True, text=True, timeout=60
    )
    assert "ValueError: target: a function that was typed in has no file" in done.stderr


def test_client_reaches_server_in_same_namespace(ns: Namespace) -> None:
    with ns.start(serve_one) as server:
        ns.run(say, server.wait_ready(), "hello")

        assert "hello" == server.result()


def test_stop_ends_a_waiting_function(ns: Namespace) -> None:
    with ns.start(wait_for_ever) as running:
        running.wait_ready()

        assert running.stop() is None


def test_mounted_file_is_seen_inside_by_later_runs_but_not_outside(ns: Namespace) -> None:
    before = read_file("/etc/hosts")

    assert "1.2.3.4 elsewhere\n" == ns.run(change_file, "/etc/hosts", "1.2.3.4 elsewhere\n")
    assert "1.2.3.4 elsewhere\n" == ns.run(read_file, "/etc/hosts")
    assert before == read_file("/etc/hosts")


def test_mounting_over_a_missing_file_is_unavailable(ns: Namespace) -> None:
    with pytest.raises(NamespaceUnavailable, match="no such file"):
        ns.run(change_file, "/etc/hardsock-does-not-exist", "")


def test_sysctl_is_changed_inside_only(ns: Namespace) -> None:
    key = "net.ipv4.ip_local_port_range"
    before = inside.read_sysctl(key)

    assert "20000 20010" == ns.run(change_sysctl, key, "20000 20010")
    assert before == inside.read_sysctl(key)


def test_sysctl_outside_is_refused() -> None:
    with pytest.raises(RuntimeError, match="refused"):
        inside.write_sysctl("net.ipv4.ip_local_port_range", "20000 20010")


def test_global_sysctl_is_refused(ns: Namespace) -> None:
    with pytest.raises(RemoteError, match="not a setting of a network namespace"):
        ns.run(change_sysctl, "fs.file-max", "1000")


def test_everything_else_outside_is_refused() -> None:
    with pytest.raises(RuntimeError, match="refused"):
        inside.bind_mount_file("/etc/hosts", "")
    with pytest.raises(RuntimeError, match="refused"):
        inside.add_address("10.0.0.2/32")
    with pytest.raises(RuntimeError, match="refused"):
        inside.add_route("10.0.0.0/8", "blackhole")
    with pytest.raises(RuntimeError, match="refused"):
        inside.swallow("10.0.0.1/24")


@pytest.mark.parametrize("address", ["10.0.0.2/32", "fd00::2/128"])
def test_added_address_can_be_bound(ns: Namespace, address: str) -> None:
    assert address.partition("/")[0] == ns.run(bind_to, address)


@pytest.mark.parametrize(
    ("network", "kind", "host", "expected"),
    [
        ("10.1.0.0/16", "prohibit", "10.1.0.1", errno.EACCES),
        ("10.2.0.0/16", "unreachable", "10.2.0.1", errno.EHOSTUNREACH),
        ("10.3.0.0/16", "blackhole", "10.3.0.1", errno.EINVAL),
        ("fd01::/16", "unreachable", "fd01::1", errno.EHOSTUNREACH),
    ],
)
def test_route_refuses(ns: Namespace, network: str, kind: str, host: str, expected: int) -> None:
    assert expected == ns.run(errno_of_connect, network, kind, host)


def test_swallowed_network_never_answers() -> None:
    with require(Namespace()) as own:
        assert [errno.EINPROGRESS, 0] == own.run(connect_into_void, "10.9.0.254/24", "10.9.0.1")


def test_remote_exception_comes_with_its_traceback(ns: Namespace) -> None:
    with pytest.raises(RemoteError, match=r"ValueError: as asked(.|\n)*in fail"):
        ns.run(fail)


def test_function_is_killed_at_its_deadline(
    ns: Namespace, capfd: pytest.CaptureFixture[str]
) -> None:
    with ns.start(wait_for_ever, timeout=1.0) as running:
        running.wait_ready()
        with pytest.raises(RemoteTimeout):
            running.result()
        assert running.process.returncode is not None
        with pytest.raises(RemoteError, match="is over"):
            running.result()

    assert "wait_for_stop" in capfd.readouterr().err


def test_program_runs_inside(ns: Namespace) -> None:
    done = ns.exec(["readlink", "/proc/self/ns/net"])

    assert (0, "") == (done.returncode, done.stderr)
    assert f"net:[{net_inode()}]" != done.stdout.strip() == f"net:[{ns.run(net_inode)}]"


def test_missing_program_is_an_error(ns: Namespace) -> None:
    with pytest.raises(RemoteError, match=r"FileNotFoundError|PermissionError"):
        ns.exec(["hardsock-no-such-program"])
