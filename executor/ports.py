"""Every port of the executor on one page. Each has a fake in `tests/fakes.py` and a contract in `tests/contracts/`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import NamedTuple, Protocol

from attrs import field, frozen

from slipway.compiler.facts import BaseFact

# --- runtime ------------------------------------------------------------------------------------------


@frozen(kw_only=True)
class Mount:
    """A host folder or file that appears at `target` in the container."""

    source: str
    target: str
    read_only: bool = False


@frozen(kw_only=True)
class Limits:
    """None: not limited. A request is what the container is sure of where others want the same."""

    cpu_milli: int | None = None
    memory_mib: int | None = None
    cpu_request_milli: int | None = None
    memory_request_mib: int | None = None
    disk_mib: int | None = None  # what it may write outside of its mounts


@frozen(kw_only=True)
class ContainerSpec:
    """What to make. `layers` are layer digests from the bottom up, on top of `base`; `trees` are host folders laid
    out like a container's root, read-only, the last one on top (bundles); they never change under their path; `mounts`
    come last. `env` holds plain settings of every process in it: whoever may look at containers may read them."""

    name: str  # unique within the home; letters, digits, "-"
    base: BaseFact
    layers: tuple[str, ...] = ()
    trees: tuple[str, ...] = ()
    mounts: tuple[Mount, ...] = ()
    limits: Limits = Limits()
    gpus: tuple[str, ...] = ()  # UUIDs
    env: tuple[tuple[str, str], ...] = ()
    workdir: str | None = None  # is there when processes start: where the image lacks this folder, it is made as root
    network: bool = True
    privileged_build: bool = False  # a build step: may change owners and install packages
    as_user: bool = False  # in a build: as the user that the image names, not as its root
    single: bool = False  # it is of no use after its first process (a worker): that may be the container's own
    entrypoint: tuple[str, ...] | None = None  # of a single one: goes before its argv; None: what the image says
    labels: tuple[tuple[str, str], ...] = ()


@frozen(kw_only=True)
class Exit:
    """How a process ended: an exit code, or the signal that killed it; `oom` where the memory limit did. With neither,
    `reason` says why nobody knows."""

    code: int | None
    signal: int | None = None
    oom: bool = False
    reason: str = ""


Output = Callable[[int, bytes], None]  # (1 for stdout or 2 for stderr, what came); called on the engine's loop


class Process(Protocol):
    async def wait(self) -> Exit: ...
    def signal(self, number: int) -> None: ...
    def drain(self) -> None:
        """Hand over at once, without waiting, the output that already lies in the pipes."""


@frozen(kw_only=True)
class Stats:
    memory_bytes: int | None
    cpu_ms: int | None
    processes: int | None


class Terminal(Process, Protocol):
    """A process on a terminal. What is written to `fd` is typed, what is read from it is shown; it is the caller's to
    close. It may be a terminal's own end or a stream socket."""

    @property
    def fd(self) -> int: ...
    def resize(self, rows: int, columns: int) -> None: ...


class Held(Protocol):
    """A process that `Container.hold` was given, and all that it has started since."""

    def ran_out(self) -> bool:
        """Whether their memory limit has killed one of them."""

    async def stats(self) -> Stats: ...
    async def release(self) -> None:
        """Kill what is left of them, and let go of the limits. Safe to call twice."""


class Container(Protocol):
    """A made container. Whoever created it calls `kill` in the end, which is safe to call twice."""

    @property
    def name(self) -> str: ...

    async def exec(
        self,
        argv: tuple[str, ...],
        *,
        env: tuple[tuple[str, str], ...] = (),  # added to the base environment of the image; never in argv
        cwd: str | None = None,
        stdin: bytes = b"",
        output: Output | None = None,
    ) -> Process:
        """Start a process; it has ended when `wait` returns and all its output has been handed over.

        Without a `cwd` it starts in the folder that the image names, else in /root.
        """

    async def open_terminal(
        self,
        argv: tuple[str, ...],
        *,
        env: tuple[tuple[str, str], ...] = (),
        cwd: str | None = None,
        rows: int = 24,
        columns: int = 80,
    ) -> Terminal:
        """Start a process on a new terminal of that size."""

    async def hold(self, name: str, pid: int, limits: Limits) -> Held:
        """Hold one process of this container, by its number on this machine, to limits of its own, with all that it
        starts from now on. It has one thread as yet; `name` is unique as a container's is.

        Raises `RuntimeUnavailable` where it has ended, and `InvalidError` where this can't be (`Prepared.undivided`).
        """

    async def commit(self, layer: str) -> str:
        """Keep what was written as the layer with this digest, atomically; return the digest of its content.
        The container is of no more use. A layer that is there already is left as it is."""

    async def stop(self, grace_ms: int) -> None:
        """SIGTERM to every process, then after the grace time kill."""

    async def kill(self) -> None: ...
    async def stats(self) -> Stats: ...


