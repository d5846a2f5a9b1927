"""Drives the pools: takes inputs in, acts on what `placement` decides, passes answers out, records what was.

Everything happens on the engine's loop. An input's payload is bytes (or a descriptor) on its way through; nothing here
looks into it.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Callable, Collection, Coroutine
from functools import partial
from math import inf
from typing import Any

from attrs import frozen

from .actions import (
    Actions,
    Again,
    Assign,
    AssignBatch,
    Back,
    End,
    FailStart,
    Interrupt,
    Kill,
    Pass,
    Recall,
    Start,
    Stop,
)
from .inputs import Input, Numbers
from .pool import Pool, PoolSpec
from .ports import CallRow, Clock
from .records import Records
from .scaling import PoolLimits
from .templates import Template
from .worker import failure
from .worker.frames import Flag, Frame, Kind, Outcome
from .worker.host import Hooks, Place, StartFailed, start_worker
from .worker.logs import FROM_ENGINE, Line
from .worker.wire import NO_FD

log = logging.getLogger("slipway")
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
    any input is over and another one follows: its outcome and the reason, while `attempts` and `worker_name` are those
    of the one that is over; `losses` counts it where it was lost. The end of the last attempt is the outcome, which
    `Input.send` gets. Durable inputs are in no record.
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
        self._answers: dict[int, tuple[Frame, int]] = {}  # of workers, which placement has not judged yet
        self.records = Records(clock, ears.on_records)
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
        self._ended = [ended for ended in self._ended if ended.is_busy] + ([] if pool is None else [pool])
        return pool

    def all_pools(self) -> tuple[Pool, ...]:
        """The pools that take calls, and those that are ending and have workers or inputs still."""
        return (*self.pools.values(), *(pool for pool in self._ended if pool.is_busy))

    async def _emptied(self, pool: Pool) -> None:
        while pool.is_busy:
            if pool.tasks:
                await asyncio.wait(tuple(pool.tasks.values()))
            else:  # its inputs rest between two attempts, or its workers between two starts
                pool.stirred.clear()
                await pool.stirred.wait()
        if pool.timer is not None:
            pool.timer.cancel()
        if pool.template is not None:
            await pool.template.close()

    async def drain(self) -> None:
        ending = [self._emptied(pool) for pool in self._ended]
        await asyncio.gather(*ending, *(self.drain_pool(key) for key in tuple(self.pools)))
        self.records.flush()

    async def close(self, reason: str = "the engine is shutting down") -> None:
        await asyncio.gather(*(self._close(pool, reason) for pool in self.all_pools()))
        if self._leaving:
            await asyncio.wait(tuple(self._leaving))
        self.records.flush()

    @property
    def busy(self) -> int:
        """Inputs that are not over."""
        return len(self._inputs)

    @property
    def inputs(self) -> Collection[Input]:
        """Those that are not over."""
        return self._inputs.values()

    def rescale(self, pool: Pool, limits: PoolLimits | None) -> None:
        """Other numbers of workers, and other times for them to stay; None: those of its declaration again."""
        self._act(pool, pool.placement.rescale(limits or pool.spec.limits, self._time()))

    # --- inputs

    def submit(self, given: Input) -> None:
        """Take an input; its `send` gets its RESULT, whatever happens. Its number is what to cancel it by."""
        pool = given.pool
        number = given.number
        given.submitted = now = self._time()
        self._inputs[number] = given
        if given.parent:
            self._begin_wait(given, now)
        losses = given.losses
        failures = given.attempts - losses
        traits = pool.traits[given.method]
        self._act(pool, pool.placement.submit(number, now, traits, given.depth, failures, losses))

    def _begin_wait(self, given: Input, now: float) -> None:
        """The input whose code makes a call waits for it; not for one that goes on without it."""
        parent = self._inputs.get(given.parent)
        if parent is not None and parent.worker and not given.durable:
            given.depth = parent.depth + 1
            given.awaited_by = parent.sequence
            self._act(parent.pool, parent.pool.placement.waits(parent.number, 1, now))

    def _end_wait(self, given: Input, now: float) -> None:
        parent = self._inputs.get(given.parent)
        if parent is not None and parent.sequence == given.awaited_by:  # and not another attempt of it
            parent.pool.placement.waits(parent.number, -1, now)

    def waits(self, number: int, delta: int) -> None:
        """The code of an input waits for so many more outcomes, or (negative) for that many fewer, besides those of the
        calls that are waited for as they are made."""
        given = self._inputs.get(number)
        if given is not None:
            self._act(given.pool, given.pool.placement.waits(number, delta, self._time()))

    def find(self, number: int) -> Input | None:
        """An input that is not over, by its number."""
        return self._inputs.get(number)

    def cancel(self, number: int, *, force: bool = False, terminate: bool = False) -> None:
        """Give an input up where it has not begun; with `force` also where it runs, and with `terminate` by killing its
        worker. Finished ones are let be."""
        given = self._inputs.get(number)
        if given is not None:
            cancel = given.pool.placement.cancel
            self._act(given.pool, cancel(number, self._time(), force=force, terminate=terminate))

    def taken(self, number: int, count: int) -> None:
        """The consumer of a generator took so many more of its items."""
        given = self._inputs.get(number)
        worker = given.pool.workers.get(given.worker) if given is not None else None
        if worker is not None:
            worker.taken(number, count)

    def _on_result(self, pool: Pool, worker: int, frame: Frame, fd: int) -> None:
        now = self._time()
        number = frame.id
        outcome = frame.outcome
        given = self._inputs.get(number)
        if frame.flags & _MORE:
            self._pass_item(pool, worker, given, frame, fd)
            return
        if given is None or given.worker != worker or given.pool is not pool:
            if fd != NO_FD:
                os.close(fd)
        elif outcome:
            self._answers[number] = frame, fd
        else:
            del self._inputs[number]
            answer = Frame(_RESULT, given.ident, frame.payload, 0, frame.flags & _FD, outcome, frame.fd_length)
            self._finish(given, answer, fd, "", now)
        placement = pool.placement
        actions = placement.finished(worker, number, outcome, now)
        if actions or placement.wake < pool.armed:
            self._act(pool, actions)
        if outcome:
            self._drop_answer(number)

    def _pass_item(self, pool: Pool, worker: int, given: Input | None, frame: Frame, fd: int) -> None:
        """An item of a generator, which does not end it; `channel` is its index."""
        if given is not None and given.worker == worker and given.pool is pool:
            if not given.streams:
                given.streams = True
                pool.placement.streams(given.number)
            flags = frame.flags & (_FD | _MORE)
            given.send(Frame(_RESULT, given.ident, frame.payload, frame.channel, flags, 0, frame.fd_length), fd)
        elif fd != NO_FD:
            os.close(fd)

    def _drop_answer(self, number: int) -> Frame | None:
        frame, fd = self._answers.pop(number, (None, NO_FD))
        if fd != NO_FD:
            os.close(fd)
        return frame

    def _finish(self, given: Input, answer: Frame, fd: int, reason: str, now: float) -> None:
        if given.fd != NO_FD:
            os.close(given.fd)
        given.payload = b""
        given.unsent = False
        pool = given.pool
        pool.done += 1
        pool.failed += answer.outcome != 0
        if given.awaited_by:
            self._end_wait(given, now)
        if pool.placement.draining:
            pool.stirred.set()
        given.send(answer, fd)
        if not given.durable:
            self.records.add(given, answer.outcome, reason, now)

    def _end(self, number: int, outcome: Outcome, data: bytes, reason: str) -> None:
        given = self._inputs.pop(number)
        self._finish(given, Frame(_RESULT, given.ident, data, 0, 0, outcome), NO_FD, reason, self._time())

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
        given = self._give(pool, *action)
        if given.durable:
            given.unsent = True
            self._ears.on_attempt(given, partial(self._go, given, given.sequence))
        else:
            self._send(given, 0)

    def _give(self, pool: Pool, number: int, target: int) -> Input:
        """An input is a worker's from now on."""
        given = self._inputs[number]
        pool.sequence = given.sequence = pool.sequence + 1
        given.attempts += 1
        given.worker = target
        given.worker_name = pool.names[target]
        given.started = self._time()
        return given

    def _go(self, given: Input, sequence: int) -> None:
        """An attempt was written down: it begins, unless it was taken back meanwhile."""
        if given.unsent and given.sequence == sequence:
            given.unsent = False
            self._send(given, 0)

    def _send(self, given: Input, more: int) -> None:
        fd = given.fd if given.fd == NO_FD else os.dup(given.fd)  # ours is kept: it may have to go to another
        flags = more if fd == NO_FD else more | _FD
        given.pool.workers[given.worker].call(
            Frame(_CALL, given.number, given.payload, given.sequence, flags, given.method, given.fd_length, given.call),
            fd,
        )

    def _do_assign_batch(self, pool: Pool, action: AssignBatch) -> None:
        """All that are durable are written down, then those that are left go as one."""
        members = [self._give(pool, number, action.worker) for number in action.numbers]
        waiting = {given.number for given in members if given.durable}
        sequences = [given.sequence for given in members]
        for given in members:
            given.unsent = True

        def send() -> None:
            left = [given for given, sequence in zip(members, sequences, strict=True) if given.sequence == sequence]
            left = [given for given in left if given.unsent]
            for given in left:
                given.unsent = False
                self._send(given, 0 if given is left[-1] else _MORE)

        def go(number: int) -> None:
            waiting.discard(number)
            if not waiting:
                send()

        if not waiting:
            send()
        for given in members:
            if given.durable:
                self._ears.on_attempt(given, partial(go, given.number))

    def _do_back(self, _pool: Pool, action: Back) -> None:
        given = self._inputs[action.number]
        given.attempts -= 1  # that was none
        given.worker = 0
        given.unsent = False

    def _do_again(self, _pool: Pool, action: Again) -> None:
        given = self._inputs[action.number]
        answer = self._drop_answer(action.number)
        reason = action.reason
        if answer is not None and not answer.flags & _FD:
            reason = failure.summary(bytes(answer.payload))
        given.losses += action.lost
        self._ears.on_attempt_over(given, action.outcome, reason)
        given.worker = 0  # what it says of this attempt from now on is not heard
        given.unsent = False

    def _do_pass(self, _pool: Pool, action: Pass) -> None:
        frame, fd = self._answers.pop(action.number)
        given = self._inputs.pop(action.number)
        answer = Frame(_RESULT, given.ident, frame.payload, 0, frame.flags & _FD, frame.outcome, frame.fd_length)
        self._finish(given, answer, fd, "", self._time())

    def _do_start(self, pool: Pool, action: Start) -> None:
        name = f"w{self.numbers.next_worker()}-{os.getpid()}"
        pool.names[action.worker] = name
        pool.since_ms[action.worker] = self._clock.now_ms()
        task = pool.tasks[action.worker] = self._loop.create_task(self._live(pool, action.worker, name), name=name)
        task.add_done_callback(partial(self._bury, pool, action.worker))
        pool.stirred.set()

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
        self._act(pool, pool.placement.let_go(number, self._time(), kill=not graceful))
        return task

    def _leave(self, ending: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(ending)
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)

    def _do_recall(self, pool: Pool, action: Recall) -> None:
        worker, number = action
        given = self._inputs[number]
        if given.unsent:  # the worker does not know of it: the answer is ours
            given.unsent = False
            self._loop.call_soon(self._on_recalled, pool, worker, number, given.sequence, True)
        else:
            pool.workers[worker].recall(number, given.sequence)

    def _do_interrupt(self, pool: Pool, action: Interrupt) -> None:
        worker, number = action
        given = self._inputs[number]
        if given.unsent:
            given.unsent = False
            self._loop.call_soon(self._answer_unsent, pool, worker, number)
        else:
            pool.workers[worker].interrupt(number, given.sequence)

    def _answer_unsent(self, pool: Pool, worker: int, number: int) -> None:
        """What a worker that does not know of an input would say when it is told to give it up."""
        if worker in pool.workers:
            self._on_result(pool, worker, Frame(_RESULT, number, outcome=int(Outcome.CANCELLED)), NO_FD)

    def _do_end(self, _pool: Pool, action: End) -> None:
        self._end(action.number, action.outcome, action.reason.encode(), action.reason)

    def _do_fail_start(self, pool: Pool, action: FailStart) -> None:
        trouble = pool.failures[action.worker]
        if trouble.payload is not None:
            self._end(action.number, Outcome.RAISED, trouble.payload, f"start-up failed: {trouble.reason}")
        else:
            self._end(action.number, Outcome.LOST, trouble.reason.encode(), trouble.reason)

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
        worker = pool.workers.pop(number, None)
        started = worker is not None
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
        asked = pool.placement.workers[number].stopping
        if error is not None and not started:
            self._say(pool, task.get_name(), f"the worker could not be started: {error.reason}")
            pool.failures[number] = error
            self._act(pool, pool.placement.start_failed(number, now))
            del pool.failures[number]
        else:
            reason = task.result() if error is None and not task.cancelled() else "the worker was not needed any more"
            reason = given or (error.reason if error else reason)
            if given or not asked:
                self._say(pool, task.get_name(), reason)
            unsent = {call for call in pool.placement.workers[number].calls if self._is_unsent(call, number)}
            end = worker.exit if worker is not None else None
            self._act(pool, pool.placement.lost(number, end, reason, now, unsent))
            pool.death = reason
        del pool.names[number]

    def _say(self, pool: Pool, worker: str, text: str) -> None:
        """A line in the app's log about a worker; what it printed last stands there already."""
        head = text.partition("\n")[0].removesuffix("; the last it printed:")
        self._ears.on_line(pool.spec, worker, Line(FROM_ENGINE, None, head))

    def _is_unsent(self, number: int, worker: int) -> bool:
        given = self._inputs.get(number)
        return given is not None and given.worker == worker and given.unsent


_DOERS: dict[type, Callable[[Dispatcher, Pool, Any], None]] = {
    AssignBatch: Dispatcher._do_assign_batch,
    Back: Dispatcher._do_back,
    Again: Dispatcher._do_again,
    Pass: Dispatcher._do_pass,
    Start: Dispatcher._do_start,
    Stop: Dispatcher._do_stop,
    Kill: Dispatcher._do_kill,
    Recall: Dispatcher._do_recall,
    Interrupt: Dispatcher._do_interrupt,
    End: Dispatcher._do_end,
    FailStart: Dispatcher._do_fail_start,
}
