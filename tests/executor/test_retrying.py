"""Who ended a worker, and when what failed is tried again."""

from __future__ import annotations

import signal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slipway.dsl.declaration import Retries
from slipway.executor.ports import Exit
from slipway.executor.retrying import FROM_OUTSIDE, LEAST_DELAY, Blame, blame, delay_after

OWN = [
    Exit(code=0),
    Exit(code=3),
    Exit(code=None, signal=9, oom=True),
    *(Exit(code=None, signal=number) for number in (signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE)),
    *(Exit(code=None, signal=number) for number in (signal.SIGILL, signal.SIGSYS)),
]
OUTSIDE = [
    None,
    Exit(code=None, reason="the runtime does not know"),
    *(Exit(code=None, signal=number) for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)),
]


@pytest.mark.parametrize("end", OWN, ids=str)
def test_a_worker_that_died_of_its_only_input_died_of_it_unless_we_ended_it(end: Exit) -> None:
    assert blame(end, told=False, running=1) is Blame.INPUT
    assert blame(end, told=True, running=1) is Blame.OUTSIDE
    assert blame(end, told=False, running=2) is Blame.OUTSIDE
    assert blame(end, told=False, running=0) is Blame.OUTSIDE


@pytest.mark.parametrize("end", OUTSIDE, ids=str)
def test_what_others_send_is_no_fault_of_an_input(end: Exit | None) -> None:
    assert blame(end, told=False, running=1) is Blame.OUTSIDE


def test_the_signals_are_those_of_this_machine() -> None:
    assert {signal.SIGHUP, signal.SIGINT, signal.SIGKILL, signal.SIGTERM} == FROM_OUTSIDE


policies = st.builds(
    Retries,
    max_retries=st.integers(0, 2000),
    backoff_milli=st.integers(1000, 10_000),
    initial_delay_ms=st.integers(0, 60_000),
    max_delay_ms=st.integers(1000, 60_000),
)


@given(policies, st.integers(1, 3000))
def test_delays_stay_within_their_bounds_and_never_get_shorter(policy: Retries, failures: int) -> None:
    delay, following = delay_after(policy, failures), delay_after(policy, failures + 1)
    assert (delay is None) == (failures > policy.max_retries)
    if delay is not None:
        assert LEAST_DELAY <= delay <= max(LEAST_DELAY, policy.max_delay_ms / 1000)
        assert following is None or following >= delay


def test_a_plain_number_of_retries_comes_a_second_apart() -> None:
    policy = Retries(max_retries=2, backoff_milli=1000)
    assert [delay_after(policy, failures) for failures in (1, 2, 3)] == [1.0, 1.0, None]
    assert delay_after(None, 1) is None
