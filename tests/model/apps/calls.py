"""Functions that say how and where they run."""

from __future__ import annotations

import asyncio
import contextvars
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from typing import Any

import slipway

image = slipway.Image.debian_slim().add_local_python_source("scratch")
scratch = slipway.Volume.from_name("scratch", create_if_missing=True)
app = slipway.App("calls", image=image, volumes={"/scratch": scratch})

seen: list[int] = []


@app.function()
def double(x: int, *, plus: int = 0) -> int:
    return 2 * x + plus


@app.function()
async def triple(x: int) -> int:
    return 3 * x


@app.function(max_containers=1)
def remember(x: int) -> list[int]:
    seen.append(x)
    return seen


@app.function()
def main_thread() -> bool:
    before = signal.signal(signal.SIGALRM, signal.SIG_IGN)  # which the main thread alone may do
    signal.signal(signal.SIGALRM, before)
    return threading.current_thread() is threading.main_thread()


@app.function(max_containers=1)
async def loop() -> tuple[int, int]:
    return os.getpid(), id(asyncio.get_running_loop())


def local() -> bool:
    return slipway.is_local()


@app.function()
def locality() -> dict[str, bool]:
    found = {"worker": slipway.is_local()}
    for way in ("fork", "spawn"):
        with multiprocessing.get_context(way).Pool(1) as pool:
            found[way] = pool.apply(local)
    asks = "import sys, slipway, calls; sys.exit(slipway.is_local())"  # our package and the function's module
    found["program"] = bool(subprocess.run([sys.executable, "-c", asks], cwd="/", check=False).returncode)
    return found


def ids() -> tuple[str | None, str | None]:
    return slipway.current_function_call_id(), slipway.current_input_id()


@app.function()
def identify(_: Any = None) -> tuple[str | None, str | None]:
    return ids()


@app.function()
def identify_in_threads() -> list[Any]:
    """The ids here, in a thread that gets this context, and in one that doesn't."""
    found: list[Any] = [ids()]
    for run in (contextvars.copy_context().run, lambda function: function()):
        thread = threading.Thread(target=lambda run=run: found.append(run(ids)))
        thread.start()
        thread.join()
    return found


# --- functions that call functions ----------------------------------------------------------------------


@app.function()
def call(function: Any, *args: Any) -> Any:
    return function.remote(*args)


@app.function()
def quadruple(x: int) -> int:
    return double.remote(double.remote(x))


@app.function()
async def sextuple(x: int) -> int:
    return await triple.remote.aio(await double.remote.aio(x))


@app.function()
def total(n: int) -> int:
    return sum(double.map(range(n)))


@app.function()
def nested(depth: int, width: int) -> int:
    """How many leaves a tree of calls has: every level is a map that waits for maps."""
    return sum(nested.map([depth - 1] * width, [width] * width)) if depth else 1


@app.function()
def wait_for(call: slipway.FunctionCall[Any]) -> Any:
    return call.get()


@app.function()
def interpreter() -> tuple[int, int]:
    return sys.version_info[:2]
