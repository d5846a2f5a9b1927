"""The way of a call without the rest of an engine: a socket, a dispatcher, workers as plain subprocesses."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from local_runtime import LocalProcessRuntime
from our_code import our_code as our_code
from small_ledger import SmallLedger

from slipway.compiler.facts import BaseFact
from slipway.executor.dispatch import Dispatcher
from slipway.executor.ears import Ears
from slipway.executor.engine import SystemClock
from slipway.executor.inputs import Input, Send
from slipway.executor.pool import Pool, PoolSpec
from slipway.executor.ports import CallRow, ContainerSpec
from slipway.executor.scaling import PoolLimits
from slipway.executor.worker import package
from slipway.executor.worker.frames import PROTOCOL, Flag, Frame, Kind, Outcome
from slipway.executor.worker.host import FunctionStart, Place, WorkerSpec
from slipway.executor.worker.logs import Line
from slipway.executor.worker.wire import Listener, Wire

APP = "app"


def pool_spec(root: Path, function: str, limits: PoolLimits, *, module: str = "app", **start: Any) -> PoolSpec:
    """A pool for `<root>/root/app.py:function`."""
    container = ContainerSpec(name="x", base=BaseFact(identity=(("local", "1"),)), trees=(str(root),))
    worker = WorkerSpec(
        container=container,
        function=FunctionStart(
            app=APP, name=function, module=module, qualname=function, session="slipway.session:connect_worker", **start
        ),
        startup_timeout=20.0,
        cwd="/root",
    )
    return PoolSpec(key=f"{APP} {function}", app=APP, function=function, limits=limits, worker=worker)


def input_of(dispatcher: Dispatcher, pool: Pool, frame: Frame, fd: int, send: Send, call: int = 0) -> Input:
    """What a CALL asks for, as the engine makes it."""
    return Input(
        dispatcher.numbers.next_input(),
        pool,
        send,
        call=call,
        ident=frame.id,
        payload=frame.payload,
        fd=fd,
        fd_length=frame.fd_length,
        parent=frame.call,
    )


class SmallEngine:
    """Serves clients on `socket_path`. Lives on one loop; `specs` may be added to at any time."""

    def __init__(self, home: Path, code: Path) -> None:
        self.home = home
        self.runtime = LocalProcessRuntime()
        self.specs: dict[str, PoolSpec] = {}
        self.lines: list[tuple[str, Line]] = []
        self.records: list[CallRow] = []
        self.over: list[tuple[int, int, Outcome, str]] = []  # attempts that another one followed
        self.socket_path = home / "engine.sock"
        self._channels: list[tuple[PoolSpec, int]] = []  # with the number of the call that all inputs are of, or 0
        self.open_channels = 0
        self.taken: list[int] = []  # items of generators, as their consumers told of them
        self.inputs: list[Input] = []
        self.told: dict[str, Any] = {"queued": 1, "running": 2, "workers": 3, "headroom": 4}
        place = Place(runtime=self.runtime, run=home / "run", code=code)
        ears = Ears(
            on_records=self.records.extend,
            on_line=self._on_line,
            on_client=self._on_client,
            on_attempt_over=self._on_attempt_over,
        )
        self.dispatcher = Dispatcher(place, SystemClock(), ears)
        self.ledger = SmallLedger(self.dispatcher)
        self._asking: set[asyncio.Task[None]] = set()
        self._listener = Listener(self.socket_path, self._serve)
        self._wires: set[Wire] = set()

    def _on_line(self, spec: PoolSpec, worker: str, line: Line) -> None:
        self.lines.append((spec.function, line))

    def _on_attempt_over(self, given: Input, outcome: Outcome, reason: str) -> None:
        self.over.append((given.ident, given.attempts, outcome, reason))

    def _on_client(self, spec: PoolSpec, worker: str, sock: socket.socket) -> None:
        self._serve(sock)

    def _serve(self, sock: socket.socket) -> None:
        calls: dict[int, int] = {}

        def on_frame(frame: Frame, fd: int) -> None:
            if frame.kind == Kind.CALL:
                spec, together = self._channels[frame.channel]
                pool = self.dispatcher.open_pool(spec)
                if frame.flags & Flag.DURABLE:
                    self.ledger.take(pool, frame, fd, together, wire.send)
                    return
                given = input_of(self.dispatcher, pool, frame, fd, wire.send, together)
                calls[frame.id] = given.number
                self.inputs.append(given)
                self.dispatcher.submit(given)
            elif frame.kind == Kind.TAKEN and frame.id in calls:
                self.taken.append(frame.channel)
                self.dispatcher.taken(calls[frame.id], frame.channel)
            elif frame.kind == Kind.CANCEL and frame.id in calls:
                self.dispatcher.cancel(calls[frame.id], force=bool(frame.flags & 8))
            elif frame.kind == Kind.HELLO:
                hello = {"protocol": PROTOCOL, "version": "0", "code": package.code_digest(), "pid": os.getpid()}
                wire.send(Frame(Kind.HELLO, payload=json.dumps(hello).encode()))
            elif frame.kind == Kind.REQUEST:
                self._request(wire, frame)

        def on_closed(reason: str) -> None:
            self._wires.discard(wire)
            for number in calls.values():
                self.dispatcher.cancel(number, force=True)

        wire = Wire(sock, on_frame, on_closed)
        self._wires.add(wire)

    def _request(self, wire: Wire, frame: Frame) -> None:
        params = json.loads(bytes(frame.payload))

        def answer(ident: int, value: dict[str, Any]) -> None:
            kind = Kind.FAULT if "type" in value else Kind.REPLY
            wire.send(Frame(kind, ident, json.dumps({"hint": "", **value} if kind == Kind.FAULT else value).encode()))

        if params["method"] == "function.open" and params["function"] in self.specs:
            spec = self.specs[params["function"]]
            together = self.ledger.open() if params.get("together") else 0
            self._channels.append((spec, together))
            self.open_channels += 1
            wire.send(Frame(Kind.EVENT, frame.id, b'{"event": "opening"}'))
            reply = {"channel": len(self._channels) - 1, "is_generator": spec.worker.function.is_generator}
            answer(frame.id, {**reply, "call": f"fc-{together:x}"} if together else reply)
        elif params["method"] == "function.close":
            self.open_channels -= 1
            answer(frame.id, {})
        elif params["method"] == "function.stats":
            answer(frame.id, self.told)
        elif params["method"].startswith("call."):
            task = asyncio.get_running_loop().create_task(self.ledger.answer(frame.id, params, answer, wire.send))
            self._asking.add(task)
            task.add_done_callback(self._asking.discard)
        else:
            answer(frame.id, {"type": "NotFoundError", "message": f"no {params['method']}", "hint": "look"})

    def hang_up(self) -> None:
        for wire in tuple(self._wires):
            wire.close()
        self._wires.clear()

    async def close(self) -> None:
        self.hang_up()
        self._listener.close()
        for task in self._asking:
            task.cancel()
        await self.dispatcher.close()
        await self.runtime.close()


class EngineThread:
    """A `SmallEngine` on a loop in a thread of its own, for tests of blocking programs."""

    def __init__(self, home: Path, code: Path, new_loop: Any = asyncio.new_event_loop) -> None:
        self._ready = threading.Event()
        self._home, self._code = home, code
        self.loop: asyncio.AbstractEventLoop = new_loop()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        self._ready.wait()

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_until_complete(self._main())
        self.loop.close()

    async def _main(self) -> None:
        self._ended = asyncio.Event()
        self.engine = SmallEngine(self._home, self._code)
        self._ready.set()
        await self._ended.wait()
        await self.engine.close()

    def add(self, spec: PoolSpec) -> None:
        self.engine.specs[spec.function] = spec

    def on_loop(self, act: Any) -> None:
        done = threading.Event()

        def run() -> None:
            act()
            done.set()

        self.loop.call_soon_threadsafe(run)
        done.wait()

    def close(self) -> None:
        self.loop.call_soon_threadsafe(self._ended.set)
        self._thread.join()


@contextmanager
def small_engine(new_loop: Any = asyncio.new_event_loop) -> Iterator[EngineThread]:
    with tempfile.TemporaryDirectory(prefix="slipway-") as home:
        thread = EngineThread(Path(home), our_code(), new_loop)
        try:
            yield thread
        finally:
            thread.close()
