"""Processes in containers of Docker Engine: each has a connection that carries what it reads and says."""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import signal
import socket
from collections.abc import Awaitable, Callable

from slipway.dsl.errors import Error, RuntimeUnavailable
from slipway.executor.ports import Exit, Output

from . import docker_shell
from .docker_shell import Marked

CHUNK = 1 << 18
DRAIN = 1 << 20
HEADER = 8
_KILLED = 128  # an engine says 128 + the number of the signal, as a shell does
_SIGNALS = 64

Asker = Callable[[], Awaitable[Exit]]  # how it ended, by what the engine knows once the connection is at its end


def exit_of(code: int | None, *, oom: bool = False) -> Exit:
    """What an engine or a shell reports as an exit code.

    >>> exit_of(3), exit_of(137, oom=True)
    (Exit(code=3, signal=None, oom=False, reason=''), Exit(code=None, signal=9, oom=True, reason=''))
    """
    if code is not None and _KILLED < code <= _KILLED + _SIGNALS:
        number = code - _KILLED
        return Exit(code=None, signal=number, oom=oom and number == signal.SIGKILL)
    return Exit(code=code, reason="the engine does not know how it ended" if code is None else "")


class Frames:
    """Takes apart what an engine joins: 8 bytes that say which stream and how much, then so much."""

    def __init__(self) -> None:
        self._held = bytearray()
        self._stream = 0
        self._left = 0

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        """
        >>> frames = Frames()
        >>> frames.feed(bytes([1, 0, 0, 0, 0, 0, 0, 3]) + b"ab"), frames.feed(b"c" + bytes([2]))
        ([(1, b'ab')], [(1, b'c')])
        """
        self._held += data
        found = []
        place = 0
        while place < len(self._held):
            if self._left == 0:
                if len(self._held) - place < HEADER:
                    break
                self._stream = self._held[place]
                self._left = int.from_bytes(self._held[place + 4 : place + HEADER], "big")
                place += HEADER
                continue
            part = bytes(self._held[place : place + self._left])
            found.append((self._stream, part))
            place += len(part)
            self._left -= len(part)
        del self._held[:place]
        return found


class Channel:
    """Our end of a process's connection, on the running loop."""

    def __init__(self, sock: socket.socket, early: bytes, take: Output, end: Callable[[], None]) -> None:
        self._sock: socket.socket | None = sock
        self._take = take
        self._end = end
        self._frames = Frames()
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(sock.fileno(), self._read)
        self._waiting = memoryview(b"")
        self._ends = True
        self._hand(early)

    def send(self, data: bytes, *, ends: bool) -> None:
        """All that it will read, once only; `ends`: then its stdin is at its end."""
        assert self._sock is not None
        self._ends = ends
        self._waiting = memoryview(data)
        self._loop.add_writer(self._sock.fileno(), self._write)

    def drain(self) -> None:
        """Hand over what has come, and wait for nothing."""
        left = DRAIN
        while left > 0 and self._sock is not None:
            came = self._read()
            if came == 0:
                break
            left -= came

    def close(self) -> None:
        if self._sock is not None:
            self._loop.remove_reader(self._sock.fileno())
            self._loop.remove_writer(self._sock.fileno())
            self._sock.close()
            self._sock = None

    def _read(self) -> int:
        if self._sock is None:
            return 0
        try:
            data = self._sock.recv(CHUNK)
        except BlockingIOError:
            return 0
        except OSError:  # the engine died
            data = b""
        if data:
            self._hand(data)
        else:
            self.close()
            self._end()
        return len(data)

    def _hand(self, data: bytes) -> None:
        for stream, part in self._frames.feed(data):
            self._take(stream, part)

    def _write(self) -> None:
        assert self._sock is not None
        try:
            self._waiting = self._waiting[self._sock.send(self._waiting) :]
        except BlockingIOError:
            return
        except OSError:  # it reads no more, or the engine died, which `_read` finds
            self._waiting = memoryview(b"")
        if not self._waiting:
            self._loop.remove_writer(self._sock.fileno())
            if self._ends:
                with contextlib.suppress(OSError):
                    self._sock.shutdown(socket.SHUT_WR)


class DockerProcess:
    """What all have in common: an end, which is found out by `ask` once the connection is at its own."""

    def __init__(self, ask: Asker, tell: Callable[[int, int], None]) -> None:
        self._ask = ask
        self._tell = tell
        self._channel: Channel | None = None
        self._asking: asyncio.Task[None] | None = None
        self._ended = asyncio.Event()
        self._exit: Exit | None = None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._exit or 'running'}>"

    async def wait(self) -> Exit:
        await self._ended.wait()
        assert self._exit is not None
        return self._exit

    @property
    def has_ended(self) -> bool:
        return self._exit is not None

    def signal(self, number: int) -> None:
        raise NotImplementedError

    def drain(self) -> None:
        if self._channel is not None:
            self._channel.drain()

    def attach(self, sock: socket.socket, early: bytes, stdin: bytes, *, ends: bool = True) -> None:
        if self._exit is not None:  # the container was killed meanwhile
            sock.close()
            return
        self._channel = Channel(sock, early, self._take, self._hang_up)
        if self._exit is None:
            self._channel.send(stdin, ends=ends)

    def finish(self, how: Exit) -> None:
        if self._exit is None:
            self._exit = how
            if self._channel is not None:
                self._channel.close()
            self._ended.set()

    def _take(self, stream: int, data: bytes) -> None:
        raise NotImplementedError

    def _hang_up(self) -> None:
        if self._exit is None and self._asking is None:
            self._asking = asyncio.get_running_loop().create_task(self._learn())

    async def _learn(self) -> None:
        self.finish(await self._ask())


