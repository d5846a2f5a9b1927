"""Folders of this machine as tar archives, for the engine to unpack. Blocking: call in a thread."""

from __future__ import annotations

import os
import stat
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from slipway.dsl.errors import InvalidError

from .docker_content import folders_above

PIECE = 1 << 20
EPOCH = 315532800  # 1980: what has always the same time gives always the same layer


def packed(
    files: Mapping[str, str],
    *,
    texts: Iterable[tuple[str, str]] = (),
    folders: Iterable[str] = (),
    timed: bool = False,
) -> Iterator[bytes]:
    """An archive of host files by their names in it, of texts, and of folders that everyone may enter; all is root's.

    `timed`: with the files' own times. Folders that are not named come about by themselves where they are missing.
    """
    for name in folders:
        yield _header(name, tarfile.DIRTYPE, 0o755)
    for name, path in files.items():
        with _readable(path):
            yield from _file(name, path, timed)
    for name, text in texts:
        content = text.encode()
        yield _header(name, tarfile.REGTYPE, 0o644, size=len(content)) + content + _filling(len(content))
    yield bytes(2 * tarfile.BLOCKSIZE)


def _file(name: str, path: str, timed: bool) -> Iterator[bytes]:
    status = os.lstat(path)
    time = int(status.st_mtime) if timed else EPOCH
    mode = stat.S_IMODE(status.st_mode)
    if stat.S_ISDIR(status.st_mode):
        yield _header(name, tarfile.DIRTYPE, mode, time=time)
    elif stat.S_ISLNK(status.st_mode):
        yield _header(name, tarfile.SYMTYPE, 0o777, time=time, target=str(Path(path).readlink()))
    elif stat.S_ISREG(status.st_mode):
        yield _header(name, tarfile.REGTYPE, mode, time=time, size=status.st_size)
        left = status.st_size
        with open(path, "rb") as file:  # noqa: PTH123
            while left and (piece := file.read(min(left, PIECE))):
                left -= len(piece)
                yield piece
        if left:
            raise InvalidError(f"{path} became shorter while it was read")
        yield _filling(status.st_size)
    else:
        raise InvalidError(f"{path} is neither a file nor a folder, and can't be put into a container")


def _header(name: str, kind: bytes, mode: int, *, time: int = EPOCH, size: int = 0, target: str = "") -> bytes:
    member = tarfile.TarInfo(name)
    member.type, member.mode, member.mtime, member.size, member.linkname = kind, mode, time, size, target
    return member.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


def _filling(size: int) -> bytes:
    return bytes(-size % tarfile.BLOCKSIZE)


def merged(trees: Iterable[str]) -> dict[str, str]:
    """The host files of trees by their names; of two with one name the last tree's. Folders count where empty.

    A file takes the place of a folder before it, and the other way round.
    """
    found: dict[str, str] = {}
    filled: set[str] = set()  # folders that have, or had, something in them
    for tree in trees:
        with _readable(tree):
            named = list(_files(tree))
        for name, path in named:
            folders = tuple(folders_above(name))
            for folder in folders:
                found.pop(folder, None)  # a file, or a folder that is empty no more
            inside = [other for other in found if other.startswith(f"{name}/")] if name in filled else []
            if inside and Path(path).is_dir() and not Path(path).is_symlink():
                continue
            for other in inside:
                del found[other]
            found[name] = path
            filled.update(folders)
    return found


def _files(tree: str) -> Iterator[tuple[str, str]]:
    for folder, folders, names in os.walk(tree, onerror=_raise):
        folders.sort()
        inside = os.path.relpath(folder, tree)
        links = [name for name in folders if Path(folder, name).is_symlink()]
        for name in (*sorted(names), *links):
            yield os.path.normpath(f"{inside}/{name}"), f"{folder}/{name}"
        if not folders and not names and inside != ".":
            yield inside, folder


def _raise(error: OSError) -> None:
    raise error


@contextmanager
def _readable(path: str) -> Iterator[None]:
    """Else it would look as if the engine were gone."""
    try:
        yield
    except OSError as error:
        raise InvalidError(f"{error.filename or path} can't be read: {error.strerror}") from error
