"""Which input goes to which worker of a pool, and how many there are. Nothing here waits, sleeps, opens or spawns.

A `Placement` is told what happens (an input came, a worker is ready, an answer arrived, time went by) and returns what
to do about it. Its driver is `dispatch`. Time comes in as seconds of a clock that never goes back. Nothing that happens
for every input takes longer for more workers or more inputs.
"""

from __future__ import annotations

from collections.abc import Set
from heapq import heappop
from math import inf

from .actions import Actions, Again, Assign, AssignBatch, Back, End, FailStart, Interrupt, Stop
from .attempts import Attempts, lost_again
from .lifecycle import OPEN, Event, State, advance
from .ports import Exit
from .retrying import MOST_LOSSES, Blame, blame
from .scaling import PoolLimits, backoff, ceiling, of_the_end
from .seats import THREAD, WAITING, Batch, Placed, Seat
from .worker.frames import Outcome

GRACE = 2.0  # what an interrupted input has to come to an end, before its worker is killed
FAST = 0.001  # inputs that take less than this are sent ahead, so that a worker never waits for the next one …
AHEAD = 0.002  # … as many as make up this much work …
MOST_AHEAD = 16
STUCK = 0.005  # … and are asked back when the one before them takes this long after all
_SENT = advance(State.QUEUED, Event.ASSIGN)  # looked up once: these are the steps of every input
_BEGUN = advance(_SENT, Event.START)
_RUNNING, _ASSIGNED, _RESTING = State.RUNNING, State.ASSIGNED, State.RESTING
_RETURNED = int(Outcome.RETURNED)
_TIMEOUT, _STUCK, _KILL = 1, 2, 4  # kinds of alarms; see also REST


