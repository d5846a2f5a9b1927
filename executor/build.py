"""Building layers: each once, in a container that is always gone afterwards, its log kept, its result recorded."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import itertools
import secrets
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from attrs import define, evolve, field, frozen

from slipway.compiler.dockerfile import pinned
from slipway.compiler.encode import digest_of
from slipway.compiler.facts import NOTHING
from slipway.compiler.nodes import BaseSpec, LayerSpec, Node
from slipway.dsl.declaration import BuildDockerfile, DockerfileCommands
from slipway.dsl.errors import Error, ImageBuildError, InternalError, InvalidError, NotFoundError

from .build_log import DISK_FULL, BuildLog, OnLine, explain
from .bundle import Bundles
from .images import ImageParts, Nodes, below, fact_of, image_parts, is_setting, setting_lines, short
from .indexes import Indexes, passwords
from .points import point
from .ports import Built, Container, ContainerSpec, DockerfileBuild, Exit, Runtime
from .steps import Recipe, recipe
from .store.seal import Seal
from .store.state import Intent, State
from .tasks import Flights
from .volumes import Volumes
from .worker.logs import Splitter
from .workplace import Folders, Workplace


@frozen(kw_only=True)
class Finished:
    """A layer that is there. `executed`: its step ran just now; else it was there, or found under another key."""

    layer: str
    output: str
    executed: bool
    ms: int = 0


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
        self._logs = folders.logs
        self._workplace = Workplace(folders=folders, bundles=bundles, volumes=volumes, indexes=indexes)
        self._flights: Flights[str, Finished] = Flights()
        self._fetches: Flights[str, None] = Flights()
        self._jobs: dict[str, _Job] = {}
        self._alone: dict[str, asyncio.Lock] = {}
        self._numbers = itertools.count(1)

    async def prepare(self, spec: ContainerSpec) -> None:
        """See `Runtime.prepare`."""
        await self._runtime.prepare(spec)

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

    async def has_base(self, spec: BaseSpec) -> bool:
        """Whether a base is here; nothing always is."""
        return spec.identity == NOTHING.identity or await self._runtime.has_base(fact_of(spec))

    async def fetch(self, node: Node, *, app: str, on_line: OnLine) -> None:
        """Have a base here. Raises `NotFoundError` or `RuntimeUnavailable`."""
        spec = node.spec
        assert isinstance(spec, BaseSpec)

        async def fetch() -> None:
            keys = await self._unsealed(app, spec.auth)
            splitter = Splitter(secrets.token_hex(8), tuple(keys.values()))

            def take(stream: int, data: bytes) -> None:
                for line in splitter.feed(stream, data):
                    on_line(line.text)

            await self._runtime.fetch(fact_of(spec), auth=tuple(sorted(keys.items())), output=take)
            for line in splitter.finish():
                on_line(line.text)

        await self._fetches.join(node.digest, fetch)

    async def layers(self) -> frozenset[str]:
        """The layers that the runtime has."""
        return frozenset([layer async for layer in self._runtime.layers()])

    async def is_there(self, node: Node, layers: frozenset[str]) -> bool:
        """Whether a layer is finished and known, so that building it would do nothing; `layers` are those there are."""
        assert isinstance(node.spec, LayerSpec)
        if await self._state.built(node.digest, self._runtime.name) is None:
            return False
        return is_setting(node) or (not node.spec.forced and node.digest in layers)

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
        lines = job.spec.step if isinstance(job.spec.step, BuildDockerfile | DockerfileCommands) else None
        what = Recipe() if lines else recipe(job.spec, runtime=self._runtime.name, config=parts.config)
        intent = await self._state.intend("build", job.node.digest, app=job.app)
        started = time.monotonic()
        try:
            if lines is not None:
                output = await self._run_lines(nodes, job, lines, parts)
            elif what.alone:
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
        values = await self._unsealed(job.app, job.spec.secrets)
        layer, gpu = job.node.digest, job.spec.step.options.gpu
        name = f"build-{short(layer)}-{next(self._numbers)}"
        try:
            setup = await self._workplace.prepare(what, parts, name=name, layer=layer, gpu=gpu)
        except (ImageBuildError, InvalidError) as error:
            message = f"{job.node.origin}: {job.spec.title or job.node.address}: {error.message}"
            raise ImageBuildError(message, hint=error.hint) from error
        with self._logged(job, (*values.values(), *setup.secrets)) as log:
            env = tuple({**dict(setup.env), **values}.items())  # the secrets of the step win
            container = await self._runtime.create(setup.spec)
            try:
                for argv in what.commands:
                    log.command(argv)
                    ended = await self._command(container, argv, what, env, log)
                    if ended != Exit(code=0):
                        raise self._failure(job, log, _how(ended, what))
                point("layer-before-commit")
                return await self._keep(job, container.commit)
            finally:
                await asyncio.shield(container.kill())

    async def _run_lines(
        self, nodes: Nodes, job: _Job, step: BuildDockerfile | DockerfileCommands, parts: ImageParts
    ) -> str:
        """Lines of a Dockerfile, by the runtime's own builder."""
        specs = (nodes[address].spec for address in job.node.inputs if address.startswith("base "))
        pins = {spec.ref: dict(spec.paths).get("image", spec.ref) for spec in specs if isinstance(spec, BaseSpec)}
        settings: tuple[str, ...] = ()
        onto: ContainerSpec | None = None
        if isinstance(step, BuildDockerfile):
            text = step.text
        else:
            text, settings = "\n".join(step.commands), setting_lines(parts.config)
            name = f"build-{short(job.node.digest)}-{next(self._numbers)}"
            onto = ContainerSpec(name=name, base=parts.base, layers=parts.layers)
        proxies = dict(await self._workplace.proxies())
        build = DockerfileBuild(
            text="\n".join((*settings, pinned(text, dict(step.build_args), pins))),
            context=await self._workplace.folder_of(job.spec.files),
            args=tuple({**proxies, **dict(step.build_args)}.items()),
            onto=onto,
            fresh=job.spec.forced,
        )
        with self._logged(job, tuple(passwords(proxies))) as log:
            try:
                return await self._keep(job, lambda layer: self._runtime.build_dockerfile(build, layer, log.take))
            except ImageBuildError as error:
                raise self._failure(job, log, error.message) from error

    @contextmanager
    def _logged(self, job: _Job, hidden: tuple[str, ...]) -> Iterator[BuildLog]:
        """The log of a step; a disk that runs full is said as that."""
        log = BuildLog(self.log_path(job.node.digest), job.listeners, hidden, job.spec.title or job.node.address)
        with log:
            try:
                yield log
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

    async def _command(
        self, container: Container, argv: tuple[str, ...], what: Recipe, env: tuple[tuple[str, str], ...], log: BuildLog
    ) -> Exit:
        process = await container.exec(argv, env=env, cwd=what.cwd, stdin=what.stdin, output=log.take)
        if what.timeout_ms is None:
            return await process.wait()
        try:
            async with asyncio.timeout(what.timeout_ms / 1000):
                return await process.wait()
        except TimeoutError:
            process.drain()
            return Exit(code=None)

    async def _keep(self, job: _Job, commit: Callable[[str], Awaitable[str]]) -> str:
        """Commit. A forced layer takes the place of the one of its name, which must not be in use then."""
        layer = job.node.digest
        if not (job.spec.forced and await self._runtime.has(layer)):
            return await commit(layer)
        made = "sha256:" + hashlib.sha256(f"{layer} {secrets.token_hex(16)}".encode()).hexdigest()
        output = await commit(made)
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

    async def _unsealed(self, app: str, versions: tuple[tuple[str, int], ...]) -> dict[str, str]:
        values: dict[str, str] = {}
        for slot, version in versions:
            values |= self._seal.unseal(await self._state.sealed(app, slot, version))
        return values

    # --- logs and failures ----------------------------------------------------------------------------

    def log_path(self, layer: str) -> Path:
        """Where the log of a layer's last build lies."""
        return self._logs / f"{short(layer)}.log"

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
