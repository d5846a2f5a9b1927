"""`slipway plan`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from slipway.dsl.errors import InvalidError

from .output import nearby, say, show, width
from .source import app_argument, as_module_option, connect, json_option, load, plan_reply, runtime_option


@click.command()
@app_argument
@as_module_option
@click.option("-o", "output", metavar="FILE", help="Save the plan to a file as well, for `slipway apply FILE`.")
@json_option
@click.option("--exit-code", "exit_code", is_flag=True, help="End with 0: nothing to do, 2: changes, 1: error.")
@runtime_option
def plan(app: str, as_module: bool, output: str | None, as_json: bool, exit_code: bool, runtime: str | None) -> int:
    """Show what APP would change here, and why. Nothing is built, started or taken away.

    The plan is kept: `slipway apply` makes the last plan of this folder so.

    \b
    Examples:
      slipway plan app.py
      slipway plan app.py -o release.plan
      slipway plan -m shop.app --json
    """
    loaded = load(app, as_module=as_module, quiet=as_json)
    with connect() as link:
        brief = output is None and not as_json
        reply = plan_reply(link, loaded, runtime=runtime, save=True, brief=brief)
    if output is not None:
        save(reply["plan"], output)
    from .render import plan_lines, view

    seen = view(reply["plan"])
    if as_json:
        click.echo(json.dumps(reply["plan"]))
    else:
        show(plan_lines(seen, width=width()))
        where = f" {nearby(output)}" if output else ""
        if not seen.is_empty:
            say(f"Saved{' to' + where if where else ''}. To make it so: slipway apply{where}")
    return 2 if exit_code and not seen.is_empty else 0


def save(plan: dict[str, Any], output: str) -> None:
    """Write a plan file, whole or not at all."""
    from slipway.compiler.plan import Plan
    from slipway.compiler.planfile import write
    from slipway.compiler.wire import from_wire

    path = Path(output)
    fresh = path.with_name(f".{path.name}.new")
    try:
        fresh.write_bytes(write(from_wire(Plan, plan)))
        fresh.replace(path)
    except OSError as error:
        raise InvalidError(f"the plan cannot be written to {output}: {error.strerror}") from error
