"""Requests about functions and function calls: see docs/wire.md."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Sequence
from operator import itemgetter
from typing import Any, NamedTuple, TypeVar

from attrs import asdict

from slipway.dsl.declaration import Autoscaling
from slipway.dsl.errors import Error, InvalidError, NotFoundError, OutputExpiredError

from .call_views import attempt_view, call_view, in_graph, input_view, is_in_state, unwritten
from .channels import VARIANT, Scope, Target
from .engine import Emit, Engine
from .feeder import Site
from .inputs import Input, call_id
from .scaling import PoolLimits, rescaled
from .store.call_reads import STATES, FunctionCall, Result
from .waits import FINISHED, SEALED
from .worker.frames import Flag, Frame, Kind, Outcome
from .worker.wire import NO_FD

T = TypeVar("T")
KEEP_LONGER = "To keep results longer: keep_results below [calls] in config.toml."
_ID = re.compile(r"(?:fc|in)-([0-7]?[0-9a-f]{1,15})")  # what a database takes for a number
IN_MEMFD = 1 << 20  # bytes from which on a result is passed on as a descriptor
MOST_LISTED = 10_000
_SCALE: dict[str, type] = {
    "min_containers?": int,
    "max_containers?": int,
    "buffer_containers?": int,
    "scaledown_window?": int,
}
_CALL: dict[str, type] = {"call": str}
PARAMETERS: dict[str, dict[str, type]] = {
    "function.open": {
        "app": str,
        "function": str,
        "member?": str,
        "together?": bool,
        "parent?": int,
        **{f"{name}?": dict for name in VARIANT},
    },
    "function.close": {"channel": int},
    "function.stats": {"channel": int},
    "function.scaling": {"channel": int},
    "function.scale": {"channel": int, **_SCALE},
    "call.get": {**_CALL, "index?": int, "timeout_ms?": int, "parent?": int},
    "call.seal": _CALL,
    "call.count": _CALL,
    "call.wait": {**_CALL, "timeout_ms?": int, "parent?": int},
    "call.list": {"app?": str, "function?": str, "state?": str, "limit?": int, "before?": str},
    "call.show": {**_CALL, "start?": int, "limit?": int},
    "call.graph": _CALL,
    "call.cancel": {**_CALL, "terminate?": bool},
    "call.retry": _CALL,
}


class Pending(Error):
    """What was waited for is not there in time; not one of the errors that users meet."""


class Answer(NamedTuple):
    """The RESULT that answers a request in the place of a REPLY."""

    frame: Frame
    fd: int = NO_FD


Handler = Callable[[Scope, dict[str, Any], Emit], Awaitable[Any]]


class Calls:
    """Each method takes the connection's scope, the parameters as they came, and what sends an event."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._ledger = engine.ledger
        self._reads = engine.state.call_reads

    def methods(self) -> dict[str, Handler]:
        return {
            "function.open": self.open_function,
            "function.close": self.close_function,
            "function.stats": self.stats,
            "function.scaling": self.scaling,
            "function.scale": self.scale,
            "call.get": self.get,
            "call.seal": self.seal,
            "call.count": self.count,
            "call.wait": self.wait,
            "call.list": self.list_calls,
            "call.show": self.show,
            "call.graph": self.graph,
            "call.cancel": self.cancel,
            "call.retry": self.retry,
        }

    # --- functions ------------------------------------------------------------------------------------

    async def open_function(self, scope: Scope, params: dict[str, Any], _emit: Emit) -> dict[str, Any]:
        number, target = await self._engine.channels.open(scope, params)
        reply = {"channel": number, "is_async": target.is_async, "is_generator": target.is_generator}
        reply |= {"is_class": True} if target.trouble else {}
        return reply | ({"call": call_id(target.call)} if target.call else {})

    async def close_function(self, scope: Scope, params: dict[str, Any], _emit: Emit) -> dict[str, Any]:
        self._engine.channels.close(scope, params["channel"])
        return {}

    async def stats(self, scope: Scope, params: dict[str, Any], _emit: Emit) -> dict[str, Any]:
        target, site = await self._function(scope, params)
        waiting = self._ledger.waiting(target.key)
        pool = site.dispatcher.pools.get(site.spec.key)
        if pool is None:
            return dict.fromkeys(("running", "workers", "headroom", "done", "failed"), 0) | {"queued": waiting}
        counts = asdict(pool.counts())
        return counts | {"queued": counts["queued"] + waiting}

    async def scaling(self, scope: Scope, params: dict[str, Any], _emit: Emit) -> dict[str, Any]:
        _, site = await self._function(scope, params)
        pool = site.dispatcher.pools.get(site.spec.key)
        return _scaling(site.spec.limits if pool is None else pool.placement.limits)

    async def scale(self, scope: Scope, params: dict[str, Any], _emit: Emit) -> dict[str, Any]:
        _, site = await self._function(scope, params)
        pool = site.dispatcher.open_pool(site.spec)
        given = {name: value for name, value in params.items() if name != "channel"}
        said = _scaling(pool.placement.limits) | given
        site.dispatcher.rescale(pool, rescaled(pool.placement.limits, _checked(said)))
        return _scaling(pool.placement.limits)

    async def _function(self, scope: Scope, params: dict[str, Any]) -> tuple[Target, Site]:
        """What a channel is of, and where that runs now."""
        target = self._engine.channels.find(scope, params["channel"])
        await self._engine.channels.refresh(target)
        assert target.site is not None, "it is known of a target that was refreshed"
        return target, target.site

    # --- results --------------------------------------------------------------------------------------

    async def get(self, _scope: Scope, params: dict[str, Any], _emit: Emit) -> Answer:
        call, index = await self._call(params), params.get("index", 0)
        found = await self._in_time(params, call, lambda: self._result(call, index), index, SEALED)
        if found.expired:
            raise OutputExpiredError(f"the result of {call_id(call)} is not kept any more", hint=KEEP_LONGER)
        frame = Frame(Kind.RESULT, channel=index, outcome=found.outcome or 0, call=call)
        if found.outcome not in (Outcome.RETURNED, Outcome.RAISED):
            return Answer(frame._replace(payload=found.reason.encode()))
        if found.size is None:
            return Answer(frame._replace(payload=found.result or b""))
        files, where = self._ledger.files, (found.number, "out", found.size)
        try:
            if found.size < IN_MEMFD:
                return Answer(frame._replace(payload=await asyncio.to_thread(files.read, *where)))
            fd = await asyncio.to_thread(files.open, *where)
        except OSError as error:
            path = files.path(found.number, "out")
            raise Error(f"the result of {call_id(call)} can't be read: {path}: {error.strerror}") from None
        return Answer(frame._replace(flags=int(Flag.FD), fd_length=found.size), fd)

    async def _result(self, call: int, index: int) -> Result | None:
        """How an input ended; None before that. Raises `NotFoundError` where there is none and none comes any more."""
        found = await self._reads.result(call, index)
        if found is not None:
            return None if found.outcome is None else found
        row = await self._spawned(call)
        if row is not None and row.queue is None:
            raise NotFoundError(f"{call_id(call)} was not spawned: its results went to whoever called")
        if row is not None and row.sealed:
            raise NotFoundError(f"{call_id(call)} has {row.inputs} inputs, and none of index {index}")
        return None

    async def _spawned(self, call: int) -> FunctionCall | None:
        """What is written of a call; None where nothing is yet. Raises `NotFoundError` where nothing will be."""
        row = await self._reads.call(call)
        if row is None and not self._engine.channels.is_open(call):
            raise _unknown(call_id(call))
        return row

    async def seal(self, scope: Scope, params: dict[str, Any], _emit: Emit) -> dict[str, Any]:
        await self._engine.channels.seal(scope, number_of(params["call"]))
        return {}

    async def count(self, _scope: Scope, params: dict[str, Any], _emit: Emit) -> dict[str, Any]:
        call = await self._call(params)

        async def look() -> FunctionCall | None:
            row = await self._spawned(call)
            return row if row is not None and row.sealed and not self._engine.channels.is_open(call) else None

        row: FunctionCall = await self._in_time(params, call, look, SEALED)
        return {"inputs": row.inputs}

    async def wait(self, _scope: Scope, params: dict[str, Any], _emit: Emit) -> dict[str, Any]:
        call = await self._call(params)

        async def look() -> FunctionCall | None:
            if call in self._engine.calls_under_way():
                return None
            await self._engine.recorded()
            row = await self._spawned(call)
            over = row is not None and row.finished_ms is not None and not self._engine.channels.is_open(call)
            return row if over else None

        row: FunctionCall = await self._in_time(params, call, look, FINISHED, SEALED)
        return {"call": call_view(row, ())}

    async def _in_time(
        self, params: dict[str, Any], call: int, look: Callable[[], Awaitable[T | None]], *ends: int
    ) -> T:
        """What `look` finds, when it does; it looks again when one of `ends` has happened to the call.

        Raises `Pending` when the time is over. The input that waits leaves its worker's place to others meanwhile.
        """
        waits, parent = self._ledger.waits, params.get("parent", 0)
        loop = asyncio.get_running_loop()
        until = loop.time() + params["timeout_ms"] / 1000 if "timeout_ms" in params else None
        if parent:
            self._engine.waits(parent, 1)
        try:
            while True:
                heard = waits.join(call, *ends)  # first, so that nothing is missed between looking and waiting
                try:
                    found = await look()
                    if found is not None:
                        return found
                    left = None if until is None else until - loop.time()
                    if left is not None and left <= 0:
                        raise Pending(f"{call_id(call)} is not over yet")
                    await asyncio.wait((heard,), timeout=left)
                finally:
                    waits.leave(call, heard, *ends)
        finally:
            if parent:
                self._engine.waits(parent, -1)

    # --- looking --------------------------------------------------------------------------------------

    async def list_calls(self, _scope: Scope, params: dict[str, Any], _emit: Emit) -> dict[str, Any]:
        state = params.get("state")
        if state is not None and state not in STATES:
            raise InvalidError(f"{state!r} is no state of a call", hint=f"Calls are: {', '.join(STATES)}.")
        limit = min(max(params.get("limit", 100), 1), MOST_LISTED)
        app, function = params.get("app"), params.get("function")
        before = number_of(params["before"]) if "before" in params else None
        await self._engine.recorded()
        now = self._engine.calls_under_way()
        found = await self._reads.calls(app=app, function=function, state=state, before=before, limit=limit)
        rows = {row.number: row for row in found}
        rows |= {row.number: row for row in await self._reads.some_calls(now.keys() - rows.keys())}
        for number in now.keys() - rows.keys():
            rows[number] = unwritten(now[number], self._engine.at_ms)
        views = [
            (row.number, call_view(row, now.get(row.number, ())))
            for row in rows.values()
            if app in (None, row.app, row.run) and function in (None, row.function, f"{row.function}.{row.method}")
            if before is None or row.number < before
        ]
        chosen = sorted((view for view in views if is_in_state(view[1], state)), key=itemgetter(0), reverse=True)
        return {"calls": [view for _, view in chosen[:limit]]}

    async def show(self, _scope: Scope, params: dict[str, Any], _emit: Emit) -> dict[str, Any]:
        call = await self._call(params)
        start, limit = max(params.get("start", 0), 0), min(max(params.get("limit", 100), 1), MOST_LISTED)
        await self._engine.recorded()
        here = self._engine.calls_under_way().get(call, ())
        row = await self._known(call, here)
        found = {one.place: one for one in await self._reads.inputs(call, start=start, limit=limit + 1)}
        running = {given.index: given for given in here}
        indexes = sorted(found.keys() | {index for index in running if index >= start})
        history = await self._reads.attempts(one.number for one in found.values())
        attempts: dict[int, list[dict[str, Any]]] = {}
        for attempt in history:
            attempts.setdefault(attempt.input, []).append(attempt_view(attempt))
        inputs = [
            input_view(call, found.get(index), running.get(index), self._engine.at_ms) for index in indexes[:limit]
        ]
        return {
            "call": call_view(row, here),
            "inputs": [view | {"history": attempts.get(number, [])} for number, view in inputs],
            "more": len(indexes) > limit,
        }

    async def graph(self, _scope: Scope, params: dict[str, Any], _emit: Emit) -> dict[str, Any]:
        """The inputs of a call and, level by level, those of the calls that they made."""
        call = await self._call(params)
        await self._engine.recorded()
        now, at_ms = self._engine.calls_under_way(), self._engine.at_ms
        level = [await self._known(call, now.get(call, ()))]
        inputs: list[dict[str, Any]] = []
        while level and len(inputs) < MOST_LISTED:
            numbers: set[int] = set()
            for row in level:
                here = {given.index: given for given in now.get(row.number, ())}
                room = MOST_LISTED - len(inputs)
                found = {one.place: one for one in await self._reads.inputs(row.number, limit=room)}
                for index in sorted(found.keys() | here.keys())[:room]:
                    number, view = input_view(row.number, found.get(index), here.get(index), at_ms)
                    numbers.add(number)
                    inputs.append(view | in_graph(row))
            children = {child.number: child for child in await self._reads.children(numbers, MOST_LISTED)}
            made = {number: unwritten(here, at_ms) for number, here in now.items() if here[0].parent in numbers}
            level = list((made | children).values())
        return {"inputs": inputs}

    # --- doing ----------------------------------------------------------------------------------------

    async def cancel(self, _scope: Scope, params: dict[str, Any], _emit: Emit) -> dict[str, Any]:
        call = await self._call(params)
        terminate = params.get("terminate", False)
        self._engine.channels.refuse(call)
        row = await self._reads.call(call)
        here = self._engine.calls_under_way().get(call, ())
        if row is None and not here and not self._engine.channels.is_open(call):
            raise _unknown(call_id(call))
        queued = running = 0
        for given in here:
            if not given.durable:
                runs = given.pool.runs(given.number)
                queued, running = queued + (not runs), running + runs
                self._engine.cancel(given.number, terminate=terminate)
        if (row is not None and row.queue is not None) or any(given.durable for given in here):
            more = await self._ledger.cancel(call, terminate=terminate)
            queued, running = queued + more[0], running + more[1]
        return {"queued": queued, "running": running}

    async def retry(self, _scope: Scope, params: dict[str, Any], _emit: Emit) -> dict[str, Any]:
        return {"inputs": await self._ledger.retry(await self._call(params))}

    async def _known(self, call: int, here: Sequence[Input]) -> FunctionCall:
        """What is known of a call whose inputs in memory these are. Raises `NotFoundError`."""
        row = await self._reads.call(call)
        if row is None and not here:
            raise _unknown(call_id(call))
        return row or unwritten(here, self._engine.at_ms)

    async def _call(self, params: dict[str, Any]) -> int:
        """The number of the function call that is meant, by its own id or that of an input."""
        said = params["call"]
        number = number_of(said)
        if not said.startswith("in-"):
            return number
        here = self._engine.find(number)
        if here is not None:
            return here.call
        await self._engine.recorded()
        call = await self._reads.call_of(number)
        if call is None:
            raise _unknown(said)
        return call


