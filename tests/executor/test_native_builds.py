"""Real builds on the native runtime: packages, functions, files, and what failures say."""

from __future__ import annotations

import asyncio
import base64
import os
import pickle
import subprocess
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from assembly import Assembly, app, tip
from attrs import evolve

from slipway.compiler.nodes import Graph
from slipway.dsl.declaration import (
    AddLocal,
    LocalSource,
    PipInstall,
    RunCommands,
    RunFunction,
    SecretDecl,
    Setting,
    SourceDecl,
    Step,
    StepOptions,
    UvSync,
    VolumeDecl,
)
from slipway.executor.apply import Applied
from slipway.executor.images import image_parts, nodes_of
from slipway.executor.indexes import Indexes, read_indexes
from slipway.executor.ports import ContainerSpec
from slipway.executor.runtime.native import NativeRuntime

pytestmark = pytest.mark.slow


def on(home: Path, act: Callable[[Assembly], Awaitable[None]], *, indexes: Indexes | None = None) -> None:
    async def main() -> None:
        async with Assembly.opened(home, NativeRuntime(home), indexes=indexes) as assembly:
            if "debian_slim" in dict((await assembly.runtime.ability()).refusals):
                pytest.skip("the native runtime can't make containers here")
            await act(assembly)

    asyncio.run(main())


async def look(assembly: Assembly, graph: Graph, script: str) -> str:
    """What a script says in a new container of the first image."""
    nodes = nodes_of(graph)
    parts = image_parts(nodes, tip(graph).address)
    container = await assembly.runtime.create(ContainerSpec(name="look", base=parts.base, layers=parts.layers))
    said: list[bytes] = []
    try:
        process = await container.exec(
            ("/bin/sh", "-c", script), env=parts.config.env, output=lambda _stream, data: said.append(data)
        )
        await process.wait()
    finally:
        await container.kill()
    return b"".join(said).decode()


async def applied(assembly: Assembly, *steps: Step, **more: Any) -> tuple[Applied, Graph]:
    decl = app(steps)
    result = await assembly.apply(decl, **more)
    return result, await assembly.graph(decl, more.get("secrets"))


def wheel_of(folder: Path) -> Path:
    """A tiny package, made here, so that no index is needed."""
    import zipfile

    path = folder / "tinypack-1.0-py3-none-any.whl"
    info = "tinypack-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr("tinypack.py", "value = 41 + 1\n")
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: tinypack\nVersion: 1.0\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: t\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", f"tinypack.py,,\n{info}/METADATA,,\n{info}/WHEEL,,\n{info}/RECORD,,\n")
    return path


