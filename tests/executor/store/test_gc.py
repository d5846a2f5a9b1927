"""What may go: decided from plain values; nothing that a deployment in force or a recent one needs ever goes."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from assembly import Assembly, app
from fakes import FakeRuntime, Outcome
from hypothesis import given
from hypothesis import strategies as st

from slipway.dsl.declaration import FunctionDecl, LocalSource, RunCommands, SourceDecl
from slipway.executor.indexes import Indexes
from slipway.executor.store.gc import Present, Reached, carry_out, decide, present, reached, recover, roots

NAMES = st.frozensets(st.sampled_from("abcdef"))


@given(there=NAMES, needed=NAMES)
def test_exactly_what_is_there_and_not_needed_goes(there: frozenset[str], needed: frozenset[str]) -> None:
    sweep = decide(
        Present(blobs=there, bundles=there, layers=there), Reached(blobs=needed, bundles=needed, layers=needed)
    )
    for gone in (sweep.blobs, sweep.bundles, sweep.layers):
        assert set(gone) == there - needed
    assert sweep.count == 3 * len(there - needed)


def test_logs_go_with_their_age() -> None:
    assert decide(Present(logs=(("old", 31), ("new", 2))), Reached()).logs == ("old",)


def test_a_sweep_spares_what_is_in_force_and_all_still_works(tmp_path: Path) -> None:
    code = tmp_path / "app.py"
    source = LocalSource(local=str(code), remote="/root/app.py")
    function = FunctionDecl(name="f", module="app", qualname="f", image=0, code=SourceDecl(sources=(source,)))

    async def main() -> None:
        runtime = FakeRuntime({("/bin/sh",): Outcome()})
        async with Assembly.opened(tmp_path / "home", runtime, indexes=Indexes()) as assembly:
            for number in range(5):  # one more than are kept goes twice
                await asyncio.to_thread(code.write_text, f"version {number}")
                await assembly.apply(app((RunCommands(commands=(f"make {number}",)),), functions=(function,)))
            logs = assembly.home / "logs" / "layers"
            old = logs / "old.log"
            await asyncio.to_thread(old.write_text, "")
            now = old.stat().st_mtime
            os.utime(old, (now - 40 * 86_400, now - 40 * 86_400))
            there = await present(assembly.blobs, assembly.bundles, runtime, logs, now=now)
            sweep = decide(there, reached(await roots(assembly.state)))
            assert (len(sweep.layers), len(sweep.bundles), len(sweep.blobs), len(sweep.logs)) == (2, 2, 2, 1)
            await carry_out(sweep, assembly.state, assembly.blobs, assembly.bundles, runtime)
            again = await present(assembly.blobs, assembly.bundles, runtime, logs, now=now)
            assert decide(again, reached(await roots(assembly.state))).count == 0
            last = app((RunCommands(commands=("make 4",)),), functions=(function,))
            assert (await assembly.apply(last)).executed == 0
            first = app((RunCommands(commands=("make 0",)),), functions=(function,))
            assert (await assembly.apply(first)).executed == 1

    asyncio.run(main())


def test_recovery_removes_halves_and_says_what_was_cut_short(tmp_path: Path) -> None:
    async def main() -> None:
        async with Assembly.opened(tmp_path / "home", FakeRuntime(), indexes=Indexes()) as assembly:
            home = assembly.home
            for half in ("blobs/sha256/making", "bundles/.making-x", "volumes/vo-stray", "volumes/vo-full"):
                await asyncio.to_thread((home / half).mkdir, parents=True)
            await asyncio.to_thread((home / "blobs/sha256/making/half").write_bytes, b"")
            await asyncio.to_thread((home / "volumes/vo-full/data").write_bytes, b"")
            await assembly.volumes.ensure("mine")
            await assembly.state.intend("build", "sha256:abc", app="app")
            assert await recover(assembly.state, assembly.blobs, assembly.bundles, home / "volumes") == (
                "build sha256:abc",
            )
            assert await assembly.state.intents() == ()
            mine = await assembly.state.volume("mine")
            assert mine is not None
            left = {path.name for path in (home / "volumes").iterdir()}
            assert left == {"vo-full", mine.folder}
            assert not list((home / "bundles").iterdir())
            assert not list((home / "blobs/sha256/making").iterdir())
            assert await recover(assembly.state, assembly.blobs, assembly.bundles, home / "volumes") == ()

    asyncio.run(main())
