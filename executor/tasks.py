"""Waiting for several things at once, so that the first failure ends the rest and is raised as itself."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from typing import Any, TypeVar

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
