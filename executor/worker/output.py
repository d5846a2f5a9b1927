"""Python's own stdout and stderr in a worker: lines as they come, marked with the call that printed them."""

from __future__ import annotations

import io
import os
import sys
from contextvars import ContextVar

from .frames import mark

# The call that the running code works for: an asynchronous worker may have several under way.
running: ContextVar[int | None] = ContextVar("slipway_running", default=None)


class _Raw(io.FileIO):
    """A standard stream that says which call a write belongs to, whenever that is another than before."""

    def __init__(self, fd: int, token: str) -> None:
        super().__init__(fd, "w", closefd=False)
        self._token = token
        self.marked: int | None = None
        self.printed = False

    def write(self, data: object) -> int:
        self.printed = True
        call = running.get()
        view = memoryview(data).cast("B")  # type: ignore[arg-type]
        if call == self.marked:
            return os.write(self.fileno(), view)
        self.marked = call
        prefix = mark(self._token, call)
        return max(os.writev(self.fileno(), [prefix, view]) - len(prefix), 0)

    def end(self) -> None:
        """The call has ended: what comes next on the stream is not its own."""
        self.printed = False
        if self.marked is not None:
            self.marked = None
            os.write(self.fileno(), mark(self._token, None))


class Output:
    """Takes over `sys.stdout` and `sys.stderr`."""

    def __init__(self, token: str) -> None:
        self._raw = tuple(_Raw(fd, token) for fd in (1, 2))
        sys.stdout, sys.stderr = (
            io.TextIOWrapper(
                io.BufferedWriter(raw), encoding="utf-8", errors="backslashreplace", line_buffering=True, newline="\n"
            )
            for raw in self._raw
        )
        self._ours = (sys.stdout, sys.stderr)

    def end_call(self) -> bool:
        """Push out what a call has printed; tell whether there was anything."""
        try:
            for stream in self._ours:
                stream.flush()
            printed = False
            for raw in self._raw:
                if raw.printed:
                    printed = True
                    raw.end()
        except (OSError, ValueError):  # user code closed the stream or its descriptor: there is nothing to push out
            return True
        return printed
