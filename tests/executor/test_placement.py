"""What placement decides, one decision at a time."""

from __future__ import annotations

from math import inf
from typing import Any

import pytest
from attrs import evolve

from slipway.dsl.declaration import Retries
from slipway.executor.actions import (
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
from slipway.executor.scaling import LAST_BACKOFF, MOST_WORKERS, PoolLimits
from slipway.executor.seats import RETRIES, THREAD
from slipway.executor.worker.frames import Outcome
from slipway.executor.workforce import FEW

SEGFAULT, KILLED = Exit(code=None, signal=11), Exit(code=None, signal=9)
TWICE = Retries(max_retries=2, backoff_milli=3000)


def new_pool(**limits: Any) -> Placement:
    return Placement(PoolLimits(**({"max_workers": 2} | limits)))


def busy_pool(traits: int = 0, **limits: Any) -> Placement:
    """One worker, which runs input 1 since 1.0."""
    placement = new_pool(**limits)
    assert placement.submit(1, 0.0, traits) == [Start(1)]
    assert placement.ready(1, 1.0) == [Assign(1, 1)]
    return placement


def idle_pool(**limits: Any) -> Placement:
    placement = busy_pool(**limits)
    assert placement.finished(1, 1, Outcome.RETURNED, 1.5) == []
    return placement


# --- inputs and workers -------------------------------------------------------------------------------


def test_an_input_starts_a_worker_and_a_ready_worker_takes_it() -> None:
    placement = idle_pool()
    assert placement.submit(2, 2.0) == [Assign(2, 1)]


def test_inputs_share_the_workers_that_are_on_their_way() -> None:
    placement = new_pool(max_workers=8)
    assert [placement.submit(number, 0.0) for number in (1, 2)] == [[Start(1)], [Start(2)]]
    assert placement.ready(2, 1.0) == [Assign(1, 2)]
    assert placement.finished(2, 1, Outcome.RETURNED, 1.1) == [Assign(2, 2)]
    assert placement.submit(3, 1.2) == []  # worker 1 is still on its way


def test_a_worker_that_is_let_go_answers_what_it_runs_and_takes_no_more() -> None:
    placement = busy_pool(slots=2)
    assert placement.submit(2, 1.0) == [Assign(2, 1)]
    assert placement.let_go(1, 1.1) == []
    assert placement.submit(3, 1.2) == [Start(2)]
    assert placement.finished(1, 1, Outcome.RETURNED, 1.3) == []
    assert placement.finished(1, 2, Outcome.RETURNED, 1.4) == [Stop(1)]
    assert placement.let_go(1, 1.5) == []


def test_an_idle_worker_that_is_let_go_stops_and_the_next_input_starts_another() -> None:
    placement = idle_pool()
    assert placement.let_go(1, 1.6) == [Stop(1)]
    assert placement.submit(2, 1.7) == [Start(2)]


def test_what_a_worker_runs_that_is_killed_by_order_is_run_elsewhere() -> None:
    placement = busy_pool()
    assert placement.let_go(1, 2.0, kill=True) == [Kill(1)]
    assert placement.lost(1, KILLED, "stopped", 2.1) == [Again(1, Outcome.LOST, "stopped", True), Start(2)]


def test_more_workers_than_the_limit_are_never_started() -> None:
    placement = new_pool()
    started = [action for number in range(50) for action in placement.submit(number, 0.0)]
    assert started == [Start(1), Start(2)]


def test_an_idle_worker_goes_after_its_window_and_not_before() -> None:
    placement = busy_pool(idle=10.0)
    placement.finished(1, 1, Outcome.RETURNED, 5.0)
    assert placement.tick(14.9) == [] and placement.wake == 15.0
    assert placement.tick(15.0) == [Stop(1)]


def test_a_single_use_worker_takes_one_input() -> None:
    placement = busy_pool(max_workers=1, single_use=True)
    placement.submit(2, 1.0)
    assert placement.finished(1, 1, Outcome.RETURNED, 1.1) == [Stop(1)]
    assert placement.lost(1, Exit(code=0), "", 1.2) == [Start(2)]


def test_a_minimum_of_workers_is_there_from_the_start_and_stays() -> None:
    placement = new_pool(max_workers=3, min_workers=2, idle=1.0)
    assert placement.open(0.0) == [Start(1), Start(2)]
    assert placement.ready(1, 1.0) == placement.ready(2, 1.0) == []
    assert placement.tick(50.0) == []
    assert placement.lost(1, KILLED, "died", 60.0) == [Start(3)]


def test_buffer_workers_are_there_beside_those_that_work_and_go_when_there_is_no_work() -> None:
    placement = new_pool(max_workers=4, buffer_workers=1, idle=5.0)
    assert placement.submit(1, 0.0) == [Start(1), Start(2)]
    assert placement.ready(1, 1.0) == [Assign(1, 1)]
    assert placement.ready(2, 1.0) == []
    assert placement.submit(2, 2.0) == [Assign(2, 2), Start(3)]
    placement.ready(3, 3.0)
    assert placement.tick(30.0) == [], "it is kept for as long as there is work"
    placement.finished(1, 1, Outcome.RETURNED, 40.0)
    placement.finished(2, 2, Outcome.RETURNED, 40.0)
    assert placement.tick(45.0) == [Stop(3), Stop(1), Stop(2)]


def test_draining_finishes_what_is_there_and_takes_no_more() -> None:
    placement = busy_pool(max_workers=1)
    placement.submit(2, 1.0)
    assert placement.drain(1.0) == []
    assert placement.submit(3, 1.0) == [End(3, Outcome.CANCELLED, "the function is being shut down")]
    assert placement.finished(1, 1, Outcome.RETURNED, 2.0) == [Assign(2, 1)]
    assert placement.finished(1, 2, Outcome.RETURNED, 3.0) == [Stop(1)]


def test_draining_lets_a_worker_go_that_is_on_its_way_for_nothing() -> None:
    placement = new_pool(min_workers=1)
    placement.open(0.0)
    assert placement.drain(1.0) == [Stop(1)]


# --- limits at run time -------------------------------------------------------------------------------


def test_a_smaller_limit_lets_workers_go_the_idle_ones_first() -> None:
    placement = new_pool(max_workers=3)
    for number in (1, 2, 3):
        placement.submit(number, 0.0)
        placement.ready(number, 0.0)
    placement.finished(3, 3, Outcome.RETURNED, 1.0)
    actions = placement.rescale(evolve(placement.limits, max_workers=1), 2.0)
    assert actions == [Stop(3)] and placement.alive == 1
    assert placement.finished(1, 1, Outcome.RETURNED, 3.0) == [Stop(1)], "it was let go, too"


def test_a_larger_limit_starts_workers_for_what_waits() -> None:
    placement = busy_pool(max_workers=1)
    placement.submit(2, 1.0)
    assert placement.rescale(evolve(placement.limits, max_workers=2), 2.0) == [Start(2)]
    assert placement.rescale(evolve(placement.limits, max_workers=4, min_workers=3), 2.0) == [Start(3)]


# --- several inputs in one worker ---------------------------------------------------------------------


def test_another_worker_is_started_from_the_target_on() -> None:
    placement = busy_pool(slots=4, target=2)
    assert placement.submit(2, 2.0) == [Assign(2, 1)]
    assert placement.submit(3, 2.0) == [Start(2)]
    assert placement.ready(2, 3.0) == [Assign(3, 2)]


def test_workers_are_filled_up_where_there_can_be_no_more_of_them() -> None:
    placement = busy_pool(max_workers=1, slots=3, target=1)
    assert placement.submit(2, 2.0) == [Assign(2, 1)]
    assert placement.submit(3, 2.0) == [Assign(3, 1)]
    assert placement.submit(4, 2.0) == []
    assert placement.finished(1, 2, Outcome.RETURNED, 3.0) == [Assign(4, 1)]


def test_workers_are_filled_up_where_others_can_not_be_started_just_now() -> None:
    placement = busy_pool(max_workers=2, slots=3, target=1, give_up_after=None)
    assert placement.submit(2, 2.0) == [Start(2)]
    assert placement.start_failed(2, 3.0) == [Assign(2, 1)]


def test_an_input_that_runs_in_a_thread_ends_with_its_worker_and_the_others_are_run_elsewhere() -> None:
    placement = busy_pool(THREAD, slots=2)
    placement.submit(2, 1.0, THREAD)
    assert placement.cancel(1, 2.0, force=True) == [Kill(1)]
    lost = placement.lost(1, KILLED, "killed", 2.1)
    assert lost == [End(1, Outcome.CANCELLED, "killed"), Again(2, Outcome.LOST, "killed", True), Start(2)]


def test_one_that_ignores_its_cancellation_is_killed_though_others_answer() -> None:
    placement = busy_pool(slots=2)
    placement.submit(2, 1.0)
    assert placement.cancel(1, 2.0, force=True) == [Interrupt(1, 1)]
    assert placement.finished(1, 2, Outcome.RETURNED, 2.5) == []
    assert placement.cancel(1, 2.6, force=True) == [], "it was told already"
    assert placement.tick(2.0 + GRACE) == [Kill(1)]


# --- batches ------------------------------------------------------------------------------------------


def test_a_batch_is_begun_when_it_is_full_or_its_first_input_has_waited() -> None:
    placement = new_pool(batch=3, linger=0.5)
    assert placement.submit(1, 0.0) == [Start(1)]
    assert placement.ready(1, 0.1) == [] and placement.wake == 0.5
    assert placement.submit(2, 0.2) == []
    assert placement.submit(3, 0.3) == [AssignBatch((1, 2, 3), 1)]
    assert placement.submit(4, 0.4) == [Start(2)]
    placement.ready(2, 0.5)
    assert placement.tick(0.85) == [] and placement.wake == pytest.approx(0.9)
    assert placement.tick(0.9) == [AssignBatch((4,), 2)]


def test_a_worker_takes_a_batch_when_it_has_answered_all_of_the_one_before() -> None:
    placement = new_pool(max_workers=1, batch=2)
    placement.submit(1, 0.0)
    placement.submit(2, 0.0)
    assert placement.ready(1, 1.0) == [AssignBatch((1, 2), 1)]
    placement.submit(3, 1.0)
    assert placement.finished(1, 1, Outcome.RETURNED, 2.0) == []
    assert placement.finished(1, 2, Outcome.RETURNED, 2.0) == [AssignBatch((3,), 1)]


def test_a_worker_that_is_free_needs_no_other_for_a_batch_that_waits() -> None:
    placement = new_pool(batch=4, linger=0.5)
    placement.submit(1, 0.0)
    placement.ready(1, 0.0)
    assert [placement.submit(number, 0.1) for number in (2, 3)] == [[], []]


def test_an_input_of_a_running_batch_is_given_up_alone_and_the_last_one_with_the_batch() -> None:
    placement = new_pool(batch=2)
    placement.submit(1, 0.0)
    placement.submit(2, 0.0)
    placement.ready(1, 1.0)
    cancelled = [End(1, Outcome.CANCELLED, "cancelled while it ran")]
    assert placement.cancel(1, 2.0, force=True) == cancelled
    assert placement.cancel(2, 2.0, force=True) == [Interrupt(1, 2)]
    assert placement.finished(1, 1, Outcome.CANCELLED, 2.1) == []
    assert placement.finished(1, 2, Outcome.CANCELLED, 2.1) == [End(2, Outcome.CANCELLED, "cancelled while it ran")]


def test_the_inputs_of_a_batch_that_fails_are_tried_again_each_by_itself() -> None:
    placement = new_pool(batch=2, retries=TWICE)
    placement.submit(1, 0.0, RETRIES)
    placement.submit(2, 0.0, RETRIES, 0, 2)  # it has failed twice before
    placement.ready(1, 1.0)
    assert placement.finished(1, 1, Outcome.RAISED, 2.0) == [Again(1, Outcome.RAISED, "", False)]
    assert placement.finished(1, 2, Outcome.RAISED, 2.0) == [Pass(2)]
    assert placement.tick(3.0) == [AssignBatch((1,), 1)]


def test_a_batch_that_takes_too_long_is_interrupted_once() -> None:
    placement = new_pool(batch=2, timeout=3.0)
    placement.submit(1, 0.0)
    placement.submit(2, 0.0)
    placement.ready(1, 1.0)
    ends = [End(number, Outcome.TIMED_OUT, "it took longer than 3 s") for number in (1, 2)]
    assert placement.tick(4.0) == [Interrupt(1, 1), *ends]


# --- attempts -----------------------------------------------------------------------------------------


def test_what_fails_is_tried_again_after_ever_longer_delays_and_then_passed_on() -> None:
    placement = busy_pool(RETRIES, retries=TWICE)
    assert placement.finished(1, 1, Outcome.RAISED, 2.0) == [Again(1, Outcome.RAISED, "", False)]
    assert placement.resting == 1 and placement.wake == 3.0
    assert placement.tick(3.0) == [Assign(1, 1)]
    placement.finished(1, 1, Outcome.RAISED, 4.0)
    assert placement.tick(6.9) == []
    assert placement.tick(7.0) == [Assign(1, 1)]
    assert placement.finished(1, 1, Outcome.RAISED, 8.0) == [Pass(1)]
    assert not placement.inputs


def test_an_input_that_rests_can_be_cancelled() -> None:
    placement = busy_pool(RETRIES, retries=TWICE)
    placement.finished(1, 1, Outcome.RAISED, 2.0)
    assert placement.cancel(1, 2.5, force=False) == [End(1, Outcome.CANCELLED, "cancelled before it began")]
    assert placement.tick(3.0) == [] and placement.resting == 0


def test_neither_what_has_no_policy_nor_what_has_sent_items_is_tried_again() -> None:
    assert busy_pool(retries=TWICE).finished(1, 1, Outcome.RAISED, 2.0) == [Pass(1)]
    placement = busy_pool(RETRIES, retries=TWICE)
    placement.streams(1)
    assert placement.finished(1, 1, Outcome.RAISED, 2.0) == [Pass(1)]
    placement = busy_pool()
    placement.streams(1)
    assert placement.lost(1, KILLED, "was killed", 2.0) == [End(1, Outcome.LOST, "was killed")]


def test_an_input_that_takes_too_long_ends_and_then_its_worker() -> None:
    placement = busy_pool(timeout=3.0)
    assert placement.tick(4.0) == [Interrupt(1, 1), End(1, Outcome.TIMED_OUT, "it took longer than 3 s")]
    assert placement.tick(4.0 + GRACE) == [Kill(1)]
    assert placement.lost(1, KILLED, "killed", 7.0) == []
    assert placement.submit(2, 7.0) == [Start(2)]


def test_a_worker_that_lets_go_in_time_is_kept() -> None:
    placement = busy_pool(timeout=3.0)
    placement.tick(4.0)
    assert placement.finished(1, 1, Outcome.CANCELLED, 4.5) == []
    assert placement.submit(2, 5.0) == [Assign(2, 1)]


def test_an_attempt_after_one_that_took_too_long_waits_until_that_is_really_over() -> None:
    placement = busy_pool(RETRIES, max_workers=2, timeout=3.0, retries=TWICE)
    again = Again(1, Outcome.TIMED_OUT, "it took longer than 3 s", False)
    assert placement.tick(4.0) == [Interrupt(1, 1), again]
    assert placement.tick(5.5) == [], "its time has come, and the worker holds on to it"
    assert placement.finished(1, 1, Outcome.RETURNED, 5.7) == [Assign(1, 1)]
    assert placement.tick(8.7) == [Interrupt(1, 1), again]
    assert placement.lost(1, KILLED, "killed", 9.0) == []
    assert placement.tick(11.7) == [Start(2)]


def test_an_input_that_ends_its_worker_has_failed_and_one_whose_worker_is_ended_has_not() -> None:
    assert busy_pool(RETRIES).lost(1, SEGFAULT, "crashed", 2.0) == [End(1, Outcome.LOST, "crashed")]
    placement = busy_pool(RETRIES, retries=TWICE)
    assert placement.lost(1, SEGFAULT, "crashed", 2.0) == [Again(1, Outcome.LOST, "crashed", False)]
    placement = busy_pool()
    assert placement.lost(1, KILLED, "was killed", 2.0) == [Again(1, Outcome.LOST, "was killed", True), Start(2)]


def test_of_several_inputs_nobody_knows_which_one_ended_the_worker() -> None:
    placement = busy_pool(slots=2)
    placement.submit(2, 1.0)
    lost = placement.lost(1, SEGFAULT, "crashed", 2.0)
    assert lost == [Again(1, Outcome.LOST, "crashed", True), Again(2, Outcome.LOST, "crashed", True), Start(2)]
    assert placement.ready(2, 3.0) == [Assign(1, 2), Assign(2, 2)]


def test_an_input_whose_workers_are_lost_again_and_again_is_lost_in_the_end() -> None:
    placement = busy_pool()
    for worker in range(1, MOST_LOSSES + 1):
        again = [Again(1, Outcome.LOST, "was killed", True), Start(worker + 1)]
        assert placement.lost(worker, KILLED, "was killed", 2.0) == again
        placement.ready(worker + 1, 2.0)
    (end,) = placement.lost(MOST_LOSSES + 1, KILLED, "was killed", 2.0)
    assert end == End(1, Outcome.LOST, "its worker was lost 9 times; the last time was killed")


def test_what_a_worker_never_got_is_no_attempt() -> None:
    placement = busy_pool()
    assert placement.lost(1, KILLED, "was killed", 2.0, {1}) == [Back(1), Start(2)]
    assert placement.ready(2, 3.0) == [Assign(1, 2)]


def test_cancelling_what_waits_ends_it_and_what_runs_only_by_force() -> None:
    placement = busy_pool(max_workers=1)
    placement.submit(2, 1.0)
    assert placement.cancel(2, 1.0, force=False) == [End(2, Outcome.CANCELLED, "cancelled before it began")]
    assert placement.cancel(1, 1.0, force=False) == []
    assert placement.cancel(1, 1.0, force=True) == [Interrupt(1, 1)]
    assert placement.tick(1.0 + GRACE) == [Kill(1)]
    assert placement.lost(1, KILLED, "killed", 4.0) == [End(1, Outcome.CANCELLED, "killed")]


def test_what_is_cancelled_and_raises_is_cancelled_and_never_tried_again() -> None:
    placement = busy_pool(RETRIES, retries=TWICE)
    placement.cancel(1, 2.0, force=True)
    assert placement.finished(1, 1, Outcome.RAISED, 2.1) == [End(1, Outcome.CANCELLED, "cancelled while it ran")]


def test_terminating_an_input_kills_its_worker_at_once() -> None:
    placement = busy_pool()
    assert placement.cancel(1, 2.0, force=True, terminate=True) == [Interrupt(1, 1), Kill(1)]
    assert placement.lost(1, KILLED, "killed", 2.1) == [End(1, Outcome.CANCELLED, "killed")]


# --- inputs that wait for others ----------------------------------------------------------------------


def test_an_input_that_waits_for_others_makes_room_for_a_worker_where_nobody_set_the_limit() -> None:
    placement = busy_pool(max_workers=1, elastic=True)
    assert placement.waits(1, 1, 2.0) == []
    assert placement.submit(2, 2.0, 0, 1) == [Start(2)]
    assert placement.ready(2, 3.0) == [Assign(2, 2)]
    assert placement.submit(3, 3.0) == []
    assert placement.finished(1, 1, Outcome.RETURNED, 4.0) == [Assign(3, 1)]
    assert placement.submit(4, 4.0) == [], "nobody waits any more"


def test_a_limit_that_somebody_set_holds_also_for_inputs_that_wait() -> None:
    placement = busy_pool(max_workers=1)
    placement.waits(1, 1, 2.0)
    assert placement.submit(2, 2.0, 0, 1) == []


def test_what_another_input_waits_for_goes_first() -> None:
    placement = busy_pool(max_workers=1)
    for number, depth in ((2, 0), (3, 1), (4, 2), (5, 2)):
        placement.submit(number, 1.0, 0, depth)
    order = []
    for number in (1, 4, 5, 3, 2):
        order += placement.finished(1, number, Outcome.RETURNED, 3.0)
    assert order == [Assign(4, 1), Assign(5, 1), Assign(3, 1), Assign(2, 1)]


# --- sending ahead ------------------------------------------------------------------------------------


def fast_pool() -> Placement:
    """One worker with an input under way and others sent ahead."""
    placement = busy_pool(max_workers=1)
    for number in range(2, 12):
        placement.submit(number, 1.0)
    actions = placement.finished(1, 1, Outcome.RETURNED, 1.0001)
    assert [type(action) for action in actions] == [Assign] * len(actions) and len(actions) > 2
    return placement


def test_what_was_sent_ahead_of_a_worker_that_dies_goes_to_the_next() -> None:
    placement = fast_pool()
    actions = placement.lost(1, SEGFAULT, "crashed", 2.0)
    assert actions[0] == End(2, Outcome.LOST, "crashed")
    assert actions[1:] == [*(Back(number) for number in range(3, 12)), Start(2)]
    assert [action.number for action in placement.ready(2, 3.0) if isinstance(action, Assign)][:2] == [3, 4]


def test_what_was_sent_ahead_is_asked_back_when_it_would_wait() -> None:
    placement = fast_pool()
    recalls = placement.tick(1.0001 + 2 * STUCK)
    assert recalls == [Recall(1, number) for number in range(11, 2, -1)]
    assert placement.recalled(1, 11, True, 1.1) == [Back(11)] and list(placement.queue) == [11]
    assert placement.recalled(1, 10, True, 1.1) == [Back(10)] and list(placement.queue) == [10, 11]
    assert placement.recalled(1, 10, True, 1.1) == [], "it is known already"


def test_what_was_sent_ahead_and_is_given_up_is_asked_back_first() -> None:
    placement = fast_pool()
    assert placement.cancel(5, 1.001, force=False) == [Recall(1, 5)]
    assert placement.recalled(1, 5, True, 1.002) == [End(5, Outcome.CANCELLED, "cancelled before it began")]
    assert placement.cancel(6, 1.003, force=False) == [Recall(1, 6)]
    assert placement.recalled(1, 6, False, 1.004) == [], "it has begun"


def test_a_slow_function_sends_nothing_ahead() -> None:
    placement = busy_pool(max_workers=1)
    for number in (2, 3, 4):
        placement.submit(number, 1.0)
    assert placement.finished(1, 1, Outcome.RETURNED, 1.5) == [Assign(2, 1)]


# --- starts that come to nothing ----------------------------------------------------------------------


def test_starts_that_fail_are_tried_again_later_and_given_up_in_the_end() -> None:
    placement = new_pool(max_workers=1, give_up_after=2)
    placement.submit(1, 0.0)
    assert placement.start_failed(1, 1.0) == [] and placement.wake == 1.5
    assert placement.tick(1.5) == [Start(2)]
    assert placement.start_failed(2, 2.0) == [FailStart(1, 2)]
    assert placement.submit(2, 3.0) == [Start(3)]


def test_a_deployed_function_tries_to_start_workers_for_ever_one_at_a_time() -> None:
    placement = new_pool(max_workers=8, give_up_after=None)
    started: Actions = [action for number in range(5) for action in placement.submit(number, 0.0)]
    assert len(started) == 5
    for worker in range(1, 6):  # they fail together, which counts once
        assert placement.start_failed(worker, 1.0) == []
    delays = []
    now = 1.0
    for worker in range(6, 16):
        delays.append(placement.wake - now)
        now = placement.wake
        assert placement.tick(now) == [Start(worker)]
        assert placement.start_failed(worker, now) == []
    assert delays == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, *[LAST_BACKOFF] * 4]
    now = placement.wake
    assert placement.tick(now) == [Start(16)]
    assert placement.ready(16, now) == [Assign(0, 16), *(Start(worker) for worker in range(17, 21))]


