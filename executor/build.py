"""Building layers: each once, in a container that is always gone afterwards, its log kept, its result recorded."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import itertools
import secrets
import time
from collections.abc import Callable
from pathlib import Path

from attrs import define, evolve, field, frozen

from slipway.compiler.encode import digest_of
from slipway.compiler.facts import FileEntry
from slipway.compiler.nodes import LayerSpec, Node
from slipway.dsl.errors import Error, ImageBuildError, InternalError, InvalidError, NotFoundError

from .build_log import DISK_FULL, BuildLog, OnLine, explain
from .bundle import Bundles, bundle_digest
from .images import ImageParts, Nodes, below, image_parts, is_setting
from .indexes import Indexes
from .points import point
from .ports import Built, Container, ContainerSpec, Exit, Mount, Runtime
from .steps import BUILD_FOLDER, CACHE, FILES, OURS, Recipe, recipe
from .store.seal import Seal
from .store.state import Intent, State
from .tasks import Flights
from .volumes import Volumes


@frozen(kw_only=True)
class Finished:
    """A layer that is there. `executed`: its step ran just now; else it was there, or found under another key."""

    layer: str
    output: str
    executed: bool
    ms: int = 0


@frozen(kw_only=True)
class Folders:
    """Where a builder keeps things: its logs and caches, below the home; our own package; and uv's program."""

    logs: Path
    cache: Path
    code: Path  # what `worker.package.prepare` returned
    uv: Path


@define(eq=False)
class _Job:
    """One layer being built, and who listens to it."""

    node: Node
    spec: LayerSpec
    step: str  # digests of the step alone and of the content below
    below: str
    app: str
    listeners: list[OnLine] = field(factory=list)


