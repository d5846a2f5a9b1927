"""The first process of a container: builds its root, then starts, signals and reaps processes. Standard library only.

It ends when the engine's end of its socket closes, and with it, as process 1, everything in the container.

Messages, JSON in one packet each. In: {"exec": id} with (request, stdin, stdout, stderr), {"terminal": id, "rows": n,
"columns": n} with (request), {"signal": number, "id": id}, {"stop": true}, {"stats": true}. Out: {"ready": [what was
made for mounts]} or {"failed": step, "errno": n} once, {"terminal": id, "errno": n} with (the terminal) where n is 0,
{"exit": id, "status": wait status}, {"idle": true} when no process is left after a stop, {"stats": […]}.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import select
import signal
import socket
from typing import Any, NoReturn

from . import kernel

OOM_MORE = 100  # when memory runs out, a container's processes go before its first one, and before the host's own


def main(control_descriptor: int, layout_descriptor: int) -> NoReturn:
    """Never returns: this process belongs to the container."""
    control = socket.socket(fileno=control_descriptor)
    try:
        with open(layout_descriptor, "rb") as file:
            layout = json.loads(file.read())
        _close_all_but(control_descriptor)
        made = _Build(layout).run()
        wake = _watch_children()
        control.send(json.dumps({"ready": made}).encode())
        _Init(control, wake).run()
    except _Failed as failed:
        control.send(json.dumps({"failed": failed.step, "errno": failed.number}).encode())
    except BaseException as error:  # noqa: BLE001 - whatever it is, the engine must hear of it and the process must end
        with contextlib.suppress(OSError):
            control.send(json.dumps({"failed": f"{type(error).__name__}: {error}", "errno": 0}).encode())
    os._exit(1)


def _close_all_but(keep: int) -> None:
    """Let go of the launcher's descriptors; 0, 1 and 2 become /dev/null."""
    null = os.open("/dev/null", os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(null, number, inheritable=False)
    os.closerange(3, keep)
    os.closerange(keep + 1, os.sysconf("SC_OPEN_MAX"))


def _watch_children() -> int:
    wake_in, wake_out = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake_out, warn_on_full_buffer=False)
    return wake_in


class _Failed(Exception):
    def __init__(self, step: str, number: int) -> None:
        super().__init__(step)
        self.step = step
        self.number = number


