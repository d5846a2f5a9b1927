"""What the state promises: transactions whole, versions that count, history that stays, and no wait on the loop."""

from __future__ import annotations

import asyncio
import itertools
import os
import sqlite3
import stat
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slipway.dsl.errors import AlreadyExistsError, Error, InvalidError, NotFoundError, StalePlanError, VersionError
from slipway.executor.ports import Built, Deployment
from slipway.executor.store.database import Database, in_words
from slipway.executor.store.migrations import MIGRATIONS, Migration
from slipway.executor.store.state import FileStat, State, Use


@asynccontextmanager
async def opened(path: Path) -> AsyncIterator[State]:
    state = State.open(path, version="0.1.0")
    try:
        yield state
    finally:
        await state.close()


def run(path: Path, act: Callable[[State], Awaitable[None]]) -> None:
    async def main() -> None:
        async with opened(path / "state.db") as state:
            await act(state)

    asyncio.run(main())


def deployment(serial: int, *, app: str = "search", lineage: str = "l1") -> Deployment:
    return Deployment(
        app=app, lineage=lineage, serial=serial, graph=b"g%d" % serial, created_ms=serial, runtime="native"
    )


def test_flip_puts_in_force_and_keeps_history(tmp_path: Path) -> None:
    async def act(state: State) -> None:
        assert await state.deployment("search") is None
        await state.flip(deployment(1), onto=("", 0))
        await state.flip(deployment(2), onto=("l1", 1))
        await state.flip(deployment(1, app="other"), onto=("", 0))
        assert deployment(2) == await state.deployment("search")
        assert (deployment(2), deployment(1)) == await state.history("search")
        assert [d.app for d in await state.deployments()] == ["other", "search"]

    run(tmp_path, act)


def test_what_was_in_force_before(tmp_path: Path) -> None:
    async def act(state: State) -> None:
        for serial in (1, 2, 3):
            await state.flip(deployment(serial), onto=("l1" if serial > 1 else "", serial - 1))
        await state.retire("search")
        await state.flip(deployment(1, lineage="l2"), onto=("", 0))
        assert await state.previous(deployment(3)) == deployment(2)
        assert await state.previous(deployment(1)) is None
        assert await state.previous(deployment(1, lineage="l2")) is None, "what was destroyed is not gone back to"
        assert await state.has_used("native") and not await state.has_used("docker")

    run(tmp_path, act)


def test_last_uses(tmp_path: Path) -> None:
    async def act(state: State) -> None:
        await state.record_uses([Use("layer", "a", "", 1), Use("layer", "b", "a", 1), Use("bundle", "a", "", 2)])
        await state.record_uses([Use("layer", "b", "a", 5)])
        await state.record_uses([])
        assert set(await state.uses()) == {
            *(Use("layer", "a", "", 1), Use("layer", "b", "a", 5), Use("bundle", "a", "", 2))
        }
        await state.forget_uses([("layer", "a"), ("layer", "never")])
        assert {(use.kind, use.ident) for use in await state.uses()} == {("layer", "b"), ("bundle", "a")}

    run(tmp_path, act)


def test_flip_onto_what_is_no_longer_in_force_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    async def act(state: State) -> None:
        await state.flip(deployment(1), onto=("", 0))
        for onto in (("", 0), ("l1", 2), ("l2", 1)):
            with pytest.raises(StalePlanError, match="serial 1 now"):
                await state.flip(deployment(2), onto=onto)
        assert (deployment(1),) == await state.history("search")

    run(tmp_path, act)


def test_of_many_flips_onto_the_same_serial_one_wins(tmp_path: Path) -> None:
    async def act(state: State) -> None:
        flips = [state.flip(deployment(1, lineage=f"l{i}"), onto=("", 0)) for i in range(8)]
        results = await asyncio.gather(*flips, return_exceptions=True)
        assert results.count(None) == 1
        assert len(await state.history("search")) == 1

    run(tmp_path, act)


