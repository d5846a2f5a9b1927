"""Function calls, their inputs and attempts: everything that is written of them.

An input has exactly one outcome: whatever is written of one that has its outcome already changes nothing.
"""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Collection, Iterable
from operator import attrgetter
from typing import Any, NamedTuple

from slipway.dsl.errors import InvalidError, NotFoundError
from slipway.executor.ports import CallRow
from slipway.executor.underway import Attempt
from slipway.executor.worker.frames import Outcome

from .database import Database

AT_ONCE = 5000  # rows of one transaction of a long act: others get their turn in between
COLUMNS = ("returned", "raised", "timed_out", "cancelled", "lost")  # by `Outcome`
OVER = "returned + raised + timed_out + cancelled + lost"
LOST = int(Outcome.LOST)
CANCELLED = int(Outcome.CANCELLED)
ENGINE_ENDED = "the engine ended while it ran"


class Accepted(NamedTuple):
    """A durable input that came. Its payload lies in a file where it has a size and no bytes."""

    number: int
    call: int
    place: int
    queue: int
    method: str
    parent: int
    sealed: bool
    now_ms: int
    payload: bytes | None
    size: int | None = None
    key: str | None = None


class Failed(NamedTuple):
    """An attempt that is over while its input is not: it waits again. `attempts` counts it; without a `worker` it was
    none after all, and only the counts are kept."""

    number: int
    attempts: int
    losses: int
    worker: str
    started_ms: int
    outcome: int
    reason: str
    now_ms: int


class Ended(NamedTuple):
    """An input's outcome. Without a `worker` it is not that of an attempt."""

    number: int
    call: int
    attempts: int
    losses: int
    worker: str
    started_ms: int | None
    outcome: int
    reason: str
    now_ms: int
    result: bytes | None
    size: int | None = None


Entry = Accepted | Failed | Ended


class Written(NamedTuple):
    """What came of entries. `void` are the numbers of inputs that were over (or unknown) before; `finished` the calls
    that are over now; `known` says, by the call's number, which earlier call had its key."""

    void: frozenset[int]
    finished: frozenset[int]
    known: dict[int, int]


class Cut(NamedTuple):
    """Inputs that were ended where they waited: how many, which calls are over by it, and where to go on (or None)."""

    number: int
    finished: frozenset[int]
    ended: tuple[tuple[int, int], ...]  # (call, place)
    files: tuple[int, ...]  # inputs whose payload lies in a file that nobody needs any more
    following: int | None


