"""What a worker does: import the user's code, take inputs and answer each, end in order. Runs in the container.

Inputs of plain functions run on the main thread, one after the other (in threads where the declaration allows several
at a time); those of asynchronous ones are tasks of one loop. Orders about inputs (give up, give back) come over a
second connection, which a thread of its own reads, so that the main thread spends nothing on them between two inputs.
"""

from __future__ import annotations

import atexit
import errno
import json
import os
import sys
import threading
from importlib import import_module
from typing import TYPE_CHECKING, Any, cast

from slipway.dsl import context
from slipway.dsl.session import Running, set_worker

from . import failure, output, stream
from .ending import begin_deadline, die_by, ignore_signals
from .frames import PROTOCOL, Frame, Kind, pack
from .served import Served
from .server import Ended, is_own_doing, move_up
from .stream import Stream, StreamClosed

if TYPE_CHECKING:
    from collections.abc import Callable

    from slipway.dsl.session import Session

    from .server import Server

TOKEN_VARIABLE = "SLIPWAY_WORKER_TOKEN"  # noqa: S105 - the name of a variable
_WAYS_OUT: dict[int | None, str] = {
    errno.EPERM: ". gVisor's runsc lets a container use this machine's sockets only where its runtimeArgs have "
    "--host-uds=open",
    errno.EACCES: ". The user of the image may not enter its folder",
}


def main(folder: str) -> None:
    """Connect to the engine, get ready, serve until the engine closes the connection."""
    path = f"{folder}/engine.sock"
    token = os.environ.pop(TOKEN_VARIABLE, "")
    _Last.link = link = join(path, "worker", token)
    atexit.register(_die)  # first, so that it comes last
    try:
        start = _await_start(link)
    except StreamClosed:
        return  # the engine gave the worker up before it began
    printed = output.Output(start["log_token"], shared=int(start.get("concurrency", 1)) > 1)
    _introduce(start, path)
    served = Served(start)
    if not (_done(lambda: served.load(start), link, printed) and _done(lambda: served.enter(snap=True), link, printed)):
        return
    plain = ""
    if start.get("snapshot"):
        from . import template

        printed.end_call()
        order = served.let_go_of_loop() or template.stand_by(link)
        if isinstance(order, str):
            plain = order
        else:  # this is a fork of the template
            path, token = f"{folder}/{order.socket}", order.token
            os.environ.update(order.env)
            _Last.link = link = join(path, "worker", token)
            try:
                _introduce(_await_start(link), path)
            except StreamClosed:
                return
    if _done(lambda: served.enter(snap=False), link, printed):
        serve(link, path, token, served, printed, plain)


def _introduce(start: dict[str, Any], path: str) -> None:
    """Say in this process whose worker it is, and by which way it calls other functions."""
    context.enter_worker()
    failure.say_where(start.get("worker", ""))
    if start.get("session"):
        set_worker(Running(app_id=start["app"], session=cast("Session", _LazySession(start["session"], path))))


def _done(work: Callable[[], None], link: Stream, printed: output.Output) -> bool:
    """Do a part of the start; False where it raised, which the engine has been told."""
    try:
        work()
    except KeyboardInterrupt:
        raise  # a signal ends the worker before it has begun
    except BaseException as error:  # noqa: BLE001 - the user's own code runs here, which may raise anything
        refuse(link, printed, error)
        return False
    return True


def refuse(link: Stream, printed: output.Output, error: BaseException) -> None:
    """The worker can't get ready, for this reason."""
    data = failure.pack(error, printed=True)
    printed.end_call()
    link.send(pack(Frame(Kind.FAILED, payload=data)))


def serve(link: Stream, path: str, token: str, served: Served, printed: output.Output, plain: str = "") -> None:
    """Take inputs until the engine hangs up or a signal comes, then end in order. All enter hooks have run.
    `plain` says why this process, which was to be a template, is a worker."""
    control = join(path, "control", token)
    server: Server
    if served.is_async:
        from .serve_async import AsyncServer

        server = AsyncServer(link, control, served, printed)
    else:
        from .serve_sync import SyncServer

        server = SyncServer(link, control, served, printed)
    server.prepare()
    printed.end_call()
    ready = {"pid": os.getpid(), "plain": plain} if plain else {"pid": os.getpid()}
    link.send(pack(Frame(Kind.READY, payload=json.dumps(ready).encode())))
    code = number = 0
    try:
        server.serve()
    except Ended as ended:
        number = ended.number
    except (StreamClosed, OSError) as closed:  # the engine has no more use for this worker …
        if is_own_doing(closed):  # … or can't be reached
            print(f"{served.name} closed file descriptors that are not its own", file=sys.stderr)  # noqa: T201
            code = 1
    _end(served, printed, broken=bool(code))
    _Last.signal = number
    if code:
        sys.exit(code)


def _end(served: Served, printed: output.Output, *, broken: bool) -> None:
    """What is left to do for the user's code, within the grace time."""
    ignore_signals()
    begin_deadline()
    context.input_id.set(None)
    context.function_call_id.set(None)
    served.exit()
    if not broken:
        served.close()
    printed.end_call()


def join(path: str, role: str, token: str) -> Stream:
    """Connect to the engine. Ends the program with a sentence where it can't be reached."""
    try:
        sock = stream.connect(path)
    except OSError as error:
        way_out = _WAYS_OUT.get(error.errno, "")
        sys.exit(f"the worker can't reach the engine by {path}: {error.strerror}{way_out}")
    link = Stream(type(sock)(fileno=move_up(sock.detach())))
    hello = {"protocol": PROTOCOL, "role": role, "token": token, "pid": os.getpid()}
    link.send(pack(Frame(Kind.HELLO, payload=json.dumps(hello).encode())))
    return link


class _Last:
    """What the end of the process, after the user's own atexit functions and threads, needs."""

    link: Stream | None = None  # open until then: the engine kills a worker that has hung up
    signal = 0


def _die() -> None:
    if _Last.signal:
        sys.stdout.flush()
        sys.stderr.flush()
        die_by(_Last.signal)  # so that the engine knows what ended it


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
