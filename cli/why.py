"""`slipway why`."""

from __future__ import annotations

import click

from .failure import shorten_paths
from .output import show
from .source import app_argument, as_module_option, connect, load, plan_reply, runtime_option


@click.command()
@app_argument
@click.argument("node")
@as_module_option
@runtime_option
def why(app: str, node: str, as_module: bool, runtime: str | None) -> None:
    """Say why NODE of APP's plan changes, down to the field or the file where it begins; or why it doesn't.

    NODE is an address as the plan and the graph show them, or as much of one as only it has.

    \b
    Examples:
      slipway why app.py "function index"
      slipway why app.py image/2
    """
    loaded = load(app, as_module=as_module)
    with connect() as link:
        reply = plan_reply(link, loaded, runtime=runtime, save=False)
    from slipway.compiler.explain import explain
    from slipway.compiler.plan import Plan
    from slipway.compiler.wire import from_wire

    show((shorten_paths(line),) for line in explain(from_wire(Plan, reply["plan"]), node))
