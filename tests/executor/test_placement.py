"""Every call ends exactly once, none is forgotten, and the limits hold, whatever happens in whatever order."""

from __future__ import annotations

from math import inf

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from slipway.executor.placement import (
    GRACE,
    STUCK,
    Action,
    Actions,
    Assign,
    End,
    FailStart,
    Interrupt,
    Kill,
    Placement,
    PoolLimits,
    Recall,
    Start,
    Stop,
)
from slipway.executor.worker.frames import Outcome

limits = st.builds(
    PoolLimits,
    max_workers=st.integers(1, 4),
    min_workers=st.integers(0, 2),
    buffer_workers=st.integers(0, 2),
    idle=st.just(5.0),
    timeout=st.just(20.0),
    slots=st.integers(1, 2),
    single_use=st.booleans(),
    give_up_after=st.integers(1, 3),
)


class Pools(RuleBasedStateMachine):
    """A driver that does what placement says to pretended workers, which behave as badly as they like."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 100.0
        self.submitted = 0
        self.open: set[int] = set()
        self.ended: dict[int, object] = {}
        self.starting: set[int] = set()
        self.workers: dict[int, list[int]] = {}  # ready → what was sent to it and not answered
        self.leaving: set[int] = set()  # told to stop or killed
        self.recalls: list[tuple[int, int]] = []
        self.closed = False

    @initialize(limits=limits)
    def begin(self, limits: PoolLimits) -> None:
        self.limits = limits
        self.placement = Placement(limits)
        self.act(self.placement.open(self.now))

    def act(self, actions: Actions) -> None:
        for action in actions:
            self.do(action)

    def do(self, action: Action) -> None:
        match action:
            case Assign(call, worker):
                assert call in self.open and worker in self.workers and worker not in self.leaving
                assert not any(call in calls for calls in self.workers.values())
                self.workers[worker].append(call)
            case Start(worker):
                assert worker not in self.starting | set(self.workers)
                self.starting.add(worker)
            case Stop(worker):
                assert not self.workers.get(worker)
                self.leaving.add(worker)
            case Kill(worker):
                self.leaving.add(worker)
            case Interrupt(worker, call):
                assert call in self.workers[worker]
            case Recall(worker, call):
                assert call in self.workers[worker] and call in self.open
                self.recalls.append((worker, call))
            case End(call, outcome, _):
                self.end(call, outcome)
            case FailStart(call, _):
                self.end(call, "start failed")

    def end(self, call: int, how: object) -> None:
        assert call in self.open and call not in self.ended
        self.open.discard(call)
        self.ended[call] = how

    # --- what may happen

    @rule(count=st.integers(1, 30))
    def submit(self, count: int) -> None:
        for _ in range(count):
            self.submitted += 1
            self.open.add(self.submitted)
            self.act(self.placement.submit(self.submitted, self.now))

    @precondition(lambda self: self.starting - self.leaving)
    @rule(data=st.data(), well=st.booleans())
    def a_start_ends(self, data: st.DataObject, well: bool) -> None:
        worker = data.draw(st.sampled_from(sorted(self.starting - self.leaving)))
        self.starting.discard(worker)
        if well:
            self.workers[worker] = []
            self.act(self.placement.ready(worker, self.now))
        else:
            self.act(self.placement.start_failed(worker, self.now))

    @precondition(lambda self: any(self.workers.values()))
    @rule(data=st.data(), took=st.sampled_from([0.0, 0.0001, 0.01]), outcome=st.sampled_from([0, 1, 3]))
    def an_answer_comes(self, data: st.DataObject, took: float, outcome: int) -> None:
        worker = data.draw(st.sampled_from(sorted(number for number, calls in self.workers.items() if calls)))
        call = self.workers[worker][data.draw(st.integers(0, min(self.limits.slots, len(self.workers[worker])) - 1))]
        self.now += took
        self.answer(worker, call, outcome)

    def answer(self, worker: int, call: int, outcome: int) -> None:
        self.workers[worker].remove(call)
        if call in self.open:
            self.end(call, Outcome(outcome))
        self.act(self.placement.finished(worker, call, outcome, self.now))

    @precondition(lambda self: self.recalls)
    @rule(data=st.data())
    def a_recall_is_answered(self, data: st.DataObject) -> None:
        worker, call = self.recalls.pop(data.draw(st.integers(0, len(self.recalls) - 1)))
        if worker not in self.workers or call not in self.workers[worker]:
            return
        # A worker gives back what it has not begun, and it begins in order.
        given = self.workers[worker].index(call) >= self.limits.slots or data.draw(st.booleans())
        if given:
            self.workers[worker].remove(call)
        self.act(self.placement.recalled(worker, call, given, self.now))

    @precondition(lambda self: self.workers)
    @rule(data=st.data())
    def a_worker_is_lost(self, data: st.DataObject) -> None:
        self.lose(data.draw(st.sampled_from(sorted(self.workers))))

    def lose(self, worker: int) -> None:
        self.workers.pop(worker, None)
        self.starting.discard(worker)
        self.leaving.discard(worker)
        self.recalls = [recall for recall in self.recalls if recall[0] != worker]
        self.act(self.placement.lost(worker, "gone", self.now))

    @precondition(lambda self: self.leaving)
    @rule(data=st.data())
    def one_that_was_told_to_go_is_gone(self, data: st.DataObject) -> None:
        self.lose(data.draw(st.sampled_from(sorted(self.leaving))))

    @precondition(lambda self: self.submitted)
    @rule(data=st.data(), force=st.booleans())
    def cancel(self, data: st.DataObject, force: bool) -> None:
        call = data.draw(st.integers(1, self.submitted))
        self.act(self.placement.cancel(call, self.now, force=force))

    @rule(seconds=st.sampled_from([STUCK, GRACE, 6.0, 25.0]))
    def time_goes_by(self, seconds: float) -> None:
        self.now += seconds
        self.act(self.placement.tick(self.now))
        assert self.placement.wake > self.now

    @precondition(lambda self: self.workers)
    @rule(data=st.data())
    def a_worker_is_let_go(self, data: st.DataObject) -> None:
        self.act(self.placement.let_go(data.draw(st.sampled_from(sorted(self.workers))), self.now))

    @rule()
    def drain(self) -> None:
        self.closed = True
        self.act(self.placement.drain(self.now))

    # --- what always holds

    @invariant()
    def the_limits_hold(self) -> None:
        if not hasattr(self, "limits"):
            return
        assert len(self.starting) + len(self.workers) <= self.limits.max_workers
        if self.limits.slots > 1 or self.limits.single_use:
            assert all(len(calls) <= self.limits.slots for calls in self.workers.values())

    @invariant()
    def no_call_is_forgotten(self) -> None:
        if not hasattr(self, "limits"):
            return
        assert set(self.placement.states) == self.open
        assert self.open | set(self.ended) == set(range(1, self.submitted + 1))
        sent = {call for calls in self.workers.values() for call in calls}
        assert self.open - sent == set(self.placement.queue)

    @invariant()
    def what_waits_has_somebody_to_wait_for(self) -> None:
        if not hasattr(self, "limits") or not self.placement.queue:
            return
        assert self.starting or self.workers or self.placement.wake < inf

    def teardown(self) -> None:
        """With well-behaved workers, everything comes to an end."""
        if not hasattr(self, "limits"):
            return
        for _ in range(10_000):
            if not self.open:
                break
            self.now += 0.001
            for worker in sorted(self.leaving):
                self.lose(worker)
            for worker in sorted(self.starting - self.leaving):
                self.starting.discard(worker)
                self.workers[worker] = []
                self.act(self.placement.ready(worker, self.now))
            for worker, call in tuple(self.recalls):
                if call in self.workers.get(worker, ()):
                    self.act(self.placement.recalled(worker, call, False, self.now))
            self.recalls.clear()
            for worker, calls in tuple(self.workers.items()):
                if calls:
                    self.answer(worker, calls[0], 0)
            if self.placement.wake <= self.now + 40 and not any(self.workers.values()):
                self.now = max(self.now, self.placement.wake)
                self.act(self.placement.tick(self.now))
        assert not self.open
        self.act(self.placement.close("over"))
        for worker in sorted(self.starting | set(self.workers)):
            self.lose(worker)
        assert not self.placement.workers


Pools.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestPools = Pools.TestCase


# --- single decisions ---------------------------------------------------------------------------------


def ready_pool(**more: object) -> tuple[Placement, Actions]:
    placement = Placement(PoolLimits(**({"max_workers": 2} | more)))  # type: ignore[arg-type]
    assert placement.submit(1, 0.0) == [Start(1)]
    return placement, placement.ready(1, 1.0)


def test_a_call_starts_a_worker_and_a_ready_worker_takes_it() -> None:
    placement, actions = ready_pool()
    assert actions == [Assign(1, 1)]
    assert placement.finished(1, 1, Outcome.RETURNED, 1.5) == []
    assert placement.submit(2, 2.0) == [Assign(2, 1)]


def test_calls_share_the_workers_that_are_on_their_way() -> None:
    placement = Placement(PoolLimits(max_workers=8))
    assert [placement.submit(call, 0.0) for call in (1, 2)] == [[Start(1)], [Start(2)]]
    assert placement.ready(2, 1.0) == [Assign(1, 2)]
    assert placement.finished(2, 1, Outcome.RETURNED, 1.1) == [Assign(2, 2)]
    assert placement.submit(3, 1.2) == []  # worker 1 is still on its way


def test_a_worker_that_is_let_go_answers_what_it_runs_and_takes_no_more() -> None:
    placement, _ = ready_pool(slots=2)
    assert placement.submit(2, 1.0) == [Assign(2, 1)]
    assert placement.let_go(1, 1.1) == []
    assert placement.submit(3, 1.2) == [Start(2)]
    assert placement.finished(1, 1, Outcome.RETURNED, 1.3) == []
    assert placement.finished(1, 2, Outcome.RETURNED, 1.4) == [Stop(1)]
    assert placement.let_go(1, 1.5) == []


def test_an_idle_worker_that_is_let_go_stops_and_the_next_call_starts_another() -> None:
    placement, _ = ready_pool()
    placement.finished(1, 1, Outcome.RETURNED, 1.5)
    assert placement.let_go(1, 1.6) == [Stop(1)]
    assert placement.submit(2, 1.7) == [Start(2)]


def test_more_workers_than_the_limit_are_never_started() -> None:
    placement = Placement(PoolLimits(max_workers=2))
    started = [action for call in range(50) for action in placement.submit(call, 0.0)]
    assert started == [Start(1), Start(2)]


def test_an_idle_worker_goes_after_its_window_and_not_before() -> None:
    placement, _ = ready_pool(idle=10.0)
    placement.finished(1, 1, Outcome.RETURNED, 5.0)
    assert placement.tick(14.9) == [] and placement.wake == 15.0
    assert placement.tick(15.0) == [Stop(1)]


def test_a_call_that_takes_too_long_ends_and_then_its_worker() -> None:
    placement, _ = ready_pool(timeout=3.0)
    assert placement.tick(4.0) == [End(1, Outcome.TIMED_OUT, "it took longer than 3 s"), Interrupt(1, 1)]
    assert placement.tick(4.0 + GRACE) == [Kill(1)]
    assert placement.lost(1, "killed", 7.0) == []
    assert placement.submit(2, 7.0) == [Start(2)]


def test_a_worker_that_lets_go_in_time_is_kept() -> None:
    placement, _ = ready_pool(timeout=3.0)
    placement.tick(4.0)
    assert placement.finished(1, 1, Outcome.CANCELLED, 4.5) == []
    assert placement.submit(2, 5.0) == [Assign(2, 1)]


def fast_pool() -> Placement:
    """One worker with a call under way and others sent ahead."""
    placement, _ = ready_pool(max_workers=1)
    for call in range(2, 12):
        placement.submit(call, 1.0)
    actions = placement.finished(1, 1, Outcome.RETURNED, 1.0001)
    assert [type(action) for action in actions] == [Assign] * len(actions) and len(actions) > 2
    return placement


def test_what_was_sent_ahead_of_a_worker_that_dies_goes_to_the_next() -> None:
    placement = fast_pool()
    actions = placement.lost(1, "was killed", 2.0)
    assert actions == [End(2, Outcome.LOST, "was killed"), Start(2)]
    assert [action.call for action in placement.ready(2, 3.0) if isinstance(action, Assign)][:2] == [3, 4]


def test_what_was_sent_ahead_is_asked_back_when_it_would_wait() -> None:
    placement = fast_pool()
    recalls = placement.tick(1.0001 + 2 * STUCK)
    assert recalls and {type(action) for action in recalls} == {Recall}
    assert placement.recalled(1, 11, True, 1.1) == [] and 11 in placement.queue


def test_a_slow_function_sends_nothing_ahead() -> None:
    placement, _ = ready_pool(max_workers=1)
    for call in (2, 3, 4):
        placement.submit(call, 1.0)
    assert placement.finished(1, 1, Outcome.RETURNED, 1.5) == [Assign(2, 1)]


def test_starts_that_fail_are_tried_again_later_and_given_up_in_the_end() -> None:
    placement = Placement(PoolLimits(max_workers=1, give_up_after=2))
    placement.submit(1, 0.0)
    assert placement.start_failed(1, 1.0) == [] and placement.wake == 1.5
    assert placement.tick(1.5) == [Start(2)]
    assert placement.start_failed(2, 2.0) == [FailStart(1, 2)]
    assert placement.submit(2, 3.0) == [Start(3)]


def test_workers_that_end_by_themselves_at_once_are_replaced_ever_later() -> None:
    placement = Placement(PoolLimits(max_workers=1, min_workers=1))
    placement.open(0.0)
    placement.ready(1, 1.0)
    assert placement.lost(1, "died", 1.0) == [Start(2)]
    placement.ready(2, 2.0)
    assert placement.lost(2, "died", 2.0) == [] and placement.wake == 2.5
    assert placement.tick(2.5) == [Start(3)]
    placement.ready(3, 3.0)
    assert placement.lost(3, "died", 3.0) == [] and placement.wake == 4.0
    assert placement.tick(4.0) == [Start(4)]
    placement.ready(4, 5.0)
    assert placement.submit(1, 5.0) == [Assign(1, 4)]
    placement.finished(4, 1, Outcome.RETURNED, 5.0)
    assert placement.lost(4, "died", 5.0) == [Start(5)]


def test_cancelling_what_waits_ends_it_and_what_runs_only_by_force() -> None:
    placement, _ = ready_pool(max_workers=1)
    placement.submit(2, 1.0)
    assert placement.cancel(2, 1.0, force=False) == [End(2, Outcome.CANCELLED, "cancelled before it began")]
    assert placement.cancel(1, 1.0, force=False) == []
    assert placement.cancel(1, 1.0, force=True) == [Interrupt(1, 1)]
    assert placement.tick(1.0 + GRACE) == [Kill(1)]
    assert placement.lost(1, "killed", 4.0) == [End(1, Outcome.CANCELLED, "killed")]


def test_a_single_use_worker_takes_one_call() -> None:
    placement, _ = ready_pool(max_workers=1, single_use=True)
    placement.submit(2, 1.0)
    assert placement.finished(1, 1, Outcome.RETURNED, 1.1) == [Stop(1)]
    assert placement.lost(1, "", 1.2) == [Start(2)]


def test_a_minimum_of_workers_is_there_from_the_start_and_stays() -> None:
    placement = Placement(PoolLimits(max_workers=3, min_workers=2, idle=1.0))
    assert placement.open(0.0) == [Start(1), Start(2)]
    assert placement.ready(1, 1.0) == placement.ready(2, 1.0) == []
    assert placement.tick(50.0) == []
    assert placement.lost(1, "died", 60.0) == [Start(3)]


def test_draining_finishes_what_is_there_and_takes_no_more() -> None:
    placement, _ = ready_pool(max_workers=1)
    placement.submit(2, 1.0)
    assert placement.drain(1.0) == []
    assert placement.submit(3, 1.0) == [End(3, Outcome.CANCELLED, "the function is being shut down")]
    assert placement.finished(1, 1, Outcome.RETURNED, 2.0) == [Assign(2, 1)]
    assert placement.finished(1, 2, Outcome.RETURNED, 3.0) == [Stop(1)]
