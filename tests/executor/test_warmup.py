"""A deployment takes the place of what serves if its workers start. Workers are plain processes here."""

from __future__ import annotations

import asyncio
import functools
import pickle
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve
from local_runtime import LocalProcessRuntime

from slipway.compiler.wire import to_wire
from slipway.dsl.declaration import AppDecl, Autoscaling, DebianSlim, FunctionDecl, ImageDecl, LocalSource, SourceDecl
from slipway.dsl.errors import StalePlanError
from slipway.executor.channels import Scope
from slipway.executor.engine import Engine
from slipway.executor.home import Home
from slipway.executor.requests import methods
from slipway.executor.worker import payload
from slipway.executor.worker.frames import Frame, Kind, Outcome
from slipway.executor.worker.wire import NO_FD

WORKS = "def index():\n    return 'it works'\n"
RAISES = "def load():\n    raise ValueError('no model here')\n\nload()\n"
DIES = "import os\nprint('going down', flush=True)\nos._exit(3)\n"
HANGS = "import time\ntime.sleep(60)\n"


class Local(LocalProcessRuntime):
    @property
    def name(self) -> str:
        return "native"


class Shop:
    """An engine, and an app of one file whose functions always have a worker."""

    def __init__(self, engine: Engine, runtime: Local, folder: Path) -> None:
        self.engine = engine
        self.runtime = runtime
        self.folder = folder
        self.events: list[tuple[str, str]] = []
        self.starting = asyncio.Event()
        self._methods = methods(engine)

    def _emit(self, event: dict[str, Any], *_: int) -> None:
        if event["event"] == "node" and event["kind"] == "function":
            self.events.append((event["address"], event["state"]))
            self.starting.set()

    async def ask(self, method: str, **params: Any) -> dict[str, Any]:
        return await self._methods[method](Scope(), params, self._emit)

    async def plan(self, code: str, *functions: FunctionDecl) -> dict[str, Any]:
        image = ImageDecl(name="base", base=DebianSlim(python_version="3.11"))
        functions = functions or (self.function("index", code),)
        decl = AppDecl(name="shop", images=(image,), functions=functions, python="3.11", file="shop.py")
        plan: dict[str, Any] = (await self.ask("plan", declaration=to_wire(decl)))["plan"]
        return plan

    def function(self, name: str, code: str, *, at_least: int = 1) -> FunctionDecl:
        path = self.folder / f"{name}.py"
        path.write_text(code)
        source = LocalSource(local=str(path), remote=f"/root/{name}.py")
        scaling = Autoscaling(min_containers=at_least)
        code_of = SourceDecl(sources=(source,))
        return FunctionDecl(name=name, module=name, qualname=name, image=0, code=code_of, autoscaling=scaling)

    async def apply(self, code: str, *functions: FunctionDecl) -> dict[str, Any]:
        return await self.ask("apply", plan=await self.plan(code, *functions))

    async def answer(self) -> Any:
        """What a call of what is in force answers."""
        ended: asyncio.Future[Frame] = asyncio.get_running_loop().create_future()
        scope = Scope(send=lambda frame, _fd: ended.set_result(frame))
        channel, _ = await self.engine.channels.open(scope, {"app": "shop", "function": "index"})
        packed = payload.dump(((), {})).bytes()
        self.engine.channels.call(scope, Frame(Kind.CALL, 1, packed, channel), NO_FD)
        frame = await ended
        assert frame.outcome == Outcome.RETURNED, bytes(frame.payload)
        return pickle.loads(bytes(frame.payload))

    @property
    def workers(self) -> list[str]:
        """Those that there are, by function."""
        return [pool.spec.function for pool in self.engine.dispatchers["native"].all_pools() for _ in pool.tasks]

    @property
    def started(self) -> int:
        return len(self.runtime.containers)


def with_a_shop(test: Callable[[Shop], Coroutine[Any, Any, None]]) -> Callable[..., None]:
    @functools.wraps(test)
    def run(tmp_path: Path) -> None:
        async def main() -> None:
            async with a_shop(tmp_path) as shop:
                await test(shop)

        asyncio.run(asyncio.wait_for(main(), 30))

    del run.__wrapped__  # pytest is to see this one's parameters
    return run


@asynccontextmanager
async def a_shop(path: Path) -> AsyncIterator[Shop]:
    home = Home(path / "home")
    home.create()
    folder = path / "project"
    folder.mkdir()
    runtime = Local()
    async with Engine.open(home, runtimes=(runtime,)) as engine:
        yield Shop(engine, runtime, folder)