class Placement(Attempts):
    """The state of one pool. `wake` is when it next wants to hear `tick`."""

    def __init__(self, limits: PoolLimits) -> None:
        super().__init__(limits)
        self.draining = False
        self.service = inf  # seconds that an input takes, lately
        self._one_by_one = limits.slots == 1 and not limits.batch
        self._ahead = 0

    # --- what the outside says: the pool

    def open(self, now: float) -> Actions:
        """The pool begins: the workers that it always has are started."""
        return self._scale(now, [])

    def rescale(self, limits: PoolLimits, now: float) -> Actions:
        """Other numbers of workers, and other times for them to stay; the rest of the limits is as it was."""
        if self.draining:
            limits = of_the_end(limits)
        self.limits = limits
        actions: Actions = []
        seats = self.seats
        excess = seats.alive - ceiling(self.limits, self._waiting)
        if excess > 0:
            busy = [seat for seat in seats.by_number.values() if seat.calls and not seat.stopping]
            for seat in [*seats.starting, *seats.idle, *busy][:excess]:
                self._dismiss(seat, actions)
        self._retire(now, actions)
        return self._feed(now, actions)

    def drain(self, now: float) -> Actions:
        """Take no more inputs; let the workers go as soon as what is there is done."""
        self.draining = True
        self.limits = of_the_end(self.limits)
        return self._feed(now, [])

    def close(self, reason: str) -> Actions:
        """End everything now."""
        self.draining = True
        self.limits = of_the_end(self.limits)
        actions: Actions = []
        for placed in tuple(self.inputs.values()):
            self._end(placed, Outcome.CANCELLED, reason, actions)
        self.queue.clear()
        for seat in self.seats.by_number.values():
            self._kill(seat, actions)
        return actions

    def tick(self, now: float) -> Actions:
        """Do what is due; afterwards `wake` says when to come again."""
        actions: Actions = []
        self.wake = inf
        while self._alarms and self._alarms[0][0] <= now:
            _, _, kind, subject = heappop(self._alarms)
            if not self._is_meant(subject):
                continue
            if isinstance(subject, Placed):
                self._wake_up(subject)
            else:
                subject.alarms &= ~kind
                _ALARMS[kind](self, subject, now, actions)
        self._feed(now, actions)
        self._retire(now, actions)
        if self._alarms:
            self.wake = min(self.wake, self._alarms[0][0])
        return actions

    # --- what the outside says: inputs

    def submit(
        self, number: int, now: float, traits: int = 0, depth: int = 0, failures: int = 0, losses: int = 0
    ) -> Actions:
        if self.draining:
            return [End(number, Outcome.CANCELLED, "the function is being shut down")]
        placed = self.inputs[number] = Placed(number, traits, depth, failures, losses, now)
        self._gave_up = False
        if self._one_by_one and self.seats.idle:
            actions: Actions = []
            self._begin(self.seats.idle.popitem()[0], placed, now, actions)
            return self._scale(now, actions) if self.limits.buffer_workers else actions
        self.queue.push(placed)
        return self._scale(now, []) if self._one_by_one else self._feed(now, [])

    def cancel(self, number: int, now: float, *, force: bool, terminate: bool = False) -> Actions:
        """Give up an input: at once where it waits; where it runs only with `force`, and then as its worker lets go.
        `terminate`: the worker is not asked to, but killed."""
        placed = self.inputs.get(number)
        actions: Actions = []
        if placed is None:
            return actions
        state, seat = placed.state, placed.seat
        if state is State.QUEUED or state is _RESTING:
            if state is State.QUEUED:
                self.queue.remove(placed)
            self._end(placed, Outcome.CANCELLED, "cancelled before it began", actions)
            return actions
        assert seat is not None, "it was sent to one"
        if state is _ASSIGNED:
            placed.cancelled = True
            self._ask_back(placed, actions)
        elif force and not terminate and placed.batch is not None and _others_open(placed):
            # The others of its batch go on; what it comes to is not waited for.
            self._end(placed, Outcome.CANCELLED, "cancelled while it ran", actions)
        elif force:
            placed.cancelled = True
            self._interrupt(placed, now, actions)
        if terminate and force:
            self._kill(seat, actions)
        return actions

    def streams(self, number: int) -> None:
        """An item of a generator was passed on: this attempt is its last."""
        placed = self.inputs.get(number)
        if placed is not None:
            placed.streamed = True

    def waits(self, number: int, delta: int, now: float) -> Actions:
        """An input that runs waits for so many more calls that it made, or (negative) for that many fewer."""
        placed = self.inputs.get(number)
        if placed is None:
            return []
        before, placed.waits = placed.waits, max(0, placed.waits + delta)
        self._waiting += bool(placed.waits) - bool(before)
        return self._scale(now, []) if placed.waits and not before else []

    # --- what the outside says: workers

    def ready(self, worker: int, now: float) -> Actions:
        seat = self.seats.make_ready(worker)
        seat.ready_at = now
        self._failures = 0
        return self._feed(now, self._refill(seat, now, []))

    def start_failed(self, worker: int, now: float) -> Actions:
        """A worker could not be started. When that goes on, the inputs that wait fail with it."""
        self.seats.remove(worker)
        if now >= self._retry_at:  # several that were started together fail together: that is once
            self._failures += 1
        limit = self.limits.give_up_after
        if limit is not None and self._failures >= limit and not self.seats.ready:
            self._failures = 0
            self._retry_at = 0.0
            self._gave_up = True
            actions: Actions = [FailStart(number, worker) for number in self.queue]
            for number in tuple(self.queue):
                self._close(self.inputs[number], Event.RAISE)
            self.queue.clear()
            return actions
        self._retry_at = max(self._retry_at, now + backoff(self._failures))
        return self._feed(now, [])

    def finished(self, worker: int, number: int, outcome: int, now: float) -> Actions:
        """A worker has answered. False news (of an input that is over, or unknown) frees the worker's slot alone."""
        seat = self.seats.by_number[worker]
        placed = seat.calls.pop(number, None)
        actions: Actions = []
        if placed is None:
            return actions
        seat.used = True
        self._useless = 0
        if seat.doomed:
            seat.doomed.pop(number, None)
        state, since, batch = placed.state, placed.since, placed.batch
        if batch is None:
            seat.units -= 1
        else:
            batch.answered += 1
            seat.units -= batch.answered == len(batch.members)
        if state is _ASSIGNED:  # it had begun before it could be given back
            placed.step(Event.START)
            state = _RUNNING
        if state is not _RUNNING:
            self._release(placed)
        elif outcome == _RETURNED:
            self._close(placed, Event.RETURN)
        else:
            self._answered(placed, outcome, now, actions)
        if since != WAITING and self._one_by_one:
            self._learn(now - since)
            self._start_next(seat, now)
        self._refill(seat, now, actions)
        return actions if state is _RUNNING and self._one_by_one else self._feed(now, actions)

    def recalled(self, worker: int, number: int, given_back: bool, now: float) -> Actions:
        """A worker's answer to `Recall`."""
        seat = self.seats.by_number[worker]
        placed = seat.calls.get(number)
        actions: Actions = []
        if placed is None or not placed.asked_back:
            return actions
        placed.asked_back = False
        if not given_back:
            self._start_next(seat, now)
            return actions
        del seat.calls[number]
        seat.units -= 1
        self._start_next(seat, now)
        if placed.state in OPEN:
            if placed.cancelled:
                self._end(placed, Outcome.CANCELLED, "cancelled before it began", actions)
            else:
                actions.append(Back(number))
                self._requeue(placed, Event.GIVE_BACK)
        if not seat.calls:
            self._refill(seat, now, actions)
        return self._feed(now, actions)

    def let_go(self, worker: int, now: float, *, kill: bool = False) -> Actions:
        """Give a worker no more inputs; it goes when it has answered those that it runs, or now. Others may take its
        place."""
        seat = self.seats.by_number.get(worker)
        actions: Actions = []
        if seat is not None and kill:
            self._kill(seat, actions)
        elif seat is not None and not seat.stopping:
            self._dismiss(seat, actions)
        return self._scale(now, actions)

    def lost(self, worker: int, end: Exit | None, reason: str, now: float, unsent: Set[int] = frozenset()) -> Actions:
        """A worker is gone, as it was told to or by itself. What it ran is tried again, or lost with it; what it had
        not begun, and the inputs in `unsent` (it never got them), wait again."""
        seat = self.seats.remove(worker)
        begun = sum(placed.since != WAITING and number not in unsent for number, placed in seat.calls.items())
        fault = blame(end, told=seat.killed, running=begun)
        if not (seat.stopping or seat.used or begun):
            self._note_useless(seat, now)
        actions: Actions = []
        back: list[tuple[Placed, Event]] = []
        for number, placed in seat.calls.items():
            if placed.state is not _RUNNING and placed.state is not _ASSIGNED:
                self._release(placed)
            elif placed.cancelled:
                self._end(placed, Outcome.CANCELLED, reason, actions)
            elif placed.since == WAITING or number in unsent:
                actions.append(Back(number))
                back.append((placed, Event.GIVE_BACK))
            elif fault is Blame.INPUT:
                self._failed(placed, Outcome.LOST, reason, now, actions)
            elif placed.streamed or placed.losses >= MOST_LOSSES:
                self._end(placed, Outcome.LOST, lost_again(placed, reason), actions)
            else:
                placed.losses += 1
                actions.append(Again(number, Outcome.LOST, reason, True))
                back.append((placed, Event.LOSE_WORKER))
        for placed, event in reversed(back):
            self._requeue(placed, event)
        return self._feed(now, actions)

    # --- the parts: inputs and workers

    def _begin(self, seat: Seat, placed: Placed, now: float, actions: Actions) -> None:
        number = placed.number
        placed.seat = seat
        if seat.units < self.limits.slots:
            placed.state = _BEGUN
            placed.since = now
            if not seat.alarms & _TIMEOUT:
                self._set_alarm(now + self.limits.timeout, _TIMEOUT, seat)
        else:
            placed.state = _SENT
            placed.since = WAITING
            if not seat.alarms & _STUCK:
                self._set_alarm(now + STUCK, _STUCK, seat)
        seat.units += 1
        seat.calls[number] = placed
        actions.append(Assign(number, seat.number))

    def _begin_batch(self, seat: Seat, now: float, actions: Actions) -> None:
        queue = self.queue
        members = tuple(queue.pop() for _ in range(min(self.limits.batch, len(queue))))
        batch = Batch(members)
        for placed in members:
            placed.seat, placed.batch, placed.state, placed.since = seat, batch, _BEGUN, now
            seat.calls[placed.number] = placed
        seat.units += 1
        if not seat.alarms & _TIMEOUT:
            self._set_alarm(now + self.limits.timeout, _TIMEOUT, seat)
        actions.append(AssignBatch(tuple(placed.number for placed in members), seat.number))

    def _start_next(self, seat: Seat, now: float) -> None:
        """What was sent ahead begins when what ran before it has ended."""
        if not seat.calls:
            return
        placed = next(iter(seat.calls.values()))
        if placed.since == WAITING and not placed.asked_back:
            placed.since = now
            if placed.state is _ASSIGNED:
                placed.state = _BEGUN
            if not seat.alarms & _TIMEOUT:
                self._set_alarm(now + self.limits.timeout, _TIMEOUT, seat)
            if len(seat.calls) > 1 and not seat.alarms & _STUCK:
                self._set_alarm(now + STUCK, _STUCK, seat)

    def _learn(self, took: float) -> None:
        self.service = took if self.service == inf else self.service + 0.2 * (took - self.service)
        if self.service < FAST and not self.limits.single_use:
            self._ahead = min(MOST_AHEAD, int(AHEAD / max(self.service, 1e-6)))
        else:
            self._ahead = 0

    def _feed(self, now: float, actions: Actions) -> Actions:
        """Give what waits to the workers that have room for it."""
        queue, seats = self.queue, self.seats
        while queue and self._is_ripe(now):
            seat = seats.take(beyond=seats.slots > seats.target and self._overflows(now))
            if seat is None:
                break
            self._give(seat, now, actions)
            seats.file(seat)
        if self.draining and not queue:
            for seat in (*seats.starting, *seats.idle):
                self._dismiss(seat, actions)
        return self._scale(now, actions)

    def _is_ripe(self, now: float) -> bool:
        """Whether what waits is to be begun; a batch waits for others."""
        limits = self.limits
        if not limits.linger or len(self.queue) >= limits.batch or self.draining:
            return True
        due = self.queue.first().queued + limits.linger
        if due > now:
            self.wake = min(self.wake, due)
        return due <= now

    def _overflows(self, now: float) -> bool:
        """Whether more waits than what the workers on their way are there for, and no others can be started."""
        full = len(self.seats.by_number) >= ceiling(self.limits, self._waiting) or now < self._retry_at
        return full and len(self.queue) > len(self.seats.starting) * self.seats.target * (self.limits.batch or 1)

    def _give(self, seat: Seat, now: float, actions: Actions) -> None:
        """Send a worker what it has room for, but leave some for the others."""
        queue, seats, units = self.queue, self.seats, seat.units
        if self.limits.batch:
            self._begin_batch(seat, now, actions)
            return
        room = seats.target + self._ahead - units
        number = 0
        if room > self._ahead // 2:
            waiting = len(queue)
            share = waiting // len(seats.by_number) + 1
            number = min(room, max(share, seats.target - units), waiting)
        elif units < seats.slots:
            number = 1
        for _ in range(number):
            self._begin(seat, queue.pop(), now, actions)

    def _refill(self, seat: Seat, now: float, actions: Actions) -> Actions:
        """Give a worker that has room what waits; without work it is idle, or goes."""
        if seat.stopping:
            if seat.let_go and not seat.calls:
                seat.let_go = False
                actions.append(Stop(seat.number))
            return actions
        if self.limits.single_use and seat.used:
            if not seat.calls:
                self._dismiss(seat, actions)
            return self._scale(now, actions)
        seats, queue = self.seats, self.queue
        if queue and (seat.units < seats.target or self._one_by_one) and self._is_ripe(now):
            self._give(seat, now, actions)
        if not seat.calls:
            if self.draining and not queue:
                self._dismiss(seat, actions)
                return actions
            seat.idle_since = now
            self.wake = min(self.wake, now + self.limits.idle)
        elif self._one_by_one:
            return actions  # it has room for nothing, and belongs nowhere
        seats.file(seat)
        return actions

    def _interrupt(self, placed: Placed, now: float, actions: Actions) -> None:
        """Have a worker give up what it runs."""
        seat = placed.seat
        assert seat is not None, "it was sent to one"
        if placed.traits & THREAD and self.limits.slots > 1:
            self._kill(seat, actions)
            return
        members = (placed,) if placed.batch is None else placed.batch.members
        if any(member.number in seat.doomed for member in members):
            return
        seat.doomed[placed.number] = now + GRACE
        if not seat.alarms & _KILL:
            self._set_alarm(now + GRACE, _KILL, seat)
        actions.append(Interrupt(seat.number, placed.number))

    # --- the parts: time

    def _check_time(self, seat: Seat, now: float, actions: Actions) -> None:
        """End the attempts that have taken too long."""
        timeout = self.limits.timeout
        next_due = inf
        for placed in tuple(seat.calls.values()):
            if placed.state is not _RUNNING or placed.cancelled:
                continue
            due = placed.since + timeout
            if due > now:
                next_due = min(next_due, due)
                continue
            self._interrupt(placed, now, actions)
            self._failed(placed, Outcome.TIMED_OUT, f"it took longer than {timeout:g} s", now, actions)
            placed.held = placed.state is _RESTING
        if next_due < inf:
            self._set_alarm(next_due, _TIMEOUT, seat)

    def _check_stuck(self, seat: Seat, now: float, actions: Actions) -> None:
        """Ask back what waits behind an input that takes long after all."""
        first = next(iter(seat.calls.values()), None)
        if first is None or first.since == WAITING:
            return
        ahead = [placed for placed in seat.calls.values() if placed.since == WAITING and not placed.asked_back]
        if not ahead:
            return
        if first.since + STUCK > now:
            self._set_alarm(first.since + STUCK, _STUCK, seat)
            return
        for placed in reversed(ahead):  # each that comes back is the first in the queue
            self._ask_back(placed, actions)
        self._learn(now - first.since)

    def _check_doomed(self, seat: Seat, now: float, actions: Actions) -> None:
        due = next(iter(seat.doomed.values()), None)
        if due is not None and due <= now:
            self._kill(seat, actions)
        elif due is not None:
            self._set_alarm(due, _KILL, seat)


def _others_open(placed: Placed) -> bool:
    """Whether somebody waits for the rest of its batch."""
    assert placed.batch is not None, "it is in one"
    return any(member.state is _RUNNING and member is not placed for member in placed.batch.members)


_ALARMS = {_TIMEOUT: Placement._check_time, _STUCK: Placement._check_stuck, _KILL: Placement._check_doomed}
