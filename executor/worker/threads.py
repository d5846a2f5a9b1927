"""Inputs of plain functions in threads, where several may be under way. Runs in the container."""

from __future__ import annotations

import threading
from queue import SimpleQueue
from typing import TYPE_CHECKING

from .plain import Carrier
from .server import Ended
from .stream import StreamClosed

if TYPE_CHECKING:
    from collections.abc import Callable

    from .server import Job, Server


class Threads:
    """As many threads as there have been jobs at a time. `broken` hears in one of them what ends the worker; `done`
    that a job has been answered."""

    def __init__(
        self, server: Server, broken: Callable[[BaseException], object], done: Callable[[], object] | None = None
    ) -> None:
        self._carrier = Carrier(server)
        self._broken = broken
        self._done = done
        self._jobs: SimpleQueue[Job] = SimpleQueue()
        self._free = threading.Semaphore(0)  # threads that wait for a job

    def put(self, job: Job) -> None:
        if not self._free.acquire(blocking=False):
            threading.Thread(target=self._work, name="slipway-input", daemon=True).start()
        self._jobs.put(job)

    def _work(self) -> None:
        while True:
            job = self._jobs.get()
            try:
                self._carrier.run(job)
            except (StreamClosed, Ended) as end:
                self._broken(end)
                return
            finally:
                del job
            if self._done is not None:
                self._done()
            self._free.release()
