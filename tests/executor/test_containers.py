"""Requests about containers, on an engine whose containers are pretended: what is refused, listed, ended."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve
from contracts.runtime_contract import Screen
from fakes import FakeRuntime
from small_engine import pool_spec

from slipway.compiler.nodes import Graph
from slipway.dsl.errors import InvalidError, NotFoundError, RuntimeUnavailable
from slipway.executor.channels import Scope
from slipway.executor.containers import Containers
from slipway.executor.engine import Engine
from slipway.executor.home import Home
from slipway.executor.launch import LiveApp
from slipway.executor.log_query import LogLine
from slipway.executor.scaling import PoolLimits

WINDOW = {"rows": 33, "columns": 101, "kind": "vt100"}


class Asked:
    """Requests of one connection, what was emitted, and the descriptors that came."""

    def __init__(self, engine: Engine, runtime: FakeRuntime) -> None:
        self.engine = engine
        self.runtime = runtime
        self.containers = Containers(engine)
        self.scope = Scope()
        self.events: list[dict[str, Any]] = []
        self.descriptors: list[int] = []
        self.came = asyncio.Event()

    def emit(self, event: dict[str, Any], *descriptors: int) -> None:
        self.events.append(event)
        self.descriptors += descriptors
        self.came.set()

    async def __call__(self, method: str, *, scope: Scope | None = None, **params: Any) -> dict[str, Any]:
        return await self.containers.methods()[method](scope or self.scope, params, self.emit)

    def begin(self, method: str, **params: Any) -> asyncio.Task[dict[str, Any]]:
        return asyncio.create_task(self(method, **params))

    async def listed(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = (await self("container.list"))["containers"]
        return found


@asynccontextmanager
async def asked(home: Path) -> AsyncIterator[Asked]:
    """An engine that serves the function `serve` of the app `app`, on a fake runtime."""
    Home(home).create()
    runtime = FakeRuntime()
    async with Engine.open(Home(home), runtimes=(runtime,)) as engine:
        root = home / "tree"
        root.mkdir()
        spec = pool_spec(root, "serve", PoolLimits(max_workers=1))
        spec = evolve(spec, worker=evolve(spec.worker, env=(("TOKEN", "hunter22"),)))
        graph = Graph(app="app", runtime="native")
        engine.live["app"] = LiveApp(
            id="app", name="app", serial=3, runtime="native", graph=graph, pools={"serve": spec}
        )
        yield Asked(engine, runtime)


@pytest.fixture
def run(tmp_path: Path) -> Callable[[Callable[[Asked], Awaitable[None]]], None]:
    def run(main: Callable[[Asked], Awaitable[None]]) -> None:
        async def whole() -> None:
            async with asked(tmp_path / "home") as asking:
                await main(asking)

        asyncio.run(asyncio.wait_for(whole(), 30))

    return run


Run = Callable[[Callable[[Asked], Awaitable[None]]], None]


def sh(name: str) -> list[str]:
    return ["sh", "-c", "", name]


async def opened(ask: Asked, program: str) -> tuple[asyncio.Task[dict[str, Any]], Screen, int]:
    """A shell in which a program of the fake's runs: the request, its terminal, the number of its session."""
    task = ask.begin("container.shell", app="app", function="serve", argv=sh(program), terminal=WINDOW)
    await ask.came.wait()
    ask.came.clear()
    event = ask.events[-1]
    assert event == {"event": "session", "session": event["session"], "descriptors": 1}
    return task, Screen(ask.descriptors.pop()), event["session"]


