"""What programs may ask about containers: which there are, what they said, to end one, to run something in one."""

from __future__ import annotations

import asyncio
import difflib
import itertools
import os
import shutil
import signal
from collections.abc import Awaitable, Callable
from typing import Any

from attrs import define, evolve

from slipway.dsl.errors import Error, InvalidError, NotFoundError

from .channels import Scope
from .dispatch import Dispatcher
from .engine import Emit, Engine
from .log_query import Query
from .log_requests import QUERY, query_of, tell
from .pool import Pool, PoolSpec
from .ports import Container, Exit
from .sessions import Room, Sessions, Window, check_size
from .worker.host import TOKEN_VARIABLE, USER_CODE
from .worker.package import IN_CONTAINER

STATS_SECONDS = 2.0  # a runtime that takes longer to tell how much memory a container has is not waited for
STOP_GRACE_MS = 5000
# What a program is started by, so that its Python finds the function's module and us, as the worker does.
WAY = f"""PYTHONPATH={USER_CODE}:${{PYTHONPATH:+$PYTHONPATH:}}{IN_CONTAINER}/lib; export PYTHONPATH
unset {TOKEN_VARIABLE}
[ $# -eq 0 ] && [ -x /bin/bash ] && exec /bin/bash
[ $# -eq 0 ] && exec /bin/sh
exec "$@"
"""
STOPPED = "the worker was stopped: slipway container stop"

Method = Callable[[Scope, dict[str, Any], Emit], Awaitable[dict[str, Any]]]
PARAMETERS: dict[str, dict[str, type]] = {
    "container.list": {},
    "container.logs": {"id": str, **QUERY},
    "container.stop": {"id": str, "graceful?": bool},
    "container.exec": {"id": str, "argv": list, "terminal?": dict},
    "container.shell": {"app": str, "function": str, "argv?": list, "terminal?": dict, "runtime?": str},
    "session.resize": {"session": int, "rows": int, "columns": int},
    "session.signal": {"session": int, "number": int},
}


@define(eq=False)
class Shell:
    """A container of somebody's own, made for one program."""

    name: str
    spec: PoolSpec
    runtime: str
    serial: int
    since_ms: int
    container: Container | None = None
    stopped: bool = False


@define(eq=False)
class Staff:
    """A worker and where it is kept."""

    dispatcher: Dispatcher
    pool: Pool
    number: int
    name: str
    runtime: str

    @property
    def spec(self) -> PoolSpec:
        return self.pool.spec

    @property
    def container(self) -> Container | None:
        worker = self.pool.workers.get(self.number)
        return None if worker is None else worker.container


Kept = Staff | Shell


