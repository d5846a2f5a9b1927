"""What a declaration must know of the world, and finding it among the facts.

Nothing here waits, sleeps, opens or spawns.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator
from typing import TypeVar

from attrs import evolve, field, frozen

from slipway.dsl.declaration import (
    AddLocal,
    AddPython,
    AppDecl,
    Base,
    BuildDockerfile,
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
    StepOptions,
    UvSync,
    VolumeDecl,
)
from slipway.dsl.errors import InternalError

from .dockerfile import images, parse
from .facts import BaseNeed, Fact, Facts, Missing, Need, PythonNeed, SecretNeed, TextNeed, TreeNeed, VolumeNeed

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
    (BaseNeed(kind='debian_slim', ref='3.11', secret='', fresh=False),)
    """
    found: dict[Hashable, Need] = {}
    for need in _all_needs(decl):
        found.setdefault(need_key(need), need)
    return tuple(found.values())


def _all_needs(decl: AppDecl) -> Iterator[Need]:
    for image in decl.images:
        need = base_need(image.base, decl.python)
        if need is not None:
            yield need
        yield from (SecretNeed(slot=secret.slot) for secret in base_secrets(image.base))
        for step in image_steps(image, decl.python):
            yield from image_needs(step, image.base)
            yield from step_needs(step)
    for function in decl.functions:
        yield from function_needs(function)


def base_need(base: Base, python: str) -> BaseNeed | None:
    """What must be known of a base itself; None for a Dockerfile, whose layer stands on nothing."""
    match base:
        case DebianSlim(python_version=version):
            return BaseNeed(kind=base.KIND, ref=version or python, fresh=base.force_build)
        case FromRegistry(tag=tag, secret=secret):
            slot = secret.slot if secret is not None else ""
            return BaseNeed(kind=base.KIND, ref=tag, secret=slot, fresh=base.force_build)
        case Micromamba():  # its Python is the first layer
            return BaseNeed(kind=base.KIND, ref="", fresh=base.force_build)
        case FromDockerfile():
            return None


def base_secrets(base: Base) -> tuple[SecretDecl, ...]:
    """The registry's keys that a base comes with."""
    match base:
        case FromRegistry(secret=SecretDecl() as secret) | FromDockerfile(registry_secret=SecretDecl() as secret):
            return (secret,)
        case _:
            return ()


def image_steps(image: ImageDecl, python: str) -> tuple[Step, ...]:
    """The steps of an image from the bottom up: those that its base means, then its own."""
    return (*base_steps(image.base, python), *image.steps)


def base_steps(base: Base, python: str) -> tuple[Step, ...]:
    """The steps that a base means besides the image that it names."""
    options, found = StepOptions(force_build=base.force_build), list[Step]()
    match base:
        case FromRegistry(setup_commands=commands) if commands:
            found.append(DockerfileCommands(commands=commands, options=options, origin=base.origin))
        case FromDockerfile(path=path, text=text, context=context, build_args=arguments):
            options = evolve(options, secrets=base.secrets, gpu=base.gpu)
            step = BuildDockerfile(path=path, text=text, context=context, build_args=arguments)
            found.append(evolve(step, options=options, origin=base.origin))
        case Micromamba(python_version=version):
            packages = (f"python={version or python}",)
            step_ = MicromambaInstall(packages=packages, channels=("conda-forge",), options=options)
            found.append(evolve(step_, origin=base.origin))
        case _:
            pass
    if isinstance(base, FromRegistry | FromDockerfile) and base.add_python is not None:
        options = StepOptions(force_build=base.force_build)
        found.append(AddPython(version=base.add_python, options=options, origin=base.origin))
    return tuple(found)


def image_needs(step: Step, base: Base) -> tuple[BaseNeed, ...]:
    """The images of registries that a step names in lines of a Dockerfile."""
    match step:
        case BuildDockerfile(text=text, build_args=arguments):
            pass
        case DockerfileCommands(commands=commands, build_args=arguments):
            text = "\n".join(commands)
        case _:
            return ()
    slots = [secret.slot for secret in base_secrets(base)]
    return tuple(
        BaseNeed(kind=FromRegistry.KIND, ref=ref, secret="".join(slots), fresh=step.options.force_build)
        for ref in images(parse(text), dict(arguments))
    )


def step_needs(step: Step) -> Iterator[Need]:
    if isinstance(step, PipInstall) and step.pyproject is not None:
        yield TextNeed(path=step.pyproject.local)
    if isinstance(step, AddPython):
        yield PythonNeed(version=step.version)
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
        case PipInstall(requirements=sources):
            return sources
        case DockerfileCommands(context=sources) | BuildDockerfile(context=sources):
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
