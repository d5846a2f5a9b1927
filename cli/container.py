"""`slipway container list`, `exec`, `logs` and `stop`."""

from __future__ import annotations

import json
import time
from typing import Any

import click

from .log_lines import print_lines, tail_options, wanted
from .output import say, show, table
from .source import connect, json_option
from .terminal import attend, pty_option


@click.group()
def container() -> None:
    """See the containers that run, look into one, end one.

    \b
    Examples:
      slipway container list
      slipway container exec w1-4711 ps aux
    """


@container.command("list")
@json_option
def list_containers(as_json: bool) -> None:
    """List the workers and the shells that are there.

    \b
    Example:
      slipway container list --json
    """
    with connect() as link:
        found: list[dict[str, Any]] = link.request("container.list", {})["containers"]
    if as_json:
        click.echo(json.dumps(found))
    elif not found:
        say("No container runs. A call starts one: slipway call, slipway run.")
    else:
        head = ("CONTAINER", "APP", "FUNCTION", "RUNTIME", "SINCE", "STATE", "CALLS", "SERIAL", "MEMORY")
        show(table(head, [_row(entry) for entry in found]))


def _row(entry: dict[str, Any]) -> tuple[str, ...]:
    since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(entry["since_ms"] / 1000))
    serial = entry.get("serial")
    calls = str(entry["calls"]) if entry["kind"] == "worker" else ""
    state = entry["state"] if entry["kind"] == "worker" else f"{entry['kind']}, {entry['state']}"
    serial = "old" if serial is None else "" if serial == 0 else str(serial)
    return (
        entry["id"],
        entry["app"],
        entry["function"],
        entry["runtime"],
        since,
        state,
        calls,
        serial,
        memory(entry.get("memory_bytes"), entry.get("memory_limit_mib")),
    )


def memory(taken: int | None, limit_mib: int | None) -> str:
    """
    >>> memory(123_456_789, 512), memory(1 << 20, None), memory(None, 512)
    ('118 of 512 MiB', '1 MiB', '')
    """
    if taken is None:
        return ""
    return f"{round(taken / (1 << 20))}{f' of {limit_mib}' if limit_mib else ''} MiB"


@container.command("exec", context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@pty_option
@click.argument("ident", metavar="CONTAINER")
@click.argument("words", metavar="COMMAND...", nargs=-1, type=click.UNPROCESSED, required=True)
def exec_in(ident: str, words: tuple[str, ...], pty: bool | None) -> int:
    """Run COMMAND in CONTAINER, with the settings, secrets and folder that its function has. Ends with its exit code.

    \b
    Examples:
      slipway container exec w1-4711 bash
      echo 'print(1)' | slipway container exec w1-4711 python -
    """
    argv = list(words[1:] if words[0] == "--" else words)  # options end here, for whoever is used to saying so
    with connect() as link:
        return attend(link, "container.exec", {"id": ident, "argv": argv}, pty=pty)


@container.command("logs")
@click.argument("ident", metavar="CONTAINER")
@tail_options("the container ends or Ctrl-C")
def logs(ident: str, timestamps: bool, as_json: bool, **which: Any) -> int:
    """Show what the worker CONTAINER printed, also when it has ended.

    \b
    Examples:
      slipway container logs w1-4711 -n 20
      slipway container logs w1-4711 --follow
    """
    with connect() as link:
        params = {"id": ident} | wanted(**which)
        return print_lines(link, "container.logs", params, timestamps=timestamps, as_json=as_json, alone=True)


@container.command("stop")
@click.argument("ident", metavar="CONTAINER")
@click.option("--graceful", is_flag=True, help="Let it first finish the calls that it runs; it gets no more.")
def stop(ident: str, graceful: bool) -> None:
    """End CONTAINER. The calls that it runs are run again by others, and so are those that wait for it.

    \b
    Examples:
      slipway container stop w1-4711
      slipway container stop w1-4711 --graceful
    """
    with connect() as link:
        link.request("container.stop", {"id": ident, "graceful": graceful})
    say(f"{ident} has ended.")
