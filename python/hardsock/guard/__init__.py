"""Rules on connections: when there are too many, idle ones are closed, or somebody is told.

See ``hardsock.Guard``.
"""

from hardsock.guard.actions import (
    Action,
    Call,
    CloseIdle,
    Diagnose,
    RefuseNew,
    ShortenTimeouts,
    UserTimeout,
)
from hardsock.guard.foreign import Foreign
from hardsock.guard.guard import Guard, living_guards
from hardsock.guard.presets import article_2023
from hardsock.guard.quantities import QUANTITIES, Condition, Quantity
from hardsock.guard.rules import Rule

connections = QUANTITIES["connections"]
connections_share = QUANTITIES["connections_share"]
idle_share = QUANTITIES["idle_share"]
mean_age = QUANTITIES["mean_age"]
oldest_idle = QUANTITIES["oldest_idle"]
growth = QUANTITIES["growth"]
descriptors = QUANTITIES["descriptors"]
descriptors_share = QUANTITIES["descriptors_share"]
queue_length = QUANTITIES["queue_length"]
pool_waiting = QUANTITIES["pool_waiting"]
pool_lent_share = QUANTITIES["pool_lent_share"]
application_stall_p99 = QUANTITIES["application_stall_p99"]
gil_stall_p99 = QUANTITIES["gil_stall_p99"]

__all__ = [
    "Action",
    "Call",
    "CloseIdle",
    "Condition",
    "Diagnose",
    "Foreign",
    "Guard",
    "Quantity",
    "RefuseNew",
    "Rule",
    "ShortenTimeouts",
    "UserTimeout",
    "application_stall_p99",
    "article_2023",
    "connections",
    "connections_share",
    "descriptors",
    "descriptors_share",
    "gil_stall_p99",
    "growth",
    "idle_share",
    "living_guards",
    "mean_age",
    "oldest_idle",
    "pool_lent_share",
    "pool_waiting",
    "queue_length",
]
