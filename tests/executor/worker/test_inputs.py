"""Generators, batches, several inputs at a time, and orders about them, in a real worker."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from worker_rig import Rig, Unsuccessful, worker

from slipway.dsl.errors import DeserializationError, InvalidError, SerializationError
from slipway.executor.worker.credit import MOST_BYTES, MOST_ITEMS
from slipway.executor.worker.frames import Flag, Outcome
from slipway.executor.worker.payload import IN_MEMFD

CODE = """
import asyncio, os, sys, threading, time
import slipway
from slipway.dsl.errors import InputCancellation

def count(n, fail_at=None):
    try:
        for i in range(n):
            if i == fail_at:
                raise LookupError("half way")
            yield i
    finally:
        print("closed")

async def count_async(n, fail_at=None):
    try:
        for i in range(n):
            await asyncio.sleep(0)
            if i == fail_at:
                raise LookupError("half way")
            yield i
    finally:
        await asyncio.sleep(0)
        print("closed")

def naps(seconds):
    try:
        yield "first"
        print("napping", flush=True)
        time.sleep(seconds)
    finally:
        print("closed")

async def naps_async(seconds):
    try:
        yield "first"
        print("napping", flush=True)
        await asyncio.sleep(seconds)
    finally:
        print("closed")

def squares(n):
    return map(lambda i: i * i, range(n))

async def squares_async(n):
    return count_async(n)

def not_one(n):
    return n

def big(n, size):
    import numpy
    for i in range(n):
        yield numpy.full(size, i, dtype="uint8")

def unpicklable(n):
    yield 1
    yield threading.Lock()

def shows(n):
    for i in range(n):
        print("item", i)
        yield i

def add(xs, ys, *, z):
    print("batch", len(xs), slipway.current_input_id(), slipway.current_function_call_id())
    return [x + y + w for x, y, w in zip(xs, ys, z)]

async def add_async(xs):
    await asyncio.sleep(0)
    return [x + 1 for x in xs]

def wrong(how):
    if how[0] == "tuple":
        return tuple(how)
    if how[0] == "short":
        return how[1:]
    if how[0] == "lock":
        return [threading.Lock() if one == "lock" else one for one in how]
    raise LookupError(how)

def naps_together(seconds):
    print("napping", flush=True)
    time.sleep(seconds[0])
    return seconds

meeting = threading.Barrier(3)
def meets(name):
    print(name, end=" ")
    meeting.wait(20)
    print("met", slipway.current_input_id(), slipway.current_function_call_id())
    return name

async def meets_async(name):
    print(name, end=" ")
    await asyncio.sleep(0.01)
    print("met", slipway.current_input_id(), slipway.current_function_call_id())
    return name

def nap(seconds):
    print("napping", flush=True)
    time.sleep(seconds)
    return seconds

async def nap_async(seconds):
    print("napping", flush=True)
    await asyncio.sleep(seconds)
    return seconds

def stubborn(seconds):
    try:
        nap(seconds)
    except InputCancellation:
        raise ValueError("while cleaning up")

def quits(how):
    raise {"interrupt": KeyboardInterrupt, "exit": GeneratorExit}[how]

async def quits_async(how):
    quits(how)

def whole(x):
    return x
