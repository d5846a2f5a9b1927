"""The port through which handles act: whoever runs the user's program sets a `Session`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator
from contextvars import ContextVar
from typing import Any, Protocol

from attrs import frozen


@frozen(kw_only=True)
class FunctionRef:
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
