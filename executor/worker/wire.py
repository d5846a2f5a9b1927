"""A connection of the engine's: frames over a non-blocking unix socket on the engine's loop.

What is sent while a wire is being read is held back and goes out together when the read is done, so that a burst of
inputs costs one system call per peer, not one per frame; a lone frame goes out at once.
"""

from __future__ import annotations

import array
import asyncio
import logging
import os
import socket
import struct
from collections import deque
from collections.abc import Callable
from pathlib import Path
from weakref import WeakKeyDictionary

from .frames import Decoder, Flag, Frame, FrameError, pack

READ_SIZE = 256 * 1024
JOIN_SIZE = 256 * 1024  # as many small frames are written together
HIGH_WATER = 16 * 1024 * 1024  # a peer that does not read this much is not read from either …
LOW_WATER = 4 * 1024 * 1024  # … until it has taken all but this
NO_FD = -1
_ANCILLARY = socket.CMSG_SPACE(32 * 4)
_CLOEXEC = int(socket.MSG_CMSG_CLOEXEC)  # ints: the flags of `socket` take a microsecond each to combine
_CTRUNC = int(socket.MSG_CTRUNC)
MOST_LOOSE = 4  # descriptors whose frame has not come yet; one comes with the first byte of its frame
REST = 0.5  # seconds without accepting, where no descriptor is left for a new connection
_FD = int(Flag.FD)

log = logging.getLogger("slipway")

OnFrame = Callable[[Frame, int], None]
OnClosed = Callable[[str], None]


class _Cork:
    """The wires of one loop that have something to send when the read under way is done."""

    __slots__ = ("buffer", "dirty", "held")

    def __init__(self) -> None:
        self.held = False
        self.dirty: list[Wire] = []
        self.buffer = memoryview(bytearray(READ_SIZE))

    def release(self) -> None:
        self.held = False
        dirty, self.dirty = self.dirty, []
        for wire in dirty:
            wire.flush()


_corks: WeakKeyDictionary[asyncio.AbstractEventLoop, _Cork] = WeakKeyDictionary()


