"""The items of a generator, each as it comes. What its consumer has taken is acknowledged, so that it goes on."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Any

from slipway.executor.worker import payload
from slipway.executor.worker.frames import Flag, Frame

from .channels import ITEMS, Channels
from .packing import calling_input, pack_arguments, unpack_result, unpack_value
from .waiter import Mailbox, Waiter

if TYPE_CHECKING:
    from slipway.dsl.session import FunctionRef

    from .connection import Connection

MANY = 128  # items; half of what may be under way
MUCH = 4 << 20  # bytes; a quarter of that
_MORE = int(Flag.MORE)


class _Stream:
    """One generator under way."""

    def __init__(self, connection: Connection, name: str, waiter: Waiter, channel: int, packed: payload.Packed) -> None:
        self._connection = connection
        self._name = name
        self._waiter = waiter
        self._taken = self._bytes = 0  # since the last acknowledgement
        self.ended = False
        self._ident = connection.submit(waiter, channel, packed, calling_input())

    def take(self, frame: Frame, fd: int) -> Any:
        """The item of a frame. At the generator's end `ended` is set, or what it raised is raised."""
        if not frame.flags & _MORE:
            self.ended = True
            return unpack_result(self._name, frame, fd)
        self._taken += 1
        self._bytes += len(frame.payload) + frame.fd_length
        if self._taken >= MANY or self._bytes >= MUCH:
            self.acknowledge()
        return unpack_value(self._name, frame, fd)

    def acknowledge(self) -> None:
        if self._taken:
            self._connection.taken(self._ident, self._taken)
            self._taken = self._bytes = 0

    def close(self) -> None:
        """End the generator where it has not ended, and let go of what nobody asked for."""
        self._connection.forget(self._ident)
        if not self.ended:
            self._connection.cancel([self._ident], force=True)
        for _, fd in self._waiter.frames:
            payload.discard(fd)
        self._waiter.frames.clear()


def items_of(
    connection: Connection, channels: Channels, function: FunctionRef, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Iterator[Any]:
    """The items of a generator that is called with these arguments."""
    waiter = Waiter()
    packed = pack_arguments(function.title, args, kwargs)
    stream = _Stream(connection, function.title, waiter, channels.of(function, ITEMS), packed)
    try:
        while True:
            item = stream.take(*connection.wait_for(waiter))
            if stream.ended:
                return
            yield item
            item = None  # not kept while the next one is waited for
    finally:
        stream.close()


async def items_of_aio(
    connection: Connection, channels: Channels, function: FunctionRef, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> AsyncIterator[Any]:
    """As `items_of`, in async code."""
    mailbox = Mailbox(connection)
    packed = pack_arguments(function.title, args, kwargs)
    channel = await channels.of_aio(function, ITEMS)
    stream = _Stream(connection, function.title, mailbox.waiter, channel, packed)
    try:
        while True:
            item = stream.take(*(await mailbox.next()))
            if stream.ended:
                return
            yield item
            item = None
    finally:
        stream.close()
