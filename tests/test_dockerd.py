"""The tests' own Docker Engine: nothing of it is left, however whoever started it ends."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import debian
import psutil
import pytest
from docker_engine import DockerTestEngine, own_engine

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("docker_engine")]

STARTER = """
import sys
from docker_engine import own_engine
with own_engine() as engine:
    print(engine.folder, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def starter() -> Iterator[subprocess.Popen[str]]:
    """A program that has an engine."""
    process = subprocess.Popen(
        [sys.executable, "-c", STARTER],
        cwd=Path(__file__).parent,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    with process:
        yield process
        process.kill()


needs_own = pytest.mark.skipif(bool(debian.refusal()), reason=debian.refusal())


@needs_own
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_nothing_is_left_when_its_starter_is_ended(starter: subprocess.Popen[str], number: int) -> None:
    assert starter.stdout is not None
    folder = Path(starter.stdout.readline().strip())
    family = psutil.Process(starter.pid).children(recursive=True)
    assert {"dockerd", "containerd"} <= {process.name() for process in family}
    starter.send_signal(number)
    starter.wait(60)
    _, alive = psutil.wait_procs(family, timeout=60)
    assert not alive
    assert not folder.exists()
    assert str(folder) not in Path("/proc/self/mounts").read_text()
    assert not list(Path("/sys/fs/cgroup").glob(f"**/slipway-tests-{folder.name}"))


@needs_own
def test_what_it_has_stays_from_one_start_to_the_next() -> None:
    with own_engine() as own:
        engine = DockerTestEngine(own.url, "scratch")
        engine.image("marked", "LABEL mark=yes")
        own.stop()
        assert not Path(own.url.removeprefix("unix://")).exists()
        own.start()
        with engine.client() as client:
            assert [image.labels for image in client.images.list()] == [{"mark": "yes"}]


def test_the_base_image_has_a_python_and_pip(docker_engine: DockerTestEngine) -> None:
    with docker_engine.client() as client:
        said = client.containers.run(
            docker_engine.base_image, ["python3", "-m", "pip", "--version"], network_mode="none", remove=True
        )
    assert b"(python 3.11)" in said


@pytest.mark.parametrize("version", ["3.10", "3.11", "3.12", "3.13"])
def test_an_image_of_each_python(docker_engine: DockerTestEngine, version: str) -> None:
    image = docker_engine.python_image(version)
    with docker_engine.client() as client:
        said = client.containers.run(image, ["python", "-m", "pip", "--version"], network_mode="none", remove=True)
    assert f"(python {version})".encode() in said


def test_an_image_with_old_packages(docker_engine: DockerTestEngine) -> None:
    line = "import attr, cloudpickle; print(attr.__version__, cloudpickle.__version__)"
    with docker_engine.client() as client:
        said = client.containers.run(
            docker_engine.image_with_old_packages(), ["python3", "-c", line], network_mode="none", remove=True
        )
    assert said == b"21.4.0 2.0.0\n"


def test_an_image_without_python(docker_engine: DockerTestEngine) -> None:
    with docker_engine.client() as client:
        said = client.containers.run(
            docker_engine.image_without_python(), ["sh", "-c", "command -v python3 || echo none"],
            network_mode="none", remove=True,
        )  # fmt: skip
    assert said == b"none\n"
