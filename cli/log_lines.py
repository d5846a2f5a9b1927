"""Lines of logs on the screen: which ones, and what stands before each."""

from __future__ import annotations

import json
import re
import sys
import time
import zlib
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from .moments import Moment
from .output import OUTPUT, WORKER_STYLES, Line, Piece, is_terminal, show
from .source import json_option

if TYPE_CHECKING:
    from slipway.connection import Connection

F = TypeVar("F", bound=Callable[..., Any])

TAIL = 100  # lines of the past where neither their number nor a time is said
INTERRUPTED = 130

timestamps_option = click.option("--timestamps", is_flag=True, help="Show when each line was printed.")


def tail_options(until: str) -> Callable[[F], F]:
    """How much of the past, whether it goes on, and how it is shown; `until` says when it ends by itself."""

    def add(function: F) -> F:
        for option in reversed(
            (
                click.option(
                    "-n", "--tail", type=int, help=f"How many lines of the past. [{TAIL}; all with --since or --until]"
                ),
                click.option("-f", "--follow", is_flag=True, help=f"Go on with what comes, until {until}."),
                click.option("--since", type=Moment(), help="From then on: 10m, 2h, 1d ago, or 2026-11-23T10:00."),
                click.option("--until", type=Moment(), help="Up to then."),
                click.option("--search", metavar="TEXT", help="Only lines with this text."),
                click.option(
                    "--source", type=click.Choice(["stdout", "stderr", "system"]), help="system: what the engine says."
                ),
                timestamps_option,
                json_option,
            )
        ):
            function = option(function)
        return function

    return add


def wanted(
    *, tail: int | None, since: int | None, until: int | None, search: str | None, source: str | None, follow: bool
) -> dict[str, Any]:
    """The parameters of a request for lines that these options mean; what is not said is left out."""
    if tail is None and since is None and until is None:
        tail = TAIL
    said = {"tail": tail, "since_ms": since, "until_ms": until, "search": search, "stream": source}
    return {name: value for name, value in said.items() if value is not None} | ({"follow": True} if follow else {})


def print_lines(
    link: Connection, method: str, params: dict[str, Any], *, timestamps: bool, as_json: bool, alone: bool = False
) -> int:
    """Ask for lines and print them as they come; returns the exit code. `alone`: they are all one worker's."""
    prefixes = None if alone else Prefixes(full=None if is_terminal(sys.stdout) else True)

    def hear(event: dict[str, Any]) -> None:
        lines = event["lines"] if event["event"] == "lines" else [event]
        if as_json:
            click.echo("\n".join(json.dumps({k: v for k, v in line.items() if k != "event"}) for line in lines))
            return
        if prefixes is not None:
            prefixes.see(lines)
        show(_shown(line, prefixes, timestamps) for line in lines)

    try:
        link.request(method, params, on_event=hear)
    except KeyboardInterrupt:
        if not params.get("follow"):
            raise
        return INTERRUPTED  # that is how one ends it, so there is nothing to say
    return 0


def _shown(line: dict[str, Any], prefixes: Prefixes | None, timestamps: bool) -> Line:
    before = prefixes.of(line) if prefixes is not None else ()
    return (*((stamp(line.get("at_ms", 0)),) if timestamps else ()), *before, text_of(line))


def stamp(at_ms: int) -> Piece:
    return f"{time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(at_ms / 1000))}.{at_ms % 1000:03d} ", "dim"


def text_of(line: dict[str, Any]) -> Piece:
    """What was said, in its own colours; what the engine says in ours."""
    return line.get("text", ""), "note" if line.get("stream") == "system" else OUTPUT


class Prefixes:
    """What stands before a line: the function, and the worker once several have spoken; with `full` always both, so
    that the columns stay what they are where a program reads them; with `full` False never the worker.

    >>> prefixes = Prefixes()
    >>> lines = [{"function": "f", "worker": "w1-7"}, {"function": "f", "worker": "w2-7"}]
    >>> prefixes.of(lines[0]), prefixes.of(lines[1])
    ((('f | ', 'dim'),), (('f w2-7 | ', 'worker2'),))
    """

    def __init__(self, *, full: bool | None = None) -> None:
        self._full = full
        self._heard: set[str] = set()

    def see(self, lines: Iterable[dict[str, Any]]) -> None:
        """Lines that are going to be shown together, so that they are shown alike."""
        self._heard.update(line.get("worker", "") for line in lines)

    def of(self, line: dict[str, Any]) -> Line:
        self.see((line,))
        function, worker = line.get("function", ""), line.get("worker", "")
        several = len(self._heard) > 1
        named = several if self._full is None else self._full
        return (
            (f"{function} {worker} | " if named and worker else f"{function} | ", _style(worker) if several else "dim"),
        )


def _style(worker: str) -> str:
    """The same for a worker each time, another for the next one: w12-4711 is the twelfth."""
    number = re.match(r"w(\d+)-", worker)
    return WORKER_STYLES[(int(number[1]) if number else zlib.crc32(worker.encode())) % len(WORKER_STYLES)]
