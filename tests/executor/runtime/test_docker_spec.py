"""What Docker Engine is asked for a container: settings, limits, GPUs, networks."""

from __future__ import annotations

from typing import Any

import pytest
from attrs import evolve

from slipway.compiler.facts import BaseFact
from slipway.dsl.errors import RuntimeUnavailable
from slipway.executor.config import DockerSettings
from slipway.executor.ports import ContainerSpec, Limits, Mount
from slipway.executor.runtime import docker_spec
from slipway.executor.runtime.docker import Facts

FACTS = Facts(
    address="unix:///run/docker.sock",
    name="Docker Engine",
    version="20.10.24",
    system="linux/amd64",
    networks=("bridge", "host", "none"),
    oci_runtimes=("runc", "runsc"),
    storage="overlay2",
    storage_below="xfs",
    cpus=4,
    memory_mib=8192,
    memory_limits=True,
    cpu_limits=True,
    podman=False,
    here=True,
)
SPEC = ContainerSpec(name="w-1", base=BaseFact(identity=(), says=""), single=True)
PLAIN = DockerSettings()


def asked(
    spec: ContainerSpec = SPEC, settings: DockerSettings = PLAIN, facts: Facts = FACTS, *, disk: bool = True
) -> dict[str, Any]:
    return docker_spec.body(
        spec, home="abc", image="sha256:1", command=["sh", "-c", "x"], settings=settings, facts=facts, disk=disk
    )


def host(spec: ContainerSpec = SPEC, settings: DockerSettings = PLAIN, facts: Facts = FACTS) -> dict[str, Any]:
    found = asked(spec, settings, facts)["HostConfig"]
    assert isinstance(found, dict)
    return found


def limited(facts: Facts = FACTS, **limits: int) -> dict[str, Any]:
    found = host(evolve(SPEC, limits=Limits(**limits)), facts=facts)
    return {
        name: value
        for name, value in found.items()
        if name in ("NanoCpus", "CpuShares", "Memory", "MemorySwap", "MemoryReservation", "StorageOpt")
    }


def test_a_worker_has_an_init_half_the_memory_as_dev_shm_and_no_log_of_the_engine() -> None:
    found = host()
    assert found["Init"] is True
    assert found["ShmSize"] == 4096 << 20
    assert found["LogConfig"]["Type"] == "none"
    assert "DeviceRequests" not in found
    assert "Runtime" not in found


def test_settings_of_a_worker_are_its_containers_and_those_of_a_build_are_not() -> None:
    plain = evolve(SPEC, env=(("A", "1"),))
    assert asked(plain)["Env"] == ["A=1"]
    assert asked(evolve(plain, single=False))["Env"] == []


def test_everything_has_labels() -> None:
    spec = evolve(SPEC, labels=(("app", "search"), ("slipway.build", "sha256:2")))
    assert asked(spec)["Labels"] == {
        "slipway.app": "search",
        "slipway.build": "sha256:2",
        "slipway.home": "abc",
        "slipway.name": "w-1",
    }
    assert docker_spec.container_name("abc", "w-1") == "slipway-abc-w-1"


def test_gpus_are_asked_for_by_their_uuids() -> None:
    assert host(evolve(SPEC, gpus=("GPU-1", "GPU-2")))["DeviceRequests"] == [
        {"Driver": "nvidia", "DeviceIDs": ["GPU-1", "GPU-2"], "Capabilities": [["gpu"]]}
    ]


def test_what_is_configured_is_asked_for() -> None:
    settings = DockerSettings(oci_runtime="runsc", user="1000:1000", shm_mib=64, network="apps")
    found = asked(settings=settings)
    assert (found["User"], found["HostConfig"]["Runtime"]) == ("1000:1000", "runsc")
    assert (found["HostConfig"]["ShmSize"], found["HostConfig"]["NetworkMode"]) == (64 << 20, "apps")


