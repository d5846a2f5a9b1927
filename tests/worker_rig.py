"""A real worker program with the test as its engine: frames by hand, over real sockets, without an event loop."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

from our_code import our_code

from slipway.executor.worker import failure, payload
from slipway.executor.worker.frames import Flag, Frame, Kind, Outcome, pack
from slipway.executor.worker.host import FunctionStart
from slipway.executor.worker.logs import Line, Splitter
from slipway.executor.worker.stream import NO_FD, Stream, StreamClosed

PATIENCE = 30.0
TOKEN = "t0ken"


class Unsuccessful(Exception):
    """An input ended without a result and without an exception."""

    def __init__(self, outcome: Outcome, reason: str) -> None:
        super().__init__(reason)
        self.outcome = outcome
        self.reason = reason


class Rig:
    """One worker. Everything that waits gives up after `PATIENCE` seconds."""

    def __init__(self, folder: Path, start: FunctionStart, python: str = sys.executable) -> None:
        self.run = folder / "run"
        self.run.mkdir()
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(self.run / "engine.sock"))
        listener.listen()
        listener.settimeout(PATIENCE)
        code = our_code()
        program = code / "lib/slipway/executor/worker/main.py"
        self.process = subprocess.Popen(
            [python, str(program), str(self.run), str(code), str(folder)],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            env={"PATH": os.environ["PATH"], "SLIPWAY_WORKER_TOKEN": "secret"},
        )
        self._numbers = count(100)
        self._sequence = count(1)
        self._came: deque[tuple[Frame, int]] = deque()
        self._splitter = Splitter(TOKEN)
        self.lines: list[Line] = []
        self.link = self._greeted(listener)
        self._pipes = {}
        for stream in (1, 2):
            ours, theirs = os.pipe()
            os.set_blocking(ours, False)
            self._pipes[stream] = ours
            self.link.send(pack(Frame(Kind.STREAM, channel=stream, flags=Flag.FD)), theirs)
            os.close(theirs)
        self.link.send(pack(Frame(Kind.START, payload=start.message(TOKEN, "w7"))))
        first = self._until(lambda frame: frame.kind in (Kind.READY, Kind.FAILED))
        self.failed = failure.unpack(bytes(first.payload)) if first.kind == Kind.FAILED else None
        if self.failed is None:
            self.control = self._greeted(listener)
        listener.close()

    def _greeted(self, listener: socket.socket) -> Stream:
        sock, _ = listener.accept()
        sock.settimeout(PATIENCE)
        stream = Stream(sock)
        ((hello, _),) = stream.receive()
        assert hello.kind == Kind.HELLO
        return stream

    # --- inputs

    def call(self, *args: Any, **kwargs: Any) -> Any:
        """Call it and wait for what becomes of that."""
        return self.result(self.begin(*args, **kwargs))

    def begin(self, *args: Any, **kwargs: Any) -> int:
        return self.send(args, kwargs)

    def send(self, args: Any, kwargs: Any = None, *, method: int = 0, more: bool = False, call: int = 0) -> int:
        """Send an input; its number."""
        number = next(self._numbers)
        flags = Flag.MORE if more else 0
        data = payload.dump((tuple(args), kwargs or {}))
        frame = Frame(Kind.CALL, number, b"", next(self._sequence), flags, method, call=call)
        self.link.send_payload(frame, data)
        return number

    def batch(self, *inputs: Any) -> list[int]:
        return [self.send(args, more=place < len(inputs)) for place, args in enumerate(inputs, start=1)]

    def answer(self, number: int) -> tuple[Frame, Any]:
        """The next RESULT for an input, with its value where it has one."""
        frame, fd = self._next(lambda frame: frame.kind == Kind.RESULT and frame.id == number)
        value = None
        if frame.outcome == Outcome.RETURNED:
            value = payload.load(frame.payload) if fd == NO_FD else payload.load_fd(fd, frame.fd_length)
        return frame, value

    def result(self, number: int) -> Any:
        frame, value = self.answer(number)
        if frame.outcome == Outcome.RAISED:
            raise failure.unpack(bytes(frame.payload))
        if frame.outcome != Outcome.RETURNED:
            raise Unsuccessful(Outcome(frame.outcome), bytes(frame.payload).decode())
        return value

    def items(self, number: int, *, take: bool = True) -> Iterator[Any]:
        """The items of a generator; each is said to be taken. In the end its own end, or what it raised."""
        for index in count():
            frame, value = self.answer(number)
            if not frame.flags & Flag.MORE:
                if frame.outcome == Outcome.RAISED:
                    raise failure.unpack(bytes(frame.payload))
                if frame.outcome != Outcome.RETURNED:
                    raise Unsuccessful(Outcome(frame.outcome), bytes(frame.payload).decode())
                assert value == index
                return
            assert frame.channel == index
            yield value
            if take:
                self.taken(number, 1)

    # --- orders

    def cancel(self, number: int, sequence: int = 0) -> None:
        self.control.send(pack(Frame(Kind.CANCEL, number, b"", sequence, Flag.FORCE)))

    def taken(self, number: int, items: int) -> None:
        self.control.send(pack(Frame(Kind.TAKEN, number, b"", items)))

    def recall(self, number: int, sequence: int) -> bool:
        """Ask for an input back; whether it came."""
        self.control.send(pack(Frame(Kind.RECALL, number, b"", sequence)))
        ((frame, _),) = self.control.receive()
        assert (frame.kind, frame.id, frame.channel) == (Kind.RECALL, number, sequence)
        return frame.outcome == 1

    # --- output

    def printed(self) -> list[tuple[int, int | None, str]]:
        """What has been printed since this was last asked: stream, input, text."""
        lines: list[Line] = []
        for stream, fd in self._pipes.items():
            while select.select([fd], [], [], 0)[0] and (data := os.read(fd, 1 << 16)):
                lines += self._splitter.feed(stream, data)
        self.lines += lines
        return [(line.stream, line.call, line.text) for line in lines]

    def said(self, text: str) -> None:
        """Wait until it has printed a line with this text."""
        while not any(text in line.text for line in self.lines):
            ready, _, _ = select.select(list(self._pipes.values()), [], [], PATIENCE)
            assert ready, f"{text!r} was never printed"
            self.printed()

    # --- the end

    def hang_up(self) -> int:
        """Let it go, as an engine that needs it no more; its exit code."""
        self.link.close()
        self.control.close()
        return self.ended()

    def ended(self) -> int:
        code = self.process.wait(PATIENCE)
        self.printed()
        return code

    def _until(self, wanted: Any) -> Frame:
        return self._next(wanted)[0]

    def _next(self, wanted: Any) -> tuple[Frame, int]:
        """The first frame of this kind that has not been looked at; others keep their order."""
        while True:
            for pair in self._came:
                if wanted(pair[0]):
                    self._came.remove(pair)
                    return pair
            self._came.extend(self.link.receive())

    def still(self) -> bool:
        """Whether it sends nothing for now: it has obeyed an order since, and waits."""
        self.recall(0, 0)
        return self.quiet()

    def quiet(self) -> bool:
        """Whether nothing else has come by now."""
        try:
            while select.select([self.link.sock], [], [], 0)[0]:
                self._came.extend(self.link.receive())
        except StreamClosed:
            pass  # it has ended
        return not self._came

    def close(self) -> None:
        self.link.close()
        if self.failed is None:
            self.control.close()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        for fd in self._pipes.values():
            os.close(fd)


@contextmanager
def worker(folder: Path, code: str, name: str, *, python: str = sys.executable, **start: Any) -> Iterator[Rig]:
    """A worker for `name` in a module with this code."""
    (folder / "theirs.py").write_text(code)
    given = FunctionStart(app="app", name=name, module="theirs", qualname=name, **start)
    rig = Rig(folder, given, python)
    try:
        yield rig
    finally:
        rig.close()
