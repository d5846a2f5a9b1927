"""A ledger with a real state and a real dispatcher, workers that do as they are told, and a clock that can be moved."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections import Counter
from collections.abc import Callable, Coroutine
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pytest
from attrs import evolve
from small_engine import pool_spec

from slipway.dsl.declaration import Retries
from slipway.dsl.errors import Error, NotFoundError
from slipway.executor.dispatch import Dispatcher
from slipway.executor.ears import Ears
from slipway.executor.feeder import QueueKey, Site
from slipway.executor.intake import Fresh
from slipway.executor.ledger import Ledger
from slipway.executor.pool import PoolSpec
from slipway.executor.ports import Exit
from slipway.executor.scaling import PoolLimits
from slipway.executor.store.payloads import PayloadFiles
from slipway.executor.store.seal import Seal
from slipway.executor.store.state import State
from slipway.executor.underway import UnderWay
from slipway.executor.worker import failure
from slipway.executor.worker.frames import Frame, Kind, Outcome
from slipway.executor.worker.host import Hooks, Place
from slipway.executor.worker.wire import NO_FD

T = TypeVar("T")
KEY = QueueKey(run="shop", app="shop", function="f")
RETRIES = Retries(max_retries=1, backoff_milli=1000, initial_delay_ms=1000, max_delay_ms=1000)
TIMEOUT = 100.0
CRASHED = Exit(code=None, signal=11)
KILLED = Exit(code=None, signal=9)


class MovedLoop(asyncio.SelectorEventLoop):
    """A loop whose time runs ahead as far as it is told to."""

    ahead = 0.0

    def time(self) -> float:
        return super().time() + self.ahead


class MovedClock:
    def __init__(self, loop: MovedLoop) -> None:
        self._loop = loop

    def now_ms(self) -> int:
        return 1_700_000_000_000 + round(self._loop.time() * 1000)

    def monotonic(self) -> float:
        return self._loop.time()


class FakeWorker:
    """Begins the first of what it holds, and ends it when it is told to."""

    def __init__(self, name: str, hooks: Hooks, on_begin: Callable[[Frame], None]) -> None:
        self.name = name
        self.held: list[Frame] = []
        self.exit: Exit | None = None
        self._hooks = hooks
        self._on_begin = on_begin
        self._ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.payloads: dict[int, bytes] = {}

    def call(self, frame: Frame, fd: int) -> None:
        self.payloads[frame.id] = bytes(frame.payload)
        if fd != NO_FD:
            self.payloads[frame.id] = os.pread(fd, frame.fd_length, 0)
            os.close(fd)
        self.held.append(frame)
        if len(self.held) == 1:
            self._on_begin(frame)

    def answer(self, outcome: Outcome, payload: bytes = b"r", fd: int = NO_FD, fd_length: int = 0) -> None:
        """End what runs."""
        if outcome == Outcome.RAISED:
            payload = failure.pack(ValueError("bad"))
        self._drop(self.held[0])
        flags = 0 if fd == NO_FD else 1
        self._hooks.on_result(Frame(Kind.RESULT, self.last, payload, 0, flags, outcome, fd_length), fd)

    def _drop(self, frame: Frame) -> None:
        first = self.held[0] is frame
        self.last = frame.id
        self.held.remove(frame)
        if first and self.held:
            self._on_begin(self.held[0])

    def recall(self, number: int, sequence: int) -> None:
        frame = next((frame for frame in self.held[1:] if frame.id == number and frame.channel == sequence), None)
        if frame is not None:
            self.held.remove(frame)
        asyncio.get_running_loop().call_soon(self._hooks.on_recalled, number, sequence, frame is not None)

    def interrupt(self, number: int, _sequence: int) -> None:
        frame = next((frame for frame in self.held if frame.id == number), None)
        if frame is not None:
            self._drop(frame)
            answer = Frame(Kind.RESULT, number, outcome=Outcome.CANCELLED)
            asyncio.get_running_loop().call_soon(self._hooks.on_result, answer, NO_FD)

    def die(self, end: Exit) -> None:
        self.exit = end
        self._end("the worker died")

    def _end(self, why: str) -> None:
        self.held.clear()
        if not self._ended.done():
            self._ended.set_result(why)

    async def wait_ended(self) -> str:
        return await self._ended

    async def stop(self) -> None:
        self._end("it was stopped")

    async def close(self) -> None:
        self._end("it was killed")


class Rig:
    """An engine's ledger and dispatcher. `crash` takes them away as kill -9 would; `open` begins on what is left."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.loop = MovedLoop()
        self.folder = folder
        self.clock = MovedClock(self.loop)
        self.workers: list[FakeWorker] = []
        self.executed: Counter[int] = Counter()
        self.accepted: list[int] = []
        self.version = 1
        self.deployed = True
        self.limits = PoolLimits(max_workers=2, retries=RETRIES, timeout=TIMEOUT, give_up_after=None)
        self._seal = Seal(b"k" * 32)
        patch.setattr("slipway.executor.lives.start_worker", self._start_worker)
        self._life = 0
        self.run(self.open())

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(work)

    def do(self, act: Callable[[], T]) -> T:
        """Do something on the loop, and leave what follows from it for later."""

        async def now() -> T:
            return act()

        return self.run(now())

    async def open(self) -> None:
        self._life += 1
        self.loop.ahead += 1.0  # the numbers of inputs begin with the time
        self.state = await asyncio.to_thread(State.open, self.folder / "state.db", version="0.1.0")
        files = PayloadFiles(self.folder / "payloads")
        self.under_way = UnderWay(self.folder / "attempts")
        self.ledger = Ledger(self.state, files, self.under_way, self._seal, self.clock, self._find)
        ears = Ears(
            on_records=lambda _rows: None,
            on_line=lambda *_: None,
            on_client=lambda *_: None,
            on_attempt=self.ledger.on_attempt,
            on_attempt_over=self.ledger.on_attempt_over,
        )
        place: Any = Place(runtime=None, run=self.folder, code=self.folder)  # type: ignore[arg-type]
        self.dispatcher = Dispatcher(place, self.clock, ears)
        await self.ledger.recover(lambda _run: self.deployed)

    async def crash(self) -> None:
        """Everything in memory is gone; what was committed stays."""
        for pool in self.dispatcher.all_pools():
            pool.placement.close("")
            if pool.timer is not None:
                pool.timer.cancel()
        me = asyncio.current_task()
        doomed = [task for task in asyncio.all_tasks() if task is not me]
        self.workers.clear()
        for task in doomed:
            task.cancel()
        await asyncio.gather(*doomed, return_exceptions=True)
        await self.state.close()
        self.under_way.close()
        self.workers.clear()

    async def close(self) -> None:
        self.ledger.end()
        await self.dispatcher.close()
        await self.ledger.close()
        await self.state.close()

    def spec(self) -> PoolSpec:
        return evolve(pool_spec(self.folder, "f", self.limits), key=f"shop f{self.version}", app="shop")

    async def _find(self, key: QueueKey, _opening: str) -> Site | None:
        if not self.deployed:
            raise NotFoundError(f"{key.app} is not deployed any more")
        return Site(dispatcher=self.dispatcher, spec=self.spec())

    async def _start_worker(self, name: str, _spec: Any, _place: Any, hooks: Hooks) -> FakeWorker:
        worker = FakeWorker(name, hooks, partial(self._begin, self._life))
        self.workers.append(worker)
        return worker

    def _begin(self, life: int, frame: Frame) -> None:
        """An attempt runs in a worker: it was written down before, and its input is not over."""
        assert life == self._life
        self.executed[frame.id] += 1
        outcome, attempts = self.row(frame.id)
        assert outcome is None, "it ran after its outcome was recorded"
        assert attempts >= self.executed[frame.id], "it ran more often than was written down"

    def row(self, number: int) -> tuple[int | None, int]:
        """The outcome of an input and its attempts, as they are on disk."""
        connection = sqlite3.connect(f"file:{self.folder}/state.db?mode=ro", uri=True)
        try:
            query = "SELECT outcome, earlier + attempts FROM inputs WHERE number = ?"
            outcome, attempts = connection.execute(query, (number,)).fetchone()
        finally:
            connection.close()
        noted = (attempt.total for attempt in self.under_way.left() if attempt.number == number)
        return outcome, max(attempts, *noted, 0)

    # --- what happens

    def spawn(self, payload: bytes = b"p", **more: Any) -> int:
        """Have an input taken; its number."""
        number: int = self.dispatcher.numbers.next_input()

        def answer(came: int | Error) -> None:
            assert not isinstance(came, Error)
            self.accepted.append(number)

        self.take(KEY, "{}", Fresh(number, payload, answer, **more))
        return number

    def take(self, key: QueueKey, opening: str, fresh: Fresh) -> None:
        self.do(lambda: self.ledger.take(key, opening, fresh))

    async def settle(self) -> None:
        """Until everything that follows by itself from what happened has happened."""
        for _ in range(4):
            await self.ledger.intake.settled()
            for _ in range(8):
                await asyncio.sleep(0)
            for feeder in tuple(self.ledger._feeders.values()):
                await feeder.wait_still()

    async def close_tasks(self) -> None:
        """Wait for what the ledger does in the background."""
        while self.ledger._tasks:
            await asyncio.wait(tuple(self.ledger._tasks))

    async def advance(self, seconds: float) -> None:
        self.loop.ahead += seconds
        await self.settle()

    @property
    def busy(self) -> list[FakeWorker]:
        return [worker for worker in self.workers if worker.held]

    async def finish_all(self) -> None:
        """Let everything come to its end."""
        await self.settle()
        while self.ledger.open:
            for worker in self.busy:
                while worker.held:
                    worker.answer(Outcome.RETURNED)
            await self.advance(2.0)