def _unknown(ident: str) -> NotFoundError:
    what = "input" if ident.startswith("in-") else "call"
    return NotFoundError(f"no {what} {ident} is known here", hint="What is known: slipway call list")


def number_of(ident: str) -> int:
    """The number in an id. Raises `InvalidError`.

    >>> number_of("fc-ff"), number_of("in-10")
    (255, 16)
    """
    match = _ID.fullmatch(ident)
    if match is None:
        hint = "They look like fc-19f1c2b3a40001: slipway call list"
        raise InvalidError(f"{ident!r:.80} is not the id of a call", hint=hint)
    return int(match[1], 16)


def _scaling(limits: PoolLimits) -> dict[str, Any]:
    return {
        "min_containers": limits.min_workers,
        "max_containers": None if limits.elastic else limits.max_workers,
        "buffer_containers": limits.buffer_workers,
        "scaledown_window": round(limits.idle),
    }


def _checked(said: dict[str, Any]) -> Autoscaling:
    """The autoscaler's settings. Raises `InvalidError`."""
    low, high = said["min_containers"], said["max_containers"]
    for name in ("min_containers", "max_containers", "buffer_containers"):
        least = 1 if name == "max_containers" else 0
        if said[name] is not None and said[name] < least:
            raise InvalidError(f"{name} is {said[name]}: it must be {least} or more")
    if not 2 <= said["scaledown_window"] <= 3600:
        raise InvalidError(f"scaledown_window is {said['scaledown_window']}: it must be from 2 to 3600 seconds")
    if high is not None and low > high:
        raise InvalidError(f"min_containers is {low}, and max_containers {high}", hint="Say both, the first smaller.")
    return Autoscaling(
        min_containers=low,
        max_containers=high,
        buffer_containers=said["buffer_containers"],
        scaledown_window_ms=said["scaledown_window"] * 1000,
    )
