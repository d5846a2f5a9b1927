"""Bars on a terminal, on a real one: the program runs behind a pseudo-terminal."""

from __future__ import annotations

import os
import pty
import subprocess
import sys

PROGRAM = """
from slipway.cli.screen import Screen

with Screen() as screen:
    screen.on_event({"event": "node", "address": "a", "title": "pip_install x", "state": "running"})
    screen.on_event({"event": "log", "address": "a", "text": "Collecting x"})
    print("printed meanwhile")
    screen.on_event({"event": "node", "address": "a", "title": "pip_install x", "state": "done", "ms": 2000})
    screen.begin("map 1", "extract")
    screen.advance("map 1", done=3, total=4, note="3 of 4")
    screen.end("map 1")
print("and after")
"""


def on_a_terminal(**env: str) -> str:
    """What a terminal of 80 columns is sent."""
    parent, child = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "80", **env}
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM], stdin=child, stdout=child, stderr=child, env=environment
    )
    os.close(child)
    sent = b""
    while True:
        try:
            piece = os.read(parent, 65536)
        except OSError:  # how Linux says that nobody writes any more
            break
        if not piece:
            break
        sent += piece
    os.close(parent)
    assert process.wait() == 0
    return sent.decode()


def test_bars_come_and_go() -> None:
    sent = on_a_terminal(NO_COLOR="")
    assert "\x1b[?25l" in sent and sent.rindex("\x1b[?25h") > sent.rindex("\x1b[?25l")  # the cursor is given back
    assert "printed meanwhile" in sent and "built" in sent and "extract" in sent
    assert sent.rstrip().endswith("and after")


def test_no_color_keeps_the_bars() -> None:
    sent = on_a_terminal(NO_COLOR="1")
    assert "\x1b[32m" not in sent and "━" in sent


def test_a_dumb_terminal_gets_plain_lines() -> None:
    sent = on_a_terminal(TERM="dumb")
    assert "\x1b" not in sent
    assert sent.replace("\r", "").splitlines() == [
        "building  pip_install x",
        "printed meanwhile",
        "built     pip_install x  2 s",
        "and after",
    ]
