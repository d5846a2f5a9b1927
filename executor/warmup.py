"""Workers ahead of the flip: what can't start the workers that it always has takes the place of nothing that serves."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from slipway.compiler.nodes import FunctionSpec, Graph, Node

from .apply import Failure, OnEvent, StartWorkers, node_event
from .engine import Engine
from .pool import Pool


@asynccontextmanager
async def warm_up(engine: Engine, graph: Graph) -> AsyncIterator[StartWorkers]:
    """What starts the workers of a graph before it is in force. The pools that it opens are those that serve later; the
    ones that serve nothing when the block ends are closed, however it ends.
    """
    opened: list[tuple[Pool, Node]] = []

    async def start(on_event: OnEvent) -> tuple[Failure, ...]:
        live = await engine.launcher.live(graph.app, graph)
        dispatcher = engine.dispatchers[graph.runtime]
        for node in graph.nodes:
            spec = live.pools[node.spec.name] if isinstance(node.spec, FunctionSpec) else None
            if spec is not None and spec.limits.min_workers and spec.key not in dispatcher.pools:
                opened.append((dispatcher.open_pool(spec), node))
        failures = await asyncio.gather(*(_first_worker(pool, node, on_event) for pool, node in opened))
        return tuple(failure for failure in failures if failure is not None)

    try:
        yield start
    finally:
        await _close_unused(engine, graph, {pool.spec.key for pool, _ in opened})


async def _close_unused(engine: Engine, graph: Graph, opened: set[str]) -> None:
    live = engine.live.get(graph.app)
    if live is not None and live.runtime == graph.runtime:
        opened -= {spec.key for spec in live.pools.values()}
    close = engine.dispatchers[graph.runtime].close_pool
    await asyncio.gather(*(close(key, "its deployment was not put in force") for key in opened))


async def _first_worker(pool: Pool, node: Node, on_event: OnEvent) -> Failure | None:
    """Wait until one worker takes inputs, or can't be started."""
    began = time.monotonic()
    on_event(node_event(node, "running"))
    trouble = await pool.tried
    if trouble is None:
        on_event(node_event(node, "done", ms=round((time.monotonic() - began) * 1000)))
        return None
    message = f"{node.address}: no worker could be started: {trouble.reason}"
    on_event(node_event(node, "failed", message=message, hint="", log=trouble.trace))
    return Failure(address=node.address, message=message, log=trouble.trace)
