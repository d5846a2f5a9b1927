"""The logs of a home's apps: written by a thread of its own, read back, and told to whoever follows."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from pathlib import Path

from attrs import evolve

from .config import Config
from .inputs import Input, call_id, input_id
from .log_files import LogFiles, LogLimits, Place
from .log_query import STREAMS, SYSTEM, LogLine, Query, encode
from .pool import PoolSpec
from .worker.frames import Outcome
from .worker.logs import FROM_ENGINE, Line

MOST_WAITING = 200_000  # lines that a slow disk keeps waiting; beyond it they are left out, and it is said

Follower = Callable[[LogLine], None]
LIMITS = LogLimits(total=1 << 30, app=64 << 20)


def log_limits(config: Config) -> LogLimits:
    """As they are set."""
    return LogLimits(total=config.logs.budget_mib << 20, app=config.logs.app_mib << 20)


def line_of(spec: PoolSpec, app: str, worker: str, line: Line, given: Input | None, now_ms: int) -> LogLine:
    """A line of a worker as it is written down; `given` is the input whose code printed it."""
    number, methods = line.call, spec.worker.function.methods
    return LogLine(
        at_ms=now_ms,
        app=app,
        run=spec.app,
        function=f"{spec.function}.{methods[given.method][0]}" if given is not None and methods else spec.function,
        worker=worker,
        # An input that is over belonged, as most do, to a call that has its number.
        call="" if number is None else call_id(number if given is None else given.call),
        input="" if number is None else input_id(number),
        stream=STREAMS[line.stream - 1],
        text=line.text,
    )


def again(given: Input, outcome: Outcome, reason: str) -> Line:
    """What there is to say of an attempt that is over where another one follows."""
    words = Outcome(outcome).name.lower().replace("_", " ")
    head = reason.partition("\n")[0].rstrip(":;")
    text = f"attempt {given.attempts} {words}{f': {head}' if head else ''}; another follows"
    return Line(FROM_ENGINE, given.number, text)


class Mark:
    """A point in an app's log: what was appended before it is on disk once it is set."""

    def __init__(self, app: str) -> None:
        self.app = app
        self.place: Place | None = None
        self.is_set = threading.Event()


class LogBook:
    """`append`, `follow` and `mark` are for one thread, that of the engine's loop. The owner calls `close`, which
    writes out what is left."""

    def __init__(self, root: Path, limits: Callable[[], LogLimits] = lambda: LIMITS) -> None:
        self._files = LogFiles(root, limits)
        self._queue: queue.SimpleQueue[LogLine | Mark | None] = queue.SimpleQueue()
        self._left_out: dict[str, int] = {}
        self._followers: dict[str, set[Follower]] = {}
        self._thread = threading.Thread(target=self._write_all, name="logbook", daemon=True)
        self._thread.start()

    # --- writing --------------------------------------------------------------------------------------

    def append(self, line: LogLine) -> None:
        """Take a line: followers hear it now, the file has it soon."""
        if self._queue.qsize() > MOST_WAITING:
            self._left_out[line.app] = self._left_out.get(line.app, 0) + 1
        else:
            if self._left_out and (missing := self._left_out.pop(line.app, 0)):
                note = f"{missing} lines left out: the disk could not take them so fast"
                self._queue.put(evolve(line, stream=SYSTEM, call="", input="", text=note))
            self._queue.put(line)
        for key in {line.app, line.run}:
            for follower in tuple(self._followers.get(key, ())):
                follower(line)

    def close(self) -> None:
        self._queue.put(None)
        self._thread.join()

    def _write_all(self) -> None:
        self._do(self._files.trim)
        while True:
            batch = [self._queue.get()]
            while not self._queue.empty():
                batch.append(self._queue.get())
            lines: dict[str, list[bytes]] = {}
            for item in batch:
                if isinstance(item, LogLine):
                    lines.setdefault(item.app, []).append(encode(item))
                    continue
                self._flush(lines)
                lines = {}
                if item is None:
                    return
                if item.app:
                    item.place = self._files.end(item.app)
                item.is_set.set()
            self._flush(lines)

    def _flush(self, lines: dict[str, list[bytes]]) -> None:
        for app, encoded in lines.items():
            self._do(lambda app=app, encoded=encoded: self._files.write(app, encoded))  # type: ignore[misc]

    @staticmethod
    def _do(work: Callable[[], None]) -> None:
        try:
            work()
        except OSError:
            return  # a full disk must not end the engine; the followers have heard the lines

    # --- reading --------------------------------------------------------------------------------------

    def follow(self, app: str, follower: Follower) -> Callable[[], None]:
        """Call `follower` for every line of an app, by name or id, from now on; returns what ends it."""
        self._followers.setdefault(app, set()).add(follower)

        def end() -> None:
            followers = self._followers.get(app, set())
            followers.discard(follower)
            if not followers:
                self._followers.pop(app, None)

        return end

    def mark(self, app: str = "") -> Mark:
        """This point in an app's log: `read` up to it and `follow` from it on give every line once."""
        mark = Mark(app)
        self._queue.put(mark)
        return mark

    def apps(self) -> list[str]:
        """The apps that have said something."""
        return self._files.apps()

    def read(self, query: Query, mark: Mark) -> list[LogLine]:
        """The lines before a mark that are wanted, oldest first. Blocks; for a thread.

        A mark of no app is for what is in one app only, without anybody knowing which: a worker, a call, a run.
        """
        mark.is_set.wait()
        if mark.app:
            return self._files.read(mark.app, query, mark.place)
        return next((found for app in self._files.apps() if (found := self._files.read(app, query))), [])
