"""Freeing on an engine with the fake runtime: what is needed stays, whoever begins to need it and whenever."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from assembly import app, our_code
from fakes import BASE, FakeClock, FakeRuntime, Outcome

from slipway.compiler.encode import loads, to_wire
from slipway.compiler.nodes import Graph
from slipway.dsl.declaration import AppDecl, FunctionDecl, LocalSource, RunCommands, SourceDecl, VolumeDecl
from slipway.dsl.errors import DeclarationError, InvalidError, NotFoundError, RuntimeUnavailable
from slipway.executor.channels import Scope
from slipway.executor.engine import Engine
from slipway.executor.gc import BUILDING, NEEDED
from slipway.executor.home import Home
from slipway.executor.keep import chain_of
from slipway.executor.pool import PoolSpec
from slipway.executor.ports import ContainerSpec, Deployment
from slipway.executor.requests import methods
from slipway.executor.scaling import PoolLimits
from slipway.executor.worker.host import FunctionStart, WorkerSpec

DAY = 86_400.0
Reply = dict[str, Any]


class Slow(FakeRuntime):
    """A runtime whose removals wait, once it is told to hold them."""

    def __init__(self) -> None:
        super().__init__({("/bin/sh", "-c"): Outcome(writes=(("/made", b"x" * 10),))})
        self.may_remove = asyncio.Event()
        self.may_remove.set()
        self.removing = asyncio.Event()
        self.wrong = ""

    async def remove(self, layer: str) -> None:
        self.removing.set()
        await self.may_remove.wait()
        await super().remove(layer)

    async def trouble(self) -> str:
        return self.wrong


class World:
    """An engine, and what a user of it does."""

    def __init__(self, engine: Engine, runtime: Slow, clock: FakeClock, folder: Path) -> None:
        self.engine, self.runtime, self.clock = engine, runtime, clock
        self.methods = methods(engine)
        self.code = folder / "app.py"

    async def ask(self, method: str, scope: Scope | None = None, **params: Any) -> Reply:
        return await self.methods[method](scope or Scope(), params, lambda event, *descriptors: None)

    def declared(self, *steps: str, name: str = "app", text: str = "1") -> AppDecl:
        self.code.write_text(text)
        source = LocalSource(local=str(self.code), remote="/root/app.py")
        function = FunctionDecl(
            name="f",
            module="app",
            qualname="f",
            image=0,
            code=SourceDecl(sources=(source,)),
            volumes=(("/data", VolumeDecl(name="data", create_if_missing=True)),),
        )
        return app(tuple(RunCommands(commands=(step,)) for step in steps), name=name, functions=(function,))

    async def apply(self, *steps: str, **more: str) -> Graph:
        plan = await self.ask("plan", declaration=to_wire(self.declared(*steps, **more)), folder="/")
        await self.ask("apply", id=plan["id"])
        deployment = await self.engine.state.deployment(plan["plan"]["graph"]["app"])
        assert deployment is not None
        return loads(deployment.graph, Graph)

    async def free(self, **params: Any) -> Reply:
        offer = await self.ask("gc", **params)
        return await self.ask("gc.free", id=offer["id"])

    def layers(self, graph: Graph) -> list[str]:
        return [layer for layer, _ in chain_of(graph)]

    def has(self, graph: Graph) -> list[bool]:
        return [layer in self.runtime.kept for layer in self.layers(graph)]

    def blobs(self) -> set[str]:
        return set(self.engine.blobs.iterate())


def play(tmp_path: Path, act: Callable[[World], Awaitable[None]]) -> None:
    async def main() -> None:
        home = Home(tmp_path / "home")
        home.create()
        (home.path / "runtime").symlink_to(our_code().parent)  # making one takes half a second
        runtime, clock = Slow(), FakeClock()
        async with Engine.open(home, runtimes=(runtime,), clock=clock) as engine:
            await act(World(engine, runtime, clock, tmp_path))

    asyncio.run(main())


def test_what_is_in_force_and_what_was_before_it_stays(tmp_path: Path) -> None:
    async def act(world: World) -> None:
        graphs = [await world.apply("base", text, text=text) for text in ("one", "two", "three")]
        assert (await world.free())["freed"]["number"] == 4  # a layer, its bundle, the file in it, the log
        assert [world.has(graph) for graph in graphs] == [[True, False], [True, True], [True, True]]
        assert len(world.blobs()) == 2
        assert len(list(world.engine.home.bundles.iterdir())) == 2
        assert (await world.free())["freed"]["number"] == 0
        await world.ask("destroy", app="app")
        reply = await world.free()
        assert reply["left"] == [] and world.runtime.kept == {} and world.blobs() == set()
        assert list(world.engine.home.bundles.iterdir()) == []
        assert len(await world.engine.state.volumes()) == 1 and len(list(world.engine.home.volumes.iterdir())) == 1

    play(tmp_path, act)


def test_what_is_needed_again_is_built_again_and_the_plan_tells_how_long_that_took(tmp_path: Path) -> None:
    async def act(world: World) -> None:
        await world.apply("base", "one")
        await world.ask("destroy", app="app")
        await world.free()
        plan = await world.ask("plan", declaration=to_wire(world.declared("base", "one")), folder="/")
        layers = [change for change in plan["plan"]["changes"] if change["kind"] == "layer"]
        assert [change["build"] for change in layers] == [True, True]
        assert all(change["last_ms"] is not None for change in layers)
        assert (await world.ask("apply", id=plan["id"]))["executed"] == 2

    play(tmp_path, act)


def test_a_layer_that_somebody_else_removed_is_told_as_missing(tmp_path: Path) -> None:
    async def act(world: World) -> None:
        graph = await world.apply("base", "one")
        await world.runtime.remove(world.layers(graph)[1])
        assert (await world.free())["freed"]["number"] == 0
        plan = await world.ask("plan", declaration=to_wire(world.declared("base", "one")), folder="/")
        said = [change.get("because", []) for change in plan["plan"]["changes"] if change["kind"] == "layer"]
        assert said == [[], ["missing from the store, will be rebuilt"]]

    play(tmp_path, act)


def test_a_budget_is_kept_by_letting_go_of_what_was_used_first(tmp_path: Path) -> None:
    async def act(world: World) -> None:
        graphs = []
        for name in ("a", "b", "c"):
            graphs.append(await world.apply(name, name=name))
            world.clock.advance(DAY)
        for name in ("b", "c", "a"):  # a was in force for longest
            await world.ask("destroy", app=name)
            world.clock.advance(DAY)
        offer = await world.ask("gc", keep=0)
        assert [thing["ident"] for thing in offer["things"] if thing["kind"] == "layer"] == [
            world.layers(graphs[number])[0] for number in (1, 2, 0)
        ]
        sizes = {kind["kind"]: kind["size"] for kind in offer["kinds"]}
        assert sizes["layer"] == 30
        rest = offer["free"]["size"] - 10  # all but the first of the layers
        offer = await world.ask("gc", keep=rest)
        assert offer["spare"]["size"] <= rest and offer["keep"] == rest
        await world.ask("gc.free", id=offer["id"])
        assert not world.has(graphs[1])[0] and world.has(graphs[0])[0]
        (world.engine.home.path / "config.toml").write_text('[gc]\nkeep = "1GiB"\n')
        assert (await world.ask("gc"))["free"]["number"] == 0
        assert (await world.ask("gc", keep=0))["free"]["number"] > 0
        (world.engine.home.path / "config.toml").write_text('[gc]\nkeep = "much"\n')
        with pytest.raises(DeclarationError):
            await world.ask("gc")

    play(tmp_path, act)


# --- at the same time ---------------------------------------------------------------------------------


def test_what_an_apply_begins_to_use_after_it_was_shown_stays(tmp_path: Path) -> None:
    async def act(world: World) -> None:
        graph = await world.apply("base", "one")
        await world.ask("destroy", app="app")
        offer = await world.ask("gc")
        assert offer["free"]["number"] > 0
        async with world.engine.uses.hold(graph):
            reply = await world.ask("gc.free", id=offer["id"])
        assert reply["freed"]["number"] == 0
        assert {left["why"] for left in reply["left"]} == {NEEDED}
        assert world.has(graph) == [True, True] and len(world.blobs()) == 1

    play(tmp_path, act)


def test_what_was_deployed_again_since_it_was_shown_stays(tmp_path: Path) -> None:
    async def act(world: World) -> None:
        await world.apply("base", "one")
        await world.ask("destroy", app="app")
        offer = await world.ask("gc")
        graph = await world.apply("base", "one")
        reply = await world.ask("gc.free", id=offer["id"])
        assert reply["freed"]["number"] == 0 and world.has(graph) == [True, True]

    play(tmp_path, act)


def test_an_apply_waits_for_the_one_removal_under_way_and_keeps_the_rest(tmp_path: Path) -> None:
    """It comes while the topmost layer is being removed: that one is built again, those below are as they were."""

    async def act(world: World) -> None:
        graph = await world.apply("base", "one", "two")
        await world.ask("destroy", app="app")
        offer = await world.ask("gc")
        ran = len(world.runtime.ran)
        world.runtime.may_remove.clear()
        world.runtime.removing.clear()
        freeing = asyncio.create_task(world.ask("gc.free", id=offer["id"]))
        await world.runtime.removing.wait()
        applying = asyncio.create_task(world.apply("base", "one", "two"))
        held = asyncio.create_task(_held(world, graph))
        await asyncio.sleep(0)
        assert not held.done()
        world.runtime.may_remove.set()
        await held
        await applying
        await freeing
        assert world.has(graph) == [True, True, True]
        assert len(world.runtime.ran) == ran + 1

    play(tmp_path, act)


async def _held(world: World, graph: Graph) -> None:
    async with world.engine.uses.hold(graph):
        pass


def test_a_removal_that_is_given_up_comes_to_its_end_first(tmp_path: Path) -> None:
    async def act(world: World) -> None:
        graph = await world.apply("base")
        await world.ask("destroy", app="app")
        offer = await world.ask("gc")
        world.runtime.may_remove.clear()
        world.runtime.removing.clear()
        freeing = asyncio.create_task(world.ask("gc.free", id=offer["id"]))
        await world.runtime.removing.wait()
        freeing.cancel()
        held = asyncio.create_task(_held(world, graph))
        await asyncio.sleep(0)
        assert not held.done() and not freeing.done()
        world.runtime.may_remove.set()
        with pytest.raises(asyncio.CancelledError):
            await freeing
        await held
        assert world.has(graph) == [False]

    play(tmp_path, act)


def test_an_app_that_runs_keeps_what_it_needs_until_it_ends(tmp_path: Path) -> None:
    async def act(world: World) -> None:
        scope = Scope()
        reply = await world.ask("run", scope, declaration=to_wire(world.declared("base")), folder="/")
        graph = world.engine.live[reply["app"]].graph
        assert (await world.free())["freed"]["number"] == 0
        world.clock.advance(DAY)
        await world.ask("app.end", scope, app=reply["app"])
        ended = world.clock.now_ms()
        world.clock.advance(DAY)
        offer = await world.ask("gc")
        assert {thing["used_ms"] for thing in offer["things"] if thing["kind"] == "layer"} == {ended}
        await world.ask("gc.free", id=offer["id"])
        assert world.has(graph) == [False]
        assert [use.ident for use in await world.engine.state.uses()] == []

    play(tmp_path, act)


def test_containers_keep_what_they_stand_on(tmp_path: Path) -> None:
    """Of a pool that is on its way out, and one that nobody but the runtime knows."""

    async def act(world: World) -> None:
        graph = await world.apply("base", "one")
        low, high = world.layers(graph)
        spec = next(iter(world.engine.live["app"].pools.values()))
        await world.ask("destroy", app="app")
        start = FunctionStart(app="app", name="f", module="app", qualname="f")
        pool = PoolSpec(
            key="k",
            app="app",
            function="f",
            limits=PoolLimits(max_workers=1),
            worker=WorkerSpec(container=spec.worker.container, function=start),
        )
        world.engine.dispatchers["native"].open_pool(pool)
        assert (await world.free())["freed"]["number"] == 0
        await world.engine.dispatchers["native"].close_pool("k", "over")
        container = await world.runtime.create(ContainerSpec(name="c", base=BASE, layers=(low, high)))
        reply = await world.free()
        assert next(left["why"] for left in reply["left"]) == f"layer {high} is in use by container c"
        assert world.has(graph) == [True, True] and world.blobs() == set()
        await container.kill()
        await world.free()
        assert world.has(graph) == [False, False]

    play(tmp_path, act)


# --- what can't be done -------------------------------------------------------------------------------


def test_a_runtime_that_is_out_of_reach_is_told_and_left_alone(tmp_path: Path) -> None:
    async def act(world: World) -> None:
        graph = await world.apply("base")
        await world.ask("destroy", app="app")
        uses = await world.engine.state.uses()
        world.clock.advance(DAY)
        world.runtime.wrong = "nobody answers"
        offer = await world.ask("gc")
        assert offer["skipped"] == [{"runtime": "native", "why": "nobody answers"}]
        await world.ask("gc.free", id=offer["id"])
        assert world.has(graph) == [True] and world.blobs() == set()
        assert {use for use in uses if use.kind == "layer"} == set(await world.engine.state.uses())
        world.runtime.wrong = ""
        offer = await world.ask("gc")
        assert [kind["kind"] for kind in offer["kinds"]] == ["layer"]

        async def fails(layer: str) -> None:
            raise RuntimeUnavailable("it went away")

        world.runtime.remove = fails  # type: ignore[method-assign]
        reply = await world.ask("gc.free", id=offer["id"])
        assert [left["why"] for left in reply["left"]] == ["it went away"]

    play(tmp_path, act)


def test_where_a_deployment_cannot_be_read_nothing_is_freed(tmp_path: Path) -> None:
    async def act(world: World) -> None:
        damaged = Deployment(app="x", lineage="l", serial=1, graph=b"{}", created_ms=0, runtime="native")
        await world.engine.state.flip(damaged, onto=("", 0))
        with pytest.raises(InvalidError, match="what x, serial 1, needs can't be read, so nothing is freed"):
            await world.ask("gc")
        graph = await world.apply("base", name="x2")
        previous = Deployment(app="x2", lineage="l", serial=0, graph=b"{}", created_ms=0, runtime="native")
        await world.engine.state.retire("x")
        now = await world.engine.state.deployment("x2")
        assert now is not None
        await world.engine.state.retire("x2")
        await world.engine.state.flip(previous, onto=("", 0))
        await world.engine.state.flip(
            Deployment(app="x2", lineage="l", serial=1, graph=now.graph, created_ms=0, runtime="native"), onto=("l", 0)
        )
        assert (await world.free())["freed"]["number"] == 0  # nobody can go back to what can't be read
        assert world.has(graph) == [True]

    play(tmp_path, act)


def test_an_offer_is_good_once(tmp_path: Path) -> None:
    async def act(world: World) -> None:
        offer = await world.ask("gc")
        await world.ask("gc.free", id=offer["id"])
        with pytest.raises(NotFoundError, match="not known any more"):
            await world.ask("gc.free", id=offer["id"])
        with pytest.raises(InvalidError, match="'keep' is -1"):
            await world.ask("gc", keep=-1)

    play(tmp_path, act)


def test_caches_go_only_when_asked_for_and_never_from_under_a_build(tmp_path: Path) -> None:
    async def act(world: World) -> None:
        graph = await world.apply("base")
        home = world.engine.home
        old = home.path / "runtime" / ("0" * 32)
        for folder in (home.path / "cache" / "uv" / "wheels", home.path / "cache" / "pip", old / "lib"):
            folder.mkdir(parents=True, exist_ok=True)
        (home.path / "cache" / "uv" / "wheels" / "w").write_bytes(b"w")
        assert [kind["kind"] for kind in (await world.ask("gc"))["kinds"]] == ["code"]
        assert (await world.free())["freed"]["number"] == 1
        assert not old.exists() and world.engine.code.exists()
        offer = await world.ask("gc", caches=True)
        async with world.engine.uses.hold(graph):
            reply = await world.ask("gc.free", id=offer["id"])
        assert {(left["ident"], left["why"]) for left in reply["left"]} == {("pip", BUILDING), ("uv", BUILDING)}
        assert (await world.free(caches=True))["freed"]["number"] == 2
        assert list((home.path / "cache").iterdir()) == []

    play(tmp_path, act)


def test_what_a_build_anew_has_made_and_not_named_yet_stays(tmp_path: Path) -> None:
    async def act(world: World) -> None:
        graph = await world.apply("base")
        world.runtime.keep("sha256:" + "f" * 64, {"/made": b"x"})
        offer = await world.ask("gc")
        async with world.engine.uses.hold(graph):
            reply = await world.ask("gc.free", id=offer["id"])
        assert [left["why"] for left in reply["left"]] == [BUILDING]
        assert (await world.free())["freed"]["number"] == 1

    play(tmp_path, act)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may remove everything")
def test_what_belongs_to_another_is_told(tmp_path: Path) -> None:
    async def act(world: World) -> None:
        cache = world.engine.home.path / "cache"
        (cache / "apt").mkdir(parents=True)
        cache.chmod(0o500)
        try:
            reply = await world.free(caches=True)
        finally:
            cache.chmod(0o700)
        assert "Permission denied" in reply["left"][0]["why"]

    play(tmp_path, act)
