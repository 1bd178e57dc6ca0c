"""TLS where it needs a process of its own: fork, finalizers, running out of descriptors."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

from support.forking import FORK
from support.tls import Identities

PRELUDE = """
import os, select, socket, sys, threading, time, warnings
import hardsock as hs

ca, chain, key, version = sys.argv[1:]
only = {"min_version": version, "max_version": version}
client = hs.TLSConfig(ca=ca, **only)
identity = hs.Certificate(chain=chain, key=key)
server = hs.TLSConfig(role="server", certificates=identity, **only)

def pair(listener):
    found = []
    thread = threading.Thread(target=lambda: found.append(listener.accept(timeout=60)))
    thread.start()
    ours = hs.connect(listener.address, tls=client, timeout=60)
    thread.join()
    ours.confirm(timeout=60)
    return ours, found[0]
"""


def silent(ids: Identities, code: str, version: str = "TLSv1.3") -> None:
    """Run code that must end well and print nothing."""
    identity = ids.server_identity
    done = subprocess.run(
        [
            *(
                sys.executable,
                "-W",
                "error",
                "-X",
                "dev",
                "-c",
                PRELUDE + FORK + textwrap.dedent(code),
            ),
            *(str(ids.ca), str(identity.chain), str(identity.key), version),
        ],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", ""), done.stderr


# ---- fork


@pytest.mark.parametrize("version", ["TLSv1.2", "TLSv1.3"])
@pytest.mark.parametrize("ending", ["close", "abort", "finalizer"])
def test_a_child_lets_go_of_a_stream_without_a_word(
    ids: Identities, version: str, ending: str
) -> None:
    """A close_notify or an alert of the child's would end the parent's stream, or break it."""
    silent(
        ids,
        f"""
        ENDING = {ending!r}
        listener = hs.listen(("127.0.0.1", 0), tls=server)
        ours, theirs = pair(listener)
        def check():
            global ours, theirs
            for conn in (ours, theirs):
                for call in (
                    lambda: conn.recv(1), lambda: conn.sendall(b"x"), conn.close_write, conn.confirm,
                    conn.finish,
                ):
                    try:
                        call()
                    except hs.WrongProcess:
                        pass
                    else:
                        raise AssertionError(call)
                assert conn.tls is None  # its lock may belong to a thread that is no more
                if ENDING != "finalizer":
                    getattr(conn, ENDING)()
            if ENDING == "finalizer":
                del conn, ours, theirs
            listener.close()
        for _ in range(3):
            in_child(check)
            ours.sendall(b"still")
            assert theirs.recv_exactly(5, timeout=30) == b"still"
            theirs.sendall(b"whole")
            assert ours.recv_exactly(5, timeout=30) == b"whole"
        ours.close_write(timeout=30)
        assert theirs.recv(1, timeout=30) == b""
        theirs.close()
        assert ours.recv(1, timeout=30) == b""
        ours.close()
        again, peer = pair(listener)
        again.close(), peer.close(), listener.close()
        """,
        version,
    )


def test_a_child_s_copy_of_a_listener_harms_no_handshake_of_the_parent(ids: Identities) -> None:
    silent(
        ids,
        """
        listener = hs.listen(("127.0.0.1", 0), tls=server)
        found = []
        thread = threading.Thread(target=lambda: found.append(listener.accept(timeout=20)))
        thread.start()
        slow = socket.create_connection(listener.address)
        while listener.stats().handshakes.in_progress == 0:
            time.sleep(0)
        in_child(listener.close)
        def leave_it():
            found = listener.stats().handshakes
            assert (found.started, found.in_progress, found.silent) == (1, 0, 0), found
        in_child(leave_it)
        assert listener.stats().handshakes.in_progress == 1
        conn = hs.adopt(slow)
        conn.upgrade_to_tls(client, server_name="localhost", timeout=30)  # goes on where it was
        thread.join()
        conn.sendall(b"x")
        assert found[0].recv(1, timeout=30) == b"x"
        found[0].close(), conn.close(), listener.close()
        """,
    )


def test_a_child_makes_connections_of_its_own_with_a_parent_s_config(ids: Identities) -> None:
    silent(
        ids,
        """
        with hs.listen(("127.0.0.1", 0), tls=server) as listener:
            for conn in pair(listener):
                conn.close()
        kept = client.sessions_kept
        assert kept > 0
        def check():
            with hs.listen(("127.0.0.1", 0), tls=server) as own:
                for conn in pair(own):
                    conn.close()
            client.reload()
            server.reload()
        in_child(check)
        assert client.sessions_kept == kept
        """,
    )


# ---- Finalizers


@pytest.mark.parametrize("version", ["TLSv1.2", "TLSv1.3"])
def test_an_unclosed_connection_warns_and_its_peer_sees_no_clean_end(
    ids: Identities, version: str
) -> None:
    """The one who forgot to close cannot have meant that what was sent is all."""
    silent(
        ids,
        """
        listener = hs.listen(("127.0.0.1", 0), tls=server)
        ours, theirs = pair(listener)
        ours.sendall(b"half a mess")
        assert theirs.recv_exactly(11, timeout=30) == b"half a mess"
        warnings.simplefilter("always")
        with warnings.catch_warnings(record=True) as seen:
            del ours
        assert [w.category for w in seen] == [ResourceWarning], seen
        assert "unclosed <hardsock.Connection" in str(seen[0].message)
        try:
            theirs.recv(1, timeout=30)
        except (hs.Truncated, hs.Reset):
            pass
        else:
            raise AssertionError("it looked like a clean end")
        theirs.close(), listener.close()
        """,
        version,
    )


def test_an_unclosed_listener_cuts_its_handshakes(ids: Identities) -> None:
    silent(
        ids,
        """
        listener = hs.listen(("127.0.0.1", 0), tls=server)
        silent = socket.create_connection(listener.address)
        try:
            listener.accept(timeout=0.1)
            raise AssertionError
        except hs.DeadlineExceeded:
            pass
        assert listener.stats().handshakes.in_progress == 1
        warnings.simplefilter("always")
        with warnings.catch_warnings(record=True) as seen:
            del listener
        assert [w.category for w in seen] == [ResourceWarning], seen
        silent.settimeout(30)
        assert silent.recv(1) == b""
        silent.close()
        """,
    )


# ---- Out of descriptors


def test_handshakes_go_on_when_there_are_no_descriptors_for_newcomers(ids: Identities) -> None:
    """The program itself is short of descriptors; the clients are another process's."""
    silent(
        ids,
        """
        import resource
        listener = hs.listen(("127.0.0.1", 0), tls=server)
        address = listener.address
        questions, answers = os.pipe(), os.pipe()
        if os.fork() == 0:
            def step():
                os.read(questions[0], 1)
            early = socket.create_connection(address)
            os.write(answers[1], b"1")
            step()  # the server has taken it, and is out of descriptors now
            crowd = [socket.create_connection(address) for _ in range(5)]
            conn = hs.adopt(early)
            conn.upgrade_to_tls(client, server_name="localhost", timeout=60)
            assert conn.recv(100, timeout=60) == b"early"
            for sock in crowd:
                sock.settimeout(60)
                try:
                    assert sock.recv(1) == b"", "shed"
                except ConnectionResetError:
                    pass
            os.write(answers[1], b"2")
            step()  # there are some again
            with hs.connect(address, tls=client, timeout=60) as late:
                assert late.recv(100, timeout=60) == b"late"
            os._exit(0)
        def answer():
            assert os.read(answers[0], 1)
        def take(word):
            conn = listener.accept(timeout=60)
            conn.sendall(word, timeout=30)
            return conn
        hs.CancelToken().wait(0)  # the thread's own descriptor
        answer()
        try:
            listener.accept(timeout=0.1)
            raise AssertionError
        except hs.DeadlineExceeded:
            pass
        assert listener.stats().handshakes.in_progress == 1
        resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))
        held = []
        try:
            while True:
                held.append(os.open("/dev/null", os.O_RDONLY))
        except OSError:
            pass
        burnt = time.process_time()
        os.write(questions[1], b"x")
        conns = [take(b"early")]
        while not select.select([answers[0]], [], [], 0)[0]:
            try:
                listener.accept(timeout=0.05)
                raise AssertionError
            except hs.DeadlineExceeded:
                pass
        answer()
        burnt = time.process_time() - burnt
        stats = listener.stats()
        assert stats.shed == 5, stats
        assert stats.exhausted >= 1, stats
        for fd in held:
            os.close(fd)
        os.write(questions[1], b"x")
        conns.append(take(b"late"))
        assert listener.stats().handshakes.completed == 2
        assert burnt < 0.5, burnt
        assert os.wait()[1] == 0
        for conn in conns:
            conn.close()
        listener.close()
        """,
    )
