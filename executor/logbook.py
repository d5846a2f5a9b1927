"""What workers print: one JSON line each, per app, on disk, and to whoever follows."""

from __future__ import annotations

import json
import queue
import threading
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path

from attrs import asdict, frozen

MAX_BYTES = 16 * 1024 * 1024  # of one app's file; the one before is kept too


@frozen(kw_only=True)
class LogLine:
    """One line of a worker's output. `call` is "" for what was printed outside of any call."""

    at_ms: int
    app: str  # its name
    run: str  # the id of the ephemeral app, or again the name
    function: str
    worker: str
    call: str
    stream: str  # "stdout" | "stderr" | "system"
    text: str


Follower = Callable[[LogLine], None]


class LogBook:
    """Files under one folder, written by a thread of its own so that a slow disk never holds up a call.

    The owner calls `close`, which writes out what is left.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._queue: queue.SimpleQueue[LogLine | threading.Event | None] = queue.SimpleQueue()
        self._followers: dict[str, set[Follower]] = {}
        self._thread = threading.Thread(target=self._write_all, name="logbook", daemon=True)
        self._thread.start()

    def append(self, line: LogLine) -> None:
        """Take a line: followers hear it now, the file has it soon."""
        self._queue.put(line)
        for key in {line.app, line.run}:
            for follower in tuple(self._followers.get(key, ())):
                follower(line)

    def follow(self, app: str, follower: Follower) -> Callable[[], None]:
        """Call `follower` for every line of an app, by name or id, from now on; returns what ends it."""
        self._followers.setdefault(app, set()).add(follower)

        def end() -> None:
            self._followers.get(app, set()).discard(follower)

        return end

    def tail(self, app: str, count: int) -> list[LogLine]:
        """The last lines of an app, oldest first. Blocks until what was appended before is on disk."""
        self._sync()
        lines: deque[str] = deque(maxlen=count)
        path = self._path(app)
        for part in (path.with_suffix(".1.jsonl"), path):
            lines.extend(_whole_lines(part))
        return [LogLine(**json.loads(line)) for line in lines]

    def tail_of(self, worker: str, count: int) -> list[LogLine]:
        """The last lines of a worker, whether it is there or has ended. Blocks; it reads the files of all apps."""
        self._sync()
        lines: deque[str] = deque(maxlen=count)
        said = f'"worker": {json.dumps(worker)},'  # as it is nowhere in a text, whose quotes are escaped
        for path in sorted(self._folder.glob("*.jsonl")):  # NAME.1.jsonl, which is older, comes before NAME.jsonl
            lines.extend(line for line in _whole_lines(path) if said in line)
        return [LogLine(**json.loads(line)) for line in lines]

    def _sync(self) -> None:
        written = threading.Event()
        self._queue.put(written)
        written.wait()

    def close(self) -> None:
        self._queue.put(None)
        self._thread.join()

    def _path(self, app: str) -> Path:
        return self._folder / f"{app}.jsonl"

    def _write_all(self) -> None:
        while True:
            batch = [self._queue.get()]
            while not self._queue.empty():
                batch.append(self._queue.get())
            lines: dict[str, list[str]] = {}
            for item in batch:
                if isinstance(item, LogLine):
                    lines.setdefault(item.app, []).append(json.dumps(asdict(item)) + "\n")
            for app, texts in lines.items():
                self._write(self._path(app), "".join(texts))
            for item in batch:
                if isinstance(item, threading.Event):
                    item.set()
            if None in batch:
                return

    @staticmethod
    def _write(path: Path, text: str) -> None:
        try:
            with path.open("a") as file:
                file.write(text)
                full = file.tell() > MAX_BYTES
            if full:
                path.replace(path.with_suffix(".1.jsonl"))
        except OSError:
            return  # a full disk must not end the engine; the followers have heard the lines


def _whole_lines(path: Path) -> Iterator[str]:
    if path.exists():
        with path.open() as file:
            yield from (line for line in file if line.endswith("\n"))
