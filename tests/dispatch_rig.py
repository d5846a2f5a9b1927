"""A dispatcher with real worker processes, and what its inputs answered."""

from __future__ import annotations

import asyncio
import os
import pickle
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from small_engine import SmallEngine, input_of, our_code, pool_spec

from slipway.executor.inputs import Input
from slipway.executor.pool import Pool
from slipway.executor.scaling import PoolLimits
from slipway.executor.worker import payload
from slipway.executor.worker.frames import Flag, Frame, Kind, Outcome
from slipway.executor.worker.wire import NO_FD


class Bench:
    """The functions are those of `<root>/root/app.py`; each has a pool."""

    def __init__(self, engine: SmallEngine, root: Path) -> None:
        self.engine = engine
        self.dispatcher = engine.dispatcher
        self.root = root
        self.answers: dict[int, Frame] = {}
        self.changed = asyncio.Event()
        self.over = engine.over

    def send(self, frame: Frame, fd: int) -> None:
        if fd != NO_FD:
            os.close(fd)
        self.answers[frame.id] = frame
        self.changed.set()

    def pool(self, function: str, limits: PoolLimits | None = None, **start: Any) -> Pool:
        return self.dispatcher.open_pool(pool_spec(self.root, function, limits or PoolLimits(max_workers=1), **start))

    def submit(self, ident: int, function: str, *args: Any, limits: PoolLimits | None = None) -> int:
        return self.submit_to(self.pool(function, limits), ident, *args).number

    def submit_to(self, pool: Pool, ident: int, *args: Any, **more: Any) -> Input:
        """`more` are attributes of the input."""
        packed = payload.dump((args, {}))
        if packed.size < payload.IN_MEMFD:
            frame, fd = Frame(Kind.CALL, ident, packed.bytes()), NO_FD
        else:
            frame, fd = Frame(Kind.CALL, ident, flags=int(Flag.FD), fd_length=packed.size), packed.memfd()
        given = input_of(self.dispatcher, pool, frame, fd, self.send)
        for name, value in more.items():
            setattr(given, name, value)
        self.dispatcher.submit(given)
        return given

    async def answer(self, ident: int) -> Frame:
        while ident not in self.answers:
            self.changed.clear()
            await self.changed.wait()
        return self.answers[ident]

    async def result(self, ident: int) -> Any:
        frame = await self.answer(ident)
        assert frame.outcome == Outcome.RETURNED, bytes(frame.payload)
        return pickle.loads(bytes(frame.payload))

    async def reason(self, ident: int) -> tuple[Outcome, str]:
        frame = await self.answer(ident)
        return Outcome(frame.outcome), bytes(frame.payload).decode()


@asynccontextmanager
async def opened(home: Path, root: Path) -> AsyncIterator[Bench]:
    engine = SmallEngine(home, our_code())
    try:
        yield Bench(engine, root)
    finally:
        await engine.close()


Run = Callable[[Callable[[Bench], Awaitable[None]]], SmallEngine]


def runner(folder: Path, code: str) -> Run:
    """What runs a coroutine function with a bench whose app is this code."""
    root = folder / "tree"
    (root / "root").mkdir(parents=True)
    (root / "root" / "app.py").write_text(code)

    def run(main: Callable[[Bench], Awaitable[None]]) -> SmallEngine:
        async def whole() -> SmallEngine:
            async with opened(folder, root) as bench:
                await main(bench)
            return bench.engine

        return asyncio.run(asyncio.wait_for(whole(), 30))

    return run
