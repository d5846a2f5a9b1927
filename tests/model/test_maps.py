"""Maps: one function, many inputs."""

from __future__ import annotations

import asyncio
import gc
import itertools
import threading
from collections.abc import AsyncIterator, Iterator

import pytest
from model_home import ModelHome, Scratch

import slipway
from slipway.dsl.errors import InvalidError

rule = pytest.mark.rule


@rule("8.1", "1.3 lazy map")
def test_a_map_does_nothing_until_it_is_iterated(home: ModelHome) -> None:
    asked: list[int] = []

    def inputs() -> Iterator[int]:
        asked.append(1)
        yield 1

    results = home.app("maps").add.map(inputs())
    assert asked == []
    assert list(results) == [1] and asked == [1]


@rule("8.1", "1.3 lazy map")
def test_a_map_that_nobody_iterates_warns(home: ModelHome) -> None:
    results = home.app("maps").add.map([1])
    with pytest.warns(UserWarning, match=r"add\.map.*nothing.*for_each"):
        del results
        gc.collect()


@rule("8.1")
def test_iterables_are_taken_side_by_side_to_the_shortest(home: ModelHome) -> None:
    maps = home.app("maps")
    assert list(maps.add.map([1, 2, 3], itertools.count(10))) == [11, 13, 15]
    assert list(maps.add.map([], [1])) == []
    assert list(maps.add.starmap([(1,), (2, 3)])) == [1, 5]


@rule("8.1")
def test_keyword_arguments_go_to_every_input(home: ModelHome) -> None:
    maps = home.app("maps")
    assert list(maps.add.map([1, 2], kwargs={"plus": 100})) == [101, 102]
    assert list(maps.add.starmap([(1, 1)], kwargs={"plus": 100})) == [102]


@rule("8.1")
def test_results_come_in_the_order_of_the_inputs(home: ModelHome, scratch: Scratch) -> None:
    key = scratch.pipe()
    maps = home.app("maps")
    taken = []

    def inputs() -> Iterator[int]:
        for number in range(4):
            taken.append(number)
            yield number
        scratch.say(key)  # the first may end only when all are on their way

    assert list(maps.in_turn.map(inputs(), kwargs={"key": key})) == [0, 1, 2, 3]


@rule("8.1")
def test_unordered_results_come_as_they_are_done(home: ModelHome, scratch: Scratch) -> None:
    key = scratch.pipe()
    found = []
    for result in home.app("maps").in_turn.map(range(4), kwargs={"key": key}, order_outputs=False):
        found.append(result)
        if len(found) == 3:
            scratch.say(key)
    assert found[-1] == 0 and sorted(found) == [0, 1, 2, 3]


@rule("8.1", "1.3 first failure")
def test_the_first_failure_is_raised_when_it_is_reached(home: ModelHome) -> None:
    results = iter(home.app("maps").refuse.map(range(10), kwargs={"bad": 2}))
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(ValueError, match="not 2"):
        next(results)
    with pytest.raises(StopIteration):
        next(results)


@rule("8.1")
def test_exceptions_are_given_bare_where_that_is_asked_for(home: ModelHome) -> None:
    first, second, third = home.app("maps").refuse.map(range(3), kwargs={"bad": 1}, return_exceptions=True)
    assert (first, third) == (0, 2)
    assert type(second) is ValueError and str(second) == "not 1"


@rule("1.3 for_each")
def test_for_each_waits_for_all_and_gives_nothing(home: ModelHome, scratch: Scratch) -> None:
    maps = home.app("maps")
    assert maps.note.for_each(range(5), kwargs={"key": scratch.key}) is None
    assert sorted(scratch.notes()) == ["0", "1", "2", "3", "4"]
    with pytest.raises(ValueError, match="not 1"):
        maps.refuse.for_each([1], kwargs={"bad": 1})
    assert maps.refuse.for_each([1], kwargs={"bad": 1}, ignore_exceptions=True) is None


@rule("1.3 early stop")
def test_a_consumer_that_stops_early_cancels_what_has_not_begun(home: ModelHome, scratch: Scratch) -> None:
    began, end = scratch.pipe("-began"), scratch.pipe("-end")
    maps = home.app("maps")
    results = iter(maps.hold.map(range(20), kwargs={"key": scratch.key}))
    scratch.say(end)
    assert next(results) == 0
    results.close()
    assert [maps.add.remote(x) for x in range(20)] == list(range(20))  # the engine and the worker have heard of it
    for _ in range(8):  # one that began meanwhile may go on, a few may be on their way, then ours is next
        scratch.say(end)
    maps.hold.remote(99, scratch.key)
    notes = scratch.notes(f"{scratch.key}-notes")
    assert scratch.hear(began) == "0" and notes[-1] == "99" and len(notes) <= 9


@rule("1.3 early stop", "3.3 window")
def test_a_map_takes_no_more_inputs_than_a_window(home: ModelHome) -> None:
    taken = itertools.count()
    results = home.app("maps").add.map(taken)
    assert list(itertools.islice(results, 3)) == [0, 1, 2]
    results.close()
    assert next(taken) <= 5000


@rule("1.0 user iterators")
def test_async_iterables_are_taken_on_the_callers_loop(home: ModelHome) -> None:
    maps = home.app("maps")
    where = set()

    async def inputs() -> AsyncIterator[int]:
        for number in range(3):
            where.add((threading.current_thread(), asyncio.get_running_loop()))
            yield number

    async def main() -> list[int]:
        here = {(threading.current_thread(), asyncio.get_running_loop())}
        found = [x async for x in maps.add.map.aio(inputs(), [10, 10, 10])]
        await maps.add.for_each.aio(inputs())
        assert where == here
        return found

    assert asyncio.run(main()) == [10, 11, 12]


@rule("1.3 async map")
def test_a_blocking_map_in_async_code_names_the_other_way(home: ModelHome) -> None:
    maps = home.app("maps")

    async def main() -> None:
        with pytest.raises(InvalidError, match=r"add\.map\.aio"):
            list(maps.add.map([1]))

    asyncio.run(main())
    assert maps.map_in_a_loop.remote(False) == [1, 2]
    with pytest.raises(InvalidError, match=r"add\.map\.aio"):
        maps.map_in_a_loop.remote(True)


@rule("1.3 generators are not mapped")
def test_generators_are_not_mapped(home: ModelHome) -> None:
    maps = home.app("maps")
    for way in (maps.generate.map, maps.generate.starmap, maps.generate.for_each, maps.generate.spawn_map):
        with pytest.raises(InvalidError, match="generator"):
            way([[1]])


@rule("1.3 spawn_map")
def test_spawn_map_starts_all_and_gives_no_handle(home: ModelHome, scratch: Scratch) -> None:
    key = scratch.pipe("-began")
    end = scratch.pipe("-end")
    assert home.app("maps").hold.spawn_map(range(3), kwargs={"key": scratch.key}) is None
    for _ in range(3):
        scratch.say(end)
    assert {scratch.hear(key) for _ in range(3)} == {"0", "1", "2"}


@rule("1.3 experimental_spawn_map")
def test_experimental_spawn_map_is_one_call_of_many_inputs(home: ModelHome) -> None:
    call = home.app("maps").add.experimental_spawn_map(range(4), kwargs={"plus": 10})
    assert isinstance(call, slipway.FunctionCall) and call.num_inputs() == 4
    assert (call.get(index=2), list(call.iter()), list(call.iter(1, 3))) == (12, [10, 11, 12, 13], [11, 12])
