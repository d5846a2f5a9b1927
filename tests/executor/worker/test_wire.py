"""Frames over a real socket: descriptors, back-pressure, several frames a write, peers that go or talk nonsense."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest

from slipway.executor.worker import wire as wires
from slipway.executor.worker.frames import HEADER_SIZE, Flag, Frame, Kind, pack
from slipway.executor.worker.wire import NO_FD, Listener, Wire, peer_uid


class End:
    """One end of a pair: what it got, and events to wait on."""

    def __init__(self, sock: socket.socket) -> None:
        self.frames: list[Frame] = []
        self.contents: list[bytes] = []
        self.reason: str | None = None
        self.changed = asyncio.Event()
        self.wire = Wire(sock, self.on_frame, self.on_closed)

    def on_frame(self, frame: Frame, fd: int) -> None:
        self.frames.append(frame)
        if fd != NO_FD:
            self.contents.append(os.pread(fd, frame.fd_length, 0))
            os.close(fd)
        self.changed.set()

    def on_closed(self, reason: str) -> None:
        self.reason = reason
        self.changed.set()

    async def until(self, count: int) -> None:
        while len(self.frames) < count and self.reason is None:
            self.changed.clear()
            await self.changed.wait()

    async def until_closed(self) -> str:
        while self.reason is None:
            self.changed.clear()
            await self.changed.wait()
        return self.reason


def memfd(data: bytes) -> int:
    fd = os.memfd_create("test")
    os.write(fd, data)
    return fd


def run(main: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(main, 20))


def test_frames_and_descriptors_arrive_in_order() -> None:
    async def main() -> None:
        left, right = (End(sock) for sock in socket.socketpair())
        before = len(os.listdir("/proc/self/fd"))
        for i in range(100):
            if i % 3:
                left.wire.send(Frame(Kind.CALL, i, b"x" * i))
            else:
                data = f"payload {i}".encode()
                left.wire.send(Frame(Kind.CALL, i, flags=int(Flag.FD), fd_length=len(data)), memfd(data))
        await right.until(100)
        assert [frame.id for frame in right.frames] == list(range(100))
        assert right.contents == [f"payload {i}".encode() for i in range(0, 100, 3)]
        assert len(os.listdir("/proc/self/fd")) == before, "every descriptor is closed again"
        left.wire.close()
        assert await right.until_closed() == "the peer closed the connection"

    run(main())


def test_what_is_sent_while_reading_goes_out_in_one_write() -> None:
    async def main() -> None:
        a, b = socket.socketpair()
        c, d = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)  # keeps the bounds of writes
        out = End(c)
        relay = Wire(b, lambda frame, fd: out.wire.send(frame), lambda reason: None)
        a.sendall(b"".join(pack(Frame(Kind.CALL, i)) for i in range(50)))
        d.setblocking(False)
        assert len(await asyncio.get_running_loop().sock_recv(d, 1 << 20)) == 50 * HEADER_SIZE
        relay.close()
        out.wire.close()
        a.close()
        d.close()

    run(main())


def test_a_peer_that_does_not_read_is_not_read_from(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wires, "HIGH_WATER", 1 << 20)
    monkeypatch.setattr(wires, "LOW_WATER", 1 << 16)

    async def main() -> None:
        left, right = (End(sock) for sock in socket.socketpair())
        right.wire.pause()
        for i in range(40):
            left.wire.send(Frame(Kind.EVENT, i, bytes(100_000)))
        assert left.wire.buffered > 1 << 20
        right.wire.send(Frame(Kind.REQUEST, 1))
        for _ in range(5):
            await asyncio.sleep(0)
        assert left.frames == []
        right.wire.resume()
        await right.until(40)
        await left.until(1)
        assert left.wire.buffered == 0
        left.wire.close()
        right.wire.close()

    run(main())


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"GET / HTTP/1.1\r\nHost: localhost\r\n", "not a slipway frame"),
        (pack(Frame(Kind.CALL, 1, flags=int(Flag.FD), fd_length=10)), "without its payload"),
    ],
)
def test_nonsense_closes_the_wire(data: bytes, says: str) -> None:
    async def main() -> None:
        ours, theirs = socket.socketpair()
        end = End(ours)
        theirs.sendall(data)
        assert says in await end.until_closed()
        assert end.wire.closed and end.frames == []
        theirs.close()

    run(main())


def test_a_frame_that_nobody_can_handle_ends_its_connection_and_nothing_else(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        ours, theirs = socket.socketpair()
        end = End(ours)
        end.wire.on_frame = lambda frame, fd: json.loads(bytes(frame.payload))
        theirs.sendall(pack(Frame(Kind.CALL, 7, b"x")) + pack(Frame(Kind.CALL, 8, b"x")))
        assert await end.until_closed() == "it sent what could not be handled"
        theirs.close()

    run(main())
    assert [record.getMessage() for record in caplog.records] == ["a frame could not be handled: kind 6, id 7"]


def test_a_descriptor_that_is_shorter_than_it_says_is_refused() -> None:
    async def main() -> None:
        left, right = (End(sock) for sock in socket.socketpair())
        left.wire.send(Frame(Kind.CALL, 1, flags=int(Flag.FD), fd_length=1000), memfd(b"short"))
        assert "without its payload" in await right.until_closed()
        left.wire.close()

    run(main())


def test_a_listener_takes_its_place_at_any_length_of_path_and_clears_it(tmp_path: Path) -> None:
    path = tmp_path / ("x" * 100) / "engine.sock"
    path.parent.mkdir()

    async def main() -> None:
        got: asyncio.Queue[socket.socket] = asyncio.Queue()
        listener = Listener(path, got.put_nowait)
        from slipway.executor.worker.stream import connect

        theirs = connect(path)
        ours = await got.get()
        assert peer_uid(ours) == os.getuid()
        ours.close()
        theirs.close()
        listener.close()
        assert not path.exists()

    run(main())
