"""A declaration: everything an app file says, as frozen data that travels as JSON.

Handles (`App`, `Image`, `Function`, …) collect what the user writes; `slipway.declare` turns them into the
classes here, with absolute paths and without any Python object. The engine and the compiler see only these.
Types are closed: None, bool, int, str, tuple and the classes of this file. Times are whole milliseconds,
CPU is in thousandths of a core, memory in MiB, so that no float ever reaches a digest.
"""

from __future__ import annotations

from typing import ClassVar

from attrs import field, frozen


@frozen(kw_only=True)
class Origin:
    """Where in the user's files something was said. Never part of an identity."""

    KIND: ClassVar[str] = "origin"
    file: str = "<unknown>"
    line: int = 0

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


@frozen(kw_only=True)
class SecretDecl:
    """A secret by name. `slot` names it within the app (`dict:API_KEY,TOKEN#0`); its values never travel in here."""

    KIND: ClassVar[str] = "secret_decl"
    slot: str
    keys: tuple[str, ...] = ()
    named: bool = False  # Secret.from_name: refused until its issue
    origin: Origin = field(default=Origin(), eq=False)


@frozen(kw_only=True)
class VolumeDecl:
    KIND: ClassVar[str] = "volume_decl"
    name: str
    create_if_missing: bool = False
    read_only: bool = False
    sub_path: str | None = None
    origin: Origin = field(default=Origin(), eq=False)


@frozen(kw_only=True)
class LocalSource:
    """A file or folder of the user's that goes to `remote` in the container.

    `ignore` holds Docker-style patterns (see `FilePatternMatcher`); `only`, where not None, is the list of
    relative paths that a callable chose when the declaration was made.
    """

    KIND: ClassVar[str] = "local"
    local: str = field(eq=False)  # absolute path; where it lies is not identity
    remote: str
    is_dir: bool = False
    ignore: tuple[str, ...] = ()
    only: tuple[str, ...] | None = None
    origin: Origin = field(default=Origin(), eq=False)


# --- images: a base, then items in order --------------------------------------------------------------


@frozen(kw_only=True)
class DebianSlim:
    KIND: ClassVar[str] = "debian_slim"
    python_version: str | None = None  # "3.11"; None: the version of the Python that declares
    force_build: bool = field(default=False, eq=False)
    origin: Origin = field(default=Origin(), eq=False)


@frozen(kw_only=True)
class FromRegistry:
    KIND: ClassVar[str] = "from_registry"
    tag: str
    secret: SecretDecl | None = None
    setup_commands: tuple[str, ...] = ()
    add_python: str | None = None
    force_build: bool = field(default=False, eq=False)
    origin: Origin = field(default=Origin(), eq=False)


@frozen(kw_only=True)
class FromDockerfile:
    KIND: ClassVar[str] = "from_dockerfile"
    path: str
    context_dir: str | None = None
    text: str = ""  # what the file says
    context: tuple[LocalSource, ...] = ()  # what its COPY and ADD name, without what is ignored
    build_args: tuple[tuple[str, str], ...] = ()
    registry_secret: SecretDecl | None = None  # for the images that it names
    secrets: tuple[SecretDecl, ...] = ()
    gpu: str | None = None
    add_python: str | None = None
    force_build: bool = field(default=False, eq=False)
    origin: Origin = field(default=Origin(), eq=False)


@frozen(kw_only=True)
class Micromamba:
    KIND: ClassVar[str] = "micromamba"
    python_version: str | None = None
    force_build: bool = field(default=False, eq=False)
    origin: Origin = field(default=Origin(), eq=False)


Base = DebianSlim | FromRegistry | FromDockerfile | Micromamba


@frozen(kw_only=True)
class StepOptions:
    """What every build step may carry."""

    KIND: ClassVar[str] = "step_options"
    secrets: tuple[SecretDecl, ...] = ()  # name and version are in the layer's key, values are not
    gpu: str | None = None
    force_build: bool = field(default=False, eq=False)


@frozen(kw_only=True)
class PipInstall:
    """pip_install, uv_pip_install, pip_install_from_requirements and pip_install_from_pyproject."""

    KIND: ClassVar[str] = "pip_install"
    packages: tuple[str, ...] = ()  # sorted: argument order is not identity
    requirements: tuple[LocalSource, ...] = ()  # files whose content counts
    pyproject: LocalSource | None = None
    optional_dependencies: tuple[str, ...] = ()
    find_links: str | None = None
    index_url: str | None = None
    extra_index_url: str | None = None
    pre: bool = False
    extra_options: str = ""
    method: str = field(default="pip_install", eq=False)  # the name that the user wrote, for display
    options: StepOptions = StepOptions()
    origin: Origin = field(default=Origin(), eq=False)


@frozen(kw_only=True)
class UvSync:
    KIND: ClassVar[str] = "uv_sync"
    project: LocalSource  # the folder; only pyproject.toml and uv.lock count
    groups: tuple[str, ...] = ()
    extras: tuple[str, ...] = ()
    frozen: bool = True
    extra_options: str = ""
    options: StepOptions = StepOptions()
    origin: Origin = field(default=Origin(), eq=False)


