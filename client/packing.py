"""Arguments as payloads, and what RESULT frames stand for."""

from __future__ import annotations

import os
from typing import Any

from slipway.dsl import context
from slipway.dsl.errors import (
    CallCancelled,
    CallLost,
    DeserializationError,
    ExecutionError,
    FunctionTimeoutError,
    SerializationError,
)
from slipway.executor.worker import failure, payload
from slipway.executor.worker.frames import Frame, Outcome
from slipway.executor.worker.stream import NO_FD

_RETURNED = int(Outcome.RETURNED)


def calling_input() -> int:
    """The number of the input whose code is calling; 0 outside of a worker."""
    ident = context.input_id.get()
    return 0 if ident is None else int(ident[3:], 16)


def pack_arguments(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> payload.Packed:
    """Arguments as a payload. Raises `SerializationError` that names the one which can't be pickled."""
    try:
        return payload.dump((args, kwargs))
    except Exception as error:  # pickling runs the values' own code
        named = [*((f"argument {i + 1}", value) for i, value in enumerate(args)), *kwargs.items()]
        for what, value in named:
            payload.dump_or_refuse(value, f"{what} of {name} ({type(value).__name__})")
        raise SerializationError(f"the arguments of {name} can't be pickled: {error}") from error


def unpack_value(name: str, frame: Frame, fd: int) -> Any:
    """The value in a frame: a result, or an item of a generator."""
    try:
        return payload.load(frame.payload) if fd == NO_FD else payload.load_fd(fd, frame.fd_length)
    except Exception as error:  # unpickling imports modules and runs their code
        raise DeserializationError(
            f"the result of {name} can't be read here: {type(error).__name__}: {error}",
            hint="A module that it needs may be missing in this environment.",
        ) from error


def unpack_result(name: str, frame: Frame, fd: int) -> Any:
    """What a RESULT frame stands for: the value, or an exception that is raised. `name` is that of the function, or
    the id of the function call."""
    outcome = frame.outcome
    if outcome == _RETURNED:
        return unpack_value(name, frame, fd)
    data = bytes(frame.payload) if fd == NO_FD else os.pread(fd, frame.fd_length, 0)
    payload.discard(fd)
    if outcome == Outcome.RAISED:
        raise failure.unpack(data)
    reason = data.decode(errors="replace")
    if outcome == Outcome.TIMED_OUT:
        raise FunctionTimeoutError(f"{name}: {reason}", hint="Say @app.function(timeout=...) for more time.")
    if outcome == Outcome.CANCELLED:
        said = reason.removeprefix("the call was ")
        said = said if said.startswith("cancelled") else f"cancelled: {said}"
        raise CallCancelled(f"the call of {name} was {said}")
    if outcome == Outcome.LOST:
        raise CallLost(f"the call of {name} was lost: {reason}")
    raise ExecutionError(f"the engine gave an outcome that this program does not know: {outcome}")
