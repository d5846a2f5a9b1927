"""The native runtime: containers out of Linux namespaces and overlays of the host's own folders. No daemon, no root."""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

from slipway.compiler.facts import BaseFact
from slipway.dsl.errors import AlreadyExistsError, Error, InvalidError, NotFoundError, RuntimeUnavailable
from slipway.executor.locks import lock
from slipway.executor.ports import Ability, Container, ContainerSpec, DockerfileBuild, Output, Prepared, Stored

from . import cgroups, skeleton
from .container import NativeContainer
from .gpus import device_files
from .layers import Layers, Taken, make_folder, remove_tree
from .layout import BUILD_POINTS, POINTS, Host, Overlay, TooManyLayers, layout
from .link import Link
from .pythons import Interpreter, Pythons, system

LOCK_SECONDS = 10
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,99}")
DOCKER = "use `--runtime docker`"
REFUSED = (
    ("from_registry", f"the native runtime has no registry images; say `debian_slim`, or {DOCKER}"),
    ("from_dockerfile", f"the native runtime reads no Dockerfile; say its steps in Python, or {DOCKER}"),
    ("dockerfile_commands", f"the native runtime reads no Dockerfile; say `run_commands`, or {DOCKER}"),
    ("micromamba", f"the native runtime has no conda environments; say `debian_slim`, or {DOCKER}"),
    ("micromamba_install", f"the native runtime has no conda environments; say `pip_install`, or {DOCKER}"),
)
NO_ROOT = (
    "apt_install",
    f"the native runtime installs system packages only as root; run the engine as root, or {DOCKER}",
)


DISK_NOTE = ("disk", f"ephemeral_disk is not enforced: native containers share this machine's disk; or {DOCKER}")


