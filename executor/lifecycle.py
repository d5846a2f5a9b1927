"""The life of an input as a table. Nothing here waits, sleeps, opens or spawns.

    queued ──assign──▸ assigned ──start──▸ running ──▸ one of the five outcomes
     ▴  ▴                 │                │   │
     │  └────give_back────┘                │   └─fail─▸ resting ─wake─┐
     └───────────────────────lose_worker───┴──────────────────────────┘

An input can be ended in every state before its outcome, and in none after it: that is what makes it exactly one.
"""

from __future__ import annotations

from enum import IntEnum, auto

from slipway.dsl.errors import InternalError

from .worker.frames import Outcome


class State(IntEnum):
    QUEUED = auto()
    ASSIGNED = auto()  # sent to a worker that is still busy with another input
    RUNNING = auto()
    RESTING = auto()  # an attempt failed, and it is not yet time for the next one
    RETURNED = auto()
    RAISED = auto()
    TIMED_OUT = auto()
    CANCELLED = auto()
    LOST = auto()


class Event(IntEnum):
    ASSIGN = auto()
    START = auto()
    GIVE_BACK = auto()  # the worker gave it back, or was lost before it began
    LOSE_WORKER = auto()  # the attempt is lost, the input is not
    FAIL = auto()  # the attempt failed, and there is another one
    WAKE = auto()
    RETURN = auto()
    RAISE = auto()
    TIME_OUT = auto()
    CANCEL = auto()
    LOSE = auto()


OPEN = frozenset({State.QUEUED, State.ASSIGNED, State.RUNNING, State.RESTING})

TABLE: dict[tuple[State, Event], State] = {
    (State.QUEUED, Event.ASSIGN): State.ASSIGNED,
    (State.QUEUED, Event.RAISE): State.RAISED,  # no worker could be started: the start-up's exception is the input's
    (State.QUEUED, Event.CANCEL): State.CANCELLED,
    (State.QUEUED, Event.LOSE): State.LOST,
    (State.ASSIGNED, Event.START): State.RUNNING,
    (State.ASSIGNED, Event.GIVE_BACK): State.QUEUED,
    (State.ASSIGNED, Event.CANCEL): State.CANCELLED,
    (State.RUNNING, Event.GIVE_BACK): State.QUEUED,  # it should have begun, and was not sent yet
    (State.RUNNING, Event.LOSE_WORKER): State.QUEUED,
    (State.RUNNING, Event.FAIL): State.RESTING,
    (State.RUNNING, Event.RETURN): State.RETURNED,
    (State.RUNNING, Event.RAISE): State.RAISED,
    (State.RUNNING, Event.TIME_OUT): State.TIMED_OUT,
    (State.RUNNING, Event.CANCEL): State.CANCELLED,
    (State.RUNNING, Event.LOSE): State.LOST,
    (State.RESTING, Event.WAKE): State.QUEUED,
    (State.RESTING, Event.CANCEL): State.CANCELLED,
}

EVENT_OF: dict[int, Event] = {  # by `Outcome`
    Outcome.RETURNED: Event.RETURN,
    Outcome.RAISED: Event.RAISE,
    Outcome.TIMED_OUT: Event.TIME_OUT,
    Outcome.CANCELLED: Event.CANCEL,
    Outcome.LOST: Event.LOSE,
}


def advance(state: State, event: Event) -> State:
    """The state that follows. Raises `InternalError` for a step that the table does not hold.

    >>> advance(State.RUNNING, Event.RETURN)
    <State.RETURNED: 5>
    >>> advance(State.RETURNED, Event.LOSE)
    Traceback (most recent call last):
    slipway.dsl.errors.InternalError: an input that is RETURNED can't LOSE
    """
    try:
        return TABLE[state, event]
    except KeyError:
        raise InternalError(f"an input that is {state.name} can't {event.name}") from None