@pytest.fixture
def wheels(tmp_path: Path) -> Indexes:
    """Package settings of a host that gets everything from one folder of its own."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    wheel_of(folder)
    return read_indexes(
        {"HOME": str(tmp_path), "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(folder), "PIP_CONFIG_FILE": "/dev/null"}
    )


def test_a_package_is_installed_compiled_and_found_again_from_the_cache(tmp_path: Path, wheels: Indexes) -> None:
    async def act(assembly: Assembly) -> None:
        result, graph = await applied(assembly, PipInstall(packages=("tinypack",)))
        assert (result.executed, result.failures) == (1, ())
        said = await look(assembly, graph, "python -c 'import tinypack; print(tinypack.value, tinypack.__cached__)'")
        assert said.startswith("42 /venv/lib/")
        assert (
            await look(assembly, graph, "ls /venv/lib/python3*/site-packages/__pycache__")
            == "tinypack.cpython-311.pyc\n"
        )
        assert await look(assembly, graph, "ls -A / | grep -c slipway; ls -A /tmp") == "0\n"
        result, _ = await applied(assembly, PipInstall(packages=("tinypack",)))
        assert result.executed == 0

    on(tmp_path / "home", act, indexes=wheels)


def test_pip_itself_does_what_only_it_can(tmp_path: Path, wheels: Indexes) -> None:
    async def act(assembly: Assembly) -> None:
        result, graph = await applied(assembly, PipInstall(packages=("tinypack",), extra_options="--prefer-binary"))
        assert result.failures == ()
        assert await look(assembly, graph, "python -c 'import tinypack; print(tinypack.value)'") == "42\n"

    on(tmp_path / "home", act, indexes=wheels)


def test_two_homes_build_the_same_content(tmp_path: Path, wheels: Indexes) -> None:
    outputs: list[str] = []

    async def act(assembly: Assembly) -> None:
        await applied(assembly, PipInstall(packages=("tinypack",)))
        (built,) = await assembly.state.all_built("native")
        outputs.append(built.output)

    for name in ("one", "two"):
        on(tmp_path / name, act, indexes=wheels)
    assert outputs[0] == outputs[1]


def test_a_missing_package_is_named(tmp_path: Path, wheels: Indexes) -> None:
    async def act(assembly: Assembly) -> None:
        result, _ = await applied(assembly, PipInstall(packages=("nosuchpackage-of-ours",)))
        (failure,) = result.failures
        assert "there is no package nosuchpackage-of-ours" in failure.message
        assert "nosuchpackage-of-ours" in failure.log

    on(tmp_path / "home", act, indexes=wheels)


def test_a_requirements_file_and_a_uv_project(tmp_path: Path, wheels: Indexes) -> None:
    (tmp_path / "requirements.txt").write_text("tinypack\n")
    project = tmp_path / "project"
    project.mkdir()
    (project / "pyproject.toml").write_text(
        '[project]\nname = "mine"\nversion = "1"\nrequires-python = ">=3.10"\ndependencies = ["tinypack"]\n'
    )
    requirements = LocalSource(local=str(tmp_path / "requirements.txt"), remote="/.slipway/build/requirements-0.txt")
    folder = LocalSource(local=str(project), remote="/.slipway/build/project", is_dir=True)

    async def act(assembly: Assembly) -> None:
        for step in (PipInstall(requirements=(requirements,)), UvSync(project=folder, frozen=False)):
            result, graph = await applied(assembly, step)
            assert result.failures == ()
            script = "python -c 'import tinypack; print(tinypack.value)'; ls -A /tmp; ls /root"
            assert await look(assembly, graph, script) == "42\n"

    on(tmp_path / "home", act, indexes=wheels)


def test_commands_see_settings_and_secrets_and_leave_only_what_they_wrote(tmp_path: Path) -> None:
    secret = StepOptions(secrets=(SecretDecl(slot="dict:TOKEN#0", keys=("TOKEN",)),))
    steps = (
        Setting(what="env", env=(("WHO", "world"),)),
        Setting(what="workdir", values=("/srv/work",)),
        RunCommands(commands=("mkdir -p /srv/work",)),
        RunCommands(commands=('echo "hello $WHO" > greeting', "echo ${#TOKEN} > length"), options=secret),
    )

    async def act(assembly: Assembly) -> None:
        first = evolve(steps[2])
        result, graph = await applied(
            assembly, steps[0], first, *steps[1:2], steps[3], secrets={"dict:TOKEN#0": {"TOKEN": "sixteen-letters!"}}
        )
        assert result.failures == ()
        said = await look(assembly, graph, "cat /srv/work/*; echo $WHO; env | grep -c TOKEN; grep -rc sixteen /srv")
        assert said.splitlines()[:4] == ["hello world", "16", "world", "0"]

    on(tmp_path / "home", act, indexes=Indexes())


def test_files_are_copied_in_with_modes_and_links(tmp_path: Path) -> None:
    data = tmp_path / "data"
    (data / "bin").mkdir(parents=True)
    (data / "bin" / "run").write_text("#!/bin/sh\necho ran\n")
    (data / "bin" / "run").chmod(0o755)
    (data / "link").symlink_to("bin/run")
    source = LocalSource(local=str(data), remote="/opt/tool", is_dir=True)

    async def act(assembly: Assembly) -> None:
        result, graph = await applied(assembly, AddLocal(sources=(source,), copy=True))
        assert result.failures == ()
        assert await look(assembly, graph, "/opt/tool/link; stat -c '%a %u' /opt/tool /opt/tool/bin/run") == (
            "ran\n755 0\n755 0\n"
        )

    on(tmp_path / "home", act, indexes=Indexes())


MODULE = """
from pathlib import Path


