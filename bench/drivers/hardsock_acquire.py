"""hardsock's pool by two calls in place of a with statement."""

from __future__ import annotations

from . import _pools, hardsock
from ._hardsock_pool import Acquired

version = hardsock.version
pool_checkout, pool_checkout_8, pool_fairness = _pools.works(Acquired)
