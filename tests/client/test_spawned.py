"""Generators and spawned calls through a connection: items with credit, ids on disk, results fetched by them."""

from __future__ import annotations

import asyncio
import builtins
import gc
import os
import pickle
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from small_engine import APP, EngineThread, pool_spec, small_engine

from slipway import spawned
from slipway.connection import Connection
from slipway.dsl import context
from slipway.dsl.errors import CallCancelled, CallLost, InvalidError, NotFoundError, OutputExpiredError
from slipway.dsl.function_call import FunctionCall, InputStatus
from slipway.dsl.session import FunctionRef, current_session
from slipway.executor.scaling import PoolLimits
from slipway.executor.worker import payload
from slipway.lasting import LastingSession
from slipway.session import EngineSession

CODE = """
def add(x, y=1):
    return x + y

def odd_fails(x):
    if x % 2:
        raise ValueError(f"{x} is odd")
    return x

def waits(fifo):
    return open(fifo).read()

def count(n, log=None, fails_at=-1, size=0):
    try:
        for i in range(n):
            if i == fails_at:
                raise ValueError(f"{i} is enough")
            yield bytes(size) if size else i
    finally:
        if log:
            open(log, "a").write("ended\\n")

async def later(n):
    for i in range(n):
        yield i

def calls_on(n):
    from slipway.dsl.function import Function
    return list(Function.from_name("app", "add").map(range(n)))

def has_handle(call):
    return call.get() + 1
"""


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineThread]:
    root = tmp_path_factory.mktemp("tree")
    (root / "root").mkdir()
    (root / "root" / "app.py").write_text(CODE)
    with small_engine() as engine:
        for name in ("add", "odd_fails", "waits", "calls_on", "has_handle"):
            engine.add(pool_spec(root, name, PoolLimits(max_workers=2)))
        engine.add(pool_spec(root, "count", PoolLimits(max_workers=2), is_generator=True))
        engine.add(pool_spec(root, "later", PoolLimits(max_workers=1), is_generator=True, is_async=True))
        yield engine


@pytest.fixture
def session(engine: EngineThread) -> Iterator[EngineSession]:
    with Connection.connect(engine.engine.socket_path) as connection:
        session = EngineSession(connection)
        token = current_session.set(session)
        yield session
        current_session.reset(token)


def ref(name: str) -> FunctionRef:
    return FunctionRef(app=APP, name=name)


def inputs(*values: Any) -> Iterator[tuple[tuple[Any, ...], dict[str, Any]]]:
    return (((value,), {}) for value in values)


# --- generators ---------------------------------------------------------------------------------------


def test_items_come_in_order_and_more_than_the_window_holds(session: EngineSession, engine: EngineThread) -> None:
    engine.engine.taken.clear()
    assert list(session.stream(ref("count"), (1000,), {})) == list(range(1000))
    assert sum(engine.engine.taken) >= 1000 - 256 and max(engine.engine.taken) <= 256
    assert list(session.stream(ref("count"), (0,), {})) == []


def test_big_items_are_acknowledged_by_their_size(session: EngineSession) -> None:
    items = list(session.stream(ref("count"), (12,), {"size": 5 << 20}))
    assert [len(item) for item in items] == [5 << 20] * 12


def test_items_in_async_code(session: EngineSession) -> None:
    async def main() -> list[int]:
        return [item async for item in session.stream_aio(ref("later"), (600,), {})]

    assert asyncio.run(main()) == list(range(600))


def test_a_generator_that_fails_gives_its_items_first(session: EngineSession) -> None:
    items = session.stream(ref("count"), (10,), {"fails_at": 2})
    assert [next(items), next(items)] == [0, 1]
    with pytest.raises(ValueError, match="2 is enough"):
        next(items)
    assert list(items) == []


@pytest.mark.parametrize("way", ["close", "garbage", "interrupt"])
def test_a_consumer_that_stops_early_ends_the_generator(session: EngineSession, tmp_path: Path, way: str) -> None:
    log = tmp_path / "log"
    os.mkfifo(log)
    items = session.stream(ref("count"), (10**9, str(log)), {})
    assert next(items) == 0
    if way == "close":
        items.close()  # type: ignore[attr-defined]
    elif way == "interrupt":
        with pytest.raises(KeyboardInterrupt):
            items.throw(KeyboardInterrupt)  # type: ignore[attr-defined]
    del items
    gc.collect()
    assert log.read_text() == "ended\n"  # opening it waits for the generator's end


def test_an_async_consumer_that_stops_early_ends_the_generator(session: EngineSession, tmp_path: Path) -> None:
    log = tmp_path / "log"
    os.mkfifo(log)

    async def main() -> None:
        async for _ in session.stream_aio(ref("count"), (10**9, str(log)), {}):
            break
        assert await asyncio.to_thread(log.read_text) == "ended\n"

    asyncio.run(main())


