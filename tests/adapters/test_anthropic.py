"""The contract, with the real SDK of anthropic."""

from __future__ import annotations

import pytest

from support.require import need_module

need_module("anthropic")

from adapters.http_contract import *
from adapters.http_contract import keep_what_a_driver_has
from adapters.sdk_driver import SDKDriver

# What it shares with openai, all but its names, is tested there each time.
pytestmark = pytest.mark.nightly
DRIVERS = [SDKDriver("anthropic")]
keep_what_a_driver_has(globals())
