"""Which attempts of durable inputs are under way: known after a kill -9 of this process, at no cost of waiting.

They stand in a file that is mapped into memory. What is written there is the kernel's, so it outlives the process; only
a power failure takes it.
"""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from slipway.dsl.errors import Error

SLOTS = 1 << 12  # attempts that there is room for at first
_NUMBER = struct.Struct("<Q")
_REST = struct.Struct("<QQQ32p")  # attempts in all, losses, started_ms, worker
SIZE = _NUMBER.size + _REST.size


class Attempt(NamedTuple):
    """An attempt that begins; `total` counts those of the input, of earlier series too."""

    number: int
    total: int
    losses: int
    started_ms: int
    worker: str


class UnderWay:
    """One slot for each attempt. Only one process has the file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._map: mmap.mmap | None = None
        self._free: list[int] = []

    def left(self) -> tuple[Attempt, ...]:
        """What the process before this one had under way. Blocks."""
        try:
            data = self._path.read_bytes()
        except FileNotFoundError:
            return ()
        return tuple(_read(data))

    def open(self) -> None:
        """Begin with an empty file. Blocks; raises `Error` where there is no room for it."""
        fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(fd, 0, SLOTS * SIZE)
            self._map = mmap.mmap(fd, SLOTS * SIZE)
        except OSError as error:
            raise Error(f"{self._path} can't be made: {error.strerror}", hint="Free some space.") from error
        finally:
            os.close(fd)
        self._free = list(range(SLOTS - 1, -1, -1))

    def begin(self, attempt: Attempt) -> int:
        """Note an attempt before it is sent; the slot to `end` it by."""
        if not self._free:
            self._grow()
        assert self._map is not None, "it was opened"
        slot = self._free.pop()
        number, total, losses, started_ms, worker = attempt
        at = slot * SIZE
        _REST.pack_into(self._map, at + _NUMBER.size, total, losses, started_ms, worker.encode())
        _NUMBER.pack_into(self._map, at, number)  # last: half a note is none
        return slot

    def end(self, slot: int) -> None:
        """What became of it is on disk."""
        assert self._map is not None, "it was opened"
        _NUMBER.pack_into(self._map, slot * SIZE, 0)
        self._free.append(slot)

    def _grow(self) -> None:
        assert self._map is not None, "it was opened"
        count = len(self._map) // SIZE
        with self._path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, 2 * count * SIZE)
        self._map.resize(2 * count * SIZE)
        self._free = list(range(2 * count - 1, count - 1, -1))

    def close(self) -> None:
        if self._map is not None:
            self._map.close()
            self._map = None


def _read(data: bytes) -> Iterator[Attempt]:
    for at in range(0, len(data) - SIZE + 1, SIZE):
        (number,) = _NUMBER.unpack_from(data, at)
        if number:
            total, losses, started_ms, worker = _REST.unpack_from(data, at + _NUMBER.size)
            yield Attempt(number, total, losses, started_ms, worker.decode(errors="replace"))
