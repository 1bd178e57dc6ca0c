"""A pytest plugin: PyMySQL's own suite, unchanged, over hardsock's adapter.

Its class is asked for by name, so it stays and takes the adapter's way of connecting and its TLS.
"""

from __future__ import annotations

import pymysql
import pymysql.connections

from hardsock.adapters import pymysql as over

for name in ("connect", "Connect", "Connection"):
    setattr(pymysql, name, over.Connection)
