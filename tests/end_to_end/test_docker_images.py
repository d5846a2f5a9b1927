"""Images on Docker Engine: each kind of base and of step once, built for real and looked into."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import pickle
import uuid
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import docker
import pytest
from assembly import Assembly
from attrs import evolve, frozen
from docker.errors import APIError
from docker_engine import DockerTestEngine
from packages import python_downloads, wheel_of
from registry import Registry

from slipway.compiler.nodes import Graph
from slipway.compiler.titles import node_title
from slipway.dsl.declaration import (
    AddLocal,
    AppDecl,
    AptInstall,
    Base,
    DebianSlim,
    DockerfileCommands,
    FromDockerfile,
    FromRegistry,
    ImageDecl,
    LocalSource,
    Micromamba,
    MicromambaInstall,
    PipInstall,
    RunCommands,
    RunFunction,
    SecretDecl,
    Setting,
    SourceDecl,
    Step,
    StepOptions,
    UvSync,
)
from slipway.executor.apply import Applied
from slipway.executor.config import Config, DockerSettings
from slipway.executor.images import chain, image_parts, nodes_of
from slipway.executor.indexes import Indexes, read_indexes
from slipway.executor.ports import ContainerSpec
from slipway.executor.runtime.docker import home_id
from slipway.executor.runtime.docker_runtime import DockerRuntime

pytestmark = pytest.mark.slow

TOKEN = "sixteen-letters!"


@frozen
class Shop:
    """One home on the engine of the tests."""

    assembly: Assembly
    engine: DockerTestEngine
    lines: list[str]

    async def apply(
        self, *steps: Step, base: Base | None = None, secrets: dict[str, dict[str, str]] | None = None
    ) -> tuple[Applied, Graph]:
        """What applying came to, and the graph; the lines of the logs are in `lines`."""
        image = ImageDecl(name="i0", base=base or DebianSlim(python_version="3.11"), steps=steps)
        decl = AppDecl(name="app", images=(image,), python="3.11")
        self.lines.clear()
        result = await self.assembly.apply(decl, secrets, on_event=self._heard)
        return result, await self.assembly.graph(decl, secrets)

    def _heard(self, event: dict[str, Any]) -> None:
        if event["event"] == "log":
            self.lines.append(event["text"])
        elif (event.get("kind"), event["state"]) == ("base", "done"):
            self.lines.append(f"pulled {event['address']}")

    async def built(self, *steps: Step, **more: Any) -> Graph:
        result, graph = await self.apply(*steps, **more)
        assert result.failures == (), (result.failures, self.lines)
        return graph

    async def failed(self, *steps: Step, **more: Any) -> str:
        """Why it failed, with the log and the hint."""
        result, _ = await self.apply(*steps, **more)
        (failure,) = result.failures
        return "\n".join((failure.message, failure.hint, failure.log))

    async def say(self, graph: Graph, script: str) -> str:
        """What a script says in a new container of the image, started as a worker's program is."""
        nodes = nodes_of(graph)
        top = [address for address in nodes if address.startswith("image i0/")][-1]
        parts = image_parts(nodes, top)
        spec = ContainerSpec(
            name=f"look-{uuid.uuid4().hex[:8]}",
            base=parts.base,
            layers=parts.layers,
            env=parts.config.env,
            entrypoint=parts.config.entrypoint,
            network=False,
            single=True,
        )
        container = await self.assembly.runtime.create(spec)
        said: list[bytes] = []
        try:
            process = await container.exec(
                ("/bin/sh", "-c", script), cwd=parts.config.workdir, output=lambda _, data: said.append(data)
            )
            ended = await process.wait()
            assert ended.signal is None, ended
        finally:
            await container.kill()
        return b"".join(said).decode()

    def layers(self, graph: Graph) -> list[str]:
        tops = [node.address for node in graph.nodes if node.address.startswith("image i0/")]
        return [node.digest for node in chain(nodes_of(graph), tops[-1])[1:]]


