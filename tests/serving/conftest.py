"""What tests of servers get: the driver, and an authority for those that speak TLS."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from support.serving import DRIVERS

if TYPE_CHECKING:
    from support.tls import Identities


@pytest.fixture(scope="session")
def ids(tmp_path_factory: pytest.TempPathFactory) -> Identities:
    """An authority, and what it issues."""
    # Not every interpreter has what makes certificates: only tests that speak TLS are skipped there.
    from support.tls import Identities

    return Identities(tmp_path_factory.mktemp("identities"))


@pytest.fixture(params=DRIVERS)
def driver(request: pytest.FixtureRequest) -> str:
    """Threads, or an event loop."""
    name: str = request.param
    return name


@pytest.fixture(params=["plain", "tls"])
def tls(request: pytest.FixtureRequest) -> Identities | None:
    """None: the server speaks plain TCP."""
    if request.param == "plain":
        return None
    ids: Identities = request.getfixturevalue("ids")
    return ids
