"""Many calls on one channel: the first at once, the others in bunches that grow."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from slipway.executor.worker import payload

from .packing import calling_input, pack_arguments

if TYPE_CHECKING:
    from .connection import Connection
    from .waiter import Waiter

MOST_TOGETHER = 128  # inputs that travel in one go; the first few go sooner
LONGEST_WAIT = 0.001  # seconds that an input waits for others to travel with


class Outbox:
    """Their answers go to one waiter, by their ids."""

    def __init__(self, connection: Connection, waiter: Waiter, name: str, channel: int, flags: int = 0) -> None:
        self._connection = connection
        self._waiter = waiter
        self._name = name
        self._channel = channel
        self._flags = flags
        self._parent = calling_input()
        self._bunch: list[bytes] = []
        self._bunch_size = 1
        self._sent_at = 0.0
        self.has_sent = False  # whether the last input went out, and did not only join a bunch

    def put(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> int:
        """Send an input, now or soon with others; its id."""
        packed = pack_arguments(self._name, args, kwargs)
        if packed.size >= payload.IN_MEMFD:
            self.flush()
            self.has_sent = True
            return self._connection.submit(self._waiter, self._channel, packed, self._parent, self._flags)
        ident, data = self._connection.prepare(self._waiter, self._channel, packed, self._parent, self._flags)
        bunch = self._bunch
        bunch.append(data)
        self.has_sent = len(bunch) >= self._bunch_size or time.monotonic() - self._sent_at > LONGEST_WAIT
        if self.has_sent:
            self.flush()
        return ident

    def flush(self) -> None:
        if self._bunch:
            bunch, self._bunch = self._bunch, []
            self._connection.send(b"".join(bunch))
            self._bunch_size = min(2 * self._bunch_size, MOST_TOGETHER)
            self._sent_at = time.monotonic()

    def give_up(self, idents: list[int]) -> None:
        """Cancel what was sent and not answered, where it has not begun; nobody hears of it any more."""
        self._bunch.clear()
        for ident in idents:
            self._connection.forget(ident)
        if idents:
            self._connection.cancel(idents)
        for _, fd in self._waiter.frames:
            payload.discard(fd)
        self._waiter.frames.clear()
