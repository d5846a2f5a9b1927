"""The engine: the one owner of a home's state, pools and workers. Programs reach it through `server`."""

from __future__ import annotations

import asyncio
import difflib
import itertools
import logging
import os
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Protocol

from attrs import define, field
from uv import find_uv_bin

from slipway.dsl.errors import Error, NotFoundError
from slipway.dsl.version import VERSION

from .apply import Applier
from .build import Builder
from .bundle import Bundles
from .config_file import ConfigFile
from .dispatch import Dispatcher, Ears
from .gpu_shares import GpuShares
from .home import Home
from .indexes import read_indexes
from .inputs import Input, Numbers
from .inventory import remove_halves
from .launch import Launcher, LiveApp
from .logbook import LogBook, line_of, log_limits
from .pool import Pool, PoolSpec
from .ports import CallRow, Clock, Deployment, Runtime
from .store.blobs import FileBlobs
from .store.recovery import recover
from .store.seal import Seal
from .store.state import State
from .uses import Uses
from .volumes import Volumes
from .worker import package
from .worker.frames import Flag, Frame, Kind, Outcome
from .worker.host import Place
from .worker.logs import Line
from .worker.wire import NO_FD
from .workplace import Folders

Send = Callable[[Frame, int], None]
log = logging.getLogger("slipway")

_MORE = int(Flag.MORE)  # the flag itself takes long to test
CALLS_KEPT_MS = 30 * 86_400_000  # how long the record of a call stays


class Emit(Protocol):
    """Sends an event of a request, and after it descriptors, which it closes."""

    def __call__(self, event: dict[str, Any], /, *descriptors: int) -> None: ...


class SystemClock:
    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def monotonic(self) -> float:
        return time.monotonic()


@define(eq=False)
class Scope:
    """What one connection has: the functions that it opened, its calls under way, and the apps that it may name.

    `apps` maps names to ids, for ephemeral apps; any other name is that of a deployed app.
    """

    send: Send = lambda _frame, _fd: None
    apps: dict[str, str] = field(factory=dict)
    owned: list[str] = field(factory=list)  # ids of the ephemeral apps that end with this connection
    channels: dict[int, Target] = field(factory=dict)
    worker: str = ""  # the name of the worker whose code has this connection
    calls: dict[int, int] = field(factory=dict)  # the client's id of a call -> ours

    def answer(self, frame: Frame, fd: int) -> None:
        if not frame.flags & _MORE:
            self.calls.pop(frame.id, None)
        self.send(frame, fd)


