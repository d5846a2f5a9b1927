"""What is wrong with a declaration in this world: what is missing, refused or not enforced here.

Nothing here waits, sleeps, opens or spawns.
"""

from __future__ import annotations

from collections.abc import Iterable

from attrs import evolve

from slipway.dsl.declaration import (
    AddLocal,
    AddPython,
    AppDecl,
    Base,
    BuildDockerfile,
    Fault,
    LocalSource,
    Origin,
    PipInstall,
    Resources,
    SecretDecl,
    Step,
    UvSync,
    VolumeDecl,
)

from .facts import Facts, Need, PythonNeed, SecretNeed, TextFact, TextNeed, TreeFact, TreeNeed, VolumeFact, VolumeNeed
from .faults import Faults, place
from .pyproject import Unusable, dependencies
from .world import (
    World,
    all_volumes,
    base_need,
    base_secrets,
    base_steps,
    code_sources,
    deferred,
    image_needs,
    read_sources,
    step_volumes,
)


def check_facts(decl: AppDecl, facts: Facts) -> tuple[Fault, ...]:
    """All that stands in the way here, and the limits that are worth a note.

    >>> from slipway.dsl.declaration import DebianSlim, ImageDecl
    >>> from slipway.compiler.facts import BaseNeed, Missing
    >>> lacks = Missing(summary="this host has no Python 3.13", hint="Install it, or: slipway plan --runtime docker")
    >>> image = ImageDecl(name="default", base=DebianSlim(python_version="3.13"))
    >>> found = ((BaseNeed(kind="debian_slim", ref="3.13"), lacks),)
    >>> [f.summary for f in check_facts(AppDecl(name="a", images=(image,)), Facts(runtime="native", found=found))]
    ['this host has no Python 3.13']
    """
    faults = Faults(decl=decl)
    checking = _Checking(faults, World(facts=facts))
    checking.images()
    checking.functions()
    for subject, sentence in facts.notes:
        if subject in _subjects(decl):
            faults.add(Fault(severity="note", address=f"runtime {facts.runtime}", summary=sentence, hint=NOTE_HINT))
    return faults.all()


NOTE_HINT = "See what this machine can do: slipway doctor"


def _subjects(decl: AppDecl) -> set[str]:
    """What notes can be about here; a limit that nobody asked for needs no word."""
    used = {"", "general"}
    for function in decl.functions:
        resources = function.resources
        used |= {"memory"} if resources.memory_mib or resources.memory_limit_mib else set()
        used |= {"cpu"} if resources.cpu_milli or resources.cpu_limit_milli else set()
        used |= {"gpu"} if resources.gpus else set()
        used |= {"disk"} if resources.ephemeral_disk_mib else set()
        used |= {"network"} if function.block_network else set()
        limited = evolve(resources, gpus=()) != Resources()
        used |= {"snapshot"} if function.memory_snapshot and limited else set()
    return used


