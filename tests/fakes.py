"""Fakes of the executor's ports: a runtime whose containers are dictionaries, and a clock that is moved by hand."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import signal
import socket
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import TypeVar

from attrs import field, frozen, mutable

from slipway.compiler.facts import BaseFact
from slipway.dsl.errors import AlreadyExistsError, InvalidError, NotFoundError, RuntimeUnavailable
from slipway.executor.ports import (
    Ability,
    ContainerSpec,
    DockerfileBuild,
    Exit,
    Limits,
    Mount,
    Output,
    Prepared,
    Stats,
    Stored,
)

BASE = BaseFact(
    identity=(("os", "fake 1"), ("python", "3.11.0"), ("arch", "none")), says="a fake host, Python 3.11.0", paths=()
)
ENVIRONMENT = {"PATH": "/usr/bin:/bin", "HOME": "/root"}


class FakeClock:
    """Time that passes when `advance` says so.

    >>> clock = FakeClock()
    >>> clock.advance(1.5)
    >>> clock.now_ms(), clock.monotonic()
    (1001500, 1.5)
    """

    def __init__(self, now_ms: int = 1_000_000) -> None:
        self._start_ms = now_ms
        self._passed = 0.0

    def now_ms(self) -> int:
        return self._start_ms + round(self._passed * 1000)

    def monotonic(self) -> float:
        return self._passed

    def advance(self, seconds: float) -> None:
        self._passed += seconds


@frozen(kw_only=True)
class Outcome:
    """What a scripted command does: `writes` are files that it leaves."""

    code: int = 0
    stdout: bytes = b""
    stderr: bytes = b""
    writes: tuple[tuple[str, bytes], ...] = ()
    oom: bool = False


P = TypeVar("P", bound="FakeProcess")
Files = dict[str, "bytes | None"]  # None: taken away


@mutable
class FakeFiles:
    """What a container sees: layers below, what it wrote, and host folders mounted into it."""

    lower: Files
    mounts: tuple[Mount, ...] = ()
    written: Files = field(factory=dict)

    def _mounted(self, path: str) -> tuple[Mount, Path] | None:
        for mount in reversed(self.mounts):
            if PurePosixPath(path).is_relative_to(mount.target):
                return mount, Path(mount.source) / PurePosixPath(path).relative_to(mount.target)
        return None

    def host(self, path: str) -> Path:
        """The file of this host that is mounted there."""
        mounted = self._mounted(path)
        assert mounted is not None
        return mounted[1]

    def read(self, path: str) -> bytes | None:
        mounted = self._mounted(path)
        if mounted is not None:
            return mounted[1].read_bytes() if mounted[1].is_file() else None
        return self.written[path] if path in self.written else self.lower.get(path)

    def write(self, path: str, data: bytes) -> None:
        mounted = self._mounted(path)
        if mounted is None:
            self.written[path] = data
        elif mounted[0].read_only:
            raise OSError("Read-only file system")
        else:
            mounted[1].write_bytes(data)

    def remove(self, path: str) -> None:
        for name in list(self.all()):
            if PurePosixPath(name).is_relative_to(path):
                self.written[name] = None

    def all(self) -> Iterator[str]:
        for name in {**self.lower, **self.written}:
            if self.read(name) is not None:
                yield name

    def list(self, folder: str) -> list[str]:
        mounted = self._mounted(folder)
        if mounted is not None:
            return sorted(path.name for path in mounted[1].iterdir())
        inside = [PurePosixPath(name) for name in self.all() if PurePosixPath(name).is_relative_to(folder)]
        return sorted({path.relative_to(folder).parts[0] for path in inside})


class FakeProcess:
    def __init__(self, container: FakeContainer, output: Output | None) -> None:
        self.container = container
        self._output = output
        self._ended = asyncio.Event()
        self._exit: Exit | None = None
        self.on_signal: Callable[[int], None] = lambda number: self.end(Exit(code=None, signal=number))

    def say(self, which: int, data: bytes) -> None:
        if self._output is not None and data:
            self._output(which, data)

    def end(self, how: Exit) -> None:
        if self._exit is None:
            self._exit = how
            self._ended.set()

    async def wait(self) -> Exit:
        await self._ended.wait()
        assert self._exit is not None
        return self._exit

    def signal(self, number: int) -> None:
        if self._exit is None:
            if number == signal.SIGKILL:
                self.end(Exit(code=None, signal=number))
            else:
                self.on_signal(number)

    def drain(self) -> None: ...


class FakeTerminal(FakeProcess):
    """A process on a real terminal of this host: what it says is shown there, what is typed `typed` hands on."""

    def __init__(self, container: FakeContainer, rows: int, columns: int) -> None:
        self.fd, self._theirs = os.openpty()
        os.set_blocking(self._theirs, False)
        super().__init__(container, lambda _, data: self._show(data))
        self.size = (rows, columns)
        self.on_resize: Callable[[], None] = lambda: None
        self.on_typed: Callable[[bytes], None] = lambda data: None
        asyncio.get_running_loop().add_reader(self._theirs, self._typed)

    def _show(self, data: bytes) -> None:
        os.write(self._theirs, data)

    def _typed(self) -> None:
        try:
            data = os.read(self._theirs, 4096)
        except OSError:  # the other end was closed
            data = b""
        if data:
            self.on_typed(data)
        else:
            self.end(Exit(code=None, signal=signal.SIGHUP))

    def resize(self, rows: int, columns: int) -> None:
        self.size = (rows, columns)
        if self._exit is None:
            self.on_resize()

    def end(self, how: Exit) -> None:
        if self._exit is None:
            asyncio.get_running_loop().remove_reader(self._theirs)
            os.close(self._theirs)
        super().end(how)


@frozen(kw_only=True)
class Ran:
    """One process that was started in a fake container."""

    container: str
    argv: tuple[str, ...]
    env: tuple[tuple[str, str], ...]
    cwd: str | None
    stdin: bytes


class FakeHeld:
    """A process that is held to limits; `left` is what it has left running."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.exceeded = False
        self.left: list[FakeProcess] = []

    def ran_out(self) -> bool:
        return self.exceeded

    async def stats(self) -> Stats:
        return Stats(memory_bytes=0, cpu_ms=0, processes=len(self.left))

    async def release(self) -> None:
        for process in self.left:
            process.end(Exit(code=None, signal=signal.SIGKILL))


