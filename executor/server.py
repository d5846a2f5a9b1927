"""The engine's end of its socket: connections, requests, and the calls of programs and of workers that call."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

from slipway.compiler.encode import to_wire
from slipway.dsl.errors import DeclarationError, Error, ImageBuildError, InternalError, InvalidError, NotFoundError
from slipway.dsl.version import VERSION

from .calls import Answer
from .channels import Scope
from .engine import Emit, Engine
from .requests import check_parameters, methods
from .worker.frames import PROTOCOL, Flag, Frame, Kind
from .worker.package import code_digest
from .worker.wire import NO_FD, Listener, Wire, peer_uid

log = logging.getLogger("slipway")

GREET_SECONDS = 30.0  # for a connection to say HELLO; until then it would only keep an idle engine from ending
SLOW = 32 << 20  # bytes that a program has not taken yet; beyond it lines of logs are left out, not kept for it
MOST_OF_A_WORKER = 256  # connections of one worker's code: more would take descriptors that others need
LINES = frozenset({"line", "log"})


class Client:
    """One connection: its requests under way, the functions it opened, and the ephemeral apps that end with it."""

    def __init__(self, server: Server, sock: socket.socket, *, scope: Scope | None = None) -> None:
        self._server = server
        self._engine = server.engine
        self.scope = scope or Scope()
        self._requests: dict[int, asyncio.Task[None]] = {}
        self._greeted = False
        self._left_out = 0
        self._wire = Wire(sock, on_frame=self._on_frame, on_closed=self._on_closed)
        self._deadline = asyncio.get_running_loop().call_later(GREET_SECONDS, self._close_stranger)
        self.scope.send = self._wire.send
        self.scope.hold, self.scope.resume = self._wire.pause, self._wire.resume

    # --- frames in ----------------------------------------------------------------------------------

    def _on_frame(self, frame: Frame, fd: int) -> None:
        kind = frame.kind
        if kind == Kind.CALL and self._greeted:
            self._engine.channels.call(self.scope, frame, fd)
            return
        if fd != NO_FD:
            os.close(fd)
        if kind == Kind.HELLO:
            self._hello(frame)
        elif not self._greeted:
            self.close()
        elif kind == Kind.REQUEST and frame.id not in self._requests:
            self._requests[frame.id] = self._server.tasks.create_task(self._request(frame))
        elif kind == Kind.CANCEL:
            self._cancel(frame)
        elif kind == Kind.TAKEN:
            self._engine.channels.taken(self.scope, frame.id, frame.channel)
        else:
            log.warning("a client sent a frame that clients do not send: kind %d, id %d", kind, frame.id)
            self.close()

    def _close_stranger(self) -> None:
        if not self._greeted:
            self.close()

    def _hello(self, frame: Frame) -> None:
        self._greeted = True
        self._deadline.cancel()
        answer = {"protocol": PROTOCOL, "version": VERSION, "code": code_digest(), "pid": os.getpid()}
        self._send_json(Kind.HELLO, frame.id, answer)

    def _cancel(self, frame: Frame) -> None:
        task = self._requests.get(frame.id)
        if task is not None:
            task.cancel()
        else:
            self._engine.channels.cancel(self.scope, frame.id, force=bool(frame.flags & Flag.FORCE))

    def _on_closed(self, _reason: str) -> None:
        self._deadline.cancel()
        for task in self._requests.values():
            task.cancel()
        self._server.forget(self)
        self._engine.leave(self.scope)

    # --- frames out ---------------------------------------------------------------------------------

    def _send_json(self, kind: Kind, ident: int, value: object) -> None:
        self._wire.send(Frame(kind, ident, json.dumps(value).encode()))

    async def _request(self, frame: Frame) -> None:
        ident = frame.id
        try:
            reply = await self._perform(ident, frame.payload)
        except asyncio.CancelledError:
            self._fault(ident, Error("cancelled"))
            raise
        except Error as error:
            self._fault(ident, error)
        except Exception as error:  # the supervisor of a request: a bug of ours must end it, not the engine
            log.exception("request failed")
            self._fault(
                ident, InternalError(f"the engine failed: {error!r}", hint="The engine's log has its traceback.")
            )
        else:
            if isinstance(reply, Answer):
                self._wire.send(reply.frame._replace(id=ident), reply.fd)
            else:
                self._send_json(Kind.REPLY, ident, reply)
        finally:
            self._requests.pop(ident, None)

    async def _perform(self, ident: int, payload: bytes | bytearray | memoryview) -> dict[str, Any] | Answer:
        params = _parameters(payload)
        name = params.pop("method", None)
        method = self._server.methods.get(name) if isinstance(name, str) else None
        if method is None:
            raise NotFoundError(f"the engine knows no such request: {name!r:.80}")
        check_parameters(str(name), params)
        return await method(self.scope, params, partial(self._emit, ident))

    def _emit(self, ident: int, event: dict[str, Any], *descriptors: int) -> None:
        """Send an event. A program that does not read gets no more lines: what it left lying would fill our memory.

        Descriptors follow in frames of their own, without payload.
        """
        if self._wire.buffered > SLOW and event["event"] in LINES:
            self._left_out += 1
            return
        if self._left_out and event["event"] in LINES:
            event = event | {"text": f"[{self._left_out} lines left out: they were not read]\n{event['text']}"}
            self._left_out = 0
        self._send_json(Kind.EVENT, ident, event)
        for descriptor in descriptors:
            self._wire.send(Frame(Kind.EVENT, ident, flags=int(Flag.FD)), descriptor)

    def _fault(self, ident: int, error: Error) -> None:
        fault: dict[str, Any] = {"type": type(error).__name__, "message": error.message, "hint": error.hint}
        if isinstance(error, DeclarationError):
            fault["faults"] = [to_wire(item) for item in error.faults]
        if isinstance(error, ImageBuildError):
            fault["log"] = error.log
        self._send_json(Kind.FAULT, ident, fault)

    def close(self) -> None:
        """Hang up: what it asked for is given up, as when it hangs up itself."""
        if not self._wire.closed:
            self._wire.close()
            self._on_closed("closed here")


def _whole_number(text: str) -> int:
    number = int(text)
    if number >> 63 not in {0, -1}:  # no database and no clock takes it
        raise InvalidError(f"{text:.30} in a request is out of range")
    return number


def _parameters(payload: bytes | bytearray | memoryview) -> dict[str, Any]:
    data = bytes(payload)
    try:
        params = json.loads(data, parse_int=_whole_number)
        if b"\\ud" in data or b"\\uD" in data:  # halves of characters, which no file name and no database takes
            json.dumps(params, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        what = type(error).__name__ if isinstance(error, UnicodeEncodeError) else error  # that would quote all of it
        raise InvalidError(f"a request is not JSON: {what}") from None
    if not isinstance(params, dict):
        raise InvalidError("a request is not a JSON object")
    return params


class Server:
    """Listens on the home's socket. Made with `Server.open`, which closes every connection in the end."""

    def __init__(self, engine: Engine, tasks: asyncio.TaskGroup, ended: asyncio.Event, idle_ms: int | None) -> None:
        self.engine = engine
        self.tasks = tasks
        self.methods = {**methods(engine), "down": self._down}
        self._ended = ended
        self._idle_ms = idle_ms
        self._clients: set[Client] = set()
        self._idle: asyncio.TimerHandle | None = None

    @classmethod
    @asynccontextmanager
    async def open(
        cls, engine: Engine, path: Path, *, ended: asyncio.Event, idle_ms: int | None = None
    ) -> AsyncIterator[Server]:
        async with asyncio.TaskGroup() as tasks:
            server = cls(engine, tasks, ended, idle_ms)
            engine.adopt = server.adopt
            listener = Listener(path, server._accept)
            server._watch_idle()
            try:
                yield server
            finally:
                listener.close()
                for client in tuple(server._clients):
                    client.close()
                if server._idle is not None:
                    server._idle.cancel()

    def _accept(self, sock: socket.socket) -> None:
        uid = peer_uid(sock)
        if uid in {os.getuid(), 0}:
            self.adopt(sock, None)
        else:
            log.warning("refused a connection of user %d", uid)
            sock.close()

    def adopt(self, sock: socket.socket, scope: Scope | None) -> None:
        """Serve a connection; `scope` is that of the worker whose function calls out, None for anybody else."""
        if scope is not None and sum(one.scope.worker == scope.worker for one in self._clients) >= MOST_OF_A_WORKER:
            sock.close()
            return
        self._clients.add(Client(self, sock, scope=scope))
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None

    def forget(self, client: Client) -> None:
        self._clients.discard(client)
        self._watch_idle()

    def _watch_idle(self) -> None:
        """With nobody connected and nothing deployed, end after the idle time."""
        if self._idle_ms is not None and not self._clients and self._idle is None:
            self._idle = asyncio.get_running_loop().call_later(self._idle_ms / 1000, self._end_if_idle)

    def _end_if_idle(self) -> None:
        self._idle = None
        if self._clients:
            return
        if self.engine.is_needed():
            self._watch_idle()
        else:
            log.info("idle and nothing deployed")
            self._ended.set()

    async def _down(self, _scope: Scope, params: dict[str, Any], _emit: Emit) -> dict[str, Any]:
        if params.get("drain", True):
            try:
                await self.engine.drain()
            except asyncio.CancelledError:
                if not self._ended.is_set():  # who asked waits no longer, so we stay
                    self.engine.resume()
                raise
        asyncio.get_running_loop().call_soon(self._ended.set)
        return {"pid": os.getpid()}
