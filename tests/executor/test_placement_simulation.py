"""Whole days of a pool on a virtual clock: nothing starves, nothing thrashes, the limits hold at every moment."""

from __future__ import annotations

import gc
from collections import deque
from collections.abc import Callable, Iterable
from heapq import heappop, heappush
from itertools import count
from random import Random

import pytest

from slipway.dsl.declaration import Retries
from slipway.executor.actions import (
    Actions,
    Again,
    Assign,
    AssignBatch,
    Back,
    End,
    Interrupt,
    Kill,
    Pass,
    Recall,
    Start,
    Stop,
)
from slipway.executor.placement import MOST_AHEAD, Placement
from slipway.executor.ports import Exit
from slipway.executor.scaling import PoolLimits
from slipway.executor.seats import RETRIES
from slipway.executor.worker.frames import Outcome

KILLED = Exit(code=None, signal=9)
LEAVING = 0.05  # seconds that a worker takes to end


class Simulation:
    """Workers that start, run inputs in order, die and fail, and count what was asked of them."""

    def __init__(
        self,
        limits: PoolLimits,
        dice: Random,
        *,
        lasts: Callable[[Random], float],
        starting: float = 0.5,
        start_fails: float = 0.0,
        dies: float = 0.0,
        raises: float = 0.0,
    ) -> None:
        self.limits = limits
        self.dice = dice
        self.lasts = lasts
        self.starting = starting
        self.start_fails = start_fails
        self.dies = dies
        self.raises = raises
        self.placement = Placement(limits)
        self.now = 0.0
        self.events: list[tuple[float, int, Callable[[int, int], None], int, int]] = []
        self.tie = count()
        self.there: set[int] = set()
        self.workers: dict[int, dict[int, int]] = {}  # worker → what it runs → which of its events is meant
        self.ahead: dict[int, deque[int]] = {}
        self.submitted_at: list[float] = []
        self.sent: list[bool] = []  # to a worker, at least once
        self.first_begun: list[float | None] = []
        self.outcomes: list[object] = []
        self.owner: dict[int, int] = {}  # whose answer counts
        self.done = 0
        self.starts = self.ends = self.failed_starts = self.deaths = self.most_there = 0
        self.oldest = 0  # all inputs before this one were sent
        self.overtaken = 0  # by how many an input was, at the most
        self.area = 0.0  # worker seconds
        self._area_since = 0.0

    # --- time

    def run(self, arrivals: Iterable[float]) -> None:
        coming = iter(arrivals)
        following = next(coming, None)
        events, placement = self.events, self.placement
        self.act(placement.open(0.0))
        while True:
            due = events[0][0] if events else None
            if following is not None and (due is None or following <= due) and following <= placement.wake:
                self.now = following
                self.submit()
                following = next(coming, None)
            elif due is not None and due <= placement.wake:
                self.now, _, happens, worker, number = heappop(events)
                happens(worker, number)
            elif following is None and self.done == len(self.outcomes):
                return
            else:
                self.now = placement.wake
                assert self.now < 1e9, "something waits, and nothing will come of it"
                self.act(placement.tick(self.now))

    def later(self, seconds: float, happens: Callable[[int, int], None], worker: int, number: int = 0) -> int:
        tie = next(self.tie)
        heappush(self.events, (self.now + seconds, tie, happens, worker, number))
        return tie

    def submit(self) -> None:
        number = len(self.outcomes)
        self.submitted_at.append(self.now)
        self.sent.append(False)
        self.first_begun.append(None)
        self.outcomes.append(None)
        self.act(self.placement.submit(number, self.now, RETRIES))

    # --- what placement says

    def act(self, actions: Actions) -> None:
        for action in actions:
            if type(action) is Assign:
                self.assign(action.number, action.worker)
            else:
                self.do(action)

    def do(self, action: object) -> None:
        match action:
            case AssignBatch(numbers, worker):
                for number in numbers:
                    self.assign(number, worker)
            case Start(worker):
                self.count_area()
                self.starts += 1
                self.there.add(worker)
                self.most_there = max(self.most_there, len(self.there))
                self.later(self.starting * self.dice.uniform(0.5, 1.5), self.started, worker)
            case Stop(worker):
                self.later(LEAVING, self.gone, worker)
            case Kill(worker):
                self.later(LEAVING, self.gone, worker)
            case Interrupt(worker, number):
                self.workers[worker][number] = self.later(0.1, self.finish, worker, number)
            case Recall(worker, number):
                self.later(0.0, self.recalled, worker, number)
            case Pass(number):
                self.over(number, Outcome.RAISED)
            case End(number, outcome, _):
                self.over(number, outcome)
            case Again(number) | Back(number):
                self.owner.pop(number, None)
            case _:
                raise AssertionError(action)

    def assign(self, number: int, worker: int) -> None:
        assert self.outcomes[number] is None, "it is over"
        self.owner[number] = worker
        self.note_order(number)
        running = self.workers[worker]
        if self.limits.batch or len(running) < self.limits.slots:
            self.begin(worker, number)
        else:
            self.ahead[worker].append(number)

    def note_order(self, number: int) -> None:
        if not self.sent[number]:
            self.sent[number] = True
            while self.oldest < len(self.sent) and self.sent[self.oldest]:
                self.oldest += 1
            self.overtaken = max(self.overtaken, number - self.oldest)

    def begin(self, worker: int, number: int) -> None:
        if self.first_begun[number] is None:
            self.first_begun[number] = self.now
        self.workers[worker][number] = self.later(self.lasts(self.dice), self.finish, worker, number)

    def over(self, number: int, outcome: object) -> None:
        assert self.outcomes[number] is None
        self.outcomes[number] = outcome
        self.owner.pop(number, None)
        self.done += 1

    # --- what happens

    def started(self, worker: int, _: int) -> None:
        if worker not in self.there:
            return
        if self.dice.random() < self.start_fails:
            self.count_area()
            self.failed_starts += 1
            self.there.discard(worker)
            self.act(self.placement.start_failed(worker, self.now))
        else:
            self.workers[worker] = {}
            self.ahead[worker] = deque()
            self.act(self.placement.ready(worker, self.now))

    def finish(self, worker: int, number: int) -> None:
        running = self.workers.get(worker)
        if running is None or number not in running:
            return
        if self.dice.random() < self.dies:
            self.deaths += 1
            self.gone(worker, 0)
            return
        del running[number]
        ahead = self.ahead[worker]
        if ahead:
            self.begin(worker, ahead.popleft())
        outcome = Outcome.RAISED if self.dice.random() < self.raises else Outcome.RETURNED
        if outcome is Outcome.RETURNED and self.owner.get(number) == worker:
            self.over(number, outcome)
        self.act(self.placement.finished(worker, number, outcome, self.now))

    def recalled(self, worker: int, number: int) -> None:
        if worker in self.workers:
            waits = number in self.ahead[worker]
            if waits:
                self.ahead[worker].remove(number)
            self.act(self.placement.recalled(worker, number, waits, self.now))

    def gone(self, worker: int, _: int) -> None:
        if worker in self.there:
            self.count_area()
            self.ends += 1
            self.there.discard(worker)
            self.workers.pop(worker, None)
            self.ahead.pop(worker, None)
            self.act(self.placement.lost(worker, KILLED, "gone", self.now))

    def count_area(self) -> None:
        self.area += len(self.there) * (self.now - self._area_since)
        self._area_since = self.now

    # --- what came of it

    def check(self) -> None:
        """What holds for every run."""
        assert None not in self.outcomes
        assert self.most_there <= self.limits.max_workers
        assert not self.placement.inputs and not self.placement.queue
        # First come, first served, but for what was sent ahead to workers and not begun.
        assert self.overtaken <= self.most_there * self.limits.slots * max(MOST_AHEAD, self.limits.batch) + 1

    def waits(self, *, since: float = 0.0) -> list[float]:
        """How long the inputs waited that came from then on."""
        pairs = zip(self.submitted_at, self.first_begun, strict=True)
        return sorted((begun or 0.0) - submitted for submitted, begun in pairs if submitted >= since)