def test_retire_spares_history_and_says_whether_there_was_something(tmp_path: Path) -> None:
    async def act(state: State) -> None:
        await state.flip(deployment(1), onto=("", 0))
        assert await state.retire("search")
        assert not await state.retire("search")
        assert await state.deployment("search") is None
        assert (deployment(1),) == await state.history("search")
        await state.flip(deployment(1, lineage="l2"), onto=("", 0))

    run(tmp_path, act)


def built(layer: str, *, step: str = "s", below: str = "b", ms: int = 5, output: str = "o") -> Built:
    return Built(layer=layer, step=step, below=below, output=output, ms=ms, runtime="native")


def test_layers_are_found_by_digest_and_by_step_on_content(tmp_path: Path) -> None:
    async def act(state: State) -> None:
        await state.record_built(built("l1"))
        await state.record_built(built("l2", ms=9))
        await state.record_built(built("l3", step="t"))
        assert built("l1") == await state.built("l1", "native")
        assert await state.built("l1", "docker") is None
        assert (built("l2", ms=9), built("l1")) == await state.find_built("s", "b", "native")
        assert await state.find_built("s", "other", "native") == ()

    run(tmp_path, act)


def test_an_intent_is_there_until_its_result_is(tmp_path: Path) -> None:
    async def act(state: State) -> None:
        intent = await state.intend("build", "l1", app="search")
        other = await state.intend("bundle", "b1")
        assert (intent, other) == await state.intents()
        await state.record_built(built("l1"), intent=intent)
        assert (other,) == await state.intents()
        await state.settle(other)
        assert await state.intents() == ()

    run(tmp_path, act)


def test_plans_by_id_and_the_last_of_a_folder(tmp_path: Path) -> None:
    async def act(state: State) -> None:
        await state.save_plan("/a", "p1", b"one")
        await state.save_plan("/b", "p2", b"two")
        await state.save_plan("/a", "p3", b"three")
        await state.save_plan("/a", "p1", b"one again")
        assert (await state.plan("p2")).plan == b"two"
        last = await state.last_plan("/a")
        assert last is not None and (last.id, last.plan) == ("p1", b"one again")
        assert await state.last_plan("/c") is None
        with pytest.raises(NotFoundError, match="no plan p9"):
            await state.plan("p9")
        for i in range(30):
            await state.save_plan("/a", f"later{i}", b"")
        with pytest.raises(NotFoundError):
            await state.plan("p3")
        assert (await state.plan("p2")).plan == b"two"

    run(tmp_path, act)


def test_volumes(tmp_path: Path) -> None:
    async def act(state: State) -> None:
        assert await state.volume("models") is None
        created = await state.create_volume("models", "vo-1")
        with pytest.raises(AlreadyExistsError, match="models"):
            await state.create_volume("models", "vo-2")
        assert created == await state.volume("models")
        await state.remove_volume("models")
        assert await state.volumes() == ()

    run(tmp_path, act)


def test_secret_versions_count_changes_and_know_values_again(tmp_path: Path) -> None:
    async def act(state: State) -> None:
        assert await state.secret_version("a", "s", "mac1", b"x") == 1
        assert await state.secret_version("a", "s", "mac1", b"sealed differently") == 1
        assert await state.secret_version("a", "s", "mac2", b"y") == 2
        assert await state.secret_version("a", "s", "mac1", b"x") == 1
        assert await state.secret_version("b", "s", "mac2", b"y") == 1
        assert await state.sealed("a", "s", 1) == b"x"
        with pytest.raises(NotFoundError, match="version 7"):
            await state.sealed("a", "s", 7)

    run(tmp_path, act)


def test_file_digests_below_a_folder(tmp_path: Path) -> None:
    def known(path: str) -> FileStat:
        return FileStat(path=path, size=1, mtime_ns=2, inode=3, ctime_ns=4, digest="d")

    async def act(state: State) -> None:
        await state.record_files(map(known, ("/a/x", "/a/y/z", "/a0", "/ab/c")))
        assert {"/a/x", "/a/y/z"} == set(state.files_below("/a"))
        assert {"/a0"} == set(state.files_below("/a0"))
        await state.record_files([], gone=["/a/x"])
        assert {"/a/y/z": known("/a/y/z")} == state.files_below("/a")

    run(tmp_path, act)


