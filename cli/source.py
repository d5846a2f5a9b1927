"""APP on the command line: imported, declared, planned; and the options that several commands share."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from slipway.connection import Connection
    from slipway.loader import Loaded

F = TypeVar("F", bound=Callable[..., Any])

as_module_option = click.option("-m", "as_module", is_flag=True, help="APP is a module: package.module[::NAME].")
runtime_option = click.option(
    "--runtime",
    type=click.Choice(["native", "docker"]),
    help="What makes the containers; unsaid: as configured, as deployed, or what can serve the app.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON for a program to read.")
yes_option = click.option("-y", "--yes", is_flag=True, help="Don't ask.")


def app_argument(function: F) -> F:
    """The argument APP."""
    return click.argument("app", metavar="APP", shell_complete=_complete_app)(function)


def _complete_app(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[Any]:
    from click.shell_completion import CompletionItem

    return [CompletionItem(incomplete, type="file")]


def load(ref: str, *, as_module: bool = False, quiet: bool = False) -> Loaded:
    """Import the user's file. `quiet`: what it prints meanwhile goes to stderr, so that stdout stays ours."""
    from slipway import loader

    with contextlib.redirect_stdout(sys.stderr) if quiet else contextlib.nullcontext():
        return loader.load(ref, as_module=as_module)


def connect(*, start: bool = True) -> Connection:
    """The home's engine."""
    from slipway import engine_client

    return engine_client.connect(start=start)


def plan_reply(
    link: Connection, loaded: Loaded, *, runtime: str | None, save: bool, brief: bool = False
) -> dict[str, Any]:
    """Ask the engine for a plan of the loaded app: its reply, `plan` and `id`. `brief`: without the lists of files."""
    from slipway.runner import declaration_request

    request = declaration_request(loaded.app, loaded.path, runtime=runtime)
    return link.request("plan", request | {"save": save, "brief": brief})
