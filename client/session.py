"""Calls from a program: arguments out, results in, through a connection to an engine."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator
from pathlib import Path
from typing import Any

from slipway.dsl.session import FunctionRef, Input, worker_app
from slipway.executor.worker import payload

from . import spawned
from .channels import Channels
from .connection import Connection
from .maps import How, results_of, results_of_aio
from .packing import calling_input, pack_arguments, unpack_result
from .streams import items_of, items_of_aio


class EngineSession:
    """A `dsl` session: what `f.remote`, `f.map` and the like of a program act through."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self._channels = Channels(connection)
        if worker_app() is None:
            payload.look_into_main()

    # --- a result -------------------------------------------------------------------------------------

    def call(self, function: FunctionRef, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run a function in a worker; return its result, or raise what it raised."""
        packed = pack_arguments(function.title, args, kwargs)
        frame, fd = self.connection.call(self._channels.of(function, "remote"), packed, calling_input())
        return unpack_result(function.title, frame, fd)

    async def call_aio(self, function: FunctionRef, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        packed = pack_arguments(function.title, args, kwargs)
        channel = await self._channels.of_aio(function, "remote")
        frame, fd = await self.connection.call_aio(channel, packed, calling_input())
        return unpack_result(function.title, frame, fd)

    # --- many results ---------------------------------------------------------------------------------

    def map(
        self, function: FunctionRef, inputs: Iterable[Input], *, order_outputs: bool, return_exceptions: bool
    ) -> Iterator[Any]:
        """One result for each input. When one fails, or nobody asks any more, what has not begun is cancelled."""
        how = How(order_outputs, return_exceptions)
        return results_of(self.connection, self._channels, function, inputs, how)

    def map_aio(
        self, function: FunctionRef, inputs: AsyncIterator[Input], *, order_outputs: bool, return_exceptions: bool
    ) -> AsyncIterator[Any]:
        how = How(order_outputs, return_exceptions)
        return results_of_aio(self.connection, self._channels, function, inputs, how)

    def stream(self, function: FunctionRef, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Iterator[Any]:
        """The items of a generator. It ends when nobody asks any more."""
        return items_of(self.connection, self._channels, function, args, kwargs)

    def stream_aio(self, function: FunctionRef, args: tuple[Any, ...], kwargs: dict[str, Any]) -> AsyncIterator[Any]:
        return items_of_aio(self.connection, self._channels, function, args, kwargs)

    # --- results for later ----------------------------------------------------------------------------

    def spawn(self, function: FunctionRef, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
        """Start a call that goes on without this program; it is on disk when its id is returned."""
        packed = pack_arguments(function.title, args, kwargs)
        channel = self._channels.of(function, "spawn")
        frame, fd = self.connection.call(channel, packed, calling_input(), spawned.DURABLE)
        return spawned.accepted(function.title, frame, fd)

    async def spawn_aio(self, function: FunctionRef, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
        packed = pack_arguments(function.title, args, kwargs)
        channel = await self._channels.of_aio(function, "spawn")
        frame, fd = await self.connection.call_aio(channel, packed, calling_input(), spawned.DURABLE)
        return spawned.accepted(function.title, frame, fd)

    def spawn_each(self, function: FunctionRef, inputs: Iterable[Input]) -> None:
        channel = self._channels.of(function, "spawn_map")
        spawned.spawn_all(self.connection, function.title, channel, inputs)

    async def spawn_each_aio(self, function: FunctionRef, inputs: AsyncIterator[Input]) -> None:
        channel = await self._channels.of_aio(function, "spawn_map")
        await spawned.spawn_all_aio(self.connection, function.title, channel, inputs)

    def spawn_together(self, function: FunctionRef, inputs: Iterable[Input]) -> str:
        channel, call = self._channels.together(function, "experimental_spawn_map")
        try:
            spawned.spawn_all(self.connection, function.title, channel, inputs)
            self.ask("call.seal", {"call": call})
        finally:
            self._channels.close(channel)
        return call

    async def spawn_together_aio(self, function: FunctionRef, inputs: AsyncIterator[Input]) -> str:
        channel, call = await self._channels.together_aio(function, "experimental_spawn_map")
        try:
            await spawned.spawn_all_aio(self.connection, function.title, channel, inputs)
            await self.ask_aio("call.seal", {"call": call})
        finally:
            self._channels.close(channel)
        return call

    def result(self, call: str, index: int, timeout: float | None) -> Any:
        return spawned.result(self.connection, call, index, timeout)

    async def result_aio(self, call: str, index: int, timeout: float | None) -> Any:
        return await spawned.result_aio(self.connection, call, index, timeout)

    def results(self, call: str, start: int, end: int | None) -> Iterator[Any]:
        return spawned.results(self.connection, call, start, end)

    def results_aio(self, call: str, start: int, end: int | None) -> AsyncIterator[Any]:
        return spawned.results_aio(self.connection, call, start, end)

    def gather(self, calls: list[str]) -> list[Any]:
        return spawned.gather(self.connection, calls)

    async def gather_aio(self, calls: list[str]) -> list[Any]:
        return await spawned.gather_aio(self.connection, calls)

    # --- plain requests -------------------------------------------------------------------------------

    def ask(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        return self.connection.request(method, params)

    async def ask_aio(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        return await self.connection.request_aio(method, params)

    def ask_of(self, function: FunctionRef, method: str, params: dict[str, Any]) -> dict[str, Any]:
        return self.ask(method, {**params, "channel": self._channels.any_of(function)})

    async def ask_of_aio(self, function: FunctionRef, method: str, params: dict[str, Any]) -> dict[str, Any]:
        return await self.ask_aio(method, {**params, "channel": await self._channels.any_of_aio(function)})


def connect_worker(path: str) -> EngineSession:
    """The session of code in a worker that calls other functions, by a connection of its own."""
    return EngineSession(Connection.connect(Path(path)))
