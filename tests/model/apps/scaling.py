"""Functions with rules about their workers."""

from __future__ import annotations

import secrets

import scratch

import slipway

image = slipway.Image.debian_slim().add_local_python_source("scratch")
volume = slipway.Volume.from_name("scratch", create_if_missing=True)
app = slipway.App("scaling", image=image, volumes={"/scratch": volume})

TOKEN = secrets.token_hex()  # of this worker


@app.function(single_use_containers=True)
def once() -> str:
    return TOKEN


@app.function(max_containers=2)
def at_most_two(key: str) -> str:
    scratch.say(f"{key}-began", TOKEN)
    scratch.hear(f"{key}-end")
    return TOKEN


@app.cls(scaledown_window=2)
class Short:
    key: str = slipway.parameter()

    @slipway.method()
    def work(self) -> str:
        return TOKEN

    @slipway.exit()
    def end(self) -> None:
        scratch.say(self.key, TOKEN)


@app.function()
def steered(key: str) -> str:
    scratch.say(f"{key}-began", TOKEN)
    scratch.hear(f"{key}-end")
    return TOKEN


@app.cls(enable_memory_snapshot=True)
class Snapped:
    key: str = slipway.parameter()

    @slipway.enter(snap=True)
    def before(self) -> None:
        self.snapped = scratch.note(f"{self.key}-snap", TOKEN)

    @slipway.enter()
    def after(self) -> None:
        self.own = secrets.token_hex()
        scratch.note(f"{self.key}-enter", self.own)

    @slipway.method()
    def work(self) -> tuple[int, str]:
        scratch.say(f"{self.key}-began", self.own)
        scratch.hear(f"{self.key}-end")
        return self.snapped, self.own
