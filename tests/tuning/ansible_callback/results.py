"""Prints each task's result as one line of JSON: what the tests read."""

from __future__ import annotations

import json
from typing import Any

from ansible.plugins.callback import CallbackBase


class CallbackModule(CallbackBase):  # type: ignore[misc]
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "stdout"
    CALLBACK_NAME = "results"

    def v2_runner_on_ok(self, result: Any) -> None:
        print(json.dumps(result._result, default=str), flush=True)

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:
        print(json.dumps(result._result, default=str), flush=True)
