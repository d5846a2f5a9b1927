"""The template: a process that has done a worker's start once and forks further workers from there. In the container.

Forked, a worker is as far as the template after its `enter(snap=True)` hooks, in milliseconds, and shares the memory
of what was loaded until it writes to it. It lives in the template's container (files, processes, network), as a
session of its own: no process can move into a container of its own once it runs. What it must not share with its
siblings it gets anew here: its connections, its output, its randomness.

The template does nothing but fork and reap, in one thread, so that how each fork ended is known as exactly as for a
process of the runtime's. It ends when the engine hangs up, and its container with it.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import select
import signal
import socket
import sys
import threading
import time
import warnings
from typing import TYPE_CHECKING, NamedTuple, NoReturn

from .frames import Frame, Kind, pack
from .stream import StreamClosed

if TYPE_CHECKING:
    from .stream import Stream

EXIT_GRACE = 35.0  # seconds that forks have to end by themselves when the engine has gone: their exit hooks take 30
OOM_MORE = 50  # where memory runs out a fork goes before the template, with which all of them would go
_SHARED_QUEUES = {
    "anon_inode:[eventpoll]": "an event loop or selector is open (epoll)",
    "anon_inode:[io_uring]": "an io_uring is open",
}


class Order(NamedTuple):
    """What a fork is told: the name of its own socket, what it shows there, and settings of its own."""

    socket: str
    token: str
    env: dict[str, str]


def stand_by(link: Stream) -> Order | str:
    """Fork a worker whenever the engine says so. Returns in each fork, with its order; the template itself never
    returns, unless it can't be forked safely: then at once, with the reason."""
    reason = unsafe()
    if reason:
        return reason
    link.send(pack(Frame(Kind.READY, payload=json.dumps({"pid": os.getpid(), "template": True}).encode())))
    return _Template(link).run()


# --- whether it can be forked -------------------------------------------------------------------------


def unsafe() -> str:
    """Why this process can't be forked and go on in both; "" where it can.

    - A GPU's driver does not live through a fork: every later use of the GPU fails in the child.
    - A thread is gone in the child, with whatever locks it held; libraries with threads hang or crash there.
    - A child process is the template's own: a fork can't wait for it, and all of them would talk to the same one.
    - An epoll or io_uring is one in the kernel for all forks, so that each takes the events of the others.

    Connections are no reason: each fork finds its own closed (see `_cut`). Files are none either: they share their
    place, as everywhere after a fork.
    """
    targets = [target for _, target in _descriptors()]
    devices = sorted({target for target in targets if target.startswith("/dev/nvidia")})
    if devices:
        return f"a GPU is in use ({', '.join(devices)}): move what touches it to enter(snap=False)"
    for target in targets:
        if target in _SHARED_QUEUES:
            return f"{_SHARED_QUEUES[target]}, which forks would share"
    children = _children()
    if children:
        return f"it has child processes: {', '.join(children)}"
    gc.collect()
    gc.freeze()  # the collector of a fork would write to, and so copy, every page with an object on it
    try:
        _probe()
    except OSError as error:
        return f"it can't fork: {error.strerror}"
    others = _other_threads()
    return f"other threads are alive in it: {', '.join(others)}" if others else ""


