"""The numbered migrations of state.db: appended to, never changed. Each runs once, in one transaction."""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path

from attrs import frozen

from slipway.dsl.errors import InvalidError, VersionError


@frozen
class Migration:
    number: int
    name: str
    statements: tuple[str, ...]


FIRST = Migration(
    1,
    "deployments, layers, intents, plans, calls, volumes, secrets, files",
    (
        """CREATE TABLE deployments (
            app TEXT NOT NULL, lineage TEXT NOT NULL, serial INTEGER NOT NULL, graph BLOB NOT NULL,
            runtime TEXT NOT NULL, created_ms INTEGER NOT NULL, PRIMARY KEY (app, lineage, serial)) STRICT""",
        """CREATE TABLE current (
            app TEXT PRIMARY KEY, lineage TEXT NOT NULL, serial INTEGER NOT NULL,
            FOREIGN KEY (app, lineage, serial) REFERENCES deployments (app, lineage, serial)) STRICT""",
        """CREATE TABLE layers (
            layer TEXT NOT NULL, runtime TEXT NOT NULL, step TEXT NOT NULL, below TEXT NOT NULL, output TEXT NOT NULL,
            ms INTEGER NOT NULL, number INTEGER NOT NULL, PRIMARY KEY (layer, runtime)) STRICT""",
        "CREATE INDEX layers_by_step ON layers (runtime, step, below)",
        """CREATE TABLE intents (
            id INTEGER PRIMARY KEY AUTOINCREMENT, act TEXT NOT NULL, subject TEXT NOT NULL, app TEXT NOT NULL,
            since_ms INTEGER NOT NULL) STRICT""",
        """CREATE TABLE plans (
            number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, folder TEXT NOT NULL,
            plan BLOB NOT NULL, created_ms INTEGER NOT NULL) STRICT""",
        "CREATE INDEX plans_by_folder ON plans (folder, number)",
        """CREATE TABLE calls (
            id TEXT PRIMARY KEY, app TEXT NOT NULL, function TEXT NOT NULL, worker TEXT NOT NULL,
            submitted_ms INTEGER NOT NULL, started_ms INTEGER, finished_ms INTEGER,
            outcome TEXT NOT NULL, reason TEXT NOT NULL) STRICT, WITHOUT ROWID""",
        "CREATE INDEX calls_by_time ON calls (submitted_ms)",
        """CREATE TABLE volumes (
            name TEXT PRIMARY KEY, folder TEXT NOT NULL UNIQUE, created_ms INTEGER NOT NULL) STRICT""",
        """CREATE TABLE secrets (
            app TEXT NOT NULL, slot TEXT NOT NULL, version INTEGER NOT NULL, mac TEXT NOT NULL, sealed BLOB NOT NULL,
            PRIMARY KEY (app, slot, version), UNIQUE (app, slot, mac)) STRICT""",
        """CREATE TABLE files (
            path TEXT PRIMARY KEY, size INTEGER NOT NULL, mtime_ns INTEGER NOT NULL, inode INTEGER NOT NULL,
            ctime_ns INTEGER NOT NULL, digest TEXT NOT NULL) STRICT, WITHOUT ROWID""",
    ),
)

USES = Migration(
    2,
    "uses",
    (
        # When a layer or a bundle was last part of what was built, run or deployed; `below`: what it stands on.
        """CREATE TABLE uses (
            kind TEXT NOT NULL, ident TEXT NOT NULL, below TEXT NOT NULL, used_ms INTEGER NOT NULL,
            PRIMARY KEY (kind, ident)) STRICT, WITHOUT ROWID""",
    ),
)

