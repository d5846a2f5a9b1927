"""Retries, timeouts, cancellation, and workers that are lost."""

from __future__ import annotations

import signal

import pytest
from model_home import ModelHome, Scratch

import slipway
from slipway import exception
from slipway.dsl.errors import InvalidError

rule = pytest.mark.rule


@rule("1.6 retries", "8.12")
def test_retries_count_and_each_waits_a_second(home: ModelHome, scratch: Scratch) -> None:
    attempts = home.app("attempts")
    assert attempts.fails_first.remote(scratch.key, 1) == 2
    first, second = map(float, scratch.notes())
    assert second - first >= 1.0
    with pytest.raises(ValueError, match="attempt 3"):
        attempts.fails_first.remote(f"{scratch.key}-all", 9)
    assert len(scratch.notes(f"{scratch.key}-all")) == 3


@rule("1.6 retries", "8.12")
def test_no_delay_is_shorter_than_a_second(home: ModelHome, scratch: Scratch) -> None:
    assert home.app("attempts").fails_first_by_policy.remote(scratch.key) == 2
    first, second = map(float, scratch.notes())
    assert second - first >= 1.0


@rule("1.6 retries")
def test_without_a_policy_nothing_is_tried_again(home: ModelHome, scratch: Scratch) -> None:
    with pytest.raises(ValueError, match="attempt 1"):
        home.app("attempts").fails_without_policy.remote(scratch.key)
    assert len(scratch.notes()) == 1


@rule("1.6 retries", "3.3 spawned retries")
def test_maps_and_spawned_calls_are_retried_too(home: ModelHome, scratch: Scratch) -> None:
    attempts = home.app("attempts")
    call = attempts.fails_first.spawn(f"{scratch.key}-spawn", 1)
    assert list(attempts.fails_first.map([f"{scratch.key}-map"], [1])) == [2]
    assert call.get() == 2


@rule("1.6 ranges")
def test_what_retries_refuses(home: ModelHome) -> None:
    for wrong in (
        {"max_retries": -1},
        {"max_retries": 1, "backoff_coefficient": 0.5},
        {"max_retries": 1, "backoff_coefficient": 10.5},
        {"max_retries": 1, "initial_delay": 61.0},
        {"max_retries": 1, "max_delay": 0.5},
        {"max_retries": 1, "max_delay": 61.0},
    ):
        with pytest.raises(InvalidError):
            slipway.Retries(**wrong)


@rule("1.1 no retries", "8.12")
def test_web_endpoints_are_not_retried(home: ModelHome) -> None:
    app = slipway.App("refused")
    with pytest.raises(InvalidError, match="retries"):

        @app.function(retries=1, serialized=True)
        @slipway.asgi_app()
        def web() -> object: ...


@rule("8.12", "1.6 timeout per attempt")
def test_each_attempt_has_the_whole_timeout(home: ModelHome, scratch: Scratch) -> None:
    assert home.app("attempts").slow_first.remote(scratch.key) == 2


@rule("3.5 timeout")
def test_a_timeout_ends_the_attempt(home: ModelHome) -> None:
    attempts = home.app("attempts")
    for function in (attempts.too_slow, attempts.too_slow_async, attempts.deaf):
        with pytest.raises(exception.FunctionTimeoutError, match="1 s"):
            function.remote()


@rule("8.9", "8.12", "3.4 cancellation")
def test_cancelled_sync_code_gets_input_cancellation_on_the_main_thread(home: ModelHome, scratch: Scratch) -> None:
    key = scratch.pipe()
    call = home.function("attempts", "waits").spawn(key)
    assert scratch.hear(key) == "began"
    call.cancel()
    assert scratch.hear(key) == "cancelled"
    with pytest.raises(exception.RemoteError):
        call.get(timeout=60)
    assert scratch.notes(f"{key}-notes") == ["attempt", "InputCancellation, on the main thread"]


@rule("8.9", "8.12", "3.4 cancellation")
def test_cancelled_async_code_gets_cancelled_error(home: ModelHome, scratch: Scratch) -> None:
    key = scratch.pipe()
    call = home.function("attempts", "waits_async").spawn(key)
    assert scratch.hear(key) == "began"
    call.cancel()
    assert scratch.hear(key) == "cancelled"
    with pytest.raises(exception.RemoteError):
        call.get(timeout=60)
    assert scratch.notes(f"{key}-notes") == ["attempt", "CancelledError"]


@rule("8.9", "3.4 cancellation")
def test_cancelling_one_of_several_sync_inputs_ends_the_worker_and_the_others_run_again(
    home: ModelHome, scratch: Scratch
) -> None:
    key = scratch.pipe()
    function = home.function("attempts", "waits_with_another")
    good, bad = function.spawn(key, "good"), function.spawn(key, "bad")
    assert {scratch.hear(key), scratch.hear(key)} == {"good began", "bad began"}
    bad.cancel()
    assert good.get(timeout=60) == "ran again"
    with pytest.raises(exception.RemoteError):
        bad.get(timeout=60)
    assert len(scratch.notes(f"{key}-good")) == 2 and len(scratch.notes(f"{key}-bad")) == 1


@rule("3.4 cancellation")
def test_code_that_ignores_its_cancellation_is_ended(home: ModelHome, scratch: Scratch) -> None:
    key = scratch.pipe()
    call = home.function("attempts", "deaf_to_cancellation").spawn(key)
    assert scratch.hear(key) == "began"
    call.cancel()
    with pytest.raises(exception.RemoteError):
        call.get(timeout=60)


@rule("3.4 cancellation")
def test_a_call_is_cancelled_with_its_worker(home: ModelHome, scratch: Scratch) -> None:
    key = scratch.pipe()
    call = home.function("attempts", "waits").spawn(key)
    assert scratch.hear(key) == "began"
    call.cancel(terminate_containers=True)
    with pytest.raises(exception.RemoteError):
        call.get(timeout=60)
    assert scratch.notes(f"{key}-notes").count("attempt") == 1


@rule("1.17 InputCancellation")
def test_input_cancellation_is_no_exception(home: ModelHome) -> None:
    assert not issubclass(exception.InputCancellation, Exception)


@rule("8.12", "3.9")
def test_a_lost_worker_costs_no_retry(home: ModelHome, scratch: Scratch) -> None:
    for number in (signal.SIGKILL, signal.SIGTERM):
        assert home.app("attempts").killed_first.remote(f"{scratch.key}-{number}", int(number)) == 2


@rule("3.4 SystemExit")
def test_system_exit_is_a_failure_of_the_call(home: ModelHome) -> None:
    with pytest.raises(SystemExit, match="enough"):
        home.app("attempts").leave.remote("enough")


@rule("3.5 typed reasons")
@pytest.mark.parametrize(
    ("how", "says"), [("segfault", "signal 11"), ("abort", "signal 6"), ("exit", "exited with code 3")]
)
def test_a_worker_that_dies_of_its_input_says_of_what(home: ModelHome, how: str, says: str) -> None:
    with pytest.raises(exception.RemoteError, match=says):
        home.app("attempts").crash.remote(how)


@rule("3.5 typed reasons")
def test_a_worker_that_ran_out_of_memory_says_so(home: ModelHome) -> None:
    plan = home.app("attempts")
    assert plan.eat.remote(1) == 1 << 20
    with pytest.raises(exception.RemoteError, match="out of memory"):
        plan.eat.remote(1000)
