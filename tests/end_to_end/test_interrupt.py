"""Ctrl-C on a real terminal, in every phase: the command ends within two seconds, says so in a line, leaves nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import psutil
import pytest
from docker_engine import DockerTestEngine
from docker_machine import DockerMachine
from machine import SLIPWAY, Machine
from terminals import Tty

SECONDS = 2.0  # that a command may take to end
CTRL_C = "\x03"

# What each phase says when it has begun, it says to the terminal; from then on it waits until it is told to end.
APP = """
import asyncio, threading
import slipway

app = slipway.App("phases")
built = slipway.Image.debian_slim().run_commands("echo building $((40 + 2)); sleep 1000")


def wait_for_ever():
    threading.Event().wait()


@app.function()
def waits(x: int = 0):
    print("in the worker", x, flush=True)
    wait_for_ever()


@app.function()
def quick():
    return "done"


@app.function()
async def awaits():
    print("in the worker", flush=True)
    await asyncio.Event().wait()


@app.function()
def stubborn():
    print("in the worker", flush=True)
    while True:
        try:
            wait_for_ever()
        except BaseException:
            pass


@app.function()
def items():
    yield 1
    print("in the worker", flush=True)
    wait_for_ever()


@app.cls()
class Held:
    @slipway.enter()
    def load(self):
        print("in the worker", flush=True)
        wait_for_ever()

    @slipway.method()
    def use(self): ...


@app.local_entrypoint()
def mapping():
    for _ in waits.map(range(20)):
        pass


@app.local_entrypoint()
def taking():
    for _ in items.remote_gen():
        pass


@app.local_entrypoint()
def getting():
    waits.spawn().get()


@app.local_entrypoint()
def waiting():
    print("in the entrypoint", flush=True)
    wait_for_ever()


@app.local_entrypoint()
async def awaiting():
    await awaits.remote.aio()
"""
BUILD = APP.replace("@app.function()\ndef waits", "@app.function(image=built)\ndef waits")
IMPORT = APP.replace(
    "app = ", "if not slipway.is_local():\n    print('importing', flush=True)\n    threading.Event().wait()\napp = "
)
DEPLOYED = IMPORT.replace("@app.function()\ndef waits", "@app.function(min_containers=1)\ndef waits")
PROGRAM = (
    APP
    + """

if __name__ == "__main__":
    try:
        with slipway.enable_output(), app.run():
            waits.remote()
    finally:
        print("the program heard it", flush=True)
"""
)
ASYNC_PROGRAM = (
    BUILD
    + """

async def main():
    try:
        with slipway.enable_output():
            async with app.run():
                await waits.remote.aio()
    finally:
        print("the program heard it", flush=True)


if __name__ == "__main__":
    asyncio.run(main())
"""
)
PHASES: dict[str, tuple[str, tuple[str, ...], str, str]] = {
    "build": (BUILD, ("run", "app.py::waits"), "building 42", "finished layers are kept"),
    "apply": (BUILD, ("apply", "app.py", "--yes"), "building 42", "finished layers are kept"),
    "first-workers": (DEPLOYED, ("apply", "app.py", "--yes"), "0:00:00", "finished layers are kept"),
    "import": (IMPORT, ("run", "app.py::waits"), "importing", "phases has ended"),
    "enter": (APP, ("run", "app.py::Held.use"), "in the worker", "phases has ended"),
    "call": (APP, ("run", "app.py::waits"), "in the worker", "phases has ended"),
    "async-call": (APP, ("run", "app.py::awaits"), "in the worker", "phases has ended"),
    "stubborn-call": (APP, ("run", "app.py::stubborn"), "in the worker", "phases has ended"),
    "map": (APP, ("run", "app.py::mapping"), "in the worker", "phases has ended"),
    "generator": (APP, ("run", "app.py::taking"), "in the worker", "phases has ended"),
    "result": (APP, ("run", "app.py::getting"), "in the worker", "phases has ended"),
    "entrypoint": (APP, ("run", "app.py::waiting"), "in the entrypoint", "phases has ended"),
    "async-entrypoint": (APP, ("run", "app.py::awaiting"), "in the worker", "phases has ended"),
}
ON_DOCKER = ("build", "import", "call", "map")


class Place:
    """A machine whose engine runs, and what an interrupted command leaves of it."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        machine.write("app.py", APP)
        machine.run("plan", "app.py")
        pid = machine.engine_pid()
        assert pid is not None
        self.engine = psutil.Process(pid)
        self.before = set(self.engine.children(recursive=True))

    def begin(self, *argv: str | Path) -> Tty:
        return Tty(argv, cwd=self.machine.folder, env=self.machine.env | {"TERM": "vt100"})

    def interrupt(self, tty: Tty) -> tuple[int, str]:
        """Type Ctrl-C; the exit code, and what is shown after it. The command ends in time."""
        began = time.monotonic()
        tty.type(CTRL_C)
        code, shown = tty.end()
        assert time.monotonic() - began < SECONDS, shown
        return code, shown

    def family(self) -> list[psutil.Process]:
        """The processes that the engine has begun since."""
        return [process for process in self.engine.children(recursive=True) if process not in self.before]

    def check_nothing_left(self, family: list[psutil.Process]) -> None:
        _, alive = psutil.wait_procs(family, timeout=SECONDS)
        assert alive == []
        status: dict[str, Any] = json.loads(self.machine.run("status", "--json").out)
        assert (status["busy"], status["apps"]) == ("", [])
        assert json.loads(self.machine.run("container", "list", "--json").out) == []
        assert json.loads(self.machine.run("call", "list", "--state", "open", "--json").out) == []
        if isinstance(self.machine, DockerMachine):
            assert self.machine.containers() == []


