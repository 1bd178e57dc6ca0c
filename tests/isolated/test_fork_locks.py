"""A thread of the parent that holds a lock of ours at the fork stops nobody in the child."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from isolated.test_process import silent

_PRELUDE = """
import contextlib, importlib, pkgutil
from types import SimpleNamespace
warnings.simplefilter("ignore")  # CPython's own, of a fork beside threads

def fork_while_held(hold, use):
    '''Fork while another thread is inside of hold(); the child does use().'''
    held, leave = threading.Event(), threading.Event()
    def wait(*args):
        held.set()
        leave.wait()
        raise RuntimeError("it was only to be held")
    def run():
        with contextlib.suppress(RuntimeError):
            hold(wait)
    thread = threading.Thread(target=run)
    thread.start()
    held.wait()
    pid = os.fork()
    if pid == 0:
        signal.alarm(10)
        use()
        os._exit(0)
    status = os.waitpid(pid, 0)[1]
    leave.set()
    thread.join()
    assert status == 0, status
"""


def test_every_lock_of_a_module_is_a_new_one_in_the_child() -> None:
    silent(
        _PRELUDE
        + """
for found in pkgutil.walk_packages(hs.__path__, "hardsock.", onerror=lambda name: None):
    if "__main__" not in found.name and "sitecustomize" not in found.name:
        with contextlib.suppress(ImportError):
            importlib.import_module(found.name)
kinds = (type(threading.Lock()), type(threading.RLock()))
locks = [
    (module, name)
    for module in list(sys.modules.values())
    if module is not None and module.__name__.partition(".")[0] == "hardsock"
    for name, value in vars(module).items()
    if isinstance(value, kinds)
]
assert len(locks) >= 5, locks

def hold(wait):
    with contextlib.ExitStack() as stack:
        for module, name in locks:
            stack.enter_context(getattr(module, name))
        wait()

def use():
    stale = [one for one in locks if not getattr(*one).acquire(blocking=False)]
    if stale:
        os.write(1, repr(stale).encode())
        os._exit(1)

fork_while_held(hold, use)
"""
    )


@pytest.mark.parametrize(
    "code",
    [
        """
import hardsock.adapters.urllib3 as adapter
conn = adapter.HTTPSConnection("127.0.0.1", 1, ca_certs=None)
def hold(wait):
    adapter._contexts.get("of another", wait)
fork_while_held(hold, lambda: adapter._context_of(conn))
""",
        """
import hardsock.adapters.redis._sync as adapter
import ssl
told = SimpleNamespace(
    cert_reqs=ssl.CERT_REQUIRED, check_hostname=True, certfile=None, keyfile=None,
    ca_certs=None, ca_path=None, ca_data=None,
)
def hold(wait):
    adapter._contexts.get("of another", wait)
fork_while_held(hold, lambda: adapter.context_of(told))
""",
        """
context = hs.ssl_context()
make = context._make_config
def hold(wait):
    context._make_config = wait
    context.tls_config()
def use():
    context._make_config = make
    context.tls_config()
fork_while_held(hold, use)
""",
    ],
    ids=["urllib3", "redis", "ssl_context"],
)
def test_tls_settings_are_made_in_the_child_of_who_made_some(code: str) -> None:
    silent(_PRELUDE + code)


@pytest.mark.nightly
def test_children_of_a_process_that_is_busy_in_every_call_go_on() -> None:
    script = Path(__file__).with_name("fork_storm.py")
    done = subprocess.run(
        [sys.executable, script, "1000"], capture_output=True, text=True, timeout=1800
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
