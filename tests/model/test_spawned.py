"""Calls that outlive their caller, and the handles to them."""

from __future__ import annotations

import asyncio
import builtins

import pytest
from model_home import ModelHome, Scratch

import slipway
from slipway import exception
from slipway.dsl.errors import InvalidError, NotFoundError

rule = pytest.mark.rule


@rule("8.2", "1.3 get times out", "1.17 TimeoutError")
def test_get_raises_the_builtin_timeout_error(home: ModelHome, scratch: Scratch) -> None:
    key = scratch.pipe()
    call = home.function("spawned", "wait").spawn(key)
    assert isinstance(call, slipway.FunctionCall) and call.object_id.startswith("fc-")
    for timeout in (0, 0.01):
        with pytest.raises(builtins.TimeoutError) as caught:
            call.get(timeout=timeout)
        assert not isinstance(caught.value, exception.Error)
    scratch.say(key, "done")
    assert call.get(timeout=60) == "done"


@rule("8.2")
def test_a_result_can_be_read_again_and_by_anybody(home: ModelHome) -> None:
    call = home.function("spawned", "square").spawn(7)
    assert [call.get(), call.get(), call.get(timeout=0)] == [49] * 3
    assert slipway.FunctionCall.from_id(call.object_id).get() == 49
    asking = f"import slipway; print(slipway.FunctionCall.from_id({call.object_id!r}).get())"
    assert home.python(home.write({}), "-c", asking).out == "49\n"


@rule("8.2", "8.20")
def test_a_failure_is_raised_as_itself_each_time(home: ModelHome) -> None:
    call = home.function("spawned", "fail").spawn("gone")
    for _ in range(2):
        with pytest.raises(KeyError, match="gone"):
            call.get()


@rule("1.3 spawn")
def test_a_spawned_call_outlives_its_caller(home: ModelHome, scratch: Scratch) -> None:
    key = scratch.pipe()
    home.deploy("spawned")
    program = f"import slipway; print(slipway.Function.from_name('spawned', 'wait').spawn({key!r}).object_id)"
    ident = home.python(home.write({}), "-c", program).out.strip()
    scratch.say(key, "still here")
    assert slipway.FunctionCall.from_id(ident).get(timeout=60) == "still here"


@rule("1.3 spawn")
def test_generators_are_not_spawned(home: ModelHome) -> None:
    with pytest.raises(InvalidError, match="generator"):
        home.app("spawned").generate.spawn()


@rule("1.3 from_id")
def test_a_call_that_is_not_there_is_found_out_at_use(home: ModelHome) -> None:
    call = slipway.FunctionCall.from_id("fc-ffffffffffff")
    with pytest.raises(NotFoundError):
        call.get(timeout=0)


@rule("1.3 gather")
def test_gather_gives_all_or_raises_the_first_failure(home: ModelHome, scratch: Scratch) -> None:
    square, fail = home.function("spawned", "square"), home.function("spawned", "fail")
    assert slipway.FunctionCall.gather(square.spawn(2), square.spawn(3)) == [4, 9]
    key = scratch.pipe()
    waiting = home.function("spawned", "wait").spawn(key)
    with pytest.raises(KeyError, match="early"):
        slipway.FunctionCall.gather(waiting, fail.spawn("early"))
    scratch.say(key, "went on")
    assert waiting.get(timeout=60) == "went on"


@rule("1.3 gather", "1.0 both ways")
def test_handles_have_their_twins(home: ModelHome) -> None:
    square = home.function("spawned", "square")

    async def main() -> list[int]:
        first, second = await square.spawn.aio(4), await square.spawn.aio(5)
        found: list[int] = await slipway.FunctionCall.gather.aio(first, second)
        return [*found, await first.get.aio(), await second.get.aio(timeout=5)]

    assert asyncio.run(main()) == [16, 25, 16, 25]


@rule("1.3 call graph")
def test_the_graph_of_a_call_shows_the_calls_that_it_made(home: ModelHome) -> None:
    call = home.function("spawned", "parent").spawn(3)
    assert call.get() == 25
    (top,) = call.get_call_graph()
    assert top.function_call_id == call.object_id
    assert [child.function_name for child in top.children] == ["square", "square"]
