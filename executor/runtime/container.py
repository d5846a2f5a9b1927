"""A native container and its processes, as the engine sees them: one socket to the container's first process."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path

from slipway.dsl.errors import RuntimeUnavailable
from slipway.executor.pipes import Pipes
from slipway.executor.ports import Exit, Limits, Output, Stats

from . import kernel
from .cgroups import Group
from .layers import Layers, Made, Taken, remove_tree
from .layout import BASE_ENVIRONMENT
from .link import Link, memory_file


class NativeProcess:
    """A process in a container; its output comes through two pipes."""

    def __init__(self, container: NativeContainer, ident: int, output: Output | None) -> None:
        self._container = container
        self._ident = ident
        self.pipes = None if output is None else Pipes(output)
        self._ended = asyncio.Event()
        self._exit: Exit | None = None
        self.kills_before = container.group.oom_kills()

    async def wait(self) -> Exit:
        await self._ended.wait()
        assert self._exit is not None
        return self._exit

    def signal(self, number: int) -> None:
        if self._exit is None:
            self._container.send({"signal": int(number), "id": self._ident})

    def drain(self) -> None:
        if self.pipes is not None:
            self.pipes.drain()

    def finish(self, how: Exit) -> None:
        """It has ended, and what it wrote is in the pipes by now. Its children may still hold them: not waited for."""
        if self._exit is None:
            self._exit = how
            try:
                if self.pipes is not None:
                    self.pipes.finish()
            finally:
                self._ended.set()


class NativeTerminal(NativeProcess):
    """A process on a terminal of its container; its other end is the caller's, and a copy of it ours, for its size."""

    def __init__(self, container: NativeContainer, ident: int) -> None:
        super().__init__(container, ident, None)
        self._came = asyncio.Event()
        self._fd = self._own = -1
        self._errno = 0
        self._given_up = False

    @property
    def fd(self) -> int:
        return self._fd

    def resize(self, rows: int, columns: int) -> None:
        if self._own >= 0:
            kernel.set_window(self._own, rows, columns)

    async def until_open(self) -> None:
        """Raises `RuntimeUnavailable` where there is no terminal to be had, or no container any more."""
        await self._came.wait()
        if self._fd < 0:
            reason = os.strerror(self._errno) if self._errno else "it has ended"
            raise RuntimeUnavailable(f"container {self._container.name} gives no terminal: {reason}")

    def opened(self, number: int, terminal: int) -> None:
        """The container's answer: an error's number, or 0 and the terminal, ours from here on."""
        self._errno = number
        if terminal >= 0 and self._given_up:
            os.close(terminal)
        elif terminal >= 0:
            self._fd, self._own = terminal, os.dup(terminal)
        self._came.set()

    def give_up(self) -> None:
        """Nobody wants it any more."""
        self._given_up = True
        self.signal(signal.SIGKILL)
        if self._fd >= 0:
            os.close(self._fd)

    def finish(self, how: Exit) -> None:
        super().finish(how)
        self._came.set()
        if self._own >= 0:
            os.close(self._own)
            self._own = -1


class NativeHeld:
    """A process of a container in control groups of its own."""

    def __init__(self, group: Group) -> None:
        self._group = group

    def ran_out(self) -> bool:
        return self._group.oom_kills() > 0

    async def stats(self) -> Stats:
        return self._group.stats(first=False)

    async def release(self) -> None:
        await asyncio.to_thread(self._group.end)


