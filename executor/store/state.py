"""What a home remembers, in state.db: deployments, layers, intents, plans, volumes, secrets and file digests. What is
known of calls is with `call_writes` and `call_reads`."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

from attrs import frozen

from slipway.dsl.errors import AlreadyExistsError, NotFoundError, StalePlanError
from slipway.executor.ports import Built, Deployment

from .call_reads import CallReads
from .call_writes import CallWrites
from .database import Database

PLANS_KEPT = 20  # of each folder; older ones are let go when a new one is saved


@frozen(kw_only=True)
class Intent:
    """An act that was begun. One that is found when an engine starts was cut short."""

    id: int
    act: str  # "build" | "bundle" | "volume" | "destroy"
    subject: str
    app: str = ""


@frozen(kw_only=True)
class SavedPlan:
    id: str
    folder: str
    plan: bytes
    created_ms: int


@frozen(kw_only=True)
class Volume:
    """`folder` names the folder under `<home>/volumes`."""

    name: str
    folder: str


class Use(NamedTuple):
    """When something was last part of what was built, run or deployed; `below` names what it stands on, or is ""."""

    kind: str  # "layer" | "bundle"
    ident: str
    below: str
    used_ms: int


class FileStat(NamedTuple):
    """What tells a file that is unchanged from one that isn't, and the digest that it had. (Ten thousand are read at a
    time, so this is the one value here that is not an attrs class.)"""

    path: str
    size: int
    mtime_ns: int
    inode: int
    ctime_ns: int
    digest: str


_LAYER = "layer, step, below, output, ms, runtime"
_DEPLOYMENT = "d.app, d.lineage, d.serial, d.graph, d.created_ms, d.runtime"
_CURRENT = f"SELECT {_DEPLOYMENT} FROM current c JOIN deployments d USING (app, lineage, serial)"  # noqa: S608


class State:
    """The only way to state.db. Every method waits for the disk in a thread, never on the loop."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.call_writes = CallWrites(database)
        self.call_reads = CallReads(database)

    @classmethod
    def open(cls, path: Path, *, version: str) -> State:
        """Open or make the state at `path`, migrating it. Blocks.

        Raises `VersionError` where a newer slipway wrote it and `InvalidError` where it is damaged.
        """
        return cls(Database.open(path, version=version))

    async def close(self) -> None:
        await self._database.close()

    # --- deployments ----------------------------------------------------------------------------------

    async def deployment(self, app: str) -> Deployment | None:
        """What is in force for an app."""

        def act(connection: sqlite3.Connection) -> Deployment | None:
            row = connection.execute(f"{_CURRENT} WHERE c.app = ?", (app,)).fetchone()
            return _deployment(row) if row else None

        return await self._database.read(act)

    async def deployments(self) -> tuple[Deployment, ...]:
        """What is in force, of all apps by name."""
        return await self._database.read(
            lambda connection: tuple(map(_deployment, connection.execute(f"{_CURRENT} ORDER BY c.app")))
        )

    async def history(self, app: str) -> tuple[Deployment, ...]:
        """Everything that was ever in force for an app, the newest first."""
        query = f"SELECT {_DEPLOYMENT} FROM deployments d WHERE app = ? ORDER BY created_ms DESC, serial DESC"  # noqa: S608
        return await self._database.read(lambda connection: tuple(map(_deployment, connection.execute(query, (app,)))))

    async def previous(self, deployment: Deployment) -> Deployment | None:
        """What was in force for its app before it."""
        query = f"""SELECT {_DEPLOYMENT} FROM deployments d
            WHERE app = ? AND lineage = ? AND serial < ? ORDER BY serial DESC LIMIT 1"""  # noqa: S608

        def act(connection: sqlite3.Connection) -> Deployment | None:
            values = (deployment.app, deployment.lineage, deployment.serial)
            row = connection.execute(query, values).fetchone()
            return _deployment(row) if row else None

        return await self._database.read(act)

    async def flip(self, deployment: Deployment, *, onto: tuple[str, int]) -> None:
        """Put a deployment in force in one transaction, if `onto` (lineage, serial; ("", 0): none) still is.

        Raises `StalePlanError` if not.
        """

        def act(connection: sqlite3.Connection) -> None:
            now = connection.execute("SELECT lineage, serial FROM current WHERE app = ?", (deployment.app,)).fetchone()
            if (now or ("", 0)) != onto:
                raise StalePlanError(
                    f"{deployment.app} is at serial {now[1] if now else 0} now; this was to follow serial {onto[1]}",
                    hint="Another apply was faster. Make the plan again: slipway plan",
                )
            row = (
                deployment.app,
                deployment.lineage,
                deployment.serial,
                deployment.graph,
                deployment.runtime,
                deployment.created_ms,
            )
            connection.execute("INSERT INTO deployments VALUES (?, ?, ?, ?, ?, ?)", row)
            connection.execute("INSERT OR REPLACE INTO current VALUES (?, ?, ?)", row[:3])

        await self._database.write(act)

    async def retire(self, app: str) -> bool:
        """Put nothing in force for an app; its history stays. False where there was nothing."""
        return await self._database.write(
            lambda connection: connection.execute("DELETE FROM current WHERE app = ?", (app,)).rowcount > 0
        )

    # --- layers ---------------------------------------------------------------------------------------

    async def record_built(self, built: Built, *, intent: Intent | None = None) -> None:
        """Remember a finished layer, and in the same transaction that its intent is carried out."""

        def act(connection: sqlite3.Connection) -> None:
            connection.execute(
                f"""INSERT OR REPLACE INTO layers ({_LAYER}, number)
                    VALUES (?, ?, ?, ?, ?, ?, (SELECT COALESCE(MAX(number), 0) + 1 FROM layers))""",  # noqa: S608
                (built.layer, built.step, built.below, built.output, built.ms, built.runtime),
            )
            if intent is not None:
                connection.execute("DELETE FROM intents WHERE id = ?", (intent.id,))

        await self._database.write(act)

    async def built(self, layer: str, runtime: str) -> Built | None:
        """What is known of a layer by its digest."""
        return await self._one_built("layer = ? AND runtime = ?", (layer, runtime))

    async def find_built(self, step: str, below: str, runtime: str) -> tuple[Built, ...]:
        """The layers that the same step made of the same content, the newest first."""
        return await self._some_built("step = ? AND below = ? AND runtime = ?", (step, below, runtime))

    async def all_built(self, runtime: str) -> tuple[Built, ...]:
        return await self._some_built("runtime = ?", (runtime,))

    async def has_used(self, runtime: str) -> bool:
        """Whether anything was ever built or deployed with a runtime."""
        query = """SELECT EXISTS (SELECT 1 FROM layers WHERE runtime = ?1)
            OR EXISTS (SELECT 1 FROM deployments WHERE runtime = ?1)"""
        return await self._database.read(lambda connection: bool(connection.execute(query, (runtime,)).fetchone()[0]))

    async def _some_built(self, where: str, values: tuple[str, ...]) -> tuple[Built, ...]:
        query = f"SELECT {_LAYER} FROM layers WHERE {where} ORDER BY number DESC"  # noqa: S608 - our own words only
        return await self._database.read(lambda connection: tuple(map(_built, connection.execute(query, values))))

    async def _one_built(self, where: str, values: tuple[str, ...]) -> Built | None:
        found = await self._some_built(where, values)
        return found[0] if found else None

    # --- uses -----------------------------------------------------------------------------------------

    async def record_uses(self, uses: Iterable[Use]) -> None:
        """Remember last uses; a row replaces the one before."""
        rows = list(uses)
        if rows:
            await self._database.write(
                lambda connection: connection.executemany("INSERT OR REPLACE INTO uses VALUES (?, ?, ?, ?)", rows),
                durable=False,
            )

    async def uses(self) -> tuple[Use, ...]:
        query = "SELECT kind, ident, below, used_ms FROM uses"
        return await self._database.read(lambda connection: tuple(map(Use._make, connection.execute(query))))

    async def forget_uses(self, names: Iterable[tuple[str, str]]) -> None:
        """Forget the last uses of (kind, ident)."""
        rows = list(names)
        if rows:
            await self._database.write(
                lambda connection: connection.executemany("DELETE FROM uses WHERE kind = ? AND ident = ?", rows),
                durable=False,
            )

    # --- intents --------------------------------------------------------------------------------------

    async def intend(self, act: str, subject: str, *, app: str = "") -> Intent:
        """Note what is about to be done, before it is."""

        def write(connection: sqlite3.Connection) -> Intent:
            cursor = connection.execute(
                "INSERT INTO intents (act, subject, app, since_ms) VALUES (?, ?, ?, ?)", (act, subject, app, _now_ms())
            )
            return Intent(id=cursor.lastrowid or 0, act=act, subject=subject, app=app)

        return await self._database.write(write)

    async def settle(self, intent: Intent) -> None:
        """It is done, or known to have failed."""
        await self._database.write(
            lambda connection: connection.execute("DELETE FROM intents WHERE id = ?", (intent.id,)), durable=False
        )

    async def intents(self) -> tuple[Intent, ...]:
        query = "SELECT id, act, subject, app FROM intents ORDER BY id"
        return await self._database.read(
            lambda connection: tuple(
                Intent(id=number, act=act, subject=subject, app=app)
                for number, act, subject, app in connection.execute(query)
            )
        )

    # --- plans ----------------------------------------------------------------------------------------

    async def save_plan(self, folder: str, plan_id: str, plan: bytes) -> None:
        """Keep a plan as the last one made in `folder`."""

        def act(connection: sqlite3.Connection) -> None:
            connection.execute(
                "INSERT OR REPLACE INTO plans (id, folder, plan, created_ms) VALUES (?, ?, ?, ?)",
                (plan_id, folder, plan, _now_ms()),
            )
            connection.execute(
                """DELETE FROM plans WHERE folder = ?1 AND number NOT IN
                    (SELECT number FROM plans WHERE folder = ?1 ORDER BY number DESC LIMIT ?2)""",
                (folder, PLANS_KEPT),
            )

        await self._database.write(act, durable=False)

    async def plan(self, plan_id: str) -> SavedPlan:
        """Raises `NotFoundError`."""
        found = await self._saved_plan("id = ?", plan_id)
        if found is None:
            raise NotFoundError(f"there is no plan {plan_id} in this home", hint="Make one: slipway plan app.py")
        return found

    async def last_plan(self, folder: str) -> SavedPlan | None:
        """The last plan made in a folder."""
        return await self._saved_plan("folder = ?", folder)

    async def _saved_plan(self, where: str, value: str) -> SavedPlan | None:
        query = f"SELECT id, folder, plan, created_ms FROM plans WHERE {where} ORDER BY number DESC LIMIT 1"  # noqa: S608

        def act(connection: sqlite3.Connection) -> SavedPlan | None:
            row = connection.execute(query, (value,)).fetchone()
            return SavedPlan(id=row[0], folder=row[1], plan=row[2], created_ms=row[3]) if row else None

        return await self._database.read(act)

    # --- volumes --------------------------------------------------------------------------------------

    async def volume(self, name: str) -> Volume | None:
        def act(connection: sqlite3.Connection) -> Volume | None:
            row = connection.execute("SELECT name, folder FROM volumes WHERE name = ?", (name,)).fetchone()
            return Volume(name=row[0], folder=row[1]) if row else None

        return await self._database.read(act)

    async def volumes(self) -> tuple[Volume, ...]:
        query = "SELECT name, folder FROM volumes ORDER BY name"
        return await self._database.read(
            lambda connection: tuple(Volume(name=name, folder=folder) for name, folder in connection.execute(query))
        )

    async def create_volume(self, name: str, folder: str) -> Volume:
        """Raises `AlreadyExistsError`."""

        def act(connection: sqlite3.Connection) -> Volume:
            try:
                connection.execute("INSERT INTO volumes VALUES (?, ?, ?)", (name, folder, _now_ms()))
            except sqlite3.IntegrityError:
                raise AlreadyExistsError(f"there is a volume {name} already") from None
            return Volume(name=name, folder=folder)

        return await self._database.write(act)

    async def remove_volume(self, name: str) -> None:
        await self._database.write(lambda connection: connection.execute("DELETE FROM volumes WHERE name = ?", (name,)))

    # --- secrets --------------------------------------------------------------------------------------

    async def secret_version(self, app: str, slot: str, mac: str, sealed: bytes) -> int:
        """The version that these values of a slot have: the one they had, or one more than the last."""
        known = await self._database.read(lambda connection: _version_of(connection, app, slot, mac))
        if known is not None:
            return known

        def act(connection: sqlite3.Connection) -> int:
            found = _version_of(connection, app, slot, mac)
            if found is not None:
                return found
            last = "SELECT COALESCE(MAX(version), 0) + 1 FROM secrets WHERE app = ? AND slot = ?"
            version: int = connection.execute(last, (app, slot)).fetchone()[0]
            connection.execute("INSERT INTO secrets VALUES (?, ?, ?, ?, ?)", (app, slot, version, mac, sealed))
            return version

        return await self._database.write(act)

    async def sealed(self, app: str, slot: str, version: int) -> bytes:
        """The sealed values of a version of a slot. Raises `NotFoundError`."""
        query = "SELECT sealed FROM secrets WHERE app = ? AND slot = ? AND version = ?"
        row: tuple[bytes] | None = await self._database.read(
            lambda connection: connection.execute(query, (app, slot, version)).fetchone()
        )
        if row is None:
            raise NotFoundError(
                f"the values of secret {slot}, version {version}, are not in this home",
                hint="Make the plan again where the values are: slipway plan",
            )
        return row[0]

    # --- digests of files -----------------------------------------------------------------------------

    def files_below(self, folder: str) -> dict[str, FileStat]:
        """What is known of the files below a folder, or of the one file. Blocks: call it in a thread."""
        prefix = folder.rstrip("/") + "/"
        query = (
            "SELECT path, size, mtime_ns, inode, ctime_ns, digest FROM files WHERE path = ? OR (path >= ? AND path < ?)"
        )

        def act(connection: sqlite3.Connection) -> dict[str, FileStat]:
            rows = connection.execute(query, (folder, prefix, prefix[:-1] + "0"))  # "0" is what follows "/"
            return {row[0]: FileStat._make(row) for row in rows}

        return self._database.read_here(act)

    async def record_files(self, files: Iterable[FileStat], gone: Iterable[str] = ()) -> None:
        """Remember the digests of files, and forget files that are gone."""
        rows = list(files)
        paths = [(path,) for path in gone]

        def act(connection: sqlite3.Connection) -> None:
            connection.executemany("INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?, ?)", rows)
            connection.executemany("DELETE FROM files WHERE path = ?", paths)

        if rows or paths:
            await self._database.write(act, durable=False)

    @asynccontextmanager
    async def intent(self, act: str, subject: str, *, app: str = "") -> AsyncIterator[Intent]:
        """An intent for the length of a block; it stays where the process dies in it."""
        intent = await self.intend(act, subject, app=app)
        try:
            yield intent
        finally:
            await self.settle(intent)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _version_of(connection: sqlite3.Connection, app: str, slot: str, mac: str) -> int | None:
    query = "SELECT version FROM secrets WHERE app = ? AND slot = ? AND mac = ?"
    row = connection.execute(query, (app, slot, mac)).fetchone()
    return row[0] if row else None


def _deployment(row: tuple[str, str, int, bytes, int, str]) -> Deployment:
    app, lineage, serial, graph, created_ms, runtime = row
    return Deployment(app=app, lineage=lineage, serial=serial, graph=graph, created_ms=created_ms, runtime=runtime)


def _built(row: tuple[str, str, str, str, int, str]) -> Built:
    layer, step, below, output, ms, runtime = row
    return Built(layer=layer, step=step, below=below, output=output, ms=ms, runtime=runtime)
