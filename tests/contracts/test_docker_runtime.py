"""The runtime contract on Docker Engine, and what the port promises beyond it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from contracts.runtime_contract import RuntimeContract
from docker_engine import DockerTestEngine

from slipway.executor.config import Config, DockerSettings
from slipway.executor.ports import Runtime
from slipway.executor.runtime.docker import LABEL_HOME, home_id
from slipway.executor.runtime.docker_runtime import DockerRuntime


def config(engine: DockerTestEngine) -> Config:
    return Config(docker=DockerSettings(host=engine.url, bases=(("debian_slim", engine.base_image),)))


@pytest.fixture
def home(docker_engine: DockerTestEngine, tmp_path: Path) -> Iterator[Path]:
    """A home of which nothing stays in the engine."""
    home = tmp_path / "home"
    home.mkdir()
    yield home
    label = f"{LABEL_HOME}={home_id(home)}"
    with docker_engine.client() as client:
        left = client.containers.list(all=True, filters={"label": label})
        for container in left:
            container.remove(force=True, v=True)
        for image in client.images.list(filters={"label": label}):
            for tag in image.tags:
                client.images.remove(tag)  # those below a removed one go with it
    assert not left


@pytest.mark.slow
class TestDocker(RuntimeContract):
    @pytest.fixture
    def runtime(self, docker_engine: DockerTestEngine, home: Path) -> Runtime:
        return DockerRuntime(home, lambda: config(docker_engine))