class Wire:
    """Frames both ways. `on_frame(frame, fd)` gets every frame, and owns the descriptor of an FD frame (else -1);
    `on_closed(reason)` is called once when the peer goes or breaks the protocol, not after `close`.

    Both may be assigned anew at any time, so a listener can look at the first frame and then hand the wire on.
    """

    __slots__ = (
        "_buffered",
        "_cork",
        "_decoder",
        "_dirty",
        "_fds",
        "_loop",
        "_number",
        "_out",
        "_paused",
        "_writing",
        "closed",
        "on_closed",
        "on_frame",
        "sock",
    )

    def __init__(self, sock: socket.socket, on_frame: OnFrame, on_closed: OnClosed) -> None:
        sock.setblocking(False)
        self.sock = sock
        self.on_frame = on_frame
        self.on_closed = on_closed
        self.closed = False
        self._number = sock.fileno()
        self._loop = asyncio.get_running_loop()
        self._cork = _corks.setdefault(self._loop, _Cork())
        self._decoder = Decoder()
        self._fds: deque[int] = deque()
        self._out: deque[tuple[bytes | memoryview, int]] = deque()
        self._buffered = 0
        self._dirty = self._writing = False
        self._paused: set[str] = set()
        self._loop.add_reader(self._number, self._readable)

    # --- reading

    def _readable(self) -> bool:
        """Take what is there, at most one buffer full; False where there was nothing or the wire is closed."""
        buffer = self._cork.buffer
        try:
            size, ancillary, flags, _ = self.sock.recvmsg_into([buffer], _ANCILLARY, _CLOEXEC)
        except (BlockingIOError, InterruptedError):
            return False
        except OSError as error:
            self._lost(f"the connection broke: {error.strerror}")
            return False
        if ancillary:
            self._take_fds(ancillary)
        if not size:
            self._lost("the peer closed the connection")
            return False
        if flags & _CTRUNC:
            self._lost("the peer sent too many descriptors at once")
            return False
        try:
            frames = self._decoder.feed(buffer[:size])
        except FrameError as error:
            self._lost(str(error))
            return False
        cork = self._cork
        if len(frames) < 2 or cork.held:  # a frame alone: what it leads to goes out at once
            return self._hand_out(frames)
        cork.held = True
        try:
            return self._hand_out(frames)
        finally:
            cork.release()

    def _hand_out(self, frames: list[Frame]) -> bool:
        for frame in frames:
            fd = NO_FD
            if frame.flags & _FD:
                fd = self._fds.popleft() if self._fds else NO_FD
                if fd == NO_FD or not _holds(fd, frame.fd_length):
                    self._lost("a frame came without its payload")
                    return False
            try:
                self.on_frame(frame, fd)
            except Exception:  # what nobody understands, or a bug of ours: it ends this connection and nothing else
                log.exception("a frame could not be handled: kind %d, id %d", frame.kind, frame.id)
                self._lost("it sent what could not be handled")
            if self.closed:
                return False
        if len(self._fds) > MOST_LOOSE:
            self._lost("descriptors came without their frames")
            return False
        return True

    def _take_fds(self, ancillary: list[tuple[int, int, bytes]]) -> None:
        for level, kind, data in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                fds = array.array("i")
                fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
                self._fds.extend(fds)

    def read_now(self) -> None:
        """Handle everything that has already arrived, without waiting: the last words of a peer that has ended."""
        while not self.closed and self._readable():
            pass

    def pause(self, why: str = "owner") -> None:
        """Stop reading until `resume` with the same reason."""
        if not self._paused and not self.closed:
            self._loop.remove_reader(self._number)
        self._paused.add(why)

    def resume(self, why: str = "owner") -> None:
        if why in self._paused:
            self._paused.discard(why)
            if not self._paused and not self.closed:
                self._loop.add_reader(self._number, self._readable)

    # --- writing

    def send(self, frame: Frame, fd: int = NO_FD) -> None:
        """Send a frame, now or with the others of this read. The wire owns `fd` from here on, and closes it."""
        self.send_packed(pack(frame), fd)

    def send_packed(self, data: bytes, fd: int = NO_FD) -> None:
        if self.closed:
            if fd != NO_FD:
                os.close(fd)
            return
        if self._cork.held:
            if not self._dirty:
                self._dirty = True
                self._cork.dirty.append(self)
        elif fd == NO_FD and not self._out:
            try:  # the usual case: one frame, and a peer that takes it
                sent = self.sock.send(data)
            except OSError:
                sent = 0  # flush finds out why
            if sent == len(data):
                return
            self._out.append((memoryview(data)[sent:], fd))
            self._buffered += len(data) - sent
            self.flush()
            return
        self._out.append((data, fd))
        self._buffered += len(data)
        if not self._dirty and not self._writing:
            self.flush()
        elif self._writing and self._buffered > HIGH_WATER:
            self.pause("high water")

    def flush(self) -> None:
        """Write what is held back, as far as the peer takes it."""
        self._dirty = False
        out = self._out
        while out and not self.closed:
            data, fd = self._next()
            try:
                if fd == NO_FD:
                    sent = self.sock.send(data)
                else:
                    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))]
                    sent = self.sock.sendmsg([data], rights)
            except (BlockingIOError, InterruptedError):
                out.appendleft((data, fd))
                break
            except OSError as error:
                if fd != NO_FD:
                    os.close(fd)
                self._lost(f"the connection broke: {error.strerror}")
                return
            if fd != NO_FD:
                os.close(fd)
            self._buffered -= sent
            if sent < len(data):
                out.appendleft((memoryview(data)[sent:], NO_FD))
        self._watch_writing()

    def _next(self) -> tuple[bytes | memoryview, int]:
        """The next piece to write: several small frames in one, up to a frame that carries a descriptor."""
        out = self._out
        first = out.popleft()
        if first[1] != NO_FD or not out or out[0][1] != NO_FD or len(first[0]) >= JOIN_SIZE:
            return first
        parts, size = [first[0]], len(first[0])
        while out and out[0][1] == NO_FD and size < JOIN_SIZE:
            part = out.popleft()[0]
            parts.append(part)
            size += len(part)
        return b"".join(parts), NO_FD

    def _watch_writing(self) -> None:
        if self.closed:
            return
        waiting = bool(self._out)
        if waiting and not self._writing:
            self._loop.add_writer(self._number, self.flush)
        elif not waiting and self._writing:
            self._loop.remove_writer(self._number)
        self._writing = waiting
        if self._buffered > HIGH_WATER:
            self.pause("high water")
        elif self._paused and self._buffered < LOW_WATER:
            self.resume("high water")

    @property
    def buffered(self) -> int:
        """Bytes that the peer has not taken yet."""
        return self._buffered

    # --- the end

    def _lost(self, reason: str) -> None:
        if not self.closed:
            self.close()
            self.on_closed(reason)

    def close(self) -> None:
        """Let go of the socket and of every descriptor held; what has not been written is dropped."""
        if self.closed:
            return
        self.closed = True
        self._loop.remove_writer(self._number)
        self._loop.remove_reader(self._number)
        for fd in self._fds:
            os.close(fd)
        for _, fd in self._out:
            if fd != NO_FD:
                os.close(fd)
        self._fds.clear()
        self._out.clear()
        self._decoder = Decoder()  # whoever holds on to the wire need not hold half a frame
        self.sock.close()


def _holds(fd: int, length: int) -> bool:
    """Whether the file behind a descriptor is as long as its frame says, so that mapping it is safe."""
    return os.fstat(fd).st_size >= length


def listen(path: Path, mode: int = 0o600) -> socket.socket:
    """A listening unix socket at a path of any length (the kernel takes 108 bytes; a descriptor's path is short)."""
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    try:
        path.unlink(missing_ok=True)
        sock.bind(f"/proc/self/fd/{folder}/{path.name}")
        path.chmod(mode)
        sock.listen(128)
    except BaseException:
        sock.close()
        raise
    finally:
        os.close(folder)
    return sock


def peer_uid(sock: socket.socket) -> int:
    """The user that the process at the other end runs as."""
    _, uid, _ = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return int(uid)


class Listener:
    """Accepts connections at a path and hands on each socket; closing it removes the path."""

    def __init__(self, path: Path, on_connection: Callable[[socket.socket], None], mode: int = 0o600) -> None:
        self.path = path
        self._loop = asyncio.get_running_loop()
        self._sock = listen(path, mode)
        self._on_connection = on_connection
        self._listen()

    def _listen(self) -> None:
        if self._sock.fileno() >= 0:
            self._loop.add_reader(self._sock.fileno(), self._accept)

    def _accept(self) -> None:
        try:
            sock, _ = self._sock.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return
        except OSError as error:  # too many open files, say: who waits is let in when some have closed
            log.warning("no connection can be accepted for now: %s", error.strerror)
            self._loop.remove_reader(self._sock.fileno())
            self._loop.call_later(REST, self._listen)
            return
        self._on_connection(sock)

    def close(self) -> None:
        if self._sock.fileno() >= 0:
            self._loop.remove_reader(self._sock.fileno())
            self._sock.close()
            self.path.unlink(missing_ok=True)
