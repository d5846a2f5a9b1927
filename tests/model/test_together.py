"""Several inputs in one worker at a time, and batches of them."""

from __future__ import annotations

import pytest
from model_home import ModelHome

import slipway
from slipway.dsl.errors import InvalidError

rule = pytest.mark.rule


@rule("1.5 concurrent", "1.14 ids")
def test_plain_functions_run_side_by_side_in_threads(home: ModelHome) -> None:
    found = list(home.app("together").threads.map(range(3)))
    assert [x for x, *_ in found] == [0, 1, 2]
    assert len({thread for _, thread, _, _ in found}) == 3
    assert len({one for _, _, one, _ in found}) == 3 and len({call for *_, call in found}) == 1


@rule("1.5 concurrent", "8.8", "1.14 ids")
def test_async_functions_run_side_by_side_on_one_loop(home: ModelHome) -> None:
    found = list(home.app("together").tasks.map(range(3)))
    assert len({loop for _, loop, _ in found}) == 1 and len({one for *_, one in found}) == 3


@rule("3.4 one at a time")
def test_without_it_a_worker_takes_one_at_a_time(home: ModelHome) -> None:
    assert len({pid for _, pid in home.app("together").alone.map(range(10))}) == 1


@rule("1.5 concurrent")
def test_what_concurrent_refuses(home: ModelHome) -> None:
    with pytest.raises(InvalidError, match="target_inputs"):
        slipway.concurrent(max_inputs=2, target_inputs=3)
    with pytest.raises(TypeError, match="max_inputs"):
        slipway.concurrent()  # type: ignore[call-arg]
    with pytest.raises(InvalidError, match="whole class"):

        @slipway.concurrent(max_inputs=2)
        @slipway.method()
        def one(self: object) -> None: ...


@rule("8.22", "3.4 batches")
def test_each_parameter_of_a_batch_is_a_list(home: ModelHome) -> None:
    together = home.app("together")
    assert list(together.add.map([1, 2, 3], [10, 20, 30])) == [(11, 3), (22, 3), (33, 3)]
    assert list(together.add_async.map([1, 2])) == [2, 3]
    assert list(together.Batcher(step=5).add.map([1, 2])) == [6, 7]


@rule("8.22", "3.4 batches")
def test_positional_and_named_arguments_meet_in_one_batch(home: ModelHome) -> None:
    together = home.app("together")
    calls = [together.add.spawn(1, 2), together.add.spawn(3, ys=4), together.add.spawn(xs=5, ys=6)]
    assert [call.get() for call in calls] == [(3, 3), (7, 3), (11, 3)]


@rule("8.22", "3.4 batches")
def test_a_batch_must_give_a_list_of_the_same_length(home: ModelHome) -> None:
    together = home.app("together")
    for kind in ("short", "tuple"):
        found = list(together.wrong.map([kind, "other"], return_exceptions=True))
        assert [type(error) for error in found] == [InvalidError] * 2
        assert "list" in str(found[0]) and str(found[0]) == str(found[1])


@rule("8.22", "3.4 batches")
def test_one_exception_fails_all_of_a_batch(home: ModelHome) -> None:
    found = list(home.app("together").wrong.map(["a", "b"], return_exceptions=True))
    assert [type(error) for error in found] == [LookupError] * 2


@rule("8.22", "1.14 ids")
def test_a_batch_has_the_ids_of_its_first_input(home: ModelHome) -> None:
    first, second = home.app("together").ids.map([1, 2])
    assert first[:2] == second[:2] and first[0].startswith("in-")


@rule("1.5 batched")
def test_what_is_there_goes_at_once_where_nothing_lingers(home: ModelHome) -> None:
    assert home.app("together").lingers_not.remote(1) == 1


@rule("1.5 batched", "8.22")
def test_what_batched_refuses(home: ModelHome) -> None:
    for size, wait in ((0, 1), (1001, 1), (1, -1), (1, 600_001)):
        with pytest.raises(InvalidError):
            slipway.batched(max_batch_size=size, wait_ms=wait)
    with pytest.raises(InvalidError, match="default"):

        @slipway.batched(max_batch_size=2, wait_ms=0)
        def with_default(x: list[int], y: int = 1) -> None: ...

    with pytest.raises(InvalidError, match="generator"):

        @slipway.batched(max_batch_size=2, wait_ms=0)
        def generator(x: list[int]) -> object:
            yield x

    app = slipway.App("refused")
    with pytest.raises(InvalidError, match="batched"):

        @app.cls(serialized=True)
        class Two:
            @slipway.batched(max_batch_size=2, wait_ms=0)
            def one(self, x: list[int]) -> None: ...

            @slipway.method()
            def two(self) -> None: ...


@rule("1.5 order of decorators")
def test_decorators_stand_below_the_apps(home: ModelHome) -> None:
    app = slipway.App("refused")
    with pytest.raises(InvalidError, match="below"):

        @slipway.concurrent(max_inputs=2)
        @app.function(serialized=True)
        def reversed_() -> None: ...