def _probe() -> None:
    """Fork once for nothing: libraries whose threads end before a fork and come back by themselves (OpenBLAS, so numpy)
    have none afterwards, and no list of such libraries is needed to tell them from the others."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Python warns where threads are alive: that is what is to be found out
        pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)


def _other_threads() -> list[str]:
    """The names of the threads beside this one, as Python or else the system has them."""
    names = {thread.native_id: thread.name for thread in threading.enumerate()}
    own = threading.get_native_id()
    others = [task for task in os.listdir("/proc/self/task") if int(task) != own]  # noqa: PTH208 - for a quick start
    return sorted(names.get(int(task)) or _read(f"/proc/self/task/{task}/comm").strip() or task for task in others)


def _children() -> list[str]:
    """Living child processes, by name."""
    found = []
    for name in os.listdir("/proc"):  # noqa: PTH208
        if name.isdigit():
            comm, _, rest = _read(f"/proc/{name}/stat").rpartition(")")
            fields = rest.split()
            if len(fields) > 1 and fields[1] == str(os.getpid()) and fields[0] not in "ZX":
                found.append(f"{comm.partition('(')[2]} ({name})")
    return found


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:  # noqa: PTH123
            return file.read()
    except OSError:  # it has just ended
        return ""


def _descriptors() -> list[tuple[int, str]]:
    """Open descriptors, each with what it is of."""
    found = []
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208
        with contextlib.suppress(OSError):  # that of the listing itself
            found.append((int(name), os.readlink(f"/proc/self/fd/{name}")))  # noqa: PTH115
    return found


# --- forking ------------------------------------------------------------------------------------------


class _Template:
    def __init__(self, link: Stream) -> None:
        self.link = link
        self.forks: dict[int, int] = {}  # pid: the engine's number for it
        self.wake_in, self.wake_out = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self.handler = signal.signal(signal.SIGCHLD, lambda *_: None) or signal.SIG_DFL
        self.wakeup = signal.set_wakeup_fd(self.wake_out, warn_on_full_buffer=False)

    def run(self) -> Order:
        poll = select.poll()
        poll.register(self.link.sock, select.POLLIN)
        poll.register(self.wake_in, select.POLLIN)
        while True:
            for descriptor, _ in poll.poll():
                if descriptor == self.wake_in:
                    self.reap()
                    continue
                try:
                    frames = self.link.receive(socket.MSG_DONTWAIT)
                except (BlockingIOError, InterruptedError):
                    continue
                except StreamClosed:
                    self.end()
                for frame, _ in frames:
                    if frame.kind == Kind.CANCEL:
                        self.signal(frame.id, frame.channel)
                    elif frame.kind == Kind.FORK:
                        order = Order(**json.loads(bytes(frame.payload)))
                        if self.fork(frame.id):
                            return order

    def fork(self, number: int) -> bool:
        """Fork; True in the fork."""
        try:
            pid = os.fork()
        except OSError as error:
            self.tell(Frame(Kind.ENDED, number, f"it can't fork: {error.strerror}".encode(), outcome=1))
            return False
        if pid == 0:
            self.leave()
            return True
        self.forks[pid] = number
        return False

    def leave(self) -> None:
        """In a fork: let go of what is the template's."""
        os.setsid()
        signal.set_wakeup_fd(self.wakeup)
        signal.signal(signal.SIGCHLD, self.handler)
        for descriptor in (self.wake_in, self.wake_out):
            os.close(descriptor)
        self.link.sock.close()  # without a shutdown, which would be the template's, too
        _cut()
        _raise_oom_score()
        _renew_randomness()

    def reap(self) -> None:
        """Tell of every fork that has ended, and end what it has left running in its session."""
        try:
            while os.read(self.wake_in, 4096):
                pass
        except BlockingIOError:
            pass
        try:
            while True:
                ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
                if ended is None:
                    return
                if ended.si_pid in self.forks:
                    _kill_group(ended.si_pid)  # while its number can't be another's yet
                _, status = os.waitpid(ended.si_pid, 0)
                number = self.forks.pop(ended.si_pid, None)
                if number is not None:
                    self.tell(Frame(Kind.ENDED, number, channel=status))
        except ChildProcessError:
            return

    def signal(self, number: int, which: int) -> None:
        for pid, known in self.forks.items():
            if known == number:
                if which == signal.SIGKILL:
                    _kill_group(pid)
                os.kill(pid, which)

    def tell(self, frame: Frame) -> None:
        try:
            self.link.send(pack(frame))
        except StreamClosed:
            pass  # the engine has gone, which the next receive finds

    def end(self) -> NoReturn:
        """The engine has gone, and the forks know as well: where this is the container's first process, they have until
        now to run their exit hooks."""
        until = time.monotonic() + EXIT_GRACE
        poll = select.poll()
        poll.register(self.wake_in, select.POLLIN)
        self.reap()
        while self.forks and (left := until - time.monotonic()) > 0:
            poll.poll(left * 1000)
            self.reap()
        os._exit(0)  # no atexit: what is registered there is the workers' to do


def _kill_group(leader: int) -> None:
    try:
        os.killpg(leader, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass  # it has none yet, or nobody is left in it


# --- in a fork ----------------------------------------------------------------------------------------


def _cut() -> None:
    """Put a dead end in the place of every connection to somebody else, under the same number. Two processes that write
    to one connection garble it; at a dead end a client finds that its connection is lost, and makes another."""
    ours, dead = socket.socketpair()
    ours.close()
    with dead:
        for descriptor, target in _descriptors():
            if descriptor > 2 and target.startswith("socket:") and _is_connected(descriptor):
                os.dup2(dead.fileno(), descriptor, inheritable=os.get_inheritable(descriptor))


def _is_connected(descriptor: int) -> bool:
    """Whether it is a stream to a peer with an address: no listener, no pair of this process's own, no datagrams."""
    with socket.socket(fileno=os.dup(descriptor)) as sock:
        if sock.type not in (socket.SOCK_STREAM, socket.SOCK_SEQPACKET):
            return False
        try:
            return bool(sock.getpeername())
        except OSError:
            return False


def _raise_oom_score() -> None:
    try:
        with open("/proc/self/oom_score_adj", "r+") as file:  # noqa: PTH123
            score = min(int(file.read()) + OOM_MORE, 1000)
            file.seek(0)
            file.write(str(score))
    except (OSError, ValueError):
        pass  # a kernel without it: nothing that works depends on it


def _renew_randomness() -> None:
    """Python's own `random` is seeded anew at every fork; what else has a state of the whole process is not."""
    numpy = sys.modules.get("numpy.random")
    if numpy is not None:
        numpy.seed()
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.default_generator.seed()  # that of the CPU: those of GPUs come with their context
