"""Nothing that a file, a name or a build says reaches the terminal as a command to it."""

from __future__ import annotations

from slipway.cli.failure import build_failure, fault_lines
from slipway.cli.output import OUTPUT, paint
from slipway.dsl.declaration import Fault

CLEAR = "\x1b[2J\x1b]0;title\x07\x9b2J\x00"


def test_control_characters_are_written_out() -> None:
    fault = Fault(severity="error", address=f"app {CLEAR}", summary=CLEAR, found=CLEAR, hint=CLEAR)
    lines = [*fault_lines([fault]), *build_failure(CLEAR, CLEAR, CLEAR), ((CLEAR, OUTPUT),), (CLEAR,)]
    for line in lines:
        painted = paint(line, colour=False)
        assert not {"\x1b", "\x07", "\x9b", "\x00"}.intersection(painted)
    assert paint((CLEAR,), colour=False) == r"\x1b[2J\x1b]0;title\x07\x9b2J\x00"


def test_a_program_keeps_its_colours_and_bars() -> None:
    text = "\x1b[31mred\x1b[0m\r50 %\t"
    assert paint(((text + "!", OUTPUT),), colour=False) == text + "!"