class NativeContainer:
    """Made by `NativeRuntime.create`. Its folder under the home goes with it."""

    def __init__(
        self,
        *,
        name: str,
        folder: Path,
        link: Link,
        layers: Layers,
        group: Group,
        make_group: Callable[[str, Limits], Group],
        taken: tuple[Taken, ...],
        environment: dict[str, str],
        entrypoint: tuple[str, ...],
        forget: Callable[[], None],
        null: int,
    ) -> None:
        self._name = name
        self._folder = folder
        self._link = link
        self._layers = layers
        self.group = group
        self._make_group = make_group
        self._taken = taken
        self._environment = {**BASE_ENVIRONMENT, **environment}
        self._entrypoint = entrypoint  # goes before the argv of the first process
        self._forget = forget
        self._null = null
        self._control: socket.socket | None = None
        self._ident = 0
        self._processes: dict[int, NativeProcess] = {}
        self._next = 0
        self._made: tuple[Made, ...] = ()
        self._failure: tuple[str, int] | None = None
        self._ready = asyncio.Event()
        self._idle = asyncio.Event()
        self._gone = asyncio.Event()
        self._stats: list[asyncio.Future[list[int]]] = []
        self._cleaning = asyncio.Lock()
        self._clean = False

    def __repr__(self) -> str:
        return f"<NativeContainer {self._name}{' gone' if self._gone.is_set() else ''}>"

    @property
    def name(self) -> str:
        return self._name

    # --- making ---------------------------------------------------------------------------------------

    async def make(self, layout: dict[str, object]) -> None:
        """Have it built. Raises `RuntimeUnavailable` with the step that failed; the caller kills it then."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        self._control = ours
        asyncio.get_running_loop().add_reader(ours.fileno(), self._readable)
        with theirs:
            plan = memory_file(json.dumps(layout).encode())
            try:
                self._ident = self._link.create(theirs.fileno(), plan, self._on_gone)
            except BaseException:
                self._gone.set()
                self._close_control()
                raise
            finally:
                os.close(plan)
        await self._ready.wait()
        if self._failure is not None:
            step, number = self._failure
            reason = os.strerror(number) if number else "unexpected"
            raise RuntimeUnavailable(
                f"container {self._name} could not be made: {step}: {reason}",
                hint="`slipway doctor` shows what works here; `--runtime docker` is the way round.",
            )

    # --- the port -------------------------------------------------------------------------------------

    async def exec(
        self,
        argv: tuple[str, ...],
        *,
        env: tuple[tuple[str, str], ...] = (),
        cwd: str | None = None,
        stdin: bytes = b"",
        output: Output | None = None,
    ) -> NativeProcess:
        self._next += 1
        ident = self._next  # others are given while we wait
        process = NativeProcess(self, ident, output)
        argv, self._entrypoint = (*self._entrypoint, *argv), ()
        wanted = {"argv": argv, "env": {**self._environment, **dict(env)}, "cwd": cwd or "/root"}
        ours: list[int] = []
        try:
            ours.append(memory_file(json.dumps(wanted).encode()))
            if stdin:
                ours.append(memory_file(stdin))
            outputs = (self._null, self._null)
            if process.pipes is not None:
                outputs = process.pipes.open()
                ours += outputs
            self._processes[ident] = process
            await self._send_with({"exec": ident}, [ours[0], ours[1] if stdin else self._null, *outputs])
        except BaseException:
            self._processes.pop(ident, None)
            process.finish(Exit(code=None))
            raise
        finally:
            for descriptor in ours:
                os.close(descriptor)
        return process

    async def open_terminal(
        self,
        argv: tuple[str, ...],
        *,
        env: tuple[tuple[str, str], ...] = (),
        cwd: str | None = None,
        rows: int = 24,
        columns: int = 80,
    ) -> NativeTerminal:
        self._next += 1
        ident = self._next  # others are given while we wait
        terminal = self._processes[ident] = NativeTerminal(self, ident)
        argv, self._entrypoint = (*self._entrypoint, *argv), ()
        wanted = {"argv": argv, "env": {**self._environment, **dict(env)}, "cwd": cwd or "/root"}
        request = memory_file(json.dumps(wanted).encode())
        try:
            await self._send_with({"terminal": ident, "rows": rows, "columns": columns}, [request])
        except BaseException:
            self._processes.pop(ident, None)
            raise
        finally:
            os.close(request)
        try:
            await terminal.until_open()
        except BaseException:
            terminal.give_up()
            raise
        return terminal

    async def hold(self, name: str, pid: int, limits: Limits) -> NativeHeld:
        def move() -> Group:  # into a group of version 2 this takes up to ten milliseconds
            group = self._make_group(name, limits)
            try:
                group.add(pid)
            except BaseException:
                group.remove()
                raise
            return group

        try:
            return NativeHeld(await asyncio.to_thread(move))
        except OSError as error:
            raise RuntimeUnavailable(f"process {pid} can't be held to its limits: {error.strerror}") from error

    async def commit(self, layer: str) -> str:
        await self._end()
        try:
            return await asyncio.to_thread(self._layers.commit, layer, self._taken, self._made)
        finally:
            await self.kill()

    async def stop(self, grace_ms: int) -> None:
        self.send({"stop": True})
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace_ms / 1000):
                await self._idle.wait()
        await self.kill()

    async def kill(self) -> None:
        await self._end()
        async with self._cleaning:
            if not self._clean:
                self.group.remove()
                await asyncio.to_thread(remove_tree, self._folder)
                self._clean = True
                self._forget()

    async def stats(self) -> Stats:
        if self._gone.is_set() or self._control is None:
            return Stats(memory_bytes=None, cpu_ms=None, processes=None)
        future: asyncio.Future[list[int]] = asyncio.get_running_loop().create_future()
        self._stats.append(future)
        self.send({"stats": True})
        memory, cpu_ms, processes = await future
        limited = self.group.stats()
        return Stats(
            memory_bytes=memory if limited.memory_bytes is None else limited.memory_bytes,
            cpu_ms=cpu_ms if limited.cpu_ms is None else limited.cpu_ms,
            processes=processes,
        )

    # --- the socket -----------------------------------------------------------------------------------

    def send(self, message: dict[str, object]) -> None:
        """Tell the container's first process; where that has ended there is nobody to tell."""
        if self._control is not None:
            with contextlib.suppress(OSError):
                self._control.send(json.dumps(message).encode())

    async def _send_with(self, message: dict[str, object], descriptors: list[int]) -> None:
        packet = json.dumps(message).encode()
        while self._control is not None:
            try:
                socket.send_fds(self._control, [packet], descriptors)
                return
            except BlockingIOError:  # noqa: PERF203 - hundreds of starts are under way
                await self._writable(self._control)
            except OSError:
                break
        raise RuntimeUnavailable(f"container {self._name} has ended", hint="`slipway app logs` may say why.")

    async def _writable(self, control: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        event = asyncio.Event()
        loop.add_writer(control.fileno(), event.set)
        try:
            await event.wait()
        finally:
            loop.remove_writer(control.fileno())

    def _readable(self) -> None:
        while self._control is not None:
            try:
                data, descriptors = kernel.receive(self._control)
            except BlockingIOError:
                return
            except OSError:
                data, descriptors = b"", []
            if not data:
                self._close_control()
                return
            self._handle(json.loads(data), *descriptors)

    def _handle(self, message: dict[str, object], descriptor: int = -1) -> None:
        match message:
            case {"terminal": int(ident), "errno": int(number)}:
                terminal = self._processes[ident]
                assert isinstance(terminal, NativeTerminal)
                terminal.opened(number, descriptor)
                if number:
                    self._processes.pop(ident).finish(Exit(code=None))
            case {"exit": int(ident), "status": int(status)}:
                process = self._processes.pop(ident, None)
                if process is not None:
                    process.finish(self._exit_of(process, status))
            case {"ready": list(made)}:
                self._made = tuple(Made(*entry) for entry in made)
                self._ready.set()
            case {"failed": str(step), "errno": int(number)}:
                self._failure = (step, number)
            case {"idle": True}:
                self._idle.set()
            case {"stats": list(values)}:
                _answer(self._stats.pop(0), values)

    def _exit_of(self, process: NativeProcess, status: int) -> Exit:
        code = os.waitstatus_to_exitcode(status)
        killed = code in (-signal.SIGKILL, 128 + signal.SIGKILL)  # as a shell reports it
        oom = killed and self.group.oom_kills() > process.kills_before
        return Exit(code=None, signal=-code, oom=oom) if code < 0 else Exit(code=code, oom=oom)

    def _on_gone(self) -> None:
        """Every process in it is dead, and its mounts are gone."""
        self._readable()
        self._close_control()
        if self._failure is None and not self._ready.is_set():
            self._failure = ("its first process ended", 0)
        for process in self._processes.values():
            process.finish(self._exit_of(process, signal.SIGKILL))
        self._processes.clear()
        for future in self._stats:
            _answer(future, [0, 0, 0])
        for event in (self._gone, self._ready, self._idle):
            event.set()

    def _close_control(self) -> None:
        if self._control is not None:
            asyncio.get_running_loop().remove_reader(self._control.fileno())
            self._control.close()
            self._control = None

    async def _end(self) -> None:
        """Kill every process and wait until all are dead."""
        if not self._gone.is_set():
            self._link.kill(self._ident)
            await self._gone.wait()


def _answer(future: asyncio.Future[list[int]], values: list[int]) -> None:
    if not future.done():  # who asked may have been cancelled
        future.set_result(values)
