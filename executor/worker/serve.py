"""What a worker does: import the user's function, then take inputs and answer each. Runs in the container.

Inputs of a synchronous function run on the main thread, one after the other; those of an asynchronous one are tasks
of one loop. Orders about inputs (give up, give back) come over a second connection, which a thread of its own reads
(or the loop of `serve_async`), so that the main thread spends nothing on them between two inputs.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import resource
import signal
import sys
import threading
from importlib import import_module
from types import AsyncGeneratorType, CoroutineType, GeneratorType
from typing import TYPE_CHECKING, Any, cast

from slipway.dsl import context
from slipway.dsl.errors import DeserializationError, ExecutionError, InputCancellation, InvalidError
from slipway.dsl.function import raw_of
from slipway.dsl.session import Running, set_worker

from . import failure, output, payload, stream
from .frames import PROTOCOL, Flag, Frame, Kind, Outcome, pack
from .stream import NO_FD, Stream, StreamClosed

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

    from slipway.dsl.session import Session

TOKEN_VARIABLE = "SLIPWAY_WORKER_TOKEN"  # noqa: S105 - the name of a variable
_OUTPUT = int(Flag.OUTPUT)
_WAYS_OUT: dict[int | None, str] = {
    errno.EPERM: ". gVisor's runsc lets a container use this machine's sockets only where its runtimeArgs have "
    "--host-uds=open",
    errno.EACCES: ". The user of the image may not enter its folder",
}
_GENERATORS = (GeneratorType, AsyncGeneratorType)


def main(folder: str) -> None:
    """Connect to the engine, get ready, serve until the engine closes the connection."""
    socket_path = f"{folder}/engine.sock"
    token = os.environ.pop(TOKEN_VARIABLE, "")
    try:
        link = _connect(socket_path, "worker", token)
    except OSError as error:
        way_out = _WAYS_OUT.get(error.errno, "")
        sys.exit(f"the worker can't reach the engine by {socket_path}: {error.strerror}{way_out}")
    try:
        start = _await_start(link)
    except StreamClosed:
        return  # the engine gave the worker up before it began
    printed = output.Output(start["log_token"])
    context.enter_worker()
    if start.get("session"):
        set_worker(Running(app_id=start["app"], session=cast("Session", _LazySession(start["session"], socket_path))))
    try:
        function = load_function(start["function"])
    except BaseException as error:  # noqa: BLE001 - importing runs the user's own code, which may raise anything
        printed.end_call()
        link.send(pack(Frame(Kind.FAILED, payload=failure.pack(error))))
        return
    control = _connect(socket_path, "control", token)
    server: Server
    if start["function"]["is_async"]:
        from .serve_async import AsyncServer  # asyncio takes a quarter of a worker's start; most need none

        server = AsyncServer(link, control, function, printed, start)
    else:
        server = _SyncServer(link, control, function, printed, start)
    printed.end_call()
    link.send(pack(Frame(Kind.READY, payload=json.dumps({"pid": os.getpid()}).encode())))
    try:
        server.serve()
    except StreamClosed as closed:  # the engine has no more use for this worker …
        if isinstance(closed.__cause__, OSError) and closed.__cause__.errno == errno.EBADF:  # … or can't be reached
            print(f"{start['function']['name']} closed file descriptors that are not its own", file=sys.stderr)  # noqa: T201
            sys.exit(1)
    finally:
        printed.end_call()


def _connect(path: str, role: str, token: str) -> Stream:
    sock = stream.connect(path)
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    high = 900 if limit == resource.RLIM_INFINITY else max(3, min(limit - 16, 900))  # out of the way of user code
    high = fcntl.fcntl(sock, fcntl.F_DUPFD_CLOEXEC, high)
    sock.close()
    link = Stream(type(sock)(fileno=high))
    hello = {"protocol": PROTOCOL, "role": role, "token": token, "pid": os.getpid()}
    link.send(pack(Frame(Kind.HELLO, payload=json.dumps(hello).encode())))
    return link


def _await_start(link: Stream) -> dict[str, Any]:
    """What to serve. From here on what this process prints goes into the engine's pipes."""
    while True:
        for frame, fd in link.receive():
            if frame.kind == Kind.STREAM:
                os.dup2(fd, frame.channel)
                os.close(fd)
            elif frame.kind == Kind.START:
                start: dict[str, Any] = json.loads(bytes(frame.payload))
                return start


# --- the user's function ------------------------------------------------------------------------------


def load_function(spec: dict[str, Any]) -> Callable[..., Any]:
    """The plain function that a declaration names. Raises what importing it raises, or `ExecutionError`."""
    if spec.get("serialized"):
        from base64 import b64decode

        function: Any = payload.load(b64decode(spec["serialized"]))
    else:
        function = import_module(spec["module"])
        try:
            for name in spec["qualname"].split("."):
                function = getattr(function, name)
        except AttributeError:
            raise ExecutionError(
                f"the module {spec['module']} has no {spec['qualname']} in the container",
                hint="Is it defined under a condition that does not hold there?",
            ) from None
    return raw_of(function)


class _LazySession:
    """The session of code in a worker: connects when a function is first called from here."""

    def __init__(self, factory: str, path: str) -> None:
        self._factory = factory
        self._path = path
        self._lock = threading.Lock()
        self._made: Any = None

    def __getattr__(self, name: str) -> Any:
        with self._lock:
            if self._made is None:
                module, _, attribute = self._factory.partition(":")
                self._made = getattr(import_module(module), attribute)(self._path)
        return getattr(self._made, name)


# --- serving ------------------------------------------------------------------------------------------


