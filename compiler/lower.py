"""A declaration and the facts to a graph: every image a base and its layers, then bundles, functions and the rest.

Nothing here waits, sleeps, opens or spawns.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from operator import itemgetter
from posixpath import basename

from attrs import Factory, define, evolve

from slipway.dsl.declaration import (
    AddLocal,
    AddPython,
    AppDecl,
    BuildDockerfile,
    DockerfileCommands,
    Fault,
    FunctionDecl,
    ImageDecl,
    LocalSource,
    MicromambaInstall,
    Origin,
    PipInstall,
    RunCommands,
    RunFunction,
    SecretDecl,
    Step,
    UvSync,
    VolumeDecl,
)
from slipway.dsl.errors import DeclarationError, InternalError

from .check import check, check_facts
from .dockerfile import SCRATCH, pinned
from .encode import node_digest
from .facts import (
    NOTHING,
    BaseFact,
    BaseNeed,
    Facts,
    FileEntry,
    PythonFact,
    PythonNeed,
    SecretFact,
    SecretNeed,
    TextFact,
    TextNeed,
    TreeFact,
    TreeNeed,
)
from .nodes import (
    BaseSpec,
    BundleSpec,
    FunctionSpec,
    Graph,
    LayerSpec,
    Node,
    RouteSpec,
    ScheduleSpec,
    SecretSpec,
    Spec,
    VolumeSpec,
)
from .pyproject import Unusable, dependencies
from .titles import function_address, step_title
from .world import (
    World,
    all_volumes,
    base_need,
    code_sources,
    deferred,
    image_needs,
    image_steps,
    read_sources,
    step_volumes,
    tree_keys,
)


def compile(decl: AppDecl, facts: Facts) -> Graph:
    """The graph of what is desired. Raises `DeclarationError` with every fault of the declaration in this world.

    >>> compile(AppDecl(name="empty", python="3.11"), Facts(runtime="native")).nodes
    ()
    """
    checked(decl, facts)
    return lower(decl, World(facts=facts))


def checked(decl: AppDecl, facts: Facts) -> tuple[Fault, ...]:
    """What is to be said of a declaration in this world. Raises `DeclarationError` with all of its errors, if any."""
    faults = (*check(decl), *check_facts(decl, facts))
    errors = tuple(fault for fault in faults if fault.severity == "error")
    if errors:
        raise DeclarationError(errors)
    return faults


def lower(decl: AppDecl, world: World) -> Graph:
    """The graph of a declaration that has been checked."""
    made = frozenset(volume.name for volume in all_volumes(decl) if volume.create_if_missing)
    making = _Making(decl=decl, world=world, made=made)
    for image in decl.images:
        making.image(image)
    for function in decl.functions:
        making.function(function)
    return Graph(app=decl.name, runtime=world.facts.runtime, nodes=tuple(making.nodes))


@define
class _Making:
    """The nodes so far, in an order in which each follows its inputs."""

    decl: AppDecl
    world: World
    made: frozenset[str]  # names of the volumes that somebody says to make
    nodes: list[Node] = Factory(list)
    digests: dict[str, str] = Factory(dict)  # address -> digest
    tips: list[str] = Factory(list)  # per image the address of its last node
    mounts: list[tuple[LocalSource, ...]] = Factory(list)  # per image what is laid over it
    mount_keys: list[int] = Factory(list)  # … and a number that equal ones share, quick to hash
    mount_numbers: dict[Hashable, int] = Factory(dict)
    bundles: dict[Hashable, str | None] = Factory(dict)
    bases: dict[BaseNeed, str] = Factory(dict)  # what Dockerfiles name -> its address

    def add(self, address: str, spec: Spec, inputs: tuple[str, ...], origin: Origin) -> str:
        digest = node_digest(spec, [self.digests[address] for address in inputs])
        self.nodes.append(Node(address=address, spec=spec, inputs=inputs, digest=digest, origin=origin))
        self.digests[address] = digest
        return address

    # --- images ---------------------------------------------------------------------------------------

    def image(self, image: ImageDecl) -> None:
        need = base_need(image.base, self.decl.python)
        spec = (
            self._base(need)
            if need is not None
            else BaseSpec(identity=NOTHING.identity, ref=SCRATCH, says=NOTHING.says)
        )
        tip = self.add(f"image {image.name}/0", spec, (), image.base.origin)
        forced = image.base.force_build
        for position, step in enumerate(image_steps(image, self.decl.python), start=1):
            if isinstance(step, AddLocal) and not step.copy:
                continue
            forced = forced or step.options.force_build
            named = tuple(self._named(need, step.origin) for need in image_needs(step, image.base))
            volumes = tuple(dict.fromkeys(self.volume(volume) for _, volume in step_volumes(step)))
            inputs = (tip, *named, *volumes)
            tip = self.add(f"image {image.name}/{position}", self._layer(step, forced), inputs, step.origin)
        self.tips.append(tip)
        self.mounts.append(deferred(image))
        self.mount_keys.append(self.mount_numbers.setdefault(tree_keys(self.mounts[-1]), len(self.tips)))

    def _base(self, need: BaseNeed) -> BaseSpec:
        fact = self.world.get(need, BaseFact)
        auth = ((need.secret, self._version(need.secret)),) if need.secret else ()
        said = f"{need.kind} {need.ref}".strip()
        return BaseSpec(identity=fact.identity, ref=said, says=fact.says, paths=fact.paths, auth=auth)

    def _named(self, need: BaseNeed, origin: Origin) -> str:
        """The node of an image that lines of a Dockerfile name; its `ref` is that name."""
        if need not in self.bases:
            same = sum(known.ref == need.ref for known in self.bases)
            self.bases[need] = address = f"base {need.ref}" + (f"#{same + 1}" if same else "")
            self.add(address, evolve(self._base(need), ref=need.ref), (), origin)
        return self.bases[need]

    def _layer(self, step: Step, forced: bool) -> LayerSpec:
        title = step_title(step)
        files = self._files(read_sources(step))
        if isinstance(step, PipInstall):
            step = self._with_packages(step)
        elif isinstance(step, AddPython):
            found = self.world.get(PythonNeed(version=step.version), PythonFact)
            step = evolve(step, resolved=found.resolved)
        return LayerSpec(
            step=_stripped(step),
            files=files,
            secrets=self._versions(step.options.secrets),
            code=self._files(code_sources(step)),
            forced=forced,
            title=title,
        )

    def _with_packages(self, step: PipInstall) -> PipInstall:
        """The packages sorted, and those of a pyproject.toml among them: nothing else in that file counts."""
        listed: tuple[str, ...] = ()
        if step.pyproject is not None:
            text = self.world.get(TextNeed(path=step.pyproject.local), TextFact).text
            read = dependencies(text, step.optional_dependencies)
            if isinstance(read, Unusable):
                raise InternalError(f"{step.origin}: {read.summary} was not reported by check_facts")
            listed = read
        packages = tuple(sorted({*step.packages, *listed}))
        return evolve(step, packages=packages, pyproject=None, optional_dependencies=())

    def _files(self, sources: Iterable[LocalSource]) -> tuple[FileEntry, ...]:
        """The files of some sources where they go, sorted by path; of two for one path the later one."""
        found: dict[str, FileEntry] = {}
        for source in sources:
            top = source.remote.rstrip("/")
            for entry in self.world.get(TreeNeed(source=source), TreeFact).files:
                path = f"{top}/{entry.path}" if source.is_dir else source.remote
                found[path] = evolve(entry, path=path)
        return tuple(found[path] for path in sorted(found))

    def _versions(self, secrets: Iterable[SecretDecl]) -> tuple[tuple[str, int], ...]:
        return tuple((secret.slot, self._version(secret.slot)) for secret in secrets)

    def _version(self, slot: str) -> int:
        return self.world.get(SecretNeed(slot=slot), SecretFact).version

    # --- the rest -------------------------------------------------------------------------------------

    def volume(self, volume: VolumeDecl) -> str:
        address = f"volume {volume.name}"
        if address not in self.digests:
            self.add(address, VolumeSpec(name=volume.name, create=volume.name in self.made), (), volume.origin)
        return address

    def secret(self, secret: SecretDecl) -> str:
        address = f"secret {secret.slot}"
        if address not in self.digests:
            ((slot, version),) = self._versions((secret,))
            self.add(address, SecretSpec(slot=slot, keys=secret.keys, version=version), (), secret.origin)
        return address

    def bundle(self, function: FunctionDecl) -> str | None:
        """The node of the function's code and of what is laid over its image; shared by all with the same."""
        code, mounts = function.code.sources, self.mounts[function.image]
        key = (tree_keys(code), self.mount_keys[function.image])
        if key not in self.bundles:
            files = self._files((*code, *mounts))
            address = self._bundle_address(function, bool(mounts)) if code or mounts else None
            if address is not None:
                self.add(address, BundleSpec(files=files), (), function.origin)
            self.bundles[key] = address
        return self.bundles[key]

    def _bundle_address(self, function: FunctionDecl, with_mounts: bool) -> str:
        names = "+".join(basename(source.remote.rstrip("/")) for source in function.code.sources)
        image = self.decl.images[function.image].name
        wanted = "/".join(part for part in (names, image if with_mounts else "") if part)
        address, count = f"bundle {wanted}", 1
        while address in self.digests:
            count += 1
            address = f"bundle {wanted}#{count}"
        return address

    def function(self, function: FunctionDecl) -> None:
        bundle = self.bundle(function)
        inputs = (
            self.tips[function.image],
            *(() if bundle is None else (bundle,)),
            *(self.secret(secret) for secret in function.secrets),
            *(self.volume(volume) for _, volume in function.volumes),
        )
        # A secret or a volume may be named twice (the app's and the function's); as an input it counts once.
        inputs = tuple(dict.fromkeys(inputs))
        self.add(function_address(function), _function_spec(function), inputs, function.origin)
        if function.schedule is not None:
            due = ScheduleSpec(function=function.name, schedule=function.schedule)
            self.add(f"schedule {function.name}", due, (), function.schedule.origin)
        if function.endpoint is not None:
            route = RouteSpec(function=function.name, endpoint=function.endpoint)
            self.add(f"route {function.name}", route, (), function.endpoint.origin)


