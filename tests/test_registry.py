"""The tests' own registries: what is put there can be had from there, and from the private one with its keys alone."""

from __future__ import annotations

import pytest
from docker.errors import DockerException
from docker_engine import DockerTestEngine
from registry import Registry

pytestmark = pytest.mark.slow


def small(engine: DockerTestEngine) -> str:
    """An image with nothing in it but a label."""
    return DockerTestEngine(engine.url, "scratch", engine.made).image("pushed", "LABEL pushed=yes")


def test_an_image_goes_there_and_back(docker_engine: DockerTestEngine, docker_registry: Registry) -> None:
    name = docker_registry.push(docker_engine, small(docker_engine), "some/where:1")
    with docker_engine.client() as client:
        assert client.images.pull(name).labels == {"pushed": "yes"}
        client.images.remove(name)


def test_the_private_one_asks_for_its_keys(docker_engine: DockerTestEngine, private_registry: Registry) -> None:
    name = private_registry.push(docker_engine, small(docker_engine), "some/where:1")
    keys = {"username": private_registry.user, "password": private_registry.password}
    with docker_engine.client() as client:
        with pytest.raises(DockerException, match="no basic auth credentials"):
            client.images.pull(name)
        assert client.images.pull(name, auth_config=keys).labels == {"pushed": "yes"}
        client.images.remove(name)
