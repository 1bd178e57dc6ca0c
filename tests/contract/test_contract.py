"""CPython's own tests of streams are the contract: each of them holds, or its difference is listed.

The tests run in processes of their own (`runner.py`), several at a time, since most of their time
is waiting. docs/internals/socket-contract.md lists those that do not hold, with the reason. A
failing test that is not listed, and passes on a plain socket, is a new difference; a listed one
that passes is no longer one. Both fail here.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from hardsock.lab.waits import poll_until
from support.require import Unavailable, available

RUNNER = Path(__file__).with_name("runner.py")
PAGE = Path(__file__).parents[2] / "docs" / "internals" / "socket-contract.md"

# Each group is a process; the longest first. Classes that are about other things than connected streams are left out.
GROUPS = {
    "xmlrpc": "test.test_xmlrpc",
    "socket": "test.test_socket:SocketConnectedTest,BasicTCPTest,BasicTCPTest2,TCPCloserTest,"
    "BasicSocketPairTest,NonBlockingTCPTests,NetworkConnectionNoServer,"
    "NetworkConnectionAttributesTest,NetworkConnectionBehaviourTest,TCPTimeoutTest,"
    "TestUnixDomain,TestLinuxAbstractNamespace,BufferIOTest,ContextManagersTest,InheritanceTest,"
    "TestSocketSharing,CreateServerFunctionalTest,SendRecvFdsTests,InterruptedSendTimeoutTest",
    "messages": "test.test_socket:SendmsgTCPTest,RecvmsgTCPTest,RecvmsgIntoTCPTest,"
    "SendmsgUnixStreamTest,RecvmsgUnixStreamTest,RecvmsgIntoUnixStreamTest,"
    "RecvmsgSCMRightsStreamTest,RecvmsgIntoSCMRightsStreamTest",
    "files": "test.test_socket:FileObjectClassTestCase,UnbufferedFileObjectClassTestCase,"
    "LineBufferedFileObjectClassTestCase,SmallBufferedFileObjectClassTestCase,"
    "UnicodeReadFileObjectClassTestCase,UnicodeWriteFileObjectClassTestCase,"
    "UnicodeReadWriteFileObjectClassTestCase,SendfileUsingSendTest,SendfileUsingSendfileTest",
    "ftplib": "test.test_ftplib",
    "http": "test.test_httplib test.test_httpservers test.test_urllib2_localnet test.test_wsgiref",
    "imaplib": "test.test_imaplib",
    "logging": "test.test_logging:SocketHandlerTest,UnixSocketHandlerTest,HTTPHandlerTest,"
    "ConfigDictTest",
    "nntplib": "test.test_nntplib",
    "poplib": "test.test_poplib",
    "smtplib": "test.test_smtplib",
    "socketserver": "test.test_socketserver",
    "telnetlib": "test.test_telnetlib",
}
# The module that stands for `socket`: all of test_socket, and what makes sockets in other ways.
PARTS = 8
COMPAT = {f"socket {i}": f"test.test_socket#{i}/{PARTS}" for i in range(1, PARTS + 1)} | {
    "asyncio": "test.test_asyncio.test_sock_lowlevel test.test_asyncio.test_streams",
    "ftplib": "test.test_ftplib",
    "smtplib": "test.test_smtplib",
    "http": "test.test_httplib test.test_urllib2_localnet",
    "socketserver": "test.test_socketserver",
}
# A process of `hardsock run`: clients and their TLS, unchanged.
RUN = {
    "socket": "test.test_socket:BasicTCPTest,BasicTCPTest2,NetworkConnectionNoServer,"
    "NetworkConnectionAttributesTest,NetworkConnectionBehaviourTest,TCPTimeoutTest,"
    "NonBlockingTCPTests,CreateServerFunctionalTest,TestUnixDomain,BasicUDPTest",
    "http": "test.test_httplib test.test_urllib2_localnet",
    "mail": "test.test_smtplib test.test_poplib",
    "imaplib": "test.test_imaplib",
    "ftplib": "test.test_ftplib",
    "xmlrpc": "test.test_xmlrpc",
    "socketserver": "test.test_socketserver",
    "asyncio": "test.test_asyncio.test_sock_lowlevel test.test_asyncio.test_streams",
}
# They wait ten seconds and more for what a plain socket waits for, too.
SLOW = [
    "test.test_imaplib.NewIMAPSSLTests.test_imaplib_timeout_test",
    "test.test_imaplib.NewIMAPSSLTests.test_ssl_raises",
    "test.test_imaplib.NewIMAPSSLTests.test_ssl_verified",
    "test.test_imaplib.NewIMAPTests.test_imaplib_timeout_test",
    # In a virtual machine without a host that answers it never ends.
    "test.test_socket.ThreadedVSOCKSocketStreamTest.testStream",
]
AT_ONCE = 8
AT_TIMES = "At times"  # how the reason begins of a difference that shows when a race goes one way
LIMIT = 300  # seconds for a process


@dataclass
class Outcomes:
    passed: set[str]
    failed: dict[str, str]  # and what was printed
    skipped: set[str]
    injected: int


def run_alone(command: list[str], **where: Any) -> int:
    """Run it in a session of its own, of which nothing is left: tests fork, and then fail."""
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, start_new_session=True, **where
    ) as process:
        try:
            # Not reaped yet, so that the number is still that of its group.
            if not poll_until(lambda: has_ended(process.pid), LIMIT):
                raise subprocess.TimeoutExpired(command, LIMIT)
        finally:
            os.killpg(process.pid, signal.SIGKILL)
    return process.returncode


def has_ended(pid: int) -> bool:
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is not None


def run(folder: Path, targets: list[str], mode: str, left_out: list[str]) -> list[dict[str, str]]:
    """Return what the runner wrote; a process that a test ended goes on with the next test."""
    out = folder / f"{mode}.jsonl"
    done: list[str] = []
    while True:
        command = [sys.executable, str(RUNNER), str(out), mode]
        command += [f"-{one}" for one in [*left_out, *done]] + targets
        with (folder / "log").open("a") as log:
            status = run_alone(command, cwd=folder, stdout=log, stderr=log)
        lines = [json.loads(line) for line in out.read_text().splitlines()] if out.exists() else []
        if status == 0:
            return lines
        before, done = done, [line["test"] for line in lines if line["outcome"] == "begun"]
        if done == before:  # It did not get as far as the next test.
            pytest.fail(f"{command}: {(folder / 'log').read_text()[-3000:]}")


def outcomes_of(folder: Path, targets: list[str], mode: str, left_out: list[str]) -> Outcomes:
    folder.mkdir(exist_ok=True)
    found = Outcomes(set(), {}, set(), 0)
    for line in run(folder, targets, mode, left_out):
        test, outcome = line["test"], line["outcome"]
        found.injected = max(found.injected, int(line["injected"]))
        found.failed.pop(test, None)
        if outcome == "passed":
            found.passed.add(test)
        elif outcome == "skipped":
            found.skipped.add(test)
        else:
            found.failed[test] = line["text"] or "it did not end"
    return found


def present(target: str) -> bool:
    """Whether this interpreter has the module; find_spec() raises if there is no package."""
    with suppress(ModuleNotFoundError):
        return importlib.util.find_spec(re.split("[:#]", target)[0]) is not None
    return False


def listed(mode: str) -> dict[str, str]:
    """Return the tests in the page's table for the *mode*, and their reasons."""
    heads = {"compat": "## `hardsock.compat.socket`", "run": "## `hardsock run`"}
    text = PAGE.read_text(encoding="utf-8")
    if mode in heads:
        text = text.partition(heads[mode])[2]
    text = re.split("^## `hardsock", text, flags=re.M)[0]
    rows = re.findall(r"^\| (`test_.*`) \| (.+) \|$", text, re.M)
    return {f"test.{one}": why for tests, why in rows for one in re.findall(r"`([^`]+)`", tests)}


