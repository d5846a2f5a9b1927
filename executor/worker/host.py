"""The engine's end of a worker: makes its container, starts the program in it, passes frames both ways."""

from __future__ import annotations

import asyncio
import hmac
import json
import os
import secrets
import shutil
import signal
import socket
from collections import deque
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from attrs import evolve, field, frozen

from slipway.dsl.errors import Error
from slipway.dsl.variant import Value, Variant
from slipway.executor.gpu_shares import GpuShares
from slipway.executor.pipes import Pipes
from slipway.executor.ports import Container, ContainerSpec, Exit, Mount, Process, Runtime

from . import failure
from .frames import HEADER_SIZE, Decoder, Flag, Frame, FrameError, Kind
from .logs import Line, Splitter
from .package import IN_CONTAINER
from .wire import NO_FD, Listener, Wire

TOKEN_VARIABLE = "SLIPWAY_WORKER_TOKEN"  # noqa: S105 - the name of a variable
PROGRAM = f"{IN_CONTAINER}/lib/slipway/executor/worker/main.py"
RUN = f"{IN_CONTAINER}/run"
USER_CODE = "/root"
TAIL_LINES = 12
LET_GO = 1.0  # seconds between a worker's hanging up and its process's end, before it is killed
STOP_GRACE = 30.0  # seconds that a worker has for its own clean-up (exit hooks) when it is no longer needed
MOST_STRANGERS = 64  # connections of one container that have not said yet who they are
_FD = int(Flag.FD)
_OUTPUT = int(Flag.OUTPUT)


@frozen(kw_only=True)
class FunctionStart:
    """What the worker program must know of the function, or of the class where it has `methods`. `session` names what
    makes its way to call others."""

    app: str
    name: str
    module: str
    qualname: str
    is_async: bool = False
    is_generator: bool = False
    serialized: str | None = None
    methods: tuple[tuple[str, bool, bool], ...] = ()  # (name, is_async, is_generator); CALL.outcome indexes it
    parameters: tuple[tuple[str, Value], ...] = ()  # those of the object that this pool serves
    concurrency: int = 1
    batched: bool = False
    snapshot: bool = False
    session: str = ""
    variant: str = field(default="", repr=False)  # JSON: the opening that such workers are asked for by

    def message(self, log_token: str, worker: str = "") -> bytes:
        """The payload of START for a worker of that name. Bytes among the parameters go as in "function.open"."""
        function = {
            "name": self.name,
            "module": self.module,
            "qualname": self.qualname,
            "is_async": self.is_async,
            "is_generator": self.is_generator,
            "serialized": self.serialized,
        }
        start = {
            "function": function,
            "methods": self.methods,
            "parameters": Variant(parameters=self.parameters).opening().get("parameters", {}),
            "app": self.app,
            "concurrency": self.concurrency,
            "batch": self.batched,
            "snapshot": self.snapshot,
            "session": self.session,
            "log_token": log_token,
            "worker": worker,
            "variant": json.loads(self.variant or "null"),
        }
        return json.dumps(start).encode()


@frozen(kw_only=True)
class WorkerSpec:
    """Everything about the workers of one pool. `container.name` is replaced by each worker's own; `env` are private
    settings (plain ones are the container's), and `secrets` the values that must not appear in a log. Without a `cwd`
    the program starts where the image says."""

    container: ContainerSpec
    function: FunctionStart
    env: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    secrets: tuple[str, ...] = field(default=(), repr=False)
    gpus: tuple[str, ...] = ()  # as the user wishes, the first best: ("H100:2", "A100")
    startup_timeout: float = 300.0
    cwd: str | None = None


@frozen(kw_only=True)
class Place:
    """What is the same for all workers of an engine: its runtime, and where things lie."""

    runtime: Runtime
    run: Path  # control folders, one a worker
    code: Path  # what `package.prepare` returned
    gpus: GpuShares = field(factory=GpuShares)

    def folder(self, name: str) -> Path:
        """The control folder of a container."""
        return self.run / name

    def open(self, name: str) -> tuple[Mount, ...]:
        """Make the control folder of a container; what is mounted there: it, and our code."""
        folder = self.folder(name)
        folder.mkdir(mode=0o711, parents=True)
        folder.chmod(0o711)  # the home keeps others out; in the container every user may come
        return (
            Mount(source=str(self.code / "lib"), target=f"{IN_CONTAINER}/lib", read_only=True),
            Mount(source=str(self.code / "fallback"), target=f"{IN_CONTAINER}/fallback", read_only=True),
            Mount(source=str(folder), target=RUN),
        )