def test_draining_gives_up_what_no_worker_can_be_started_for() -> None:
    placement = new_pool(give_up_after=None)
    placement.submit(1, 0.0)
    placement.drain(1.0)
    assert placement.start_failed(1, 2.0) == [FailStart(1, 1)]


def test_workers_that_end_by_themselves_at_once_are_replaced_ever_later() -> None:
    placement = new_pool(max_workers=1, min_workers=1)
    placement.open(0.0)
    placement.ready(1, 1.0)
    assert placement.lost(1, KILLED, "died", 1.0) == [Start(2)] and not placement.is_useless
    placement.ready(2, 2.0)
    assert placement.lost(2, KILLED, "died", 2.0) == [] and placement.wake == 2.5 and placement.is_useless
    assert placement.tick(2.5) == [Start(3)]
    placement.ready(3, 3.0)
    assert placement.lost(3, KILLED, "died", 3.0) == [] and placement.wake == 4.0
    assert placement.tick(4.0) == [Start(4)]
    placement.ready(4, 5.0)
    assert placement.submit(1, 5.0) == [Assign(1, 4)]
    placement.finished(4, 1, Outcome.RETURNED, 5.0)
    assert placement.lost(4, KILLED, "died", 5.0) == [Start(5)]


def test_workers_that_end_by_themselves_after_a_long_time_are_replaced_at_once() -> None:
    placement = new_pool(max_workers=1, min_workers=1)
    placement.open(0.0)
    for worker in (1, 2, 3):
        placement.ready(worker, worker * 100.0)
        assert placement.lost(worker, KILLED, "died", worker * 100.0 + 50) == [Start(worker + 1)]


def test_closing_ends_everything() -> None:
    placement = busy_pool(RETRIES, max_workers=1, retries=TWICE)
    placement.submit(2, 1.0)
    assert placement.close("over") == [End(1, Outcome.CANCELLED, "over"), End(2, Outcome.CANCELLED, "over"), Kill(1)]
    assert placement.lost(1, KILLED, "killed", 2.0) == []
    assert not placement.inputs and not placement.workers
    assert placement.tick(301.0) == [] and placement.wake == inf


def test_alarms_of_workers_that_are_gone_do_not_pile_up() -> None:
    placement = new_pool(max_workers=1, single_use=True, timeout=86_400.0)
    placement.submit(0, 0.0)
    for number in range(1, 5000):
        placement.ready(number, number)
        placement.submit(number, number)
        placement.finished(number, number - 1, Outcome.RETURNED, number)
        placement.lost(number, Exit(code=0), "done", number)
    assert len(placement._alarms) <= 2 * FEW


def test_a_slip_of_the_keyboard_does_not_start_workers_without_end() -> None:
    placement = new_pool(max_workers=10**12, min_workers=10**12)
    assert len(placement.open(0.0)) == MOST_WORKERS
    assert placement.submit(1, 0.0) == []
