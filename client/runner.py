"""Runs and deploys an app from the user's own program: `with app.run():`, `app.deploy()`, `slipway run`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slipway.compiler.encode import to_wire
from slipway.connection import Connection
from slipway.declare import declare
from slipway.dsl.session import current_session
from slipway.engine_client import connect
from slipway.session import EngineSession

if TYPE_CHECKING:
    from slipway.dsl.app import App

OnEvent = Callable[[dict[str, Any]], None]


def declaration_request(app: App, file: Path, *, runtime: str | None = None) -> dict[str, Any]:
    """What `plan` and `run` send: the declaration, the secrets' values beside it, where the user stands."""
    declaration, secrets = declare(app, file=file)
    request = {"declaration": to_wire(declaration), "secrets": secrets, "folder": str(Path.cwd())}
    return request | ({"runtime": runtime} if runtime else {})


@contextmanager
def run_app(
    app: App,
    file: Path,
    *,
    connection: Connection | None = None,
    runtime: str | None = None,
    on_event: OnEvent | None = None,
) -> Iterator[EngineSession]:
    """An ephemeral app: built on entry, callable inside the block, gone afterwards.

    The app is bound to the connection, so it ends too when this program dies.
    """
    request = declaration_request(app, file, runtime=runtime)
    own = connection is None
    link = connection or connect()
    try:
        reply = link.request("run", request, on_event=on_event)
        session = EngineSession(link)
        token = current_session.set(session)
        try:
            yield session
        finally:
            current_session.reset(token)
            if not link.closed:
                link.request("app.end", {"app": reply["app"]})
    finally:
        if own:
            link.close()


def deploy_app(
    app: App,
    file: Path,
    *,
    connection: Connection | None = None,
    runtime: str | None = None,
    on_event: OnEvent | None = None,
) -> dict[str, Any]:
    """Plan and apply in one go; returns the reply of `apply`."""
    own = connection is None
    link = connection or connect()
    try:
        plan = link.request("plan", declaration_request(app, file, runtime=runtime) | {"save": True})
        return link.request("apply", {"id": plan["id"]}, on_event=on_event)
    finally:
        if own:
            link.close()
