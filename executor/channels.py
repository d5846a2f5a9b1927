"""What connections call: functions that they have opened, and the inputs that they send to them."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from attrs import define, field

from slipway.dsl.errors import Error, NotFoundError

from .feeder import QueueKey, Site
from .inputs import Input, Send, call_id
from .intake import Fresh
from .launch import LiveApp
from .pool import Pool, PoolSpec
from .worker.frames import Flag, Frame, Kind, Outcome
from .worker.wire import NO_FD

if TYPE_CHECKING:
    from .engine import Engine

VARIANT = ("parameters", "options", "secrets")  # of "function.open": what sets a variant apart
CANCELLED = b"the call was cancelled"
_MORE = int(Flag.MORE)
_DURABLE = int(Flag.DURABLE)
_RESULT = int(Kind.RESULT)


def _nothing(_why: str) -> None: ...


@define(eq=False)
class Scope:
    """What one connection has: the functions that it opened, its calls under way, and the apps that it may name.

    `apps` maps names to ids, for ephemeral apps; any other name is that of a deployed app.
    """

    send: Send = lambda _frame, _fd: None
    apps: dict[str, str] = field(factory=dict)
    owned: list[str] = field(factory=list)  # ids of the ephemeral apps that end with this connection
    channels: dict[int, Target] = field(factory=dict)
    worker: str = ""  # the name of the worker whose code has this connection
    calls: dict[int, int] = field(factory=dict)  # the client's id of a call -> ours
    hold: Callable[[str], None] = _nothing  # replaced by whoever reads from the connection: stop for a reason …
    resume: Callable[[str], None] = _nothing  # … and go on

    def answer(self, frame: Frame, fd: int) -> None:
        if not frame.flags & _MORE:
            self.calls.pop(frame.id, None)
        self.send(frame, fd)


@define(eq=False)
class Target:
    """A function as a connection opened it: of this app, whichever deployment of it is in force when it is called.

    `opening` is what sets its variant apart. With `call` all that is sent is one function call, and `index` counts.
    """

    key: QueueKey
    opening: dict[str, Any]
    method: str
    parent: int = 0
    call: int = 0
    index: int = 0
    durable: bool = False  # whether something was spawned
    refused: bool = False  # its function call was cancelled
    live: LiveApp | None = None  # where all but the last come from
    site: Site | None = None
    pool: Pool | None = None
    method_index: int = 0
    is_async: bool = False
    is_generator: bool = False
    trouble: bytes = b""  # why it can't be called
    waiting: list[tuple[Frame, int]] = field(factory=list)  # until it is known where they go


class Channels:
    """The calls of all connections of an engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._ledger = engine.ledger
        self._numbers = itertools.count(1)
        self._together: dict[int, Target] = {}  # function calls that may get more inputs

    async def open(self, scope: Scope, params: dict[str, Any]) -> tuple[int, Target]:
        """A channel for calls of a function. Raises `NotFoundError` or `InvalidError`."""
        engine = self._engine
        run = scope.apps.get(params["app"], params["app"])
        engine.spec_of(run, params["function"])
        opening = {name: params[name] for name in VARIANT if params.get(name)}
        variant = engine.seal.mac("variant", {"opening": json.dumps(opening, sort_keys=True)}) if opening else ""
        key = QueueKey(run=run, app=engine.live[run].name, function=params["function"], variant=variant)
        target = Target(key, opening, str(params.get("member", "")), int(params.get("parent", 0)))
        await self._renew(target)
        if params.get("together"):
            target.call = engine.numbers.next_input()
            self._together[target.call] = target
        number = next(self._numbers)
        scope.channels[number] = target
        return number, target

    async def _renew(self, target: Target) -> None:
        """Find where a function runs now. Raises where it can't be called any more."""
        engine, key = self._engine, target.key
        spec = engine.spec_of(key.run, key.function)
        live = engine.live[key.run]
        if target.opening or spec.worker.function.methods:
            spec = await engine.launcher.variant(live, key.function, target.opening)
        self._settle(target, live, spec)

    async def refresh(self, target: Target) -> None:
        """Have a target know what is in force now. Raises where its function can't be called any more."""
        if target.live is not self._engine.live.get(target.key.run):
            await self._renew(target)

    def is_open(self, call: int) -> bool:
        """Whether a function call may get more inputs."""
        return call in self._together

    def _settle(self, target: Target, live: LiveApp, spec: PoolSpec) -> None:
        function = spec.worker.function
        names = [name for name, _, _ in function.methods]
        if target.method and target.method not in names:
            known = f"It has: {', '.join(names)}." if names else "It is a plain function."
            raise NotFoundError(f"{spec.function} has no method {target.method}", hint=known)
        # A class without a method can be asked about and not called.
        target.trouble = b"it is a class: call a method of it" if names and not target.method else b""
        target.method_index = names.index(target.method) if target.method else 0
        of_method = function.methods[target.method_index] if target.method else ("", function.is_async, False)
        target.is_async = of_method[1]
        target.is_generator = of_method[2] if target.method else function.is_generator
        target.site = Site(dispatcher=self._engine.dispatchers[live.runtime], spec=spec)
        target.pool = None
        target.live = live

    def close(self, scope: Scope, number: int) -> None:
        """Let go of a channel; what was sent on it goes on. Raises `NotFoundError`."""
        target = self.find(scope, number)
        del scope.channels[number]
        self._seal_later(target)

    def find(self, scope: Scope, number: int) -> Target:
        """Raises `NotFoundError`."""
        target = scope.channels.get(number)
        if target is None:
            raise NotFoundError(f"channel {number} was not opened")
        return target

    # --- inputs

    def call(self, scope: Scope, frame: Frame, fd: int) -> None:
        """Take a CALL; its RESULT goes to `scope.send`, whatever happens."""
        target = scope.channels.get(frame.channel)
        if target is None:
            _refuse(scope, frame, fd, Outcome.LOST, b"channel %d was not opened" % frame.channel)
        elif frame.id in scope.calls:  # of two calls with one id neither could be given up
            _refuse(scope, frame, fd, Outcome.LOST, b"call %d of this connection is under way" % frame.id)
        elif frame.call >> 63:  # no database takes it
            _refuse(scope, frame, fd, Outcome.LOST, b"%d is not the number of an input" % frame.call)
        elif target.refused:
            _refuse(scope, frame, fd, Outcome.CANCELLED, CANCELLED)
        elif target.trouble:
            _refuse(scope, frame, fd, Outcome.LOST, target.trouble)
        elif target.waiting:
            target.waiting.append((frame, fd))
        elif target.live is not self._engine.live.get(target.key.run):
            self._call_when_known(scope, target, frame, fd)
        elif frame.flags & _DURABLE:
            self._spawn(scope, target, frame, fd)
        else:
            self._submit(scope, target, frame, fd)

    def _submit(self, scope: Scope, target: Target, frame: Frame, fd: int) -> None:
        site, pool = target.site, target.pool
        assert site is not None, "it is set with the app"
        if pool is None or pool.placement.draining:
            pool = target.pool = site.dispatcher.open_pool(site.spec)
        number = scope.calls[frame.id] = self._engine.numbers.next_input()
        index = target.index
        target.index = index + 1
        site.dispatcher.submit(
            Input(
                number,
                pool,
                scope.answer,
                call=target.call,
                ident=frame.id,
                payload=frame.payload,
                fd=fd,
                fd_length=frame.fd_length,
                method=target.method_index,
                parent=frame.call or target.parent,
                index=index if target.call else 0,
            )
        )

    def _call_when_known(self, scope: Scope, target: Target, frame: Frame, fd: int) -> None:
        """The app was deployed anew, or has ended, since the function was called last."""
        target.waiting.append((frame, fd))
        if target.opening or target.method:
            self._engine.in_background(self._renew_and_call(scope, target))
            return
        live = self._engine.live.get(target.key.run)
        error: Error | None = None
        try:
            spec = self._engine.spec_of(target.key.run, target.key.function)
            assert live is not None, "an app that has a function is there"
            self._settle(target, live, spec)
        except NotFoundError as found:
            error = found
        self._go_on(scope, target, error)

    async def _renew_and_call(self, scope: Scope, target: Target) -> None:
        error: Error | None = None
        try:
            await self._renew(target)
        except Error as found:
            error = found
        self._go_on(scope, target, error)

    def _go_on(self, scope: Scope, target: Target, error: Error | None) -> None:
        waiting, target.waiting = target.waiting, []
        for frame, fd in waiting:
            if error is not None:
                _refuse(scope, frame, fd, Outcome.LOST, str(error).encode())
            else:
                self.call(scope, frame, fd)

    # --- durable ones

    def _spawn(self, scope: Scope, target: Target, frame: Frame, fd: int) -> None:
        if target.is_generator:
            _refuse(scope, frame, fd, Outcome.LOST, b"a generator can't be spawned: call it with remote_gen")
            return
        number = self._engine.numbers.next_input()
        index = target.index
        target.index = index + 1
        target.durable = True

        def answer(came: int | Error) -> None:
            if isinstance(came, Error):
                scope.send(Frame(_RESULT, frame.id, str(came).encode(), 0, 0, Outcome.LOST), NO_FD)
            else:
                scope.send(Frame(_RESULT, frame.id, b"", 0, _DURABLE, Outcome.RETURNED, 0, came), NO_FD)

        fresh = Fresh(
            number,
            frame.payload,
            answer,
            call=target.call,
            index=index if target.call else 0,
            method=target.method,
            parent=frame.call or target.parent,
            sealed=not target.call,
            fd=fd,
            length=frame.fd_length,
        )
        self._ledger.take(target.key, json.dumps(target.opening), fresh)
        if self._ledger.intake.is_full:
            scope.hold("the ledger is full")
            self._ledger.intake.on_room(partial(scope.resume, "the ledger is full"))

    async def seal(self, scope: Scope, call: int) -> None:
        """No more inputs come for a function call of this connection. Raises `NotFoundError`."""
        target = next((target for target in scope.channels.values() if target.call == call), None)
        if target is None:
            raise NotFoundError(f"this program has no open call {call_id(call)}")
        target.refused = True
        await self._seal(target)

    async def _seal(self, target: Target) -> None:
        self._together.pop(target.call, None)
        await self._ledger.seal(target.key, json.dumps(target.opening), target.call, target.method, target.parent)

    def _seal_later(self, target: Target) -> None:
        if self._together.pop(target.call, None) is None:
            return
        if target.durable:
            self._engine.in_background(self._seal(target))
        else:
            self._ledger.waits.tell_sealed(target.call)

    # --- giving up

    def cancel(self, scope: Scope, ident: int, *, force: bool) -> None:
        """Give up a call of a connection; unknown and finished ones are let be."""
        number = scope.calls.get(ident)
        if number is not None:
            for dispatcher in self._engine.dispatchers.values():
                dispatcher.cancel(number, force=force)
            return
        for target in scope.channels.values():
            for frame, fd in target.waiting:
                if frame.id == ident:
                    target.waiting.remove((frame, fd))
                    _refuse(scope, frame, fd, Outcome.CANCELLED, CANCELLED)
                    return

    def refuse(self, call: int) -> None:
        """A function call was cancelled: it takes no more inputs."""
        target = self._together.get(call)
        if target is not None:
            target.refused = True
            self._seal_later(target)

    def taken(self, scope: Scope, ident: int, count: int) -> None:
        """A connection took so many more items of a generator."""
        number = scope.calls.get(ident)
        if number is not None:
            for dispatcher in self._engine.dispatchers.values():
                dispatcher.taken(number, count)

    def leave(self, scope: Scope) -> None:
        """A connection has gone: its calls are given up, those that are durable get no more inputs."""
        scope.send = _drop
        for ident in tuple(scope.calls):
            self.cancel(scope, ident, force=True)
        for target in scope.channels.values():
            for frame, fd in target.waiting:
                _refuse(scope, frame, fd, Outcome.CANCELLED, CANCELLED)
            target.waiting.clear()
            self._seal_later(target)


def _refuse(scope: Scope, frame: Frame, fd: int, outcome: Outcome, reason: bytes) -> None:
    if fd != NO_FD:
        os.close(fd)
    scope.send(Frame(_RESULT, frame.id, reason, 0, 0, outcome), NO_FD)


def _drop(_frame: Frame, fd: int) -> None:
    if fd != NO_FD:
        os.close(fd)
