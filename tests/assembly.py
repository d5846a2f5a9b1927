"""The executor's parts put together over one home and one runtime, for tests of builds and applies."""

from __future__ import annotations

import asyncio
import atexit
import shutil
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path
from typing import Any

import uv
from attrs import frozen

from slipway.compiler.diff import plan as make_plan
from slipway.compiler.facts import Facts
from slipway.compiler.lower import compile as compile_graph
from slipway.compiler.nodes import Graph, Node
from slipway.compiler.plan import Plan
from slipway.compiler.wire import loads
from slipway.compiler.world import needs
from slipway.dsl.declaration import AppDecl, DebianSlim, ImageDecl, Step
from slipway.executor.apply import Applied, Applier
from slipway.executor.build import Builder
from slipway.executor.bundle import Bundles
from slipway.executor.facts import gather
from slipway.executor.indexes import Indexes, read_indexes
from slipway.executor.ports import Runtime
from slipway.executor.store.blobs import FileBlobs
from slipway.executor.store.seal import Seal
from slipway.executor.store.state import State
from slipway.executor.volumes import Volumes
from slipway.executor.worker import package
from slipway.executor.workplace import Folders

Secrets = Mapping[str, Mapping[str, str]]


def app(*images: tuple[Step, ...], name: str = "app", **more: Any) -> AppDecl:
    """An app of nothing but images on this Python: `app((step, step), (step,))`."""
    decls = tuple(
        ImageDecl(name=f"i{number}", base=DebianSlim(python_version="3.11"), steps=steps)
        for number, steps in enumerate(images)
    )
    return AppDecl(name=name, images=decls, python="3.11", **more)


@cache
def our_code() -> Path:
    """Our own package as containers get it, made once for all tests of this run."""
    folder = Path(tempfile.mkdtemp(prefix="slipway-code-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return package.prepare(folder)


@frozen(kw_only=True)
class Assembly:
    home: Path
    runtime: Runtime
    state: State
    seal: Seal
    blobs: FileBlobs
    bundles: Bundles
    volumes: Volumes
    builder: Builder
    applier: Applier

    @classmethod
    @asynccontextmanager
    async def opened(
        cls,
        home: Path,
        runtime: Runtime,
        *,
        indexes: Indexes | None = None,
        version: str = "0.1.0",
        uv_program: Path | None = None,
    ) -> AsyncIterator[Assembly]:
        """`indexes` None: this host's own; `uv_program` None: the one that we come with."""
        await asyncio.to_thread(home.mkdir, exist_ok=True)
        state = State.open(home / "state.db", version="0.1.0")
        await runtime.start()
        try:
            seal = Seal.open(home / "secrets.key")
            blobs = FileBlobs(home / "blobs")
            bundles = Bundles(home / "bundles", blobs)
            volumes = Volumes(home / "volumes", state)
            builder = Builder(
                runtime=runtime,
                state=state,
                seal=seal,
                bundles=bundles,
                folders=Folders(
                    logs=home / "logs" / "layers",
                    cache=home / "cache",
                    code=our_code(),
                    uv=uv_program or Path(uv.find_uv_bin()),
                ),
                volumes=volumes,
                indexes=read_indexes if indexes is None else (lambda: indexes),
            )
            applier = Applier(state=state, builder=builder, bundles=bundles, volumes=volumes, version=version)
            yield cls(
                home=home,
                runtime=runtime,
                state=state,
                seal=seal,
                blobs=blobs,
                bundles=bundles,
                volumes=volumes,
                builder=builder,
                applier=applier,
            )
        finally:
            await runtime.close()
            await state.close()

    async def facts(self, decl: AppDecl, secrets: Secrets | None = None) -> Facts:
        return await gather(
            needs(decl), runtime=self.runtime, state=self.state, seal=self.seal, app=decl.name, secrets=secrets
        )

    async def graph(self, decl: AppDecl, secrets: Secrets | None = None) -> Graph:
        return compile_graph(decl, await self.facts(decl, secrets))

    async def plan(self, decl: AppDecl, secrets: Secrets | None = None) -> Plan:
        deployment = await self.state.deployment(decl.name)
        return make_plan(
            decl,
            await self.facts(decl, secrets),
            deployed=loads(deployment.graph, Graph) if deployment else None,
            lineage=deployment.lineage if deployment else "",
            serial=deployment.serial if deployment else 0,
            built=frozenset([layer async for layer in self.runtime.layers()]),
            engine_version="0.1.0",
        )

    async def apply(self, decl: AppDecl, secrets: Secrets | None = None, **more: Any) -> Applied:
        return await self.applier.apply(await self.plan(decl, secrets), **more)


def tip(graph: Graph, image: int = 0) -> Node:
    """The last layer of an image."""
    return [node for node in graph.nodes if node.address.startswith(f"image i{image}/")][-1]
