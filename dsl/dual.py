"""Methods with an asynchronous twin: `f(x)` blocks, `await f.aio(x)` doesn't."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


class Dual(Generic[P, R]):
    """A function that needs no waiting, offered both ways."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable[P, R]) -> None:
        self._function = function

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        return self._function(*args, **kwargs)

    async def aio(self, *args: P.args, **kwargs: P.kwargs) -> R:
        return self._function(*args, **kwargs)
