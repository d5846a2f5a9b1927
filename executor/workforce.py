"""How many workers a pool has: when they start, and when they go. Nothing here waits, sleeps, opens or spawns."""

from __future__ import annotations

from heapq import heapify, heappush
from itertools import count
from math import inf

from .actions import Actions, Kill, Recall, Start, Stop
from .lifecycle import State
from .scaling import LAST_BACKOFF, MOST_WORKERS, PoolLimits, backoff, ceiling, wanted
from .seats import WAITING, Placed, Queue, Seat, Seats

FEW = 256  # alarms that are not worth looking through


class Workforce:
    """The lowest of the three parts of `placement`. `wake` is when it next wants to hear `tick`."""

    def __init__(self, limits: PoolLimits) -> None:
        self.limits = limits
        self.queue = Queue()
        self.inputs: dict[int, Placed] = {}  # that are not over
        self.seats = Seats(limits.slots, limits.target or limits.slots)
        self.wake = inf
        self._alarms: list[tuple[float, int, int, Seat | Placed]] = []  # a heap; of each kind one a worker
        self._tie = count()
        self._tidy_at = FEW
        self._waiting = 0  # inputs that run and wait for others
        self._failures = 0  # starts that failed, in a row
        self._useless = 0  # workers that ended by themselves before they answered anything, in a row
        self._retry_at = 0.0
        self._gave_up = False  # no worker could be started; the next input tries again

    @property
    def workers(self) -> dict[int, Seat]:
        return self.seats.by_number

    @property
    def alive(self) -> int:
        """Workers that are there or on their way."""
        return self.seats.alive

    @property
    def is_useless(self) -> bool:
        """Whether the last workers, more than one, ended by themselves before they answered anything."""
        return self._useless > 1

    # --- the parts

    def _scale(self, now: float, actions: Actions) -> Actions:
        """Start the workers that are missing."""
        limits, seats = self.limits, self.seats
        # One on its way out counts as there until it is gone, for what it holds is not free before.
        most = ceiling(limits, self._waiting) - len(seats.by_number)
        if most <= 0 or self._gave_up:
            return actions
        queued = len(self.queue)
        if not (queued or limits.min_workers or limits.buffer_workers):
            return actions
        idle = len(seats.idle)
        room = (idle * seats.target + len(seats.room)) * (limits.batch or 1)
        number = wanted(limits, queued=queued, room=room, ready=seats.ready, idle=idle, active=bool(self.inputs))
        missing = min(number - seats.alive, most, MOST_WORKERS - len(seats.by_number))
        if missing <= 0:
            return actions
        if now < self._retry_at:
            self.wake = min(self.wake, self._retry_at)
            return actions
        if self._failures or self._useless > 1:
            missing = 0 if seats.starting else 1  # the next one shows whether there is any use in more
        actions += [Start(seats.start().number) for _ in range(missing)]
        return actions

    def _dismiss(self, seat: Seat, actions: Actions) -> None:
        """Give a worker no more; it goes at once, or when it has answered what it runs."""
        self.seats.retire(seat)
        if not seat.calls:
            actions.append(Stop(seat.number))
            return
        seat.let_go = True
        for placed in reversed(tuple(seat.calls.values())):
            if placed.since == WAITING:
                self._ask_back(placed, actions)

    def _kill(self, seat: Seat, actions: Actions) -> None:
        self.seats.retire(seat)
        if not seat.killed:
            seat.killed = True
            actions.append(Kill(seat.number))

    def _retire(self, now: float, actions: Actions) -> None:
        """Let the workers go that have had nothing to do for long."""
        seats, limits = self.seats, self.limits
        keep = limits.buffer_workers if self.inputs else 0
        while len(seats.idle) > keep and seats.alive > limits.min_workers:
            seat = next(iter(seats.idle))
            due = seat.idle_since + limits.idle
            if due > now:
                self.wake = min(self.wake, due)
                return
            self._dismiss(seat, actions)

    def _note_useless(self, seat: Seat, now: float) -> None:
        """One ended by itself before it answered anything: where that goes on, the next ones come ever later."""
        if seat.ready and now - seat.ready_at >= LAST_BACKOFF:
            self._useless = 0
        if self._useless:
            self._retry_at = max(self._retry_at, now + backoff(self._useless))
        self._useless += 1

    def _ask_back(self, placed: Placed, actions: Actions) -> None:
        assert placed.seat is not None, "it was sent to one"
        if not placed.asked_back:
            placed.asked_back = True
            actions.append(Recall(placed.seat.number, placed.number))

    def _set_alarm(self, due: float, kind: int, subject: Seat | Placed) -> None:
        if isinstance(subject, Seat):
            subject.alarms |= kind
        heappush(self._alarms, (due, next(self._tie), kind, subject))
        self.wake = min(self.wake, due)
        if len(self._alarms) > self._tidy_at:
            self._tidy_alarms()

    def _tidy_alarms(self) -> None:
        """Drop those of workers that are gone, and of inputs that don't rest any more."""
        self._alarms = [alarm for alarm in self._alarms if self._is_meant(alarm[3])]
        heapify(self._alarms)
        self._tidy_at = max(FEW, 2 * len(self._alarms))

    def _is_meant(self, subject: Seat | Placed) -> bool:
        if isinstance(subject, Placed):
            return subject.state is State.RESTING
        return self.seats.by_number.get(subject.number) is subject
