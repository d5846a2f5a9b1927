"""How many workers there should be, as a function of counts."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from slipway.dsl.declaration import Autoscaling
from slipway.executor.scaling import MOST_EXTRA, PoolLimits, ceiling, rescaled, wanted

some = st.integers(0, 10_000)
limits = st.builds(
    PoolLimits,
    max_workers=st.just(10_000),
    min_workers=st.integers(0, 50),
    buffer_workers=st.integers(0, 50),
    slots=st.integers(1, 20),
    batch=st.integers(0, 20),
)


@given(limits, some, some, some, some, st.booleans())
def test_there_are_enough_workers_and_none_too_many(
    limits: PoolLimits, queued: int, room: int, ready: int, idle: int, active: bool
) -> None:
    idle = min(idle, ready)
    number = wanted(limits, queued=queued, room=room, ready=ready, idle=idle, active=active)
    each = limits.slots * max(limits.batch, 1)
    buffer = max(0, limits.buffer_workers - idle) if active else 0
    assert (number - ready - buffer) * each >= queued - room or number == limits.min_workers
    assert number <= max(limits.min_workers, ready + buffer + max(0, -(-(queued - room) // each)))
    assert number >= max(limits.min_workers, ready)


@given(limits, some, some, some)
def test_more_inputs_never_want_fewer_workers(limits: PoolLimits, queued: int, more: int, ready: int) -> None:
    few = wanted(limits, queued=queued, room=0, ready=ready, idle=0, active=True)
    assert wanted(limits, queued=queued + more, room=0, ready=ready, idle=0, active=True) >= few


def test_recursion_without_an_end_ends() -> None:
    assert ceiling(PoolLimits(max_workers=2, elastic=True), 10**9) == 2 + MOST_EXTRA
    assert ceiling(PoolLimits(max_workers=2, elastic=True, slots=4), 7) == 3


def test_a_limit_that_is_taken_back_is_what_suits_the_machine() -> None:
    natural = PoolLimits(max_workers=8, default_workers=8, elastic=True)
    limited = rescaled(natural, Autoscaling(max_containers=2))
    assert limited.max_workers == 2 and not limited.elastic
    assert rescaled(limited, Autoscaling()) == natural
