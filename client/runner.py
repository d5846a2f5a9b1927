"""Runs and deploys an app from the user's own program: `with app.run():`, `app.deploy()`, `slipway run`."""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from slipway.compiler.encode import from_wire, to_wire
from slipway.dsl import context
from slipway.dsl.declaration import Fault
from slipway.dsl.errors import Error, InvalidError
from slipway.dsl.session import Running, Session

from .connection import HURRY, Connection
from .declare import declare
from .engine_client import connect
from .follow import Follower, OnEvent, print_event, print_line
from .sources import app_file

if TYPE_CHECKING:
    from slipway.dsl.app import App

    from .session import EngineSession


CHOICES = ("SLIPWAY_RUNTIME", "DOCKER_HOST", "DOCKER_CONTEXT")  # which runtime, and where it is


def declaration_request(app: App, file: Path, *, runtime: str | None = None) -> dict[str, Any]:
    """What `plan` and `run` send: the declaration, the secrets' values beside it, where the user stands, and what of
    the environment the engine is to know, which outlives it."""
    declaration, secrets = declare(app, file=file)
    environment = {name: os.environ[name] for name in CHOICES if os.environ.get(name)}
    request: dict[str, Any] = {"declaration": to_wire(declaration), "secrets": secrets, "environment": environment}
    request["folder"] = str(Path.cwd())
    return request | ({"runtime": runtime} if runtime else {})


class EphemeralRun:
    """An ephemeral app as a block: built on entry, callable inside, gone afterwards.

    The app is bound to the connection, so it ends too when this program dies. Both `with` and `async with`.
    """

    def __init__(
        self,
        app: App,
        file: Path,
        *,
        connection: Connection | None = None,
        runtime: str | None = None,
        on_event: OnEvent | None = None,
        on_line: OnEvent | None = None,
    ) -> None:
        """`on_event` gets what happens while the app is built, `on_line` what its workers print, on another thread."""
        self._app = app
        self._file = file
        self._given = connection
        self._runtime = runtime
        self._on_event = on_event
        self._on_line = on_line
        self._follower: Follower | None = None
        self._link: Connection | None = None
        self._id = ""
        self.ended = False  # whether the engine has said so

    def __enter__(self) -> Running:
        request = declaration_request(self._app, self._file, runtime=self._runtime)
        self._link = self._given or connect()
        try:
            reply = self._link.request("run", request, on_event=self._on_event)
            self._id = reply["app"]
            _warn(reply.get("faults", ()))
        except BaseException:
            self._leave()
            raise
        return self._running(self._link)

    def _running(self, link: Connection) -> Running:
        if self._on_line is not None:
            self._follower = Follower(link, self._id, self._on_line)
        return Running(app_id=self._id, session=_session(link))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is not None and kind.__name__ in {"KeyboardInterrupt", "CancelledError"}:
            ending = threading.Thread(target=self._try_to_end, name="slipway-end", daemon=True)
            ending.start()
            ending.join(HURRY)
        else:
            self._end()
        self._leave()

    def _end(self) -> None:
        """Have the engine end the app; return when its workers are gone and their last lines are told."""
        link = self._link
        if link is not None and not link.closed:
            link.request("app.end", {"app": self._id})
            self.ended = True
        if self._follower is not None:
            self._follower.finish()

    def _try_to_end(self) -> None:
        with suppress(Error):  # the connection went first, and the app goes with it
            self._end()

    def _leave(self) -> None:
        if self._given is None and self._link is not None:
            self._link.close()
        self._link = None

    async def __aenter__(self) -> Running:
        import asyncio  # a loop runs here, so it is loaded; a plan need not load it

        # Not all of it in a thread: whoever is cancelled in the middle of a build would have to wait for its end.
        request = await asyncio.to_thread(declaration_request, self._app, self._file, runtime=self._runtime)
        link = self._given
        if link is None:
            link = await asyncio.to_thread(connect)
        self._link = link
        try:
            self._id = (await link.request_aio("run", request, on_event=self._on_event))["app"]
        except BaseException:
            self._leave()
            raise
        return self._running(link)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        import asyncio

        await asyncio.to_thread(self.__exit__, kind, error, traceback)


def _warn(faults: Iterable[dict[str, Any]]) -> None:
    """Say what a plan would warn of: who runs an app sees no plan."""
    for fault in (from_wire(Fault, fault) for fault in faults):
        if fault.severity == "warning":
            place = fault.origin.file, fault.origin.line
            warnings.warn_explicit(". ".join(filter(None, (fault.summary, fault.hint))), UserWarning, *place)


class ProgramRunner:
    """The `Runner` of a program that is not a worker."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._session: EngineSession | None = None

    def run(self, app: App, *, name: str | None, detach: bool) -> EphemeralRun:
        if name is not None or detach:
            raise InvalidError("app.run(name=, detach=) is not in this release", hint="Deploy it: slipway apply.")
        if context.output_enabled.get():
            return EphemeralRun(app, app_file(app), on_event=print_event, on_line=print_line)
        return EphemeralRun(app, app_file(app))

    def deploy(self, app: App, *, name: str, tag: str, strategy: str) -> None:
        _check_deploy(app, name, tag)
        link = connect()
        try:
            plan = link.request("plan", declaration_request(app, app_file(app)) | {"save": True})
            link.request("apply", {"id": plan["id"]})
        finally:
            link.close()

    async def deploy_aio(self, app: App, *, name: str, tag: str, strategy: str) -> None:
        import asyncio

        _check_deploy(app, name, tag)
        request = await asyncio.to_thread(declaration_request, app, app_file(app))
        link = await asyncio.to_thread(connect)
        try:
            plan = await link.request_aio("plan", request | {"save": True})
            await link.request_aio("apply", {"id": plan["id"]})
        finally:
            link.close()

    def session(self) -> EngineSession:
        """One for the program; another where the engine of that one has gone, or this process was forked."""
        with self._lock:
            if self._session is None or self._session.connection.closed:
                from .lasting import LastingSession  # takes a while to import, and a plan needs none

                self._session = LastingSession(connect(), self.session)
            return self._session


def _check_deploy(app: App, name: str, tag: str) -> None:
    if name != app.name or tag:
        raise InvalidError("app.deploy(name=, tag=) is not in this release", hint="Name the app: slipway.App(name).")


def _session(link: Connection) -> Session:
    from .session import EngineSession  # a plan needs none, and it takes a while to import

    return EngineSession(link)
