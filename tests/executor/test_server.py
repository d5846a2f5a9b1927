"""An engine's socket against peers that break every rule: it answers others, forgets them, and ends when told."""

from __future__ import annotations

import array
import asyncio
import functools
import json
import os
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from fakes import FakeRuntime

from slipway.executor.channels import Scope
from slipway.executor.engine import Engine
from slipway.executor.home import Home
from slipway.executor.server import MOST_OF_A_WORKER, Server
from slipway.executor.worker.frames import HEADER, Frame, Kind, pack
from slipway.executor.worker.wire import Listener


def on_a_loop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    @functools.wraps(test)
    def run(**fixtures: Any) -> None:
        asyncio.run(asyncio.wait_for(test(**fixtures), 30))

    return run


class Peer:
    """A client that sends what it likes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    def ask(self, ident: int, value: object) -> None:
        self.send(pack(Frame(Kind.REQUEST, ident, value if isinstance(value, bytes) else json.dumps(value).encode())))

    async def receive(self) -> tuple[int, int, dict[str, Any]] | None:
        """A frame's kind, id and JSON; None when the engine has hung up."""
        try:
            header = await self.reader.readexactly(HEADER.size)
        except (asyncio.IncompleteReadError, ConnectionResetError):
            return None
        kind, _, _, _, ident, _, length = HEADER.unpack(header)
        return kind, ident, json.loads(await self.reader.readexactly(length))

    async def answer(self, ident: int, value: object) -> dict[str, Any]:
        self.ask(ident, value)
        got = await self.receive()
        assert got is not None and got[1] == ident
        return got[2]


class Place:
    def __init__(self, server: Server, path: Path) -> None:
        self.server = server
        self.path = path

    @asynccontextmanager
    async def peer(self, *, greets: bool = True) -> AsyncIterator[Peer]:
        reader, writer = await asyncio.open_unix_connection(self.path)
        peer = Peer(reader, writer)
        try:
            if greets:
                peer.send(pack(Frame(Kind.HELLO, payload=b"{}")))
                await peer.receive()
            yield peer
        finally:
            writer.close()


@asynccontextmanager
async def served(home: Path) -> AsyncIterator[Place]:
    """An engine on a fake runtime, and its socket. Its end is waited for, so what is left behind hangs the test."""
    Home(home).create()
    async with (
        Engine.open(Home(home), runtimes=(FakeRuntime(),)) as engine,
        Server.open(engine, home / "engine.sock", ended=asyncio.Event()) as server,
    ):
        yield Place(server, home / "engine.sock")


@on_a_loop
async def test_a_request_that_is_none_is_refused_in_words(tmp_path: Path) -> None:
    requests: tuple[tuple[object, str], ...] = (
        (b"", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b'{"method": "status", "app": "\\ud800"}', "not JSON"),
        ([], "not a JSON object"),
        ({"method": [1]}, "no such request: [1]"),
        ({"method": "plan"}, "'declaration' is missing"),
        ({"method": "plan", "declaration": []}, "'declaration' is list, expected dict"),
        ({"method": "plan", "declaration": {}, "secrets": {"a": {"KEY": 1}}}, "the secret a is not"),
        ({"method": "app.logs", "app": "x", "tail": "all"}, "'tail' is str, expected int"),
        ({"method": "app.logs", "app": "x", "tail": 2**63 - 1}, "no app x has run here"),
        ({"method": "call.get", "call": "fc-1", "index": 2**63}, "9223372036854775808 in a request is out of range"),
        ({"method": "call.wait", "call": "fc-1", "timeout_ms": -(10**400)}, "in a request is out of range"),
        ({"method": "call.show", "call": "fc-ffffffffffffffff"}, "'fc-ffffffffffffffff' is not the id of a call"),
        ({"method": "destroy", "app": "x", "volumes": [1]}, "not all names"),
    )
    async with served(tmp_path) as place, place.peer() as peer:
        for ident, (request, says) in enumerate(requests):
            answer = await peer.answer(ident, request)
            assert says in answer["message"]
            assert answer["type"] != "InternalError"


@on_a_loop
async def test_whoever_breaks_the_protocol_is_forgotten_and_its_requests_end(tmp_path: Path) -> None:
    async with served(tmp_path) as place:
        forever = asyncio.get_running_loop().create_future()

        async def wait(*_: object) -> dict[str, Any]:
            await forever
            return {}

        place.server.methods["wait"] = wait
        for broken in (
            pack(Frame(Kind.READY)),
            pack(Frame(Kind.REQUEST, 1, b"{}")),
            HEADER.pack(2, 0, 0, 0, 2, 0, 1 << 63),
        ):
            async with place.peer() as peer:
                peer.ask(1, {"method": "wait"})
                peer.send(broken)
                while await peer.receive() is not None:
                    pass
        async with place.peer(greets=False) as peer:
            peer.ask(1, {"method": "status"})
            assert await peer.receive() is None
        assert not place.server._clients


@on_a_loop
async def test_one_worker_does_not_get_connections_without_end(tmp_path: Path) -> None:
    async with served(tmp_path) as place:
        pairs = [socket.socketpair() for _ in range(MOST_OF_A_WORKER + 1)]
        for number, (ours, _) in enumerate(pairs):
            place.server.adopt(ours, Scope(worker="w1"))
            assert (ours.fileno() == -1) == (number == MOST_OF_A_WORKER)
        for _, theirs in pairs:
            theirs.close()
        async with place.peer() as peer:
            assert (await peer.answer(1, {"method": "status"}))["apps"] == []


@on_a_loop
async def test_an_engine_ends_though_somebody_waits_for_an_answer(tmp_path: Path) -> None:
    async with served(tmp_path) as place, place.peer() as peer, place.peer() as other:

        async def wait(*_: object) -> dict[str, Any]:
            return await asyncio.get_running_loop().create_future()  # type: ignore[no-any-return]

        place.server.methods["wait"] = wait
        peer.ask(1, {"method": "wait"})
        await other.answer(1, {"method": "status"})


@on_a_loop
async def test_descriptors_without_frames_are_not_collected(tmp_path: Path) -> None:
    async with served(tmp_path) as place:
        before = len(os.listdir("/proc/self/fd"))
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(str(place.path))
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [0] * 20))]
        sock.sendmsg([pack(Frame(Kind.HELLO, payload=b"{}"))], rights)
        sock.setblocking(False)
        loop = asyncio.get_running_loop()
        while await loop.sock_recv(sock, 4096):
            pass
        sock.close()
        assert len(os.listdir("/proc/self/fd")) == before


@on_a_loop
async def test_out_of_descriptors_nobody_new_is_let_in_until_there_are_some(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    accepted: asyncio.Queue[socket.socket] = asyncio.Queue()
    listener = Listener(tmp_path / "sock", accepted.put_nowait)
    refused = asyncio.Event()

    class Full:
        def accept(self) -> None:
            refused.set()
            raise OSError(24, "Too many open files")

        def fileno(self) -> int:
            return real.fileno()

    real = listener._sock
    monkeypatch.setattr("slipway.executor.worker.wire.REST", 0.0)
    monkeypatch.setattr(listener, "_sock", Full())
    _, writer = await asyncio.open_unix_connection(tmp_path / "sock")
    await refused.wait()
    monkeypatch.setattr(listener, "_sock", real)
    (await accepted.get()).close()
    writer.close()
    listener.close()