Act = Callable[[Shop], Awaitable[None]]


@pytest.fixture
def shop(tmp_path: Path, docker_engine: DockerTestEngine) -> Iterator[Callable[..., None]]:
    """Runs an act in a new home; afterwards no container of it may be left, and its images go."""
    home = tmp_path / "home"
    label = f"slipway.home={home_id(home)}"

    def run(act: Act, *, indexes: Indexes | None = None, uv_program: Path | None = None, **bases: str) -> None:
        mapped = {"debian_slim": docker_engine.base_image, **bases}
        config = Config(docker=DockerSettings(host=docker_engine.url, bases=tuple(mapped.items())))

        async def main() -> None:
            runtime = DockerRuntime(home, lambda: config)
            found = indexes or Indexes()
            async with Assembly.opened(home, runtime, indexes=found, uv_program=uv_program) as assembly:
                await act(Shop(assembly, docker_engine, []))

        asyncio.run(main())

    yield run
    with docker_engine.client() as client:
        left = client.containers.list(all=True, filters={"label": label})
        remove_images(client, label)
    assert left == []


def remove_images(client: docker.DockerClient, label: str) -> None:
    while found := client.api.images(filters={"label": label}):
        for image in found:
            with contextlib.suppress(APIError):  # one that others stand on goes after those
                client.api.remove_image(image["Id"], force=True)


