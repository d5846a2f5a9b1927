"""What the engine answers to a request: a reply, events before it, or a fault, raised as the error that it names."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from slipway.dsl import errors
from slipway.executor.worker.frames import Frame, Kind

OnEvent = Callable[[dict[str, Any]], None]


class Pending(errors.Error):
    """What was waited for is not over in time."""


def take_reply(frame: Frame, on_event: OnEvent | None) -> dict[str, Any] | None:
    """The reply, or None after an event. Raises the engine's fault."""
    value: dict[str, Any] = json.loads(bytes(frame.payload))
    if frame.kind == Kind.EVENT:
        if on_event is not None:
            on_event(value)
        return None
    if frame.kind == Kind.FAULT:
        raise error_of(value)
    return value


def error_of(fault: dict[str, Any]) -> errors.Error:
    """The exception that a FAULT stands for.

    >>> error_of({"type": "NotFoundError", "message": "no app shop", "hint": "slipway app list"})
    NotFoundError('no app shop')
    """
    if fault.get("type") == "Pending":
        return Pending(str(fault.get("message", "")))
    kind: Any = getattr(errors, str(fault.get("type")), errors.Error)
    if not (isinstance(kind, type) and issubclass(kind, errors.Error)):
        kind = errors.Error
    if kind is errors.DeclarationError:
        from slipway.compiler.encode import from_wire  # only a wrong app file needs the compiler
        from slipway.dsl.declaration import Fault

        return errors.DeclarationError(tuple(from_wire(Fault, item) for item in fault.get("faults", ())))
    more = {"log": str(fault.get("log", ""))} if kind is errors.ImageBuildError else {}
    error: errors.Error = kind(str(fault.get("message", "")), hint=str(fault.get("hint", "")), **more)
    return error
