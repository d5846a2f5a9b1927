"""What an app that runs says: its workers' lines, followed on a thread, and plain words for a program's terminal."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from typing import Any

from slipway.dsl.errors import Error

from .connection import Connection

OnEvent = Callable[[dict[str, Any]], None]
WORDS = {"running": "building", "done": "built", "failed": "failed", "skipped": "skipped"}


class Follower:
    """Hands over an app's lines as they come, on a thread of its own; the engine ends it when the app ends."""

    def __init__(self, link: Connection, app: str, on_line: OnEvent) -> None:
        self._link = link
        self._app = app
        self._on_line = on_line
        self._thread = threading.Thread(target=self._follow, name="slipway-logs", daemon=True)
        self._thread.start()

    def _follow(self) -> None:
        try:
            self._link.request("app.logs", {"app": self._app, "tail": 0, "follow": True}, on_event=self._on_line)
        except Error:
            return  # the app or the connection ended: whoever runs it hears of that

    def finish(self) -> None:
        """Return when the last line is out. The app has ended, so the engine says so to the thread."""
        self._thread.join(timeout=5)


def print_line(line: dict[str, Any]) -> None:
    """A worker's line, where the worker printed it: to stdout or to stderr."""
    stream = sys.stdout if line["stream"] == "stdout" else sys.stderr
    stream.write(f"{line['function']} | {line['text']}\n")


def print_event(event: dict[str, Any]) -> None:
    """How far a build is, to stderr."""
    if event["event"] == "node" and event.get("title"):
        sys.stderr.write(f"{WORDS[event['state']]:<9} {event['title']}\n")
