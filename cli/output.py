"""What goes to the screen: pieces of text in named styles, coloured on a terminal and plain elsewhere."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TextIO

# A line is pieces, a piece is text or (text, style).
Piece = str | tuple[str, str]
Line = tuple[Piece, ...]

OUTPUT = "output"  # the style of what the user's own program printed: it brings its colours along
STYLES: dict[str, dict[str, Any]] = {
    "dim": {"dim": True},
    "bold": {"bold": True},
    "add": {"fg": "green"},
    "update": {"fg": "yellow"},
    "replace": {"fg": "magenta"},
    "remove": {"fg": "red"},
    "keep": {"dim": True},
    "error": {"fg": "red", "bold": True},
    "warning": {"fg": "yellow", "bold": True},
    "note": {"fg": "cyan"},
    "good": {"fg": "green", "bold": True},
}
WORKER_STYLES = tuple(f"worker{number}" for number in range(6))
STYLES |= {
    style: {"fg": colour}
    for style, colour in zip(WORKER_STYLES, ("cyan", "magenta", "blue", "green", "yellow", "bright_cyan"), strict=True)
}


def is_terminal(stream: TextIO) -> bool:
    """Whether a person watches: a terminal that can move its cursor."""
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def has_colour(stream: TextIO) -> bool:
    """NO_COLOR turns colour off, FORCE_COLOR on; else a terminal has it."""
    if os.environ.get("NO_COLOR"):
        return False
    return bool(os.environ.get("FORCE_COLOR")) or is_terminal(stream)


# What moves the cursor, renames the window or worse. The end of a line and a tab do not.
_CONTROL = {code: f"\\x{code:02x}" for code in (*range(32), *range(0x7F, 0xA0)) if chr(code) not in "\t\n"}
_COLOUR = re.compile(r"(\x1b\[[0-9;:]*m|\r)")  # what programs print colours and bars with


def harmless(text: str, *, colours: bool = False) -> str:
    r"""A text that came from elsewhere, its control characters written out; those of colours stay where they may.

    >>> harmless("\x1b[2Jname\x1b[1m")
    '\\x1b[2Jname\\x1b[1m'
    >>> harmless("\x1b[2Jname\x1b[1m", colours=True)
    '\\x1b[2Jname\x1b[1m'
    """
    if not colours:
        return text.translate(_CONTROL)
    parts = _COLOUR.split(text)  # every second one is a separator
    return "".join(part if at % 2 else part.translate(_CONTROL) for at, part in enumerate(parts))


def paint(line: Line, *, colour: bool) -> str:
    """
    >>> paint(("a ", ("b", "add")), colour=False)
    'a b'
    >>> paint((("b", "add"),), colour=True)
    '\\x1b[32mb\\x1b[0m'
    """
    return "".join(_painted(piece, colour) for piece in line).rstrip()


def _painted(piece: Piece, colour: bool) -> str:
    if isinstance(piece, str):
        return harmless(piece)
    text, style = piece
    if style == OUTPUT:
        return harmless(text, colours=True)
    if not colour:
        return harmless(text)
    import click

    return click.style(harmless(text), **STYLES[style])


def show(lines: Iterable[Line], *, err: bool = False) -> None:
    """Print lines to stdout, or to stderr."""
    stream = sys.stderr if err else sys.stdout
    colour = has_colour(stream)
    text = "\n".join(paint(line, colour=colour) for line in lines)
    stream.write(text + "\n")
    stream.flush()


def say(text: str, style: str | None = None, *, err: bool = False) -> None:
    """Print one line."""
    show([(text if style is None else (text, style),)], err=err)


def table(head: Sequence[str], rows: Sequence[Sequence[Piece]]) -> list[Line]:
    """Rows in columns under a head.

    >>> for line in table(("A", "LONG"), [("x", "1"), ("yyy", ("22", "add"))]):
    ...     print(paint(line, colour=False))
    A    LONG
    x    1
    yyy  22
    """
    lined = [[(cell, "") if isinstance(cell, str) else cell for cell in row] for row in rows]
    lined.insert(0, [(cell, "bold") for cell in head])
    widths = [max(len(row[column][0]) for row in lined) for column in range(len(head))]
    return [
        tuple(
            piece
            for (text, style), size in zip(row, widths, strict=True)
            for piece in ((text, style) if style else text, " " * (size + 2 - len(text)))
        )
        for row in lined
    ]


def width() -> int | None:
    """How many columns there are; None where nobody watches and nothing needs to be wrapped."""
    if os.environ.get("COLUMNS", "").isdigit() or is_terminal(sys.stdout):
        import shutil  # it brings every kind of archive along

        return shutil.get_terminal_size().columns
    return None


def nearby(path: str) -> str:
    """A path as the user would write it: relative where it lies below the folder they stand in.

    >>> nearby(str(Path.cwd() / "app.py"))
    'app.py'
    """
    try:
        return str(Path(path).relative_to(Path.cwd()))
    except (ValueError, OSError):
        return path


def duration(ms: int) -> str:
    """
    >>> [duration(ms) for ms in (4, 999, 1400, 14_200, 75_000, 3_700_000)]
    ['< 1 s', '< 1 s', '1.4 s', '14 s', '1 min 15 s', '1 h 1 min']
    """
    seconds = ms / 1000
    if seconds < 1:
        return "< 1 s"
    if seconds < 10:
        return f"{seconds:.1f} s".replace(".0 s", " s")
    minutes, rest = divmod(round(seconds), 60)
    if not minutes:
        return f"{rest} s"
    hours, minutes_left = divmod(minutes, 60)
    return f"{hours} h {minutes_left} min" if hours else f"{minutes} min {rest} s"


def count(number: int, one: str, many: str | None = None) -> str:
    """
    >>> count(1, "layer"), count(2, "layer"), count(2, "entry", "entries")
    ('1 layer', '2 layers', '2 entries')
    """
    return f"{number} {one if number == 1 else many or one + 's'}"
