"""From a graph to the pools of an app: which image, folders, environment and limits the workers of a function get."""

from __future__ import annotations

import os

from attrs import evolve, field, frozen

from slipway.compiler.encode import loads
from slipway.compiler.nodes import BundleSpec, FunctionSpec, Graph, Node, SecretSpec
from slipway.dsl.declaration import Resources
from slipway.dsl.errors import NotFoundError

from .bundle import Bundles
from .home import Home
from .images import ImageParts, Nodes, image_parts, nodes_of
from .pool import PoolSpec, limits_of
from .ports import ContainerSpec, Deployment, Limits, Mount
from .steps import IS_REMOTE
from .store.seal import Seal
from .store.state import State
from .worker.host import TOKEN_VARIABLE, FunctionStart, WorkerSpec

APP_VARIABLE = "SLIPWAY_APP"
OURS = (IS_REMOTE[0], APP_VARIABLE, TOKEN_VARIABLE)
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
        worker = WorkerSpec(
            container=self._container(app, name, nodes, node, function, volumes),
            function=_start(name, function),
            env=_private(values),
            secrets=tuple(sorted({value for secret in values for value in secret.values()})),
            gpus=function.resources.gpus,
            startup_timeout=(function.startup_timeout_ms or function.timeout_ms) / 1000,
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


def _start(app: str, function: FunctionSpec) -> FunctionStart:
    return FunctionStart(
        app=app,
        name=function.name,
        module=function.module,
        qualname=function.qualname,
        is_async=function.is_async,
        is_generator=function.is_generator,
        serialized=function.serialized,
        concurrency=function.concurrency.max_inputs,
        session=SESSION,
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


def _threads(cpu_milli: int | None) -> list[tuple[str, str]]:
    """How many threads numerical libraries start, from the CPU request; nothing where none was made."""
    if cpu_milli is None:
        return []
    count = str(max(1, -(-cpu_milli // 1000)))
    return [(name, count) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")]
