"""A container of Docker Engine and its processes.

One for a single process has that as its first; the others have a keeper, beside which processes are started. Both hear
what to run on stdin, and nothing of it is kept by the engine.
"""

from __future__ import annotations

import asyncio
import secrets
import signal
import socket
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from functools import partial
from typing import Any, TypeVar

from slipway.dsl.errors import Error, InvalidError, RuntimeUnavailable
from slipway.executor.ports import ContainerSpec, Exit, Held, Limits, Output, Stats

from . import docker_shell
from .docker import UPGRADE, Absent, Conflict, Connection, Refused, start_exec
from .docker_commit import remove_container
from .docker_prepare import UNDIVIDED
from .docker_process import BesideProcess, DockerProcess, DockerTerminal, MainProcess, exit_of
from .docker_store import Image

T = TypeVar("T")

HOME = "/root"
GOING = 10.0  # seconds that an engine has to remove one; what takes it longer is seen to when it answers again
NO_SHELL = '"/bin/sh"'


class DockerContainer:
    """Made by `DockerRuntime.create`. `user` is whom its processes run as; `mark` what its first process listens for.

    `forget` is told when it is gone: whether the engine said so.
    """

    def __init__(
        self,
        *,
        spec: ContainerSpec,
        ident: str,
        image: Image,
        user: str,
        mark: str,
        connection: Connection,
        commit: Callable[[str, str, Iterable[str]], Awaitable[str]],
        forget: Callable[[bool], None],
    ) -> None:
        self.spec = spec
        self.ident = ident
        self._image = image
        self._user = user
        self._mark = mark
        self._connection = connection
        self._commit = commit
        self._forget = forget
        self._main: DockerProcess | None = None
        self._processes: set[DockerProcess] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._ending = asyncio.Lock()
        self._gone = False

    def __repr__(self) -> str:
        return f"<DockerContainer {self.name}{' gone' if self._gone else ''}>"

    @property
    def name(self) -> str:
        return self.spec.name

    # --- processes ------------------------------------------------------------------------------------

    async def start_keeper(self) -> None:
        """Start the first process of one that has none of its own."""
        await self._answered(self._connection.run(lambda client: client.start(self.ident)))

    async def exec(
        self,
        argv: tuple[str, ...],
        *,
        env: tuple[tuple[str, str], ...] = (),
        cwd: str | None = None,
        stdin: bytes = b"",
        output: Output | None = None,
    ) -> DockerProcess:
        if self.spec.single and self._main is None:
            script = self._script((*self._entrypoint(), *argv), env, cwd, bool(stdin))
            return await self._become(MainProcess(self._ask_main, self._tell, output), script, stdin)
        mark = secrets.token_hex(16)
        ident = ""

        def start(client: Any) -> Any:
            nonlocal ident
            ident = _create_exec(client, self.ident, docker_shell.runner(mark), self._user)
            return start_exec(client, ident)

        sock, early = await self._hijacked(start)
        process = BesideProcess(partial(self._ask_exec, ident), self._tell, output, mark)
        self._join(process)
        process.attach(sock, early, _said(self._script(argv, env, cwd, bool(stdin)), mark) + stdin)
        return process

    async def open_terminal(
        self,
        argv: tuple[str, ...],
        *,
        env: tuple[tuple[str, str], ...] = (),
        cwd: str | None = None,
        rows: int = 24,
        columns: int = 80,
    ) -> DockerTerminal:
        if self.spec.single and self._main is None:
            argv = (*self._entrypoint(), *argv)
            await self._become(MainProcess(self._ask_main, self._tell, None), docker_shell.KEEPER, None)
        mark = secrets.token_hex(16)
        command = docker_shell.greeter(mark, self._script(argv, (), cwd, True))
        ident = ""

        def start(client: Any) -> Any:
            nonlocal ident
            ident = _create_exec(client, self.ident, command, self._user, env=env, terminal=True)
            return start_exec(client, ident, terminal=True)

        def resize(rows: int, columns: int) -> Awaitable[None]:
            return self._connection.run(lambda client: client.exec_resize(ident, rows, columns))

        sock, early = await self._hijacked(start)
        terminal = DockerTerminal(lambda: self._ask_exec(ident), self._tell, resize)
        await terminal.open(sock, early, mark, (rows, columns))
        self._join(terminal)
        return terminal

    async def _become(self, process: MainProcess, script: str, stdin: bytes | None) -> DockerProcess:
        """Start the container, whose first process becomes what the script says."""

        def start(client: Any) -> Any:
            streams = {"stdin": 1, "stdout": 1, "stderr": 1, "stream": 1}
            url = client._url("/containers/{0}/attach", self.ident)
            response = client._post(url, params=streams, headers=UPGRADE, stream=True)
            try:
                client._raise_for_status(response)
                client.start(self.ident)
            except BaseException:
                response.close()
                raise
            return response

        self._main = process
        sock, early = await self._hijacked(start)
        self._join(process)
        process.attach(sock, early, _said(script, self._mark) + (stdin or b""), ends=stdin is not None)
        return process

    def _entrypoint(self) -> tuple[str, ...]:
        if self.spec.entrypoint is not None:
            return self.spec.entrypoint
        return tuple(self._image.config.get("Entrypoint") or ())

    def _script(self, argv: tuple[str, ...], env: tuple[tuple[str, str], ...], cwd: str | None, stdin: bool) -> str:
        folder = cwd or self._image.config.get("WorkingDir") or HOME
        plain = () if self.spec.single else self.spec.env  # of a single one it is the container's
        return docker_shell.script(argv, env=(*plain, *env), cwd=folder, instead="" if cwd else "/", stdin=stdin)

    def _join(self, process: DockerProcess) -> None:
        self._processes = {one for one in self._processes if not one.has_ended} | {process}
        if self._gone:
            process.finish(Exit(code=None, signal=signal.SIGKILL))

    # --- the engine -----------------------------------------------------------------------------------

    async def _hijacked(self, request: Callable[[Any], Any]) -> tuple[socket.socket, bytes]:
        if self._gone:
            raise self._over()
        return await self._answered(self._connection.hijack(request))

    async def _answered(self, answer: Awaitable[T]) -> T:
        try:
            return await answer
        except (Absent, Conflict) as error:  # it is not there, or does not run
            raise self._over() from error
        except Refused as error:
            raise self._refused(error) from error

    def _over(self) -> RuntimeUnavailable:
        return RuntimeUnavailable(f"container {self.name} has ended", hint="`slipway app logs` may say why.")

    def _refused(self, error: Refused) -> Error:
        if NO_SHELL in error.message and "no such file" in error.message:
            return InvalidError(
                f"container {self.name}: its image has no /bin/sh, which everything in a container is started with",
                hint="Take an image that is made of a whole distribution: debian, ubuntu, alpine, or python.",
            )
        return RuntimeUnavailable(f"container {self.name} could not be started: {error.message}", hint=error.hint)

    async def _ask_main(self) -> Exit:
        """How the container ended, once it has."""

        def ask(client: Any) -> Exit:
            client.wait(self.ident)
            state = client.inspect_container(self.ident)["State"]
            return exit_of(int(state["ExitCode"]), oom=bool(state["OOMKilled"]))

        return await self._learned(ask, long=True)

    async def _ask_exec(self, ident: str) -> Exit:
        """How a process ended of which its shell did not say so: that was killed, too."""

        def ask(client: Any) -> Exit:
            code = client.exec_inspect(ident)["ExitCode"]
            state = client.inspect_container(self.ident)["State"]
            return exit_of(code, oom=bool(state["OOMKilled"]))

        return await self._learned(ask, long=False)

    async def _learned(self, ask: Callable[[Any], Exit], *, long: bool) -> Exit:
        try:
            return await self._connection.run(ask, long=long)
        except (Absent, Conflict):
            return Exit(code=None, signal=signal.SIGKILL)
        except RuntimeUnavailable as error:
            return Exit(code=None, reason=error.message)

    def _tell(self, pid: int, number: int) -> None:
        """Send a signal; 0 is the first process's own."""

        def kill(client: Any) -> None:
            if pid:
                ident = _create_exec(client, self.ident, docker_shell.signaller(pid, number), "0")
                client.exec_start(ident, detach=True)
            else:
                client.kill(self.ident, number)

        async def tell() -> None:
            try:
                await self._connection.run(kill)
            except Error:
                pass  # it has ended, or the engine has: who waits for it hears of that

        self._spawn(tell())

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # --- the end --------------------------------------------------------------------------------------

    async def hold(self, name: str, pid: int, limits: Limits) -> Held:
        raise InvalidError(f"container {self.name}: process {pid} can't have limits of its own: {UNDIVIDED}")

    async def commit(self, layer: str) -> str:
        try:
            return await self._commit(self.ident, layer, [mount.target for mount in self.spec.mounts])
        finally:
            await self.kill()

    async def stop(self, grace_ms: int) -> None:
        if not self._gone:
            try:
                async with asyncio.timeout(grace_ms / 1000):
                    await self._stop()
            except TimeoutError:
                pass
        await self.kill()

    async def _stop(self) -> None:
        """Ask it to end, wait until it has, and until its processes' last words are here."""

        def stop(client: Any) -> None:
            client.kill(self.ident, signal.SIGTERM)
            client.wait(self.ident)

        try:
            await self._connection.run(stop, long=True)
        except Error:
            return  # it does not run any more, or the engine doesn't
        for process in tuple(self._processes):
            await process.wait()

    async def kill(self) -> None:
        async with self._ending:
            if self._gone:
                return
            said = True
            try:
                async with asyncio.timeout(GOING):
                    await remove_container(self._connection, self.ident)
            except (RuntimeUnavailable, TimeoutError):
                said = False
            self._gone = True
            for process in self._processes:
                process.finish(Exit(code=None, signal=signal.SIGKILL))
            self._processes.clear()
            self._forget(said)

    async def stats(self) -> Stats:
        nothing = Stats(memory_bytes=None, cpu_ms=None, processes=None)
        if self._gone:
            return nothing

        def ask(client: Any) -> Stats:
            found = client.stats(self.ident, stream=False, one_shot=True)
            listed = client.top(self.ident, "-o pid,args")
            ours = [row for row in listed["Processes"] if docker_shell.OURS in row[-1]]
            return Stats(
                memory_bytes=_memory(found.get("memory_stats") or {}),
                cpu_ms=int(found["cpu_stats"]["cpu_usage"]["total_usage"]) // 1_000_000,
                processes=len(listed["Processes"]) - len(ours),
            )

        try:
            return await self._connection.run(ask)
        except (Absent, Conflict, RuntimeUnavailable):
            return nothing


def _memory(stats: dict[str, Any]) -> int | None:
    """What is in use, without pages of files that could be dropped, as `docker stats` shows it."""
    if "usage" not in stats:
        return None
    details = stats.get("stats") or {}
    idle = details.get("total_inactive_file", details.get("inactive_file", 0))
    return max(int(stats["usage"]) - int(idle), 0)


def _said(script: str, mark: str) -> bytes:
    return f"{script}\n{mark}\n".encode()


def _create_exec(
    client: Any,
    container: str,
    argv: list[str],
    user: str,
    *,
    env: tuple[tuple[str, str], ...] = (),
    terminal: bool = False,
) -> str:
    settings = [f"{name}={value}" for name, value in env]
    made = client.exec_create(container, argv, stdin=True, tty=terminal, user=user, environment=settings)
    return str(made["Id"])
