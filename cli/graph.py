"""`slipway graph`."""

from __future__ import annotations

from pathlib import Path

import click

from slipway.dsl.errors import InvalidError

from .output import say
from .source import app_argument, as_module_option, connect, load, plan_reply, runtime_option


@click.command()
@app_argument
@as_module_option
@click.option(
    "--format", "style", type=click.Choice(["text", "mermaid", "svg"]), default="text", help="text if not said."
)
@click.option("-o", "output", metavar="FILE", help="Write it to a file.")
@runtime_option
def graph(app: str, as_module: bool, style: str, output: str | None, runtime: str | None) -> None:
    """Draw APP's plan graph: images with their layers, bundles, functions, and what is made of what.

    \b
    Examples:
      slipway graph app.py
      slipway graph app.py --format mermaid
      slipway graph app.py --format svg -o graph.svg
    """
    loaded = load(app, as_module=as_module, quiet=output is None)
    with connect() as link:
        reply = plan_reply(link, loaded, runtime=runtime, save=False)
    from slipway.compiler.graph import render_mermaid, render_svg, render_text
    from slipway.compiler.nodes import Graph
    from slipway.compiler.wire import from_wire

    drawn = {"text": render_text, "mermaid": render_mermaid, "svg": render_svg}[style](
        from_wire(Graph, reply["plan"]["graph"])
    )
    if output is None:
        click.echo(drawn)
        return
    try:
        Path(output).write_text(drawn.rstrip("\n") + "\n", encoding="utf-8")
    except OSError as error:
        raise InvalidError(f"the graph cannot be written to {output}: {error.strerror}") from error
    say(f"Wrote {output}.")
