"""What `placement` tells its driver to do. Nothing here waits, sleeps, opens or spawns."""

from __future__ import annotations

from typing import NamedTuple

from .worker.frames import Outcome


class Assign(NamedTuple):
    """Send an input to a worker."""

    number: int
    worker: int


class AssignBatch(NamedTuple):
    """Send inputs to a worker as one batch."""

    numbers: tuple[int, ...]
    worker: int


class Start(NamedTuple):
    worker: int


class Stop(NamedTuple):
    """Let a worker without work come to an end in good order."""

    worker: int


class Kill(NamedTuple):
    worker: int


class Interrupt(NamedTuple):
    """Tell the worker to give up an input that it has begun, and with it the rest of its batch."""

    worker: int
    number: int


class Recall(NamedTuple):
    """Ask the worker to give back an input that it has not begun."""

    worker: int
    number: int


class Back(NamedTuple):
    """The input waits again: the worker that it was sent to has not begun it, so that was no attempt."""

    number: int


class Again(NamedTuple):
    """This attempt is over and another one follows; `lost`: through no fault of the input, so no policy counts it."""

    number: int
    outcome: Outcome
    reason: str  # "": the worker's answer says it
    lost: bool


class Pass(NamedTuple):
    """The worker's answer is the outcome."""

    number: int


class End(NamedTuple):
    """The input is over, without an answer from a worker."""

    number: int
    outcome: Outcome
    reason: str


class FailStart(NamedTuple):
    """The input is over, because this worker could not be started: why is known to the driver."""

    number: int
    worker: int


Action = Assign | AssignBatch | Start | Stop | Kill | Interrupt | Recall | Back | Again | Pass | End | FailStart
Actions = list[Action]
