"""What works on this machine, what doesn't and what to do: the checks behind `slipway doctor`. Blocks; starts nothing
of the engine's, so it may run beside one."""

from __future__ import annotations

import asyncio
import hashlib
import os
import platform
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from enum import Enum
from pathlib import Path

from attrs import frozen

from slipway.dsl.errors import Error
from slipway.executor.config import DockerSettings
from slipway.executor.ports import ContainerSpec

from . import cgroups, docker, docker_host, gpus
from .native import NativeRuntime
from .pythons import Pythons

OLDEST_KERNEL = (5, 12)  # overlays without root, and mounts made read-only as a whole
LITTLE_SPACE = 2 << 30
DOCKER_SECONDS = 5.0
SLOW_STORAGE = ("vfs", "devicemapper", "aufs")
UV_SECONDS = 10.0


class Verdict(Enum):
    OK = "ok"
    WARN = "warn"  # something that not everyone needs
    FAIL = "fail"  # nothing runs on the native runtime without it


@frozen(kw_only=True)
class Check:
    """One line of the doctor's: what was looked at, how it is, what was found, what to do about it."""

    name: str
    verdict: Verdict
    found: str
    hint: str = ""


def probe(home: Path, settings: DockerSettings) -> Iterator[Check]:
    """Look at everything, in the order in which a user needs it; each check is made when it is asked for."""
    there = next(folder for folder in (home, *home.parents) if folder.exists())  # a home is not made by looking
    yield check_kernel(platform.release())
    yield from check_containers(there)
    yield check_cgroups(home)
    yield check_pythons()
    yield check_uv()
    yield check_disk(there)
    found = gpus.find()
    yield from check_docker(there, settings, gpus_here=bool(found.gpus))
    yield check_gpus(found)


def check_kernel(release: str) -> Check:
    """
    >>> check_kernel("6.1.0-13-amd64").verdict, check_kernel("4.19.0").verdict
    (<Verdict.OK: 'ok'>, <Verdict.FAIL: 'fail'>)
    """
    numbers = tuple(int(number) for number in re.findall(r"\d+", release)[:2])
    if numbers >= OLDEST_KERNEL:
        return Check(name="kernel", verdict=Verdict.OK, found=f"Linux {release}")
    return Check(
        name="kernel",
        verdict=Verdict.FAIL,
        found=f"Linux {release}",
        hint="The native runtime needs Linux 5.12 or newer; or use `--runtime docker`.",
    )


def check_containers(there: Path) -> Iterator[Check]:
    """Make one container in a scratch folder, on the file system that images will lie on."""
    names = ("namespaces", "overlay")
    try:
        with tempfile.TemporaryDirectory(prefix=".doctor-", dir=there) as folder:
            yield from asyncio.run(_try_container(Path(folder) / "home"))
    except (OSError, Error) as error:
        hint = getattr(error, "hint", "") or "Set SLIPWAY_HOME to a folder that you may write."
        for name in names:
            yield Check(name=name, verdict=Verdict.FAIL, found=f"{error}".splitlines()[0], hint=hint)


async def _try_container(home: Path) -> tuple[Check, ...]:
    runtime = NativeRuntime(home)
    await runtime.start()
    try:
        who = "as root" if os.geteuid() == 0 else f"as user {os.geteuid()}, without root"
        try:
            container = await runtime.create(
                ContainerSpec(name="doctor", base=await runtime.resolve("debian_slim", ""), network=False)
            )
        except Error as error:
            if runtime.can_launch:
                return (
                    Check(name="namespaces", verdict=Verdict.OK, found=who),
                    Check(name="overlay", verdict=Verdict.FAIL, found=error.message, hint=_overlay_hint(home)),
                )
            failed = Check(name="namespaces", verdict=Verdict.FAIL, found=error.message, hint=error.hint)
            return failed, Check(name="overlay", verdict=Verdict.FAIL, found="not tried: it needs namespaces")
        how = await (await container.exec(("/bin/true",), cwd="/")).wait()
        await container.kill()
        ran = how.code == 0
        no_apt = dict((await runtime.ability()).refusals).get("apt_install")
        return (
            Check(name="namespaces", verdict=Verdict.OK, found=f"mount, PID, IPC, UTS and network, {who}"),
            Check(
                name="overlay",
                verdict=Verdict.OK if ran else Verdict.FAIL,
                found=f"a container was made in {home.parent.parent}"
                + ("" if ran else f", but /bin/true ended: {how}"),
                hint="" if ran else _overlay_hint(home),
            ),
            Check(
                name="apt_install",
                verdict=Verdict.WARN if no_apt else Verdict.OK,
                found="not on this machine" if no_apt else "as root, it can",
                hint=no_apt or "",
            ),
        )
    finally:
        await runtime.close()


def _overlay_hint(home: Path) -> str:
    return (
        f"Overlays need a local file system such as ext4, xfs or btrfs below {home.parent.parent} (no network disk, no "
        "overlay of an outer container): set SLIPWAY_HOME to one, or use `--runtime docker`."
    )


