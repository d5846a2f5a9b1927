"""Blocking calls where an event loop runs: they stop everything else in it."""

from __future__ import annotations

import sys
import warnings
from typing import Protocol

from .errors import AsyncUsageWarning
from .origin import invalid, user_frame

_COROUTINE = 0x80 | 0x100 | 0x200  # CO_COROUTINE, CO_ITERABLE_COROUTINE, CO_ASYNC_GENERATOR, as in `inspect`


class HasTwin(Protocol):
    """Something that blocks when called; `what.aio` doesn't."""

    @property
    def what(self) -> str: ...


def loop_runs() -> bool:
    """Whether the caller holds up an event loop. The cells of a notebook do so always, and mean no harm."""
    asyncio = sys.modules.get("asyncio")  # not imported: no loop runs
    if asyncio is None or asyncio._get_running_loop() is None:
        return False
    if "ipykernel" not in sys.modules:
        return True
    frame = user_frame()
    return frame is not None and bool(frame.f_code.co_flags & _COROUTINE)


def warn_in_loop(way: HasTwin) -> None:
    """Say that a blocking call has an asynchronous twin, where that is what was wanted."""
    if not loop_runs():
        return
    frame, what = user_frame(), way.what
    spoken = f"{what} blocks the event loop that runs here, and with it everything else; use {what}.aio(...)"
    if frame is None:
        warnings.warn(spoken, AsyncUsageWarning, stacklevel=2)
        return
    place = frame.f_globals
    registry = place.setdefault("__warningregistry__", {})  # so that each line says it once
    name = str(place.get("__name__"))
    warnings.warn_explicit(spoken, AsyncUsageWarning, frame.f_code.co_filename, frame.f_lineno, name, registry)


def refuse_in_loop(what: str) -> None:
    """What takes inputs on the caller's thread and gives results there can't do so while a loop is held up."""
    if loop_runs():
        raise invalid(f"{what} blocks, and an event loop is running here", hint=f"Use {what}.aio(...) in async code.")
