"""Making it so: everything that a graph needs is built, and only when all is there the deployment flips, at once."""

from __future__ import annotations

import asyncio
import errno
import os
import time
import uuid
from collections.abc import Awaitable, Callable
from typing import Any

from attrs import evolve, field, frozen

from slipway.compiler.diff import diff
from slipway.compiler.encode import dumps, loads
from slipway.compiler.nodes import BaseSpec, BundleSpec, FunctionSpec, Graph, LayerSpec, Node, SecretSpec, VolumeSpec
from slipway.compiler.plan import Change, Plan, Verb
from slipway.compiler.planfile import check_fresh
from slipway.compiler.titles import node_title
from slipway.dsl.errors import Error, ImageBuildError, InvalidError, NotFoundError
from slipway.dsl.version import VERSION

from .build import Builder
from .bundle import Bundles
from .images import is_setting, nodes_of
from .launch import container_of
from .points import point
from .ports import ContainerSpec, Deployment, Limits
from .solver import Solver, Status, Task
from .store.state import State
from .volumes import Volumes

OnEvent = Callable[[dict[str, Any]], None]
BUILDS_AT_ONCE = 4


def _nobody(_event: dict[str, Any]) -> None: ...


@frozen(kw_only=True)
class Failure:
    """Why a node failed; `log` is the end of a build step's log, or the traceback of what a worker imported."""

    address: str
    message: str
    hint: str = ""
    log: str = ""


StartWorkers = Callable[[OnEvent], Awaitable[tuple[Failure, ...]]]


async def _no_workers(_on_event: OnEvent) -> tuple[Failure, ...]:
    return ()


@frozen(kw_only=True)
class Applied:
    """What an apply did. `done` are the nodes that changed or were built, `executed` counts the steps that ran.

    `serial` is what is in force now. With anything failed or skipped that is what was in force before.
    """

    serial: int
    done: tuple[str, ...] = ()
    failed: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()
    executed: int = 0
    failures: tuple[Failure, ...] = field(default=(), repr=False)

    @property
    def whole(self) -> bool:
        """Whether everything that was wanted is there."""
        return not self.failed and not self.skipped

    def check(self) -> None:
        """Raise the first failure, the others with it, for whoever can go on only if everything is there."""
        if self.failures:
            first, *more = self.failures
            hints = [first.hint, *(f"This failed, too: {other.message}" for other in more)]
            raise ImageBuildError(first.message, hint="\n".join(filter(None, hints)), log=first.log)


