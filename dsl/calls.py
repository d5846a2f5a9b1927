"""The ways to call a function once: each an object that blocks when called and has an asynchronous twin, `.aio`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar

from .blocking import warn_in_loop
from .origin import invalid

if TYPE_CHECKING:
    from .errors import InvalidError
    from .function import Function
    from .function_call import FunctionCall
    from .lazy import AsyncResults, Results
    from .session import FunctionRef, Session

P = ParamSpec("P")
R = TypeVar("R")


def a_generator(title: str, verb: str) -> InvalidError:
    """That a generator can't be called in this way."""
    return invalid(
        f"{title} is a generator, and {title}.{verb} takes functions that return once",
        hint=f"Use {title}.remote_gen(...), which gives its items one after the other.",
    )


def no_generator(title: str) -> InvalidError:
    """That only a generator can be called in this way."""
    return invalid(f"{title} is no generator, so it has no items to give", hint=f"Use {title}.remote(...).")


def a_class(title: str) -> InvalidError:
    """That a class isn't called, but methods of its objects are."""
    return invalid(
        f"{title} is a class, not a function", hint=f"Use Cls.from_name(..., {title!r})().METHOD.remote(...)."
    )


class Way:
    """One way to call a function."""

    __slots__ = ("_function",)
    verb = ""

    def __init__(self, function: Function[..., Any, Any]) -> None:
        self._function = function

    @property
    def what(self) -> str:
        return f"{self._function.title}.{self.verb}"

    def _ready(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Session, FunctionRef]:
        """Whom to ask for a call, and what for; refuses what can't be before anything is sent."""
        function = self._function
        function.callable_by(self.verb)
        function.check(args, kwargs)
        return function.target(self.verb)

    def __repr__(self) -> str:
        return f"<{self.what}>"


class Remote(Way, Generic[P, R]):
    """`f.remote(x)` runs f in a worker and returns its result, or raises what it raised."""

    __slots__ = ()
    verb = "remote"

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        warn_in_loop(self)
        session, ref = self._ready(args, kwargs)
        return session.call(ref, args, kwargs)  # type: ignore[no-any-return]

    async def aio(self, *args: P.args, **kwargs: P.kwargs) -> R:
        session, ref = self._ready(args, kwargs)
        return await session.call_aio(ref, args, kwargs)  # type: ignore[no-any-return]


class RemoteGen(Way, Generic[P]):
    """`f.remote_gen(x)` runs the generator f in a worker and gives its items, each as it is there.

    The worker makes no more of them ahead of time than a window holds, and ends when nobody asks any more.
    """

    __slots__ = ()
    verb = "remote_gen"

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Results[Any]:
        from .lazy import Results  # here, like what else not every worker needs: its start is to be quick

        warn_in_loop(self)
        self._check(args, kwargs)

        def start() -> Iterator[Any]:
            session, ref = self._function.target(self.verb)
            return session.stream(ref, args, kwargs)

        return Results(start, self.what, "loop over it")

    def aio(self, *args: P.args, **kwargs: P.kwargs) -> AsyncResults[Any]:
        from .lazy import AsyncResults

        self._check(args, kwargs)

        def start() -> AsyncIterator[Any]:
            session, ref = self._function.target(self.verb)
            return session.stream_aio(ref, args, kwargs)

        return AsyncResults(start, self.what, "loop over it with `async for`")

    def _check(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._function.callable_by(self.verb)
        self._function.check(args, kwargs)


class Spawn(Way, Generic[P, R]):
    """`f.spawn(x)` starts a call that goes on without this program, and returns what to fetch its result by."""

    __slots__ = ()
    verb = "spawn"

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> FunctionCall[R]:
        from .function_call import FunctionCall

        warn_in_loop(self)
        session, ref = self._ready(args, kwargs)
        return FunctionCall(session.spawn(ref, args, kwargs))

    async def aio(self, *args: P.args, **kwargs: P.kwargs) -> FunctionCall[R]:
        from .function_call import FunctionCall

        session, ref = self._ready(args, kwargs)
        return FunctionCall(await session.spawn_aio(ref, args, kwargs))


class Local(Way, Generic[P, R]):
    """`f.local(x)` runs f in this process."""

    __slots__ = ()
    verb = "local"

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        function = self._function
        raw = function.here("local")
        function.warn_if_mounted()
        return raw(*args, **kwargs)  # type: ignore[no-any-return]

    async def aio(self, *args: P.args, **kwargs: P.kwargs) -> Any:
        from inspect import isawaitable  # here: it takes longer to import than all of this

        result: Any = self(*args, **kwargs)
        return await result if isawaitable(result) else result
