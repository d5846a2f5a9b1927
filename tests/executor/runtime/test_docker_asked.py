"""What the docker runtime asks of an engine, heard by one that only listens: what no test machine can do."""

from __future__ import annotations

import asyncio
import json
import re
import socketserver
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve

from slipway.compiler.facts import BaseFact
from slipway.dsl.errors import RuntimeUnavailable
from slipway.executor.config import Config, DockerSettings
from slipway.executor.ports import ContainerSpec, Limits
from slipway.executor.runtime.docker_runtime import DockerRuntime

IMAGE = "sha256:" + "1" * 64
SPEC = ContainerSpec(
    name="w-1", base=BaseFact(identity=(), says="", paths=(("image", IMAGE),)), single=True, labels=(("app", "search"),)
)
PQUOTA = "--storage-opt is supported only for overlay over xfs with 'pquota' mount option"
HERE = 'invalid mount config for type "bind": bind source path does not exist'


class Listening(socketserver.ThreadingUnixStreamServer):
    """Answers as an engine; `asked` is what it was asked to create. `answers` replace those given here."""

    daemon_threads = True

    def __init__(self, path: Path, answers: dict[str, Any]) -> None:
        self.asked: list[dict[str, Any]] = []
        self.components: list[dict[str, str]] = [{"Name": "Engine"}]
        self.networks = ["bridge", "host", "none"]
        self.sees_files = True
        self.limits_disk = True
        self.info = {
            "Driver": "overlay2",
            "DriverStatus": [["Backing Filesystem", "xfs"]],
            "NCPU": 2,
            "MemTotal": 4 << 30,
            "MemoryLimit": True,
            "CpuCfsQuota": True,
            "Runtimes": {"nvidia": {}, "runc": {}, "runsc": {}},
            **answers,
        }
        super().__init__(str(path), Handler)

    def answer(self, method: str, path: str, body: dict[str, Any]) -> tuple[int, Any]:
        match method, re.sub(r"^/v[0-9.]+", "", path).partition("?")[0]:
            case "GET", "/version":
                return 200, {"ApiVersion": "1.41", "Version": "20.10", "Components": self.components}
            case "GET", "/info":
                return 200, self.info
            case "GET", "/networks":
                return 200, [{"Name": name} for name in self.networks]
            case "GET", "/containers/json" | "/images/json":
                return 200, []
            case "GET", "/_ping":
                return 200, "OK"
            case "GET", image if image.startswith("/images/"):
                return 200, {"Id": IMAGE, "Config": {}}
            case "POST", "/containers/create":
                return self.create(body)
            case "DELETE", _:
                return 204, None
        return 404, {"message": f"{method} {path}"}

    def create(self, body: dict[str, Any]) -> tuple[int, Any]:
        if body["Image"] != IMAGE:  # it is asked whether it sees a folder
            there = self.sees_files and Path(body["HostConfig"]["Mounts"][0]["Source"]).exists()
            return (404, {"message": "No such image"}) if there else (400, {"message": HERE})
        self.asked.append(body)
        if "StorageOpt" in body["HostConfig"] and not self.limits_disk:
            return 500, {"message": PQUOTA}
        return 201, {"Id": "c1", "Warnings": []}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def _answer(self) -> None:
        assert isinstance(self.server, Listening)
        size = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(size) or b"{}")
        status, value = self.server.answer(self.command, self.path, body)
        data = b"" if value is None else json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_POST = do_DELETE = _answer

    def log_message(self, *args: object) -> None: ...

    def address_string(self) -> str:
        return "unix"


@contextmanager
def listening(path: Path, **answers: Any) -> Iterator[Listening]:
    with Listening(path / "e.sock", answers) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def play(home: Path, scenario: Callable[[DockerRuntime], Awaitable[None]], **settings: Any) -> None:
    docker = DockerSettings(host=f"unix://{home}/e.sock", **settings)

    async def main() -> None:
        runtime = DockerRuntime(home, lambda: Config(docker=docker))
        async with asyncio.timeout(30):
            await runtime.start()
            try:
                await scenario(runtime)
            finally:
                await runtime.close()

    asyncio.run(main())


