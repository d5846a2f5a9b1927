"""Requests about functions and calls, with a real engine and plain processes for workers."""

from __future__ import annotations

import asyncio
import functools
import itertools
import os
import pickle
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from local_runtime import LocalProcessRuntime

from slipway.compiler.wire import to_wire
from slipway.dsl.declaration import AppDecl, DebianSlim, FunctionDecl, ImageDecl, LocalSource, SourceDecl
from slipway.dsl.errors import Error, InvalidError, NotFoundError, OutputExpiredError
from slipway.executor.calls import Answer, Pending, number_of
from slipway.executor.channels import Scope
from slipway.executor.engine import Engine
from slipway.executor.home import Home
from slipway.executor.requests import check_parameters, methods
from slipway.executor.worker import payload
from slipway.executor.worker.frames import Flag, Frame, Kind, Outcome
from slipway.executor.worker.wire import NO_FD

CODE = """
import os

def double(x):
    return 2 * x

def bad(x):
    raise ValueError(f"bad {x}")

def gate(path, x=0):
    with open(path) as pipe:  # until somebody has opened its other end, and closed it
        pipe.read()
    return x

def count(n):
    yield from range(n)

def big(n):
    return b"x" * n
"""
CALLED = ("double", "bad", "gate", "count", "big")


class Local(LocalProcessRuntime):
    @property
    def name(self) -> str:
        return "native"


