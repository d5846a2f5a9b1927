"""Reading the user's files: what lies below a folder, with digests that cost a `stat` where nothing changed. Blocks."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterator
from difflib import get_close_matches
from operator import attrgetter
from pathlib import Path

from attrs import field, frozen

from slipway.compiler.facts import FileEntry, Missing, TextFact, TreeFact
from slipway.dsl.declaration import LocalSource
from slipway.dsl.patterns import PatternSet, pattern_set

from .store.blobs import digest_of_file
from .store.state import FileStat

MAX_TEXT = 8 << 20
# A file can change twice within one tick of the file system's clock. What was touched less than this before it was
# hashed is hashed again next time; where times are whole seconds the tick may be two.
TICK_NS, COARSE_TICK_NS = 50_000_000, 2_000_000_000


@frozen(kw_only=True)
class TreeReading:
    """What was found, and what to remember: `hashed` are files whose content was read, `gone` are known paths that
    are there no more."""

    fact: TreeFact | Missing
    hashed: tuple[FileStat, ...] = field(default=(), repr=False)
    gone: tuple[str, ...] = ()


class _Refused(Exception):
    """Something in the tree that can't be part of a plan."""

    def __init__(self, summary: str, hint: str) -> None:
        super().__init__(summary)
        self.missing = Missing(summary=summary, hint=hint)


def read_tree(source: LocalSource, known: dict[str, FileStat]) -> TreeReading:
    """The files of a source, sorted by path; `known` are digests by absolute path, as they were last time."""
    problem = _no_such(source)
    if problem is not None:
        return TreeReading(fact=problem)
    reader = _Reader(source, known)
    try:
        files = sorted(reader.read(), key=attrgetter("path"))
    except _Refused as refused:
        return TreeReading(fact=refused.missing)
    except OSError as error:
        return TreeReading(fact=_unreadable(error.filename or source.local, error))
    return TreeReading(
        fact=TreeFact(files=tuple(files)),
        hashed=tuple(reader.hashed),
        gone=tuple(path for path in known.keys() - reader.seen if not os.path.lexists(path)),
    )


def read_text(path: str) -> TextFact | Missing:
    """The text of one small file."""
    problem = _no_such(LocalSource(local=path, remote=""))
    if problem is not None:
        return problem
    try:
        if Path(path).stat().st_size > MAX_TEXT:
            return Missing(summary=f"{path} is larger than {MAX_TEXT >> 20} MiB, too large for what it is read for")
        return TextFact(text=Path(path).read_text(encoding="utf-8-sig"))
    except OSError as error:
        return _unreadable(path, error)
    except UnicodeDecodeError as error:
        return Missing(summary=f"{path} is not UTF-8 text: byte {error.start} is wrong", hint="Save it as UTF-8.")


