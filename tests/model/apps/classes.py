"""Classes: their parameters, hooks and methods."""

from __future__ import annotations

import asyncio
import secrets
import threading
from typing import Any

import scratch

import slipway

image = slipway.Image.debian_slim().add_local_python_source("scratch")
volume = slipway.Volume.from_name("scratch", create_if_missing=True)
app = slipway.App("classes", image=image, volumes={"/scratch": volume})

TOKEN = secrets.token_hex()  # of this process, however it came to be


class Base:
    log: list[str]

    @slipway.enter()
    def base_enter(self) -> None:
        self.log = ["base enter"]

    @slipway.method()
    def inherited(self) -> str:
        return f"inherited by {type(self).__name__}"

    @slipway.method()
    def overridden(self) -> str:
        return "base"


@app.cls(max_containers=1)
class Model(Base):
    size: str = slipway.parameter(default="small")
    depth: int = slipway.parameter(default=1)

    kind = "a static attribute"

    @slipway.enter()
    def first(self) -> None:
        self.log.append(f"enter {self.size}")

    @slipway.enter()
    async def second(self) -> None:
        self.loop = id(asyncio.get_running_loop())
        self.log.append("async enter")

    def helper(self, x: int) -> int:
        return x * self.depth

    @slipway.method()
    def scale(self, x: int) -> int:
        return self.helper(x)

    @slipway.method()
    def hooks(self) -> list[str]:
        return self.log

    @slipway.method()
    def overridden(self) -> str:
        return "subclass"

    @slipway.method()
    def here(self) -> dict[str, Any]:
        return {
            "token": TOKEN,
            "self": id(self),
            "main": threading.current_thread() is threading.main_thread(),
            "size": self.size,
            "depth": self.depth,
        }

    @slipway.method()
    async def same_loop(self) -> bool:
        return id(asyncio.get_running_loop()) == self.loop

    @slipway.method()
    def through_another(self, x: int) -> tuple[int, int]:
        return self.scale.remote(x), self.scale.local(x + 1)

    @slipway.method()
    def numbers(self, n: int) -> Any:
        for number in range(n):
            yield number * self.depth


@app.cls(max_containers=1)
class Ends:
    """Notes what its hooks do, in order."""

    key: str = slipway.parameter()

    @slipway.enter()
    async def enter(self) -> None:
        self.loop = asyncio.get_running_loop()
        scratch.note(self.key, "enter")

    @slipway.method()
    def work(self) -> None:
        scratch.note(self.key, "work")

    @slipway.exit()
    def sync_exit(self) -> None:
        scratch.note(self.key, "exit")

    @slipway.exit()
    async def async_exit(self) -> None:
        same = asyncio.get_running_loop() is self.loop
        scratch.note(self.key, f"async exit on {'the same loop' if same else 'another loop'}")
        scratch.say(f"{self.key}-ended", "ended")


@app.cls()
class Bytes:
    raw: bytes = slipway.parameter()
    flag: bool = slipway.parameter(default=False)

    @slipway.method()
    def say(self) -> tuple[bytes, bool]:
        return self.raw, self.flag


@app.cls()
class Failing:
    """Its start fails until the test's file has that many lines."""

    key: str = slipway.parameter()
    starts: int = slipway.parameter(default=1_000_000)

    @slipway.enter()
    def enter(self) -> None:
        started = scratch.note(self.key, "start")
        if started <= self.starts:
            raise ConnectionError(f"start {started} of {self.key} failed")

    @slipway.method()
    def work(self) -> str:
        return "worked"


@app.function()
def use(model: Any, x: int) -> int:
    """An object of a class as an argument."""
    result: int = model.scale.remote(x)
    return result


@app.function()
def make(cls: Any, depth: int, x: int) -> int:
    """A class as an argument."""
    result: int = cls(depth=depth).scale.remote(x)
    return result
