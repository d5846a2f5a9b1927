"""Generators: items that come one by one."""

from __future__ import annotations

import asyncio
import gc
import itertools

import pytest
from model_home import ModelHome, Scratch

import slipway
from slipway.dsl.errors import InvalidError

rule = pytest.mark.rule


@rule("1.3 remote_gen", "8.24")
def test_every_item_comes_once_and_in_order(home: ModelHome) -> None:
    generators = home.app("generators")
    assert list(generators.count.remote_gen(1000)) == list(range(1000))
    assert list(generators.count_async.remote_gen(10)) == list(range(10))
    assert list(generators.count.remote_gen(0)) == []
    assert list(generators.said_to_be.remote_gen()) == [0, 1, 2]


@rule("1.3 remote_gen", "1.0 both ways")
def test_items_in_async_code(home: ModelHome) -> None:
    generators = home.app("generators")

    async def main() -> list[int]:
        plain = [x async for x in generators.count.remote_gen.aio(3)]
        return plain + [x async for x in generators.count_async.remote_gen.aio(3)]

    assert asyncio.run(main()) == [0, 1, 2, 0, 1, 2]


@rule("3.4 generators")
def test_big_items(home: ModelHome) -> None:
    size = 3 << 20
    assert [(len(x), x[0]) for x in home.app("generators").big.remote_gen(3, size)] == [(size, n) for n in range(3)]


@rule("8.24", "3.4 generators")
def test_a_consumer_that_stops_early_ends_the_generator(home: ModelHome, scratch: Scratch) -> None:
    generators = home.app("generators")
    for function, key in ((generators.for_ever, scratch.pipe("a")), (generators.for_ever_async, scratch.pipe("b"))):
        items = function.remote_gen(key)
        assert list(itertools.islice(items, 3)) == [0, 1, 2]
        items.close()
        assert scratch.hear(key) == "ended"


@rule("8.24")
def test_an_async_consumer_that_stops_early_ends_the_generator(home: ModelHome, scratch: Scratch) -> None:
    key = scratch.pipe()

    async def main() -> int:
        items = home.app("generators").for_ever.remote_gen.aio(key)
        async for item in items:
            if item == 2:
                await items.aclose()
                return int(item)
        return -1

    assert asyncio.run(main()) == 2
    assert scratch.hear(key) == "ended"


@rule("3.4 generators")
def test_a_slow_consumer_holds_the_generator_back(home: ModelHome, scratch: Scratch) -> None:
    key = scratch.pipe()
    items = home.app("generators").for_ever.remote_gen(key)
    assert next(items) == 0
    items.close()
    assert scratch.hear(key) == "ended"
    assert int((scratch.notes(f"{key}-notes") or ["0"])[-1]) <= 2000


@rule("8.24", "8.20")
def test_what_a_generator_raises_comes_after_its_items(home: ModelHome) -> None:
    items = home.app("generators").fail_after.remote_gen(2)
    assert [next(items), next(items)] == [0, 1]
    with pytest.raises(LookupError, match="after 2"):
        next(items)


@rule("1.3 remote_gen")
def test_each_kind_of_function_has_its_way(home: ModelHome) -> None:
    generators = home.app("generators")
    with pytest.raises(InvalidError, match="remote_gen"):
        generators.count.remote(1)
    with pytest.raises(InvalidError, match=r"\.remote"):
        generators.plain.remote_gen()


@rule("1.3 remote_gen")
def test_a_generator_that_nobody_iterates_warns(home: ModelHome) -> None:
    items = home.app("generators").count.remote_gen(1)
    with pytest.warns(UserWarning, match="remote_gen"):
        del items
        gc.collect()


@rule("3.4 type checks")
def test_a_plain_function_returns_no_generator(home: ModelHome) -> None:
    with pytest.raises(InvalidError, match="is_generator=True"):
        home.app("generators").returns_a_generator.remote()


@rule("8.24", "8.12", "1.1 no retries")
def test_generators_are_not_retried(home: ModelHome) -> None:
    app = slipway.App("refused")
    with pytest.raises(InvalidError, match="retries"):

        @app.function(retries=1, serialized=True)
        def numbers() -> object:
            yield 1


@rule("8.19")
def test_a_generator_is_consumed_in_a_worker(home: ModelHome) -> None:
    assert home.app("generators").total.remote(10) == 45
