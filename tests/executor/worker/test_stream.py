"""A blocking connection: what it does with payloads that are too big for the stream."""

from __future__ import annotations

import errno
import os
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from slipway.executor.worker import payload
from slipway.executor.worker.frames import Frame, Kind, pack
from slipway.executor.worker.stream import NO_FD, Stream, StreamClosed


class Boxed:
    """A socket as gVisor has them: descriptors come in, and none go out."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self.tries = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)

    def sendmsg(self, *_: object) -> int:
        self.tries += 1
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


def received(stream: Stream) -> tuple[Frame, int]:
    while True:
        for found in stream.receive():
            return found


def sent(stream: Stream, packed: payload.Packed) -> threading.Thread:
    thread = threading.Thread(target=stream.send_payload, args=(Frame(Kind.RESULT, 7), packed))
    thread.start()
    return thread


def test_a_big_payload_travels_as_a_descriptor(pair: tuple[socket.socket, socket.socket]) -> None:
    packed = payload.dump(bytes(payload.IN_MEMFD))
    Stream(pair[0]).send_payload(Frame(Kind.RESULT, 7), packed)
    frame, fd = received(Stream(pair[1]))
    assert (frame.fd_length, frame.payload) == (packed.size, b"")
    assert payload.load_fd(fd, frame.fd_length) == bytes(payload.IN_MEMFD)


def test_where_none_can_be_sent_it_goes_inline_and_that_is_known_from_then_on(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    boxed = Boxed(pair[0])
    stream, other = Stream(boxed), Stream(pair[1])  # type: ignore[arg-type] # a socket in all that is used
    for number in range(2):
        thread = sent(stream, payload.dump(bytes([number]) * payload.IN_MEMFD))
        frame, fd = received(other)
        thread.join()
        assert fd == NO_FD and payload.load(frame.payload) == bytes([number]) * payload.IN_MEMFD
    assert boxed.tries == 1


def test_a_peer_that_is_gone_is_said(pair: tuple[socket.socket, socket.socket]) -> None:
    pair[1].close()
    with pytest.raises(StreamClosed):
        Stream(pair[0]).send_payload(Frame(Kind.RESULT, 7), payload.dump(bytes(payload.IN_MEMFD)))


def test_a_frame_that_was_interrupted_is_finished_before_the_next() -> None:
    """Ctrl-C while the peer takes no more: what follows must not be read as the rest of that frame."""
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    sender, receiver = Stream(one), Stream(other)

    def interrupt() -> None:
        raise KeyboardInterrupt

    for _ in range(2):  # the second is interrupted before its first byte, and never begun
        with pytest.raises(KeyboardInterrupt):
            sender.send(pack(Frame(Kind.CALL, 1, bytes(4 << 20))), while_full=interrupt)
    sending = threading.Thread(target=sender.send, args=(pack(Frame(Kind.CANCEL, 1)),))
    sending.start()
    got: list[Frame] = []
    while len(got) < 2:
        got += [frame for frame, _ in receiver.receive()]
    sending.join()
    assert [(frame.kind, len(frame.payload)) for frame in got] == [(Kind.CALL, 4 << 20), (Kind.CANCEL, 0)]
    assert not sender.is_sending
    sender.close()
    receiver.close()
