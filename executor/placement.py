"""Which call goes to which worker of a pool, and how many there are. Nothing here waits, sleeps, opens or spawns.

A `Placement` is told what happens (a call came, a worker is ready, an answer arrived, time went by) and returns what
to do about it. Its driver is `dispatch`. Time comes in as seconds of a clock that never goes back.
"""

from __future__ import annotations

from collections import OrderedDict
from itertools import islice
from math import inf
from typing import NamedTuple

from attrs import frozen

from .lifecycle import EVENT_OF, Event, State, advance
from .worker.frames import Outcome

GRACE = 2.0  # what an interrupted call has to come to an end, before its worker is killed
FAST = 0.001  # inputs that take less than this are sent ahead, so that a worker never waits for the next one …
AHEAD = 0.002  # … as many as make up this much work …
MOST_AHEAD = 16
STUCK = 0.005  # … and are asked back when the one before them takes this long after all
FIRST_BACKOFF, LAST_BACKOFF = 0.5, 30.0
WAITING = -1.0  # instead of the time at which a call began: it was sent ahead and has not


@frozen(kw_only=True)
class PoolLimits:
    """`max_workers` is always a number: who makes a pool knows the machine. `slots`: calls at once in one worker."""

    max_workers: int
    min_workers: int = 0
    buffer_workers: int = 0  # idle ones to keep while there are calls
    idle: float = 60.0  # seconds that a worker is kept without work
    timeout: float = 300.0  # seconds that one attempt may take
    slots: int = 1
    single_use: bool = False
    give_up_after: int = 3  # start-ups that fail in a row before the calls that wait are given up


class Assign(NamedTuple):
    call: int
    worker: int


class Start(NamedTuple):
    worker: int


class Stop(NamedTuple):
    """Let a worker without work come to an end in good order."""

    worker: int


class Kill(NamedTuple):
    worker: int


class Interrupt(NamedTuple):
    """Tell the worker to give up a call that it has begun."""

    worker: int
    call: int


class Recall(NamedTuple):
    """Ask the worker to give back a call that it has not begun."""

    worker: int
    call: int


class End(NamedTuple):
    """The call is over, without an answer from a worker."""

    call: int
    outcome: Outcome
    reason: str


class FailStart(NamedTuple):
    """The call is over, because this worker (and those before it) could not be started: why is known to the driver."""

    call: int
    worker: int


Action = Assign | Start | Stop | Kill | Interrupt | Recall | End | FailStart
Actions = list[Action]


def _backoff(times: int) -> float:
    return float(min(FIRST_BACKOFF * 2 ** min(times - 1, 30), LAST_BACKOFF))


class _Worker:
    __slots__ = (
        *("calls", "idle_since", "interrupted", "kill_at", "let_go", "number", "ready", "recalling", "stopping"),
        "used",
    )

    def __init__(self, number: int) -> None:
        self.number = number
        self.ready = False
        self.stopping = False
        self.let_go = False  # it stops when it has answered what it runs
        self.used = False
        self.calls: dict[int, float] = {}  # sent to it and not answered → since when it runs, or WAITING
        self.recalling: dict[int, bool] = {}  # asked back → whether to cancel it
        self.interrupted: set[int] = set()  # told to give up because its caller wants no answer
        self.idle_since = 0.0
        self.kill_at = inf


