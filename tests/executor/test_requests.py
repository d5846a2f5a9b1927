"""Planning, applying and destroying where there are two runtimes, by what was said and by what they can do."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from fakes import BASE, FakeRuntime

from slipway.compiler.facts import BaseFact
from slipway.compiler.wire import to_wire
from slipway.dsl.declaration import AppDecl, DebianSlim, FromRegistry, FunctionDecl, ImageDecl, Origin
from slipway.dsl.errors import DeclarationError, InvalidError, RuntimeUnavailable
from slipway.executor.channels import Scope
from slipway.executor.engine import Engine
from slipway.executor.home import Home
from slipway.executor.ports import Ability
from slipway.executor.requests import methods
from slipway.executor.worker.frames import Frame, Kind
from slipway.executor.worker.wire import NO_FD

NO_REGISTRY = Ability(refusals=(("from_registry", "no registry images here; use `--runtime docker`"),))
REDIS = BaseFact(identity=(("manifest", "sha256:7"),), says="redis:7")
SLIM = BaseFact(identity=(("manifest", "sha256:3"),), says="python:3.11")


class FakeDocker(FakeRuntime):
    """The fake under docker's name; `wrong` is what is wrong with it."""

    def __init__(self) -> None:
        super().__init__(bases={("from_registry", "redis:7"): REDIS, ("debian_slim", "3.11"): SLIM})
        self.wrong = ""

    @property
    def name(self) -> str:
        return "docker"

    async def trouble(self) -> str:
        if self.wrong == "never":
            await asyncio.Event().wait()
        return self.wrong

    async def ability(self) -> Ability:
        if self.wrong:
            raise RuntimeUnavailable(f"docker: {self.wrong}", hint="Start it.")
        return await super().ability()


class Desk:
    """An engine's requests, with a home whose settings can be written."""

    def __init__(self, home: Home, engine: Engine, docker: FakeDocker) -> None:
        self.home = home
        self.engine = engine
        self.docker = docker
        self._methods = methods(engine)

    async def ask(self, method: str, **params: Any) -> dict[str, Any]:
        return await self._methods[method](Scope(), params, lambda event, *descriptors: None)

    async def plan(self, decl: AppDecl, runtime: str | None = None, **environment: str) -> dict[str, Any]:
        asked = {"runtime": runtime} if runtime else {}
        reply = await self.ask("plan", declaration=to_wire(decl), environment=environment, **asked)
        plan: dict[str, Any] = reply["plan"]
        return plan

    async def runtime(self, decl: AppDecl, runtime: str | None = None, **environment: str) -> tuple[str, list[str]]:
        """The runtime that a plan is for, and what it says of that."""
        plan = await self.plan(decl, runtime, **environment)
        said = [fault["summary"] for fault in plan.get("faults", ()) if fault["address"].startswith("runtime")]
        return plan["graph"]["runtime"], said


def with_a_desk(test: Callable[[Desk], Coroutine[Any, Any, None]]) -> Callable[..., None]:
    @functools.wraps(test)
    def run(tmp_path: Path) -> None:
        async def main() -> None:
            async with a_desk(tmp_path) as desk:
                await test(desk)

        asyncio.run(asyncio.wait_for(main(), 30))

    del run.__wrapped__  # pytest is to see this one's parameters
    return run


@asynccontextmanager
async def a_desk(path: Path) -> AsyncIterator[Desk]:
    home = Home(path)
    home.create()
    docker = FakeDocker()
    native = FakeRuntime(ability=NO_REGISTRY, bases={("debian_slim", "3.11"): BASE})
    async with Engine.open(home, runtimes=(native, docker)) as engine:
        yield Desk(home, engine, docker)


def app(name: str = "shop", base: DebianSlim | FromRegistry | None = None) -> AppDecl:
    origin = Origin(file="app.py", line=7)
    image = ImageDecl(name="base", base=base or DebianSlim(), origin=origin)
    function = FunctionDecl(name="f", module="app", qualname="f", image=0, origin=origin)
    return AppDecl(name=name, images=(image,), functions=(function,), python="3.11", file="app.py", origin=origin)


REGISTRY = app("cache", FromRegistry(tag="redis:7", origin=Origin(file="app.py", line=3)))


@with_a_desk
async def test_native_where_it_can_docker_where_it_cannot(desk: Desk) -> None:
    assert await desk.runtime(app()) == ("native", [])
    assert await desk.runtime(REGISTRY) == ("docker", ["native can't do from_registry here (image base)"])
    old = app("old", DebianSlim(python_version="3.97"))
    with pytest.raises(DeclarationError) as said:  # docker has no such Python either, and both are told
        await desk.plan(old)
    assert [fault.address for fault in said.value.faults] == ["image base", "runtime native"]
    assert "this host has no debian_slim 3.97" in said.value.faults[1].summary


@with_a_desk
async def test_where_neither_can_both_reasons_are_told(desk: Desk) -> None:
    desk.docker.wrong = "no engine answers at unix:///var/run/docker.sock (default)"
    with pytest.raises(DeclarationError) as said:
        await desk.plan(REGISTRY)
    native, docker = said.value.faults
    assert native.address == "image base" and native.origin.line == 3 and "from_registry" in native.summary
    assert (docker.address, docker.summary) == ("runtime docker", desk.docker.wrong)
    assert await desk.runtime(app()) == ("native", [])  # which needs no docker
    with pytest.raises(RuntimeUnavailable, match="no engine answers"):
        await desk.plan(app(), "docker")


