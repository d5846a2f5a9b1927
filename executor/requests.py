"""What programs may ask of an engine, by name; see docs/wire.md."""

from __future__ import annotations

import asyncio
import hashlib
import os
from typing import Any

from attrs import asdict, evolve

from slipway.compiler import planfile
from slipway.compiler.diff import plan as make_plan
from slipway.compiler.encode import from_wire, loads, to_wire
from slipway.compiler.nodes import Graph, VolumeSpec
from slipway.compiler.plan import Plan
from slipway.compiler.wire import dump_json
from slipway.compiler.world import needs
from slipway.dsl.declaration import AppDecl
from slipway.dsl.errors import DeclarationError, InvalidError, NotFoundError, RuntimeUnavailable
from slipway.dsl.version import VERSION

from . import calls, containers
from .apply import Applier
from .channels import Scope
from .choice import beside, notes
from .chooser import Chooser
from .config_file import ConfigFile
from .containers import Containers, Method
from .engine import Emit, Engine
from .facts import gather
from .gc import Collector, freeing_reply, offer_reply
from .launch import LiveApp
from .log_requests import QUERY, app_logs
from .ports import Deployment, Runtime
from .tasks import to_its_end
from .warmup import warm_up

# What an app is and how it is wanted, for a plan or to run it at once.
WHAT: dict[str, type] = {
    "declaration": dict,
    "secrets?": dict,
    "folder?": str,
    "runtime?": str,
    "environment?": dict,  # of what is said in the caller's environment, what counts
}
# What each request takes; a name with "?" may be left out.
PARAMETERS: dict[str, dict[str, type]] = {
    "plan": {**WHAT, "save?": bool, "brief?": bool},
    "apply": {"plan?": dict, "id?": str, "folder?": str},
    "run": WHAT,
    "app.end": {"app": str},
    "app.logs": {"app": str, **QUERY},
    "destroy": {"app": str, "volumes?": list},
    "gc": {"keep?": int, "caches?": bool},
    "gc.free": {"id": str},
    "down": {"drain?": bool},
    **containers.PARAMETERS,
    **calls.PARAMETERS,
}


def check_parameters(method: str, params: dict[str, Any]) -> None:
    """Raises `InvalidError` for one that is missing or of a wrong type; those that nobody knows are left out."""
    given = {name: value for name, value in params.items() if value is not None}
    params.clear()
    for known, kind in PARAMETERS.get(method, {}).items():
        name = known.rstrip("?")
        if name not in given and not known.endswith("?"):
            raise InvalidError(f"{method}: {name!r} is missing")
        if name in given:
            params[name] = given[name]
            if type(params[name]) is not kind:
                raise InvalidError(f"{method}: {name!r} is {type(params[name]).__name__}, expected {kind.__name__}")
    if any(not isinstance(name, str) for name in params.get("volumes", ())):
        raise InvalidError(f"{method}: 'volumes' are not all names")
    if any(not isinstance(value, str) for value in params.get("environment", {}).values()):
        raise InvalidError(f"{method}: 'environment' is not names with text values")
    for slot, values in params.get("secrets", {}).items():
        if not isinstance(values, dict) or not all(isinstance(value, str) for value in values.values()):
            raise InvalidError(f"{method}: the secret {slot} is not names with text values")


def methods(engine: Engine) -> dict[str, Method]:
    """Every request that an engine answers."""
    kept = Containers(engine)
    requests = Requests(engine, kept)
    return {
        "plan": requests.plan,
        "apply": requests.apply,
        "run": requests.run,
        "app.end": requests.end_app,
        "app.list": requests.list_apps,
        "app.logs": requests.logs,
        "destroy": requests.destroy,
        "gc": requests.gc,
        "gc.free": requests.free,
        "status": requests.status,
        **kept.methods(),
        **calls.Calls(engine).methods(),
    }