def test_a_shell_gets_what_the_worker_gets_and_is_gone_in_the_end(run: Run) -> None:
    async def main(ask: Asked) -> None:
        task, screen, _ = await opened(ask, "greet")
        with screen:
            (entry,) = await ask.listed()
            told = [entry[name] for name in ("kind", "app", "function", "runtime", "state", "serial")]
            assert told == ["shell", "app", "serve", "native", "running", 3]
            await screen.until(b"who? ")
            os.write(screen.fd, b"you\n")
            assert await task == {"code": 0, "signal": None, "oom": False, "why": ""}
            assert b"hello you" in await screen.rest()
        (spec,) = ask.runtime.created
        assert spec.name == entry["id"] and ("shell", "yes") in spec.labels and not spec.single
        assert dict(ask.runtime.ran[0].env) == {"TOKEN": "hunter22", "TERM": "vt100"}
        assert await ask.listed() == [] and ask.runtime.containers == {}
        assert list(ask.engine.home.run.iterdir()) == []

    run(main)


def test_the_size_and_signals_go_to_the_session_of_the_same_connection_alone(run: Run) -> None:
    async def main(ask: Asked) -> None:
        task, screen, session = await opened(ask, "size")
        with screen:
            assert await screen.until(b"\n") == b"33 101\r\n"
            for scope, params, says in (
                (Scope(), {"session": session, "rows": 1, "columns": 1}, "no session"),
                (ask.scope, {"session": session + 1, "rows": 1, "columns": 1}, "no session"),
                (ask.scope, {"session": session, "rows": 0, "columns": 1}, "0 rows and 1 columns"),
                (ask.scope, {"session": session, "rows": 10**6, "columns": 1}, "1000000 rows"),
            ):
                with pytest.raises((NotFoundError, InvalidError), match=says):
                    await ask("session.resize", scope=scope, **params)
            with pytest.raises(InvalidError, match="no signal 1000"):
                await ask("session.signal", session=session, number=1000)
            await ask("session.resize", session=session, rows=44, columns=102)
            assert (await task)["code"] == 5
        task, screen, session = await opened(ask, "wait")
        with screen:
            await ask("session.signal", session=session, number=signal.SIGINT)
            assert (await task)["signal"] == signal.SIGINT

    run(main)


def test_a_shell_whose_user_is_gone_is_hung_up(run: Run) -> None:
    async def main(ask: Asked) -> None:
        for program in ("wait", "trap"):
            task, screen, _ = await opened(ask, program)
            with screen:
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
            assert await ask.listed() == [] and ask.runtime.containers == {}

    run(main)


def test_a_shell_that_is_stopped_says_so(run: Run) -> None:
    async def main(ask: Asked) -> None:
        for graceful in (False, True):
            task, screen, _ = await opened(ask, "wait")
            with screen:
                (entry,) = await ask.listed()
                with pytest.raises(InvalidError, match="is a shell"):
                    await ask("container.logs", id=entry["id"])
                await ask("container.stop", id=entry["id"], graceful=graceful)
                reply = await task
                assert reply["why"] == f"the shell {entry['id']} was stopped"
                assert reply["signal"] == (signal.SIGTERM if graceful else signal.SIGKILL)

    run(main)


def test_a_shell_in_a_shells_container(run: Run) -> None:
    async def main(ask: Asked) -> None:
        task, screen, _ = await opened(ask, "wait")
        (entry,) = await ask.listed()
        inner = ask.begin("container.exec", id=entry["id"], argv=sh("greet"), terminal=WINDOW)
        await ask.came.wait()
        assert ask.containers.busy == "2 programs in containers"
        with screen, Screen(ask.descriptors.pop()) as second:
            os.write(second.fd, b"x\n")
            assert (await inner)["code"] == 0
            task.cancel()
            await asyncio.wait([task])
        assert ask.containers.busy == ""

    run(main)


def test_without_a_terminal_what_starts_the_program_must_run(run: Run) -> None:
    async def main(ask: Asked) -> None:
        with pytest.raises(RuntimeUnavailable, match="what starts it exited with code 127") as caught:
            await ask("container.shell", app="app", function="serve", argv=["ls"])
        assert "not found" in caught.value.hint
        assert await ask.listed() == [] and ask.descriptors == []

    run(main)