def run_all(folder: Path, groups: dict[str, str], mode: str) -> dict[str, Outcomes]:
    """What became of each group that this interpreter has, all run at once."""
    with available():
        if not present("test.test_socket"):
            raise Unavailable(
                f"the tests of this Python are not installed: {sysconfig.get_path('stdlib')}/test "
                "has no test_socket.py (Debian: libpython3.N-testsuite)"
            )
    with ThreadPoolExecutor(AT_ONCE) as pool:
        running = {
            name: pool.submit(outcomes_of, folder / name, targets, mode, SLOW)
            for name in groups
            if (targets := [one for one in groups[name].split() if present(one)])
        }
    return {name: one.result() for name, one in running.items()}


# ---- the page's numbers -------------------------------------------------------------------------

VERSION = "CPython " + ".".join(map(str, sys.version_info[:3]))
MODES = {
    "injected": (GROUPS, "connections in the place of connected sockets"),
    "compat": (COMPAT, "`hardsock.compat.socket` in the place of `socket`"),
    "run": (RUN, "in a process of `hardsock run`"),
}
HEAD = "| | tests | run | hold | differ | skipped |\n|---|---|---|---|---|---|\n"


def rows_of(mode: str, found: dict[str, Outcomes]) -> list[str]:
    """The lines of the page's table about the *mode*: test_socket, and all other modules."""
    all_of = [set[str]().union(*(getattr(one, kind) for one in found.values())) for kind in KINDS]
    rows = []
    for name, is_in in (("`test_socket`", True), ("of other modules", False)):
        ours = [{t for t in kind if t.startswith("test.test_socket.") is is_in} for kind in all_of]
        passed, failed, skipped = map(len, ours)
        rows.append(
            f"| {MODES[mode][1]} | {name} | {passed + failed} | {passed} | {failed} | {skipped} |"
        )
    return rows


