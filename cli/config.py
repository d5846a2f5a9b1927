"""`slipway config`: the settings that are in force, and who said each."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from .output import Line, nearby, show
from .source import json_option

if TYPE_CHECKING:
    from slipway.executor.config import Reading

Row = tuple[str, str, str]  # a setting, its value, who said so

DEFAULT = "default"
# What counts where nothing is said, by setting.
DEFAULTS = {
    "docker.network": "the engine's bridge, or host where it has none",
    "docker.oci_runtime": "the engine's own",
    "docker.user": "the image's own",
    "docker.shm_size": "half of this machine's memory",
    "gc.keep": "nothing that nobody needs",
    "logs.budget": "1024 MiB",
    "logs.app": "64 MiB",
    "calls.keep_results": "7 days",
}
# Where settings are called otherwise in the file than within.
FIELDS = {"shm_size": "shm_mib", "budget": "budget_mib", "app": "app_mib"}


@click.command()
@json_option
def config(as_json: bool) -> None:
    """Show the settings that are in force here, and who said each: config.toml, the environment, or nobody.

    The file is `config.toml` in the home. It need not be there, and a change counts at once. What can stand in it:
    docs/guide/configuration.md.

    \b
    Examples:
      slipway config
      slipway config --json
    """
    from slipway.engine_client import home_path
    from slipway.executor.config_file import ConfigFile
    from slipway.executor.home import Home

    home = Home(home_path())
    reading = ConfigFile(home.config).read()
    there = home.config.exists()
    rows = [("home", str(home.path), "SLIPWAY_HOME" if os.environ.get("SLIPWAY_HOME") else DEFAULT), *_rows(reading)]
    if as_json:
        settings = [{"name": name, "value": value, "origin": origin} for name, value, origin in rows]
        click.echo(json.dumps({"file": str(home.config), "there": there, "settings": settings}))
        return
    show(_lines(rows))
    if not there:
        show([((f"There is no {home.config} yet.", "dim"),)])


def _lines(rows: list[Row]) -> Iterator[Line]:
    width = max(len(name) for name, _, _ in rows)
    middle = max(len(value) for _, value, _ in rows)
    for name, value, origin in rows:
        yield (f"{name:<{width}}  ", f"{value:<{middle}}  ", (nearby(origin), "dim"))


def _rows(reading: Reading) -> Iterator[Row]:
    config = reading.config
    if os.environ.get("SLIPWAY_RUNTIME"):
        yield "runtime", os.environ["SLIPWAY_RUNTIME"], "SLIPWAY_RUNTIME"
    elif config.runtime is not None:
        yield "runtime", config.runtime, reading.place("runtime")
    else:
        yield "runtime", "as deployed, else native where it can serve the app, else docker", DEFAULT
    yield _engine(reading)
    for setting, unsaid in DEFAULTS.items():
        table, _, name = setting.partition(".")
        yield _row(reading, (table, name), _value(reading, table, name)) or (setting, unsaid, DEFAULT)
    for base, image in config.docker.bases:
        yield f"docker.bases.{base}", image, reading.place("docker", "bases", base)
    for app, said in config.apps:
        for name in ("runtime", "network", "oci_runtime", "user", "shm_size"):
            row = _row(reading, ("apps", app, name), getattr(said, FIELDS.get(name, name)))
            if row is not None:
                yield row


def _value(reading: Reading, table: str, name: str) -> str | int | None:
    """What is set in the file; None where nothing is."""
    config = reading.config
    if table == "gc":
        return config.keep_mib
    if table == "calls":
        return f"{config.keep_results_days} days" if (table, name) in reading.lines else None
    found: str | int | None = getattr(config.logs if table == "logs" else config.docker, FIELDS.get(name, name))
    return found if (table, name) in reading.lines else None


def _row(reading: Reading, keys: tuple[str, ...], value: str | int | None) -> Row | None:
    if value is None:
        return None
    return ".".join(keys), f"{value} MiB" if isinstance(value, int) else value, reading.place(*keys)


def _engine(reading: Reading) -> Row:
    """Where Docker Engine would be looked for from here; whether one is there is the doctor's to say."""
    from slipway.dsl.errors import RuntimeUnavailable
    from slipway.executor.runtime.docker_host import resolve

    try:
        address = resolve(reading.config.docker, os.environ)
    except RuntimeUnavailable as error:
        return "docker.host", error.message.removeprefix("docker: "), "of no use"
    said = "host" if reading.config.docker.host else "context"
    origin = reading.place("docker", said) if address.origin.endswith("config.toml") else address.origin
    return "docker.host", address.url, origin
