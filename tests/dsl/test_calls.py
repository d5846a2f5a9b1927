"""Calling functions through handles: where a call goes, what is refused before it is sent."""

from __future__ import annotations

import asyncio
import pickle
import sys
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

import cloudpickle
import pytest

import slipway
from slipway.dsl.errors import ExecutionError, InvalidError
from slipway.dsl.session import FunctionRef, Running, current_session

from .conftest import LocalRunner

app = slipway.App("calls")


@app.function()
def add(x: int, y: int = 0) -> int:
    return x + y


loosely: Any = add  # for arguments of wrong types


@app.function()
def divide(x: int) -> float:
    return 1 / x


@app.function()
async def later(x: int) -> int:
    await asyncio.sleep(0)
    return x


@app.function()
def count(n: int) -> Any:
    yield from range(n)


@app.function(volumes={"/data": slipway.Volume.from_name("data")})
def stored() -> int:
    return 1


@app.function()
def loose(*args: int, **kwargs: int) -> int:
    return sum(args) + sum(kwargs.values())


def test_remote_goes_through_the_running_app(runner: LocalRunner) -> None:
    with app.run() as running:
        assert running is app and app.app_id == "ap-1"
        assert add.remote(1, y=2) == 3
        assert asyncio.run(add.remote.aio(4)) == 4
    assert runner.session_.asked[0] == FunctionRef(app="ap-1", name="add")
    assert runner.seen == ["run calls", "end calls"]
    assert app.app_id is None and current_session.get() is None


def test_threads_reach_the_running_app(runner: LocalRunner) -> None:
    results: list[int] = []
    with app.run():
        thread = threading.Thread(target=lambda: results.append(add.remote(2, 3)))
        thread.start()
        thread.join()
    assert results == [5]


def test_async_run(runner: LocalRunner) -> None:
    async def main() -> list[int]:
        async with app.run():
            return [await add.remote.aio(1, 1), await add.remote.aio(2, 2)]

    assert asyncio.run(main()) == [2, 4]
    assert runner.seen == ["run calls", "end calls"]


def test_without_a_running_app() -> None:
    with pytest.raises(
        ExecutionError, match=r"test_calls.py:\d+: add.remote\(\) needs the app to be running"
    ) as caught:
        add.remote(1)
    assert "with app.run():" in caught.value.hint and "slipway run" in caught.value.hint


def test_called_directly() -> None:
    with pytest.raises(InvalidError, match=r"Use add.remote\(...\) to run it in a worker, or add.local"):
        add(1)


@pytest.mark.parametrize(
    ("args", "kwargs", "message"),
    [
        ((), {}, "missing a required argument: 'x'"),
        ((1, 2, 3), {}, "too many positional arguments"),
        ((1,), {"z": 2}, "unexpected keyword argument 'z'"),
    ],
)
def test_wrong_arguments_are_refused_before_sending(
    runner: LocalRunner, args: tuple[Any, ...], kwargs: dict[str, Any], message: str
) -> None:
    with app.run(), pytest.raises(TypeError, match=message) as caught:
        add.remote(*args, **kwargs)
    assert "the function is add(x, y=0)" in str(caught.value)
    assert runner.session_.asked == []


def test_loose_arguments_fit(runner: LocalRunner) -> None:
    with app.run():
        assert loose.remote(1, 2, a=3) == 6


def test_local() -> None:
    assert add.local(1, 2) == 3
    assert asyncio.run(later.local(5)) == 5
    assert asyncio.run(later.local.aio(6)) == 6
    assert asyncio.run(add.local.aio(7)) == 7
    assert list(count.local(3)) == [0, 1, 2]
    with pytest.warns(UserWarning, match="without the function's volumes"):
        assert stored.local() == 1


def test_map_is_lazy_and_zips_to_the_shortest(runner: LocalRunner) -> None:
    taken = []

    def inputs() -> Any:
        for x in range(3):
            taken.append(x)
            yield x

    with app.run():
        results = add.map(inputs(), [10, 20, 30, 40])
        assert taken == []
        assert next(results) == 10 and taken == [0]
        assert list(results) == [21, 32]
        assert list(add.map([1, 2], kwargs={"y": 5})) == [6, 7]
        assert list(add.starmap([(1, 2), (3,)])) == [3, 3]


def test_map_exceptions(runner: LocalRunner) -> None:
    with app.run():
        with pytest.raises(ZeroDivisionError):
            list(divide.map([1, 0, 2]))
        one, error, half = divide.map([1, 0, 2], return_exceptions=True)
        assert (one, half) == (1, 0.5) and isinstance(error, ZeroDivisionError)
        divide.for_each([1, 0], ignore_exceptions=True)
        with pytest.raises(ZeroDivisionError):
            divide.for_each([0])


