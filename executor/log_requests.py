"""What programs may ask about logs: what was said, and what is being said."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection
from functools import partial
from typing import Any

from attrs import evolve

from slipway.dsl.errors import InvalidError, NotFoundError

from .calls import Calls
from .channels import Scope
from .engine import Emit, Engine
from .log_query import STREAMS, LogLine, Query, plain

MAX_TAIL = 100_000
TOGETHER = 500  # lines in one event

# What narrows a request for lines down, and whether it goes on with what comes.
QUERY: dict[str, type] = {
    "tail?": int,
    "since_ms?": int,
    "until_ms?": int,
    "function?": str,
    "call?": str,
    "worker?": str,
    "stream?": str,
    "search?": str,
    "follow?": bool,
}


def query_of(params: dict[str, Any]) -> Query:
    """Which lines a request wants. Raises `InvalidError`."""
    stream = params.get("stream", STREAMS[0])
    if stream not in STREAMS:
        raise InvalidError(f"'stream' is {stream!r}, expected one of {', '.join(STREAMS)}")
    named = {name.rstrip("?") for name in QUERY} - {"tail", "follow"}
    given = {name: value for name, value in params.items() if name in named}
    return Query(tail=min(max(params.get("tail", MAX_TAIL), 0), MAX_TAIL), **given)


async def app_logs(engine: Engine, params: dict[str, Any], emit: Emit) -> dict[str, Any]:
    """The lines of an app, by its name or by the id of a run, in events; with `follow` what comes until it ends."""
    asked, query = str(params["app"]), query_of(params)
    serving = [live for live in engine.live.values() if asked in (live.id, live.name)]
    app = serving[0].name if serving else asked
    if asked != app or (asked.startswith("ap-") and not serving):
        query = evolve(query, run=asked)
        app = app if serving else ""  # a run that is over: whose lines lie with its app's
    until = partial(_ended, engine, [live.id for live in serving], query.call) if params.get("follow", False) else None
    told = await tell(engine, app, query, emit, until=until)
    if not told and not serving and asked not in await asyncio.to_thread(engine.logbook.apps):
        raise NotFoundError(f"no app {asked} has run here", hint="What is deployed: slipway app list")
    return {}


async def _ended(engine: Engine, apps: Collection[str], call: str) -> None:
    """Return when the apps are served no longer, or when the call is over that alone is followed."""
    served = [engine.end_of(app) for app in apps]
    ends: list[asyncio.Future[Any]] = [asyncio.ensure_future(asyncio.wait(served))] if served else []
    if call:
        ends.append(asyncio.ensure_future(Calls(engine).wait(Scope(), {"call": call}, _no_event)))
    try:
        if ends:
            done, _ = await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            for end in done:
                end.result()  # a call that nobody knows is said so
    finally:
        for end in (*ends, *served):
            end.cancel()


def _no_event(_event: dict[str, Any], *_: int) -> None:
    """Nobody hears what waiting for a call has to say, which is nothing."""


async def tell(
    engine: Engine, app: str, query: Query, emit: Emit, *, until: Callable[[], Awaitable[None]] | None = None
) -> bool:
    """Send what was said, and where `until` is given what is being said until it returns; tell whether there was any.

    Each line is sent once: what comes while the past is read waits for it. Without an app all are looked into.
    """
    logbook = engine.logbook
    waiting: list[LogLine] = []
    hear: Callable[[LogLine], None] = waiting.append

    def listen(line: LogLine) -> None:
        if query.wants(line):
            hear(line)

    end = logbook.follow(app, listen) if until is not None else None
    try:
        past = await asyncio.to_thread(logbook.read, query, logbook.mark(app)) if query.tail else []
        for start in range(0, len(past), TOGETHER):
            emit({"event": "lines", "lines": [plain(line) for line in past[start : start + TOGETHER]]})
            await asyncio.sleep(0)  # calls go on meanwhile
        for line in waiting:
            emit({"event": "line", **plain(line)})
        hear = lambda line: emit({"event": "line", **plain(line)})  # noqa: E731 - from here on
        if until is not None:
            await until()
    finally:
        if end is not None:
            end()
    return bool(past)