class Requests:
    """Each method takes the connection's scope, the parameters as they came, and what sends an event."""

    def __init__(self, engine: Engine, kept: Containers) -> None:
        self._engine = engine
        self._containers = kept
        self._chooser = Chooser(engine.runtimes, ConfigFile(engine.home.config), os.environ)
        self._locks: dict[str, asyncio.Lock] = {}  # one apply of an app at a time
        self._collector = Collector(engine)

    # --- plan, apply, run, destroy --------------------------------------------------------------------

    async def plan(self, _scope: Scope, params: dict[str, Any], _emit: Emit) -> dict[str, Any]:
        """With `brief` the reply leaves out the lists of files, which may be long and no screen shows."""
        made = await self._plan(params)
        plain, data = await asyncio.to_thread(_written, made)
        ident = hashlib.sha256(data).hexdigest()[:16]
        if params.get("save", True):
            await self._engine.state.save_plan(str(params.get("folder", "")), ident, data)
        return {"id": ident, "plan": _without_files(plain) if params.get("brief") else plain}

    async def _plan(self, params: dict[str, Any], *, ephemeral: bool = False) -> Plan:
        declaration = await asyncio.to_thread(from_wire, AppDecl, params["declaration"])
        deployment = await self._engine.state.deployment(declaration.name)
        deployed = deployment.runtime if deployment is not None else None
        caller = params.get("environment", {})
        choice = await self._chooser.choose(declaration, params.get("runtime"), caller, deployed)
        if ephemeral:  # it runs where the deployed one does, and takes nothing's place
            deployment = deployed = None
        try:
            made = await self._planned(params, declaration, self._engine.runtimes[choice.runtime], deployment)
        except DeclarationError as error:
            raise DeclarationError((*error.faults, *beside(choice))) from None
        except RuntimeUnavailable as error:
            other = self._chooser.other_engine(choice.runtime, caller)
            raise RuntimeUnavailable(error.message, hint="\n".join(filter(None, (error.hint, other)))) from error
        said = (*notes(choice, deployed), *self._chooser.caller_notes(choice.runtime, caller))
        return evolve(made, faults=(*made.faults, *said))

    async def _planned(
        self, params: dict[str, Any], declaration: AppDecl, runtime: Runtime, deployment: Deployment | None
    ) -> Plan:
        state = self._engine.state
        facts = await gather(
            needs(declaration),
            runtime=runtime,
            state=state,
            seal=self._engine.seal,
            app=declaration.name,
            secrets=params.get("secrets", {}),
        )
        built = frozenset([layer async for layer in runtime.layers()])
        last = {row.layer: row.ms for row in await state.all_built(runtime.name)}
        return await asyncio.to_thread(
            make_plan,
            declaration,
            facts,
            deployed=await self._in_force(deployment),
            lineage=deployment.lineage if deployment else "",
            serial=deployment.serial if deployment else 0,
            built=built,
            last_ms=last,
            engine_version=VERSION,
            app_file=declaration.file,
            folder=str(params.get("folder", "")),
        )

    async def _in_force(self, deployment: Deployment | None) -> Graph | None:
        if deployment is None:
            return None
        live = self._engine.live.get(deployment.app)
        if live is not None and live.serial == deployment.serial:
            return live.graph
        return await asyncio.to_thread(loads, deployment.graph, Graph)

    async def apply(self, _scope: Scope, params: dict[str, Any], emit: Emit) -> dict[str, Any]:
        plan = await self._wanted_plan(params)
        lock = self._locks.setdefault(plan.graph.app, asyncio.Lock())
        applier = self._applier(plan.graph.runtime)
        async with lock, self._engine.uses.hold(plan.graph), warm_up(self._engine, plan.graph) as start_workers:
            try:
                applied = await applier.apply(plan, on_event=emit, start_workers=start_workers)
            except asyncio.CancelledError:
                await to_its_end(self._put_in_force(plan.graph.app))  # it may have flipped in that moment
                raise
            if applied.whole:
                await to_its_end(self._put_in_force(plan.graph.app))
        return {
            "app": plan.graph.app,
            "serial": applied.serial,
            "done": list(applied.done),
            "failed": list(applied.failed),
            "skipped": list(applied.skipped),
            "executed": applied.executed,
            "failures": [asdict(failure) for failure in applied.failures],
        }

    def _applier(self, runtime: str) -> Applier:
        if runtime not in self._engine.appliers:
            raise InvalidError(f"this engine has no runtime {runtime}", hint="Plan again: slipway plan app.py")
        return self._engine.appliers[runtime]

    async def _wanted_plan(self, params: dict[str, Any]) -> Plan:
        """The plan that an `apply` means: one that came along, one by its id, or the last one of a folder."""
        state = self._engine.state
        if "plan" in params:
            plan = await asyncio.to_thread(from_wire, Plan, params["plan"])
            await asyncio.to_thread(planfile.verify, plan)
            return plan
        if "id" in params:
            saved = await state.plan(str(params["id"]))
        else:
            folder = str(params.get("folder", ""))
            last = await state.last_plan(folder)
            if last is None:
                raise NotFoundError(f"no plan was made in {folder} yet", hint="Make one: slipway plan app.py")
            saved = last
        return await asyncio.to_thread(planfile.read, saved.plan)

    async def _put_in_force(self, app: str) -> None:
        engine = self._engine
        deployment = await engine.state.deployment(app)
        live = engine.live.get(app)
        if deployment is not None and (live is None or live.serial != deployment.serial):
            await engine.put_in_force(await engine.launcher.deployed(deployment))

    async def run(self, scope: Scope, params: dict[str, Any], emit: Emit) -> dict[str, Any]:
        """An ephemeral app: built, and callable through this connection for as long as it lasts."""
        engine = self._engine
        plan = await self._plan(params, ephemeral=True)
        async with engine.uses.hold(plan.graph):
            applied = await self._applier(plan.graph.runtime).realise(plan.graph, on_event=emit)
            applied.check()
            live = await engine.launcher.live(engine.ephemeral_id(), plan.graph)
            engine.new_ephemeral(live, scope)
        return {
            "app": live.id,
            "executed": applied.executed,
            "faults": [to_wire(fault) for fault in plan.faults],
        }

    async def end_app(self, scope: Scope, params: dict[str, Any], _emit: Emit) -> dict[str, Any]:
        if params["app"] not in scope.owned:
            raise NotFoundError(f"this program runs no app {params['app']}")
        await to_its_end(self._engine.end_ephemeral(scope, params["app"]))
        return {}

    async def destroy(self, _scope: Scope, params: dict[str, Any], _emit: Emit) -> dict[str, Any]:
        """Take an app out of force. Volumes and secrets stay, but for the volumes that are named."""
        engine, app = self._engine, str(params["app"])
        volumes = tuple(params.get("volumes", ()))
        lock = self._locks.setdefault(app, asyncio.Lock())
        async with lock:
            self._refuse_ephemeral_use(volumes)
            anyone = next(iter(engine.appliers.values()))  # taking away asks no runtime for anything
            removed = await anyone.destroy(app, volumes)
            await engine.retire(app)
        return {"removed": list(removed)}

    def _refuse_ephemeral_use(self, volumes: tuple[str, ...]) -> None:
        """A volume that a running app has mounted is not removed from under it."""
        for live in self._engine.live.values():
            used = {node.spec.name for node in live.graph.nodes if isinstance(node.spec, VolumeSpec)}
            taken = used.intersection(volumes) if live.is_ephemeral else ()
            for name in taken:
                raise InvalidError(f"the volume {name} is in use by {live.name}, which runs", hint="Wait for its end.")

    # --- freeing --------------------------------------------------------------------------------------

    async def gc(self, _scope: Scope, params: dict[str, Any], _emit: Emit) -> dict[str, Any]:
        """What could be freed; `gc.free` with the reply's id frees that."""
        keep = params.get("keep")
        if keep is not None and keep < 0:
            raise InvalidError(f"gc: 'keep' is {keep}, expected a number of bytes")
        return offer_reply(await self._collector.look(keep=keep, caches=params.get("caches", False)))

    async def free(self, _scope: Scope, params: dict[str, Any], emit: Emit) -> dict[str, Any]:
        return freeing_reply(await self._collector.free(params["id"], emit))

    # --- looking --------------------------------------------------------------------------------------

    async def list_apps(self, _scope: Scope, _params: dict[str, Any], _emit: Emit) -> dict[str, Any]:
        deployed = {row.app: row for row in await self._engine.state.deployments()}
        live, broken = self._engine.live, self._engine.broken
        apps = [self._app(live[app]) | {"created_ms": row.created_ms} for app, row in deployed.items() if app in live]
        apps += [
            {"app": app, "state": f"broken: {broken[app]}", "serial": row.serial, "runtime": row.runtime}
            | {"created_ms": row.created_ms}
            for app, row in deployed.items()
            if app in broken
        ]
        return {"apps": apps}

    def _app(self, live: LiveApp) -> dict[str, Any]:
        there = self._engine.dispatchers[live.runtime].pools.values()
        served = [pool for pool in there if pool.spec.app == live.id]  # those of variants, too
        pools = [pool.counts() for pool in served]
        return {
            "app": live.name,
            "id": live.id,
            "state": "ephemeral" if live.is_ephemeral else "deployed",
            "serial": live.serial,
            "runtime": live.runtime,
            "functions": sorted(live.pools),
            "workers": sum(counts.workers for counts in pools),
            "running": sum(counts.running for counts in pools),
            "queued": sum(counts.queued for counts in pools) + self._engine.ledger.waiting_of(live.id),
            "done": sum(counts.done for counts in pools),
            "failed": sum(counts.failed for counts in pools),
            "troubles": {
                pool.spec.function: pool.trouble.reason
                for pool, counts in zip(served, pools, strict=True)
                if pool.trouble is not None and (pool.spec.limits.min_workers or counts.queued)
            },
            "plain": {
                pool.spec.function: pool.template.why_plain
                for pool in served
                if pool.template is not None and pool.template.why_plain
            },
        }

    async def logs(self, _scope: Scope, params: dict[str, Any], emit: Emit) -> dict[str, Any]:
        return await app_logs(self._engine, params, emit)

    async def status(self, _scope: Scope, _params: dict[str, Any], _emit: Emit) -> dict[str, Any]:
        engine = self._engine
        # What waits and is on disk does so without this engine, too: it is no reason to keep it.
        inputs = [given for dispatcher in engine.dispatchers.values() for given in dispatcher.inputs]
        running = sum(not given.durable or given.pool.runs(given.number) for given in inputs)
        ephemeral = [live.name for live in engine.live.values() if live.is_ephemeral]
        busy = [f"{running} calls under way"] if running else []
        busy += [f"{', '.join(ephemeral)} runs"] if ephemeral else []
        busy += [self._containers.busy] if self._containers.busy else []
        busy += ["an apply is under way"] if any(lock.locked() for lock in self._locks.values()) else []
        return {
            "pid": os.getpid(),
            "version": VERSION,
            "home": str(engine.home.path),
            "started_ms": engine.started_ms,
            "runtimes": await self._chooser.troubles(),
            "settings": self._chooser.settings_trouble(),
            "busy": "; ".join(busy),
            "open": engine.ledger.open,
            "apps": [self._app(live) for _, live in sorted(engine.live.items())],
        }


def _written(plan: Plan) -> tuple[dict[str, Any], bytes]:
    """A plan as plain values, and as a plan file."""
    plain: dict[str, Any] = to_wire(plan)
    return plain, planfile.enclose(dump_json(plain))


def _without_files(plan: dict[str, Any]) -> dict[str, Any]:
    nodes = [
        node | {"spec": node["spec"] | {"files": []}} if node["spec"].get("files") else node
        for node in plan["graph"].get("nodes", ())
    ]
    return plan | {"graph": plan["graph"] | {"nodes": nodes}}