class CallWrites:
    """The writing half of what is known about calls; the other is `CallReads`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    # --- what has happened

    async def queue(self, run: str, app: str, function: str, variant: str, opening: bytes | None) -> int:
        """The number of the queue of a function's (or a variant's) inputs, made where there is none."""

        def act(connection: sqlite3.Connection) -> int:
            where = (run, function, variant)
            query = "SELECT number FROM queues WHERE run = ? AND function = ? AND variant = ?"
            row = connection.execute(query, where).fetchone()
            if row is not None:
                return int(row[0])
            insert = "INSERT INTO queues (run, app, function, variant, opening) VALUES (?, ?, ?, ?, ?)"
            return connection.execute(insert, (run, app, function, variant, opening)).lastrowid or 0

        return await self._database.write(act, durable=False)

    async def write(self, entries: Iterable[Entry]) -> Written:
        """Write down what happened, in its order, as one transaction. What was accepted and what has ended is on disk
        then; an attempt that failed survives a crash of this process."""
        rows = list(entries)
        durable = any(type(row) is Accepted or type(row) is Ended for row in rows)
        return await self._database.write(lambda connection: _write(connection, rows), durable=durable)

    async def take_left(self, attempts: Iterable[Attempt], now_ms: int) -> None:
        """Attempts that the engine before this one had under way: they are lost, and their inputs wait again."""
        rows = list(attempts)
        if rows:
            await self._database.write(lambda connection: _take_left(connection, rows, now_ms))

    async def record(self, rows: Iterable[CallRow]) -> None:
        """Remember inputs that are over and were never written down before."""
        values = list(rows)
        await self._database.write(lambda connection: _record(connection, values), durable=False)

    async def seal(self, call: int, queue: int, method: str, parent: int, now_ms: int) -> bool:
        """No more inputs come, if ever any came; whether all that there are are over."""

        def act(connection: sqlite3.Connection) -> bool:
            connection.execute(_EMPTY_CALL, (call, method, parent or None, now_ms, queue))
            _seal(connection, "number = ?", (now_ms, call))
            row = connection.execute("SELECT finished_ms FROM function_calls WHERE number = ?", (call,)).fetchone()
            return row[0] is not None

        return await self._database.write(act)

    async def seal_all(self, now_ms: int) -> None:
        """Those who were adding inputs are gone with the engine before this one."""
        await self._database.write(lambda connection: _seal(connection, "sealed = 0", (now_ms,)))

    # --- giving up, trying again

    async def cancel_call(
        self, call: int, reason: str, now_ms: int, *, start: int = 0, but: Collection[int] = ()
    ) -> Cut:
        """End inputs of a call that wait, but for some; a few thousand, from index `start` on."""
        return await self._cut(("call", "place"), call, reason, now_ms, start, but, keep=True)

    async def cancel_queue(
        self, queue: int, reason: str, now_ms: int, *, start: int = 0, but: Collection[int] = (), keep: bool
    ) -> Cut:
        """End inputs of a queue that wait, from number `start` on. Without `keep` they can't be tried again."""
        return await self._cut(("queue", "number"), queue, reason, now_ms, start, but, keep=keep)

    async def _cut(
        self, by: tuple[str, str], which: int, reason: str, now_ms: int, start: int, but: Collection[int], *, keep: bool
    ) -> Cut:
        owner, column = by
        query = f"""SELECT number, call, place, payload_size, {column} FROM inputs
            WHERE {owner} = ? AND {column} >= ? AND queue IS NOT NULL ORDER BY {column} LIMIT ?"""  # noqa: S608
        spared = frozenset(but)

        def act(connection: sqlite3.Connection) -> Cut:
            rows = connection.execute(query, (which, start, AT_ONCE)).fetchall()
            chosen = [row for row in rows if row[0] not in spared]
            payload = "" if keep else ", payload = NULL, payload_size = NULL"
            connection.executemany(
                f"""UPDATE inputs SET queue = NULL, outcome = {CANCELLED}, reason = ?, finished_ms = ?{payload}
                    WHERE number = ?""",  # noqa: S608 - our own words only
                [(reason, now_ms, row[0]) for row in chosen],
            )
            counts = Counter((row[1], CANCELLED) for row in chosen)
            return Cut(
                number=len(chosen),
                finished=_count(connection, counts, now_ms),
                ended=tuple((row[1], row[2]) for row in chosen),
                files=() if keep else tuple(row[0] for row in chosen if row[3] is not None),
                following=rows[-1][4] + 1 if len(rows) == AT_ONCE else None,
            )

        return await self._database.write(act)

    async def retry(self, call: int, now_ms: int, *, start: int = 0) -> tuple[int, tuple[int, ...], int | None]:
        """Let inputs of a call that ended otherwise than by returning wait again, a few thousand from an index on:
        how many, which of them had a result in a file, and where to go on. The attempts so far stay on record.

        Raises `NotFoundError` for a call that was not spawned and `InvalidError` for one whose inputs are gone.
        """

        def act(connection: sqlite3.Connection) -> tuple[int, tuple[int, ...], int | None]:
            row = connection.execute(
                "SELECT queue, expired, inputs FROM function_calls WHERE number = ?", (call,)
            ).fetchone()
            if row is None or row[0] is None:
                raise NotFoundError(
                    f"no call fc-{call:x} was spawned here", hint="Those that are known: slipway call list"
                )
            queue, expired, inputs = row
            if expired:
                raise InvalidError(f"the call fc-{call:x} is too old to be tried again: its inputs are gone")
            return *_retry(connection, call, queue, start), (start + AT_ONCE if start + AT_ONCE < inputs else None)

        return await self._database.write(act)

    # --- forgetting

    async def expire(self, before_ms: int) -> tuple[int, tuple[int, ...]]:
        """Let go of payloads and results of calls that finished before, a few thousand inputs at most: how many calls
        were looked at (0: that was all), and the inputs whose files can go."""

        def act(connection: sqlite3.Connection) -> tuple[int, tuple[int, ...]]:
            calls = _some_calls(connection, "queue IS NOT NULL AND expired = 0 AND finished_ms < ?", (before_ms,))
            files: list[int] = []
            for call, _ in calls:
                number, more = _let_go(connection, call)
                files += more
                if number < AT_ONCE:
                    connection.execute("UPDATE function_calls SET expired = 1 WHERE number = ?", (call,))
            return len(calls), tuple(files)

        return await self._database.write(act, durable=False)

    async def prune(self, before_ms: int) -> int:
        """Forget calls that came and were over before, a few thousand inputs at most; 0: there are none left."""

        def act(connection: sqlite3.Connection) -> int:
            calls = _some_calls(
                connection, "created_ms < ? AND finished_ms < ? AND (queue IS NULL OR expired)", (before_ms, before_ms)
            )
            for call, whole in calls:
                some = "SELECT number FROM inputs WHERE call = ? LIMIT ?"
                values = (call, AT_ONCE)
                connection.execute(f"DELETE FROM attempts WHERE input IN ({some})", values)  # noqa: S608 - our own words
                connection.execute(f"DELETE FROM inputs WHERE number IN ({some})", values)  # noqa: S608 - our own words
                if whole:
                    connection.execute("DELETE FROM function_calls WHERE number = ?", (call,))
            return len(calls)

        return await self._database.write(act, durable=False)

    async def prune_queues(self) -> None:
        """Forget queues that no call is of any more."""
        used = "SELECT queue FROM function_calls WHERE queue IS NOT NULL"
        query = f"DELETE FROM queues WHERE number NOT IN ({used})"  # noqa: S608 - our own words only
        await self._database.write(lambda connection: connection.execute(query), durable=False)