class MainProcess(DockerProcess):
    """The first process of a container that is there for nothing else; the two end together."""

    def __init__(self, ask: Asker, tell: Callable[[int, int], None], output: Output | None) -> None:
        super().__init__(ask, tell)
        self._output = output

    def signal(self, number: int) -> None:
        if self._exit is None:
            self._tell(0, int(number))

    def _take(self, stream: int, data: bytes) -> None:
        if self._output is not None and self._exit is None:
            self._output(stream, data)


class BesideProcess(DockerProcess):
    """One that runs in a container beside others. A shell of ours above it says its number and how it ended."""

    def __init__(self, ask: Asker, tell: Callable[[int, int], None], output: Output | None, mark: str) -> None:
        super().__init__(ask, tell)
        self._output = output
        self._streams = {1: Marked(mark), 2: Marked(mark)}
        self._pid = 0
        self._signals: list[int] = []  # that came before its number

    def signal(self, number: int) -> None:
        if self._exit is not None:
            return
        if self._pid:
            self._tell(self._pid, int(number))
        else:
            self._signals.append(int(number))

    def _take(self, stream: int, data: bytes) -> None:
        marked = self._streams.get(stream)
        if marked is None or self._exit is not None:
            return
        self._say(stream, marked.feed(data))
        out, err = self._streams[1].notes, self._streams[2].notes
        if out and not self._pid and out[0].isdecimal():
            self._pid = int(out[0])
            for number in self._signals:
                self._tell(self._pid, number)
        if len(out) == 2 and err:
            how = docker_shell.ended(out[-1])
            if how is not None:
                self.finish(exit_of(how.code, oom=how.oom))

    def _hang_up(self) -> None:
        for stream, marked in self._streams.items():
            self._say(stream, marked.rest())
        super()._hang_up()

    def _say(self, stream: int, data: bytes) -> None:
        if data and self._output is not None:
            self._output(stream, data)


class DockerTerminal(DockerProcess):
    """One on a terminal of the engine; `fd` is the connection to it, which whoever opened it reads and writes."""

    def __init__(
        self, ask: Asker, tell: Callable[[int, int], None], resize: Callable[[int, int], Awaitable[None]]
    ) -> None:
        super().__init__(ask, tell)
        self._resize = resize
        self._pid = 0
        self._fd = -1
        self._watched: socket.socket | None = None
        self._epoll: select.epoll | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def fd(self) -> int:
        return self._fd

    async def open(self, sock: socket.socket, early: bytes, mark: str, size: tuple[int, int]) -> None:
        """Wait for the process, give the terminal its size, and let it go. Raises `RuntimeUnavailable`."""
        try:
            self._pid = int(await _read_note(sock, mark, early))
            await self._resize(*size)
            await asyncio.get_running_loop().sock_sendall(sock, b"\n")
            await _read_note(sock, mark)
        except BaseException:
            sock.close()
            raise
        self._watched = sock
        self._fd = os.dup(sock.fileno())
        # What is shown is for others to read: we look for nothing but the connection's end.
        self._epoll = select.epoll()
        self._epoll.register(sock.fileno(), select.EPOLLRDHUP)
        asyncio.get_running_loop().add_reader(self._epoll.fileno(), self._hang_up)

    def signal(self, number: int) -> None:
        if self._exit is None:
            self._tell(self._pid, int(number))

    def resize(self, rows: int, columns: int) -> None:
        if self._exit is None:
            task = asyncio.get_running_loop().create_task(self._change(rows, columns))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _change(self, rows: int, columns: int) -> None:
        with contextlib.suppress(Error):  # it has ended meanwhile, whatever the engine makes of that
            await self._resize(rows, columns)

    def finish(self, how: Exit) -> None:
        self._unwatch()
        super().finish(how)

    def _hang_up(self) -> None:
        self._unwatch()
        super()._hang_up()

    def _unwatch(self) -> None:
        if self._epoll is not None and self._watched is not None:
            asyncio.get_running_loop().remove_reader(self._epoll.fileno())
            self._epoll.close()
            self._watched.close()
            self._epoll = self._watched = None


async def _read_note(sock: socket.socket, mark: str, said: bytes = b"") -> str:
    """What follows the mark, up to its end and not a byte further: the rest is the program's."""
    loop = asyncio.get_running_loop()
    wanted = mark.encode()
    while not (wanted in said and said.endswith(b";")):
        one = await loop.sock_recv(sock, 1)
        if not one:
            shown = said.decode(errors="replace").strip()
            raise RuntimeUnavailable(f"the terminal was closed at once{': ' if shown else ''}{shown}")
        said += one
    return said.partition(wanted)[2][:-1].decode()
