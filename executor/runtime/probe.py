"""What works on this machine, what doesn't and what to do: the checks behind `slipway doctor`. Blocks; starts nothing
of the engine's, so it may run beside one."""

from __future__ import annotations

import asyncio
import hashlib
import os
import platform
import re
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from enum import Enum
from pathlib import Path

from attrs import frozen

from slipway.dsl.errors import Error
from slipway.executor.ports import ContainerSpec

from . import cgroups, gpus
from .native import NativeRuntime
from .pythons import Pythons

OLDEST_KERNEL = (5, 12)  # overlays without root, and mounts made read-only as a whole
LITTLE_SPACE = 2 << 30
DOCKER_SECONDS = 3.0
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


def probe(home: Path) -> Iterator[Check]:
    """Look at everything, in the order in which a user needs it; each check is made when it is asked for."""
    there = next(folder for folder in (home, *home.parents) if folder.exists())  # a home is not made by looking
    yield check_kernel(platform.release())
    yield from check_containers(there)
    yield check_cgroups(home)
    yield check_pythons()
    yield check_uv()
    yield check_disk(there)
    yield check_docker()
    yield check_gpus(gpus.find())


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


def check_docker(environment: Mapping[str, str] | None = None) -> Check:
    """A plain ping of the engine's socket. (Docker is needed for `--runtime docker` only.)"""
    sockets = tuple(_docker_sockets(os.environ if environment is None else environment))
    tried = []
    for path in sockets:
        answer = _ping(path)
        if answer == "":
            return Check(name="docker", verdict=Verdict.OK, found=f"answers on {path}")
        tried.append(f"{path}: {answer}")
    return Check(
        name="docker",
        verdict=Verdict.WARN,
        found="; ".join(tried) or "DOCKER_HOST names no unix socket",
        hint="Needed for `--runtime docker` only: start Docker, join its group, or set DOCKER_HOST=unix:///path.",
    )


def _docker_sockets(environment: Mapping[str, str]) -> Iterator[str]:
    host = environment.get("DOCKER_HOST", "")
    if host:
        if host.startswith("unix://"):
            yield host.removeprefix("unix://")
        return
    yield "/var/run/docker.sock"
    runtime = environment.get("XDG_RUNTIME_DIR", "")
    if runtime:
        yield f"{runtime}/docker.sock"
        yield f"{runtime}/podman/podman.sock"


def _ping(path: str) -> str:
    """ "" where an engine answers, else why not."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(DOCKER_SECONDS)
            connection.connect(path)
            connection.sendall(b"GET /_ping HTTP/1.0\r\nHost: docker\r\n\r\n")
            status = connection.recv(4096).split(b"\r\n")[0]
    except TimeoutError:
        return f"no answer within {DOCKER_SECONDS:g} s"
    except OSError as error:
        return (error.strerror or str(error)).lower()
    return "" if b" 200 " in status else f"answered {status.decode(errors='replace')!r}"


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
