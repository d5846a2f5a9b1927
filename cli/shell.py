"""`slipway shell`."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

import click

from slipway.dsl.errors import InvalidError

from .screen import Screen
from .source import as_module_option, connect, load, runtime_option
from .terminal import attend, pty_option

if TYPE_CHECKING:
    from slipway.connection import Connection


@click.command()
@as_module_option
@click.option("-c", "--cmd", "command", metavar="COMMAND", help="What to run; else /bin/bash, or /bin/sh.")
@pty_option
@runtime_option
@click.argument("ref", metavar="APP[::FUNCTION]")
def shell(ref: str, command: str | None, pty: bool | None, as_module: bool, runtime: str | None) -> int:
    """Open a shell in a fresh container like those of FUNCTION: same image, files, volumes, secrets and limits.

    APP is the name of a deployed app, or a file, whose app is built first as `slipway run` does it. The container ends
    with the shell. Without a terminal the shell takes its commands from stdin. Ends with the shell's exit code.

    \b
    Examples:
      slipway shell search::index
      slipway shell app.py::index --cmd "python -i"
      echo 'ls /models' | slipway shell search::index
    """
    argv = _words(command)
    where, _, name = ref.partition("::")
    if as_module or where.endswith(".py") or "/" in where:
        return _of_file(ref, argv, as_module=as_module, pty=pty, runtime=runtime)
    with connect() as link:
        params = {"app": where, "function": name or _only_function(link, where), "argv": argv}
        return attend(link, "container.shell", params | ({"runtime": runtime} if runtime else {}), pty=pty)


def _words(command: str | None) -> list[str]:
    try:
        words = shlex.split(command or "")
    except ValueError as error:
        raise InvalidError(f"--cmd {command!r} is no command: {error}") from None
    if command is not None and not words:
        raise InvalidError("--cmd names nothing to run", hint="Leave it out for a shell.")
    return words


def _only_function(link: Connection, app: str) -> str:
    """The function of a deployed app that has one; the engine tells of an app that is not there."""
    apps: list[dict[str, Any]] = link.request("app.list", {})["apps"]
    functions = next((entry.get("functions", []) for entry in apps if entry["app"] == app), [""])
    if len(functions) != 1:
        listed = "\n".join(f"  {app}::{name}" for name in functions)
        raise InvalidError(
            f"{app} has {len(functions)} functions, and it isn't said which is meant", hint=f"Say one of:\n{listed}"
        )
    return str(functions[0])


def _of_file(ref: str, argv: list[str], *, as_module: bool, pty: bool | None, runtime: str | None) -> int:
    """In an app that is there for as long as the shell."""
    loaded = load(ref, as_module=as_module, quiet=True)
    from slipway.dsl.function import Function
    from slipway.loader import target
    from slipway.runner import declaration_request

    functions = loaded.app.functions
    only = next(iter(functions)) if loaded.name is None and len(functions) == 1 else None
    goal = functions[only] if only is not None else target(loaded)
    if not isinstance(goal, Function):
        raise InvalidError(
            f"{goal.name} is a local entrypoint: it runs here, and has no container",
            hint=f"Functions are: {', '.join(functions) or 'none'}.",
        )
    request = declaration_request(loaded.app, loaded.path, runtime=runtime)
    with connect() as link:
        with Screen(err=True) as screen:
            app = link.request("run", request, on_event=screen.on_event)["app"]
        return attend(link, "container.shell", {"app": app, "function": goal.name, "argv": argv}, pty=pty)
