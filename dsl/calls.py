"""The ways to call a function: each an object that blocks when called and has an asynchronous twin, `.aio`."""

from __future__ import annotations

import sys
import warnings
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar

from .origin import here, invalid

if TYPE_CHECKING:
    from .declaration import Origin
    from .function import Function

P = ParamSpec("P")
R = TypeVar("R")

Input = tuple[tuple[Any, ...], dict[str, Any]]
AnyIterable = Iterable[Any] | AsyncIterable[Any]


class _Way:
    """One way to call a function."""

    __slots__ = ("_function",)

    def __init__(self, function: Function[..., Any, Any]) -> None:
        self._function = function

    @property
    def _what(self) -> str:
        return f"{self._function.name}.{self._verb}"

    _verb = ""

    def __repr__(self) -> str:
        return f"<{self._what}>"


class Remote(_Way, Generic[P, R]):
    """`f.remote(x)` runs f in a worker and returns its result, or raises what it raised."""

    __slots__ = ()
    _verb = "remote"

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        session, ref = self._ready(args, kwargs)
        return session.call(ref, args, kwargs)  # type: ignore[no-any-return]

    async def aio(self, *args: P.args, **kwargs: P.kwargs) -> R:
        session, ref = self._ready(args, kwargs)
        return await session.call_aio(ref, args, kwargs)  # type: ignore[no-any-return]

    def _ready(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        function = self._function
        function.callable_by("remote")
        function.check(args, kwargs)
        return function.target("remote")


class Local(_Way, Generic[P, R]):
    """`f.local(x)` runs f in this process."""

    __slots__ = ()
    _verb = "local"

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        function = self._function
        raw = function.here("local")
        function.warn_if_mounted()
        return raw(*args, **kwargs)  # type: ignore[no-any-return]

    async def aio(self, *args: P.args, **kwargs: P.kwargs) -> Any:
        from inspect import isawaitable  # here: it takes longer to import than all of this

        result: Any = self(*args, **kwargs)
        return await result if isawaitable(result) else result


class _Maps(_Way):
    """What the maps share. Inputs are taken on the caller's thread, when results are asked for."""

    __slots__ = ()

    def _begin(self, iterables: tuple[Any, ...], kwargs: Mapping[str, Any], *, blocking: bool) -> None:
        function = self._function
        function.callable_by(self._verb)
        if blocking:
            _refuse_in_loop(self._what)
        if not iterables:
            raise TypeError(f"{here()}: {self._what} takes one iterable for each argument, and was given none")
        for iterable in iterables:
            asynchronous = hasattr(iterable, "__aiter__")
            if not (hasattr(iterable, "__iter__") or asynchronous) or (blocking and asynchronous):
                way = (
                    f"Use {self._what}.aio(...)." if asynchronous else f"For one input use {function.name}.remote(...)."
                )
                raise TypeError(f"{here()}: {self._what} takes iterables, not {type(iterable).__name__}. {way}")
        if self._verb != "starmap":
            function.check((None,) * len(iterables), dict(kwargs))

    def _results(self, inputs: Iterator[Input], *, ordered: bool, exceptions: bool) -> Iterator[Any]:
        session, ref = self._function.target(self._verb)
        return session.map(ref, inputs, order_outputs=ordered, return_exceptions=exceptions)

    def _results_aio(self, inputs: AsyncIterator[Input], *, ordered: bool, exceptions: bool) -> AsyncIterator[Any]:
        session, ref = self._function.target(self._verb)
        return session.map_aio(ref, inputs, order_outputs=ordered, return_exceptions=exceptions)


class Map(_Maps, Generic[R]):
    """`f.map(xs)`: one result for each input. With several iterables, they are taken side by side, to the shortest."""

    __slots__ = ()
    _verb = "map"

    def __call__(
        self,
        *iterables: Iterable[Any],
        kwargs: Mapping[str, Any] | None = None,
        order_outputs: bool = True,
        return_exceptions: bool = False,
    ) -> Results[R]:
        more = dict(kwargs or {})
        self._begin(iterables, more, blocking=True)

        def start() -> Iterator[Any]:
            inputs = ((args, more) for args in zip(*iterables))  # noqa: B905 - to the shortest, as the model says
            return self._results(inputs, ordered=order_outputs, exceptions=return_exceptions)

        return Results(start, self._what)

    def aio(
        self,
        *iterables: AnyIterable,
        kwargs: Mapping[str, Any] | None = None,
        order_outputs: bool = True,
        return_exceptions: bool = False,
    ) -> AsyncResults[R]:
        more = dict(kwargs or {})
        self._begin(iterables, more, blocking=False)

        def start() -> AsyncIterator[Any]:
            inputs = _side_by_side(iterables, more)
            return self._results_aio(inputs, ordered=order_outputs, exceptions=return_exceptions)

        return AsyncResults(start, self._what)


class StarMap(_Maps, Generic[R]):
    """`f.starmap(pairs)`: as map, each input a sequence of arguments."""

    __slots__ = ()
    _verb = "starmap"

    def __call__(
        self,
        inputs: Iterable[Iterable[Any]],
        *,
        kwargs: Mapping[str, Any] | None = None,
        order_outputs: bool = True,
        return_exceptions: bool = False,
    ) -> Results[R]:
        more = dict(kwargs or {})
        self._begin((inputs,), more, blocking=True)

        def start() -> Iterator[Any]:
            checked = (self._checked(item, more) for item in inputs)
            return self._results(checked, ordered=order_outputs, exceptions=return_exceptions)

        return Results(start, self._what)

    def aio(
        self,
        inputs: AnyIterable,
        *,
        kwargs: Mapping[str, Any] | None = None,
        order_outputs: bool = True,
        return_exceptions: bool = False,
    ) -> AsyncResults[R]:
        more = dict(kwargs or {})
        self._begin((inputs,), more, blocking=False)

        async def checked() -> AsyncIterator[Input]:
            async for (item,), _ in _side_by_side((inputs,), {}):
                yield self._checked(item, more)

        def start() -> AsyncIterator[Any]:
            return self._results_aio(checked(), ordered=order_outputs, exceptions=return_exceptions)

        return AsyncResults(start, self._what)

    def _checked(self, item: Iterable[Any], kwargs: dict[str, Any]) -> Input:
        if not hasattr(item, "__iter__"):
            way = f"For one argument each use {self._function.name}.map(...)."
            raise TypeError(f"{here()}: {self._what} takes sequences of arguments, not {type(item).__name__}. {way}")
        args = tuple(item)
        self._function.check(args, kwargs)
        return args, kwargs


class ForEach(_Maps):
    """`f.for_each(xs)` runs f for each input and waits for all of them."""

    __slots__ = ()
    _verb = "for_each"

    def __call__(
        self, *iterables: Iterable[Any], kwargs: Mapping[str, Any] | None = None, ignore_exceptions: bool = False
    ) -> None:
        more = dict(kwargs or {})
        self._begin(iterables, more, blocking=True)
        inputs = ((args, more) for args in zip(*iterables))  # noqa: B905 - to the shortest, as the model says
        for _ in self._results(inputs, ordered=False, exceptions=ignore_exceptions):
            pass

    async def aio(
        self, *iterables: AnyIterable, kwargs: Mapping[str, Any] | None = None, ignore_exceptions: bool = False
    ) -> None:
        more = dict(kwargs or {})
        self._begin(iterables, more, blocking=False)
        inputs = _side_by_side(iterables, more)
        async for _ in self._results_aio(inputs, ordered=False, exceptions=ignore_exceptions):
            pass


class _Lazy:
    """Results that nothing has been done for yet. Never asked for, they say so in the end."""

    __slots__ = ("_origin", "_started", "_what")

    def __init__(self, what: str) -> None:
        self._what = what
        self._origin: Origin = here()
        self._started = False

    def __del__(self) -> None:
        if not getattr(self, "_started", True):
            warnings.warn_explicit(
                f"{self._what}(...) ran nothing, because nobody asked for its results; use for_each to run all",
                UserWarning,
                self._origin.file,
                self._origin.line,
            )


class Results(_Lazy, Iterator[R]):
    """The results of a map, one after the other. The work starts when the first is asked for."""

    __slots__ = ("_results", "_start")

    def __init__(self, start: Callable[[], Iterator[R]], what: str) -> None:
        super().__init__(what)
        self._start = start
        self._results: Iterator[R] | None = None

    def __next__(self) -> R:
        if self._results is None:
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
    """The results of a map in async code, for `async for`."""

    __slots__ = ("_results", "_start")

    def __init__(self, start: Callable[[], AsyncIterator[R]], what: str) -> None:
        super().__init__(what)
        self._start = start
        self._results: AsyncIterator[R] | None = None

    def __aiter__(self) -> AsyncIterator[R]:
        return self

    async def __anext__(self) -> R:
        if self._results is None:
            self._started = True
            self._results = self._start()
        return await self._results.__anext__()

    async def aclose(self) -> None:
        """Give up what hasn't been asked for."""
        self._started = True
        close = getattr(self._results, "aclose", None)
        if close is not None:
            await close()


_END = object()


async def _side_by_side(iterables: tuple[Any, ...], kwargs: dict[str, Any]) -> AsyncIterator[Input]:
    """Iterables of both kinds, taken side by side, to the shortest."""
    sources = [s.__aiter__() if hasattr(s, "__aiter__") else iter(s) for s in iterables]
    while True:
        args = []
        for source in sources:
            item = await anext(source, _END) if hasattr(source, "__anext__") else next(source, _END)
            if item is _END:
                return
            args.append(item)
        yield tuple(args), kwargs


def _refuse_in_loop(what: str) -> None:
    """Blocking in a running event loop would stop everything else in it, the results too."""
    asyncio = sys.modules.get("asyncio")  # not imported: no loop runs
    if asyncio is not None and asyncio._get_running_loop() is not None:
        raise invalid(f"{what} blocks, and an event loop is running here", hint=f"Use {what}.aio(...) in async code.")
