"""What an engine does with what the one before it left half done."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

from slipway.executor.bundle import Bundles

from .blobs import FileBlobs
from .state import State

log = logging.getLogger("slipway")


async def recover(state: State, blobs: FileBlobs, bundles: Bundles, volumes: Path) -> tuple[str, ...]:
    """At the start of an engine: remove what the one before left half done, and say what it was about to do.

    Finished work is kept, whether its intent was struck out or not: the next apply finds it by its digest.
    """
    cut_short = await state.intents()
    halves = await asyncio.to_thread(lambda: blobs.remove_halves() + bundles.remove_halves())
    known = {volume.folder for volume in await state.volumes()}
    await asyncio.to_thread(_remove_strays, volumes, known)
    for intent in cut_short:
        await state.settle(intent)
    if cut_short or halves:
        log.info("the last engine was cut short: %d acts, %d half files removed", len(cut_short), halves)
    return tuple(f"{intent.act} {intent.subject}" for intent in cut_short)


def _remove_strays(volumes: Path, known: set[str]) -> None:
    """Empty folders that were made for a volume and never became one. One with anything in it is left alone."""
    if volumes.is_dir():
        for path in volumes.iterdir():
            if path.name not in known and path.is_dir() and not any(path.iterdir()):
                path.rmdir()
