"""`slipway doctor`: what works on this machine, what doesn't, what to do."""

from __future__ import annotations

import asyncio
import json
import os
import platform
import shutil
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click
from attrs import asdict, frozen

from slipway.dsl.errors import Error

from .output import Line, say, show
from .source import json_option

if TYPE_CHECKING:
    from slipway.executor.ports import Ability

LEAST_FREE_GIB = 5
WORDS = {"good": "ok", "warning": "limited", "error": "no"}


@frozen(kw_only=True)
class Finding:
    """One thing that was looked at. `state`: "good", "warning" (something is limited) or "error" (nothing runs)."""

    what: str
    state: str
    found: str
    do: str = ""


@click.command()
@json_option
def doctor(as_json: bool) -> int:
    """See what works on this machine, what doesn't, and what to do about it. Ends with 1 when nothing can run here.

    It makes one throw-away container in the home to find out; it starts no engine and changes nothing.

    \b
    Examples:
      slipway doctor
      slipway doctor --json
    """
    findings = []
    for finding in examine():
        findings.append(finding)
        if not as_json:
            show(_lines(finding))
    fatal = any(finding.state == "error" for finding in findings)
    if as_json:
        click.echo(json.dumps([asdict(finding) for finding in findings]))
    else:
        say("")
        say(
            "Slipway can't run here yet: see above." if fatal else "Slipway can run here.", "error" if fatal else "good"
        )
    return 1 if fatal else 0


def _lines(finding: Finding) -> list[Line]:
    word = WORDS[finding.state].ljust(8)
    lines: list[Line] = [((word, finding.state), f"{finding.what:<12} ", finding.found)]
    return lines + [(f"{' ' * 21} {line}",) for line in finding.do.splitlines()]


def examine() -> Iterator[Finding]:
    """Every finding, in the order in which they are shown."""
    checks: tuple[Callable[[], Iterator[Finding]], ...] = (
        _system,
        _python,
        _home,
        _native,
        _packages,
        _docker,
        _gpus,
        _engine,
    )
    for check in checks:
        yield from check()


# --- the machine --------------------------------------------------------------------------------------


def _system() -> Iterator[Finding]:
    kernel = f"Linux {platform.release()}, {platform.machine()}"
    if sys.platform != "linux":
        do = "The native runtime needs Linux. A virtual machine with Linux will do."
        yield Finding(what="system", state="error", found=platform.platform(), do=do)
        return
    from slipway.executor.runtime.pythons import system

    who = "root" if os.geteuid() == 0 else f"user {os.geteuid()}, without root"
    yield Finding(what="system", state="good", found=f"{system().title}, {kernel}, as {who}")


def _python() -> Iterator[Finding]:
    from slipway.executor.runtime.pythons import Pythons

    newest: dict[str, str] = {}
    for found in Pythons().all():
        newest.setdefault(found.minor, f"{found.version} ({found.executable})")
    ours = ".".join(map(str, sys.version_info[:3]))
    others = ", ".join(text for minor, text in sorted(newest.items()) if minor != ours.rpartition(".")[0])
    found_text = f"{ours} ({sys.executable})" + (f"; images can also have {others}" if others else "")
    yield Finding(what="python", state="good", found=found_text)


def _home() -> Iterator[Finding]:
    from slipway.engine_client import home_path

    home = home_path()
    there = next(folder for folder in (home, *home.parents) if folder.exists())
    if not os.access(there, os.W_OK):
        do = "Set SLIPWAY_HOME to a folder of your own on a local disk."
        yield Finding(what="home", state="error", found=f"{home} cannot be written to", do=do)
        return
    free = shutil.disk_usage(there).free / 2**30
    state = "good" if free >= LEAST_FREE_GIB else "warning"
    do = "" if state == "good" else "Images need room. Free some, or set SLIPWAY_HOME to a bigger disk."
    yield Finding(what="home", state=state, found=f"{home}, {free:.0f} GiB free", do=do)


# --- making containers --------------------------------------------------------------------------------


def _native() -> Iterator[Finding]:
    """Namespaces, overlays and limits, by making one container as the engine would."""
    from slipway.engine_client import home_path
    from slipway.executor.ports import Ability

    home = home_path()
    there = next(folder for folder in (home, *home.parents) if folder.exists())
    if sys.platform != "linux" or not os.access(there, os.W_OK):
        return
    with tempfile.TemporaryDirectory(prefix=".doctor-", dir=there) as folder:
        try:
            ability = asyncio.run(_try_out(Path(folder)))
        except Error as error:
            ability = Ability(refusals=(("debian_slim", f"{error.message}. {error.hint}"),))
    refusals, notes = dict(ability.refusals), dict(ability.notes)
    broken = refusals.get("debian_slim")
    if broken:
        yield Finding(what="containers", state="error", found="the native runtime can't make one", do=broken)
        return
    yield Finding(what="containers", state="good", found="native: namespaces and overlays work (tried one)")
    if "apt_install" in refusals:
        yield Finding(what="apt_install", state="warning", found="not on this machine", do=refusals["apt_install"])
    for limit in ("memory", "cpu"):
        if limit in notes:
            yield Finding(what=f"{limit} limits", state="warning", found="not enforced", do=notes[limit])
        else:
            yield Finding(what=f"{limit} limits", state="good", found="enforced with cgroups")


async def _try_out(folder: Path) -> Ability:
    from slipway.executor.runtime.native import NativeRuntime

    runtime = NativeRuntime(folder)
    await runtime.start()
    try:
        return await runtime.ability()
    finally:
        await runtime.close()


def _packages() -> Iterator[Finding]:
    try:
        from uv import find_uv_bin

        yield Finding(what="uv", state="good", found=find_uv_bin())
    except (ImportError, FileNotFoundError) as error:
        do = f"Install Slipway anew: {sys.executable} -m pip install --force-reinstall uv"
        yield Finding(what="uv", state="error", found=f"not found: {error}", do=do)


# --- what not everybody needs -------------------------------------------------------------------------


def _docker() -> Iterator[Finding]:
    address = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")
    why_bother = "Needed only for --runtime docker."
    if not address.startswith("unix://"):
        yield Finding(what="docker", state="good", found=f"DOCKER_HOST is {address} (not tried)")
        return
    path = address.removeprefix("unix://")
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            sock.settimeout(3)
            sock.connect(path)
            sock.sendall(b"GET /_ping HTTP/1.0\r\nHost: docker\r\n\r\n")
            answer = sock.recv(64)
    except OSError as error:
        reason = error.strerror or str(error)
        yield Finding(what="docker", state="warning", found=f"no Docker Engine at {path}: {reason}", do=why_bother)
        return
    if b" 200 " in answer:
        yield Finding(what="docker", state="good", found=f"an engine answers at {path}")
    else:
        yield Finding(what="docker", state="warning", found=f"{path} answers, but not as Docker does", do=why_bother)


def _gpus() -> Iterator[Finding]:
    from slipway.executor.runtime.gpus import find

    found = find()
    if found.gpus:
        listed = ", ".join(f"{gpu.name} ({gpu.memory_mib / 1024:.0f} GiB)" for gpu in found.gpus)
        yield Finding(what="gpu", state="good", found=listed)
    else:
        yield Finding(what="gpu", state="warning", found=found.reason or "none", do="Needed only for gpu=.")


def _engine() -> Iterator[Finding]:
    from slipway.engine_client import home_path
    from slipway.executor.home import holder

    pid = holder(home_path() / "engine.lock")
    found = f"runs, pid {pid}" if pid is not None else "doesn't run; the next plan, apply or run starts it"
    yield Finding(what="engine", state="good", found=found)