class _Checking:
    def __init__(self, faults: Faults, world: World) -> None:
        self.faults, self.world = faults, world
        self.decl = faults.decl
        self.refusals = dict(world.facts.refusals)
        self.seen: set[object] = set()
        # Any mention that makes the volume makes it for all of the app.
        self.made = {volume.name for volume in all_volumes(self.decl) if volume.create_if_missing}

    def images(self) -> None:
        for image in self.decl.images:
            address = f"image {image.name}"
            origin = place(image.base.origin, image.origin)
            if not self.refused(image.base.KIND, image.base.KIND, address, origin):
                need = base_need(image.base, self.decl.python)
                if need is not None:
                    self.met(need, address, origin)
                for step in base_steps(image.base, self.decl.python):
                    self.step(step, image.base, address, origin)
            self.secrets(base_secrets(image.base), address)
            for position, step in enumerate(image.steps, start=1):
                where = f"{address}, step {position}"
                self.step(step, image.base, where, place(step.origin, image.origin))
            for source in deferred(image):
                self.source(source, address, place(source.origin, image.origin))

    def step(self, step: Step, base: Base, address: str, origin: Origin) -> None:
        method = step.method if isinstance(step, PipInstall | AddLocal) else step.KIND
        method = "from_dockerfile" if isinstance(step, BuildDockerfile) else method
        if self.refused(step.KIND, method, address, origin):
            return
        if step.options.gpu is not None and not isinstance(step, BuildDockerfile):
            self.refused("gpu", f"gpu={step.options.gpu!r} in a build step", address, origin)
        self.secrets(step.options.secrets, address)
        self.volumes((volume for _, volume in step_volumes(step)), address, origin)
        for source in (*read_sources(step), *code_sources(step)):
            self.source(source, address, place(source.origin, origin))
        if isinstance(step, PipInstall) and step.pyproject is not None:
            self.pyproject(step, step.pyproject, address, origin)
        if isinstance(step, UvSync):
            self.uv_project(step, address, origin)
        if isinstance(step, AddPython):
            self.met(PythonNeed(version=step.version), address, origin)
        for need in image_needs(step, base):
            self.met(need, address, origin)

    def functions(self) -> None:
        for function in self.decl.functions:
            address = f"function {function.name}"
            for source in function.code.sources:
                self.source(source, address, place(source.origin, function.origin))
            self.secrets(function.secrets, address)
            self.volumes((volume for _, volume in function.volumes), address, function.origin)

    # --- one need each --------------------------------------------------------------------------------

    def refused(self, kind: str, said: str, address: str, origin: Origin) -> bool:
        reason = self.refusals.get(kind)
        if reason is None:
            return False
        summary, _, way_out = reason.partition("; ")
        hint = f"{way_out[0].upper()}{way_out[1:]}." if way_out else "See what this machine can do: slipway doctor"
        self.faults.error(address, f"{said}: {summary}", hint=hint, origin=origin)
        return True

    def met(self, need: Need, address: str, origin: Origin) -> bool:
        missing = self.world.missing(need)
        if missing is None:
            return True
        hint = missing.hint or "Correct the path or the name, then plan again."
        self.faults.error(address, missing.summary, hint=hint, origin=origin)
        return False

    def source(self, source: LocalSource, address: str, origin: Origin) -> None:
        key = (source.local, source.remote, source.ignore, source.only, source.is_dir)
        if key in self.seen:
            return
        self.seen.add(key)
        need = TreeNeed(source=source)
        if not self.met(need, address, origin):
            return
        tree = self.world.find(need)
        if isinstance(tree, TreeFact) and not tree.files and source.is_dir:
            self.faults.warning(
                address,
                f"no file of {source.local} is added",
                found="the folder is empty, or every file in it is ignored",
                hint="Look at the path and at ignore=[…].",
                origin=origin,
            )

    def secrets(self, secrets: Iterable[SecretDecl], address: str) -> None:
        for secret in secrets:
            if not secret.named and secret.slot not in self.seen:
                self.seen.add(secret.slot)
                self.met(SecretNeed(slot=secret.slot), address, secret.origin)

    def volumes(self, volumes: Iterable[VolumeDecl], address: str, origin: Origin) -> None:
        for volume in volumes:
            where = place(volume.origin, origin)
            need = VolumeNeed(name=volume.name)
            if not self.met(need, address, where):
                continue
            fact = self.world.find(need)
            if isinstance(fact, VolumeFact) and not fact.exists and volume.name not in self.made:
                self.faults.warning(
                    address,
                    f"there is no volume called {volume.name!r}, and until there is one apply refuses",
                    found=f"Volume.from_name({volume.name!r})",
                    hint=f"To make it: Volume.from_name({volume.name!r}, create_if_missing=True)",
                    origin=where,
                )

    def pyproject(self, step: PipInstall, source: LocalSource, address: str, origin: Origin) -> None:
        need = TextNeed(path=source.local)
        if not self.met(need, address, origin):
            return
        fact = self.world.find(need)
        read = dependencies(fact.text, step.optional_dependencies) if isinstance(fact, TextFact) else ()
        if isinstance(read, Unusable):
            found = f"{source.local}: {read.found}" if read.found else source.local
            self.faults.error(address, read.summary, found=found, hint=read.hint, origin=origin)

    def uv_project(self, step: UvSync, address: str, origin: Origin) -> None:
        tree = self.world.find(TreeNeed(source=read_sources(step)[0]))
        if not isinstance(tree, TreeFact):
            return
        there = {entry.path for entry in tree.files}
        if "pyproject.toml" not in there:
            hint = 'Name the folder of the project: uv_sync("path/to/project")'
            summary = "the uv project has no pyproject.toml"
            self.faults.error(address, summary, found=step.project.local, hint=hint, origin=origin)
        elif "uv.lock" not in there and step.frozen:
            hint = "Make one with `uv lock`, or write uv_sync(…, frozen=False)."
            summary = "the uv project has no uv.lock"
            self.faults.error(address, summary, found=step.project.local, hint=hint, origin=origin)
