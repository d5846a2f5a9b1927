"""The docker runtime: containers and layers of a Docker Engine on this machine. Without one it is only of no use."""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from slipway.compiler.facts import BaseFact
from slipway.dsl.errors import AlreadyExistsError, Error, InvalidError, RuntimeUnavailable
from slipway.executor.config import Config, DockerSettings
from slipway.executor.ports import Ability, ContainerSpec, DockerfileBuild, Output, Prepared, Stored

from . import docker_shell, docker_spec
from .docker import LABEL_HOME, LABEL_NAME, Conflict, Connection, Facts, Refused, Unreachable, home_id
from .docker_bases import DockerBases
from .docker_build import build_dockerfile
from .docker_commit import commit, remove_container
from .docker_container import GOING, DockerContainer
from .docker_prepare import UNDIVIDED, Preparing
from .docker_store import Image, Store

BASES = ("debian_slim", "from_registry", "from_dockerfile", "micromamba")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,99}")
LEAVE = 3.0  # seconds that an engine has in the end for what was begun at the start
_NO_SIZE = "storage-opt"


class DockerRuntime:
    """`home` is the engine's; what belongs to it in Docker is labelled with its id. `config` gives what is set now."""

    def __init__(self, home: Path, config: Callable[[], Config]) -> None:
        self.home = home.absolute()
        self._config = config
        self._id = home_id(self.home)
        self._connection = Connection(lambda: config().docker, self.home, busy=lambda: bool(self._containers))
        self._store = Store(self._connection, self._id)
        self._bases = DockerBases(self._connection, lambda: config().docker)
        self._preparing = Preparing(self._connection, self._store, self._settings)
        self._used = self.home / "docker" / "used"
        self._containers: dict[str, DockerContainer | None] = {}  # None: being made
        self._tasks: set[asyncio.Task[Any]] = set()
        self._tidying: asyncio.Task[None] | None = None
        self._sweeping = asyncio.Lock()
        self._swept = False  # until then what is there of this home is an earlier engine's
        self._where = ""  # of which engine that is said
        self._left: set[str] = set()  # ids and names of what an engine did not answer for
        self._trouble = ""
        self._no_disk = ""

    def __repr__(self) -> str:
        return f"<DockerRuntime {self.home}: {len(self._containers)} containers>"

    @property
    def name(self) -> str:
        return "docker"

    # --- life -----------------------------------------------------------------------------------------

    async def start(self) -> None:
        """A home that has never used Docker asks no engine; for another it is done in the background."""
        if self._used.exists():
            self._tidying = self._spawn(self._tidy())

    async def _tidy(self) -> None:
        try:
            await self._ready()
        except Error as error:
            self._trouble = error.message

    async def close(self) -> None:
        if self._tidying is not None:
            await asyncio.wait((self._tidying,), timeout=LEAVE)
            self._tidying.cancel()  # what it has not come to, the next start does
        with suppress(TimeoutError):  # what is left of that the next start removes, too
            async with asyncio.timeout(GOING):
                while self._tasks:
                    await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*(container.kill() for container in self._containers.values() if container is not None))
        self._connection.close()

    async def _ready(self) -> Facts:
        """Have an engine that is of use, with nothing on it that an earlier one of ours left."""
        facts = await self._connection.facts()
        problem = _problem(facts)
        if problem is not None:
            raise problem
        async with self._sweeping:
            if facts.address != self._where and not any(self._containers.values()):
                self._where, self._swept = facts.address, False
            if not self._swept:
                await self._sweep()
                self._swept = True
            for ident in tuple(self._left):
                await remove_container(self._connection, ident)
                self._left.discard(ident)
        self._trouble = ""
        return facts

    async def _use(self) -> Facts:
        if not self._used.exists():
            self._used.parent.mkdir(parents=True, exist_ok=True)
            self._used.touch()
        return await self._ready()

    async def _sweep(self) -> None:
        """Remove what an earlier engine of this home left."""
        ours = {"label": [f"{LABEL_HOME}={self._id}"]}
        for found in await self._connection.run(lambda client: client.containers(all=True, filters=ours)):
            # Without a name it is somebody's own, made by hand of an image of ours, whose labels it has.
            name = (found.get("Labels") or {}).get(LABEL_NAME)
            if name:
                await remove_container(self._connection, str(found["Id"]))
        await self._store.sweep()

    def _spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    # --- what it can do -------------------------------------------------------------------------------

    async def trouble(self) -> str:
        try:
            await self._connection.ping()
            await self._usable()
        except Error as error:
            return error.message
        return self._trouble

    async def ability(self) -> Ability:
        try:
            facts = await self._usable()
        except Error as error:
            reason = ". ".join(part for part in (error.message, error.hint) if part)
            return Ability(refusals=tuple((kind, reason) for kind in BASES))
        notes = []
        if not facts.memory_limits:
            notes.append(("memory", "memory limit not enforced: the engine's kernel has no memory cgroup"))
        if not facts.cpu_limits:
            notes.append(("cpu", "cpu limit not enforced: the engine's kernel has no CPU quotas"))
        if "nvidia" not in facts.oci_runtimes:
            notes.append(("gpu", "gpu= may be refused when a worker starts: the engine lists no nvidia runtime"))
        no_disk = self._no_disk or docker_spec.no_disk_limit(facts)
        if no_disk:
            notes.append(("disk", f"ephemeral disk not limited: {no_disk}"))
        notes.append(("snapshot", f"no memory snapshot where memory=, cpu= or ephemeral_disk= is set: {UNDIVIDED}"))
        return Ability(notes=tuple(notes))

    async def _usable(self) -> Facts:
        """What there is of the engine. Raises what is wrong with it, or with what the settings want of it."""
        facts = await self._connection.facts()
        problem = _problem(facts)
        if problem is not None:
            raise problem
        return await self._checked(self._config().docker, facts)

    async def _checked(self, settings: DockerSettings, facts: Facts) -> Facts:
        """Raises what the engine lacks of the settings, as it is now: somebody may just have made that network."""
        try:
            docker_spec.check(settings, facts)
        except RuntimeUnavailable:
            facts = await self._connection.facts(fresh=True)
            docker_spec.check(settings, facts)
        return facts

    # --- images ---------------------------------------------------------------------------------------

    async def resolve(
        self, kind: str, ref: str, *, auth: tuple[tuple[str, str], ...] = (), fresh: bool = False
    ) -> BaseFact:
        return await self._bases.resolve(kind, ref, auth=auth, fresh=fresh)

    async def has_base(self, base: BaseFact) -> bool:
        return await self._bases.has(base)

    async def fetch(self, base: BaseFact, *, auth: tuple[tuple[str, str], ...] = (), output: Output) -> None:
        await self._use()
        await self._bases.fetch(base, auth=auth, output=output)

    async def build_dockerfile(self, build: DockerfileBuild, layer: str, output: Output) -> str:
        await self._use()
        return await build_dockerfile(self._connection, self._store, build, layer, output)

    async def prepare(self, spec: ContainerSpec) -> Prepared:
        await self._checked(self._settings(spec), await self._use())
        return await self._preparing.prepare(spec)

    async def has(self, layer: str) -> bool:
        return await self._store.layer(layer) is not None

    async def alias(self, layer: str, existing: str) -> None:
        await self._store.alias(layer, existing)

    async def remove(self, layer: str) -> None:
        await self._store.remove(layer)

    def layers(self) -> AsyncIterator[str]:
        return self._store.layers()

    async def stored(self) -> tuple[Stored, ...]:
        return await self._store.stored()

    # --- containers -----------------------------------------------------------------------------------

    async def create(self, spec: ContainerSpec) -> DockerContainer:
        if not _NAME.fullmatch(spec.name):
            raise InvalidError(f"{spec.name!r} can't be a container's name: letters, digits and - only")
        if spec.name in self._containers:
            raise AlreadyExistsError(f"there is a container {spec.name} already")
        self._containers[spec.name] = None
        # Not to be cut short: what is being made could not be removed then.
        making = self._spawn(self._make(spec))
        try:
            return await asyncio.shield(making)
        except asyncio.CancelledError:
            making.add_done_callback(self._discard)
            raise

    def _discard(self, made: asyncio.Task[DockerContainer]) -> None:
        if not made.cancelled() and made.exception() is None:
            self._spawn(made.result().kill())

    async def _make(self, spec: ContainerSpec) -> DockerContainer:
        container = None
        try:
            container = await self._create(spec, await self._use())
            self._containers[spec.name] = container
            if not spec.single:
                await container.start_keeper()
        except BaseException:
            if container is not None:
                await container.kill()
            else:
                self._containers.pop(spec.name, None)
            raise
        return container

    async def _create(self, spec: ContainerSpec, facts: Facts) -> DockerContainer:
        settings = self._settings(spec)
        facts = await self._checked(settings, facts)
        image = await self._preparing.image(spec)
        mark = secrets.token_hex(16)
        command = docker_shell.reader(mark) if spec.single else docker_shell.keeper()
        name = docker_spec.container_name(self._id, spec.name)

        async def ask(*, disk: bool) -> str:
            body = docker_spec.body(
                spec, home=self._id, image=image.id, command=command, settings=settings, facts=facts, disk=disk
            )
            return await self._connection.run(lambda client: _created(client, body, name))

        limits_disk = not (self._no_disk or docker_spec.no_disk_limit(facts))
        try:
            try:
                ident = await ask(disk=limits_disk)
            except Refused as error:
                if not (limits_disk and spec.limits.disk_mib is not None and _NO_SIZE in error.message):
                    raise
                self._no_disk = error.message
                ident = await ask(disk=False)
        except Conflict as error:
            raise AlreadyExistsError(f"there is a container {name} already: {error.message}") from error
        except Unreachable:
            self._left.add(name)  # it may have been made all the same
            raise
        except RuntimeUnavailable as error:
            raise RuntimeUnavailable(f"container {spec.name} could not be made: {error.message}") from error
        return DockerContainer(
            spec=spec,
            ident=ident,
            image=image,
            user=_user(spec, settings, image),
            mark=mark,
            connection=self._connection,
            commit=partial(commit, self._connection, self._store),
            forget=lambda said: self._forget(spec.name, None if said else ident),
        )

    def _settings(self, spec: ContainerSpec) -> DockerSettings:
        return self._config().docker_of(dict(spec.labels).get("app", ""))

    def _forget(self, name: str, left: str | None) -> None:
        self._containers.pop(name, None)
        if left is not None:  # the engine was not there to remove it: that is done when it is back
            self._left.add(left)


def _created(client: Any, body: dict[str, Any], name: str) -> str:
    return str(client.create_container_from_config(body, name)["Id"])


def _user(spec: ContainerSpec, settings: DockerSettings, image: Image) -> str:
    """Whom processes beside the first run as."""
    own = str(image.config.get("User") or "")
    if spec.privileged_build:
        return own if spec.as_user else "0"
    return own if settings.user is None else settings.user


def _problem(facts: Facts) -> Error | None:
    """Why an engine is of no use."""
    if facts.podman:  # tried with 4.3; attaching to a container that has not started is refused there, too
        return RuntimeUnavailable(
            f"{facts.address} is Podman {facts.version}, which the docker runtime does not take: its Docker-compatible "
            "socket can't say what a registry's tag stands for (it has no /distribution), and a plan must know that",
            hint="Use Docker Engine, or the native runtime.",
        )
    if not facts.here:
        return RuntimeUnavailable(
            f"the engine at {facts.address} does not see this machine's files, and containers need some as mounts: "
            "the control socket, their code, their volumes",
            hint="Run Slipway on the engine's machine, or use an engine of this one.",
        )
    return None
