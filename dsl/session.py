"""The port through which handles act: whoever runs the user's program sets a `Session`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from .errors import ExecutionError

if TYPE_CHECKING:
    from .app import App


class FunctionRef(NamedTuple):
    """A function that can be called: of which app (a name, or the id of an ephemeral one), by its name in it."""

    app: str
    name: str


class Session(Protocol):
    """What a handle needs of the engine. `inputs` are (args, kwargs); results are the user's objects.

    A call that fails raises the user's own exception with the remote traceback as its cause, or one of
    `slipway.dsl.errors`. `map` is lazy: it takes inputs, on the caller's thread, as results are asked for.
    """

    def call(self, function: FunctionRef, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any: ...

    async def call_aio(self, function: FunctionRef, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any: ...

    def map(
        self,
        function: FunctionRef,
        inputs: Iterable[tuple[tuple[Any, ...], dict[str, Any]]],
        *,
        order_outputs: bool,
        return_exceptions: bool,
    ) -> Iterator[Any]: ...

    def map_aio(
        self,
        function: FunctionRef,
        inputs: AsyncIterator[tuple[tuple[Any, ...], dict[str, Any]]],
        *,
        order_outputs: bool,
        return_exceptions: bool,
    ) -> AsyncIterator[Any]: ...


# The session of the program as a whole (a worker sets it once), and of a `with app.run():` block.
current_session: ContextVar[Session | None] = ContextVar("slipway_session", default=None)


class Running(NamedTuple):
    """An app that runs now: the id (or name) under which the engine knows it, and the way to it."""

    app_id: str
    session: Session


class RunBlock(AbstractContextManager[Running], AbstractAsyncContextManager[Running], Protocol):
    """An ephemeral app as a block, both ways. Entered, the app is ready to be called; left, it is gone."""


class Runner(Protocol):
    """What `app.run()`, `app.deploy()` and a looked-up function need of the user's end of the wire."""

    def run(self, app: App, *, name: str | None, detach: bool) -> RunBlock: ...
    def deploy(self, app: App, *, name: str, tag: str, strategy: str) -> None: ...
    async def deploy_aio(self, app: App, *, name: str, tag: str, strategy: str) -> None: ...
    def session(self) -> Session:
        """The session of this program, for functions of deployed apps; the same one each time."""


class _Program:
    """What this process has one of. Threads see it, which they don't a context variable of another thread."""

    worker: Running | None = None
    make_runner: Callable[[], Runner] | None = None
    runner: Runner | None = None


def set_worker(running: Running) -> None:
    """Say in a worker which app it serves, and through which session it calls other functions."""
    _Program.worker = running


def worker_app() -> Running | None:
    """The app that this process is a worker of."""
    return _Program.worker


def set_runner(make: Callable[[], Runner]) -> None:
    """Say how to get a `Runner`; it is made when first needed."""
    if _Program.make_runner is not make:
        _Program.make_runner, _Program.runner = make, None


def the_runner() -> Runner:
    """The runner of this program."""
    if _Program.runner is None:
        if _Program.make_runner is None:
            raise ExecutionError("nothing here can reach an engine", hint="Import slipway, not slipway.dsl alone.")
        _Program.runner = _Program.make_runner()
    return _Program.runner
