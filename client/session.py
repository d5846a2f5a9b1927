"""Calls from a program: arguments out, results in, through a connection to an engine."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterable, Iterator
from pathlib import Path
from typing import Any

from slipway.dsl.errors import (
    CallCancelled,
    CallLost,
    DeserializationError,
    ExecutionError,
    FunctionTimeoutError,
    SerializationError,
)
from slipway.dsl.session import FunctionRef, worker_app
from slipway.executor.worker import failure, payload
from slipway.executor.worker.frames import Frame, Outcome
from slipway.executor.worker.stream import NO_FD

from .connection import Connection, Mailbox, Waiter

WINDOW = 1000  # inputs of one map that are under way, or done and not yet asked for
MOST_TOGETHER = 128  # inputs that travel in one go; the first few go sooner
LONGEST_WAIT = 0.001  # seconds that an input waits for others to travel with
_RETURNED = int(Outcome.RETURNED)

Input = tuple[tuple[Any, ...], dict[str, Any]]


class EngineSession:
    """A `dsl` session: what `f.remote` and `f.map` of a program act through."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self._channels: dict[tuple[str, str], int] = {}
        if worker_app() is None:
            payload.look_into_main()

    def call(self, function: FunctionRef, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run a function in a worker; return its result, or raise what it raised."""
        packed = pack_arguments(function, args, kwargs)
        frame, fd = self.connection.call(self._channel(function), packed)
        return unpack_result(function, frame, fd)

    async def call_aio(self, function: FunctionRef, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        packed = pack_arguments(function, args, kwargs)
        frame, fd = await self.connection.call_aio(await self._channel_aio(function), packed)
        return unpack_result(function, frame, fd)

    def map(
        self, function: FunctionRef, inputs: Iterable[Input], *, order_outputs: bool, return_exceptions: bool
    ) -> Iterator[Any]:
        """One result for each input. When one fails, or nobody asks any more, what has not begun is cancelled."""
        connection = self.connection
        waiter = Waiter()
        work = _Map(self.connection, function, self._channel(function), waiter, order_outputs, return_exceptions)
        source = iter(inputs)
        try:
            while True:
                while work.wants_input:
                    try:
                        args, kwargs = next(source)
                    except StopIteration:
                        work.exhausted()
                        break
                    if work.take(args, kwargs) and connection.poll(waiter):
                        break  # something is done: give it out before taking more
                work.flush()
                if work.is_done:
                    return
                if not waiter.frames or not work.ready:
                    work.accept(*connection.wait_for(waiter))
                while waiter.frames:
                    work.accept(*waiter.frames.popleft())
                while work.ready:
                    yield work.next()
        finally:
            work.cancel()

    async def map_aio(
        self, function: FunctionRef, inputs: AsyncIterator[Input], *, order_outputs: bool, return_exceptions: bool
    ) -> AsyncIterator[Any]:
        """As `map`: inputs are taken while results come in."""
        import asyncio  # here a loop runs, so it is loaded

        mailbox = Mailbox(self.connection)
        channel = await self._channel_aio(function)
        work = _Map(self.connection, function, channel, mailbox.waiter, order_outputs, return_exceptions)
        source = inputs.__aiter__()
        taking: asyncio.Future[Input] | None = None
        hearing: asyncio.Future[tuple[Frame, int]] | None = None
        try:
            while True:
                if work.wants_input and taking is None:
                    taking = asyncio.ensure_future(source.__anext__())
                if hearing is None and work.under_way:
                    hearing = asyncio.ensure_future(mailbox.next())
                waiting = {future for future in (taking, hearing) if future is not None}
                if waiting:
                    await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                if taking is not None and taking.done():
                    done, taking = taking, None
                    try:
                        args, kwargs = done.result()
                        work.take(args, kwargs)
                    except StopAsyncIteration:
                        work.exhausted()
                    if mailbox.ready() or not work.wants_input:
                        work.flush()
                else:
                    work.flush()
                if hearing is not None and hearing.done():
                    heard, hearing = hearing, None
                    work.accept(*heard.result())
                    while mailbox.ready():
                        work.accept(*mailbox.waiter.frames.popleft())
                while work.ready:
                    yield work.next()
                if work.is_done:
                    return
        finally:
            for future in (taking, hearing):
                if future is not None:
                    future.cancel()
            work.cancel()

    def _channel(self, function: FunctionRef) -> int:
        channel = self._channels.get((function.app, function.name))
        if channel is None:
            channel = self.connection.open_function(function.app, function.name)
            self._channels[function.app, function.name] = channel
        return channel

    async def _channel_aio(self, function: FunctionRef) -> int:
        channel = self._channels.get((function.app, function.name))
        if channel is None:
            channel = await self.connection.open_function_aio(function.app, function.name)
            self._channels[function.app, function.name] = channel
        return channel


class _Map:
    """One map under way: inputs go out in bunches, results are brought in order."""

    def __init__(
        self,
        connection: Connection,
        function: FunctionRef,
        channel: int,
        waiter: Waiter,
        ordered: bool,
        exceptions: bool,
    ) -> None:
        self._connection = connection
        self._function = function
        self._channel = channel
        self._waiter = waiter
        self._ordered = ordered
        self._exceptions = exceptions
        self._indexes: dict[int, int] = {}  # id of a call under way → which input it is
        self._results: dict[int, tuple[Frame, int]] = {}  # which input → its result, until it is asked for
        self._bunch: list[bytes] = []
        self._bunch_size = 1  # grows: the first input starts a worker at once
        self._sent_at = 0.0
        self._taken = self._given = 0
        self._all_taken = False

    @property
    def wants_input(self) -> bool:
        return not self._all_taken and self._taken - self._given < WINDOW

    @property
    def under_way(self) -> bool:
        return bool(self._indexes)

    @property
    def ready(self) -> bool:
        """Whether the next result can be given out."""
        return (self._given in self._results) if self._ordered else bool(self._results)

    @property
    def is_done(self) -> bool:
        return self._all_taken and not self._indexes and not self._results

    def exhausted(self) -> None:
        self._all_taken = True

    def take(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        """Send an input, now or soon with others; tell whether something was sent."""
        packed = pack_arguments(self._function, args, kwargs)
        if packed.size >= payload.IN_MEMFD:
            self.flush()
            self._indexes[self._connection.submit(self._waiter, self._channel, packed)] = self._taken
            self._taken += 1
            return True
        ident, data = self._connection.prepare(self._waiter, self._channel, packed)
        self._indexes[ident] = self._taken
        self._taken += 1
        self._bunch.append(data)
        if len(self._bunch) >= self._bunch_size or time.monotonic() - self._sent_at > LONGEST_WAIT:
            self.flush()
            return True
        return False

    def flush(self) -> None:
        if self._bunch:
            bunch, self._bunch = self._bunch, []
            self._connection.send_prepared(b"".join(bunch))
            self._bunch_size = min(2 * self._bunch_size, MOST_TOGETHER)
            self._sent_at = time.monotonic()

    def accept(self, frame: Frame, fd: int) -> None:
        index = self._indexes.pop(frame.id)
        self._results[index] = frame, fd

    def next(self) -> Any:
        """The next result. Raises what the call raised, unless exceptions are asked for as results."""
        index = self._given if self._ordered else next(iter(self._results))
        frame, fd = self._results.pop(index)
        self._given += 1
        try:
            return unpack_result(self._function, frame, fd)
        except Exception as error:  # the user's function may have raised anything; it is passed on
            if not self._exceptions:
                raise
            return error

    def cancel(self) -> None:
        """Give up what is under way, where it has not begun, and let go of results that nobody asked for."""
        idents = list(self._indexes)
        for ident in idents:
            self._connection.forget(ident)
        if idents:
            self._connection.cancel(idents)
        self._indexes.clear()
        for frame_and_fd in (*self._results.values(), *self._waiter.frames):
            payload.discard(frame_and_fd[1])
        self._results.clear()
        self._waiter.frames.clear()


def pack_arguments(function: FunctionRef, args: tuple[Any, ...], kwargs: dict[str, Any]) -> payload.Packed:
    """Arguments as a payload. Raises `SerializationError` that names the one which can't be pickled."""
    try:
        return payload.dump((args, kwargs))
    except Exception as error:  # pickling runs the values' own code
        named = [*((f"argument {i + 1}", value) for i, value in enumerate(args)), *kwargs.items()]
        for name, value in named:
            payload.dump_or_refuse(value, f"{name} of {function.name} ({type(value).__name__})")
        raise SerializationError(f"the arguments of {function.name} can't be pickled: {error}") from error


def unpack_result(function: FunctionRef, frame: Frame, fd: int) -> Any:
    """What a RESULT frame stands for: the value, or an exception that is raised."""
    outcome = frame.outcome
    if outcome == _RETURNED:
        try:
            return payload.load(frame.payload) if fd == NO_FD else payload.load_fd(fd, frame.fd_length)
        except Exception as error:  # unpickling imports modules and runs their code
            raise DeserializationError(
                f"the result of {function.name} can't be read here: {type(error).__name__}: {error}",
                hint="A module that it needs may be missing in this environment.",
            ) from error
    data = bytes(frame.payload)
    payload.discard(fd)
    if outcome == Outcome.RAISED:
        raise failure.unpack(data)
    reason = data.decode(errors="replace")
    if outcome == Outcome.TIMED_OUT:
        raise FunctionTimeoutError(f"{function.name}: {reason}", hint="Say @app.function(timeout=...) for more time.")
    if outcome == Outcome.CANCELLED:
        raise CallCancelled(f"the call of {function.name} was cancelled: {reason}")
    if outcome == Outcome.LOST:
        raise CallLost(f"the call of {function.name} was lost: {reason}")
    raise ExecutionError(f"the engine gave an outcome that this program does not know: {outcome}")


def connect_worker(path: str) -> EngineSession:
    """The session of code in a worker that calls other functions, by a connection of its own."""
    return EngineSession(Connection.connect(Path(path)))
