"""The doctor's checks: each says what it found and what to do."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from attrs import evolve

from slipway.executor.config import DockerSettings
from slipway.executor.runtime import gpus, probe
from slipway.executor.runtime.docker import Facts
from slipway.executor.runtime.probe import Verdict


@pytest.mark.slow
def test_every_part_of_this_machine_is_looked_at(tmp_path: Path) -> None:
    checks = list(probe.probe(tmp_path / "home", DockerSettings(host=f"unix://{tmp_path}/none.sock")))
    names = ["kernel", "namespaces", "overlay", "apt_install", "limits", "python", "uv", "disk", "docker", "gpus"]
    assert [check.name for check in checks] == names
    for check in checks:
        assert check.found
        assert check.hint or check.verdict is Verdict.OK
    assert list(tmp_path.iterdir()) == []


def test_a_home_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    checks = list(probe.check_containers(tmp_path / "file"))
    assert [(check.name, check.verdict) for check in checks] == [
        ("namespaces", Verdict.FAIL),
        ("overlay", Verdict.FAIL),
    ]
    assert "SLIPWAY_HOME" in checks[0].hint


def test_an_old_kernel_fails() -> None:
    assert probe.check_kernel("5.4.0-42-generic").verdict is Verdict.FAIL
    assert probe.check_kernel("5.12.0").verdict is Verdict.OK


@contextmanager
def serving(path: Path, answer: bytes | None) -> Iterator[None]:
    """An engine that gives every request the same answer, or none while the block lasts."""
    server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    server.bind(str(path))
    server.listen()
    held: list[socket.socket] = []
    over = threading.Event()

    def run() -> None:
        while not over.is_set():
            connection, _ = server.accept()
            held.append(connection)
            if answer is not None and connection.recv(4096):
                connection.sendall(answer)
                connection.shutdown(socket.SHUT_RDWR)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        over.set()
        with socket.socket(socket.AF_UNIX) as last:
            last.connect(str(path))
            last.shutdown(socket.SHUT_WR)
            thread.join()
        for connection in (server, *held):
            connection.close()


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (b"HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n", "500 Server Error: Oh"),
        (b"SSH-2.0\r\n\r\n", "no Docker Engine answers at"),
        (None, "no answer within 0.1 s"),
    ],
)
def test_a_docker_that_is_not_well_is_no_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: bytes | None, says: str
) -> None:
    monkeypatch.setattr(probe, "DOCKER_SECONDS", 0.1 if answer is None else 10.0)
    settings = DockerSettings(host=f"unix://{tmp_path}/docker.sock")
    with serving(tmp_path / "docker.sock", answer):
        (check,) = probe.check_docker(tmp_path, settings, gpus_here=False)
    assert check.verdict is Verdict.WARN
    assert says in check.found and "--runtime docker" in check.hint


def test_a_docker_that_is_not_there_is_no_failure(tmp_path: Path) -> None:
    (check,) = probe.check_docker(tmp_path, DockerSettings(host=f"unix://{tmp_path}/none.sock"), gpus_here=False)
    assert check.verdict is Verdict.WARN
    where = f"unix://{tmp_path}/none.sock (host in config.toml)"
    assert check.found == f"no Docker Engine answers at {where}: No such file or directory"
    assert "--runtime docker" in check.hint
    (check,) = probe.check_docker(tmp_path, DockerSettings(host="ssh://x"), gpus_here=False)
    assert check.found.startswith("ssh://x (host in config.toml) is an engine on another machine")


FACTS = Facts(
    address="unix:///run/docker.sock (default)",
    name="Docker Engine",
    version="27.1",
    system="linux/amd64",
    networks=("bridge", "host", "none"),
    oci_runtimes=("nvidia", "runc"),
    storage="overlay2",
    storage_below="extfs",
    cpus=2,
    memory_mib=1024,
    memory_limits=True,
    cpu_limits=True,
    podman=False,
    here=True,
)


def test_what_is_said_of_an_engine() -> None:
    checks = list(probe.docker_checks(FACTS, gpus_here=True))
    assert [(check.name, check.found) for check in checks] == [
        ("docker", "Docker Engine 27.1 at unix:///run/docker.sock (default)"),
        ("docker storage", "overlay2 on extfs"),
        ("docker limits", "memory, cpu"),
        ("docker network", "bridge"),
        ("docker gpus", "the engine has the nvidia runtime"),
    ]
    assert all(check.verdict is Verdict.OK for check in checks)
    poor = evolve(FACTS, networks=("host",), oci_runtimes=("runc",), storage="vfs", storage_below="", cpu_limits=False)
    checks = list(probe.docker_checks(poor, gpus_here=True))
    assert [check.found for check in checks[1:]] == [
        "vfs",
        "not enforced: cpu",
        "no bridge: host",
        "the engine lists no nvidia runtime",
    ]
    assert all(check.verdict is Verdict.WARN and check.hint for check in checks[1:])
    assert len(list(probe.docker_checks(poor, gpus_here=False))) == 4
    (far,) = probe.docker_checks(evolve(FACTS, here=False), gpus_here=False)
    assert far.verdict is Verdict.WARN and "does not see this machine's files" in far.found


def test_gpus_are_listed() -> None:
    gpu = gpus.Gpu(uuid="GPU-1", name="NVIDIA H200", memory_mib=143771)
    assert probe.check_gpus(gpus.Found(gpus=(gpu,))).found == "NVIDIA H200 140 GiB"
    assert probe.check_gpus(gpus.Found()).found == "none: the driver lists none"
