"""Durable calls for `SmallEngine`: kept in memory, with results to fetch by the id of the call."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from slipway.executor.dispatch import Dispatcher
from slipway.executor.inputs import Input, call_id
from slipway.executor.pool import Pool
from slipway.executor.worker.frames import Flag, Frame, Kind, Outcome

Send = Callable[[Frame, int], None]
Answer = Callable[[int, dict[str, Any]], None]  # to a request: REPLY, or FAULT where it has a "type"


class SmallLedger:
    """What became of each input of each call; a future until it is over."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher
        self._calls: dict[str, list[asyncio.Future[Frame]]] = {}
        self._numbers: dict[str, list[int]] = {}
        self._sealed: dict[str, asyncio.Event] = {}
        self.refused: set[bytes] = set()  # payloads that can't be taken
        self.parents: list[int] = []
        self.lost: set[str] = set()  # calls whose results have expired

    def open(self) -> int:
        """A call with many inputs."""
        number: int = self._dispatcher.numbers.next_input()
        self._calls[call_id(number)], self._numbers[call_id(number)] = [], []
        self._sealed[call_id(number)] = asyncio.Event()
        return number

    def take(self, pool: Pool, frame: Frame, fd: int, together: int, send: Send) -> None:
        """Take an input of a call of its own (`together` 0), or of one with many."""
        if bytes(frame.payload) in self.refused:
            send(Frame(Kind.RESULT, frame.id, b"the disk is full", outcome=Outcome.LOST), -1)
            return
        number = self._dispatcher.numbers.next_input()
        call = together or number
        done: asyncio.Future[Frame] = asyncio.get_running_loop().create_future()
        self._calls.setdefault(call_id(call), []).append(done)
        self._numbers.setdefault(call_id(call), []).append(number)
        if not together:
            self._sealed[call_id(call)] = asyncio.Event()
            self._sealed[call_id(call)].set()
        self.parents.append(frame.call)
        given = Input(
            number,
            pool,
            lambda result, _fd: done.set_result(result),
            call=call,
            payload=frame.payload,
            fd=fd,
            fd_length=frame.fd_length,
            durable=True,
        )
        self._dispatcher.submit(given)
        send(Frame(Kind.RESULT, frame.id, b"", 0, Flag.DURABLE, 0, 0, call), -1)

    async def answer(self, ident: int, params: dict[str, Any], answer: Answer, send: Send) -> None:
        method, call = params["method"], params["call"]
        if call not in self._calls:
            answer(ident, {"type": "NotFoundError", "message": f"no call {call}"})
        elif method == "call.get":
            await self._get(ident, params, answer, send)
        elif method == "call.seal":
            self._sealed[call].set()
            answer(ident, {})
        elif method == "call.count":
            await self._sealed[call].wait()
            answer(ident, {"inputs": len(self._calls[call])})
        elif method == "call.cancel":
            for number in self._numbers[call]:
                self._dispatcher.cancel(number, force=True)
            answer(ident, {"queued": 0, "running": 0})
        elif method == "call.graph":
            inputs = [
                {"input": f"in-{n:x}", "call": call, "state": "returned", "function": "f", "app": "app", "parent": ""}
                for n in self._numbers[call]
            ]
            answer(ident, {"inputs": inputs})

    async def _get(self, ident: int, params: dict[str, Any], answer: Answer, send: Send) -> None:
        inputs = self._calls[params["call"]]
        timeout = params.get("timeout_ms")
        if params["call"] in self.lost:
            answer(ident, {"type": "OutputExpiredError", "message": "its results are kept no longer"})
        elif params["index"] >= len(inputs):
            answer(ident, {"type": "NotFoundError", "message": f"{params['call']} has no input {params['index']}"})
        else:
            waiting = asyncio.shield(inputs[params["index"]])
            try:
                frame = await asyncio.wait_for(waiting, None if timeout is None else timeout / 1000)
            except TimeoutError:
                answer(ident, {"type": "Pending", "message": "not yet"})
            else:
                send(Frame(Kind.RESULT, ident, frame.payload, 0, 0, frame.outcome), -1)
