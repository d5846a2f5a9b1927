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
_HEAD = b"slipway attempts 1\n".ljust(SIZE, b"\0")  # in the place of a first slot; with other slots, another number
_MOST = 1 << 63  # no such number was ever written


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
        """What the process before this one had under way; nothing where the file is of another kind. Blocks; raises
        `Error` where it can't be read."""
        try:
            data = self._path.read_bytes()
        except FileNotFoundError:
            return ()
        except OSError as error:
            raise Error(f"{self._path} can't be read: {error.strerror}", hint="Move it away.") from error
        return tuple(_read(data)) if data.startswith(_HEAD) else ()

    def open(self) -> None:
        """Begin with an empty file. Blocks; raises `Error` where there is no room for it."""
        length = (1 + SLOTS) * SIZE
        try:
            with open(self._path, "w+b", opener=_for_us_alone) as file:
                os.posix_fallocate(file.fileno(), 0, length)
                self._map = mmap.mmap(file.fileno(), length)
        except OSError as error:
            hint = "Free some space, and look at its folder's owner and mode."
            raise Error(f"{self._path} can't be made: {error.strerror}", hint=hint) from error
        self._map[:SIZE] = _HEAD
        self._free = list(range(SLOTS, 0, -1))

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
    for at in range(SIZE, len(data) - SIZE + 1, SIZE):
        (number,) = _NUMBER.unpack_from(data, at)
        if number:
            total, losses, started_ms, worker = _REST.unpack_from(data, at + _NUMBER.size)
            if max(number, total, losses, started_ms) < _MOST:
                yield Attempt(number, total, losses, started_ms, worker.decode(errors="replace"))


def _for_us_alone(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