class _Reader:
    def __init__(self, source: LocalSource, known: dict[str, FileStat]) -> None:
        self._source = source
        self._known = known
        self._root = os.path.realpath(source.local)
        self.hashed: list[FileStat] = []
        self.seen: set[str] = set()

    def read(self) -> Iterator[FileEntry]:
        source = self._source
        if not source.is_dir:
            yield self._file("", self._root, Path(self._root).stat())
        elif source.only is not None:
            for relative in sorted(set(source.only)):
                path = f"{self._root}/{relative}"
                try:
                    status = os.lstat(path)
                except (FileNotFoundError, NotADirectoryError):
                    continue
                if not stat.S_ISDIR(status.st_mode):
                    yield self._entry(relative, path, status)
        else:
            yield from self._walk(self._root, "", pattern_set(source.ignore))

    def _walk(self, folder: str, prefix: str, ignore: PatternSet) -> Iterator[FileEntry]:
        with os.scandir(folder) as entries:
            for entry in entries:
                relative = prefix + entry.name
                if entry.is_dir(follow_symlinks=False):
                    if not ignore.prunes(relative):
                        yield from self._walk(entry.path, relative + "/", ignore)
                elif not ignore.matches(relative):
                    try:
                        status = entry.stat(follow_symlinks=False)
                    except FileNotFoundError:
                        continue  # it went while we looked
                    yield self._entry(relative, entry.path, status)

    def _entry(self, relative: str, path: str, status: os.stat_result) -> FileEntry:
        if stat.S_ISREG(status.st_mode):
            return self._file(relative, path, status)
        if stat.S_ISLNK(status.st_mode):
            return FileEntry(path=_named(relative, path), mode=0o644, digest=f"link:{self._target(path)}", source=path)
        raise _Refused(
            f"{path} is neither a file nor a folder but {_kind(status.st_mode)}, and can't be copied into a container",
            'Leave it out: ignore=["' + relative + '"].',
        )

    def _file(self, relative: str, path: str, status: os.stat_result) -> FileEntry:
        known = self._known.get(path)
        self.seen.add(path)
        if known is not None and known[1:5] == (status.st_size, status.st_mtime_ns, status.st_ino, status.st_ctime_ns):
            digest = known.digest
        else:
            digest = self._hash(path, status)
        mode = 0o755 if status.st_mode & stat.S_IXUSR else 0o644
        return FileEntry(path=_named(relative, path), mode=mode, digest=digest, size=status.st_size, source=path)

    def _hash(self, path: str, status: os.stat_result) -> str:
        now = time.time_ns()
        digest = digest_of_file(path)
        changed = max(status.st_mtime_ns, status.st_ctime_ns)
        tick = TICK_NS if status.st_mtime_ns % 1_000_000_000 else COARSE_TICK_NS
        if now - changed > tick:
            self.hashed.append(
                FileStat(path, status.st_size, status.st_mtime_ns, status.st_ino, status.st_ctime_ns, digest)
            )
        return digest

    def _target(self, path: str) -> str:
        """Where a link leads, relative to where it lies. One that leads out of the folder would lead nowhere there."""
        target = str(Path(path).readlink())
        real = os.path.realpath(path)
        inside = real == self._root or real.startswith(self._root.rstrip("/") + "/")
        if not inside:
            raise _Refused(
                f"{path} is a symbolic link that leads out of {self._source.local}, to {target}",
                "Add what it leads to under its own name, or leave the link out with ignore=.",
            )
        if target.startswith("/"):
            target = os.path.relpath(real, os.path.dirname(path))  # noqa: PTH120 - a string is what is needed
        return _named(target, path)


def _unreadable(path: str, error: OSError) -> Missing:
    hint = f"chmod +r {path}, or leave it out." if isinstance(error, PermissionError) else ""
    return Missing(summary=f"{path} can't be read: {error.strerror}", hint=hint)


def _named(text: str, path: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise _Refused(
            f"the name of {os.fsencode(path)!r} is not UTF-8, so it can't be part of a plan",
            "Rename it, or leave it out with ignore=.",
        ) from None
    return text


def _kind(mode: int) -> str:
    kinds = {stat.S_IFSOCK: "a socket", stat.S_IFIFO: "a pipe", stat.S_IFBLK: "a device", stat.S_IFCHR: "a device"}
    return kinds.get(stat.S_IFMT(mode), "something else")


def _no_such(source: LocalSource) -> Missing | None:
    """Why there is nothing of the wanted kind at the path, and what may have been meant."""
    path = source.local
    try:
        mode = Path(path).stat().st_mode
        is_dir = stat.S_ISDIR(mode)
    except (FileNotFoundError, NotADirectoryError):
        return Missing(summary=f"{path} does not exist", hint=_did_you_mean(path))
    except OSError as error:
        return _unreadable(path, error)
    if is_dir and not source.is_dir:
        return Missing(summary=f"{path} is a folder, not a file", hint="For a folder: add_local_dir.")
    if not is_dir and not stat.S_ISREG(mode):  # a pipe would be read for ever
        return Missing(
            summary=f"{path} is neither a file nor a folder but {_kind(mode)}", hint="Copy it to a file first."
        )
    if source.is_dir and not is_dir:
        return Missing(summary=f"{path} is a file, not a folder", hint="For one file: add_local_file.")
    return None


def _did_you_mean(path: str) -> str:
    """The name beside it that is most like it; or, where its folder is missing too, as far as the path is right."""
    there = Path(path).parent
    while not there.is_dir() and there != there.parent:
        there = there.parent
    if there != Path(path).parent:
        return f"{there} exists, what is below it in this path does not."
    try:
        names = [beside.name for beside in there.iterdir()]
    except OSError:
        return ""
    close = get_close_matches(Path(path).name, names, n=1, cutoff=0.5)
    return f"Did you mean {there / close[0]}?" if close else f"There is no such name in {there}."