class Containers:
    """The requests, as `requests.Requests` has the others."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._sessions = Sessions()
        self._shells: dict[str, Shell] = {}
        self._numbers = itertools.count(1)

    def methods(self) -> dict[str, Method]:
        return {
            "container.list": self.list_all,
            "container.logs": self.logs,
            "container.stop": self.stop,
            "container.exec": self.exec,
            "container.shell": self.shell,
            "session.resize": self.resize,
            "session.signal": self.signal,
        }

    @property
    def busy(self) -> str:
        """What is under way here, in words; "" for nothing."""
        count = len(self._sessions)
        return f"{count} {'program' if count == 1 else 'programs'} in containers" if count else ""

    # --- which there are ------------------------------------------------------------------------------

    def _workers(self) -> dict[str, Staff]:
        found = [
            Staff(dispatcher, pool, number, pool.names[number], runtime)
            for runtime, dispatcher in self._engine.dispatchers.items()
            for pool in dispatcher.all_pools()
            for number in pool.tasks
        ]
        return {staff.name: staff for staff in found}

    def _known(self, ident: str) -> Kept:
        there: dict[str, Kept] = {**self._workers(), **self._shells}
        if ident not in there:
            close = difflib.get_close_matches(ident, there, n=3, cutoff=0.4)
            hint = f"Did you mean {' or '.join(close)}?" if close else "See them: slipway container list"
            raise NotFoundError(f"there is no container {ident}", hint=hint)
        return there[ident]

    def _is_there(self, kept: Kept) -> bool:
        if isinstance(kept, Shell):
            return not kept.stopped and kept.name in self._shells
        return kept.number in kept.pool.workers and not kept.pool.placement.workers[kept.number].stopping

    async def list_all(self, _scope: Scope, _params: dict[str, Any], _emit: Emit) -> dict[str, Any]:
        described = [self._worker(staff) for staff in self._workers().values()]
        described += [self._shell(shell) for shell in self._shells.values()]
        described.sort(key=lambda one: (one[0]["since_ms"], one[0]["id"]))
        memory = await asyncio.gather(*(_memory(container) for _, container in described))
        return {"containers": [one | {"memory_bytes": size} for (one, _), size in zip(described, memory, strict=True)]}

    def _worker(self, staff: Staff) -> tuple[dict[str, Any], Container | None]:
        seat = staff.pool.placement.workers.get(staff.number)
        calls = len(seat.calls) if seat is not None else 0
        if seat is None or seat.stopping:
            state = "stopping"
        elif not seat.ready:
            state = "starting"
        else:
            state = "running" if calls else "idle"
        spec = staff.pool.spec
        live = self._engine.live.get(spec.app)
        in_force = live is not None and spec.function in live.pools and live.pools[spec.function].key == spec.key
        told = {"id": staff.name, "kind": "worker", "state": state, "calls": calls, "runtime": staff.runtime}
        told |= {"since_ms": staff.pool.since_ms[staff.number], "serial": live.serial if live and in_force else None}
        return told | self._of(spec), staff.container

    def _shell(self, shell: Shell) -> tuple[dict[str, Any], Container | None]:
        state = "starting" if shell.container is None else "stopping" if shell.stopped else "running"
        told = {"id": shell.name, "kind": "shell", "state": state, "calls": 0, "runtime": shell.runtime}
        told |= {"since_ms": shell.since_ms, "serial": shell.serial}
        return told | self._of(shell.spec), shell.container

    def _of(self, spec: PoolSpec) -> dict[str, Any]:
        """What there is to say of every container of a function."""
        container = spec.worker.container
        return {
            "app": spec.worker.function.app,
            "run": spec.app,
            "function": spec.function,
            "image": container.layers[-1] if container.layers else container.base.says,
            "memory_limit_mib": container.limits.memory_mib,
        }

    # --- what they said, and their end ----------------------------------------------------------------

    async def logs(self, scope: Scope, params: dict[str, Any], emit: Emit) -> dict[str, Any]:
        """The lines of a worker, also of one that has ended. With `follow` what comes too, until it ends."""
        _refuse_workers(scope)
        ident = params["id"]
        if ident in self._shells:
            raise InvalidError(f"{ident} is a shell: what it shows goes to its own screen alone")
        query = evolve(query_of(params), worker=ident)
        staff = self._workers().get(ident)
        app = "" if staff is None else staff.spec.worker.function.app
        task = staff.pool.tasks.get(staff.number) if staff is not None else None

        async def ended() -> None:
            if task is not None:
                await asyncio.wait([task])

        until = ended if task is not None and params.get("follow", False) else None
        if not await tell(self._engine, app, query, emit, until=until) and staff is None:
            logbook = self._engine.logbook
            if not await asyncio.to_thread(logbook.read, Query(worker=ident, tail=1), logbook.mark()):
                self._known(ident)  # says that there is none
        return {}

    async def stop(self, scope: Scope, params: dict[str, Any], _emit: Emit) -> dict[str, Any]:
        """End a container; the reply comes when it is gone."""
        _refuse_workers(scope)
        found = self._known(params["id"])
        graceful = params.get("graceful", False)
        if isinstance(found, Staff):
            await asyncio.wait([found.dispatcher.end_worker(found.pool, found.number, STOPPED, graceful=graceful)])
        else:
            found.stopped = True
            if found.container is not None:
                await (found.container.stop(STOP_GRACE_MS) if graceful else found.container.kill())
        return {}

    # --- programs in them -----------------------------------------------------------------------------

    async def exec(self, scope: Scope, params: dict[str, Any], emit: Emit) -> dict[str, Any]:
        """Run a program in a container that is there, with what its own program was given."""
        _refuse_workers(scope)
        argv, window = _argv(params), _window(params)
        if not argv:
            raise InvalidError("no program is named")
        found = self._known(params["id"])
        if found.container is None:
            raise InvalidError(f"{params['id']} is not ready yet", hint="Try again in a moment.")
        how = await self._run(scope, emit, found, argv, window)
        cut_off = how.code != 0 and not self._is_there(found)
        return _told(how, f"the container {found.name} has ended" if cut_off else "")

    async def shell(self, scope: Scope, params: dict[str, Any], emit: Emit) -> dict[str, Any]:
        """Run a program in a fresh container like those of a function's workers. It ends with the program."""
        _refuse_workers(scope)
        argv, window = _argv(params), _window(params)
        engine = self._engine
        ident = scope.apps.get(params["app"], params["app"])
        spec = engine.spec_of(ident, params["function"])
        live = engine.live[ident]
        if params.get("runtime", live.runtime) != live.runtime:
            raise InvalidError(
                f"{live.name} is deployed on {live.runtime}, not on {params['runtime']}",
                hint="Leave --runtime out, or name the app's file: slipway shell app.py::function",
            )
        name = f"s{next(self._numbers)}-{os.getpid()}"
        shell = Shell(name, spec, live.runtime, live.serial, engine.clock.now_ms())
        self._shells[name] = shell
        try:
            async with engine.uses.hold(live.graph):  # it may outlive the app that it was made for
                how = await self._in_shell(scope, emit, shell, argv, window)
        finally:
            del self._shells[name]
        return _told(how, f"the shell {name} was stopped" if shell.stopped else "")

    async def _in_shell(
        self, scope: Scope, emit: Emit, shell: Shell, argv: tuple[str, ...], window: Window | None
    ) -> Exit:
        place = self._engine.places[shell.runtime]
        spec = shell.spec.worker.container
        gpus = await place.gpus.take(shell.spec.worker.gpus)
        try:
            mounts = (*spec.mounts, *place.open(shell.name))
            labels = (*spec.labels, ("shell", "yes"))
            container = await place.runtime.create(
                evolve(spec, name=shell.name, mounts=mounts, labels=labels, gpus=gpus)
            )
            shell.container = container
            try:
                if shell.stopped:
                    return Exit(code=None, signal=signal.SIGKILL)
                return await self._run(scope, emit, shell, argv, window)
            finally:
                await container.kill()
        finally:
            place.gpus.give_back(gpus)
            await asyncio.to_thread(shutil.rmtree, place.folder(shell.name), ignore_errors=True)

    async def _run(self, scope: Scope, emit: Emit, kept: Kept, argv: tuple[str, ...], window: Window | None) -> Exit:
        assert kept.container is not None, "looked at by whoever calls"
        place, worker = self._engine.places[kept.runtime], kept.spec.worker
        prepared = await place.runtime.prepare(worker.container)
        room = Room(
            container=kept.container,
            folder=place.folder(kept.name),
            python=prepared.python,
            env=worker.env,
            cwd=worker.cwd,
        )
        return await self._sessions.attend(scope, emit, room, ("/bin/sh", "-c", WAY, "slipway", *argv), window)

    async def resize(self, scope: Scope, params: dict[str, Any], _emit: Emit) -> dict[str, Any]:
        self._sessions.resize(scope, params["session"], params["rows"], params["columns"])
        return {}

    async def signal(self, scope: Scope, params: dict[str, Any], _emit: Emit) -> dict[str, Any]:
        self._sessions.signal(scope, params["session"], params["number"])
        return {}