class Caller:
    """One connection, and what was answered to it."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.scope = Scope(send=self._heard)
        self.answers: dict[int, Frame] = {}
        self._methods = methods(engine)
        self._ids = itertools.count(1)
        self._heard_some = asyncio.Event()

    def _heard(self, frame: Frame, fd: int) -> None:
        if fd != NO_FD:
            frame = frame._replace(payload=os.pread(fd, frame.fd_length, 0))
            os.close(fd)
        self.answers[frame.id] = frame
        self._heard_some.set()

    async def ask(self, method: str, **params: Any) -> Any:
        check_parameters(method, params)
        return await self._methods[method](self.scope, params, lambda *_: None)

    async def open(self, function: str, app: str = "shop", **more: Any) -> int:
        channel: int = (await self.ask("function.open", app=app, function=function, **more))["channel"]
        return channel

    def call(self, channel: int, *args: Any, flags: int = 0, parent: int = 0) -> int:
        ident = next(self._ids)
        packed = payload.dump((args, {})).bytes()
        self.engine.channels.call(self.scope, Frame(Kind.CALL, ident, packed, channel, flags, call=parent), NO_FD)
        return ident

    async def answer(self, ident: int) -> Frame:
        while ident not in self.answers:
            self._heard_some.clear()
            await self._heard_some.wait()
        return self.answers[ident]

    async def spawn(self, channel: int, *args: Any) -> str:
        frame = await self.answer(self.call(channel, *args, flags=Flag.DURABLE))
        assert (frame.outcome, frame.flags, bytes(frame.payload)) == (Outcome.RETURNED, Flag.DURABLE, b"")
        return f"fc-{frame.call:x}"

    async def get(self, call: str, **more: Any) -> Any:
        answer: Answer = await self.ask("call.get", call=call, **more)
        frame = answer.frame
        assert frame.outcome == Outcome.RETURNED, bytes(frame.payload)
        if answer.fd != NO_FD:
            return payload.load_fd(answer.fd, frame.fd_length)
        return pickle.loads(bytes(frame.payload))


class Desk(Caller):
    """An engine with the functions of CODE, and pipes that hold calls up."""

    def __init__(self, engine: Engine, folder: Path) -> None:
        super().__init__(engine)
        self.folder = folder
        self._pipes = itertools.count()

    def declaration(self, code: str, functions: tuple[str, ...]) -> dict[str, Any]:
        path = self.folder / "shop.py"
        path.write_text(code)
        source = SourceDecl(sources=(LocalSource(local=str(path), remote="/root/shop.py"),))
        image = ImageDecl(name="base", base=DebianSlim(python_version="3.11"))
        made = tuple(
            FunctionDecl(name=name, module="shop", qualname=name, image=0, code=source, is_generator=name == "count")
            for name in functions
        )
        app = AppDecl(name="shop", images=(image,), functions=made, python="3.11", file="shop.py")
        wire: dict[str, Any] = to_wire(app)
        return wire

    async def apply(self, code: str = CODE, functions: tuple[str, ...] = CALLED) -> None:
        plan = (await self.ask("plan", declaration=self.declaration(code, functions)))["plan"]
        assert not (await self.ask("apply", plan=plan))["failed"]

    def pipes(self, count: int) -> list[str]:
        """Named pipes for `gate`."""
        paths = [str(self.folder / f"pipe-{next(self._pipes)}") for _ in range(count)]
        for path in paths:
            os.mkfifo(path)
        return paths

    async def begun(self, pipe: str) -> int:
        """Wait until a `gate` has opened the pipe; what it waits for is that this descriptor is closed."""
        return await asyncio.to_thread(os.open, pipe, os.O_WRONLY)

    async def let_go(self, *pipes: str) -> None:
        for pipe in pipes:
            os.close(await self.begun(pipe))

    async def state(self, call: str) -> str:
        state: str = (await self.ask("call.show", call=call))["call"]["state"]
        return state


@asynccontextmanager
async def a_desk(path: Path) -> AsyncIterator[Desk]:
    home = Home(path / "home")
    home.create()
    folder = path / "project"
    folder.mkdir(exist_ok=True)
    async with Engine.open(home, runtimes=(Local(),)) as engine:
        yield Desk(engine, folder)


def with_a_desk(test: Callable[[Desk], Coroutine[Any, Any, None]]) -> Callable[..., None]:
    @functools.wraps(test)
    def run(tmp_path: Path) -> None:
        async def main() -> None:
            async with a_desk(tmp_path) as desk:
                await desk.apply()
                await test(desk)

        asyncio.run(asyncio.wait_for(main(), 60))

    del run.__wrapped__  # pytest is to see this one's parameters
    return run


@with_a_desk
async def test_a_result_is_got_as_often_as_wanted(desk: Desk) -> None:
    call = await desk.spawn(await desk.open("double"), 21)
    assert [await desk.get(call), await desk.get(call, timeout_ms=0)] == [42, 42]
    assert (await desk.ask("call.wait", call=call))["call"]["state"] == "returned"
    assert await desk.ask("call.count", call=call) == {"inputs": 1}
    with pytest.raises(NotFoundError, match="has 1 inputs, and none of index 1"):
        await desk.get(call, index=1)
    with pytest.raises(NotFoundError, match="no call fc-1 is known here"):
        await desk.get("fc-1")
    with pytest.raises(InvalidError, match="is not the id of a call"):
        await desk.get("42")


@with_a_desk
async def test_big_results_and_payloads_come_and_go(desk: Desk) -> None:
    channel = await desk.open("big")
    for size in (10_000, 2 << 20):
        assert await desk.get(await desk.spawn(channel, size)) == b"x" * size
    double = await desk.open("double")
    assert len(await desk.get(await desk.spawn(double, b"y" * 20_000))) == 40_000


@with_a_desk
async def test_failures_are_got_as_they_were(desk: Desk) -> None:
    call = await desk.spawn(await desk.open("bad"), 1)
    answer: Answer = await desk.ask("call.get", call=call)
    assert answer.frame.outcome == Outcome.RAISED and b"ValueError: bad 1" in bytes(answer.frame.payload)
    (shown,) = (await desk.ask("call.show", call=call))["inputs"]
    assert (shown["state"], shown["reason"]) == ("raised", "ValueError: bad 1")


@with_a_desk
async def test_what_is_not_over_in_time_is_pending(desk: Desk) -> None:
    (pipe,) = desk.pipes(1)
    call = await desk.spawn(await desk.open("gate"), pipe, 5)
    for timeout_ms in (0, 1):
        with pytest.raises(Pending):
            await desk.get(call, timeout_ms=timeout_ms)
    with pytest.raises(Pending):
        await desk.ask("call.wait", call=call, timeout_ms=1)
    getting = asyncio.create_task(desk.get(call))
    waiting = asyncio.create_task(desk.ask("call.wait", call=call))
    await desk.let_go(pipe)
    assert await getting == 5 and (await waiting)["call"]["returned"] == 1


@with_a_desk
async def test_many_inputs_are_one_call(desk: Desk) -> None:
    opened = await desk.ask("function.open", app="shop", function="double", together=True)
    call, channel = opened["call"], opened["channel"]
    spawned = [await desk.spawn(channel, number) for number in range(3)]
    assert spawned == [call] * 3
    counting = asyncio.create_task(desk.ask("call.count", call=call))
    getting = asyncio.create_task(desk.get(call, index=7))
    assert [await desk.get(call, index=index) for index in range(3)] == [0, 2, 4]
    with pytest.raises(Pending):
        await desk.ask("call.wait", call=call, timeout_ms=0)
    await desk.ask("call.seal", call=call)
    assert await counting == {"inputs": 3}
    with pytest.raises(NotFoundError, match="none of index 7"):
        await getting
    assert (await desk.ask("call.wait", call=call))["call"]["sealed"]
    refused = await desk.answer(desk.call(channel, 9, flags=Flag.DURABLE))
    assert refused.outcome == Outcome.CANCELLED
    with pytest.raises(NotFoundError, match="this program has no open call"):
        await Caller(desk.engine).ask("call.seal", call=call)


@with_a_desk
async def test_a_call_without_inputs_is_over_when_it_is_sealed(desk: Desk) -> None:
    opened = await desk.ask("function.open", app="shop", function="double", together=True)
    await desk.ask("call.seal", call=opened["call"])
    assert await desk.ask("call.count", call=opened["call"]) == {"inputs": 0}
    assert (await desk.ask("call.wait", call=opened["call"]))["call"]["state"] == "returned"


@with_a_desk
async def test_a_channel_that_is_closed_and_a_connection_that_goes_seal_their_calls(desk: Desk) -> None:
    opened = await desk.ask("function.open", app="shop", function="double", together=True)
    await desk.spawn(opened["channel"], 1)
    await desk.ask("function.close", channel=opened["channel"])
    assert await desk.ask("call.count", call=opened["call"]) == {"inputs": 1}
    gone = Caller(desk.engine)
    other = await gone.ask("function.open", app="shop", function="double", together=True)
    await gone.spawn(other["channel"], 1)
    desk.engine.leave(gone.scope)
    assert (await desk.ask("call.wait", call=other["call"]))["call"]["returned"] == 1
    with pytest.raises(NotFoundError, match="was not opened"):
        await desk.ask("function.close", channel=opened["channel"])


@with_a_desk
async def test_a_generator_can_t_be_spawned(desk: Desk) -> None:
    channel = await desk.open("count")
    refused = await desk.answer(desk.call(channel, 3, flags=Flag.DURABLE))
    assert refused.outcome == Outcome.LOST and b"remote_gen" in bytes(refused.payload)


@with_a_desk
async def test_calls_are_listed_with_those_under_way(desk: Desk) -> None:
    (pipe,) = desk.pipes(1)
    double, gate, bad = [await desk.open(name) for name in ("double", "gate", "bad")]
    await desk.answer(desk.call(double, 1))
    await desk.answer(desk.call(bad, 1))
    spawned = await desk.spawn(double, 2)
    await desk.get(spawned)
    opened = await desk.ask("function.open", app="shop", function="gate", together=True)
    for _ in range(40):
        desk.call(opened["channel"], pipe)
    waiting = await desk.spawn(gate, pipe)

    async def listed(**query: Any) -> list[tuple[str, str]]:
        calls = (await desk.ask("call.list", **query))["calls"]
        return [(call["function"], call["state"]) for call in calls]

    held = await desk.begun(pipe)
    assert await listed(state="failed") == [("bad", "raised")]
    assert await listed(state="returned") == [("double", "returned")] * 2
    assert ("gate", "running") in await listed(state="open", app="shop")
    assert await listed(function="double", limit=1, app="shop") == [("double", "returned")]
    assert await listed(app="other") == []
    with pytest.raises(InvalidError, match="'done' is no state of a call"):
        await listed(state="done")
    shown = await desk.ask("call.show", call=opened["call"], limit=10)
    assert (shown["call"]["inputs"], shown["more"], shown["call"]["durable"]) == (40, True, False)
    assert [one["index"] for one in shown["inputs"]] == list(range(10))
    one = shown["inputs"][3]["input"]
    assert (await desk.ask("call.show", call=one))["call"]["call"] == opened["call"]
    assert (await desk.ask("call.show", call=spawned))["call"]["durable"]
    everything = (await desk.ask("call.list"))["calls"]
    assert await listed(before=everything[0]["call"]) == [(call["function"], call["state"]) for call in everything[1:]]
    cancelled = await desk.ask("call.cancel", call=opened["call"], terminate=True)
    assert cancelled["queued"] + cancelled["running"] == 40 and cancelled["running"]
    assert (await desk.ask("call.wait", call=opened["call"]))["call"]["state"] == "cancelled"
    assert (await desk.answer(desk.call(opened["channel"], pipe))).outcome == Outcome.CANCELLED
    await desk.ask("call.cancel", call=waiting, terminate=True)
    assert (await desk.ask("call.wait", call=waiting))["call"]["state"] == "cancelled"
    os.close(held)
    with pytest.raises(NotFoundError):
        await desk.ask("call.cancel", call="fc-99")


@with_a_desk
async def test_the_graph_of_a_call_goes_down_to_what_its_inputs_called(desk: Desk) -> None:
    pipe, other = desk.pipes(2)
    gate, double = await desk.open("gate"), await desk.open("double")
    root = await desk.spawn(gate, pipe)
    held = await desk.begun(pipe)
    number = number_of(root)
    opened = await desk.ask("function.open", app="shop", function="double", together=True, parent=number)
    for x in range(2):
        await desk.answer(desk.call(opened["channel"], x))
    child = await desk.answer(desk.call(double, 3, parent=number))
    assert child.outcome == Outcome.RETURNED
    desk.call(gate, other, parent=number)
    inputs = (await desk.ask("call.graph", call=root))["inputs"]
    assert [(one["function"], one["state"], one["parent"]) for one in inputs[:1]] == [("gate", "running", "")]
    below = sorted((one["function"], one["state"]) for one in inputs[1:])
    assert below == [("double", "returned")] * 3 + [("gate", below[-1][1])]
    assert {one["parent"] for one in inputs[1:]} == {f"in-{number:x}"}
    assert below[-1][1] in {"queued", "running"}
    with pytest.raises(NotFoundError):
        await desk.ask("call.graph", call="fc-99")
    os.close(held)
    await desk.let_go(other)


@with_a_desk
async def test_what_failed_is_tried_again_with_the_code_of_today(desk: Desk) -> None:
    call = await desk.spawn(await desk.open("bad"), 4)
    assert (await desk.ask("call.wait", call=call))["call"]["state"] == "raised"
    await desk.apply(CODE.replace('raise ValueError(f"bad {x}")', "return x"))
    assert await desk.ask("call.retry", call=call) == {"inputs": 1}
    assert await desk.get(call) == 4
    (shown,) = (await desk.ask("call.show", call=call))["inputs"]
    assert (shown["attempts"], [one["outcome"] for one in shown["history"]]) == (2, ["raised"])


def most_workers(desk: Desk) -> int:
    return desk.engine.live["shop"].pools["gate"].limits.max_workers


@with_a_desk
async def test_what_waits_goes_to_the_new_version_and_what_runs_ends_on_the_old(desk: Desk) -> None:
    channel, workers = await desk.open("gate"), most_workers(desk)
    pipes = desk.pipes(workers + 3)
    calls = [await desk.spawn(channel, pipe, number) for number, pipe in enumerate(pipes)]
    held = [await desk.begun(pipe) for pipe in pipes[:workers]]
    applying = asyncio.create_task(desk.apply(CODE.replace("return x\n", "return x + 100\n")))
    await desk.let_go(*pipes[workers:])  # they have begun, while those on the old version still run
    for descriptor in held:
        os.close(descriptor)
    await applying
    results = [await desk.get(call) for call in calls]
    assert results == [number if number < workers else number + 100 for number in range(len(calls))]


@with_a_desk
async def test_a_destroyed_app_takes_what_waits_with_it(desk: Desk) -> None:
    channel, workers = await desk.open("gate"), most_workers(desk)
    pipes = desk.pipes(workers + 1)
    calls = [await desk.spawn(channel, pipe, number) for number, pipe in enumerate(pipes)]
    held = [await desk.begun(pipe) for pipe in pipes[:workers]]
    destroying = asyncio.create_task(desk.ask("destroy", app="shop"))
    last: Answer = await desk.ask("call.get", call=calls[-1])
    assert last.frame.outcome == Outcome.CANCELLED
    assert bytes(last.frame.payload) == b"shop is not deployed any more"
    for descriptor in held:
        os.close(descriptor)
    await destroying
    assert [await desk.get(call) for call in calls[:-1]] == list(range(workers))
    with pytest.raises(NotFoundError, match="shop is not deployed any more"):
        await desk.ask("call.retry", call=calls[-1])
    assert not desk.engine.is_needed()


@with_a_desk
async def test_calls_of_an_ephemeral_app_end_with_it_and_their_results_stay(desk: Desk) -> None:
    (pipe,) = desk.pipes(1)
    program = Caller(desk.engine)
    reply = await program.ask("run", declaration=desk.declaration(CODE, CALLED))
    done = await program.spawn(await program.open("double", app=reply["app"]), 4)
    assert await program.get(done) == 8
    held = await program.spawn(await program.open("gate", app=reply["app"]), pipe)
    desk.engine.leave(program.scope)
    answer: Answer = await desk.ask("call.get", call=held)
    assert (answer.frame.outcome, bytes(answer.frame.payload)) == (Outcome.CANCELLED, b"the app has ended")
    assert await desk.get(done) == 8


def test_a_drained_engine_leaves_what_waits_to_the_next_one(tmp_path: Path) -> None:
    async def main() -> None:
        async with a_desk(tmp_path) as desk:
            await desk.apply()
            channel, workers = await desk.open("gate"), most_workers(desk)
            pipes = desk.pipes(workers + 2)
            calls = [await desk.spawn(channel, pipe, number) for number, pipe in enumerate(pipes)]
            held = [await desk.begun(pipe) for pipe in pipes[:workers]]
            assert desk.engine.is_needed()
            draining = asyncio.create_task(desk.engine.drain())
            await asyncio.sleep(0)
            for descriptor in held:
                os.close(descriptor)
            await draining
            assert [await desk.get(call) for call in calls[:workers]] == list(range(workers))
            assert [await desk.state(call) for call in calls[workers:]] == ["queued"] * 2
        async with a_desk(tmp_path) as desk:
            await desk.let_go(*pipes[workers:])
            assert [await desk.get(call) for call in calls] == list(range(workers + 2))

    asyncio.run(asyncio.wait_for(main(), 60))


@with_a_desk
async def test_results_expire(desk: Desk) -> None:
    call = await desk.spawn(await desk.open("double"), 1)
    await desk.ask("call.wait", call=call)
    await desk.engine.ledger.expire(desk.engine.clock.now_ms() + 1, 0)
    with pytest.raises(OutputExpiredError, match="is not kept any more"):
        await desk.get(call)
    assert (await desk.ask("call.show", call=call))["call"]["expired"]
    with pytest.raises(InvalidError, match="too old"):
        await desk.ask("call.retry", call=call)
    await desk.engine.ledger.expire(0, desk.engine.clock.now_ms() + 1)
    with pytest.raises(NotFoundError):
        await desk.get(call)


@with_a_desk
async def test_the_autoscaler_is_told_and_forgets_it_with_the_next_deployment(desk: Desk) -> None:
    channel = await desk.open("double")
    assert await desk.ask("function.scaling", channel=channel) == {
        "min_containers": 0,
        "max_containers": None,
        "buffer_containers": 0,
        "scaledown_window": 60,
    }
    scaled = await desk.ask("function.scale", channel=channel, min_containers=1, max_containers=3)
    assert (scaled["min_containers"], scaled["max_containers"]) == (1, 3)
    assert (await desk.ask("function.scale", channel=channel, scaledown_window=5))["max_containers"] == 3
    stats = await desk.ask("function.stats", channel=channel)
    assert (stats["queued"], stats["running"], stats["workers"]) == (0, 0, 1)
    for wrong in ({"min_containers": -1}, {"max_containers": 0}, {"scaledown_window": 1}, {"min_containers": 4}):
        with pytest.raises(InvalidError):
            await desk.ask("function.scale", channel=channel, **wrong)
    await desk.apply(CODE + "\n# another line\n")
    assert (await desk.ask("function.scaling", channel=channel))["min_containers"] == 0


@with_a_desk
async def test_what_can_t_be_called_says_why(desk: Desk) -> None:
    with pytest.raises(NotFoundError, match="double has no method run"):
        await desk.open("double", member="run")
    with pytest.raises(NotFoundError, match="has no function doubl"):
        await desk.open("doubl")
    unknown = await desk.answer(desk.call(99))
    assert unknown.outcome == Outcome.LOST and b"channel 99 was not opened" in bytes(unknown.payload)
    channel = await desk.open("double")
    await desk.ask("destroy", app="shop")
    gone = await desk.answer(desk.call(channel, 1))
    assert gone.outcome == Outcome.LOST and b"no app shop is deployed" in bytes(gone.payload)


@with_a_desk
async def test_numbers_that_can_t_be_are_refused_and_nothing_else_with_them(desk: Desk) -> None:
    channel = await desk.open("double")
    idents = [desk.call(channel, 1, flags=Flag.DURABLE, parent=parent) for parent in (0, 1 << 63, 0)]
    answers = [await desk.answer(ident) for ident in idents]
    assert [answer.outcome for answer in answers] == [Outcome.RETURNED, Outcome.LOST, Outcome.RETURNED]
    assert b"9223372036854775808 is not the number of an input" in bytes(answers[1].payload)


@with_a_desk
async def test_a_second_call_of_one_id_is_refused_for_the_first_could_not_be_given_up_then(desk: Desk) -> None:
    (pipe,) = desk.pipes(1)
    channel = await desk.open("gate")
    held = desk.call(channel, pipe)
    begun = await desk.begun(pipe)
    desk.engine.channels.call(desk.scope, Frame(Kind.CALL, held, b"", channel), NO_FD)
    refused = desk.answers.pop(held)
    assert refused.outcome == Outcome.LOST and b"is under way" in bytes(refused.payload)
    os.close(begun)
    assert (await desk.answer(held)).outcome == Outcome.RETURNED


@pytest.mark.parametrize("size", [20_000, 2_000_000])
def test_a_result_whose_file_is_damaged_is_said_to_be(tmp_path: Path, size: int) -> None:
    async def main() -> None:
        async with a_desk(tmp_path) as desk:
            await desk.apply()
            call = await desk.spawn(await desk.open("big"), size)
            assert len(await desk.get(call)) == size
            path = desk.engine.ledger.files.path(number_of(call), "out")
            os.truncate(path, 100)
            with pytest.raises(Error, match=f"the result of {call} can't be read: {path}: the file is damaged"):
                await desk.get(call)
            path.unlink()
            with pytest.raises(Error, match="No such file or directory"):
                await desk.get(call)

    asyncio.run(asyncio.wait_for(main(), 60))
