"""Several things at once: wait for all of them, or have one done once for all who ask."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, Generic, TypeVar

K = TypeVar("K")
T = TypeVar("T")


async def all_of(works: Iterable[Coroutine[Any, Any, T]]) -> tuple[T, ...]:
    """Run coroutines side by side; return their results in order.

    >>> async def twice(number): return number * 2
    >>> asyncio.run(all_of(twice(n) for n in (1, 2)))
    (2, 4)
    """
    tasks = [asyncio.create_task(work) for work in works]
    try:
        return tuple(await asyncio.gather(*tasks))
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise


async def to_its_end(work: Coroutine[Any, Any, T]) -> T:
    """The result of something that must not be left in the middle, whoever has given it up."""
    task = asyncio.create_task(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait((task,))
        raise


class _Flight(Generic[T]):
    def __init__(self, task: asyncio.Task[T]) -> None:
        self.task = task
        self.waiters = 0
        self.given_up = False


class Flights(Generic[K, T]):
    """Work that many may ask for at once and that is done once. It is cancelled when the last who waits gives up."""

    def __init__(self) -> None:
        self._flights: dict[K, _Flight[T]] = {}

    def __contains__(self, key: K) -> bool:
        return key in self._flights

    async def join(self, key: K, begin: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """The result of the work with this key: of what is under way, else of `begin`."""
        while (flight := self._flights.get(key)) is not None and flight.given_up:
            await asyncio.wait((flight.task,))
        if flight is None:
            flight = _Flight(asyncio.create_task(begin()))
            self._flights[key] = flight
            flight.task.add_done_callback(lambda task: self._landed(key, task))
        flight.waiters += 1
        try:
            return await asyncio.shield(flight.task)
        finally:
            flight.waiters -= 1
            if flight.waiters == 0 and not flight.task.done():
                flight.given_up = True
                flight.task.cancel()
                await asyncio.wait((flight.task,))

    def _landed(self, key: K, task: asyncio.Task[T]) -> None:
        del self._flights[key]
        if not task.cancelled():
            task.exception()  # somebody may have given up in the same moment: then nobody else looks at it
