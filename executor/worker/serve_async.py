"""Serving inputs of an asynchronous function, as tasks of one loop. Runs in the container."""

from __future__ import annotations

import asyncio
import inspect
import os
from collections import deque

from slipway.dsl import context
from slipway.dsl.errors import InvalidError

from . import output
from .frames import Frame, Kind, Outcome
from .serve import Server
from .stream import NO_FD, StreamClosed


class AsyncServer(Server):
    """Inputs as tasks of one loop, as many at once as the declaration allows."""

    closed: StreamClosed | None = None

    def serve(self) -> None:
        self.loop = asyncio.new_event_loop()
        asyncio.set_event_loop(self.loop)
        self.waiting: deque[tuple[Frame, int]] = deque()
        self.tasks: dict[int, asyncio.Task[None]] = {}
        self.cancelled: set[int] = set()
        self.ended = False
        self.loop.add_reader(self.link.sock, self._take)
        self.loop.add_reader(self.control.sock, self._obey)
        try:
            self.loop.run_forever()
        finally:
            _finish(self.loop)
        if self.closed is not None:
            raise self.closed

    def _take(self) -> None:
        try:
            self.waiting.extend(self.link.receive())
        except (BlockingIOError, InterruptedError):
            return
        except StreamClosed as closed:
            self._end(closed)
            return
        self._start()

    def _end(self, closed: StreamClosed) -> None:
        """The engine is gone: stop once, so that what is left on the loop can still be finished."""
        if not self.ended:
            self.ended = True
            self.loop.remove_reader(self.link.sock)
            self.loop.stop()
            self.closed = closed

    def _start(self) -> None:
        while self.waiting and len(self.tasks) < self.concurrency and not self.ended:
            frame, fd = self.waiting.popleft()
            if frame.kind != Kind.CALL or not self.claim(frame):
                if fd != NO_FD:
                    os.close(fd)
                continue
            task = self.loop.create_task(self._run(frame, fd))
            self.tasks[frame.id] = task

    async def _run(self, frame: Frame, fd: int) -> None:
        call = frame.id
        context.input_id.set(f"in-{call:x}")
        context.function_call_id.set(f"fc-{call:x}")
        output.running.set(call)
        try:
            await self._call(call, frame, fd)
        except StreamClosed as closed:
            self._end(closed)
        finally:
            self.cancelled.discard(call)
            del self.tasks[call]
            self._start()

    async def _call(self, call: int, frame: Frame, fd: int) -> None:
        try:
            args, kwargs = self.arguments(frame, fd)
            result = self.function(*args, **kwargs)
            if not inspect.isawaitable(result):
                raise InvalidError(f"{self.name} is declared asynchronous but returned a {type(result).__name__}")
            value = self.check(await result)
            if os.getpid() != self.pid:
                self.leave_fork(None)
            self.result(call, value)
        except StreamClosed:
            raise
        except BaseException as error:  # noqa: BLE001 - the user's function may raise anything
            if os.getpid() != self.pid:
                self.leave_fork(error)
            if isinstance(error, asyncio.CancelledError) and call in self.cancelled:
                self.answer(call, Outcome.CANCELLED, b"cancelled while it ran")
            else:
                self.raised(call, error)

    def _obey(self) -> None:
        try:
            frames = self.control.receive()
        except (BlockingIOError, InterruptedError):
            return
        except StreamClosed:
            self.loop.remove_reader(self.control.sock)
            return
        for frame, _ in frames:
            if frame.kind == Kind.RECALL:
                self.give_back(frame)
            elif frame.kind == Kind.CANCEL and frame.id in self.tasks:
                self.cancelled.add(frame.id)
                self.tasks[frame.id].cancel()


def _finish(loop: asyncio.AbstractEventLoop) -> None:
    """Let what the user's code left on the loop end in order."""
    tasks = asyncio.all_tasks(loop)
    for task in tasks:
        task.cancel()
    if tasks:
        loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()
