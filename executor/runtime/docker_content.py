"""What a step changed in its container, and the digest over it. Nothing here asks the engine: it is told."""

from __future__ import annotations

import hashlib
import json
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, cast

from attrs import frozen

from .layers import NOISE

CHANGED, ADDED, GONE = 0, 1, 2  # what the engine says of a path
FOLDER, SOCKET = 1 << 31, 1 << 24  # in modes as the engine writes them
PIECE = 1 << 20
BUFFER = 1 << 15  # of tarfile, which copies what is left of it at each read
WORDS = 100_000  # bytes of paths that one command line takes: less than any system allows
CAPABILITY = "SCHILY.xattr.security.capability"
# GNU's tar tells what a program may do, too; another one has none of these words.
TAR = (
    "/bin/sh",
    "-c",
    'x="--xattrs --xattrs-include=security.capability --pax-option=delete=mtime,delete=atime,delete=ctime"; '
    'tar $x --version >/dev/null 2>&1 || x=; exec tar $x --no-recursion -cf - "$@"',
    "sh",
)

Described = tuple[object, ...]  # type, mode, owner, group and content; never a time


@frozen(kw_only=True)
class Changes:
    """What the engine says has changed, without what is mounted and what changes by chance: kinds by path.

    `doubtful` are folders above mounts in which nothing else changed: the engine made or touched them for the mounts.
    """

    kinds: Mapping[str, int]
    doubtful: tuple[str, ...] = ()  # the deepest first

    def present(self) -> tuple[str, ...]:
        """What must be looked at."""
        return tuple(path for path, kind in self.kinds.items() if kind != GONE)

    def whole(self, path: str) -> bool:
        """Whether a folder is new with all that is in it, and nothing in it is mounted."""
        return self.kinds.get(path) == ADDED and path not in self.doubtful


def changes(found: Iterable[Mapping[str, Any]] | None, mounts: Iterable[str]) -> Changes:
    """What the engine's list of changes comes to. `mounts` are where something was mounted.

    >>> changes([{"Path": "/srv", "Kind": 1}, {"Path": "/srv/v", "Kind": 1}, {"Path": "/a", "Kind": 1}], ["/srv/v"])
    Changes(kinds={'/a': 1, '/srv': 1}, doubtful=('/srv',))
    """
    points = {point.rstrip("/") for point in mounts}
    above = {folder for point in points for folder in folders_above(point)}
    kinds: dict[str, int] = {}
    for change in sorted(found or (), key=lambda change: str(change["Path"])):
        path = str(change["Path"])
        if points.isdisjoint((path, *folders_above(path))) and not NOISE.fullmatch(path[1:]):
            kinds[path] = int(change["Kind"])
    filled = {folder for path in kinds if path not in above for folder in folders_above(path)}
    doubtful = [path for path, kind in kinds.items() if path in above and path not in filled and kind != GONE]
    return Changes(kinds=kinds, doubtful=tuple(sorted(doubtful, key=len, reverse=True)))


def folders_above(path: str) -> Iterator[str]:
    """The folders above a path, the deepest first.

    >>> list(folders_above("/a/b/c")), list(folders_above("a/b"))
    (['/a/b', '/a'], ['a'])
    """
    while (path := path.rpartition("/")[0]) != "":
        yield path


def settle(what: Changes, described: Mapping[str, Described], below: Mapping[str, Described]) -> dict[str, Described]:
    """Without those doubtful folders that are as the engine makes them, or as they were `below`."""
    kept = dict(described)
    for path in what.doubtful:  # the deepest first: one that stays keeps those above it
        as_made = ("folder", 0o755, 0, 0) if what.kinds[path] == ADDED else below.get(path)
        if kept.get(path) == as_made and not any(other.startswith(f"{path}/") for other in kept):
            kept.pop(path, None)
    return kept


def digest(below: str, described: Mapping[str, Described]) -> str:
    """Of a layer's content on that of what it stands on: an image of the engine has all of it."""
    total = hashlib.sha256(b"slipway.docker.v1\0" + below.encode() + b"\n")
    for path in sorted(described):
        total.update(json.dumps([path, *described[path]]).encode() + b"\n")
    return "sha256:" + total.hexdigest()


def command_lines(paths: Iterable[str]) -> Iterator[tuple[str, ...]]:
    """The words that tell `tar` what to pack from `/`, in as many command lines as it takes."""
    words: list[str] = []
    room = WORDS
    for path in paths:
        size = len(path.encode("utf-8", "surrogateescape")) + 12
        if words and size > room:
            yield tuple(words)
            words, room = [], WORDS
        words.append(f".{path}")
        room -= size
    if words:
        yield tuple(words)


# --- what tar says ------------------------------------------------------------------------------------


class Pieces:
    """Bytes that come in pieces, as as much of a file as tarfile needs."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = iter(pieces)
        self._rest = bytearray()

    def read(self, size: int) -> bytes:
        while len(self._rest) < size:
            piece = next(self._pieces, None)
            if piece is None:
                break
            self._rest += piece
        taken = bytes(self._rest[:size])
        del self._rest[:size]
        return taken


def members(pieces: Iterable[bytes], folder: str = "") -> Iterator[tuple[str, Described]]:
    """What is in a tar archive, as it comes; names are relative to `folder`. One that is cut off just ends."""
    contents: dict[str, str] = {}  # digests by name, for what is a second name of a file before it
    try:
        with tarfile.open(fileobj=cast(Any, Pieces(pieces)), mode="r|", bufsize=BUFFER) as archive:
            for member in archive:
                content = ""
                if member.islnk():
                    if _named(member.linkname) not in contents:
                        continue  # it is asked for alone
                    content = contents[_named(member.linkname)]
                elif member.isreg():
                    content = contents[_named(member.name)] = _content(archive, member)
                yield f"{folder}/{_named(member.name)}", _described(member, content)
    except tarfile.TarError:
        return


def _named(name: str) -> str:
    return name.removeprefix("./").strip("/")


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo) -> str:
    total = hashlib.sha256()
    file = archive.extractfile(member)
    assert file is not None, "it is a regular file"
    while piece := file.read(PIECE):
        total.update(piece)
    return total.hexdigest()


def _described(member: tarfile.TarInfo, content: str) -> Described:
    about = (member.mode & 0o7777, member.uid, member.gid)
    if member.isreg() or member.islnk():
        capability = member.pax_headers.get(CAPABILITY, "").encode("utf-8", "surrogateescape").hex()
        return ("file", *about, content, capability)
    if member.isdir():
        return ("folder", *about)
    if member.issym():
        return ("link", member.uid, member.gid, member.linkname)
    return ("special", *about, member.type.decode("ascii"), member.devmajor, member.devminor)