def test_map_aio_takes_both_kinds_of_iterables(runner: LocalRunner) -> None:
    async def numbers() -> AsyncIterator[int]:
        for x in (1, 2, 3):
            yield x

    async def main() -> list[Any]:
        async with app.run():
            mapped = [r async for r in add.map.aio(numbers(), [10, 20])]
            starred = [r async for r in add.starmap.aio([(1, 2), (3, 4)])]
            await add.for_each.aio([1])
            unused = add.map.aio([1])
            await unused.aclose()
            return [mapped, starred]

    assert asyncio.run(main()) == [[11, 22], [3, 7]]


def test_a_map_that_nobody_asks_for_says_so() -> None:
    with pytest.warns(UserWarning, match="add.map.* ran nothing, because nobody asked for its results"):
        add.map([1])
    add.map([1]).close()


def test_a_map_in_a_running_loop_names_aio() -> None:
    async def main() -> None:
        add.map([1])

    with pytest.raises(InvalidError, match=r"Use add.map.aio\(...\) in async code"):
        asyncio.run(main())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: add.map(), "takes one iterable for each argument"),
        (lambda: loosely.map(3), "takes iterables, not int. For one input use add.remote"),
        (lambda: add.map([1], [2], [3]), "too many positional arguments: the function is add"),
        (lambda: add.map([1], kwargs={"z": 1}), "unexpected keyword argument 'z'"),
    ],
)
def test_map_checks_its_arguments_at_once(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        call()


def test_starmap_checks_each_input(runner: LocalRunner) -> None:
    with app.run(), pytest.raises(TypeError, match="too many positional arguments"):
        list(add.starmap([(1, 2), (1, 2, 3)]))
    with app.run(), pytest.raises(TypeError, match=r"\.py:\d+: add.starmap takes sequences .* add.map"):
        list(add.starmap([1]))  # type: ignore[list-item]  # as a user may


def test_generators_are_called_in_their_own_way(runner: LocalRunner) -> None:
    with app.run():
        assert list(count.remote_gen(3)) == [0, 1, 2]
        for call in (count.remote, count.spawn, lambda x: count.map([x]), lambda x: count.spawn_map([x])):
            with pytest.raises(InvalidError, match=r"count is a generator.*\nUse count.remote_gen"):
                call(1)
        with pytest.raises(InvalidError, match=r"add is no generator.*\nUse add.remote\("):
            add.remote_gen(1)
        with pytest.raises(TypeError, match="missing a required argument"):
            count.remote_gen()


def test_items_of_a_generator_in_async_code(runner: LocalRunner) -> None:
    async def main() -> list[int]:
        async with app.run():
            return [item async for item in count.remote_gen.aio(3)]

    assert asyncio.run(main()) == [0, 1, 2]


def test_items_that_nobody_asks_for() -> None:
    with pytest.warns(UserWarning, match=r"count.remote_gen\(...\) ran nothing, .* loop over it"):
        count.remote_gen(3)
    closed = count.remote_gen(3)
    closed.close()
    assert list(closed) == []


def test_a_blocking_call_in_a_running_loop_says_so(runner: LocalRunner) -> None:
    async def main() -> None:
        for call in (add.remote, add.spawn):
            with pytest.warns(slipway.exception.AsyncUsageWarning, match=rf"{call.what} blocks .* use {call.what}.aio"):
                call(1)
        with pytest.warns(slipway.exception.AsyncUsageWarning):
            list(count.remote_gen(1))

    with app.run():
        asyncio.run(main())


def test_a_cell_of_a_notebook_may_block(runner: LocalRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    """A notebook's own loop runs all the time, and its cells are plain code."""
    monkeypatch.setitem(sys.modules, "ipykernel", sys)

    def cell() -> list[int]:
        return [add.remote(1), *add.map([2, 3])]

    async def main() -> list[int]:
        with pytest.warns(slipway.exception.AsyncUsageWarning):
            add.remote(1)
        return cell()

    with app.run():
        assert asyncio.run(main()) == [1, 2, 3]


def test_spawned_calls_are_fetched_by_their_id(runner: LocalRunner) -> None:
    with app.run():
        call = add.spawn(1, y=2)
        assert isinstance(call, slipway.FunctionCall)
        assert [call.get(), call.get(timeout=0)] == [3, 3]
        add.spawn_map([1, 2], kwargs={"y": 1})
        many = add.experimental_spawn_map([1, 2, 3], [10, 20])
        assert (many.num_inputs(), list(many.iter()), many.get(index=1)) == (2, [11, 22], 22)

    async def main() -> list[Any]:
        async with app.run():
            one = await add.spawn.aio(5)
            await add.spawn_map.aio([1])
            more = await add.experimental_spawn_map.aio([1, 2])
            return [await one.get.aio(), [x async for x in more.iter.aio(1)], await more.num_inputs.aio()]

    assert asyncio.run(main()) == [5, [2], 2]


@pytest.mark.parametrize("name", ["get_web_url", "keep_warm", "stats"])
def test_later_parts_say_so(name: str) -> None:
    for call in (getattr(add, name), getattr(add, name).aio):
        with pytest.raises(InvalidError, match=f"Function.{name} is not in this release of Slipway"):
            call(1)


def test_variants_have_workers_of_their_own(runner: LocalRunner) -> None:
    big = add.with_options(memory=512).with_concurrency(max_inputs=4)
    assert big is not add and big.remote is not add.remote and add.variant is None
    with app.run():
        assert big.remote(1, 2) == 3
        asked = runner.session_.asked[-1]
        assert (asked.name, asked.opening()["options"]["max_inputs"]) == ("add", 4)
    again = pickle.loads(pickle.dumps(big))
    assert again.variant == big.variant and again.raw is add.raw
    assert add.with_batching(max_batch_size=2, wait_ms=10).variant is not None
    with app.run(), pytest.raises(ExecutionError, match="is a variant, which has no id"):
        big.object_id  # noqa: B018 - reading it raises


def test_ids_name_the_function_and_its_app(runner: LocalRunner) -> None:
    assert slipway.Function.from_name("search", "query").object_id == "fu-search/query"
    found = slipway.Function.from_id("fu-search/Model.embed")
    assert (repr(found), found.object_id) == ("<Function Model.embed of search>", "fu-search/Model.embed")
    with app.run():
        assert add.object_id == "fu-ap-1/add"
    with pytest.raises(ExecutionError):
        add.object_id  # noqa: B018 - reading it raises
    for wrong in ("fc-1", "fu-", "fu-search", "fu-/f"):
        with pytest.raises(InvalidError, match="is not the id of a function"):
            slipway.Function.from_id(wrong)


def test_web_functions_are_called_by_url() -> None:
    web = slipway.App("web")

    @web.function(serialized=True)
    @slipway.fastapi_endpoint()
    def hello() -> str:
        return "hello"

    with pytest.raises(InvalidError, match="hello is a web endpoint and is called by its URL"):
        hello.remote()
    assert hello.local() == "hello"


def test_looked_up_functions(runner: LocalRunner) -> None:
    runner.session_.functions["query"] = lambda q: q.upper()
    query = slipway.Function.from_name("search", "query")
    assert query.remote("a") == "A"
    assert runner.session_.asked == [FunctionRef(app="search", name="query")]
    with pytest.raises(ExecutionError, match="its code isn't here"):
        query.local("a")
    with pytest.raises(InvalidError, match=r"is a method, .*\nUse Cls.from_name\('search', 'Model'\)\(\).query"):
        slipway.Function.from_name("search", "Model.query")
    with pytest.raises(InvalidError, match="an older version"):
        slipway.Function.from_name("search", "query", version=3)


def test_handles_are_pickled_by_name(runner: LocalRunner) -> None:
    for dumps in (pickle.dumps, cloudpickle.dumps):
        assert pickle.loads(dumps(add)) is add
    with app.run():
        data = pickle.dumps(add)
        assert b"ap-1" in data
    there = pickle.loads(data)
    assert there is not add and repr(there) == "<Function add of ap-1>"
    closure = cloudpickle.loads(cloudpickle.dumps(lambda: add))
    assert closure() is add


def test_in_a_worker(in_worker: Callable[[Running], None], runner: LocalRunner) -> None:
    in_worker(Running(app_id="ap-9", session=runner.session_))
    assert not slipway.is_local()
    runner.session_.functions.update(add=add.raw)
    assert add.remote(1, 1) == 2
    assert runner.session_.asked == [FunctionRef(app="ap-9", name="add")]
    data = pickle.dumps(add)
    assert b"ap-9" in data and pickle.loads(data) is add
    other = slipway.Function.from_name("other", "add")
    other.remote(1)
    assert runner.session_.asked[-1] == FunctionRef(app="other", name="add")
    assert stored.local() == 1  # mounted here, so nothing to warn of
    with pytest.raises(InvalidError, match="while the file is being imported"):
        app.run().__enter__()


def test_included_functions_go_to_the_app_that_runs(runner: LocalRunner) -> None:
    common, whole = slipway.App("common"), slipway.App("whole")

    @common.function(serialized=True)
    def triple(x: int) -> int:
        return 3 * x

    whole.include(common)
    with whole.run():
        assert triple.remote(2) == 6
    assert runner.session_.asked == [FunctionRef(app="ap-1", name="triple")]


def test_handles_look_like_their_functions() -> None:
    assert (loosely.__name__, loosely.__module__, repr(add)) == ("add", __name__, "<Function add of calls>")
    assert add.raw_function is add.raw
    assert repr(add.remote) == "<add.remote>" and add.remote is add.remote
    assert later.is_async and not add.is_async and count.is_generator


def test_of_functions_of_one_name_a_pickle_means_that_of_its_app(in_worker: Callable[[Running], None]) -> None:
    """A file may declare several apps; a worker serves one, and knows that by its id alone."""
    first, second = slipway.App("first"), slipway.App("second")

    def same(x: int) -> int:
        return x

    functions = [one.function(serialized=True)(same) for one in (first, second)]
    in_worker(Running(app_id="ap-7", session=LocalRunner().session_))
    for function in functions:
        assert pickle.loads(pickle.dumps(function)) is function
