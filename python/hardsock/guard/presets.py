"""Rules that others have proposed."""

from __future__ import annotations

from hardsock.guard.actions import CloseIdle, Diagnose, ShortenTimeouts, UserTimeout
from hardsock.guard.quantities import QUANTITIES
from hardsock.guard.rules import Rule

__all__ = ["article_2023"]


def article_2023(too_many: int = 5000, *, server: bool = False) -> tuple[Rule, ...]:
    """The self-healing rules of a well-known article, as it has them.

    More than *too_many* connections, and a mean age above 120 s: close those idle for over 60 s.
    More, and younger: take it for a leak and dump stacks. In both cases TCP_USER_TIMEOUT goes down
    to 5 s, and, of a *server*, the time-outs of closing are shortened.

    What is wrong with that, measured on Linux 6.18:

    - The mean age says nothing. A healthy pool of long-lived connections has the highest there is,
      and a leak of young ones the lowest. ``idle_share`` and ``growth`` tell them apart.
    - The article counts lines of netstat. That counts TIME_WAIT, which nobody can close, and both
      ends on loopback: 9,000 connections were 18,000 lines. Here ``connections`` are those that
      are open in this process.
    - TCP_USER_TIMEOUT does nothing to idle connections, and belongs to each socket. At 30 % loss
      and 80 ms round trip, 5 s killed 28 of 60 connections that were in use, 15 s killed 9; at 15 %
      loss 0 and 1. It hits who is in use, not who is idle.
    - One threshold without a clear level goes on and off at each look. Here it clears at 90 %.
    - Nothing bounds how many are closed at once. Here it is 5 % in a minute.

    Better is ``Rule("too many", when=connections_share > 0.9, clear=0.75, for_=30,
    then=[CloseIdle(), Diagnose()])``.
    """
    connections, mean_age = QUANTITIES["connections"], QUANTITIES["mean_age"]
    many = (connections > too_many).until(0.9 * too_many)
    shorter: tuple[UserTimeout | ShortenTimeouts, ...] = (UserTimeout(seconds=5),)
    if server:
        shorter = (*shorter, ShortenTimeouts(linger=0.5))
    return (
        Rule("many and old", when=[many, mean_age > 120], for_=15, then=[CloseIdle(over=60)]),
        Rule("many and young", when=[many, mean_age < 120], for_=15, then=[Diagnose()]),
        Rule("many", when=many, for_=15, then=shorter),
    )
