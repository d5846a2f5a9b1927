"""Frames: the one wire format of user programs, engine and workers. Nothing here waits, sleeps, opens or spawns.

A frame is a 32-byte header and a payload. The same frames travel between a user program and the engine and between
the engine and a worker, so the engine can pass a payload on without looking at it.
"""

from __future__ import annotations

import struct
from enum import IntEnum, IntFlag
from typing import NamedTuple

HEADER = struct.Struct("<BBHIQQQ")  # kind, flags, outcome, channel, id, call, length
HEADER_SIZE = HEADER.size
MAX_PAYLOAD = 1 << 40
PROTOCOL = 2


class Kind(IntEnum):
    """What a frame is. Control payloads are JSON, payloads of CALL and RESULT are opaque."""

    HELLO = 1  # both ways, once, first: {"protocol", "version", "code", "role": "client"|"worker"|"control", …}
    REQUEST = 2  # client → engine: {"method": str, …}; answered by EVENT* and one REPLY or FAULT of the same id
    EVENT = 3  # engine → client: {"event": str, …}; with FD: a descriptor that belongs to the one before
    REPLY = 4
    FAULT = 5  # {"type", "message", "hint", "faults"?}
    CALL = 6  # see `Frame`; payload: pickled (args, kwargs)
    RESULT = 7  # id: that of the CALL; outcome: an `Outcome`; payload: pickled result, pickled failure, or UTF-8 reason
    CANCEL = 8  # id: the input or request to give up; with FORCE also where it has started
    START = 9  # engine → worker: {"function": {…}}; the worker imports, then answers READY or FAILED
    READY = 10
    FAILED = 11  # worker → engine: start-up failed; payload as that of a raised RESULT
    RECALL = 12  # engine → worker: give an input back if it has not started; answered by RECALL, outcome 1: given back
    STREAM = 13  # engine → worker, before START: what came with it is the pipe for stdout (channel 1) or stderr (2)
    TAKEN = 14  # client → engine → worker (control): the consumer of generator `id` took `channel` more of its items
    FORK = 15  # engine → template: fork worker `id`: {"socket", "token", "env"}; CANCEL: send it the signal `channel`
    ENDED = 16  # template → engine: fork `id` has ended, wait status `channel`; outcome 1: it was not made, with why


class Flag(IntFlag):
    NONE = 0
    FD = 1  # the payload is not in the stream: it lies in the descriptor that came with this header
    MORE = 2  # of a RESULT: one item of a generator, `channel` its index; of a CALL to a worker: its batch goes on
    OUTPUT = 4  # of a worker's RESULT: the call has printed, so drain its pipes before passing the result on
    FORCE = 8  # of a CANCEL: interrupt the call even where it has started
    DURABLE = 16  # of a client's CALL: answer as soon as it is on disk, by a RESULT with `call` set and no payload


class Outcome(IntEnum):
    """How a call ended; exactly one."""

    RETURNED = 0
    RAISED = 1
    TIMED_OUT = 2
    CANCELLED = 3
    LOST = 4


Payload = bytes | bytearray | memoryview


class Frame(NamedTuple):
    """`fd_length` is the size of a payload that travels as a descriptor (flag FD); `payload` is then empty.

    A CALL from a client: `id` is of its own choice, `channel` that of the function (from the REPLY to "function.open"),
    `call` the number of the input whose code calls (0: none does). A CALL to a worker: `id` is the number of the input,
    `call` that of the function call which it is part of, `channel` counts what was sent to the worker, and `outcome`
    is which of the methods in START it is for (0 where there are none).
    """

    kind: int
    id: int = 0
    payload: Payload = b""
    channel: int = 0
    flags: int = 0
    outcome: int = 0
    fd_length: int = 0
    call: int = 0


class FrameError(Exception):
    """The peer sent something that is no frame; the connection is of no more use."""


def mark(token: str, call: int | None) -> bytes:
    """What a worker writes into its output before that of a call, or (None) after it: see `logs`."""
    return f"\x1e{token}:{'' if call is None else call}\n".encode()


_FD = int(Flag.FD)
_RESULT = int(Kind.RESULT)
_LAST_KIND = int(max(Kind))
_LAST_OUTCOME = int(max(Outcome))
_ALL_FLAGS = int(Flag.FD | Flag.MORE | Flag.OUTPUT | Flag.FORCE | Flag.DURABLE)


def pack(frame: Frame) -> bytes:
    """The header of a frame followed by its payload (the header alone where the payload travels as a descriptor).

    >>> len(pack(Frame(Kind.CALL, 7, b"abc"))), len(pack(Frame(Kind.CALL, 7, flags=Flag.FD, fd_length=1 << 20)))
    (35, 32)
    """
    kind, ident, payload, channel, flags, outcome, fd_length, call = frame
    if flags & _FD:
        return HEADER.pack(kind, flags, outcome, channel, ident, call, fd_length)
    return HEADER.pack(kind, flags, outcome, channel, ident, call, len(payload)) + payload


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
        held = self._buffer
        if held:
            held += data
            source: bytes | bytearray | memoryview = held
        else:
            source = data  # the usual case: whole frames, read where they lie
        frames: list[Frame] = []
        at, end = 0, len(source)
        while end - at >= HEADER_SIZE:
            kind, flags, outcome, channel, ident, call, length = HEADER.unpack_from(source, at)
            wrong = not 1 <= kind <= _LAST_KIND or (outcome > _LAST_OUTCOME and kind == _RESULT)
            if wrong or flags & ~_ALL_FLAGS or length > self.limit:
                raise FrameError(f"not a slipway frame: kind {kind}, flags {flags}, outcome {outcome}, length {length}")
            at += HEADER_SIZE
            if flags & _FD:
                frames.append(Frame(kind, ident, b"", channel, flags, outcome, length, call))
                continue
            if end - at < length:
                at -= HEADER_SIZE
                break
            frames.append(Frame(kind, ident, bytes(source[at : at + length]), channel, flags, outcome, 0, call))
            at += length
        if source is held:
            del held[:at]
        elif at < end:
            held += source[at:] if at else source
        return frames
