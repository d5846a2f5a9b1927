"""The templates of pools with a memory snapshot: each forks the workers of its pool, see `worker/template.py`.

A fork lives in its template's container. It has a socket, a token, pipes and, where the runtime can, limits of its own;
how it ended is known from the template, which is its parent. When the template dies its container is ended, and its
forks are lost with it, as with a machine: on Docker Engine the kernel sees to that anyway (the template is the
container's first process), and natively nobody would be left who is told how they end.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import struct
from itertools import count
from typing import TYPE_CHECKING

from attrs import evolve

from slipway.dsl.errors import Error, InvalidError

from .ports import Container, Exit, Held, Limits, Output, Process, Stats, Terminal
from .worker.frames import Frame, Kind
from .worker.host import StartFailed, Worker, bring_up, say_exit, start_worker
from .worker.logs import FROM_ENGINE, Line
from .worker.wire import Listener

if TYPE_CHECKING:
    from .worker.host import Hooks, Place, WorkerSpec

LIVED = 60.0  # seconds after which a template that dies is as good as new: what it died of came from outside
BACKOFF = 0.5  # seconds without a template after one died, doubled for each before it that did
MOST_BACKOFF = 30.0
LET_GO = 30.0  # seconds that a template has to tell of a fork that was killed; one fork of much memory takes a while
_UCRED = struct.Struct("iII")


class Template:
    """Starts the workers of one pool: as forks of a template, or where that can't be, each by itself. The owner calls
    `close` when the pool has no workers any more; until then the template stays, however few there are."""

    def __init__(self, spec: WorkerSpec, place: Place) -> None:
        self._spec = evolve(spec, function=evolve(spec.function, snapshot=True))
        self._plain_spec = evolve(spec, function=evolve(spec.function, snapshot=False))
        self._place = place
        self._loop = asyncio.get_running_loop()
        self._process: _TemplateProcess | None = None
        self._starting: asyncio.Task[None] | None = None
        self._waiting = 0  # for it to start
        self._watching: set[asyncio.Task[None]] = set()
        self._spare: Worker | None = None  # what was to be a template and is a worker
        self._since = 0.0
        self._deaths = 0
        self._not_before = 0.0
        self._closed = False
        self.why_plain = ""  # why workers start without it; for good, where it is not for its deaths

    async def start_worker(self, name: str, hooks: Hooks) -> Worker:
        """A worker that takes inputs. Raises `StartFailed`; then nothing is left of it."""
        template = await self._at_hand(name, hooks)
        if template is not None:
            fork = _Fork(name, self._plain_spec, self._place, hooks, template)
            try:
                return await bring_up(fork)
            except StartFailed as failed:
                if not (template.is_gone or fork.refused):
                    raise  # as any worker's start: what the user's own code did, mostly
                _say(hooks, f"the worker is started without its memory snapshot: {failed.reason}")
        if self._spare is not None:
            worker, self._spare = self._spare, None
            worker.hand_over(hooks)
            return worker
        return await start_worker(name, self._plain_spec, self._place, hooks)

    async def close(self) -> None:
        """End the template, and what is left of its forks."""
        self._closed = True
        if self._starting is not None:
            self._starting.cancel()
            await asyncio.wait((self._starting,))
        for worker in (self._process, self._spare):
            if worker is not None:
                await worker.close()
        self._process = self._spare = None
        if self._watching:
            await asyncio.wait(self._watching)

    # --- the template

    async def _at_hand(self, name: str, hooks: Hooks) -> _TemplateProcess | None:
        """The template, started where there is none; None where there can't be one now."""
        if self._process is None and not self.why_plain:
            if self._loop.time() < self._not_before:
                _say(hooks, f"the worker is started without its memory snapshot: {self._deaths} templates have died")
                return None
            if self._starting is None:
                self._starting = self._loop.create_task(self._start(name, hooks))
                self._starting.add_done_callback(self._started)
            self._waiting += 1
            try:
                await asyncio.shield(self._starting)  # others wait for it, too
            finally:
                self._waiting -= 1
        return self._process

    def _started(self, task: asyncio.Task[None]) -> None:
        self._starting = None
        if not task.cancelled():
            task.exception()  # looked at: whoever waited has been told, or nobody wants to know

    async def _start(self, name: str, hooks: Hooks) -> None:
        """Start the template. What it prints is said to be of the worker for which it is started."""
        spec = self._spec
        try:
            self.why_plain = await self._hindrance()
        except (Error, OSError) as error:
            raise StartFailed(f"its container could not be made: {error}") from error
        if not self.why_plain:
            process = await bring_up(_TemplateProcess(f"t{name}", spec, self._place, hooks))
            if process.stands_by:
                self._process = process
                self._since = self._loop.time()
                task = self._loop.create_task(self._watch(process, hooks))
                self._watching.add(task)
                task.add_done_callback(self._watching.discard)
                return
            self.why_plain = process.why_plain
            if self._waiting:
                self._spare = process
            else:
                await process.close()
        _say(hooks, f"no memory snapshot, each worker starts by itself: {self.why_plain}")

    async def _hindrance(self) -> str:
        """Why forks would not be what workers of this pool must be; "" where they would."""
        prepared = await self._place.runtime.prepare(self._spec.container)
        limits = self._spec.container.limits
        if prepared.undivided and limits != Limits():
            return f"forks of one container can't each have memory=, cpu= or ephemeral_disk=: {prepared.undivided}"
        return ""

    async def _watch(self, process: _TemplateProcess, hooks: Hooks) -> None:
        await process.wait_ended()
        if not self._closed:
            self._process = None
            self._note_death(process, hooks)
        await process.close()

    def _note_death(self, process: _TemplateProcess, hooks: Hooks) -> None:
        now = self._loop.time()
        self._deaths = 1 if now - self._since > LIVED else self._deaths + 1
        if self._deaths > 1:
            self._not_before = now + min(MOST_BACKOFF, BACKOFF * 2.0 ** (self._deaths - 2))
        assert process.exit is not None
        how = say_exit(process.exit, self._spec.container.limits.memory_mib)
        lost = len(process.forks)
        also = f"; {lost} worker{'s are' if lost > 1 else ' is'} lost with it" if lost else ""
        _say(hooks, f"the template {how}{also}")


