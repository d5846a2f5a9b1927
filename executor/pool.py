"""The workers of one function version: what they are made of, how many there may be, and what became of them."""

from __future__ import annotations

import asyncio
from math import inf

from attrs import frozen

from slipway.compiler.nodes import FunctionSpec

from .lifecycle import State
from .placement import Placement
from .scaling import PoolLimits, rescaled
from .seats import RETRIES, THREAD
from .templates import Template
from .worker.host import StartFailed, Worker, WorkerSpec


@frozen(kw_only=True)
class PoolSpec:
    """`key` names the pool within the engine: an app and the digest of a function's node."""

    key: str
    app: str
    function: str
    limits: PoolLimits
    worker: WorkerSpec


@frozen(kw_only=True)
class Counts:
    """How full a pool is, and what it has done. `headroom`: inputs that its workers could take at once."""

    queued: int
    running: int
    workers: int
    headroom: int
    done: int
    failed: int


class Pool:
    """The workers of one function version."""

    __slots__ = (
        "armed",
        "death",
        "done",
        "failed",
        "failures",
        "names",
        "placement",
        "reasons",
        "sequence",
        "since_ms",
        "spec",
        "start_trouble",
        "stirred",
        "tasks",
        "template",
        "timer",
        "traits",
        "tried",
        "workers",
    )

    def __init__(self, spec: PoolSpec, template: Template | None = None) -> None:
        self.spec = spec
        self.template = template  # what makes the workers, where they have a memory snapshot
        self.placement = Placement(spec.limits)
        function = spec.worker.function
        methods = function.methods or (("", function.is_async, function.is_generator),)
        self.traits = tuple((not streams) * RETRIES | (not tasks) * THREAD for _, tasks, streams in methods)
        self.workers: dict[int, Worker] = {}
        self.names: dict[int, str] = {}
        self.since_ms: dict[int, int] = {}  # of the workers that are there, as their tasks
        self.reasons: dict[int, str] = {}  # why those that were told to end end
        self.tasks: dict[int, asyncio.Task[str]] = {}
        self.failures: dict[int, StartFailed] = {}
        self.tried: asyncio.Future[StartFailed | None] = asyncio.get_running_loop().create_future()  # the first start
        self.start_trouble: StartFailed | None = None  # what became of the last start
        self.death = ""  # why the last worker ended
        self.stirred = asyncio.Event()  # something began, or (where it takes no more inputs) ended
        self.sequence = 0
        self.armed = inf
        self.timer: asyncio.TimerHandle | None = None
        self.done = 0
        self.failed = 0

    def note_start(self, failure: StartFailed | None) -> None:
        self.start_trouble = failure
        if not self.tried.done():
            self.tried.set_result(failure)

    @property
    def trouble(self) -> StartFailed | None:
        """Why there are no workers that do anything: they can't be started, or end at once, each of them."""
        if self.start_trouble is None and self.placement.is_useless:
            return StartFailed(f"its workers end before they answer anything: {self.death}")
        return self.start_trouble

    @property
    def is_busy(self) -> bool:
        """Whether it has workers, or inputs that are not over."""
        return bool(self.tasks or self.placement.inputs)

    def method_name(self, index: int) -> str:
        """The method that an input is for, or "" where the function is no class."""
        methods = self.spec.worker.function.methods
        return methods[index][0] if methods else ""

    def method_index(self, name: str) -> int | None:
        """Which of its methods that is (0 for a plain function, whose is ""); None where there is none."""
        names = [known for known, _, _ in self.spec.worker.function.methods]
        if not names:
            return None if name else 0
        return names.index(name) if name in names else None

    def runs(self, number: int) -> bool:
        """Whether a worker has begun an input, as far as is known here."""
        placed = self.placement.inputs.get(number)
        return placed is not None and placed.state is State.RUNNING

    def counts(self) -> Counts:
        placement = self.placement
        queued = len(placement.queue) + placement.resting
        running = len(placement.inputs) - queued
        limits = placement.limits
        return Counts(
            queued=queued,
            running=running,
            workers=placement.alive,
            headroom=max(0, placement.seats.ready * limits.slots * (limits.batch or 1) - running),
            done=self.done,
            failed=self.failed,
        )


def limits_of(function: FunctionSpec, *, cores: int, ephemeral: bool) -> PoolLimits:
    """A function's limits on a machine with so many cores. Without `max_containers` there are as many workers as
    cores (or as the function's CPU requests leave room for): more would only wait for one another."""
    default = max(1, cores * 1000 // max(function.resources.cpu_milli or 1000, 1))
    single_use = function.autoscaling.single_use_containers
    batching = function.batching
    limits = PoolLimits(
        max_workers=default,
        default_workers=default,
        timeout=function.timeout_ms / 1000,
        slots=1 if single_use else function.concurrency.max_inputs,
        target=None if single_use else function.concurrency.target_inputs,
        batch=batching.max_batch_size if batching is not None else 0,
        linger=batching.wait_ms / 1000 if batching is not None else 0.0,
        single_use=single_use,
        retries=function.retries,
        give_up_after=1 if ephemeral else None,
    )
    return rescaled(limits, function.autoscaling)
