"""The lives of workers: starts them, ends them as placement says, and tells it what became of them."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Coroutine
from functools import partial
from math import inf
from typing import Any

from .actions import Actions, Kill, Start, Stop
from .ears import Ears
from .inputs import Input, Numbers
from .pool import Pool
from .ports import Clock
from .worker.frames import Frame
from .worker.host import Hooks, Place, StartFailed, start_worker
from .worker.logs import FROM_ENGINE, Line

log = logging.getLogger("slipway")


class Lives:
    """The lower half of `dispatch.Dispatcher`."""

    def __init__(self, place: Place, clock: Clock, ears: Ears, numbers: Numbers) -> None:
        self._place = place
        self._clock = clock
        self._ears = ears
        self._loop = asyncio.get_running_loop()
        self._time = self._loop.time
        self._inputs: dict[int, Input] = {}
        self.numbers = numbers
        self._leaving: set[asyncio.Task[None]] = set()

    # --- what the upper half does

    def _act(self, pool: Pool, actions: Actions) -> None:
        raise NotImplementedError

    def _on_result(self, pool: Pool, worker: int, frame: Frame, fd: int) -> None:
        raise NotImplementedError

    def _on_recalled(self, pool: Pool, worker: int, number: int, sequence: int, given_back: bool) -> None:
        raise NotImplementedError

    # --- what placement says

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
            pool.stirred.set()
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
