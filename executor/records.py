"""Hands on, in batches, what has become of the inputs that are over and that nobody has written down."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from .inputs import Input
from .ports import CallRow, Clock

RECORD_EVERY = 0.25  # seconds
RECORD_AT = 512  # inputs


class Records:
    """`on_records` gets them; the owner calls `flush` in the end."""

    def __init__(self, clock: Clock, on_records: Callable[[list[CallRow]], None]) -> None:
        self._clock = clock
        self._on_records = on_records
        self._loop = asyncio.get_running_loop()
        self._over: list[tuple[Input, int, str, float]] = []
        self._timer: asyncio.TimerHandle | None = None

    def add(self, given: Input, outcome: int, reason: str, now: float) -> None:
        over = self._over
        over.append((given, outcome, reason, now))
        if self._timer is None:
            self._timer = self._loop.call_later(RECORD_EVERY, self.flush)
        elif len(over) >= RECORD_AT:
            self.flush()

    def flush(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        over, self._over = self._over, []
        if not over:
            return
        offset = self._clock.now_ms() - self._loop.time() * 1000
        self._on_records(
            [
                CallRow(
                    number=given.number,
                    call=given.call,
                    place=given.index,
                    run=given.pool.spec.app,
                    app=given.pool.spec.worker.function.app,
                    function=given.pool.spec.function,
                    method=given.pool.method_name(given.method),
                    parent=given.parent,
                    worker=given.worker_name,
                    attempts=given.attempts,
                    losses=given.losses,
                    submitted_ms=int(offset + given.submitted * 1000),
                    started_ms=int(offset + given.started * 1000) if given.started else None,
                    finished_ms=int(offset + finished * 1000),
                    outcome=outcome,
                    reason=reason,
                )
                for given, outcome, reason, finished in over
            ]
        )
