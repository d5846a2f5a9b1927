"""The session of a program as a whole, which outlives engines: what was spawned is waited for also when one ends."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

from slipway.dsl.errors import EngineLost

from .connection import Connection
from .session import EngineSession


class LastingSession(EngineSession):
    """Results are asked for again where the engine went meanwhile: of `successor`, the program's session by then.

    Only that is repeated. Of a call that was under way nobody knows whether it was carried out.
    """

    def __init__(self, connection: Connection, successor: Callable[[], EngineSession]) -> None:
        super().__init__(connection)
        self._successor = successor

    def result(self, call: str, index: int, timeout: float | None) -> Any:
        until = _until(timeout)
        try:
            return super().result(call, index, timeout)
        except EngineLost:
            self._check_gone()
        return self._successor().result(call, index, _left(timeout, until))

    async def result_aio(self, call: str, index: int, timeout: float | None) -> Any:
        until = _until(timeout)
        try:
            return await super().result_aio(call, index, timeout)
        except EngineLost:
            self._check_gone()
        return await (await self._successor_aio()).result_aio(call, index, _left(timeout, until))

    def results(self, call: str, start: int, end: int | None) -> Iterator[Any]:
        try:
            for item in super().results(call, start, end):
                start += 1
                yield item
            return
        except EngineLost:
            self._check_gone()
        yield from self._successor().results(call, start, end)

    async def results_aio(self, call: str, start: int, end: int | None) -> AsyncIterator[Any]:
        try:
            async for item in super().results_aio(call, start, end):
                start += 1
                yield item
            return
        except EngineLost:
            self._check_gone()
        async for item in (await self._successor_aio()).results_aio(call, start, end):
            yield item

    def gather(self, calls: list[str]) -> list[Any]:
        try:
            return super().gather(calls)
        except EngineLost:
            self._check_gone()
        return self._successor().gather(calls)

    async def gather_aio(self, calls: list[str]) -> list[Any]:
        try:
            return await super().gather_aio(calls)
        except EngineLost:
            self._check_gone()
        return await (await self._successor_aio()).gather_aio(calls)

    def _check_gone(self) -> None:
        """While an `EngineLost` is handled: raise it where our own engine is there, so that it came as a result."""
        if not self.connection.closed:
            raise

    async def _successor_aio(self) -> EngineSession:
        import asyncio  # a loop runs here, so it is loaded

        return await asyncio.to_thread(self._successor)  # it may have to start an engine


def _until(timeout: float | None) -> float:
    return 0.0 if timeout is None else time.monotonic() + timeout


def _left(timeout: float | None, until: float) -> float | None:
    return None if timeout is None else max(until - time.monotonic(), 0.0)
