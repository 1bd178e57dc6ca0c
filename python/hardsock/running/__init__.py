"""``hardsock run``: a whole program, which nobody may edit, under hardsock.

``begin()`` puts this process under it: it changes the modules ``socket`` and ``ssl``, which nothing
else in hardsock does. It is called by ``import hardsock`` where ``HARDSOCK`` is in the environment;
``hardsock run`` sets that, and lets each Python that the program starts import hardsock first.
"""

from __future__ import annotations

from hardsock.running.settings import Settings, parse

__all__ = ["Settings", "begin", "begin_by_environment"]

_begun: Settings | None = None


def begin(settings: Settings) -> None:
    """Put this process under hardsock, for its life. A second call changes nothing."""
    global _begun
    if _begun is not None:
        return
    _begun = settings
    from hardsock.running import report, routes, tls

    report.install(settings)
    routes.install(settings)
    if settings.limits and settings.tls:
        tls.install()


def begin_by_environment(text: str) -> None:
    """What ``import hardsock`` does with ``HARDSOCK``; wrong settings raise ValueError."""
    if text not in ("", "0", "off"):
        begin(parse(text))
