"""`slipway app list` and `slipway app logs`."""

from __future__ import annotations

import json
import time
from typing import Any

import click

from .log_lines import print_lines, tail_options, wanted
from .output import say, show, table
from .source import connect, json_option


@click.group()
def app() -> None:
    """See the deployed apps and their logs.

    \b
    Examples:
      slipway app list
      slipway app logs search
    """


@app.command("list")
@json_option
def list_apps(as_json: bool) -> None:
    """List the apps that are in force in this home: their workers, inputs that run and that wait, and their troubles.

    \b
    Example:
      slipway app list --json
    """
    with connect() as link:
        apps: list[dict[str, Any]] = link.request("app.list", {})["apps"]
    if as_json:
        click.echo(json.dumps(apps))
    elif not apps:
        say("Nothing is deployed. To begin: slipway plan app.py")
    else:
        head = ("APP", "SERIAL", "RUNTIME", "FUNCTIONS", "WORKERS", "RUNNING", "QUEUED", "SINCE")
        lines = table(head, [_row(entry) for entry in apps])
        show([*lines, *((line,) for entry in apps for line in trouble_lines(entry))])


def _row(entry: dict[str, Any]) -> tuple[str, ...]:
    functions = entry.get("functions", ())
    since = time.strftime("%Y-%m-%d %H:%M", time.localtime(entry.get("created_ms", 0) / 1000))
    number = functions if isinstance(functions, int) else len(functions)
    state = entry.get("state", "")
    serves = state if state.startswith("broken") else str(number)
    counts = (str(entry.get(what, "")) for what in ("workers", "running", "queued"))
    return (entry["app"], str(entry["serial"]), entry.get("runtime", ""), serves, *counts, since)


def trouble_lines(entry: dict[str, Any]) -> list[str]:
    """The functions of an app that want workers and whose last ones could not be started or died at once, and those
    that can't have the memory snapshot that they ask for."""
    said = {"troubles": "its workers fail", "plain": "no memory snapshot"}
    return [
        line
        for key, what in said.items()
        for function, reason in entry.get(key, {}).items()
        for line in f"{entry['app']}.{function}: {what}: {reason}".splitlines()
    ]


@app.command("logs")
@click.argument("name", metavar="APP")
@tail_options("the app ends or Ctrl-C")
@click.option("--function", metavar="NAME", help="Only of this function, class or Class.method.")
@click.option("--call", metavar="ID", help="Only of this call, fc-…, or of this one of its inputs, in-….")
@click.option("--worker", metavar="NAME", help="Only of this worker, as `slipway container list` names it.")
def logs(
    name: str,
    function: str | None,
    call: str | None,
    worker: str | None,
    timestamps: bool,
    as_json: bool,
    **which: Any,
) -> int:
    """Show what the workers of APP printed, and what the engine has to say of them.

    Each line has its function before it, and its worker where several have spoken; where a program reads, always both.

    \b
    Examples:
      slipway app logs search -n 20
      slipway app logs search --follow --source stderr
      slipway app logs search --since 2h --function index --search Error
    """
    said = {"app": name, "function": function, "call": call, "worker": worker}
    params = {key: value for key, value in said.items() if value is not None} | wanted(**which)
    with connect() as link:
        return print_lines(link, "app.logs", params, timestamps=timestamps, as_json=as_json)
