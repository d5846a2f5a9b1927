"""Functions whose calls outlive whoever made them."""

from __future__ import annotations

import scratch

import slipway

image = slipway.Image.debian_slim().add_local_python_source("scratch")
volume = slipway.Volume.from_name("scratch", create_if_missing=True)
app = slipway.App("spawned", image=image, volumes={"/scratch": volume})


@app.function()
def square(x: int) -> int:
    return x * x


@app.function()
def fail(text: str) -> None:
    raise KeyError(text)


@app.function()
def wait(key: str) -> str:
    scratch.note(f"{key}-notes", "began")
    return scratch.hear(key)


@app.function()
def parent(x: int) -> int:
    return square.remote(x) + square.remote(x + 1)


@app.function()
def generate() -> object:
    yield 1
