"""Who waits for frames: a thread that sleeps, or a task of an event loop."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from slipway.executor.worker.frames import Frame

if TYPE_CHECKING:
    import asyncio

    from .connection import Connection


class Waiter:
    """Gets the frames of one id, or of many. `put` is called by whichever thread reads."""

    __slots__ = ("_awake", "frames", "loop", "wake_loop")

    def __init__(
        self, loop: asyncio.AbstractEventLoop | None = None, wake_loop: Callable[[], None] | None = None
    ) -> None:
        self.frames: deque[tuple[Frame, int]] = deque()
        self.loop = loop
        self.wake_loop = wake_loop
        self._awake = threading.Lock()  # held while the waiter sleeps
        self._awake.acquire()

    def put(self, frame: Frame, fd: int) -> None:
        first = not self.frames
        self.frames.append((frame, fd))
        if first:
            self.wake()

    def wake(self) -> None:
        if self.loop is not None and self.wake_loop is not None:
            try:
                self.loop.call_soon_threadsafe(self.wake_loop)
            except RuntimeError:
                pass  # the loop has ended, and with it whoever waited
        elif self._awake.locked():
            try:
                self._awake.release()
            except RuntimeError:
                pass  # somebody else woke it at the same moment

    def sleep(self) -> None:
        self._awake.acquire()


class Mailbox:
    """A waiter for one task of an event loop."""

    def __init__(self, connection: Connection) -> None:
        import asyncio  # a program that never awaits need not load it

        self._connection = connection
        self._event = asyncio.Event()
        self.waiter = Waiter(asyncio.get_running_loop(), self._event.set)
        connection.ensure_reader()

    async def next(self) -> tuple[Frame, int]:
        frames = self.waiter.frames
        while not frames:
            if self._connection.closed:
                raise self._connection._loss()
            self._event.clear()
            if not frames and not self._connection.closed:
                await self._event.wait()
        return frames.popleft()

    def ready(self) -> bool:
        return bool(self.waiter.frames)
