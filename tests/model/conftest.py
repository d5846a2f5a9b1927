"""The suite runs twice: on each runtime one engine, which all of its tests share."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from docker_engine import DockerTestEngine
from docker_machine import DockerMachine
from machine import Machine
from model_home import ModelHome, Scratch

from slipway.dsl import session

LONGEST = 60  # seconds; nothing here takes a tenth of it


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything here starts engines and workers, so all of it is slow."""
    for item in items:
        if item.path.parent == Path(__file__).parent and "shared_home" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session", params=["native", "docker"])
def shared_home(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModelHome]:
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "docker":
        engine: DockerTestEngine = request.getfixturevalue("docker_engine")
        machine: Machine = DockerMachine(folder, engine)
    else:
        machine = Machine(folder)
    before, environment = session._Program.runner, dict(os.environ)
    home = ModelHome(machine, request.param)
    home.enter()
    try:
        yield home
    finally:
        home.close()
        os.environ.clear()
        os.environ.update(environment)
        session._Program.runner = before


@pytest.fixture
def home(shared_home: ModelHome) -> Iterator[ModelHome]:
    """The home of one runtime: a test that asks for it runs on each, and fails where it hangs."""
    shared_home.enter()
    before = signal.signal(signal.SIGALRM, _give_up)
    signal.alarm(LONGEST)
    try:
        yield shared_home
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def _give_up(number: int, frame: object) -> None:
    raise AssertionError(f"no end in {LONGEST} s")


@pytest.fixture
def scratch(home: ModelHome) -> Iterator[Scratch]:
    """A place where a test and the workers of its functions meet."""
    made = home.scratch()
    yield made
    made.close()
