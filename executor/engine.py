"""The engine: the one owner of a home's state, pools and workers. Programs reach it through `server`."""

from __future__ import annotations

import asyncio
import difflib
import itertools
import json
import logging
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Protocol

from uv import find_uv_bin

from slipway.dsl.errors import Error, NotFoundError
from slipway.dsl.version import VERSION

from .apply import Applier
from .build import Builder
from .bundle import Bundles
from .channels import Channels, Scope
from .config_file import ConfigFile
from .dispatch import Dispatcher
from .ears import Ears
from .feeder import QueueKey, Site
from .gpu_shares import GpuShares
from .home import Home
from .indexes import read_indexes
from .inputs import Input, Numbers
from .inventory import remove_halves
from .launch import Launcher, LiveApp
from .ledger import APP_ENDED, Ledger
from .logbook import LogBook, again, line_of, log_limits
from .pool import PoolSpec
from .ports import CallRow, Clock, Deployment, Runtime
from .store.blobs import FileBlobs
from .store.payloads import PayloadFiles
from .store.recovery import recover
from .store.seal import Seal
from .store.state import State
from .underway import UnderWay
from .uses import Uses
from .volumes import Volumes
from .worker import package
from .worker.frames import Outcome
from .worker.host import Place
from .worker.logs import Line
from .workplace import Folders

log = logging.getLogger("slipway")

DAY_MS = 86_400_000
CALLS_KEPT_MS = 30 * DAY_MS  # how long the record of a call stays
FORGET_EVERY = 3600.0  # seconds


class Emit(Protocol):
    """Sends an event of a request, and after it descriptors, which it closes."""

    def __call__(self, event: dict[str, Any], /, *descriptors: int) -> None: ...


class SystemClock:
    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def monotonic(self) -> float:
        return time.monotonic()


