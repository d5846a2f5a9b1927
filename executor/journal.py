"""Writes down what happens to durable inputs: what comes while one commit is under way goes into the next."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from functools import partial

from slipway.dsl.errors import Error, InternalError

from .store.call_writes import Accepted, CallWrites, Entry, Written
from .store.payloads import Kept, PayloadFiles, Unreadable
from .worker.wire import NO_FD

log = logging.getLogger("slipway")

AT_ONCE = 4096  # entries of one commit
AGAIN = 1.0  # seconds until what could not be written is tried again
Then = Callable[[Written | Error], None]
Item = tuple[Entry | None, Then]  # None: somebody waits for those before it


class Journal:
    """One commit at a time. What each entry is given is called after it, with what came of the commit.

    An acceptance that can't be written is refused, its caller hears why. What has happened already (an attempt, an
    outcome) is tried again until it can be: a full disk gets room, and nobody was told of it yet.
    """

    def __init__(self, writes: CallWrites, files: PayloadFiles) -> None:
        self._writes = writes
        self._files = files
        self._entries: list[Item] = []
        self._kept: list[tuple[Kept, Callable[[Error | None], None]]] = []
        self._writing: asyncio.Task[None] | None = None
        self._keeping: asyncio.Task[None] | None = None
        self._ending = False
        self._room: list[Callable[[], None]] = []
        self._coming = 0  # payloads of new inputs that wait to be kept
        self.backlog = 0  # bytes of payloads that wait to be written

    def add(self, entry: Entry, then: Then) -> None:
        """Have something written down; `then` is called when it is, on the loop."""
        if type(entry) is Accepted and entry.payload:
            self.backlog += len(entry.payload)
        self._put(entry, then)

    def _put(self, entry: Entry | None, then: Then) -> None:
        self._entries.append((entry, then))
        if self._writing is None:
            self._writing = asyncio.get_running_loop().create_task(self._write_all())

    async def settled(self) -> None:
        """Wait until everything that came in before is written, or refused; not for what is tried again."""
        while self._coming:
            looked: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._room.append(partial(_settle, looked))
            await looked
        written: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._put(None, lambda _written: _settle(written))
        await written

    def keep(self, thing: Kept, then: Callable[[Error | None], None]) -> None:
        """Have a file written, and its descriptor (if any) closed; `then` hears when it is on disk, or why not."""
        self._kept.append((thing, then))
        self.backlog += len(thing.data)
        self._coming += thing.kind == "in"
        if self._keeping is None:
            self._keeping = asyncio.get_running_loop().create_task(self._keep_all())

    @property
    def waiting(self) -> int:
        """How many entries are not written yet."""
        return len(self._entries) + len(self._kept)

    def on_room(self, act: Callable[[], None]) -> None:
        """Call `act` when what waits now has been written."""
        self._room.append(act)

    async def close(self) -> None:
        """Write what waits; what can't be written now is left, as it would be by a crash."""
        self._ending = True
        while tasks := [task for task in (self._writing, self._keeping) if task is not None]:
            await asyncio.wait(tasks)

    # --- rows

    async def _write_all(self) -> None:
        while self._entries:
            batch, self._entries = self._entries[:AT_ONCE], self._entries[AT_ONCE:]
            written: Written | Error
            try:
                written = await self._writes.write([entry for entry, _ in batch if entry is not None])
            except Error as error:
                log.warning("calls could not be written down: %s", error)
                written = error
            except Exception as error:  # the supervisor of all that is written: a bug of ours must not end it
                log.exception("calls could not be written down")
                written = InternalError(f"the engine failed: {error!r}", hint="The engine's log has its traceback.")
            again = self._tell(batch, written)
            if again:
                self._entries = again + self._entries
                if self._ending:
                    break
                await asyncio.sleep(AGAIN)
        self._writing = None

    def _tell(self, batch: list[Item], written: Written | Error) -> list[Item]:
        again: list[Item] = []
        for entry, then in batch:
            if type(entry) is Accepted:
                self.backlog -= len(entry.payload or b"")
            elif entry is not None and isinstance(written, Error):
                again.append((entry, then))
                continue
            then(written)
        self._make_room()
        return again

    def _make_room(self) -> None:
        room, self._room = self._room, []
        for act in room:
            act()

    # --- files

    async def _keep_all(self) -> None:
        while self._kept:
            batch, self._kept = self._kept, []
            troubles = await asyncio.to_thread(self._files.keep, [thing for thing, _ in batch])
            again = []
            for (thing, then), trouble in zip(batch, troubles, strict=True):
                if trouble is not None:
                    log.warning("a payload could not be written down: %s", trouble)
                left = trouble is not None and thing.kind == "out" and not isinstance(trouble, Unreadable)
                if left and not self._ending:
                    again.append((thing, then))
                    continue
                self.backlog -= len(thing.data)
                self._coming -= thing.kind == "in"
                if not left:
                    then(None if trouble is None else _in_words(trouble))
                if thing.fd != NO_FD:
                    os.close(thing.fd)
            self._make_room()
            self._kept = again + self._kept
            if again:
                await asyncio.sleep(AGAIN)
        self._keeping = None


def _settle(waited: asyncio.Future[None]) -> None:
    if not waited.done():
        waited.set_result(None)


def _in_words(trouble: OSError) -> Error:
    why = trouble.strerror or str(trouble)
    if isinstance(trouble, Unreadable):
        return Error(f"the payload can't be read: {why}")
    return Error(f"the payload can't be written: {why}", hint="Free some space.")
