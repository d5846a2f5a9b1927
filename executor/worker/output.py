"""Python's own stdout and stderr in a worker: lines as they come, marked with the call that printed them."""

from __future__ import annotations

import io
import os
import sys
import threading
from contextvars import ContextVar
from typing import TYPE_CHECKING

from .frames import mark

if TYPE_CHECKING:
    from types import FrameType

# The call that the running code works for: a worker may have several under way, as tasks or in threads.
running: ContextVar[int | None] = ContextVar("slipway_running", default=None)


class _Raw(io.FileIO):
    """A standard stream that says which call a write belongs to, whenever that is another than before."""

    def __init__(self, fd: int, token: str, *, shared: bool) -> None:
        super().__init__(fd, "w", closefd=False)
        self._token = token
        self._shared = shared
        self._lock = threading.RLock()  # a mark and what it is for stay together, whichever threads print
        self.marked: int | None = None
        self.printed: set[int | None] = set()

    def write(self, data: object) -> int:
        call = running.get()
        view = memoryview(data).cast("B")  # type: ignore[arg-type]
        with self._lock:
            self.printed.add(call)
            if call == self.marked:
                return os.write(self.fileno(), view)
            self.marked = call
            prefix = mark(self._token, call)
            return max(os.writev(self.fileno(), [prefix, view]) - len(prefix), 0)

    def end(self, call: int | None) -> bool:
        """What comes next on the stream is not this call's; tell whether it (or code of no call's) has printed."""
        printed = self.printed
        if not printed:
            return False
        with self._lock:
            if self._shared:
                found = call in printed or None in printed
                printed -= {call, None}
            else:
                found = True
                printed.clear()
            if self.marked is not None and (self.marked == call or not self._shared):
                self.marked = None
                os.write(self.fileno(), mark(self._token, None))
        return found


class _Lines(io.TextIOWrapper):
    """Keeps what several calls print at the same time apart, until each has a line."""

    def __init__(self, raw: _Raw) -> None:
        super().__init__(
            io.BufferedWriter(raw), encoding="utf-8", errors="backslashreplace", line_buffering=True, newline="\n"
        )
        self._held: dict[int | None, str] = {}
        self._guard = threading.RLock()

    def write(self, text: str) -> int:
        call = running.get()
        with self._guard:
            held = self._held.pop(call, "") + text
            end = held.rfind("\n") + 1
            if end < len(held):
                self._held[call] = held[end:]
            if end:
                super().write(held[:end])
        return len(text)

    def flush(self) -> None:
        with self._guard:
            held = self._held.pop(running.get(), None)
            if held:
                super().write(held)
            super().flush()


def is_writing(frame: FrameType | None) -> bool:
    """Whether a signal has come within a write, which is not to be broken off: it would be done a second time."""
    for _ in range(3):
        if frame is None:
            return False
        if frame.f_code is _Raw.write.__code__:
            return True
        frame = frame.f_back
    return False


def _alone(raw: _Raw) -> io.TextIOWrapper:
    return io.TextIOWrapper(
        io.BufferedWriter(raw), encoding="utf-8", errors="backslashreplace", line_buffering=True, newline="\n"
    )


class Output:
    """Takes over `sys.stdout` and `sys.stderr`. `shared`: several calls at a time may print."""

    def __init__(self, token: str, *, shared: bool = False) -> None:
        self._raw = tuple(_Raw(fd, token, shared=shared) for fd in (1, 2))
        sys.stdout, sys.stderr = (_Lines(raw) if shared else _alone(raw) for raw in self._raw)
        self._ours = (sys.stdout, sys.stderr)

    def end_call(self) -> bool:
        """Push out what the running call has printed; tell whether there was anything."""
        call = running.get()
        printed = False
        try:
            for stream in self._ours:
                stream.flush()
            for raw in self._raw:
                printed |= raw.end(call)
        except (OSError, ValueError):  # user code closed the stream or its descriptor: there is nothing to push out
            return True
        return printed
