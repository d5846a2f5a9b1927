"""Drives the pools: takes calls in, acts on what `placement` decides, passes answers out, records what was.

Everything happens on the engine's loop. A call's payload is bytes (or a descriptor) on its way through; nothing here
looks into it.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Callable, Coroutine, Iterator
from functools import partial
from itertools import count
from math import inf
from typing import Any

from attrs import frozen

from slipway.compiler.nodes import FunctionSpec

from .placement import (
    Actions,
    Assign,
    End,
    FailStart,
    Interrupt,
    Kill,
    Placement,
    PoolLimits,
    Recall,
    Start,
    Stop,
)
from .ports import CallRow, Clock
from .worker.frames import Flag, Frame, Kind, Outcome
from .worker.host import Hooks, Place, StartFailed, Worker, WorkerSpec, start_worker
from .worker.logs import Line
from .worker.wire import NO_FD

log = logging.getLogger("slipway")
RECORD_EVERY = 0.25  # seconds
RECORD_AT = 512  # calls
_FD = int(Flag.FD)
_RESULT = int(Kind.RESULT)
_OUTCOME_TEXT = {int(outcome): outcome.name.lower() for outcome in Outcome}

Send = Callable[[Frame, int], None]


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


@frozen(kw_only=True)
class Ears:
    """Who hears what happens: `on_records` gets finished calls in batches; `on_client` a connection that code in a
    worker has opened to call other functions."""

    on_records: Callable[[list[CallRow]], None]
    on_line: Callable[[PoolSpec, str, Line], None]
    on_client: Callable[[PoolSpec, str, socket.socket], None]


class _Call:
    __slots__ = (
        "fd",
        "fd_length",
        "ident",
        "number",
        "payload",
        "pool",
        "send",
        "sequence",
        "started",
        "submitted",
        "worker",
        "worker_name",
    )

    def __init__(self, number: int, pool: Pool, frame: Frame, fd: int, send: Send, now: float) -> None:
        self.number = number
        self.pool = pool
        self.ident = frame.id
        self.payload = frame.payload
        self.fd = fd
        self.fd_length = frame.fd_length
        self.send = send
        self.submitted = now
        self.started = 0.0
        self.sequence = 0
        self.worker = 0
        self.worker_name = ""


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
        "timer",
        "tried",
        "trouble",
        "workers",
    )

    def __init__(self, spec: PoolSpec) -> None:
        self.spec = spec
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


def call_id(number: int) -> str:
    """What a call is called in logs, in records and inside its function."""
    return f"in-{number:x}"


class Numbers:
    """Counts the calls and the workers of an engine, for all of its dispatchers: no two are called alike."""

    def __init__(self, clock: Clock) -> None:
        self.calls: Iterator[int] = count((clock.now_ms() << 20) + 1)  # no two engines of a home give the same
        self.workers: Iterator[int] = count(1)


class Dispatcher:
    """Every pool of one runtime. The owner calls `close` in the end."""

    def __init__(self, place: Place, clock: Clock, ears: Ears, numbers: Numbers | None = None) -> None:
        self._place = place
        self._clock = clock
        self._ears = ears
        self._loop = asyncio.get_running_loop()
        self._time = self._loop.time
        self._calls: dict[int, _Call] = {}
        numbers = numbers or Numbers(clock)
        self._next_call = partial(next, numbers.calls)
        self._next_worker = partial(next, numbers.workers)
        self._leaving: set[asyncio.Task[None]] = set()
        self._records: list[tuple[_Call, int, str, float]] = []
        self._record_timer: asyncio.TimerHandle | None = None
        self.pools: dict[str, Pool] = {}
        self._ended: list[Pool] = []  # taken out of `pools`, and some with workers still

    # --- pools

    def open_pool(self, spec: PoolSpec) -> Pool:
        """The pool of this key, made where there is none yet."""
        pool = self.pools.get(spec.key)
        if pool is None:
            pool = self.pools[spec.key] = Pool(spec)
            self._act(pool, pool.placement.open(self._time()))
        return pool

    async def drain_pool(self, key: str) -> None:
        """Take no more calls, finish those that are there, end the workers."""
        pool = self._take_out(key)
        if pool is not None:
            self._act(pool, pool.placement.drain(self._time()))
            await self._emptied(pool)

    async def close_pool(self, key: str, reason: str) -> None:
        """End the pool now: its calls are cancelled, its workers killed."""
        pool = self._take_out(key)
        if pool is not None:
            await self._close(pool, reason)

    async def _close(self, pool: Pool, reason: str) -> None:
        self._act(pool, pool.placement.close(reason))
        await self._emptied(pool)

    def _take_out(self, key: str) -> Pool | None:
        pool = self.pools.pop(key, None)
        self._ended = [ended for ended in self._ended if ended.tasks] + ([] if pool is None else [pool])
        return pool

    def all_pools(self) -> tuple[Pool, ...]:
        """The pools that take calls, and those that are ending and have workers still."""
        return (*self.pools.values(), *(pool for pool in self._ended if pool.tasks))

    async def _emptied(self, pool: Pool) -> None:
        while pool.tasks:
            await asyncio.wait(tuple(pool.tasks.values()))
        if pool.timer is not None:
            pool.timer.cancel()

    async def drain(self) -> None:
        ending = [self._emptied(pool) for pool in self._ended]
        await asyncio.gather(*ending, *(self.drain_pool(key) for key in tuple(self.pools)))
        self._flush_records()

    async def close(self, reason: str = "the engine is shutting down") -> None:
        await asyncio.gather(*(self._close(pool, reason) for pool in self.all_pools()))
        if self._leaving:
            await asyncio.wait(tuple(self._leaving))
        self._flush_records()

    @property
    def busy(self) -> int:
        """Calls that are not over."""
        return len(self._calls)

    # --- calls

    def submit(self, pool: Pool, frame: Frame, fd: int, send: Send) -> int:
        """Take a CALL frame (and its descriptor); `send` gets its RESULT. Returns the number to cancel it by."""
        number: int = self._next_call()
        now = self._time()
        self._calls[number] = _Call(number, pool, frame, fd, send, now)
        self._act(pool, pool.placement.submit(number, now))
        return number

    def cancel(self, number: int, *, force: bool = False) -> None:
        """Give a call up where it has not begun; with `force` also where it runs. Finished ones are let be."""
        call = self._calls.get(number)
        if call is not None:
            self._act(call.pool, call.pool.placement.cancel(number, self._time(), force=force))

    def _on_result(self, pool: Pool, worker: int, frame: Frame, fd: int) -> None:
        now = self._time()
        number = frame.id
        call = self._calls.get(number)
        if call is not None and call.worker == worker and call.pool is pool:
            del self._calls[number]
            outcome = frame.outcome
            answer = Frame(_RESULT, call.ident, frame.payload, 0, frame.flags & _FD, outcome, frame.fd_length)
            self._finish(call, answer, fd, "", now)
        elif fd != NO_FD:
            os.close(fd)
        placement = pool.placement
        actions = placement.finished(worker, number, frame.outcome, now)
        if actions or placement.wake < pool.armed:
            self._act(pool, actions)

    def _finish(self, call: _Call, answer: Frame, fd: int, reason: str, now: float) -> None:
        if call.fd != NO_FD:
            os.close(call.fd)
        call.payload = b""
        pool = call.pool
        pool.done += 1
        pool.failed += answer.outcome != 0
        call.send(answer, fd)
        records = self._records
        records.append((call, answer.outcome, reason, now))
        if self._record_timer is None:
            self._record_timer = self._loop.call_later(RECORD_EVERY, self._flush_records)
        elif len(records) >= RECORD_AT:
            self._flush_records()

    def _end(self, number: int, outcome: Outcome, data: bytes, reason: str) -> None:
        call = self._calls.pop(number)
        self._finish(call, Frame(_RESULT, call.ident, data, 0, 0, outcome), NO_FD, reason, self._time())

    def _flush_records(self) -> None:
        if self._record_timer is not None:
            self._record_timer.cancel()
            self._record_timer = None
        records, self._records = self._records, []
        if not records:
            return
        offset = self._clock.now_ms() - self._time() * 1000
        self._ears.on_records(
            [
                CallRow(
                    id=call_id(call.number),
                    app=call.pool.spec.app,
                    function=call.pool.spec.function,
                    worker=call.worker_name,
                    submitted_ms=int(offset + call.submitted * 1000),
                    started_ms=int(offset + call.started * 1000) if call.started else None,
                    finished_ms=int(offset + finished * 1000),
                    outcome=_OUTCOME_TEXT[outcome],
                    reason=reason,
                )
                for call, outcome, reason, finished in records
            ]
        )

    # --- doing what placement says

    def _act(self, pool: Pool, actions: Actions) -> None:
        for action in actions:
            if type(action) is Assign:
                self._assign(pool, action)
            else:
                _DOERS[type(action)](self, pool, action)
        if pool.placement.wake < pool.armed:
            self._arm(pool)

    def _assign(self, pool: Pool, action: Assign) -> None:
        number, target = action
        call = self._calls[number]
        pool.sequence = call.sequence = pool.sequence + 1
        call.worker = target
        call.worker_name = pool.names[target]
        call.started = self._time()
        fd = call.fd if call.fd == NO_FD else os.dup(call.fd)  # ours is kept: the call may have to go to another
        pool.workers[target].call(number, call.sequence, call.payload, fd, call.fd_length)

    def _do_start(self, pool: Pool, action: Start) -> None:
        name = f"w{self._next_worker()}-{os.getpid()}"
        pool.names[action.worker] = name
        pool.since_ms[action.worker] = self._clock.now_ms()
        task = pool.tasks[action.worker] = self._loop.create_task(self._live(pool, action.worker, name), name=name)
        task.add_done_callback(partial(self._bury, pool, action.worker))

    def _do_stop(self, pool: Pool, action: Stop) -> None:
        worker = pool.workers.get(action.worker)
        if worker is None:
            pool.tasks[action.worker].cancel()  # it is still on its way
        else:
            self._leave(worker.stop())

    def _do_kill(self, pool: Pool, action: Kill) -> None:
        worker = pool.workers.get(action.worker)
        if worker is None:
            task = pool.tasks.get(action.worker)
            if task is not None:
                task.cancel()
        else:
            self._leave(worker.close())

    def end_worker(self, pool: Pool, number: int, reason: str, *, graceful: bool) -> asyncio.Task[str]:
        """Have a worker end, at once or when it has answered what it runs; what is returned is done when it is gone."""
        task = pool.tasks[number]
        pool.reasons[number] = reason
        self._act(pool, pool.placement.let_go(number, self._time()))
        if not graceful:
            self._do_kill(pool, Kill(number))
        return task

    def _leave(self, ending: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(ending)
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)

    def _do_recall(self, pool: Pool, action: Recall) -> None:
        pool.workers[action.worker].recall(action.call, self._calls[action.call].sequence)

    def _do_interrupt(self, pool: Pool, action: Interrupt) -> None:
        pool.workers[action.worker].interrupt(action.call)

    def _do_end(self, pool: Pool, action: End) -> None:
        self._end(action.call, action.outcome, action.reason.encode(), action.reason)

    def _do_fail_start(self, pool: Pool, action: FailStart) -> None:
        failure = pool.failures[action.worker]
        if failure.payload is not None:
            self._end(action.call, Outcome.RAISED, failure.payload, f"start-up failed: {failure.reason}")
        else:
            self._end(action.call, Outcome.LOST, failure.reason.encode(), failure.reason)

    def _on_recalled(self, pool: Pool, worker: int, number: int, sequence: int, given_back: bool) -> None:
        call = self._calls.get(number)
        if call is not None and call.worker == worker and call.sequence == sequence:
            self._act(pool, pool.placement.recalled(worker, number, given_back, self._time()))

    # --- time

    def _arm(self, pool: Pool) -> None:
        if pool.timer is not None:
            pool.timer.cancel()
        pool.armed = pool.placement.wake
        pool.timer = self._loop.call_at(pool.armed, self._tick, pool)

    def _tick(self, pool: Pool) -> None:
        pool.armed = inf
        pool.timer = None
        self._act(pool, pool.placement.tick(self._time()))

    # --- the life of a worker

    async def _live(self, pool: Pool, number: int, name: str) -> str:
        """From its start to its end; why it ended. What becomes of it then is `_bury`'s."""
        hooks = Hooks(
            on_result=partial(self._on_result, pool, number),
            on_recalled=partial(self._on_recalled, pool, number),
            on_line=partial(self._ears.on_line, pool.spec, name),
            on_client=partial(self._ears.on_client, pool.spec, name),
        )
        worker = await start_worker(name, pool.spec.worker, self._place, hooks)
        try:
            pool.workers[number] = worker
            pool.note_start(None)
            self._act(pool, pool.placement.ready(number, self._time()))
            return await worker.wait_ended()
        finally:
            await worker.close()

    def _bury(self, pool: Pool, number: int, task: asyncio.Task[str]) -> None:
        """Whatever ended a worker, also one that was given up before its first step: placement hears of it."""
        started = pool.workers.pop(number, None) is not None
        del pool.tasks[number], pool.since_ms[number]
        given = pool.reasons.pop(number, None)
        error = None if task.cancelled() else task.exception()
        if error is not None and not isinstance(error, StartFailed):
            # A bug of ours: said, and the pool goes on.
            log.error("worker %s: %r", task.get_name(), error, exc_info=error)
            error = StartFailed(f"the engine failed: {error!r}; its log has the traceback")
        if not started:
            pool.note_start(error or StartFailed(given or "its start was given up"))
        now = self._time()
        if error is not None and not started:
            pool.failures[number] = error
            self._act(pool, pool.placement.start_failed(number, now))
            del pool.failures[number]
        else:
            reason = task.result() if error is None and not task.cancelled() else "the worker was not needed any more"
            self._act(pool, pool.placement.lost(number, given or (error.reason if error else reason), now))
        del pool.names[number]


_DOERS: dict[type, Callable[[Dispatcher, Pool, Any], None]] = {
    Start: Dispatcher._do_start,
    Stop: Dispatcher._do_stop,
    Kill: Dispatcher._do_kill,
    Recall: Dispatcher._do_recall,
    Interrupt: Dispatcher._do_interrupt,
    End: Dispatcher._do_end,
    FailStart: Dispatcher._do_fail_start,
}


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