def _refuse_workers(scope: Scope) -> None:
    """What runs in one container shall not get into another by way of us."""
    if scope.worker:
        raise InvalidError("code in a worker can't look into containers")


def _argv(params: dict[str, Any]) -> tuple[str, ...]:
    argv = params.get("argv", [])
    if not all(isinstance(word, str) and "\0" not in word for word in argv):
        raise InvalidError("'argv' is not a list of words")
    return tuple(argv)


def _window(params: dict[str, Any]) -> Window | None:
    given = params.get("terminal")
    if given is None:
        return None
    rows, columns, kind = given.get("rows"), given.get("columns"), given.get("kind", "xterm")
    if type(rows) is not int or type(columns) is not int or not isinstance(kind, str) or "\0" in kind:
        raise InvalidError("'terminal' is not rows, columns and a kind")
    check_size(rows, columns)
    return Window(rows=rows, columns=columns, kind=kind)


def _told(how: Exit, why: str) -> dict[str, Any]:
    """
    >>> _told(Exit(code=None, reason="the engine is gone"), "")
    {'code': None, 'signal': None, 'oom': False, 'why': 'the engine is gone'}
    """
    return {"code": how.code, "signal": how.signal, "oom": how.oom, "why": why or how.reason}


async def _memory(container: Container | None) -> int | None:
    """How much memory a container has now; None where that is not to be had."""
    if container is None:
        return None
    try:
        async with asyncio.timeout(STATS_SECONDS):
            return (await container.stats()).memory_bytes
    except (Error, TimeoutError):
        return None
