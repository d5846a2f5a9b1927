"""Bytes by digest, on disk: a blob is there whole or not at all, and never changes once it is there."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from slipway.dsl.errors import InvalidError, NotFoundError
from slipway.executor.disk import sync, sync_all_beside

CHUNK = 1 << 20
MANY = 16
MODE = 0o644  # bundles are made of hard links to blobs, and this is the mode of most source files
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


def digest_of_file(path: str | Path) -> str:
    """The digest of a file's content. Blocks; raises `OSError`."""
    with Path(path).open("rb", buffering=0) as source:
        return "sha256:" + hashlib.file_digest(source, "sha256").hexdigest()


class FileBlobs:
    """Blobs in `folder`/sha256/<two letters>/<the rest>. Methods block: call them in a thread.

    A blob is written to a temporary file beside its place, synced, linked to its name (which never replaces anything)
    and the folder synced, so that after a crash at any point a name stands for whole content.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "sha256"

    def put_files(self, paths: Iterable[str]) -> tuple[str, ...]:
        """Copy files in; return the digest of what was read of each. One after the other would sync as often."""
        digests: list[str] = []
        waiting: dict[str, str] = {}  # digest: temporary file
        try:
            for path in paths:
                digest, name = self._copy(path)
                digests.append(digest)
                if digest in waiting or self.has(digest):
                    Path(name).unlink()
                else:
                    waiting[digest] = name
            self._sync_all(Path(name) for name in waiting.values())
            for digest, name in waiting.items():
                self._link(name, digest)
        finally:
            for name in waiting.values():
                Path(name).unlink(missing_ok=True)
        self._sync_all({self._place(digest).parent for digest in waiting})
        return tuple(digests)

    def path(self, digest: str) -> str:
        """Where the blob lies. Raises `NotFoundError`."""
        place = self._place(digest)
        if not place.is_file():
            raise NotFoundError(
                f"the blob {digest[:19]}… is not in this home", hint="Make the plan again: slipway plan"
            )
        return str(place)

    def has(self, digest: str) -> bool:
        return self._place(digest).is_file()

    def remove(self, digest: str) -> None:
        """Let go of a blob; nothing happens where it isn't there."""
        self._place(digest).unlink(missing_ok=True)

    def iterate(self) -> Iterator[str]:
        """The digest of every blob, in no order."""
        with suppress(FileNotFoundError):
            for folder in os.scandir(self._folder):
                if len(folder.name) == 2:
                    for entry in os.scandir(folder.path):
                        yield f"sha256:{folder.name}{entry.name}"

    def remove_halves(self) -> int:
        """Remove what a crash left half written; return how many. Only while nobody else writes."""
        count = 0
        with suppress(FileNotFoundError):
            for entry in list(os.scandir(self._folder / "making")):
                Path(entry.path).unlink()
                count += 1
        return count

    # --- inside ---------------------------------------------------------------------------------------

    def _place(self, digest: str) -> Path:
        if not _DIGEST.fullmatch(digest):
            raise InvalidError(f"this is not a digest: {digest[:80]!r}")
        return self._folder / digest[7:9] / digest[9:]

    def _sync_all(self, paths: Iterable[Path]) -> None:
        """Sync files or folders; many of them at once by one call for their file system, which is far quicker."""
        wanted = tuple(paths)
        if len(wanted) <= MANY:
            for path in wanted:
                sync(path)
        else:
            sync_all_beside(self._folder)

    def _copy(self, path: str) -> tuple[str, str]:
        hasher = hashlib.sha256()
        with (
            _Temporary(self._folder / "making") as (file, name),
            Path(path).open("rb", buffering=0) as source,
        ):
            while chunk := source.read(CHUNK):
                hasher.update(chunk)
                file.write(chunk)
        return "sha256:" + hasher.hexdigest(), name

    def _link(self, name: str, digest: str) -> None:
        place = self._place(digest)
        place.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileExistsError):  # somebody else was faster, with the same content
            os.link(name, place)


class _Temporary:
    """An open file with the mode of a blob; removed at the end of the block after an error."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __enter__(self) -> tuple[BinaryIO, str]:
        self._folder.mkdir(parents=True, exist_ok=True)
        fd, self._name = tempfile.mkstemp(dir=self._folder)
        os.fchmod(fd, MODE)
        self._file = os.fdopen(fd, "wb")
        return self._file, self._name

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        try:
            self._file.close()
        except OSError as close_error:
            if error is None or close_error.errno != errno.ENOSPC:
                raise
        finally:
            if error is not None:
                Path(self._name).unlink(missing_ok=True)
