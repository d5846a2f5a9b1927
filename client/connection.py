"""A program's connection to an engine: requests, and calls, from any thread and from any event loop.

There is no thread of ours behind it: whoever waits for an answer reads for all (a leader), and hands over to another
who waits when it has its own. So a program with one thread gets its answers without a hop between threads. Only
asynchronous users, who can't wait, need a thread that reads; it starts with the first of them.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import weakref
from collections import deque
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

from slipway.dsl import errors
from slipway.dsl.version import VERSION
from slipway.executor.worker import stream
from slipway.executor.worker.frames import PROTOCOL, Flag, Frame, FrameError, Kind, pack
from slipway.executor.worker.package import code_digest
from slipway.executor.worker.payload import IN_MEMFD, Packed
from slipway.executor.worker.stream import NO_FD, Stream, StreamClosed

from .replies import OnEvent, take_reply
from .waiter import Mailbox, Waiter

HURRY = 1.5  # seconds that an interrupted program waits for the engine; what it does not see, the engine does anyway
_CALL = int(Kind.CALL)
_RESULT = int(Kind.RESULT)
_MORE = int(Flag.MORE)
_GONE = "the connection to the engine is lost"


_all: weakref.WeakSet[Connection] = weakref.WeakSet()


class Connection:
    """Made with `Connection.connect`; whoever made it calls `close`."""

    def __init__(self, link: Stream, peer: dict[str, Any], code: str, where: str) -> None:
        self.peer = peer  # what the engine said of itself: "protocol", "version", "code", "pid"
        self.code = code
        self.closed = False
        self._link = link
        self._where = where
        self._ids = count(1)
        self._waiters: dict[int, Waiter] = {}
        self._reading = threading.Lock()  # held by the leader
        self._sleepers: set[Waiter] = set()
        self._sleepers_lock = threading.Lock()
        self._later: deque[bytes] = deque()
        self._reader: threading.Thread | None = None
        self._lost = _GONE
        _all.add(self)

    @classmethod
    def connect(cls, path: Path) -> Connection:
        """Connect to the engine that listens at `path`. Raises `RuntimeUnavailable`."""
        try:
            sock = stream.connect(path)
        except OSError as error:
            raise errors.RuntimeUnavailable(
                f"no engine answers at {path}: {error.strerror}", hint="Start one with: slipway up"
            ) from error
        link = Stream(sock)
        try:
            code = code_digest()
            return cls(link, _greet(link, code, path), code, str(path))
        except BaseException:
            link.close()
            raise

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Connection to {self._where}{', closed' if self.closed else ''}>"

    # --- requests

    def begin(self, waiter: Waiter, method: str, params: dict[str, Any]) -> int:
        """Ask for something; the answers go to the waiter, until its id is forgotten."""
        ident = self._expect(waiter)
        try:
            self.send(pack(Frame(Kind.REQUEST, ident, json.dumps(params | {"method": method}).encode())))
        except BaseException:
            self.forget(ident)
            raise
        return ident

    def tell(self, method: str, params: dict[str, Any]) -> None:
        """Ask for something without waiting for the reply. Never raises."""
        self._send_soon(pack(Frame(Kind.REQUEST, next(self._ids), json.dumps(params | {"method": method}).encode())))

    def request(self, method: str, params: dict[str, Any], on_event: OnEvent | None = None) -> dict[str, Any]:
        """Ask for something and wait for the reply. Raises the error that the engine names.

        `on_event` is called on this thread with each thing that the engine says meanwhile.
        """
        waiter = Waiter()
        ident = self.begin(waiter, method, params)
        try:
            return self._reply(waiter, on_event)
        except BaseException as error:
            self.cancel([ident])
            if isinstance(error, KeyboardInterrupt):
                self._see_given_up(waiter)
            raise
        finally:
            self.forget(ident)

    def _reply(self, waiter: Waiter, on_event: OnEvent | None) -> dict[str, Any]:
        while True:
            reply = take_reply(self.wait_for(waiter)[0], on_event)
            if reply is not None:
                return reply

    def _see_given_up(self, waiter: Waiter) -> None:
        """Wait a moment for the engine to say so: whoever pressed Ctrl-C then finds nothing left of it. Another Ctrl-C
        ends this, too."""

        def wait() -> None:
            with suppress(errors.Error, TimeoutError):
                self._reply(waiter, None)

        thread = threading.Thread(target=wait, name="slipway-interrupted", daemon=True)
        thread.start()
        thread.join(HURRY)

    async def request_aio(self, method: str, params: dict[str, Any], on_event: OnEvent | None = None) -> dict[str, Any]:
        """As `request`, without blocking the loop."""
        mailbox = Mailbox(self)
        ident = self.begin(mailbox.waiter, method, params)
        try:
            while True:
                reply = take_reply((await mailbox.next())[0], on_event)
                if reply is not None:
                    return reply
        except BaseException:
            self.cancel([ident])
            raise
        finally:
            self.forget(ident)

    # --- calls

    def call(self, channel: int, packed: Packed, parent: int = 0, flags: int = 0) -> tuple[Frame, int]:
        """Make a call and wait for its RESULT frame; the caller owns the descriptor that may come with it.

        `parent` is the number of the input whose code calls (0: none does).
        """
        waiter = Waiter()
        ident = self.submit(waiter, channel, packed, parent, flags)
        try:
            return self.wait_for(waiter)
        except BaseException:
            self.cancel([ident], force=True)
            raise
        finally:
            self.forget(ident)

    async def call_aio(self, channel: int, packed: Packed, parent: int = 0, flags: int = 0) -> tuple[Frame, int]:
        """As `call`, without blocking the loop; when its task is cancelled, so is the call."""
        mailbox = Mailbox(self)
        ident = self.submit(mailbox.waiter, channel, packed, parent, flags)
        try:
            return await mailbox.next()
        except BaseException:
            self.cancel([ident], force=True)
            raise
        finally:
            self.forget(ident)

    def submit(self, waiter: Waiter, channel: int, packed: Packed, parent: int = 0, flags: int = 0) -> int:
        """Send one call; its RESULT goes to the waiter. Returns its id."""
        ident = self._expect(waiter)
        try:
            if packed.size < IN_MEMFD:
                self.send(pack(Frame(_CALL, ident, packed.bytes(), channel, flags, 0, 0, parent)))
            else:
                self._send_payload(Frame(_CALL, ident, b"", channel, flags, 0, 0, parent), packed)
        except BaseException:
            self.forget(ident)
            raise
        return ident

    def prepare(self, waiter: Waiter, channel: int, packed: Packed, parent: int, flags: int) -> tuple[int, bytes]:
        """The id and the bytes of a call that is sent later, with others, by `send`. Only for small ones."""
        ident = self._expect(waiter)
        return ident, pack(Frame(_CALL, ident, packed.bytes(), channel, flags, 0, 0, parent))

    def forget(self, ident: int) -> None:
        self._waiters.pop(ident, None)

    def cancel(self, idents: list[int], *, force: bool = False) -> None:
        """Give up calls or requests: those that have not begun, with `force` those that run too. Never raises."""
        flags = int(Flag.FORCE) if force else 0
        self._send_soon(b"".join(pack(Frame(Kind.CANCEL, ident, b"", 0, flags)) for ident in idents))

    def taken(self, ident: int, count: int) -> None:
        """Say that so many more items of a generator were taken, so that it goes on. Never raises."""
        self._send_soon(pack(Frame(Kind.TAKEN, ident, b"", count)))

    # --- sending and receiving

    def _expect(self, waiter: Waiter) -> int:
        ident = next(self._ids)
        self._waiters[ident] = waiter
        if self.closed:
            raise self._loss()
        return ident

    def send(self, data: bytes) -> None:
        """Send frames as they are. Raises `EngineLost`."""
        try:
            self._link.send(data, while_full=self._while_full)
        except StreamClosed as closed:
            raise self._broken(closed) from closed
        if self._later:
            self._send_later()

    def _send_payload(self, frame: Frame, packed: Packed) -> None:
        try:
            self._link.send_payload(frame, packed, while_full=self._while_full)
        except StreamClosed as closed:
            raise self._broken(closed) from closed
        if self._later:
            self._send_later()

    def _send_soon(self, data: bytes) -> None:
        """Send, now or, where somebody is sending, right after that. That may be ourselves: what a program lets go of
        is given up in the midst of whatever it does, whenever its garbage is collected."""
        self._later.append(data)
        if not self._link.is_sending:
            try:
                self._send_later()
            except errors.Error:
                pass  # without a connection there is nobody to tell

    def _send_later(self) -> None:
        while self._later:
            try:
                data = self._later.popleft()
            except IndexError:
                return  # another thread took it
            self.send(data)

    def _broken(self, closed: StreamClosed) -> BaseException:
        self._break(str(closed))
        return self._loss()

    def _while_full(self) -> None:
        """The engine takes no more for now: read what it has for us, else it might wait for that in its turn."""
        if not self._reading.acquire(blocking=False):
            self._link.wait(read=False, write=True)  # another thread reads
            return
        try:
            if self._link.wait(read=True, write=True):
                self._pump()
        finally:
            self._reading.release()
            self._wake_heir()

    def wait_for(self, waiter: Waiter) -> tuple[Frame, int]:
        """Wait for the waiter's next frame, reading for everybody if nobody else does. Raises `EngineLost`."""
        frames = waiter.frames
        try:
            while not frames:
                if self.closed:
                    raise self._loss()
                if self._reading.acquire(blocking=False):
                    try:
                        while not frames and not self.closed:
                            self._pump()
                    finally:
                        self._reading.release()
                else:
                    self._sleep(waiter)
        finally:
            if self._sleepers:
                self._wake_heir()
        return frames.popleft()

    def poll(self, waiter: Waiter) -> bool:
        """Whether the waiter has something, after reading what is there already."""
        if not waiter.frames and self._reading.acquire(blocking=False):
            try:
                self._pump(socket.MSG_DONTWAIT)
            finally:
                self._reading.release()
                self._wake_heir()
        return bool(waiter.frames)

    def take(self, waiter: Waiter) -> tuple[Frame, int] | None:
        """The waiter's next frame where there is one already. Raises `EngineLost`."""
        if self.poll(waiter):
            return waiter.frames.popleft()
        if self.closed:
            raise self._loss()
        return None

    def fileno(self) -> int:
        """What to wait for besides other things: when it can be read, there may be something to take."""
        return self._link.sock.fileno()

    def _sleep(self, waiter: Waiter) -> None:
        with self._sleepers_lock:
            self._sleepers.add(waiter)
        try:
            # The leader may have put our frame, or stepped down, just before it could see that we sleep.
            if not waiter.frames and not self.closed and self._reading.locked():
                waiter.sleep()
        finally:
            with self._sleepers_lock:
                self._sleepers.discard(waiter)

    def _wake_heir(self) -> None:
        """Somebody who sleeps has to read from now on, unless somebody reads already."""
        if self._sleepers and not self._reading.locked():
            with self._sleepers_lock:
                heir = next(iter(self._sleepers), None)
            if heir is not None:
                heir.wake()

    def _pump(self, flags: int = 0) -> None:
        """Read once and hand out what came."""
        try:
            frames = self._link.receive(flags)
        except (BlockingIOError, InterruptedError):
            return
        except (StreamClosed, FrameError) as closed:
            self._break(str(closed))
            return
        waiters = self._waiters
        for frame, fd in frames:
            last = frame.kind == _RESULT and not frame.flags & _MORE
            waiter = waiters.pop(frame.id, None) if last else waiters.get(frame.id)
            if waiter is not None:
                waiter.put(frame, fd)
            elif fd != NO_FD:
                os.close(fd)  # the answer to a call that nobody waits for any more

    def ensure_reader(self) -> None:
        """From now on a thread reads, because an event loop waits for answers."""
        if self._reader is None:
            with self._sleepers_lock:
                if self._reader is None:
                    self._reader = threading.Thread(target=self._read_on, name="slipway-reader", daemon=True)
                    self._reader.start()

    def _read_on(self) -> None:
        with self._reading:
            while not self.closed:
                self._pump()

    # --- the end

    def _loss(self) -> errors.Error:
        return errors.EngineLost(self._lost, hint="The engine ended or was restarted; `slipway status` tells.")

    def _break(self, reason: str) -> None:
        """The connection is of no more use: everybody who waits hears it."""
        if self.closed:
            return
        self._lost = f"{_GONE}: {reason}"
        self.closed = True
        self._link.close()
        self._wake_all()

    def _wake_all(self) -> None:
        with self._sleepers_lock:
            sleepers = tuple(self._sleepers)
        for waiter in {*sleepers, *self._waiters.values()}:
            waiter.wake()

    def wait_closed(self) -> None:
        """Wait until the engine closes the connection (it does when it ends)."""
        waiter = Waiter()
        try:
            self.wait_for(waiter)
        except errors.CallLost:
            return

    def close(self) -> None:
        """Let go; calls under way end with `CallLost`, for the engine too."""
        self._break("it was closed here")

    def _after_fork(self) -> None:
        """In a forked child: the socket is the parent's, so leave it alone and say so to whoever uses it."""
        self._lost = "this process was forked, and the connection to the engine is its parent's"
        self.closed = True
        self._link.sock.detach()
        self._waiters.clear()
        self._reading = threading.Lock()
        self._sleepers_lock = threading.Lock()


def _forked() -> None:
    for connection in tuple(_all):
        connection._after_fork()


os.register_at_fork(after_in_child=_forked)


def _greet(link: Stream, code: str, path: Path) -> dict[str, Any]:
    """Say hello; return what the engine says of itself."""
    hello = {"protocol": PROTOCOL, "version": VERSION, "code": code, "role": "client", "pid": os.getpid()}
    try:
        link.send(pack(Frame(Kind.HELLO, payload=json.dumps(hello).encode())))
        frames: list[tuple[Frame, int]] = []
        while not frames:
            frames = link.receive()
        frame = frames[0][0]
        peer: dict[str, Any] = json.loads(bytes(frame.payload)) if frame.kind == Kind.HELLO else {}
    except (StreamClosed, FrameError, ValueError) as error:
        raise errors.RuntimeUnavailable(f"the engine at {path} does not answer: {error}") from error
    if peer.get("protocol") != PROTOCOL:
        raise errors.VersionError(
            f"the engine at {path} speaks protocol {peer.get('protocol')}, this program {PROTOCOL}",
            hint="End it with the program that started it, or end its process.",
        )
    return peer
