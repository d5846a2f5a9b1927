"""`slipway destroy`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from .apply import confirm
from .output import say, show
from .source import connect, load, yes_option


@click.command()
@click.argument("app", metavar="APP")
@yes_option
@click.option(
    "--volume", "volumes", multiple=True, metavar="NAME", help="Remove this volume too, with all that is in it."
)
def destroy(app: str, yes: bool, volumes: tuple[str, ...]) -> None:
    """Take APP, a deployed app's name or its file, out of force: its workers end, its schedules and routes go.

    Volumes and secrets stay, unless a volume is named.

    \b
    Examples:
      slipway destroy search
      slipway destroy app.py --yes --volume scratch
    """
    name = app_name(app)
    if not yes:
        also = f" and the volume{'s' if len(volumes) > 1 else ''} {', '.join(volumes)}" if volumes else ""
        confirm(f"Take {name}{also} out of force?")
    with connect() as link:
        reply = link.request("destroy", {"app": name, "volumes": list(volumes)})
    removed: list[Any] = list(reply.get("removed", ()))
    if removed:
        show((f"  -  {address}",) for address in removed)
    say(f"{name} is destroyed.")


def app_name(app: str) -> str:
    """The name of an app that was given by name or by file."""
    if app.endswith(".py") or "::" in app or "/" in app or Path(app).is_file():
        declared = load(app).app
        return declared.name or declared.description
    return app
