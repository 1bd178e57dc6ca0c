"""What tests of servers get: the driver, and an authority for those that speak TLS."""

from __future__ import annotations

import pytest

from support.serving import DRIVERS
from support.tls import Identities


@pytest.fixture(scope="session")
def ids(tmp_path_factory: pytest.TempPathFactory) -> Identities:
    """An authority, and what it issues."""
    return Identities(tmp_path_factory.mktemp("identities"))


@pytest.fixture(params=DRIVERS)
def driver(request: pytest.FixtureRequest) -> str:
    """Threads, or an event loop."""
    name: str = request.param
    return name


@pytest.fixture(params=["plain", "tls"])
def tls(request: pytest.FixtureRequest, ids: Identities) -> Identities | None:
    """None: the server speaks plain TCP."""
    return ids if request.param == "tls" else None
