"""Source files as a folder that containers get laid over their image: kept as blobs, put together once, by digest."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path

from slipway.compiler.encode import digest_of
from slipway.compiler.facts import FileEntry
from slipway.compiler.nodes import BundleSpec
from slipway.dsl.errors import InvalidError, NotFoundError, StalePlanError

from .disk import sync
from .points import point
from .store.blobs import FileBlobs, digest_of_file
from .tasks import Flights

LINK = "link:"
MAKING = ".making-"


def bundle_digest(files: tuple[FileEntry, ...]) -> str:
    """What a folder of these files is known by, where they are no node of a graph: the files that a step reads."""
    return digest_of(BundleSpec(files=files))


class Bundles:
    """Folders below `folder`, laid out like a container's root. One that is there is whole and never changes."""

    def __init__(self, folder: Path, blobs: FileBlobs) -> None:
        self._folder = folder
        self._blobs = blobs
        self._flights: Flights[str, str] = Flights()

    def path(self, digest: str) -> str:
        """Where the bundle's folder lies. Raises `NotFoundError`."""
        place = self._place(digest)
        if not place.is_dir():
            raise NotFoundError(f"the bundle {digest[:19]}… is not in this home", hint="slipway apply makes it again.")
        return str(place)

    def has(self, digest: str) -> bool:
        return self._place(digest).is_dir()

    async def keep(self, files: Iterable[FileEntry]) -> None:
        """Take the content of files into the blobs. Raises `StalePlanError` where one is not as it was planned."""
        await asyncio.to_thread(self._keep, tuple(files))

    async def make(self, digest: str, files: tuple[FileEntry, ...]) -> str:
        """The path of the bundle's folder, which is made where it isn't there; the content must be in the blobs."""
        if self.has(digest):
            return str(self._place(digest))
        return await self._flights.join(digest, lambda: asyncio.to_thread(self._make, digest, files))

    def remove_halves(self) -> int:
        """Remove what a crash left half made; return how many. Only while nobody else makes one."""
        halves = list(self._folder.glob(f"{MAKING}*")) if self._folder.is_dir() else []
        for half in halves:
            shutil.rmtree(half)
        return len(halves)

    # --- inside ---------------------------------------------------------------------------------------

    def _place(self, digest: str) -> Path:
        return self._folder / folder_name(digest)

    def _keep(self, files: tuple[FileEntry, ...]) -> None:
        missing = {
            entry.digest: entry
            for entry in files
            if not entry.digest.startswith(LINK) and not self._blobs.has(entry.digest)
        }
        try:
            read = self._blobs.put_files(entry.source for entry in missing.values())
        except (FileNotFoundError, NotADirectoryError, PermissionError) as error:
            raise StalePlanError(
                f"{error.filename} is part of the plan but can't be read any more: {error.strerror}",
                hint="Make the plan again: slipway plan",
            ) from error
        for digest, entry in zip(read, missing.values(), strict=True):
            if digest != entry.digest:
                raise StalePlanError(
                    f"{entry.source} has changed since the plan was made", hint="Make the plan again: slipway plan"
                )

    def _make(self, digest: str, files: tuple[FileEntry, ...]) -> str:
        target = self._place(digest)
        self._folder.mkdir(parents=True, exist_ok=True)
        making = Path(tempfile.mkdtemp(prefix=MAKING, dir=self._folder))
        try:
            _Layout(making, self._blobs).lay(files)
            point("bundle-made")
            try:
                making.rename(target)
            except OSError:
                if not target.is_dir():  # else another engine of this home was faster, with the same content
                    raise
            sync(self._folder)
        finally:
            shutil.rmtree(making, ignore_errors=True)
        return str(target)


def folder_name(digest: str) -> str:
    """The name of a bundle's folder.

    >>> folder_name("sha256:" + "ab" * 32)
    'abababababababababababab'
    """
    return digest.partition(":")[2][:24]


class _Layout:
    """Fills one new folder."""

    def __init__(self, root: Path, blobs: FileBlobs) -> None:
        self._root = root
        self._blobs = blobs
        self._folders = {""}

    def lay(self, files: tuple[FileEntry, ...]) -> None:
        self._root.chmod(0o755)
        checked: set[str] = set()
        for entry in files:
            path = _inside(entry.path)
            self._folder(path.rpartition("/")[0])
            try:
                self._file(f"{self._root}/{path}", entry, checked)
            except (FileExistsError, IsADirectoryError) as error:
                raise InvalidError(f"{entry.path} is to be there twice, as a file and as something else") from error
        for folder in self._folders:
            sync(self._root / folder)

    def _folder(self, path: str) -> None:
        if path in self._folders:
            return
        self._folder(path.rpartition("/")[0])
        try:
            (self._root / path).mkdir()
        except FileExistsError as error:
            raise InvalidError(f"/{path} is to be a folder and a file") from error
        (self._root / path).chmod(0o755)  # whatever our umask is
        self._folders.add(path)

    def _file(self, target: str, entry: FileEntry, checked: set[str]) -> None:
        if entry.digest.startswith(LINK):
            os.symlink(entry.digest[len(LINK) :], target)  # noqa: PTH211 - the string is what is wanted, as it is
            return
        blob = self._blobs.path(entry.digest)
        if entry.digest not in checked:
            if digest_of_file(blob) != entry.digest:
                self._blobs.remove(entry.digest)
                raise InvalidError(
                    f"the copy of {entry.source or entry.path} in this home was damaged; it has been thrown away",
                    hint="Apply again, and look at the disk: slipway apply",
                )
            checked.add(entry.digest)
        if entry.mode == 0o644:
            try:
                os.link(blob, target)
            except FileExistsError:
                raise
            except OSError:  # another file system, or too many links to one blob
                pass
            else:
                return
        shutil.copyfile(blob, target)
        Path(target).chmod(entry.mode)
        sync(target)


def _inside(path: str) -> str:
    """A container's path, relative to its root. Raises `InvalidError` for one that could lead elsewhere."""
    parts = path.split("/")
    if not path.startswith("/") or "" in parts[1:] or ".." in parts or "." in parts or "\0" in path:
        raise InvalidError(f"{path!r} can't be the place of a file in a container")
    return path[1:]
