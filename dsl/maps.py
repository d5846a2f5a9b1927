"""The ways to call a function for many inputs: results in order, as they come, or kept for later."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from .blocking import refuse_in_loop
from .calls import Way
from .lazy import AsyncResults, Results
from .origin import here

if TYPE_CHECKING:
    from .function_call import FunctionCall
    from .session import Input

R = TypeVar("R")

AnyIterable = Iterable[Any] | AsyncIterable[Any]
INSTEAD = "use for_each to run all"


class _Maps(Way):
    """What the maps share. Inputs are taken on the caller's thread, when results are asked for."""

    __slots__ = ()

    def _begin(self, iterables: tuple[Any, ...], kwargs: Mapping[str, Any], *, blocking: bool) -> None:
        function = self._function
        function.callable_by(self.verb)
        if blocking:
            refuse_in_loop(self.what)
        if not iterables:
            raise TypeError(f"{here()}: {self.what} takes one iterable for each argument, and was given none")
        for iterable in iterables:
            asynchronous = hasattr(iterable, "__aiter__")
            if not (hasattr(iterable, "__iter__") or asynchronous) or (blocking and asynchronous):
                way = (
                    f"Use {self.what}.aio(...)." if asynchronous else f"For one input use {function.title}.remote(...)."
                )
                raise TypeError(f"{here()}: {self.what} takes iterables, not {type(iterable).__name__}. {way}")
        if self.verb != "starmap":
            function.check((None,) * len(iterables), dict(kwargs))

    def _results(self, inputs: Iterator[Input], *, ordered: bool, exceptions: bool) -> Iterator[Any]:
        session, ref = self._function.target(self.verb)
        return session.map(ref, inputs, order_outputs=ordered, return_exceptions=exceptions)

    def _results_aio(self, inputs: AsyncIterator[Input], *, ordered: bool, exceptions: bool) -> AsyncIterator[Any]:
        session, ref = self._function.target(self.verb)
        return session.map_aio(ref, inputs, order_outputs=ordered, return_exceptions=exceptions)


class Map(_Maps, Generic[R]):
    """`f.map(xs)`: one result for each input. With several iterables, they are taken side by side, to the shortest."""

    __slots__ = ()
    verb = "map"

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

        return Results(start, self.what, INSTEAD)

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

        return AsyncResults(start, self.what, INSTEAD)


class StarMap(_Maps, Generic[R]):
    """`f.starmap(pairs)`: as map, each input a sequence of arguments."""

    __slots__ = ()
    verb = "starmap"

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

        return Results(start, self.what, INSTEAD)

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

        return AsyncResults(start, self.what, INSTEAD)

    def _checked(self, item: Iterable[Any], kwargs: dict[str, Any]) -> Input:
        if not hasattr(item, "__iter__"):
            way = f"For one argument each use {self._function.title}.map(...)."
            raise TypeError(f"{here()}: {self.what} takes sequences of arguments, not {type(item).__name__}. {way}")
        args = tuple(item)
        self._function.check(args, kwargs)
        return args, kwargs


class ForEach(_Maps):
    """`f.for_each(xs)` runs f for each input and waits for all of them."""

    __slots__ = ()
    verb = "for_each"

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


class _SpawnMaps(_Maps):
    """What the maps share that only start calls."""

    __slots__ = ()

    def _inputs(self, iterables: tuple[Any, ...], kwargs: Mapping[str, Any] | None) -> Iterator[Input]:
        more = dict(kwargs or {})
        self._begin(iterables, more, blocking=True)
        return ((args, more) for args in zip(*iterables))  # noqa: B905 - to the shortest, as the model says

    def _inputs_aio(self, iterables: tuple[Any, ...], kwargs: Mapping[str, Any] | None) -> AsyncIterator[Input]:
        more = dict(kwargs or {})
        self._begin(iterables, more, blocking=False)
        return _side_by_side(iterables, more)


class SpawnMap(_SpawnMaps):
    """`f.spawn_map(xs)` starts a call for each input, and returns when all of them are on disk."""

    __slots__ = ()
    verb = "spawn_map"

    def __call__(self, *iterables: Iterable[Any], kwargs: Mapping[str, Any] | None = None) -> None:
        inputs = self._inputs(iterables, kwargs)
        session, ref = self._function.target(self.verb)
        session.spawn_each(ref, inputs)

    async def aio(self, *iterables: AnyIterable, kwargs: Mapping[str, Any] | None = None) -> None:
        inputs = self._inputs_aio(iterables, kwargs)
        session, ref = self._function.target(self.verb)
        await session.spawn_each_aio(ref, inputs)


class SpawnTogether(_SpawnMaps, Generic[R]):
    """`f.experimental_spawn_map(xs)` starts one call with many inputs; their results are fetched by their index."""

    __slots__ = ()
    verb = "experimental_spawn_map"

    def __call__(self, *iterables: Iterable[Any], kwargs: Mapping[str, Any] | None = None) -> FunctionCall[R]:
        from .function_call import FunctionCall

        inputs = self._inputs(iterables, kwargs)
        session, ref = self._function.target(self.verb)
        return FunctionCall(session.spawn_together(ref, inputs))

    async def aio(self, *iterables: AnyIterable, kwargs: Mapping[str, Any] | None = None) -> FunctionCall[R]:
        from .function_call import FunctionCall

        inputs = self._inputs_aio(iterables, kwargs)
        session, ref = self._function.target(self.verb)
        return FunctionCall(await session.spawn_together_aio(ref, inputs))


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
