"""Where this code is running: in the user's program or in a worker, and for which input."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

# Set by the worker around each input.
input_id: ContextVar[str | None] = ContextVar("slipway_input_id", default=None)
function_call_id: ContextVar[str | None] = ContextVar("slipway_function_call_id", default=None)

# Whether the file that is being imported is imported to see what it declares, not to be run.
importing: ContextVar[bool] = ContextVar("slipway_importing", default=False)

# Whether a running app's logs and progress go to the terminal.
output_enabled: ContextVar[bool] = ContextVar("slipway_output_enabled", default=False)

_worker_pid: int | None = None


def enter_worker() -> None:
    """Say that this process is a worker. Its child processes are not (they inherit the mark, but have another pid)."""
    global _worker_pid
    _worker_pid = os.getpid()


def is_inside() -> bool:
    """Whether this is a worker, or a process that one forked: what a file declares was planned long ago.

    >>> is_inside()
    False
    """
    return _worker_pid is not None


def is_local() -> bool:
    """False in the process that runs a function in a container, True everywhere else.

    >>> is_local()
    True
    """
    return _worker_pid != os.getpid()


def current_input_id() -> str | None:
    """The id of the input that is being worked on; None outside of a worker.

    >>> current_input_id() is None
    True
    """
    return input_id.get()


def current_function_call_id() -> str | None:
    """The id of the call that is being worked on; None outside of a worker.

    >>> current_function_call_id() is None
    True
    """
    return function_call_id.get()


@contextmanager
def enable_output(show_progress: bool | None = None) -> Iterator[None]:
    """Show the logs and the progress of apps that are run within the block.

    >>> with enable_output():
    ...     output_enabled.get()
    True
    """
    token = output_enabled.set(True)
    try:
        yield
    finally:
        output_enabled.reset(token)
