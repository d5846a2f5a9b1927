"""Applying plans on the fake runtime: all or nothing at the end, branches that go on, and nothing done twice."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from assembly import Assembly, app
from attrs import evolve
from fakes import FakeRuntime, Outcome

from slipway.compiler.nodes import Graph
from slipway.compiler.plan import Plan
from slipway.compiler.wire import loads
from slipway.dsl.declaration import FunctionDecl, LocalSource, RunCommands, SourceDecl, VolumeDecl
from slipway.dsl.errors import ImageBuildError, InvalidError, NotFoundError, StalePlanError
from slipway.executor.apply import Failure
from slipway.executor.indexes import Indexes

SH = ("/bin/sh", "-c")


def run_step(command: str) -> RunCommands:
    return RunCommands(commands=(command,))


def function(name: str, code: Path, *, image: int = 0, **more: Any) -> FunctionDecl:
    source = LocalSource(local=str(code), remote=f"/root/{code.name}")
    return FunctionDecl(
        name=name, module=code.stem, qualname=name, image=image, code=SourceDecl(sources=(source,)), **more
    )


def on(
    home: Path, outcomes: dict[tuple[str, ...], Outcome], act: Callable[[Assembly, FakeRuntime], Awaitable[None]]
) -> None:
    fake = FakeRuntime({SH: Outcome(), **outcomes})

    async def main() -> None:
        async with Assembly.opened(home, fake, indexes=Indexes()) as assembly:
            await act(assembly, fake)
            assert await assembly.state.intents() == ()

    asyncio.run(main())
    assert not fake.containers


@pytest.fixture
def code(tmp_path: Path) -> Path:
    path = tmp_path / "app.py"
    path.write_bytes(b"def index(): ...\n")
    return path


def test_an_apply_builds_everything_and_puts_it_in_force(tmp_path: Path, code: Path) -> None:
    events: list[dict[str, Any]] = []
    volume = VolumeDecl(name="models", create_if_missing=True)
    decl = app((run_step("make"),), functions=(function("index", code, volumes=(("/models", volume),)),))

    async def act(assembly: Assembly, runtime: FakeRuntime) -> None:
        plan = await assembly.plan(decl)
        applied = await assembly.applier.apply(plan, on_event=events.append)
        assert (applied.serial, applied.executed, applied.whole) == (1, 1, True)
        assert set(applied.done) == {node.address for node in plan.graph.nodes}
        deployment = await assembly.state.deployment("app")
        assert deployment is not None
        assert loads(deployment.graph, Graph) == plan.graph
        (bundle,) = [node for node in plan.graph.nodes if node.address.startswith("bundle")]
        assert await asyncio.to_thread((Path(assembly.bundles.path(bundle.digest)) / "root/app.py").read_bytes)
        assert await assembly.state.volume("models")
        states = [(event["address"], event["state"]) for event in events if event["event"] == "node"]
        assert ("image i0/1", "running") in states
        assert ("image i0/1", "done") in states

    on(tmp_path / "home", {}, act)


def test_a_second_apply_does_nothing_and_says_so(tmp_path: Path, code: Path) -> None:
    events: list[dict[str, Any]] = []
    decl = app((run_step("make"),), functions=(function("index", code),))

    async def act(assembly: Assembly, runtime: FakeRuntime) -> None:
        await assembly.apply(decl)
        plan = await assembly.plan(decl)
        assert plan.is_empty
        applied = await assembly.applier.apply(plan, on_event=events.append)
        assert (applied.serial, applied.done, applied.executed) == (1, (), 0)
        assert len(await assembly.state.history("app")) == 1

    on(tmp_path / "home", {}, act)
    assert events == []


def test_an_edit_of_code_builds_no_layer_and_makes_a_new_serial(tmp_path: Path, code: Path) -> None:
    decl = app((run_step("make"),), functions=(function("index", code),))

    async def act(assembly: Assembly, runtime: FakeRuntime) -> None:
        await assembly.apply(decl)
        await asyncio.to_thread(code.write_bytes, b"def index(): return 1\n")
        applied = await assembly.apply(decl)
        assert (applied.serial, applied.executed) == (2, 0)
        assert len(runtime.created) == 1
        assert [row.serial for row in await assembly.state.history("app")] == [2, 1]

    on(tmp_path / "home", {}, act)


def test_a_failure_leaves_what_is_in_force_alone_and_other_branches_go_on(tmp_path: Path) -> None:
    events: list[dict[str, Any]] = []

    async def act(assembly: Assembly, runtime: FakeRuntime) -> None:
        await assembly.apply(app((run_step("make"),)))
        both = app((run_step("bad"), run_step("above")), (run_step("good"), run_step("better")))
        applied = await assembly.apply(both, on_event=events.append)
        assert applied.serial == 1
        assert applied.failed == ("image i0/1",)
        assert applied.skipped == ("image i0/2",)
        assert applied.executed == 2
        (failure,) = applied.failures
        assert (failure.log, "exit code 3" in failure.message) == ("broken", True)
        with pytest.raises(ImageBuildError, match="exit code 3"):
            applied.check()
        second = Failure(address="function a", message="there is no Python")  # later; before it in the plan
        both_told = evolve(applied, failed=("function a", *applied.failed), failures=(*applied.failures, second))
        with pytest.raises(ImageBuildError, match="exit code 3") as told:
            both_told.check()
        assert told.value.hint.splitlines()[-1] == "This failed, too: there is no Python"
        assert [row.serial for row in await assembly.state.history("app")] == [1]
        runtime.outcomes[(*SH, "bad")] = Outcome()
        again = await assembly.apply(both)
        assert (again.serial, again.executed, again.whole) == (2, 2, True)

    on(tmp_path / "home", {(*SH, "bad"): Outcome(code=3, stderr=b"broken\n")}, act)
    assert {"image i0/1": "failed", "image i0/2": "skipped"}.items() <= {
        event["address"]: event["state"] for event in events if event["event"] == "node"
    }.items()


def test_a_plan_overtaken_by_another_apply_is_refused_and_nothing_is_done(tmp_path: Path) -> None:
    async def act(assembly: Assembly, runtime: FakeRuntime) -> None:
        await assembly.apply(app((run_step("one"),)))
        stale = await assembly.plan(app((run_step("two"),)))
        await assembly.apply(app((run_step("three"),)))
        count = len(runtime.created)
        with pytest.raises(StalePlanError, match="out of date"):
            await assembly.applier.apply(stale)
        assert len(runtime.created) == count
        deployment = await assembly.state.deployment("app")
        assert deployment is not None and deployment.serial == 2

    on(tmp_path / "home", {}, act)


def test_a_plan_that_would_come_out_the_same_goes_on(tmp_path: Path) -> None:
    """The serial moved, but what would change did not."""

    async def act(assembly: Assembly, runtime: FakeRuntime) -> None:
        await assembly.apply(app((run_step("one"),)))
        plan = await assembly.plan(app((run_step("two"),)))
        await assembly.apply(app((run_step("three"),)))
        await assembly.apply(app((run_step("one"),)))
        applied = await assembly.applier.apply(plan)
        assert applied.serial == 4

    on(tmp_path / "home", {}, act)


def test_of_two_applies_of_one_plan_at_once_one_flips(tmp_path: Path) -> None:
    async def act(assembly: Assembly, runtime: FakeRuntime) -> None:
        plan = await assembly.plan(app((run_step("one"),)))
        results = await asyncio.gather(*(assembly.applier.apply(plan) for _ in range(2)), return_exceptions=True)
        assert sorted(type(result).__name__ for result in results) == ["Applied", "StalePlanError"]
        assert len(runtime.created) == 1
        assert len(await assembly.state.history("app")) == 1

    on(tmp_path / "home", {}, act)


def test_a_file_that_changed_after_the_plan_fails_its_bundle(tmp_path: Path, code: Path) -> None:
    async def act(assembly: Assembly, runtime: FakeRuntime) -> None:
        plan = await assembly.plan(app((), functions=(function("index", code),)))
        await asyncio.to_thread(code.write_bytes, b"something else\n")
        applied = await assembly.applier.apply(plan)
        assert not applied.whole
        assert "has changed since the plan" in applied.failures[0].message
        assert await assembly.state.deployment("app") is None

    on(tmp_path / "home", {}, act)


def test_realise_changes_nothing_that_is_in_force(tmp_path: Path) -> None:
    async def act(assembly: Assembly, runtime: FakeRuntime) -> None:
        applied = await assembly.applier.realise(await assembly.graph(app((run_step("one"),))))
        assert (applied.serial, applied.executed) == (0, 1)
        assert await assembly.state.deployment("app") is None

    on(tmp_path / "home", {}, act)


def test_a_bug_is_raised_and_nothing_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def act(assembly: Assembly, runtime: FakeRuntime) -> None:
        def broken(*_: object, **__: object) -> None:
            raise ZeroDivisionError("a bug")

        monkeypatch.setattr(assembly.builder, "is_there", broken)
        with pytest.raises(ZeroDivisionError):
            await assembly.apply(app((run_step("one"),)))

    on(tmp_path / "home", {}, act)


def test_a_plan_of_another_runtime_is_refused(tmp_path: Path) -> None:
    async def act(assembly: Assembly, runtime: FakeRuntime) -> None:
        plan: Plan = await assembly.plan(app(()))
        with pytest.raises(InvalidError, match="docker runtime"):
            await assembly.applier.apply(evolve(plan, graph=evolve(plan.graph, runtime="docker")))

    on(tmp_path / "home", {}, act)


def test_destroy_spares_volumes_unless_named(tmp_path: Path, code: Path) -> None:
    volumes = tuple((f"/{name}", VolumeDecl(name=name, create_if_missing=True)) for name in ("keep", "drop"))

    async def act(assembly: Assembly, runtime: FakeRuntime) -> None:
        decl = app((), functions=(function("index", code, volumes=volumes),))
        await assembly.apply(decl)
        drop = Path(await assembly.volumes.path("drop"))
        await asyncio.to_thread((drop / "data").write_bytes, b"1")
        removed = await assembly.applier.destroy("app", ("drop",))
        assert "function index" in removed
        assert "volume drop" in removed
        assert "volume keep" not in removed
        assert await assembly.state.deployment("app") is None
        assert not await asyncio.to_thread(drop.exists)
        assert await assembly.state.volume("keep")
        with pytest.raises(NotFoundError, match="no app app"):
            await assembly.applier.destroy("app")
        assert (await assembly.apply(decl)).serial == 1

    on(tmp_path / "home", {}, act)


def test_a_volume_in_other_hands_is_not_removed(tmp_path: Path, code: Path) -> None:
    volumes = (("/shared", VolumeDecl(name="shared", create_if_missing=True)),)

    async def act(assembly: Assembly, runtime: FakeRuntime) -> None:
        for name in ("one", "two"):
            await assembly.apply(app((), name=name, functions=(function("index", code, volumes=volumes),)))
        with pytest.raises(InvalidError, match="in use by app two"):
            await assembly.applier.destroy("one", ("shared",))
        assert await assembly.state.deployment("one")
        with pytest.raises(NotFoundError, match="no volume other"):
            await assembly.applier.destroy("one", ("other",))

    on(tmp_path / "home", {}, act)