def test_a_worker_with_gpus_in_gvisor_is_asked_for(tmp_path: Path) -> None:
    async def scenario(runtime: DockerRuntime) -> None:
        container = await runtime.create(evolve(SPEC, gpus=("GPU-1",), limits=Limits(disk_mib=512)))
        await container.kill()

    with listening(tmp_path) as engine:
        play(tmp_path, scenario, oci_runtime="runsc", shm_mib=128)
    (asked,) = engine.asked
    found = asked["HostConfig"]
    assert found["DeviceRequests"] == [{"Driver": "nvidia", "DeviceIDs": ["GPU-1"], "Capabilities": [["gpu"]]}]
    assert (found["Runtime"], found["ShmSize"], found["StorageOpt"]) == ("runsc", 128 << 20, {"size": "512M"})
    assert asked["Labels"]["slipway.app"] == "search"
    assert (asked["OpenStdin"], asked["StdinOnce"]) == (True, True)


def test_disk_space_that_the_engine_does_not_limit_is_told_of_and_left_out(tmp_path: Path) -> None:
    async def scenario(runtime: DockerRuntime) -> None:
        assert "disk" not in dict((await runtime.ability()).notes)
        for _ in range(2):
            container = await runtime.create(evolve(SPEC, limits=Limits(disk_mib=512)))
            await container.kill()
        why = dict((await runtime.ability()).notes)["disk"]
        assert why.startswith("ephemeral disk not limited: ")
        assert "pquota" in why

    with listening(tmp_path) as engine:
        engine.limits_disk = False
        play(tmp_path, scenario)
    assert ["StorageOpt" in body["HostConfig"] for body in engine.asked] == [True, False, False]


def test_what_the_engine_lacks_is_told_of(tmp_path: Path) -> None:
    async def scenario(runtime: DockerRuntime) -> None:
        notes = dict((await runtime.ability()).notes)
        assert notes["memory"].startswith("memory limit not enforced: ")
        assert notes["cpu"].startswith("cpu limit not enforced: ")
        assert "this is extfs" in notes["disk"]
        assert "no nvidia runtime" in notes["gpu"]

    below = [["Backing Filesystem", "extfs"]]
    with listening(tmp_path, MemoryLimit=False, CpuCfsQuota=False, DriverStatus=below, Runtimes={"runc": {}}):
        play(tmp_path, scenario)


def test_an_engine_that_sees_other_files_is_refused(tmp_path: Path) -> None:
    async def scenario(runtime: DockerRuntime) -> None:
        assert "does not see this machine's files" in await runtime.trouble()
        assert "does not see this machine's files" in dict((await runtime.ability()).refusals)["debian_slim"]
        with pytest.raises(RuntimeUnavailable, match="does not see this machine's files"):
            await runtime.create(SPEC)

    with listening(tmp_path) as engine:
        engine.sees_files = False
        play(tmp_path, scenario)
    assert engine.asked == []


def test_what_the_settings_want_and_the_engine_lacks_is_said_before_a_container_is_made(tmp_path: Path) -> None:
    async def scenario(runtime: DockerRuntime) -> None:
        assert "has no network 'apps'" in await runtime.trouble()
        assert "docker network create apps" in dict((await runtime.ability()).refusals)["debian_slim"]
        engine.networks.append("apps")  # as it was told
        assert await runtime.trouble() == ""
        engine.networks.remove("apps")
        await runtime.create(SPEC)  # what was found there is not asked for again

    with listening(tmp_path) as engine:
        play(tmp_path, scenario, network="apps")
    assert [asked["HostConfig"]["NetworkMode"] for asked in engine.asked] == ["apps"]


def test_podman_is_refused_by_name(tmp_path: Path) -> None:
    async def scenario(runtime: DockerRuntime) -> None:
        with pytest.raises(RuntimeUnavailable, match=r"Podman 20\.10"):
            await runtime.create(SPEC)
        assert "Podman" in await runtime.trouble()

    with listening(tmp_path) as engine:
        engine.components = [{"Name": "Podman Engine"}]
        play(tmp_path, scenario)
    assert engine.asked == []