class NativeRuntime:
    """`home` is the engine's: `containers/`, `layers/` and `skeletons/` below it belong to this runtime."""

    def __init__(self, home: Path, *, pythons: Pythons | None = None) -> None:
        self.home = home.absolute()
        self._pythons = pythons or Pythons()
        self._layers = Layers(self.home / "layers")
        self._skeletons = skeleton.Skeletons(self.home / "skeletons")
        self._folder = self.home / "containers"
        self._id = hashlib.sha256(str(self.home).encode()).hexdigest()[:12]
        self._cgroups = cgroups.Cgroups()
        self._containers: dict[str, tuple[NativeContainer, tuple[str, ...]]] = {}
        self._link = Link()
        self._linking = asyncio.Lock()
        self._shape: skeleton.Shape | None = None
        self._host_skeleton = ""
        self._venvs: dict[Interpreter, str] = {}
        self._broken: RuntimeUnavailable | None = None
        self._tried = False
        self._lock = -1
        self._null = -1

    def __repr__(self) -> str:
        return f"<NativeRuntime {self.home}: {len(self._containers)} containers>"

    @property
    def name(self) -> str:
        return "native"

    @property
    def can_launch(self) -> bool:
        """Whether namespaces are to be had here."""
        return self._link.alive

    # --- life -----------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Where namespaces are not to be had this succeeds all the same: `ability` says it, and `create` refuses."""
        await asyncio.to_thread(self._take_over)
        try:
            await self._launch()
        except RuntimeUnavailable as error:
            self._broken = error
            return
        with _in_words(self.home):
            self._shape = await asyncio.to_thread(skeleton.read_shape, rootless=self._link.rootless)
            self._host_skeleton = str(await asyncio.to_thread(self._skeletons.host, self._shape))

    def _take_over(self) -> None:
        with _in_words(self.home):
            self.home.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._folder.mkdir(exist_ok=True)
            self._null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
            self._lock = _locked(self._folder / ".lock")
            for path in self._folder.iterdir():
                if path.name != ".lock":
                    remove_tree(path)
            self._layers.clean()
            self._skeletons.clean()
            self._cgroups = cgroups.find(self._id)
            self._cgroups.sweep()

    async def _launch(self) -> None:
        async with self._linking:
            if not self._link.alive:
                link = Link()
                for place in self._cgroups.folders():
                    os.makedirs(place, exist_ok=True)  # noqa: PTH103 - a keeper takes them away when it ends
                await link.start(self._lock, self._cgroups.folders())
                self._link = link

    async def close(self) -> None:
        for container, _ in tuple(self._containers.values()):
            await container.kill()
        await self._link.close()
        self._cgroups.close()
        for descriptor in (self._lock, self._null):
            if descriptor >= 0:
                os.close(descriptor)
        self._lock = self._null = -1

    # --- what it can do -------------------------------------------------------------------------------

    async def ability(self) -> Ability:
        refusals = list(REFUSED)
        await self._try()
        if self._broken is not None:
            refusals.append(("debian_slim", f"{self._broken.message}. {self._broken.hint}"))
        if self._link.rootless or os.geteuid() != 0:
            refusals.append(NO_ROOT)
        return Ability(refusals=tuple(refusals), notes=(*self._cgroups.notes(), DISK_NOTE))

    async def _try(self) -> None:
        """Make one container, once: only that shows whether overlays work on this home's file system."""
        if self._tried or self._broken is not None:
            return
        self._tried = True
        try:
            base = await self.resolve("debian_slim", "")
            container = await self.create(ContainerSpec(name="try-out", base=base))
            try:
                how = await (await container.exec(("/bin/true",), cwd="/")).wait()
            finally:
                await container.kill()
            if how.code != 0:
                raise RuntimeUnavailable(f"a first container could not run /bin/true: {how}")
        except RuntimeUnavailable as error:
            self._broken = error

    async def trouble(self) -> str:
        return "" if self._broken is None else self._broken.message

    async def resolve(
        self, kind: str, ref: str, *, auth: tuple[tuple[str, str], ...] = (), fresh: bool = False
    ) -> BaseFact:
        if kind != "debian_slim":
            reason = dict(REFUSED).get(kind, f"the native runtime does not know the base {kind!r}; {DOCKER}")
            raise NotFoundError(f"{kind} {ref}: not on the native runtime", hint=reason)
        found = await asyncio.to_thread(self._pythons.find, ref)
        host = system()
        return BaseFact(
            identity=(
                ("os", f"{host.id} {host.version}".strip()),
                ("python", found.version),
                ("arch", found.machine),
            ),
            says=f"this host: {host.title}, Python {found.version}",
            paths=(("interpreter", found.executable), ("prefix", found.prefix)),
        )

    async def has_base(self, base: BaseFact) -> bool:
        return True  # the host is here, and `create` says where its Python went away

    async def fetch(self, base: BaseFact, *, auth: tuple[tuple[str, str], ...] = (), output: Output) -> None: ...

    async def build_dockerfile(self, build: DockerfileBuild, layer: str, output: Output) -> str:
        raise InvalidError("the native runtime reads no Dockerfile", hint=f"Say its steps in Python, or {DOCKER}.")

    async def prepare(self, spec: ContainerSpec) -> Prepared:
        return Prepared()  # /venv/bin/python, which is the first on the path

    # --- layers ---------------------------------------------------------------------------------------

    async def has(self, layer: str) -> bool:
        return self._layers.has(layer)

    async def alias(self, layer: str, existing: str) -> None:
        with _in_words(self.home):
            await asyncio.to_thread(self._layers.alias, layer, existing)

    async def remove(self, layer: str) -> None:
        """Raises `InvalidError` while a container stands on it."""
        if not self._layers.has(layer):
            return
        place = self._layers.place(layer)
        for container, places in self._containers.values():
            if place in places:
                raise InvalidError(f"layer {layer} is in use by container {container.name}", hint="Stop that first.")
        with _in_words(self.home):
            await asyncio.to_thread(self._layers.remove, layer)

    async def layers(self) -> AsyncIterator[str]:
        for layer in await asyncio.to_thread(lambda: tuple(self._layers.all())):
            yield layer

    async def stored(self) -> tuple[Stored, ...]:
        def measure() -> tuple[Stored, ...]:
            return tuple(
                Stored(ident=layer, layer=layer, size=self._layers.size(layer), content=place)
                for layer, place in self._layers.places()
            )

        with _in_words(self.home):
            return await asyncio.to_thread(measure)

    # --- containers -----------------------------------------------------------------------------------

    async def create(self, spec: ContainerSpec) -> Container:
        if self._broken is not None:
            raise self._broken
        if not _NAME.fullmatch(spec.name):
            raise InvalidError(f"{spec.name!r} can't be a container's name: letters, digits and - only")
        if spec.name in self._containers:
            raise AlreadyExistsError(f"there is a container {spec.name} already")
        if self._null < 0 or self._shape is None:
            raise RuntimeUnavailable("the native runtime is not started")
        await self._launch()  # again, where the launcher was killed
        interpreter = _interpreter(spec)
        if interpreter not in self._venvs:
            await asyncio.to_thread(self._recognise, spec.name, interpreter)
            with _in_words(self.home):
                self._venvs[interpreter] = str(await asyncio.to_thread(self._skeletons.python, interpreter))
        places = tuple(self._layers.place(layer) for layer in spec.layers)
        with _in_words(self.home):
            container, plan = self._prepare(spec, places, interpreter)
        self._containers[spec.name] = (container, places)
        try:
            await container.make(plan)
        except BaseException:
            await container.kill()
            raise
        return container

    def _recognise(self, container: str, interpreter: Interpreter) -> None:
        """A base's paths are no part of its digest, and its prefix is mounted: only what this host has is taken."""
        if interpreter not in self._pythons.all(interpreter.version):
            raise NotFoundError(
                f"container {container}: {interpreter.executable} is not Python {interpreter.version} of this host",
                hint="Make the plan again: `slipway plan`.",
            )

    def _prepare(
        self, spec: ContainerSpec, places: tuple[str, ...], interpreter: Interpreter
    ) -> tuple[NativeContainer, dict[str, object]]:
        folder = self._folder / spec.name
        remove_tree(folder)
        folder.mkdir()
        (folder / "root").mkdir()
        hosts = folder / "hosts"
        hosts.write_text(f"{_read('/etc/hosts')}\n127.0.1.1 {spec.name[:63]}\n")
        hosts.chmod(0o644)
        group = self._cgroups.make(spec.name, spec.limits)
        overlays = tuple(self._overlays(spec, places, interpreter, folder))
        host = Host(
            nested=self._link.nested,
            resolv_conf=_real("/etc/resolv.conf"),
            gpu_devices=device_files(spec.gpus),
        )
        try:
            plan = layout(
                spec,
                host=host,
                folder=str(self._layers.folder),
                root=f"../containers/{spec.name}/root",
                overlays=overlays,
                prefix=_outside(interpreter.prefix),
                hosts_file=str(hosts),
                groups=group.procs(),
            )
        except TooManyLayers as error:
            group.remove()
            remove_tree(folder)
            raise RuntimeUnavailable(
                f"container {spec.name}: {error} are more than one overlay takes",
                hint="Join steps of the image: several commands in one run_commands, packages in one pip_install.",
            ) from error
        container = NativeContainer(
            name=spec.name,
            folder=folder,
            link=self._link,
            layers=self._layers,
            group=group,
            make_group=self._cgroups.make,
            taken=tuple(Taken(target=o.target, upper=self._layers.folder / o.upper) for o in overlays),
            environment={**_gpu_environment(spec.gpus), **dict(spec.env)},
            entrypoint=(spec.entrypoint or ()) if spec.single else (),
            forget=lambda: self._forget(spec.name),
            null=self._null,
        )
        return container, plan

    def _forget(self, name: str) -> None:
        self._containers.pop(name, None)

    def _overlays(
        self, spec: ContainerSpec, places: tuple[str, ...], interpreter: Interpreter, folder: Path
    ) -> Iterator[Overlay]:
        assert self._shape is not None
        top = self._layers.folder
        skeletons = [os.path.relpath(path, top) for path in (self._host_skeleton, self._venvs[interpreter])]
        trees = [os.path.relpath(tree, top) for tree in spec.trees]
        points = [point for point in self._shape.folders if spec.privileged_build or point not in BUILD_POINTS]
        for number, point in enumerate(("", *points)):
            lowers = [] if not point else [f"/{point}"]
            lowers += [_join(path, point) for path in skeletons if not point or (top / path / point).is_dir()]
            for place in places:
                if not point or point in self._layers.holds(place, POINTS + BUILD_POINTS):
                    lowers.append(_join(f"{place}/fs", point))
            lowers += [_join(path, point) for path in trees if not point or (top / path / point).is_dir()]
            upper, work = folder / f"u{number}", folder / f"w{number}"
            make_folder(upper)
            make_folder(work)
            base = f"../containers/{spec.name}"
            yield Overlay(target=point, lowers=tuple(lowers), upper=f"{base}/{upper.name}", work=f"{base}/{work.name}")