def _say(hooks: Hooks, text: str) -> None:
    for line in text.splitlines():
        hooks.on_line(Line(FROM_ENGINE, None, line))


class _TemplateProcess(Worker):
    """A worker until it says that it stands by to be forked; or one for good, when it says why it can't."""

    stands_by = False
    why_plain = ""

    def __init__(self, name: str, spec: WorkerSpec, place: Place, hooks: Hooks) -> None:
        super().__init__(name, spec, place, hooks)
        self.forks: dict[int, ForkProcess] = {}
        self._numbers = count(1)

    @property
    def is_gone(self) -> bool:
        return self._link is None or self._closing

    async def _take_gpus(self) -> tuple[str, ...]:
        """All that its forks may be given: a container's devices are settled when it is made."""
        return await self._place.gpus.take_all(self._spec.gpus)

    def _on_frame(self, frame: Frame, fd: int) -> None:
        if frame.kind == Kind.ENDED:
            if frame.id in self.forks:
                self.forks[frame.id].ended(frame)
                del self.forks[frame.id]
            return
        if frame.kind == Kind.READY:
            said = json.loads(bytes(frame.payload))
            self.stands_by = bool(said.get("template"))
            self.why_plain = str(said.get("plain", ""))
        super()._on_frame(frame, fd)

    def _settle(self) -> None:
        if self.stands_by and not self._started.done():
            self._started.set_result(None)
        else:
            super()._settle()

    def fork(self, order: dict[str, object]) -> ForkProcess:
        number = next(self._numbers)
        process = self.forks[number] = ForkProcess(self, number)
        if self._link is None or self.is_gone:
            self._bury()
        else:
            self._link.send(Frame(Kind.FORK, number, json.dumps(order).encode()))
        return process

    def signal_fork(self, number: int, which: int) -> None:
        if number in self.forks and self._link is not None:
            self._link.send(Frame(Kind.CANCEL, number, channel=which))

    def _bury(self) -> None:
        for process in tuple(self.forks.values()):
            process.finish(Exit(code=None, reason="its template has died, and its container with it"))
        self.forks.clear()

    async def close(self) -> None:
        try:
            await super().close()
        finally:
            self._bury()


class ForkProcess(Process):
    """A fork, as its template tells of it."""

    def __init__(self, template: _TemplateProcess, number: int) -> None:
        self._template = template
        self._number = number
        self._ended = asyncio.Event()
        self._exit = Exit(code=None)
        self.refusal = ""  # why it could not be made
        self.held: Held | None = None

    async def wait(self) -> Exit:
        await self._ended.wait()
        return self._exit

    def signal(self, number: int) -> None:
        self._template.signal_fork(self._number, number)

    def drain(self) -> None: ...  # it writes into its worker's own pipes

    def ended(self, frame: Frame) -> None:
        """The template's word."""
        if frame.outcome:
            self.refusal = bytes(frame.payload).decode()
            self.finish(Exit(code=None, reason=self.refusal))
            return
        code = os.waitstatus_to_exitcode(frame.channel)
        oom = code == -signal.SIGKILL and self.held is not None and self.held.ran_out()
        self.finish(Exit(code=None, signal=-code, oom=oom) if code < 0 else Exit(code=code))

    def finish(self, how: Exit) -> None:
        if not self._ended.is_set():
            self._exit = how
            self._ended.set()


