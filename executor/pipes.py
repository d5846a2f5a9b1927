"""The engine's end of two pipes that carry a process's stdout and stderr."""

from __future__ import annotations

import asyncio
import os

from .ports import Output

CHUNK = 1 << 18
DRAIN = 1 << 20  # more than a pipe holds


class Pipes:
    """Hands over what comes, on the running loop. The owner calls `close` in the end."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._loop = asyncio.get_running_loop()
        self._streams: dict[int, int] = {}  # our end: 1 or 2

    def open(self) -> tuple[int, int]:
        """Make them; the ends to write to, which are the caller's to close."""
        theirs = []
        for stream in (1, 2):
            ours, other = os.pipe2(os.O_CLOEXEC)
            os.set_blocking(ours, False)
            self._streams[ours] = stream
            self._loop.add_reader(ours, self._read, ours)
            theirs.append(other)
        return theirs[0], theirs[1]

    def drain(self) -> None:
        """Hand over at once, without waiting, what lies in them; of a writer that never pauses, a pipe full or more."""
        for descriptor in tuple(self._streams):
            left = DRAIN
            while left > 0 and descriptor in self._streams:
                came = self._read(descriptor)
                if came == 0:
                    break
                left -= came

    def finish(self) -> None:
        """Hand over what lies in them, and close them: whoever still holds the other ends is not waited for."""
        try:
            self.drain()
        finally:
            self.close()

    def close(self) -> None:
        for descriptor in tuple(self._streams):
            self._close(descriptor)

    def _read(self, descriptor: int) -> int:
        """Hand over what is there; how much it was."""
        try:
            data = os.read(descriptor, CHUNK)
        except BlockingIOError:
            return 0
        if data:
            self._output(self._streams[descriptor], data)
        else:
            self._close(descriptor)
        return len(data)

    def _close(self, descriptor: int) -> None:
        self._loop.remove_reader(descriptor)
        del self._streams[descriptor]
        os.close(descriptor)
