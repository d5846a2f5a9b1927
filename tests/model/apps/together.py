"""Functions that take several inputs at a time."""

from __future__ import annotations

import asyncio
import os
import threading

import slipway

app = slipway.App("together")
barrier = threading.Barrier(3)
everybody = asyncio.Event()
arrived = 0


@app.function(max_containers=1)
@slipway.concurrent(max_inputs=3)
def threads(x: int) -> tuple[int, int, str, str]:
    """Comes back only when three run at once."""
    before = slipway.current_input_id()
    barrier.wait(timeout=60)
    assert before == slipway.current_input_id()
    return x, threading.get_ident(), str(before), str(slipway.current_function_call_id())


@app.function(max_containers=1)
@slipway.concurrent(max_inputs=3)
async def tasks(x: int) -> tuple[int, int, str]:
    global arrived
    arrived += 1
    if arrived == 3:
        everybody.set()
    await everybody.wait()
    return x, id(asyncio.get_running_loop()), str(slipway.current_input_id())


@app.function(max_containers=1)
def alone(x: int) -> tuple[int, int]:
    return x, os.getpid()


# --- batches --------------------------------------------------------------------------------------------


@app.function(max_containers=1)
@slipway.batched(max_batch_size=3, wait_ms=60_000)
def add(xs: list[int], ys: list[int]) -> list[tuple[int, int]]:
    return [(x + y, len(xs)) for x, y in zip(xs, ys, strict=True)]


@app.function(max_containers=1)
@slipway.batched(max_batch_size=2, wait_ms=60_000)
async def add_async(xs: list[int]) -> list[int]:
    return [x + 1 for x in xs]


@app.function(max_containers=1)
@slipway.batched(max_batch_size=2, wait_ms=60_000)
def wrong(kinds: list[str]) -> object:
    if "short" in kinds:
        return [1]
    if "tuple" in kinds:
        return (1, 2)
    raise LookupError("one of them")


@app.function(max_containers=1)
@slipway.batched(max_batch_size=2, wait_ms=60_000)
def ids(xs: list[int]) -> list[tuple[str | None, str | None, int]]:
    return [(slipway.current_input_id(), slipway.current_function_call_id(), x) for x in xs]


@app.function(max_containers=1)
@slipway.batched(max_batch_size=3, wait_ms=0)
def lingers_not(xs: list[int]) -> list[int]:
    return xs


@app.cls(max_containers=1)
class Batcher:
    step: int = slipway.parameter(default=1)

    @slipway.batched(max_batch_size=2, wait_ms=60_000)
    def add(self, xs: list[int]) -> list[int]:
        return [x + self.step for x in xs]
