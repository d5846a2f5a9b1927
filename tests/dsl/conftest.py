"""A session and a runner that carry calls out on the spot."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from types import TracebackType
from typing import Any

import pytest

from slipway.dsl import context, session
from slipway.dsl.app import App
from slipway.dsl.session import FunctionRef, Running

Input = tuple[tuple[Any, ...], dict[str, Any]]


class LocalSession:
    """Calls the Python function itself, and writes down what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[FunctionRef] = []
        self.functions: dict[str, Callable[..., Any]] = {}
        self.spawned: dict[str, list[Any]] = {}  # what came of each input
        self.waited: list[float | None] = []
        self.requests: list[tuple[str, dict[str, Any]]] = []
        self.replies: dict[str, dict[str, Any]] = {}

    def call(self, function: FunctionRef, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        self.asked.append(function)
        return self.functions[function.name](*args, **kwargs)

    async def call_aio(self, function: FunctionRef, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        await asyncio.sleep(0)
        return self.call(function, args, kwargs)

    def map(
        self, function: FunctionRef, inputs: Iterable[Input], *, order_outputs: bool, return_exceptions: bool
    ) -> Iterator[Any]:
        for args, kwargs in inputs:
            yield self._outcome(function, args, kwargs) if return_exceptions else self.call(function, args, kwargs)

    def _outcome(self, function: FunctionRef, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        try:
            return self.call(function, args, kwargs)
        except ArithmeticError as error:
            return error

    async def map_aio(
        self, function: FunctionRef, inputs: AsyncIterator[Input], *, order_outputs: bool, return_exceptions: bool
    ) -> AsyncIterator[Any]:
        async for args, kwargs in inputs:
            yield await self.call_aio(function, args, kwargs)

    def stream(self, function: FunctionRef, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Iterator[Any]:
        yield from self.call(function, args, kwargs)

    async def stream_aio(
        self, function: FunctionRef, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> AsyncIterator[Any]:
        for item in self.stream(function, args, kwargs):
            yield item

    def spawn(self, function: FunctionRef, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
        return self.spawn_together(function, [(args, kwargs)])

    async def spawn_aio(self, function: FunctionRef, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
        return self.spawn(function, args, kwargs)

    def spawn_each(self, function: FunctionRef, inputs: Iterable[Input]) -> None:
        for args, kwargs in inputs:
            self.spawn(function, args, kwargs)

    async def spawn_each_aio(self, function: FunctionRef, inputs: AsyncIterator[Input]) -> None:
        self.spawn_each(function, [item async for item in inputs])

    def spawn_together(self, function: FunctionRef, inputs: Iterable[Input]) -> str:
        ident = f"fc-{len(self.spawned) + 1:x}"
        self.spawned[ident] = [self._outcome(function, args, kwargs) for args, kwargs in inputs]
        return ident

    async def spawn_together_aio(self, function: FunctionRef, inputs: AsyncIterator[Input]) -> str:
        return self.spawn_together(function, [item async for item in inputs])

    def result(self, call: str, index: int, timeout: float | None) -> Any:
        self.waited.append(timeout)
        found = self.spawned[call][index]
        if isinstance(found, Exception):
            raise found
        return found

    async def result_aio(self, call: str, index: int, timeout: float | None) -> Any:
        return self.result(call, index, timeout)

    def results(self, call: str, start: int, end: int | None) -> Iterator[Any]:
        yield from (self.result(call, start + i, None) for i in range(len(self.spawned[call][start:end])))

    async def results_aio(self, call: str, start: int, end: int | None) -> AsyncIterator[Any]:
        for item in self.results(call, start, end):
            yield item

    def gather(self, calls: list[str]) -> list[Any]:
        return [self.result(call, 0, None) for call in calls]

    async def gather_aio(self, calls: list[str]) -> list[Any]:
        return self.gather(calls)

    def ask(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        self.requests.append((method, params))
        if method == "call.count":
            return {"inputs": len(self.spawned[params["call"]])}
        return self.replies[method]

    async def ask_aio(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        return self.ask(method, params)

    def ask_of(self, function: FunctionRef, method: str, params: dict[str, Any]) -> dict[str, Any]:
        self.asked.append(function)
        return self.ask(method, params)

    async def ask_of_aio(self, function: FunctionRef, method: str, params: dict[str, Any]) -> dict[str, Any]:
        return self.ask_of(function, method, params)


class Block:
    def __init__(self, runner: LocalRunner, app: App) -> None:
        self.runner, self.app = runner, app

    def __enter__(self) -> Running:
        for name, function in self.app.functions.items():
            self.runner.session_.functions[name] = function.here("test")
        self.runner.seen.append(f"run {self.app.description}")
        return Running(app_id="ap-1", session=self.runner.session_)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.runner.seen.append(f"end {self.app.description}")

    async def __aenter__(self) -> Running:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, traceback)


class LocalRunner:
    def __init__(self) -> None:
        self.seen: list[str] = []
        self.session_ = LocalSession()

    def run(self, app: App, *, name: str | None, detach: bool) -> Block:
        return Block(self, app)

    def deploy(self, app: App, *, name: str, tag: str, strategy: str) -> None:
        self.seen.append(f"deploy {name} {tag} {strategy}")

    async def deploy_aio(self, app: App, *, name: str, tag: str, strategy: str) -> None:
        self.deploy(app, name=name, tag=tag, strategy=strategy)

    def session(self) -> LocalSession:
        return self.session_


@pytest.fixture
def runner(monkeypatch: pytest.MonkeyPatch) -> LocalRunner:
    import slipway

    slipway.App  # noqa: B018 - the first name used sets the real runner, which this one replaces
    runner = LocalRunner()
    monkeypatch.setattr(session._Program, "runner", runner)
    return runner


@pytest.fixture
def in_worker() -> Iterator[Callable[[Running], None]]:
    """Make this process a worker of a running app."""

    def enter(running: Running) -> None:
        context.enter_worker()
        session.set_worker(running)

    yield enter
    context._worker_pid = None
    session._Program.worker = None
