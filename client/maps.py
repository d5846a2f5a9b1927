"""A map under way: inputs go out while results come in, no more of them at a time than a window holds."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from slipway.executor.worker import payload

from .outbox import Outbox
from .packing import unpack_result
from .waiter import Mailbox, Waiter

if TYPE_CHECKING:
    import asyncio

    from slipway.dsl.session import FunctionRef, Input
    from slipway.executor.worker.frames import Frame

    from .channels import Channels
    from .connection import Connection

WINDOW = 1000  # inputs of one map that are under way, or done and not yet asked for


class How(NamedTuple):
    """How results are wanted: in the order of the inputs or as they come, failures raised or as results."""

    ordered: bool
    exceptions: bool


class Mapping:
    """Which inputs are under way, and the results that nobody has asked for yet."""

    def __init__(self, outbox: Outbox, name: str, how: How) -> None:
        self._outbox = outbox
        self._name = name
        self._ordered, self._exceptions = how
        self._indexes: dict[int, int] = {}  # id of a call under way → which input it is
        self._results: dict[int, tuple[Frame, int]] = {}  # which input → its result, until it is asked for
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
        self._indexes[self._outbox.put(args, kwargs)] = self._taken
        self._taken += 1
        return self._outbox.has_sent

    def accept(self, frame: Frame, fd: int) -> None:
        index = self._indexes.pop(frame.id)
        self._results[index] = frame, fd

    def next(self) -> Any:
        """The next result. Raises what the call raised, unless exceptions are asked for as results."""
        index = self._given if self._ordered else next(iter(self._results))
        frame, fd = self._results.pop(index)
        self._given += 1
        try:
            return unpack_result(self._name, frame, fd)
        except Exception as error:  # the user's function may have raised anything; it is passed on
            if not self._exceptions:
                raise
            return error

    def end(self) -> None:
        """Give up what is under way, where it has not begun, and let go of results that nobody asked for."""
        self._outbox.give_up(list(self._indexes))
        self._indexes.clear()
        for _, fd in self._results.values():
            payload.discard(fd)
        self._results.clear()


def results_of(
    connection: Connection, channels: Channels, function: FunctionRef, inputs: Iterable[Input], how: How
) -> Iterator[Any]:
    """One result for each input. When one fails, or nobody asks any more, what has not begun is cancelled."""
    waiter = Waiter()
    channel = channels.together(function, "map").channel
    outbox = Outbox(connection, waiter, function.title, channel)
    work = Mapping(outbox, function.title, how)
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
            outbox.flush()
            if work.is_done:
                return
            if not waiter.frames or not work.ready:
                work.accept(*connection.wait_for(waiter))
            while waiter.frames:
                work.accept(*waiter.frames.popleft())
            while work.ready:
                yield work.next()
    finally:
        work.end()
        channels.close(channel)


async def results_of_aio(
    connection: Connection, channels: Channels, function: FunctionRef, inputs: AsyncIterator[Input], how: How
) -> AsyncIterator[Any]:
    """As `results_of`: inputs are taken while results come in."""
    import asyncio  # here a loop runs, so it is loaded

    mailbox = Mailbox(connection)
    channel = (await channels.together_aio(function, "map")).channel
    outbox = Outbox(connection, mailbox.waiter, function.title, channel)
    work = Mapping(outbox, function.title, how)
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
                    work.take(*done.result())
                except StopAsyncIteration:
                    work.exhausted()
                if mailbox.ready() or not work.wants_input:
                    outbox.flush()
            else:
                outbox.flush()
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
        work.end()
        channels.close(channel)
