"""A page that shows what this process has, for those you let see it.

    app = hardsock.debug.asgi()                        # mount it behind your authentication
    app = hardsock.debug.wsgi()
    hs.serve(hardsock.debug.handler(), ("127.0.0.1", 9090), drain_timeout=1)

It shows peers, lines of your program and stacks of threads' names: put it behind your own
authentication, or on loopback. It answers GET only and changes nothing. What peers have said goes in
as text, never as markup; a Content-Security-Policy forbids inline scripts and everything foreign.

The page is live by server-sent events. Each event is a request of its own, which the browser repeats
after *every* seconds: so no worker is held, and any proxy passes it on.
"""

from hardsock.debug._apps import asgi, handler, wsgi

__all__ = ["asgi", "handler", "wsgi"]
