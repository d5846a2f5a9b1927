"""Logs of apps on disk: a folder for each app, in it numbered files of which the last one grows.

When a file is full the next one begins, and the oldest go: those of an app that has more than its share, then those of
the whole home. A line is never in two files, and half of one, as a crash may leave it, is passed over.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from math import inf
from pathlib import Path
from typing import NamedTuple

from attrs import frozen

from .log_query import LogLine, Query, decode

PARTS = 16  # files that an app's share is split into: so much of it goes at a time
SMALLEST = 4096
BLOCK = 256 * 1024  # bytes that are read at a time, from the end towards the beginning
KEPT = "engine.log"  # the engine's own log, which is open as long as the engine lives and keeps to a size itself


@frozen(kw_only=True)
class LogLimits:
    """Bytes that the logs of a home may take in all, and those of one app."""

    total: int
    app: int

    @property
    def file(self) -> int:
        return max(min(self.app, self.total) // PARTS, SMALLEST)


class Place(NamedTuple):
    """Where a log ends: the number of the last file, and its size."""

    number: int
    size: int


class LogFiles:
    """The files below `root`. One thread writes, any may read."""

    def __init__(self, root: Path, limits: Callable[[], LogLimits]) -> None:
        self._root = root
        self._apps = root / "apps"
        self._apps.mkdir(parents=True, exist_ok=True)
        self._limits = limits
        self._whole: set[str] = set()  # apps whose last file is known to end with a whole line

    def write(self, app: str, lines: Sequence[bytes]) -> None:
        """Add whole lines. Raises `OSError`; of what was written then the last line may be half."""
        limits = self._limits()
        folder = self._apps / app
        folder.mkdir(exist_ok=True)
        number = max(_numbers(folder), default=1)
        for piece in _pieces(lines, limits.file):
            if _size(_file(folder, number)) >= limits.file:
                number += 1
                self._make_room(folder, limits)
            path = _file(folder, number)
            with path.open("ab", buffering=0) as file:
                if app not in self._whole and file.tell() and not _ends_whole(path):
                    file.write(b"\n")
                self._whole.discard(app)
                file.write(piece)
                self._whole.add(app)

    def _make_room(self, folder: Path, limits: LogLimits) -> None:
        """Let the oldest files of an app go, so that it keeps to its share with one more file; then those of all."""
        most = limits.app - 2 * limits.file  # the one that begins, and by as much as a line the others are too large
        for path in _oldest_beyond([(_file(folder, n), _size(_file(folder, n))) for n in _numbers(folder)], most):
            path.unlink(missing_ok=True)
        self.trim()

    def trim(self) -> None:
        """Let the oldest files of the home go until all fit into the budget: of apps, builds and bugs alike."""
        limits = self._limits()
        found = []
        for path in self._root.rglob("*"):
            try:
                status = path.stat()
            except FileNotFoundError:
                continue  # it went meanwhile
            if path.is_file() and path.name != KEPT:
                found.append((status.st_mtime_ns, path, status.st_size))
        found.sort()
        for path in _oldest_beyond([(path, size) for _, path, size in found], limits.total - limits.file):
            path.unlink(missing_ok=True)

    # --- reading --------------------------------------------------------------------------------------

    def apps(self) -> list[str]:
        """The apps that have a log, the one that said something last first."""
        times = [(max((_changed(path) for path in folder.iterdir()), default=0), folder) for folder in self._folders()]
        return [folder.name for _, folder in sorted(times, reverse=True)]

    def _folders(self) -> list[Path]:
        return [path for path in self._apps.iterdir() if path.is_dir()]

    def end(self, app: str) -> Place:
        """Where an app's log ends now."""
        number = max(_numbers(self._apps / app), default=0)
        return Place(number, _size(_file(self._apps / app, number)))

    def read(self, app: str, query: Query, end: Place | None = None) -> list[LogLine]:
        """The lines of an app that are wanted, oldest first; none of what came after `end`."""
        found: list[LogLine] = []
        place = end or self.end(app)
        for number in sorted((n for n in _numbers(self._apps / app) if n <= place.number), reverse=True):
            if query.tail is not None and len(found) >= query.tail:
                break
            path = _file(self._apps / app, number)
            try:
                if not _read_file(path, query, place.size if number == place.number else None, found):
                    break
            except FileNotFoundError:
                break  # it had to make room just now, and so had all that is older
        found.reverse()
        return found


def _read_file(path: Path, query: Query, size: int | None, found: list[LogLine]) -> bool:
    """Add what is wanted of a file, newest first; tell whether what is older may hold more."""
    since, until = query.since_ms, query.until_ms
    with path.open("rb", buffering=0) as file:
        descriptor = file.fileno()
        if until is not None and _began_ms(os.pread(descriptor, BLOCK, 0), -inf) > until:
            return True
        for block in backwards(descriptor, os.fstat(descriptor).st_size if size is None else size):
            for line in _wanted(block, query):
                found.append(line)
                if len(found) == query.tail:
                    return False
            if since is not None and _began_ms(block, inf) < since:
                return False
    return True


def _wanted(block: bytes, query: Query) -> Iterator[LogLine]:
    """The lines of a block that are wanted, newest first. Most are known not to be without being read."""
    needles = query.needles
    if all(needle in block for needle in needles):
        for data in reversed(block.split(b"\n")):
            if all(needle in data for needle in needles):
                line = decode(data)
                if line is not None and query.wants(line):
                    yield line


def _began_ms(block: bytes, unknown: float) -> float:
    """When the first line of a block was said."""
    lines = (decode(data) for data in block.split(b"\n"))
    return next((line.at_ms for line in lines if line is not None), unknown)


def backwards(descriptor: int, end: int, block: int = BLOCK) -> Iterator[bytes]:
    """The whole lines of a file up to a place, in blocks from the end to the beginning. Half a last one is left out."""
    rest = b""  # the end of a line that begins further towards the beginning
    at, is_last = end, True
    while at > 0:
        start = max(at - block, 0)
        data = os.pread(descriptor, at - start, start) + rest
        at = start
        cut = data.find(b"\n") + 1 if start else 0
        if start and not cut:
            rest = data
            continue
        rest, data = data[:cut], data[cut:]
        if is_last:
            data = data[: data.rfind(b"\n") + 1]
            is_last = not data
        if data:
            yield data


def _pieces(lines: Sequence[bytes], size: int) -> Iterator[bytes]:
    """Lines in pieces of about so many bytes."""
    piece: list[bytes] = []
    held = 0
    for line in lines:
        piece.append(line)
        held += len(line)
        if held >= size:
            yield b"".join(piece)
            piece, held = [], 0
    if piece:
        yield b"".join(piece)


def _oldest_beyond(files: list[tuple[Path, int]], most: int) -> list[Path]:
    """Of files with their sizes, oldest first, those that must go so that the rest has at most so many bytes.

    >>> _oldest_beyond([(Path("a"), 5), (Path("b"), 5), (Path("c"), 5)], 10)
    [PosixPath('a')]
    """
    left = sum(size for _, size in files)
    going = []
    for path, size in files:
        if left <= most:
            break
        going.append(path)
        left -= size
    return going


def _file(folder: Path, number: int) -> Path:
    return folder / f"{number:08d}.jsonl"


def _numbers(folder: Path) -> list[int]:
    """Of an app's files, in order."""
    try:
        return sorted(int(path.stem) for path in folder.iterdir() if path.suffix == ".jsonl" and path.stem.isdigit())
    except FileNotFoundError:
        return []


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _changed(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return 0


def _ends_whole(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"