class Server:
    """What both kinds of function share: reading inputs, answering them, giving inputs back."""

    def __init__(
        self, link: Stream, control: Stream, function: Callable[..., Any], printed: output.Output, start: dict[str, Any]
    ) -> None:
        self.link = link
        self.control = control
        self.function = function
        self.printed = printed
        self.name = start["function"]["name"]
        self.concurrency = int(start.get("concurrency", 1))
        self.pid = os.getpid()
        self.lock = threading.Lock()
        self.last_started = 0  # sequence number, which inputs carry in `channel`
        self.given_back: set[int] = set()

    def serve(self) -> None:
        raise NotImplementedError

    def claim(self, frame: Frame) -> bool:
        """Whether to start an input: not when it has been given back meanwhile."""
        with self.lock:
            if frame.channel in self.given_back:
                self.given_back.discard(frame.channel)
                return False
            self.last_started = frame.channel
            return True

    def arguments(self, frame: Frame, fd: int) -> tuple[tuple[Any, ...], dict[str, Any]]:
        try:
            args, kwargs = payload.load(frame.payload) if fd == NO_FD else payload.load_fd(fd, frame.fd_length)
            return args, kwargs
        except Exception as error:
            raise DeserializationError(
                f"the arguments for {self.name} can't be read in the container: {type(error).__name__}: {error}",
                hint="A module that they need may be missing in the image.",
            ) from error

    def check(self, result: Any) -> Any:
        if isinstance(result, CoroutineType):
            result.close()
            raise InvalidError(
                f"{self.name} is a plain function that returned a coroutine",
                hint="Declare it with `async def`, or await the coroutine inside.",
            )
        if isinstance(result, _GENERATORS):
            raise InvalidError(
                f"{self.name} returned a generator, which can't leave the worker",
                hint="Return a list, or declare the function as a generator.",
            )
        return result

    def answer(self, call: int, outcome: Outcome, data: payload.Packed | bytes) -> None:
        flags = _OUTPUT if self.printed.end_call() else 0
        if isinstance(data, bytes):
            self.link.send(pack(Frame(Kind.RESULT, call, data, 0, flags, outcome)))
        else:
            self.link.send_payload(Frame(Kind.RESULT, call, b"", 0, flags, outcome), data)

    def result(self, call: int, value: Any) -> None:
        self.answer(call, Outcome.RETURNED, payload.dump_or_refuse(value, f"the result of {self.name}"))

    def raised(self, call: int, error: BaseException) -> None:
        self.answer(call, Outcome.RAISED, failure.pack(error))

    def leave_fork(self, error: BaseException | None) -> None:
        """End a process that the user's code forked and that came back out of the function: the answer is not its."""
        code = 0 if error is None else 1
        if isinstance(error, SystemExit):
            code = error.code if isinstance(error.code, int) else int(error.code is not None)
        self.printed.end_call()
        os._exit(code)

    def give_back(self, frame: Frame) -> None:
        with self.lock:
            free = frame.channel > self.last_started
            if free:
                self.given_back.add(frame.channel)
        self.control.send(pack(Frame(Kind.RECALL, frame.id, b"", frame.channel, 0, int(free))))


class _SyncServer(Server):
    """One input after the other on the main thread."""

    current: int | None = None  # the call under way; set while a cancellation may interrupt it
    cancelled: int | None = None

    def serve(self) -> None:
        signal.signal(signal.SIGUSR1, self._on_cancel)
        threading.Thread(target=self._obey, name="slipway-control", daemon=True).start()
        receive, run = self.link.receive, self._run
        while True:
            for frame, fd in receive():
                if frame.kind == Kind.CALL:
                    run(frame, fd)

    def _run(self, frame: Frame, fd: int) -> None:
        if not self.claim(frame):
            if fd != NO_FD:
                os.close(fd)
            return
        call = frame.id
        text = f"{call:x}"
        context.input_id.set(f"in-{text}")
        context.function_call_id.set(f"fc-{text}")
        output.running.set(call)
        error: BaseException | None = None
        args: Any = None
        kwargs: Any = None
        value: Any = None
        try:
            try:
                args, kwargs = self.arguments(frame, fd)
                self.current = call
                value = self.check(self.function(*args, **kwargs))
            finally:
                self.current = None  # from here on no cancellation is raised
        except BaseException as raised:  # noqa: BLE001 - the user's function may raise anything, SystemExit too
            error = raised
        if os.getpid() != self.pid:
            self.leave_fork(error)
        try:
            self._answer(call, value, error)
        finally:
            output.running.set(None)
            error = value = args = kwargs = None  # not kept until the next input, nor by the traceback's cycle

    def _answer(self, call: int, value: Any, error: BaseException | None) -> None:
        if error is None:
            try:
                self.result(call, value)
                return
            except StreamClosed:
                raise
            except Exception as unpicklable:  # noqa: BLE001 - pickling a result runs its own code
                error = unpicklable
        if isinstance(error, InputCancellation):
            self.answer(call, Outcome.CANCELLED, b"cancelled while it ran")
        else:
            self.raised(call, error)

    def _on_cancel(self, number: int, frame: FrameType | None) -> None:
        if self.current is not None and self.current == self.cancelled:
            self.current = None
            raise InputCancellation("the call was cancelled")

    def _obey(self) -> None:
        try:
            while True:
                for frame, _ in self.control.receive():
                    if frame.kind == Kind.RECALL:
                        self.give_back(frame)
                    elif frame.kind == Kind.CANCEL and self.current == frame.id:
                        self.cancelled = frame.id
                        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)
        except StreamClosed:
            return
