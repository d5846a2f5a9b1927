"""Serving inputs where some of the code is asynchronous: as tasks of one loop. Runs in the container.

The loop is that of the hooks, too, and runs on the main thread. A plain method of such a class runs there as well,
while the loop stands still (so that it may block, and start a loop of its own); with several inputs at a time plain
methods run in threads instead.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections import deque
from functools import partial
from inspect import isawaitable
from typing import TYPE_CHECKING, Any

from slipway.dsl.errors import InvalidError

from . import payload
from .credit import Credit
from .ending import begin_deadline
from .plain import MainCarrier
from .server import ENDS, NO_RESULTS, Ended, Server
from .stream import StreamClosed

if TYPE_CHECKING:
    from types import FrameType

    from .output import Output
    from .served import Served
    from .server import Job, Piece
    from .stream import Stream


class _BetweenTasks(MainCarrier):
    """Carries out plain methods while the loop stands still."""

    def __init__(self, server: AsyncServer) -> None:
        super().__init__(server)
        self._async_server = server

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        super()._on_signal(number, frame)
        self._async_server.end_soon()


class AsyncServer(Server):
    """Inputs as tasks of one loop, as many at once as the declaration allows."""

    def __init__(self, link: Stream, control: Stream, served: Served, printed: Output) -> None:
        super().__init__(link, control, served, printed)
        self.loop = served.loop
        self.main = _BetweenTasks(self)
        self.waiting: deque[list[Piece]] = deque()
        self.tasks: set[asyncio.Task[None]] = set()
        self.active = 0  # inputs under way
        self.aside: Job | None = None  # what runs next, while the loop stands still
        self.ended: BaseException | None = None
        self.threads: Any = None

    def serve(self) -> None:
        loop = self.loop
        if self.concurrency > 1 and not all(target.is_async for target in self.served.targets):
            from .threads import Threads

            soon = loop.call_soon_threadsafe
            self.threads = Threads(self, lambda why: soon(self._end, why), lambda: soon(self._finished))
        loop.add_reader(self.link.sock, self._take)
        while self.ended is None:
            loop.run_forever()
            if self.aside is not None and self.ended is None:
                job, self.aside = self.aside, None
                try:
                    self.main.run(job)
                except (StreamClosed, Ended) as end:
                    self._end(end)
                del job
                self._finished()
        self._leave()
        raise self.ended

    # --- taking inputs in

    def _take(self) -> None:
        try:
            came = self.link.receive()
        except (BlockingIOError, InterruptedError):
            return
        except StreamClosed as closed:
            self._end(closed)
            return
        for piece in came:
            pieces = self.gather(piece)
            if pieces is not None:
                self.waiting.append(pieces)
        self._start()

    def _start(self) -> None:
        while self.waiting and self.active < self.concurrency and self.ended is None and self.main.ending is None:
            job = self.claim(self.waiting.popleft())
            if job is None:
                continue
            self.active += 1
            if job.target.is_async:
                task = self.loop.create_task(self._run(job))
                job.interrupt = partial(self.loop.call_soon_threadsafe, task.cancel)
                self.tasks.add(task)
                task.add_done_callback(self.tasks.discard)
            elif self.threads is not None:
                self.threads.put(job)
            else:
                self.aside = job
                self.loop.stop()

    def _finished(self) -> None:
        self.active -= 1
        if self.main.ending is not None and not self.active:
            self._end(self.main.why_ended())
        self._start()

    # --- carrying them out

    async def _run(self, job: Job) -> None:
        job.enter()
        error: BaseException | None = None
        value: Any = None
        try:
            try:
                value = await self._call(job)
            except BaseException as raised:  # noqa: BLE001 - the user's function may raise anything
                error = raised
            if os.getpid() != self.pid:
                self.leave_fork(error)
            broken_off = isinstance(error, asyncio.CancelledError) and not job.cancelled
            if not (broken_off and (self.main.ending is not None or self.ended is not None)):  # else it is for another
                self.finish(job, value, error)
            if isinstance(error, ENDS):
                raise Ended(signal.SIGINT)
        except (StreamClosed, Ended) as end:
            self._end(end)
        finally:
            error = value = None
            self.done(job)
            self._finished()

    async def _call(self, job: Job) -> Any:
        target = job.target
        args, kwargs = self.arguments(job)
        if job.cancelled:
            raise asyncio.CancelledError
        made = target.function(*args, **kwargs)
        if target.is_generator:
            return await self._stream(job, made)
        if not isawaitable(made):
            raise InvalidError(f"{target.name} is declared asynchronous but returned a {type(made).__name__}")
        result = await made
        if type(result) in NO_RESULTS:
            self.refuse(target, result)
        return result

    async def _stream(self, job: Job, made: Any) -> int:
        """Send a generator's items as its consumer takes them; how many they were."""
        items = _aiter(await made if isawaitable(made) else made, job.target.name)
        news = asyncio.Event()
        credit = job.credit = Credit(partial(self.loop.call_soon_threadsafe, news.set))
        count = 0
        try:
            async for item in items:
                if os.getpid() != self.pid:
                    self.leave_fork(None)
                packed = payload.dump_or_refuse(item, f"item {count} of {job.target.name}")
                while not credit.room():
                    news.clear()
                    if not credit.room():
                        await news.wait()
                credit.sent(packed.size)
                self.send_item(job, count, packed)
                count += 1
                del item, packed
            return count
        finally:
            close = getattr(items, "aclose", None)
            if close is not None:
                await close()  # of a generator that has not ended by itself: its `finally` blocks run

    # --- the end

    def end_soon(self) -> None:
        """A signal ends the worker: break off what runs. Called in the signal's handler."""
        self.loop.call_soon_threadsafe(self._break_off)

    def _break_off(self) -> None:
        for task in self.tasks:
            task.cancel()
        if not self.active:
            self._end(self.main.why_ended())

    def _end(self, why: BaseException) -> None:
        """Stop once, so that what is left on the loop can still be finished."""
        if self.ended is None:
            self.ended = why
            self.loop.remove_reader(self.link.sock)
            self.loop.stop()

    def _leave(self) -> None:
        """Let inputs that still run come to an end: there is nobody to answer."""
        begin_deadline()
        for task in self.tasks:
            task.cancel()
        if self.tasks:
            self.loop.run_until_complete(asyncio.gather(*self.tasks, return_exceptions=True))

    def cut_off(self) -> None:
        self.main.end(Ended())
        self.end_soon()


async def _plain_items(items: Any) -> Any:
    for item in items:
        yield item
        await asyncio.sleep(0)


def _aiter(made: Any, name: str) -> Any:
    if hasattr(made, "__aiter__"):
        return made.__aiter__()
    if hasattr(made, "__iter__"):
        return _plain_items(made)
    raise InvalidError(
        f"{name} is declared a generator and returned a {type(made).__name__}",
        hint="Let it yield, or return an asynchronous iterator.",
    )