@with_a_shop
async def test_the_workers_that_were_waited_for_are_those_that_serve(shop: Shop) -> None:
    reply = await shop.apply(WORKS)
    assert (reply["serial"], reply["failed"]) == (1, [])
    assert shop.events == [("function index", "running"), ("function index", "done")]
    assert await shop.answer() == "it works"
    assert shop.started == 1


@with_a_shop
async def test_what_cannot_start_leaves_in_force_what_is(shop: Shop) -> None:
    await shop.apply(WORKS)
    for broken, says, log in (
        (RAISES, "ValueError: no model here", 'index.py", line 4, in <module>'),
        (DIES, "exited with code 3 before it was ready; the last it printed:\n  going down", ""),
    ):
        reply = await shop.apply(broken)
        (failure,) = reply["failures"]
        assert (reply["serial"], reply["failed"]) == (1, ["function index"])
        assert failure["message"].startswith("function index: no worker could be started: ")
        assert says in failure["message"] and log in failure["log"]
        assert shop.events[-1] == ("function index", "failed")
        assert await shop.answer() == "it works"
        assert shop.workers == ["index"] and shop.engine.live["shop"].serial == 1
    assert (await shop.apply(WORKS + "# mended\n"))["serial"] == 2
    assert await shop.answer() == "it works"


@with_a_shop
async def test_a_first_deployment_that_cannot_start_is_none(shop: Shop) -> None:
    reply = await shop.apply(DIES)
    assert (reply["serial"], reply["failed"]) == (0, ["function index"])
    assert (await shop.ask("app.list"))["apps"] == [] and shop.workers == []


@with_a_shop
async def test_all_that_fail_are_told_and_those_that_started_go(shop: Shop) -> None:
    functions = (shop.function("index", WORKS), shop.function("other", DIES), shop.function("third", RAISES))
    reply = await shop.apply("", *functions, shop.function("seldom", DIES, at_least=0))
    assert reply["failed"] == ["function other", "function third"]
    assert ("function index", "done") in shop.events and shop.workers == []


@with_a_shop
async def test_what_is_in_force_as_it_is_is_not_started_again(shop: Shop) -> None:
    await shop.apply(WORKS)
    shop.events.clear()
    reply = await shop.apply("", shop.function("index", WORKS), shop.function("seldom", DIES, at_least=0))
    assert (reply["serial"], shop.events, shop.started) == (2, [], 1)


@with_a_shop
async def test_who_gives_the_apply_up_gives_its_workers_up(shop: Shop) -> None:
    await shop.apply(WORKS)
    shop.starting.clear()
    applying = asyncio.create_task(shop.apply(HANGS))
    await shop.starting.wait()
    applying.cancel()
    with pytest.raises(asyncio.CancelledError):
        await applying
    assert shop.workers == ["index"] and await shop.answer() == "it works"


@with_a_shop
async def test_a_start_that_takes_too_long_has_failed(shop: Shop) -> None:
    slow = evolve(shop.function("index", HANGS), startup_timeout_ms=1000)
    (failure,) = (await shop.apply("", slow))["failures"]
    assert failure["message"].endswith("the worker was not ready within 1 s")


@with_a_shop
async def test_a_plan_that_is_out_of_date_starts_nothing(shop: Shop) -> None:
    stale = await shop.plan(RAISES)
    await shop.apply(WORKS)
    with pytest.raises(StalePlanError):
        await shop.ask("apply", plan=stale)
    assert shop.started == 1


@with_a_shop
async def test_the_status_says_why_there_is_no_worker(shop: Shop) -> None:
    flag = shop.folder / "flag"
    await shop.apply(f"import os\nif os.path.exists({str(flag)!r}):\n    raise OSError('gone')\n{WORKS}")
    (entry,) = (await shop.ask("status"))["apps"]
    assert (entry["workers"], entry["troubles"]) == (1, {})
    flag.touch()
    dispatcher = shop.engine.dispatchers["native"]
    (pool,) = dispatcher.pools.values()
    (number,) = pool.tasks
    await dispatcher.end_worker(pool, number, "it was stopped", graceful=False)
    await asyncio.wait(tuple(pool.tasks.values()))  # the one that takes its place
    (entry,) = (await shop.ask("status"))["apps"]
    assert entry["troubles"] == {"index": "OSError: gone"}
    flag.unlink()
    assert await shop.answer() == "it works"
    (entry,) = (await shop.ask("status"))["apps"]
    assert entry["troubles"] == {}