class Applier:
    """Applies plans of one runtime. `on_event` gets the events of docs/wire.md, `node` and `log`, as they happen."""

    def __init__(
        self,
        *,
        state: State,
        builder: Builder,
        bundles: Bundles,
        volumes: Volumes,
        width: int = BUILDS_AT_ONCE,
        version: str = VERSION,
    ) -> None:
        self._state = state
        self._builder = builder
        self._bundles = bundles
        self._volumes = volumes
        self._width = width
        self._version = version

    async def apply(
        self,
        plan: Plan,
        *,
        on_event: OnEvent = _nobody,
        start_workers: StartWorkers = _no_workers,
    ) -> Applied:
        """Carry out a plan; what is in force changes in one transaction at the end, if everything is there and
        `start_workers` has told of no failure.

        Nodes that fail are in the result; raises `StalePlanError` and does nothing where the plan is out of date.
        """
        graph = plan.graph
        self._check_runtime(graph)
        deployment = await self._state.deployment(graph.app)
        onto = (deployment.lineage, deployment.serial) if deployment is not None else ("", 0)
        changes = await self._fresh(plan, deployment)
        kept = frozenset(change.address for change in changes if change.verb is Verb.KEEP)
        realised = evolve(await self.realise(graph, on_event=on_event, in_force=kept), serial=onto[1])
        if not realised.whole:
            return realised
        changed = tuple(change.address for change in changes if change.address not in kept)
        if not changed and deployment is not None:
            return realised
        failures = await start_workers(on_event)
        if failures:
            return evolve(realised, failed=tuple(failure.address for failure in failures), failures=failures)
        point("before-flip")
        new = Deployment(
            app=graph.app,
            lineage=onto[0] or uuid.uuid4().hex,
            serial=onto[1] + 1,
            graph=await asyncio.to_thread(dumps, graph),
            created_ms=time.time_ns() // 1_000_000,
            runtime=graph.runtime,
        )
        await self._state.flip(new, onto=onto)
        point("after-flip")
        return evolve(realised, serial=new.serial, done=tuple(dict.fromkeys((*changed, *realised.done))))

    async def realise(
        self, graph: Graph, *, on_event: OnEvent = _nobody, in_force: frozenset[str] = frozenset()
    ) -> Applied:
        """Have everything in the home that a graph needs; nothing of what is in force changes.

        `in_force` are the addresses of nodes that are deployed as they are: functions whose images workers run in.
        """
        self._check_runtime(graph)
        parts = _Parts(
            state=self._state,
            builder=self._builder,
            bundles=self._bundles,
            volumes=self._volumes,
            layers=await self._builder.layers(),  # asked once: one question a layer would be most of an idle apply
            on_event=on_event,
            in_force=in_force,
        )
        return await _Realising(graph, parts, self._width).run()

    async def destroy(self, app: str, volumes: tuple[str, ...] = ()) -> tuple[str, ...]:
        """Put nothing in force for an app; return the nodes that went. Secrets and volumes stay, but for the volumes
        that are named.

        Raises `NotFoundError` for an app or a volume that isn't there, `InvalidError` for a volume in other hands.
        """
        deployment = await self._state.deployment(app)
        if deployment is None and not volumes:
            raise NotFoundError(f"no app {app} is deployed", hint="What there is: slipway app list")
        for name in volumes:
            await self._volumes.path(name)
            await self._refuse_if_used(name, app)
        nodes: tuple[str, ...] = ()
        if deployment is not None:
            graph = await asyncio.to_thread(loads, deployment.graph, Graph)
            kept = (VolumeSpec, SecretSpec)
            nodes = tuple(node.address for node in graph.nodes if not isinstance(node.spec, kept))
            await self._state.retire(app)
        for name in volumes:
            await self._volumes.remove(name)
        return (*nodes, *(f"volume {name}" for name in volumes))

    # --- inside ---------------------------------------------------------------------------------------

    def _check_runtime(self, graph: Graph) -> None:
        if graph.runtime != self._builder.runtime_name:
            raise InvalidError(
                f"this plan is for the {graph.runtime} runtime, and {self._builder.runtime_name} was to carry it out",
                hint=f"slipway plan --runtime {self._builder.runtime_name}",
            )

    async def _fresh(self, plan: Plan, deployment: Deployment | None) -> tuple[Change, ...]:
        """The changes as they are against what is in force now. Raises `StalePlanError` if that matters."""
        onto = (deployment.lineage, deployment.serial) if deployment is not None else ("", 0)
        if onto == (plan.lineage, plan.serial) and plan.engine_version == self._version:
            return plan.changes

        def compare() -> tuple[Change, ...]:
            in_force = loads(deployment.graph, Graph) if deployment is not None else None
            return diff(in_force, plan.graph)

        now = await asyncio.to_thread(compare)
        if deployment is not None and all(change.verb is Verb.KEEP for change in now):
            return now  # it has been applied already: doing so again does nothing
        check_fresh(plan, lineage=onto[0], serial=onto[1], engine_version=self._version, changes_now=now)
        return now

    async def _refuse_if_used(self, volume: str, app: str) -> None:
        for other in await self._state.deployments():
            if other.app != app:
                graph = await asyncio.to_thread(loads, other.graph, Graph)
                if any(isinstance(node.spec, VolumeSpec) and node.spec.name == volume for node in graph.nodes):
                    raise InvalidError(
                        f"the volume {volume} is in use by app {other.app}", hint=f"slipway destroy {other.app}"
                    )


@frozen(kw_only=True)
class _Parts:
    """What a walk works with."""

    state: State
    builder: Builder
    bundles: Bundles
    volumes: Volumes
    layers: frozenset[str]  # that were there when it began
    on_event: OnEvent
    in_force: frozenset[str]


