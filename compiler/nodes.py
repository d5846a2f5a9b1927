"""The nodes of a plan graph: one unit of desired state each, with a digest over its spec and its inputs."""

from __future__ import annotations

from typing import ClassVar

from attrs import field, frozen

from slipway.dsl.declaration import (
    Autoscaling,
    Batching,
    Concurrency,
    EndpointDecl,
    MethodDecl,
    Origin,
    ParameterDecl,
    Resources,
    Retries,
    Schedule,
    Step,
)

from .facts import FileEntry


@frozen(kw_only=True)
class BaseSpec:
    KIND: ClassVar[str] = "base"
    identity: tuple[tuple[str, str], ...]
    ref: str = field(default="", eq=False)  # "debian_slim 3.11", for display and for Runtime.resolve
    says: str = field(default="", eq=False)
    paths: tuple[tuple[str, str], ...] = field(default=(), eq=False)
    auth: tuple[tuple[str, int], ...] = field(default=(), eq=False)  # (slot, version) of the registry's keys


@frozen(kw_only=True)
class LayerSpec:
    """One build step with what it reads: the content of its files, the versions of its secrets.

    `step` is stripped of what its local sources ignore or choose; `files` holds the content instead, rooted at
    their `remote`. The packages of a pyproject.toml stand in `step.packages` (its `pyproject` is None). `code` are the
    files that a run_function step needs to import its function. `forced`: force_build here or below.
    """

    KIND: ClassVar[str] = "layer"
    step: Step
    files: tuple[FileEntry, ...] = ()
    secrets: tuple[tuple[str, int], ...] = ()  # (slot, version)
    code: tuple[FileEntry, ...] = field(default=(), eq=False)
    forced: bool = field(default=False, eq=False)
    title: str = field(default="", eq=False)  # "pip_install scikit-learn"


@frozen(kw_only=True)
class BundleSpec:
    KIND: ClassVar[str] = "bundle"
    files: tuple[FileEntry, ...]


@frozen(kw_only=True)
class VolumeSpec:
    KIND: ClassVar[str] = "volume"
    name: str
    create: bool = field(default=True, eq=False)  # made at apply where it is not there; else apply refuses


@frozen(kw_only=True)
class SecretSpec:
    KIND: ClassVar[str] = "secret"
    slot: str
    keys: tuple[str, ...]
    version: int


@frozen(kw_only=True)
class FunctionSpec:
    """What a pool of workers runs: a function, or a class (it has `methods`). Its inputs are its image (or base), its
    bundle, its secrets and its volumes."""

    KIND: ClassVar[str] = "function"
    name: str
    module: str
    qualname: str
    is_async: bool = False
    is_generator: bool = False
    serialized: str | None = field(default=None, eq=False)
    serialized_identity: str | None = None
    secrets: tuple[str, ...] = ()  # slots, later wins
    volumes: tuple[tuple[str, str, bool, str | None], ...] = ()  # (path, volume name, read_only, sub_path)
    resources: Resources = Resources()  # noqa: RUF009 - frozen
    timeout_ms: int = 300_000
    startup_timeout_ms: int | None = None
    retries: Retries | None = None
    autoscaling: Autoscaling = Autoscaling()  # noqa: RUF009 - frozen
    concurrency: Concurrency = Concurrency()  # noqa: RUF009 - frozen
    batching: Batching | None = None
    methods: tuple[MethodDecl, ...] = ()
    parameters: tuple[ParameterDecl, ...] = ()
    memory_snapshot: bool = False
    block_network: bool = False


@frozen(kw_only=True)
class ScheduleSpec:
    KIND: ClassVar[str] = "schedule"
    function: str
    schedule: Schedule


@frozen(kw_only=True)
class RouteSpec:
    KIND: ClassVar[str] = "route"
    function: str
    endpoint: EndpointDecl


Spec = BaseSpec | LayerSpec | BundleSpec | VolumeSpec | SecretSpec | FunctionSpec | ScheduleSpec | RouteSpec


@frozen(kw_only=True)
class Node:
    """`address` names it within the app: "image search/0" (its base), "image search/2", "bundle app.py",
    "function index", "class Model", "schedule refresh", "route query", "volume models", "secret dict:TOKEN#0".
    `digest` is over KIND, the spec's identity and the digests of `inputs` in order. A schedule or a route names its
    function but does not have it as an input: new code is no new schedule."""

    KIND: ClassVar[str] = "node"
    address: str
    spec: Spec
    inputs: tuple[str, ...] = ()  # addresses
    digest: str = ""
    origin: Origin = field(default=Origin(), eq=False)


@frozen(kw_only=True)
class Graph:
    """Nodes in an order in which every node follows its inputs; the same declaration gives the same order."""

    KIND: ClassVar[str] = "graph"
    app: str
    runtime: str
    nodes: tuple[Node, ...] = ()
