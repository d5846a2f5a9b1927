"""A call that was spawned: its results, for whoever has its id, for as long as the engine keeps them."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator, Mapping
from enum import IntEnum
from typing import Any, Generic, TypeVar

from attrs import field, frozen

from .blocking import warn_in_loop
from .dual import Twins, twin_of
from .later import Later
from .origin import invalid, text_argument
from .session import session_here

R = TypeVar("R")
ID = r"fc-[0-9a-f]{1,16}"


class InputStatus(IntEnum):
    """What became of an input so far."""

    PENDING = 0
    SUCCESS = 1
    FAILURE = 2
    TERMINATED = 3
    TIMEOUT = 4
    INIT_FAILURE = 5


_STATUS = {
    "returned": InputStatus.SUCCESS,
    "raised": InputStatus.FAILURE,
    "cancelled": InputStatus.TERMINATED,
    "timed_out": InputStatus.TIMEOUT,
    "lost": InputStatus.FAILURE,
}


@frozen(kw_only=True)
class InputInfo:
    """An input of a call, and below it those of the calls that its code made."""

    input_id: str
    function_call_id: str
    task_id: str  # the worker that ran it last; "" where none did
    status: InputStatus
    function_name: str
    module_name: str  # that of the app
    children: list[InputInfo] = field(factory=list)


def tree_of(inputs: list[Mapping[str, Any]]) -> list[InputInfo]:
    """The inputs of a call graph, each below the one whose code made its call.

    >>> flat = [dict(input="in-1", call="fc-1", state="returned", function="f", app="a", parent="")]
    >>> flat += [dict(input="in-2", call="fc-2", state="queued", function="M", method="g", app="a", parent="in-1")]
    >>> [(info.function_name, info.status.name) for info in tree_of(flat)[0].children]
    [('M.g', 'PENDING')]
    """
    known = {str(one["input"]): _info(one) for one in inputs}
    tops: list[InputInfo] = []
    for one in inputs:
        parent = known.get(str(one.get("parent") or ""))
        (tops if parent is None else parent.children).append(known[str(one["input"])])
    return tops


def _info(one: Mapping[str, Any]) -> InputInfo:
    started = bool(one.get("started_ms"))
    status = _STATUS.get(str(one["state"]), InputStatus.PENDING)
    if status is InputStatus.FAILURE and not started and "started_ms" in one:
        status = InputStatus.INIT_FAILURE  # it ended before it could be begun: no worker came to be
    name, method = str(one["function"]), str(one.get("method") or "")
    return InputInfo(
        input_id=str(one["input"]),
        function_call_id=str(one["call"]),
        task_id=str(one.get("worker") or ""),
        status=status,
        function_name=f"{name}.{method}" if method else name,
        module_name=str(one.get("app") or ""),
    )


class _Iter(Generic[R]):
    """`call.iter()` gives the results in order, each as it is there; `.aio` the same for `async for`."""

    __slots__ = ("_id", "what")

    def __init__(self, ident: str) -> None:
        self._id = ident
        self.what = f"{ident}.iter"

    def __call__(self, start: int = 0, end: int | None = None) -> Iterator[R]:
        warn_in_loop(self)
        return session_here().results(self._id, *_checked_range(start, end))

    def aio(self, start: int = 0, end: int | None = None) -> AsyncIterator[R]:
        return session_here().results_aio(self._id, *_checked_range(start, end))


async def _gather_aio(*calls: FunctionCall[Any]) -> list[Any]:
    return await session_here().gather_aio(_ids(calls))


def _gather(*calls: FunctionCall[Any]) -> list[Any]:
    """The results of several calls, in their order. Raises what the first of them raised; the others go on."""
    return session_here().gather(_ids(calls))


class FunctionCall(Generic[R]):
    """What `f.spawn(x)` returns. It is no more than an id: keep that, and fetch the result from anywhere, any time.

    >>> call = FunctionCall.from_id("fc-1a2b")
    >>> call.object_id
    'fc-1a2b'
    >>> FunctionCall.from_id("in-1")
    Traceback (most recent call last):
    ...
    slipway.dsl.errors.InvalidError: ...: 'in-1' is not the id of a function call
    They look like fc-199ea1c00001; `slipway call list` shows them.
    """

    __slots__ = ("object_id",)

    logs = Later("FunctionCall.logs", "On the command line: slipway call logs ID.")
    gather = Twins("FunctionCall.gather", _gather, _gather_aio)

    def __init__(self, object_id: str) -> None:
        self.object_id = object_id

    @staticmethod
    def from_id(function_call_id: str, client: object = None) -> FunctionCall[Any]:
        """The call of this id. Nothing is asked before something is wanted of it."""
        if not re.fullmatch(ID, text_argument(function_call_id, "the id of a function call")):
            raise invalid(
                f"{function_call_id!r} is not the id of a function call",
                hint="They look like fc-199ea1c00001; `slipway call list` shows them.",
            )
        return FunctionCall(function_call_id)

    @property
    def title(self) -> str:
        return self.object_id

    async def _get_aio(self, timeout: float | None = None, *, index: int = 0) -> R:
        checked = _checked_index(index), _checked_timeout(timeout)
        return await session_here().result_aio(self.object_id, *checked)  # type: ignore[no-any-return]

    @twin_of(_get_aio)
    def get(self, timeout: float | None = None, *, index: int = 0) -> R:
        """The result, waited for up to `timeout` seconds (None: as long as it takes; 0: only if it is there).

        Raises what the function raised, the builtin `TimeoutError` where it is not over in time, and
        `OutputExpiredError` where the result is kept no longer. It can be had again and again.
        """
        checked = _checked_index(index), _checked_timeout(timeout)
        return session_here().result(self.object_id, *checked)  # type: ignore[no-any-return]

    @property
    def iter(self) -> _Iter[R]:
        """The results of the inputs from `start` on, up to and without `end`, in order, each as it is there."""
        return _Iter(self.object_id)

    async def _num_inputs_aio(self) -> int:
        return int((await session_here().ask_aio("call.count", {"call": self.object_id}))["inputs"])

    @twin_of(_num_inputs_aio)
    def num_inputs(self) -> int:
        """How many inputs the call has; waited for where more of them are coming."""
        return int(session_here().ask("call.count", {"call": self.object_id})["inputs"])

    async def _get_call_graph_aio(self) -> list[InputInfo]:
        return tree_of((await session_here().ask_aio("call.graph", {"call": self.object_id}))["inputs"])

    @twin_of(_get_call_graph_aio)
    def get_call_graph(self) -> list[InputInfo]:
        """The call's inputs as they are now, and below each those of the calls that its code made."""
        return tree_of(session_here().ask("call.graph", {"call": self.object_id})["inputs"])

    async def _cancel_aio(self, terminate_containers: bool = False) -> None:
        await session_here().ask_aio("call.cancel", _cancelling(self.object_id, terminate_containers))

    @twin_of(_cancel_aio)
    def cancel(self, terminate_containers: bool = False) -> None:
        """Give the call up: what waits never begins, what runs is interrupted, or (`terminate_containers`) its worker
        killed. What is over already stays as it is."""
        session_here().ask("call.cancel", _cancelling(self.object_id, terminate_containers))

    async def _hydrate_aio(self, client: object = None) -> FunctionCall[R]:
        await session_here().ask_aio("call.show", {"call": self.object_id, "limit": 1})
        return self

    @twin_of(_hydrate_aio)
    def hydrate(self, client: object = None) -> FunctionCall[R]:
        """Look the call up now. Raises `NotFoundError` where there is none of this id."""
        session_here().ask("call.show", {"call": self.object_id, "limit": 1})
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return FunctionCall, (self.object_id,)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, FunctionCall) and other.object_id == self.object_id

    def __hash__(self) -> int:
        return hash(self.object_id)

    def __repr__(self) -> str:
        return f"<FunctionCall {self.object_id}>"


def _cancelling(call: str, terminate: bool) -> dict[str, Any]:
    return {"call": call, "terminate": bool(terminate)}


def _ids(calls: tuple[FunctionCall[Any], ...]) -> list[str]:
    for call in calls:
        if not isinstance(call, FunctionCall):
            hint = "Write FunctionCall.gather(*calls)." if isinstance(call, list | tuple) else ""
            raise invalid(f"FunctionCall.gather takes calls, not {type(call).__name__}", hint=hint)
    return [call.object_id for call in calls]


def _checked_index(index: int) -> int:
    from .resources import checked_count

    return checked_count("index", index, 0)


def _checked_timeout(timeout: float | None) -> float | None:
    if timeout is not None and not timeout >= 0:
        raise invalid(f"timeout={timeout!r}: it takes seconds, or None to wait as long as it takes")
    return timeout


def _checked_range(start: int, end: int | None) -> tuple[int, int | None]:
    return _checked_index(start), None if end is None else _checked_index(end)
