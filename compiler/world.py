"""What a declaration must know of the world, and finding it among the facts.

Nothing here waits, sleeps, opens or spawns.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator
from typing import TypeVar

from attrs import evolve, field, frozen

from slipway.dsl.declaration import (
    AddLocal,
    AppDecl,
    Base,
    DebianSlim,
    DockerfileCommands,
    FromDockerfile,
    FromRegistry,
    FunctionDecl,
    ImageDecl,
    LocalSource,
    Micromamba,
    MicromambaInstall,
    PipInstall,
    RunCommands,
    RunFunction,
    SecretDecl,
    Step,
    UvSync,
    VolumeDecl,
)
from slipway.dsl.errors import InternalError

from .facts import BaseNeed, Fact, Facts, Missing, Need, SecretNeed, TextNeed, TreeNeed, VolumeNeed

F = TypeVar("F")

UV_FILES = ("pyproject.toml", "uv.lock")


def need_key(need: Need) -> Hashable:
    """What makes two needs the same. Of a tree that is where it lies, which its equality leaves out."""
    if isinstance(need, TreeNeed):
        source = need.source
        return (need.KIND, source.local, source.is_dir, source.ignore, source.only)
    return need


@frozen(kw_only=True)
class World:
    """The facts of one plan, by need."""

    facts: Facts
    _by_key: dict[Hashable, Fact] = field(init=False, eq=False, repr=False)

    @_by_key.default
    def _index(self) -> dict[Hashable, Fact]:
        return {need_key(need): fact for need, fact in self.facts.found}

    def find(self, need: Need) -> Fact | None:
        return self._by_key.get(need_key(need))

    def missing(self, need: Need) -> Missing | None:
        fact = self.find(need)
        return fact if isinstance(fact, Missing) else None

    def get(self, need: Need, kind: type[F]) -> F:
        """The fact, where `check_facts` has already said that there is one."""
        fact = self.find(need)
        if not isinstance(fact, kind):
            raise InternalError(f"the facts hold no {kind.__name__} for {need!r}, but {fact!r:.200}")
        return fact


def needs(decl: AppDecl) -> tuple[Need, ...]:
    """Everything that compiling this declaration asks of the world, each once, in the order of the declaration.

    >>> needs(AppDecl(name="a", images=(ImageDecl(name="default", base=DebianSlim()),), python="3.11"))
    (BaseNeed(kind='debian_slim', ref='3.11'),)
    """
    found: dict[Hashable, Need] = {}
    for need in _all_needs(decl):
        found.setdefault(need_key(need), need)
    return tuple(found.values())


def _all_needs(decl: AppDecl) -> Iterator[Need]:
    for image in decl.images:
        yield base_need(image.base, decl.python)
        yield from (SecretNeed(slot=secret.slot) for secret in base_secrets(image.base))
        for step in image.steps:
            yield from step_needs(step)
    for function in decl.functions:
        yield from function_needs(function)


def base_need(base: Base, python: str) -> BaseNeed:
    match base:
        case DebianSlim(python_version=version) | Micromamba(python_version=version):
            ref = version or python
        case FromRegistry(tag=tag):
            ref = tag
        case FromDockerfile(path=path):
            ref = path
    return BaseNeed(kind=base.KIND, ref=ref)


def base_secrets(base: Base) -> tuple[SecretDecl, ...]:
    match base:
        case FromRegistry(secret=SecretDecl() as secret):
            return (secret,)
        case FromDockerfile(secrets=secrets):
            return secrets
        case _:
            return ()


def step_needs(step: Step) -> Iterator[Need]:
    if isinstance(step, PipInstall) and step.pyproject is not None:
        yield TextNeed(path=step.pyproject.local)
    sources = step.sources if isinstance(step, AddLocal) else read_sources(step)
    yield from (TreeNeed(source=source) for source in (*sources, *code_sources(step)))
    yield from (SecretNeed(slot=secret.slot) for secret in step.options.secrets)
    yield from (VolumeNeed(name=volume.name) for _, volume in step_volumes(step))


def function_needs(function: FunctionDecl) -> Iterator[Need]:
    yield from (TreeNeed(source=source) for source in function.code.sources)
    yield from (SecretNeed(slot=secret.slot) for secret in function.secrets)
    yield from (VolumeNeed(name=volume.name) for _, volume in function.volumes)


def read_sources(step: Step) -> tuple[LocalSource, ...]:
    """The local files whose content is part of what the step is."""
    match step:
        case PipInstall(requirements=sources) | DockerfileCommands(context=sources):
            return sources
        case UvSync(project=project):
            return (evolve(project, is_dir=True, ignore=(), only=UV_FILES),)
        case MicromambaInstall(spec_file=LocalSource() as source):
            return (source,)
        case AddLocal(sources=sources, copy=True):
            return sources
        case _:
            return ()


def code_sources(step: Step) -> tuple[LocalSource, ...]:
    """The files that a step needs to run at all; what they hold is not part of what the step is."""
    return step.code.sources if isinstance(step, RunFunction) and step.code is not None else ()


def step_volumes(step: Step) -> tuple[tuple[str, VolumeDecl], ...]:
    return step.volumes if isinstance(step, RunCommands | RunFunction) else ()


def deferred(image: ImageDecl) -> tuple[LocalSource, ...]:
    """The sources that are laid over the image when a container starts, in order."""
    return tuple(s for step in image.steps if isinstance(step, AddLocal) and not step.copy for s in step.sources)


def all_volumes(decl: AppDecl) -> Iterator[VolumeDecl]:
    for image in decl.images:
        for step in image.steps:
            yield from (volume for _, volume in step_volumes(step))
    for function in decl.functions:
        yield from (volume for _, volume in function.volumes)


def tree_keys(sources: Iterable[LocalSource]) -> tuple[Hashable, ...]:
    """The same for two lists of sources that give the same files in the same places."""
    return tuple((need_key(TreeNeed(source=source)), source.remote) for source in sources)
