"""Function calls, their inputs and attempts: everything that is asked about them."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Iterable
from typing import NamedTuple

from .database import Database


class FunctionCall(NamedTuple):
    """A function call as it stands in the records. `queue` is None for one that was not spawned."""

    number: int
    run: str
    app: str
    function: str
    method: str
    parent: int | None
    queue: int | None
    sealed: int
    created_ms: int
    finished_ms: int | None
    inputs: int
    returned: int
    raised: int
    timed_out: int
    cancelled: int
    lost: int
    expired: int


class InputRow(NamedTuple):
    """An input as it stands in the records; its payload and result are not part of it."""

    number: int
    call: int
    place: int
    attempts: int
    losses: int
    worker: str
    submitted_ms: int
    started_ms: int | None
    finished_ms: int | None
    outcome: int | None
    reason: str


class AttemptRow(NamedTuple):
    input: int
    attempt: int
    worker: str
    started_ms: int | None
    finished_ms: int | None
    outcome: int
    reason: str


class Waiting(NamedTuple):
    """A durable input that is not over, with what is needed to run it. `earlier` counts the attempts before those of
    this series."""

    number: int
    call: int
    place: int
    method: str
    parent: int | None
    attempts: int
    losses: int
    earlier: int
    payload: bytes | None
    size: int | None


class Result(NamedTuple):
    """How a durable input ended. The result lies in a file where it has a size and no bytes."""

    number: int
    outcome: int | None
    result: bytes | None
    size: int | None
    expired: int
    reason: str


class Queue(NamedTuple):
    number: int
    run: str
    app: str
    function: str
    variant: str
    opening: bytes | None


_CALL = ", ".join(FunctionCall._fields)
_INPUT = (
    "number, call, place, earlier + attempts, losses, worker, submitted_ms, started_ms, finished_ms, outcome, reason"
)
_FAILED = "(raised > 0 OR timed_out > 0 OR lost > 0)"
# What a state means of a call. Only who feeds the workers can tell "queued" and "running" apart.
STATES = {
    "open": "finished_ms IS NULL",
    "queued": "finished_ms IS NULL",
    "running": "finished_ms IS NULL",
    "failed": f"finished_ms IS NOT NULL AND {_FAILED}",
    "returned": "finished_ms IS NOT NULL AND returned = inputs",
    "raised": "finished_ms IS NOT NULL AND raised > 0",
    "timed_out": "finished_ms IS NOT NULL AND timed_out > 0 AND raised = 0",
    "lost": "finished_ms IS NOT NULL AND lost > 0 AND raised = 0 AND timed_out = 0",
    "cancelled": f"finished_ms IS NOT NULL AND cancelled > 0 AND NOT {_FAILED}",
}


class CallReads:
    """The reading half of what is known about calls; the other is `CallWrites`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def call(self, number: int) -> FunctionCall | None:
        query = f"SELECT {_CALL} FROM function_calls WHERE number = ?"  # noqa: S608 - our own words only
        found = await self._all(query, (number,))
        return FunctionCall._make(found[0]) if found else None

    async def calls(
        self,
        *,
        app: str | None = None,
        function: str | None = None,
        state: str | None = None,
        before: int | None = None,
        limit: int = 100,
    ) -> tuple[FunctionCall, ...]:
        """Function calls, the youngest first; `app` is a name or an id, `function` of a class may name a
        method too, `state` is one of `STATES`."""
        wheres, values = ["TRUE"], list[str | int]()
        if app is not None:
            wheres.append("(app = ? OR run = ?)")
            values += [app, app]
        if function is not None:
            wheres.append("? IN (function, function || '.' || method)")
            values.append(function)
        if state is not None:
            wheres.append(f"({STATES[state]})")
        if before is not None:
            wheres.append("number < ?")
            values.append(before)
        query = f"""SELECT {_CALL} FROM function_calls WHERE {" AND ".join(wheres)}
            ORDER BY number DESC LIMIT ?"""  # noqa: S608 - our own words only
        return tuple(map(FunctionCall._make, await self._all(query, (*values, limit))))

    async def some_calls(self, numbers: Collection[int]) -> tuple[FunctionCall, ...]:
        """Those of these calls of which something is written."""
        query = f"SELECT {_CALL} FROM function_calls WHERE number IN (SELECT value FROM json_each(?))"  # noqa: S608
        return tuple(map(FunctionCall._make, await self._all(query, (json.dumps(list(numbers)),))))

    async def inputs(self, call: int, *, start: int = 0, limit: int = 100) -> tuple[InputRow, ...]:
        """The inputs of a call from an index on."""
        query = f"SELECT {_INPUT} FROM inputs WHERE call = ? AND place >= ? ORDER BY place LIMIT ?"  # noqa: S608
        return tuple(map(InputRow._make, await self._all(query, (call, start, limit))))

    async def call_of(self, number: int) -> int | None:
        """The function call that an input is part of."""
        found = await self._all("SELECT call FROM inputs WHERE number = ?", (number,))
        return int(found[0][0]) if found else None

    async def attempts(self, inputs: Iterable[int]) -> tuple[AttemptRow, ...]:
        """The attempts of inputs that came before the last one of each, in order."""
        query = """SELECT input, attempt, worker, started_ms, finished_ms, outcome, reason FROM attempts
            WHERE input IN (SELECT value FROM json_each(?)) ORDER BY input, attempt"""
        return tuple(map(AttemptRow._make, await self._all(query, (json.dumps(list(inputs)),))))

    async def children(self, parents: Iterable[int], limit: int) -> tuple[FunctionCall, ...]:
        """The calls that the code of these inputs made."""
        query = f"""SELECT {_CALL} FROM function_calls
            WHERE parent IN (SELECT value FROM json_each(?)) ORDER BY number LIMIT ?"""  # noqa: S608
        return tuple(map(FunctionCall._make, await self._all(query, (json.dumps(list(parents)), limit))))

    async def result(self, call: int, index: int) -> Result | None:
        """How an input of a spawned call ended, or that it hasn't; None for one that there is not (yet)."""
        query = """SELECT i.number, i.outcome, i.result, i.result_size, c.expired, i.reason
            FROM inputs i JOIN function_calls c ON c.number = i.call
            WHERE i.call = ? AND i.place = ? AND c.queue IS NOT NULL"""
        found = await self._all(query, (call, index))
        return Result._make(found[0]) if found else None

    async def waiting(self, queue: int, *, after: int, limit: int) -> tuple[Waiting, ...]:
        """Inputs of a queue that are not over, in their order."""
        query = """SELECT i.number, i.call, i.place, c.method, c.parent, i.attempts, i.losses, i.earlier, i.payload,
            i.payload_size FROM inputs i JOIN function_calls c ON c.number = i.call
            WHERE i.queue = ? AND i.number > ? ORDER BY i.number LIMIT ?"""
        return tuple(map(Waiting._make, await self._all(query, (queue, after, limit))))

    async def open_queues(self) -> tuple[tuple[Queue, int], ...]:
        """The queues with inputs that are not over, and how many."""
        query = """SELECT q.number, run, app, function, variant, opening,
            (SELECT COUNT(*) FROM inputs i WHERE i.queue = q.number) AS inputs FROM queues q
            WHERE EXISTS (SELECT 1 FROM inputs i WHERE i.queue = q.number)"""
        return tuple((Queue._make(row[:-1]), row[-1]) for row in await self._all(query, ()))

    async def queue(self, number: int) -> Queue:
        """A queue that calls name."""
        query = "SELECT number, run, app, function, variant, opening FROM queues WHERE number = ?"
        return Queue._make((await self._all(query, (number,)))[0])

    async def with_files(self, numbers: Collection[int]) -> frozenset[tuple[int, str]]:
        """Of these inputs, what lies in files: (number, "in" or "out")."""
        query = """SELECT number, payload_size, result_size FROM inputs
            WHERE number IN (SELECT value FROM json_each(?))"""
        found = await self._all(query, (json.dumps(list(numbers)),))
        payloads = {(number, "in") for number, payload, _ in found if payload is not None}
        return frozenset(payloads | {(number, "out") for number, _, result in found if result is not None})

    async def _all(self, query: str, values: tuple[str | int, ...]) -> list[tuple]:  # type: ignore[type-arg]
        def act(connection: sqlite3.Connection) -> list[tuple]:  # type: ignore[type-arg]
            return connection.execute(query, values).fetchall()

        return await self._database.read(act)