CALLS = Migration(
    3,
    "function calls, inputs, attempts",
    (
        # It told no function call from its inputs, and what it holds is a record that nothing reads.
        "DROP TABLE calls",
        # Which workers durable inputs are for; `opening`: what sets them apart, sealed, from the function as it is.
        """CREATE TABLE queues (
            number INTEGER PRIMARY KEY, run TEXT NOT NULL, app TEXT NOT NULL, function TEXT NOT NULL,
            variant TEXT NOT NULL, opening BLOB, UNIQUE (run, function, variant)) STRICT""",
        # `queue` is that of durable ones. `inputs` is how many there are so far, the next five how many are over.
        """CREATE TABLE function_calls (
            number INTEGER PRIMARY KEY, run TEXT NOT NULL, app TEXT NOT NULL, function TEXT NOT NULL,
            method TEXT NOT NULL, parent INTEGER, queue INTEGER REFERENCES queues, key TEXT, sealed INTEGER NOT NULL,
            created_ms INTEGER NOT NULL, finished_ms INTEGER, inputs INTEGER NOT NULL,
            returned INTEGER NOT NULL DEFAULT 0, raised INTEGER NOT NULL DEFAULT 0,
            timed_out INTEGER NOT NULL DEFAULT 0, cancelled INTEGER NOT NULL DEFAULT 0,
            lost INTEGER NOT NULL DEFAULT 0, expired INTEGER NOT NULL DEFAULT 0) STRICT""",
        "CREATE INDEX calls_by_time ON function_calls (created_ms)",
        "CREATE INDEX calls_by_parent ON function_calls (parent) WHERE parent IS NOT NULL",
        "CREATE UNIQUE INDEX calls_by_key ON function_calls (key) WHERE key IS NOT NULL",
        "CREATE INDEX calls_to_expire ON function_calls (finished_ms) WHERE queue IS NOT NULL AND expired = 0",
        # Durable ones have a `queue` until they are over. `attempts`, `losses`, `worker` and `started_ms` are those of
        # this series; a retry by hand begins a new one, and `earlier` counts the attempts before. A payload or result
        # that has a size and no bytes here lies in a file.
        """CREATE TABLE inputs (
            number INTEGER PRIMARY KEY, call INTEGER NOT NULL, place INTEGER NOT NULL, queue INTEGER,
            attempts INTEGER NOT NULL, losses INTEGER NOT NULL, earlier INTEGER NOT NULL DEFAULT 0,
            worker TEXT NOT NULL, submitted_ms INTEGER NOT NULL, started_ms INTEGER, finished_ms INTEGER,
            outcome INTEGER, reason TEXT NOT NULL, payload BLOB, payload_size INTEGER, result BLOB,
            result_size INTEGER) STRICT""",
        "CREATE UNIQUE INDEX inputs_by_call ON inputs (call, place)",
        "CREATE INDEX inputs_waiting ON inputs (queue, number) WHERE queue IS NOT NULL",
        # Those before the last one of each durable input.
        """CREATE TABLE attempts (
            input INTEGER NOT NULL, attempt INTEGER NOT NULL, worker TEXT NOT NULL, started_ms INTEGER,
            finished_ms INTEGER, outcome INTEGER NOT NULL, reason TEXT NOT NULL,
            PRIMARY KEY (input, attempt)) STRICT, WITHOUT ROWID""",
    ),
)

MIGRATIONS: tuple[Migration, ...] = (FIRST, USES, CALLS)


def migrate(
    connection: sqlite3.Connection, path: Path, *, version: str, migrations: tuple[Migration, ...] = MIGRATIONS
) -> None:
    """Bring a database up to date, a copy of what was there kept beside it. Blocks.

    Raises `VersionError` where a newer slipway wrote it and `InvalidError` where it is no state of slipway's.
    """
    done = _recorded(connection, path)
    newest = max((number for number, _ in done), default=0)
    known = migrations[-1].number
    if newest > known:
        writer = next(slipway for number, slipway in done if number == newest)
        raise VersionError(
            f"the state {path} was written by slipway {writer} (schema {newest}), "
            f"this is slipway {version} (schema {known})",
            hint=f"Use slipway {writer} or newer with this home, or another home (SLIPWAY_HOME).",
        )
    waiting = [migration for migration in migrations if migration.number > newest]
    if newest and waiting:
        _back_up(connection, path.with_name(f"{path.name}.schema-{newest}"))
    for migration in waiting:
        with _transaction(connection):
            for statement in migration.statements:
                connection.execute(statement)
            connection.execute(
                "INSERT INTO schema VALUES (?, ?, ?, ?)",
                (migration.number, migration.name, version, int(time.time() * 1000)),
            )


def _recorded(connection: sqlite3.Connection, path: Path) -> list[tuple[int, str]]:
    try:
        with _transaction(connection):
            tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            if tables and "schema" not in tables:
                raise InvalidError(
                    f"{path} is a database, but not a state of slipway's: it has the table {min(tables)}",
                    hint="Move it away, or use another home (SLIPWAY_HOME).",
                )
            connection.execute(
                """CREATE TABLE IF NOT EXISTS schema (
                    number INTEGER PRIMARY KEY, name TEXT NOT NULL, slipway TEXT NOT NULL, applied_ms INTEGER NOT NULL
                ) STRICT"""
            )
            return [(number, slipway) for number, slipway in connection.execute("SELECT number, slipway FROM schema")]
    except sqlite3.DatabaseError as error:
        raise InvalidError(
            f"the state {path} can't be read: {error}",
            hint="Where the disk isn't full and the file isn't in use elsewhere, it is damaged: move it away, or put "
            "back the copy that an upgrade left beside it.",
        ) from error


def _back_up(connection: sqlite3.Connection, to: Path) -> None:
    """Copy the database whole; the copy is under its name only when it is complete."""
    making = to.with_name(to.name + ".making")
    making.unlink(missing_ok=True)
    copy = sqlite3.connect(making)
    try:
        connection.backup(copy)
    finally:
        copy.close()
    making.chmod(0o600)
    making.replace(to)


class _transaction:  # noqa: N801 - reads as a function
    """All or nothing; `sqlite3`'s own context manager leaves statements that define tables outside."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def __enter__(self) -> None:
        self._connection.execute("BEGIN IMMEDIATE")

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if error is None:
            self._connection.execute("COMMIT")
        elif self._connection.in_transaction:
            self._connection.execute("ROLLBACK")
