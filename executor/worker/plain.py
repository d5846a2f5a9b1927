"""Carrying out inputs of plain functions and generators: on the main thread, or in threads. Runs in the container."""

from __future__ import annotations

import os
import signal
import threading
from types import CoroutineType
from typing import TYPE_CHECKING, Any

from slipway.dsl.errors import InputCancellation, InvalidError

from . import output, payload
from .ending import begin_deadline, let_signals_be
from .server import ENDS, NO_RESULTS, Ended

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

    from .served import Target
    from .server import Job, Server


class Carrier:
    """Carries out jobs in whatever thread it is called in. Code that is given up is let go between two items."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.current: Job | None = None  # on the main thread: whose code runs, while a signal may raise in it
        self.ending: int | None = None  # the signal that ends the worker; 0: something else does
        self.why: BaseException | None = None  # what ends it, where that is not a signal

    def run(self, job: Job) -> None:
        """Carry out a job and answer it. Raises `Ended` or `StreamClosed` where that is the worker's end."""
        server, target = self.server, job.target
        job.enter()
        error: BaseException | None = None
        args: Any = None
        kwargs: Any = None
        value: Any = None
        try:
            try:
                args, kwargs = server.arguments(job)
                self.begin(job)
                value = target.function(*args, **kwargs)
                if target.is_generator:
                    value = self._stream(job, value)
                elif type(value) in NO_RESULTS:
                    server.refuse(target, value)
            finally:
                self.current = None  # from here on nothing is raised by a signal
        except BaseException as raised:  # noqa: BLE001 - the user's function may raise anything, SystemExit too
            error = raised
        if os.getpid() != server.pid:
            server.leave_fork(error)
        try:
            if self.ending is not None and isinstance(error, KeyboardInterrupt):
                raise self.why_ended()  # it did not end by itself: it is for another worker
            server.finish(job, value, error)
            if isinstance(error, ENDS):
                raise Ended(signal.SIGINT)
        finally:
            server.done(job)
            output.running.set(None)
            error = value = args = kwargs = None  # not kept until the next input, nor by the traceback's cycle

    def why_ended(self) -> BaseException:
        """What to raise at the worker's end."""
        return self.why or Ended(self.ending or 0)

    def begin(self, job: Job) -> None:
        """The user's code comes next."""
        if job.cancelled:
            raise InputCancellation("the call was cancelled")

    def _stream(self, job: Job, made: Any) -> int:
        """Send a generator's items as its consumer takes them; how many they were."""
        from .credit import Credit  # here, like what else not every worker needs: its start is to be quick

        self.current = None
        server, items = self.server, _iterate(job.target, made)
        credit = job.credit = Credit()
        job.interrupt = job.interrupt or credit.wake
        count = 0
        try:
            while True:
                self.begin(job)
                try:
                    item = next(items)
                except StopIteration:
                    return count
                finally:
                    self.current = None
                if os.getpid() != server.pid:
                    server.leave_fork(None)
                packed = payload.dump_or_refuse(item, f"item {count} of {job.target.name}")
                while not credit.room():
                    self.begin(job)
                    try:
                        credit.sleep()
                    finally:
                        self.current = None
                credit.sent(packed.size)
                server.send_item(job, count, packed)
                count += 1
                del item, packed
        finally:
            close = getattr(items, "close", None)
            if close is not None:
                close()  # of a generator that has not ended by itself: its `finally` blocks run


def _iterate(target: Target, made: Any) -> Iterator[Any]:
    if isinstance(made, CoroutineType):
        made.close()
    elif hasattr(made, "__iter__"):
        return iter(made)
    way = "Declare it with `async def`." if hasattr(made, "__aiter__") or isinstance(made, CoroutineType) else ""
    raise InvalidError(
        f"{target.name} is declared a generator and returned a {type(made).__name__}",
        hint=way or "Let it yield, or return an iterator.",
    )


class MainCarrier(Carrier):
    """Carries out jobs on the main thread, where signals can break them off."""

    def __init__(self, server: Server) -> None:
        super().__init__(server)
        self.waiting = False  # nothing runs, and the worker's end may be raised

    def watch(self) -> None:
        """Take the signals; processes that the user's code forks do not."""
        signal.signal(signal.SIGUSR1, self._on_poke)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._on_signal)
        os.register_at_fork(after_in_child=let_signals_be)

    def begin(self, job: Job) -> None:
        job.interrupt = self.poke
        self.current = job
        if self.ending is not None:
            self.current = None
            raise KeyboardInterrupt
        if job.cancelled:
            self.current = None
            raise InputCancellation("the call was cancelled")

    @property
    def is_due(self) -> bool:
        """Whether the user's code is to be broken off, and has not been."""
        job = self.current
        return job is not None and (job.cancelled or self.ending is not None)

    def wait(self, receive: Callable[[], Any]) -> Any:
        """Wait for something while nothing runs. Raises what ends the worker."""
        self.waiting = True
        if self.ending is not None:
            raise self.why_ended()
        came = receive()
        self.waiting = False
        return came

    def poke(self) -> None:
        """Have the main thread look whether what it runs has been given up. Called in other threads."""
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)

    def end(self, why: BaseException) -> None:
        """Have the main thread come to the worker's end. Called in other threads."""
        if self.ending is None:
            self.ending = why.number if isinstance(why, Ended) else 0
            self.why = why
            begin_deadline()
        self.poke()

    def _on_poke(self, number: int, frame: FrameType | None) -> None:
        job = self.current
        if self.ending is not None:
            self._break_off(frame)
        elif job is not None and job.cancelled and not output.is_writing(frame):
            self.current = None
            raise InputCancellation("the call was cancelled")

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self.ending is None:
            self.ending = number
            begin_deadline()
        self._break_off(frame)

    def _break_off(self, frame: FrameType | None) -> None:
        """Raise in what runs, or where nothing does; elsewhere it is seen soon."""
        if self.current is not None and not output.is_writing(frame):
            self.current = None
            raise KeyboardInterrupt
        if self.waiting:
            self.waiting = False
            raise self.why_ended()
