"""A worker's output as lines, each with the call that printed it. Nothing here waits, sleeps, opens or spawns.

The worker writes a mark into its own output wherever the call that prints changes: `\\x1e<token>:<call id>\\n`, with an
empty id when the call has ended. The token is random, so nothing that a user prints is mistaken for a mark.
"""

from __future__ import annotations

import json
import re
from typing import NamedTuple
from urllib.parse import quote

MAX_LINE = 64 * 1024
MIN_SECRET = 4  # shorter values would blot out half of every log
MASK = b"***"
FROM_ENGINE = 3  # in the place of a stream's number: what is said is the engine's


def _ways_to_say(value: str) -> set[bytes]:
    """A value as it is, and as Python, JSON and a URL write it: what is printed is often a whole environment."""
    ways = (value, repr(value)[1:-1], json.dumps(value)[1:-1], quote(value, safe="", errors="surrogateescape"))
    return {way.encode(errors="surrogateescape") for way in ways}


class Line(NamedTuple):
    """`stream` is 1, 2 or `FROM_ENGINE`; `call` is None for what was printed outside of any call."""

    stream: int
    call: int | None
    text: str


def masked(text: str, secrets: tuple[str, ...]) -> str:
    """A text that did not come through the streams, with secret values masked.

    >>> masked("ValueError: bad key hunter22", ("hunter22",))
    'ValueError: bad key ***'
    """
    return Splitter("", secrets).mask(text)


class Splitter:
    r"""Bytes of both streams in, finished lines out, with secret values masked and endless lines cut.

    >>> from .frames import mark
    >>> splitter = Splitter("t0ken", secrets=("hunter2",))
    >>> splitter.feed(1, b"starting\n" + mark("t0ken", 7) + b"password hunter2\nhal")
    [Line(stream=1, call=None, text='starting'), Line(stream=1, call=7, text='password ***')]
    >>> splitter.feed(1, b"f\n" + mark("t0ken", None))
    [Line(stream=1, call=7, text='half')]
    """

    def __init__(self, token: str, secrets: tuple[str, ...] = (), max_line: int = MAX_LINE) -> None:
        self._mark = re.compile(b"\x1e" + re.escape(token.encode()) + b":([0-9]*)\n")
        self._start = b"\x1e" + token.encode() + b":"
        parts = {said for value in secrets for part in value.splitlines() for said in _ways_to_say(part.strip())}
        values = sorted((part for part in parts if len(part) >= MIN_SECRET), key=len, reverse=True)
        self._secret = re.compile(b"|".join(re.escape(value) for value in values)) if values else None
        self._longest = max((len(value) for value in values), default=0)
        self._max_line = max(max_line, 2 * self._longest + 1)
        self._rest: dict[int, bytes] = {1: b"", 2: b""}
        self._call: dict[int, int | None] = {1: None, 2: None}

    def mask(self, text: str) -> str:
        """A text of another way than through the streams, with secret values masked."""
        data = text.encode(errors="replace")
        return (self._secret.sub(MASK, data) if self._secret else data).decode()

    def feed(self, stream: int, data: bytes) -> list[Line]:
        """Take what came on a stream; return the lines that are now whole."""
        lines: list[Line] = []
        data = self._rest[stream] + data
        if self._start in data:
            at = 0
            for found in self._mark.finditer(data):
                data_before = data[at : found.start()]
                rest = self._split(stream, data_before, lines)
                if rest:  # the call ended, or another began, in the middle of a line
                    lines.append(self._line(stream, rest))
                self._call[stream] = int(found[1]) if found[1] else None
                at = found.end()
            data = data[at:]
        self._rest[stream] = self._cut(stream, self._split(stream, data, lines), lines)
        return lines

    def finish(self) -> list[Line]:
        """The unfinished lines, once no more will come."""
        lines = [self._line(stream, rest) for stream, rest in self._rest.items() if rest]
        self._rest = {1: b"", 2: b""}
        return lines

    def _split(self, stream: int, data: bytes, lines: list[Line]) -> bytes:
        *whole, rest = data.split(b"\n")
        lines += [self._line(stream, text) for text in whole]
        return rest

    def _cut(self, stream: int, rest: bytes, lines: list[Line]) -> bytes:
        """Give out the front of a line that has grown too long, never in the middle of a secret or of a mark."""
        while len(rest) > self._max_line:
            end = self._max_line
            if self._secret:
                end -= self._longest - 1  # a secret may have begun and not be whole yet
                for found in self._secret.finditer(rest):
                    if found.start() < end < found.end():
                        end = found.end()
            begun = rest.rfind(b"\x1e", 0, end)
            if begun > 0 and self._start.startswith(rest[begun : begun + len(self._start)]):
                end = begun
            lines.append(self._line(stream, rest[:end]))
            rest = rest[end:]
        return rest

    def _line(self, stream: int, data: bytes) -> Line:
        if self._secret:
            data = self._secret.sub(MASK, data)
        return Line(stream, self._call[stream], data.removesuffix(b"\r").decode(errors="replace"))
