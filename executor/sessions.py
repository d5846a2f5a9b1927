"""Programs that somebody starts in a container beside our own, on a terminal or with three streams.

What they say and hear never passes the engine: the ends of the terminal or of the pipes go to whoever asked.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import secrets
import signal
import socket
from pathlib import Path

from attrs import frozen

from slipway.dsl.errors import InvalidError, NotFoundError, RuntimeUnavailable

from .channels import Scope
from .engine import Emit
from .ports import Container, Exit, Process, Terminal
from .worker.host import RUN, say_exit
from .worker.package import IN_CONTAINER
from .worker.wire import Listener

ATTACH = f"{IN_CONTAINER}/lib/slipway/executor/worker/attach.py"
HANG_UP = 2.0  # seconds between telling a program that its user is gone, and killing it
MOST_CELLS = 10_000  # rows or columns of a terminal


@frozen(kw_only=True)
class Room:
    """Where programs are started: a container, with what its own program was given. `folder` is its control folder."""

    container: Container
    folder: Path
    python: str
    env: tuple[tuple[str, str], ...]
    cwd: str | None


@frozen(kw_only=True)
class Window:
    """The terminal that somebody sits at."""

    rows: int
    columns: int
    kind: str  # as $TERM says it


class Sessions:
    """Every program under way, each known to the connection that asked for it alone."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self._under_way: dict[int, tuple[Scope, Process, Terminal | None]] = {}

    def __len__(self) -> int:
        return len(self._under_way)

    async def attend(self, scope: Scope, emit: Emit, room: Room, argv: tuple[str, ...], window: Window | None) -> Exit:
        """Start a program and wait for its end. Where that is given up, the program ends too."""
        terminal: Terminal | None = None
        process: Process
        if window is not None:
            env = (*room.env, ("TERM", window.kind))
            process = terminal = await room.container.open_terminal(
                argv, env=env, cwd=room.cwd, rows=window.rows, columns=window.columns
            )
            descriptors: tuple[int, ...] = (terminal.fd,)
        else:
            process, descriptors = await _with_streams(room, argv)
        number = next(self._numbers)
        self._under_way[number] = (scope, process, terminal)
        emit({"event": "session", "session": number, "descriptors": len(descriptors)}, *descriptors)
        try:
            return await process.wait()
        except asyncio.CancelledError:
            await _hang_up(process)
            raise
        finally:
            del self._under_way[number]

    def resize(self, scope: Scope, number: int, rows: int, columns: int) -> None:
        _, terminal = self._find(scope, number)
        check_size(rows, columns)
        if terminal is None:
            raise InvalidError(f"session {number} has no terminal")
        terminal.resize(rows, columns)

    def signal(self, scope: Scope, number: int, which: int) -> None:
        process, _ = self._find(scope, number)
        if which not in signal.valid_signals():
            raise InvalidError(f"there is no signal {which}")
        process.signal(which)

    def _find(self, scope: Scope, number: int) -> tuple[Process, Terminal | None]:
        owner, process, terminal = self._under_way.get(number, (None, None, None))
        if process is None or owner is not scope:
            raise NotFoundError(f"this program has no session {number}")
        return process, terminal


def check_size(rows: int, columns: int) -> None:
    """Raises `InvalidError`."""
    if not (0 < rows <= MOST_CELLS and 0 < columns <= MOST_CELLS):
        raise InvalidError(f"a terminal of {rows} rows and {columns} columns is none")


async def _hang_up(process: Process) -> None:
    """Its user is gone: it hears so as when a terminal is closed, and is killed if it stays."""
    process.signal(signal.SIGHUP)
    try:
        async with asyncio.timeout(HANG_UP):
            await process.wait()
    except TimeoutError:
        process.signal(signal.SIGKILL)


async def _with_streams(room: Room, argv: tuple[str, ...]) -> tuple[Process, tuple[int, ...]]:
    """Start a program on three pipes; the process, and the ends that are the caller's.

    The program's ends are handed over inside of the container, at a socket in its control folder.
    """
    pipes = [os.pipe2(os.O_CLOEXEC) for _ in range(3)]
    theirs = (pipes[0][0], pipes[1][1], pipes[2][1])
    ours = (pipes[0][1], pipes[1][0], pipes[2][0])
    said = bytearray()
    taken = asyncio.Event()

    def hand_over(sock: socket.socket) -> None:
        with sock:
            if not taken.is_set():
                socket.send_fds(sock, [b"."], theirs)
        taken.set()

    listener = Listener(room.folder / f"attach-{secrets.token_hex(8)}.sock", hand_over, mode=0o666)
    process: Process | None = None
    try:
        process = await room.container.exec(
            (room.python, "-I", "-S", ATTACH, f"{RUN}/{listener.path.name}", *argv),
            env=room.env,
            cwd=room.cwd,
            output=lambda _, data: said.extend(data),
        )
        await _until_taken(process, taken, said)
    except BaseException:
        if process is not None:
            process.signal(signal.SIGKILL)
        _close(ours)
        raise
    finally:
        listener.close()
        _close(theirs)
    return process, ours


async def _until_taken(process: Process, taken: asyncio.Event, said: bytearray) -> None:
    waits = [asyncio.ensure_future(process.wait()), asyncio.ensure_future(taken.wait())]
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        if not taken.is_set():
            how = say_exit(await process.wait(), None)
            raise RuntimeUnavailable(
                f"no program can be started in the container: what starts it {how}",
                hint=said.decode(errors="replace").strip(),
            )
    finally:
        for wait in waits:
            wait.cancel()


def _close(descriptors: tuple[int, ...]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
