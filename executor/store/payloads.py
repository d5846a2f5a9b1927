"""Payloads and results of durable inputs that are too big for a row: a file each, whose row says that it is whole.

They are not blobs: no two inputs share one, so no digest is computed and none is removed from under another input.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from slipway.executor.disk import sync, sync_all_beside
from slipway.executor.worker.wire import NO_FD

IN_ROW = 8 * 1024  # bytes; what is bigger lies in a file
MANY = 16  # files from which on one call that syncs all of a file system beats one for each
NO_SOURCE = frozenset({errno.EBADF, errno.EINVAL, errno.EISDIR, errno.ESPIPE})  # for a descriptor that is no such file


class Unreadable(OSError):
    """What is to be kept can't be read from the descriptor that came with it: it is of no use to try again."""


class Kept(NamedTuple):
    """What is to be kept: of which input, its payload ("in") or result ("out"), as bytes or in a descriptor."""

    number: int
    kind: str
    data: bytes = b""
    fd: int = NO_FD
    length: int = 0


class PayloadFiles:
    """Files in folders by the end of their number. Methods block: call them in a thread."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def keep(self, things: Sequence[Kept]) -> list[OSError | None]:
        """Write files, and have the disk write them, before anybody says that they are there: for each, what went
        wrong. A file is never written to twice: somebody may be reading the one of before."""
        troubles = [self._write(thing) for thing in things]
        written = [self.path(thing.number, thing.kind) for thing, no in zip(things, troubles, strict=True) if not no]
        try:
            self._sync(written)
        except OSError as error:
            return [trouble or error for trouble in troubles]
        return troubles

    def _write(self, thing: Kept) -> OSError | None:
        path = self.path(thing.number, thing.kind)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.unlink(missing_ok=True)
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                _fill(fd, thing)
            except BaseException:
                path.unlink()  # half of it would take room that others need
                raise
            finally:
                os.close(fd)
        except OSError as error:
            return error
        return None

    def _sync(self, paths: list[Path]) -> None:
        if len(paths) > MANY:
            sync_all_beside(self._folder)
            return
        for path in paths:
            sync(path)
        for folder in {path.parent for path in paths}:
            sync(folder)

    def read(self, number: int, kind: str, size: int) -> bytes:
        """Raises `OSError`, also where it is not as long as it was."""
        with os.fdopen(self.open(number, kind, size), "rb") as file:
            return file.read()

    def open(self, number: int, kind: str, size: int) -> int:
        """A descriptor to read it from, which stays good when the file is removed. Raises `OSError` as `read` does."""
        fd = os.open(self.path(number, kind), os.O_RDONLY | os.O_CLOEXEC)
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode) or found.st_size != size:
            os.close(fd)
            raise OSError(errno.EIO, "the file is damaged")
        return fd

    def remove(self, numbers: Iterable[int], *kinds: str) -> None:
        """Remove what there is of inputs."""
        for number in numbers:
            for kind in kinds:
                self.path(number, kind).unlink(missing_ok=True)

    def all(self) -> Iterator[tuple[int, str]]:
        """Everything that there is."""
        with suppress(FileNotFoundError):
            for folder in os.scandir(self._folder):
                for entry in os.scandir(folder.path):
                    number, _, kind = entry.name.partition(".")
                    with suppress(ValueError):
                        yield int(number, 16), kind

    def path(self, number: int, kind: str) -> Path:
        return self._folder / f"{number & 0xFF:02x}" / f"{number:x}.{kind}"


def _fill(to: int, thing: Kept) -> None:
    size = thing.length if thing.fd != NO_FD else len(thing.data)
    if size:
        os.posix_fallocate(to, 0, size)  # where there is no room for all of it, none is taken from others
    if thing.fd == NO_FD:
        view = memoryview(thing.data)
        while view.nbytes:
            view = view[os.write(to, view) :]
        return
    at = 0
    while at < thing.length:
        try:
            sent = os.sendfile(to, thing.fd, at, thing.length - at)
        except OSError as error:
            if error.errno in NO_SOURCE:
                raise Unreadable(error.errno, error.strerror) from error
            raise
        if not sent:
            raise Unreadable(errno.ENODATA, "it is shorter than was said")
        at += sent
