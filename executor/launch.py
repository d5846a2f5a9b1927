"""From a graph to the pools of an app: which image, folders, environment and limits the workers of a function get."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from attrs import evolve, field, frozen

from slipway.compiler.encode import loads
from slipway.compiler.nodes import BundleSpec, FunctionSpec, Graph, Node, SecretSpec
from slipway.compiler.variants import base, vary
from slipway.dsl.declaration import Resources, VolumeDecl
from slipway.dsl.errors import NotFoundError
from slipway.dsl.variant import Value

from .bundle import Bundles
from .home import Home
from .images import ImageParts, Nodes, image_parts, nodes_of
from .pool import PoolSpec, limits_of
from .ports import ContainerSpec, Deployment, Limits, Mount
from .steps import IS_REMOTE
from .store.seal import Seal
from .store.state import State
from .volumes import Volumes
from .worker.host import TOKEN_VARIABLE, FunctionStart, WorkerSpec

APP_VARIABLE = "SLIPWAY_APP"
OURS = (IS_REMOTE[0], APP_VARIABLE, TOKEN_VARIABLE)
NOTHING: Mapping[str, Any] = MappingProxyType({})
SESSION = "slipway.session:connect_worker"  # what makes a worker's way to call other functions


@frozen(kw_only=True)
class LiveApp:
    """An app that can be called: deployed (its id is its name) or ephemeral. `pools` are by function."""

    id: str
    name: str
    serial: int
    runtime: str
    graph: Graph = field(repr=False)
    pools: dict[str, PoolSpec] = field(repr=False)

    @property
    def is_ephemeral(self) -> bool:
        return self.id != self.name


class Launcher:
    """Makes the pool specs of apps out of what the home holds."""

    def __init__(self, home: Home, state: State, seal: Seal, bundles: Bundles) -> None:
        self._home = home
        self._state = state
        self._seal = seal
        self._bundles = bundles
        self._volumes = Volumes(home.volumes, state)

    async def deployed(self, deployment: Deployment) -> LiveApp:
        """What is in force for an app."""
        graph = loads(deployment.graph, Graph)
        return await self.live(deployment.app, graph, serial=deployment.serial)

    async def live(self, ident: str, graph: Graph, *, serial: int = 0) -> LiveApp:
        """An app of this id with the graph; everything that it needs must be in the home."""
        nodes = nodes_of(graph)
        secrets = await self._secrets(graph)
        volumes = {volume.name: volume.folder for volume in await self._state.volumes()}
        ephemeral = ident != graph.app
        pools = {
            node.spec.name: self._pool(ident, graph.app, nodes, node, node.spec, secrets, volumes, ephemeral=ephemeral)
            for node in graph.nodes
            if isinstance(node.spec, FunctionSpec)
        }
        return LiveApp(id=ident, name=graph.app, serial=serial, runtime=graph.runtime, graph=graph, pools=pools)

    async def variant(self, live: LiveApp, function: str, opening: Mapping[str, Any]) -> PoolSpec:
        """The pool that a request "function.open" asks for: that of the function itself, or one of its own. Volumes
        that are to be made are. Raises `InvalidError` for what can't be, and `NotFoundError` for a missing volume."""
        plain = live.pools[function]
        node = next(node for node in live.graph.nodes if node.digest == plain.key.split(" ")[1])
        assert isinstance(node.spec, FunctionSpec), "the digest is that of a function"
        varied = vary(node.spec, opening)
        if varied == base(node.spec):
            return plain
        for volume in varied.volumes:
            await self._ready(volume)
        folders = {volume.name: volume.folder for volume in await self._state.volumes()}
        container = self._container(live.id, live.name, nodes_of(live.graph), node, varied.function, folders)
        worker = evolve(
            plain.worker,
            container=container,
            function=_start(live.name, varied.function, varied.parameters, opening),
            gpus=varied.function.resources.gpus,
            startup_timeout=_startup(varied.function),
        )
        if varied.secrets is not None:
            values = [dict(secret) for secret in varied.secrets]
            worker = evolve(worker, env=_private(values), secrets=_hidden(values))
        if varied.env:
            env = dict(varied.env)
            worker = evolve(
                worker,
                env=tuple({**dict(worker.env), **dict(_private([env]))}.items()),
                secrets=tuple(sorted({*worker.secrets, *_hidden([env])})),
            )
        digest = varied.digest(lambda values: self._seal.mac("variant", values))
        return evolve(
            plain,
            key=f"{plain.key} {digest}",
            limits=limits_of(varied.function, cores=os.cpu_count() or 1, ephemeral=live.is_ephemeral),
            worker=worker,
        )

    async def _ready(self, volume: VolumeDecl) -> None:
        """Make sure that a volume and the folder in it are there."""
        if not volume.create_if_missing:
            await self._volumes.path(volume.name)
        await self._volumes.ensure(volume.name, (volume.sub_path,) if volume.sub_path else ())

    async def _secrets(self, graph: Graph) -> dict[str, dict[str, str]]:
        found = {}
        for node in graph.nodes:
            if isinstance(node.spec, SecretSpec):
                sealed = await self._state.sealed(graph.app, node.spec.slot, node.spec.version)
                found[node.spec.slot] = self._seal.unseal(sealed)
        return found

    def _pool(
        self,
        app: str,
        name: str,
        nodes: Nodes,
        node: Node,
        function: FunctionSpec,
        secrets: dict[str, dict[str, str]],
        volumes: dict[str, str],
        *,
        ephemeral: bool,
    ) -> PoolSpec:
        parts = image_parts(nodes, node.address)
        values = [secrets[slot] for slot in function.secrets]
        plain = base(function)
        if plain is None:  # nothing can be started of a class before it is known with which parameters
            function = evolve(function, autoscaling=evolve(function.autoscaling, min_containers=0))
        worker = WorkerSpec(
            container=self._container(app, name, nodes, node, function, volumes),
            function=_start(name, function, () if plain is None else plain.parameters),
            env=_private(values),
            secrets=_hidden(values),
            gpus=function.resources.gpus,
            startup_timeout=_startup(function),
            cwd=parts.config.workdir,
        )
        return PoolSpec(
            key=f"{app} {node.digest}",
            app=app,
            function=function.name,
            limits=limits_of(function, cores=os.cpu_count() or 1, ephemeral=ephemeral),
            worker=worker,
        )

    def _container(
        self,
        app: str,
        name: str,
        nodes: Nodes,
        node: Node,
        function: FunctionSpec,
        volumes: dict[str, str],
    ) -> ContainerSpec:
        return evolve(
            container_of(name, nodes, node, function, self._bundles),
            mounts=tuple(self._mount(mount, volumes) for mount in function.volumes),
            labels=(("app", name), ("run", app), ("function", function.name)),
        )

    def _mount(self, mount: tuple[str, str, bool, str | None], volumes: dict[str, str]) -> Mount:
        path, name, read_only, sub_path = mount
        if name not in volumes:
            raise NotFoundError(f"the volume {name} is not in this home", hint="slipway apply makes it.")
        folder = self._home.volumes / volumes[name] / (sub_path or "").lstrip("/")
        return Mount(source=str(folder), target=path, read_only=read_only)


