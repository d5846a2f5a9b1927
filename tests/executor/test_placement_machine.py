"""Every input has one outcome, none is forgotten, and the limits hold, whatever happens in whatever order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import inf
from random import Random
from typing import TypeVar

import pytest
from attrs import evolve
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from slipway.dsl.declaration import Retries
from slipway.executor.actions import (
    Action,
    Actions,
    Again,
    Assign,
    AssignBatch,
    Back,
    End,
    FailStart,
    Interrupt,
    Kill,
    Pass,
    Recall,
    Start,
    Stop,
)
from slipway.executor.placement import GRACE, STUCK, Placement
from slipway.executor.ports import Exit
from slipway.executor.retrying import MOST_LOSSES
from slipway.executor.scaling import PoolLimits, ceiling
from slipway.executor.seats import RETRIES, THREAD
from slipway.executor.worker.frames import Outcome

ENDS = (
    Exit(code=3),
    Exit(code=None, signal=9),
    Exit(code=None, signal=11),
    Exit(code=None, signal=9, oom=True),
    Exit(code=None, reason="the runtime is gone"),
)


@st.composite
def all_limits(draw: st.DrawFn) -> PoolLimits:
    slots = draw(st.sampled_from([1, 1, 1, 2, 3]))
    single_use = draw(st.booleans()) and slots == 1
    return PoolLimits(
        max_workers=draw(st.integers(1, 4)),
        elastic=draw(st.booleans()),
        min_workers=draw(st.integers(0, 2)),
        buffer_workers=draw(st.integers(0, 2)),
        idle=5.0,
        timeout=20.0,
        slots=slots,
        target=draw(st.sampled_from([None, *range(1, slots + 1)])),
        batch=draw(st.sampled_from([0, 0, 1, 3])),
        linger=draw(st.sampled_from([0.0, 0.5])),
        single_use=single_use,
        retries=draw(st.sampled_from([None, Retries(max_retries=2, backoff_milli=1000)])),
        give_up_after=draw(st.sampled_from([None, 1, 2])),
    )


def tidy(limits: PoolLimits) -> PoolLimits:
    return evolve(
        limits, min_workers=min(limits.min_workers, limits.max_workers), linger=limits.linger if limits.batch else 0.0
    )


T = TypeVar("T")


def pick(data: st.DataObject | Random, things: Sequence[T]) -> T:
    return data.choice(things) if isinstance(data, Random) else data.draw(st.sampled_from(things))


class Pools(RuleBasedStateMachine):
    """A driver that does what placement says to pretended workers, which behave as badly as they like."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 100.0
        self.submitted = 0
        self.open: set[int] = set()
        self.ended: dict[int, object] = {}
        self.began: dict[int, int] = {}  # attempts of each, less those that were given back
        self.lost_attempts: dict[int, int] = {}
        self.owner: dict[int, int] = {}  # who has the attempt of an input that counts
        self.unsent: set[int] = set()  # assigned and not written down yet, so that the worker does not know
        self.starting: set[int] = set()
        self.workers: dict[int, list[int]] = {}  # ready → what was sent to it and not answered
        self.batches: dict[int, list[set[int]]] = {}
        self.leaving: set[int] = set()  # told to stop or killed
        self.recalls: list[tuple[int, int]] = []
        self.interrupts: list[tuple[int, int]] = []
        self.answering: int | None = None
        self.most = 0  # workers that may be there
        self.closed = False

    @initialize(limits=all_limits().map(tidy))
    def begin(self, limits: PoolLimits) -> None:
        self.limits = limits
        self.placement = Placement(limits)
        self.act(self.placement.open(self.now))

    def act(self, actions: Actions) -> None:
        for action in actions:
            self.do(action)

    def do(self, action: Action) -> None:
        match action:
            case Assign(number, worker):
                assert not self.limits.batch
                self.assign((number,), worker)
            case AssignBatch(numbers, worker):
                assert 0 < len(numbers) <= self.limits.batch
                self.assign(numbers, worker)
                self.batches[worker].append(set(numbers))
            case Start(worker):
                assert worker not in self.starting | set(self.workers)
                self.starting.add(worker)
                there = len(self.starting) + len(self.workers)
                assert there <= max(ceiling(self.placement.limits, self.placement._waiting), 1)
            case Stop(worker):
                assert not self.workers.get(worker)
                self.leaving.add(worker)
            case Kill(worker):
                self.leaving.add(worker)
            case Interrupt(worker, number):
                assert number in self.workers[worker]
                self.interrupts.append((worker, number))
            case Recall(worker, number):
                assert number in self.workers[worker] and number in self.open
                self.recalls.append((worker, number))
            case Back(number):
                assert self.owner.pop(number) is not None
                self.began[number] -= 1
                self.unsent.discard(number)
            case Again(number, outcome, _, lost):
                assert number in self.open
                assert lost <= (outcome == Outcome.LOST)
                del self.owner[number]
                self.unsent.discard(number)
                self.lost_attempts[number] = self.lost_attempts.get(number, 0) + lost
                if self.answering == number:
                    self.answering = None
            case Pass(number):
                assert self.answering == number
                self.answering = None
                self.end(number, "passed on")
            case End(number, outcome, reason):
                assert reason
                self.end(number, outcome)
            case FailStart(number, _):
                self.end(number, "start failed")

    def assign(self, numbers: tuple[int, ...], worker: int) -> None:
        assert worker in self.workers and worker not in self.leaving
        for number in numbers:
            assert number in self.open, "it is not over"
            assert not any(number in calls for calls in self.workers.values()), "no two attempts at a time"
            self.workers[worker].append(number)
            self.began[number] = self.began.get(number, 0) + 1
            self.owner[number] = worker

    def end(self, number: int, how: object) -> None:
        assert number in self.open and number not in self.ended
        self.open.discard(number)
        self.unsent.discard(number)
        self.owner.pop(number, None)
        self.ended[number] = how

    # --- what may happen

    @rule(count=st.integers(1, 30), traits=st.sampled_from([0, RETRIES, RETRIES | THREAD]), depth=st.integers(0, 2))
    def submit(self, count: int, traits: int, depth: int) -> None:
        for _ in range(count):
            self.submitted += 1
            self.open.add(self.submitted)
            self.act(self.placement.submit(self.submitted, self.now, traits, depth))

    @precondition(lambda self: self.starting - self.leaving)
    @rule(data=st.data(), well=st.booleans())
    def a_start_ends(self, data: st.DataObject | Random, well: bool) -> None:
        worker = pick(data, sorted(self.starting - self.leaving))
        self.starting.discard(worker)
        if well:
            self.become_ready(worker)
        else:
            self.act(self.placement.start_failed(worker, self.now))

    def become_ready(self, worker: int) -> None:
        self.workers[worker] = []
        self.batches[worker] = []
        self.act(self.placement.ready(worker, self.now))

    @precondition(lambda self: any(self.workers.values()))
    @rule(data=st.data(), took=st.sampled_from([0.0, 0.0001, 0.01]), outcome=st.sampled_from([0, 0, 1, 3]))
    def an_answer_comes(self, data: st.DataObject | Random, took: float, outcome: int) -> None:
        worker = pick(data, sorted(number for number, calls in self.workers.items() if calls))
        calls = self.workers[worker]
        begun = len(calls) if self.limits.batch else min(self.limits.slots, len(calls))
        self.now += took
        self.answer(worker, pick(data, calls[:begun]), outcome)

    @rule(count=st.integers(5, 40))
    def all_goes_well_and_fast(self, count: int) -> None:
        """What is quick is sent ahead: the workers have more than they can run at once from here on."""
        for worker in sorted(self.starting - self.leaving):
            self.starting.discard(worker)
            self.become_ready(worker)
        for _ in range(count):
            busy = [worker for worker, calls in self.workers.items() if calls]
            if busy:
                self.now += 0.0001
                self.answer(busy[0], self.workers[busy[0]][0], 0)

    def answer(self, worker: int, number: int, outcome: int) -> None:
        self.workers[worker].remove(number)
        for batch in self.batches[worker]:
            batch.discard(number)
        if number in self.unsent and self.owner.get(number) == worker:  # it was written down meanwhile
            self.unsent.discard(number)
        counts = self.owner.get(number) == worker
        if counts and outcome == 0:
            self.end(number, "returned")
        elif counts:
            self.answering = number
        self.act(self.placement.finished(worker, number, outcome, self.now))
        if self.answering == number:
            assert number in self.ended  # it was cancelled: what it came to is dropped
            self.answering = None

    @precondition(lambda self: self.owner)
    @rule(data=st.data())
    def an_attempt_is_written_down_late(self, data: st.DataObject | Random) -> None:
        self.unsent.add(pick(data, sorted(self.owner)))

    @precondition(lambda self: self.recalls)
    @rule(data=st.data())
    def a_recall_is_answered(self, data: st.DataObject | Random) -> None:
        worker, number = self.recalls.pop(pick(data, range(len(self.recalls))))
        if worker not in self.workers or number not in self.workers[worker]:
            return
        # A worker gives back what it has not begun, and it begins in order.
        given = self.workers[worker].index(number) >= self.limits.slots or pick(data, (True, False))
        if given:
            self.workers[worker].remove(number)
        self.act(self.placement.recalled(worker, number, given, self.now))

    @precondition(lambda self: self.workers)
    @rule(data=st.data(), end=st.sampled_from(ENDS))
    def a_worker_is_lost(self, data: st.DataObject | Random, end: Exit) -> None:
        self.lose(pick(data, sorted(self.workers)), end)

    def lose(self, worker: int, end: Exit | None = None) -> None:
        there = self.workers.pop(worker, [])
        self.batches.pop(worker, None)
        self.starting.discard(worker)
        self.leaving.discard(worker)
        self.recalls = [recall for recall in self.recalls if recall[0] != worker]
        unsent = {number for number in there if number in self.unsent and self.owner.get(number) == worker}
        self.act(self.placement.lost(worker, end, "gone", self.now, unsent))

    @precondition(lambda self: self.leaving)
    @rule(data=st.data())
    def one_that_was_told_to_go_is_gone(self, data: st.DataObject | Random) -> None:
        self.lose(pick(data, sorted(self.leaving)))

    @precondition(lambda self: self.submitted)
    @rule(data=st.data(), force=st.booleans(), terminate=st.booleans())
    def cancel(self, data: st.DataObject | Random, force: bool, terminate: bool) -> None:
        number = (
            pick(data, sorted(self.open) or [1]) if pick(data, range(4)) else pick(data, range(1, self.submitted + 1))
        )
        waits = number in self.open and number not in self.owner
        self.act(self.placement.cancel(number, self.now, force=force, terminate=terminate))
        assert not waits or number in self.ended

    @precondition(lambda self: self.owner)
    @rule(data=st.data(), delta=st.sampled_from([2, 1, -1]))
    def one_calls_others(self, data: st.DataObject | Random, delta: int) -> None:
        self.act(self.placement.waits(pick(data, sorted(self.owner)), delta, self.now))

    @precondition(lambda self: self.owner)
    @rule(data=st.data())
    def an_item_is_passed_on(self, data: st.DataObject | Random) -> None:
        self.placement.streams(pick(data, sorted(self.owner)))

    @rule(seconds=st.sampled_from([STUCK, 0.5, 1.0, GRACE, 6.0, 25.0]))
    def time_goes_by(self, seconds: float) -> None:
        self.now += seconds
        self.act(self.placement.tick(self.now))
        assert self.placement.wake > self.now

    @precondition(lambda self: self.workers)
    @rule(data=st.data(), kill=st.booleans())
    def a_worker_is_let_go(self, data: st.DataObject | Random, kill: bool) -> None:
        worker = pick(data, sorted(self.workers))
        self.act(self.placement.let_go(worker, self.now, kill=kill))

    @rule(most=st.integers(1, 4), least=st.integers(0, 1), spare=st.integers(0, 2), elastic=st.booleans())
    def rescale(self, most: int, least: int, spare: int, elastic: bool) -> None:
        limits = evolve(
            self.limits, max_workers=most, min_workers=least, buffer_workers=spare, elastic=elastic, idle=6.0
        )
        self.act(self.placement.rescale(limits, self.now))
        assert self.placement.alive <= max(ceiling(limits, self.placement._waiting), 1)

    @rule()
    def drain(self) -> None:
        self.closed = True
        self.act(self.placement.drain(self.now))

    # --- what always holds

    @invariant()
    def no_worker_has_more_than_it_can_take(self) -> None:
        if not hasattr(self, "limits"):
            return
        for worker, calls in self.workers.items():
            if self.limits.batch:
                assert sum(map(bool, self.batches[worker])) <= self.limits.slots
            elif self.limits.slots > 1 or self.limits.single_use:
                assert len(calls) <= self.limits.slots

    @invariant()
    def no_input_is_forgotten(self) -> None:
        if not hasattr(self, "limits"):
            return
        assert set(self.placement.inputs) == self.open
        assert self.open | set(self.ended) == set(range(1, self.submitted + 1))
        placed = set(self.placement.queue) | set(self.owner)
        assert not set(self.placement.queue) & set(self.owner)
        assert len(self.open - placed) == self.placement.resting

    @invariant()
    def no_input_has_more_attempts_than_it_may(self) -> None:
        if not hasattr(self, "limits"):
            return
        failures = self.limits.retries.max_retries if self.limits.retries else 0
        for number, attempts in self.began.items():
            lost = self.lost_attempts.get(number, 0)
            assert lost <= MOST_LOSSES
            assert attempts - lost <= 1 + failures

    @invariant()
    def the_counts_are_right(self) -> None:
        if not hasattr(self, "limits"):
            return
        seats = self.placement.seats
        stopping = {number for number, seat in seats.by_number.items() if seat.stopping}
        assert seats.stopping == len(stopping)
        assert {seat.number for seat in seats.starting} == self.starting - stopping
        filed = [*seats.idle, *seats.room, *seats.spare]
        assert len(set(filed)) == len(filed)
        for seat in seats.by_number.values():
            free = seat.units < seats.slots and not (self.limits.single_use and seat.used)
            assert (seat in filed) == (seat.ready and not seat.stopping and free), (seat.number, seat.units)
        waiting = sum(placed.waits > 0 for placed in self.placement.inputs.values())
        assert self.placement._waiting == waiting

    @invariant()
    def what_waits_has_somebody_to_wait_for(self) -> None:
        if not hasattr(self, "limits"):
            return
        if self.placement.queue or self.placement.resting:
            assert self.starting or self.workers or self.placement.wake < inf

    @invariant()
    def nobody_is_idle_while_something_waits(self) -> None:
        if hasattr(self, "limits") and self.placement.queue and not self.limits.linger:
            assert not self.placement.seats.idle and not self.placement.seats.room

    def teardown(self) -> None:
        """With well-behaved workers, everything comes to an end."""
        if not hasattr(self, "limits"):
            return
        for _ in range(10_000):
            if not self.open:
                break
            self.settle()
        assert not self.open
        self.act(self.placement.close("over"))
        for worker in sorted(self.starting | set(self.workers)):
            self.lose(worker)
        assert not self.placement.workers

    def settle(self) -> None:
        self.now += 0.001
        for worker in sorted(self.leaving):
            self.lose(worker)
        for worker in sorted(self.starting - self.leaving):
            self.starting.discard(worker)
            self.become_ready(worker)
        for worker, number in tuple(self.recalls):
            if number in self.workers.get(worker, ()):
                self.act(self.placement.recalled(worker, number, False, self.now))
        self.recalls.clear()
        for worker, calls in tuple(self.workers.items()):
            if calls and worker in self.workers:
                self.answer(worker, calls[0], 0)
        if self.placement.wake <= self.now + 40 and not any(self.workers.values()):
            self.now = max(self.now, self.placement.wake)
            self.act(self.placement.tick(self.now))