"""
BOTH = ("count", "count_async")


def of(tmp_path: Path, name: str, **start: Any) -> Any:
    return worker(tmp_path, CODE, name, is_async=name.endswith("_async"), **start)


# --- generators ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", BOTH)
def test_items_come_in_order_and_then_their_number(tmp_path: Path, name: str) -> None:
    with of(tmp_path, name, is_generator=True) as rig:
        assert list(rig.items(rig.begin(1000))) == list(range(1000))
        assert list(rig.items(rig.begin(0))) == []
        assert rig.hang_up() == 0


@pytest.mark.parametrize("name", BOTH)
def test_a_generator_is_ahead_of_its_consumer_by_no_more_than_the_window(tmp_path: Path, name: str) -> None:
    with of(tmp_path, name, is_generator=True) as rig:
        number = rig.begin(MOST_ITEMS + 10)
        items = rig.items(number, take=False)
        assert [next(items) for _ in range(MOST_ITEMS)] == list(range(MOST_ITEMS))
        assert rig.still()
        rig.taken(number, 3)
        assert [next(items) for _ in range(3)] == [MOST_ITEMS, MOST_ITEMS + 1, MOST_ITEMS + 2]
        assert rig.still()
        rig.taken(number, MOST_ITEMS)
        assert len(list(items)) == 7


@pytest.mark.parametrize("name", BOTH)
def test_what_it_raises_comes_after_its_items(tmp_path: Path, name: str) -> None:
    with of(tmp_path, name, is_generator=True) as rig:
        items = rig.items(rig.begin(10, fail_at=2))
        assert [next(items), next(items)] == [0, 1]
        with pytest.raises(LookupError, match="half way"):
            next(items)
        assert list(rig.items(rig.begin(2))) == [0, 1]


@pytest.mark.parametrize("name", BOTH)
def test_given_up_it_is_closed_where_it_waits_for_its_consumer(tmp_path: Path, name: str) -> None:
    with of(tmp_path, name, is_generator=True) as rig:
        number = rig.begin(1 << 20)
        items = rig.items(number, take=False)
        for _ in range(MOST_ITEMS):
            next(items)
        rig.cancel(number)
        with pytest.raises(Unsuccessful) as ended:
            next(items)
        assert ended.value.outcome == Outcome.CANCELLED
        rig.said("closed")
        assert list(rig.items(rig.begin(2))) == [0, 1]


@pytest.mark.parametrize("name", ["naps", "naps_async"])
def test_given_up_it_is_closed_where_it_works(tmp_path: Path, name: str) -> None:
    with of(tmp_path, name, is_generator=True) as rig:
        number = rig.begin(60)
        items = rig.items(number)
        assert next(items) == "first"
        rig.said("napping")
        rig.cancel(number)
        with pytest.raises(Unsuccessful) as ended:
            next(items)
        assert ended.value.outcome == Outcome.CANCELLED
        rig.said("closed")


def test_given_up_in_a_thread_it_is_closed_between_two_items(tmp_path: Path) -> None:
    with of(tmp_path, "count", is_generator=True, concurrency=2) as rig:
        number, other = rig.begin(1 << 20), rig.begin(3)
        items = rig.items(number, take=False)
        assert next(items) == 0
        rig.cancel(number)
        with pytest.raises(Unsuccessful):
            list(items)
        assert list(rig.items(other)) == [0, 1, 2]


@pytest.mark.parametrize("name", ["squares", "squares_async"])
def test_an_iterator_is_a_generator_where_the_declaration_says_so(tmp_path: Path, name: str) -> None:
    with of(tmp_path, name, is_generator=True) as rig:
        assert len(list(rig.items(rig.begin(5)))) == 5


def test_what_is_no_iterator_is_refused(tmp_path: Path) -> None:
    with of(tmp_path, "not_one", is_generator=True) as rig, pytest.raises(InvalidError, match="returned a int"):
        rig.call(3)


def test_big_items_travel_in_memory_of_their_own_and_count_by_their_size(tmp_path: Path) -> None:
    size = MOST_BYTES // 4 + IN_MEMFD
    with of(tmp_path, "big", is_generator=True) as rig:
        number = rig.begin(5, size)
        first, _ = rig.answer(number)
        assert first.flags & Flag.FD
        for _ in range(3):
            rig.answer(number)
        assert rig.still()
        rig.taken(number, 2)
        frame, value = rig.answer(number)
        assert np.array_equal(value, np.full(size, 4, dtype="uint8")) and frame.channel == 4


def test_an_item_that_cannot_be_pickled_is_said(tmp_path: Path) -> None:
    with of(tmp_path, "unpicklable", is_generator=True) as rig:
        items = rig.items(rig.begin(2))
        assert next(items) == 1
        with pytest.raises(SerializationError, match="item 1 of unpicklable"):
            next(items)


def test_lines_come_before_the_item_that_they_were_printed_for(tmp_path: Path) -> None:
    with of(tmp_path, "shows", is_generator=True) as rig:
        number = rig.begin(2)
        frame, _ = rig.answer(number)
        assert frame.flags & Flag.OUTPUT
        assert rig.printed()[0] == (1, number, "item 0")


# --- batches ------------------------------------------------------------------------------------------


def test_a_batch_is_one_call_with_lists(tmp_path: Path) -> None:
    with of(tmp_path, "add", batched=True) as rig:
        one = rig.send((1, 2), {"z": 3}, more=True, call=77)
        two = rig.send((10,), {"z": 30, "ys": 20})
        assert (rig.result(one), rig.result(two)) == (6, 60)
        assert rig.printed() == [(1, one, f"batch 2 in-{one:x} fc-4d")]
        alone = rig.send((1, 1), {"z": 1})
        assert rig.result(alone) == 3


def test_an_async_batch(tmp_path: Path) -> None:
    with of(tmp_path, "add_async", batched=True) as rig:
        assert [rig.result(number) for number in rig.batch((1,), (2,), (3,))] == [2, 3, 4]


@pytest.mark.parametrize(
    ("inputs", "kind", "says"),
    [
        ((("tuple",), ("b",)), InvalidError, "returned a tuple"),
        ((("short",), ("b",)), InvalidError, "a batch of 2 and returned 1"),
        ((("else",), ("b",)), LookupError, "else"),
        ((("a", "b"), ("c",)), InvalidError, "doesn't fit wrong"),
        (((), ("c",)), InvalidError, "missing a required argument"),
    ],
)
def test_what_goes_wrong_with_a_batch_goes_wrong_with_each_of_its_inputs(
    tmp_path: Path, inputs: Any, kind: type[Exception], says: str
) -> None:
    with of(tmp_path, "wrong", batched=True) as rig:
        for number in rig.batch(*inputs):
            with pytest.raises(kind, match=says):
                rig.result(number)


def test_one_result_that_cannot_be_pickled_is_one_inputs_failure(tmp_path: Path) -> None:
    with of(tmp_path, "wrong", batched=True) as rig:
        lock, fine = rig.batch(("lock",), ("fine",))
        with pytest.raises(SerializationError):
            rig.result(lock)
        assert rig.result(fine) == "fine"


def test_one_input_that_cannot_be_read_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import types

    module = types.ModuleType("only_at_the_caller")
    exec("class Thing: pass", module.__dict__)
    monkeypatch.setitem(sys.modules, "only_at_the_caller", module)
    with of(tmp_path, "add_async", batched=True) as rig:
        bad, good = rig.batch((module.Thing(),), (1,))
        with pytest.raises(DeserializationError):
            rig.result(bad)
        assert rig.result(good) == 2
        with pytest.raises(DeserializationError):
            rig.call(module.Thing())


def test_a_batch_is_given_up_as_a_whole(tmp_path: Path) -> None:
    with of(tmp_path, "naps_together", batched=True) as rig:
        numbers = rig.batch((60,), (60,))
        rig.said("napping")
        rig.cancel(numbers[1])
        for number in numbers:
            with pytest.raises(Unsuccessful) as ended:
                rig.result(number)
            assert ended.value.outcome == Outcome.CANCELLED
        assert rig.call(0) == 0


# --- several at a time --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["meets", "meets_async"])
def test_inputs_at_the_same_time_have_ids_and_lines_of_their_own(tmp_path: Path, name: str) -> None:
    with of(tmp_path, name, concurrency=3) as rig:
        numbers = {word: rig.send((word,), call=0x100 + place) for place, word in enumerate(("ab", "cd", "ef"))}
        assert [rig.result(number) for number in numbers.values()] == ["ab", "cd", "ef"]
        want = [
            (1, number, f"{word} met in-{number:x} fc-{0x100 + place:x}")
            for place, (word, number) in enumerate(numbers.items())
        ]
        assert sorted(rig.printed()) == sorted(want)


# --- orders -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["nap", "nap_async"])
def test_an_order_that_overtakes_its_input_holds(tmp_path: Path, name: str) -> None:
    with of(tmp_path, name) as rig:
        rig.cancel(101, sequence=2)
        assert not rig.recall(100, sequence=0), "orders are obeyed one after the other: this one has been"
        assert rig.call(0) == 0
        number = rig.begin(60)
        with pytest.raises(Unsuccessful) as ended:
            rig.result(number)
        assert ended.value.outcome == Outcome.CANCELLED
        assert rig.call(0) == 0


@pytest.mark.parametrize("name", ["nap", "nap_async"])
def test_an_input_that_waits_is_given_back_and_one_that_runs_is_not(tmp_path: Path, name: str) -> None:
    with of(tmp_path, name) as rig:
        first, second = rig.begin(60), rig.begin(60)
        rig.said("napping")
        assert rig.recall(second, sequence=2)
        assert not rig.recall(first, sequence=1)
        rig.cancel(first, sequence=1)
        with pytest.raises(Unsuccessful):
            rig.result(first)
        assert rig.call(0) == 0 and rig.still()


def test_a_late_order_hits_no_other_input(tmp_path: Path) -> None:
    with of(tmp_path, "nap") as rig:
        done = rig.begin(0)
        assert rig.result(done) == 0
        rig.cancel(done, sequence=1)
        assert [rig.call(0) for _ in range(3)] == [0, 0, 0]


def test_what_goes_wrong_while_code_is_given_up_is_in_the_log(tmp_path: Path) -> None:
    with of(tmp_path, "stubborn") as rig:
        number = rig.begin(60)
        rig.said("napping")
        rig.cancel(number)
        with pytest.raises(Unsuccessful) as ended:
            rig.result(number)
        assert ended.value.outcome == Outcome.CANCELLED
        assert (2, number, "ValueError: while cleaning up") in rig.printed()


@pytest.mark.parametrize("name", ["quits", "quits_async"])
@pytest.mark.parametrize(("how", "kind"), [("interrupt", KeyboardInterrupt), ("exit", GeneratorExit)])
def test_what_ends_programs_ends_the_worker_once_it_has_been_told(
    tmp_path: Path, name: str, how: str, kind: type[BaseException]
) -> None:
    with of(tmp_path, name) as rig:
        number = rig.begin(how)
        with pytest.raises(kind):
            rig.result(number)
        assert rig.ended() == -2


def test_a_worker_that_has_answered_many_keeps_nothing_of_them(tmp_path: Path) -> None:
    def resident(rig: Rig) -> int:
        return int(Path(f"/proc/{rig.process.pid}/statm").read_text().split()[1]) * 4096

    def many(rig: Rig, count: int) -> None:
        for _ in range(count // 16):
            for number in [rig.begin("x" * 1000) for _ in range(16)]:
                rig.result(number)

    with of(tmp_path, "whole") as rig:
        many(rig, 2_000)
        before = resident(rig)
        many(rig, 20_000)
        assert resident(rig) - before < 2 << 20
