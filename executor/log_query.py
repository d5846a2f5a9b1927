"""Lines of logs, how they are written down, and which of them somebody wants to see.

Nothing here waits, sleeps, opens or spawns.
"""

from __future__ import annotations

import json
from functools import cached_property
from typing import Any

from attrs import frozen

SYSTEM = "system"
STREAMS = ("stdout", "stderr", SYSTEM)


@frozen(kw_only=True)
class LogLine:
    """A line of an app's log: what a worker printed, or (stream "system") what the engine has to say of the worker.

    `input` and `call` name the input whose code printed it and the function call that this is part of; both are "" for
    what was printed outside of any.
    """

    at_ms: int
    app: str  # its name
    run: str  # the id of the ephemeral app, or again the name
    function: str  # of a class: with the method where an input printed it, "Model.embed"
    worker: str
    call: str = ""
    input: str = ""
    stream: str
    text: str


FIELDS = ("at_ms", "app", "run", "function", "worker", "call", "input", "stream", "text")


def plain(line: LogLine) -> dict[str, Any]:
    """A line as it goes over the wire and into the file."""
    return {name: getattr(line, name) for name in FIELDS}


def encode(line: LogLine) -> bytes:
    r"""
    >>> line = LogLine(at_ms=1, app="a", run="a", function="f", worker="w1-2", stream="stdout", text="so\nit is")
    >>> decode(encode(line)) == line, encode(line).count(b"\n")
    (True, 1)
    """
    return json.dumps(plain(line), ensure_ascii=False, separators=(",", ":")).encode(errors="replace") + b"\n"


def decode(data: bytes) -> LogLine | None:
    """The line that was written down so; None for half a line, which is what a crash may leave."""
    try:
        said = json.loads(data)
        return LogLine(**{name: said[name] for name in FIELDS})
    except (ValueError, TypeError, KeyError):
        return None


def _said(name: str, value: str) -> bytes:
    """How a file has a field of this value, but for the closing quote."""
    return f'"{name}":{json.dumps(value, ensure_ascii=False)[:-1]}'.encode(errors="replace")


@frozen(kw_only=True, slots=False)
class Query:
    """Which lines are wanted; what is "" or None is not asked for. `tail`: the last so many of them.

    `call` is the id of a function call or of an input. `function` of a class may name a method too.
    """

    tail: int | None = None
    since_ms: int | None = None
    until_ms: int | None = None
    run: str = ""
    function: str = ""
    call: str = ""
    worker: str = ""
    stream: str = ""
    search: str = ""

    def wants(self, line: LogLine) -> bool:
        """
        >>> line = LogLine(at_ms=5, app="a", run="a", function="Model.embed", worker="w1-2", stream="stdout", text="hi")
        >>> Query(function="Model", since_ms=5).wants(line), Query(function="Mod").wants(line)
        (True, False)
        """
        return (
            (self.since_ms is None or line.at_ms >= self.since_ms)
            and (self.until_ms is None or line.at_ms <= self.until_ms)
            and (not self.run or line.run == self.run)
            and (not self.function or line.function == self.function or line.function.startswith(f"{self.function}."))
            and (not self.call or self.call in (line.call, line.input))
            and (not self.worker or line.worker == self.worker)
            and (not self.stream or line.stream == self.stream)
            and self.search in line.text
        )

    @cached_property
    def needles(self) -> tuple[bytes, ...]:
        """What every line that is wanted has in it as it was written down: a quick look before it is read."""
        fields = ("run", "function", "worker", "stream")
        found = [_said(name, value) for name in fields if (value := getattr(self, name))]
        if self.call:
            found.append(_said("input" if self.call.startswith("in-") else "call", self.call))
        if self.search:
            found.append(json.dumps(self.search, ensure_ascii=False)[1:-1].encode(errors="replace"))
        return tuple(found)
