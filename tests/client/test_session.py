"""Calls and maps of a program through a connection: in order, lazily, from threads and loops, and with the line cut."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from small_engine import APP, EngineThread, pool_spec, small_engine

from slipway import maps
from slipway.connection import Connection
from slipway.dsl.errors import (
    CallLost,
    DeclarationError,
    Error,
    ImageBuildError,
    NotFoundError,
    RuntimeUnavailable,
    SerializationError,
)
from slipway.dsl.session import FunctionRef
from slipway.executor.scaling import PoolLimits
from slipway.replies import error_of
from slipway.session import EngineSession

CODE = """
import os, time

def add(x, y=1):
    return x + y

def odd_fails(x, log=None):
    if log:
        with open(log, "a") as file:
            file.write(f"{x}\\n")
    if x % 2:
        raise ValueError(f"{x} is odd")
    return x

def later(x):
    time.sleep(0.2 if x == 0 else 0)
    return x

def size(data):
    return len(data)

def waits(fifo, log):
    with open(log, "a") as file:
        file.write("x")
    if fifo:
        open(fifo).close()
    else:
        time.sleep(0.01)  # a function that takes its time gets no inputs ahead of time
    return fifo

def outer(x):
    from slipway.dsl.function import Function
    return Function.from_name("app", "add").remote(x) + 1000
