"""Functions that raise."""

from __future__ import annotations

import os
import sys
import threading
import types
from typing import Any

import slipway

app = slipway.App("errors")


class Trouble(Exception):
    """With more than its message."""

    def __init__(self, code: int, *, why: str) -> None:
        super().__init__(f"trouble {code}: {why}")
        self.code = code
        self.why = why


class Locked(Exception):
    def __init__(self) -> None:
        super().__init__("it holds a lock")
        self.lock = threading.Lock()


def deeper(code: int) -> None:
    raise Trouble(code, why="deep inside")


@app.function()
def trouble(code: int) -> None:
    deeper(code)


@app.function()
def chained() -> None:
    try:
        os.environ["NOT_SET_IN_ANY_WORKER"]
    except KeyError as error:
        raise ValueError("after a KeyError") from error


@app.function()
def unpicklable() -> None:
    raise Locked


@app.function()
def only_there() -> Any:
    """Raises a class of a module that only the worker has."""
    module: Any = types.ModuleType("only_in_the_worker")
    exec("class Strange(Exception): pass\nclass Thing: pass", module.__dict__)
    sys.modules[module.__name__] = module
    raise module.Strange("from elsewhere")


@app.function()
def thing_of_there() -> Any:
    module: Any = types.ModuleType("only_in_the_worker")
    exec("class Thing: pass", module.__dict__)
    sys.modules[module.__name__] = module
    return module.Thing()


@app.function()
def returns_a_lock() -> Any:
    return threading.Lock()


@app.function()
def echo(value: Any) -> Any:
    return value


@app.function()
def returns_a_coroutine() -> Any:
    async def later() -> int:
        return 1

    return later()


@app.function()
def caller() -> None:
    trouble.remote(8)
