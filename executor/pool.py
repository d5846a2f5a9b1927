"""The workers of one function version: what they are made of, how many there may be, and what became of them."""

from __future__ import annotations

import asyncio
from math import inf

from attrs import frozen

from slipway.compiler.nodes import FunctionSpec

from .placement import Placement, PoolLimits
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
    """How full a pool is, and what it has done."""

    queued: int
    running: int
    workers: int
    done: int
    failed: int


class Pool:
    """The workers of one function version."""

    __slots__ = (
        "armed",
        "done",
        "failed",
        "failures",
        "names",
        "placement",
        "reasons",
        "sequence",
        "since_ms",
        "spec",
        "tasks",
        "template",
        "timer",
        "tried",
        "trouble",
        "workers",
    )

    def __init__(self, spec: PoolSpec, template: Template | None = None) -> None:
        self.spec = spec
        self.template = template  # what makes the workers, where they have a memory snapshot
        self.placement = Placement(spec.limits)
        self.workers: dict[int, Worker] = {}
        self.names: dict[int, str] = {}
        self.since_ms: dict[int, int] = {}  # of the workers that are there, as their tasks
        self.reasons: dict[int, str] = {}  # why those that were told to end end
        self.tasks: dict[int, asyncio.Task[str]] = {}
        self.failures: dict[int, StartFailed] = {}
        self.tried: asyncio.Future[StartFailed | None] = asyncio.get_running_loop().create_future()  # the first start
        self.trouble: StartFailed | None = None  # what became of the last start
        self.sequence = 0
        self.armed = inf
        self.timer: asyncio.TimerHandle | None = None
        self.done = 0
        self.failed = 0

    def note_start(self, failure: StartFailed | None) -> None:
        self.trouble = failure
        if not self.tried.done():
            self.tried.set_result(failure)

    def method_name(self, index: int) -> str:
        """The method that an input is for, or "" where the function is no class."""
        methods = self.spec.worker.function.methods
        return methods[index][0] if methods else ""

    def counts(self) -> Counts:
        placement = self.placement
        queued = len(placement.queue)
        return Counts(
            queued=queued,
            running=len(placement.states) - queued,
            workers=placement.alive,
            done=self.done,
            failed=self.failed,
        )


def limits_of(function: FunctionSpec, *, cores: int, ephemeral: bool) -> PoolLimits:
    """A function's limits on a machine with so many cores. Without `max_containers` there are as many workers as
    cores (or as the function's CPU requests leave room for): more would only wait for one another."""
    scaling = function.autoscaling
    most = scaling.max_containers or max(1, cores * 1000 // max(function.resources.cpu_milli or 1000, 1))
    return PoolLimits(
        max_workers=most,
        min_workers=min(scaling.min_containers, most),
        buffer_workers=scaling.buffer_containers,
        idle=scaling.scaledown_window_ms / 1000,
        timeout=function.timeout_ms / 1000,
        slots=function.concurrency.max_inputs if function.is_async else 1,
        single_use=scaling.single_use_containers,
        give_up_after=1 if ephemeral else 3,
    )