def test_the_engine_tells_generators_from_others(session: EngineSession) -> None:
    for _ in range(2):  # known by then
        with pytest.raises(InvalidError, match=r"add is no generator.*\nUse add.remote"):
            next(session.stream(ref("add"), (1,), {}))
        with pytest.raises(InvalidError, match=r"count is a generator, and count.remote"):
            session.call(ref("count"), (1,), {})
    with pytest.raises(InvalidError, match=r"count\.map takes functions that return once"):
        next(session.map(ref("count"), inputs(1), order_outputs=True, return_exceptions=False))
    with pytest.raises(InvalidError, match=r"count\.spawn takes"):
        session.spawn(ref("count"), (1,), {})
    assert asyncio.run(session.ask_of_aio(ref("later"), "function.stats", {}))["workers"] == 3


# --- the call that inputs belong to -------------------------------------------------------------------


def test_the_inputs_of_a_map_are_one_call_and_its_channel_is_closed(
    session: EngineSession, engine: EngineThread
) -> None:
    engine.engine.inputs.clear()
    session.call(ref("add"), (1,), {})
    open_before = engine.engine.open_channels
    assert list(session.map(ref("add"), inputs(1, 2, 3), order_outputs=True, return_exceptions=False)) == [2, 3, 4]
    results = session.map(ref("add"), inputs(*range(5000)), order_outputs=True, return_exceptions=False)
    assert next(results) == 1
    results.close()  # type: ignore[attr-defined]
    session.call(ref("add"), (1,), {})
    alone, *mapped = engine.engine.inputs[:4]
    assert alone.call == alone.number and len({given.call for given in mapped}) == 1
    assert engine.engine.open_channels == open_before


def test_calls_say_which_input_makes_them(session: EngineSession, engine: EngineThread) -> None:
    engine.engine.inputs.clear()
    assert session.call(ref("calls_on"), (3,), {}) == [1, 2, 3]
    outer, *inner = engine.engine.inputs
    assert outer.parent == 0 and [given.parent for given in inner] == [outer.number] * 3
    token = context.input_id.set("in-2a")
    session.spawn(ref("add"), (1,), {})
    context.input_id.reset(token)
    assert engine.engine.ledger.parents[-1] == 42


# --- spawned calls ------------------------------------------------------------------------------------


def test_a_spawned_call_is_fetched_again_and_again(session: EngineSession) -> None:
    call: FunctionCall[int] = FunctionCall(session.spawn(ref("add"), (1,), {"y": 2}))
    assert [call.get(), call.get(timeout=5), pickle.loads(pickle.dumps(call)).get()] == [3, 3, 3]
    assert session.call(ref("has_handle"), (call,), {}) == 4  # its worker fetches it
    assert (call.num_inputs(), list(call.iter())) == (1, [3])
    (info,) = call.get_call_graph()
    assert (info.function_call_id, info.status) == (call.object_id, InputStatus.SUCCESS)
    failed: FunctionCall[int] = FunctionCall(session.spawn(ref("odd_fails"), (1,), {}))
    for _ in range(2):
        with pytest.raises(ValueError, match="1 is odd"):
            failed.get()