@frozen(kw_only=True)
class Hooks:
    """Whom a worker tells what happens; all are called on the loop."""

    on_result: Callable[[Frame, int], None]
    on_recalled: Callable[[int, int, bool], None]  # call, sequence number, given back
    on_line: Callable[[Line], None]
    on_client: Callable[[socket.socket], None]  # code in the worker calls another function


class StartFailed(Exception):
    """The worker did not get ready. Where the user's module raised, `payload` is its pickled exception, and `trace` the
    traceback as text."""

    def __init__(self, reason: str, payload: bytes | None = None, trace: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.payload = payload
        self.trace = trace


class Worker:
    """One container with the worker program. Made by `start_worker`; whoever made it calls `close`."""

    def __init__(
        self, name: str, spec: WorkerSpec, place: Place, hooks: Hooks, *, log_token: str | None = None
    ) -> None:
        self.name = name
        self._spec = spec
        self._place = place
        self._hooks = hooks
        self._loop = asyncio.get_running_loop()
        self._folder = place.folder(name)
        self._token = secrets.token_hex(16)
        self.log_token = log_token or secrets.token_hex(8)
        # What the program prints comes through pipes of ours; what comes before it takes them, or where it can't, as
        # the container's own output. Each is lines of its own, whichever comes first.
        self._splitters = tuple(Splitter(self.log_token, spec.secrets) for _ in range(2))
        self._pipes = Pipes(partial(self._on_output, self._splitters[0]))
        self._tail: deque[str] = deque(maxlen=TAIL_LINES)
        self._listener: Listener | None = None
        self._strangers: dict[int, socket.socket] = {}  # connected, and have not said yet who they are
        self.container: Container | None = None
        self._gpus: tuple[str, ...] = ()
        self._process: Process | None = None
        self.exit: Exit | None = None  # how its process ended, as soon as `wait_ended` has returned
        self._link: Wire | None = None
        self._control: Wire | None = None
        self._is_ready = False
        self._started: asyncio.Future[None] = self._loop.create_future()
        self._closing = False

    # --- the start

    async def start(self) -> None:
        spec, place = self._spec, self._place
        prepared = await place.runtime.prepare(spec.container)
        self._gpus = await self._take_gpus()
        mounts = place.open(self.name)
        # In the container anybody may come, whoever the image's user is, and show the token.
        self._listener = Listener(self._folder / "engine.sock", self._accept, mode=0o666)
        container = evolve(
            spec.container,
            name=self.name,
            mounts=(*spec.container.mounts, *mounts),
            env=(*spec.container.env, (TOKEN_VARIABLE, self._token)),
            gpus=self._gpus,
            single=True,
        )
        self.container = await place.runtime.create(container)
        self._process = await self.container.exec(
            (prepared.python, PROGRAM, RUN, IN_CONTAINER, USER_CODE),
            env=spec.env,
            cwd=spec.cwd,
            output=partial(self._on_output, self._splitters[1]),
        )

    async def _take_gpus(self) -> tuple[str, ...]:
        return await self._place.gpus.take(self._spec.gpus)

    @property
    def startup_timeout(self) -> float:
        return self._spec.startup_timeout

    def hand_over(self, hooks: Hooks) -> None:
        """From now on tell somebody else."""
        self._hooks = hooks

    async def until_ready(self) -> None:
        """Return when the worker takes inputs. Raises `StartFailed`."""
        assert self._process is not None
        ended = self._loop.create_task(self._process.wait())
        try:
            either: set[asyncio.Future[Any]] = {ended, self._started}
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if self._link is not None and not self._started.done():
                self._link.read_now()  # its last words may say why
            if self._started.done():
                self._started.result()
            else:
                raise StartFailed(self._death(ended.result(), "before it was ready"))
        finally:
            ended.cancel()

    # --- connections from the container

    def _accept(self, sock: socket.socket) -> None:
        if len(self._strangers) >= MOST_STRANGERS:  # else one container could take all descriptors that we may have
            sock.close()
            return
        sock.setblocking(False)
        self._strangers[sock.fileno()] = sock
        self._loop.add_reader(sock.fileno(), self._greet, sock)

    def _greet(self, sock: socket.socket) -> None:
        """Look at a connection's first frame without taking it: a client's is for whoever serves clients."""
        hello: dict[str, object] = {}
        size = 0
        try:
            peeked = sock.recv(4096, socket.MSG_PEEK)
            frames = Decoder(limit=4096 - HEADER_SIZE).feed(peeked)
            # A HELLO is sent in one piece; to wait for the rest of one would be to be woken for nothing all the time.
            if frames and frames[0].kind == Kind.HELLO:
                said = json.loads(bytes(frames[0].payload))
                hello = said if isinstance(said, dict) else {}
                size = HEADER_SIZE + len(frames[0].payload)
        except BlockingIOError:
            return
        except (OSError, ValueError, RecursionError, FrameError):
            pass  # whoever it is, it does not speak as a worker does
        self._loop.remove_reader(sock.fileno())
        self._strangers.pop(sock.fileno(), None)
        role = hello.get("role")
        if role == "client":
            self._hooks.on_client(sock)
        elif role in ("worker", "control") and self._knows(hello):
            sock.recv(size)
            self._welcome(sock, str(role))
        else:
            sock.close()

    def _knows(self, hello: dict[str, object]) -> bool:
        return hmac.compare_digest(str(hello.get("token")).encode(errors="replace"), self._token.encode())

    def _welcome(self, sock: socket.socket, role: str) -> None:
        if role == "worker" and self._link is None:
            self._link = Wire(sock, self._on_frame, self._on_hang_up)
            for stream, end in enumerate(self._pipes.open(), start=1):
                self._link.send(Frame(Kind.STREAM, channel=stream, flags=_FD), end)
            self._link.send(Frame(Kind.START, payload=self._spec.function.message(self.log_token, self.name)))
        elif role == "control" and self._control is None:
            self._control = Wire(sock, self._on_control, lambda _reason: None)
            self._settle()
        else:
            sock.close()

    def _on_frame(self, frame: Frame, fd: int) -> None:
        kind = frame.kind
        if kind == Kind.RESULT:
            if frame.flags & _OUTPUT:
                self._pipes.drain()
            self._hooks.on_result(frame, fd)
            return
        if fd != NO_FD:
            os.close(fd)
        if kind == Kind.READY:
            self._is_ready = True
            self._settle()
        elif kind == Kind.FAILED and not self._started.done():
            self._pipes.drain()
            data = bytes(frame.payload)
            mask = self._splitters[0].mask
            self._started.set_exception(StartFailed(mask(failure.summary(data)), data, mask(failure.trace(data))))

    def _settle(self) -> None:
        """The worker takes inputs, and orders about them: its two connections may arrive in any order."""
        if self._is_ready and self._control is not None and not self._started.done():
            self._started.set_result(None)

    def _on_control(self, frame: Frame, fd: int) -> None:
        if fd != NO_FD:
            os.close(fd)
        if frame.kind == Kind.RECALL:
            self._hooks.on_recalled(frame.id, frame.channel, frame.outcome == 1)

    def _on_hang_up(self, reason: str) -> None:
        if not self._closing:  # user code closed the connection: the worker can't answer any more
            self._loop.call_later(LET_GO, self._signal, signal.SIGKILL)

    def _signal(self, number: int) -> None:
        if self._process is not None and not self._closing:
            self._process.signal(number)

    def _on_output(self, splitter: Splitter, stream: int, data: bytes) -> None:
        for line in splitter.feed(stream, data):
            self._say(line)

    def _say(self, line: Line) -> None:
        self._tail.append(line.text)
        self._hooks.on_line(line)

    # --- while it serves

    def call(self, frame: Frame, fd: int) -> None:
        """Send an input (a CALL frame); the worker's wire owns `fd`."""
        assert self._link is not None
        self._link.send(frame, fd)

    def taken(self, call: int, count: int) -> None:
        """Tell a generator that its consumer took so many more items."""
        if self._control is not None:
            self._control.send(Frame(Kind.TAKEN, call, b"", count))

    def recall(self, call: int, sequence: int) -> None:
        if self._control is not None:
            self._control.send(Frame(Kind.RECALL, call, b"", sequence))

    def interrupt(self, call: int, sequence: int) -> None:
        """Have an input given up, also one that the worker has not read yet."""
        if self._control is not None:
            self._control.send(Frame(Kind.CANCEL, call, b"", sequence, int(Flag.FORCE)))

    async def wait_ended(self) -> str:
        """Wait until the worker's process is gone; return why, in words."""
        assert self._process is not None
        self.exit = end = await self._process.wait()
        if self._link is not None:
            self._link.read_now()
        return self._death(end, "")

    def _death(self, end: Exit, when: str) -> str:
        self._pipes.finish()
        for splitter in self._splitters:
            for line in splitter.finish():
                self._say(line)
        reason = say_exit(end, self._spec.container.limits.memory_mib)
        text = f"the worker {reason} {when}".rstrip()
        return text if end.oom or end.code == 0 else text + self.last_words()

    def last_words(self) -> str:
        """The end of what the worker printed, to follow a sentence; "" where it printed nothing."""
        if not self._tail:
            return ""
        return "; the last it printed:\n" + "\n".join(f"  {line}" for line in self._tail)

    # --- the end

    async def stop(self) -> None:
        """Hang up, and give the program a while to end by itself (its own clean-up runs)."""
        self._closing = True
        for wire in (self._link, self._control):
            if wire is not None:
                wire.close()
        if self._process is not None:
            try:
                async with asyncio.timeout(STOP_GRACE):
                    await self._process.wait()
            except TimeoutError:
                await self.close()

    async def close(self) -> None:
        """Kill the container and let go of everything. Safe to call twice."""
        self._closing = True
        for wire in (self._link, self._control):
            if wire is not None:
                wire.close()
        if self._listener is not None:
            self._listener.close()
        for number, sock in self._strangers.items():
            self._loop.remove_reader(number)
            sock.close()
        self._strangers.clear()
        if self._started.done() and not self._started.cancelled():
            self._started.exception()  # looked at: it has been reported, or nobody wants to know
        try:
            if self.container is not None:
                await self.container.kill()
        finally:
            self._pipes.finish()
            self._place.gpus.give_back(self._gpus)
            self._gpus = ()
        shutil.rmtree(self._folder, ignore_errors=True)


def say_exit(end: Exit, memory_mib: int | None) -> str:
    """How a process ended, in words.

    >>> say_exit(Exit(code=None, signal=9, oom=True), 512)
    'ran out of memory (limit 512 MiB)'
    >>> say_exit(Exit(code=None, signal=11), None)
    'was killed by signal 11 (SIGSEGV)'
    """
    if end.oom:
        return "ran out of memory" + (f" (limit {memory_mib} MiB)" if memory_mib else "")
    if end.signal is not None:
        try:
            name = f" ({signal.Signals(end.signal).name})"
        except ValueError:
            name = ""
        return f"was killed by signal {end.signal}{name}"
    if end.code is None:
        return f"was lost: {end.reason}"
    return f"exited with code {end.code}"


async def start_worker(name: str, spec: WorkerSpec, place: Place, hooks: Hooks) -> Worker:
    """A worker that takes inputs. Raises `StartFailed`; then nothing is left of it."""
    return await bring_up(Worker(name, spec, place, hooks))


W = TypeVar("W", bound=Worker)


async def bring_up(worker: W) -> W:
    """Start a worker that has been made, and wait until it takes inputs."""
    seconds = worker.startup_timeout
    try:
        async with asyncio.timeout(seconds):
            try:
                await worker.start()
            except (Error, OSError) as error:
                raise StartFailed(f"its container could not be made: {error}") from error
            await worker.until_ready()
    except TimeoutError:
        await worker.close()
        raise StartFailed(f"the worker was not ready within {seconds:g} s" + worker.last_words()) from None
    except BaseException:
        await worker.close()
        raise
    return worker
