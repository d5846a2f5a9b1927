"""Frames: the one wire format between user programs, the engine and workers. Nothing here waits, sleeps, opens or spawns.

A frame is a 24-byte header and a payload. The same frames travel between a user program and the engine and between
the engine and a worker, so the engine can pass a payload on without looking at it.
"""

from __future__ import annotations

import struct
from enum import IntEnum, IntFlag
from typing import NamedTuple

HEADER = struct.Struct("<BBHIQQ")  # kind, flags, outcome, channel, id, length
MAX_PAYLOAD = 1 << 40
PROTOCOL = 1


class Kind(IntEnum):
    """What a frame is. Control payloads are JSON, payloads of CALL and RESULT are opaque."""

    HELLO = 1  # both ways, once, first: {"protocol", "version", "code", "role": "client"|"worker", …}
    REQUEST = 2  # client → engine: {"method": str, …}; answered by EVENT* and one REPLY or FAULT of the same id
    EVENT = 3  # engine → client: {"event": str, …}
    REPLY = 4
    FAULT = 5  # {"type", "message", "hint", "faults"?}
    CALL = 6  # id: the call, channel: the function (from the REPLY to "function.open"); payload: pickled (args, kwargs)
    RESULT = 7  # id: the call; outcome: an `Outcome`; payload: pickled result, pickled failure, or UTF-8 reason
    CANCEL = 8  # id: the call or request to give up
    START = 9  # engine → worker: {"function": {…}}; the worker imports, then answers READY or FAILED
    READY = 10
    FAILED = 11  # worker → engine: start-up failed; payload as that of a raised RESULT


class Flag(IntFlag):
    NONE = 0
    FD = 1  # the payload is not in the stream: it lies in the memfd that came with this header
    MORE = 2  # of a RESULT: one item of a generator, more follow (later release)


class Outcome(IntEnum):
    """How a call ended; exactly one."""

    RETURNED = 0
    RAISED = 1
    TIMED_OUT = 2
    CANCELLED = 3
    LOST = 4


class Frame(NamedTuple):
    kind: int
    id: int = 0
    payload: bytes | bytearray | memoryview = b""
    channel: int = 0
    flags: int = 0
    outcome: int = 0


class FrameError(Exception):
    """The peer sent something that is no frame; the connection is of no more use."""


def pack(frame: Frame) -> bytes:
    """The header of a frame followed by its payload (the header alone where the payload travels as a descriptor)."""
    kind, ident, payload, channel, flags, outcome = frame
    header = HEADER.pack(kind, flags, outcome, channel, ident, len(payload))
    return header if flags & Flag.FD else header + payload


class Decoder:
    """Bytes in, frames out. FD frames come out with an empty payload and their length in `fd_length`.

    >>> decoder = Decoder()
    >>> decoder.feed(pack(Frame(Kind.CALL, 7, b"abc"))[:20])
    []
    >>> [frame.payload for frame in decoder.feed(pack(Frame(Kind.CALL, 7, b"abc"))[20:])]
    [b'abc']
    """

    __slots__ = ("_buffer", "limit")

    def __init__(self, limit: int = MAX_PAYLOAD) -> None:
        self._buffer = bytearray()
        self.limit = limit

    def feed(self, data: bytes | bytearray | memoryview) -> list[Frame]:
        """Take what came; return the frames that are now whole. Raises `FrameError`."""
        buffer = self._buffer
        buffer += data
        frames: list[Frame] = []
        at, end, size = 0, len(buffer), HEADER.size
        while end - at >= size:
            kind, flags, outcome, channel, ident, length = HEADER.unpack_from(buffer, at)
            if not 1 <= kind <= Kind.FAILED or length > self.limit:
                raise FrameError(f"not a slipway frame: kind {kind}, length {length}")
            inline = 0 if flags & Flag.FD else length
            if end - at - size < inline:
                break
            at += size
            frames.append(Frame(kind, ident, bytes(buffer[at : at + inline]), channel, flags, outcome))
            at += inline
        if at:
            del buffer[:at]
        return frames