@define(eq=False)
class Target:
    """A function as a connection opened it: of this app, whichever deployment of it is in force when it is called."""

    app: str
    function: str
    pool: Pool | None = None  # of the last call
    dispatcher: Dispatcher | None = None


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
        self._settings = ConfigFile(home.config)
        self.logbook = LogBook(home.logs, lambda: log_limits(self._settings.current()))
        self.code = package.prepare(home.path)
        self.bundles = Bundles(home.bundles, blobs)
        self.volumes = Volumes(home.volumes, state)
        self.uses = Uses(state, clock)
        self.launcher = Launcher(home, state, seal, self.bundles)
        folders = Folders(logs=home.layer_logs, cache=home.caches, code=self.code, uv=Path(find_uv_bin()))
        builders = {
            name: Builder(
                runtime=runtime,
                state=state,
                seal=seal,
                bundles=self.bundles,
                folders=folders,
                volumes=self.volumes,
                indexes=read_indexes,
            )
            for name, runtime in runtimes.items()
        }
        self.appliers = {
            name: Applier(state=state, builder=builder, bundles=self.bundles, volumes=self.volumes)
            for name, builder in builders.items()
        }
        self.live: dict[str, LiveApp] = {}
        self.broken: dict[str, str] = {}  # apps that are deployed and can't be served, and why
        self.started_ms = clock.now_ms()
        self.adopt: Callable[[socket.socket, Scope], None] = lambda sock, _scope: sock.close()
        ears = Ears(on_records=self._on_records, on_line=self._on_line, on_client=self._on_client)
        self.numbers = Numbers(clock)
        gpus = GpuShares()
        self.places = {
            name: Place(runtime=runtime, run=home.run, code=self.code, gpus=gpus) for name, runtime in runtimes.items()
        }
        self.dispatchers = {name: Dispatcher(place, clock, ears, self.numbers) for name, place in self.places.items()}
        self._channels = itertools.count(1)
        self._ephemeral = itertools.count(1)
        self._writing: set[asyncio.Task[None]] = set()
        self._ends: dict[str, list[asyncio.Future[None]]] = {}

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
            while await state.call_writes.prune(engine.started_ms - CALLS_KEPT_MS):
                pass
            for deployment in await state.deployments():
                await engine._bring_back(deployment)
            engine._warm()
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
        for dispatcher in self.dispatchers.values():
            await dispatcher.close()
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
        if before is not None:
            await self.uses.note(before.graph)
            kept = {spec.key for spec in live.pools.values() if before.runtime == live.runtime}
            await self._drain(before, [spec.key for spec in before.pools.values() if spec.key not in kept])

    async def retire(self, app: str) -> None:
        """Serve an app no longer."""
        self.broken.pop(app, None)
        live = self.live.pop(app, None)
        if live is not None:
            await self.uses.note(live.graph)
            await self._drain(live, [spec.key for spec in live.pools.values()])
            self._tell_end(app)

    def end_of(self, app: str) -> asyncio.Future[None]:
        """Done when the app of this id is served no longer."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if app in self.live:
            self._ends.setdefault(app, []).append(future)
        else:
            future.set_result(None)
        return future

    def _tell_end(self, app: str) -> None:
        for future in self._ends.pop(app, ()):
            if not future.done():
                future.set_result(None)

    async def _drain(self, live: LiveApp, keys: list[str]) -> None:
        dispatcher = self.dispatchers[live.runtime]
        await asyncio.gather(*(dispatcher.drain_pool(key) for key in keys))

    async def end_ephemeral(self, scope: Scope, app: str) -> None:
        """End an ephemeral app: what it has not begun is cancelled, its workers go."""
        live = self.live.pop(app, None)
        if live is None:
            return
        scope.owned = [owned for owned in scope.owned if owned != app]
        scope.apps = {name: ident for name, ident in scope.apps.items() if ident != app}
        await self.uses.note(live.graph)
        dispatcher = self.dispatchers[live.runtime]
        await asyncio.gather(*(dispatcher.close_pool(spec.key, "the app has ended") for spec in live.pools.values()))
        self._tell_end(app)

    def _warm(self) -> None:
        """Open the pools that always have workers."""
        for live in self.live.values():
            for spec in live.pools.values():
                if spec.limits.min_workers:
                    self.dispatchers[live.runtime].open_pool(spec)

    def is_needed(self) -> bool:
        """Whether something is deployed or under way, so that an idle engine has to stay."""
        return bool(self.live) or any(dispatcher.busy for dispatcher in self.dispatchers.values())

    async def drain(self) -> None:
        """Finish what is under way and take no more."""
        await asyncio.gather(*(dispatcher.drain() for dispatcher in self.dispatchers.values()))

    # --- calls ----------------------------------------------------------------------------------------

    def open_function(self, scope: Scope, app: str, function: str) -> tuple[int, PoolSpec]:
        """A channel for calls of a function. Raises `NotFoundError`."""
        ident = scope.apps.get(app, app)
        spec = self.spec_of(ident, function)
        channel = next(self._channels)
        scope.channels[channel] = Target(ident, function)
        return channel, spec

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

    def call(self, scope: Scope, frame: Frame, fd: int) -> None:
        """Take a CALL; its RESULT goes to `scope.send`, whatever happens."""
        target = scope.channels.get(frame.channel)
        try:
            if target is None:
                raise NotFoundError(f"channel {frame.channel} was not opened")
            spec = self.spec_of(target.app, target.function)
        except NotFoundError as error:
            if fd != NO_FD:
                os.close(fd)
            scope.send(Frame(Kind.RESULT, frame.id, str(error).encode(), 0, 0, Outcome.LOST), NO_FD)
            return
        pool = target.pool
        if pool is None or pool.spec is not spec or pool.placement.draining:
            dispatcher = self.dispatchers[self.live[target.app].runtime]
            pool = target.pool = dispatcher.open_pool(spec)
            target.dispatcher = dispatcher
        assert target.dispatcher is not None, "it is set with the pool"
        number = scope.calls[frame.id] = self.numbers.next_input()
        target.dispatcher.submit(
            Input(
                number,
                pool,
                scope.answer,
                ident=frame.id,
                payload=frame.payload,
                fd=fd,
                fd_length=frame.fd_length,
                parent=frame.call,
            )
        )

    def cancel(self, scope: Scope, ident: int, *, force: bool) -> None:
        """Give up a call of a connection; unknown and finished ones are let be."""
        number = scope.calls.get(ident)
        if number is not None:
            for dispatcher in self.dispatchers.values():
                dispatcher.cancel(number, force=force)

    def leave(self, scope: Scope) -> None:
        """A connection has gone: its calls are given up and its ephemeral apps end."""
        scope.send = _drop
        for ident in tuple(scope.calls):
            self.cancel(scope, ident, force=True)
        for app in tuple(scope.owned):
            self._in_background(self.end_ephemeral(scope, app))

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

    def _on_records(self, rows: list[CallRow]) -> None:
        self._in_background(self.state.call_writes.record(rows))

    def _in_background(self, work: Awaitable[None]) -> None:
        """Do something that nobody waits for; closing the engine does."""

        async def run() -> None:
            try:
                await work
            except OSError as error:  # a full disk, say: calls go on
                log.warning("could not be done: %s", error)

        task = asyncio.get_running_loop().create_task(run())
        self._writing.add(task)
        task.add_done_callback(self._writing.discard)


def _drop(_frame: Frame, fd: int) -> None:
    if fd != NO_FD:
        os.close(fd)


def _did_you_mean(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f"Did you mean {close[0]}?" if close else ""
