"""Bases that are fetched and lines of Dockerfiles, as a runtime is asked for them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from assembly import Assembly, app, tip
from attrs import evolve
from fakes import BASE, FakeRuntime, Outcome

from slipway.compiler.facts import BaseFact
from slipway.dsl.declaration import (
    AppDecl,
    Base,
    DockerfileCommands,
    FromDockerfile,
    FromRegistry,
    LocalSource,
    RunCommands,
    SecretDecl,
    Setting,
    Step,
    StepOptions,
)
from slipway.dsl.errors import ImageBuildError, InvalidError, NotFoundError
from slipway.executor.images import ImageConfig, ImageParts, image_parts, nodes_of, setting_lines
from slipway.executor.indexes import CERTIFICATES, Indexes
from slipway.executor.ports import DockerfileBuild, Mount, Output
from slipway.executor.runtime import gpus
from slipway.executor.steps import Recipe

KEYS = SecretDecl(slot="dict:REGISTRY#0", keys=("REGISTRY_PASSWORD", "REGISTRY_USERNAME"))
VALUES = {KEYS.slot: {"REGISTRY_USERNAME": "me", "REGISTRY_PASSWORD": "pass word"}}


class Docker(FakeRuntime):
    """What it was asked: `resolved`, `fetched` (image, keys) and `built`."""

    def __init__(self, here: bool = True, failure: str = "") -> None:
        super().__init__()
        self.here, self.failure = here, failure
        self.resolved: list[tuple[str, str, tuple[tuple[str, str], ...], bool]] = []
        self.fetched: list[tuple[str, tuple[tuple[str, str], ...]]] = []
        self.built: list[DockerfileBuild] = []
        self.says = b""

    async def resolve(
        self, kind: str, ref: str, *, auth: tuple[tuple[str, str], ...] = (), fresh: bool = False
    ) -> BaseFact:
        self.resolved.append((kind, ref, auth, fresh))
        return BaseFact(identity=(("manifest", f"sha256:{ref}"),), paths=(("image", f"pinned/{ref}"),))

    async def has_base(self, base: BaseFact) -> bool:
        return self.here

    async def fetch(self, base: BaseFact, *, auth: tuple[tuple[str, str], ...] = (), output: Output) -> None:
        if self.failure:
            raise NotFoundError(self.failure, hint="docker login")
        output(1, b"10 of 20 MB, for pass word\nhalf a li")
        self.fetched.append((dict(base.paths)["image"], auth))

    async def build_dockerfile(self, build: DockerfileBuild, layer: str, output: Output) -> str:
        self.built.append(build)
        output(1, b"Step 1/1 : RUN x\n" + self.says)
        if self.failure:
            raise ImageBuildError(self.failure)
        return self.keep(layer, {"/made": build.text.encode()})


def image_of(base: Base, *steps: Step) -> AppDecl:
    decl = app(steps)
    return evolve(decl, images=(evolve(decl.images[0], base=base),))


def on(home: Path, runtime: Docker, act: Callable[[Assembly], Awaitable[None]], **indexes: Any) -> None:
    async def main() -> None:
        async with Assembly.opened(home, runtime, indexes=Indexes(**indexes)) as assembly:
            await act(assembly)
            assert await assembly.state.intents() == ()

    asyncio.run(main())


def test_a_base_that_is_not_here_is_fetched_with_its_keys_and_no_key_is_told(tmp_path: Path) -> None:
    runtime = Docker(here=False)
    runtime.outcomes[("/bin/sh",)] = Outcome()
    events: list[dict[str, Any]] = []
    decl = image_of(FromRegistry(tag="base:1", secret=KEYS, force_build=True), RunCommands(commands=("true",)))

    async def act(assembly: Assembly) -> None:
        applied = await assembly.apply(decl, VALUES, on_event=events.append)
        assert applied.whole and "image i0/0" in applied.done

    on(tmp_path / "home", runtime, act)
    keys = (("REGISTRY_PASSWORD", "pass word"), ("REGISTRY_USERNAME", "me"))
    assert runtime.resolved == [("from_registry", "base:1", keys, True)]
    assert runtime.fetched == [("pinned/base:1", keys)]
    base = [event for event in events if event["address"] == "image i0/0"]
    assert [event.get("state") or event["text"] for event in base] == [
        *("running", "10 of 20 MB, for ***", "half a li", "done"),
    ]
    assert {event.get("kind", "base") for event in base} == {"base"}


def test_a_base_that_cannot_be_had_fails_alone_and_in_words(tmp_path: Path) -> None:
    async def act(assembly: Assembly) -> None:
        applied = await assembly.apply(image_of(FromRegistry(tag="base:1"), RunCommands(commands=("true",))))
        (failure,) = applied.failures
        assert (failure.address, failure.message, failure.hint) == ("image i0/0", "no such image", "docker login")
        assert applied.skipped == ("image i0/1",)

    on(tmp_path / "home", Docker(here=False, failure="no such image"), act)


DOCKERFILE = """# words
ARG V=1
FROM base:$V AS first
COPY src /src
FROM scratch
COPY --from=first / /
"""


def from_dockerfile(tmp_path: Path) -> FromDockerfile:
    (tmp_path / "src").mkdir()
    (tmp_path / "src/a").write_text("a")
    source = LocalSource(local=str(tmp_path), remote="/", is_dir=True, only=("src/a",))
    return FromDockerfile(path="Dockerfile", text=DOCKERFILE, context=(source,), build_args=(("V", "2"),))


def test_a_dockerfile_is_built_pinned_with_just_its_context(tmp_path: Path) -> None:
    runtime = Docker()
    decl = image_of(from_dockerfile(tmp_path))

    async def act(assembly: Assembly) -> None:
        for executed in (1, 0):
            assert (await assembly.apply(decl)).executed == executed
        (build,) = runtime.built
        assert build.text.splitlines()[1] == "FROM pinned/base:2 AS first"
        assert (build.onto, build.fresh) == (None, False)
        assert dict(build.args) == {"HTTPS_PROXY": "http://me:pass%20word@proxy", "V": "2"}
        files = await asyncio.to_thread(lambda: [path for path in Path(build.context).rglob("*") if path.is_file()])
        assert [str(path.relative_to(build.context)) for path in files] == ["src/a"]
        log = assembly.builder.log_path(tip(await assembly.graph(decl)).digest)
        assert await asyncio.to_thread(log.read_text) == "# from_dockerfile Dockerfile\nStep 1/1 : RUN x\n***\n"

    runtime.says = b"pass word"
    on(
        tmp_path / "home",
        runtime,
        act,
        env=(("HTTPS_PROXY", "http://me:pass%20word@proxy"), ("PIP_INDEX_URL", "http://i")),
    )


def test_force_build_asks_and_builds_anew(tmp_path: Path) -> None:
    runtime = Docker()
    decl = image_of(evolve(from_dockerfile(tmp_path), force_build=True))

    async def act(assembly: Assembly) -> None:
        for _ in range(2):
            assert (await assembly.apply(decl)).executed == 1
        assert [build.fresh for build in runtime.built] == [True, True]
        assert {fresh for *_, fresh in runtime.resolved} == {True}
        assert [layer async for layer in runtime.layers()] == [tip(await assembly.graph(decl)).digest]

    on(tmp_path / "home", runtime, act)


def test_lines_get_the_settings_so_far_and_what_follows_stands_on_what_they_say(tmp_path: Path) -> None:
    runtime = Docker()
    lines = DockerfileCommands(commands=("RUN x", "WORKDIR sub", 'SHELL ["/bin/bash", "-c"]'))
    steps = (
        Setting(what="env", env=(("A", "1"),)),
        Setting(what="workdir", values=("/srv",)),
        Setting(what="entrypoint", values=()),
        lines,
        Setting(what="env", env=(("B", "2"),)),
    )

    async def act(assembly: Assembly) -> None:
        decl = image_of(FromRegistry(tag="base:1"), *steps)
        await assembly.apply(decl)
        (build,) = runtime.built
        assert build.text.splitlines()[:3] == ['ENV A="1"', "WORKDIR /srv", "ENTRYPOINT []"]
        assert build.onto is not None and dict(build.onto.base.paths)["image"] == "pinned/base:1"
        graph = await assembly.graph(decl)
        config = image_parts(nodes_of(graph), "image i0/5").config
        assert config == ImageConfig(env=(("B", "2"),), workdir="/srv/sub", shell=("/bin/bash", "-c"))

    on(tmp_path / "home", runtime, act)


def test_an_instruction_that_fails_is_said_with_the_end_of_the_log(tmp_path: Path) -> None:
    async def act(assembly: Assembly) -> None:
        applied = await assembly.apply(image_of(FromRegistry(tag="base:1"), DockerfileCommands(commands=("RUN x",))))
        (failure,) = applied.failures
        assert failure.message.endswith("dockerfile_commands RUN x: step 1 failed")
        assert failure.log == "Step 1/1 : RUN x"

    on(tmp_path / "home", Docker(failure="step 1 failed"), act)


def test_settings_that_no_dockerfile_can_say_are_refused() -> None:
    with pytest.raises(InvalidError, match="several lines"):
        setting_lines(ImageConfig(env=(("A", "1\n2"),)))


def test_a_gpu_that_is_not_there_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there = tuple(
        gpus.Gpu(uuid=f"GPU-{n}", name=name, memory_mib=1) for n, name in enumerate(("NVIDIA H200", "Tesla T4"))
    )
    monkeypatch.setattr(gpus, "find", lambda: gpus.Found(gpus=there))
    runtime = FakeRuntime()

    async def main() -> None:
        async with Assembly.opened(tmp_path / "home", runtime, indexes=Indexes()) as assembly:
            step = RunCommands(commands=("train",), options=StepOptions(gpu="H200"))
            runtime.outcomes[("/bin/sh",)] = Outcome()
            assert (await assembly.apply(app((step,)))).whole
            assert runtime.created[-1].gpus == ("GPU-0",)
            applied = await assembly.apply(app((evolve(step, options=StepOptions(gpu="H200:2")),)))
            (failure,) = applied.failures
            assert "gpu=H200:2 is wanted, and this machine has no such GPUs: NVIDIA H200, Tesla T4" in failure.message
            assert "NVIDIA H200, Tesla T4" in failure.message and "gpu=" in failure.hint

    asyncio.run(main())


def test_what_apt_is_told_is_kept_where_only_we_can_read_it(tmp_path: Path) -> None:
    runtime = FakeRuntime({("/bin/sh",): Outcome(), ("apt-get",): Outcome()})
    indexes = Indexes(mounts=(Mount(source="/ca.pem", target=CERTIFICATES, read_only=True),))

    async def main() -> None:
        async with Assembly.opened(tmp_path / "home", runtime, indexes=indexes) as assembly:
            what = Recipe(commands=(("apt-get",),), apt=True)
            parts = ImageParts(base=BASE)
            setup = await assembly.builder._workplace.prepare(what, parts, name="a", layer="sha256:1", gpu=None)
            (mount,) = [mount for mount in setup.spec.mounts if mount.target == "/.slipway/apt.conf"]
            assert dict(setup.env)["APT_CONFIG"] == mount.target and mount.read_only
            assert await asyncio.to_thread(lambda: Path(mount.source).stat().st_mode & 0o777) == 0o600
            assert CERTIFICATES in await asyncio.to_thread(Path(mount.source).read_text)

    asyncio.run(main())