def long_tail(dice: Random) -> float:
    """Half of them take less than 0.1 s, one in a hundred more than 5 s."""
    return min(0.05 * dice.paretovariate(0.85), 120.0)


def burst(number: int) -> Iterable[float]:
    return (0.0 for _ in range(number))


def steady(number: int, rate: float, dice: Random) -> Iterable[float]:
    now = 0.0
    for _ in range(number):
        now += dice.expovariate(rate)
        yield now


def on_and_off(number: int, each: int, period: float) -> Iterable[float]:
    return ((index // each) * period for index in range(number))


# --- the whole size -----------------------------------------------------------------------------------


def test_a_million_inputs_on_ten_thousand_workers_that_die_and_fail_to_start() -> None:
    limits = PoolLimits(max_workers=10_000, timeout=100.0, retries=Retries(max_retries=3), give_up_after=None)
    simulation = Simulation(limits, Random(7), lasts=long_tail, starting=2.0, start_fails=0.02, dies=0.002, raises=0.01)
    gc.collect()
    gc.freeze()  # else the collector looks through millions of values again and again
    try:
        simulation.run(burst(1_000_000))
    finally:
        gc.unfreeze()
    simulation.check()
    assert simulation.most_there == 10_000
    # As many starts as there are workers to have, and one more for each that died, failed, or took too long.
    extra = simulation.deaths + simulation.failed_starts + simulation.outcomes.count(Outcome.TIMED_OUT)
    assert simulation.starts <= 10_000 + extra + simulation.ends - simulation.deaths
    assert simulation.outcomes.count(Outcome.RETURNED) > 990_000


# --- ways in which inputs come ------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_a_steady_load_has_as_many_workers_as_it_needs_and_keeps_them(seed: int) -> None:
    dice = Random(seed)
    limits = PoolLimits(max_workers=1000, idle=10.0)
    simulation = Simulation(limits, dice, lasts=lambda dice: dice.uniform(0.5, 1.5))
    simulation.run(steady(40_000, 100.0, dice))  # a hundred are busy on average
    simulation.check()
    assert 100 <= simulation.most_there <= 200
    assert simulation.starts <= 400, "a worker takes a hundred inputs, on average, before it goes"
    waits = simulation.waits()
    assert waits[int(len(waits) * 0.99)] <= 1.0, "hardly one waits for a worker to start"


def test_a_load_that_comes_and_goes_starts_workers_once_where_they_are_kept_for_as_long() -> None:
    limits = PoolLimits(max_workers=500, idle=60.0)
    simulation = Simulation(limits, Random(1), lasts=lambda dice: 1.0)
    simulation.run(on_and_off(20_000, 200, 30.0))
    simulation.check()
    assert simulation.starts == simulation.most_there == 200


def test_a_load_that_comes_and_goes_has_no_workers_between_where_they_are_not_kept() -> None:
    limits = PoolLimits(max_workers=500, idle=2.0)
    simulation = Simulation(limits, Random(1), lasts=lambda dice: 1.0)
    simulation.run(on_and_off(4_000, 200, 30.0))
    simulation.check()
    assert simulation.starts <= 20 * 200
    assert simulation.area <= 20 * 200 * 5.0, "about four seconds of each: a start, an input, the window, its end"


def test_a_burst_that_few_workers_can_take_is_served_in_its_order() -> None:
    simulation = Simulation(PoolLimits(max_workers=8), Random(3), lasts=long_tail)
    simulation.run(burst(20_000))
    simulation.check()
    assert simulation.starts == 8
    assert simulation.overtaken <= 8 + 8 * MOST_AHEAD


def test_inputs_that_take_next_to_nothing_are_sent_ahead_and_none_is_stuck_behind_a_long_one() -> None:
    simulation = Simulation(
        PoolLimits(max_workers=8), Random(5), lasts=lambda dice: 2.0 if dice.random() < 0.0002 else 0.0002
    )
    simulation.run(steady(50_000, 8000.0, Random(5)))
    simulation.check()
    waits = simulation.waits(since=2.0)  # when all workers are there
    assert waits[int(len(waits) * 0.99)] < 0.02


def test_workers_that_are_single_use_come_and_go_with_their_inputs() -> None:
    limits = PoolLimits(max_workers=50, single_use=True, timeout=86_400.0)
    simulation = Simulation(limits, Random(2), lasts=lambda dice: 0.2)
    simulation.run(burst(5_000))
    simulation.check()
    assert simulation.starts == 5_000 and simulation.most_there == 50


def test_several_inputs_share_a_worker_up_to_its_target_and_more_where_there_can_be_no_other() -> None:
    limits = PoolLimits(max_workers=10, slots=20, target=10)
    simulation = Simulation(limits, Random(2), lasts=lambda dice: dice.uniform(0.5, 1.5))
    simulation.run(steady(20_000, 80.0, Random(2)))  # eighty at a time: eight workers and a bit
    simulation.check()
    assert 8 <= simulation.starts <= 10


def test_batches_are_filled_while_the_workers_are_busy() -> None:
    limits = PoolLimits(max_workers=2, batch=16, linger=0.1)
    simulation = Simulation(limits, Random(2), lasts=lambda dice: 0.5)
    simulation.run(steady(10_000, 60.0, Random(2)))  # close to what two workers can take in full batches
    simulation.check()
    waits = simulation.waits()
    assert waits[int(len(waits) * 0.9)] < 5.0


def test_a_crash_loop_costs_few_starts_and_ends_with_its_cause() -> None:
    limits = PoolLimits(max_workers=100, give_up_after=None)
    simulation = Simulation(limits, Random(2), lasts=lambda dice: 0.1, start_fails=1.0)

    def repaired(worker: int, number: int) -> None:
        simulation.start_fails = 0.0

    simulation.later(3600.0, repaired, 0)
    simulation.run(burst(1000))
    simulation.check()
    assert simulation.failed_starts <= 100 + 3600 / 30 + 10
    assert max(simulation.waits()) <= 3600.0 + 40.0