@pytest.fixture(scope="module")
def native(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    machine = Machine(tmp_path_factory.mktemp("interrupt"))
    try:
        yield Place(machine)
    finally:
        machine.close()


@pytest.fixture(scope="module")
def docker(tmp_path_factory: pytest.TempPathFactory, docker_engine: DockerTestEngine) -> Iterator[Place]:
    machine = DockerMachine(tmp_path_factory.mktemp("interrupt"), docker_engine)
    try:
        yield Place(machine)
    finally:
        machine.close()


def check_phase(phase: str, place: Place) -> None:
    source, argv, begun, told = PHASES[phase]
    place.machine.write("app.py", source)
    with place.begin(SLIPWAY, *argv) as tty:
        tty.until(begun)
        family = place.family()
        code, shown = place.interrupt(tty)
    assert code == 130
    (line,) = [line for line in shown.splitlines() if "interrupted" in line]
    assert told in line
    assert "Traceback" not in shown
    place.check_nothing_left(family)


@pytest.mark.parametrize("phase", PHASES)
def test_a_command_ends_at_once_and_leaves_nothing(phase: str, native: Place) -> None:
    check_phase(phase, native)


@pytest.mark.parametrize("phase", ON_DOCKER)
def test_a_command_ends_at_once_and_leaves_nothing_on_docker(phase: str, docker: Place) -> None:
    check_phase(phase, docker)


@pytest.mark.parametrize(("source", "begun"), [(PROGRAM, "in the worker"), (ASYNC_PROGRAM, "building")])
def test_a_program_of_the_users_own_gets_the_interrupt(source: str, begun: str, native: Place) -> None:
    native.machine.write("program.py", source)
    with native.begin(sys.executable, "program.py") as tty:
        tty.until(begun)
        family = native.family()
        code, shown = native.interrupt(tty)
    assert code == -signal.SIGINT
    assert "the program heard it" in shown and "KeyboardInterrupt" in shown
    native.check_nothing_left(family)


def test_a_call_of_a_deployed_app_is_given_up(native: Place) -> None:
    machine = native.machine
    machine.write("app.py", APP)
    machine.run("apply", "app.py", "--yes")
    now = datetime.now().isoformat()
    try:
        with native.begin(SLIPWAY, "app", "logs", "phases", "--follow", "--since", now) as follower:
            with native.begin(SLIPWAY, "call", "phases.waits") as tty:
                follower.until("in the worker")
                code, shown = native.interrupt(tty)
            assert code == 130 and "interrupted; the call was given up" in shown
            code, shown = native.interrupt(follower)
            assert code == 130 and "interrupted" not in shown and "Traceback" not in shown
        (call,) = json.loads(
            machine.run("call", "list", "--app", "phases", "--function", "waits", "--limit", "1", "--json").out
        )
        machine.run("call", "wait", call["call"], code=1)
    finally:
        machine.run("destroy", "phases", "--yes")


def test_an_engine_that_was_to_end_goes_on_with_all_that_it_has(native: Place) -> None:
    machine = native.machine
    machine.write("app.py", APP)
    machine.run("apply", "app.py", "--yes")
    try:
        machine.run("call", "wait", machine.run("call", "phases.quick", "--spawn").out.strip())
        held = machine.run("call", "phases.waits", "--spawn").out.strip()
        with native.begin(SLIPWAY, "call", "logs", held, "--follow") as follower:
            follower.until("in the worker")
        with native.begin(SLIPWAY, "down") as tty:
            tty.until("Waiting for 1 call to end")
            code, shown = native.interrupt(tty)
        assert code == 130 and "interrupted; the engine goes on" in shown
        later = machine.run("call", "phases.quick", "--spawn").out.strip()
        machine.run("call", "wait", later, "--timeout", "20")
        machine.run("call", "cancel", held)
    finally:
        machine.run("destroy", "phases", "--yes")


def test_a_second_one_ends_what_takes_its_time(native: Place) -> None:
    """The engine is stopped, so that it can't say that the app has ended."""
    native.machine.write("app.py", APP)
    with native.begin(SLIPWAY, "run", "app.py::waits") as tty:
        tty.until("in the worker")
        family = native.family()
        native.engine.suspend()
        try:
            tty.type(CTRL_C)
            tty.until("^C")
            code, shown = native.interrupt(tty)
            assert code == 130 and "Traceback" not in shown
        finally:
            native.engine.resume()
    native.check_nothing_left(family)


def test_an_engine_that_does_not_answer_is_not_waited_for(native: Place) -> None:
    native.machine.write("app.py", APP)
    with native.begin(SLIPWAY, "run", "app.py::waits") as tty:
        tty.until("in the worker")
        family = native.family()
        native.engine.suspend()
        try:
            code, shown = native.interrupt(tty)
            assert code == 130 and "interrupted; phases is being ended" in shown
        finally:
            native.engine.resume()
    native.check_nothing_left(family)


def test_a_program_that_is_killed_takes_its_app_along(native: Place) -> None:
    native.machine.write("app.py", APP)
    process = subprocess.Popen(
        [SLIPWAY, "run", "app.py::waits"],
        cwd=native.machine.folder, env=native.machine.env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    assert process.stdout is not None and process.stdout.readline().endswith(b"in the worker 0\n")
    family = native.family()
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    native.check_nothing_left(family)