def test_all_is_there_again_after_reopening_and_the_file_is_private(tmp_path: Path) -> None:
    run(tmp_path, lambda state: state.flip(deployment(1), onto=("", 0)))

    async def act(state: State) -> None:
        assert deployment(1) == await state.deployment("search")

    run(tmp_path, act)
    assert stat.S_IMODE((tmp_path / "state.db").stat().st_mode) == 0o600


# --- the database below -------------------------------------------------------------------------------


def test_writes_that_wait_share_a_transaction_and_one_that_fails_stands_alone(tmp_path: Path) -> None:
    async def main() -> None:
        database = Database.open(tmp_path / "state.db", version="0.1.0")
        commits: list[int] = []

        def insert(number: int) -> Callable[[sqlite3.Connection], int]:
            def act(connection: sqlite3.Connection) -> int:
                commits.append(connection.total_changes)
                connection.execute("INSERT INTO volumes VALUES (?, ?, 0)", (f"v{number}", f"f{number}"))
                if number == 50:
                    raise ValueError("number 50")
                return number

            return act

        results = await asyncio.gather(*(database.write(insert(i)) for i in range(100)), return_exceptions=True)
        assert [i for i in range(100) if i != 50] == [r for r in results if isinstance(r, int)]
        assert str(results[50]) == "number 50"
        rows = await database.read(lambda connection: connection.execute("SELECT name FROM volumes").fetchall())
        assert {f"v{i}" for i in range(100) if i != 50} == {name for (name,) in rows}
        await database.close()

    asyncio.run(main())


def test_readers_cannot_write(tmp_path: Path) -> None:
    async def main() -> None:
        database = Database.open(tmp_path / "state.db", version="0.1.0")
        with pytest.raises(Error, match="readonly"):
            await database.read(lambda connection: connection.execute("DELETE FROM volumes"))
        await database.close()

    asyncio.run(main())


@pytest.mark.slow
@settings(max_examples=20, deadline=None)
@given(st.lists(st.sampled_from(["flip", "retire"]), max_size=12))
def test_one_deployment_at_most_is_in_force(tmp_path_factory: pytest.TempPathFactory, acts: list[str]) -> None:
    async def act(state: State) -> None:
        now = ("", 0)
        for number, what in enumerate(acts):
            if what == "flip":
                lineage = now[0] or f"l{number}"
                await state.flip(deployment(now[1] + 1, lineage=lineage), onto=now)
                now = (lineage, now[1] + 1)
            else:
                assert (now != ("", 0)) == await state.retire("search")
                now = ("", 0)
            found = await state.deployment("search")
            assert now == ((found.lineage, found.serial) if found else ("", 0))
        assert acts.count("flip") == len(await state.history("search"))

    run(tmp_path_factory.mktemp("home"), act)


# --- migrations ---------------------------------------------------------------------------------------

LAST = MIGRATIONS[-1].number
NEXT = Migration(LAST + 1, "one more table", ("CREATE TABLE later (a INTEGER) STRICT", "INSERT INTO later VALUES (1)"))
BROKEN = Migration(LAST + 2, "broken", ("CREATE TABLE broken (a INTEGER) STRICT", "NOT SQL"))


def open_with(path: Path, *more: Migration) -> None:
    async def main() -> None:
        await Database.open(path, version="0.2.0", migrations=(*MIGRATIONS, *more)).close()

    asyncio.run(main())


def test_a_state_of_a_newer_slipway_is_refused_by_name(tmp_path: Path) -> None:
    open_with(tmp_path / "state.db", NEXT)
    told = rf"written by slipway 0\.2\.0 \(schema {LAST + 1}\), this is slipway 0\.1\.0 \(schema {LAST}\)"
    with pytest.raises(VersionError, match=told):
        State.open(tmp_path / "state.db", version="0.1.0")


