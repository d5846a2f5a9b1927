"""A machine of its own for each test, and a package index on loopback."""

from __future__ import annotations

import functools
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from docker_engine import DockerTestEngine
from docker_machine import DockerMachine
from machine import Machine, Quiet, make_wheel


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything here starts engines and containers, so all of it is slow."""
    for item in items:
        if item.path.parent == Path(__file__).parent:
            item.add_marker(pytest.mark.slow)


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    box = Machine(tmp_path)
    yield box
    box.close()


@pytest.fixture
def docker_machine(tmp_path: Path, docker_engine: DockerTestEngine) -> Iterator[DockerMachine]:
    box = DockerMachine(tmp_path, docker_engine)
    yield box
    box.close()


@pytest.fixture(scope="session")
def index(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A package index on loopback with `apple`, `pear` and `plum`; its address."""
    root = tmp_path_factory.mktemp("index")
    for name in ("apple", "pear", "plum"):
        folder = root / "simple" / name
        folder.mkdir(parents=True)
        wheel = make_wheel(folder, name)
        (folder / "index.html").write_text(f'<a href="{wheel.name}">{wheel.name}</a>')
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(root)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}/simple"
    server.shutdown()
    server.server_close()
    thread.join()
