"""How many workers a pool should have. Nothing here waits, sleeps, opens or spawns.

Everything is a function of counts, so that it takes the same time for ten workers and for ten thousand.
"""

from __future__ import annotations

from attrs import evolve, frozen

from slipway.dsl.declaration import Autoscaling, Retries

MOST_WORKERS = 10_000  # of one pool, whatever was asked for: a slip of the keyboard must not take the engine's memory
MOST_EXTRA = 1000  # workers beyond an elastic limit: recursion without an end has to end somewhere
FIRST_BACKOFF, LAST_BACKOFF = 0.5, 30.0


@frozen(kw_only=True)
class PoolLimits:
    """`max_workers` is always a number: who makes a pool knows the machine. Where it is only what suits the machine and
    nobody asked for it (`elastic`), inputs that wait for others make room for more workers.
    """

    max_workers: int
    elastic: bool = False
    default_workers: int | None = None  # what `max_workers` is when nobody asks for a number
    min_workers: int = 0
    buffer_workers: int = 0  # idle ones to keep while there are inputs
    idle: float = 60.0  # seconds that a worker is kept without work
    timeout: float = 300.0  # seconds that one attempt may take
    slots: int = 1  # inputs (or batches) at once in one worker …
    target: int | None = None  # … and how many of them another worker is started for; None: as many
    batch: int = 0  # inputs in one batch, at the most; 0: they come one by one
    linger: float = 0.0  # seconds that the first input of a batch waits for others
    single_use: bool = False
    retries: Retries | None = None
    give_up_after: int | None = 3  # start-ups that fail in a row before the inputs that wait are given up; None: never


def ceiling(limits: PoolLimits, waiting: int) -> int:
    """The most workers that there may be, while so many of the inputs that run wait for others.

    >>> ceiling(PoolLimits(max_workers=2), 2), ceiling(PoolLimits(max_workers=2, elastic=True), 2)
    (2, 4)
    """
    extra = min(waiting // limits.slots, MOST_EXTRA) if limits.elastic else 0
    return limits.max_workers + extra


def wanted(limits: PoolLimits, *, queued: int, room: int, ready: int, idle: int, active: bool) -> int:
    """How many workers there should be, but for the ceiling: `ready` ones are there already, `idle` of them without
    work, and they could take `room` more of the `queued` inputs. `active`: there are inputs, queued or under way.

    >>> wanted(PoolLimits(max_workers=9, slots=4, target=2), queued=5, room=0, ready=1, idle=0, active=True)
    4
    """
    each = (limits.target or limits.slots) * (limits.batch or 1)
    number = ready - (room - queued) // each if queued > room else ready
    if active and limits.buffer_workers:
        number += max(0, limits.buffer_workers - idle)
    return max(number, limits.min_workers)


def backoff(times: int) -> float:
    """Seconds to wait after so many starts in a row that came to nothing.

    >>> [backoff(times) for times in (1, 2, 3, 100)]
    [0.5, 1.0, 2.0, 30.0]
    """
    return float(min(FIRST_BACKOFF * 2 ** min(times - 1, 30), LAST_BACKOFF))


def of_the_end(limits: PoolLimits) -> PoolLimits:
    """The limits of a pool that takes no more inputs: no worker is kept, and one that can't be started is enough.

    >>> of_the_end(PoolLimits(max_workers=4, min_workers=2, give_up_after=None)).min_workers
    0
    """
    return evolve(limits, min_workers=0, buffer_workers=0, give_up_after=1)


def rescaled(limits: PoolLimits, scaling: Autoscaling) -> PoolLimits:
    """The limits as the autoscaler's settings make them.

    >>> rescaled(PoolLimits(max_workers=4), Autoscaling(max_containers=2, min_containers=3)).min_workers
    2
    """
    most = scaling.max_containers or limits.default_workers or limits.max_workers
    return evolve(
        limits,
        max_workers=most,
        elastic=scaling.max_containers is None and limits.default_workers is not None,
        min_workers=min(scaling.min_containers, most),
        buffer_workers=scaling.buffer_containers,
        idle=scaling.scaledown_window_ms / 1000,
    )
