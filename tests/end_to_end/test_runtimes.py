"""One engine, two runtimes: an app moves from one to the other, and an engine of Docker's that isn't there is told."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from docker_engine import DockerTestEngine
from machine import Machine

from slipway.executor.runtime.docker import LABEL_HOME, home_id

APP = """
import os
import slipway

app = slipway.App("mover", image=slipway.Image.debian_slim("3.11").run_commands("echo made > /opt/mark"))


@app.function(min_containers=1)
def where() -> str:
    return "docker" if os.path.exists("/.dockerenv") else "native"
"""
CACHE = """
import slipway

app = slipway.App("cache", image=slipway.Image.from_registry("redis:7"))


@app.function()
def f(): ...
"""


@pytest.fixture
def mover(machine: Machine, docker_engine: DockerTestEngine) -> Iterator[Machine]:
    """A machine with the engine of the tests, of which nothing stays in it."""
    docker_engine.write_config(machine.home)
    yield machine
    machine.close()
    ours: dict[str, str | list[str] | bool] = {"label": [f"{LABEL_HOME}={home_id(machine.home)}"]}
    with docker_engine.client() as client:
        left = client.containers.list(all=True, filters=ours)
        for image in client.images.list(filters=ours):
            for tag in image.tags:
                client.images.remove(tag)
    assert not left


def test_an_app_moves_from_one_runtime_to_the_other(mover: Machine) -> None:
    mover.write("app.py", APP)
    mover.run("apply", "app.py", "--yes")
    assert mover.run("call", "mover.where").out == "native\n"
    plan = mover.run("plan", "app.py", "--runtime", "docker").out
    assert "mover · docker · serial 1 → 2" in plan and "runtime: native → docker" in plan
    assert "runtime docker: in place of native, with images of its own; workers on native finish what they do" in plan
    mover.run("apply")
    assert mover.run("call", "mover.where").out == "docker\n"
    status = mover.run("status").out
    assert "runtime native: ready" in status and "runtime docker: ready" in status
    assert "app mover, deployed on docker: 1 worker," in status
    again = mover.run("plan", "app.py").out
    assert "runtime docker: as deployed" in again and "Nothing to do" in again
    back = mover.run("apply", "app.py", "--yes", SLIPWAY_RUNTIME="native").out
    assert "in place of docker (SLIPWAY_RUNTIME says so)" in back and "no build step run" in back
    assert mover.run("call", "mover.where").out == "native\n"
    mover.run("destroy", "mover", "--yes")


def test_settings_count_at_once_and_a_docker_that_is_not_there_is_told(machine: Machine) -> None:
    machine.home.mkdir()
    config = machine.home / "config.toml"
    config.write_text('[docker]\nhost = "unix:///nowhere/docker.sock"\n')
    machine.write("app.py", APP)
    machine.write("cache.py", CACHE)
    assert "mover · native" in machine.run("plan", "app.py").out
    trouble = "no Docker Engine answers at unix:///nowhere/docker.sock (host in config.toml): No such file or directory"
    assert f"runtime docker: {trouble}" in machine.run("status").out
    both = machine.run("plan", "cache.py", code=1).err
    assert "cache.py:4: image" in both and "from_registry" in both
    assert f"runtime docker: {trouble}" in both
    config.write_text('runtime = "dokcer"\n')
    err = machine.run("plan", "app.py", code=1).err
    assert "config.toml:1: runtime: there is no such runtime" in err and 'Did you mean "docker"?' in err
    assert "settings of before" in machine.run("status").out
    config.write_text('runtime = "native"\n')
    assert "mover · native" in machine.run("plan", "app.py").out