class FakeContainer:
    def __init__(self, runtime: FakeRuntime, spec: ContainerSpec, files: FakeFiles) -> None:
        self.runtime = runtime
        self.spec = spec
        self.files = files
        self.processes: list[FakeProcess] = []
        self.ended = False
        self.held: FakeHeld | None = None
        self._entrypoint = spec.entrypoint or ()

    @property
    def name(self) -> str:
        return self.spec.name

    async def exec(
        self,
        argv: tuple[str, ...],
        *,
        env: tuple[tuple[str, str], ...] = (),
        cwd: str | None = None,
        stdin: bytes = b"",
        output: Output | None = None,
    ) -> FakeProcess:
        if self.ended:
            raise RuntimeUnavailable(f"container {self.name} has ended")
        self.runtime.ran.append(Ran(container=self.name, argv=argv, env=env, cwd=cwd, stdin=stdin))
        return self._begin(FakeProcess(self, output), argv, env, cwd, stdin)

    async def open_terminal(
        self,
        argv: tuple[str, ...],
        *,
        env: tuple[tuple[str, str], ...] = (),
        cwd: str | None = None,
        rows: int = 24,
        columns: int = 80,
    ) -> FakeTerminal:
        if self.ended:
            raise RuntimeUnavailable(f"container {self.name} has ended")
        self.runtime.ran.append(Ran(container=self.name, argv=argv, env=env, cwd=cwd, stdin=b""))
        return self._begin(FakeTerminal(self, rows, columns), argv, env, cwd, b"")

    def _begin(
        self, process: P, argv: tuple[str, ...], env: tuple[tuple[str, str], ...], cwd: str | None, stdin: bytes
    ) -> P:
        self.processes.append(process)
        argv, self._entrypoint = (*self._entrypoint, *argv), ()
        if argv[3:4] == ("before",):
            process.say(1, b"before ")
            argv = argv[4:]
        if argv[:2] == ("/bin/sh", "-c") and argv[3:4] == ("slipway",):  # how shells and the like are started
            argv = argv[4:]
        outcome = self.runtime.outcome(argv)
        if outcome is not None:
            self._play(process, outcome)
        elif argv[:2] == ("sh", "-c") and len(argv) > 3 and argv[3] in PROGRAMS:
            how = PROGRAMS[argv[3]](
                process, argv[4:], {**ENVIRONMENT, **dict(self.spec.env), **dict(env)}, cwd or "/root", stdin
            )
            if how is not None:
                process.end(how)
        else:
            process.say(2, f"{argv[0]}: not found on PATH\n".encode())
            process.end(Exit(code=127))
        return process

    def _play(self, process: FakeProcess, outcome: Outcome) -> None:
        for path, data in outcome.writes:
            self.files.write(path, data)
        process.say(1, outcome.stdout)
        process.say(2, outcome.stderr)
        process.end(Exit(code=None, signal=9, oom=True) if outcome.oom else Exit(code=outcome.code))

    async def hold(self, name: str, pid: int, limits: Limits) -> FakeHeld:
        self.held = FakeHeld(limits)
        return self.held

    async def commit(self, layer: str) -> str:
        await self.kill()
        return self.runtime.keep(layer, self.files.written)

    async def stop(self, grace_ms: int) -> None:
        for process in self.processes:
            process.signal(signal.SIGTERM)
        await self.kill()

    async def kill(self) -> None:
        for process in self.processes:
            process.signal(signal.SIGKILL)
        self.ended = True
        self.runtime.containers.pop(self.name, None)

    async def stats(self) -> Stats:
        running = sum(process._exit is None for process in self.processes)
        return Stats(memory_bytes=0, cpu_ms=0, processes=running)


