"""`slipway app list` and `slipway app logs`."""

from __future__ import annotations

import json
import time
from typing import Any

import click

from .output import OUTPUT, Line, say, show
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
    """List the apps that are in force in this home.

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
        lines = table(("APP", "SERIAL", "RUNTIME", "FUNCTIONS", "SINCE"), [_row(entry) for entry in apps])
        show([*lines, *((line,) for entry in apps for line in trouble_lines(entry))])


def _row(entry: dict[str, Any]) -> tuple[str, ...]:
    functions = entry.get("functions", ())
    since = time.strftime("%Y-%m-%d %H:%M", time.localtime(entry.get("created_ms", 0) / 1000))
    number = functions if isinstance(functions, int) else len(functions)
    state = entry.get("state", "")
    serves = state if state.startswith("broken") else str(number)
    return (entry["app"], str(entry["serial"]), entry.get("runtime", ""), serves, since)


def trouble_lines(entry: dict[str, Any]) -> list[str]:
    """The functions of an app that should always have workers and whose last one could not be started."""
    return [
        line
        for function, reason in entry.get("troubles", {}).items()
        for line in f"{entry['app']}.{function}: its last worker could not be started: {reason}".splitlines()
    ]


def table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> list[Line]:
    """Rows in columns under a head.

    >>> for line in table(("A", "LONG"), [("x", "1"), ("yyy", "22")]):
    ...     print(line[0] if isinstance(line[0], str) else line[0][0])
    A    LONG
    x    1
    yyy  22
    """
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]
    lined = [
        "  ".join(cell.ljust(size) for cell, size in zip(row, widths, strict=True)).rstrip() for row in (head, *rows)
    ]
    return [((lined[0], "bold"),), *((line,) for line in lined[1:])]


@app.command("logs")
@click.argument("name", metavar="APP")
@click.option("-n", "--tail", default=100, show_default=True, help="How many lines of the past.")
@click.option("-f", "--follow", is_flag=True, help="Go on with what comes, until Ctrl-C.")
@click.option("--timestamps", is_flag=True, help="Show when each line was printed.")
@json_option
def logs(name: str, tail: int, follow: bool, timestamps: bool, as_json: bool) -> None:
    """Show what the workers of APP printed.

    \b
    Examples:
      slipway app logs search -n 20
      slipway app logs search --follow
    """

    def print_one(line: dict[str, Any]) -> None:
        if as_json:
            click.echo(json.dumps(line))
        else:
            show([_log_line(line, timestamps)])

    with connect() as link:
        for line in link.request("app.logs", {"app": name, "tail": tail})["lines"]:
            print_one(line)
        if follow:
            link.request("logs.follow", {"app": name}, on_event=print_one)


def _log_line(line: dict[str, Any], timestamps: bool) -> Line:
    at = line.get("at_ms", 0)
    stamp = f"{time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(at / 1000))}.{at % 1000:03d} " if timestamps else ""
    return ((f"{stamp}{line.get('function', '')} | ", "dim"), (line.get("text", ""), OUTPUT))