def container_of(app: str, nodes: Nodes, node: Node, function: FunctionSpec, bundles: Bundles) -> ContainerSpec:
    """What the workers of a function are made of, as the graph says."""
    parts = image_parts(nodes, node.address)
    trees = [nodes[address] for address in node.inputs if isinstance(nodes[address].spec, BundleSpec)]
    return ContainerSpec(
        name=function.name,
        base=parts.base,
        layers=parts.layers,
        trees=tuple(bundles.path(bundle.digest) for bundle in trees),
        limits=_limits(function.resources),
        env=_settings(app, function.resources, parts),
        workdir=parts.config.workdir,
        network=not function.block_network,
        entrypoint=parts.config.entrypoint,
        labels=(("app", app),),
    )


def _startup(function: FunctionSpec) -> float:
    """The seconds that a worker may take to start."""
    return (function.startup_timeout_ms or function.timeout_ms) / 1000


def _start(
    app: str, function: FunctionSpec, parameters: tuple[tuple[str, Value], ...], opening: Mapping[str, Any] = NOTHING
) -> FunctionStart:
    changed = {name: opening[name] for name in ("options", "secrets") if opening.get(name)}
    return FunctionStart(
        app=app,
        name=function.name,
        module=function.module,
        qualname=function.qualname,
        is_async=function.is_async,
        is_generator=function.is_generator,
        serialized=function.serialized,
        methods=tuple((method.name, method.is_async, method.is_generator) for method in function.methods),
        parameters=parameters,
        concurrency=function.concurrency.max_inputs,
        batched=function.batching is not None,
        snapshot=function.memory_snapshot,
        session=SESSION,
        variant=json.dumps(changed, sort_keys=True) if changed and function.methods else "",
    )


def _limits(resources: Resources) -> Limits:
    """A request alone is a limit too: on one's own machine what a worker takes beyond it is taken from others."""
    return Limits(
        cpu_milli=resources.cpu_limit_milli or resources.cpu_milli,
        memory_mib=resources.memory_limit_mib or resources.memory_mib,
        cpu_request_milli=resources.cpu_milli,
        memory_request_mib=resources.memory_mib,
        disk_mib=resources.ephemeral_disk_mib,
    )


def _settings(app: str, resources: Resources, parts: ImageParts) -> tuple[tuple[str, str], ...]:
    """What anybody may read of a worker's environment: the image's settings, then ours."""
    env = dict(_threads(resources.cpu_milli))
    env.update(parts.config.env)
    env.update([IS_REMOTE, (APP_VARIABLE, app)])
    return tuple(env.items())


def _private(secrets: list[dict[str, str]]) -> tuple[tuple[str, str], ...]:
    """The secrets in their order: what comes later wins. They win over the settings too, but for ours."""
    env = {key: value for secret in secrets for key, value in secret.items()}
    return tuple((key, value) for key, value in env.items() if key not in OURS)


def _hidden(secrets: list[dict[str, str]]) -> tuple[str, ...]:
    """The values that must not appear in a log."""
    return tuple(sorted({value for secret in secrets for value in secret.values()}))


def _threads(cpu_milli: int | None) -> list[tuple[str, str]]:
    """How many threads numerical libraries start, from the CPU request; nothing where none was made."""
    if cpu_milli is None:
        return []
    count = str(max(1, -(-cpu_milli // 1000)))
    return [(name, count) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")]