# --- within a transaction -----------------------------------------------------------------------------

_ACCEPT_CALL = """INSERT INTO function_calls
    (number, run, app, function, method, parent, queue, key, sealed, created_ms, inputs)
    SELECT ?, run, app, function, ?, ?, number, ?, ?, ?, 1 FROM queues WHERE number = ?
    ON CONFLICT (number) DO UPDATE SET inputs = inputs + 1"""
_EMPTY_CALL = """INSERT OR IGNORE INTO function_calls
    (number, run, app, function, method, parent, queue, sealed, created_ms, inputs)
    SELECT ?, run, app, function, ?, ?, number, 0, ?, 0 FROM queues WHERE number = ?"""
_ACCEPT_INPUT = """INSERT INTO inputs
    (number, call, place, queue, attempts, losses, worker, submitted_ms, reason, payload, payload_size)
    VALUES (?, ?, ?, ?, 0, 0, '', ?, '', ?, ?)"""
_ARCHIVE = """INSERT OR IGNORE INTO attempts (input, attempt, worker, started_ms, finished_ms, outcome, reason)
    SELECT number, earlier + ?, ?, ?, ?, ?, ? FROM inputs WHERE number = ? AND queue IS NOT NULL"""
_FAIL = "UPDATE inputs SET attempts = ?, losses = ? WHERE number = ? AND queue IS NOT NULL"
_END = """UPDATE inputs SET queue = NULL, attempts = ?, losses = ?, worker = ?, started_ms = ?, outcome = ?, reason = ?,
    finished_ms = ?, result = ?, result_size = ? WHERE number = ? AND queue IS NOT NULL"""
_END_WELL = _END.replace("result = ?,", "payload = NULL, payload_size = NULL, result = ?,")