def test_what_is_not_over_raises_the_builtin_timeout(session: EngineSession, tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    call: FunctionCall[str] = FunctionCall(session.spawn(ref("waits"), (str(fifo),), {}))
    for timeout in (0, 0.01):
        with pytest.raises(builtins.TimeoutError, match=f"{call.object_id} is not over"):
            call.get(timeout=timeout)
    with pytest.raises(builtins.TimeoutError):
        asyncio.run(session.result_aio(call.object_id, 0, 0))
    fifo.write_text("now")
    assert call.get() == "now"


def test_what_is_gone_or_never_was(session: EngineSession, engine: EngineThread) -> None:
    call: FunctionCall[int] = FunctionCall(session.spawn(ref("add"), (1,), {}))
    call.get()
    engine.engine.ledger.lost.add(call.object_id)
    with pytest.raises(OutputExpiredError, match="kept no longer"):
        call.get()
    for ask in (FunctionCall.from_id("fc-1").get, FunctionCall.from_id("fc-1").num_inputs):
        with pytest.raises(NotFoundError, match="no call fc-1"):
            ask()
    with pytest.raises(NotFoundError, match="has no input 7"):
        FunctionCall(session.spawn(ref("add"), (1,), {})).get(index=7)


def test_a_call_that_cannot_be_taken_says_why(session: EngineSession, engine: EngineThread) -> None:
    engine.engine.ledger.refused.add(payload.dump(((13,), {})).bytes())
    with pytest.raises(CallLost, match="the call of add was lost: the disk is full"):
        session.spawn(ref("add"), (13,), {})
    with pytest.raises(CallLost, match="the disk is full"):
        session.spawn_each(ref("add"), inputs(1, 13, 2))
    engine.engine.ledger.refused.clear()


def test_one_call_with_many_inputs(session: EngineSession, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spawned, "UNANSWERED", 50)
    taken: list[threading.Thread] = []

    def source() -> Iterator[Any]:
        for i in range(300):
            taken.append(threading.current_thread())
            yield (i,), {}

    call: FunctionCall[int] = FunctionCall(session.spawn_together(ref("add"), source()))
    assert set(taken) == {threading.current_thread()}
    assert call.num_inputs() == 300 and call.get(index=299) == 300
    assert list(call.iter()) == list(range(1, 301))
    assert list(call.iter(3, 5)) == [4, 5] and list(call.iter(299, 1000)) == [300] and list(call.iter(400)) == []
    results = call.iter()
    next(results)
    results.close()  # type: ignore[attr-defined]
    assert FunctionCall(session.spawn_together(ref("add"), inputs())).num_inputs() == 0
    session.spawn_each(ref("add"), inputs(*range(200)))

    def broken() -> Iterator[Any]:
        yield (1,), {}
        raise OSError("the file ends here")

    with pytest.raises(OSError, match="the file ends here"):
        session.spawn_each(ref("add"), broken())


def test_results_of_many_inputs_raise_where_one_failed(session: EngineSession) -> None:
    call: FunctionCall[int] = FunctionCall(session.spawn_together(ref("odd_fails"), inputs(0, 1, 2)))
    results = call.iter()
    assert next(results) == 0
    with pytest.raises(ValueError, match="1 is odd"):
        next(results)
    assert call.get(index=2) == 2


def test_the_first_failure_ends_a_gathering(session: EngineSession, tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    waiting: FunctionCall[Any] = FunctionCall(session.spawn(ref("waits"), (str(fifo),), {}))
    calls: list[FunctionCall[Any]] = [FunctionCall(session.spawn(ref("add"), (i,), {})) for i in range(3)]
    assert FunctionCall.gather(*calls) == [1, 2, 3] and FunctionCall.gather() == []
    failed: FunctionCall[Any] = FunctionCall(session.spawn(ref("odd_fails"), (1,), {}))
    with pytest.raises(ValueError, match="1 is odd"):
        FunctionCall.gather(waiting, *calls, failed)
    with pytest.raises(ValueError, match="1 is odd"):
        asyncio.run(session.gather_aio([waiting.object_id, failed.object_id]))
    fifo.write_text("it goes on")
    assert waiting.get() == "it goes on"
    with pytest.raises(InvalidError, match=r"takes calls, not list\nWrite FunctionCall.gather\(\*calls\)"):
        FunctionCall.gather(calls)  # type: ignore[arg-type]  # as a user may


def test_cancelling(session: EngineSession, tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    call: FunctionCall[Any] = FunctionCall(session.spawn(ref("waits"), (str(fifo),), {}))
    call.cancel()
    with pytest.raises(
        CallCancelled, match=f"the call of {call.object_id} was cancelled (before it began|while it ran)$"
    ):
        call.get()


def test_all_of_it_in_async_code(session: EngineSession, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spawned, "UNANSWERED", 20)

    async def source(count: int) -> AsyncIterator[Any]:
        for i in range(count):
            yield (i,), {}

    async def main() -> None:
        one: FunctionCall[int] = FunctionCall(await session.spawn_aio(ref("add"), (1,), {}))
        assert await one.get.aio() == 2 and await one.num_inputs.aio() == 1
        many: FunctionCall[int] = FunctionCall(await session.spawn_together_aio(ref("add"), source(100)))
        assert [item async for item in many.iter.aio(2, 5)] == [3, 4, 5]
        await session.spawn_each_aio(ref("add"), source(100))
        assert await FunctionCall.gather.aio(one, many) == [2, 1]
        assert len(await many.get_call_graph.aio()) == 100
        await one.cancel.aio()

    asyncio.run(main())


def test_what_was_spawned_is_waited_for_over_the_end_of_an_engine(engine: EngineThread, tmp_path: Path) -> None:
    path = engine.engine.socket_path
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    made: list[EngineSession] = []

    def successor() -> EngineSession:
        made.append(LastingSession(Connection.connect(path), successor))
        return made[-1]

    first = successor()
    call = first.spawn(ref("waits"), (str(fifo),), {})
    found: list[Any] = []
    waits = (
        lambda: first.result(call, 0, None),
        lambda: list(first.results(call, 0, None)),
        lambda: first.gather([call]),
        lambda: asyncio.run(first.result_aio(call, 0, 60)),
        lambda: asyncio.run(first.gather_aio([call])),
    )
    threads = [threading.Thread(target=lambda wait=wait: found.append(wait())) for wait in waits]
    for thread in threads:
        thread.start()
    engine.on_loop(engine.engine.hang_up)
    fifo.write_text("after all")
    for thread in threads:
        thread.join()
    assert sorted(map(str, found)) == ["['after all']"] * 3 + ["after all"] * 2
    with pytest.raises(CallLost):
        first.call(ref("add"), (1,), {})  # it may have been carried out
    for one in made:
        one.connection.close()
