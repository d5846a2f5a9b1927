"""Drives the pools: takes inputs in, acts on what `placement` decides, passes answers out, records what was.

Everything happens on the engine's loop. An input's payload is bytes (or a descriptor) on its way through; nothing here
looks into it.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Collection
from functools import partial
from typing import Any

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
from .ears import Ears
from .inputs import Input, Numbers
from .lives import Lives
from .pool import Pool, PoolSpec
from .ports import Clock
from .records import Records
from .scaling import PoolLimits
from .templates import Template
from .worker import failure
from .worker.credit import Credit
from .worker.frames import Flag, Frame, Kind, Outcome
from .worker.host import Place
from .worker.logs import masked
from .worker.wire import NO_FD

_FD = int(Flag.FD)
_MORE = int(Flag.MORE)
_CALL = int(Kind.CALL)
_RESULT = int(Kind.RESULT)


class Dispatcher(Lives):
    """Every pool of one runtime. The owner calls `close` in the end."""

    def __init__(self, place: Place, clock: Clock, ears: Ears, numbers: Numbers | None = None) -> None:
        super().__init__(place, clock, ears, numbers or Numbers(clock))
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
        if given is not None and given.credit is not None:
            given.credit.took(count)
            worker = given.pool.workers.get(given.worker)
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
            if given.credit is None:
                given.credit = Credit()
                pool.placement.streams(given.number)
            if not given.credit.room():  # a worker of ours waits; what it sends nevertheless would fill our memory
                self.end_worker(pool, worker, "the worker sent more items than were asked for", graceful=False)
                if fd != NO_FD:
                    os.close(fd)
                return
            given.credit.sent(frame.fd_length or len(frame.payload))
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
        fd, length, flags = NO_FD, 0, more
        if given.fd != NO_FD:
            fd, length, flags = os.dup(given.fd), given.fd_length, more | _FD  # ours is kept: it may go to another
        frame = Frame(_CALL, given.number, given.payload, given.sequence, flags, given.method, length, given.call)
        given.pool.workers[given.worker].call(frame, fd)

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
            reason = masked(failure.summary(bytes(answer.payload)), given.pool.spec.worker.secrets)
        given.losses += action.lost
        self._ears.on_attempt_over(given, action.outcome, reason)
        given.worker = 0  # what it says of this attempt from now on is not heard
        given.unsent = False

    def _do_pass(self, _pool: Pool, action: Pass) -> None:
        frame, fd = self._answers.pop(action.number)
        given = self._inputs.pop(action.number)
        answer = Frame(_RESULT, given.ident, frame.payload, 0, frame.flags & _FD, frame.outcome, frame.fd_length)
        self._finish(given, answer, fd, "", self._time())

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
