"""One line that puts an existing library under hardsock's promises.

    from hardsock import adapters
    import hardsock.adapters.requests

    session = hardsock.adapters.requests.session(total=10)

Each module is for one library, imports it when it is imported itself, and nothing else does. None
patches anything: what does not go through an adapter is as it was. ``hardsock explain --adapters``
lists what is installed, the line to write, and what is lost; so does ``docs/adapters.md``.

One policy for all of them: ``Cancelled`` passes through as it is, and nothing is tried again. A
deadline is the library's own time-out, with ``DeadlineExceeded`` as its cause; when it is that of
the scope, nothing is tried again either.
"""

from __future__ import annotations

from hardsock.adapters._versions import UntestedVersionWarning

__all__ = ["UntestedVersionWarning"]
