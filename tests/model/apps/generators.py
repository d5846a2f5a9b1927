"""Functions that give one item after the other."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import scratch

import slipway

image = slipway.Image.debian_slim().add_local_python_source("scratch")
volume = slipway.Volume.from_name("scratch", create_if_missing=True)
app = slipway.App("generators", image=image, volumes={"/scratch": volume})


@app.function()
def count(n: int) -> Iterator[int]:
    yield from range(n)


@app.function()
async def count_async(n: int) -> AsyncIterator[int]:
    for number in range(n):
        yield number


@app.function()
def for_ever(key: str) -> Iterator[int]:
    """Note how far it came, and tell when it is ended."""
    made = 0
    try:
        while True:
            yield made
            made += 1
            if made % 100 == 0:
                scratch.note(f"{key}-notes", made)
    finally:
        scratch.say(key, "ended")


@app.function()
async def for_ever_async(key: str) -> AsyncIterator[int]:
    made = 0
    try:
        while True:
            yield made
            made += 1
    finally:
        scratch.say(key, "ended")


@app.function()
def fail_after(n: int) -> Iterator[int]:
    yield from range(n)
    raise LookupError(f"after {n}")


@app.function()
def big(n: int, size: int) -> Iterator[bytes]:
    for number in range(n):
        yield bytes([number]) * size


@app.function()
def plain() -> int:
    return 1


@app.function()
def returns_a_generator() -> object:
    return (x for x in range(3))


@app.function(is_generator=True)
def said_to_be() -> object:
    return (x for x in range(3))


@app.function()
def total(n: int) -> int:
    return sum(count.remote_gen(n))