class _Fork(Worker):
    """A worker that its template forks."""

    def __init__(self, name: str, spec: WorkerSpec, place: Place, hooks: Hooks, template: _TemplateProcess) -> None:
        super().__init__(name, spec, place, hooks, log_token=template.log_token)
        self._template = template
        self._forked: ForkProcess | None = None
        self._came: asyncio.Future[socket.socket] = asyncio.get_running_loop().create_future()

    @property
    def refused(self) -> bool:
        return self._forked is not None and bool(self._forked.refusal)

    async def start(self) -> None:
        template = self._template
        self._gpus = await self._take_gpus()
        path = self._place.folder(template.name) / f"{self.name}.sock"
        self._listener = Listener(path, self._accept, mode=0o666)
        names = ("CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES") if self._gpus else ()
        gpus = dict.fromkeys(names, ",".join(self._gpus))  # of all those that the container has
        process = template.fork({"socket": path.name, "token": self._token, "env": gpus})
        self._process = self._forked = process
        self.container = _Share(self.name, template, process)
        ended = asyncio.ensure_future(process.wait())
        try:
            either: set[asyncio.Future[Exit] | asyncio.Future[socket.socket]] = {ended, self._came}
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        finally:
            ended.cancel()
        if self._came.done():
            await self._admit(self._came.result())

    async def _admit(self, sock: socket.socket) -> None:
        """Hold it to its limits before it runs anything of the user's, then tell it to go on."""
        prepared = await self._place.runtime.prepare(self._spec.container)
        if not prepared.undivided:
            assert self._forked is not None and self._template.container is not None
            pid = _UCRED.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))[0]
            self._forked.held = await self._template.container.hold(self.name, pid, self._spec.container.limits)
        super()._welcome(sock, "worker")

    def _welcome(self, sock: socket.socket, role: str) -> None:
        if role == "worker" and not self._came.done():
            self._came.set_result(sock)
        else:
            super()._welcome(sock, role)

    async def close(self) -> None:
        if self._came.done() and self._link is None:
            self._came.result().close()
        await super().close()


class _Share(Container):
    """What a fork has of its template's container: a place in it, and its own end."""

    def __init__(self, name: str, template: _TemplateProcess, process: ForkProcess) -> None:
        assert template.container is not None
        self._name = name
        self._container = template.container
        self._process = process

    @property
    def name(self) -> str:
        return self._name

    async def exec(
        self,
        argv: tuple[str, ...],
        *,
        env: tuple[tuple[str, str], ...] = (),
        cwd: str | None = None,
        stdin: bytes = b"",
        output: Output | None = None,
    ) -> Process:
        return await self._container.exec(argv, env=env, cwd=cwd, stdin=stdin, output=output)

    async def open_terminal(
        self,
        argv: tuple[str, ...],
        *,
        env: tuple[tuple[str, str], ...] = (),
        cwd: str | None = None,
        rows: int = 24,
        columns: int = 80,
    ) -> Terminal:
        return await self._container.open_terminal(argv, env=env, cwd=cwd, rows=rows, columns=columns)

    async def hold(self, name: str, pid: int, limits: Limits) -> Held:
        return await self._container.hold(name, pid, limits)

    async def commit(self, layer: str) -> str:
        raise InvalidError(f"{self._name} shares its container with others: it can't become a layer")

    async def stop(self, grace_ms: int) -> None:
        self._process.signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(grace_ms / 1000):
                await self._process.wait()
        except TimeoutError:
            pass
        await self.kill()

    async def kill(self) -> None:
        self._process.signal(signal.SIGKILL)
        try:
            async with asyncio.timeout(LET_GO):
                await self._process.wait()
        except TimeoutError:  # somebody has stopped the template
            await self._container.kill()
        if self._process.held is not None:
            await self._process.held.release()

    async def stats(self) -> Stats:
        if self._process.held is None:
            return Stats(memory_bytes=None, cpu_ms=None, processes=None)
        return await self._process.held.stats()