def _write(connection: sqlite3.Connection, rows: list[Entry]) -> Written:
    void: set[int] = set()
    known: dict[int, int] = {}
    ended: Counter[tuple[int, int]] = Counter()
    now_ms = 0
    for row in rows:
        match row:
            case Accepted():
                _accept(connection, row, known)
            case Failed(number, attempts, losses, worker, started_ms, outcome, reason, failed_ms):
                if worker:
                    archived = (attempts, worker, started_ms, failed_ms, outcome, reason, number)
                    connection.execute(_ARCHIVE, archived)
                if not connection.execute(_FAIL, (attempts, losses, number)).rowcount:
                    void.add(number)
            case Ended():
                now_ms = row.now_ms
                values = (row.attempts, row.losses, row.worker, row.started_ms, row.outcome, row.reason)
                more = (now_ms, row.result, row.size, row.number)
                if connection.execute(_END if row.outcome else _END_WELL, (*values, *more)).rowcount:
                    ended[row.call, row.outcome] += 1
                else:
                    void.add(row.number)
    return Written(frozenset(void), _count(connection, ended, now_ms), known)


def _take_left(connection: sqlite3.Connection, rows: list[Attempt], now_ms: int) -> None:
    for number, total, losses, started_ms, worker in rows:
        known = "SELECT earlier, attempts FROM inputs WHERE number = ? AND queue IS NOT NULL"
        row = connection.execute(known, (number,)).fetchone()
        if row is None or row[0] + row[1] >= total:
            continue  # it was written down how that one ended
        attempts = total - row[0]
        connection.execute(_ARCHIVE, (attempts, worker, started_ms, now_ms, LOST, ENGINE_ENDED, number))
        connection.execute(_FAIL, (attempts, losses + 1, number))


def _accept(connection: sqlite3.Connection, row: Accepted, known: dict[int, int]) -> None:
    if row.key is not None:
        found = connection.execute("SELECT number FROM function_calls WHERE key = ?", (row.key,)).fetchone()
        if found is not None:
            known[row.call] = found[0]
            return
    parent = row.parent or None
    values = (row.call, row.method, parent, row.key, row.sealed, row.now_ms, row.queue)
    connection.execute(_ACCEPT_CALL, values)
    connection.execute(_ACCEPT_INPUT, (row.number, row.call, row.place, row.queue, row.now_ms, row.payload, row.size))


def _count(connection: sqlite3.Connection, ended: Counter[tuple[int, int]], now_ms: int) -> frozenset[int]:
    """Count inputs that are over with their calls; the calls that are over by it."""
    finished = set()
    for (call, outcome), count in ended.items():
        column = COLUMNS[outcome]
        query = f"""UPDATE function_calls SET {column} = {column} + ?1,
            finished_ms = CASE WHEN sealed AND {OVER} + ?1 >= inputs THEN ?2 END
            WHERE number = ?3 RETURNING finished_ms"""  # noqa: S608 - our own words only
        row = connection.execute(query, (count, now_ms, call)).fetchone()
        if row is not None and row[0] is not None:
            finished.add(call)
    return frozenset(finished)


def _seal(connection: sqlite3.Connection, where: str, values: tuple[int, ...]) -> None:
    over = f"CASE WHEN {OVER} >= inputs THEN ? END"
    connection.execute(
        f"UPDATE function_calls SET sealed = 1, finished_ms = COALESCE(finished_ms, {over}) WHERE {where}",  # noqa: S608
        values,
    )


def _retry(connection: sqlite3.Connection, call: int, queue: int, start: int) -> tuple[int, tuple[int, ...]]:
    where = (
        "call = ? AND place >= ? AND place < ? AND outcome > 0 AND (payload IS NOT NULL OR payload_size IS NOT NULL)"
    )
    values = (call, start, start + AT_ONCE)
    rows = connection.execute(f"SELECT number, outcome, result_size FROM inputs WHERE {where}", values).fetchall()  # noqa: S608
    connection.execute(
        f"""INSERT OR IGNORE INTO attempts (input, attempt, worker, started_ms, finished_ms, outcome, reason)
            SELECT number, earlier + attempts, worker, started_ms, finished_ms, outcome, reason FROM inputs
            WHERE {where} AND worker <> ''""",  # noqa: S608 - our own words only
        values,
    )
    connection.execute(
        f"""UPDATE inputs SET queue = ?, earlier = earlier + attempts, attempts = 0, losses = 0, worker = '',
            started_ms = NULL, finished_ms = NULL, outcome = NULL, reason = '', result = NULL, result_size = NULL
            WHERE {where}""",  # noqa: S608 - our own words only
        (queue, *values),
    )
    for outcome, count in Counter(row[1] for row in rows).items():
        column = COLUMNS[outcome]
        connection.execute(
            f"UPDATE function_calls SET {column} = {column} - ?, finished_ms = NULL WHERE number = ?",  # noqa: S608
            (count, call),
        )
    return len(rows), tuple(row[0] for row in rows if row[2] is not None)


