"""One SQLite file, used from the engine's loop without ever blocking it.

A single thread writes: what waits in its queue goes into one transaction, so that a thousand writers pay for one sync.
A few threads read, each on a connection of its own, and see whole transactions only.
"""

from __future__ import annotations

import asyncio
import queue
import sqlite3
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, Generic, TypeVar

from slipway.dsl.errors import Error, InternalError
from slipway.executor.points import point

from .migrations import MIGRATIONS, Migration, migrate

T = TypeVar("T")
Act = Callable[[sqlite3.Connection], T]
BATCH = 1000  # writes in one transaction
READERS = 2
GONE = "was removed or replaced"
DAMAGED = "Move it away, or put back the copy that an upgrade left beside it."
WORDS = (
    ("locked", "is locked by another program", "Close what has it open (sqlite3, a backup), then try again."),
    (
        "disk is full",
        "can't grow: the disk is full",
        "Free some space, or put the home on a larger disk: SLIPWAY_HOME.",
    ),
    (GONE, f"{GONE} while the engine ran", "Start the engine anew, with what is there now: slipway down --now"),
    (
        "no such table",
        f"{GONE} while the engine ran",
        "Start the engine anew, with what is there now: slipway down --now",
    ),
    ("malformed", "is damaged", DAMAGED),
    ("not a database", "is damaged", DAMAGED),
)


class _Write(Generic[T]):
    __slots__ = ("act", "durable", "error", "future", "loop", "result")

    def __init__(self, act: Act[T], *, durable: bool) -> None:
        self.act = act
        self.durable = durable
        self.loop = asyncio.get_running_loop()
        self.future: asyncio.Future[T] = self.loop.create_future()
        self.result: T
        self.error: BaseException | None = None

    def attempt(self, connection: sqlite3.Connection) -> None:
        """Do it within the batch's transaction; what fails leaves nothing behind and doesn't touch the others."""
        connection.execute("SAVEPOINT one")
        try:
            self.result = self.act(connection)
        except Exception as error:  # noqa: BLE001 - it belongs to the one who waits for this write, not to the thread
            self.error = error
            if connection.in_transaction:  # a full disk ends the whole transaction by itself
                connection.execute("ROLLBACK TO one")
        if connection.in_transaction:
            connection.execute("RELEASE one")

    def settle(self, path: Path) -> None:
        if not self.future.done():
            if self.error is not None:
                self.future.set_exception(in_words(self.error, path))
            else:
                self.future.set_result(self.result)


