"""What a Dockerfile may copy: the files of its context that its COPY and ADD name, without what is ignored."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from attrs import field, frozen

from slipway.compiler.dockerfile import copied, parse
from slipway.dsl.declaration import Fault, LocalSource, Origin
from slipway.dsl.errors import InvalidError
from slipway.dsl.items import Ignore
from slipway.dsl.patterns import FilePatternMatcher, PatternSet
from slipway.dsl.patterns import parse as parse_patterns

MOST_TEXT = 1 << 20
GLOB = re.compile(r"[*?\[\\]")


@frozen(kw_only=True)
class Context:
    """The files, relative to the folder, and what to say about COPY instructions that name nothing."""

    source: LocalSource | None = None
    faults: tuple[Fault, ...] = ()


@frozen(kw_only=True)
class Lines:
    """Lines of a Dockerfile and where they stand: in `file`, or (None) in the app file, at `origin`."""

    text: str
    origin: Origin
    address: str
    file: Path | None = None

    def fault(self, line: int, summary: str, found: str, hint: str) -> Fault:
        origin, address = self.origin, self.address
        if self.file is not None:
            origin, address = Origin(file=str(self.file), line=line), ""
        return Fault(severity="error", address=address, summary=summary, found=found, hint=hint, origin=origin)


def read_dockerfile(path: str, origin: Origin) -> str:
    """What a Dockerfile says. Raises `InvalidError` with its place."""
    try:
        if Path(path).stat().st_size > MOST_TEXT:
            raise InvalidError(f"{origin}: {path} is larger than {MOST_TEXT >> 20} MiB, so it is no Dockerfile")
        text = Path(path).read_text(encoding="utf-8-sig")
    except OSError as error:
        hint = "Name the file itself, from the folder where you are." if not Path(path).is_file() else ""
        raise InvalidError(f"{origin}: the Dockerfile {path} can't be read: {error.strerror}", hint=hint) from error
    except UnicodeDecodeError:
        raise InvalidError(f"{origin}: the Dockerfile {path} is not UTF-8 text", hint="Save it as UTF-8.") from None
    if not text.strip():
        raise InvalidError(f"{origin}: the Dockerfile {path} is empty", hint="Say what it stands on: FROM …")
    return text


def find_context(lines: Lines, folder: Path, ignore: Ignore | None, *, elsewhere: Iterable[str] = ()) -> Context:
    """The files of a folder that the lines copy. `ignore` None: a .dockerignore decides. `elsewhere` are names in the
    context that come from other places."""
    wanted = copied(parse(lines.text).instructions)
    if not wanted:
        return Context()
    finding = _Finding(top=str(folder), leave_out=_leaving_out(lines, folder, ignore))
    faults = []
    for line, pattern in wanted:
        if pattern.partition("/")[0] == "..":
            continue  # the check of the whole Dockerfile refuses it
        there = finding.add(pattern)
        matches = PatternSet((pattern,)).matches
        if not there and pattern != "." and not any(matches(name.lstrip("/")) for name in elsewhere):
            left_out, hint = "", f"Paths start at the context, {folder}."
            if finding.leaves(pattern):
                left_out, hint = f"{folder / pattern} leads out of it by a link", "Give a context_dir= that has both."
            elif os.path.lexists(folder / pattern):
                left_out, hint = f"{folder / pattern} is ignored", "Look at ignore= and at .dockerignore."
            summary = f"nothing in the context is called {pattern}"
            faults.append(lines.fault(line, summary, left_out, hint))
    if not finding.files:
        return Context(faults=tuple(faults))
    only = tuple(sorted(finding.files))
    odd = next((path for path in only if not _is_utf8(path)), None)
    if odd is not None:
        raise InvalidError(
            f"{lines.origin}: the name of {os.fsencode(folder / odd)!r} is not UTF-8, so it can't be part of a plan",
            hint="Rename it, or leave it out with ignore= or .dockerignore.",
        )
    source = LocalSource(local=str(folder), remote="/", is_dir=True, only=only, origin=lines.origin)
    return Context(source=source, faults=tuple(faults))


def _is_utf8(path: str) -> bool:
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True


def _leaving_out(lines: Lines, folder: Path, ignore: Ignore | None) -> Callable[[str], bool]:
    if ignore is None:
        beside = () if lines.file is None else (lines.file.with_name(f"{lines.file.name}.dockerignore"),)
        for file in (*beside, folder / ".dockerignore", Path.cwd() / ".dockerignore"):
            if file.is_file():
                return _patterns(lines, file).matches
        return lambda path: False
    if isinstance(ignore, tuple):
        return PatternSet(ignore).matches
    if isinstance(ignore, FilePatternMatcher):
        return PatternSet(ignore.patterns).matches

    def ask(path: str) -> bool:
        try:
            return bool(ignore(Path(path)))
        except Exception as error:  # the user's own function may raise anything
            raise InvalidError(
                f"{lines.origin}: the function given as ignore= failed: {type(error).__name__}: {error}",
                hint="It is called with the path of each file, relative to the context.",
            ) from error

    return ask


def _patterns(lines: Lines, file: Path) -> PatternSet:
    try:
        return PatternSet(parse_patterns(file.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidError(f"{lines.origin}: {file} can't be read: {error}") from error


@frozen(kw_only=True)
class _Finding:
    """The files found so far, below one folder."""

    top: str
    leave_out: Callable[[str], bool]
    files: set[str] = field(factory=set)

    def add(self, pattern: str) -> bool:
        """Take what a pattern matches; False where that is nothing."""
        before = len(self.files)
        found = list(self._found(pattern))
        taken = [path for path in found if self._wants(path)]
        self.files.update(taken)
        for path in taken:
            self._follow(path)
        return bool(taken) or len(self.files) > before

    def _found(self, pattern: str) -> Iterator[str]:
        """The paths that match, or lie below a folder that matches."""
        if pattern == ".":
            yield from self._below("")
            return
        parts = pattern.split("/")
        plain = 0
        while plain < len(parts) and not GLOB.search(parts[plain]):
            plain += 1
        start = "/".join(parts[:plain])
        if self.leaves(start):
            return
        if plain == len(parts) and not self._is_folder(start):
            if os.path.lexists(f"{self.top}/{start}"):
                yield start
            return
        matches = PatternSet((pattern,)).matches
        yield from (path for path in self._below(start) if plain == len(parts) or matches(path))

    def _is_folder(self, path: str) -> bool:
        full = f"{self.top}/{path}"
        return Path(full).is_dir() and not Path(full).is_symlink()

    def _below(self, folder: str) -> Iterator[str]:
        """Every file and link below a folder, relative to the top."""
        try:
            entries = sorted(os.scandir(f"{self.top}/{folder}"), key=lambda entry: entry.name)
        except (FileNotFoundError, NotADirectoryError):
            return
        for entry in entries:
            path = f"{folder}/{entry.name}" if folder else entry.name
            if entry.is_dir(follow_symlinks=False):
                yield from self._below(path)
            elif entry.is_file(follow_symlinks=False) or entry.is_symlink():
                yield path

    def _wants(self, path: str) -> bool:
        return not self.leave_out(path) and not (Path(self.top, path).is_symlink() and self.leaves(path))

    def leaves(self, path: str) -> bool:
        """Whether a link in it leads out of the context, to where no build could follow."""
        real, top = os.path.realpath(f"{self.top}/{path}"), os.path.realpath(self.top)
        return real != top and not real.startswith(top.rstrip("/") + "/")

    def _follow(self, path: str) -> None:
        """What a link leads to comes along: COPY takes that in its place where it names the link itself."""
        if Path(self.top, path).is_symlink():
            target = os.path.relpath(os.path.realpath(f"{self.top}/{path}"), os.path.realpath(self.top))
            more = [target] if not self._is_folder(target) else list(self._below(target))
            self.files.update(one for one in more if os.path.lexists(f"{self.top}/{one}") and self._wants(one))
