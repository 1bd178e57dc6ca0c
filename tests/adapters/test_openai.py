"""The contract, with the real SDK of openai."""

from __future__ import annotations

from support.require import need_module

need_module("openai")

from adapters.http_contract import *
from adapters.http_contract import keep_what_a_driver_has
from adapters.sdk_driver import SDKDriver

DRIVERS = [SDKDriver("openai")]
keep_what_a_driver_has(globals())