Pools.TestCase.settings = settings(max_examples=150, stateful_step_count=50, deadline=None)
TestPools = Pools.TestCase


# --- long ways ----------------------------------------------------------------------------------------


def some_limits(dice: Random) -> PoolLimits:
    slots = dice.choice([1, 1, 2, 3])
    return tidy(
        PoolLimits(
            max_workers=dice.randint(1, 4),
            elastic=dice.random() < 0.3,
            min_workers=dice.choice([0, 0, 2]),
            buffer_workers=dice.choice([0, 0, 1, 2]),
            idle=5.0,
            timeout=20.0,
            slots=slots,
            target=dice.choice([None, *range(1, slots + 1)]),
            batch=dice.choice([0, 0, 0, 1, 3]),
            linger=dice.choice([0.0, 0.5]),
            single_use=slots == 1 and dice.random() < 0.2,
            retries=dice.choice([None, Retries(max_retries=2, backoff_milli=1000)]),
            give_up_after=dice.choice([None, 1, 2]),
        )
    )


def step(pools: Pools, dice: Random) -> None:
    """What hypothesis would do, but for a likeness to what usually happens: it seldom leads far enough."""
    starting, busy = pools.starting - pools.leaving, any(pools.workers.values())
    traits = dice.choice([0, RETRIES, RETRIES | THREAD])
    ways: list[tuple[int, Callable[[], object]]] = [
        (
            6 if len(pools.open) < 40 else 0,
            lambda: pools.submit(dice.choice([1, 2, 20]), traits, dice.choice([0, 0, 1, 2])),
        ),
        (8 * bool(starting), lambda: pools.a_start_ends(dice, dice.random() < 0.8)),
        (
            12 * busy,
            lambda: pools.an_answer_comes(dice, dice.choice([0.0, 0.0001, 0.01]), dice.choice([0, 0, 0, 1, 3])),
        ),
        (6 * busy, lambda: pools.all_goes_well_and_fast(dice.randint(5, 30))),
        (2 * bool(pools.owner), lambda: pools.an_attempt_is_written_down_late(dice)),
        (8 * bool(pools.recalls), lambda: pools.a_recall_is_answered(dice)),
        (3 * bool(pools.workers), lambda: pools.a_worker_is_lost(dice, dice.choice(ENDS))),
        (3 * bool(pools.leaving), lambda: pools.one_that_was_told_to_go_is_gone(dice)),
        (3 * bool(pools.submitted), lambda: pools.cancel(dice, dice.random() < 0.7, dice.random() < 0.2)),
        (3 * bool(pools.owner), lambda: pools.one_calls_others(dice, dice.choice([2, 1, -1, -1]))),
        (1 * bool(pools.owner), lambda: pools.an_item_is_passed_on(dice)),
        (6, lambda: pools.time_goes_by(dice.choice([STUCK, STUCK, 0.5, 1.0, GRACE, 6.0, 15.0, 25.0]))),
        (1 * bool(pools.workers), lambda: pools.a_worker_is_let_go(dice, dice.random() < 0.5)),
        (1, lambda: pools.rescale(dice.randint(1, 4), dice.randint(0, 1), dice.randint(0, 2), dice.random() < 0.3)),
    ]
    dice.choices([way for _, way in ways], [weight for weight, _ in ways])[0]()


@pytest.mark.parametrize("seed", range(60))
def test_a_long_way_of_a_pool_ends_with_one_outcome_of_each_input(seed: int) -> None:
    dice = Random(seed)
    pools = Pools()
    pools.begin(some_limits(dice))
    for _ in range(dice.choice([40, 400])):
        step(pools, dice)
        pools.no_worker_has_more_than_it_can_take()
        pools.no_input_is_forgotten()
        pools.no_input_has_more_attempts_than_it_may()
        pools.the_counts_are_right()
        pools.what_waits_has_somebody_to_wait_for()
        pools.nobody_is_idle_while_something_waits()
    if dice.random() < 0.5:
        pools.drain()
    pools.teardown()