class _Realising:
    """One walk over a graph: the solver says what may start, tasks do it and come back through a queue."""

    def __init__(self, graph: Graph, parts: _Parts, width: int) -> None:
        self._graph = graph
        self._parts = parts
        self._nodes = nodes_of(graph)
        self._solver = Solver((Task(name=node.address, needs=node.inputs) for node in graph.nodes), width=width)
        self._ended: asyncio.Queue[tuple[str, BaseException | None]] = asyncio.Queue()
        self._done: list[str] = []
        self._failures: list[Failure] = []
        self._executed = 0
        self._prepared: set[ContainerSpec] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> Applied:
        try:
            self._start(self._solver.begin())
            while not self._solver.finished:
                address, error = await self._ended.get()
                if error is None:
                    self._start(self._solver.done(address))
                else:
                    self._fail(address, error)
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
        for address in self._solver.skipped:
            self._tell(self._nodes[address], "skipped", because=self._solver.skipped[address])
        return Applied(
            serial=0,
            done=tuple(self._done),
            failed=self._solver.names(Status.FAILED),
            skipped=self._solver.names(Status.SKIPPED),
            executed=self._executed,
            failures=tuple(self._failures),
        )

    def _start(self, addresses: tuple[str, ...]) -> None:
        waiting = list(addresses)
        for address in waiting:  # grows while it is walked
            work = self._work(self._nodes[address])
            if work is None:  # nothing to do for it: what it needs is there, so it is
                waiting += self._solver.done(address)
                continue
            task = asyncio.get_running_loop().create_task(self._carry_out(address, work))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _carry_out(self, address: str, work: Callable[[], Awaitable[None]]) -> None:
        error: BaseException | None = None
        try:
            await work()
        except asyncio.CancelledError:
            raise
        except BaseException as raised:  # noqa: BLE001 - it is told apart where the queue is read
            error = raised
        self._ended.put_nowait((address, error))

    def _work(self, node: Node) -> Callable[[], Awaitable[None]] | None:
        match node.spec:
            case BaseSpec() as base:
                return lambda: self._base(node, base)
            case LayerSpec():
                return lambda: self._layer(node)
            case BundleSpec() as bundle:
                return lambda: self._bundle(node, bundle)
            case VolumeSpec() as volume:
                return lambda: self._volume(node, volume)
            case FunctionSpec() as function if node.address not in self._parts.in_force:
                return lambda: self._function(node, function)
            case _:
                return None

    # --- nodes ----------------------------------------------------------------------------------------

    async def _base(self, node: Node, spec: BaseSpec) -> None:
        builder = self._parts.builder
        if await builder.has_base(spec):
            return
        began = time.monotonic()
        self._tell(node, "running")
        await builder.fetch(node, app=self._graph.app, on_line=self._line_of(node))
        self._done.append(node.address)
        self._tell(node, "done", ms=round((time.monotonic() - began) * 1000))

    async def _layer(self, node: Node) -> None:
        builder, app = self._parts.builder, self._graph.app
        if await builder.is_there(node, self._parts.layers):
            return

        if is_setting(node):
            await builder.build(self._nodes, node.address, app=app)
            return
        self._tell(node, "running")
        finished = await builder.build(self._nodes, node.address, app=app, on_line=self._line_of(node))
        self._done.append(node.address)
        self._executed += finished.executed
        self._tell(node, "done", ms=finished.ms, executed=finished.executed)

    async def _bundle(self, node: Node, spec: BundleSpec) -> None:
        bundles = self._parts.bundles
        if bundles.has(node.digest):
            return
        async with self._parts.state.intent("bundle", node.digest, app=self._graph.app):
            await bundles.keep(spec.files)
            await bundles.make(node.digest, spec.files)
        self._done.append(node.address)
        self._tell(node, "done")

    async def _volume(self, node: Node, spec: VolumeSpec) -> None:
        used = {
            (name, sub_path)
            for other in self._graph.nodes
            if isinstance(other.spec, FunctionSpec)
            for _, name, _, sub_path in other.spec.volumes
        }
        sub_paths = tuple(sorted(sub_path for name, sub_path in used if name == spec.name and sub_path))
        if not spec.create:
            await self._parts.volumes.path(spec.name)  # raises where it isn't there
        if await self._parts.volumes.ensure(spec.name, sub_paths):
            self._done.append(node.address)
            self._tell(node, "done")

    async def _function(self, node: Node, spec: FunctionSpec) -> None:
        """Have its image ready for workers: whether one can run in it is found here, not at the first call."""
        container = container_of(self._graph.app, self._nodes, node, spec, self._parts.bundles)
        alike = evolve(container, name="", limits=Limits(), network=True)
        if alike not in self._prepared:
            self._prepared.add(alike)
            await self._parts.builder.prepare(container)

    # --- failures -------------------------------------------------------------------------------------

    def _fail(self, address: str, error: BaseException) -> None:
        if isinstance(error, OSError):
            error = in_words(error)
        if not isinstance(error, Error):
            self._solver.stop()
            raise error  # a bug: it ends everything and is shown as one
        log = error.log if isinstance(error, ImageBuildError) else ""
        failure = Failure(address=address, message=error.message, hint=error.hint, log=log)
        self._failures.append(failure)
        self._tell(self._nodes[address], "failed", message=failure.message, hint=failure.hint, log=log)
        self._start(self._solver.failed(address))

    def _tell(self, node: Node, state: str, **more: object) -> None:
        self._parts.on_event(node_event(node, state, **more))

    def _line_of(self, node: Node) -> Callable[[str], None]:
        return lambda text: self._parts.on_event({"event": "log", "address": node.address, "text": text})


def node_event(node: Node, state: str, **more: object) -> dict[str, Any]:
    """What is told of a node on its way."""
    title = node_title(node) if isinstance(node.spec, BaseSpec | LayerSpec) else ""
    event = {"event": "node", "address": node.address, "kind": node.spec.KIND, "state": state, "title": title}
    return event | more


def in_words(error: OSError) -> Error:
    """An error of the file system as the user may meet it."""
    where = f" ({error.filename})" if error.filename else ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return ImageBuildError(
            f"the disk is full{where}", hint="Free some space, or put the home on a larger disk: SLIPWAY_HOME."
        )
    return ImageBuildError(f"{os.strerror(error.errno) if error.errno else error}{where}")