class Placement:
    """The state of one pool. `wake` is when it next wants to hear `tick`."""

    def __init__(self, limits: PoolLimits) -> None:
        self.limits = limits
        self.queue: OrderedDict[int, None] = OrderedDict()
        self.states: dict[int, State] = {}  # of the calls that are not over
        self.workers: dict[int, _Worker] = {}
        self.idle: list[_Worker] = []  # the last one used is used next, so that the others can go
        self.wake = inf
        self.draining = False
        self.service = inf  # seconds that a call takes, lately
        self._where: dict[int, _Worker] = {}
        self._ahead = 0
        self._last_number = 0
        self._failures = 0
        self._useless = 0  # workers that ended by themselves before they were given anything, in a row
        self._retry_at = 0.0
        self._gave_up = False  # no worker could be started; the next call tries again

    # --- what the outside says

    def open(self, now: float) -> Actions:
        """The pool begins: the workers that it always has are started."""
        return self._scale(now, [])

    def submit(self, call: int, now: float) -> Actions:
        if self.draining:
            return [End(call, Outcome.CANCELLED, "the function is being shut down")]
        self.states[call] = State.QUEUED
        self._gave_up = False
        if self.idle:
            worker = self.idle.pop()
            actions: Actions = []
            self._assign(worker, call, now, actions)
            if len(worker.calls) < self.limits.slots:
                self.idle.append(worker)
            return self._scale(now, actions) if self.limits.buffer_workers else actions
        self.queue[call] = None
        return self._scale(now, [])

    def ready(self, number: int, now: float) -> Actions:
        worker = self.workers[number]
        worker.ready = True
        self._failures = 0
        return self._refill(worker, now, [])

    def start_failed(self, number: int, now: float) -> Actions:
        """A worker could not be started. When that goes on, the calls that wait fail with it."""
        del self.workers[number]
        self._failures += 1
        actions: Actions = []
        if self._failures >= self.limits.give_up_after and not any(worker.ready for worker in self.workers.values()):
            self._failures = 0
            self._retry_at = 0.0
            self._gave_up = True
            for call in self.queue:
                self._close(call, Event.RAISE)
                actions.append(FailStart(call, number))
            self.queue.clear()
            return actions
        self._retry_at = now + _backoff(self._failures)
        return self._scale(now, actions)

    def finished(self, number: int, call: int, outcome: int, now: float) -> Actions:
        """A worker has answered. False news (of a call that is over, or unknown) frees the worker's slot alone."""
        worker = self.workers[number]
        since = worker.calls.pop(call, None)
        if since is None:
            return []
        worker.recalling.pop(call, None)
        worker.interrupted.discard(call)
        worker.used = True
        self._useless = 0
        if call in self.states:
            if self.states[call] is State.ASSIGNED:  # it had begun before it could be given back
                self._step(call, Event.START)
            self._close(call, EVENT_OF[outcome])
        if since != WAITING:
            self._learn(now - since)
        worker.kill_at = inf
        self._start_next(worker, now)
        return self._refill(worker, now, [])

    def recalled(self, number: int, call: int, given_back: bool, now: float) -> Actions:
        """A worker's answer to `Recall`."""
        worker = self.workers[number]
        cancel = worker.recalling.pop(call, False)
        if call not in worker.calls:
            return []
        actions: Actions = []
        if not given_back:
            self._start_next(worker, now)
            return actions
        del worker.calls[call]
        self._start_next(worker, now)
        if call in self.states:
            if cancel or self.draining:
                self._close(call, Event.CANCEL)
                actions.append(End(call, Outcome.CANCELLED, "cancelled before it began"))
            else:
                self._requeue(call)
        if not worker.calls:
            self._refill(worker, now, actions)
        return self._feed_idle(now, actions)

    def lost(self, number: int, reason: str, now: float) -> Actions:
        """A worker is gone, as it was told to or by itself. What it ran is lost, what it had not begun is not."""
        worker = self.workers.pop(number)
        if worker in self.idle:
            self.idle.remove(worker)
        if not (worker.used or worker.calls or worker.stopping):
            if self._useless:  # the one before it too, so the next may as well, and so on
                self._retry_at = now + _backoff(self._useless)
            self._useless += 1
        actions: Actions = []
        waiting = []
        for call, since in worker.calls.items():
            if call not in self.states:
                continue
            if since == WAITING and not worker.recalling.get(call):
                waiting.append(call)
            else:
                cancelled = worker.recalling.get(call, False) or call in worker.interrupted
                self._close(call, Event.CANCEL if cancelled else Event.LOSE)
                actions.append(End(call, Outcome.CANCELLED if cancelled else Outcome.LOST, reason))
        for call in reversed(waiting):
            self._requeue(call)
        return self._feed_idle(now, actions)

    def cancel(self, call: int, now: float, *, force: bool) -> Actions:
        """Give up a call: at once where it waits; where it runs only with `force`, and then as its worker lets go."""
        state = self.states.get(call)
        if state is None:
            return []
        if state is State.QUEUED:
            del self.queue[call]
            self._close(call, Event.CANCEL)
            return [End(call, Outcome.CANCELLED, "cancelled before it began")]
        worker = self._where[call]
        actions: Actions = []
        if state is State.ASSIGNED:
            if call not in worker.recalling:
                actions.append(Recall(worker.number, call))
            worker.recalling[call] = True
        elif force:
            worker.interrupted.add(call)
            self._interrupt(worker, call, now, actions)
        return actions

    def let_go(self, number: int, now: float) -> Actions:
        """Give a worker no more calls; it goes when it has answered those that it runs. Others may take its place."""
        worker = self.workers.get(number)
        actions: Actions = []
        if worker is None or worker.stopping:
            return actions
        if not worker.calls:
            self._stop(worker, actions)
            return self._scale(now, actions)
        worker.stopping = worker.let_go = True
        if worker in self.idle:
            self.idle.remove(worker)
        for call, since in worker.calls.items():
            if since == WAITING and call not in worker.recalling:
                worker.recalling[call] = False
                actions.append(Recall(number, call))
        return self._scale(now, actions)

    def drain(self, now: float) -> Actions:
        """Take no more calls; let the workers go as soon as what is there is done."""
        self.draining = True
        actions: Actions = []
        for worker in tuple(self.workers.values()):
            if (worker.ready and not worker.calls and not self.queue) or (not worker.ready and not self.queue):
                self._stop(worker, actions)
        return actions

    def close(self, reason: str) -> Actions:
        """End everything now."""
        self.draining = True
        actions: Actions = [End(call, Outcome.CANCELLED, reason) for call in self.states]
        for call in tuple(self.states):
            self._close(call, Event.CANCEL)
        self.queue.clear()
        actions += [Kill(number) for number in self.workers]
        self.idle.clear()
        for worker in self.workers.values():
            worker.stopping = True
        return actions

    def tick(self, now: float) -> Actions:
        """Do what is due; afterwards `wake` says when to come again."""
        actions: Actions = []
        self.wake = inf
        for worker in tuple(self.workers.values()):
            if worker.calls:
                self._check_busy(worker, now, actions)
        self._retire(now, actions)
        return self._scale(now, actions)

    # --- how full it is

    @property
    def alive(self) -> int:
        """Workers that are there or on their way."""
        return sum(not worker.stopping for worker in self.workers.values())

    # --- the parts

    def _step(self, call: int, event: Event) -> None:
        self.states[call] = advance(self.states[call], event)

    def _close(self, call: int, event: Event) -> None:
        advance(self.states.pop(call), event)
        self._where.pop(call, None)

    def _requeue(self, call: int) -> None:
        self._step(call, Event.GIVE_BACK)
        self._where.pop(call, None)
        self.queue[call] = None
        self.queue.move_to_end(call, last=False)

    def _assign(self, worker: _Worker, call: int, now: float, actions: Actions) -> None:
        states, calls = self.states, worker.calls
        states[call] = advance(states[call], Event.ASSIGN)
        self._where[call] = worker
        if len(calls) < self.limits.slots:
            states[call] = advance(State.ASSIGNED, Event.START)
            calls[call] = now
            due = now + self.limits.timeout
        else:
            calls[call] = WAITING
            due = now + STUCK
        self.wake = min(self.wake, due)
        actions.append(Assign(call, worker.number))

    def _start_next(self, worker: _Worker, now: float) -> None:
        """What was sent ahead begins when what ran before it has ended."""
        calls = worker.calls
        if not calls:
            return
        for call in tuple(islice(calls, self.limits.slots)):
            if calls[call] == WAITING and call not in worker.recalling:
                calls[call] = now
                if self.states.get(call) is State.ASSIGNED:
                    self._step(call, Event.START)
                self.wake = min(self.wake, now + self.limits.timeout)

    def _learn(self, took: float) -> None:
        self.service = took if self.service == inf else self.service + 0.2 * (took - self.service)
        if self.service < FAST and self.limits.slots == 1 and not self.limits.single_use:
            self._ahead = min(MOST_AHEAD, int(AHEAD / max(self.service, 1e-6)))
        else:
            self._ahead = 0

    def _refill(self, worker: _Worker, now: float, actions: Actions) -> Actions:
        """Give a worker that has room what waits; without work it is idle, or goes."""
        if worker.stopping:
            if worker.let_go and not worker.calls:
                worker.let_go = False
                actions.append(Stop(worker.number))
            return actions
        if self.limits.single_use and worker.used:
            if not worker.calls:
                self._stop(worker, actions)
            return self._scale(now, actions)
        queue, calls = self.queue, worker.calls
        room = self.limits.slots + self._ahead - len(calls)
        if queue and room > self._ahead // 2:
            share = len(queue) // max(len(self.workers), 1) + 1  # leave some for the others
            for _ in range(min(room, max(share, self.limits.slots - len(calls)), len(queue))):
                self._assign(worker, queue.popitem(last=False)[0], now, actions)
        if not calls:
            if self.draining:
                self._stop(worker, actions)
                return actions
            worker.idle_since = now
        if len(calls) < self.limits.slots and worker not in self.idle:
            self.idle.append(worker)
            self.wake = min(self.wake, now + self.limits.idle)
        return actions

    def _feed_idle(self, now: float, actions: Actions) -> Actions:
        while self.queue and self.idle:
            self._refill(self.idle.pop(), now, actions)
        if self.draining and not self.queue:
            for worker in tuple(self.workers.values()):
                if not worker.calls and not worker.stopping:
                    self._stop(worker, actions)
        return self._scale(now, actions)

    def _scale(self, now: float, actions: Actions) -> Actions:
        """Start workers for what waits, sharing those that are on their way."""
        limits = self.limits
        waiting = -(-len(self.queue) // limits.slots)
        if self._gave_up or not (waiting or limits.min_workers or limits.buffer_workers):
            return actions
        if len(self.workers) >= limits.max_workers:
            return actions
        alive = starting = 0
        for worker in self.workers.values():
            alive += not worker.stopping
            starting += not worker.ready and not worker.stopping
        wanted = max(alive - starting + waiting, 0 if self.draining else limits.min_workers)
        if limits.buffer_workers and self.states:
            idle = sum(not worker.calls for worker in self.idle)
            wanted = max(wanted, alive - starting + waiting + limits.buffer_workers - idle)
        # One on its way out counts as there until it is gone, for what it holds is not free before.
        missing = min(wanted - alive, limits.max_workers - len(self.workers))
        if missing > 0 and now < self._retry_at:
            self.wake = min(self.wake, self._retry_at)
            return actions
        for _ in range(missing):
            self._last_number += 1
            self.workers[self._last_number] = _Worker(self._last_number)
            actions.append(Start(self._last_number))
        return actions

    def _stop(self, worker: _Worker, actions: Actions) -> None:
        worker.stopping = True
        if worker in self.idle:
            self.idle.remove(worker)
        actions.append(Stop(worker.number))

    def _retire(self, now: float, actions: Actions) -> None:
        keep = max(self.limits.min_workers, self.limits.buffer_workers if self.states else 0)
        for worker in tuple(self.idle):
            if worker.calls:
                continue
            due = worker.idle_since + self.limits.idle
            if due > now:
                self.wake = min(self.wake, due)
            elif self.alive > keep:
                self._stop(worker, actions)

    def _check_busy(self, worker: _Worker, now: float, actions: Actions) -> None:
        if worker.kill_at <= now:
            worker.kill_at = inf
            worker.stopping = True
            if worker in self.idle:
                self.idle.remove(worker)
            actions.append(Kill(worker.number))
            return
        self.wake = min(self.wake, worker.kill_at)
        oldest = inf
        for call, since in worker.calls.items():  # what runs comes before what waits
            if since != WAITING:
                oldest = min(oldest, since)
                self._check_time(worker, call, since + self.limits.timeout, now, actions)
            elif call not in worker.recalling:
                if oldest + STUCK <= now:
                    worker.recalling[call] = False
                    actions.append(Recall(worker.number, call))
                else:
                    self.wake = min(self.wake, oldest + STUCK)
        if worker.recalling and oldest + STUCK <= now:
            self._learn(now - oldest)

    def _check_time(self, worker: _Worker, call: int, due: float, now: float, actions: Actions) -> None:
        if call not in self.states:
            return  # it is over; only its worker does not know yet
        if due <= now:
            self._close(call, Event.TIME_OUT)
            actions.append(End(call, Outcome.TIMED_OUT, f"it took longer than {self.limits.timeout:g} s"))
            self._interrupt(worker, call, now, actions)
        else:
            self.wake = min(self.wake, due)

    def _interrupt(self, worker: _Worker, call: int, now: float, actions: Actions) -> None:
        if worker.kill_at == inf:
            worker.kill_at = now + GRACE
            self.wake = min(self.wake, worker.kill_at)
        actions.append(Interrupt(worker.number, call))