def test_what_cannot_be_is_refused(run: Run) -> None:
    async def main(ask: Asked) -> None:
        shell = {"app": "app", "function": "serve"}
        wrong: tuple[tuple[str, dict[str, Any], str], ...] = (
            ("container.shell", {"app": "ap", "function": "serve"}, "no app ap is deployed or running here"),
            ("container.shell", {"app": "app", "function": "x"}, "the app app has no function x"),
            ("container.shell", shell | {"runtime": "docker"}, "app is deployed on native, not on docker"),
            ("container.shell", shell | {"argv": [1]}, "not a list of words"),
            ("container.shell", shell | {"argv": ["a\0b"]}, "not a list of words"),
            ("container.shell", shell | {"terminal": {"rows": "1", "columns": 1}}, "not rows, columns and a kind"),
            ("container.shell", shell | {"terminal": {"rows": -1, "columns": 1}}, "is none"),
            ("container.exec", {"id": "w1-1", "argv": []}, "no program is named"),
            ("container.exec", {"id": "../w", "argv": ["ls"]}, "there is no container ../w"),
            ("container.stop", {"id": "w1-1"}, "there is no container w1-1"),
            ("container.logs", {"id": "w1-1"}, "there is no container w1-1"),
        )
        for method, params, says in wrong:
            with pytest.raises((InvalidError, NotFoundError), match=says):
                await ask(method, **params)
            with pytest.raises(InvalidError, match="code in a worker can't look into containers"):
                await ask(method, scope=Scope(worker="w1-1"), **params)

    run(main)


def test_a_worker_on_its_way_is_listed_and_can_be_ended(run: Run) -> None:
    async def main(ask: Asked) -> None:
        spec = ask.engine.live["app"].pools["serve"]
        pool = ask.engine.dispatchers["native"].open_pool(evolve(spec, limits=PoolLimits(max_workers=1, min_workers=1)))
        (name,) = pool.names.values()
        (entry,) = await ask.listed()
        assert (entry["id"], entry["state"], entry["calls"]) == (name, "starting", 0)
        with pytest.raises(InvalidError, match="not ready yet"):
            await ask("container.exec", id=name, argv=["ls"])
        with pytest.raises(NotFoundError) as caught:
            await ask("container.stop", id=name + "0")
        assert caught.value.hint == f"Did you mean {name}?"
        pool.placement.limits = PoolLimits(max_workers=1)
        await ask("container.stop", id=name)
        assert await ask.listed() == []

    run(main)


def line(worker: str, text: str) -> LogLine:
    return LogLine(
        at_ms=1, app="app", run="app", function="serve", worker=worker, call="", stream="stdout", text=text
    )  # fmt: skip


def test_the_lines_of_a_worker_are_there_after_its_end(run: Run) -> None:
    async def main(ask: Asked) -> None:
        async def texts(**params: Any) -> list[str]:
            ask.events.clear()
            await ask("container.logs", **params)
            return [one["text"] for event in ask.events for one in event["lines"]]

        for number in range(3):
            ask.engine.logbook.append(line("w1-1", f"one {number}"))
            ask.engine.logbook.append(line("w2-1", f'"worker":"w1-1" {number}'))
        assert await texts(id="w1-1") == ["one 0", "one 1", "one 2"]
        assert await texts(id="w1-1", tail=1, follow=True) == ["one 2"]
        assert await texts(id="w1-1", search="1") == ["one 1"]
        assert await texts(id="w1-1", tail=-5) == []

    run(main)


def test_the_lines_of_a_worker_are_followed_to_its_end(run: Run) -> None:
    async def main(ask: Asked) -> None:
        spec = ask.engine.live["app"].pools["serve"]
        pool = ask.engine.dispatchers["native"].open_pool(evolve(spec, limits=PoolLimits(max_workers=1, min_workers=1)))
        (name,), (worker,) = pool.names.values(), pool.tasks.values()
        ask.engine.logbook.append(line(name, "before"))
        await ask("container.logs", id=name, follow=True)
        assert worker.done()
        heard = [one["text"] for one in ask.events[0]["lines"]] + [event["text"] for event in ask.events[1:]]
        assert heard[0] == "before" and any("not found" in text for text in heard[1:])
        assert len(heard) == len(set(heard))

    run(main)
