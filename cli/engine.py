"""`slipway up`, `slipway down` and `slipway status`."""

from __future__ import annotations

import json
import time
from typing import Any

import click

from slipway.dsl.errors import Error, RuntimeUnavailable

from .app import trouble_lines
from .output import count, duration, say, show
from .source import json_option


@click.command()
def up() -> None:
    """Run the engine of this home in the foreground, until Ctrl-C or `slipway down`.

    No command needs it: each starts an engine in the background where none runs, and that one ends itself when it is
    idle. `up` is for a service manager, which wants a process that stays.

    \b
    Example:
      SLIPWAY_HOME=/srv/slipway slipway up
    """
    from slipway.engine_client import home_path
    from slipway.executor.home import Home, holder

    from .daemon import run

    home = Home(home_path())
    pid = holder(home.lock)
    if pid is not None:
        raise Error(f"an engine runs for {home.path} already: pid {pid}", hint="End it with: slipway down")
    run(home, idle_ms=None)


@click.command()
@click.option("--now", is_flag=True, help="Don't wait for calls that are under way.")
def down(now: bool) -> None:
    """End the engine of this home, after the calls that are under way. What is deployed is there again when it starts.

    Calls that were spawned and have not begun wait for the next engine. Ctrl-C while it waits lets this one go on.

    \b
    Example:
      slipway down
    """
    from slipway import engine_client

    try:
        link = engine_client.connect(start=False)
    except RuntimeUnavailable:
        say(f"No engine runs for {engine_client.home_path()}.")
        return
    with link:
        running = sum(entry.get("running", 0) for entry in link.request("status", {}).get("apps", ()))
        try:
            if running and not now:
                say(f"Waiting for {count(running, 'call')} to end. Not to wait: slipway down --now")
            engine_client.stop(link, drain=not now)
        except KeyboardInterrupt:
            raise KeyboardInterrupt("interrupted; the engine goes on") from None
    say("The engine has ended.")


@click.command()
@json_option
def status(as_json: bool) -> int:
    """Show the engine of this home: whether it runs, since when, what it does. Ends with 1 when none runs.

    \b
    Example:
      slipway status --json
    """
    from slipway import engine_client

    home = engine_client.home_path()
    try:
        link = engine_client.connect(start=False)
    except RuntimeUnavailable:
        if as_json:
            click.echo(json.dumps({"running": False, "home": str(home)}))
        else:
            say(f"No engine runs for {home}. The next plan, apply or run starts one.")
        return 1
    with link:
        reply = link.request("status", {})
    if as_json:
        click.echo(json.dumps({"running": True, "home": str(home), **reply}))
    else:
        show((line,) for line in _status_lines(str(home), reply))
    return 0


def _status_lines(home: str, reply: dict[str, Any]) -> list[str]:
    running_ms = round(time.time() * 1000) - reply["started_ms"] if "started_ms" in reply else None
    since = f", for {duration(running_ms)}" if running_ms is not None else ""
    lines = [f"engine {reply.get('version', '')}, pid {reply['pid']}{since}", f"home {home}"]
    troubles = {entry["name"]: entry["trouble"] for entry in reply.get("runtimes", ())}
    lines += [f"runtime {name}: {trouble or 'ready'}" for name, trouble in troubles.items()]
    if reply.get("settings"):
        lines.append(f"settings of before, since those of now are wrong: {reply['settings']}")
    for entry in reply.get("apps", ()):
        where = f" on {entry['runtime']}" if entry.get("runtime") else ""
        where += ", which is in trouble" if troubles.get(entry.get("runtime", "")) else ""
        calls = [f"{entry.get(what, 0)} {what}" for what in ("running", "queued")]
        counts = [count(entry.get("workers", 0), "worker"), *calls]
        lines.append(f"app {entry['app']}, {entry.get('state', 'deployed')}{where}: {', '.join(counts)}")
        lines += [f"  {line}" for line in trouble_lines(entry)]
    lines.append(f"busy: {reply['busy']}" if reply.get("busy") else "idle")
    return lines