def fetch(name, *, times=1):
    print("fetching", name)
    Path("/models").mkdir(exist_ok=True)
    Path(f"/models/{name}").write_text(name * times)
    Path("/data/log").write_text(name)


async def later():
    Path("/later").write_text("done")


def broken():
    raise LookupError("no such model")
"""


def function_step(tmp_path: Path, name: str, *args: Any, **kwargs: Any) -> RunFunction:
    (tmp_path / "mod.py").write_text(MODULE)
    code = SourceDecl(sources=(LocalSource(local=str(tmp_path / "mod.py"), remote="/root/mod.py"),))
    payload = base64.b64encode(pickle.dumps((args, kwargs))).decode() if args or kwargs else ""
    volume = VolumeDecl(name="data", create_if_missing=True)
    return RunFunction(
        module="mod", qualname=name, source=name, payload=payload, code=code, volumes=(("/data", volume),)
    )


def test_a_function_runs_as_a_step(tmp_path: Path) -> None:
    lines: list[str] = []

    def on_event(event: dict[str, Any]) -> None:
        lines.append(event.get("text", ""))

    async def act(assembly: Assembly) -> None:
        steps = (function_step(tmp_path, "fetch", "m", times=3), function_step(tmp_path, "later"))
        result, graph = await applied(assembly, *steps, on_event=on_event)
        assert result.failures == ()
        assert "fetching m" in lines
        assert await look(assembly, graph, "cat /models/m /later; ls /root /data 2>&1") == (
            "mmmdonels: cannot access '/data': No such file or directory\n/root:\n"
        )
        folder = Path(await assembly.volumes.path("data"))
        assert await asyncio.to_thread((folder / "log").read_text) == "m"

    on(tmp_path / "home", act, indexes=Indexes())


def test_a_function_that_raises_shows_its_traceback(tmp_path: Path) -> None:
    async def act(assembly: Assembly) -> None:
        result, _ = await applied(assembly, function_step(tmp_path, "broken"))
        (failure,) = result.failures
        assert failure.log.endswith("LookupError: no such model")
        assert "/.slipway/code/mod.py" in failure.log
        assert "build_function.py" not in failure.log

    on(tmp_path / "home", act, indexes=Indexes())


def test_a_function_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    async def act(assembly: Assembly) -> None:
        (tmp_path / "slow.py").write_text("import time\ndef wait():\n    time.sleep(600)\n")
        step = function_step(tmp_path, "wait")
        code = SourceDecl(sources=(LocalSource(local=str(tmp_path / "slow.py"), remote="/root/slow.py"),))
        step = evolve(step, module="slow", code=code, timeout_ms=300)
        result, _ = await applied(assembly, step)
        assert "longer than its timeout of 0.3 s" in result.failures[0].message

    on(tmp_path / "home", act, indexes=Indexes())


@pytest.mark.skipif(os.geteuid() != 0, reason="a small disk is mounted for it, so it needs root")
@pytest.mark.parametrize(
    "command", ["head -c 60000000 /dev/zero > /big", 'python -c \'open("/big", "wb").write(bytes(60_000_000))\'']
)
def test_a_full_disk_is_said_and_leaves_nothing_half(tmp_path: Path, command: str) -> None:
    home = tmp_path / "home"
    home.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=40m", "tmpfs", str(home)], check=True)
    try:

        async def act(assembly: Assembly) -> None:
            result, _ = await applied(assembly, RunCommands(commands=(command,)))
            (failure,) = result.failures
            assert "the disk is full" in failure.message
            assert "SLIPWAY_HOME" in failure.hint
            assert not [layer async for layer in assembly.runtime.layers()]
            result, graph = await applied(assembly, RunCommands(commands=("echo small > /small",)))
            assert (result.failures, result.serial) == ((), 1)
            assert await look(assembly, graph, "cat /small") == "small\n"

        on(home, act, indexes=Indexes())
    finally:
        subprocess.run(["umount", str(home)], check=True)