def _join(folder: str, point: str) -> str:
    return f"{folder}/{point}" if point else folder


def _interpreter(spec: ContainerSpec) -> Interpreter:
    """The interpreter that `resolve` found, if it is still there."""
    paths, identity = dict(spec.base.paths), dict(spec.base.identity)
    executable = paths.get("interpreter", "")
    if not executable or not os.access(executable, os.X_OK):
        raise NotFoundError(
            f"container {spec.name}: the interpreter {executable or '(none)'} of its base is not there",
            hint="Make the plan again: `slipway plan`.",
        )
    return Interpreter(
        executable=executable, version=identity["python"], prefix=paths["prefix"], machine=identity["arch"]
    )


def _outside(prefix: str) -> str | None:
    """The prefix where it must be mounted: below /usr or /opt it is there already."""
    return None if any(Path(prefix).is_relative_to(top) for top in ("/usr", "/opt")) else prefix


def _gpu_environment(gpus: tuple[str, ...]) -> dict[str, str]:
    chosen = ",".join(gpus)
    return {"CUDA_VISIBLE_DEVICES": chosen, "NVIDIA_VISIBLE_DEVICES": chosen} if gpus else {}


def _read(path: str) -> str:
    try:
        return Path(path).read_text(errors="replace")
    except OSError:
        return "127.0.0.1 localhost\n"


def _real(path: str) -> str | None:
    real = os.path.realpath(path)
    return real if Path(real).exists() else None


def _locked(path: Path) -> int:
    """The lock that a launcher's keeper holds until its last container is dead; one of a killed engine ends at once."""
    descriptor = lock(path, wait=LOCK_SECONDS)
    if descriptor is None:
        raise RuntimeUnavailable(
            f"the containers of {path.parent.parent} belong to another engine that is still running",
            hint="`slipway down` ends it.",
        )
    return descriptor


@contextmanager
def _in_words(home: Path) -> Iterator[None]:
    """Say what the file system refused, instead of a traceback."""
    try:
        yield
    except Error:
        raise
    except OSError as error:
        hint = "Free some space, or set SLIPWAY_HOME to a bigger disk." if error.errno == 28 else ""
        raise RuntimeUnavailable(f"{home}: {error.strerror} ({error.filename})", hint=hint) from error
