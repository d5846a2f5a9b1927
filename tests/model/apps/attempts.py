"""Functions that fail, take too long, die, or are given up."""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import threading
import time
from typing import Any

import scratch

import slipway

image = slipway.Image.debian_slim().add_local_python_source("scratch")
volume = slipway.Volume.from_name("scratch", create_if_missing=True)
app = slipway.App("attempts", image=image, volumes={"/scratch": volume})


@app.function(retries=2)
def fails_first(key: str, times: int) -> int:
    attempt = scratch.note(key, time.time())
    if attempt <= times:
        raise ValueError(f"attempt {attempt}")
    return attempt


@app.function(retries=slipway.Retries(max_retries=1, initial_delay=0.0))
def fails_first_by_policy(key: str) -> int:
    return fails_first.local(key, 1)


@app.function()
def fails_without_policy(key: str) -> int:
    return fails_first.local(key, 1)


@app.function(retries=1, timeout=1)
def slow_first(key: str) -> int:
    """Its first attempt never yields; the second may take as long as any."""
    attempt = scratch.note(key, "attempt")
    if attempt == 1:
        while True:
            pass
    return attempt


@app.function(timeout=1, max_containers=1)
def too_slow() -> None:
    time.sleep(600)


@app.function(timeout=1)
async def too_slow_async() -> None:
    await asyncio.sleep(600)


@app.function(timeout=1)
def deaf() -> None:
    """Catches whatever interrupts it."""
    while True:
        try:
            time.sleep(600)
        except BaseException:  # noqa: BLE001, PERF203 - that is what it is for
            pass


@app.function(retries=3)
def waits(key: str) -> None:
    scratch.note(f"{key}-notes", "attempt")
    try:
        scratch.say(key, "began")
        time.sleep(600)
    except Exception:
        scratch.note(f"{key}-notes", "an Exception")
        raise
    except slipway.exception.InputCancellation:
        main = threading.current_thread() is threading.main_thread()
        scratch.note(f"{key}-notes", f"InputCancellation, {'on the main thread' if main else 'elsewhere'}")
        scratch.say(key, "cancelled")
        raise


@app.function(retries=3)
async def waits_async(key: str) -> None:
    scratch.note(f"{key}-notes", "attempt")
    try:
        scratch.say(key, "began")
        await asyncio.sleep(600)
    except asyncio.CancelledError:
        scratch.note(f"{key}-notes", "CancelledError")
        scratch.say(key, "cancelled")
        raise


@app.function(max_containers=1)
@slipway.concurrent(max_inputs=2)
def waits_with_another(key: str, name: str) -> str:
    """The first attempt of "good" waits for ever; the worker dies under it, and the second comes back."""
    attempt = scratch.note(f"{key}-{name}", os.getpid())
    scratch.say(key, f"{name} began")
    if name == "good" and attempt == 2:
        return "ran again"
    threading.Event().wait(600)
    return "never"


@app.function(max_containers=1)
def deaf_to_cancellation(key: str) -> None:
    scratch.say(key, "began")
    while True:
        try:
            time.sleep(600)
        except BaseException:  # noqa: BLE001, PERF203 - that is what it is for
            pass


@app.function()
def killed_first(key: str, number: int) -> int:
    """Somebody kills its worker, the first time."""
    attempt = scratch.note(key, "attempt")
    if attempt == 1:
        os.kill(os.getpid(), number)
        time.sleep(600)
    return attempt


@app.function()
def crash(how: str) -> None:
    if how == "segfault":
        ctypes.string_at(0)
    if how == "exit":
        os._exit(3)
    if how == "abort":
        os.kill(os.getpid(), signal.SIGABRT)
    time.sleep(600)


@app.function(memory=256)
def eat(mib: int) -> int:
    return len(bytearray(mib << 20))


@app.function()
def leave(code: Any) -> None:
    raise SystemExit(code)