class _Build:
    """Carries out a layout (see `layout.py`): groups, namespaces, overlays, pivot, then everything in the new root."""

    def __init__(self, layout: dict[str, Any]) -> None:
        self.layout = layout
        self.made: list[tuple[str, int, int, int]] = []
        self.doing = "reading the layout"

    def run(self) -> list[tuple[str, int, int, int]]:
        try:
            self._build()
        except OSError as error:
            where = error.filename.decode(errors="replace") if isinstance(error.filename, bytes) else error.filename
            raise _Failed(f"{self.doing} ({where})" if where else self.doing, error.errno or 0) from error
        return self.made

    def _build(self) -> None:
        layout = self.layout
        self.doing = "finding its control group"
        groups = [os.open(path, os.O_WRONLY | os.O_CLOEXEC) for path in layout["groups"]]
        self.doing = "new namespaces"
        kernel.unshare(layout["namespaces"])
        kernel.make_private()
        os.umask(0)
        socket.sethostname(layout["hostname"])
        if layout["namespaces"] & kernel.CLONE_NEWNET:
            self.doing = "switching on the loopback network"
            kernel.loopback_up()
        os.chdir(layout["folder"])
        for target, options in layout["overlays"]:
            self.doing = f"overlay of /{target}"
            kernel.mount("overlay", f"{layout['root']}/{target}", "overlay", kernel.MS_NODEV, options)
        self.doing = "binding"
        trees = [(self._clone(step), step) for step in layout["binds"]]
        self.doing = "entering the new root"
        os.chdir(layout["root"])
        kernel.pivot_here()
        for step in layout["steps"]:
            self._step(*step)
        for (tree, is_folder), step in trees:
            if tree is not None:
                self._attach(tree, is_folder, step["to"], only_over=step["only_over"])
        self.doing = "leaving the old root"
        kernel.drop_old_root()
        os.chdir("/")
        os.umask(0o022)
        self.doing = "joining its control group"  # only now: mounting is slow inside a fresh memory group
        for descriptor in groups:
            os.write(descriptor, b"0")
            os.close(descriptor)
        kernel.keep_capabilities(layout["capabilities"])

    def _clone(self, step: dict[str, Any]) -> tuple[int | None, bool]:
        self.doing = f"binding {step['from']}"
        try:
            is_folder = os.path.isdir(step["from"])  # noqa: PTH112
            return kernel.clone_tree(
                step["from"], recursive=step["recursive"], read_only=step["read_only"], devices=step["devices"]
            ), is_folder
        except FileNotFoundError:
            if step["optional"]:
                return None, False
            raise

    def _step(self, what: str, target: str, *rest: Any) -> None:
        self.doing = f"{what} {target}"
        if what == "mount":
            kind, flags, data = rest
            kernel.mount(kind, target, kind, flags, data)
        elif what == "folder":
            os.mkdir(target, rest[0])  # noqa: PTH102
        elif what == "link":
            os.symlink(rest[0], target)  # noqa: PTH211
        elif what == "file":
            os.close(os.open(target, os.O_CREAT | os.O_WRONLY, rest[0]))
        else:
            raise OSError(errno.EINVAL, what)

    def _attach(self, tree: int, is_folder: bool, target: str, *, only_over: bool) -> None:
        self.doing = f"mounting at {target}"
        if not os.path.lexists(target):
            if only_over:
                os.close(tree)
                return
            self._make(target if is_folder else os.path.dirname(target))  # noqa: PTH120
            if not is_folder:
                os.close(os.open(target, os.O_CREAT | os.O_WRONLY, 0o644))
                self._remember(target)
        kernel.attach(tree, target)
        os.close(tree)

    def _make(self, folder: str) -> None:
        """Make a folder and those above it."""
        if not os.path.isdir(folder):  # noqa: PTH112
            self._make(os.path.dirname(folder))  # noqa: PTH120
            os.mkdir(folder, 0o755)  # noqa: PTH102
            self._remember(folder)

    def _remember(self, path: str) -> None:
        """What is made for a mount, and the folders above it as they are (the overlay copies them up), shall not get
        into a layer."""
        if path.startswith(("/dev/", "/run/")):  # those are never kept
            return
        path = os.path.realpath(path)
        while path != "/":
            status = os.lstat(path)
            entry = (path, status.st_mode, status.st_uid, status.st_gid)
            if entry not in self.made:
                self.made.append(entry)
            path = os.path.dirname(path)  # noqa: PTH120