@pytest.fixture
def wheels(tmp_path: Path) -> Indexes:
    """Package settings of a host that gets everything from one folder of its own."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    wheel_of(folder)
    return read_indexes(
        {"HOME": str(tmp_path), "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(folder), "PIP_CONFIG_FILE": "/dev/null"}
    )


def local(path: Path, remote: str, **more: Any) -> LocalSource:
    return LocalSource(local=str(path), remote=remote, is_dir=path.is_dir(), **more)


# --- packages -----------------------------------------------------------------------------------------


def test_packages_go_into_the_images_own_python_by_uv_and_by_pip(shop: Callable[..., None], wheels: Indexes) -> None:
    async def act(shop: Shop) -> None:
        for options in ("", "--prefer-binary"):
            graph = await shop.built(PipInstall(packages=("tinypack",), extra_options=options))
            said = await shop.say(graph, "python3 -c 'import tinypack; print(tinypack.value)'; ls -A /.slipway")
            assert said.startswith("42\n")
        result, _ = await shop.apply(PipInstall(packages=("tinypack",), extra_options="--prefer-binary"))
        assert result.executed == 0
        assert "there is no package nosuchpackage" in await shop.failed(PipInstall(packages=("nosuchpackage-of-ours",)))

    shop(act, indexes=wheels)


def test_an_image_that_uv_cannot_run_in_has_its_own_pip(
    shop: Callable[..., None], wheels: Indexes, tmp_path: Path
) -> None:
    """As on Alpine, where the loader that a program for glibc names is not there."""
    program = tmp_path / "uv"
    program.write_text("#!/lib/no-such-loader.so\n")
    program.chmod(0o755)

    async def act(shop: Shop) -> None:
        graph = await shop.built(PipInstall(packages=("tinypack",), pre=True))
        assert await shop.say(graph, "python3 -c 'import tinypack; print(tinypack.value)'") == "42\n"
        assert "uv can't run in this image" in shop.lines[0]

    shop(act, indexes=wheels, uv_program=program)


def test_an_image_without_python_says_what_to_do(
    shop: Callable[..., None], wheels: Indexes, docker_engine: DockerTestEngine
) -> None:
    async def act(shop: Shop) -> None:
        said = await shop.failed(PipInstall(packages=("tinypack",)))
        assert "add_python=" in said

    shop(act, indexes=wheels, debian_slim=docker_engine.image_without_python())


def test_a_requirements_file_and_a_uv_project(shop: Callable[..., None], wheels: Indexes, tmp_path: Path) -> None:
    (tmp_path / "requirements.txt").write_text("tinypack\n")
    project = tmp_path / "project"
    project.mkdir()
    (project / "pyproject.toml").write_text(
        '[project]\nname = "mine"\nversion = "1"\nrequires-python = ">=3.10"\ndependencies = ["tinypack"]\n'
    )
    requirements = local(tmp_path / "requirements.txt", "/.slipway/build/requirements-0.txt")
    folder = local(project, "/.slipway/build/project")

    async def act(shop: Shop) -> None:
        for step in (PipInstall(requirements=(requirements,)), UvSync(project=folder, frozen=False)):
            graph = await shop.built(step)
            script = "python3 -c 'import tinypack; print(tinypack.value)'; ls -A /tmp /root | grep -c slipway"
            assert await shop.say(graph, script) == "42\n0\n"

    shop(act, indexes=wheels)


def test_debian_packages_come_from_the_images_own_sources(
    shop: Callable[..., None], docker_engine: DockerTestEngine
) -> None:
    control = r"Package: tinydeb\nVersion: 1.0\nArchitecture: all\nMaintainer: me\nDescription: none\n"
    listed = r"Filename: ./tinydeb.deb\nSize: $(stat -c %s tinydeb.deb)\nSHA256: $(sha256sum tinydeb.deb | cut -c-64)\n"
    base = docker_engine.image(
        "apt",
        "RUN mkdir -p /srv/repo /tmp/p/DEBIAN /tmp/p/opt && cd /srv/repo && echo here >/tmp/p/opt/tinydeb"
        f" && printf '{control}' >/tmp/p/DEBIAN/control && dpkg-deb --build /tmp/p tinydeb.deb && rm -rf /tmp/p"
        f" && printf '{control}' >Packages && printf \"{listed}\" >>Packages"
        " && rm -rf /etc/apt/sources.list /etc/apt/sources.list.d/*"
        " && echo 'deb [trusted=yes] file:/srv/repo ./' >/etc/apt/sources.list",
    )

    async def act(shop: Shop) -> None:
        graph = await shop.built(AptInstall(packages=("tinydeb",)))
        assert await shop.say(graph, "cat /opt/tinydeb; find /.slipway ! -type d") == "here\n"
        assert "there is no package nosuch-of-ours" in await shop.failed(AptInstall(packages=("nosuch-of-ours",)))

    shop(act, debian_slim=base)


# --- commands, functions, files -----------------------------------------------------------------------


def test_commands_run_as_the_images_user_with_settings_and_a_secret_that_stays_nowhere(
    shop: Callable[..., None], docker_engine: DockerTestEngine
) -> None:
    base = docker_engine.image(
        "user", "RUN useradd -m someone && mkdir /srv/work && chown someone /srv/work", "USER someone"
    )
    secret = StepOptions(secrets=(SecretDecl(slot="dict:TOKEN#0", keys=("TOKEN",)),))
    steps = (
        Setting(what="env", env=(("WHO", "world"),)),
        Setting(what="workdir", values=("/srv/work",)),
        Setting(what="shell", values=("/bin/bash", "-c")),
        RunCommands(
            commands=(
                'echo "hello $WHO ${BASH_VERSION:+bash} $(id -un)" > said',
                "echo ${#TOKEN} $TOKEN && echo ${#TOKEN} > length",
            ),
            options=secret,
        ),
    )

    async def act(shop: Shop) -> None:
        graph = await shop.built(*steps, secrets={"dict:TOKEN#0": {"TOKEN": TOKEN}})
        assert "16 ***" in shop.lines
        said = await shop.say(graph, "cat /srv/work/said /srv/work/length; env | grep -c TOKEN")
        assert said == "hello world bash someone\n16\n0\n"
        with shop.engine.client() as client:
            (image,) = client.images.list(filters={"label": f"slipway.layer={shop.layers(graph)[-1]}"})
            assert TOKEN not in f"{image.attrs}{image.history()}"
            assert image.attrs["Config"]["User"] == "someone"
        log = shop.assembly.builder.log_path(shop.layers(graph)[-1])
        assert TOKEN not in log.read_text()

    shop(act, debian_slim=base)


MODULE = """
from pathlib import Path