KINDS = ("passed", "failed", "skipped")


def written(mode: str) -> list[str]:
    """The same lines as the page has them; none if they are of another interpreter."""
    text = PAGE.read_text(encoding="utf-8")
    if f"\nMeasured with {VERSION}" not in text:
        return []
    return [line for line in text.splitlines() if line.startswith(f"| {MODES[mode][1]} |")]


def numbers(row: str) -> tuple[int, int, int]:
    ran, passed, failed, skipped = (int(cell) for cell in row.split("|")[3:7])
    assert ran == passed + failed
    return passed, failed, skipped


def check_numbers(mode: str, found: dict[str, Outcomes]) -> None:
    at_times = sum(why.startswith(AT_TIMES) for why in listed(mode).values())
    page = written(mode)
    if not page:
        pytest.skip(f"the page's numbers are not of {VERSION}")
    for measured, said in zip(rows_of(mode, found), page, strict=True):
        (passed, failed, skipped), (page_passed, page_failed, page_skipped) = map(
            numbers, (measured, said)
        )
        assert passed + failed + skipped == page_passed + page_failed + page_skipped, measured
        # What is skipped depends on the machine: IPv6, Bluetooth, who runs it.
        assert abs(failed - page_failed) <= at_times, f"measured: {measured}, the page: {said}"


def check(found: Outcomes, targets: str, mode: str, folder: Path) -> None:
    passed, failed, differences = found.passed, found.failed, listed(mode)
    assert passed
    assert found.injected, "no connection of hardsock was used"
    new = {test: text for test, text in failed.items() if test not in differences}
    if new:  # What fails here on a plain socket too is the machine's.
        others = [*passed, *(failed.keys() - new.keys()), *SLOW]
        plain = outcomes_of(folder, [o for o in targets.split() if present(o)], "plain", others)
        new = {test: text for test, text in new.items() if test in plain.passed}
    assert not new, "new differences:\n\n" + "\n".join(f"{k}\n{v}" for k, v in new.items())
    none = {test for test in passed if not differences.get(test, AT_TIMES).startswith(AT_TIMES)}
    assert not none, f"{PAGE.name} lists what holds"


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Outcomes]:
    return run_all(tmp_path_factory.mktemp("contract"), GROUPS, "injected")


