"""Calls in the state: what is accepted, begun, failed and ended; records; giving up, trying again, forgetting."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from slipway.dsl.errors import InvalidError, NotFoundError
from slipway.executor.ports import CallRow
from slipway.executor.store import call_writes
from slipway.executor.store.call_reads import CallReads, FunctionCall
from slipway.executor.store.call_writes import Accepted, CallWrites, Ended, Failed
from slipway.executor.store.state import State
from slipway.executor.underway import Attempt
from slipway.executor.worker.frames import Outcome

Act = Callable[[CallWrites, CallReads], Awaitable[None]]


@asynccontextmanager
async def opened(path: Path) -> AsyncIterator[State]:
    state = State.open(path, version="0.1.0")
    try:
        yield state
    finally:
        await state.close()


def run(path: Path, act: Act) -> None:
    async def main() -> None:
        async with opened(path / "state.db") as state:
            await act(state.call_writes, state.call_reads)

    asyncio.run(main())


def row(number: int, **more: Any) -> CallRow:
    """The record of an input that returned."""
    made = CallRow(
        number=number,
        call=number,
        place=0,
        run="search",
        app="search",
        function="f",
        method="",
        parent=0,
        worker="w",
        attempts=1,
        losses=0,
        submitted_ms=number,
        started_ms=None,
        finished_ms=number + 1,
        outcome=Outcome.RETURNED,
    )
    return made._replace(**more)


def accepted(number: int, *, call: int = 0, index: int = 0, queue: int = 1, **more: Any) -> Accepted:
    values: dict[str, Any] = {"method": "", "parent": 0, "sealed": not call, "now_ms": number, "payload": b"p"}
    return Accepted(number=number, call=call or number, place=index, queue=queue, **values | more)


def failed(number: int, attempts: int = 1, worker: str = "w") -> Failed:
    return Failed(number, attempts, 0, worker, number, Outcome.RAISED, "it raised", number + 10)


def ended(number: int, *, call: int = 0, outcome: int = Outcome.RETURNED, **more: Any) -> Ended:
    attempt: dict[str, Any] = {"attempts": 1, "losses": 0, "worker": "w", "started_ms": 900}
    end: dict[str, Any] = {"reason": "", "now_ms": 1000, "result": b"r"}
    return Ended(number=number, call=call or number, outcome=outcome, **attempt | end | more)


async def call_of(reads: CallReads, number: int) -> FunctionCall:
    call = await reads.call(number)
    assert call is not None
    return call


def test_records_of_a_map_are_one_call(tmp_path: Path) -> None:
    async def act(writes: CallWrites, reads: CallReads) -> None:
        await writes.record([row(10, parent=7), *(row(n, call=1, place=n - 2) for n in range(2, 5))])
        await writes.record([row(6, call=1, place=4, outcome=Outcome.RAISED, reason="why")])
        single, a_map = await reads.calls()
        assert (single.number, single.parent, single.inputs, single.returned, single.queue) == (10, 7, 1, 1, None)
        assert (a_map.number, a_map.inputs, a_map.returned, a_map.raised, a_map.finished_ms) == (1, 4, 3, 1, 7)
        assert [row.place for row in await reads.inputs(1, start=1)] == [1, 2, 4]
        assert await reads.call_of(6) == 1 and await reads.call_of(99) is None
        assert [child.number for child in await reads.children([7], 10)] == [10]
        assert await reads.result(1, 0) is None  # it was not spawned

    run(tmp_path, act)


def test_the_way_of_a_durable_input(tmp_path: Path) -> None:
    async def act(writes: CallWrites, reads: CallReads) -> None:
        queue = await writes.queue("search", "search", "f", "", None)
        assert queue == await writes.queue("search", "search", "f", "", None)
        assert queue != await writes.queue("search", "search", "f", "v", b"sealed")
        await writes.write([accepted(5, queue=queue), accepted(6, queue=queue, payload=None, size=1 << 20)])
        assert [
            (found.number, found.payload, found.size) for found in await reads.waiting(queue, after=0, limit=9)
        ] == [
            (5, b"p", None),
            (6, None, 1 << 20),
        ]
        assert await reads.with_files([5, 6]) == {(6, "in")}
        assert [(found.number, count) for found, count in await reads.open_queues()] == [(queue, 2)]
        await writes.write([failed(5)])
        waiting = await reads.waiting(queue, after=0, limit=1)
        assert (waiting[0].attempts, waiting[0].losses, waiting[0].earlier) == (1, 0, 0)
        written = await writes.write([ended(5, attempts=2)])
        assert written.finished == {5} and not written.void
        again = await writes.write([ended(5, outcome=Outcome.LOST), failed(5, 3)])
        assert again.void == {5} and not again.finished
        result = await reads.result(5, 0)
        assert result is not None and (result.outcome, result.result) == (0, b"r")
        (only,) = await reads.attempts([5])
        assert (only.attempt, only.worker, only.outcome, only.reason) == (1, "w", Outcome.RAISED, "it raised")
        call = await call_of(reads, 5)
        assert (call.returned, call.lost, call.inputs, call.finished_ms, call.queue) == (1, 0, 1, 1000, queue)

    run(tmp_path, act)


def test_an_attempt_that_an_engine_left_behind_is_lost(tmp_path: Path) -> None:
    async def act(writes: CallWrites, reads: CallReads) -> None:
        queue = await writes.queue("search", "search", "f", "", None)
        await writes.write([accepted(n, queue=queue) for n in (5, 6, 7)])
        await writes.write([failed(6), ended(7)])
        for _ in range(2):  # whoever takes them may be killed before it can forget them
            await writes.take_left([Attempt(number, 1, 0, 50, "w") for number in (5, 6, 7, 8)], 60)
        waiting = await reads.waiting(queue, after=0, limit=9)
        assert [(found.number, found.attempts, found.losses) for found in waiting] == [(5, 1, 1), (6, 1, 0)]
        left, own = await reads.attempts([5, 6, 7])
        assert (left.worker, left.outcome, left.reason) == ("w", Outcome.LOST, call_writes.ENGINE_ENDED)
        assert (left.started_ms, left.finished_ms, own.reason) == (50, 60, "it raised")

    run(tmp_path, act)


def test_a_key_is_taken_once(tmp_path: Path) -> None:
    async def act(writes: CallWrites, reads: CallReads) -> None:
        queue = await writes.queue("search", "search", "f", "", None)
        first = await writes.write([accepted(5, queue=queue, key="cron 1"), accepted(6, queue=queue, key="cron 1")])
        assert first.known == {6: 5}
        assert (await writes.write([accepted(7, queue=queue, key="cron 1")])).known == {7: 5}
        assert [call.number for call in await reads.calls()] == [5]

    run(tmp_path, act)


def test_a_call_that_is_not_sealed_is_not_over(tmp_path: Path) -> None:
    async def act(writes: CallWrites, reads: CallReads) -> None:
        queue = await writes.queue("search", "search", "f", "", None)
        await writes.write([accepted(n, call=1, index=n - 2, queue=queue) for n in (2, 3)])
        assert not (await writes.write([ended(2, call=1), ended(3, call=1)])).finished
        assert (await call_of(reads, 1)).finished_ms is None
        assert await writes.seal(1, queue, "", 0, 50)
        assert (await call_of(reads, 1)).finished_ms == 50
        await writes.write([accepted(4, call=1, index=2, queue=queue)])
        await writes.seal_all(60)
        assert await writes.seal(9, queue, "", 0, 70)
        assert (await call_of(reads, 9)).inputs == 0

    run(tmp_path, act)


def test_what_waits_is_cancelled_in_parts_but_for_what_is_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(call_writes, "AT_ONCE", 2)

    async def act(writes: CallWrites, reads: CallReads) -> None:
        queue = await writes.queue("search", "search", "f", "", None)
        await writes.write([accepted(n, call=1, index=n - 2, queue=queue, payload=None, size=9) for n in range(2, 7)])
        await writes.seal(1, queue, "", 0, 0)
        cut = await writes.cancel_call(1, "told to", 9, but={3})
        assert (cut.number, cut.following, cut.ended, cut.files) == (1, 2, ((1, 0),), ())
        cut = await writes.cancel_call(1, "told to", 9, start=2, but={3})
        assert (cut.number, cut.following) == (2, 4)
        cut = await writes.cancel_call(1, "told to", 9, start=4, but={3})
        assert (cut.number, cut.following, cut.finished) == (1, None, frozenset())
        cut = await writes.cancel_queue(queue, "the app has ended", 9, keep=False)
        assert (cut.ended, cut.files, set(cut.finished)) == (((1, 1),), (3,), {1})
        assert [found.outcome for found in await reads.inputs(1)] == [Outcome.CANCELLED] * 5
        assert (await writes.retry(1, 9))[0] == 1  # AT_ONCE is 2, and of the first two one lost its payload

    run(tmp_path, act)


def test_trying_again_begins_a_new_series(tmp_path: Path) -> None:
    async def act(writes: CallWrites, reads: CallReads) -> None:
        queue = await writes.queue("search", "search", "f", "", None)
        await writes.write([accepted(n, call=1, index=n - 2, queue=queue) for n in (2, 3)])
        await writes.seal(1, queue, "", 0, 0)
        await writes.write([ended(2, call=1)])
        await writes.write([ended(3, call=1, outcome=Outcome.RAISED, reason="it raised", result=None, size=1 << 20)])
        assert await writes.retry(1, 9) == (1, (3,), None)
        call = await call_of(reads, 1)
        assert (call.returned, call.raised, call.finished_ms) == (1, 0, None)
        (waiting,) = await reads.waiting(queue, after=0, limit=9)
        assert (waiting.number, waiting.attempts, waiting.payload) == (3, 0, b"p")
        await writes.write([ended(3, call=1)])
        (first,) = await reads.attempts([2, 3])
        assert (first.input, first.attempt, first.outcome, first.reason) == (3, 1, Outcome.RAISED, "it raised")
        assert [found.attempts for found in await reads.inputs(1)] == [1, 2]
        assert await writes.retry(1, 9) == (0, (), None)
        await writes.record([row(50)])
        with pytest.raises(NotFoundError):
            await writes.retry(50, 9)

    run(tmp_path, act)


def test_results_expire_before_the_records_of_their_calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(call_writes, "AT_ONCE", 2)

    async def all_of(act: Callable[[], Awaitable[int]]) -> int:
        times = 0
        while await act():
            times += 1
        return times

    async def act(writes: CallWrites, reads: CallReads) -> None:
        queue = await writes.queue("search", "search", "f", "", None)
        await writes.write([accepted(n, call=1, index=n - 2, queue=queue) for n in range(2, 7)])
        await writes.seal(1, queue, "", 0, 0)
        await writes.write([ended(n, call=1, outcome=1, result=None, size=1 << 20) for n in range(2, 7)])
        await writes.write([accepted(8, queue=queue), ended(8, now_ms=5000), accepted(9, queue=queue)])
        await writes.record([row(10), row(11)])
        gone: list[int] = []

        async def expire() -> int:
            count, files = await writes.expire(2000)
            gone.extend(files)
            return count

        assert await all_of(expire) == 3
        assert sorted(gone) == list(range(2, 7))
        assert (await call_of(reads, 1)).expired and not (await call_of(reads, 8)).expired
        result = await reads.result(1, 0)
        assert result is not None and result.expired and result.outcome == 1
        with pytest.raises(InvalidError):
            await writes.retry(1, 0)
        await all_of(lambda: writes.prune(4000))
        await writes.prune_queues()
        assert [call.number for call in await reads.calls()] == [9, 8]
        assert await reads.inputs(1) == () and await reads.inputs(10) == ()

    run(tmp_path, act)


def test_calls_are_listed_by_app_function_and_state(tmp_path: Path) -> None:
    async def act(writes: CallWrites, reads: CallReads) -> None:
        queue = await writes.queue("ap-1", "search", "g", "", None)
        outcomes = {1: 0, 2: 1, 3: 2, 4: 3, 5: 4}
        await writes.record([row(n, outcome=outcome) for n, outcome in outcomes.items()])
        await writes.record([row(9, app="other", run="other")])
        await writes.write([accepted(6, queue=queue)])

        async def numbers(**query: Any) -> list[int]:
            return [call.number for call in await reads.calls(**query)]

        assert await numbers(app="search") == [6, 5, 4, 3, 2, 1] and await numbers(app="ap-1") == [6]
        assert await numbers(function="g") == [6] and await numbers(limit=2) == [9, 6]
        assert await numbers(before=3) == [2, 1]
        assert await numbers(state="open") == [6] and await numbers(state="failed") == [5, 3, 2]
        states = ("returned", "raised", "timed_out", "cancelled", "lost")
        assert [await numbers(app="search", state=state) for state in states] == [[1], [2], [3], [4], [5]]

    run(tmp_path, act)