@frozen(kw_only=True)
class Ability:
    """What this runtime can't do here: `refusals` as (step or base KIND, reason with the way out); `notes` as
    (subject, sentence) for limits that are not enforced."""

    refusals: tuple[tuple[str, str], ...] = ()
    notes: tuple[tuple[str, str], ...] = ()


@frozen(kw_only=True)
class Stored:
    """What a runtime keeps on disk: a layer, or what it made of a layer with `trees` laid over it (for its containers
    to start faster). `size` is what it takes alone; `remove(ident)` frees it. Several names of one and the same have
    the same `content`, and all but one of them the size 0: the space is free when the last of them is removed."""

    ident: str
    layer: str
    trees: tuple[str, ...] = ()
    size: int = 0
    content: str = ""


@frozen(kw_only=True)
class Prepared:
    """What is known of containers of a spec before one is made: how their Python (3.10 or later) is called, and why no
    process of one can be held to limits of its own ("": it can)."""

    python: str = "python"
    undivided: str = ""


@frozen(kw_only=True)
class DockerfileBuild:
    """A Dockerfile without its `# syntax` lines. `context` is a host folder with exactly the files that it may copy.

    `onto` is what its first line stands on, where it does not begin with a FROM of its own. `fresh` (force_build):
    every instruction is run anew, whatever the engine remembers.
    """

    text: str
    context: str
    args: tuple[tuple[str, str], ...] = ()
    onto: ContainerSpec | None = None
    fresh: bool = False


class Runtime(Protocol):
    @property
    def name(self) -> str: ...
    async def start(self) -> None:
        """Make ready; remove what an earlier engine of this home left behind (containers, half layers, mounts)."""

    async def close(self) -> None:
        """Kill every container and let go of everything."""

    async def trouble(self) -> str:
        """What is wrong, in a sentence; nothing ("") where containers can be made now. Quick, and raises nothing."""

    async def ability(self) -> Ability: ...
    async def resolve(
        self, kind: str, ref: str, *, auth: tuple[tuple[str, str], ...] = (), fresh: bool = False
    ) -> BaseFact:
        """The manifest facts of a base; nothing big is fetched. `auth` are the keys of a registry's secret; `fresh`
        (force_build): ask anew what a name stands for, where a registry is to be had. A runtime that builds
        Dockerfiles puts ("image", how a FROM names it) among `paths`; it knows `ref` "" of micromamba, too.

        Raises `NotFoundError` with the way out when it is not to be had here.
        """

    async def has_base(self, base: BaseFact) -> bool: ...
    async def fetch(self, base: BaseFact, *, auth: tuple[tuple[str, str], ...] = (), output: Output) -> None:
        """Have the base here. Raises `NotFoundError` or `RuntimeUnavailable`."""

    async def build_dockerfile(self, build: DockerfileBuild, layer: str, output: Output) -> str:
        """Keep what the Dockerfile gives as the layer with this digest; return the digest of its content.

        Raises `ImageBuildError` where an instruction fails, `InvalidError` where there are no Dockerfiles.
        """

    async def prepare(self, spec: ContainerSpec) -> Prepared:
        """Do once what is the same for every container of a spec, so that `create` is quick; its name plays no part.

        Raises `InvalidError` where a worker can't run in it: no Python, or one that is too old.
        """

    async def has(self, layer: str) -> bool: ...
    async def alias(self, layer: str, existing: str) -> None:
        """Give a finished layer a second digest: a rebuild was found to give the same content."""

    async def create(self, spec: ContainerSpec) -> Container:
        """Make the container, mounts and limits in force. Raises `RuntimeUnavailable` or `NotFoundError`."""

    async def remove(self, layer: str) -> None:
        """Forget a layer, or what `stored` names; nothing happens where there is none.

        Raises `InvalidError` while a container stands on it.
        """

    def layers(self) -> AsyncIterator[str]: ...
    async def stored(self) -> tuple[Stored, ...]: ...


# --- store --------------------------------------------------------------------------------------------


@frozen(kw_only=True)
class Built:
    """A finished layer: which step on which content below gave which content."""

    layer: str
    step: str  # digest of the step's own spec, without what is below
    below: str  # output digest of the layer below ("" for a base: its own digest)
    output: str
    ms: int
    runtime: str


@frozen(kw_only=True)
class Deployment:
    app: str
    lineage: str
    serial: int
    graph: bytes = field(repr=False)  # encoded Graph
    created_ms: int
    runtime: str


class CallRow(NamedTuple):
    """An input that is over and was not written down before. (Thirty thousand are made in a second, so this is no attrs
    class.) `call` is the number of its function call and `place` which of its inputs it is; `parent` is the input whose
    code called, or 0; `run` is the app's id. `outcome` is an `Outcome` of the frames."""

    number: int
    call: int
    place: int
    run: str
    app: str
    function: str
    method: str
    parent: int
    worker: str
    attempts: int
    losses: int
    submitted_ms: int
    started_ms: int | None
    finished_ms: int
    outcome: int
    reason: str = ""


class Clock(Protocol):
    def now_ms(self) -> int:
        """Wall clock, milliseconds since the epoch."""

    def monotonic(self) -> float:
        """Seconds, never going back."""