class _Init:
    """Serves the engine until its end of the socket closes."""

    def __init__(self, control: socket.socket, wake: int) -> None:
        self.control = control
        self.wake = wake
        self.processes: dict[int, int] = {}  # pid: the engine's id of the process
        self.stopping = False
        self.told: set[int] = set()
        self.own_score = _read_score()

    def run(self) -> None:
        poll = select.poll()
        poll.register(self.control, select.POLLIN)
        poll.register(self.wake, select.POLLIN)
        while True:
            for descriptor, _ in poll.poll():
                if descriptor == self.wake:
                    with contextlib.suppress(BlockingIOError):
                        os.read(self.wake, 4096)
                    self.reap()
                elif not self.serve():
                    os._exit(0)

    def tell(self, message: dict[str, object]) -> None:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.control.send(json.dumps(message).encode())

    def serve(self) -> bool:
        data, descriptors = kernel.receive(self.control)
        if not data:
            return False
        message = json.loads(data)
        if "exec" in message:
            self.start(message["exec"], descriptors)
            for descriptor in descriptors:
                os.close(descriptor)
        elif "terminal" in message:
            self.start_on_terminal(message["terminal"], message["rows"], message["columns"], descriptors[0])
            os.close(descriptors[0])
        elif "signal" in message:
            for pid, ident in self.processes.items():
                if ident == message["id"]:
                    os.kill(pid, message["signal"])
        elif "stop" in message:
            self.stopping = True
            self.tell_to_end()
            self.reap()
        elif "stats" in message:
            self.tell({"stats": _usage()})
        return True

    def start(self, ident: int, descriptors: list[int]) -> None:
        request, *streams = descriptors
        self.spawn(ident, request, [(os.POSIX_SPAWN_DUP2, fd, n) for n, fd in enumerate(streams)], streams[2])

    def start_on_terminal(self, ident: int, rows: int, columns: int, request: int) -> None:
        """Start a process on a terminal of this container's own, whose other end goes to the engine."""
        try:
            ours, theirs = os.openpty()
        except OSError as error:
            self.tell({"terminal": ident, "errno": error.errno})
            return
        try:
            kernel.set_window(ours, rows, columns)
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                socket.send_fds(self.control, [json.dumps({"terminal": ident, "errno": 0}).encode()], [ours])
            # The first terminal that the leader of a session opens is the one that controls it.
            actions: list[tuple[Any, ...]] = [(os.POSIX_SPAWN_OPEN, 0, os.ttyname(theirs), os.O_RDWR, 0)]
            self.spawn(ident, request, [*actions, (os.POSIX_SPAWN_DUP2, 0, 1), (os.POSIX_SPAWN_DUP2, 0, 2)], theirs)
        finally:
            os.close(ours)
            os.close(theirs)

    def spawn(self, ident: int, request: int, actions: list[tuple[Any, ...]], stderr: int) -> None:
        """Start a process; when that fails, say why on its stderr and end it like a shell would: 127 or 126."""
        with open(os.dup(request), "rb") as file:  # noqa: PTH123 - a descriptor
            file.seek(0)
            wanted = json.loads(file.read())
        argv, environment = wanted["argv"], wanted["env"]
        what = argv[0]
        try:
            what = wanted["cwd"]
            os.makedirs(what, exist_ok=True)  # noqa: PTH103 - as a Dockerfile's WORKDIR
            os.chdir(what)
            what = argv[0]
            program = _find(argv[0], environment.get("PATH", os.defpath))
            _oom_score(min(1000, self.own_score + OOM_MORE))
            pid = os.posix_spawn(
                program,
                argv,
                environment,
                file_actions=actions,
                setsid=True,
                setsigmask=(),
                setsigdef=(signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT, signal.SIGTERM, signal.SIGHUP),
            )
        except (OSError, ValueError) as error:
            reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
            with contextlib.suppress(OSError):
                os.write(stderr, f"{what}: {reason}\n".encode())
            missing = isinstance(error, FileNotFoundError) and what == argv[0]
            self.tell({"exit": ident, "status": (127 if missing else 126) << 8})
        else:
            self.processes[pid] = ident
        finally:
            _oom_score(self.own_score)
            os.chdir("/")

    def reap(self) -> None:
        try:
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    break
                if pid in self.processes:
                    self.tell({"exit": self.processes.pop(pid), "status": status})
            if self.stopping and not self.processes:
                self.tell_to_end()
        except ChildProcessError:
            if self.stopping:
                self.tell({"idle": True})

    def tell_to_end(self) -> None:
        """SIGTERM, once to each process. One that was born too late for it hears it when those that the engine started
        have ended: until then it may be what they clean up with."""
        for pid in _others():
            if pid not in self.told:
                self.told.add(pid)
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGTERM)


def _find(name: str, path: str) -> str:
    if "/" in name:
        return name
    for folder in path.split(":"):
        candidate = f"{folder or '.'}/{name}"
        if os.path.isfile(candidate) and os.access(candidate, os.X_OK):  # noqa: PTH113
            return candidate
    raise FileNotFoundError(errno.ENOENT, "not found on PATH", name)


def _read_score() -> int:
    with open("/proc/self/oom_score_adj") as file:  # noqa: PTH123
        return int(file.read())


def _oom_score(score: int) -> None:
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:  # noqa: PTH123
        file.write(str(score))


def _others() -> list[int]:
    """Every process of the container but its first, this one."""
    return [int(name) for name in os.listdir("/proc") if name.isdigit() and name != "1"]  # noqa: PTH208


def _usage() -> list[int]:
    """Resident bytes, CPU milliseconds and number of the processes, but for this one."""
    page, tick = os.sysconf("SC_PAGE_SIZE"), os.sysconf("SC_CLK_TCK")
    memory = ticks = count = 0
    for pid in _others():
        with contextlib.suppress(OSError), open(f"/proc/{pid}/stat") as file:  # noqa: PTH123
            fields = file.read().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12]) + int(fields[13]) + int(fields[14])
            memory += int(fields[21]) * page
            count += 1
    return [memory, ticks * 1000 // tick, count]
