"""Results that come one after the other, and for which nothing is done until the first is asked for."""

from __future__ import annotations

import warnings
from collections.abc import AsyncIterator, Callable, Iterator
from typing import TYPE_CHECKING, TypeVar

from .origin import here

if TYPE_CHECKING:
    from .declaration import Origin

R = TypeVar("R")


class _Lazy:
    """Never asked for a result, it says so in the end."""

    __slots__ = ("_instead", "_origin", "_started", "_what")

    def __init__(self, what: str, instead: str) -> None:
        self._what = what
        self._instead = instead
        self._origin: Origin = here()
        self._started = False

    def __del__(self) -> None:
        if not getattr(self, "_started", True):
            warnings.warn_explicit(
                f"{self._what}(...) ran nothing, because nobody asked for its results; {self._instead}",
                UserWarning,
                self._origin.file,
                self._origin.line,
            )


class Results(_Lazy, Iterator[R]):
    """Results for a `for` loop. The work starts when the first is asked for."""

    __slots__ = ("_results", "_start")

    def __init__(self, start: Callable[[], Iterator[R]], what: str, instead: str) -> None:
        super().__init__(what, instead)
        self._start = start
        self._results: Iterator[R] | None = None

    def __next__(self) -> R:
        if self._results is None:
            if self._started:
                raise StopIteration  # it was closed before it began
            self._started = True
            self._results = self._start()
        return next(self._results)

    def __iter__(self) -> Iterator[R]:
        return self

    def close(self) -> None:
        """Give up what hasn't been asked for."""
        self._started = True
        close = getattr(self._results, "close", None)
        if close is not None:
            close()


class AsyncResults(_Lazy, AsyncIterator[R]):
    """Results for `async for`."""

    __slots__ = ("_results", "_start")

    def __init__(self, start: Callable[[], AsyncIterator[R]], what: str, instead: str) -> None:
        super().__init__(what, instead)
        self._start = start
        self._results: AsyncIterator[R] | None = None

    def __aiter__(self) -> AsyncIterator[R]:
        return self

    async def __anext__(self) -> R:
        if self._results is None:
            if self._started:
                raise StopAsyncIteration  # it was closed before it began
            self._started = True
            self._results = self._start()
        return await self._results.__anext__()

    async def aclose(self) -> None:
        """Give up what hasn't been asked for."""
        self._started = True
        close = getattr(self._results, "aclose", None)
        if close is not None:
            await close()
