"""How an attempt of an input ends, and what follows. Nothing here waits, sleeps, opens or spawns."""

from __future__ import annotations

from .actions import Actions, Again, End, Pass
from .lifecycle import EVENT_OF, Event, State, advance
from .retrying import MOST_LOSSES, delay_after
from .scaling import PoolLimits
from .seats import RETRIES, Placed
from .worker.frames import Outcome
from .workforce import Workforce

REST = 8  # the alarm of an input that rests; those of workers are smaller


class Attempts(Workforce):
    """The middle of the three parts of `placement`."""

    def __init__(self, limits: PoolLimits) -> None:
        super().__init__(limits)
        self.resting = 0  # inputs that wait for the time of their next attempt

    def _close(self, placed: Placed, event: Event) -> None:
        self.resting -= placed.state is State.RESTING
        placed.state = advance(placed.state, event)
        del self.inputs[placed.number]
        if placed.waits:
            self._stop_waiting(placed)

    def _end(self, placed: Placed, outcome: Outcome, reason: str, actions: Actions) -> None:
        self._close(placed, EVENT_OF[outcome])
        actions.append(End(placed.number, outcome, reason))

    def _stop_waiting(self, placed: Placed) -> None:
        self._waiting -= bool(placed.waits)
        placed.waits = 0

    def _requeue(self, placed: Placed, event: Event) -> None:
        self.resting -= event is Event.WAKE
        self._gave_up = False
        placed.step(event)
        placed.seat = placed.batch = None
        placed.asked_back = placed.held = placed.slept = False
        self._stop_waiting(placed)
        self.queue.push_first(placed)

    def _answered(self, placed: Placed, outcome: int, now: float, actions: Actions) -> None:
        """A worker's answer that is no result."""
        if placed.cancelled:
            self._end(placed, Outcome.CANCELLED, "cancelled while it ran", actions)
        elif outcome == Outcome.RAISED:
            self._failed(placed, Outcome.RAISED, "", now, actions)
        else:
            self._close(placed, EVENT_OF[outcome])
            actions.append(Pass(placed.number))

    def _failed(self, placed: Placed, outcome: Outcome, reason: str, now: float, actions: Actions) -> None:
        """An attempt failed on its own account: another one follows, or that was the outcome."""
        placed.failures += 1
        may_retry = placed.traits & RETRIES and not placed.streamed
        delay = delay_after(self.limits.retries, placed.failures) if may_retry else None
        if delay is not None:
            placed.step(Event.FAIL)
            self.resting += 1
            self._stop_waiting(placed)
            placed.slept = False
            self._set_alarm(now + delay, REST, placed)
            actions.append(Again(placed.number, outcome, reason, False))
        elif reason:
            self._end(placed, outcome, reason, actions)
        else:
            self._close(placed, EVENT_OF[outcome])
            actions.append(Pass(placed.number))

    def _wake_up(self, placed: Placed) -> None:
        """The time for the next attempt has come; its turn, too, where no worker holds on to the one before."""
        placed.slept = True
        if not placed.held:
            self._requeue(placed, Event.WAKE)

    def _release(self, placed: Placed) -> None:
        """A worker has let go of an attempt that was over already."""
        if placed.state is State.RESTING:
            placed.held = False
            if placed.slept:
                self._requeue(placed, Event.WAKE)


def lost_again(placed: Placed, reason: str) -> str:
    """Why an input is lost for good."""
    if placed.losses < MOST_LOSSES:
        return reason
    return f"its worker was lost {placed.losses + 1} times; the last time {reason}"
