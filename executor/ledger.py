"""Durable inputs: on disk before their caller hears of it, run until they have one outcome, and that on disk too."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import Any

from slipway.dsl.errors import Error, InvalidError, NotFoundError

from .feeder import NONE, Entry, Feeder, QueueKey, Site
from .inputs import Input, call_id
from .intake import Fresh, Intake
from .journal import Journal
from .points import point
from .ports import Clock
from .retrying import MOST_LOSSES
from .store.call_reads import Waiting
from .store.call_writes import ENGINE_ENDED, Cut, Ended, Failed, Written
from .store.payloads import IN_ROW, Kept, PayloadFiles
from .store.seal import Seal
from .store.state import State
from .underway import Attempt, UnderWay
from .waits import Waits
from .worker import failure
from .worker.frames import Flag, Frame, Outcome
from .worker.logs import masked
from .worker.payload import IN_MEMFD
from .worker.wire import NO_FD

log = logging.getLogger("slipway")

SUMMARY = 4096  # bytes within which a failure says what it is
_MORE = int(Flag.MORE)
_RETURNED, _CANCELLED, _LOST = int(Outcome.RETURNED), int(Outcome.CANCELLED), int(Outcome.LOST)
_WITH_RESULT = (_RETURNED, int(Outcome.RAISED))
APP_ENDED = "the app has ended"
CALL_CANCELLED = "the call was cancelled"

Find = Callable[[QueueKey, str], Awaitable[Site | None]]


class Ledger:
    """The durable inputs of an engine. `find` says where those of a queue run, given what sets their variant apart:
    None where that is not known yet; it raises `NotFoundError` or `InvalidError` where they can't run any more."""

    def __init__(
        self, state: State, files: PayloadFiles, under_way: UnderWay, seal: Seal, clock: Clock, find: Find
    ) -> None:
        self.files = files
        self._under_way = under_way
        self.waits = Waits()
        self._reads, self._writes = state.call_reads, state.call_writes
        self._seal = seal
        self._clock = clock
        self._find = find
        self._journal = Journal(self._writes, files)
        self.intake = Intake(
            self._journal, self._writes, seal, clock, accepted=self._accepted, in_background=self._in_background
        )
        self._feeders: dict[QueueKey, Feeder] = {}
        self._entries: dict[int, Entry] = {}
        self._cancelling: set[int] = set()  # calls whose inputs are not handed on
        self._tasks: set[asyncio.Task[None]] = set()
        self._closing = False

    async def recover(self, deployed: Callable[[str], bool]) -> None:
        """Take up what the engine before this one left, as far as its app is still deployed; the rest has ended."""
        now_ms = self._clock.now_ms()
        await self._writes.take_left(await asyncio.to_thread(self._under_way.left), now_ms)
        await asyncio.to_thread(self._under_way.open)
        await self._writes.seal_all(now_ms)
        await self._writes.prune_queues()  # later there are some that have a number and no call yet
        await self._remove_strays()
        for queue, count in await self._reads.open_queues():
            feeder = await self._feeder_of(queue.number)
            feeder.open = count
            if deployed(queue.run):
                feeder.miss(1)
            else:
                feeder.ended = APP_ENDED if queue.run != queue.app else f"{queue.app} is not deployed any more"
                await self._end_queue(feeder, feeder.ended)

    def end(self) -> None:
        """The engine ends: what its pools give up from now on is not over."""
        self._closing = True
        for feeder in self._feeders.values():
            feeder.paused = True

    async def close(self) -> None:
        """Write what is left to be written, after the pools have ended."""
        for feeder in tuple(self._feeders.values()):
            await feeder.wait_still()
        while self._tasks:
            await asyncio.wait(tuple(self._tasks))
        await self._journal.close()
        self._under_way.close()

    # --- taking inputs

    @property
    def open(self) -> int:
        """Inputs that are not over."""
        return sum(feeder.open for feeder in self._feeders.values()) + self.intake.waiting

    def waiting(self, key: QueueKey) -> int:
        """Inputs of a queue that are in the database alone."""
        feeder = self._feeders.get(key)
        return max(feeder.open - len(feeder.entries), 0) if feeder is not None else 0

    def waiting_of(self, run: str) -> int:
        """The same of all queues of an app, by its id."""
        return sum(self.waiting(key) for key in self._feeders if key.run == run)

    def take(self, key: QueueKey, opening: str, fresh: Fresh) -> None:
        """Take an input; it is accepted when `fresh.answer` is called with its call. `opening`: the variant, plain."""
        self.intake.take(self._feeder(key), opening, fresh)

    def _accepted(self, feeder: Feeder, row: Waiting) -> None:
        feeder.open += 1
        feeder.offer(row)
        if feeder.ended:
            self._end_later(feeder, feeder.ended)

    # --- to the pools and back

    def _feeder(self, key: QueueKey) -> Feeder:
        feeder = self._feeders.get(key)
        if feeder is None:
            feeder = self._feeders[key] = Feeder(
                key,
                self._reads,
                site_of=self._site_of,
                submit=self._submit,
                moved=self._withdraw,
                refused=self._end_later,
            )
            feeder.paused = self._closing
        return feeder

    async def _site_of(self, feeder: Feeder) -> Site | None:
        opening = self._seal.unseal(feeder.opening)["opening"] if feeder.opening is not None else ""
        return await self._find(feeder.key, opening)

    def _submit(self, feeder: Feeder, row: Waiting) -> None:
        """Hand an input to its pool."""
        assert feeder.site is not None, "a feeder knows the place before it hands anything on"
        if row.call in self._cancelling:
            return
        entry = Entry(feeder, feeder.site.dispatcher, size=row.size, earlier=row.earlier)
        pool = feeder.site.dispatcher.open_pool(feeder.site.spec)
        method = pool.method_index(row.method)
        given = entry.given = Input(
            row.number,
            pool,
            partial(self._answered, entry),
            call=row.call,
            payload=row.payload or b"",
            method=method or 0,
            parent=row.parent or 0,
            index=row.place,
            durable=True,
            attempts=row.attempts,
            losses=row.losses,
        )
        self._entries[row.number] = feeder.entries[row.number] = entry
        if method is None:
            self._end(entry, _CANCELLED, f"{row.method} is no method of {feeder.key.function} any more")
        elif given.losses > MOST_LOSSES:
            self._end(entry, _LOST, f"{ENGINE_ENDED}, and that for the {given.losses}th time")
        else:
            feeder.site.dispatcher.submit(given)

    def on_attempt(self, given: Input, go: Callable[[], None]) -> None:
        """Note an attempt; then it may begin."""
        entry = self._entries[given.number]
        entry.started_ms = self._clock.now_ms()
        total = entry.earlier + given.attempts
        self._release(entry)  # of one that was given back before it began
        note = Attempt(given.number, total, given.losses, entry.started_ms, given.worker_name)
        entry.slot = self._under_way.begin(note)
        point("attempt-written")
        if entry.size is not None and given.fd == NO_FD and not given.payload:
            self._in_background(self._load(entry, go))
        else:
            go()

    def _release(self, entry: Entry) -> None:
        slot, entry.slot = entry.slot, NONE
        if slot != NONE:
            self._under_way.end(slot)

    async def _load(self, entry: Entry, go: Callable[[], None]) -> None:
        """Get a payload that lies in a file."""
        given, size = entry.given, entry.size or 0
        try:
            if size >= IN_MEMFD:
                given.fd, given.fd_length = await asyncio.to_thread(self.files.open, given.number, "in", size), size
            else:
                given.payload = await asyncio.to_thread(self.files.read, given.number, "in", size)
        except OSError as error:
            entry.outcome, entry.reason = _LOST, f"its input can't be read: {error.strerror}"
            entry.dispatcher.cancel(given.number, force=True)
            return
        if given.number not in self._entries:  # it was given up meanwhile
            if given.fd != NO_FD:
                os.close(given.fd)
            return
        go()

    def on_attempt_over(self, given: Input, outcome: Outcome, reason: str) -> None:
        """An attempt is over and another one follows."""
        entry = self._entries.get(given.number)
        if entry is None or entry.slot == NONE:
            return
        slot, entry.slot = entry.slot, NONE
        failed = Failed(
            number=given.number,
            attempts=given.attempts,
            losses=given.losses,
            worker=given.worker_name,
            started_ms=entry.started_ms,
            outcome=int(outcome),
            reason=reason,
            now_ms=self._clock.now_ms(),
        )
        self._journal.add(failed, lambda _written: self._under_way.end(slot))

    def _answered(self, entry: Entry, frame: Frame, fd: int) -> None:
        """What the dispatcher says of an input: the `send` of each."""
        if frame.flags & _MORE:
            if fd != NO_FD:
                os.close(fd)
            return
        if frame.outcome == _CANCELLED and (entry.back or self._closing):
            if entry.back and not self._closing:
                self._take_back(entry)
            return
        self._finish(entry, frame, fd)

    def _finish(self, entry: Entry, frame: Frame, fd: int) -> None:
        """Write an outcome down; nobody hears of it before it is on disk."""
        if frame.outcome in _WITH_RESULT:
            length = frame.fd_length if fd != NO_FD else len(frame.payload)
            reason = _summary(frame, fd, entry.given.pool.spec.worker.secrets) if frame.outcome else ""
            if fd != NO_FD or length > IN_ROW:
                thing = Kept(entry.given.number, "out", bytes(frame.payload), fd, length)
                self._journal.keep(thing, partial(self._kept, entry, frame.outcome, reason, length))
            else:
                self._end(entry, frame.outcome, reason, bytes(frame.payload))
            return
        if fd != NO_FD:
            os.close(fd)
        reason = bytes(frame.payload).decode(errors="replace")
        if frame.outcome == _CANCELLED:
            self._end(entry, entry.outcome, entry.reason or reason)
        else:
            self._end(entry, frame.outcome, reason)

    def _kept(self, entry: Entry, outcome: int, reason: str, size: int, trouble: Error | None) -> None:
        if trouble is None:
            self._end(entry, outcome, reason, None, size)
        else:
            self._end(entry, _LOST, f"its result was lost: {trouble.message}")

    def _end(
        self, entry: Entry, outcome: int, reason: str, result: bytes | None = None, size: int | None = None
    ) -> None:
        given = entry.given
        began = entry.slot != NONE
        ended = Ended(
            number=given.number,
            call=given.call,
            attempts=given.attempts,
            losses=given.losses,
            worker=given.worker_name if began else "",
            started_ms=entry.started_ms if began else None,
            outcome=outcome,
            reason=reason,
            now_ms=self._clock.now_ms(),
            result=result,
            size=size,
        )
        self._journal.add(ended, partial(self._ended, entry, outcome))

    def _ended(self, entry: Entry, outcome: int, written: Written | Error) -> None:
        assert isinstance(written, Written), "an outcome is tried until it can be written"
        point("outcome-written")
        given = entry.given
        self._drop(entry)
        if given.number in written.void:
            return
        entry.feeder.open -= 1
        if outcome == _RETURNED and entry.size is not None:
            self._remove_files((given.number,), "in")
        self.waits.tell(given.call, given.index)
        if given.call in written.finished:
            self.waits.tell_finished(given.call)

    def _drop(self, entry: Entry) -> None:
        self._release(entry)
        del self._entries[entry.given.number]
        entry.feeder.forget(entry.given.number)

    def _take_back(self, entry: Entry) -> None:
        """An input was taken out of its pool; it waits again where the others of its queue do."""
        number = entry.given.number
        if entry.given.call in self._cancelling:
            self._end(entry, _CANCELLED, CALL_CANCELLED)
            return
        self._drop(entry)
        entry.feeder.miss(number)

    # --- where things change

    async def refresh(self, run: str) -> None:
        """An app is served anew: what waits goes to its new version, what runs ends on the old one."""
        await asyncio.gather(*(feeder.refresh() for feeder in self._feeders.values() if feeder.key.run == run))

    def _withdraw(self, feeder: Feeder) -> None:
        """Take back what has not begun and is not where it belongs by now."""
        key = "" if feeder.paused or feeder.site is None else feeder.site.spec.key
        for entry in tuple(feeder.entries.values()):
            given = entry.given
            if given.pool.spec.key != key and not given.pool.runs(given.number):
                entry.back = True
                entry.dispatcher.cancel(given.number)

    async def end_run(self, run: str, reason: str) -> None:
        """An app is served no longer: what has not begun is cancelled."""
        feeders = [feeder for feeder in self._feeders.values() if feeder.key.run == run]
        for feeder in feeders:
            feeder.ended = reason
        await asyncio.gather(*(self._end_queue(feeder, reason) for feeder in feeders))

    def _end_later(self, feeder: Feeder, reason: str) -> None:
        self._in_background(self._end_queue(feeder, reason))

    async def _end_queue(self, feeder: Feeder, reason: str) -> None:
        """Cancel what has not begun. An ephemeral app can't run again, so its payloads go, too."""
        for entry in tuple(feeder.entries.values()):
            entry.reason, entry.back = reason, False
            entry.dispatcher.cancel(entry.given.number)
        if not feeder.number:
            return
        await feeder.wait_still()
        keep = feeder.key.run == feeder.key.app
        start: int | None = 0
        while start is not None:
            now_ms = self._clock.now_ms()
            but = tuple(feeder.entries)
            cut = await self._writes.cancel_queue(feeder.number, reason, now_ms, start=start, but=but, keep=keep)
            self._after(cut, feeder)
            start = cut.following
        if not (keep or feeder.open):
            self._feeders.pop(feeder.key, None)

    def _after(self, cut: Cut, feeder: Feeder) -> None:
        feeder.open -= cut.number
        self._remove_files(cut.files, "in")
        for call, index in cut.ended:
            self.waits.tell(call, index)
        for call in cut.finished:
            self.waits.tell_finished(call)

    def pause(self) -> None:
        """Hand nothing on any more, and take back what has not begun: it waits for the next engine."""
        for feeder in self._feeders.values():
            feeder.paused = True
            self._withdraw(feeder)

    def resume(self) -> None:
        """The engine stays after all."""
        for feeder in self._feeders.values():
            feeder.paused = self._closing
            feeder.feed()

    # --- what is asked of it

    def running(self, call: int) -> dict[int, Input]:
        """The inputs of a call that are in memory, by number."""
        return {number: entry.given for number, entry in self._entries.items() if entry.given.call == call}

    async def seal(self, key: QueueKey, opening: str, call: int, method: str, parent: int) -> None:
        """No more inputs come for a call; there may have been none."""
        await self.intake.settled()
        feeder = self._feeder(key)
        await self.intake.name(feeder, opening)
        if await self._writes.seal(call, feeder.number, method, parent, self._clock.now_ms()):
            self.waits.tell_finished(call)
        self.waits.tell_sealed(call)

    async def cancel(self, call: int, *, terminate: bool) -> tuple[int, int]:
        """Give up a call: how many of its inputs had not begun, and how many run and are interrupted."""
        waiting = running = 0
        self._cancelling.add(call)
        try:
            await self.intake.settled()
            found = await self._reads.call(call)
            if found is None or found.queue is None:
                return 0, 0
            feeder = await self._feeder_of(found.queue)
            await feeder.wait_still()
            start: int | None = 0
            while start is not None:
                held = self.running(call).keys()
                now_ms = self._clock.now_ms()
                cut = await self._writes.cancel_call(call, CALL_CANCELLED, now_ms, start=start, but=held)
                self._after(cut, feeder)
                waiting += cut.number
                start = cut.following
            for entry in [entry for entry in self._entries.values() if entry.given.call == call]:
                given = entry.given
                runs = given.pool.runs(given.number)
                waiting, running = waiting + (not runs), running + runs
                entry.back, entry.reason = False, CALL_CANCELLED
                entry.dispatcher.cancel(given.number, force=True, terminate=terminate)
        finally:
            self._cancelling.discard(call)
        return waiting, running

    async def retry(self, call: int) -> int:
        """Let the inputs of a call that failed wait again, each with as many attempts as a new one: how many."""
        found = await self._reads.call(call)
        if found is None or found.queue is None:
            raise NotFoundError(f"no call {call_id(call)} was spawned here", hint="What is known: slipway call list")
        if found.finished_ms is None:
            raise InvalidError(
                f"{call_id(call)} is not over yet", hint=f"Wait for it: slipway call wait {call_id(call)}"
            )
        feeder = await self._feeder_of(found.queue)
        await self._site_of(feeder)
        count = 0
        start: int | None = 0
        while start is not None:
            some, files, start = await self._writes.retry(call, self._clock.now_ms(), start=start)
            self._remove_files(files, "out")
            feeder.open += some
            count += some
        feeder.ended = ""
        feeder.miss(call)
        return count

    async def _feeder_of(self, number: int) -> Feeder:
        """The feeder of a queue that is in the database."""
        for feeder in self._feeders.values():
            if feeder.number == number:
                return feeder
        found = await self._reads.queue(number)
        feeder = self._feeder(QueueKey(run=found.run, app=found.app, function=found.function, variant=found.variant))
        feeder.number, feeder.opening = found.number, found.opening
        return feeder

    # --- what is kept

    async def _remove_strays(self) -> None:
        """Files whose input was never written down, or has let go of them."""
        there = await asyncio.to_thread(lambda: list(self.files.all()))
        known = await self._reads.with_files({number for number, _ in there})
        for number, kind in there:
            if (number, kind) not in known:
                await asyncio.to_thread(self.files.remove, (number,), kind)

    async def expire(self, results_before_ms: int, calls_before_ms: int) -> None:
        """Let go of results, and of the records of calls, that are older."""
        looked = 1
        while looked and not self._closing:
            looked, files = await self._writes.expire(results_before_ms)
            self._remove_files(files, "in", "out")
        while not self._closing and await self._writes.prune(calls_before_ms):
            pass

    def _remove_files(self, numbers: tuple[int, ...], *kinds: str) -> None:
        if numbers:
            self._in_background(asyncio.to_thread(self.files.remove, numbers, *kinds))

    def _in_background(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if isinstance(error, Error | OSError):  # a full disk, say: the rest goes on
            log.warning("could not be done: %s", error)
        elif error is not None:
            log.error("could not be done: %r", error, exc_info=error)


def _summary(frame: Frame, fd: int, secrets: tuple[str, ...]) -> str:
    """What was raised, in a line; "" where the worker's code has sent something that can't be read."""
    try:
        said = failure.summary(bytes(frame.payload) if fd == NO_FD else os.pread(fd, SUMMARY, 0))
    except OSError:
        return ""
    return masked(said, secrets)
