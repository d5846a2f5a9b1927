"""Ignore patterns as in a .dockerignore file.

Nothing here waits, sleeps, opens or spawns, but a matcher made by `from_file` reads that file when first used.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from posixpath import normpath

from .errors import InvalidError


def clean(pattern: str) -> str:
    """A pattern in its one normal form; "" where it says nothing.

    >>> clean(" ./build/ "), clean("!/a//b"), clean("# words")
    ('build', '!a/b', '# words')
    """
    text = pattern.strip()
    if text.startswith("!"):
        rest = clean(text[1:])
        if not rest:
            raise InvalidError('the ignore pattern "!" excepts nothing', hint='Write what to keep after it: "!*.py".')
        return "!" + rest.lstrip("!")
    if not text:
        return ""
    text = normpath(text).lstrip("/")
    return "" if text in {"", "."} else text


def parse(text: str) -> tuple[str, ...]:
    """The patterns of an ignore file: one a line, without empty lines and comments.

    >>> parse("# caches\\n*.pyc\\n\\n!keep.pyc\\n")
    ('*.pyc', '!keep.pyc')
    """
    lines = text.removeprefix("\ufeff").splitlines()
    return tuple(p for line in lines if not line.startswith("#") for p in (clean(line),) if p)


def inverted(patterns: Iterable[str]) -> tuple[str, ...]:
    """The patterns that match exactly what these don't: the last one that matches decides, so each sign turns.

    >>> inverted(["**/*.py", "!setup.py"])
    ('**', '!**/*.py', 'setup.py')
    """
    return ("**", *(p[1:] if p.startswith("!") else "!" + p for p in patterns))


class PatternSet:
    """Compiled patterns. A path is matched as "src/a.py", relative to the folder that is walked.

    The last pattern that matches the path, or a folder above it, decides; one that starts with `!` excepts.
    Runs of one sign become one regular expression, so that a long list costs little per file.

    >>> patterns = PatternSet(("**", "!**/*.py", "**/tests"))
    >>> [patterns.matches(p) for p in ("a.txt", "src/a.py", "src/tests/a.py")]
    [True, False, True]
    >>> patterns.prunes("src/tests"), patterns.prunes("src")
    (True, False)
    """

    __slots__ = ("_folders", "_runs", "patterns")

    def __init__(self, patterns: Iterable[str]) -> None:
        self.patterns = tuple(p for p in map(clean, patterns) if p)
        runs: list[tuple[bool, list[str]]] = []
        for pattern in self.patterns:
            keep, text = pattern.startswith("!"), pattern.lstrip("!")
            if not runs or runs[-1][0] != keep:
                runs.append((keep, []))
            runs[-1][1].append(text)
        self._runs = tuple((not keep, _compiled(texts)) for keep, texts in reversed(runs))
        last = runs[-1][1] if runs and not runs[-1][0] else []
        self._folders = _compiled([*last, *(t[:-3] for t in last if t.endswith("/**"))]) if last else None

    def matches(self, path: str) -> bool:
        """Whether the path is to be left out."""
        for ignored, expression in self._runs:
            if expression.match(path):
                return ignored
        return False

    def prunes(self, folder: str) -> bool:
        """Whether everything below the folder is to be left out, so that it needn't be walked.

        Only the patterns after the last `!` can say so for sure; False promises nothing.
        """
        return self._folders is not None and (self._folders.match(folder) is not None)


@lru_cache(maxsize=256)
def pattern_set(patterns: tuple[str, ...]) -> PatternSet:
    """The compiled form of a tuple of patterns, made once."""
    return PatternSet(patterns)


def _compiled(texts: list[str]) -> re.Pattern[str]:
    """One expression for paths that one of the patterns matches, or that lie below a folder that one matches."""
    return re.compile(rf"(?:{'|'.join(map(_translate, texts))})(?:/.*)?\Z", re.DOTALL)


def _translate(pattern: str) -> str:
    out, at, end = [], 0, len(pattern)
    while at < end:
        char = pattern[at]
        at += 1
        if char == "*" and pattern.startswith("*", at):
            while pattern.startswith("*", at):
                at += 1
            if pattern.startswith("/", at):
                at += 1
                out.append("(?:.*/)?")
            else:
                out.append(".*")
        elif char == "*":
            out.append("[^/]*")
        elif char == "?":
            out.append("[^/]")
        elif char == "\\" and at < end:
            out.append(re.escape(pattern[at]))
            at += 1
        elif char == "[":
            piece, at = _char_class(pattern, at)
            out.append(piece)
        else:
            out.append(re.escape(char))
    return "".join(out)


def _char_class(pattern: str, at: int) -> tuple[str, int]:
    """What follows a `[`: its expression, and where the pattern goes on."""
    start = at
    negated = pattern[at : at + 1] in {"^", "!"}
    at += negated
    items: list[str] = []
    while at < len(pattern) and (pattern[at] != "]" or not items):
        low, at = _char(pattern, at)
        high = low
        if pattern[at : at + 1] == "-" and pattern[at + 1 : at + 2] not in {"]", ""}:
            high, at = _char(pattern, at + 1)
        if low > high:
            raise InvalidError(f"the ignore pattern {pattern!r} has a range that runs backwards: {low}-{high}")
        items.append(f"{re.escape(low)}-{re.escape(high)}" if low != high else re.escape(low))
    if at >= len(pattern):
        raise InvalidError(
            f"the ignore pattern {pattern!r} has a [ without its ]",
            hint=f"For the sign itself write {pattern[: start - 1]}\\[",
        )
    return f"(?!/)[{'^' if negated else ''}{''.join(items)}]", at + 1


def _char(pattern: str, at: int) -> tuple[str, int]:
    if pattern[at] == "\\" and at + 1 < len(pattern):
        return pattern[at + 1], at + 2
    return pattern[at], at + 1


class FilePatternMatcher:
    """Says of a path whether patterns in the manner of .dockerignore match it: `*`, `?`, `[a-z]`, `**` and `!`.

    A folder that is matched takes everything below it along. The last pattern that matches decides.

    >>> matcher = FilePatternMatcher("*.log", "data/**", "!data/keep.csv")
    >>> [matcher(p) for p in ("a.log", "sub/a.log", "data/x/y.csv", "data/keep.csv")]
    [True, False, True, False]
    >>> (~matcher)("a.log")
    False
    """

    __slots__ = ("_file", "_inverted", "_patterns")

    def __init__(self, *patterns: str) -> None:
        for pattern in patterns:
            if not isinstance(pattern, str):
                raise InvalidError(f"an ignore pattern must be a string, not {type(pattern).__name__}")
        self._patterns: tuple[str, ...] = PatternSet(patterns).patterns
        self._file: Path | None = None
        self._inverted = False

    @classmethod
    def from_file(cls, file_path: str | Path) -> FilePatternMatcher:
        """The patterns of a file, one a line. The file is read when they are first needed.

        >>> FilePatternMatcher.from_file(".dockerignore")
        FilePatternMatcher.from_file('.dockerignore')
        """
        matcher = cls()
        matcher._file = Path(file_path)
        return matcher

    @property
    def patterns(self) -> tuple[str, ...]:
        """The patterns as plain text, a file's and an inversion worked in."""
        if self._file is not None:
            try:
                own = parse(self._file.read_text(encoding="utf-8"))
            except (OSError, UnicodeDecodeError) as error:
                raise InvalidError(f"the ignore file {self._file} can't be read: {error}") from error
        else:
            own = self._patterns
        return inverted(own) if self._inverted else own

    def __call__(self, path: str | Path) -> bool:
        return pattern_set(self.patterns).matches(Path(path).as_posix())

    def __invert__(self) -> FilePatternMatcher:
        other = FilePatternMatcher(*self._patterns)
        other._file, other._inverted = self._file, not self._inverted
        return other

    def __repr__(self) -> str:
        name = type(self).__name__
        text = (
            f"{name}.from_file({str(self._file)!r})"
            if self._file
            else f"{name}({', '.join(map(repr, self._patterns))})"
        )
        return f"~{text}" if self._inverted else text


NON_PYTHON_FILES = ~FilePatternMatcher("**/*.py")

# What never belongs to a package of source code, whatever else is said.
NEVER_SOURCE = ("**/__pycache__", "**/*.pyc", "**/.*/**")