def test_a_migration_leaves_a_copy_of_what_was_before(tmp_path: Path) -> None:
    run(tmp_path, lambda state: state.flip(deployment(1), onto=("", 0)))
    open_with(tmp_path / "state.db", NEXT)
    copy = sqlite3.connect(tmp_path / f"state.db.schema-{LAST}")
    assert copy.execute("SELECT app FROM current").fetchall() == [("search",)]
    assert copy.execute("SELECT name FROM sqlite_master WHERE name = 'later'").fetchall() == []
    copy.close()


def test_a_migration_that_fails_leaves_the_state_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    open_with(path, NEXT)
    with pytest.raises(Error, match="can't be used"):
        open_with(path, NEXT, BROKEN)
    open_with(path, NEXT)
    connection = sqlite3.connect(path)
    assert connection.execute("SELECT name FROM sqlite_master WHERE name = 'broken'").fetchall() == []
    connection.close()


def test_migrations_are_numbered_without_gaps() -> None:
    assert list(range(1, len(MIGRATIONS) + 1)) == [migration.number for migration in MIGRATIONS]


def test_a_file_that_is_no_state_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    path.write_bytes(b"something else entirely" * 100)
    with pytest.raises(InvalidError, match="can't be read"):
        State.open(path, version="0.1.0")
    assert path.read_bytes().startswith(b"something else")
    path.unlink()
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE somebody_elses (a)")
    connection.close()
    with pytest.raises(InvalidError, match="somebody_elses"):
        State.open(path, version="0.1.0")


# --- crashes ------------------------------------------------------------------------------------------

CRASH = """
import asyncio, sys
from pathlib import Path
from slipway.executor.ports import Deployment
from slipway.executor.store.state import State

async def main():
    state = State.open(Path(sys.argv[1]), version="0.1.0")
    flip = Deployment(app="search", lineage="l1", serial=1, graph=b"g1", created_ms=1, runtime="native")
    await state.flip(flip, onto=("", 0))

asyncio.run(main())
"""


@pytest.mark.parametrize(("fault", "there"), [("before-commit", False), ("after-commit", True)])
def test_killed_around_the_commit_of_a_flip_it_is_whole_or_absent(tmp_path: Path, fault: str, there: bool) -> None:
    path = tmp_path / "state.db"
    ended = subprocess.run(
        [sys.executable, "-c", CRASH, str(path)], env={**os.environ, "SLIPWAY_FAULT": fault}, timeout=60, check=False
    )
    assert ended.returncode == -9

    async def act(state: State) -> None:
        assert (deployment(1) if there else None) == await state.deployment("search")
        assert there == bool(await state.history("search"))

    run(tmp_path, act)


def test_a_state_that_cannot_be_written_is_said_when_it_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else whoever writes would wait for ever."""
    numbers, connect = itertools.count(1), Database._connect

    def fail_the_second(self: Database, *, share: bool = False) -> sqlite3.Connection:
        if next(numbers) == 2:
            raise sqlite3.OperationalError("disk I/O error")
        return connect(self, share=share)

    monkeypatch.setattr(Database, "_connect", fail_the_second)
    with pytest.raises(Error, match="can't be used: disk I/O error"):
        Database.open(tmp_path / "state.db", version="0.1.0")


def test_a_state_that_goes_while_it_is_used_is_said_and_nothing_is_written_to_it(tmp_path: Path) -> None:
    async def main() -> None:
        state = State.open(tmp_path / "state.db", version="0.1.0")
        for path in tuple(tmp_path.iterdir()):  # noqa: ASYNC240 - a test
            path.unlink()
        with pytest.raises(Error, match="was removed or replaced while the engine ran") as said:
            await state.flip(deployment(1), onto=("", 0))
        assert "slipway down --now" in said.value.hint
        await state.close()

    asyncio.run(main())


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("database is locked", "is locked by another program"),
        ("database or disk is full", "the disk is full"),
        ("database disk image is malformed", "is damaged"),
        ("no such table: current", "was removed or replaced"),
        ("attempt to write a readonly database", "can't be used: attempt to write"),
    ],
)
def test_what_the_database_refuses_is_said_in_words(tmp_path: Path, text: str, says: str) -> None:
    error = in_words(sqlite3.OperationalError(text), tmp_path / "state.db")
    assert isinstance(error, Error)
    assert says in error.message
    assert error.hint