@frozen(kw_only=True)
class AptInstall:
    KIND: ClassVar[str] = "apt_install"
    packages: tuple[str, ...]  # not sorted: apt's order can matter
    options: StepOptions = StepOptions()
    origin: Origin = field(default=Origin(), eq=False)


@frozen(kw_only=True)
class MicromambaInstall:
    KIND: ClassVar[str] = "micromamba_install"
    packages: tuple[str, ...] = ()
    spec_file: LocalSource | None = None
    channels: tuple[str, ...] = ()
    options: StepOptions = StepOptions()
    origin: Origin = field(default=Origin(), eq=False)


@frozen(kw_only=True)
class RunCommands:
    KIND: ClassVar[str] = "run_commands"
    commands: tuple[str, ...]
    volumes: tuple[tuple[str, VolumeDecl], ...] = ()
    options: StepOptions = StepOptions()
    origin: Origin = field(default=Origin(), eq=False)


@frozen(kw_only=True)
class RunFunction:
    """A Python function run as a build step. Identity: its source text, the plain globals it names, its arguments."""

    KIND: ClassVar[str] = "run_function"
    module: str
    qualname: str
    source: str  # the function's source text, dedented
    globals: tuple[tuple[str, str], ...] = ()  # name -> canonical text of its value; what has none is left out
    arguments: str = ""  # canonical text of args and kwargs
    payload: str = field(default="", eq=False)  # base64 pickle of (args, kwargs) for the worker program
    volumes: tuple[tuple[str, VolumeDecl], ...] = ()
    code: SourceDecl | None = field(default=None, eq=False)
    timeout_ms: int = field(default=3_600_000, eq=False)
    options: StepOptions = StepOptions()
    origin: Origin = field(default=Origin(), eq=False)


@frozen(kw_only=True)
class DockerfileCommands:
    KIND: ClassVar[str] = "dockerfile_commands"
    commands: tuple[str, ...]
    context: tuple[LocalSource, ...] = ()
    build_args: tuple[tuple[str, str], ...] = ()
    options: StepOptions = StepOptions()
    origin: Origin = field(default=Origin(), eq=False)


@frozen(kw_only=True)
class BuildDockerfile:
    """What `from_dockerfile` does, as the first layer of its image."""

    KIND: ClassVar[str] = "dockerfile"
    text: str
    context: tuple[LocalSource, ...] = ()
    build_args: tuple[tuple[str, str], ...] = ()
    path: str = field(default="Dockerfile", eq=False)
    options: StepOptions = StepOptions()
    origin: Origin = field(default=Origin(), eq=False)


@frozen(kw_only=True)
class AddPython:
    """A Python of our own bringing put into /usr/local, as `add_python=` says."""

    KIND: ClassVar[str] = "add_python"
    version: str  # "3.12"
    resolved: str = ""  # which build of it, where that is known
    options: StepOptions = StepOptions()
    origin: Origin = field(default=Origin(), eq=False)


@frozen(kw_only=True)
class Setting:
    """A step that changes only how processes start: env, workdir, entrypoint, shell, cmd. It runs nothing."""

    KIND: ClassVar[str] = "setting"
    what: str  # "env" | "workdir" | "entrypoint" | "shell" | "cmd"
    values: tuple[str, ...] = ()  # argv for entrypoint, shell and cmd; one path for workdir
    env: tuple[tuple[str, str], ...] = ()  # in the order written
    options: StepOptions = StepOptions()
    origin: Origin = field(default=Origin(), eq=False)


@frozen(kw_only=True)
class AddLocal:
    """add_local_file/dir/python_source. copy=True: a layer. copy=False: part of the bundle, laid over at start."""

    KIND: ClassVar[str] = "add_local"
    sources: tuple[LocalSource, ...]
    copy: bool = False
    method: str = field(default="add_local_dir", eq=False)
    options: StepOptions = StepOptions()
    origin: Origin = field(default=Origin(), eq=False)


Step = (
    PipInstall
    | UvSync
    | AptInstall
    | MicromambaInstall
    | RunCommands
    | RunFunction
    | DockerfileCommands
    | BuildDockerfile
    | AddPython
    | Setting
    | AddLocal
)


@frozen(kw_only=True)
class ImageDecl:
    """`name` is what to call it on screen: the variable that holds it, or `default`; unique within the app."""

    KIND: ClassVar[str] = "image"
    name: str
    base: Base
    steps: tuple[Step, ...] = ()
    origin: Origin = field(default=Origin(), eq=False)


# --- functions ----------------------------------------------------------------------------------------


@frozen(kw_only=True)
class SourceDecl:
    """The user's own code that a function needs: one script at /root/<name>.py, or a package at /root/<package>."""

    KIND: ClassVar[str] = "source"
    sources: tuple[LocalSource, ...] = ()


@frozen(kw_only=True)
class Resources:
    """What a worker may use. None: not limited. Requests weigh in placement, limits are enforced."""

    KIND: ClassVar[str] = "resources"
    cpu_milli: int | None = None
    cpu_limit_milli: int | None = None
    memory_mib: int | None = None
    memory_limit_mib: int | None = None
    gpus: tuple[str, ...] = ()  # ranked: ("H100:2", "A100")
    ephemeral_disk_mib: int | None = None


