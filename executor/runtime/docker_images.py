"""All that the docker runtime does with images; containers are not its business."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable

from slipway.compiler.facts import BaseFact
from slipway.executor.config import DockerSettings
from slipway.executor.ports import ContainerSpec, DockerfileBuild, Output, Prepared, Stored

from . import docker_build, docker_commit
from .docker import Connection
from .docker_bases import DockerBases
from .docker_keys import Keys
from .docker_prepare import Preparing
from .docker_store import Image, Store


class DockerImages:
    """The images of the home with this id (`docker.home_id`). Methods that `Runtime` has too do what it says."""

    def __init__(self, connection: Connection, home: str, settings: Callable[[], DockerSettings]) -> None:
        self._connection = connection
        self._store = Store(connection, home)
        self._bases = DockerBases(connection, settings)
        self._preparing = Preparing(connection, self._store, settings)

    async def sweep(self) -> None:
        """Remove what an engine of this home that was killed has half made. Its containers must be gone already."""
        await self._store.sweep()

    # --- bases ----------------------------------------------------------------------------------------

    async def resolve(self, kind: str, ref: str, *, auth: Keys = (), fresh: bool = False) -> BaseFact:
        return await self._bases.resolve(kind, ref, auth=auth, fresh=fresh)

    async def has_base(self, base: BaseFact) -> bool:
        return await self._bases.has(base)

    async def fetch(self, base: BaseFact, *, auth: Keys = (), output: Output) -> None:
        await self._bases.fetch(base, auth=auth, output=output)

    # --- layers ---------------------------------------------------------------------------------------

    def reference(self, layer: str) -> str:
        """What the engine knows a layer by."""
        return self._store.reference(layer)

    async def has(self, layer: str) -> bool:
        return await self._store.layer(layer) is not None

    def layers(self) -> AsyncIterator[str]:
        return self._store.layers()

    async def stored(self) -> tuple[Stored, ...]:
        return await self._store.stored()

    async def alias(self, layer: str, existing: str) -> None:
        await self._store.alias(layer, existing)

    async def remove(self, layer: str) -> None:
        await self._store.remove(layer)

    async def commit(self, container: str, layer: str, mounts: Iterable[str]) -> str:
        """Keep what was written in a running container as a layer; `mounts` are the targets of its mounts."""
        return await docker_commit.commit(self._connection, self._store, container, layer, mounts)

    async def build_dockerfile(self, build: DockerfileBuild, layer: str, output: Output) -> str:
        return await docker_build.build_dockerfile(self._connection, self._store, build, layer, output)

    # --- images of containers -------------------------------------------------------------------------

    async def top(self, spec: ContainerSpec) -> Image:
        """What its containers stand on, without its trees. Raises `NotFoundError`."""
        return await self._store.top(spec)

    async def image(self, spec: ContainerSpec) -> Image:
        """What its containers are made of: an image with its trees, which is made where there is none yet."""
        return await self._preparing.image(spec)

    async def prepare(self, spec: ContainerSpec) -> Prepared:
        return await self._preparing.prepare(spec)