def _record(connection: sqlite3.Connection, rows: list[CallRow]) -> None:
    calls: dict[int, list[Any]] = {}
    for row in rows:
        call = calls.get(row.call)
        if call is None:
            call = calls[row.call] = [*_CALL_OF(row), row.parent or None, 0, row.submitted_ms, 0, 0, 0, 0, 0, 0]
        call[_FINISHED] = row.finished_ms  # they come in the order in which they ended
        call[_COUNT] += 1
        call[_COUNT + 1 + row.outcome] += 1
    connection.executemany(_RECORD_CALL, calls.values())
    connection.executemany(_RECORD_INPUT, map(_INPUT_OF, rows))


_CALL_OF = attrgetter("call", "run", "app", "function", "method")
_FINISHED, _COUNT = 6, 8  # where they stand among the values
_INPUT = ("number", "call", "place", "attempts", "losses", "worker", *("submitted_ms", "started_ms", "finished_ms"))
_INPUT_OF = attrgetter(*_INPUT, "outcome", "reason")
_ADDED = ", ".join(f"{column} = {column} + excluded.{column}" for column in ("inputs", *COLUMNS))
_RECORD_CALL = f"""INSERT INTO function_calls
    (number, run, app, function, method, parent, finished_ms, created_ms, inputs, {", ".join(COLUMNS)}, sealed)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 1)
    ON CONFLICT (number) DO UPDATE SET {_ADDED}, finished_ms = excluded.finished_ms"""  # noqa: S608
_RECORD_INPUT = """INSERT OR IGNORE INTO inputs
    (number, call, place, attempts, losses, worker, submitted_ms, started_ms, finished_ms, outcome, reason)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"""


def _some_calls(connection: sqlite3.Connection, where: str, values: tuple[int, ...]) -> list[tuple[int, bool]]:
    """A few calls with a few thousand inputs together, and of each whether it is done with by then."""
    query = f"""SELECT number, (SELECT COUNT(*) FROM (SELECT 1 FROM inputs WHERE call = function_calls.number
        LIMIT {AT_ONCE + 1})) FROM function_calls WHERE {where} LIMIT {AT_ONCE}"""  # noqa: S608 - our own words only
    chosen: list[tuple[int, bool]] = []
    total = 0
    for number, inputs in connection.execute(query, values):
        total += inputs
        chosen.append((number, inputs <= AT_ONCE))
        if total >= AT_ONCE:
            break
    return chosen


def _let_go(connection: sqlite3.Connection, call: int) -> tuple[int, list[int]]:
    """Let go of the payloads and results of a few thousand inputs; how many, and those whose files can go."""
    held = "payload IS NOT NULL OR payload_size IS NOT NULL OR result IS NOT NULL OR result_size IS NOT NULL"
    query = f"SELECT number, payload_size, result_size FROM inputs WHERE call = ? AND ({held}) LIMIT {AT_ONCE}"  # noqa: S608
    rows = connection.execute(query, (call,)).fetchall()
    connection.execute(
        """UPDATE inputs SET payload = NULL, payload_size = NULL, result = NULL, result_size = NULL
            WHERE number IN (SELECT value FROM json_each(?))""",
        (json.dumps([row[0] for row in rows]),),
    )
    return len(rows), [number for number, payload, result in rows if payload is not None or result is not None]