@pytest.fixture(scope="module")
def found_compat(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Outcomes]:
    return run_all(tmp_path_factory.mktemp("compat"), COMPAT, "compat")


@pytest.mark.parametrize("group", GROUPS)
def test_the_interpreters_own_tests_hold_or_their_difference_is_listed(
    found: dict[str, Outcomes], group: str, tmp_path: Path
) -> None:
    if group not in found:
        pytest.skip(f"Python {sys.version_info[0]}.{sys.version_info[1]} has no {GROUPS[group]}")
    check(found[group], GROUPS[group], "injected", tmp_path)


@pytest.mark.parametrize("group", COMPAT)
def test_they_hold_over_the_module_that_stands_for_socket_or_their_difference_is_listed(
    found_compat: dict[str, Outcomes], group: str, tmp_path: Path
) -> None:
    check(found_compat[group], COMPAT[group], "compat", tmp_path)


@pytest.fixture(scope="module")
def found_run(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Outcomes]:
    return run_all(tmp_path_factory.mktemp("run"), RUN, "run")


@pytest.mark.parametrize("group", RUN)
def test_they_hold_in_a_process_of_hardsock_run_or_their_difference_is_listed(
    found_run: dict[str, Outcomes], group: str, tmp_path: Path
) -> None:
    check(found_run[group], RUN[group], "run", tmp_path)


def test_the_pages_numbers_are_those_of_connections(found: dict[str, Outcomes]) -> None:
    check_numbers("injected", found)


def test_the_pages_numbers_are_those_of_the_module(found_compat: dict[str, Outcomes]) -> None:
    check_numbers("compat", found_compat)


def test_the_pages_numbers_are_those_of_a_process(found_run: dict[str, Outcomes]) -> None:
    check_numbers("run", found_run)


@pytest.mark.parametrize("mode", ["injected", "compat", "run"])
def test_each_listed_difference_is_a_test_of_some_interpreter(mode: str) -> None:
    groups = {"injected": GROUPS, "compat": COMPAT, "run": RUN}[mode]
    names = {re.split("[:#]", target)[0] for one in groups.values() for target in one.split()}
    for test, reason in listed(mode).items():
        module, _, case = test.rpartition(".")[0].rpartition(".")
        assert module in names, test
        assert case[0].isupper(), test
        assert len(reason) > 20, f"{test}: no reason"
    assert not set(SLOW) & set(listed(mode))


@pytest.mark.parametrize("how", ["os.fork()", "multiprocessing"])
def test_nothing_is_left_of_a_test_that_forks_and_does_not_wait(tmp_path: Path, how: str) -> None:
    start = {
        "os.fork()": "if os.fork() == 0: signal.pause()",
        "multiprocessing": "get_context('fork').Process(target=signal.pause).start()",
    }[how]
    (tmp_path / "forking.py").write_text(
        "import os, signal, unittest\nfrom multiprocessing import get_context\n"
        f"class Forking(unittest.TestCase):\n    def test_it(self):\n        {start}\n"
    )
    command = [sys.executable, str(RUNNER), "out", "plain", "forking"]
    reading, writing = os.pipe()
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    try:
        assert run_alone(command, cwd=tmp_path, stdout=writing, env=environment) == 0
    finally:
        os.close(writing)
    with open(reading, "rb") as rest:
        assert rest.read() == b""  # ended, so that nobody has the other side any more
    assert '"passed"' in (tmp_path / "out").read_text()
