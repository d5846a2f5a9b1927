"""Whatever happens to an input, it ends once."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slipway.dsl.errors import InternalError
from slipway.executor.lifecycle import EVENT_OF, OPEN, TABLE, Event, State, advance
from slipway.executor.worker.frames import Outcome

FINAL = frozenset(State) - OPEN


@given(st.lists(st.sampled_from(Event), max_size=40))
def test_an_input_ends_at_most_once_and_never_comes_back(events: list[Event]) -> None:
    state, endings = State.QUEUED, 0
    for event in events:
        try:
            following = advance(state, event)
        except InternalError as error:
            assert (state, event) not in TABLE and state.name in str(error)
            continue
        assert state in OPEN
        endings += following in FINAL
        state = following
    assert endings == (state in FINAL)


def test_every_outcome_is_reached_by_its_event() -> None:
    for outcome in Outcome:
        assert advance(State.RUNNING, EVENT_OF[outcome]).name == outcome.name


@pytest.mark.parametrize("state", sorted(OPEN, key=str))
def test_from_every_open_state_an_input_can_be_cancelled(state: State) -> None:
    assert advance(state, Event.CANCEL) is State.CANCELLED


@pytest.mark.parametrize("state", sorted(OPEN, key=str))
def test_from_every_open_state_there_is_a_way_to_every_outcome(state: State) -> None:
    reached = {state}
    while following := {after for (before, _), after in TABLE.items() if before in reached} - reached:
        reached |= following
    assert reached >= FINAL


@pytest.mark.parametrize("state", sorted(FINAL, key=str))
def test_nothing_follows_an_outcome(state: State) -> None:
    assert not [event for before, event in TABLE if before is state]
