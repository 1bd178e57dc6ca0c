"""What asyncmy waits for on hardsock's event loop ends, and what breaks off is an error.

It is built by a C compiler where there is no wheel: no peer that CI must have.
"""

from __future__ import annotations

import pytest

from adapters.database_contract import *
from adapters.mysql_client import MySQLClient
from support.require import need_module

LIBRARY = MySQLClient("asyncmy", "asyncmy.errors")


@pytest.fixture(autouse=True)
def _installed() -> None:
    need_module("asyncmy")
