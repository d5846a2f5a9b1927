"""Functions to map over."""

from __future__ import annotations

import threading

import scratch

import slipway

image = slipway.Image.debian_slim().add_local_python_source("scratch")
volume = slipway.Volume.from_name("scratch", create_if_missing=True)
app = slipway.App("maps", image=image, volumes={"/scratch": volume})


@app.function()
def add(x: int, y: int = 0, *, plus: int = 0) -> int:
    return x + y + plus


@app.function()
def refuse(x: int, bad: int) -> int:
    if x == bad:
        raise ValueError(f"not {x}")
    return x


@app.function()
def note(x: int, key: str) -> int:
    scratch.note(key, x)
    return x


@app.function(max_containers=2)
def in_turn(x: int, key: str) -> int:
    """The first waits to be told; the others don't."""
    if x == 0:
        scratch.hear(key)
    return x


@app.function(max_containers=1)
def hold(x: int, key: str) -> int:
    """Say that it began, and wait to be told to end."""
    scratch.note(f"{key}-notes", x)
    scratch.say(f"{key}-began", x)
    scratch.hear(f"{key}-end")
    return x


@app.function()
async def map_in_a_loop(blocking: bool) -> list[int]:
    if blocking:
        return list(add.map([1, 2]))
    return [x async for x in add.map.aio([1, 2])]


@app.function()
def generate(n: int):  # type: ignore[no-untyped-def]
    yield from range(n)


@app.function()
def thread_count(_: int) -> int:
    return threading.active_count()
