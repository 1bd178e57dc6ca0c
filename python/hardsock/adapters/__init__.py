"""Other libraries under the promises of this one: ``from hardsock.adapters import httpx``.

A module is imported on demand and imports the library that it is named after. Nothing here patches
anything: each module makes clients, pools and backends of that library that use hardsock.
"""

from __future__ import annotations
