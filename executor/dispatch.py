"""Drives the pools: takes inputs in, acts on what `placement` decides, passes answers out, records what was.

Everything happens on the engine's loop. An input's payload is bytes (or a descriptor) on its way through; nothing here
looks into it.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Callable, Coroutine
from functools import partial
from math import inf
from typing import Any

from attrs import frozen

from .inputs import Input, Numbers
from .placement import Actions, Assign, End, FailStart, Interrupt, Kill, Recall, Start, Stop
from .pool import Pool, PoolSpec
from .ports import CallRow, Clock
from .templates import Template
from .worker.frames import Flag, Frame, Kind, Outcome
from .worker.host import Hooks, Place, StartFailed, start_worker
from .worker.logs import Line
from .worker.wire import NO_FD

log = logging.getLogger("slipway")
RECORD_EVERY = 0.25  # seconds
RECORD_AT = 512  # calls
_FD = int(Flag.FD)
_MORE = int(Flag.MORE)
_CALL = int(Kind.CALL)
_RESULT = int(Kind.RESULT)


@frozen(kw_only=True)
class Ears:
    """Who hears what happens: `on_records` gets finished inputs in batches; `on_client` a connection that code in a
    worker has opened to call other functions.

    `on_attempt` hears of the attempts of durable inputs before they begin (`attempts` counts this one already, and
    `worker_name` is set); the input is sent when it calls what it got, once. `on_attempt_over` hears that an attempt of
    any input is over and another one follows: its outcome and the reason, while `attempts`, `losses` and `worker_name`
    are still those of the one that is over. The end of the last attempt is the outcome, which `Input.send` gets.
    """

    on_records: Callable[[list[CallRow]], None]
    on_line: Callable[[PoolSpec, str, Line], None]
    on_client: Callable[[PoolSpec, str, socket.socket], None]
    on_attempt: Callable[[Input, Callable[[], None]], None] = lambda _given, go: go()
    on_attempt_over: Callable[[Input, Outcome, str], None] = lambda _given, _outcome, _reason: None


class Dispatcher:
    """Every pool of one runtime. The owner calls `close` in the end."""

    def __init__(self, place: Place, clock: Clock, ears: Ears, numbers: Numbers | None = None) -> None:
        self._place = place
        self._clock = clock
        self._ears = ears
        self._loop = asyncio.get_running_loop()
        self._time = self._loop.time
        self._inputs: dict[int, Input] = {}
        self.numbers = numbers or Numbers(clock)
        self._leaving: set[asyncio.Task[None]] = set()
        self._records: list[tuple[Input, int, str, float]] = []
        self._record_timer: asyncio.TimerHandle | None = None
        self.pools: dict[str, Pool] = {}
        self._ended: list[Pool] = []  # taken out of `pools`, and some with workers still

    # --- pools

    def open_pool(self, spec: PoolSpec) -> Pool:
        """The pool of this key, made where there is none yet."""
        pool = self.pools.get(spec.key)
        if pool is None:
            template = Template(spec.worker, self._place) if spec.worker.function.snapshot else None
            pool = self.pools[spec.key] = Pool(spec, template)
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
        if pool.template is not None:
            await pool.template.close()

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
        """Inputs that are not over."""
        return len(self._inputs)

    # --- inputs

    def submit(self, given: Input) -> None:
        """Take an input; its `send` gets its RESULT, whatever happens. Its number is what to cancel it by."""
        pool = given.pool
        given.submitted = now = self._time()
        self._inputs[given.number] = given
        self._act(pool, pool.placement.submit(given.number, now))

    def find(self, number: int) -> Input | None:
        """An input that is not over, by its number."""
        return self._inputs.get(number)

    def cancel(self, number: int, *, force: bool = False) -> None:
        """Give an input up where it has not begun; with `force` also where it runs. Finished ones are let be."""
        given = self._inputs.get(number)
        if given is not None:
            self._act(given.pool, given.pool.placement.cancel(number, self._time(), force=force))

    def taken(self, number: int, count: int) -> None:
        """The consumer of a generator took so many more of its items."""
        given = self._inputs.get(number)
        worker = given.pool.workers.get(given.worker) if given is not None else None
        if worker is not None:
            worker.taken(number, count)

    def _on_result(self, pool: Pool, worker: int, frame: Frame, fd: int) -> None:
        now = self._time()
        number = frame.id
        given = self._inputs.get(number)
        if frame.flags & _MORE:
            self._pass_item(pool, worker, given, frame, fd)
            return
        if given is not None and given.worker == worker and given.pool is pool:
            del self._inputs[number]
            outcome = frame.outcome
            answer = Frame(_RESULT, given.ident, frame.payload, 0, frame.flags & _FD, outcome, frame.fd_length)
            self._finish(given, answer, fd, "", now)
        elif fd != NO_FD:
            os.close(fd)
        placement = pool.placement
        actions = placement.finished(worker, number, frame.outcome, now)
        if actions or placement.wake < pool.armed:
            self._act(pool, actions)

    def _pass_item(self, pool: Pool, worker: int, given: Input | None, frame: Frame, fd: int) -> None:
        """An item of a generator, which does not end it; `channel` is its index."""
        if given is not None and given.worker == worker and given.pool is pool:
            given.items += 1
            flags = frame.flags & (_FD | _MORE)
            given.send(Frame(_RESULT, given.ident, frame.payload, frame.channel, flags, 0, frame.fd_length), fd)
        elif fd != NO_FD:
            os.close(fd)

    def _finish(self, given: Input, answer: Frame, fd: int, reason: str, now: float) -> None:
        if given.fd != NO_FD:
            os.close(given.fd)
        given.payload = b""
        pool = given.pool
        pool.done += 1
        pool.failed += answer.outcome != 0
        given.send(answer, fd)
        records = self._records
        records.append((given, answer.outcome, reason, now))
        if self._record_timer is None:
            self._record_timer = self._loop.call_later(RECORD_EVERY, self._flush_records)
        elif len(records) >= RECORD_AT:
            self._flush_records()

    def _end(self, number: int, outcome: Outcome, data: bytes, reason: str) -> None:
        given = self._inputs.pop(number)
        self._finish(given, Frame(_RESULT, given.ident, data, 0, 0, outcome), NO_FD, reason, self._time())

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
                    number=given.number,
                    call=given.call,
                    index=given.index,
                    run=given.pool.spec.app,
                    app=given.pool.spec.worker.function.app,
                    function=given.pool.spec.function,
                    method=given.pool.method_name(given.method),
                    parent=given.parent,
                    worker=given.worker_name,
                    attempts=given.attempts,
                    losses=given.losses,
                    submitted_ms=int(offset + given.submitted * 1000),
                    started_ms=int(offset + given.started * 1000) if given.started else None,
                    finished_ms=int(offset + finished * 1000),
                    outcome=outcome,
                    reason=reason,
                )
                for given, outcome, reason, finished in records
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
        given = self._inputs[number]
        pool.sequence = given.sequence = pool.sequence + 1
        given.worker = target
        given.worker_name = pool.names[target]
        given.started = self._time()
        fd = given.fd if given.fd == NO_FD else os.dup(given.fd)  # ours is kept: it may have to go to another
        flags = 0 if fd == NO_FD else _FD
        pool.workers[target].call(
            Frame(_CALL, number, given.payload, given.sequence, flags, given.method, given.fd_length, given.call), fd
        )

    def _do_start(self, pool: Pool, action: Start) -> None:
        name = f"w{self.numbers.next_worker()}-{os.getpid()}"
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
        pool.workers[action.worker].recall(action.call, self._inputs[action.call].sequence)

    def _do_interrupt(self, pool: Pool, action: Interrupt) -> None:
        given = self._inputs.get(action.call)  # one that took too long is over, and may run all the same
        pool.workers[action.worker].interrupt(action.call, 0 if given is None else given.sequence)

    def _do_end(self, pool: Pool, action: End) -> None:
        self._end(action.call, action.outcome, action.reason.encode(), action.reason)

    def _do_fail_start(self, pool: Pool, action: FailStart) -> None:
        failure = pool.failures[action.worker]
        if failure.payload is not None:
            self._end(action.call, Outcome.RAISED, failure.payload, f"start-up failed: {failure.reason}")
        else:
            self._end(action.call, Outcome.LOST, failure.reason.encode(), failure.reason)

    def _on_recalled(self, pool: Pool, worker: int, number: int, sequence: int, given_back: bool) -> None:
        given = self._inputs.get(number)
        if given is not None and given.worker == worker and given.sequence == sequence:
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
        if pool.template is None:
            worker = await start_worker(name, pool.spec.worker, self._place, hooks)
        else:
            worker = await pool.template.start_worker(name, hooks)
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
