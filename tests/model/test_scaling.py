"""How many workers there are, when they come and go, and what they begin with."""

from __future__ import annotations

import pytest
from model_home import ModelHome, Scratch

from slipway.dsl.errors import InvalidError

rule = pytest.mark.rule


@rule("1.3 autoscaling")
def test_a_worker_of_one_input_is_not_used_again(home: ModelHome) -> None:
    once = home.app("scaling").once
    assert len({once.remote() for _ in range(3)}) == 3


@rule("1.3 autoscaling")
def test_there_are_at_most_so_many_workers(home: ModelHome, scratch: Scratch) -> None:
    began, end = scratch.pipe("-began"), scratch.pipe("-end")
    function = home.app("scaling").at_most_two
    calls = [function.spawn(scratch.key) for _ in range(5)]
    first = {scratch.hear(began), scratch.hear(began)}
    assert len(first) == 2
    stats = function.get_current_stats()
    assert (stats.num_total_runners, stats.num_running_inputs, stats.backlog) == (2, 2, 3)
    for _ in calls:
        scratch.say(end)
    assert {call.get(timeout=60) for call in calls} == first


@rule("1.3 autoscaling")
def test_limits_can_be_changed_while_it_runs(home: ModelHome, scratch: Scratch) -> None:
    began, end = scratch.pipe("-began"), scratch.pipe("-end")
    steered = home.app("scaling").steered
    steered.autoscaler.update(max_containers=1)
    calls = [steered.spawn(scratch.key) for _ in range(2)]
    one = scratch.hear(began)
    scratch.say(end)
    assert scratch.hear(began) == one
    scratch.say(end)
    assert {call.get(timeout=60) for call in calls} == {one}
    steered.autoscaler.update(max_containers=3)
    calls = [steered.spawn(scratch.key) for _ in range(3)]
    assert len({scratch.hear(began) for _ in calls}) == 3
    for _ in calls:
        scratch.say(end)
    with pytest.raises(InvalidError, match="max_containers"):
        steered.autoscaler.update(min_containers=4, max_containers=3)


@rule("3.7 scale to zero")
def test_workers_end_when_there_is_nothing_to_do(home: ModelHome, scratch: Scratch) -> None:
    key = scratch.pipe()
    short = home.app("scaling").Short(key=key)
    first = short.work.remote()
    assert scratch.hear(key) == first
    assert short.work.remote() != first


@rule("3.8 snapshot")
def test_what_ran_before_the_snapshot_runs_once_for_all_workers(home: ModelHome, scratch: Scratch) -> None:
    """A worker that can't be forked safely starts plainly, and then it runs again: the hook here can be."""
    began, end = scratch.pipe("-began"), scratch.pipe("-end")
    snapped = home.cls("scaling", "Snapped")(key=scratch.key)
    calls = [snapped.work.spawn() for _ in range(2)]
    owns = {scratch.hear(began), scratch.hear(began)}
    for _ in calls:
        scratch.say(end)
    found = [call.get(timeout=60) for call in calls]
    assert {snap for snap, _ in found} == {1} and {own for _, own in found} == owns and len(owns) == 2
    assert len(scratch.notes(f"{scratch.key}-snap")) == 1
    assert len(scratch.notes(f"{scratch.key}-enter")) == 2
