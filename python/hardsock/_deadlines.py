"""One daemon thread that runs callbacks of tokens whose deadline passes.

Deadlines cost no timer while nobody has registered a callback: whoever waits compares the clock.
A callback has nobody who waits for it, so the first one on a token with a deadline starts this
thread, which watches the tokens' descriptors. It holds tokens weakly: a token that is dropped takes
its callbacks with it. Tokens that have callbacks but no deadline yet are only remembered, until
some token's deadline is moved.
"""

from __future__ import annotations

import os
import select
import threading
import weakref

from hardsock._core import CancelToken


class _Watcher:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._tokens: dict[int, weakref.ref[CancelToken]] = {}
        self._epoll = select.epoll()
        self._pid = os.getpid()
        threading.Thread(target=self._run, name="hardsock-deadlines", daemon=True).start()

    def alive(self) -> bool:
        return self._pid == os.getpid()

    def watch(self, token: CancelToken) -> None:
        fd = token.fileno()
        with self._lock:
            known = self._tokens.get(fd)
            if known is not None and known() is token:
                return
            self._tokens[fd] = weakref.ref(token)
            # A number that a dropped token gave back has left the epoll set by itself.
            self._epoll.register(fd, select.EPOLLIN | select.EPOLLONESHOT)

    def _run(self) -> None:
        while True:
            for fd, _ in self._epoll.poll():
                self._expire(fd)

    def _expire(self, fd: int) -> None:
        with self._lock:
            reference = self._tokens.pop(fd, None)
            token = reference() if reference is not None else None
            if token is not None:
                self._epoll.unregister(fd)
        if token is None:
            return
        token._expire()
        if not token.cancelled:  # its deadline was moved just as it passed
            self.watch(token)


_watcher: _Watcher | None = None
_without_deadline: weakref.WeakSet[CancelToken] = weakref.WeakSet()
_making = threading.RLock()  # the garbage collector may bring us here twice


def watch(token: CancelToken) -> None:
    """Run the token's callbacks when its deadline passes, now or once it has one."""
    global _watcher
    with _making:
        if token.deadline is None:
            _without_deadline.add(token)
            return
        _without_deadline.discard(token)
        if _watcher is None or not _watcher.alive():
            _watcher = _Watcher()
        watcher = _watcher
    watcher.watch(token)


def recheck() -> None:
    """Look again at the tokens that had no deadline: one has just been set, perhaps above them."""
    if not _without_deadline:
        return
    with _making:
        tokens = [token for token in _without_deadline if token.deadline is not None]
    for token in tokens:
        watch(token)
