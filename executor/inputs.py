"""An input on its way through the engine, and what it is called."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from typing import TYPE_CHECKING

from .ports import Clock
from .worker.frames import Frame, Payload
from .worker.wire import NO_FD

if TYPE_CHECKING:
    from .pool import Pool
    from .worker.credit import Credit

Send = Callable[[Frame, int], None]


class Input:
    """One input of a function call, from its arrival to its outcome. Whoever makes one hands it to `Dispatcher.submit`.

    `send` gets its RESULT (and before it the items of a generator), with `ident` for its id; `fd` is owned by the input
    from then on. `parent` is the number of the input whose code made the call (0: no code of ours did). `losses` are
    the attempts that something outside of the input has ended, which no policy counts.
    """

    __slots__ = (
        "attempts",
        "awaited_by",
        "call",
        "credit",
        "depth",
        "durable",
        "fd",
        "fd_length",
        "ident",
        "index",
        "losses",
        "method",
        "number",
        "parent",
        "payload",
        "pool",
        "send",
        "sequence",
        "started",
        "submitted",
        "unsent",
        "worker",
        "worker_name",
    )

    def __init__(
        self,
        number: int,
        pool: Pool,
        send: Send,
        *,
        call: int = 0,
        ident: int = 0,
        payload: Payload = b"",
        fd: int = NO_FD,
        fd_length: int = 0,
        method: int = 0,
        parent: int = 0,
        index: int = 0,
        durable: bool = False,
        attempts: int = 0,
        losses: int = 0,
    ) -> None:
        self.number = number
        self.call = call or number  # an input that is a call of its own has its call's number
        self.pool = pool
        self.ident = ident
        self.payload = payload
        self.fd = fd
        self.fd_length = fd_length
        self.method = method
        self.parent = parent
        self.index = index
        self.durable = durable
        self.attempts = attempts  # that were begun, those before a restart of the engine too
        self.losses = losses
        self.send = send
        self.depth = 0  # how many inputs that wait for one another are above it
        self.awaited_by = 0  # the sequence of the attempt of its parent that waits for it
        self.credit: Credit | None = None  # since items of it were passed on
        self.unsent = False  # a worker was chosen, and does not know of it yet
        self.submitted = 0.0
        self.started = 0.0
        self.sequence = 0
        self.worker = 0
        self.worker_name = ""


def input_id(number: int) -> str:
    """What an input is called in logs, in records and inside its function.

    >>> input_id(255)
    'in-ff'
    """
    return f"in-{number:x}"


def call_id(number: int) -> str:
    """What a function call is called.

    >>> call_id(255)
    'fc-ff'
    """
    return f"fc-{number:x}"


class Numbers:
    """Counts the inputs (and calls: one counter) and the workers of an engine, for all of its dispatchers: no two are
    called alike, nor are those of two engines of one home, one after the other."""

    def __init__(self, clock: Clock) -> None:
        self.inputs: Iterator[int] = count((clock.now_ms() << 20) + 1)
        self.workers: Iterator[int] = count(1)
        self.next_input = partial(next, self.inputs)
        self.next_worker = partial(next, self.workers)