def _bare(source: LocalSource) -> LocalSource:
    """Only where it goes: which files were ignored or chosen shows in the files that are left."""
    return evolve(source, ignore=(), only=None)


def _bare_volumes(step: RunCommands | RunFunction) -> tuple[tuple[str, VolumeDecl], ...]:
    return tuple((path, evolve(volume, create_if_missing=False)) for path, volume in step.volumes)


def _stripped(step: Step) -> Step:
    match step:
        case PipInstall():
            return evolve(step, requirements=tuple(map(_bare, step.requirements)))
        case UvSync():
            return evolve(step, project=_bare(step.project))
        case MicromambaInstall(spec_file=LocalSource() as source):
            return evolve(step, spec_file=_bare(source))
        case DockerfileCommands():
            return evolve(step, context=tuple(map(_bare, step.context)))
        case BuildDockerfile():  # a comment is no reason to build it anew
            text = pinned(step.text, dict(step.build_args), {})
            return evolve(step, text=text, context=tuple(map(_bare, step.context)))
        case AddLocal():
            return evolve(step, sources=tuple(map(_bare, step.sources)))
        case RunCommands() | RunFunction():
            return evolve(step, volumes=_bare_volumes(step))
        case _:
            return step


def _function_spec(function: FunctionDecl) -> FunctionSpec:
    return FunctionSpec(
        name=function.name,
        module=function.module,
        qualname=function.qualname,
        is_async=function.is_async,
        is_generator=function.is_generator,
        serialized=function.serialized,
        serialized_identity=function.serialized_identity,
        secrets=tuple(secret.slot for secret in function.secrets),
        volumes=tuple(
            (path, v.name, v.read_only, v.sub_path) for path, v in sorted(function.volumes, key=itemgetter(0))
        ),
        resources=function.resources,
        timeout_ms=function.timeout_ms,
        startup_timeout_ms=function.startup_timeout_ms,
        retries=function.retries,
        autoscaling=function.autoscaling,
        concurrency=function.concurrency,
        batching=function.batching,
        methods=function.methods,
        parameters=function.parameters,
        memory_snapshot=function.memory_snapshot,
        block_network=function.block_network,
    )
