"""The port through which handles act: whoever runs the user's program sets a `Session`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from .errors import ExecutionError

if TYPE_CHECKING:
    from .app import App
    from .secret import Secret
    from .variant import Variant


class FunctionRef(NamedTuple):
    """A function that can be called: of which app (a name, or the id of an ephemeral one), by its name in it.

    Of a class, `name` is the class and `method` one of its methods. `variant` says what sets it apart from the
    function as it is deployed (a class's parameters, options of `with_options`); such calls have workers of their own.
    """

    app: str
    name: str
    method: str = ""
    variant: Variant | None = None

    @property
    def title(self) -> str:
        """What to call it in a message.

        >>> FunctionRef("search", "Model", "embed").title
        'Model.embed'
        """
        return f"{self.name}.{self.method}" if self.method else self.name

    def opening(self, values_of: Callable[[Secret], Mapping[str, str]] | None = None) -> dict[str, Any]:
        """The parameters of the request "function.open". `values_of` reads the values of a secret."""
        request: dict[str, Any] = {"app": self.app, "function": self.name}
        if self.method:
            request["member"] = self.method  # "method" is that of the request
        return request if self.variant is None else request | self.variant.opening(values_of)


Input = tuple[tuple[Any, ...], dict[str, Any]]


class Session(Protocol):
    """What a handle needs of the engine. `inputs` are (args, kwargs); results are the user's objects.

    A call that fails raises the user's own exception with the remote traceback as its cause, or one of
    `slipway.dsl.errors`. `map` is lazy: it takes inputs, on the caller's thread, as results are asked for.

    What is spawned is on disk when the method returns, and goes on without this program; `result` and `results`
    give what became of it, by the id of the function call ("fc-…") and the number of the input in it. `result` raises
    the builtin `TimeoutError` where it is not over in time (seconds; None: wait as long as it takes, 0: don't wait).
    """

    def call(self, function: FunctionRef, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any: ...

    async def call_aio(self, function: FunctionRef, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any: ...

    def map(
        self,
        function: FunctionRef,
        inputs: Iterable[Input],
        *,
        order_outputs: bool,
        return_exceptions: bool,
    ) -> Iterator[Any]: ...

    def map_aio(
        self,
        function: FunctionRef,
        inputs: AsyncIterator[Input],
        *,
        order_outputs: bool,
        return_exceptions: bool,
    ) -> AsyncIterator[Any]: ...

    def stream(self, function: FunctionRef, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Iterator[Any]:
        """Run a generator in a worker; give its items. Closed early, it ends the generator."""

    def stream_aio(
        self, function: FunctionRef, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> AsyncIterator[Any]: ...

    def spawn(self, function: FunctionRef, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
        """Start a call that outlives this program; return its id."""

    async def spawn_aio(self, function: FunctionRef, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str: ...

    def spawn_each(self, function: FunctionRef, inputs: Iterable[Input]) -> None:
        """Start a call of its own for each input."""

    async def spawn_each_aio(self, function: FunctionRef, inputs: AsyncIterator[Input]) -> None: ...

    def spawn_together(self, function: FunctionRef, inputs: Iterable[Input]) -> str:
        """Start one call with many inputs; return its id."""

    async def spawn_together_aio(self, function: FunctionRef, inputs: AsyncIterator[Input]) -> str: ...

    def result(self, call: str, index: int, timeout: float | None) -> Any: ...

    async def result_aio(self, call: str, index: int, timeout: float | None) -> Any: ...

    def results(self, call: str, start: int, end: int | None) -> Iterator[Any]:
        """The results of a call's inputs in order, each as it is there. Raises where one failed."""

    def results_aio(self, call: str, start: int, end: int | None) -> AsyncIterator[Any]: ...

    def gather(self, calls: list[str]) -> list[Any]:
        """The results of several calls, in their order. Raises what the first one to fail raised."""

    async def gather_aio(self, calls: list[str]) -> list[Any]: ...

    def ask(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        """A request to the engine that takes and gives plain data (docs/wire.md)."""

    async def ask_aio(self, method: str, params: dict[str, Any]) -> dict[str, Any]: ...

    def ask_of(self, function: FunctionRef, method: str, params: dict[str, Any]) -> dict[str, Any]:
        """A request about a function: its channel goes along as "channel"."""

    async def ask_of_aio(self, function: FunctionRef, method: str, params: dict[str, Any]) -> dict[str, Any]: ...


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


def session_here() -> Session:
    """The session of this block, of this worker, or else of this program."""
    session = current_session.get()
    if session is not None:
        return session
    worker = worker_app()
    return worker.session if worker is not None else the_runner().session()