class Engine:
    """Made with `Engine.open`, which closes everything in the end."""

    def __init__(
        self, home: Home, runtimes: dict[str, Runtime], clock: Clock, state: State, seal: Seal, blobs: FileBlobs
    ) -> None:
        self.home = home
        self.runtimes = runtimes
        self.clock = clock
        self.state = state
        self.seal = seal
        self.blobs = blobs
        self.settings = ConfigFile(home.config)
        self.logbook = LogBook(home.logs, lambda: log_limits(self.settings.current()))
        self.code = package.prepare(home.path)
        self.bundles = Bundles(home.bundles, blobs)
        self.volumes = Volumes(home.volumes, state)
        self.uses = Uses(state, clock)
        self.launcher = Launcher(home, state, seal, self.bundles)
        self.appliers = {name: self._applier(runtime) for name, runtime in runtimes.items()}
        self.live: dict[str, LiveApp] = {}
        self.broken: dict[str, str] = {}  # apps that are deployed and can't be served, and why
        self.started_ms = clock.now_ms()
        self.adopt: Callable[[socket.socket, Scope], None] = lambda sock, _scope: sock.close()
        under_way = UnderWay(home.path / "attempts")
        self.ledger = Ledger(state, PayloadFiles(home.payloads), under_way, seal, clock, self._site_of)
        ears = Ears(
            on_records=self._on_records,
            on_line=self._on_line,
            on_client=self._on_client,
            on_attempt=self.ledger.on_attempt,
            on_attempt_over=self._on_attempt_over,
        )
        self.numbers = Numbers(clock)
        gpus = GpuShares()
        self.places = {
            name: Place(runtime=runtime, run=home.run, code=self.code, gpus=gpus) for name, runtime in runtimes.items()
        }
        self.dispatchers = {name: Dispatcher(place, clock, ears, self.numbers) for name, place in self.places.items()}
        self.channels = Channels(self)
        self._ephemeral = itertools.count(1)
        self._writing: set[asyncio.Task[None]] = set()
        self._recording: set[asyncio.Task[None]] = set()
        self._ends: dict[str, list[asyncio.Future[None]]] = {}

    def _applier(self, runtime: Runtime) -> Applier:
        home = self.home
        builder = Builder(
            runtime=runtime,
            state=self.state,
            seal=self.seal,
            bundles=self.bundles,
            folders=Folders(logs=home.layer_logs, cache=home.caches, code=self.code, uv=Path(find_uv_bin())),
            volumes=self.volumes,
            indexes=read_indexes,
        )
        return Applier(state=self.state, builder=builder, bundles=self.bundles, volumes=self.volumes)

    @classmethod
    @asynccontextmanager
    async def open(
        cls, home: Home, *, runtimes: tuple[Runtime, ...], clock: Clock | None = None
    ) -> AsyncIterator[Engine]:
        """An engine with everything that was deployed in this home at work again."""
        async with AsyncExitStack() as stack:
            state = await asyncio.to_thread(State.open, home.state, version=VERSION)
            stack.push_async_callback(state.close)
            seal = await asyncio.to_thread(Seal.open, home.path / "secrets.key")
            for runtime in runtimes:
                await runtime.start()
                stack.push_async_callback(runtime.close)
            engine = cls(
                home,
                {runtime.name: runtime for runtime in runtimes},
                clock or SystemClock(),
                state,
                seal,
                FileBlobs(home.blobs),
            )
            stack.push_async_callback(engine._close)
            await recover(state, engine.blobs, engine.bundles, home.volumes)
            await asyncio.to_thread(remove_halves, home)
            for deployment in await state.deployments():
                await engine._bring_back(deployment)
            await engine.ledger.recover(lambda run: run in engine.live or run in engine.broken)
            engine._warm()
            forgetting = asyncio.create_task(engine._forget_old())
            stack.callback(forgetting.cancel)
            yield engine

    async def _bring_back(self, deployment: Deployment) -> None:
        """Serve what was deployed. What can't be served keeps neither the others nor its own repair from us."""
        try:
            if deployment.runtime not in self.runtimes:
                raise NotFoundError(f"this engine has no runtime {deployment.runtime}")
            self.live[deployment.app] = await self.launcher.deployed(deployment)
        except Exception as error:  # noqa: BLE001 - damage takes any form: a file is gone, a graph means nothing
            self.broken[deployment.app] = error.message if isinstance(error, Error) else repr(error)
            log.warning("%s is deployed, but can't be served: %s", deployment.app, self.broken[deployment.app])

    async def _close(self) -> None:
        self.ledger.end()
        for dispatcher in self.dispatchers.values():
            await dispatcher.close()
        await self.ledger.close()
        while self._writing:
            await asyncio.wait(tuple(self._writing))
        await asyncio.to_thread(self.logbook.close)

    # --- apps -----------------------------------------------------------------------------------------

    def new_ephemeral(self, live: LiveApp, scope: Scope) -> None:
        """Serve an ephemeral app for as long as its connection lasts."""
        self.live[live.id] = live
        scope.apps[live.name] = live.id
        scope.owned.append(live.id)

    def ephemeral_id(self) -> str:
        return f"ap-{self.started_ms:x}{next(self._ephemeral):04x}"

    async def put_in_force(self, live: LiveApp) -> None:
        """Serve a deployment from now on; the pools that it has no use for finish what they have, and go."""
        before = self.live.get(live.id)
        self.live[live.id] = live
        self.broken.pop(live.id, None)
        self._warm()
        await self.ledger.refresh(live.id)
        if before is not None:
            await self.uses.note(before.graph)
            kept = {spec.key for spec in live.pools.values() if before.runtime == live.runtime}
            self._scale_as_declared(live)
            await self._drain(before, kept)

    def _scale_as_declared(self, live: LiveApp) -> None:
        """What the autoscaler was told while the deployment before was in force is over with it."""
        dispatcher = self.dispatchers[live.runtime]
        for pool in tuple(dispatcher.pools.values()):
            if pool.spec.app == live.id:
                dispatcher.rescale(pool, None)

    async def retire(self, app: str) -> None:
        """Serve an app no longer."""
        self.broken.pop(app, None)
        live = self.live.pop(app, None)
        await self.ledger.end_run(app, f"{app} is not deployed any more")
        if live is not None:
            await self.uses.note(live.graph)
            try:
                await self._drain(live, set())
            finally:
                self._tell_end(app)

    def end_of(self, app: str) -> asyncio.Future[None]:
        """Done when the app of this id is served no longer."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if app in self.live:
            waiting = self._ends.setdefault(app, [])
            waiting.append(future)
            future.add_done_callback(waiting.remove)
        else:
            future.set_result(None)
        return future

    def _tell_end(self, app: str) -> None:
        for future in self._ends.pop(app, ()):
            if not future.done():
                future.set_result(None)

    async def _drain(self, live: LiveApp, kept: set[str]) -> None:
        """Let the pools of an app finish what they have, and go; those of its variants, too."""
        dispatcher = self.dispatchers[live.runtime]
        keys = [pool.spec.key for pool in dispatcher.pools.values() if pool.spec.app == live.id]
        await asyncio.gather(*(dispatcher.drain_pool(key) for key in keys if _base(key) not in kept))

    async def end_ephemeral(self, scope: Scope, app: str) -> None:
        """End an ephemeral app: what it has not begun is cancelled, its workers go."""
        live = self.live.pop(app, None)
        if live is None:
            return
        scope.owned = [owned for owned in scope.owned if owned != app]
        scope.apps = {name: ident for name, ident in scope.apps.items() if ident != app}
        await self.uses.note(live.graph)
        dispatcher = self.dispatchers[live.runtime]
        cancelled = asyncio.create_task(self.ledger.end_run(app, APP_ENDED))
        keys = [pool.spec.key for pool in dispatcher.pools.values() if pool.spec.app == app]
        await asyncio.gather(*(dispatcher.close_pool(key, APP_ENDED) for key in keys))
        await cancelled
        self._tell_end(app)

    def _warm(self) -> None:
        """Open the pools that always have workers."""
        for live in self.live.values():
            for spec in live.pools.values():
                if spec.limits.min_workers:
                    self.dispatchers[live.runtime].open_pool(spec)

    def is_needed(self) -> bool:
        """Whether something is deployed or under way, so that an idle engine has to stay."""
        return bool(self.live) or bool(self.ledger.open) or any(one.busy for one in self.dispatchers.values())

    async def drain(self) -> None:
        """Finish what is under way and take no more; durable inputs that have not begun wait for the next engine."""
        self.ledger.pause()
        await asyncio.gather(*(dispatcher.drain() for dispatcher in self.dispatchers.values()))

    def resume(self) -> None:
        """Go on, after a drain that was given up."""
        self.ledger.resume()
        self._warm()

    # --- calls ----------------------------------------------------------------------------------------

    def spec_of(self, ident: str, function: str) -> PoolSpec:
        """The pool of a function of an app by its id. Raises `NotFoundError`."""
        live = self.live.get(ident)
        if ident in self.broken:
            raise NotFoundError(
                f"{ident} is deployed, but can't be served: {self.broken[ident]}", hint="Mend it: slipway apply app.py"
            )
        if live is None:
            names = [live.name for live in self.live.values() if live.id == live.name]
            raise NotFoundError(
                f"no app {ident} is deployed or running here",
                hint=_did_you_mean(ident, names) or "Deploy it: slipway apply app.py",
            )
        spec = live.pools.get(function)
        if spec is None:
            raise NotFoundError(
                f"the app {live.name} has no function {function}",
                hint=_did_you_mean(function, list(live.pools)) or f"It has: {', '.join(sorted(live.pools)) or 'none'}.",
            )
        return spec

    def calls_under_way(self) -> dict[int, list[Input]]:
        """The inputs that are not over and in memory, by their function calls."""
        calls: dict[int, list[Input]] = {}
        for dispatcher in self.dispatchers.values():
            for given in dispatcher.inputs:
                calls.setdefault(given.call, []).append(given)
        return calls

    def find(self, number: int) -> Input | None:
        """An input that is in memory."""
        return next((found for one in self.dispatchers.values() if (found := one.find(number))), None)

    def cancel(self, number: int, *, terminate: bool = False) -> None:
        """Give up an input wherever it is."""
        for dispatcher in self.dispatchers.values():
            dispatcher.cancel(number, force=True, terminate=terminate)

    def at_ms(self, time: float) -> int:
        """A time of the loop as milliseconds since the epoch."""
        return self.clock.now_ms() + round((time - asyncio.get_running_loop().time()) * 1000)

    async def recorded(self) -> None:
        """Have written down what is over."""
        for dispatcher in self.dispatchers.values():
            dispatcher.records.flush()
        while self._recording:
            await asyncio.wait(tuple(self._recording))

    def waits(self, parent: int, change: int) -> None:
        """So many more inputs are waited for by the one of that number, if it runs here."""
        for dispatcher in self.dispatchers.values():
            dispatcher.waits(parent, change)

    async def _site_of(self, key: QueueKey, opening: str) -> Site | None:
        """Where the inputs of a queue run now; None while its app can't be served."""
        live = self.live.get(key.run)
        if live is None:
            if key.run in self.broken:
                return None
            raise NotFoundError(APP_ENDED if key.run != key.app else f"{key.app} is not deployed any more")
        spec = live.pools.get(key.function)
        if spec is None:
            raise NotFoundError(f"{key.app} has no function {key.function} any more")
        if key.variant or spec.worker.function.methods:
            spec = await self.launcher.variant(live, key.function, json.loads(opening or "{}"))
        return Site(dispatcher=self.dispatchers[live.runtime], spec=spec)

    def leave(self, scope: Scope) -> None:
        """A connection has gone: its calls are given up and its ephemeral apps end."""
        self.channels.leave(scope)
        for app in tuple(scope.owned):
            self.in_background(self.end_ephemeral(scope, app))

    async def _forget_old(self) -> None:
        """Once an hour let go of what was kept long enough."""
        while True:
            now_ms = self.clock.now_ms()
            results = min(self.settings.current().keep_results_days * DAY_MS, CALLS_KEPT_MS)
            try:
                await self.ledger.expire(now_ms - results, now_ms - CALLS_KEPT_MS)
            except Error as error:  # a full disk, say: calls go on
                log.warning("old calls could not be forgotten: %s", error)
            await asyncio.sleep(FORGET_EVERY)

    # --- what workers tell ----------------------------------------------------------------------------

    def _on_client(self, spec: PoolSpec, worker: str, sock: socket.socket) -> None:
        live = self.live.get(spec.app)
        self.adopt(sock, Scope(apps={live.name: live.id} if live is not None else {}, worker=worker))

    def _on_line(self, spec: PoolSpec, worker: str, line: Line) -> None:
        live = self.live.get(spec.app)
        name = live.name if live is not None else spec.worker.function.app
        given = None
        if line.call is not None:
            given = next((found for one in self.dispatchers.values() if (found := one.find(line.call))), None)
        self.logbook.append(line_of(spec, name, worker, line, given, self.clock.now_ms()))

    def _on_attempt_over(self, given: Input, outcome: Outcome, reason: str) -> None:
        self.ledger.on_attempt_over(given, outcome, reason)
        self._on_line(given.pool.spec, given.worker_name, again(given, outcome, reason))

    def _on_records(self, rows: list[CallRow]) -> None:
        task = self.in_background(self._record(rows))
        self._recording.add(task)
        task.add_done_callback(self._recording.discard)

    async def _record(self, rows: list[CallRow]) -> None:
        await self.state.call_writes.record(rows)
        for call in self.ledger.waits.calls & {row.call for row in rows}:
            self.ledger.waits.tell_finished(call)

    def in_background(self, work: Awaitable[None]) -> asyncio.Task[None]:
        """Do something that nobody waits for; closing the engine does."""

        async def run() -> None:
            try:
                await work
            except (Error, OSError) as error:  # a full disk, say: calls go on
                log.warning("could not be done: %s", error)

        task = asyncio.get_running_loop().create_task(run())
        self._writing.add(task)
        task.add_done_callback(self._writing.discard)
        return task


def _base(key: str) -> str:
    """The key of a pool without what sets a variant apart: an app and a node's digest."""
    return " ".join(key.split(" ")[:2])


def _did_you_mean(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f"Did you mean {close[0]}?" if close else ""
