"""The docker runtime beside Docker itself and beside native, in one run.

    python bench/docker.py [--image IMAGE] [--runs 10]

A cold call beside `docker run --rm` of the same image with `python -c pass`, taken in turns; a warm call on both
runtimes; an apply with nothing to do of ten layers beside a fully cached classic `docker build` of the same steps.
The image is one that the engine has already. Whatever is made is removed in the end.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

IMAGES = ("slipway-test-base:bookworm", "python:3.11-slim-bookworm", "python:3.12-slim-bookworm")
SLIPWAY = str(Path(sys.executable).with_name("slipway"))
LAYERS = 10
APP = """
import slipway

app = slipway.App("bench-{runtime}", image=slipway.Image.{base})


@app.function(single_use_containers=True, max_containers=1)
def cold(x):
    return x


@app.function(max_containers=1)
def warm(x):
    return x
"""
TOWER = """
import slipway

image = slipway.Image.from_registry({image!r})
for number in range({layers}):
    image = image.run_commands(f"echo {{number}} > /layer-{{number}}")
app = slipway.App("bench-tower", image=image)


@app.function()
def f(): ...
"""


def docker(*arguments: str, **more: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["docker", *arguments], capture_output=True, text=True, check=False, **more)


def say_no(why: str) -> None:
    """End well: a machine without an engine has nothing to measure here."""
    print(f"skipped: {why}")
    sys.exit(0)


def find_image(wanted: str | None) -> tuple[str, str]:
    """An image that is there, and how its Python is called."""
    if shutil.which("docker") is None:
        say_no("there is no docker command")
    if docker("version").returncode != 0:
        say_no("no Docker Engine answers: set DOCKER_HOST, or start one")
    for image in (wanted,) if wanted else IMAGES:
        if docker("image", "inspect", image).returncode == 0:
            for python in ("python", "python3"):
                if docker("run", "--rm", image, python, "-c", "pass").returncode == 0:
                    return image, python
    say_no(f"the engine has none of {', '.join((wanted,) if wanted else IMAGES)}: say --image")
    raise AssertionError


def milliseconds(act: Callable[[], object]) -> float:
    start = time.perf_counter()
    act()
    return (time.perf_counter() - start) * 1000


def in_turns(first: Callable[[], object], second: Callable[[], object], runs: int) -> tuple[list[float], list[float]]:
    """Each so many times, one after the other, so that both see the same machine; the first time is not counted."""
    took: tuple[list[float], list[float]] = ([], [])
    for number in range(runs + 1):
        for which, act in enumerate((first, second)):
            spent = milliseconds(act)
            if number:
                took[which].append(spent)
    return took


def show(label: str, ours: list[float], theirs: list[float], unit: str = "ms", scale: float = 1.0) -> None:
    mine, other = statistics.median(ours) * scale, statistics.median(theirs) * scale
    print(f"{label:<46}{mine:>11.0f} {unit}{other:>11.0f} {unit}{mine / other:>8.2f}")


def calls(folder: Path, image: str, python: str, runs: int, count: int) -> None:
    """Cold and warm calls, this process being the program that makes them."""
    bases = {"docker": f"from_registry({image!r})", "native": "debian_slim()"}
    apps: dict[str, Any] = {}
    for runtime, base in bases.items():
        (folder / f"on_{runtime}.py").write_text(APP.format(runtime=runtime, base=base))
        apps[runtime] = __import__(f"on_{runtime}")
    networks = docker("network", "ls", "--format", "{{.Name}}").stdout.split()
    network = () if "bridge" in networks else ("--network", "host")  # as the docker runtime chooses

    def theirs() -> None:
        done = docker("run", "--rm", *network, image, python, "-c", "pass")
        assert done.returncode == 0, done.stderr

    warm = {}
    for runtime, module in apps.items():
        os.environ["SLIPWAY_RUNTIME"] = runtime
        with module.app.run():
            module.warm.remote(0)
            warm[runtime] = [milliseconds(lambda: module.warm.remote(1)) for _ in range(count)]  # noqa: B023
            if runtime == "docker":
                cold, run = in_turns(lambda: module.cold.remote(1), theirs, runs)  # noqa: B023
    print(f"{'':<46}{'slipway':>14}{'docker run':>14}{'ratio':>8}")
    show(f"cold call, beside {python} -c pass", cold, run)
    print(f"\n{'':<46}{'docker':>14}{'native':>14}{'ratio':>8}")
    show("warm call", warm["docker"], warm["native"], unit="us", scale=1000)


def builds(folder: Path, image: str, runs: int) -> None:
    (folder / "tower.py").write_text(TOWER.format(image=image, layers=LAYERS))
    context = folder / "context"
    context.mkdir()
    lines = [f"FROM {image}", *(f"RUN echo {number} > /layer-{number}" for number in range(LAYERS))]
    (context / "Dockerfile").write_text("\n".join(lines) + "\n")
    tag = f"slipway-bench-{os.getpid()}"
    env = {**os.environ, "DOCKER_BUILDKIT": "0", "SLIPWAY_RUNTIME": "docker"}

    def slipway(*arguments: str) -> None:
        subprocess.run([SLIPWAY, *arguments], cwd=folder, env=env, check=True, capture_output=True)

    def build() -> None:
        done = docker("build", "-q", "--network", "host", "-t", tag, str(context), env=env)
        assert done.returncode == 0, done.stderr

    try:
        slipway("plan", "tower.py")
        ours, theirs = in_turns(lambda: slipway("apply"), build, runs)
        planned, _ = in_turns(lambda: slipway("apply", "tower.py", "--yes"), lambda: None, runs)
    finally:
        docker("image", "rm", "--force", tag)
    print(f"\n{'':<46}{'slipway':>14}{'docker build':>14}{'ratio':>8}")
    show(f"nothing to do, {LAYERS} layers: slipway apply", ours, theirs)
    show("the same, planned in the same command", planned, theirs)


def clean(home: Path) -> None:
    """Take away what our home has left in the engine."""
    subprocess.run([SLIPWAY, "down"], check=False, capture_output=True)
    from slipway.executor.runtime.docker import LABEL_HOME, home_id

    mine = f"label={LABEL_HOME}={home_id(home)}"
    containers = docker("ps", "-aq", "--filter", mine).stdout.split()
    if containers:
        docker("rm", "-f", *containers)
    before = 0
    images = [""]
    while images and len(images) != before:  # an image goes when none stands on it any more
        before = len(images)
        docker("rmi", "-f", *filter(None, images))
        images = docker("images", "-aq", "--no-trunc", "--filter", mine).stdout.split()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--image")
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--calls", type=int, default=1000)
    options = parser.parse_args()
    image, python = find_image(options.image)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["SLIPWAY_HOME"] = str(folder / "home")
        sys.path.insert(0, name)
        try:
            calls(folder, image, python, options.runs, options.calls)
            builds(folder, image, options.runs)
        finally:
            clean(folder / "home")


if __name__ == "__main__":
    main()
