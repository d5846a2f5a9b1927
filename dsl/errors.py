"""Every error that Slipway raises on purpose.

    Error                          carries `hint`: what to do
    ├─ InvalidError                the user said something that cannot be
    │  └─ DeclarationError         the app file is wrong: `faults` holds all of it
    ├─ PlanError
    │  ├─ StalePlanError           the deployment moved on since the plan was made
    │  └─ PlanFormatError          damaged, foreign, or of another format
    ├─ NotFoundError, AlreadyExistsError
    ├─ ConnectionError             not the builtin
    │  └─ RuntimeUnavailable       a runtime or the engine cannot be reached: names the socket and what to try
    ├─ VersionError                the engine that runs is of other code than this program
    ├─ ExecutionError              the call could not be made, or its outcome not be understood
    │  └─ DeserializationError     what was sent can't be read on the other side
    ├─ SerializationError          what was to be sent can't be
    ├─ RemoteError                 the call ended without a result and without an exception of the user's
    │  ├─ ImageBuildError          a build step failed: `log` holds the end of its log
    │  ├─ CallLost                 the worker was lost: out of memory, killed, start-up failed
    │  │  └─ EngineLost            the engine ended, or the connection to it did
    │  └─ CallCancelled
    ├─ TimeoutError                not the builtin, which `FunctionCall.get` raises for what is not over yet
    │  ├─ FunctionTimeoutError     an attempt took longer than the function's timeout
    │  └─ OutputExpiredError       the result of a spawned call is kept no longer
    └─ InternalError               a broken invariant: a bug in Slipway
    AsyncUsageWarning              a blocking call where an event loop runs
    DeprecationError               something that has another name now; a warning, despite its own name

An exception of the user's function comes back as itself, not wrapped (see `slipway.executor.worker.failure`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .declaration import Fault


class Error(Exception):
    """The base of all. `hint` says what to do about it, in one or two lines; it may be empty."""

    def __init__(self, message: str = "", *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n{self.hint}" if self.hint else self.message


class InvalidError(Error): ...


class DeclarationError(InvalidError):
    """The app file is wrong; `faults` is everything that is wrong with it."""

    def __init__(self, faults: tuple[Fault, ...]) -> None:
        self.faults = faults
        super().__init__("\n".join(map(_said, faults)))


def _said(fault: Fault) -> str:
    """A fault as a program that isn't the command line shows it."""
    first = f"{fault.origin}: {fault.address}: {fault.summary}" if fault.address else f"{fault.origin}: {fault.summary}"
    return "\n    ".join([first, *fault.found.splitlines(), *fault.hint.splitlines()])


class PlanError(Error): ...


class StalePlanError(PlanError): ...


class PlanFormatError(PlanError): ...


class NotFoundError(Error): ...


class AlreadyExistsError(Error): ...


class ConnectionError(Error): ...


class RuntimeUnavailable(ConnectionError): ...


class VersionError(Error): ...


class ExecutionError(Error): ...


class SerializationError(Error): ...


class DeserializationError(ExecutionError): ...


class RemoteError(Error): ...


class ImageBuildError(RemoteError):
    """A build step failed; `log` is the end of what it printed."""

    def __init__(self, message: str = "", *, hint: str = "", log: str = "") -> None:
        super().__init__(message, hint=hint)
        self.log = log


class CallLost(RemoteError): ...


class EngineLost(CallLost): ...


class CallCancelled(RemoteError): ...


class TimeoutError(Error): ...


class FunctionTimeoutError(TimeoutError): ...


class OutputExpiredError(TimeoutError): ...


class InternalError(Error): ...


class InputCancellation(BaseException):
    """Raised inside a function, in the worker, when its call is cancelled; not an `Exception`, so that code which
    handles errors lets it through."""


class AsyncUsageWarning(UserWarning): ...


class DeprecationError(UserWarning): ...
