"""What a home holds that nothing needs any more: decided first, from plain values, then removed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from pathlib import Path

from attrs import field, frozen

from slipway.compiler.encode import loads
from slipway.compiler.nodes import BundleSpec, Graph, LayerSpec
from slipway.executor.bundle import Bundles, bundle_digest, folder_name
from slipway.executor.images import is_setting
from slipway.executor.ports import Runtime

from .blobs import FileBlobs
from .state import State

log = logging.getLogger("slipway")

LOG_DAYS = 30
KEPT_SERIALS = 3  # of each app, for rollback


@frozen(kw_only=True)
class Present:
    """What is there: digests of blobs and layers, names of bundle folders, and logs with their age in days."""

    blobs: frozenset[str] = frozenset()
    bundles: frozenset[str] = frozenset()
    layers: frozenset[str] = frozenset()
    logs: tuple[tuple[str, int], ...] = ()


@frozen(kw_only=True)
class Sweep:
    """What may go. Layers from the top down do not matter: each stands for itself."""

    blobs: tuple[str, ...] = ()
    bundles: tuple[str, ...] = ()
    layers: tuple[str, ...] = ()
    logs: tuple[str, ...] = ()

    @property
    def count(self) -> int:
        return len(self.blobs) + len(self.bundles) + len(self.layers) + len(self.logs)


@frozen(kw_only=True)
class Reached:
    """Everything that graphs need."""

    blobs: frozenset[str] = field(factory=frozenset)
    bundles: frozenset[str] = field(factory=frozenset)
    layers: frozenset[str] = field(factory=frozenset)


def reached(graphs: Iterable[Graph]) -> Reached:
    """What these graphs need: their layers, their bundles, and the content of both."""
    blobs, bundles, layers = set[str](), set[str](), set[str]()
    for graph in graphs:
        for node in graph.nodes:
            if isinstance(node.spec, LayerSpec):
                if not is_setting(node):
                    layers.add(node.digest)
                files = (node.spec.files, node.spec.code)
                bundles |= {folder_name(bundle_digest(some)) for some in files if some}
                blobs |= {entry.digest for some in files for entry in some}
            elif isinstance(node.spec, BundleSpec):
                bundles.add(folder_name(node.digest))
                blobs |= {entry.digest for entry in node.spec.files}
    return Reached(blobs=frozenset(blobs), bundles=frozenset(bundles), layers=frozenset(layers))


def decide(present: Present, needed: Reached, *, log_days: int = LOG_DAYS) -> Sweep:
    """What nothing needs; a log goes with its age, not with its layer.

    >>> decide(Present(blobs=frozenset({"a", "b"})), Reached(blobs=frozenset({"a"}))).blobs
    ('b',)
    """
    return Sweep(
        blobs=tuple(sorted(present.blobs - needed.blobs)),
        bundles=tuple(sorted(present.bundles - needed.bundles)),
        layers=tuple(sorted(present.layers - needed.layers)),
        logs=tuple(path for path, days in present.logs if days > log_days),
    )


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


async def roots(state: State) -> tuple[Graph, ...]:
    """The graphs that are in force, and the last few of each app that were, for rollback."""
    found: list[Graph] = []
    apps = {deployment.app for deployment in await state.deployments()}
    for app in sorted(apps):
        for deployment in (await state.history(app))[:KEPT_SERIALS]:
            graph = await asyncio.to_thread(loads, deployment.graph, Graph)
            found.append(graph)
    return tuple(found)


async def present(blobs: FileBlobs, bundles: Bundles, runtime: Runtime, logs: Path, *, now: float) -> Present:
    """What is there now; `now` is in seconds since the epoch."""

    def read() -> tuple[frozenset[str], frozenset[str], tuple[tuple[str, int], ...]]:
        ages = ((str(path), int((now - path.stat().st_mtime) // 86_400)) for path in sorted(logs.glob("*.log")))
        return frozenset(blobs.iterate()), frozenset(bundles.iterate()), tuple(ages)

    there, folders, ages = await asyncio.to_thread(read)
    layers = frozenset([layer async for layer in runtime.layers()])
    return Present(blobs=there, bundles=folders, layers=layers, logs=ages)


async def carry_out(sweep: Sweep, state: State, blobs: FileBlobs, bundles: Bundles, runtime: Runtime) -> None:
    """Remove what was decided on. Only while no apply is under way: it may be about to need just that."""

    def remove() -> None:
        for digest in sweep.blobs:
            blobs.remove(digest)
        for name in sweep.bundles:
            bundles.remove(name)
        for path in sweep.logs:
            Path(path).unlink(missing_ok=True)

    for layer in sweep.layers:
        await state.forget_layer(layer, runtime.name)  # first the row: a layer without one is adopted, the reverse not
        await runtime.remove(layer)
    await asyncio.to_thread(remove)
