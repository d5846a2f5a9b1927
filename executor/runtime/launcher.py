"""The engine's launcher: one small process that forks the first process of every container. Standard library only.

It stands in a PID namespace of its own, so that when it ends (and it ends when the engine's end of the socket closes,
however the engine died) the kernel kills every container, and their mounts go with them. Its parent, the keeper, holds
the home's lock until that has happened. Without root the keeper first enters a user namespace.

    engine ── socket ── keeper ─ launcher (pid 1) ─┬─ init of container a (pid 1 of its own)
                                                    └─ init of container b

Messages, JSON in one packet each. In: {"groups": folders} with (the lock) first, then {"create": id} with (the
container's socket, the layout) and {"kill": id}.
Out: {"ready": …} or {"failed": text} once, {"gone": id, "status": wait status}.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import select
import signal
import socket

from . import init, kernel


def main(descriptor: int) -> int:
    """`descriptor` is that of the engine's socket; what else there is to know comes over it."""
    link = socket.socket(fileno=descriptor)
    first, (lock,) = kernel.receive(link)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # Ctrl-C in a terminal is for the engine to handle
    try:
        rootless = _enter()
    except OSError as error:
        reason = "the limit on namespaces is reached" if error.errno == errno.ENOSPC else error.strerror
        link.send(json.dumps({"failed": f"{error.filename}: {reason}"}).encode())
        return 1
    child = os.fork()
    if child == 0:
        os.close(lock)
        kernel.die_with_parent()
        _Launcher(link, rootless).run()
        os._exit(0)
    link.close()
    os.waitpid(child, 0)  # returns when the last process of the namespace is dead
    for folder in json.loads(first)["groups"]:
        _sweep(folder)
    return 0


def _enter() -> bool:
    """Enter a new PID namespace (for the next child); True when that took a user namespace."""
    if os.geteuid() == 0:
        try:
            kernel.unshare(kernel.CLONE_NEWPID)
        except PermissionError:
            pass  # root without the power of it: root of a container, say
        else:
            return False
    user, group = os.geteuid(), os.getegid()
    kernel.unshare(kernel.CLONE_NEWUSER)
    for name, text in (("setgroups", "deny"), ("uid_map", f"0 {user} 1"), ("gid_map", f"0 {group} 1")):
        with open(f"/proc/self/{name}", "w") as file:  # noqa: PTH123 - no pathlib here, for a quick start
            file.write(text)
    kernel.unshare(kernel.CLONE_NEWPID)
    return True


def _is_nested() -> bool:
    """Whether this is a user namespace below the first one, where the mounts that came along are locked together."""
    with open("/proc/self/uid_map") as file:  # noqa: PTH123
        return file.read().split() != ["0", "0", "4294967295"]


def _sweep(folder: str) -> None:
    """Remove the empty control groups that an engine which was killed left behind."""
    with contextlib.suppress(OSError):
        for entry in os.scandir(folder):
            if entry.is_dir(follow_symlinks=False):
                with contextlib.suppress(OSError):
                    os.rmdir(entry.path)  # noqa: PTH106
        os.rmdir(folder)  # noqa: PTH106


class _Launcher:
    def __init__(self, link: socket.socket, rootless: bool) -> None:
        self.link = link
        self.rootless = rootless
        self.inits: dict[int, int] = {}  # pid: the engine's id of the container
        self.own_namespace = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)

    def run(self) -> None:
        wake_in, wake_out = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(wake_out, warn_on_full_buffer=False)
        self.tell({"ready": True, "rootless": self.rootless, "nested": _is_nested()})
        poll = select.poll()
        poll.register(self.link, select.POLLIN)
        poll.register(wake_in, select.POLLIN)
        while True:
            for descriptor, _ in poll.poll():
                if descriptor == wake_in:
                    with contextlib.suppress(BlockingIOError):
                        os.read(wake_in, 4096)
                    self.reap()
                elif not self.serve():
                    return

    def tell(self, message: dict[str, object]) -> None:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.link.send(json.dumps(message).encode())

    def serve(self) -> bool:
        """Handle one message; False when the engine is gone."""
        data, descriptors = kernel.receive(self.link)
        if not data:
            return False
        message = json.loads(data)
        if "create" in message:
            self.create(message["create"], descriptors)
        elif "kill" in message:
            for pid, ident in self.inits.items():
                if ident == message["kill"]:
                    os.kill(pid, signal.SIGKILL)
        return True

    def create(self, ident: int, descriptors: list[int]) -> None:
        try:
            kernel.unshare(kernel.CLONE_NEWPID)
            pid = os.fork()
        except OSError as error:
            with socket.socket(fileno=descriptors[0]) as control:
                control.send(json.dumps({"failed": "starting a process", "errno": error.errno}).encode())
            os.close(descriptors[1])
            self.tell({"gone": ident, "status": 0})
            kernel.setns(self.own_namespace, kernel.CLONE_NEWPID)
            return
        if pid == 0:
            signal.set_wakeup_fd(-1)
            init.main(*descriptors)  # does not return
        kernel.setns(self.own_namespace, kernel.CLONE_NEWPID)
        self.inits[pid] = ident
        for descriptor in descriptors:
            os.close(descriptor)

    def reap(self) -> None:
        with contextlib.suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    return
                if pid in self.inits:
                    self.tell({"gone": self.inits.pop(pid), "status": status})


def boot(folder: str) -> str:
    """The program text that starts the launcher under `python -I -S -`: it gives the package its folder without
    running the package's own `__init__`, which would import what a launcher must not carry."""
    return (
        "import sys, types\n"
        "for name in ('slipway', 'slipway.executor', 'slipway.executor.runtime'):\n"
        "    module = sys.modules[name] = types.ModuleType(name)\n"
        "    module.__path__ = []\n"
        f"module.__path__ = [{folder!r}]\n"
        "from slipway.executor.runtime.launcher import main\n"
        "sys.exit(main(int(sys.argv[1])))\n"
    )