def test_a_worker_is_the_images_user_and_a_keeper_is_root() -> None:
    assert "User" not in asked()
    assert asked(evolve(SPEC, single=False), DockerSettings(user="1000"))["User"] == "0"


@pytest.mark.parametrize(
    ("spec", "settings", "networks", "expected"),
    [
        (SPEC, PLAIN, ("bridge", "host"), "bridge"),
        (SPEC, PLAIN, ("host", "none"), "host"),
        (SPEC, DockerSettings(network="apps"), ("bridge",), "apps"),
        (evolve(SPEC, network=False), DockerSettings(network="apps"), ("bridge",), "none"),
        (evolve(SPEC, single=False, privileged_build=True), DockerSettings(network="apps"), ("bridge",), "host"),
        (evolve(SPEC, single=False, privileged_build=True, network=False), PLAIN, ("bridge",), "none"),
    ],
)
def test_networks(spec: ContainerSpec, settings: DockerSettings, networks: tuple[str, ...], expected: str) -> None:
    assert docker_spec.network(spec, settings, evolve(FACTS, networks=networks)) == expected


def test_limits_are_asked_for() -> None:
    assert limited(cpu_milli=1500, cpu_request_milli=250, memory_mib=512, memory_request_mib=128, disk_mib=2048) == {
        "NanoCpus": 1_500_000_000,
        "CpuShares": 256,
        "Memory": 512 << 20,
        "MemorySwap": 512 << 20,
        "MemoryReservation": 128 << 20,
        "StorageOpt": {"size": "2048M"},
    }
    assert limited() == {}


def test_limits_stay_within_what_an_engine_takes() -> None:
    assert limited(cpu_milli=16_000) == {"NanoCpus": 4_000_000_000}
    assert limited(cpu_milli=1, cpu_request_milli=1) == {"NanoCpus": 10_000_000, "CpuShares": 2}
    assert limited(memory_mib=1) == {"Memory": 6 << 20, "MemorySwap": 6 << 20}
    assert limited(memory_mib=64, memory_request_mib=128)["MemoryReservation"] == 64 << 20


def test_limits_that_the_engine_has_not_are_not_asked_for() -> None:
    none = evolve(FACTS, memory_limits=False, cpu_limits=False)
    assert limited(none, cpu_milli=500, memory_mib=64, memory_request_mib=64) == {}
    assert "StorageOpt" not in asked(evolve(SPEC, limits=Limits(disk_mib=1)), disk=False)["HostConfig"]


def test_mounts_are_of_what_is_there() -> None:
    mounts = (Mount(source="/a b", target="/srv", read_only=True),)
    assert host(evolve(SPEC, mounts=mounts))["Mounts"] == [
        {"Type": "bind", "Source": "/a b", "Target": "/srv", "ReadOnly": True}
    ]


@pytest.mark.parametrize(
    ("storage", "below", "why"),
    [
        ("overlay2", "xfs", ""),
        ("btrfs", "btrfs", ""),
        ("overlay2", "extfs", "only on XFS mounted with pquota, and this is extfs"),
        ("vfs", "", "storage driver vfs has no limits"),
    ],
)
def test_where_disk_space_is_not_limited_it_is_said(storage: str, below: str, why: str) -> None:
    said = docker_spec.no_disk_limit(evolve(FACTS, storage=storage, storage_below=below))
    assert said.endswith(why)
    assert bool(said) == bool(why)


def test_what_the_engine_lacks_is_said_with_what_it_has() -> None:
    docker_spec.check(DockerSettings(oci_runtime="runsc", network="bridge"), FACTS)
    with pytest.raises(RuntimeUnavailable, match=r"has no OCI runtime 'kata'; it has runc, runsc"):
        docker_spec.check(DockerSettings(oci_runtime="kata"), FACTS)
    with pytest.raises(RuntimeUnavailable, match=r"has no network 'apps'; it has bridge, host, none"):
        docker_spec.check(DockerSettings(network="apps"), FACTS)
