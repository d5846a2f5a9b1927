"""The log of a build step: on disk whole, its end in memory, secrets masked; and what the end of one shows."""

from __future__ import annotations

import re
import secrets
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import IO

from .worker.logs import Line, Splitter

TAIL = 40  # lines of a failed step's log that the error shows
DISK_FULL = re.compile(r"No space left on device|ENOSPC|os error 28|Disk quota exceeded")
NO_SUCH_PACKAGE = (
    re.compile(r"Because (\S+) was not found in the (?:package registry|provided package locations)"),
    re.compile(r"Because there (?:is|are) no versions? of (\S+?)(?:\s|,|$)"),
    re.compile(r"Because only (\S+) (?:is|are) available"),
    re.compile(r"No matching distribution found for (\S+)"),
    re.compile(r"E: Unable to locate package (\S+)"),  # the last one: apt's
)
NO_NETWORK = re.compile(
    r"Failed to fetch|dns error|Temporary failure in name resolution|Temporary failure resolving|Could not resolve"
    r"|Network is unreachable|Connection refused"
)

OnLine = Callable[[str], None]


class BuildLog:
    """The log of one build: on disk whole, its end in memory, each line to whoever listens. Secrets are masked."""

    def __init__(self, path: Path, listeners: list[OnLine], hidden: tuple[str, ...], title: str) -> None:
        self.path = path
        self._listeners = listeners
        self._splitter = Splitter(secrets.token_hex(8), hidden)
        self._tail: deque[str] = deque(maxlen=TAIL)
        self._title = title
        self._file: IO[str] | None = None

    def __enter__(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self.path.open("w", encoding="utf-8", errors="replace")
        self._write(f"# {self._title}")

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self._lines(self._splitter.finish())
        if self._file is not None:
            file, self._file = self._file, None
            try:
                file.close()
            except OSError:
                pass  # a full disk: the step itself says so

    def take(self, stream: int, data: bytes) -> None:
        """Output as it comes, called on the loop."""
        self._lines(self._splitter.feed(stream, data))

    def command(self, argv: tuple[str, ...]) -> None:
        for line in self._splitter.feed(1, f"$ {' '.join(argv)}\n".encode()):
            self._write(line.text)

    def tail(self) -> str:
        self._lines(self._splitter.finish())
        return "\n".join(self._tail)

    def _lines(self, lines: list[Line]) -> None:
        if lines:
            self._write("\n".join(line.text for line in lines))
        for line in lines:
            self._tail.append(line.text)
            for listener in tuple(self._listeners):
                listener(line.text)

    def _write(self, text: str) -> None:
        if self._file is not None:
            try:
                print(text, file=self._file, flush=True)
            except OSError:
                pass  # a full disk: the step itself says so


def explain(log: str) -> tuple[str, str]:
    """What is wrong and what to do, where the end of a log says so; ("", "") where it doesn't.

    >>> explain("x Because nosuch was not found in the package registry and you require nosuch, ...")[0]
    'there is no package nosuch'
    """
    if DISK_FULL.search(log):
        return "the disk is full", "Free some space, or put the home on a larger disk: SLIPWAY_HOME."
    for pattern in NO_SUCH_PACKAGE:
        found = pattern.search(log)
        if found:
            name = re.split(r"[<>=!~;\[(]", found[1].strip("`'\".,"))[0]
            if NO_NETWORK.search(log):
                return f"package {name} could not be looked up: no network", "Check the network, or the proxy settings."
            tool = "apt" if pattern is NO_SUCH_PACKAGE[-1] else "pip"
            return f"there is no package {name}" + _version_of(log, name), (
                f"Check the spelling and the version; packages come from where {tool} on this host gets them."
            )
    if NO_NETWORK.search(log):
        return "a download failed", "Check the network, or the proxy settings."
    return "", ""


def _version_of(log: str, name: str) -> str:
    """ "of that version", where the package is there in another."""
    wrong = rf"no versions? of {re.escape(name)}|Because only {re.escape(name)}"
    return " of that version" if re.search(wrong, log) else ""
