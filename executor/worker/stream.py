"""The other end of a wire: frames over a blocking unix socket, for user programs and for the worker program."""

from __future__ import annotations

import _socket as socket  # without what Python adds, which takes two milliseconds to import and nothing here needs
import array
import errno
import os
import select
import threading
from collections import deque
from typing import TYPE_CHECKING

from .frames import Decoder, Flag, Frame, FrameError, pack
from .payload import IN_MEMFD, Packed

if TYPE_CHECKING:
    from collections.abc import Callable

READ_SIZE = 256 * 1024
NO_FD = -1
_ANCILLARY = socket.CMSG_SPACE(32 * 4)
_CLOEXEC = socket.MSG_CMSG_CLOEXEC
_DONTWAIT = socket.MSG_DONTWAIT
_FD = int(Flag.FD)


class StreamClosed(Exception):
    """The peer has gone."""


class CannotPass(Exception):
    """Descriptors can be received here and not sent: so it is within gVisor."""


class Stream:
    """`receive` from one thread at a time; `send` from any."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._decoder = Decoder()
        self._buffer = memoryview(bytearray(READ_SIZE))
        self._fds: deque[int] = deque()
        self._lock = threading.Lock()
        self._rest = b""  # of a frame whose sending was interrupted
        self._passes = True

    def receive(self, flags: int = 0) -> list[tuple[Frame, int]]:
        """The next frames, at least a part of one waited for, each with its descriptor (or -1), which the caller owns.

        Raises `StreamClosed`, `FrameError`, and `BlockingIOError` where flags hold MSG_DONTWAIT and nothing is there.
        """
        buffer = self._buffer
        try:
            size, ancillary, _, _ = self.sock.recvmsg_into([buffer], _ANCILLARY, flags | _CLOEXEC)
        except (BlockingIOError, InterruptedError):
            raise
        except OSError as error:
            raise StreamClosed(str(error.strerror)) from error
        for level, kind, data in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                fds = array.array("i")
                fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
                self._fds.extend(fds)
        if not size:
            raise StreamClosed("the peer closed the connection")
        frames = self._decoder.feed(buffer[:size])
        return [(frame, self._fd_of(frame) if frame.flags & _FD else NO_FD) for frame in frames]

    def _fd_of(self, frame: Frame) -> int:
        if not self._fds:
            raise FrameError("a frame came without its payload")
        fd = self._fds.popleft()
        if os.fstat(fd).st_size < frame.fd_length:
            os.close(fd)
            raise FrameError("a frame's payload is shorter than it says")
        return fd

    def send(self, data: bytes | memoryview, fd: int = NO_FD, *, while_full: Callable[[], None] | None = None) -> None:
        """Send it all; the caller keeps `fd`. Where the peer takes no more for now, `while_full` is called, which may
        receive meanwhile so that the two ends never wait for one another, and must wait for something itself.

        Raises `StreamClosed`, or `CannotPass`: then nothing was sent.
        """
        wait = _DONTWAIT if while_full else 0
        with self._lock:
            rest = self._rest
            if rest:
                data = rest + bytes(data)
            size = len(data)
            try:
                while data:
                    try:
                        if fd == NO_FD:
                            sent = self.sock.send(data, wait)
                        else:
                            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))]
                            sent, fd = self.sock.sendmsg([data], rights, wait), NO_FD
                    except BlockingIOError:
                        if while_full is not None:
                            while_full()
                        continue
                    except OSError as error:
                        if fd != NO_FD and error.errno == errno.EINVAL:
                            raise CannotPass from error
                        raise StreamClosed(str(error.strerror)) from error
                    if sent == len(data):
                        break
                    data = memoryview(data)[sent:]
            except BaseException:  # Ctrl-C: a frame that was begun is finished before the next one
                sent = size - len(data)
                self._rest = bytes(data if sent > len(rest) else data[: len(rest) - sent])
                raise
            if rest:
                self._rest = b""

    @property
    def is_sending(self) -> bool:
        """Whether a thread is in `send`, maybe this one."""
        return self._lock.locked()

    def send_payload(self, frame: Frame, packed: Packed, *, while_full: Callable[[], None] | None = None) -> None:
        """Send a frame with this payload: in a memfd where it is big, and that can be done. Raises `StreamClosed`."""
        if packed.size >= IN_MEMFD and self._passes:
            fd = packed.memfd()
            try:
                header = frame._replace(flags=frame.flags | _FD, fd_length=packed.size)
                self.send(pack(header), fd, while_full=while_full)
                return
            except CannotPass:
                self._passes = False
            finally:
                os.close(fd)
        self.send(pack(frame._replace(payload=packed.bytes())), while_full=while_full)

    def wait(self, *, read: bool, write: bool, timeout: float | None = None) -> bool:
        """Wait until there is something to read, or room to write; tell whether there is something to read."""
        if self.sock.fileno() < 0:
            raise StreamClosed("it was closed here")
        poller = select.poll()
        poller.register(self.sock, (select.POLLIN if read else 0) | (select.POLLOUT if write else 0))
        events = poller.poll(None if timeout is None else timeout * 1000)
        return any(event & ~select.POLLOUT for _, event in events)

    def close(self) -> None:
        try:
            self.sock.shutdown(socket.SHUT_RDWR)  # wakes a thread that is in receive
        except OSError:
            pass  # it was closed by the peer
        self.sock.close()
        while self._fds:
            os.close(self._fds.popleft())


def connect(path: str | os.PathLike[str]) -> socket.socket:
    """Connect to a unix socket at a path of any length. Raises OSError."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        if len(os.fsencode(path)) < 100:
            sock.connect(os.fspath(path))
            return sock
        parent, name = os.path.split(path)
        folder = os.open(parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            sock.connect(f"/proc/self/fd/{folder}/{name}")
        finally:
            os.close(folder)
    except BaseException:
        sock.close()
        raise
    return sock
