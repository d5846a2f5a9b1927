"""A runtime without containers for the tests of workers: plain subprocesses, mounts by rewriting paths in argv."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

from fakes import FakeHeld, HostRuntime

from slipway.compiler.facts import BaseFact
from slipway.executor.ports import Ability, Container, ContainerSpec, Exit, Limits, Output, Process, Stats, Terminal


class LocalProcess:
    def __init__(self, process: asyncio.subprocess.Process, pipes: dict[int, int], output: Output | None) -> None:
        self.process = process
        self.pipes = pipes  # stream number -> our end
        self.output = output
        self.loop = asyncio.get_running_loop()
        for stream, fd in pipes.items():
            os.set_blocking(fd, False)
            self.loop.add_reader(fd, self._read, stream)
        self._done = self.loop.create_task(self._wait())

    def _read(self, stream: int) -> bool:
        fd = self.pipes.get(stream)
        if fd is None:
            return False
        try:
            data = os.read(fd, 65536)
        except BlockingIOError:
            return False
        if data:
            if self.output:
                self.output(stream, data)
            return True
        self._close(stream)
        return False

    def _close(self, stream: int) -> None:
        fd = self.pipes.pop(stream, None)
        if fd is not None:
            self.loop.remove_reader(fd)
            os.close(fd)

    def drain(self) -> None:
        for stream in tuple(self.pipes):
            while self._read(stream):
                pass

    async def _wait(self) -> Exit:
        code = await self.process.wait()
        self.drain()
        for stream in tuple(self.pipes):
            self._close(stream)
        return Exit(code=code) if code >= 0 else Exit(code=None, signal=-code)

    async def wait(self) -> Exit:
        return await asyncio.shield(self._done)

    def signal(self, number: int) -> None:
        if self.process.returncode is None:
            self.process.send_signal(number)


class LocalContainer:
    def __init__(self, spec: ContainerSpec) -> None:
        self.spec = spec
        self.processes: list[LocalProcess] = []

    @property
    def name(self) -> str:
        return self.spec.name

    def _here(self, path: str) -> str:
        for mount in sorted(self.spec.mounts, key=lambda mount: -len(mount.target)):
            if path == mount.target or path.startswith(mount.target + "/"):
                return mount.source + path[len(mount.target) :]
        for tree in self.spec.trees:
            if Path(tree + path).exists():
                return tree + path
        return path

    async def exec(
        self,
        argv: tuple[str, ...],
        *,
        env: tuple[tuple[str, str], ...] = (),
        cwd: str | None = None,
        stdin: bytes = b"",
        output: Output | None = None,
    ) -> Process:
        mounts = {mount.target: mount.source for mount in self.spec.mounts}
        code = str(Path(mounts["/.slipway/lib"]).parent)
        argv = tuple(code if arg == "/.slipway" else self._here(arg) for arg in argv)
        if argv[0] == "python":
            argv = (sys.executable, *argv[1:])  # not every host has one of that name
        pipes = {stream: os.pipe() for stream in (1, 2)}
        base = {key: os.environ[key] for key in ("PATH", "LANG", "COVERAGE_PROCESS_START") if key in os.environ}
        process = await asyncio.create_subprocess_exec(
            *argv,
            env=base | dict(self.spec.env) | dict(env),
            cwd=self._here(cwd or "/root"),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=pipes[1][1],
            stderr=pipes[2][1],
            start_new_session=True,
        )
        for _, write_end in pipes.values():
            os.close(write_end)
        local = LocalProcess(process, {stream: ends[0] for stream, ends in pipes.items()}, output)
        self.processes.append(local)
        return local

    async def open_terminal(
        self,
        argv: tuple[str, ...],
        *,
        env: tuple[tuple[str, str], ...] = (),
        cwd: str | None = None,
        rows: int = 24,
        columns: int = 80,
    ) -> Terminal:
        raise NotImplementedError

    async def hold(self, name: str, pid: int, limits: Limits) -> FakeHeld:
        return FakeHeld(limits)

    async def commit(self, layer: str) -> str:
        raise NotImplementedError

    async def stop(self, grace_ms: int) -> None:
        await self.kill()

    async def kill(self) -> None:
        for process in self.processes:
            if process.process.returncode is None:
                with contextlib.suppress(ProcessLookupError):  # it has just ended by itself
                    os.killpg(process.process.pid, signal.SIGKILL)
            await process.wait()

    async def stats(self) -> Stats:
        return Stats(memory_bytes=None, cpu_ms=None, processes=len(self.processes))


class LocalProcessRuntime(HostRuntime):
    def __init__(self) -> None:
        self.containers: list[LocalContainer] = []

    @property
    def name(self) -> str:
        return "local"

    def drain(self) -> None:
        for container in self.containers:
            for process in container.processes:
                process.drain()

    async def start(self) -> None: ...

    async def close(self) -> None:
        for container in self.containers:
            await container.kill()

    async def ability(self) -> Ability:
        return Ability()

    async def resolve(
        self, kind: str, ref: str, *, auth: tuple[tuple[str, str], ...] = (), fresh: bool = False
    ) -> BaseFact:
        return BaseFact(identity=(("local", "1"),))

    async def has(self, layer: str) -> bool:
        return True

    async def alias(self, layer: str, existing: str) -> None: ...

    async def create(self, spec: ContainerSpec) -> Container:
        container = LocalContainer(spec)
        self.containers.append(container)
        return container

    async def remove(self, layer: str) -> None: ...

    async def layers(self) -> AsyncIterator[str]:
        return
        yield