class HostRuntime:
    """What runtimes say that have everything of the host at hand."""

    async def trouble(self) -> str:
        return ""

    async def has_base(self, base: BaseFact) -> bool:
        return True

    async def fetch(self, base: BaseFact, *, auth: tuple[tuple[str, str], ...] = (), output: Output) -> None: ...

    async def build_dockerfile(self, build: DockerfileBuild, layer: str, output: Output) -> str:
        raise InvalidError("this runtime reads no Dockerfile")

    async def prepare(self, spec: ContainerSpec) -> Prepared:
        return Prepared()

    async def stored(self) -> tuple[Stored, ...]:
        return ()


class FakeRuntime(HostRuntime):
    """`outcomes` say what commands do, by the beginning of their argv (the longest that fits); `created` and `ran` tell
    afterwards what was asked. Commands of the form ("sh", "-c", script, NAME, …) with a NAME in `PROGRAMS` do here what
    the script does on a real runtime, so that one contract holds for both."""

    def __init__(
        self,
        outcomes: Mapping[tuple[str, ...], Outcome] | None = None,
        *,
        ability: Ability | None = None,
        bases: Mapping[tuple[str, str], BaseFact] | None = None,
    ) -> None:
        self.outcomes = dict(outcomes or {})
        self.created: list[ContainerSpec] = []
        self.ran: list[Ran] = []
        self.containers: dict[str, FakeContainer] = {}
        self.kept: dict[str, tuple[str, Files]] = {}
        self.fail_next_create: Exception | None = None
        self._ability = ability or Ability()
        self._bases = dict(bases or {("debian_slim", ""): BASE, ("debian_slim", "3.11"): BASE})

    @property
    def name(self) -> str:
        return "native"

    def outcome(self, argv: tuple[str, ...]) -> Outcome | None:
        fitting = [start for start in self.outcomes if argv[: len(start)] == start]
        return self.outcomes[max(fitting, key=len)] if fitting else None

    def keep(self, layer: str, written: Files) -> str:
        if layer not in self.kept:
            content = {path: None if data is None else data.hex() for path, data in written.items()}
            text = json.dumps(content, sort_keys=True)
            self.kept[layer] = ("sha256:" + hashlib.sha256(text.encode()).hexdigest(), dict(written))
        return self.kept[layer][0]

    async def start(self) -> None: ...

    async def close(self) -> None:
        for container in tuple(self.containers.values()):
            await container.kill()

    async def ability(self) -> Ability:
        return self._ability

    async def resolve(
        self, kind: str, ref: str, *, auth: tuple[tuple[str, str], ...] = (), fresh: bool = False
    ) -> BaseFact:
        if (kind, ref) not in self._bases:
            there = ", ".join(ref for _, ref in self._bases if ref)
            raise NotFoundError(f"this host has no {kind} {ref}; it has {there}", hint="Use `--runtime docker`.")
        return self._bases[kind, ref]

    async def has(self, layer: str) -> bool:
        return layer in self.kept

    async def alias(self, layer: str, existing: str) -> None:
        self._needed(existing)
        self.kept.setdefault(layer, self.kept[existing])

    async def create(self, spec: ContainerSpec) -> FakeContainer:
        if self.fail_next_create is not None:
            error, self.fail_next_create = self.fail_next_create, None
            raise error
        if not spec.name.replace("-", "").isalnum():
            raise InvalidError(f"{spec.name!r} can't be a container's name")
        if spec.name in self.containers:
            raise AlreadyExistsError(f"there is a container {spec.name} already")
        lower: Files = {}
        for layer in spec.layers:
            self._needed(layer)
            lower.update(self.kept[layer][1])
        for tree in spec.trees:
            lower.update(_read_tree(Path(tree)))
        self.created.append(spec)
        container = FakeContainer(self, spec, FakeFiles(lower=lower, mounts=spec.mounts))
        self.containers[spec.name] = container
        return container

    def _needed(self, layer: str) -> None:
        if layer not in self.kept:
            raise NotFoundError(f"layer {layer} is not there", hint="Build it again.")

    async def stored(self) -> tuple[Stored, ...]:
        return tuple(
            Stored(ident=layer, layer=layer, size=sum(len(data or b"") for data in files.values()))
            for layer, (_, files) in self.kept.items()
        )

    async def remove(self, layer: str) -> None:
        for container in self.containers.values():
            if layer in container.spec.layers:
                raise InvalidError(f"layer {layer} is in use by container {container.name}")
        self.kept.pop(layer, None)

    async def layers(self) -> AsyncIterator[str]:
        for layer in tuple(self.kept):
            yield layer


