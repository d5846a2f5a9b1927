"""Whether an input is tried again, and when. Nothing here waits, sleeps, opens or spawns.

Two counts are kept apart. What an input itself brings about (it raises, it takes too long, its process dies of it) is
a failure, and the `retries` of its function say how many of these are tried again. What comes from outside (somebody
kills the worker, the runtime goes away, the engine is started anew) is a loss: tried again at once, and not counted.
"""

from __future__ import annotations

from enum import Enum

from slipway.dsl.declaration import Retries

from .ports import Exit

MOST_LOSSES = 8  # attempts of one input that may be lost; with the next the input is
LEAST_DELAY = 1.0  # seconds between two attempts, whatever the policy says
FROM_OUTSIDE = frozenset({1, 2, 9, 15})  # SIGHUP, SIGINT, SIGKILL, SIGTERM: what others send


class Blame(Enum):
    INPUT = "input"
    OUTSIDE = "outside"


def blame(end: Exit | None, *, told: bool, running: int) -> Blame:
    """Who ended a worker: the input that it ran, or something outside of it. `told`: we did, and not for its sake.

    >>> blame(Exit(code=None, signal=11), told=False, running=1)
    <Blame.INPUT: 'input'>
    >>> blame(Exit(code=None, signal=9, oom=True), told=False, running=2)  # nobody knows which of the two
    <Blame.OUTSIDE: 'outside'>
    """
    if told or running != 1 or end is None:
        return Blame.OUTSIDE
    if end.oom or end.code is not None:
        return Blame.INPUT
    return Blame.OUTSIDE if end.signal is None or end.signal in FROM_OUTSIDE else Blame.INPUT


def delay_after(policy: Retries | None, failures: int) -> float | None:
    """Seconds from so many failures to the next attempt; None: there is no other one.

    >>> policy = Retries(max_retries=3, backoff_milli=2000, initial_delay_ms=1500, max_delay_ms=4000)
    >>> [delay_after(policy, failures) for failures in (1, 2, 3, 4)]
    [1.5, 3.0, 4.0, None]
    """
    if policy is None or failures > policy.max_retries:
        return None
    most = policy.max_delay_ms / 1000
    try:
        delay = policy.initial_delay_ms / 1000 * (policy.backoff_milli / 1000) ** (failures - 1)
    except OverflowError:
        delay = most
    return max(LEAST_DELAY, min(delay, most))