"""
ADD = FunctionRef(app=APP, name="add")


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineThread]:
    root = tmp_path_factory.mktemp("tree")
    (root / "root").mkdir()
    (root / "root" / "app.py").write_text(CODE)
    with small_engine() as engine:
        for name, workers in (("add", 2), ("odd_fails", 1), ("later", 2), ("size", 1), ("waits", 1), ("outer", 1)):
            engine.add(pool_spec(root, name, PoolLimits(max_workers=workers)))
        yield engine


@pytest.fixture
def connection(engine: EngineThread) -> Iterator[Connection]:
    with Connection.connect(engine.engine.socket_path) as connection:
        yield connection


@pytest.fixture
def session(connection: Connection) -> EngineSession:
    return EngineSession(connection)


def ref(name: str) -> FunctionRef:
    return FunctionRef(app=APP, name=name)


def inputs(*values: Any) -> Iterator[tuple[tuple[Any, ...], dict[str, Any]]]:
    return (((value,), {}) for value in values)


# --- calls --------------------------------------------------------------------------------------------


def test_many_threads_share_one_connection(session: EngineSession) -> None:
    results: dict[int, list[int]] = {}

    def run(number: int) -> None:
        results[number] = [session.call(ADD, (number * 1000 + i,), {}) for i in range(50)]

    threads = [threading.Thread(target=run, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {number: [number * 1000 + i + 1 for i in range(50)] for number in range(8)}


def test_threads_and_tasks_share_one_connection(session: EngineSession) -> None:
    async def main() -> list[int]:
        blocking = asyncio.create_task(asyncio.to_thread(lambda: [session.call(ADD, (i,), {}) for i in range(30)]))
        done: list[int] = await asyncio.gather(*[session.call_aio(ADD, (i,), {}) for i in range(100)])
        assert await blocking == list(range(1, 31))
        return done

    assert asyncio.run(main()) == list(range(1, 101))
    assert session.call(ADD, (1,), {}) == 2  # blocking calls go on beside the thread that reads


def test_an_argument_that_cannot_be_pickled_is_named(session: EngineSession) -> None:
    lock = threading.Lock()
    with pytest.raises(SerializationError, match=r"argument 2 of add \(lock\) can't be pickled"):
        session.call(ADD, (1, lock), {})
    with pytest.raises(SerializationError, match=r"y of add \(lock\)"):
        list(session.map(ADD, [((1,), {"y": lock})], order_outputs=True, return_exceptions=False))


def test_code_in_a_worker_calls_another_function(session: EngineSession) -> None:
    assert session.call(ref("outer"), (1,), {}) == 1002


def test_a_function_that_is_not_there(session: EngineSession) -> None:
    with pytest.raises(NotFoundError, match=r"no function\.open\nlook"):
        session.call(ref("nothing"), (), {})


# --- maps ---------------------------------------------------------------------------------------------


def test_a_map_gives_results_in_order_or_as_they_come(session: EngineSession) -> None:
    list(session.map(ref("later"), inputs(1, 2), order_outputs=True, return_exceptions=False))  # both workers are up
    assert list(session.map(ref("later"), inputs(0, 1, 2), order_outputs=True, return_exceptions=False)) == [0, 1, 2]
    assert list(session.map(ref("later"), inputs(0, 1, 2), order_outputs=False, return_exceptions=False)) == [1, 2, 0]


def test_a_map_takes_no_more_inputs_than_its_window(session: EngineSession, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(maps, "WINDOW", 10)
    taken = []

    def source() -> Iterator[Any]:
        for i in range(1000):
            taken.append((i, threading.current_thread()))
            yield (i,), {}

    results = session.map(ADD, source(), order_outputs=True, return_exceptions=False)
    assert taken == []
    assert [next(results) for _ in range(3)] == [1, 2, 3]
    assert 3 <= len(taken) <= 13 and {thread for _, thread in taken} == {threading.current_thread()}
    assert list(results) == list(range(4, 1001))


def test_a_map_without_inputs_gives_nothing(session: EngineSession) -> None:
    assert list(session.map(ADD, inputs(), order_outputs=True, return_exceptions=False)) == []


def test_the_first_failure_ends_a_map_and_what_has_not_begun_never_does(session: EngineSession, tmp_path: Path) -> None:
    log = tmp_path / "log"
    results = session.map(
        ref("odd_fails"), (((i, str(log)), {}) for i in range(2000)), order_outputs=True, return_exceptions=False
    )
    assert next(results) == 0
    with pytest.raises(ValueError, match="1 is odd"):
        next(results)
    assert list(results) == []
    session.call(ref("odd_fails"), (4000, str(log)), {})  # the one worker has come to it: what was to be done is done
    assert len(log.read_text().splitlines()) < 1500


def test_exceptions_are_results_where_asked_for(session: EngineSession) -> None:
    got = list(session.map(ref("odd_fails"), inputs(0, 1, 2), order_outputs=True, return_exceptions=True))
    assert [type(item) for item in got] == [int, ValueError, int]


def test_a_map_that_nobody_reads_on_is_cancelled(session: EngineSession, tmp_path: Path) -> None:
    fifo, log = tmp_path / "fifo", tmp_path / "log"
    os.mkfifo(fifo)
    inputs: list[Any] = [(("", str(log)), {}), *[((str(fifo), str(log)), {})] * 3]
    results = session.map(ref("waits"), inputs, order_outputs=True, return_exceptions=False)
    assert next(results) == ""
    results.close()  # type: ignore[attr-defined]
    session.connection.request("function.open", {"app": APP, "function": "waits"})  # the engine has heard it
    with open(os.open(fifo, os.O_RDWR), "w"):  # lets the second one go on, which may have begun
        session.call(ref("waits"), ("", str(log)), {})
    assert len(log.read_text()) in (2, 3)


def test_big_inputs_and_small_ones_in_one_map(session: EngineSession) -> None:
    sizes = [1, 2_000_000, 3, 1_500_000, 10]
    got = session.map(
        ref("size"), inputs(*(b"x" * size for size in sizes)), order_outputs=True, return_exceptions=False
    )
    assert list(got) == sizes


def test_a_map_in_async_code(session: EngineSession) -> None:
    async def source() -> AsyncIterator[Any]:
        for i in range(500):
            if i == 250:
                await asyncio.sleep(0)
            yield (i,), {}

    async def main(ordered: bool) -> list[int]:
        results = session.map_aio(ADD, source(), order_outputs=ordered, return_exceptions=False)
        return [item async for item in results]

    assert asyncio.run(main(True)) == list(range(1, 501))
    assert sorted(asyncio.run(main(False))) == list(range(1, 501))


def test_results_of_an_async_map_come_while_its_inputs_wait(session: EngineSession) -> None:
    async def main() -> None:
        go_on = asyncio.Event()

        async def source() -> AsyncIterator[Any]:
            yield (1,), {}
            await go_on.wait()
            yield (2,), {}

        results = session.map_aio(ADD, source(), order_outputs=True, return_exceptions=False)
        assert await anext(results) == 2
        go_on.set()
        assert [item async for item in results] == [3]

    asyncio.run(main())


def test_a_failure_in_an_async_map_raises(session: EngineSession) -> None:
    async def source() -> AsyncIterator[Any]:
        for i in range(10):
            yield (i,), {}

    async def main() -> None:
        results = session.map_aio(ref("odd_fails"), source(), order_outputs=True, return_exceptions=False)
        assert await anext(results) == 0
        with pytest.raises(ValueError, match="1 is odd"):
            await anext(results)

    asyncio.run(main())


# --- the connection -----------------------------------------------------------------------------------


def test_a_request_hears_events_and_gets_its_reply(connection: Connection) -> None:
    events: list[dict[str, Any]] = []
    reply = connection.request("function.open", {"app": APP, "function": "add"}, on_event=events.append)
    assert reply["channel"] >= 0 and events == [{"event": "opening"}]


def test_no_engine_is_said_with_the_socket_and_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(RuntimeUnavailable, match=r"nothing\.sock: No such file.*\n.*slipway up"):
        Connection.connect(tmp_path / "nothing.sock")


def test_a_socket_at_a_long_path(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 90) / ("e" * 90)
    deep.mkdir(parents=True)

    async def main() -> None:
        from slipway.executor.worker.wire import Listener

        listener = Listener(deep / "engine.sock", lambda sock: sock.close())
        with pytest.raises(RuntimeUnavailable, match="does not answer"):
            await asyncio.to_thread(Connection.connect, deep / "engine.sock")
        listener.close()

    asyncio.run(main())


def test_when_the_line_is_cut_everybody_who_waits_hears_it(engine: EngineThread, tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    connection = Connection.connect(engine.engine.socket_path)
    session = EngineSession(connection)
    channels = [session._channels.of(ref("waits"), "remote")]
    assert channels
    heard: list[BaseException] = []

    def wait() -> None:
        try:
            session.call(ref("waits"), (str(fifo), str(tmp_path / "log")), {})
        except CallLost as error:
            heard.append(error)

    threads = [threading.Thread(target=wait) for _ in range(3)]
    for thread in threads:
        thread.start()
    engine.on_loop(engine.engine.hang_up)  # nobody opens the pipe to write: no call can come to its end
    for thread in threads:
        thread.join()
    assert len(heard) == 3 and "the connection to the engine is lost" in str(heard[0])
    with pytest.raises(CallLost):
        session.call(ADD, (1,), {})
    with pytest.raises(CallLost):
        asyncio.run(session.call_aio(ADD, (1,), {}))
    assert connection.closed
    connection.wait_closed()


def test_a_forked_child_leaves_its_parents_connection_alone(session: EngineSession) -> None:
    assert session.call(ADD, (1,), {}) == 2
    pid = os.fork()
    if pid == 0:
        try:
            session.call(ADD, (1,), {})
        except CallLost as error:
            os._exit(0 if "forked" in str(error) else 2)
        os._exit(3)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert session.call(ADD, (2,), {}) == 3


def test_faults_become_the_errors_that_they_name() -> None:
    build = error_of({"type": "ImageBuildError", "message": "step 3 failed", "hint": "h", "log": "tail"})
    assert isinstance(build, ImageBuildError) and build.log == "tail" and build.hint == "h"
    assert isinstance(error_of({"type": "DeclarationError", "faults": []}), DeclarationError)
    assert type(error_of({"type": "SystemExit", "message": "m"})) is Error
    assert type(error_of({"type": "annotations"})) is Error
