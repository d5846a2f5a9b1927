"""Which node of a graph may start next. Nothing here waits, sleeps, opens or spawns.

Events go in (`begin`, `done`, `failed`, `stop`), the names of what may start now come out; who asks starts them. Every
node ends done, failed or skipped: what needs something that failed is skipped, everything else goes on.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from enum import Enum

from attrs import frozen

from slipway.dsl.errors import InternalError


@frozen(kw_only=True)
class Task:
    """Something to do after all of `needs`."""

    name: str
    needs: tuple[str, ...] = ()


class Status(Enum):
    WAITING = "waiting"
    READY = "ready"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    SKIPPED = "skipped"


class Solver:
    """At most `width` run at a time; of those that could start, the one that stands first in `tasks` does.

    >>> solver = Solver((Task(name="a"), Task(name="b", needs=("a",)), Task(name="c")), width=4)
    >>> solver.begin(), solver.done("c"), solver.failed("a"), solver.finished
    (('a', 'c'), (), (), True)
    >>> solver.skipped
    {'b': 'a'}
    """

    def __init__(self, tasks: Iterable[Task], *, width: int) -> None:
        self._tasks = {task.name: task for task in tasks}
        self._place = {name: place for place, name in enumerate(self._tasks)}
        self._width = max(1, width)
        self._status = dict.fromkeys(self._tasks, Status.WAITING)
        self._waits_for = {name: set(task.needs) for name, task in self._tasks.items()}
        self._needed_by: dict[str, list[str]] = {name: [] for name in self._tasks}
        for task in self._tasks.values():
            for need in self._waits_for[task.name]:
                if need not in self._tasks:
                    raise InternalError(f"{task.name} needs {need}, which is not in the graph")
                self._needed_by[need].append(task.name)
        self._ready: list[int] = []
        self._names = tuple(self._tasks)
        self._running = 0
        self._open = len(self._tasks)
        self.skipped: dict[str, str] = {}  # name: the failed node that it needed, "" where all was stopped
        self._refuse_cycles()

    def begin(self) -> tuple[str, ...]:
        """What may start first."""
        for name, waits_for in self._waits_for.items():
            if not waits_for:
                self._make_ready(name)
        return self._start()

    def done(self, name: str) -> tuple[str, ...]:
        """It has ended well."""
        self._end(name, Status.DONE)
        for follower in self._needed_by[name]:
            waits_for = self._waits_for[follower]
            waits_for.discard(name)
            if not waits_for and self._status[follower] is Status.WAITING:
                self._make_ready(follower)
        return self._start()

    def failed(self, name: str) -> tuple[str, ...]:
        """It has ended badly: what needs it, directly or not, will not start."""
        self._end(name, Status.FAILED)
        below = [name]
        while below:
            for follower in self._needed_by[below.pop()]:
                if self._status[follower] is Status.WAITING:
                    self._skip(follower, name)
                    below.append(follower)
        return self._start()

    def stop(self) -> None:
        """Start nothing more. What runs may still end either way."""
        self._ready.clear()
        for name, status in self._status.items():
            if status in (Status.WAITING, Status.READY):
                self._skip(name, "")

    @property
    def finished(self) -> bool:
        """Whether every node has ended one way or the other."""
        return self._open == 0

    def status(self, name: str) -> Status:
        return self._status[name]

    def names(self, status: Status) -> tuple[str, ...]:
        """The nodes of this status, in the order of the tasks."""
        return tuple(name for name, now in self._status.items() if now is status)

    # --- inside ---------------------------------------------------------------------------------------

    def _make_ready(self, name: str) -> None:
        self._status[name] = Status.READY
        heapq.heappush(self._ready, self._place[name])

    def _start(self) -> tuple[str, ...]:
        started = []
        while self._ready and self._running < self._width:
            name = self._names[heapq.heappop(self._ready)]
            self._status[name] = Status.RUNNING
            self._running += 1
            started.append(name)
        return tuple(started)

    def _end(self, name: str, status: Status) -> None:
        if self._status.get(name) is not Status.RUNNING:
            raise InternalError(f"{name} ended but is not running: {self._status.get(name)}")
        self._status[name] = status
        self._running -= 1
        self._open -= 1

    def _skip(self, name: str, because: str) -> None:
        self._status[name] = Status.SKIPPED
        self.skipped[name] = because
        self._open -= 1

    def _refuse_cycles(self) -> None:
        left = {name: len(waits_for) for name, waits_for in self._waits_for.items()}
        free = [name for name, count in left.items() if count == 0]
        for name in free:  # grows while it is walked
            for follower in self._needed_by[name]:
                left[follower] -= 1
                if left[follower] == 0:
                    free.append(follower)
        if len(free) != len(left):
            raise InternalError(f"these need each other in a circle: {sorted(set(left) - set(free))}")
