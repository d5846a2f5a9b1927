"""The doctor's checks: each says what it found and what to do."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

import pytest

from slipway.executor.runtime import gpus, probe
from slipway.executor.runtime.probe import Verdict


@pytest.mark.slow
def test_every_part_of_this_machine_is_looked_at(tmp_path: Path) -> None:
    checks = list(probe.probe(tmp_path / "home"))
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


def serve(path: Path, answer: bytes | None) -> threading.Thread:
    """An engine that answers one ping, or never."""
    server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    server.bind(str(path))
    server.listen(1)

    def run() -> None:
        with server:
            connection, _ = server.accept()
            with connection:
                connection.recv(4096)
                if answer is None:
                    connection.recv(1)  # until the other end gives up
                else:
                    connection.sendall(answer)

    thread = threading.Thread(target=run)
    thread.start()
    return thread


@pytest.mark.parametrize(
    ("answer", "verdict", "says"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\nOK", Verdict.OK, "answers on"),
        (b"HTTP/1.1 500 Oh\r\n\r\n", Verdict.WARN, "answered 'HTTP/1.1 500 Oh'"),
        (None, Verdict.WARN, "no answer within 0.05 s"),
    ],
)
def test_docker_is_pinged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: bytes | None, verdict: Verdict, says: str
) -> None:
    monkeypatch.setattr(probe, "DOCKER_SECONDS", 0.05 if answer is None else 5.0)
    thread = serve(tmp_path / "docker.sock", answer)
    check = probe.check_docker({"DOCKER_HOST": f"unix://{tmp_path}/docker.sock"})
    thread.join()
    assert check.verdict is verdict
    assert says in check.found


def test_a_docker_that_is_not_there_is_no_failure(tmp_path: Path) -> None:
    check = probe.check_docker({"DOCKER_HOST": f"unix://{tmp_path}/none.sock"})
    assert check.verdict is Verdict.WARN
    assert check.found == f"{tmp_path}/none.sock: no such file or directory"
    assert "--runtime docker" in check.hint
    assert probe.check_docker({"DOCKER_HOST": "tcp://x:1"}).found == "DOCKER_HOST names no unix socket"


def test_gpus_are_listed() -> None:
    gpu = gpus.Gpu(uuid="GPU-1", name="NVIDIA H200", memory_mib=143771)
    assert probe.check_gpus(gpus.Found(gpus=(gpu,))).found == "NVIDIA H200 140 GiB"
    assert probe.check_gpus(gpus.Found()).found == "none: the driver lists none"
