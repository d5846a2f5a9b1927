"""`slipway apply`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from slipway.dsl.errors import InvalidError, NotFoundError, PlanFormatError

from .carry_out import carry_out, last_plan
from .output import show, width
from .source import as_module_option, connect, json_option, load, plan_reply, runtime_option, yes_option

if TYPE_CHECKING:
    from slipway.connection import Connection

    from .render import PlanView


@click.command()
@click.argument("what", metavar="[APP|PLANFILE]", required=False)
@as_module_option
@yes_option
@json_option
@runtime_option
def apply(what: str | None, as_module: bool, yes: bool, as_json: bool, runtime: str | None) -> int:
    """Make it so: build the layers that changed, put the app in force in one step.

    Without an argument it applies the last plan made in this folder. With an APP it plans first and asks. Only what
    changed is built; what is in force stays so until everything it takes is there.

    \b
    Examples:
      slipway apply
      slipway apply app.py --yes
      slipway apply release.plan
    """
    if runtime is not None and not (what is not None and (as_module or is_app(what))):
        raise InvalidError(
            "a plan is for one runtime already", hint=f"Plan for it: slipway plan app.py --runtime {runtime}"
        )
    with connect() as link:
        if what is None:
            request = last_plan()
        elif as_module or is_app(what):
            seen, request = _planned(link, what, as_module, as_json, runtime)
            if not as_json and not yes and not seen.is_empty:
                confirm("Apply?")
        else:
            request = {"plan": read(what)}
        return carry_out(link, request, as_json=as_json)


def is_app(what: str) -> bool:
    """Whether the argument names an app file rather than a plan file."""
    return "::" in what or what.endswith(".py") or Path(what).is_dir()


def _planned(
    link: Connection, what: str, as_module: bool, as_json: bool, runtime: str | None
) -> tuple[PlanView, dict[str, Any]]:
    from .render import plan_lines, view

    loaded = load(what, as_module=as_module, quiet=as_json)
    reply = plan_reply(link, loaded, runtime=runtime, save=True, brief=True)
    seen = view(reply["plan"])
    if not as_json:
        show(plan_lines(seen, width=width()))
    return seen, {"id": reply["id"]}


def confirm(question: str) -> None:
    """Ask; go on only after a yes."""
    if not sys.stdin.isatty():
        raise InvalidError("nobody is here to say yes", hint="Add --yes.")
    if not ask(question):
        show([("Nothing was changed.",)], err=True)
        click.get_current_context().exit(1)


def ask(question: str) -> bool:
    """Whether somebody at this terminal says yes."""
    try:
        return click.confirm(question)
    except click.Abort:
        click.echo(err=True)  # Ctrl-C leaves the question's line without an end
        raise


def read(what: str) -> dict[str, Any]:
    """The plan of a plan file, checked, as it goes over the wire."""
    from slipway.compiler import planfile
    from slipway.compiler.wire import to_wire

    try:
        data = Path(what).read_bytes()
    except FileNotFoundError:
        raise NotFoundError(
            f"there is no file {what!r}",
            hint="To apply an app: slipway apply app.py. To make a plan file: slipway plan -o.",
        ) from None
    except OSError as error:
        raise InvalidError(f"{what} cannot be read: {error.strerror}") from error
    try:
        plan = planfile.read(data)
    except PlanFormatError as error:
        raise PlanFormatError(f"{what}: {error.message}", hint=error.hint) from None
    wire: dict[str, Any] = to_wire(plan)
    return wire
