"""What the docker runtime does with an engine that dies, with what an earlier one left, and with none at all."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest
from attrs import evolve
from contracts.runtime_contract import finish, layer, made, sh, until_ready
from docker_engine import DockerTestEngine
from docker_gate import Gate

from slipway.compiler.facts import BaseFact
from slipway.dsl.errors import AlreadyExistsError, RuntimeUnavailable
from slipway.executor.config import AppSettings, Config, DockerSettings
from slipway.executor.ports import ContainerSpec, Exit, Mount
from slipway.executor.runtime.docker import LABEL_HOME, LABEL_NAME, home_id
from slipway.executor.runtime.docker_runtime import DockerRuntime

pytestmark = pytest.mark.slow
DEADLINE = 60.0


class Line:
    """A way to an engine that can be cut: then nobody listens, and every connection is closed."""

    def __init__(self, path: Path, engine: str) -> None:
        self.path = path
        self._engine = engine.removeprefix("unix://")
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        return f"unix://{self.path}"

    async def mend(self) -> None:
        self._server = await asyncio.start_unix_server(self._begin, self.path)

    async def cut(self) -> None:
        assert self._server is not None
        self._server.close()
        self.path.unlink()
        for writer in self._writers:
            writer.transport.abort()
        await asyncio.gather(*self._tasks)

    def _begin(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_unix_connection(self._engine)
        self._writers |= {writer, far_writer}
        await asyncio.gather(_pass(reader, far_writer), _pass(far_reader, writer))
        for one in (writer, far_writer):
            one.close()
            with contextlib.suppress(OSError):
                await one.wait_closed()


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.write_eof()


@pytest.fixture
def home(docker_engine: DockerTestEngine, tmp_path: Path) -> Iterator[Path]:
    home = tmp_path / "home"
    home.mkdir()
    yield home
    assert left(docker_engine, home) == []
    with docker_engine.client() as client:
        for image in client.images.list(filters={"label": f"{LABEL_HOME}={home_id(home)}"}):
            for tag in image.tags:
                client.images.remove(tag)


def left(engine: DockerTestEngine, home: Path) -> list[str]:
    """The names of the containers of a home that the engine has."""
    with engine.client() as client:
        found = client.containers.list(all=True, filters={"label": f"{LABEL_HOME}={home_id(home)}"})
        return [str(container.labels[LABEL_NAME]) for container in found]


def config(engine: DockerTestEngine, host: str | None = None) -> Config:
    return Config(docker=DockerSettings(host=host or engine.url, bases=(("debian_slim", engine.base_image),)))


def play(runtime: DockerRuntime, scenario: Callable[[BaseFact], Awaitable[None]]) -> None:
    async def main() -> None:
        async with asyncio.timeout(DEADLINE):
            await runtime.start()
            try:
                await scenario(await runtime.resolve("debian_slim", ""))
            finally:
                await runtime.close()

    asyncio.run(main())


def test_an_engine_that_dies_is_told_of_and_found_again(docker_engine: DockerTestEngine, home: Path) -> None:
    line = Line(home / "line.sock", docker_engine.url)
    runtime = DockerRuntime(home, lambda: config(docker_engine, line.url))

    async def main() -> None:
        await line.mend()
        await runtime.start()
        base = await runtime.resolve("debian_slim", "")
        spec = ContainerSpec(name="one", base=base)
        one, two = await runtime.create(spec), await runtime.create(evolve(spec, name="two", single=True))
        first, _ = await until_ready(one, sh("wait"))
        second, _ = await until_ready(two, sh("wait"))
        terminal = await one.open_terminal(sh("wait"))
        await line.cut()
        for process in (first, second, terminal):
            how = await process.wait()
            assert (how.code, how.signal) == (None, None)
            assert f"no Docker Engine answers at {line.url}" in how.reason
        assert f"no Docker Engine answers at {line.url}" in await runtime.trouble()
        with pytest.raises(RuntimeUnavailable, match="no Docker Engine answers"):
            await runtime.create(evolve(spec, name="three"))
        await one.kill()  # which nobody hears
        await two.stop(0)
        assert sorted(left(docker_engine, home)) == ["one", "two"]
        await line.mend()
        assert await runtime.trouble() == ""
        async with made(runtime, spec) as again:
            assert (await finish(again, sh("exit", "3"))).how == Exit(code=3)
            assert left(docker_engine, home) == ["one"]
        await runtime.close()
        await line.cut()

    async def within() -> None:
        async with asyncio.timeout(DEADLINE):
            await main()

    asyncio.run(within())


@pytest.mark.parametrize("held", ["DELETE /v1.41/containers/", "POST /v1.41/containers/create"])
def test_an_end_waits_shortly_for_an_engine_that_hangs(
    docker_engine: DockerTestEngine, home: Path, monkeypatch: pytest.MonkeyPatch, held: str
) -> None:
    """What it did not remove, or was making, goes at the next start."""
    for module in ("docker_container", "docker_runtime"):
        monkeypatch.setattr(f"slipway.executor.runtime.{module}.GOING", 0.2)
    gate = Gate(docker_engine.url, home)

    async def main() -> None:
        runtime = DockerRuntime(home, lambda: config(docker_engine, gate.url))
        await runtime.start()
        spec = ContainerSpec(name="one", base=await runtime.resolve("debian_slim", ""))
        await runtime.create(spec)
        gate.hold(held)
        making = asyncio.create_task(runtime.create(evolve(spec, name="two")))
        if "create" in held:
            assert await asyncio.to_thread(gate.held.wait, DEADLINE)
        else:
            await making
        async with asyncio.timeout(DEADLINE / 2):
            await runtime.close()
        await asyncio.gather(making, return_exceptions=True)
        gate.release()
        assert await asyncio.to_thread(gate.answered.wait, DEADLINE)

    try:
        asyncio.run(main())
    finally:
        gate.close()
    again = DockerRuntime(home, lambda: config(docker_engine))

    async def start() -> None:
        await again.start()
        await again.close()

    asyncio.run(start())


def test_containers_of_an_engine_that_was_killed_go_at_the_start(docker_engine: DockerTestEngine, home: Path) -> None:
    (home / "docker").mkdir()
    (home / "docker" / "used").touch()
    other = home_id(home / "other")
    with docker_engine.client() as client:
        for ident, name in ((home_id(home), "w1"), (home_id(home), "w2"), (other, "w1"), (home_id(home), "")):
            labels = {LABEL_HOME: ident, LABEL_NAME: name}
            container = client.containers.create(docker_engine.base_image, ["sleep", "1000"], labels=labels)
            if name == "w1":
                container.start()

        async def main() -> None:
            runtime = DockerRuntime(home, lambda: config(docker_engine))
            await runtime.start()
            await runtime.close()

        asyncio.run(main())
        try:
            assert left(docker_engine, home) == [""]  # somebody made it of an image of ours, by hand
            assert left(docker_engine, home / "other") == ["w1"]
        finally:
            for ident in (home_id(home), other):
                for container in client.containers.list(all=True, filters={"label": f"{LABEL_HOME}={ident}"}):
                    container.remove(force=True)


def test_a_home_that_never_used_docker_asks_no_engine(tmp_path: Path) -> None:
    asked = []

    def settings() -> Config:
        asked.append(1)
        return Config(docker=DockerSettings(host=f"unix://{tmp_path}/none.sock"))

    async def main() -> None:
        runtime = DockerRuntime(tmp_path, settings)
        await runtime.start()
        assert asked == []
        assert "no Docker Engine answers" in await runtime.trouble()
        refusals = dict((await runtime.ability()).refusals)
        assert "No such file or directory" in refusals["from_registry"]
        await runtime.close()

    asyncio.run(main())


def test_a_start_without_its_engine_succeeds(tmp_path: Path) -> None:
    (tmp_path / "docker").mkdir()
    (tmp_path / "docker" / "used").touch()

    async def main() -> None:
        runtime = DockerRuntime(tmp_path, lambda: Config(docker=DockerSettings(host=f"unix://{tmp_path}/none.sock")))
        await runtime.start()
        assert "no Docker Engine answers" in await runtime.trouble()
        await runtime.close()

    asyncio.run(main())


def test_a_creation_that_is_cut_short_leaves_nothing(docker_engine: DockerTestEngine, home: Path) -> None:
    runtime = DockerRuntime(home, lambda: config(docker_engine))

    async def scenario(base: BaseFact) -> None:
        spec = ContainerSpec(name="one", base=base)
        await runtime.has(layer("a"))
        task = asyncio.create_task(runtime.create(spec))
        await asyncio.sleep(0)  # it has begun
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        with pytest.raises(AlreadyExistsError):
            await runtime.create(spec)

    play(runtime, scenario)


def test_private_settings_are_in_nothing_that_the_engine_shows(docker_engine: DockerTestEngine, home: Path) -> None:
    runtime = DockerRuntime(home, lambda: config(docker_engine))
    private = (("KEY", "s3cr3t-value"),)

    async def scenario(base: BaseFact) -> None:
        spec = ContainerSpec(name="one", base=base)
        for single in (False, True):
            async with made(runtime, evolve(spec, single=single)) as container:
                process, said = await until_ready(container, ("sh", "-c", 'echo "$KEY"; exec sleep 1000'), env=private)
                assert b"".join(said) == b"s3cr3t-value\n"
                shown = await asyncio.to_thread(everything, docker_engine, home)
                assert "s3cr3t" not in shown
                process.signal(signal.SIGKILL)
                await process.wait()

    play(runtime, scenario)


def everything(engine: DockerTestEngine, home: Path) -> str:
    """What the engine says of the containers of a home, of their processes and of what runs in them."""
    with engine.client() as client:
        said = []
        for container in client.containers.list(all=True, filters={"label": f"{LABEL_HOME}={home_id(home)}"}):
            said += [
                container.attrs,
                container.top(ps_args="-eo pid,args"),
                client.api.inspect_container(str(container.id)),
            ]
            said += [client.api.exec_inspect(ident) for ident in container.attrs["ExecIDs"] or ()]
        return repr(said)


def test_what_is_not_there_is_said(docker_engine: DockerTestEngine, home: Path) -> None:
    settings = evolve(
        config(docker_engine),
        apps=(
            ("sandboxed", AppSettings(oci_runtime="no-such-runtime")),
            ("networked", AppSettings(network="no-such-network")),
            ("owned", AppSettings(user="nobody")),
        ),
    )
    runtime = DockerRuntime(home, lambda: settings)

    async def scenario(base: BaseFact) -> None:
        spec = ContainerSpec(name="one", base=base, single=True)
        with pytest.raises(RuntimeUnavailable, match=r"has no OCI runtime 'no-such-runtime'; it has .*runc"):
            await runtime.create(evolve(spec, labels=(("app", "sandboxed"),)))
        with pytest.raises(RuntimeUnavailable, match=r"has no network 'no-such-network'; it has .*host"):
            await runtime.create(evolve(spec, labels=(("app", "networked"),)))
        with pytest.raises(RuntimeUnavailable, match=r"has no network 'no-such-network'"):
            await runtime.prepare(evolve(spec, labels=(("app", "networked"),)))
        missing = Mount(source=str(home / "missing"), target="/mnt")
        with pytest.raises(RuntimeUnavailable, match=r"container one could not be made: .*bind source path"):
            await runtime.create(evolve(spec, mounts=(missing,)))
        async with made(runtime, evolve(spec, labels=(("app", "owned"),))) as container:
            assert (await finish(container, ("id", "-un"))).out == b"nobody\n"
        async with made(runtime, evolve(spec, single=False, labels=(("app", "owned"),))) as container:
            assert (await finish(container, ("id", "-un"))).out == b"nobody\n"

    play(runtime, scenario)
    assert not (home / "missing").exists()