class Database:
    """Opened with `Database.open`, which migrates; `close` ends the threads after all that waits is written."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._queue: queue.SimpleQueue[_Write[Any] | None] = queue.SimpleQueue()
        self._readers = ThreadPoolExecutor(READERS, thread_name_prefix="state-read")
        self._local = threading.local()
        self._connections: list[sqlite3.Connection] = []
        self._closed = False
        self._file = 0  # its inode
        self._full = False  # whether commits of the writer's connection wait for the disk
        self._thread: threading.Thread

    @classmethod
    def open(cls, path: Path, *, version: str, migrations: tuple[Migration, ...] = MIGRATIONS) -> Database:
        """Blocks. Raises `VersionError` or `InvalidError` as `migrate` does."""
        database = cls(path)
        try:
            connection = database._connect()
        except sqlite3.OperationalError as error:
            raise Error(
                f"the state {path} can't be opened: {error}", hint="Look at its folder's owner and mode."
            ) from error
        try:
            migrate(connection, path, version=version, migrations=migrations)
            path.chmod(0o600)
            connection.execute("PRAGMA journal_mode = WAL")
            database._file = path.stat().st_ino
            database._thread = database._writer()
        except sqlite3.Error as error:
            raise in_words(error, path) from error
        finally:
            connection.close()
        return database

    def _writer(self) -> threading.Thread:
        """The thread that writes, started; its connection stands already, for what it waits for can't fail it."""
        connection = self._connect(share=True)
        connection.execute("PRAGMA synchronous = NORMAL")
        thread = threading.Thread(target=self._write_all, args=(connection,), name="state-write", daemon=True)
        thread.start()
        return thread

    async def write(self, act: Act[T], *, durable: bool = True) -> T:
        """Run `act` in a transaction, perhaps with others; return when it is committed.

        With `durable` it then survives a power failure, without it only a crash of this process.
        """
        if self._closed:
            raise InternalError("the state is closed")
        write = _Write(act, durable=durable)
        self._queue.put(write)
        return await write.future

    async def read(self, act: Act[T]) -> T:
        """Run `act` on a connection that only reads."""

        def read() -> T:
            with self._in_words():
                return act(self._reader())

        return await asyncio.get_running_loop().run_in_executor(self._readers, read)

    def read_here(self, act: Act[T]) -> T:
        """As `read`, in a thread that is blocked anyway."""
        with self._in_words(), closing(self._connect()) as connection:
            return act(connection)

    @contextmanager
    def _in_words(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise in_words(error, self._path) from error

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._queue.put(None)
        await asyncio.get_running_loop().run_in_executor(None, self._end)

    def _end(self) -> None:
        self._thread.join()
        self._readers.shutdown()
        for connection in self._connections:
            connection.close()

    # --- threads --------------------------------------------------------------------------------------

    def _connect(self, *, share: bool = False) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, timeout=30, isolation_level=None, check_same_thread=not share)
        connection.execute("PRAGMA foreign_keys = ON")
        return connection

    def _reader(self) -> sqlite3.Connection:
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = self._local.connection = self._connect(share=True)  # closed by another thread, in the end
            connection.execute("PRAGMA query_only = ON")
            self._connections.append(connection)
        return connection

    def _write_all(self, connection: sqlite3.Connection) -> None:
        """Never raises: whoever writes would wait for ever."""
        while (first := self._queue.get()) is not None:
            batch = [first]
            while len(batch) < BATCH and not self._queue.empty():
                following = self._queue.get()
                if following is None:
                    self._queue.put(None)
                    break
                batch.append(following)
            self._commit(connection, batch)
            self._tell(batch)
        connection.close()

    def _is_there(self) -> bool:
        """Whether the file that we write to is still the one of that name: else it would all be lost with our end."""
        try:
            return self._path.stat().st_ino == self._file
        except OSError:
            return False

    def _tell(self, batch: list[_Write[Any]]) -> None:
        """Hand the results over, with one wake-up for each loop that waits."""
        loops: dict[asyncio.AbstractEventLoop, list[_Write[Any]]] = {}
        for write in batch:
            loops.setdefault(write.loop, []).append(write)
        for loop, writes in loops.items():
            with suppress(RuntimeError):  # that loop has been closed: nobody waits any more
                loop.call_soon_threadsafe(_settle, writes, self._path)

    def _commit(self, connection: sqlite3.Connection, batch: list[_Write[Any]]) -> None:
        try:
            full = any(write.durable for write in batch)
            if full is not self._full:
                connection.execute(f"PRAGMA synchronous = {'FULL' if full else 'NORMAL'}")
                self._full = full
            if not self._is_there():
                raise sqlite3.OperationalError(GONE)
            connection.execute("BEGIN IMMEDIATE")
            for write in batch:
                write.attempt(connection)
                if not connection.in_transaction:
                    raise write.error or InternalError("a write ended the transaction that it was part of")
            point("before-commit")
            connection.execute("COMMIT")
            point("after-commit")
        except Exception as error:  # noqa: BLE001 - nothing of the batch is in the file: all who wait must hear of it
            if connection.in_transaction:
                with suppress(sqlite3.Error):  # the next batch fails by it then, and hears so
                    connection.execute("ROLLBACK")
            for write in batch:
                write.error = write.error or error


def in_words(error: BaseException, path: Path) -> BaseException:
    """What the database refused, as the user may meet it; anything else as it is."""
    if not isinstance(error, sqlite3.Error) or isinstance(error, sqlite3.IntegrityError | sqlite3.ProgrammingError):
        return error
    for sign, summary, hint in WORDS:
        if sign in str(error):
            return Error(f"the state {path} {summary}", hint=hint)
    return Error(f"the state {path} can't be used: {error}", hint="Look at its disk, its owner and its mode.")


def _settle(writes: list[_Write[Any]], path: Path) -> None:
    for write in writes:
        write.settle(path)