def fetch(name, *, times=1):
    print("fetching", name, __file__)
    Path("/models").mkdir()
    Path(f"/models/{name}").write_text(name * times)


def broken():
    raise LookupError("no such model")
"""


def function_step(tmp_path: Path, name: str, *args: Any, **kwargs: Any) -> RunFunction:
    (tmp_path / "mod.py").write_text(MODULE)
    code = SourceDecl(sources=(local(tmp_path / "mod.py", "/root/mod.py"),))
    payload = base64.b64encode(pickle.dumps((args, kwargs))).decode() if args or kwargs else ""
    return RunFunction(module="mod", qualname=name, source=name, payload=payload, code=code)


def test_a_function_runs_as_a_step_and_leaves_only_what_it_wrote(shop: Callable[..., None], tmp_path: Path) -> None:
    async def act(shop: Shop) -> None:
        graph = await shop.built(function_step(tmp_path, "fetch", "m", times=3))
        assert shop.lines == ["fetching m /.slipway/code/mod.py"]
        assert await shop.say(graph, "cat /models/m; ls -A /root | grep mod; find /.slipway ! -type d") == "mmm"
        assert (await shop.failed(function_step(tmp_path, "broken"))).endswith("LookupError: no such model")

    shop(act)


def test_files_are_copied_in(shop: Callable[..., None], tmp_path: Path) -> None:
    data = tmp_path / "data"
    (data / "bin").mkdir(parents=True)
    (data / "bin" / "run-me").write_text("#!/bin/sh\necho ran\n")
    (data / "bin" / "run-me").chmod(0o755)
    (data / "link").symlink_to("bin/run-me")

    async def act(shop: Shop) -> None:
        steps = (
            AddLocal(sources=(local(data, "/opt/tool"),), copy=True),
            AddLocal(sources=(local(data / "bin/run-me", "/bin/run-me"),), copy=True),
        )
        graph = await shop.built(*steps)
        said = await shop.say(graph, "/opt/tool/link; run-me; stat -c '%a %u' /opt/tool/bin/run-me; readlink /bin")
        assert said == "ran\nran\n755 0\nusr/bin\n"

    shop(act)


# --- Dockerfiles --------------------------------------------------------------------------------------


def dockerfile(tmp_path: Path, base: str) -> FromDockerfile:
    context = tmp_path / "context"
    (context / "src").mkdir(parents=True, exist_ok=True)
    (context / "src/a.txt").write_text("a\n")
    text = f"""# syntax=docker/dockerfile:1
