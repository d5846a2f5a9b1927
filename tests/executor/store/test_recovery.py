"""What a crash leaves is removed at the next start, and nothing else."""

from __future__ import annotations

import asyncio
from pathlib import Path

from assembly import Assembly
from fakes import FakeRuntime

from slipway.executor.indexes import Indexes
from slipway.executor.store.recovery import recover


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
