"""Building layers on the fake runtime: what runs and what doesn't, and what a failed step says."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from assembly import Assembly, app, tip
from attrs import evolve
from fakes import FakeContainer, FakeRuntime, Outcome

from slipway.compiler.nodes import Graph, LayerSpec
from slipway.dsl.declaration import (
    AddLocal,
    AptInstall,
    LocalSource,
    PipInstall,
    RunCommands,
    SecretDecl,
    Setting,
    Step,
    StepOptions,
    VolumeDecl,
)
from slipway.dsl.errors import ImageBuildError
from slipway.executor.build import Finished
from slipway.executor.build_log import explain
from slipway.executor.images import nodes_of
from slipway.executor.indexes import Indexes
from slipway.executor.ports import Mount

UV = ("/.slipway/bin/uv",)
PIP = PipInstall(packages=("six",))
NOWHERE = Indexes()


def shell(command: str) -> tuple[str, ...]:
    return ("/bin/sh", "-c", command)


def run_step(*commands: str, **more: Any) -> RunCommands:
    return RunCommands(commands=commands, **more)


def on(
    home: Path,
    outcomes: dict[tuple[str, ...], Outcome],
    act: Callable[[Assembly, FakeRuntime], Awaitable[None]],
    *,
    indexes: Indexes = NOWHERE,
    runtime: FakeRuntime | None = None,
) -> FakeRuntime:
    """Run `act` over a new home and a fake runtime with these outcomes."""
    fake = runtime or FakeRuntime(outcomes)

    async def main() -> None:
        async with Assembly.opened(home, fake, indexes=indexes) as assembly:
            await act(assembly, fake)

    asyncio.run(main())
    assert not fake.containers, "a container was left behind"
    return fake


async def build_all(assembly: Assembly, graph: Graph, **more: Any) -> list[Finished]:
    nodes = nodes_of(graph)
    layers = [node for node in graph.nodes if isinstance(node.spec, LayerSpec)]
    return [await assembly.builder.build(nodes, node.address, app=graph.app, **more) for node in layers]


def argvs(runtime: FakeRuntime) -> list[tuple[str, ...]]:
    return [ran.argv for ran in runtime.ran]


# --- what runs ----------------------------------------------------------------------------------------


def test_each_step_runs_once_in_a_container_of_what_is_below(tmp_path: Path) -> None:
    outcomes = {UV: Outcome(writes=(("/venv/six.py", b"six"),)), shell("make"): Outcome(writes=(("/made", b"1"),))}

    async def act(assembly: Assembly, runtime: FakeRuntime) -> None:
        graph = await assembly.graph(app((PIP, run_step("make"))))
        first = await build_all(assembly, graph)
        assert [finished.executed for finished in first] == [True, True]
        assert [(), (first[0].layer,)] == [spec.layers for spec in runtime.created]
        assert all(spec.privileged_build for spec in runtime.created)
        again = await build_all(assembly, graph)
        assert [evolve(finished, executed=False, ms=0) for finished in first] == again
        assert len(runtime.created) == 2
        assert await assembly.state.intents() == ()

    on(tmp_path / "home", outcomes, act)


def test_another_home_finds_the_same_outputs(tmp_path: Path) -> None:
    outcomes: dict[tuple[str, ...], Outcome] = {UV: Outcome(writes=(("/venv/six.py", b"six"),))}
    found: list[list[Finished]] = []

    async def act(assembly: Assembly, runtime: FakeRuntime) -> None:
        found.append(await build_all(assembly, await assembly.graph(app((PIP,)))))

    on(tmp_path / "one", outcomes, act)
    on(tmp_path / "two", outcomes, act)
    assert found[0][0].output == found[1][0].output
    assert found[0][0].layer == found[1][0].layer


def test_many_who_ask_for_one_layer_share_its_build_and_its_lines(tmp_path: Path) -> None:
    lines: list[str] = []

    async def act(assembly: Assembly, runtime: FakeRuntime) -> None:
        graph = await assembly.graph(app((PIP,)))
        nodes = nodes_of(graph)
        results = await asyncio.gather(
            *(assembly.builder.build(nodes, tip(graph).address, on_line=lines.append) for _ in range(5))
        )
        assert [finished.executed for finished in results] == [True, False, False, False, False]
        assert len({finished.output for finished in results}) == 1
        assert len(runtime.created) == 1

    on(tmp_path, {UV: Outcome(stdout=b"Installed 1 package\n")}, act)
    assert lines == ["Installed 1 package"] * 5


def test_a_setting_builds_nothing_but_is_in_force_above(tmp_path: Path) -> None:
    steps = (Setting(what="env", env=(("A", "1"),)), Setting(what="workdir", values=("/srv",)), run_step("make"))

    async def act(assembly: Assembly, runtime: FakeRuntime) -> None:
        results = await build_all(assembly, await assembly.graph(app(steps)))
        assert [finished.executed for finished in results] == [False, False, True]
        assert len({finished.output for finished in results}) == 3
        (ran,) = runtime.ran
        assert dict(ran.env)["A"] == "1"
        assert ran.cwd == "/srv"
        assert runtime.created[0].layers == ()

    on(tmp_path, {shell("make"): Outcome()}, act)


def test_the_same_content_under_another_key_is_adopted(tmp_path: Path) -> None:
    """A step below was reworded and came out the same, so what stands above it need not be built again."""
    same = (("/data", b"1"),)
    outcomes = {shell("old"): Outcome(writes=same), shell("new"): Outcome(writes=same), shell("top"): Outcome()}

    async def act(assembly: Assembly, runtime: FakeRuntime) -> None:
        await build_all(assembly, await assembly.graph(app((run_step("old"), run_step("top")))))
        graph = await assembly.graph(app((run_step("new"), run_step("top"))))
        results = await build_all(assembly, graph)
        assert [finished.executed for finished in results] == [True, False]
        assert [shell("old"), shell("top"), shell("new")] == argvs(runtime)
        assert await runtime.has(tip(graph).digest)

    on(tmp_path, outcomes, act)


def test_another_setting_below_is_no_same_content(tmp_path: Path) -> None:
    def steps(value: str) -> tuple[Step, ...]:
        return (Setting(what="env", env=(("A", value),)), run_step("make"))

    async def act(assembly: Assembly, runtime: FakeRuntime) -> None:
        for value in ("1", "2"):
            results = await build_all(assembly, await assembly.graph(app(steps(value))))
            assert results[-1].executed

    on(tmp_path, {shell("make"): Outcome()}, act)


def test_a_layer_whose_row_was_lost_is_adopted_by_its_digest(tmp_path: Path) -> None:
    async def act(assembly: Assembly, runtime: FakeRuntime) -> None:
        graph = await assembly.graph(app((PIP, run_step("make"))))
        await build_all(assembly, graph)
        await assembly.state._database.write(lambda connection: connection.execute("DELETE FROM layers"))
        results = await build_all(assembly, graph)
        assert [finished.executed for finished in results] == [False, False]
        assert len(runtime.created) == 2

    on(tmp_path, {UV: Outcome(), shell("make"): Outcome()}, act)


def test_a_row_whose_layer_was_lost_is_built_again(tmp_path: Path) -> None:
    async def act(assembly: Assembly, runtime: FakeRuntime) -> None:
        graph = await assembly.graph(app((PIP,)))
        await build_all(assembly, graph)
        await runtime.remove(tip(graph).digest)
        assert [finished.executed for finished in await build_all(assembly, graph)] == [True]

    on(tmp_path, {UV: Outcome()}, act)


def test_force_build_runs_again_and_takes_the_place_of_what_was_there(tmp_path: Path) -> None:
    async def act(assembly: Assembly, runtime: FakeRuntime) -> None:
        plain = await assembly.graph(app((run_step("make"),)))
        (first,) = await build_all(assembly, plain)
        runtime.outcomes[shell("make")] = Outcome(writes=(("/made", b"2"),))
        forced = await assembly.graph(app((run_step("make", options=StepOptions(force_build=True)),)))
        (second,) = await build_all(assembly, forced)
        assert first.layer == second.layer
        assert second.executed
        assert first.output != second.output
        (third,) = await build_all(assembly, plain)
        assert (False, second.output) == (third.executed, third.output)
        assert [second.layer] == [layer async for layer in runtime.layers()]

    on(tmp_path, {shell("make"): Outcome(writes=(("/made", b"1"),))}, act)


# --- what a step gets ---------------------------------------------------------------------------------


def test_caches_uv_and_index_settings_are_mounted_and_told(tmp_path: Path) -> None:
    wheels = Mount(source=str(tmp_path), target="/wheels", read_only=True)
    indexes = Indexes(env=(("UV_FIND_LINKS", "/wheels"),), mounts=(wheels,))

    async def act(assembly: Assembly, runtime: FakeRuntime) -> None:
        await build_all(assembly, await assembly.graph(app((PIP,))))
        (spec,) = runtime.created
        mounts = {mount.target: mount for mount in spec.mounts}
        assert wheels == mounts["/wheels"]
        assert mounts["/.slipway/bin/uv"].read_only
        assert str(assembly.home / "cache" / "uv") == mounts["/.slipway/cache/uv"].source
        env = dict(runtime.ran[0].env)
        assert env["UV_FIND_LINKS"] == "/wheels"
        assert env["UV_LINK_MODE"] == "copy"

    on(tmp_path / "home", {UV: Outcome()}, act, indexes=indexes)


def test_files_of_a_step_are_there_while_it_runs(tmp_path: Path) -> None:
    (tmp_path / "requirements.txt").write_bytes(b"six\n")
    source = LocalSource(local=str(tmp_path / "requirements.txt"), remote="/.slipway/build/requirements-0.txt")
    step = PipInstall(requirements=(source,), method="pip_install_from_requirements")

    async def act(assembly: Assembly, runtime: FakeRuntime) -> None:
        await build_all(assembly, await assembly.graph(app((step,))))
        (mount,) = [mount for mount in runtime.created[0].mounts if mount.target == "/.slipway/build"]
        assert (Path(mount.source) / "requirements-0.txt").read_bytes() == b"six\n"
        assert runtime.ran[0].argv[-2:] == ("-r", "/.slipway/build/requirements-0.txt")

    on(tmp_path / "home", {UV: Outcome()}, act)


def test_volumes_of_a_step_are_made_and_mounted(tmp_path: Path) -> None:
    volume = VolumeDecl(name="models", create_if_missing=True, sub_path="big")
    step = run_step("fetch", volumes=(("/models", volume),))

    async def act(assembly: Assembly, runtime: FakeRuntime) -> None:
        await build_all(assembly, await assembly.graph(app((step,))))
        (mount,) = [mount for mount in runtime.created[0].mounts if mount.target == "/models"]
        assert await assembly.volumes.path("models", "big") == mount.source
        assert await asyncio.to_thread(Path(mount.source).is_dir)

    on(tmp_path, {shell("fetch"): Outcome()}, act)


SECRET = StepOptions(secrets=(SecretDecl(slot="dict:TOKEN#0", keys=("TOKEN",)),))


def test_secrets_reach_the_step_alone_and_are_masked_everywhere(tmp_path: Path) -> None:
    values = {"dict:TOKEN#0": {"TOKEN": "hunter2hunter2"}}
    lines: list[str] = []

    async def act(assembly: Assembly, runtime: FakeRuntime) -> None:
        graph = await assembly.graph(
            app((run_step("plain"), run_step("fetch", options=SECRET), run_step("make", options=SECRET))), values
        )
        with pytest.raises(ImageBuildError) as caught:
            await build_all(assembly, graph, on_line=lines.append)
        plain, fetch, _make = runtime.ran
        assert dict(fetch.env)["TOKEN"] == "hunter2hunter2"
        assert "TOKEN" not in dict(plain.env)
        assert "hunter2" not in repr(fetch.argv) + caught.value.log + caught.value.message
        logs = "".join(path.read_text() for path in (assembly.home / "logs").rglob("*.log"))
        assert "token is ***" in logs
        assert "hunter2" not in logs + "".join(lines)
        assert b"hunter2" not in (assembly.home / "state.db").read_bytes()

    said = Outcome(stdout=b"token is hunter2hunter2\n")
    on(tmp_path, {shell("plain"): Outcome(), shell("fetch"): said, shell("make"): evolve(said, code=1)}, act)


def test_another_value_of_a_secret_builds_again(tmp_path: Path) -> None:
    async def act(assembly: Assembly, runtime: FakeRuntime) -> None:
        decl = app((run_step("fetch", options=SECRET),))
        for value, executed in (("one", True), ("one", False), ("two", True), ("one", False)):
            graph = await assembly.graph(decl, {"dict:TOKEN#0": {"TOKEN": value}})
            (finished,) = await build_all(assembly, graph)
            assert executed == finished.executed, value

    on(tmp_path, {shell("fetch"): Outcome(writes=(("/fetched", b"1"),))}, act)


# --- failures -----------------------------------------------------------------------------------------


def test_a_failed_command_ends_the_step_with_the_end_of_its_log(tmp_path: Path) -> None:
    async def act(assembly: Assembly, runtime: FakeRuntime) -> None:
        graph = await assembly.graph(app((run_step("one", "two", "three"),)))
        with pytest.raises(ImageBuildError) as caught:
            await build_all(assembly, graph)
        assert "failed with exit code 7" in caught.value.message
        assert "\n".join(f"line {i}" for i in range(60, 100)) == caught.value.log
        assert str(assembly.builder.log_path(tip(graph).digest)) in caught.value.hint
        assert [shell("one"), shell("two")] == argvs(runtime)
        assert not [layer async for layer in runtime.layers()]
        assert await assembly.state.all_built("native") == ()
        assert await assembly.state.intents() == ()
        runtime.outcomes[shell("two")] = Outcome()
        assert [finished.executed for finished in await build_all(assembly, graph)] == [True]

    long = b"".join(b"line %d\n" % number for number in range(100))
    outcomes = {shell("one"): Outcome(), shell("two"): Outcome(code=7, stderr=long), shell("three"): Outcome()}
    on(tmp_path, outcomes, act)


UV_SAYS = b"""  x No solution found when resolving dependencies:
  `-> Because nosuchthing was not found in the package registry and you require nosuchthing, we can conclude that
      your requirements are unsatisfiable.
"""


@pytest.mark.parametrize(
    ("outcome", "message", "hint"),
    [
        (Outcome(code=1, stderr=UV_SAYS), "there is no package nosuchthing", "Check the spelling"),
        (
            Outcome(code=28, stderr=b"No space left on device (os error 28)\n"),
            "disk is full",
            "larger disk",
        ),
        (Outcome(code=2, stderr=b"error: dns error: failed to lookup address\n"), "a download failed", "network"),
        (Outcome(oom=True), "ran out of memory", "whole log"),
    ],
)
def test_what_a_log_shows_is_said(tmp_path: Path, outcome: Outcome, message: str, hint: str) -> None:
    async def act(assembly: Assembly, runtime: FakeRuntime) -> None:
        with pytest.raises(ImageBuildError) as caught:
            await build_all(assembly, await assembly.graph(app((PIP,))))
        assert message in caught.value.message
        assert hint in caught.value.hint

    on(tmp_path, {UV: outcome}, act)


@pytest.mark.parametrize(
    ("log", "reason"),
    [
        ("ERROR: No matching distribution found for numpy==99", "there is no package numpy"),
        ("Because there is no version of six==99 and you require six==99,", "there is no package six of that version"),
        ("Because only six<=1.17.0 is available and you require six>=99,", "there is no package six of that version"),
        ("E: Unable to locate package cowsay", "there is no package cowsay"),
        ("E: Unable to locate package cowsay\nTemporary failure resolving 'deb.debian.org'", "could not be looked up"),
        ("Segmentation fault", ""),
    ],
)
def test_explaining(log: str, reason: str) -> None:
    assert reason in explain(log)[0]
    assert bool(reason) == bool(explain(log)[0])


def test_a_full_disk_at_the_commit_is_said(tmp_path: Path) -> None:
    class Full(FakeRuntime):
        def keep(self, layer: str, written: Any) -> str:
            raise OSError(28, "No space left on device")

    async def act(assembly: Assembly, runtime: FakeRuntime) -> None:
        with pytest.raises(ImageBuildError, match="the disk is full"):
            await build_all(assembly, await assembly.graph(app((PIP,))))

    on(tmp_path, {}, act, runtime=Full({UV: Outcome()}))


def test_cancelling_a_build_kills_its_container(tmp_path: Path) -> None:
    began = asyncio.Event()

    class Endless(FakeRuntime):
        async def create(self, spec: Any) -> FakeContainer:
            container = await super().create(spec)
            began.set()
            return container

        def outcome(self, argv: tuple[str, ...]) -> Outcome | None:
            return None

    async def act(assembly: Assembly, runtime: FakeRuntime) -> None:
        endless = run_step("wait")
        shell_of = Setting(what="shell", values=("sh", "-c", "", "sleep-forever"))
        graph = await assembly.graph(app((shell_of, endless)))
        nodes = nodes_of(graph)
        await assembly.builder.build(nodes, graph.nodes[1].address)
        task = asyncio.create_task(assembly.builder.build(nodes, tip(graph).address))
        await began.wait()
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        assert not runtime.containers
        assert await assembly.state.intents() == ()

    import fakes

    def forever(*_: Any) -> None:
        return None

    fakes.PROGRAMS["sleep-forever"] = forever
    try:
        on(tmp_path, {}, act, runtime=Endless())
    finally:
        del fakes.PROGRAMS["sleep-forever"]


def test_two_apt_installs_do_not_run_at_once(tmp_path: Path) -> None:
    running: list[str] = []

    class Watched(FakeRuntime):
        async def create(self, spec: Any) -> FakeContainer:
            assert not running
            running.append(spec.name)
            container = await super().create(spec)
            kill = container.kill

            async def killed() -> None:
                if container.name in running:
                    running.remove(container.name)
                await kill()

            container.kill = killed  # type: ignore[method-assign]
            return container

    async def act(assembly: Assembly, runtime: FakeRuntime) -> None:
        graph = await assembly.graph(app((AptInstall(packages=("git",)),), (AptInstall(packages=("curl",)),)))
        nodes = nodes_of(graph)
        tips = [tip(graph, image).address for image in (0, 1)]
        await asyncio.gather(*(assembly.builder.build(nodes, address) for address in tips))
        assert {argv[-1] for argv in argvs(runtime)[2::3]} == {"git", "curl"}

    on(tmp_path, {}, act, runtime=Watched({("apt-get",): Outcome(), ("/bin/sh",): Outcome()}))


def test_add_local_copy_copies_what_is_staged(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.csv").write_bytes(b"1")
    source = LocalSource(local=str(tmp_path / "data"), remote="/srv/data", is_dir=True)

    async def act(assembly: Assembly, runtime: FakeRuntime) -> None:
        await build_all(assembly, await assembly.graph(app((AddLocal(sources=(source,), copy=True),))))
        (mount,) = [mount for mount in runtime.created[0].mounts if mount.target == "/.slipway/files"]
        assert (Path(mount.source) / "srv/data/a.csv").read_bytes() == b"1"
        assert "cd /.slipway/files" in runtime.ran[0].argv[2]

    on(tmp_path / "home", {("/bin/sh",): Outcome()}, act)