ARG BASE
FROM $BASE AS first
COPY src/ /srv/
RUN echo "$(cat /srv/a.txt) built" > /srv/built
FROM {base}
ARG WORD=none
COPY --from=first /srv/built /srv/built
RUN echo $WORD > /srv/word
ENV FROM_FILE=yes A=1
WORKDIR /srv
SHELL ["/bin/bash", "-c"]
ENTRYPOINT ["/usr/bin/env", "THROUGH=1"]
"""
    source = local(context, "/", only=("src/a.txt",))
    args = (("BASE", base), ("WORD", "given"))
    return FromDockerfile(path=str(tmp_path / "Dockerfile"), text=text, context=(source,), build_args=args)


def test_a_dockerfile_with_stages_arguments_and_a_context(
    shop: Callable[..., None], tmp_path: Path, docker_engine: DockerTestEngine
) -> None:
    base = dockerfile(tmp_path, docker_engine.base_image)

    async def act(shop: Shop) -> None:
        step = RunCommands(commands=("echo $FROM_FILE ${BASH_VERSION:+bash} > here",))
        graph = await shop.built(step, base=base)
        said = await shop.say(graph, "cat built word here; echo $FROM_FILE; ls /srv")
        assert said == "a built\ngiven\nyes bash\nyes\nbuilt\nhere\nword\n"
        assert any(line.startswith("Step ") for line in shop.lines)
        assert await shop.say(graph, "echo $THROUGH") == "1\n"
        cleared = await shop.built(step, Setting(what="entrypoint"), base=base)
        assert await shop.say(cleared, "echo $THROUGH") == "\n"
        own = await shop.built(step, Setting(what="entrypoint", values=("env", "THROUGH=2")), base=base)
        assert await shop.say(own, "echo $THROUGH") == "2\n"
        result, _ = await shop.apply(step, base=base)
        assert result.executed == 0
        (tmp_path / "context/src/a.txt").write_text("b\n")
        assert (await shop.say(await shop.built(step, base=base), "cat built")) == "b built\n"

    shop(act)


def test_lines_on_top_know_the_settings_and_what_they_say_holds(shop: Callable[..., None], tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a\n")
    steps = (
        Setting(what="env", env=(("A", "one $x"), ("B", "kept"))),
        Setting(what="workdir", values=("/srv",)),
        Setting(what="shell", values=("/bin/bash", "-c")),
        DockerfileCommands(
            commands=(
                "ARG WORD",
                "COPY a.txt .",
                'RUN echo "$A $B $WORD ${BASH_VERSION:+bash}" > /srv/said',
                "ENV A=two",
                "WORKDIR sub",
            ),
            context=(local(tmp_path / "a.txt", "/a.txt"),),
            build_args=(("WORD", "given"),),
        ),
        Setting(what="env", env=(("C", "three"),)),
    )

    async def act(shop: Shop) -> None:
        graph = await shop.built(*steps)
        said = await shop.say(graph, "cat /srv/said /srv/a.txt; echo $A $B $C; pwd")
        assert said == "one $x kept given bash\na\ntwo kept three\n/srv/sub\n"
        failed = await shop.failed(*steps, DockerfileCommands(commands=("RUN echo no; false",)))
        assert "dockerfile_commands" in failed and "non-zero code: 1" in failed

    shop(act)


# --- other bases --------------------------------------------------------------------------------------


def test_an_image_of_a_private_registry_is_pinned_and_pulled_with_its_keys(
    shop: Callable[..., None], docker_engine: DockerTestEngine, private_registry: Registry
) -> None:
    image = docker_engine.image("pulled", "RUN echo pulled > /pulled")
    private_registry.push(docker_engine, image, "team/base:1")
    keys = SecretDecl(slot="dict:REGISTRY#0", keys=("REGISTRY_PASSWORD", "REGISTRY_USERNAME"))
    values = {"REGISTRY_USERNAME": private_registry.user, "REGISTRY_PASSWORD": private_registry.password}
    name = f"{private_registry.address}/team/base:1"
    base = FromRegistry(tag=name, secret=keys, setup_commands=("RUN echo set up > /setup",))
    file = FromDockerfile(path="Dockerfile", text=f"FROM {name}\nRUN echo again > /again", registry_secret=keys)

    async def act(shop: Shop) -> None:
        for made, script, pulled in ((base, "cat /pulled /setup", True), (file, "cat /pulled /again", False)):
            graph = await shop.built(RunCommands(commands=("true",)), base=made, secrets={keys.slot: values})
            assert len((await shop.say(graph, script)).split()) > 1
            assert private_registry.password not in str(graph)
            assert any(line.startswith("pulled ") for line in shop.lines) == pulled  # the second finds it here

    try:
        shop(act)
    finally:
        with docker_engine.client() as client:
            for found in client.images.list(name=name.rpartition(":")[0]):
                for tag in found.tags:
                    if tag.startswith(private_registry.address):
                        client.images.remove(tag, noprune=True)


MICROMAMBA = """#!/bin/sh
[ "$1 $2 $3 $4" = "install --yes --name base" ] || exit 9
shift 4
mkdir -p /opt/conda/bin
echo "$@" >> /opt/conda/asked
id -un >> /opt/conda/asked
ln -sf /usr/bin/python3 /opt/conda/bin/python
"""


def test_conda_packages_are_asked_of_the_images_micromamba(
    shop: Callable[..., None], docker_engine: DockerTestEngine, tmp_path: Path
) -> None:
    """No channel of conda's can be reached here, so the program is one that notes what it was asked."""
    (tmp_path / "micromamba").write_text(MICROMAMBA)
    (tmp_path / "environment.yml").write_text("dependencies: [xz]\n")
    image = docker_engine.image(
        "micromamba",
        "COPY files/micromamba /usr/local/bin/micromamba",
        "RUN chmod 755 /usr/local/bin/micromamba && useradd mambauser",
        "ENV PATH=/opt/conda/bin:/usr/local/bin:/usr/bin:/bin",
        "USER mambauser",
        files=[(tmp_path / "micromamba", "micromamba")],
    )
    spec = local(tmp_path / "environment.yml", "/.slipway/build/environment.yml")
    step = MicromambaInstall(packages=("pymc>=5",), spec_file=spec, channels=("conda-forge", "bioconda"))

    async def act(shop: Shop) -> None:
        graph = await shop.built(step, base=Micromamba(python_version="3.11"))
        assert await shop.say(graph, "cat /opt/conda/asked; command -v python") == (
            "--channel conda-forge python=3.11\nroot\n"
            "--channel conda-forge --channel bioconda --file /.slipway/build/environment.yml pymc>=5\nroot\n"
            "/opt/conda/bin/python\n"
        )
        assert "start from Image.micromamba()" in await shop.failed(step)

    shop(act, micromamba=image)