@with_a_desk
async def test_what_was_said_counts_in_order(desk: Desk) -> None:
    assert await desk.runtime(app(), SLIPWAY_RUNTIME="docker") == ("docker", ["SLIPWAY_RUNTIME says so"])
    assert await desk.runtime(app(), "native", SLIPWAY_RUNTIME="docker") == ("native", [])
    desk.home.config.write_text('[apps.shop]\nruntime = "docker"\n')
    assert await desk.runtime(app()) == ("docker", [f"{desk.home.config}:2 says so"])
    assert await desk.runtime(app("other")) == ("native", [])
    with pytest.raises(InvalidError, match="there is no runtime 'vm'"):
        await desk.plan(app(), SLIPWAY_RUNTIME="vm")
    desk.home.config.write_text('[app.shop]\nruntime = "docker"\n')
    with pytest.raises(DeclarationError) as said:
        await desk.plan(app())
    assert str(said.value.faults[0].origin) == f"{desk.home.config}:1"
    assert "config.toml:1: app: there is no such setting" in (await desk.ask("status"))["settings"]


@with_a_desk
async def test_an_app_moves_from_one_runtime_to_the_other(desk: Desk) -> None:
    async def apply(runtime: str | None = None) -> tuple[str, list[str]]:
        reply = await desk.ask("plan", declaration=to_wire(app()), **({"runtime": runtime} if runtime else {}))
        await desk.ask("apply", id=reply["id"])
        live = desk.engine.live["shop"]
        return live.runtime, [fault["summary"] for fault in reply["plan"].get("faults", ())]

    assert await apply() == ("native", [])
    before = desk.engine.live["shop"].pools["f"]
    pool = desk.engine.dispatchers["native"].open_pool(before)
    moved = await apply("docker")
    assert moved[0] == "docker" and moved[1][0].startswith("in place of native, with images of its own")
    assert pool.placement.draining and before.key not in desk.engine.dispatchers["native"].pools
    assert await apply() == ("docker", ["as deployed"])
    apps = (await desk.ask("status"))["apps"]
    assert [(entry["app"], entry["runtime"], entry["serial"]) for entry in apps] == [("shop", "docker", 2)]
    desk.docker.wrong = "it has gone"
    with pytest.raises(RuntimeUnavailable, match="it has gone"):
        await desk.plan(app())  # it stays where it is deployed
    assert (await desk.ask("destroy", app="shop"))["removed"] == ["image base/0", "function f"]
    assert "shop" not in desk.engine.live
    assert await desk.runtime(app()) == ("native", [])


@with_a_desk
async def test_no_two_calls_are_called_alike(desk: Desk) -> None:
    scope = Scope()
    for ident, runtime in enumerate(("native", "docker")):
        await desk.ask("apply", plan=await desk.plan(app(f"on-{runtime}"), runtime))
        channel, _ = await desk.engine.channels.open(scope, {"app": f"on-{runtime}", "function": "f"})
        desk.engine.channels.call(scope, Frame(Kind.CALL, ident, channel=channel), NO_FD)
    assert len(set(scope.calls.values())) == 2


@with_a_desk
async def test_the_status_says_how_every_runtime_is(desk: Desk) -> None:
    assert (await desk.ask("status"))["runtimes"] == [
        {"name": "native", "trouble": ""},
        {"name": "docker", "trouble": ""},
    ]
    desk.docker.wrong = "no engine answers"
    assert (await desk.ask("status"))["runtimes"][1] == {"name": "docker", "trouble": "no engine answers"}


def test_a_runtime_that_says_nothing_does_not_hold_up_the_status(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("slipway.executor.chooser.PATIENCE", 0.01)

    async def main() -> None:
        async with a_desk(tmp_path) as desk:
            desk.docker.wrong = "never"
            told = (await desk.ask("status"))["runtimes"][1]["trouble"]
            assert told == "no answer within 0.01 s"

    asyncio.run(asyncio.wait_for(main(), 30))


def test_a_caller_who_has_another_engine_in_mind_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///ours.sock")
    monkeypatch.delenv("DOCKER_CONTEXT", raising=False)

    async def main() -> None:
        async with a_desk(tmp_path) as desk:
            same = await desk.runtime(app(), "docker", DOCKER_HOST="unix:///ours.sock")
            assert same == ("docker", [])
            _, (told,) = await desk.runtime(app(), "docker", DOCKER_CONTEXT="lab")
            ours = "the engine was started with DOCKER_HOST=unix:///ours.sock, and keeps to it."
            assert told.startswith(f"Your DOCKER_CONTEXT is lab; {ours}")
            assert await desk.runtime(app(), DOCKER_CONTEXT="lab") == ("native", [])
            desk.docker.wrong = "no engine answers"
            with pytest.raises(RuntimeUnavailable) as said:
                await desk.plan(app(), "docker", DOCKER_HOST="unix:///mine.sock")
            assert "Your DOCKER_HOST is unix:///mine.sock" in said.value.hint
            desk.home.config.write_text('[docker]\nhost = "unix:///said.sock"\n')
            desk.docker.wrong = ""
            assert await desk.runtime(app(), "docker", DOCKER_CONTEXT="lab") == ("docker", [])

    asyncio.run(asyncio.wait_for(main(), 30))
