"""What tests of TLS on connections get: a driver that runs a clause, and one version of TLS."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from conformance.drivers import DRIVERS
from support.tls_visits import VERSIONS, Clause


@pytest.fixture(params=["threads", "asyncio"])
def run(request: pytest.FixtureRequest) -> Callable[[Clause], None]:
    """Runs a clause by a blocking thread, and in an event loop."""
    driver = DRIVERS[request.param]()
    return lambda clause: driver.run(lambda: clause(driver))


@pytest.fixture(params=VERSIONS)
def only(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Settings that leave one version."""
    return {"min_version": request.param, "max_version": request.param}