def check_cgroups(home: Path, proc: Path = Path("/proc")) -> Check:
    found = cgroups.find("doctor-" + hashlib.sha256(str(home).encode()).hexdigest()[:8], proc=proc)
    found.close()
    have = [name for hierarchy in found.hierarchies for name in hierarchy.controllers]
    version = "version 2" if any(hierarchy.unified for hierarchy in found.hierarchies) else "version 1"
    if not found.missing:
        return Check(name="limits", verdict=Verdict.OK, found=f"{', '.join(have)} by control groups {version}")
    reasons = dict.fromkeys(reason for _, reason in found.missing)
    lost = ", ".join(name for name, _ in found.missing)
    return Check(name="limits", verdict=Verdict.WARN, found=f"not enforced: {lost}", hint="; ".join(reasons))


def check_pythons(pythons: Pythons | None = None) -> Check:
    versions: dict[str, str] = {}
    for found in (pythons or Pythons()).all():
        versions.setdefault(found.version, found.executable)
    listed = ", ".join(f"{version} ({path})" for version, path in versions.items())
    return Check(name="python", verdict=Verdict.OK, found=listed, hint="More: `uv python install 3.13`.")


def check_uv() -> Check:
    try:
        from uv import find_uv_bin

        done = subprocess.run(
            [find_uv_bin(), "--version"], capture_output=True, timeout=UV_SECONDS, check=True, text=True
        )
    except (ImportError, OSError, subprocess.SubprocessError) as error:
        hint = "Install it where Slipway is: `pip install uv`."
        return Check(name="uv", verdict=Verdict.FAIL, found=f"does not run: {error}", hint=hint)
    return Check(name="uv", verdict=Verdict.OK, found=done.stdout.strip())


def check_disk(there: Path) -> Check:
    free = shutil.disk_usage(there).free
    found = f"{free / (1 << 30):.1f} GiB free below {there}"
    if free >= LITTLE_SPACE:
        return Check(name="disk", verdict=Verdict.OK, found=found)
    return Check(name="disk", verdict=Verdict.WARN, found=found, hint="Image layers need room: free some.")


def check_docker(there: Path, settings: DockerSettings, *, gpus_here: bool) -> Iterator[Check]:
    """What the engine says of itself. (Docker is needed for `--runtime docker` only.)"""
    try:
        facts = asyncio.run(_ask_docker(there, settings))
    except (Error, OSError, TimeoutError) as error:
        late = f"no answer within {DOCKER_SECONDS:g} s" if isinstance(error, TimeoutError) else ""
        found = late or (error.message if isinstance(error, Error) else str(error))
        more = error.hint if isinstance(error, Error) else "See whether it is well: `docker info`."
        hint = f"Needed for `--runtime docker` only. {more}".strip()
        yield Check(name="docker", verdict=Verdict.WARN, found=found.removeprefix("docker: "), hint=hint)
        return
    yield from docker_checks(facts, gpus_here=gpus_here)


async def _ask_docker(there: Path, settings: DockerSettings) -> docker.Facts:
    connection = docker.Connection(lambda: settings, there)
    try:
        async with asyncio.timeout(DOCKER_SECONDS):
            return await connection.facts()
    finally:
        connection.close()


def docker_checks(facts: docker.Facts, *, gpus_here: bool) -> Iterator[Check]:
    """What is worth saying of an engine that answers."""

    def check(part: str, found: str, advice: str = "") -> Check:
        name = f"docker {part}".strip()
        return Check(name=name, verdict=Verdict.WARN if advice else Verdict.OK, found=found, hint=advice)

    here = f"{facts.name} {facts.version} at {facts.address}"
    if not facts.here:
        yield check("", f"{here}, which does not see this machine's files", docker_host.ELSEWHERE)
        return
    yield check("", here)
    copies = facts.storage in SLOW_STORAGE
    slow = "It copies whole file systems: have the engine use overlay2." if copies else ""
    yield check(
        "storage", f"{facts.storage} {f'on {facts.storage_below}' if facts.storage_below else ''}".strip(), slow
    )
    limits = (("memory", facts.memory_limits), ("cpu", facts.cpu_limits))
    lacks = ", ".join(name for name, there in limits if not there)
    mend = "The engine can't write to its control groups: without root they must be delegated to it." if lacks else ""
    yield check("limits", f"not enforced: {lacks}" if lacks else "memory, cpu", mend)
    bridged = "bridge" in facts.networks
    bare = "" if bridged else "Functions that may use a network get the host's; or say `network` under [docker]."
    yield check("network", "bridge" if bridged else f"no bridge: {', '.join(facts.networks) or 'none'}", bare)
    if "nvidia" in facts.oci_runtimes:
        yield check("gpus", "the engine has the nvidia runtime")
    elif gpus_here:
        toolkit = "Install the NVIDIA Container Toolkit: nvidia-ctk runtime configure --runtime=docker"
        yield check("gpus", "the engine lists no nvidia runtime", toolkit)


def check_gpus(found: gpus.Found) -> Check:
    """
    >>> check_gpus(gpus.Found(reason="NVML Shared Library Not Found")).verdict
    <Verdict.WARN: 'warn'>
    """
    if found.gpus:
        listed = ", ".join(f"{gpu.name} {gpu.memory_mib / 1024:.0f} GiB" for gpu in found.gpus)
        return Check(name="gpus", verdict=Verdict.OK, found=listed)
    reason = found.reason or "the driver lists none"
    hint = "Needed for functions with gpu= only: install the NVIDIA driver and see that `nvidia-smi` works."
    return Check(name="gpus", verdict=Verdict.WARN, found=f"none: {reason}", hint=hint)
