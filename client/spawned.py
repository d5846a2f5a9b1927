"""Calls that go on without this program: started many at a time, and their results fetched by their ids."""

from __future__ import annotations

import builtins
from collections.abc import AsyncIterator, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from slipway.executor.worker import payload
from slipway.executor.worker.frames import Flag, Frame, Kind, Outcome

from .outbox import Outbox
from .packing import calling_input, unpack_result
from .replies import Pending, take_reply
from .waiter import Mailbox, Waiter

if TYPE_CHECKING:
    from slipway.dsl.session import Input

    from .connection import Connection

UNANSWERED = 4096  # calls that are sent, and not known to be on disk
AHEAD = 32  # results that are asked for before it is their turn
AT_ONCE = 10_000  # results that are waited for at a time
DURABLE = int(Flag.DURABLE)


def accepted(name: str, frame: Frame, fd: int) -> str:
    """The id of the function call that an answer stands for, or why it was not taken, raised."""
    if frame.outcome != Outcome.RETURNED:
        unpack_result(name, frame, fd)
    return f"fc-{frame.call:x}"


# --- starting many ------------------------------------------------------------------------------------


class _Spawning:
    """Inputs on their way to the engine's disk."""

    def __init__(self, connection: Connection, waiter: Waiter, name: str, channel: int) -> None:
        self._connection = connection
        self._name = name
        self._waiter = waiter
        self._unanswered: set[int] = set()
        self.outbox = Outbox(connection, waiter, name, channel, DURABLE)

    @property
    def is_full(self) -> bool:
        return len(self._unanswered) >= UNANSWERED

    @property
    def is_done(self) -> bool:
        return not self._unanswered

    def put(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._unanswered.add(self.outbox.put(args, kwargs))

    def hear(self, frame: Frame, fd: int) -> None:
        """Take an answer and those that came with it. Raises why an input was not taken."""
        self._hear_one(frame, fd)
        while self._waiter.frames:
            self._hear_one(*self._waiter.frames.popleft())

    def _hear_one(self, frame: Frame, fd: int) -> None:
        self._unanswered.discard(frame.id)
        accepted(self._name, frame, fd)

    def close(self) -> None:
        """Wait for no more answers; what was sent goes on."""
        for ident in self._unanswered:
            self._connection.forget(ident)


def spawn_all(connection: Connection, name: str, channel: int, inputs: Iterable[Input]) -> None:
    """Start a call for each input, or on a channel for many one call with all of them; return when all are on disk."""
    waiter = Waiter()
    work = _Spawning(connection, waiter, name, channel)
    try:
        for args, kwargs in _to_the_end(inputs, work):
            work.put(args, kwargs)
            if work.is_full:
                work.outbox.flush()
                work.hear(*connection.wait_for(waiter))
            elif work.outbox.has_sent and connection.poll(waiter):
                work.hear(*waiter.frames.popleft())
        work.outbox.flush()
        while not work.is_done:
            work.hear(*connection.wait_for(waiter))
    finally:
        work.close()


def _to_the_end(inputs: Iterable[Input], work: _Spawning) -> Iterator[Input]:
    """The inputs; where taking them fails, what was taken before is sent all the same."""
    try:
        yield from inputs
    except Exception:
        work.outbox.flush()
        raise


async def spawn_all_aio(connection: Connection, name: str, channel: int, inputs: AsyncIterator[Input]) -> None:
    """As `spawn_all`, in async code."""
    mailbox = Mailbox(connection)
    work = _Spawning(connection, mailbox.waiter, name, channel)
    try:
        try:
            async for args, kwargs in inputs:
                work.put(args, kwargs)
                if work.is_full:
                    work.outbox.flush()
                    work.hear(*(await mailbox.next()))
                elif mailbox.ready():
                    work.hear(*mailbox.waiter.frames.popleft())
        finally:
            work.outbox.flush()
        while not work.is_done:
            work.hear(*(await mailbox.next()))
    finally:
        work.close()


# --- fetching -----------------------------------------------------------------------------------------


class _Fetches:
    """Results that were asked for; one waiter gets the answers. Close it in the end."""

    def __init__(self, connection: Connection, waiter: Waiter) -> None:
        self._connection = connection
        self._waiter = waiter
        self._parent = calling_input()  # whose worker is as good as idle while it waits
        self._places: dict[int, int] = {}  # id of the request → the caller's number for it

    def ask(self, place: int, call: str, index: int, timeout: float | None = None) -> None:
        params: dict[str, Any] = {"call": call, "index": index}
        if timeout is not None:
            params["timeout_ms"] = int(min(timeout, 1e9) * 1000)
        if self._parent:
            params["parent"] = self._parent
        self._places[self._connection.begin(self._waiter, "call.get", params)] = place

    def __len__(self) -> int:
        return len(self._places)

    def place_of(self, frame: Frame) -> int:
        self._connection.forget(frame.id)
        return self._places.pop(frame.id)

    def close(self) -> None:
        for ident in self._places:
            self._connection.forget(ident)
        if self._places:
            self._connection.cancel(list(self._places))
        for _, fd in self._waiter.frames:
            payload.discard(fd)


def _outcome(call: str, index: int, timeout: float | None, frame: Frame, fd: int) -> Any:
    """What an answer to "call.get" stands for: the result, or an exception that is raised."""
    if frame.kind == Kind.RESULT:
        return unpack_result(call, frame, fd)
    try:
        return take_reply(frame, None)
    except Pending:
        which = f"input {index} of {call}" if index else call
        late = f" after {timeout:g} s" if timeout else ""
        raise builtins.TimeoutError(f"{which} is not over{late}") from None


def result(connection: Connection, call: str, index: int, timeout: float | None) -> Any:
    waiter = Waiter()
    fetches = _Fetches(connection, waiter)
    try:
        fetches.ask(0, call, index, timeout)
        frame, fd = connection.wait_for(waiter)
        fetches.place_of(frame)
        return _outcome(call, index, timeout, frame, fd)
    finally:
        fetches.close()


async def result_aio(connection: Connection, call: str, index: int, timeout: float | None) -> Any:
    mailbox = Mailbox(connection)
    fetches = _Fetches(connection, mailbox.waiter)
    try:
        fetches.ask(0, call, index, timeout)
        frame, fd = await mailbox.next()
        fetches.place_of(frame)
        return _outcome(call, index, timeout, frame, fd)
    finally:
        fetches.close()


class _InOrder:
    """Results in the order of their inputs, some asked for ahead of time."""

    def __init__(self, fetches: _Fetches, call: str, start: int, stop: int) -> None:
        self._fetches = fetches
        self._call = call
        self._asked = self._given = start
        self._stop = stop
        self._there: dict[int, tuple[Frame, int]] = {}

    @property
    def is_done(self) -> bool:
        return self._given >= self._stop

    @property
    def ready(self) -> bool:
        return self._given in self._there

    def ask(self) -> None:
        while self._asked < min(self._stop, self._given + AHEAD):
            self._fetches.ask(self._asked, self._call, self._asked)
            self._asked += 1

    def hear(self, frame: Frame, fd: int) -> None:
        self._there[self._fetches.place_of(frame)] = frame, fd

    def next(self) -> Any:
        index = self._given
        self._given += 1
        return _outcome(self._call, index, None, *self._there.pop(index))

    def close(self) -> None:
        self._fetches.close()
        for _, fd in self._there.values():
            payload.discard(fd)


def results(connection: Connection, call: str, start: int, end: int | None) -> Iterator[Any]:
    """The results of a call's inputs in order, each as it is there."""
    count = int(connection.request("call.count", {"call": call})["inputs"])
    waiter = Waiter()
    work = _InOrder(_Fetches(connection, waiter), call, start, count if end is None else min(end, count))
    try:
        while not work.is_done:
            work.ask()
            while not work.ready:
                work.hear(*connection.wait_for(waiter))
            yield work.next()
    finally:
        work.close()


async def results_aio(connection: Connection, call: str, start: int, end: int | None) -> AsyncIterator[Any]:
    count = int((await connection.request_aio("call.count", {"call": call}))["inputs"])
    mailbox = Mailbox(connection)
    fetches = _Fetches(connection, mailbox.waiter)
    work = _InOrder(fetches, call, start, count if end is None else min(end, count))
    try:
        while not work.is_done:
            work.ask()
            while not work.ready:
                work.hear(*(await mailbox.next()))
            yield work.next()
    finally:
        work.close()


class _Gathering:
    """The results of several calls, in any order as they come."""

    def __init__(self, fetches: _Fetches, calls: list[str]) -> None:
        self._fetches = fetches
        self._calls = calls
        self._asked = 0
        self.found: list[Any] = [None] * len(calls)

    def is_waiting(self) -> bool:
        """Ask for more where there is room; whether some have not come."""
        while self._asked < len(self._calls) and len(self._fetches) < AT_ONCE:
            self._fetches.ask(self._asked, self._calls[self._asked], 0)
            self._asked += 1
        return bool(self._fetches)

    def hear(self, frame: Frame, fd: int) -> None:
        place = self._fetches.place_of(frame)
        self.found[place] = _outcome(self._calls[place], 0, None, frame, fd)


def gather(connection: Connection, calls: list[str]) -> list[Any]:
    """The results of several calls. Raises what the first one to fail raised."""
    waiter = Waiter()
    fetches = _Fetches(connection, waiter)
    work = _Gathering(fetches, calls)
    try:
        while work.is_waiting():
            work.hear(*connection.wait_for(waiter))
        return work.found
    finally:
        fetches.close()


async def gather_aio(connection: Connection, calls: list[str]) -> list[Any]:
    mailbox = Mailbox(connection)
    fetches = _Fetches(connection, mailbox.waiter)
    work = _Gathering(fetches, calls)
    try:
        while work.is_waiting():
            work.hear(*(await mailbox.next()))
        return work.found
    finally:
        fetches.close()
