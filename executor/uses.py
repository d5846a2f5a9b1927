"""Who is about to use what is on disk, and when each of it was last used: `slipway gc` frees nothing of the first, and
goes by the second."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from slipway.compiler.nodes import Graph
from slipway.dsl.errors import Error

from .keep import bundles_of, chain_of
from .ports import Clock
from .store.state import State, Use

log = logging.getLogger("slipway")


class Uses:
    """Whoever builds or starts what a graph says holds that graph meanwhile.

    A removal looks at the held graphs and removes under `lock`, and `hold` takes the same lock: so a graph is held
    either before a removal looks, which then leaves alone what it needs, or after the removal, and its holder finds
    that the thing is gone. Nobody loses what they have seen. One engine owns a home, so a lock within it is enough.
    """

    def __init__(self, state: State, clock: Clock) -> None:
        self.lock = asyncio.Lock()
        self._state = state
        self._clock = clock
        self._held: dict[object, Graph] = {}
        self._watchers: list[list[Graph]] = []

    @property
    def held(self) -> tuple[Graph, ...]:
        """The graphs that are being built or started now."""
        return tuple(self._held.values())

    @asynccontextmanager
    async def hold(self, graph: Graph) -> AsyncIterator[None]:
        """For the length of the block nothing that the graph needs is freed."""
        token = object()
        async with self.lock:
            self._held[token] = graph
            for came in self._watchers:
                came.append(graph)
        try:
            await self.note(graph)
            yield
        finally:
            del self._held[token]

    @contextmanager
    def watch(self) -> Iterator[list[Graph]]:
        """The graphs that are held from now on, also those that are let go again: whoever frees things for a while may
        not miss a deployment that was made meanwhile."""
        came: list[Graph] = []
        self._watchers.append(came)
        try:
            yield came
        finally:
            self._watchers = [other for other in self._watchers if other is not came]

    async def note(self, graph: Graph) -> None:
        """What the graph needs was used now: it is about to be, or was in force or running until now."""
        now = self._clock.now_ms()
        layers = [Use("layer", layer, lower, now) for layer, lower in chain_of(graph)]
        bundles = [Use("bundle", folder, "", now) for folder in bundles_of(graph)]
        try:
            await self._state.record_uses([*layers, *bundles])
        except Error as error:  # who uses something is kept from nothing by that
            log.warning("last uses could not be written down: %s", error)
