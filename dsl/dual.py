"""Methods with an asynchronous twin: `f(x)` blocks, `await f.aio(x)` doesn't."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar, overload

from .blocking import warn_in_loop

if TYPE_CHECKING:
    from typing import Concatenate

S = TypeVar("S")
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


class Twins(Generic[P, R]):
    """A function that waits, in both ways. Blocking in a running event loop, it says so.

    >>> async def later(x): return x
    >>> Twins("same", lambda x: x, later)(3)
    3
    """

    __slots__ = ("_awaiting", "_blocking", "what")

    def __init__(self, what: str, blocking: Callable[P, R], awaiting: Callable[P, Awaitable[R]]) -> None:
        self.what = what
        self._blocking = blocking
        self._awaiting = awaiting

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        warn_in_loop(self)
        return self._blocking(*args, **kwargs)

    async def aio(self, *args: P.args, **kwargs: P.kwargs) -> R:
        return await self._awaiting(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<{self.what}>"


class TwinMethod(Generic[S, P, R]):
    """What `twin_of` makes: on an object, its `Twins`."""

    def __init__(
        self, blocking: Callable[Concatenate[S, P], R], awaiting: Callable[Concatenate[S, P], Awaitable[R]]
    ) -> None:
        self._blocking = blocking
        self._awaiting = awaiting
        self.__doc__ = blocking.__doc__
        self.__wrapped__ = blocking

    @overload
    def __get__(self, one: None, owner: type) -> TwinMethod[S, P, R]: ...
    @overload
    def __get__(self, one: S, owner: type) -> Twins[P, R]: ...
    def __get__(self, one: Any, owner: type) -> Any:
        if one is None:
            return self
        what = f"{getattr(one, 'title', owner.__name__)}.{self._blocking.__name__}"
        return Twins(what, self._blocking.__get__(one), self._awaiting.__get__(one))


def twin_of(
    awaiting: Callable[Concatenate[S, P], Awaitable[R]],
) -> Callable[[Callable[Concatenate[S, P], R]], TwinMethod[S, P, R]]:
    """Make a method that blocks one that has this asynchronous twin."""
    return lambda blocking: TwinMethod(blocking, awaiting)