@frozen(kw_only=True)
class Retries:
    KIND: ClassVar[str] = "retries"
    max_retries: int
    backoff_milli: int = 2000  # the coefficient, in thousandths
    initial_delay_ms: int = 1000
    max_delay_ms: int = 60_000


@frozen(kw_only=True)
class Autoscaling:
    KIND: ClassVar[str] = "autoscaling"
    min_containers: int = 0
    max_containers: int | None = None
    buffer_containers: int = 0
    scaledown_window_ms: int = 60_000
    single_use_containers: bool = False


@frozen(kw_only=True)
class CronDecl:
    KIND: ClassVar[str] = "cron"
    expression: str
    timezone: str = "UTC"
    origin: Origin = field(default=Origin(), eq=False)


@frozen(kw_only=True)
class PeriodDecl:
    KIND: ClassVar[str] = "period"
    months: int = 0  # years are twelve
    days: int = 0  # weeks are seven
    ms: int = 0
    origin: Origin = field(default=Origin(), eq=False)


Schedule = CronDecl | PeriodDecl


@frozen(kw_only=True)
class EndpointDecl:
    KIND: ClassVar[str] = "endpoint"
    style: str  # "fastapi" | "asgi" | "wsgi" | "web_server"
    method: str = "GET"
    label: str | None = None
    custom_domains: tuple[str, ...] = ()
    docs: bool = False
    requires_proxy_auth: bool = False
    port: int | None = None
    startup_timeout_ms: int = 5000
    origin: Origin = field(default=Origin(), eq=False)


@frozen(kw_only=True)
class Concurrency:
    KIND: ClassVar[str] = "concurrency"
    max_inputs: int = 1
    target_inputs: int | None = None


@frozen(kw_only=True)
class Batching:
    KIND: ClassVar[str] = "batching"
    max_batch_size: int
    wait_ms: int


@frozen(kw_only=True)
class MethodDecl:
    """A method of a class that can be called from outside."""

    KIND: ClassVar[str] = "method"
    name: str
    is_async: bool = False
    is_generator: bool = False


@frozen(kw_only=True)
class ParameterDecl:
    """A parameter of a class. `default` is its text: a str as it is, else as Python writes it; None: required."""

    KIND: ClassVar[str] = "parameter"
    name: str
    type: str  # "str" | "int" | "bool" | "bytes"
    default: str | None = None


@frozen(kw_only=True)
class FunctionDecl:
    """A function, or a class: then it has `methods`, and its workers serve all of them."""

    KIND: ClassVar[str] = "function_decl"
    name: str
    module: str
    qualname: str
    image: int  # index into AppDecl.images
    code: SourceDecl = SourceDecl()
    is_async: bool = False
    is_generator: bool = False
    required_args: tuple[str, ...] = ()
    serialized: str | None = None  # base64 cloudpickle of the function, for serialized=True
    serialized_identity: str | None = None  # canonical text over source, closure and globals
    secrets: tuple[SecretDecl, ...] = ()  # app's, then function's, then env=; later wins
    volumes: tuple[tuple[str, VolumeDecl], ...] = ()  # (path in the container, volume), sorted by path
    resources: Resources = Resources()
    timeout_ms: int = 300_000
    startup_timeout_ms: int | None = None  # None: timeout_ms
    retries: Retries | None = None
    autoscaling: Autoscaling = Autoscaling()
    schedule: Schedule | None = None
    endpoint: EndpointDecl | None = None
    concurrency: Concurrency = Concurrency()
    batching: Batching | None = None
    methods: tuple[MethodDecl, ...] = ()
    parameters: tuple[ParameterDecl, ...] = ()
    memory_snapshot: bool = False
    block_network: bool = False
    options: tuple[tuple[str, str], ...] = ()  # every other parameter given: (name, text of its value)
    origin: Origin = field(default=Origin(), eq=False)


@frozen(kw_only=True)
class Fault:
    """Something wrong with, or worth saying about, the user's file.

    `severity`: "error" stops the plan; "warning" and "note" are shown with it.
    """

    KIND: ClassVar[str] = "fault"
    severity: str
    address: str  # "function index", "image search, step 3"; "" for the file as a whole
    summary: str  # what is wrong, in one sentence
    found: str = ""  # what was found
    hint: str = ""  # what to do: a command or a line of code
    origin: Origin = field(default=Origin(), eq=False)


@frozen(kw_only=True)
class AppDecl:
    KIND: ClassVar[str] = "app"
    name: str
    images: tuple[ImageDecl, ...] = ()
    functions: tuple[FunctionDecl, ...] = ()
    tags: tuple[tuple[str, str], ...] = ()
    faults: tuple[Fault, ...] = field(default=(), eq=False)  # collected while declaring: hints, collisions
    python: str = field(default="", eq=False)  # "3.11" of the declaring interpreter
    file: str = field(default="", eq=False)  # the app file, absolute
    origin: Origin = field(default=Origin(), eq=False)
