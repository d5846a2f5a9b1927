"""`slipway doctor`: what works on this machine, what doesn't, what to do."""

from __future__ import annotations

import json
import platform
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from .output import Line, say, show
from .source import json_option

if TYPE_CHECKING:
    from slipway.executor.runtime.probe import Check

SIGNS = {"ok": ("ok", "good"), "warn": ("limited", "warning"), "fail": ("no", "error")}  # by verdict: word, style


@click.command()
@json_option
def doctor(as_json: bool) -> int:
    """See what works on this machine, what doesn't, and what to do about it. Ends with 1 when nothing can run here.

    It makes one throw-away container to find out; it starts no engine and changes nothing.

    \b
    Examples:
      slipway doctor
      slipway doctor --json
    """
    if sys.platform != "linux":
        say(f"Slipway needs Linux, and this is {platform.system()}. A virtual machine with Linux will do.", "error")
        return 1
    checks = []
    for check in _checks():
        checks.append(check)
        if not as_json:
            show(_lines(check))
    fatal = any(check.verdict.value == "fail" for check in checks)
    if as_json:
        plain = [{"name": c.name, "verdict": c.verdict.value, "found": c.found, "hint": c.hint} for c in checks]
        click.echo(json.dumps(plain))
    else:
        say("")
        say(
            "Slipway can't run here yet: see above." if fatal else "Slipway can run here.", "error" if fatal else "good"
        )
    return 1 if fatal else 0


def _lines(check: Check) -> list[Line]:
    word, style = SIGNS[check.verdict.value]
    lines: list[Line] = [((word.ljust(8), style), f"{check.name:<14} ", check.found)]
    hint = check.hint if style != "good" else ""
    return lines + [(f"{' ' * 23}{line}",) for line in hint.splitlines()]


def _checks() -> Iterator[Check]:
    """Of the machine, then of this home's settings and engine."""
    from slipway.dsl.errors import DeclarationError
    from slipway.engine_client import home_path
    from slipway.executor.config_file import ConfigFile
    from slipway.executor.home import Home, holder
    from slipway.executor.runtime.probe import Check, Verdict, probe

    home = Home(home_path())
    settings = ConfigFile(home.config)
    yield from probe(home.path, settings.current().docker)
    try:
        settings.read()
    except DeclarationError as error:
        wrong = f"{len(error.faults)} fault{'s' if len(error.faults) > 1 else ''} in {home.config}"
        yield Check(name="settings", verdict=Verdict.FAIL, found=wrong, hint="See them: slipway config")
    pid = holder(home.lock)
    found = f"runs for {home.path}, pid {pid}" if pid is not None else f"doesn't run for {home.path}; a plan starts it"
    yield Check(name="engine", verdict=Verdict.OK, found=found)