def digest_of_bytes(data: bytes) -> str:
    """The digest of these bytes, as blobs and file entries have it."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def _read_tree(tree: Path) -> Files:
    return {f"/{path.relative_to(tree)}": path.read_bytes() for path in tree.rglob("*") if path.is_file()}


# --- what the contract's programs do here ---------------------------------------------------------------

Program = Callable[[FakeProcess, tuple[str, ...], "dict[str, str]", str, bytes], "Exit | None"]


def _write(process: FakeProcess, args: tuple[str, ...], env: dict[str, str], cwd: str, stdin: bytes) -> Exit:
    try:
        process.container.files.write(args[0], args[1].encode())
    except OSError as error:
        process.say(2, f"sh: {args[0]}: {error}\n".encode())
        return Exit(code=2)
    return Exit(code=0)


def _read(process: FakeProcess, args: tuple[str, ...], env: dict[str, str], cwd: str, stdin: bytes) -> Exit:
    data = process.container.files.read(args[0])
    process.say(1, data or b"")
    return Exit(code=1 if data is None else 0)


def _remove(process: FakeProcess, args: tuple[str, ...], env: dict[str, str], cwd: str, stdin: bytes) -> Exit:
    process.container.files.remove(args[0])
    return Exit(code=0)


def _list(process: FakeProcess, args: tuple[str, ...], env: dict[str, str], cwd: str, stdin: bytes) -> Exit:
    process.say(1, "".join(f"{name}\n" for name in process.container.files.list(args[0])).encode())
    return Exit(code=0)


def _env(process: FakeProcess, args: tuple[str, ...], env: dict[str, str], cwd: str, stdin: bytes) -> Exit:
    process.say(1, env.get(args[0], "").encode())
    return Exit(code=0)


def _cwd(process: FakeProcess, args: tuple[str, ...], env: dict[str, str], cwd: str, stdin: bytes) -> Exit:
    process.say(1, cwd.encode())
    return Exit(code=0)


def _cat(process: FakeProcess, args: tuple[str, ...], env: dict[str, str], cwd: str, stdin: bytes) -> Exit:
    process.say(1, stdin)
    return Exit(code=0)


def _say(process: FakeProcess, args: tuple[str, ...], env: dict[str, str], cwd: str, stdin: bytes) -> Exit:
    process.say(1, args[0].encode())
    process.say(2, args[1].encode())
    return Exit(code=0)


def _exit(process: FakeProcess, args: tuple[str, ...], env: dict[str, str], cwd: str, stdin: bytes) -> Exit:
    return Exit(code=int(args[0]))


def _wait(process: FakeProcess, args: tuple[str, ...], env: dict[str, str], cwd: str, stdin: bytes) -> None:
    process.say(1, b"ready\n")


def _trap(process: FakeProcess, args: tuple[str, ...], env: dict[str, str], cwd: str, stdin: bytes) -> None:
    def ended(number: int) -> None:
        process.say(1, b"ended\n")
        process.end(Exit(code=7))

    process.on_signal = ended
    process.say(1, b"ready\n")


def _stubborn(process: FakeProcess, args: tuple[str, ...], env: dict[str, str], cwd: str, stdin: bytes) -> None:
    process.on_signal = lambda number: None
    process.say(1, b"ready\n")


def _orphan(process: FakeProcess, args: tuple[str, ...], env: dict[str, str], cwd: str, stdin: bytes) -> Exit:
    process.say(1, b"left\n")
    return Exit(code=0)


def _hog(process: FakeProcess, args: tuple[str, ...], env: dict[str, str], cwd: str, stdin: bytes) -> Exit:
    if process.container.spec.limits.memory_mib is not None:
        return Exit(code=None, signal=9, oom=True)
    return Exit(code=0)


def _meet(process: FakeProcess, args: tuple[str, ...], env: dict[str, str], cwd: str, stdin: bytes) -> None:
    container, loop = process.container, asyncio.get_running_loop()
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(str(container.files.host(args[0])))

    def told() -> None:
        loop.remove_reader(sock.fileno())
        sock.close()
        assert container.held is not None
        container.held.left.append(FakeProcess(container, None))
        container.processes += container.held.left
        container.held.exceeded = container.held.limits.memory_mib is not None
        process.end(Exit(code=None, signal=9))

    loop.add_reader(sock.fileno(), told)


def _size(process: FakeProcess, args: tuple[str, ...], env: dict[str, str], cwd: str, stdin: bytes) -> None:
    assert isinstance(process, FakeTerminal)
    terminal = process

    def say() -> None:
        terminal.say(1, "{} {}\n".format(*terminal.size).encode())

    def resized() -> None:
        say()
        terminal.end(Exit(code=5))

    terminal.on_resize = resized
    say()


def _greet(process: FakeProcess, args: tuple[str, ...], env: dict[str, str], cwd: str, stdin: bytes) -> None:
    assert isinstance(process, FakeTerminal)
    terminal = process

    def typed(data: bytes) -> None:
        terminal.say(1, b"hello " + data)
        terminal.end(Exit(code=0))

    terminal.on_typed = typed
    terminal.say(1, b"who? ")


PROGRAMS: dict[str, Program] = {
    "write": _write,
    "read": _read,
    "remove": _remove,
    "list": _list,
    "env": _env,
    "cwd": _cwd,
    "cat": _cat,
    "say": _say,
    "exit": _exit,
    "wait": _wait,
    "trap": _trap,
    "late": _trap,
    "stubborn": _stubborn,
    "orphan": _orphan,
    "hog": _hog,
    "meet": _meet,
    "size": _size,
    "greet": _greet,
}
