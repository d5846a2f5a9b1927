"""Takes durable inputs in: on disk first, accepted then."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

from slipway.dsl.errors import Error

from .feeder import Feeder
from .journal import Journal
from .points import point
from .ports import Clock
from .store.call_reads import Waiting
from .store.call_writes import Accepted, CallWrites, Written
from .store.payloads import IN_ROW, Kept
from .store.seal import Seal
from .worker.frames import Payload
from .worker.wire import NO_FD

FULL = 64 << 20  # bytes that wait to be written, from which on nobody is read from who adds to them
FULL_ENTRIES = 20_000


class Fresh:
    """A durable input on its way into the ledger. `answer` hears its call's number, or why it can't be taken."""

    __slots__ = ("answer", "call", "fd", "index", "key", "length", "method", "number", "parent", "payload", "sealed")

    def __init__(
        self,
        number: int,
        payload: Payload,
        answer: Callable[[int | Error], None],
        *,
        call: int = 0,
        index: int = 0,
        method: str = "",
        parent: int = 0,
        sealed: bool = True,
        key: str | None = None,
        fd: int = NO_FD,
        length: int = 0,
    ) -> None:
        self.number = number
        self.payload = payload
        self.answer = answer
        self.call = call or number
        self.index = index
        self.method = method
        self.parent = parent
        self.sealed = sealed
        self.key = key
        self.fd = fd
        self.length = length


class Intake:
    """Where durable inputs come in. `accepted` gets each that is on disk now."""

    def __init__(
        self,
        journal: Journal,
        writes: CallWrites,
        seal: Seal,
        clock: Clock,
        *,
        accepted: Callable[[Feeder, Waiting], None],
        in_background: Callable[[Coroutine[Any, Any, None]], None],
    ) -> None:
        self._journal = journal
        self._writes = writes
        self._seal = seal
        self._clock = clock
        self._on_accepted = accepted
        self._in_background = in_background
        self._nameless: dict[Feeder, list[Fresh]] = {}  # their queue has no number yet
        self._naming: dict[Feeder, asyncio.Future[None]] = {}

    @property
    def waiting(self) -> int:
        """Inputs whose queue has no number yet."""
        return sum(map(len, self._nameless.values()))

    @property
    def is_full(self) -> bool:
        """Whether more should not be taken before some is written."""
        return self._journal.backlog > FULL or self._journal.waiting > FULL_ENTRIES

    def on_room(self, act: Callable[[], None]) -> None:
        """Call `act` when what waits now, or some of it, is written."""
        self._journal.on_room(act)

    def take(self, feeder: Feeder, opening: str, fresh: Fresh) -> None:
        if feeder.number:
            self._write(feeder, fresh)
        elif feeder in self._nameless:
            self._nameless[feeder].append(fresh)
        else:
            self._nameless[feeder] = [fresh]
            self._in_background(self._begin(feeder, opening))

    async def settled(self) -> None:
        """Wait until everything that was taken before is on disk."""
        while self._naming:
            await asyncio.wait(tuple(self._naming.values()))
        await self._journal.settled()

    async def name(self, feeder: Feeder, opening: str) -> None:
        """Give a queue its number, where it has none yet."""
        key = feeder.key
        if not feeder.number:
            sealed = self._seal.seal({"opening": opening}) if key.variant else None
            number = await self._writes.queue(key.run, key.app, key.function, key.variant, sealed)
            feeder.number, feeder.opening = number, sealed

    async def _begin(self, feeder: Feeder, opening: str) -> None:
        done = self._naming[feeder] = asyncio.get_running_loop().create_future()
        try:
            await self.name(feeder, opening)
        except Error as error:
            for fresh in self._nameless.pop(feeder):
                _refuse(fresh, error)
        else:
            for fresh in self._nameless.pop(feeder):
                self._write(feeder, fresh)
        finally:
            del self._naming[feeder]
            done.set_result(None)

    def _write(self, feeder: Feeder, fresh: Fresh) -> None:
        point("call-taken")
        size = fresh.length if fresh.fd != NO_FD else len(fresh.payload)
        if fresh.fd == NO_FD and size <= IN_ROW:
            self._accept(feeder, fresh, bytes(fresh.payload), None)
            return

        def kept(trouble: Error | None) -> None:
            if trouble is not None:
                fresh.answer(trouble)
            else:
                self._accept(feeder, fresh, None, size)

        thing = Kept(fresh.number, "in", bytes(fresh.payload), fresh.fd, fresh.length)
        fresh.payload = b""
        self._journal.keep(thing, kept)

    def _accept(self, feeder: Feeder, fresh: Fresh, payload: bytes | None, size: int | None) -> None:
        entry = Accepted(
            number=fresh.number,
            call=fresh.call,
            place=fresh.index,
            queue=feeder.number,
            method=fresh.method,
            parent=fresh.parent,
            sealed=fresh.sealed,
            now_ms=self._clock.now_ms(),
            payload=payload,
            size=size,
            key=fresh.key,
        )
        self._journal.add(entry, partial(self._accepted, feeder, fresh, entry))

    def _accepted(self, feeder: Feeder, fresh: Fresh, entry: Accepted, written: Written | Error) -> None:
        if isinstance(written, Error):
            fresh.answer(written)
            return
        known = written.known.get(fresh.call)
        if known is not None:
            fresh.answer(known)
            return
        point("call-written")
        fresh.answer(fresh.call)
        row = Waiting(
            number=entry.number,
            call=entry.call,
            place=entry.place,
            method=entry.method,
            parent=entry.parent,
            attempts=0,
            losses=0,
            earlier=0,
            payload=entry.payload,
            size=entry.size,
        )
        self._on_accepted(feeder, row)


def _refuse(fresh: Fresh, error: Error) -> None:
    if fresh.fd != NO_FD:
        os.close(fresh.fd)
    fresh.answer(error)
