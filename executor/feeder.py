"""Feeds the durable inputs of one queue to their pool, from the database, a window of them at a time."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from attrs import frozen

from slipway.dsl.errors import Error, InvalidError, NotFoundError

from .dispatch import Dispatcher
from .inputs import Input
from .pool import PoolSpec
from .store.call_reads import CallReads, Waiting
from .worker.frames import Outcome

log = logging.getLogger("slipway")

NONE = -1
AGAIN = 1.0  # seconds until what could not be read is tried again
WINDOW = 2000  # inputs of one queue that are in memory: in their pool, or over and not yet written down


@frozen(kw_only=True)
class QueueKey:
    """Whom inputs are for: the function of an app by its id, and what sets its variant apart (a digest, or "")."""

    run: str
    app: str
    function: str
    variant: str = ""


@frozen(kw_only=True)
class Site:
    """Where the inputs of a queue run now."""

    dispatcher: Dispatcher
    spec: PoolSpec


class Entry:
    """A durable input in memory. `size` is that of a payload in a file, `earlier` the attempts of series before this
    one. `slot`: where its attempt is noted, or NONE; `back`: it is taken out of its pool to wait again; `outcome` and
    `reason`: as what it ends, and why, where it is given up."""

    __slots__ = ("back", "dispatcher", "earlier", "feeder", "given", "outcome", "reason", "size", "slot", "started_ms")

    def __init__(self, feeder: Feeder, dispatcher: Dispatcher, *, size: int | None, earlier: int) -> None:
        self.feeder = feeder
        self.dispatcher = dispatcher
        self.size = size
        self.earlier = earlier
        self.slot = NONE
        self.started_ms = 0
        self.back = False
        self.outcome = int(Outcome.CANCELLED)
        self.reason = ""
        self.given: Input


class Feeder:
    """One queue. `site_of` says where it runs now (None: nowhere yet; it is asked again after `refresh`), `submit`
    hands an input on, `moved` hears that the site is another, and `refused` that there is none any more."""

    def __init__(
        self,
        key: QueueKey,
        reads: CallReads,
        *,
        site_of: Callable[[Feeder], Awaitable[Site | None]],
        submit: Callable[[Feeder, Waiting], None],
        moved: Callable[[Feeder], None],
        refused: Callable[[Feeder, str], None],
    ) -> None:
        self.key = key
        self.number = 0  # of the queue, once it has one
        self.opening: bytes | None = None  # what sets the variant apart, sealed
        self.entries: dict[int, Entry] = {}
        self.open = 0  # inputs that are not over
        self.site: Site | None = None
        self.paused = False
        self.ended = ""  # why it has no place any more
        self._reads = reads
        self._site_of = site_of
        self._submit = submit
        self._moved = moved
        self._refused = refused
        self._behind = False  # whether inputs wait that are in the database alone
        self._cursor = 0  # up to here they were looked at …
        self._low: int | None = None  # … but for those from here on, which came while we looked
        self._gone: set[int] = set()  # ended while we looked
        self._feeding: asyncio.Task[None] | None = None

    def offer(self, row: Waiting) -> None:
        """An input that was just written down: it goes on at once where nothing waits before it."""
        full = len(self.entries) >= WINDOW
        if self._behind or self._feeding or self.paused or self.ended or self.site is None or full:
            self.miss(row.number)
        else:
            self._submit(self, row)

    def miss(self, number: int) -> None:
        """Inputs from this number on wait that are not in memory."""
        self._behind = True
        if self._feeding is not None:
            self._low = min(self._low or number, number)
        else:
            self._cursor = min(self._cursor, number - 1)
            self.feed()

    def forget(self, number: int) -> None:
        """An input needs no place in the window any more."""
        if self.entries.pop(number, None) is not None:
            if self._feeding is not None:
                self._gone.add(number)
            self.feed()

    async def refresh(self) -> None:
        """The place may be another now."""
        self.ended = ""
        try:
            site = await self._site_of(self)
        except (InvalidError, NotFoundError) as error:
            self._end(error.message)
            return
        self.site = site
        self._behind = True
        self._moved(self)
        self.feed()

    def _end(self, why: str) -> None:
        self.ended = why
        self._refused(self, why)

    def feed(self) -> None:
        """Take more from the database where the window has room for it."""
        room = len(self.entries) <= WINDOW // 2
        if self._behind and room and self._feeding is None and self.number and not (self.paused or self.ended):
            self._feeding = asyncio.get_running_loop().create_task(self._feed())

    async def wait_still(self) -> None:
        """Wait until nothing is being taken from the database."""
        while self._feeding is not None:
            await asyncio.wait((self._feeding,))

    async def _feed(self) -> None:
        try:
            more = True
            while more and self._behind and not (self.paused or self.ended):
                more = await self._feed_some()
        except (InvalidError, NotFoundError) as error:
            self._end(error.message)
        except Error as error:  # a full disk, say
            log.warning("%s of %s gets no inputs for now: %s", self.key.function, self.key.app, error)
            self._behind = True
            asyncio.get_running_loop().call_later(AGAIN, self.feed)
        finally:
            self._feeding = None

    async def _feed_some(self) -> bool:
        """Fill the window once; whether to go on."""
        room = WINDOW - len(self.entries)
        if room < WINDOW // 2:
            return False
        if self.site is None:
            self.site = await self._site_of(self)
        site = self.site
        if site is None:
            return False
        self._gone.clear()
        self._behind = False
        rows = await self._reads.waiting(self.number, after=self._cursor, limit=room)
        self._behind = self._behind or len(rows) == room
        if rows:
            self._cursor = rows[-1].number
        if self._low is not None:
            self._cursor, self._low, self._behind = min(self._cursor, self._low - 1), None, True
        for index, row in enumerate(rows):
            if self.paused or self.ended or self.site is not site:  # things changed while some were handed on
                self._cursor, self._behind = min(self._cursor, rows[index].number - 1), True
                break
            if row.number not in self.entries and row.number not in self._gone:
                self._submit(self, row)
        return True