def test_a_python_is_added_to_an_image_that_has_none(
    shop: Callable[..., None],
    docker_engine: DockerTestEngine,
    wheels: Indexes,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    version, downloads = python_downloads(tmp_path)
    monkeypatch.setenv("UV_PYTHON_DOWNLOADS_JSON_URL", str(downloads))
    bare = docker_engine.image(
        "add-python",
        "RUN rm -rf /usr/bin/python3* /usr/lib/python3*",
        "ENV LD_LIBRARY_PATH=/usr/local/lib",  # uv's own interpreters find their library themselves
    )
    base = FromRegistry(tag=bare, add_python="3.12")
    paths = "import sys, sysconfig; print(sys.version.split()[0], sys.executable, sysconfig.get_config_var('BINDIR'))"

    async def act(shop: Shop) -> None:
        graph = await shop.built(PipInstall(packages=("tinypack",)), base=base)
        assert node_title(nodes_of(graph)["image i0/1"]) == "add_python 3.12"
        said = await shop.say(
            graph,
            f'python -c "{paths}"; python3 -c "import tinypack, json; print(tinypack.value, json.__cached__)"; '
            "pip --version | cut -d' ' -f1,4; stat -c %u /usr/local/bin/python3.12",
        )
        assert said.splitlines() == [
            f"{version} /usr/local/bin/python /usr/local/bin",
            "42 /usr/local/lib/python3.12/json/__pycache__/__init__.cpython-312.pyc",
            "pip /usr/local/lib/python3.12/site-packages/pip",
            "0",
        ]
        monkeypatch.setenv("UV_PYTHON_DOWNLOADS_JSON_URL", str(tmp_path / "nosuch.json"))
        other = evolve(base, add_python="3.13")
        failed = await shop.failed(base=other)
        assert "Python 3.13 could not be fetched" in failed and "UV_PYTHON_INSTALL_MIRROR" in failed

    shop(act, indexes=wheels)