class Builder:
    """Makes layers of one runtime."""

    def __init__(
        self,
        *,
        runtime: Runtime,
        state: State,
        seal: Seal,
        bundles: Bundles,
        folders: Folders,
        volumes: Volumes,
        indexes: Callable[[], Indexes],
    ) -> None:
        """`indexes` reads this host's package settings."""
        self._runtime = runtime
        self._state = state
        self._seal = seal
        self._bundles = bundles
        self._folders = folders
        self._volumes = volumes
        self._indexes = indexes
        self._flights: Flights[str, Finished] = Flights()
        self._jobs: dict[str, _Job] = {}
        self._alone: dict[str, asyncio.Lock] = {}
        self._numbers = itertools.count(1)

    async def build(self, nodes: Nodes, address: str, *, app: str = "", on_line: OnLine | None = None) -> Finished:
        """The layer at an address, built if it isn't there; the one below it must be.

        Whoever asks for a layer that is being built joins in. Raises `ImageBuildError` with the end of the log.
        """
        node = nodes[address]
        if not isinstance(node.spec, LayerSpec):
            raise InternalError(f"{address} is not a layer")
        found = await self._below(nodes, node)
        job = self._jobs.get(node.digest) or _Job(
            node=node, spec=node.spec, step=digest_of(node.spec), below=found, app=app
        )
        listeners = job.listeners
        if on_line is not None:
            listeners.append(on_line)
        self._jobs[node.digest] = job
        try:
            joined = node.digest in self._flights
            finished = await self._flights.join(node.digest, lambda: self._finish(nodes, job))
            return evolve(finished, executed=False) if joined else finished  # a step that ran counts once
        finally:
            if on_line is not None:
                listeners.remove(on_line)
            if node.digest not in self._flights:
                self._jobs.pop(node.digest, None)

    @property
    def runtime_name(self) -> str:
        return self._runtime.name

    async def is_there(self, node: Node) -> bool:
        """Whether a layer is finished and known, so that building it would do nothing."""
        assert isinstance(node.spec, LayerSpec)
        if await self._state.built(node.digest, self._runtime.name) is None:
            return False
        return is_setting(node) or (not node.spec.forced and await self._runtime.has(node.digest))

    async def output(self, node: Node) -> str:
        """The digest of the content of a finished layer, or of a base."""
        if not isinstance(node.spec, LayerSpec):
            return node.digest
        built = await self._state.built(node.digest, self._runtime.name)
        # A crash after the layer and before its row leaves a whole layer of which only the name is known.
        return built.output if built is not None else node.digest

    async def _below(self, nodes: Nodes, node: Node) -> str:
        lower = below(nodes, node)
        if lower is None:
            raise InternalError(f"{node.address} stands on no base")
        return await self.output(lower)

    # --- cached, found, or built ----------------------------------------------------------------------

    async def _finish(self, nodes: Nodes, job: _Job) -> Finished:
        node, name = job.node, self._runtime.name
        if is_setting(node):
            return await self._set(job)
        if not job.spec.forced:
            built = await self._state.built(node.digest, name)
            if await self._runtime.has(node.digest):
                output = built.output if built is not None else node.digest
                if built is None:
                    await self._record(job, output, 0)
                return Finished(layer=node.digest, output=output, executed=False)
            adopted = await self._adopt(job)
            if adopted is not None:
                return adopted
        return await self._execute(nodes, job)

    async def _set(self, job: _Job) -> Finished:
        """A setting builds nothing; but what comes above it runs under it, so its content is another."""
        output = digest_of((job.step, job.below))
        if await self._state.built(job.node.digest, self._runtime.name) is None:
            await self._record(job, output, 0)
        return Finished(layer=job.node.digest, output=output, executed=False)

    async def _adopt(self, job: _Job) -> Finished | None:
        """The same step on the same content has been built under another key: give that a second name."""
        for found in await self._state.find_built(job.step, job.below, self._runtime.name):
            if found.layer != job.node.digest and await self._runtime.has(found.layer):
                try:
                    await self._runtime.alias(job.node.digest, found.layer)
                except NotFoundError:
                    continue  # nobody needs that one, so it may be freed at any moment
                await self._record(job, found.output, found.ms)
                return Finished(layer=job.node.digest, output=found.output, executed=False)
        return None

    async def _record(self, job: _Job, output: str, ms: int, intent: Intent | None = None) -> None:
        built = Built(
            layer=job.node.digest,
            step=job.step,
            below=job.below,
            output=output,
            ms=ms,
            runtime=self._runtime.name,
        )
        await self._state.record_built(built, intent=intent)

    async def _execute(self, nodes: Nodes, job: _Job) -> Finished:
        parts = image_parts(nodes, below_address(nodes, job.node))
        what = recipe(job.spec, runtime=self._runtime.name, config=parts.config)
        intent = await self._state.intend("build", job.node.digest, app=job.app)
        started = time.monotonic()
        try:
            if what.alone:
                async with self._alone.setdefault(what.alone, asyncio.Lock()):
                    output = await self._run(job, what, parts)
            else:
                output = await self._run(job, what, parts)
        except BaseException:
            await asyncio.shield(self._state.settle(intent))
            raise
        ms = round((time.monotonic() - started) * 1000)
        point("layer-committed")
        await self._record(job, output, ms, intent)
        return Finished(layer=job.node.digest, output=output, executed=True, ms=ms)

    # --- in a container -------------------------------------------------------------------------------

    async def _run(self, job: _Job, what: Recipe, parts: ImageParts) -> str:
        indexes = await asyncio.to_thread(self._indexes)
        values = await self._secret_values(job)
        hidden = (*values.values(), *indexes.secrets)
        log = BuildLog(self.log_path(job.node.digest), job.listeners, hidden, job.spec.title or job.node.address)
        with log:
            try:
                spec = await self._container(job, what, parts, indexes)
                # Later wins: ours, the host's, the image's own, the secrets of the step.
                env = tuple({**dict(what.env), **dict(indexes.env), **dict(parts.config.env), **values}.items())
                return await self._in_container(job, what, spec, env, log)
            except OSError as error:
                if error.errno in (errno.ENOSPC, errno.EDQUOT):
                    raise self._failure(job, log, "the disk is full") from error
                raise
            except ImageBuildError:
                raise
            except Error as error:
                if DISK_FULL.search(error.message):
                    raise self._failure(job, log, "the disk is full") from error
                raise

    async def _in_container(
        self, job: _Job, what: Recipe, spec: ContainerSpec, env: tuple[tuple[str, str], ...], log: BuildLog
    ) -> str:
        container = await self._runtime.create(spec)
        try:
            for argv in what.commands:
                log.command(argv)
                ended = await self._command(container, argv, what, env, log)
                if ended != Exit(code=0):
                    raise self._failure(job, log, _how(ended, what))
            point("layer-before-commit")
            return await self._keep(job, container)
        finally:
            await asyncio.shield(container.kill())

    async def _command(
        self, container: Container, argv: tuple[str, ...], what: Recipe, env: tuple[tuple[str, str], ...], log: BuildLog
    ) -> Exit:
        process = await container.exec(argv, env=env, cwd=what.cwd, stdin=what.stdin, output=log.take)
        if what.timeout_ms is None:
            return await process.wait()
        try:
            return await asyncio.wait_for(process.wait(), what.timeout_ms / 1000)
        except TimeoutError:
            process.drain()
            return Exit(code=None)

    async def _keep(self, job: _Job, container: Container) -> str:
        """Commit. A forced layer takes the place of the one of its name, which must not be in use then."""
        layer = job.node.digest
        if not (job.spec.forced and await self._runtime.has(layer)):
            return await container.commit(layer)
        made = "sha256:" + hashlib.sha256(f"{layer} {secrets.token_hex(16)}".encode()).hexdigest()
        output = await container.commit(made)
        try:
            await self._runtime.remove(layer)
            await self._runtime.alias(layer, made)
        except InvalidError as error:
            raise ImageBuildError(
                f"{job.node.origin}: {job.spec.title} was built anew (force_build), but {error.message}",
                hint="Wait until its workers have ended, or stop the app first: slipway destroy",
            ) from error
        finally:
            await self._runtime.remove(made)
        return output

    async def _container(self, job: _Job, what: Recipe, parts: ImageParts, indexes: Indexes) -> ContainerSpec:
        mounts = [*indexes.mounts]
        if what.uv:
            mounts.append(Mount(source=str(self._folders.uv), target=f"{OURS}/bin/uv", read_only=True))
        for name in what.caches:
            folder = self._folders.cache / name
            await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True)
            mounts.append(Mount(source=str(folder), target=f"{CACHE}/{name}"))
        if what.worker:
            for name in ("lib", "fallback"):
                source = str(self._folders.code / name)
                mounts.append(Mount(source=source, target=f"{OURS}/{name}", read_only=True))
        if what.files:
            files = await self._folder_of(what.files)
            mounts.append(Mount(source=files, target=FILES, read_only=True))
            if what.build_folder:
                mounts.append(Mount(source=files + BUILD_FOLDER, target=BUILD_FOLDER, read_only=True))
        for path, volume in what.volumes:
            await self._volumes.ensure(volume.name, (volume.sub_path,) if volume.sub_path else ())
            source = await self._volumes.path(volume.name, volume.sub_path)
            mounts.append(Mount(source=source, target=path, read_only=volume.read_only))
        return ContainerSpec(
            name=f"build-{short(job.node.digest)}-{next(self._numbers)}",
            base=parts.base,
            layers=parts.layers,
            trees=(await self._folder_of(what.code),) if what.code else (),
            mounts=tuple(mounts),
            privileged_build=True,
            labels=(("slipway.build", job.node.digest),),
        )

    async def _folder_of(self, files: tuple[FileEntry, ...]) -> str:
        await self._bundles.keep(files)
        return await self._bundles.make(bundle_digest(files), files)

    async def _secret_values(self, job: _Job) -> dict[str, str]:
        values: dict[str, str] = {}
        for slot, version in job.spec.secrets:
            values |= self._seal.unseal(await self._state.sealed(job.app, slot, version))
        return values

    # --- logs and failures ----------------------------------------------------------------------------

    def log_path(self, layer: str) -> Path:
        """Where the log of a layer's last build lies."""
        return self._folders.logs / f"{short(layer)}.log"

    def _failure(self, job: _Job, log: BuildLog, how: str) -> ImageBuildError:
        tail = log.tail()
        reason, hint = explain(tail)
        title = job.spec.title or job.node.address
        return ImageBuildError(
            f"{job.node.origin}: {title}: {reason or how}",
            hint=hint or f"The whole log: {log.path}",
            log=tail,
        )


def below_address(nodes: Nodes, node: Node) -> str:
    lower = below(nodes, node)
    assert lower is not None, "checked when the job began"
    return lower.address


def short(layer: str) -> str:
    """A layer's digest as names of files and containers have it.

    >>> short("sha256:" + "ab" * 32)
    'abababababababab'
    """
    return layer.partition(":")[2][:16]


def _how(ended: Exit, what: Recipe) -> str:
    if ended.oom:
        return "it ran out of memory"
    if ended.signal is not None:
        return f"it was killed by signal {ended.signal}"
    if ended.reason:
        return f"it was lost: {ended.reason}"
    if ended.code is None:
        return f"it took longer than its timeout of {(what.timeout_ms or 0) / 1000:g} s"
    return f"it failed with exit code {ended.code}"
