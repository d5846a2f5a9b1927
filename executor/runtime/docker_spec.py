"""What Docker Engine is asked for a container. Nothing here waits, sleeps, opens or spawns."""

from __future__ import annotations

from typing import Any

from slipway.dsl.errors import RuntimeUnavailable
from slipway.executor.config import DockerSettings
from slipway.executor.ports import ContainerSpec, Limits, Mount

from .docker import LABEL_HOME, LABEL_NAME, OURS, Facts

SMALLEST_MIB = 6  # of memory, that an engine takes
SMALLEST_CPU = 10  # thousandths of a CPU
SMALLEST_SHARES = 2
SHARES = 1024  # of a whole CPU


def container_name(home: str, name: str) -> str:
    return f"slipway-{home}-{name}"


def body(
    spec: ContainerSpec,
    *,
    home: str,
    image: str,
    command: list[str],
    settings: DockerSettings,
    facts: Facts,
    disk: bool,
) -> dict[str, Any]:
    """The request to create it. `command` is its first process; `disk`: whether this engine limits what is written."""
    shared = facts.memory_mib // 2 if settings.shm_mib is None else settings.shm_mib
    host = {
        "NetworkMode": network(spec, settings, facts),
        "Init": True,
        "Mounts": [_mount(mount) for mount in spec.mounts],
        "ShmSize": max(shared, 1) << 20,
        "LogConfig": {"Type": "none", "Config": {}},  # what programs say may be private; it is kept by us, masked
        **_limits(spec.limits, facts, disk=disk),
    }
    if settings.oci_runtime is not None:
        host["Runtime"] = settings.oci_runtime
    if spec.gpus:
        request = {"Driver": "nvidia", "DeviceIDs": list(spec.gpus), "Capabilities": [["gpu"]]}
        host["DeviceRequests"] = [request]
    asked: dict[str, Any] = {
        "Image": image,
        "Entrypoint": command,  # all of it: a Cmd of ours would be in the history of what is committed, and its config
        "Cmd": [],
        # A commit would keep those of a build; of others than single ones each process gets them.
        "Env": [f"{name}={value}" for name, value in spec.env] if spec.single else [],
        "Labels": {**_labels(spec.labels), LABEL_HOME: home, LABEL_NAME: spec.name},
        "OpenStdin": True,
        "StdinOnce": spec.single,  # its stdin ends when we say so; a keeper's ends with the engine
        "Healthcheck": {"Test": ["NONE"]},
        "HostConfig": host,
    }
    if spec.workdir is not None:
        asked["WorkingDir"] = spec.workdir
    user = settings.user if spec.single else "0"
    if user is not None:
        asked["User"] = user
    return asked


def network(spec: ContainerSpec, settings: DockerSettings, facts: Facts) -> str:
    """Builds reach what this machine reaches: its indexes and proxies may listen on the loopback interface."""
    if not spec.network:
        return "none"
    if spec.privileged_build:
        return "host"
    return settings.network or ("bridge" if "bridge" in facts.networks else "host")


def check(settings: DockerSettings, facts: Facts) -> None:
    """Raises `RuntimeUnavailable` where the engine lacks what the settings name."""
    runtime, network = settings.oci_runtime, settings.network
    if runtime is not None and facts.oci_runtimes and runtime not in facts.oci_runtimes:
        raise RuntimeUnavailable(
            f"{facts.name} at {facts.address} has no OCI runtime {runtime!r}; it has {', '.join(facts.oci_runtimes)}",
            hint="Install it and name it in the engine's daemon.json (then `systemctl restart docker`), or change "
            "`oci_runtime` in config.toml.",
        )
    if network is not None and network not in facts.networks and not network.startswith("container:"):
        raise RuntimeUnavailable(
            f"{facts.name} at {facts.address} has no network {network!r}; it has {', '.join(facts.networks)}",
            hint=f"Make it (`docker network create {network}`), or change `network` in config.toml.",
        )


def no_disk_limit(facts: Facts) -> str:
    """Why this engine surely limits no disk space; "" where it may.

    Docker takes a size for overlay only on XFS with project quotas; other drivers have sizes of their own.
    """
    if facts.storage == "overlay2" and facts.storage_below != "xfs":
        return f"storage driver overlay2 limits it only on XFS mounted with pquota, and this is {facts.storage_below}"
    if facts.storage in ("vfs", "overlayfs", "fuse-overlayfs", "aufs"):
        return f"storage driver {facts.storage} has no limits"
    return ""


def _mount(mount: Mount) -> dict[str, Any]:
    return {"Type": "bind", "Source": mount.source, "Target": mount.target, "ReadOnly": mount.read_only}


def _labels(labels: tuple[tuple[str, str], ...]) -> dict[str, str]:
    return {name if name.startswith(OURS) else f"{OURS}{name}": value for name, value in labels}


def _limits(limits: Limits, facts: Facts, *, disk: bool) -> dict[str, Any]:
    asked: dict[str, Any] = {}
    if limits.cpu_milli is not None and facts.cpu_limits:
        # More than there is, is refused.
        asked["NanoCpus"] = min(max(limits.cpu_milli, SMALLEST_CPU), facts.cpus * 1000) * 1_000_000
    if limits.cpu_request_milli is not None:
        asked["CpuShares"] = max(limits.cpu_request_milli * SHARES // 1000, SMALLEST_SHARES)
    memory = None
    if limits.memory_mib is not None and facts.memory_limits:
        memory = max(limits.memory_mib, SMALLEST_MIB) << 20
        asked |= {"Memory": memory, "MemorySwap": memory}
    if limits.memory_request_mib is not None and facts.memory_limits:
        request = max(limits.memory_request_mib, SMALLEST_MIB) << 20
        asked["MemoryReservation"] = request if memory is None else min(request, memory)
    if limits.disk_mib is not None and disk:
        asked["StorageOpt"] = {"size": f"{limits.disk_mib}M"}
    return asked
