"""The images of one made-up home on the engine of the tests, and containers of the tests' own to build in."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Iterable, Iterator
from typing import Any

import docker
import pytest
from attrs import define
from docker.errors import APIError
from docker_engine import DockerTestEngine

from slipway.compiler.facts import BaseFact
from slipway.executor.config import DockerSettings
from slipway.executor.ports import ContainerSpec, DockerfileBuild, Output
from slipway.executor.runtime.docker import Connection
from slipway.executor.runtime.docker_bases import DockerBases
from slipway.executor.runtime.docker_build import build_dockerfile
from slipway.executor.runtime.docker_commit import commit
from slipway.executor.runtime.docker_prepare import Preparing
from slipway.executor.runtime.docker_store import Store

# Ended with the container, and nothing of it may get into an image. No word of it is in Cmd, which would be history.
KEEPER = ["/bin/sh", "-c", "while :; do sleep 1000; done", "the-keeper"]


@define
class Rig:
    engine: DockerTestEngine
    client: Any
    home: str
    connection: Connection
    settings: DockerSettings
    store: Store
    bases: DockerBases
    preparing: Preparing

    def keeper(self, image: str, mounts: Iterable[dict[str, Any]] = (), **more: Any) -> str:
        host = self.client.create_host_config(network_mode="host", mounts=list(mounts))  # the quickest to make
        labels = {"slipway.home": self.home, "slipway.name": "keeper", "slipway.build": "x"}
        made = self.client.create_container(
            image, entrypoint=KEEPER, command=[], host_config=host, labels=labels, **more
        )
        self.client.start(made["Id"])
        return str(made["Id"])

    def sh(self, container: str, script: str, **more: Any) -> str:
        begun = self.client.exec_create(container, ["/bin/sh", "-ec", script], workdir="/", user="0", **more)
        said = self.client.exec_start(begun["Id"]).decode()
        assert self.client.exec_inspect(begun["Id"])["ExitCode"] == 0, said
        return str(said)

    def said(self, image: str, *argv: str, **more: Any) -> str:
        """What a program in a new container of an image says, alone, by the image's own config."""
        host = self.client.create_host_config(network_mode="host", log_config={"type": "json-file"})
        made = self.client.create_container(image, command=list(argv), host_config=host, **more)
        try:
            self.client.start(made["Id"])
            self.client.wait(made["Id"])
            return str(self.client.logs(made["Id"]).decode())
        finally:
            self.client.remove_container(made["Id"], force=True)

    async def commit(self, container: str, layer: str, mounts: Iterable[str]) -> str:
        return await commit(self.connection, self.store, container, layer, mounts)

    async def build_dockerfile(self, build: DockerfileBuild, layer: str, output: Output) -> str:
        return await build_dockerfile(self.connection, self.store, build, layer, output)

    async def has(self, layer: str) -> bool:
        return await self.store.layer(layer) is not None

    async def built(self, below: str, layer: str, script: str, mounts: Iterable[dict[str, Any]] = ()) -> str:
        """Commit what a script writes as a layer; the digest of its content."""
        kept = tuple(mounts)
        container = self.keeper(below, kept)
        try:
            self.sh(container, script)
            return await self.commit(container, layer, [mount["Target"] for mount in kept])
        finally:
            self.client.remove_container(container, force=True)

    async def base(self) -> BaseFact:
        return await self.bases.resolve("debian_slim", "")

    async def spec(self, *layers: str, **more: Any) -> ContainerSpec:
        return ContainerSpec(name="one", base=await self.base(), layers=layers, **more)

    def clean_image(self, name: str) -> None:
        self.clean()
        self.client.remove_image(name, force=True)

    def ours(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.client.images(filters={"label": f"slipway.home={self.home}"})
        return found

    def tags(self) -> set[str]:
        return {tag for image in self.ours() for tag in image["RepoTags"] or ()}

    def clean(self) -> None:
        ours = {"label": f"slipway.home={self.home}"}
        for container in self.client.containers(all=True, filters=ours):
            self.client.remove_container(container["Id"], force=True)
        while found := self.ours():
            for image in found:
                with contextlib.suppress(APIError):
                    self.client.remove_image(image["Id"], force=True)
        self.connection.close()


@contextlib.contextmanager
def rig_on(engine: DockerTestEngine, **settings: Any) -> Iterator[Rig]:
    bases = settings.pop("bases", (("debian_slim", engine.base_image),))
    chosen = DockerSettings(host=engine.url, bases=bases, **settings)
    connection = Connection(lambda: chosen)
    home = uuid.uuid4().hex[:12]
    client = docker.APIClient(base_url=engine.url, version="auto", timeout=300)
    store = Store(connection, home)
    bases_here, preparing = DockerBases(connection, lambda: chosen), Preparing(connection, store, lambda _: chosen)
    rig = Rig(engine, client, home, connection, chosen, store, bases_here, preparing)
    try:
        yield rig
    finally:
        rig.clean()
        client.close()


@pytest.fixture
def rig(docker_engine: DockerTestEngine) -> Iterator[Rig]:
    with rig_on(docker_engine) as made:
        yield made
